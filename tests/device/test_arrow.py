"""Batches of Arrow: every layout gives what the model gives for the same numbers, row by row; every fault is named."""

import decimal
import os
import pickle
import shutil
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import tampering
from hypothesis import given, settings
from hypothesis import strategies as st

import aeedge
from aeedge import arrow
from aeedge.arrow import OUTPUTS, BatchEncoder, encode_batches
from aeedge.errors import BundleError, IncompatibleBundleError, InputError

DATA = Path(__file__).parent.parent / "data"
NAMES = [f"s{i}" for i in range(8)]

pytestmark = pytest.mark.usefixtures("pa")


@pytest.fixture(scope="module")
def pa():
    pytest.importorskip("pyarrow.compute")
    return pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def both():
    """Eight named features, calibrated."""
    return aeedge.load(DATA / "bundle_v2_both", threads=1)


@pytest.fixture(scope="module")
def given_rows(both):
    """(60, 8), like the reference inputs."""
    golden = both.golden_rows()
    rng = np.random.default_rng(0)
    return (golden[rng.integers(0, len(golden), 60)] * rng.uniform(0.9, 1.1, (60, 8))).astype(np.float32)


def frame(pa, rows, names=NAMES, **others):
    return pa.RecordBatch.from_pydict(
        {**others, **{name: pa.array(np.ascontiguousarray(rows[:, i])) for i, name in enumerate(names)}}
    )


def lists(pa, rows, kind="list"):
    """A column with one list for each row, (n, p)."""
    flat, (n, size) = pa.array(rows.reshape(-1)), rows.shape
    ends = np.arange(0, n * size + 1, size)
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(flat, size)
    if kind == "large":
        return pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), flat)
    if kind == "view":
        return pa.ListViewArray.from_arrays(pa.array(ends[:-1], pa.int32()), pa.array([size] * n, pa.int32()), flat)
    if kind == "tensor":
        return pa.FixedShapeTensorArray.from_numpy_ndarray(rows)
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), flat)


KINDS = ["list", "fixed", "large", "view", "tensor"]


def latents(batch):
    return np.array(batch.column("latent").to_pylist(), np.float32)


# --- results


def test_what_comes_out_is_what_the_model_gives(pa, both, given_rows):
    batch = frame(pa, given_rows[:, ::-1], NAMES[::-1], id=pa.array(range(60)), other=pa.array(["x"] * 60))
    (found,) = encode_batches(both, [batch], OUTPUTS[::-1], keep=("id",))
    assert isinstance(found, pa.RecordBatch)
    assert found.schema == BatchEncoder(both, OUTPUTS, ("id",)).schema(batch.schema)
    assert found.schema.names == ["id", *OUTPUTS]
    types = [pa.int64(), pa.list_(pa.float32()), pa.float32(), pa.float64(), pa.bool_()]
    assert found.schema.types == types
    np.testing.assert_array_equal(latents(found), both.encode(given_rows))
    np.testing.assert_array_equal(found.column("score"), both.score(given_rows))
    np.testing.assert_array_equal(found.column("p_value"), both.p_value(given_rows))
    np.testing.assert_array_equal(found.column("alarm"), both.detect(given_rows))
    assert found.column("id").buffers()[1].address == batch.column("id").buffers()[1].address  # passed on, not copied


@pytest.mark.parametrize("rule", [{"false_alarm_rate": 0.2}, {"threshold": 0.5}])
def test_alarms_by_another_rule(rule, pa, both, given_rows):
    (found,) = encode_batches(both, [frame(pa, given_rows)], ("alarm",), **rule)
    np.testing.assert_array_equal(found.column("alarm"), both.detect(given_rows, **rule))
    with pytest.raises(InputError, match="expected 'alarm' in outputs"):
        encode_batches(both, [], ("score",), **rule)


@pytest.mark.parametrize("kind", KINDS)
def test_lists_of_every_kind(kind, pa, both, given_rows):
    batch = pa.RecordBatch.from_pydict({"id": pa.array(range(60)), "x": lists(pa, given_rows, kind)})
    encoder = BatchEncoder(both, ("latent", "score"), keep=("id",))
    for part, rows in [(batch, given_rows), (batch.slice(7, 20), given_rows[7:27]), (batch.slice(59), given_rows[59:])]:
        found = encoder(part)
        np.testing.assert_array_equal(latents(found), both.encode(rows))
        np.testing.assert_array_equal(found.column("score"), both.score(rows))
    assert encoder.notes == ["samples are taken from the column 'x', the only one of lists that fits"]
    named = BatchEncoder(both, column="x")
    assert latents(named(batch)).shape == (60, both.latent_size)
    assert named.notes == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", [0, 13])
