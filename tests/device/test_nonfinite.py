"""Properties: NaN, infinity and integers that do not fit are always found, and nothing else."""

import re

import numpy as np
import pytest
from helpers import onnx_bytes, reference, strategies
from helpers.strategies import (
    FLOAT_BUNDLES,
    FLOATS,
    LAYOUTS,
    METHODS,
    bad_values,
    counts,
    given_to,
    layouts,
    loaded,
    room,
    some,
    threads,
)
from hypothesis import given
from hypothesis import strategies as st

import aeedge
from aeedge.runtime.nonfinite import first_finite, sentinels_here
from aeedge.runtime.session import Session


@pytest.fixture(scope="module", autouse=True)
def close_all():
    yield
    strategies.close_all()


@st.composite
def spoiled(draw, name, what):
    """Rows in some float dtype with bad values in some places, the places, and the same rows without."""
    dtype = np.dtype(draw(st.sampled_from(FLOATS)))
    count = draw(counts)
    rows = given_to(name, what)[:count].astype(dtype)
    width = rows.shape[1]
    edge = st.sampled_from([0, count // 2, count - 1])
    places = st.tuples(edge | st.integers(0, count - 1), st.integers(0, width - 1))
    values = bad_values if dtype.itemsize < 8 else bad_values | st.sampled_from([1e300, -1e39, 3.5e38])
    bad = draw(st.dictionaries(places, values, min_size=1, max_size=4))
    dirty = rows.copy()
    for at, value in bad.items():
        dirty[at] = value
    return dirty, bad, rows


FLOAT_CALLS = [(name, what) for name in FLOAT_BUNDLES for what in METHODS]
FLOAT_CALLS += [(name, "decode") for name in ("bundle_v1_uint8", "bundle_v1_int8")]


@pytest.mark.parametrize(("name", "what"), FLOAT_CALLS)
def test_the_first_value_that_is_not_finite_is_named(name, what):
    @some(max_examples=50)
    @given(data=st.data())
    def check(data):
        dirty, bad, _ = data.draw(spoiled(name, what))
        x, call = LAYOUTS[data.draw(layouts)](dirty), getattr(loaded(name, data.draw(threads)), what)
        x, single = (x[0], True) if len(dirty) == 1 and data.draw(st.booleans()) else (x, False)
        out = room(data.draw, given_to(name, what)[0] if single else dirty) if what == "residual" else None
        with pytest.raises(aeedge.InputError) as caught:
            call(x, out=out)
        row, column = min(bad)
        assert str(caught.value).startswith(f"{what}: expected finite numbers, got ")
        found = re.search(r"got (\S+) in row (\d+), column (\d+)\b", str(caught.value))
        assert found.groups()[1:] == (str(row), str(column))
        assert np.array_equal(float(found[1]), bad[row, column], equal_nan=True)

    check()


@pytest.mark.parametrize(("name", "what"), FLOAT_CALLS)
def test_propagate_gives_nan_for_bad_rows_and_leaves_the_others_exact(name, what):
    @some(max_examples=50)
    @given(data=st.data())
    def check(data):
        dirty, bad, rows = data.draw(spoiled(name, what))
        layout, call = LAYOUTS[data.draw(layouts)], getattr(loaded(name, data.draw(threads)), what)
        expected = call(layout(rows))
        out = room(data.draw, expected)
        got = call(layout(dirty), out=out, invalid="propagate")
        assert out is None or got is out
        is_bad = np.isin(np.arange(len(rows)), [row for row, _ in bad])
        assert np.isnan(got[is_bad]).all()
        assert np.array_equal(got[~is_bad], expected[~is_bad])
        if len(dirty) == 1:
            assert np.isnan(call(dirty[0], invalid="propagate")).all()

    check()


@pytest.mark.parametrize("invalid", ["raise", "propagate"])
@pytest.mark.parametrize(("name", "what"), FLOAT_CALLS)
def test_huge_and_tiny_values_are_finite(name, what, invalid):
    largest = float(np.finfo(np.float32).max)
    odd = [3e38, -3e38, largest, -largest, 1e-45, -1e-45, 1e-39, -0.0, 0.0]

    @some(max_examples=50)
    @given(data=st.data())
    def check(data):
        dtype = data.draw(st.sampled_from(["float32", "float64", ">f4", "longdouble"]))
        values = odd if dtype in ("float32", ">f4") else [*odd, 1e-320, 3.4028235e38]
        rows = given_to(name, what)[: data.draw(counts)].astype(dtype)
        if data.draw(st.booleans()):
            rows[...] = data.draw(st.sampled_from(values))
        for row, column in data.draw(st.lists(st.tuples(*map(st.integers, (0, 0), rows.shape)), max_size=5)):
            rows[row % len(rows), column % rows.shape[1]] = data.draw(st.sampled_from(values))
        x, model = LAYOUTS[data.draw(layouts)](rows), loaded(name, data.draw(threads))
        got = getattr(model, what)(x, invalid=invalid)
        assert len(got) == len(rows)
        if what == "encode":
            calm = (np.abs(rows) < 1e6).all(axis=1)
            assert np.isfinite(got[calm]).all()

    check()


@pytest.mark.parametrize("name", FLOAT_BUNDLES)
def test_the_sign_of_zero_and_what_is_next_to_zero_make_no_difference(name):
    @some(max_examples=25)
    @given(count=counts, n=threads, value=st.sampled_from([-0.0, 1e-45, -1e-45, 1e-39]))
    def check(count, n, value):
        model, rows = loaded(name, n), given_to(name, "encode")[:count].copy()
        rows[:, ::2] = 0
        expected = model.encode(rows)
        rows[:, ::2] = value
        assert reference.same(model, "encode", model.encode(rows), expected)

    check()


@pytest.mark.parametrize("name", ["bundle_v1_uint8", "bundle_v1_int8"])
def test_the_first_integer_that_does_not_fit_is_named(name):
    @some(max_examples=50)
    @given(data=st.data())
    def check(data):
        model = loaded(name, data.draw(threads))
        dtype = np.dtype(data.draw(st.sampled_from(["int16", ">i4", "int64", "uint16", "uint64"])))
        rows = given_to(name, "encode")[: data.draw(counts)].astype(dtype)
        values = [256, 300, 2**15 - 1] + ([-1, -300] if dtype.kind == "i" else [])
        places = st.tuples(*(st.integers(0, n - 1) for n in rows.shape))
        bad = data.draw(st.dictionaries(places, st.sampled_from(values), min_size=1, max_size=3))
        for at, value in bad.items():
            rows[at] = value
        at = min(bad)
        where = re.escape(f"expected values from 0 to 255 (uint8), got {bad[at]} in row {at[0]}, position {at[1:]}")
        with pytest.raises(aeedge.InputError, match=f"^encode: {where}$"):
            model.encode(LAYOUTS[data.draw(layouts)](rows))

    check()


@pytest.mark.parametrize(("wide", "k"), [(12, 5), (100, 1), (784, 32)])
@pytest.mark.parametrize("count", [1, 3, 70, 300])
def test_the_first_latent_of_one_dense_layer_exposes_every_value_that_is_not_finite(wide, k, count):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(wide, k)).astype(np.float32)
    weights[rng.random(weights.shape) < 0.3] = 0.0
    weights[0] = 0.0
    session = Session(onnx_bytes.model(onnx_bytes.dense(weights)), "g", "float32", (wide,), (k,))
    assert sentinels_here("none", session.chain, session.run, (wide,), "float32") == "first"
    clean = np.abs(weights).sum(axis=1) * np.sign(weights[:, 0]) * np.ones((count, 1), np.float32)
    assert first_finite(session.run(clean))
    for at in range(min(wide, 40)):
        for bad in (np.nan, np.inf, -np.inf):
            rows = clean.copy()
            rows[count // 2, at] = bad
            assert not first_finite(session.run(rows))


def test_other_graphs_have_no_sentinels_unless_the_manifest_says_so():
    for chain in ((), ("Gemm", "Relu"), ("Gemm", "Relu", "Gemm"), ("Gemm", "Sigmoid"), ("Conv",), ("Relu", "Gemm")):
        assert sentinels_here("none", chain, lambda rows: rows, (2,), "float32") == "none"


@pytest.mark.parametrize("count", [1, 4, 40])
@pytest.mark.parametrize("name", FLOAT_BUNDLES)
def test_who_asks_numpy_for_exceptions_gets_them_of_ours(name, count):
    """Underflow is nothing to complain about, and infinity minus infinity has our sentence."""
    model = loaded(name, 1)
    for what in METHODS:
        call, rows = getattr(model, what), np.full_like(given_to(name, what)[:count], 1e-38)
        with np.errstate(all="raise"):
            assert np.isfinite(call(rows)).all()
            rows[0, :2] = np.inf, -np.inf
            with pytest.raises(
                aeedge.InputError, match=f"^{what}: expected finite numbers, got inf in row 0, column 0"
            ):
                call(rows)
