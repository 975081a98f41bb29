"""Laws that hold for all inputs: how rows are passed makes no difference, and what is not finite is always found."""

import functools
import gc
import itertools
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import witness
from hypothesis import given, settings
from hypothesis import strategies as st

import aeedge

DATA = Path(__file__).parent.parent / "data"
BUNDLES = ["bundle_v1", "bundle_v1_uint8", "bundle_v1_int8"]
FLOAT_BUNDLES = ["bundle_v1", "bundle_v1_saturating"]  # fp32 and int8
METHODS = ["encode", "decode", "denoise", "residual", "score"]
MOST = 5000
FLOATS = ["float32", "float64", ">f4", ">f8", "float16", "longdouble"]
INTEGERS = ["uint8", "int16", ">i2", "int32", "uint32", "int64", ">u8", "bool"]

some = functools.partial(settings, deadline=None)
counts = st.one_of(
    st.integers(1, 9), st.sampled_from([16, 63, 64, 65, 256, 257, 1023, 1024, 1025]), st.integers(1, MOST)
)
threads = st.integers(1, 5)


@functools.cache
def loaded(name, threads):
    return aeedge.load(DATA / name, threads=threads)


@pytest.fixture(scope="module", autouse=True)
def close_all():
    yield
    for name, count in itertools.product([*BUNDLES, *FLOAT_BUNDLES], range(1, 6)):
        loaded(name, count).close()
    loaded.cache_clear()
    given_to.cache_clear()


@functools.cache
def given_to(name, what):
    """Rows that a method takes."""
    one = loaded(name, 1)
    rows = witness.rows_of(one, MOST)
    rows = one.encode(rows) if what == "decode" else rows
    rows.flags.writeable = False
    return rows


def spread(x, axis):
    """Every second of an axis that is twice as long."""
    return np.repeat(x, 2, axis=axis)[(slice(None),) * axis + (slice(None, None, 2),)]


def inside(x, axis):
    """Amid values that must not be read."""
    padded = np.pad(x, [(3, 2) if a == axis else (0, 0) for a in range(x.ndim)], constant_values=1)
    return padded[(slice(None),) * axis + (slice(3, -2),)]


def reversed_in_memory(x):
    return np.ascontiguousarray(x[(slice(None, None, -1),) * x.ndim])[(slice(None, None, -1),) * x.ndim]


def unaligned(x):
    buffer = bytearray(x.nbytes + 1)
    moved = np.frombuffer(buffer, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    moved[...] = x
    return moved


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


class Subclass(np.ndarray):
    pass


LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "every second row": lambda x: spread(x, 0),
    "every second value": lambda x: spread(x, x.ndim - 1),
    "some rows of more": lambda x: inside(x, 0),
    "some columns of more": lambda x: inside(x, x.ndim - 1),
    "backwards": reversed_in_memory,
    "rows backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "transposed twice": lambda x: np.ascontiguousarray(np.moveaxis(x, 0, -1)).transpose(-1, *range(x.ndim - 1)),
    "unaligned": unaligned,
    "read-only": read_only,
    "a subclass": lambda x: x.copy().view(Subclass),
    "lists": lambda x: x.tolist() if len(x) <= 64 else x,
}
layouts = st.sampled_from(sorted(LAYOUTS))


@st.composite
def converted(draw, name, what):
    """Rows that a method takes, of some dtype, and the same in the dtype of the model."""
    integer = loaded(name, 1).input.dtype != "float32" and what != "decode"
    dtype = np.dtype(draw(st.sampled_from(INTEGERS if integer else FLOATS + INTEGERS)))
    count = draw(counts)
    first = draw(st.integers(0, MOST - count))
    rows = given_to(name, what)[first : first + count]
    if dtype.kind != "f":
        rows = np.abs(np.rint(rows)).astype(np.int64) % (2 if dtype.kind == "b" else 128)
    if draw(st.integers(0, 9)) == 0:
        rows = np.broadcast_to(rows[:1], rows.shape)  # no bytes from row to row; astype would lose that
        return rows.astype(dtype)[:1], count, integer
    return rows.astype(dtype), count, integer


