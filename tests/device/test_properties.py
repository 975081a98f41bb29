"""Laws that hold for all inputs: how rows are passed makes no difference."""

import itertools

import numpy as np
import pytest
from helpers import reference, strategies
from helpers.strategies import (
    BUNDLES,
    LAYOUTS,
    METHODS,
    MOST,
    converted,
    counts,
    given_to,
    layouts,
    loaded,
    plain,
    room,
    some,
    threads,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(scope="module", autouse=True)
def close_all():
    yield
    strategies.close_all()


@pytest.mark.parametrize("what", METHODS)
@pytest.mark.parametrize("name", BUNDLES)
def test_a_wrong_row_would_be_noticed(name, what):
    right = getattr(loaded(name, 1), what)(given_to(name, what))
    wrong = right.copy()
    wrong[MOST // 2] = right[MOST // 2 + 1]
    assert reference.same(loaded(name, 1), what, right, right)
    assert not reference.same(loaded(name, 1), what, wrong, right)


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
            assert reference.same(model, what, got if out is None else out, wanted)
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
            assert reference.same(model, what, getattr(model, what)(rows[order]), whole[order])

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
