"""What do Spark and Ray cost beside processes on one machine, for the same work, and do they compute the same?

Archives of rows with 640 values (a list in Parquet) and of a table with 60 columns, a million rows a part, are encoded
and scored by aeedge's engines: local with one and with two processes, Spark on a local-cluster with two executors of
one core, Ray on two nodes of one CPU. All write complete results to the same disk. Every round runs each contender
once, in shuffled order; local with two processes runs twice, which shows the noise. Ratios are taken within rounds,
medians of them are given. Files stay in the system's cache: what is compared are engines, not disks.

Efficiency is the time of local with two processes over that of the engine; overhead is the difference for each million
rows. Sessions and nodes are started before, which is timed apart. The first run compares: the result files of all
engines have the same bytes, and their latents are those of one process, int8 to the bit. Any other outcome ends the
run.

    python benchmarks/scale/engines.py [--work FOLDER] [--seed N] [--quick] [--table]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
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
    progress,
    publish,
    ray_nodes,
    show,
    values,
)

import aeedge
from aeedge.archive.engines import make_engine
from aeedge.archive.job import encode_archive
from aeedge.archive.work import Engine

OUTPUTS = ("latent", "score")
PEER, AGAIN = "local, 2 processes", "local, 2 processes, again"
EFFICIENCY = 0.9  # of Spark and Ray, wanted
TOLERANCE = 1e-4  # of fp32, relative to the largest latent


class Size(NamedTuple):
    """Files, rows of each, seconds for all rounds, and how many rounds at least."""

    files: int
    rows: int
    seconds: float
    rounds: int


FULL = {WIDE: Size(4, 1_000_000, 170, 2), TABLE: Size(8, 1_000_000, 80, 3)}
QUICK = {WIDE: Size(2, 60_000, 5, 2), TABLE: Size(2, 200_000, 5, 2)}
CHECK = Size(4, 20_000, 0, 1)
EMPTY = 300  # parts without work


@contextmanager
def spark_session() -> Iterator[None]:
    """Spark with two executors of one core on this machine, ready for work."""
    os.environ |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    from pyspark import SparkConf, SparkContext

    conf = SparkConf().setMaster("local-cluster[2,1,1024]").setAppName("benchmark")
    for name, value in {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.executor.memory": "512m",
    }.items():
        conf.set(name, value)
    context = SparkContext(conf=conf)
    context.setLogLevel("ERROR")
    try:
        assert context.parallelize(range(2), 2).map(lambda i: i).collect() == [0, 1]
        yield
    finally:
        context.stop()


@contextmanager
def ray_session() -> Iterator[None]:
    """Ray with two nodes of one CPU on this machine, ready for work."""
    with ray_nodes() as address:
        import ray

        ray.init(address, log_to_driver=False, logging_level="error")
        try:
            hello = ray.remote(num_cpus=1)(lambda: None)
            ray.get([hello.remote() for _ in range(2)])
            yield
        finally:
            ray.shutdown()


def contenders() -> dict[str, Engine]:
    """The engines by name."""
    return {
        "local, 1 process": make_engine("local", workers=1),
        PEER: make_engine("local", workers=2),
        AGAIN: make_engine("local", workers=2),
        "Spark, 2 executors": make_engine("spark"),
        "Ray, 2 nodes": make_engine("ray"),
    }


def run(kind: str, model: Path, source: Path, output: Path, engine: Engine, variant: str = "fp32") -> float:
    """Encode and score an archive into a new folder; seconds."""
    shutil.rmtree(output, ignore_errors=True)
    began = time.perf_counter()
    report = encode_archive(
        model, [source], output, outputs=OUTPUTS, keep=("id",), column=column(kind), variant=variant, engine=engine
    )
    seconds = time.perf_counter() - began
    if set(report.variants) != {variant}:
        raise SystemExit(f"{engine.name}: {report.variants} ran instead of {variant}")
    return seconds


def check(kind: str, variant: str, work: Path, engines: dict[str, Engine]) -> dict[str, Any]:
    """Compare the results of all engines with each other and with one process.

    Raises:
        SystemExit: int8 differs in a bit, fp32 beyond the tolerance, or files differ between engines.
    """
    model, source = bundle(kind, work), work / f"{kind} check"
    with aeedge.load(model, variant=variant, threads=1) as loaded:
        expected = [loaded.encode(values(kind, path)) for path in sorted(source.glob("*.parquet"))]
    found: dict[str, Any] = {"variant": variant, "rows": CHECK.files * CHECK.rows, "engines": {}}
    first: dict[str, str] = {}
    for name, engine in engines.items():
        output = work / "check results"
        run(kind, model, source, output, engine, variant)
        latents = [latents_of(path) for path in sorted(output.glob("part-*.parquet"))]
        equal = len(latents) == len(expected) and all(map(np.array_equal, latents, expected))
        off = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(latents, expected))
        own = digests(output)
        first = first or own
        found["engines"][name] = {"to_the_bit": equal, "off": off, "same_files": own == first}
        if own != first or (not equal and (variant == "int8" or off > TOLERANCE)):
            raise SystemExit(f"{kind}, {variant}, {name}: other latents than those of one process: {found['engines']}")
    return found


def latents_of(path: Path) -> Any:
    """The latents of a result file (n, latent)."""
    column = pq.read_table(path, columns=["latent"])["latent"].combine_chunks()
    return column.values.to_numpy().reshape(len(column), -1)


def rounds(
    kind: str, size: Size, work: Path, engines: dict[str, Engine], dice: random.Random
) -> list[dict[str, float]]:
    """Seconds of each contender, round by round, in shuffled order; as many rounds as the time allows."""
    model, source, found = bundle(kind, work), work / f"{kind} archive", list[dict[str, float]]()
    began = time.perf_counter()
    while len(found) < size.rounds or (time.perf_counter() - began) * (1 + 1 / len(found)) < size.seconds:
        names = list(engines)
        dice.shuffle(names)
        times = {name: run(kind, model, source, work / "results", engines[name]) for name in names}
        found.append({name: times[name] for name in engines})
        progress(f"{kind}, round {len(found)}: " + ", ".join(f"{name} {times[name]:.1f} s" for name in engines))
    return found


def summary(found: list[dict[str, float]], rows: int) -> dict[str, dict[str, float]]:
    """By contender: rows a second, efficiency, overhead in seconds for a million rows; medians over rounds."""
    result = {}
    for name in found[0]:
        times = [each[name] for each in found]
        ratios = [each[PEER] / each[name] for each in found]
        result[name] = {
            "seconds": statistics.median(times),
            "rows_per_second": rows / statistics.median(times),
            "efficiency": statistics.median(ratios),
            "least_efficiency": min(ratios),
            "most_efficiency": max(ratios),
            "overhead_seconds_per_million": statistics.median(each[name] - each[PEER] for each in found) / rows * 1e6,
        }
    return result


def tables(result: dict[str, Any]) -> dict[str, Any]:
    """Speed by kind of rows, starts, and what was compared."""
    found: dict[str, Any] = {}
    for kind, each in result["speed"].items():
        size = each["size"]
        head = ["", "rows/s", f"time of {PEER} / time", "range of rounds", "s more for 10^6 rows"]
        rows = [
            [
                name,
                f"{own['rows_per_second']:,.0f}",
                f"{own['efficiency']:.3f}",
                f"{own['least_efficiency']:.3f} to {own['most_efficiency']:.3f}",
                f"{own['overhead_seconds_per_million']:+.2f}",
            ]
            for name, own in each["summary"].items()
        ]
        title = f"{kind}, {size['files']} parts of {size['rows']:,} rows, {len(each['rounds'])} rounds"
        found[title] = (head, rows)
    found["Until workers are ready, and for each part that does nothing"] = (
        ["", "s", "ms a part"],
        [
            [name, f"{seconds:.1f}", f"{1e3 * result['empty_parts'][name]['dispatch_seconds']:.2g}"]
            for name, seconds in result["start_seconds"].items()
        ],
    )
    found["Latents beside those of one process"] = (
        ["", "variant", "engines", "to the bit", "largest difference", "same files"],
        [
            [
                kind,
                each["variant"],
                f"{len(each['engines'])}",
                "yes" if all(own["to_the_bit"] for own in each["engines"].values()) else "no",
                f"{max(own['off'] for own in each['engines'].values()):.1e}",
                "yes",
            ]
            for kind, checks in result["checks"].items()
            for each in checks
        ],
    )
    return found


def main() -> None:
    """Measure, or print the tables of the last run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for archives and results (12 GB); else a temporary one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="small archives")
    parser.add_argument("--table", action="store_true", help="print the tables of the last run")
    options = parser.parse_args()
    name = "engines-quick" if options.quick else "engines"
    if options.table:
        return show(name)
    stated = conditions("pyspark", "ray")
    with tempfile.TemporaryDirectory(prefix="aeedge-engines-", dir=options.work) as work:
        result = measured(Path(work), QUICK if options.quick else FULL, random.Random(options.seed))
    publish(name, {**stated, "seed": options.seed, **result}, tables(result))
    for kind, each in result["speed"].items():
        for contender, own in each["summary"].items():
            if contender.startswith(("Spark", "Ray")) and own["efficiency"] < EFFICIENCY:
                print(f"{kind}, {contender}: efficiency {own['efficiency']:.3f}, wanted {EFFICIENCY}")
    return None


