"""encode_iter reads ahead: one batch, in order, on a thread that ends with the iteration."""

import itertools
import threading
import time

import numpy as np
import pytest
from helpers.waiting import PATIENCE

CLOSE = {"rtol": 1e-5, "atol": 1e-4}  # fp32: a row's rounding may depend on the size of its block


def test_encode_iter_reads_one_batch_ahead_and_no_more(model, rows):
    taken = []

    def batches():
        for start in range(0, 3000, 300):
            taken.append(start)
            yield rows[start : start + 300]

    iterator = model.encode_iter(batches())
    assert taken == []
    for delivered in range(1, 5):
        next(iterator)
        time.sleep(0.05)  # a reader without bounds would run away now
        assert delivered <= len(taken) <= delivered + 2  # one waits in between, one is held by the reader
    iterator.close()


def test_encode_iter_reads_while_it_encodes(model, rows):
    """The next batch is asked for while the reader of the results still holds the last one."""
    asked = threading.Semaphore(0)

    def batches():
        for start in range(0, 500, 100):
            asked.release()
            yield rows[start : start + 100]

    iterator = model.encode_iter(batches())
    for _ in range(4):
        next(iterator)
        assert asked.acquire(timeout=PATIENCE)
    assert asked.acquire(timeout=PATIENCE)  # the fifth, though only four were delivered
    iterator.close()


def test_encode_iter_may_be_given_the_same_array_again_and_again(model, rows):
    def refilled():
        buffer = np.empty((100, 12), np.float32)
        for start in range(0, 3000, 100):
            buffer[:] = rows[start : start + 100]
            yield buffer

    found = np.concatenate(list(model.encode_iter(refilled())))
    np.testing.assert_allclose(found, model.encode(rows), **CLOSE)


def test_what_an_iterable_raises_comes_in_its_turn(model, rows):
    def failing():
        yield rows[:10]
        yield rows[10:20]
        raise OSError("the disk is gone")

    results = model.encode_iter(failing())
    assert [len(next(results)), len(next(results))] == [10, 10]
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)


def test_an_abandoned_iteration_ends_its_thread(model, rows):
    others = set(threading.enumerate())
    results = model.encode_iter(itertools.repeat(rows[:10]))
    next(results)
    (reader,) = set(threading.enumerate()) - others
    results.close()
    reader.join(timeout=PATIENCE)
    assert not reader.is_alive()
