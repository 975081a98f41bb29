"""A signal handler may raise in the middle of a call or a load: it comes out as it is, and leaves nothing behind."""

import itertools
import os
import signal
import threading
import time

import numpy as np
import pytest
from helpers import reference
from helpers.children import BUNDLE, child
from helpers.interrupting import Fresh, InterruptionError, Nth, interrupt

import aeedge
from aeedge.runtime import threadpool
from aeedge.runtime.policy import DispatchPolicy
from aeedge.runtime.threadpool import ThreadPool

ERRORS = [InterruptionError, KeyboardInterrupt, TimeoutError, SystemExit, RuntimeError]


@pytest.fixture
def on_workers():
    """A model whose calls on 2,000 rows go to worker threads, in 16 blocks."""
    with aeedge.load(BUNDLE, threads=3) as model:
        model._dispatcher.set_policy(DispatchPolicy(pool_from_us=np.inf, workers_from_us=1.0), {"encode": 0.01})
        yield model


def helpers():
    return sum(thread.name == "aeedge" for thread in threading.enumerate())


def all_idle(model):
    """Whether every set of bound arrays is back."""
    return not model._dispatcher._sessions.is_busy()


# Calls


@pytest.mark.parametrize("count", [1, 3, 64, 2000])
def test_a_call_interrupted_at_any_line_leaves_nothing_behind(on_workers, count):
    model, rows = on_workers, reference.rows_of(on_workers, 2 * count)
    expected, tried = model.encode(rows[count:]), 0
    model.encode(rows[:count])
    started, out = helpers(), np.empty_like(expected)
    while True:
        line = Nth(tried)
        raised = interrupt(lambda: model.encode(rows[:count], out=out), line)
        if line.place is None:
            break
        assert isinstance(raised, InterruptionError), line.place
        del raised  # its traceback holds what the call held
        tried += 1
        assert all_idle(model), line.place
        assert reference.same(model, "encode", model.encode(rows[count:], out=out), expected), line.place
    assert tried > 15
    assert helpers() == started == (2 if count == 2000 else 0)


def blocks(pool, entered, left, blocked):
    """A call of a pool whose second block, on another thread than the caller's, waits for `blocked`."""
    here = threading.get_ident()

    def fill(start):
        if threading.get_ident() == here:
            assert entered.acquire(timeout=10)
            raise InterruptionError("of a handler")
        entered.release()
        blocked()
        left.append(start)

    pool.run(fill, range(2))


def test_no_worker_is_at_a_block_once_the_call_has_raised():
    pool, entered, left = ThreadPool(2), threading.Semaphore(0), []
    for _ in range(20):
        with pytest.raises(InterruptionError):
            blocks(pool, entered, left, lambda: time.sleep(0.005))
        assert len(left) == 1
        left.clear()
    pool.close()


@pytest.mark.parametrize("again", range(12))
def test_nor_where_the_wait_for_it_is_interrupted_too(again):
    """A second time, at each line of the wait: by a user who presses Ctrl-C once more."""
    pool, entered, left = ThreadPool(2), threading.Semaphore(0), []
    seen = []

    def in_the_wait(frame):
        if frame.f_code is not threadpool._Call.end.__code__:
            return False
        seen.append(frame.f_lineno)
        return len(seen) == again + 1

    raised = interrupt(
        lambda: blocks(pool, entered, left, lambda: time.sleep(0.02)), in_the_wait, error=KeyboardInterrupt
    )
    assert isinstance(raised, KeyboardInterrupt if len(seen) > again else InterruptionError)
    assert len(left) == 1
    pool.run(left.append, range(10, 20))
    assert sorted(left)[1:] == list(range(10, 20))
    pool.close()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_nor_where_signals_come_faster_than_blocks_end():
    out, _ = child(
        """
        import signal
        from aeedge.runtime.threadpool import ThreadPool
        pool, at, met, left, wrong, raising = ThreadPool(2), [], [], [], [], False
        here = threading.get_ident()

        def handler(*_):
            if raising:
                raise KeyboardInterrupt

        def fill(start):
            if threading.get_ident() == here:
                time.sleep(10)
            at.append(start)
            met.append(start)
            time.sleep(0.01)
            left.append(at.pop())

        signal.signal(signal.SIGALRM, handler)
        for turn in range(60):
            signal.setitimer(signal.ITIMER_REAL, 5e-3, 3e-4)
            try:
                raising = True
                pool.run(fill, range(2))
            except KeyboardInterrupt:
                pass
            finally:
                raising = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            if at or len(left) != len(met):
                wrong.append(turn)
        print(wrong, len(met) > 30)
        """
    )
    assert out == "[] True"