def test_lists_of_one_length_are_not_copied(kind, start, pa, both, given_rows, monkeypatch):
    seen = []
    encode = both.encode
    monkeypatch.setattr(both, "encode", lambda x, **options: seen.append(x) or encode(x, **options))
    memory = given_rows.copy()
    batch = pa.RecordBatch.from_pydict({"x": lists(pa, memory, kind)}).slice(start)
    assert batch.num_rows == 60 - start
    for each in (batch, pa.Table.from_batches([batch])):
        BatchEncoder(both)(each)
        assert np.shares_memory(seen.pop(), memory)
    copied = pa.RecordBatch.from_pydict({"x": pa.array(given_rows.tolist(), pa.list_(pa.float64()))})
    BatchEncoder(both)(copied)
    assert seen[0].dtype == np.float64  # converted by the model, block by block


@st.composite
def layouts(draw):
    """How a column is written."""
    types = ["float", "double", "halffloat", "int8", "uint16", "int64", "bool", "decimal", "dictionary", "run ends"]
    return (
        [draw(st.sampled_from(types)) for _ in NAMES],
        draw(st.integers(0, 5)),
        draw(st.integers(0, 20)),
        draw(st.integers(0, 2**32 - 1)),
    )


def written(pa, values, kind):
    if kind == "decimal":
        return pa.array([None if v is None else decimal.Decimal(v) for v in values], pa.decimal128(12, 3))
    if kind == "dictionary":
        return pa.array(values, pa.float64()).dictionary_encode()
    if kind == "run ends":
        return pa.compute.run_end_encode(pa.array(values, pa.int32()))
    if kind == "halffloat":
        return pa.array([None if v is None else np.float16(v) for v in values], pa.float16())
    return pa.array(values).cast(pa.bool_() if kind == "bool" else kind)


@given(layout=layouts())
@settings(max_examples=40)
def test_numbers_of_every_type_with_nulls_and_offsets(layout, pa, both):
    kinds, before, n, seed = layout
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 100, (before + n, 8))
    values[:, [kind == "bool" for kind in kinds]] %= 2
    missing = rng.random(values.shape) < 0.1
    columns = {
        name: written(pa, [None if gone else int(v) for v, gone in zip(values[:, i], missing[:, i])], kinds[i])
        for i, name in enumerate(NAMES)
    }
    batch = pa.RecordBatch.from_pydict(columns).slice(before)
    rows = np.where(missing, np.nan, values)[before:]
    encoder = BatchEncoder(both, ("latent", "alarm"), invalid="propagate")
    found = encoder(batch)
    assert found.num_rows == n
    if n:
        np.testing.assert_array_equal(latents(found), both.encode(rows, invalid="propagate"))
        np.testing.assert_array_equal(found.column("alarm"), both.detect(rows, invalid="propagate"))
    gone = np.flatnonzero(np.isnan(rows).any(axis=1)).tolist()
    assert list(BatchEncoder(both).faults(batch)) == gone


