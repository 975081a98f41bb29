"""Shared by the benchmarks of archives: bundles, archives of made-up rows, conditions, results as JSON with tables."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from aeedge.archive.packing import pack
from aeedge.archive.parts import Part
from aeedge.archive.storage import place
from aeedge.archive.work import Engine, Outcome
from aeedge.system.fingerprint import fingerprint
from aeedge.table import columns

RESULTS = Path(__file__).parent / "results"
WIDE, TABLE = "640 values", "60 columns"
GROUP_ROWS = 125_000
Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def progress(step: str) -> None:
    """What a benchmark does now, for whoever waits for it."""
    print(f"{time.strftime('%H:%M:%S')}  {step}", file=sys.stderr, flush=True)


def conditions(*packages: str) -> dict[str, Any]:
    """The machine, how busy it was before, and versions."""
    found = {name: metadata.version(name) for name in ("numpy", "onnxruntime", "pyarrow", *packages)}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"machine": fingerprint(), "load_before": load, "versions": found}


def publish(name: str, result: Mapping[str, Any], tables: Mapping[str, Table]) -> None:
    """Print tables, each under its title, and write them with all numbers to results/."""
    blocks = [f"{title}\n\n{columns(*table)}" for title, table in tables.items()]
    text = "\n\n".join(blocks)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({**result, "table": text.splitlines()}, indent=1) + "\n")
    print(f"\nwritten to benchmarks/scale/results/{name}.json")


def show(name: str) -> None:
    """Print the tables of the last run."""
    print("\n".join(stored(name)["table"]))


def stored(name: str) -> dict[str, Any]:
    """The last run's result.

    Raises:
        SystemExit: there is none.
    """
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        raise SystemExit(f"{path}: there is no result yet; run benchmarks/scale/{name.removesuffix('-quick')}.py")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


class Rows:
    """Made-up rows of a plant: a few quantities vary, all values follow them, with noise.

    Args:
        width: values of a row.
    """

    def __init__(self, width: int) -> None:
        rng = np.random.default_rng(width)
        self.width, self._seed = width, width
        self._mixing = rng.normal(size=(8, width)).astype(np.float32)

    def __call__(self, count: int, seed: int) -> NDArray[np.float32]:
        """`count` rows (count, width), the same for a seed."""
        rng = np.random.default_rng([self._seed, seed])
        causes = np.tanh(rng.normal(size=(count, 8))).astype(np.float32)
        found = causes @ self._mixing
        return found + rng.standard_normal(found.shape, np.float32) * np.float32(0.3)


def names(width: int) -> list[str]:
    """Of the columns of a table."""
    return [f"sensor_{i:02d}" for i in range(width)]


def bundle(kind: str, folder: Path) -> Path:
    """A bundle with fp32 and int8, made by the first call: 640-128×4-8 like the anomaly network of MLPerf Tiny, or the
    default network for a table of 60 columns.
    """
    path = folder / f"{kind.replace(' ', '-')}.aeedge"
    if path.is_dir():
        return path
    from aeedge_export import Autoencoder  # takes seconds to import

    options: dict[str, Any] = {"random_state": 0, "noise": "none"}
    if kind == WIDE:
        rows = Rows(640)(6_000, 0)
        model = Autoencoder(latent=8, hidden=(128, 128, 128, 128), epochs=5, **options).fit(rows)
    else:
        rows = Rows(60)(8_000, 0)
        model = Autoencoder(latent=8, epochs=5, **options).fit_rows(rows, features=names(60))
    model.calibrate(false_alarm_rate=0.01)
    model.export(path, variants=("fp32", "int8"), calibration=rows[:2_000])
    return path


def archive(kind: str, folder: Path, rows: Sequence[int], group_rows: int = GROUP_ROWS, *, holes: int = 0) -> Path:
    """A folder of Parquet files with so many rows each: an `id` that counts through, and 640 values as one list of
    floats or 60 columns. Written by pyarrow's defaults but for dictionaries, which measurements do not have.

    Args:
        kind: WIDE or TABLE.
        folder: a new one.
        rows: of each file.
        group_rows: rows of a row group at most.
        holes: every so many files the first row has a NaN; 0 for none.
    """
    folder.mkdir(parents=True)
    source, schema = Rows(640 if kind == WIDE else 60), _schema(kind)
    next_id = 0
    for number, total in enumerate(rows):
        with pq.ParquetWriter(folder / f"{number:04d}.parquet", schema, use_dictionary=False) as writer:
            for first in range(0, total, group_rows):
                values = source(min(group_rows, total - first), next_id)
                if holes and number % holes == 0 and first == 0:
                    values[0, 1] = np.nan
                ids = pa.array(np.arange(next_id, next_id + len(values)))
                writer.write_batch(pa.RecordBatch.from_arrays([ids, *_arrays(kind, values)], schema=schema))
                next_id += len(values)
    return folder


def _schema(kind: str) -> pa.Schema:
    values = [("values", pa.list_(pa.float32(), 640))] if kind == WIDE else [(n, pa.float32()) for n in names(60)]
    return pa.schema([("id", pa.int64()), *values])


def _arrays(kind: str, values: NDArray[np.float32]) -> list[Any]:
    if kind == WIDE:
        return [pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 640)]
    return [pa.array(np.ascontiguousarray(column)) for column in values.T]


def column(kind: str) -> str | None:
    """Where the samples are; None for columns by name."""
    return "values" if kind == WIDE else None


def values(kind: str, path: Path) -> NDArray[np.float32]:
    """The rows of a file of an archive (n, width)."""
    table = pq.read_table(path)
    if kind == WIDE:
        flat = table["values"].combine_chunks().flatten().to_numpy()
        return np.asarray(flat.reshape(len(table), -1))
    return np.stack([table[name].to_numpy() for name in names(60)], axis=1)


@contextmanager
def ray_nodes() -> Iterator[str]:
    """The address of two Ray nodes of one CPU on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    try:
        cluster.add_node(**options)
        yield cluster.address
    finally:
        cluster.shutdown()


def nothing(part: Part, path: str) -> Outcome:
    """A task without work; here, for workers import it by name."""
    return Outcome(part.number, part.rows, part.rows)


def dispatch(engine: Engine, model: Path, count: int) -> dict[str, float]:
    """Seconds of an engine for a part that does nothing, and until its first one is done."""
    parts = [Part(i, place("/nowhere"), (), 0, 1) for i in range(count)]
    began = time.perf_counter()
    outcomes = engine.run(nothing, parts, pack(model))
    next(outcomes)
    started = time.perf_counter()
    assert sum(not each.error for each in outcomes) == count - 1
    return {"start_seconds": started - began, "dispatch_seconds": (time.perf_counter() - started) / (count - 1)}


def digests(output: Path) -> dict[str, str]:
    """SHA-256 of each result file by name: parts are the same bytes whoever writes them, and how often."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(output.glob("part-*.parquet"))}


def size(folder: Path) -> int:
    """Bytes of the Parquet files in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.parquet"))


def duration(seconds: float) -> str:
    """For people."""
    for name, size in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.3g} s"


def forget(folder: Path) -> None:
    """Ask the system to drop a folder's files from its cache, so that the next reader has them from the disk."""
    for path in folder.glob("*.parquet"):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)  # what is not written yet cannot be dropped
            with suppress(AttributeError):  # Linux alone
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
