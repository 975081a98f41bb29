"""The engine that Ray is: a task for each part, some more of them in flight than there are CPUs."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from aeedge.archive.packing import Packed
from aeedge.archive.parts import Part
from aeedge.archive.shipping import PATIENCE, Reply, arrived, raised, sent, shipped, unreachable
from aeedge.archive.work import TRIES, Outcome, Task, gave_up
from aeedge.errors import InputError, printable
from aeedge.system.limits import thread_count

_HEALTH = 30.0  # seconds for a cluster to say that it is one
_LOOK = 2.0  # seconds between looks at the cluster
_SPARE = 2  # parts in flight for each CPU: the next one waits at the worker


class RayEngine:
    """Ray: the cluster that this process is connected to if it is, and stays so, else one for the run.

    Args:
        address: of a cluster, or "auto" for one that runs on this machine; None for RAY_ADDRESS, else a new one here.
        workers: how many parts are done beside each other, on this machine; None for the CPUs that this process may
            use.
        patience: seconds after which a cluster that does nothing has no workers.

    Raises:
        InputError: ray is not installed, options that do not fit each other.
    """

    name = "ray"

    def __init__(self, address: str | None = None, workers: int | None = None, *, patience: float = PATIENCE) -> None:
        ray = _ray()
        if workers is not None and (address is not None or ray.is_initialized()):
            raise InputError(f"workers: are those of the cluster {address or 'that is in use'}; leave it out")
        if address not in (None, "auto") and ray.is_initialized():
            running = ray.get_runtime_context().gcs_address
            if address != running:
                raise InputError(f"address: this process is connected to {running}, got {address!r}; leave it out")
        self._address, self._wanted, self._patience = address, workers, patience
        self._ray: Any = None
        self._is_own = False
        self._workers = 0

    @property
    def workers(self) -> int:
        """How many parts are done beside each other: the CPUs of the cluster."""
        if not self._workers:
            self._connect()
        return self._workers

    def run(self, task: Task, parts: Sequence[Part], bundle: Packed) -> Generator[Outcome, None, None]:
        """The outcomes as they come; see `Engine`."""
        ray = self._connect()
        try:
            self._wait_for_workers(ray)
            yield from self._run(ray, task, parts, bundle)
        finally:
            self._disconnect()

    def _run(self, ray: Any, task: Task, parts: Sequence[Part], bundle: Packed) -> Generator[Outcome, None, None]:
        # What Ray itself tries again has no limit where memory is short: tries are counted here.
        work = ray.remote(num_cpus=1, max_retries=0)(_worker(shipped(task, bundle)))
        data = [ray.put(bundle.data)]  # in a list: fetched where it is needed
        waiting, tries, flying = deque(parts), Counter[int](), dict[Any, Part]()
        watch = _Watch(ray, self._patience)
        try:
            while waiting or flying:
                self._workers = max(self._workers, watch.cpus)
                while waiting and len(flying) < _SPARE * (watch.cpus + 1):
                    part = waiting.popleft()
                    flying[work.remote(sent(part), data)] = part
                done, _ = ray.wait(list(flying), num_returns=len(flying), timeout=0)
                if not done:
                    done, _ = ray.wait(list(flying), num_returns=1, timeout=_LOOK)
                watch.look(bool(done))
                for each in done:
                    part = flying.pop(each)
                    outcome, reason = _outcome(ray, each)
                    if outcome is None:
                        tries[part.number] += 1
                        if tries[part.number] < TRIES:
                            waiting.appendleft(part)
                            continue
                        outcome = gave_up(part, reason)
                    yield outcome
        finally:
            for each in flying:
                with suppress(Exception):
                    ray.cancel(each, force=True)

    def _connect(self) -> Any:
        """Ray, connected."""
        if self._ray is None:
            ray = _ray()
            self._is_own = not ray.is_initialized()
            if self._is_own:
                _start(ray, self._address, self._wanted)
            self._ray, self._workers = ray, _cpus(ray)
        return self._ray

    def _disconnect(self) -> None:
        """End what was started here."""
        ray, self._ray = self._ray, None
        if self._is_own:
            ray.shutdown()

    def _wait_for_workers(self, ray: Any) -> None:
        """See that a worker takes a task.

        Raises:
            InputError: none does.
        """
        hello = ray.remote(num_cpus=1, max_retries=TRIES)(lambda: None).remote()
        try:
            ray.get(hello, timeout=self._patience)
        except ray.exceptions.GetTimeoutError:
            ray.cancel(hello, force=True)
            raise InputError(_no_worker(self._patience)) from None
        except ray.exceptions.RayError as error:
            raise InputError(f"Ray: workers do not start ({_reason(error)})") from None


class _Watch:
    """Sees whether a cluster still has CPUs.

    Attributes:
        cpus: how many there are.
    """

    def __init__(self, ray: Any, patience: float) -> None:
        self._ray, self._patience = ray, patience
        self._alive = self._looked = time.monotonic()
        self.cpus = _cpus(ray)

    def look(self, is_alive: bool) -> None:
        """Look from time to time.

        Raises:
            InputError: there have been none for too long.
        """
        now = time.monotonic()
        if now - self._looked >= _LOOK:
            self.cpus, self._looked = _cpus(self._ray), now
        if is_alive or self.cpus:
            self._alive = now
        if now - self._alive > self._patience:
            raise InputError(_no_worker(self._patience))


def _worker(work: Any) -> Any:
    """The function that runs there: nothing of this module is needed to unpickle it."""

    def do(part: Any, data: Any) -> Any:
        import ray

        return work(part, lambda: ray.get(data[0]))

    return do


def _outcome(ray: Any, reference: Any) -> tuple[Outcome | None, str]:
    """What became of a task that is done; nothing, and why, where its worker ended."""
    try:
        reply: Reply = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        found = raised(str(error))
        return None, printable(found[1], 200) if found else _reason(error)
    except ray.exceptions.RayError as error:  # a worker or a node ended, or was ended for its memory
        return None, _reason(error)
    return arrived(reply), ""


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked for reports to its makers
    try:
        import ray
    except ModuleNotFoundError:
        raise InputError("engine: Ray needs ray, which is not installed; pip install 'aeedge[ray]'") from None
    return ray


def _start(ray: Any, address: str | None, workers: int | None) -> None:
    """Connect to a cluster, or start one.

    Raises:
        InputError: it does not answer, or has another Python or Ray.
    """
    found = address or (None if workers else os.environ.get("RAY_ADDRESS")) or "local"
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if found == "local":
        options |= {"num_cpus": workers or thread_count("auto"), "include_dashboard": False}
    else:
        _check_address(found)
    try:
        with sigterm_kept():
            ray.init(found, **options)
    except Exception as error:
        raise InputError(f"address: Ray does not start at {found} ({_reason(error)})") from None


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself, when it starts; whoever has called us may have a way of his own to end."""
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if is_main and before is not None:
            signal.signal(signal.SIGTERM, before)