@given(data=st.data(), kind=st.sampled_from(KINDS[:4]))
@settings(max_examples=40)
def test_lists_with_nulls_and_of_other_lengths(data, kind, pa, both):
    """What is null is missing, as a list or as a value in one; a list of another length is a fault, with its row."""
    value = st.one_of(st.none(), st.floats(-100, 100, width=32))
    good = st.lists(value, min_size=8, max_size=8)
    row = st.one_of(st.none(), good, good, good if kind == "fixed" else st.lists(value, max_size=10))
    rows, start = data.draw(st.lists(row, min_size=1, max_size=12)), data.draw(st.integers(0, 3))
    types = {"list": pa.list_, "large": pa.large_list, "view": pa.list_view, "fixed": lambda t: pa.list_(t, 8)}
    column = pa.array([[1.0] * 8] * start + rows, types[kind](pa.float32()))
    batch = pa.RecordBatch.from_pydict({"x": column}).slice(start)
    wrong = [i for i, each in enumerate(rows) if each is not None and len(each) != 8]
    encoder = BatchEncoder(both, invalid="propagate")
    assert list(encoder.faults(batch)) == wrong
    strict = BatchEncoder(both)
    bad = [i for i, each in enumerate(rows) if each is None or len(each) != 8 or None in each]
    assert list(strict.faults(batch)) == bad
    for each, faults in ((encoder, wrong), (strict, bad)):
        if faults:
            with pytest.raises(InputError, match=rf"row {faults[0]} \(counted from 0\): column 'x'"):
                each(batch)
    kept = [i for i in range(len(rows)) if i not in wrong]
    expected = np.array(
        [[np.nan] * 8 if rows[i] is None else [np.nan if v is None else v for v in rows[i]] for i in kept]
    )
    if kept:
        part = batch.take(pa.array(kept))
        np.testing.assert_array_equal(latents(encoder(part)), both.encode(expected, invalid="propagate"))


def test_chunks_of_a_table_make_no_difference(pa, both, given_rows):
    batch = frame(pa, given_rows, id=pa.array([f"row {i}" for i in range(60)]))
    whole = BatchEncoder(both, OUTPUTS, keep=("id",))(pa.Table.from_batches([batch]))
    parts = pa.Table.from_batches([batch.slice(0, 1), batch.slice(1, 30), batch.slice(31, 0), batch.slice(31)])
    cut = BatchEncoder(both, OUTPUTS, keep=("id",))(parts)
    assert isinstance(cut, pa.Table)
    assert cut.equals(whole)
    assert cut.column("id").num_chunks == parts.column("id").num_chunks  # passed on as it is
    np.testing.assert_array_equal(latents(cut), both.encode(given_rows))


@pytest.mark.parametrize("make", ["RecordBatch", "Table"])
def test_no_rows_give_no_rows_of_the_same_columns(make, pa, both, given_rows):
    full = frame(pa, given_rows, id=pa.array(range(60)))
    batch = full.slice(0, 0) if make == "RecordBatch" else pa.Table.from_batches([], full.schema)
    found = BatchEncoder(both, OUTPUTS, keep=("id",))(batch)
    assert type(found) is type(batch)
    assert found.num_rows == 0
    assert found.schema == BatchEncoder(both, OUTPUTS, keep=("id",))(full).schema
    assert list(encode_batches(both, [])) == []
    assert BatchEncoder(both).faults(batch) == {}


@pytest.mark.parametrize("name", ["bundle_v1_map", "bundle_v1_windows", "bundle_v3_spectrum", "bundle_v1_int8"])
@pytest.mark.parametrize("layout", ["flat", "nested", "tensor", "transposed"])
def test_images_and_windows_flat_or_nested(layout, name, pa):
    with aeedge.load(DATA / name, threads=1) as model:
        rows = model.golden_rows()[:9]
        n, *shape = rows.shape
        value = pa.from_numpy_dtype(rows.dtype)
        if layout == "flat":
            column = pa.array(rows.reshape(n, -1).tolist(), pa.list_(value))
        elif layout == "nested":
            kind = value
            for size in shape[::-1]:
                kind = pa.list_(kind, size) if size % 3 else pa.large_list(kind)
            column = pa.array(rows.tolist(), kind)
        elif layout == "tensor":
            column = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(rows))
        else:
            order = list(range(len(shape)))[::-1]
            memory = np.ascontiguousarray(rows.transpose(0, *(1 + i for i in order)))
            storage = pa.FixedSizeListArray.from_arrays(pa.array(memory.reshape(-1)), memory[0].size)
            kind = pa.fixed_shape_tensor(value, memory.shape[1:], permutation=order)
            column = pa.ExtensionArray.from_storage(kind, storage)
            np.testing.assert_array_equal(column.to_numpy_ndarray(), rows)
        (found,) = encode_batches(model, [pa.RecordBatch.from_pydict({"x": column}).slice(2)], ("latent", "score"))
        expected = model.encode(np.ascontiguousarray(rows[2:]))
        np.testing.assert_array_equal(latents(found), expected.reshape(n - 2, -1))
        np.testing.assert_array_equal(found.column("score"), model.score(np.ascontiguousarray(rows[2:])))