def measured(work: Path, sizes: dict[str, Size], dice: random.Random) -> dict[str, Any]:
    """Starts, comparisons and speed."""
    for kind, size in sizes.items():
        progress(f"{kind}: bundle and archive of {size.files} × {size.rows:,} rows")
        bundle(kind, work)
        archive(kind, work / f"{kind} archive", [size.rows] * size.files)
        archive(kind, work / f"{kind} check", [CHECK.rows] * CHECK.files)
    if hasattr(os, "sync"):
        os.sync()  # nothing is written any more while engines run
    starts: dict[str, float] = {}
    with ExitStack() as stack:
        began = time.perf_counter()
        dispatch(make_engine("local", workers=2), bundle(WIDE, work), 2)
        starts["local, 2 processes"] = time.perf_counter() - began
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        for engine, session in (("Spark, 2 executors", spark_session), ("Ray, 2 nodes", ray_session)):
            progress(f"starting {engine}")
            began = time.perf_counter()
            stack.enter_context(session())
            starts[engine] = time.perf_counter() - began
        engines = contenders()
        progress("parts that do nothing")
        empty = {name: dispatch(engine, bundle(WIDE, work), EMPTY) for name, engine in engines.items() if name != AGAIN}
        progress("comparing latents")
        checks = {kind: [check(kind, variant, work, engines) for variant in ("int8", "fp32")] for kind in sizes}
        speed = {}
        for kind, size in sizes.items():
            found = rounds(kind, size, work, engines, dice)
            speed[kind] = {"size": size._asdict(), "rounds": found, "summary": summary(found, size.files * size.rows)}
    return {"start_seconds": starts, "empty_parts": empty, "checks": checks, "speed": speed}


if __name__ == "__main__":
    main()
