"""`aeedge.arrow` as a function of Spark's mapInArrow and Ray Data's map_batches: latents are those of one process."""

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest

import aeedge
from aeedge.arrow import OUTPUTS, BatchEncoder, encode_batches
from aeedge.errors import InputError

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "tests" / "data"

pytestmark = [
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*"),
]

NAMES = [f"s{i}" for i in range(8)]


@pytest.fixture
def expected(bundle, samples):
    """What one process computes of the archive, in fp32 and in int8."""
    found = {}
    for variant in ("fp32", "int8"):
        with aeedge.load(bundle, variant=variant, threads=1) as model:
            found[variant] = model.encode(samples), model.score(samples), model.detect(samples)
    return found


def check(table, expected, variant):
    """All rows, once each, in any order; int8 to the bit, fp32 as far as batches of other sizes differ."""
    order = np.argsort(np.asarray(table.column("id")))
    assert np.asarray(table.column("id"))[order].tolist() == list(range(2000))
    latents = np.array(table.column("latent").to_pylist(), np.float32)[order]
    close = np.testing.assert_array_equal if variant == "int8" else np.testing.assert_allclose
    close(latents, expected[variant][0], **({} if variant == "int8" else {"rtol": 1e-5, "atol": 1e-5}))
    np.testing.assert_allclose(np.asarray(table.column("score"))[order], expected[variant][1], rtol=1e-4)
    np.testing.assert_array_equal(np.asarray(table.column("alarm"))[order], expected[variant][2])


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_spark(variant, spark, archive, bundle, expected):
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

    frame = spark.read.parquet(str(archive)).repartition(3)
    encoder = BatchEncoder(str(bundle), OUTPUTS, keep=("id", "time"), variant=variant)
    columns = from_arrow_schema(encoder.schema(to_arrow_schema(frame.schema)))
    assert columns["latent"].dataType.simpleString() == "array<float>"
    found = frame.mapInArrow(lambda batches: map(encoder, batches), columns).toArrow()
    assert found.column_names == ["id", "time", *OUTPUTS]
    check(found, expected, variant)


def test_spark_with_lists_and_empty_partitions(spark, archive, bundle, samples, expected):
    """Lists arrive as lists; the schema may be written by hand; a filter leaves partitions without rows."""
    from pyspark.sql import functions as f

    path, count = str(bundle), 37
    frame = spark.read.parquet(str(archive)).select("id", f.array(*NAMES).alias("x")).where(f"id < {count}")

    def encoded(batches):
        return encode_batches(path, batches, ("latent", "score"), keep=("id",), column="x", variant="int8")

    found = frame.repartition(5, "id").mapInArrow(encoded, "id long, latent array<float>, score float").toArrow()
    found = found.sort_by("id")
    assert found.column("id").to_pylist() == list(range(count))
    np.testing.assert_array_equal(np.array(found.column("latent").to_pylist(), np.float32), expected["int8"][0][:count])


def test_an_error_of_a_row_reaches_the_driver_of_spark(spark, archive, bundle):
    from pyspark.errors import PythonException

    frame = spark.read.parquet(str(archive)).selectExpr("id", *NAMES[1:], "if(id = 77, null, s0) as s0").coalesce(1)
    encoder = BatchEncoder(str(bundle), keep=("id",))
    mapped = frame.mapInArrow(lambda batches: map(encoder, batches), "id long, latent array<float>")
    with pytest.raises(
        PythonException, match=r"InputError: row [0-9,]+ .*: column 's0': expected a finite number, got null"
    ):
        mapped.toArrow()


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_ray(variant, archive, bundle, expected):
    import ray

    dataset = ray.data.read_parquet(str(archive)).map_batches(
        BatchEncoder,
        fn_constructor_args=[str(bundle), OUTPUTS],
        fn_constructor_kwargs={"keep": ("id",), "variant": variant},
        batch_format="pyarrow",
        batch_size=300,
        concurrency=1,
    )
    check(pa.concat_tables(ray.get(dataset.to_arrow_refs())), expected, variant)


@pytest.mark.usefixtures("ray_session")
def test_ray_with_tensors_and_an_encoder_that_travels(bundle, samples, expected):
    """Arrays become tensors of Ray's own type; an encoder is pickled and opens its bundle where it is needed."""
    import ray

    encoder = BatchEncoder(str(bundle), OUTPUTS, keep=("id",), variant="int8")
    dataset = ray.data.from_numpy(samples).map_batches(
        lambda batch: {"x": batch["data"], "id": np.arange(len(batch["data"]))}, batch_size=None
    )
    found = ray.get(dataset.map_batches(lambda batch: encoder(batch), batch_format="pyarrow").to_arrow_refs())
    check(pa.concat_tables(found), expected, "int8")
    assert found[0].schema.field("latent").type == pa.list_(pa.float32())


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "bool"])
def test_tensors_of_ray(dtype):
    """Ray's own types of tensors, without a cluster: sliced, flat or in the shape of a sample."""
    from ray.data.extensions import ArrowTensorArray

    with aeedge.load(DATA / "bundle_v1_map", threads=1) as model:
        rows = model.golden_rows()[:9].astype(dtype)
        for given in (rows, rows.reshape(9, -1)):
            batch = pa.RecordBatch.from_pydict({"x": ArrowTensorArray.from_numpy(given)}).slice(2)
            found = BatchEncoder(model)(batch)
            latents = np.array(found.column("latent").to_pylist(), np.float32)
            np.testing.assert_array_equal(latents, model.encode(rows[2:]).reshape(7, -1))
        small = ArrowTensorArray.from_numpy([rows[0], rows[1:3, 0]])
        with pytest.raises(
            InputError, match="column 'x': expected lists of 1 × 8 × 8 or 64 numbers, got ArrowVariable"
        ):
            BatchEncoder(model, column="x")(pa.RecordBatch.from_pydict({"x": small}))


def examples():
    """Code in docs/how-to/scale.md that uses `aeedge.arrow`, of packages that are installed for the tests."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "how-to" / "scale.md").read_text(), re.MULTILINE | re.DOTALL
    )
    others = ("import duckdb", "import apache_beam", "import dask")
    return [code for code in blocks if "aeedge.arrow" in code and not any(name in code for name in others)]


@pytest.mark.usefixtures("ray_session")
@pytest.mark.filterwarnings("ignore:.*streamable:DeprecationWarning")
@pytest.mark.parametrize("number", range(6))
def test_examples_of_the_documentation(number, spark, archive, bundle, samples, tmp_path, monkeypatch):
    found = examples()
    assert len(found) == 6
    monkeypatch.chdir(tmp_path)
    shutil.copytree(archive, tmp_path / "archive")
    names = {"spark": spark}
    exec(found[number].replace("/data/", f"{tmp_path}/"), names)
    outputs = ["latents.parquet", "spark", "scores", "ray", "polars.parquet"]
    written = names["found"] if number == 5 else pa.dataset.dataset(tmp_path / outputs[number]).to_table().to_pandas()
    count = 500 if number == 5 else 2000
    assert sorted(written["id"]) == list(range(count))
    with aeedge.load(bundle, threads=1) as model:
        scores = written.sort_values("id")["score"].to_numpy()
        np.testing.assert_allclose(scores, model.score(samples[:count]), rtol=1e-4)