def test_windows_as_a_column_of_lists_for_each_channel(pa):
    with aeedge.load(DATA / "bundle_v1_windows", threads=1) as model:
        rows, channels = model.golden_rows()[:9], model.input.signal.names
        batch = pa.RecordBatch.from_pydict({name: lists(pa, rows[..., i].copy()) for i, name in enumerate(channels)})
        (found,) = encode_batches(model, [batch])
        np.testing.assert_array_equal(latents(found), model.encode(rows))


def test_samples_of_a_recording_are_refused(pa):
    with aeedge.load(DATA / "bundle_v1_windows", threads=1) as model:
        batch = pa.RecordBatch.from_pydict({name: pa.array([1.0, 2.0]) for name in model.input.signal.names})
        with pytest.raises(InputError, match=r"expected windows, lists of 32 .* one sample in each row .* cut"):
            BatchEncoder(model)(batch)


def test_names_of_values_in_lists(pa, bundle):
    """A bundle that was trained with a column of lists takes it by its name, also without some of the values."""
    names = [f"v[{i}]" for i in range(11)] + ["s11"]
    tampering.reseal(bundle, lambda d: d["input"].update(features=names))
    rng = np.random.default_rng(0)
    with aeedge.load(bundle, threads=1) as model:
        rows = rng.normal(size=(20, 14)).astype(np.float32)
        batch = pa.RecordBatch.from_pydict(
            {
                "s11": pa.array(rows[:, 13]),
                "x": lists(pa, rows[:, :12].copy()),
                "v": lists(pa, rows[:, :13].copy(), "fixed"),
            }
        )
        encoder = BatchEncoder(model)
        assert encoder.columns(batch.schema) == ["v", "s11"]
        expected = model.encode(rows[:, [*range(11), 13]])
        np.testing.assert_array_equal(latents(encoder(batch)), expected)
        assert encoder.notes == []
        short = batch.set_column(2, "v", pa.array([[1.0] * 11] * 19 + [[1.0] * 10], pa.list_(pa.float64())))
        assert BatchEncoder(model).faults(short) == {19: "column 'v': expected lists of 11 numbers, got one of 10"}


def test_columns_in_order_for_a_bundle_without_names(pa):
    with aeedge.load(DATA / "bundle_v2_mahalanobis", threads=1) as model:
        rows = model.golden_rows()[:5]
        names = [f"col {i}" for i in range(8)]
        batch = frame(pa, rows, names, id=pa.array(range(5)), time=pa.array(["now"] * 5))
        encoder = BatchEncoder(model, keep=("id",))
        np.testing.assert_array_equal(latents(encoder(batch)), model.encode(rows))
        assert encoder.notes == [
            f"columns of numbers are taken in order, for the bundle has no names: {', '.join(names)}"
        ]
        with pytest.raises(InputError, match=r"or 8 columns of numbers that are not kept, got id \(int64\), time"):
            BatchEncoder(model)(batch)


# --- missing values


def knowing(bundle, **missing):
    fill = [float(v) for v in np.linspace(-50, 1000, 12)] if missing["policy"] == "median" else None
    document = {"codes": {"s3": [-999.0]}, **missing, **({} if fill is None else {"fill": fill})}
    tampering.reseal(bundle, lambda d: d["input"].update(missing=document))
    return aeedge.load(bundle, threads=1)


def spoiled(rows):
    rows = rows[:40].copy()
    rows[3, 0], rows[7, 3], rows[11, 11] = np.nan, -999, np.nan
    return rows, [3, 7, 11]


@pytest.mark.parametrize("kind", ["columns", *KINDS])
@pytest.mark.parametrize("as_null", [True, False])
def test_missing_values_are_filled_where_the_bundle_says_so(as_null, kind, pa, bundle, rows):
    given, _ = spoiled(rows)
    with knowing(bundle, policy="median") as model:
        batch = _with_nulls(pa, given, kind, as_null)
        found = BatchEncoder(model, ("latent", "score"))(batch)
        assert found.column("latent").null_count == 0
        np.testing.assert_array_equal(latents(found), model.encode(given))
        np.testing.assert_array_equal(found.column("score"), model.score(given))
        assert BatchEncoder(model).faults(batch) == {}