def test_a_worker_that_was_lost_to_an_interruption_helps_again(on_workers):
    """Interrupted between the lines that ask a worker, at each of them."""
    pool, tried, places = ThreadPool(3), 0, set()
    while True:
        line = Nth(tried)
        interrupt(lambda: pool.run(lambda start: None, range(6)), line)
        if line.place is None:
            break
        tried += 1
        places.add(line.place)
        together = threading.Barrier(3, timeout=20)  # three threads have to meet
        pool.run(lambda start: together.wait(), range(3))  # noqa: B023
    assert len(places) > 20
    pool.close()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_calls_interrupted_at_random_moments(tmp_path):
    out, _ = child(
        """
        import random, signal
        model, rng, caught, wrong = aeedge.load(bundle, threads=3), random.Random(0), 0, []
        rows, sizes = rows_of(model, 60_000), (1, 3, 300, 20_000, 30_000, 30_000)
        first, second = rows[:30_000], rows[30_000:]
        expected = {n: model.encode(second[:n]) for n in sizes}
        took, outs = {}, {n: np.empty((n, model.latent_size), np.float32) for n in sizes}
        for n in sizes:
            began = time.perf_counter()
            model.encode(first[:n], out=outs[n])
            took[n] = time.perf_counter() - began

        def helpers():
            return sum(thread.name == "aeedge" for thread in threading.enumerate())

        def handler(*_):
            raise TimeoutError

        started = helpers()
        signal.signal(signal.SIGALRM, handler)
        for _ in range(600):
            n = rng.choice(sizes)
            try:
                signal.setitimer(signal.ITIMER_REAL, max(1e-6, rng.uniform(0, 1.2 * took[n])))
                model.encode(first[:n], out=outs[n])
                signal.setitimer(signal.ITIMER_REAL, 0)
            except TimeoutError:
                caught += 1
            outs[n][...] = 7
            time.sleep(0.001)
            late = not (outs[n] == 7).all()
            if late or not same(model, "encode", model.encode(second[:n], out=outs[n]), expected[n]):
                wrong.append(n)
        print(wrong, caught > 50, helpers() == started == 2, model._dispatcher._sessions.is_busy())
        """
    )
    assert out == "[] True True False"


def test_an_iteration_interrupted_at_any_line_leaves_no_reader():
    rows, tried = np.ones((3, 12), np.float32), 0
    with aeedge.load(BUNDLE, threads=1) as model:
        while True:
            line = Nth(tried)
            raised = interrupt(lambda: list(model.encode_iter(iter([rows, rows]))), line)
            if line.place is None:
                break
            assert isinstance(raised, InterruptionError), line.place
            tried += 1
    assert tried > 15
    until = time.monotonic() + 10
    while readers() and time.monotonic() < until:
        time.sleep(0.01)
    assert readers() == 0


def readers():
    return sum(thread.name == "aeedge-reader" for thread in threading.enumerate())


# Loads


def test_a_load_interrupted_at_any_line_raises_what_the_handler_raised():
    def load():
        aeedge.load(BUNDLE, threads=2).close()

    load()
    lines, files, threads = Fresh(), descriptors(), threading.active_count()
    mistyped, errors = {}, itertools.cycle(ERRORS)
    for error in errors:
        lines.place = None
        raised = interrupt(load, lines, error)
        if lines.place is None:
            break
        if type(raised) is not error or str(raised) != "of a handler":
            mistyped[lines.place] = raised
        del raised
    assert mistyped == {}
    assert len(lines.seen) > 300
    assert (descriptors(), threading.active_count()) == (files, threads)


def descriptors():
    place = "/proc/self/fd"
    return len(os.listdir(place)) if os.path.isdir(place) else 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_loads_interrupted_at_random_moments():
    out, _ = child(
        """
        import random, signal
        rng, kinds, other = random.Random(0), {}, []

        class Mine(Exception):
            pass

        def handler(*_):
            raise rng.choice([Mine, TimeoutError, KeyboardInterrupt, SystemExit])

        def load():
            aeedge.load(bundle, threads=2).close()

        load()
        began = time.perf_counter()
        load()
        took, files = time.perf_counter() - began, len(os.listdir("/proc/self/fd"))
        signal.signal(signal.SIGALRM, handler)
        for _ in range(400):
            try:
                signal.setitimer(signal.ITIMER_REAL, max(1e-6, rng.uniform(0, took)))
                load()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except (Mine, TimeoutError, KeyboardInterrupt, SystemExit) as error:
                kinds[type(error).__name__] = kinds.get(type(error).__name__, 0) + 1
            except BaseException as error:
                other.append(error)
        print(other, len(kinds) == 4, len(os.listdir("/proc/self/fd")) == files)
        """
    )
    assert out == "[] True True"
