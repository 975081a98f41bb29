"""What do 10^9 and 10^12 rows cost, and when does storage become the limit? A plan from unit costs measured here.

Measured, as seconds of one core, on rows of 640 values and on a table of 60 columns: decoding Parquet that is in
memory, encoding and scoring, writing the result; a whole part as a worker does it, large and small, from which follow
the costs of a row and of a part; what the driver takes for a part; how much the times of equal parts differ. The bytes
of a row are those of the files. How fast storage is elsewhere cannot be measured here: 1, 10 and 100 GB/s for all
workers together, and CONNECTION for one, are assumptions.

    python benchmarks/scale/plan.py [--work FOLDER] [--quick] [--table]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from shared import (
    TABLE,
    WIDE,
    archive,
    bundle,
    column,
    conditions,
    digests,
    dispatch,
    duration,
    forget,
    progress,
    publish,
    show,
    size,
)

import aeedge
from aeedge.archive.local import LocalEngine
from aeedge.archive.packing import pack
from aeedge.archive.parts import PART_ROWS, Part, plan
from aeedge.archive.storage import files, place
from aeedge.archive.task import EncodeTask, Settings

OUTPUTS = ("latent", "score")
BATCH_ROWS = 2**16
JOBS = (10**9, 10**12)
CORES = {10**9: (2, 16, 128), 10**12: (128, 1024, 10_240)}
STORAGE = (1e9, 10e9, 100e9)  # bytes a second of all workers together; assumed
CONNECTION = 80e6  # bytes a second of one connection to an object store; assumed
FULL = {"rows": {WIDE: 400_000, TABLE: 1_000_000}, "small": 100, "rounds": 5, "null_parts": 2_000}
QUICK = {"rows": {WIDE: 60_000, TABLE: 100_000}, "small": 30, "rounds": 2, "null_parts": 300}
SMALL_ROWS, SPREAD_PARTS = 100, 14


def core_seconds(call: Callable[[], object], rounds: int) -> float:
    """Median CPU time of this process and its threads."""
    found = []
    for _ in range(rounds):
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return statistics.median(found)


def steps(kind: str, model_path: Path, source: Path, rounds: int) -> dict[str, float]:
    """Seconds of a core for a row, by step, on batches that are in memory; bytes a second of the disk here."""
    path = next(iter(sorted(source.glob("*.parquet"))))
    forget(source)
    began = time.perf_counter()
    data = pa.py_buffer(path.read_bytes())
    disk = data.size / (time.perf_counter() - began)
    with aeedge.load(model_path, threads=1) as model:
        encoder = Settings(OUTPUTS, ("id",), column(kind)).encoder(model)
        needed = encoder.columns(pq.ParquetFile(pa.BufferReader(data)).schema_arrow)

        def decode() -> int:
            file = pq.ParquetFile(pa.BufferReader(data))
            return sum(batch.num_rows for batch in file.iter_batches(BATCH_ROWS, columns=needed))

        rows = decode()
        batch = next(pq.ParquetFile(pa.BufferReader(data)).iter_batches(BATCH_ROWS, columns=needed))
        result = encoder(batch)
        times = -(-rows // batch.num_rows)  # no more than one batch is in memory at a time, as in a worker

        def write() -> None:
            with pq.ParquetWriter(pa.BufferOutputStream(), result.schema, compression="zstd") as writer:
                for _ in range(times):
                    writer.write_batch(result)

        found = {
            "decode": core_seconds(decode, rounds) / rows,
            "encode": core_seconds(lambda: [encoder(batch) for _ in range(times)], rounds) / (times * batch.num_rows),
            "write": core_seconds(write, rounds) / (times * batch.num_rows),
        }
    return found | {"disk_bytes_per_second": disk}


def task_for(kind: str, model_path: Path, output: Path) -> EncodeTask:
    """As a job makes it."""
    with aeedge.load(model_path) as model:
        settings = Settings(OUTPUTS, ("id",), column(kind))
        return EncodeTask("benchmark", model.manifest.id, settings, place(str(output)), None)


def parts_of(source: Path) -> list[Part]:
    """As a job cuts them."""
    return plan(files([str(source)], []), lambda schema: None).parts


def whole_parts(kind: str, model_path: Path, large: Path, small: Path, work: Path, rounds: int) -> dict[str, float]:
    """Seconds of a core for a row and for a part, from large and small parts, all steps and the commit among them; and
    seconds that a small part takes by the clock, the disk's among them.
    """
    task = task_for(kind, model_path, work / "out")
    big, little = parts_of(large), parts_of(small)

    def run(parts: Sequence[Part]) -> None:
        for part in parts:
            outcome = task(part, str(model_path))
            if outcome.error:
                raise SystemExit(outcome.error)

    run(little[:1])  # the model is loaded
    one = core_seconds(lambda: run(little), rounds) / len(little)
    many = core_seconds(lambda: run(big), rounds) / len(big)
    row = (many - one) / (big[0].rows - little[0].rows)
    began = time.perf_counter()
    run(little)
    wall = (time.perf_counter() - began) / len(little)
    return {"row_seconds": row, "part_core_seconds": one - row * little[0].rows, "part_seconds": wall}


def spread(kind: str, model_path: Path, source: Path, work: Path) -> float:
    """Standard deviation of the logarithms of the seconds that equal parts take, two workers beside each other."""
    task, parts = task_for(kind, model_path, work / "spread"), parts_of(source)
    found = [each.seconds for each in LocalEngine(2).run(task, parts, pack(model_path)) if not each.error]
    return float(np.log(found[2:]).std())  # the first one of each worker loads the model


def measured(kind: str, work: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """All unit costs of one kind of rows."""
    progress(f"{kind}: bundle and archive")
    model, rows, rounds = bundle(kind, work), settings["rows"][kind], settings["rounds"]
    large = archive(kind, work / f"{kind} large", [rows])
    small = archive(kind, work / f"{kind} small", [SMALL_ROWS] * settings["small"])
    equal = archive(kind, work / f"{kind} equal", [rows // 10] * SPREAD_PARTS)
    progress(f"{kind}: steps")
    found: dict[str, Any] = {"step_seconds": steps(kind, model, large, rounds)}
    disk = found["step_seconds"].pop("disk_bytes_per_second")
    progress(f"{kind}: whole parts")
    output = work / f"{kind} results"
    found |= whole_parts(kind, model, large, small, output, rounds)
    progress(f"{kind}: equal parts")
    found["spread"] = spread(kind, model, equal, output)
    whole = task_for(kind, model, output / "size")
    whole(parts_of(large)[0], str(model))
    assert digests(output / "size")
    return (
        found
        | {
            "bytes_in": size(large) / rows,
            "bytes_out": size(output / "size") / rows,
            "disk_bytes_per_second": disk,
        }
        | dispatch(LocalEngine(2), model, settings["null_parts"])
    )


def planned(costs: dict[str, Any], rows: int) -> dict[str, Any]:
    """Work, bytes and parts of a job, how long it takes on cores, and what storage allows."""
    parts = -(-rows // PART_ROWS)
    seconds = rows * costs["row_seconds"] + parts * costs["part_seconds"]
    moved = rows * (costs["bytes_in"] + costs["bytes_out"])
    return {
        "rows": rows,
        "parts": parts,
        "core_hours": seconds / 3600,
        "bytes_read": rows * costs["bytes_in"],
        "bytes_written": rows * costs["bytes_out"],
        "driver_seconds": parts * costs["dispatch_seconds"],
        "hours_on_cores": {cores: seconds / cores / 3600 for cores in CORES[rows]},
        "storage": [
            {"bytes_per_second": speed, "hours": moved / speed / 3600, "cores": seconds / (moved / speed)}
            for speed in STORAGE
        ],
    }


def tables(costs: dict[str, dict[str, Any]], jobs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Unit costs, the plan, and where storage is the limit."""
    units = {
        "decode Parquet, µs a row": lambda each: f"{1e6 * each['step_seconds']['decode']:.3g}",
        "encode and score, µs a row": lambda each: f"{1e6 * each['step_seconds']['encode']:.3g}",
        "write the result, µs a row": lambda each: f"{1e6 * each['step_seconds']['write']:.3g}",
        "a worker's whole work, µs a row": lambda each: f"{1e6 * each['row_seconds']:.3g}",
        "rows a second of a core": lambda each: f"{1 / each['row_seconds']:,.0f}",
        "and for each part, ms (with waiting for the disk)": lambda each: f"{1e3 * each['part_seconds']:.3g}",
        "until processes have started, s": lambda each: f"{each['start_seconds']:.2g}",
        "the driver, ms a part": lambda each: f"{1e3 * each['dispatch_seconds']:.2g}",
        "bytes read a row": lambda each: f"{each['bytes_in']:,.0f}",
        "bytes written a row": lambda each: f"{each['bytes_out']:,.1f}",
        "a core reads, MB/s": lambda each: f"{each['bytes_in'] / each['row_seconds'] / 1e6:,.0f}",
        "connections that one core keeps busy": lambda each: connections(each),
        "spread of equal parts": lambda each: f"{each['spread']:.2f}",
    }
    unit_rows = [[name, *(text(each) for each in costs.values())] for name, text in units.items()]
    plan_rows = [
        [
            kind,
            f"10^{len(str(job['rows'])) - 1}",
            f"{job['parts']:,}",
            f"{job['core_hours']:,.3g}",
            amount(job["bytes_read"]),
            amount(job["bytes_written"]),
            ", ".join(f"{cores:,}: {duration(3600 * hours)}" for cores, hours in job["hours_on_cores"].items()),
            duration(job["driver_seconds"]),
        ]
        for kind, own in jobs.items()
        for job in own
    ]
    limit_rows = [
        [kind, f"{limit['bytes_per_second'] / 1e9:g} GB/s", f"{limit['cores']:,.0f}"]
        + [duration(3600 * job["storage"][i]["hours"]) for job in own]
        for kind, own in jobs.items()
        for i, limit in enumerate(own[0]["storage"])
    ]
    head = ["", "rows", "parts", "core hours", "read", "written", "time on cores", "the driver's share"]
    return {
        "Unit costs of one core": (["", *costs], unit_rows),
        "The plan, as long as storage is fast enough": (head, plan_rows),
        "More cores than these do not help (storage speeds are assumed)": (
            ["", "storage", "cores", "10^9 rows take", "10^12 rows take"],
            limit_rows,
        ),
    }


