"""Archives, bundles, and the engines that encode them: Spark, Ray and an S3, each started once."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import engines

import aeedge

DATA = Path(__file__).parent.parent / "data"
BUNDLE = DATA / "bundle_v1_robust_int8"  # eight sensors, s0 to s7; fp32 and int8, the default; calibrated
SIZES = (500, 300, 1, 700, 499)  # rows of each file
GROUP = 128  # rows of a row group


@pytest.fixture
def bundle(tmp_path):
    """A calibrated bundle with int8 and fp32, free to be damaged."""
    return Path(shutil.copytree(BUNDLE, tmp_path / "motor.aeedge"))


@pytest.fixture(scope="session")
def samples():
    """(2000, 8) float32: rows of the archive, ordinary ones, and some that are not."""
    rng = np.random.default_rng(0)
    with aeedge.load(BUNDLE, variant="fp32", threads=1) as model:
        known = model.golden_rows()
    rows = known[rng.integers(0, len(known), sum(SIZES))]
    rows += rng.normal(0, 0.02, rows.shape) * known.std(axis=0)
    rows[::100] += 5 * known.std(axis=0)
    return rows.astype(np.float32)


@pytest.fixture(scope="session")
def archive(samples, tmp_path_factory):
    """A folder of Parquet files with several row groups: id, time, s0 to s7 and a column of text; not to be changed."""
    return write_archive(tmp_path_factory.mktemp("archive"), samples)


def write_archive(folder, samples):
    """The samples as files of SIZES rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = np.arange(len(samples))
    table = pa.table(
        {
            "id": ids,
            "time": np.datetime64("2026-01-01", "us") + ids * np.timedelta64(1, "s"),
            **{f"s{i}": samples[:, i] for i in range(samples.shape[1])},
            "note": [f"row {i}" for i in ids],
        }
    )
    first = 0
    for number, rows in enumerate(SIZES):
        pq.write_table(table.slice(first, rows), folder / f"day-{number}.parquet", row_group_size=GROUP)
        first += rows
    return folder


@pytest.fixture(scope="session")
def s3():
    """The endpoint of an S3 with a bucket "plant", which pyarrow.fs, Spark's and Ray's workers find."""
    with engines.object_store() as url:
        yield url


@pytest.fixture(scope="session")
def spark(s3):
    """A Spark session with two executors of one core."""
    with engines.spark_session() as session:
        yield session


@pytest.fixture(scope="session")
def ray_session(s3):
    """A Ray cluster of two nodes with one CPU each; this process is connected to the first."""
    with engines.ray_cluster() as cluster:
        yield cluster