def _check_address(address: str) -> None:
    """See whether a cluster answers: to connect to something else has no end.

    Raises:
        InputError: it does not.
    """
    wrong = "is the cluster running, and is its port right (6379, unless it was started with another)?"
    reason = None if address == "auto" else unreachable([address.removeprefix("ray://")])
    if reason is not None:
        raise InputError(f"address: {address} does not answer ({reason}); {wrong}")
    if address.startswith("ray://"):  # which gives up in time
        return
    check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--skip-version-check"]
    check += [] if address == "auto" else ["--address", address]
    try:
        said = subprocess.run(check, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_HEALTH)
    except subprocess.TimeoutExpired:
        said = None
    if said is not None and said.returncode == 0:
        return
    if said is not None and "AuthToken" in said.stderr:
        raise InputError(
            f"address: {address} wants another token; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to its own"
        )
    what = "no Ray runs on this machine" if address == "auto" else f"{address} is no Ray cluster"
    raise InputError(f"address: {what}; {wrong}")


def _cpus(ray: Any) -> int:
    return int(ray.cluster_resources().get("CPU", 0))


def _no_worker(patience: float) -> str:
    return f"Ray: no worker of the cluster took a part for {patience:g} s; does it have nodes with a CPU free?"


def _reason(error: Exception) -> str:
    """What happened, in a line."""
    return printable(f"{type(error).__name__}: {' '.join(str(error).split())}", 300)
