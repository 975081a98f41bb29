"""The engine that Spark is: a job with a task for each part, whose outcomes come in an accumulator while it runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any

from aeedge.archive.packing import Packed
from aeedge.archive.parts import Part
from aeedge.archive.shipping import PATIENCE, arrived, raised, sent, shipped, unreachable
from aeedge.archive.work import TRIES, Outcome, Task, gave_up
from aeedge.errors import AeedgeError, InputError, printable

_OLDEST_JAVA = 17
_POLL, _WATCH = 0.1, 1.0  # seconds between looks at outcomes, and at whether anything is done at all
_FAILED = re.compile(r"Task (\d+)(?:\.\d+)? in stage \S+ failed (\d+) times")
_LOST = re.compile(r"Lost task \S+ in stage \S+ \(TID \d+\) \((.*?)\): (.*)")
_OTHER_PYTHON = re.compile(r"different version:? ?\(?'?([\d.]+).*?in driver:? ?\(?'?([\d.]+\d)", re.DOTALL)
_NO_PYTHON = re.compile(r'Cannot run program "([^"]+)"')


class SparkEngine:
    """Spark: the session of this process if there is one, which is left running, else one that ends with the run.

    Args:
        master: URL of a cluster; None for the session that there is, what Spark is configured for, or this machine.
        workers: how many parts are done beside each other, on this machine; None for its CPUs.
        patience: seconds after which a cluster that does nothing has no workers.

    Raises:
        InputError: pyspark or Java is missing, the master does not answer, options that do not fit each other.
    """

    name = "spark"

    def __init__(self, master: str | None = None, workers: int | None = None, *, patience: float = PATIENCE) -> None:
        running = _running()
        if running is not None and master not in (None, running.master):
            raise InputError(
                f"master: Spark runs on {running.master} already, got {master!r}; leave it out, or stop it"
            )
        if workers is not None and (running is not None or master is not None):
            where = master or running.master
            raise InputError(f"workers: are those of {where}; leave it out, or give local[{workers}] as the master")
        if running is None:
            _check_master(master or os.environ.get("SPARK_REMOTE", ""))
            _check_java()
        self._master = master if workers is None else f"local[{workers},{TRIES}]"
        self._patience = patience
        self._context: Any = None
        self._is_own = False
        self._workers = 0

    @property
    def workers(self) -> int:
        """How many parts are done beside each other, as far as Spark knows."""
        if not self._workers:
            self._connect()
        return self._workers

    def run(self, task: Task, parts: Sequence[Part], bundle: Packed) -> Generator[Outcome, None, None]:
        """The outcomes as they come; see `Engine`."""
        context = self._connect()
        rest, tries = {part.number: part for part in parts}, Counter[int]()
        data = context.broadcast(bundle.data)
        try:
            while rest:  # a part whose worker always ends takes the job along: the others are done by another one
                part, count, reason = yield from self._job(context, task, rest, bundle, data)
                if part is None:
                    return
                tries[part.number] += count
                if tries[part.number] >= TRIES:
                    del rest[part.number]
                    yield gave_up(part, reason, tries[part.number])
        finally:
            with suppress(Exception):  # Spark has ended
                data.destroy()
            self._disconnect()

    def _job(
        self, context: Any, task: Task, rest: dict[int, Part], bundle: Packed, data: Any
    ) -> Generator[Outcome, None, tuple[Part | None, int, str]]:
        """Do parts, each of which leaves `rest` when it is done.

        Returns:
            A part that failed the job, how often it was tried, and why it failed.
        """
        from pyspark import InheritableThread
        from pyspark.accumulators import AddingAccumulatorParam

        parts, group, errors = list(rest.values()), f"aeedge-{uuid.uuid4()}", list[Exception]()
        replies = context.accumulator([], AddingAccumulatorParam([]))
        work = shipped(task, bundle)

        def do(part: Any) -> None:
            replies.add([work(part, lambda: data.value)])

        def run() -> None:
            try:
                context.setJobGroup(group, f"aeedge: {len(parts)} parts", interruptOnCancel=True)
                context.parallelize(list(map(sent, parts)), len(parts)).foreach(do)
            except Exception as error:
                errors.append(error)

        thread = InheritableThread(target=run, daemon=True)
        thread.start()
        try:
            watch = _Watch(context, group, self._patience)
            while True:
                is_last, found = not thread.is_alive(), replies.value[:]
                del replies.value[: len(found)]  # what is added meanwhile stays
                for reply in found:
                    rest.pop(reply[0], None)
                    yield arrived(reply)
                if is_last:
                    break
                watch.look(bool(found))
                thread.join(_POLL)
        finally:
            while thread.is_alive():  # also where the job was only about to start
                with suppress(Exception):
                    context.cancelJobGroup(group)
                thread.join(_POLL)
        return _failure(str(errors[0]), parts, context.master) if errors else (None, 0, "")

    def _connect(self) -> Any:
        """The context to use."""
        if self._context is None:
            running = _running()
            self._is_own = running is None
            self._context = _started(self._master) if running is None else running
            try:
                self._workers = self._context.defaultParallelism
            except Exception as error:  # the session of the user is there, its Java is not
                raise InputError(f"engine: Spark has ended ({_first(error)}); stop its session") from None
        return self._context

    def _disconnect(self) -> None:
        """Stop what was started here."""
        context, self._context = self._context, None
        with suppress(Exception):
            self._workers = context.defaultParallelism  # of executors that came later, too
            if self._is_own:
                context.stop()


class _Watch:
    """Sees whether a job goes on."""

    def __init__(self, context: Any, group: str, patience: float) -> None:
        self._context, self._group, self._patience = context, group, patience
        self._alive = self._looked = time.monotonic()

    def look(self, is_alive: bool) -> None:
        """Look from time to time.

        Raises:
            InputError: no task has run for too long.
        """
        now = time.monotonic()
        if is_alive:
            self._alive = now
        if is_alive or now - self._looked < _WATCH:
            return
        self._looked = now
        if self._is_active():
            self._alive = now
        if now - self._alive > self._patience:
            raise InputError(
                f"Spark: no worker of {self._context.master} took a part for {self._patience:g} s; are workers running "
                "that have a core and the memory for an executor free?"
            )

    def _is_active(self) -> bool:
        tracker = self._context.statusTracker()
        jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(self._group)]
        stages = [tracker.getStageInfo(stage) for job in jobs if job for stage in job.stageIds]
        return any(stage.numActiveTasks for stage in stages if stage)


def _running() -> Any:
    """The context that this process has, None without one.

    Raises:
        InputError: pyspark is not installed.
    """
    try:
        from pyspark import SparkContext
    except ModuleNotFoundError:
        raise InputError("engine: Spark needs pyspark, which is not installed; pip install 'aeedge[spark]'") from None
    return SparkContext._active_spark_context


def _started(master: str | None) -> Any:
    """A context of our own.

    Raises:
        InputError: Spark does not start.
    """
    from pyspark import SparkConf, SparkContext

    conf = SparkConf().setAppName("aeedge").set("spark.ui.showConsoleProgress", "false")  # the command has its own
    try:
        context = SparkContext(conf=conf if master is None else conf.setMaster(master))
    except Exception as error:
        raise InputError(
            f"master: Spark does not start on {master or 'what is configured'} ({_first(error)})"
        ) from None
    context.setLogLevel("ERROR")
    if context.master.startswith("local") and "PYSPARK_PYTHON" not in os.environ:
        context.pythonExec = sys.executable  # the one that has aeedge; on other machines it may be elsewhere
    return context


def _check_master(master: str) -> None:
    """See whether a cluster answers.

    Raises:
        InputError: it does not.
    """
    known = "expected a cluster (spark://HOST:PORT, yarn, k8s://URL, local[2])"
    if master.startswith("sc://"):
        raise InputError(f"master: {known}, got Spark Connect; give the cluster behind it")
    if master and not master.startswith(("spark://", "k8s://", "local")) and master != "yarn":
        raise InputError(f"master: {known}, got {master!r}")
    if master == "yarn" and not os.environ.get("HADOOP_CONF_DIR") and not os.environ.get("YARN_CONF_DIR"):
        raise InputError("master: YARN is found by its settings; set HADOOP_CONF_DIR or YARN_CONF_DIR to their folder")
    if not master.startswith("spark://"):
        return
    reason = unreachable(master.removeprefix("spark://").split(","))
    if reason is not None:
        raise InputError(f"master: {master} does not answer ({reason}); is it running, and is its port right?")


def _check_java() -> None:
    """See whether Spark can start here: its own message is a page.

    Raises:
        InputError: no Java, or one that is too old.
    """
    from pyspark import SparkContext

    if SparkContext._gateway is not None or "PYSPARK_GATEWAY_PORT" in os.environ:  # it has started us
        return
    home = os.environ.get("JAVA_HOME")
    program = os.path.join(home, "bin", "java") if home else shutil.which("java")
    wanted = f"Spark needs Java {_OLDEST_JAVA} or newer"
    advice = f"install it (on Debian: apt install openjdk-{_OLDEST_JAVA}-jre-headless), or set JAVA_HOME"
    if program is None:
        raise InputError(f"engine: {wanted}, there is none on the PATH; {advice}")
    try:
        said = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=60).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"engine: {wanted}, {program} does not start ({error}); {advice}") from None
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    if found is None or int(found[1]) < _OLDEST_JAVA:
        version = found[1] if found else printable(said.strip())
        raise InputError(f"engine: {wanted}, {program} is {version}; {advice}")


def _failure(text: str, parts: Sequence[Part], master: str) -> tuple[Part | None, int, str]:
    """The part whose task failed a job, how often it did, and why.

    Raises:
        InputError: the workers cannot do any part.
        AeedgeError: Spark has ended.
    """
    if found := _OTHER_PYTHON.search(text):
        raise InputError(
            f"Spark: workers of {master} have Python {found[1]}, expected {found[2]} as here; set PYSPARK_PYTHON to "
            "such a Python of the workers"
        )
    if found := _NO_PYTHON.search(text):
        raise InputError(
            f"Spark: workers of {master} cannot start {printable(found[1])}; set PYSPARK_PYTHON to a Python of the "
            "workers that has aeedge"
        )
    failed, lost, error = _FAILED.search(text), _LOST.search(text), raised(text)
    if error is not None:  # a task raised it
        part = next(part for part in parts if part.number == error[0])
        return part, int(failed[2]) if failed else TRIES, printable(error[1], 200)
    if failed is None:
        raise AeedgeError(f"Spark: {master} ended before all was done ({_first(text)}); is its master still there?")
    where, why = lost.groups() if lost else ("", "unknown")
    return parts[int(failed[1])], int(failed[2]), f"{where}: {_first(why)}"


def _first(error: Exception | str) -> str:
    """The line of Java's or Python's many that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = (
        [line.partition(". Consider")[0] for line in lines if re.match(r"(: )?[\w.]+(Exception|Error)\b", line)]
        or lines
        or ["no reason given"]
    )
    return printable(re.sub(r"^(: )?([\w]+\.)+", "", told[0]), 200)