@pytest.mark.parametrize("kind", ["columns", *KINDS])
@pytest.mark.parametrize("as_null", [True, False])
def test_rows_that_a_bundle_would_drop_are_null(as_null, kind, pa, bundle, rows):
    given, gone = spoiled(rows)
    tampering.add_calibration(bundle, np.linspace(0, 1, 200))
    with knowing(bundle, policy="drop") as model:
        batch = _with_nulls(pa, given, kind, as_null)
        found = BatchEncoder(model, OUTPUTS)(batch)
        assert found.num_rows == 40
        for name in OUTPUTS:
            assert np.flatnonzero(np.asarray(found.column(name).is_null())).tolist() == gone
        there = np.delete(np.arange(40), gone)
        np.testing.assert_array_equal(latents(found.take(pa.array(there))), model.encode(given[there]))
        assert BatchEncoder(model).faults(batch) == {}
        loose = BatchEncoder(model, OUTPUTS, invalid="propagate")(batch)
        np.testing.assert_array_equal(loose.column("score"), model.score(given, invalid="propagate"))
        assert loose.column("alarm").to_pylist() == model.detect(given, invalid="propagate").tolist()
        none = batch.take(pa.array(gone))
        assert BatchEncoder(model, OUTPUTS)(none).column("latent").to_pylist() == [None] * 3
        given[20, 5] = np.inf
        with pytest.raises(InputError, match=r"row 20 .*: expected a finite number, got inf; mend"):
            BatchEncoder(model)(_with_nulls(pa, given, kind, as_null))


def _with_nulls(pa, rows, kind, as_null):
    """Rows as columns or lists, NaN as null if that is asked for (the code of a missing value stays)."""
    if kind == "columns":
        columns = [pa.array(rows[:, i], from_pandas=as_null) for i in range(rows.shape[1])]
        return pa.RecordBatch.from_arrays(columns, [f"s{i}" for i in range(rows.shape[1])])
    column = lists(pa, rows, kind)
    if as_null and kind != "tensor":
        column = pa.array([[None if v != v else v for v in row] for row in rows.tolist()], column.type)
    return pa.RecordBatch.from_pydict({"x": column})


@pytest.mark.parametrize("invalid", ["raise", "propagate"])
def test_integers_have_no_code_for_nothing(invalid, pa):
    with aeedge.load(DATA / "bundle_v1_uint8", threads=1) as model:
        rows = model.golden_rows()[:6]
        values = rows.reshape(6, -1).tolist()
        values[2][3] = values[4] = None
        batch = pa.RecordBatch.from_pydict({"x": pa.array(values, pa.list_(pa.int64()))})
        encoder = BatchEncoder(model, ("latent", "score"), invalid=invalid)
        if invalid == "raise":
            assert encoder.faults(batch) == {
                2: "column 'x', position 3: expected a whole number that fits uint8, got null",
                4: "column 'x', position 0: expected a whole number that fits uint8, got null",
            }
            with pytest.raises(InputError, match=r"row 2 .* \(2 such rows in this batch\); .*or pass invalid="):
                encoder(batch)
            return
        found = encoder(batch)
        there = [0, 1, 3, 5]
        np.testing.assert_array_equal(latents(found)[there], model.encode(rows[there]))
        assert np.isnan(latents(found)[[2, 4]]).all()
        assert np.isnan(np.asarray(found.column("score"))[[2, 4]]).all()