def connections(costs: dict[str, Any]) -> str:
    """How many connections of the assumed speed feed a core."""
    return f"{costs['bytes_in'] / costs['row_seconds'] / CONNECTION:.2g}"


def amount(count: float) -> str:
    """Bytes, for people."""
    for name, unit in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count / 1e6:.3g} MB"


def main() -> None:
    """Measure and plan, or print the last plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for archives and results; else a temporary one")
    parser.add_argument("--quick", action="store_true", help="fewer rows")
    parser.add_argument("--table", action="store_true", help="print the tables of the last run")
    options = parser.parse_args()
    name = "plan-quick" if options.quick else "plan"
    if options.table:
        return show(name)
    stated = conditions()
    with tempfile.TemporaryDirectory(prefix="aeedge-plan-", dir=options.work) as work:
        settings = QUICK if options.quick else FULL
        costs = {kind: measured(kind, Path(work), settings) for kind in (WIDE, TABLE)}
    jobs = {kind: [planned(each, rows) for rows in JOBS] for kind, each in costs.items()}
    assumed = {"storage_bytes_per_second": STORAGE, "connection_bytes_per_second": CONNECTION}
    result = {**stated, "assumed": assumed, "costs": costs, "plan": jobs, "simulation": costs[WIDE]}
    publish(name, result, tables(costs, jobs))
    return None


if __name__ == "__main__":
    main()
