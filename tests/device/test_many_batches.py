"""Laws of encode_iter and map_iter: any split gives the same as the whole, in order, and rows are counted."""

import gc
import itertools
import threading

import numpy as np
import pytest
from helpers import reference, strategies
from helpers.strategies import BUNDLES, DATA, METHODS, bad_values, counts, given_to, loaded, some, threads
from helpers.waiting import soon
from hypothesis import given
from hypothesis import strategies as st

import aeedge


@pytest.fixture(scope="module", autouse=True)
def close_all():
    yield
    strategies.close_all()


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
        assert reference.same(model, what, joined, expected)

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
            assert reference.same(model, what, got, getattr(model, what)(part))
        assert list(iterator) == []

    law()


@pytest.mark.parametrize("abandon", ["close", "del", "error"])
def test_an_abandoned_iterator_leaves_nothing_running(abandon):
    before, finished, rows = set(threading.enumerate()), [], given_to("bundle_v1", "encode")

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
        assert reference.same(model, "encode", model.encode(rows), loaded("bundle_v1", 1).encode(rows))
        model.close()
        del batches
    gc.collect()
    assert soon(lambda: set(threading.enumerate()) <= before)
    assert finished == [True] * 5