@pytest.mark.parametrize(
    ("value", "shown"), [(256, "256"), (-1, "-1"), (1.5, "1.5"), (np.inf, "inf"), (1e300, "1e+300")]
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("invalid", ["raise", "propagate"])
def test_numbers_that_do_not_fit_integers(invalid, kind, value, shown, pa):
    with aeedge.load(DATA / "bundle_v1_uint8", threads=1) as model:
        rows = model.golden_rows()[:6].reshape(6, -1).astype(np.float64 if isinstance(value, float) else np.int32)
        whole = pa.RecordBatch.from_pydict({"x": lists(pa, rows.copy(), kind)})
        np.testing.assert_array_equal(latents(BatchEncoder(model)(whole)), model.encode(model.golden_rows()[:6]))
        rows[4, 2] = value
        batch = pa.RecordBatch.from_pydict({"x": lists(pa, rows, kind)})
        encoder = BatchEncoder(model, invalid=invalid)
        why = f"column 'x', position 2: expected a whole number that fits uint8, got {shown}"
        assert encoder.faults(batch) == {4: why}
        with pytest.raises(InputError, match=r"row 4 \(counted from 0\): .*; mend such rows or leave them out$"):
            encoder(batch)


# --- faults of columns and arguments


def test_rows_in_messages_are_counted_over_all_batches(pa, both, given_rows):
    bad = given_rows.copy()
    bad[5, 2], bad[9, 0] = np.nan, np.inf
    batches = iter([frame(pa, given_rows), frame(pa, given_rows[:0]), frame(pa, bad)])
    found = encode_batches(both, batches)
    assert [next(found).num_rows for _ in range(2)] == [60, 0]
    message = (
        r"row 65 \(counted from 0\): column 's2': expected a finite number, got nan \(2 such rows in this batch\); "
    )
    with pytest.raises(InputError, match=message + "mend such rows or leave them out, or pass invalid='propagate'"):
        next(found)
    encoder = BatchEncoder(both, first_row=1000)
    with pytest.raises(InputError, match=r"row 1,005 "):
        encoder(frame(pa, bad))
    assert encoder.first_row == 1000  # nothing came out
    encoder(pa.Table.from_batches([frame(pa, given_rows), frame(pa, given_rows)]))
    assert encoder.first_row == 1120


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda pa, b: b.drop_columns(["s3"]),
            "expected a column 's3', got 'id', 's0', .* rename the columns, or name",
        ),
        (
            lambda pa, b: b.rename_columns(["id", *"abcdefgh"]),
            "expected columns named 's0', .* none of the model's features",
        ),
        (lambda pa, b: b.append_column("s0", b.column("s0")), "expected one column 's0', got 2"),
        (lambda pa, b: _cast(pa, b, "s1", pa.string()), "column 's1': expected numbers, got string; convert it"),
        (lambda pa, b: _cast(pa, b, "s1", pa.list_(pa.float32())), "column 's1': expected numbers, got list<"),
        (lambda pa, b: b.drop_columns(["id"]), "keep: expected a column 'id', got s0, s1"),
        (lambda pa, b: b.append_column("id", b.column("s0")), "expected one column 'id', got 2"),
    ],
)
def test_columns_that_do_not_fit(change, message, pa, both, given_rows):
    batch = change(pa, frame(pa, given_rows, id=pa.array(range(60))))
    encoder = BatchEncoder(both, keep=("id",))
    for call in (encoder, lambda b: encoder.schema(b.schema), lambda b: encoder.columns(b.schema), list_of(both, "id")):
        with pytest.raises(InputError, match=message):
            call(batch)


def list_of(model, *keep):
    return lambda batch: list(encode_batches(model, [batch], keep=keep))


def _cast(pa, batch, name, kind):
    i = batch.schema.get_field_index(name)
    column = pa.nulls(batch.num_rows, kind) if pa.types.is_list(kind) else batch.column(i).cast(kind)
    return batch.set_column(i, name, column)


@pytest.mark.parametrize(
    ("column", "names", "message"),
    [
        (None, ["a", "b"], r"expected one column of lists that can be samples of shape \(8,\), got a, b; .* column="),
        ("c", ["a", "b"], "column: expected one of a, b, text, short, words, got 'c'"),
        ("text", ["a"], "column 'text': expected lists of 8 numbers, got string"),
        ("short", ["a"], r"column 'short': expected lists of 8 numbers, got fixed_size_list<.*>\[7\]"),
        ("words", ["a"], r"column 'words': expected lists of 8 numbers, got list<.*string>"),
        (None, [], r"expected columns named 's0', .* got 'text', 'short', 'words', none of the model's features"),
    ],
)
def test_which_column_of_lists(column, names, message, pa, both, given_rows):
    others = {"text": pa.array(["x"] * 60), "short": lists(pa, given_rows[:, :7].copy(), "fixed")}
    others["words"] = pa.array([["x"] * 8] * 60)
    batch = pa.RecordBatch.from_pydict({**{name: lists(pa, given_rows) for name in names}, **others})
    with pytest.raises(InputError, match=message):
        BatchEncoder(both, column=column).schema(batch.schema)
    if names == ["a", "b"]:
        assert latents(BatchEncoder(both, column="b")(batch)).shape == (60, both.latent_size)
        assert BatchEncoder(both, keep=("a",)).columns(batch.schema) == ["b", "a"]


