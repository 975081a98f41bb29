"""Fifty kills: workers and drivers of archive jobs get a kill -9 at random moments. Is each result complete?

An archive of large and small files, some of which have a row with NaN, is encoded by the command. A worker that is
killed must be replaced; after a killed driver the command runs again with --resume, at once, while workers of the first
one may still be there. Then the result is compared with that of a run that nobody disturbed:

  same        each result file and each file of rows set aside has the same bytes, and there are no others
  once        each `id` of the archive is in the result or among the rows set aside, exactly once
  done        the command ended well, _SUCCESS is there, nothing is left in the scratch folder, no process is left

Kinds of kills: a worker of local, of Spark (an executor's JVM or a Python worker of it; local-cluster with two of
them), of Ray (two nodes); the driver of each; and the driver of local, and again the one that resumes. The exit code is
1 if one result is wrong. Linux alone, for processes are found in /proc.

    python benchmarks/scale/kills.py [--kind "local driver" ...] [--seed N] [--work FOLDER] [--quick] [--table]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from shared import WIDE, archive, bundle, column, conditions, digests, progress, publish, ray_nodes, show

EPISODES = {
    "local worker": 18,
    "local driver": 16,
    "local driver, twice": 3,
    "spark worker": 4,
    "spark driver": 1,
    "ray worker": 4,
    "ray driver": 1,
}
QUICK = {"local worker": 4, "local driver": 4, "local driver, twice": 1}
FILES = [15_000, *[1_000] * 4] * 12  # rows; small files, so that kills hit commits
HOLES = 7
PATIENCE = 120.0  # seconds for a run
ORPHANS = 15.0  # seconds that processes may take to end after their driver
COMMAND = (sys.executable, "-m", "aeedge")
MARK = "AEEDGE_KILLS"  # an environment variable, by which the processes of a run are found
VICTIMS: dict[str, Callable[[str], bool]] = {
    "local": lambda command: "multiprocessing.spawn" in command and "resource_tracker" not in command,
    "spark": lambda command: "CoarseGrainedExecutorBackend" in command or "pyspark.daemon" in command,
    "ray": lambda command: command.startswith("ray::") and "IDLE" not in command and "Agent" not in command,
}


@dataclass(frozen=True)
class Case:
    """What is encoded, by which engine, and what must come out."""

    model: Path
    source: Path
    engine: str
    address: str
    expected: dict[str, str]
    seconds: float

    def command(self, folder: Path, *options: str) -> list[str]:
        """The command that encodes into a folder."""
        where = {
            "local": ["--workers", "2"],
            "spark": ["--master", "local-cluster[2,1,1024]"],
            "ray": ["--address", self.address],
        }[self.engine]
        return [
            *(*COMMAND, "encode", str(self.model), str(self.source)),
            *("-o", f"{folder / 'out'}/", "--bad-rows", str(folder / "bad"), "--engine", self.engine, *where),
            *("--keep", "id", "--column", column(WIDE) or "", *options),
        ]


@dataclass
class Driver:
    """A command that runs."""

    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, case: Case, folder: Path, *options: str) -> Driver:
        """Start it; its output goes to a log."""
        log = folder / f"driver-{len(list(folder.glob('*.log')))}.log"
        with open(log, "wb") as stream:
            quiet = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
            environment = {**os.environ, **quiet, MARK: str(folder)}
            return cls(
                subprocess.Popen(case.command(folder, *options), stdout=stream, stderr=stream, env=environment), log
            )

    def wait(self) -> int:
        """Its exit code; it is killed where it never ends."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-600:]


