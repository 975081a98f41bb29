"""The run: every workload, one thread and all, and each contender's cold start, memory and size."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from comparison import field, roofline, start, tflite, workloads
from comparison.contenders import Entry, entries
from comparison.networks import NETWORKS
from comparison.processes import WorkerError, cpus
from comparison.records import Line, Records

Log = Callable[[str], None]


class Settings(NamedTuple):
    """What to measure, and how long."""

    workloads: tuple[str, ...]
    plan: field.Plan
    start_rounds: int
    wanted: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def admits(self, entry: Entry) -> bool:
        """Whether a contender is measured, by the beginning of its name."""
        name = entry.name.lower()
        if any(name.startswith(prefix.lower()) for prefix in self.without):
            return False
        return not self.wanted or any(name.startswith(prefix.lower()) for prefix in self.wanted)


def compare(settings: Settings, records: Records, log: Log, keep: Callable[[], None]) -> None:
    """Measure everything into `records`; `keep` is called after each part, to save it."""
    folders = workloads.prepare(settings.workloads, log)
    if reason := tflite.make(folders.values(), log):
        log(reason)
        settings = settings._replace(without=(*settings.without, "LiteRT"))
        for name in settings.workloads:
            records.add("out", workload=name, threads="one", contender="LiteRT", reason=reason)
    peaks: dict[str, dict[str, Any]] = {}
    for threads in ("one", "all"):
        log(f"the machine's limits, {threads} thread{'s' * (threads == 'all')}")
        peaks[threads] = roofline.machine(threads, log)
        records.add("peak", threads=threads, cpus=len(cpus(threads)), **peaks[threads])
    for name, folder in folders.items():
        taking_part = [entry for entry in entries(folder) if settings.admits(entry)]
        with tempfile.TemporaryDirectory() as answers:
            for threads in ("one", "all"):
                _speed(name, folder, threads, taking_part, settings.plan, Path(answers), records, log)
                _limits(name, threads, taking_part, peaks[threads], records, log)
                keep()
            _quality(name, folder, taking_part, Path(answers), records, log)
    _costs(folders, settings, records, log)
    records.add("end")


def _speed(
    name: str,
    folder: Path,
    threads: str,
    taking_part: list[Entry],
    plan: field.Plan,
    answers: Path,
    records: Records,
    log: Log,
) -> None:
    """Check the outputs of all contenders, then time batch by batch."""
    where = {"workload": name, "threads": threads}
    with ExitStack() as stack:
        log(f"{name}, {threads} thread{'s' * (threads == 'all')}: opening and checking")
        workers, out = field.start(taking_part, folder, threads, stack)
        for worker in list(workers):
            try:
                error = field.check(worker, folder, answers / f"{worker.entry.name}.npz")
            except WorkerError as failure:
                out.append((worker.entry, str(failure)))
                workers.remove(worker)
                continue
            records.add("check", **where, contender=worker.entry.name, error=error, exact=worker.entry.exact)
        for entry, reason in out:
            log(f"  {entry.name} is not measured: {reason}")
            records.add("out", **where, contender=entry.name, reason=reason)
        for batch in plan.batches:
            log(f"{name}, {threads} thread{'s' * (threads == 'all')}: batch {batch}")
            for worker, cell in field.measure([w for w in workers if w.entry.batch in (None, batch)], batch, plan):
                if "failed" in cell or cell["seconds"] is None:
                    why = cell.get("failed") or cell["disturbed"]
                    log(f"  {worker.entry.name}, batch {batch}: no time ({why})")
                    records.add("out", **where, contender=worker.entry.name, reason=f"batch {batch}: {why}")
                    continue
                records.add("speed", **where, contender=worker.entry.name, batch=batch, **cell)
            disturbed = [cell for cell in records.of("speed", **where, batch=batch) if cell["disturbed"]]
            if disturbed:
                log(f"  disturbed: {len(disturbed)} of {len(workers)} contenders; {disturbed[-1]['disturbed']}")


def _limits(
    name: str, threads: str, taking_part: list[Entry], peak: dict[str, Any], records: Records, log: Log
) -> None:
    """Roofline shares of aeedge, and of the fastest other contender with the same outputs as torch."""
    loads = {entry.name: entry.loads for entry in taking_part}
    exact = {entry.name for entry in taking_part if entry.exact}
    for rows in roofline.ROWS:
        cells = records.of("speed", workload=name, threads=threads, batch=rows)
        others = [cell for cell in cells if not cell["contender"].startswith("aeedge") and cell["contender"] in exact]
        chosen = [cell for cell in cells if cell["contender"].startswith("aeedge")]
        chosen += [min(others, key=lambda cell: cell["seconds"])] if others else []
        for cell in chosen:
            found = records.add("roofline", **roofline.attained(cell, loads[cell["contender"]], peak))
            log(f"  {found['contender']}, {rows} rows: {found['share']:.0%} of the {found['limit']} limit")


def _quality(name: str, folder: Path, taking_part: list[Entry], answers: Path, records: Records, log: Log) -> None:
    from comparison.quality import Evaluator

    log(f"{name}: quality")
    evaluator = Evaluator(name, folder)
    errors: dict[str, Line] = {line["contender"]: line for line in records.of("check", workload=name)}
    for entry in taking_part:
        path = answers / f"{entry.name}.npz"
        if path.exists() and entry.only == "":
            quality = evaluator.evaluate(entry, path)
            records.add("quality", workload=name, contender=entry.name, error=errors[entry.name]["error"], **quality)


def _costs(folders: dict[str, Path], settings: Settings, records: Records, log: Log) -> None:
    """Cold start, memory and installed size, of the medium-sized workload if it is among them."""
    name = "deep" if "deep" in folders else next(iter(folders))
    taking_part = [entry for entry in entries(folders[name]) if settings.admits(entry) and entry.only == ""]
    log(f"cold start and memory, {name}")
    for line in start.cold_starts(taking_part, folders[name], settings.start_rounds):
        records.add("start", workload=name, **line)
    for entry in taking_part:
        records.add("size", contender=entry.name, **start.installed_size(entry.needs))


ALL = tuple(NETWORKS)
FULL = Settings(ALL, field.Plan((1, 8, 64, 1024, 16384), rounds=5, seconds=0.15), start_rounds=5)
QUICK = Settings(("deep",), field.Plan((1, 64, 1024), rounds=3, seconds=0.04, tries=2), 1, without=("torch compiled",))