def test_batches_of_other_columns(pa, both, given_rows):
    """Types of numbers may differ from batch to batch, but not where samples are, nor what comes out."""
    encoder = BatchEncoder(both, keep=("id",))
    first = frame(pa, given_rows, id=pa.array(range(60)))
    expected = encoder(first)
    doubles = first.cast(pa.schema([first.schema.field(0), *((name, pa.float64()) for name in NAMES)]))
    assert encoder(doubles).equals(expected)
    assert encoder(first.select([*NAMES[::-1], "id"])).equals(expected)
    place = r"batch from row 180 on \(counted from 0\): expected columns as in the first batch, got "
    with pytest.raises(InputError, match=place + "'id' as string, not int64; cast"):
        encoder(_cast(pa, first, "id", pa.string()))
    with pytest.raises(InputError, match=place + "samples in x, not in s0, s1"):
        encoder(pa.RecordBatch.from_pydict({"id": pa.array(range(60)), "x": lists(pa, given_rows)}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": ("latent", "codes")}, "outputs: expected some of latent, score, p_value, alarm, got 'codes'"),
        ({"outputs": ()}, "outputs: expected some of .* got none"),
        ({"outputs": ("latent",), "keep": ("id", "latent")}, "keep: a column of the result is called 'latent', too"),
        ({"invalid": "drop"}, "invalid: expected 'raise' or 'propagate', got 'drop'"),
        ({"outputs": ("alarm",), "false_alarm_rate": 1e-9}, "false_alarm_rate: .* needs"),
        ({"outputs": ("alarm",), "false_alarm_rate": 0.1, "threshold": 1.0}, "leave one out"),
        ({"threads": 0}, "threads"),
        ({"variant": "int4"}, "variant: expected"),
    ],
)
def test_arguments_are_refused_before_the_first_batch(options, message):
    with pytest.raises(InputError, match=message):
        encode_batches(DATA / "bundle_v2_both", iter(()), **options)


@pytest.mark.parametrize("output", ["score", "p_value", "alarm"])
def test_what_a_bundle_cannot_give_is_refused_before_the_first_batch(output):
    with pytest.raises(IncompatibleBundleError, match="needs a decoder"):
        encode_batches(DATA / "bundle_v1_encoder", iter(()), (output,))
    if output != "score":
        with pytest.raises(IncompatibleBundleError, match="calibration"):
            encode_batches(DATA / "bundle_v1", iter(()), (output,))
    with pytest.raises(BundleError, match="nothing"):
        encode_batches(DATA / "not there", iter(()), (output,))


def test_what_is_no_batch(pa, both, given_rows):
    batch = frame(pa, given_rows)
    with pytest.raises(InputError, match="expected a pyarrow RecordBatch or Table, got ndarray"):
        BatchEncoder(both)(given_rows)
    for one in (batch, pa.Table.from_batches([batch])):
        with pytest.raises(InputError, match="batches: expected an iterable of batches, got one"):
            encode_batches(both, one)
    reader = pa.RecordBatchReader.from_batches(batch.schema, [batch, batch])
    assert sum(found.num_rows for found in encode_batches(both, reader, "latent", "s3")) == 120


def test_more_latents_than_lists_can_hold(pa, both, given_rows, monkeypatch):
    monkeypatch.setattr(arrow, "_MOST_OFFSET", 100)
    with pytest.raises(InputError, match=r"expected at most .* rows in a batch, .* got 60; pass smaller batches"):
        BatchEncoder(both)(frame(pa, given_rows))


def test_without_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"need pyarrow, which is not installed; pip install 'aeedge\[arrow\]'"):
        encode_batches(DATA / "bundle_v1", [])


# --- one model in a process


@pytest.fixture
def opened(monkeypatch):
    """How often a bundle was loaded."""
    loads, load = [], arrow.load
    monkeypatch.setattr(arrow, "_models", {})
    monkeypatch.setattr(arrow, "load", lambda path, **options: loads.append(path) or load(path, **options))
    return loads