def plain(rows, integer):
    return np.ascontiguousarray(rows, np.uint8 if integer else np.float32)


def room(draw, expected):
    """An `out` for results of this shape: nothing, new, or part of something larger; NaN, to be overwritten."""
    kind = draw(st.sampled_from(["none", "new", "every second", "Fortran", "backwards"]))
    if kind == "none":
        return None
    out = np.full(expected.shape, np.nan, np.float32)
    if kind == "new" or out.ndim == 0:
        return out
    if kind == "every second":
        return np.full((*out.shape[:-1], 2 * out.shape[-1]), np.nan, np.float32)[..., ::2]
    return np.asfortranarray(out) if kind == "Fortran" else out[::-1]


@pytest.mark.parametrize("what", METHODS)
@pytest.mark.parametrize("name", BUNDLES)
def test_a_wrong_row_would_be_noticed(name, what):
    right = getattr(loaded(name, 1), what)(given_to(name, what))
    wrong = right.copy()
    wrong[MOST // 2] = right[MOST // 2 + 1]
    assert witness.same(loaded(name, 1), what, right, right)
    assert not witness.same(loaded(name, 1), what, wrong, right)


@pytest.mark.parametrize("what", METHODS)
@pytest.mark.parametrize("name", BUNDLES)
def test_how_rows_are_passed_makes_no_difference(name, what):
    @some(max_examples=50)
    @given(data=st.data())
    def law(data):
        rows, count, integer = data.draw(converted(name, what))
        expected = getattr(loaded(name, 1), what)(plain(rows, integer))
        if len(rows) != count:
            rows, expected = (np.broadcast_to(a, (count, *a.shape[1:])) for a in (rows, expected))
        model = loaded(name, data.draw(threads, label="threads"))
        call = getattr(model, what)
        cuts = data.draw(st.lists(st.integers(0, count), max_size=5), label="cuts")
        for start, stop in itertools.pairwise(sorted({0, count, *cuts})):
            part, wanted = rows[start:stop], expected[start:stop]
            layout = data.draw(layouts, label="layout")
            part = part if part.strides[0] == 0 else LAYOUTS[layout](part)  # zero strides are a layout
            if stop == start + 1 and data.draw(st.booleans(), label="single"):
                part, wanted = part[0], wanted[0]
            out = room(data.draw, wanted)
            before = np.copy(part)
            got = call(part, out=out)
            assert witness.same(model, what, got if out is None else out, wanted)
            assert np.array_equal(part, before)

    law()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("name", BUNDLES)
def test_every_layout_gives_the_same_bits(name, layout):
    for what, count in itertools.product(METHODS, (1, 64, 700, MOST)):
        x, call = given_to(name, what)[:count], getattr(loaded(name, 2), what)
        assert np.array_equal(call(layout(x)), call(x))


@pytest.mark.parametrize("name", BUNDLES)
def test_one_value_for_a_whole_row(name):
    for count in (1, 64, MOST):
        rows = given_to(name, "encode")[:count]
        x = np.broadcast_to(rows.reshape(count, -1)[:, 5].reshape(count, *[1] * (rows.ndim - 1)), rows.shape)
        for n in (1, 2):
            assert np.array_equal(loaded(name, n).encode(x), loaded(name, n).encode(x.copy()))


@pytest.mark.parametrize("count", [None, 1, 2, 64, MOST], ids=lambda n: "single" if n is None else str(n))
@pytest.mark.parametrize("what", METHODS)
@pytest.mark.parametrize("name", BUNDLES)
def test_the_out_that_was_given_is_returned(name, what, count):
    rows, call = given_to(name, what), getattr(loaded(name, 2), what)
    x = rows[0] if count is None else rows[:count]
    out = np.full_like(call(x), np.nan)
    assert call(x, out=out) is out
    assert np.array_equal(out, call(x))


@pytest.mark.parametrize("name", BUNDLES)
def test_any_order_of_rows_gives_the_same(name):
    @some(max_examples=25)
    @given(seed=st.integers(0, 2**32 - 1), count=counts, n=threads)
    def law(seed, count, n):
        order, model = np.random.default_rng(seed).integers(0, MOST, count), loaded(name, n)
        for what in METHODS:
            rows = given_to(name, what)
            whole = getattr(loaded(name, 1), what)(rows)
            assert witness.same(model, what, getattr(model, what)(rows[order]), whole[order])

    law()


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("name", BUNDLES)
def test_any_number_of_threads_gives_the_same_bits(name, count):
    for what, rows in itertools.product(METHODS, (700, MOST)):
        x = given_to(name, what)[:rows]
        assert np.array_equal(getattr(loaded(name, count), what)(x), getattr(loaded(name, 1), what)(x))


@pytest.mark.parametrize("name", BUNDLES)
def test_decode_of_encode_keeps_the_shape(name):
    @some(max_examples=40)
    @given(n=st.integers(1, 40), single=st.booleans())
    def law(n, single):
        model, x = loaded(name, 2), given_to(name, "encode")[:n]
        x = x[0] if single else x
        assert model.decode(model.encode(x)).shape == x.shape

    law()


@pytest.mark.parametrize("what", ["encode", "denoise", "residual"])
def test_out_may_be_any_part_of_the_input(what):
    @some(max_examples=50)
    @given(count=counts, shift=st.integers(0, 5), n=threads)
    def law(count, shift, n):
        model, rows = loaded("bundle_v1", n), given_to("bundle_v1", what)[:count]
        expected = getattr(model, what)(rows)
        memory = np.empty((count + shift, 12), np.float32)
        memory[:count] = rows
        out = memory[shift:, : expected.shape[1]]
        assert getattr(model, what)(memory[:count], out=out) is out
        assert np.array_equal(out, expected)

    law()


# What is not finite

bad_values = st.sampled_from([np.nan, np.inf, -np.inf])


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
    def law(data):
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

    law()


@pytest.mark.parametrize(("name", "what"), FLOAT_CALLS)
def test_propagate_gives_nan_for_bad_rows_and_leaves_the_others_exact(name, what):
    @some(max_examples=50)
    @given(data=st.data())
    def law(data):
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

    law()


@pytest.mark.parametrize("invalid", ["raise", "propagate"])
@pytest.mark.parametrize(("name", "what"), FLOAT_CALLS)
def test_huge_and_tiny_values_are_finite(name, what, invalid):
    largest = float(np.finfo(np.float32).max)
    odd = [3e38, -3e38, largest, -largest, 1e-45, -1e-45, 1e-39, -0.0, 0.0]

    @some(max_examples=50)
    @given(data=st.data())
    def law(data):
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

    law()


@pytest.mark.parametrize("name", FLOAT_BUNDLES)
def test_the_sign_of_zero_and_what_is_next_to_zero_make_no_difference(name):
    @some(max_examples=25)
    @given(count=counts, n=threads, value=st.sampled_from([-0.0, 1e-45, -1e-45, 1e-39]))
    def law(count, n, value):
        model, rows = loaded(name, n), given_to(name, "encode")[:count].copy()
        rows[:, ::2] = 0
        expected = model.encode(rows)
        rows[:, ::2] = value
        assert witness.same(model, "encode", model.encode(rows), expected)

    law()


@pytest.mark.parametrize("name", ["bundle_v1_uint8", "bundle_v1_int8"])
def test_the_first_integer_that_does_not_fit_is_named(name):
    @some(max_examples=50)
    @given(data=st.data())
    def law(data):
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

    law()


# Many batches


@st.composite
def batches(draw, rows):
    """Rows as an iterable of arrays, some of them single rows."""
    cuts = draw(st.lists(st.integers(1, len(rows)), max_size=6))
    parts = [rows[a:b] for a, b in itertools.pairwise(sorted({0, len(rows), *cuts}))]
    return [part[0] if len(part) == 1 and draw(st.booleans()) else part for part in parts]


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("what", METHODS)
def test_iterating_over_any_split_gives_the_same_as_the_whole(name, what):
    @some(max_examples=40)
    @given(data=st.data())
    def law(data):
        rows = given_to(name, what)[: data.draw(counts)]
        model, parts = loaded(name, data.draw(threads)), data.draw(batches(rows))
        iterator = model.map_iter(what, data.draw(st.sampled_from([iter, list, tuple]))(parts))
        got = list(model.encode_iter(parts)) if what == "encode" and data.draw(st.booleans()) else list(iterator)
        expected = getattr(loaded(name, 1), what)(rows)
        single = rows.ndim - 1
        assert [len(g) if p.ndim > single else g.shape for g, p in zip(got, parts)] == [
            len(p) if p.ndim > single else expected.shape[1:] for p in parts
        ]
        joined = np.concatenate([g if p.ndim > single else g[np.newaxis] for g, p in zip(got, parts)])
        assert witness.same(model, what, joined, expected)

    law()


@pytest.mark.parametrize("invalid", ["raise", "propagate"])
def test_rows_are_counted_over_all_batches(invalid):
    @some(max_examples=40)
    @given(data=st.data())
    def law(data):
        rows = given_to("bundle_v1", "encode")[: data.draw(counts)].copy()
        row, column = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, 11))
        rows[row, column] = data.draw(bad_values)
        model, parts, delivered = loaded("bundle_v1", data.draw(threads)), data.draw(batches(rows)), []
        iterator = model.encode_iter(iter(parts), invalid=invalid)
        if invalid == "propagate":
            for got in iterator:
                delivered += np.isnan(got.reshape(-1, 3)).all(axis=1).tolist()
            assert delivered.index(True) == row
            assert sum(delivered) == 1
            return
        with pytest.raises(aeedge.InputError, match=rf"in row {row}, column {column} \('s{column}'\)"):
            delivered.extend(z for got in iterator for z in got.reshape(-1, 3))
        assert len(delivered) <= row < len(delivered) + max(len(np.atleast_2d(p)) for p in parts)

    law()