def descendants(root: int) -> dict[int, str]:
    """The processes below one, with their commands."""
    parents, commands = {}, {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                stat = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                if stat[0] != "Z":
                    parents[int(entry.name)] = int(stat[1])
                    commands[int(entry.name)] = Path(entry.path, "cmdline").read_text().replace("\0", " ")
    found: dict[int, str] = {}
    waiting = [root]
    while waiting:
        above = waiting.pop()
        below = [pid for pid, parent in parents.items() if parent == above]
        waiting += below
        found |= {pid: commands[pid] for pid in below}
    return found


def marked(folder: Path) -> list[str]:
    """Commands of the processes that a driver of this folder has started, and of itself."""
    found, mark = [], f"{MARK}={folder}".encode()
    for entry in os.scandir("/proc"):
        with suppress(OSError):
            if entry.name.isdigit() and mark in Path(entry.path, "environ").read_bytes().split(b"\0"):
                found.append(Path(entry.path, "cmdline").read_text().replace("\0", " "))
    return found


def victims(case: Case, driver: Driver) -> list[int]:
    """The workers of a driver; Ray's belong to its nodes, which this process has started."""
    root = os.getpid() if case.engine == "ray" else driver.process.pid
    return [pid for pid, command in descendants(root).items() if VICTIMS[case.engine](command)]


def until(condition: Callable[[], object], driver: Driver) -> bool:
    """Wait for something, as long as the driver runs; whether it came."""
    while driver.runs:
        if condition():
            return True
        time.sleep(0.01)
    return False


def hit(case: Case, folder: Path, driver: Driver, rng: random.Random, *, worker: bool) -> dict[str, Any] | None:
    """Kill a worker or the driver at a random moment; None if there was nothing to kill any more."""
    began = folder / "out" / "_aeedge" / "job.json"
    if not until(lambda: victims(case, driver) if worker else began.exists(), driver):
        return None
    time.sleep(rng.uniform(0, 0.95 * case.seconds))
    pids = victims(case, driver) if worker else [driver.process.pid]
    if not pids or not driver.runs:
        return None
    pid = rng.choice(sorted(pids))
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        done = len(list((folder / "out" / "_aeedge" / "parts").glob("*.json")))
        os.kill(pid, signal.SIGKILL)
        return {"parts_done": done, "of": len(FILES), "killed": _kind(command)}
    return None


def _kind(command: str) -> str:
    kinds = {"CoarseGrained": "executor", "pyspark.daemon": "Python worker", "ray::": "Ray worker", "spawn": "process"}
    return next((kind for part, kind in kinds.items() if part in command), "driver")


def episode(case: Case, kind: str, folder: Path, seed: int) -> dict[str, Any]:
    """A run with its kills, and what is wrong with its result; moments are drawn again until a kill hits."""
    rng = random.Random(f"{kind} {seed}")
    is_worker, times = kind.endswith("worker"), 2 if kind.endswith("twice") else 1
    for _ in range(10):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        driver, kills = Driver.start(case, folder), []
        while len(kills) < times:
            kill = hit(case, folder, driver, rng, worker=is_worker)
            if kill is None:
                break
            kills.append(kill)
            if not is_worker:
                driver.process.wait()
                driver = Driver.start(case, folder, "--resume")
        code = driver.wait()
        if len(kills) == times:
            break
    faults = [f"exit code {code}: {driver.last_words()}"] if code else []
    faults += [f"no kill hit in ten tries ({len(kills)} of {times})"] if len(kills) < times else []
    return {"kind": kind, "seed": seed, "kills": kills, "faults": faults + found_faults(case, folder)}


def found_faults(case: Case, folder: Path) -> list[str]:
    """What is wrong with a result."""
    faults, output = [], folder / "out"
    found = results(folder)
    if found != case.expected:
        wrong = sorted(name for name in {*found, *case.expected} if found.get(name) != case.expected.get(name))
        faults.append(f"{len(wrong)} files are missing, other ones, or too many, such as {wrong[0]}")
    ids = np.sort(np.concatenate([*_ids(output), *_ids(folder / "bad"), np.empty(0, np.int64)]))
    if not np.array_equal(ids, np.arange(sum(FILES))):
        faults.append(
            f"{sum(FILES):,} ids were expected once each, there are {len(ids):,}, {len(np.unique(ids)):,} differ"
        )
    if not (output / "_SUCCESS").is_file():
        faults.append("there is no _SUCCESS")
    deadline = time.monotonic() + ORPHANS
    while (left := marked(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    faults += [f"{len(left)} processes are left, such as {left[0][:200]}"] if left else []
    scratch = [path for name in ("out/_aeedge/tmp", "bad/_tmp") for path in folder.glob(f"{name}/*")]
    faults += [f"{len(scratch)} files are left in scratch folders, such as {scratch[0].name}"] if scratch else []
    return faults


def results(folder: Path) -> dict[str, str]:
    """Digests of the result files and of the files with rows set aside."""
    aside = {f"bad/{name}": digest for name, digest in digests(folder / "bad").items()}
    return digests(folder / "out") | aside


def _ids(folder: Path) -> list[Any]:
    return [pq.read_table(path, columns=["id"])["id"].to_numpy() for path in folder.glob("part-*.parquet")]


def undisturbed(case: Case, folder: Path) -> Case:
    """The case with what must come out, and how many seconds a run takes from when kills may begin.

    Raises:
        SystemExit: it fails, or differs from what is expected already.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    driver = Driver.start(case, folder)
    until(lambda: victims(case, driver), driver)
    began = time.monotonic()
    if driver.wait():
        raise SystemExit(f"{case.engine}: the run that nobody disturbs failed: {driver.last_words()}")
    seconds, found = time.monotonic() - began, results(folder)
    if case.expected and found != case.expected:
        raise SystemExit(f"{case.engine}: another result than that of local, without any kill")
    case = Case(case.model, case.source, case.engine, case.address, found, seconds)
    if faults := found_faults(case, folder):
        raise SystemExit(f"{case.engine}, without any kill: {'; '.join(faults)}")
    progress(f"{case.engine}: {len(found)} files of results in {seconds:.1f} s")
    return case


def tables(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Kills and faults by kind, and faults in full."""
    rows = []
    for kind in dict.fromkeys(each["kind"] for each in found):
        own = [each for each in found if each["kind"] == kind]
        kills = [kill for each in own for kill in each["kills"]]
        shares = sorted(kill["parts_done"] / kill["of"] for kill in kills) or [0.0]
        span = f"{shares[0]:.0%} to {shares[-1]:.0%}"
        rows.append([kind, f"{len(kills)}", span, f"{sum(not each['faults'] for each in own)} of {len(own)}"])
    kills = sum(len(each["kills"]) for each in found)
    rows.append(["all", f"{kills}", "", f"{sum(not each['faults'] for each in found)} of {len(found)}"])
    return {"Results after kill -9": (["killed", "kills", "parts done by then", "right results"], rows)}


def main() -> None:
    """Kill, or print the last table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", action="append", choices=list(EPISODES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder for the archive and the results; else a temporary one")
    parser.add_argument("--quick", action="store_true", help="ten kills, of local alone")
    parser.add_argument("--table", action="store_true", help="print the table of the last run")
    options = parser.parse_args()
    name = "kills-quick" if options.quick or options.kind else "kills"
    if options.table:
        return show("kills")
    chosen = {
        kind: count
        for kind, count in (QUICK if options.quick else EPISODES).items()
        if not options.kind or kind in options.kind
    }
    with tempfile.TemporaryDirectory(prefix="aeedge-kills-", dir=options.work) as work:
        found = list(episodes(chosen, Path(work), options.seed))
    result = {"seed": options.seed, "files": len(FILES), "rows": sum(FILES), **conditions("pyspark", "ray")}
    publish(name, {**result, "episodes": found}, tables(found))
    wrong = [f"{each['kind']}, seed {each['seed']}: {fault}" for each in found for fault in each["faults"]]
    if wrong:
        raise SystemExit("\n".join(["", "WRONG RESULTS:", *wrong]))
    return None


def episodes(chosen: dict[str, int], work: Path, seed: int) -> Iterator[dict[str, Any]]:
    """All episodes, engine by engine."""
    model = bundle(WIDE, work)
    source = archive(WIDE, work / "archive", FILES, 5_000, holes=HOLES)
    engines = dict.fromkeys(["local", *(kind.split()[0] for kind in chosen)])
    expected: dict[str, str] = {}
    for engine in engines:
        with ray_nodes() if engine == "ray" else nullcontext("") as address:
            case = undisturbed(Case(model, source, engine, address, expected, 0.0), work / engine)
            expected = case.expected
            for kind in (kind for kind in chosen if kind.split()[0] == engine):
                for number in range(chosen[kind]):
                    each = episode(case, kind, work / f"{engine}-run", seed + number)
                    progress(f"{kind} {number + 1} of {chosen[kind]}: {'; '.join(each['faults']) or 'right'}")
                    yield each


if __name__ == "__main__":
    main()