def test_a_bundle_is_opened_once_in_a_process(opened, bundle, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        models = {id(e.model) for e in pool.map(lambda _: BatchEncoder(bundle), range(32))}
    assert len(models) == 1
    assert BatchEncoder(bundle).model.threads == 1
    (tmp_path / "link").symlink_to(bundle)
    assert {id(BatchEncoder(tmp_path / "link").model), id(BatchEncoder(str(bundle)).model)} == models
    assert len(opened) == 1
    assert id(BatchEncoder(bundle, threads=2).model) not in models
    assert len(opened) == 2


def test_a_replaced_bundle_is_opened_again(opened, bundle):
    old = BatchEncoder(bundle)
    shutil.rmtree(bundle)
    shutil.copytree(DATA / "bundle_v2_both", bundle)
    new = BatchEncoder(bundle)
    assert (old.model.input.size, new.model.input.size) == (12, 8)
    assert list(arrow._models.values()) == [new.model]
    with pytest.raises(IncompatibleBundleError, match="it was replaced since"):
        pickle.loads(pickle.dumps(old))


@pytest.mark.parametrize("how", ["pickle", "cloudpickle"])
def test_a_pickled_encoder_opens_its_bundle_once(how, opened, pa, rows):
    pickler = pytest.importorskip(how)
    bundle = DATA / "bundle_v1"
    encoder = BatchEncoder(bundle, ("latent", "score"), ("s3",), invalid="propagate", first_row=7)
    again = pickle.loads(pickler.dumps(encoder))
    assert again.model is encoder.model
    batch = frame(pa, rows[:50], [f"s{i}" for i in range(12)])
    assert again(batch).equals(encoder(batch))
    assert (again.first_row, again.invalid) == (57, "propagate")
    with aeedge.load(bundle, threads=1) as model:
        data = pickler.dumps(BatchEncoder(model))
    assert pickle.loads(data).model is encoder.model  # opened with the same arguments
    assert len(opened) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_goes_on(opened, pa, rows):
    """Also when another thread held the lock of the models."""
    batch = frame(pa, rows[:100], [f"s{i}" for i in range(12)])
    expected = BatchEncoder(DATA / "bundle_v1")(batch)
    holds, ends = threading.Event(), threading.Event()

    def hold():
        with arrow._lock:
            holds.set()
            ends.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait()
    try:
        child = fork()
        if not child:
            found = next(encode_batches(DATA / "bundle_v1", [batch]))
            os._exit(0 if found.equals(expected) else 1)
    finally:
        ends.set()
        thread.join()
    assert os.waitpid(child, 0)[1] == 0


def fork():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: a fork beside threads, which is meant
        return os.fork()


def test_threads_share_an_encoder(pa, both, given_rows):
    encoder, batch = BatchEncoder(both, OUTPUTS), frame(pa, given_rows)
    expected = encoder(batch)
    with ThreadPoolExecutor(8) as pool:
        assert all(found.equals(expected) for found in pool.map(encoder, [batch] * 200))


# --- other packages


def test_from_polars_and_back(pa, both, given_rows):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"id": range(60), **{name: given_rows[:, i] for i, name in enumerate(NAMES)}})
    table = BatchEncoder(both, ("latent", "alarm"), ("id",))(frame.to_arrow())
    found = polars.from_arrow(table)
    assert found["id"].to_list() == list(range(60))
    np.testing.assert_array_equal(np.array(found["latent"].to_list(), np.float32), both.encode(given_rows))
    arrays = polars.DataFrame({"x": given_rows, "id": range(60)})
    assert isinstance(arrays.schema["x"], polars.Array)
    again = BatchEncoder(both, ("latent", "alarm"), ("id",))(arrays.to_arrow())
    assert again.equals(table)


def test_from_pandas_and_back(pa, both, given_rows):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(given_rows, columns=NAMES).assign(id=[f"row {i}" for i in range(60)])
    table = BatchEncoder(both, OUTPUTS, ("id",))(pa.Table.from_pandas(frame))
    found = table.to_pandas()
    assert list(found.columns) == ["id", *OUTPUTS]
    np.testing.assert_array_equal(np.stack(found["latent"]), both.encode(given_rows))
    none = BatchEncoder(both, OUTPUTS, ("id",))(pa.Table.from_pandas(frame.head(0))).to_pandas()
    assert list(none.dtypes) == list(found.dtypes)