class MineError(Exception):
    pass


@pytest.mark.parametrize("what", METHODS)
def test_an_iterable_that_fails_delivers_what_came_before(what):
    @some(max_examples=25)
    @given(data=st.data())
    def law(data):
        rows = given_to("bundle_v1", what)[: data.draw(counts)]
        model, parts, delivered = loaded("bundle_v1", data.draw(threads)), data.draw(batches(rows)), []
        error = MineError("the sensor is gone")

        def source():
            yield from parts
            raise error

        iterator = model.map_iter(what, source())
        with pytest.raises(MineError) as caught:
            delivered.extend(iterator)
        assert caught.value is error
        assert len(delivered) == len(parts)
        for part, got in zip(parts, delivered):
            assert witness.same(model, what, got, getattr(model, what)(part))
        assert list(iterator) == []

    law()


@pytest.mark.parametrize("abandon", ["close", "del", "error"])
def test_an_abandoned_iterator_leaves_nothing_running(abandon):
    before, finished, rows = threading.active_count(), [], given_to("bundle_v1", "encode")

    def source():
        try:
            yield from itertools.repeat(rows)
        finally:
            finished.append(True)

    for _ in range(5):
        model = aeedge.load(DATA / "bundle_v1", threads=3)
        batches = source()
        iterator = model.encode_iter(batches)
        next(iterator)
        if abandon == "close":
            iterator.close()
        elif abandon == "error":
            with pytest.raises(MineError):
                iterator.throw(MineError())
        del iterator
        assert witness.same(model, "encode", model.encode(rows), loaded("bundle_v1", 1).encode(rows))
        model.close()
        del batches
    gc.collect()
    end = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before
    assert finished == [True] * 5
