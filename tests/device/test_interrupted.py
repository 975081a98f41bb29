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
from helpers.waiting import PATIENCE, soon

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


def test_bound_arrays_that_a_call_lost_are_not_waited_for(on_workers):
    rows = reference.rows_of(on_workers, 1)
    on_workers.encode(rows)  # opens the session
    expected = on_workers.encode(rows)
    arrays = on_workers._dispatcher._sessions.method("encode").arrays
    lost = arrays.idle[1].pop()
    assert arrays.busy  # as in the middle of a call
    del lost
    assert all_idle(on_workers)
    assert reference.same(on_workers, "encode", on_workers.encode(rows), expected)
    assert all_idle(on_workers)


def blocks(pool, left, seconds):
    """A call of a pool that raises on the caller's thread while another one is at a block, for some time yet."""
    here, together = threading.get_ident(), threading.Barrier(2, timeout=PATIENCE)

    def fill(start):
        together.wait()
        if threading.get_ident() == here:
            raise InterruptionError("of a handler")
        time.sleep(seconds)
        left.append(start)

    pool.run(fill, range(2))


def test_no_worker_is_at_a_block_once_the_call_has_raised():
    pool, left = ThreadPool(2), []
    for _ in range(20):
        with pytest.raises(InterruptionError):
            blocks(pool, left, 0.005)
        assert len(left) == 1
        left.clear()
    pool.close()


@pytest.mark.parametrize("again", range(12))
def test_nor_where_the_wait_for_it_is_interrupted_too(again):
    """A second time, at each line of the wait: by a user who presses Ctrl-C once more."""
    pool, left, seen = ThreadPool(2), [], []

    def in_the_wait(frame):
        if frame.f_code is not threadpool._Call.end.__code__:
            return False
        seen.append(frame.f_lineno)
        return len(seen) == again + 1

    raised = interrupt(lambda: blocks(pool, left, 0.02), in_the_wait, error=KeyboardInterrupt)
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
        from aeedge.runtime import threadpool
        pool, at, met, left, wrong, raised = threadpool.ThreadPool(2), [], [], [], [], []
        here, together = threading.get_ident(), threading.Barrier(2)

        def handler(_, frame):
            raised.append(1)
            if len(raised) == 20:  # without end they would leave a busy machine no time for the worker
                signal.setitimer(signal.ITIMER_REAL, 0)
            while frame is not None:  # within the pool's call: one may come just after it
                if frame.f_code.co_filename == threadpool.__file__:
                    raise KeyboardInterrupt
                frame = frame.f_back

        def fill(start):
            together.wait()
            if threading.get_ident() == here:
                raised.clear()
                signal.setitimer(signal.ITIMER_REAL, 5e-3, 3e-4)
                time.sleep(100)
            at.append(start)
            met.append(start)
            time.sleep(0.01)
            left.append(at.pop())

        signal.signal(signal.SIGALRM, handler)
        for turn in range(60):
            try:
                pool.run(fill, range(2))
            except KeyboardInterrupt:
                pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            if at or len(left) != len(met):
                wrong.append(turn)
        print(wrong, len(met))
        """
    )
    assert out == "[] 60"


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
        together = threading.Barrier(3, timeout=PATIENCE)  # three threads have to meet
        pool.run(lambda start: together.wait(), range(3))  # noqa: B023
    assert len(places) > 20
    pool.close()


@pytest.mark.parametrize("when", ["before it runs", "when it runs", "before it says that it runs"])
def test_a_thread_whose_start_was_interrupted_is_started_again(monkeypatch, when):
    start, is_alive, interrupted, asked = threading.Thread.start, threading.Thread.is_alive, [], []

    def interrupted_start(thread):
        if interrupted or when != "before it runs":
            start(thread)
        if not interrupted:
            interrupted.append(thread)
            raise InterruptionError

    def alive(thread):
        asked.append(thread)
        return is_alive(thread) and (len(asked) > 1 or when != "before it says that it runs")

    monkeypatch.setattr(threading.Thread, "start", interrupted_start)
    monkeypatch.setattr(threading.Thread, "is_alive", alive)
    pool, before = ThreadPool(2), threading.active_count()
    with pytest.raises(InterruptionError):
        pool.run(lambda start: None, range(4))
    for _ in range(3):
        together = threading.Barrier(2, timeout=PATIENCE)
        pool.run(lambda start: together.wait(), range(2))  # noqa: B023
    assert pool._workers[0]._thread.name == "aeedge"
    pool.close()
    assert soon(lambda: threading.active_count() <= before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_calls_interrupted_at_random_moments(tmp_path):
    out, _ = child(
        """
        import random, signal
        import aeedge.loading
        from aeedge.runtime.policy import DispatchPolicy
        aeedge.loading.allowed_cpus = lambda: range(4)  # there is a pool, also on one CPU
        model, rng, turns, caught, wrong = aeedge.load(bundle, threads=3), random.Random(0), 0, 0, []
        # However fast the machine is: serial up to 3 rows, the pool for 300, worker threads for more
        model._dispatcher.set_policy(DispatchPolicy(100.0, 5000.0), {"encode": 1.0})
        rows, sizes = rows_of(model, 60_000), (1, 3, 300, 20_000, 30_000, 30_000)
        first, second = rows[:30_000], rows[30_000:]
        expected = {n: model.encode(second[:n]) for n in sizes}
        outs = {n: np.empty((n, model.latent_size), np.float32) for n in sizes}
        took = dict.fromkeys(sizes, 1.0)  # at most, so far

        def helpers():
            return sum(thread.name == "aeedge" for thread in threading.enumerate())

        def handler(*_):
            if raising:  # a signal that another thread receives is handled late
                raise TimeoutError

        started, raising = helpers(), False
        signal.signal(signal.SIGALRM, handler)
        while turns < 600 or caught < 100:
            turns, n, began = turns + 1, rng.choice(sizes), time.perf_counter()
            try:
                raising = True
                signal.setitimer(signal.ITIMER_REAL, max(1e-6, rng.uniform(0, 1.2 * took[n])))
                model.encode(first[:n], out=outs[n])
                signal.setitimer(signal.ITIMER_REAL, 0)
                took[n] = min(took[n], time.perf_counter() - began)
            except TimeoutError:
                caught += 1
            finally:
                raising = False
            outs[n][...] = 7
            time.sleep(0.001)
            late = not (outs[n] == 7).all()
            if late or not same(model, "encode", model.encode(second[:n], out=outs[n]), expected[n]):
                wrong.append(n)
        print(wrong, helpers() == started == 2, model._dispatcher._sessions.is_busy())
        """
    )
    assert out == "[] True False"


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
    assert soon(lambda: readers() == 0)


def readers():
    return sum(thread.name == "aeedge-reader" for thread in threading.enumerate())


# Loads


def test_a_load_interrupted_at_any_line_raises_what_the_handler_raised():
    def load():
        aeedge.load(BUNDLE, threads=2).close()

    load()
    lines, files, threads = Fresh(), descriptors(), set(threading.enumerate())
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
    assert descriptors() == files
    assert set(threading.enumerate()) <= threads


def descriptors():
    place = "/proc/self/fd"
    return len(os.listdir(place)) if os.path.isdir(place) else 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_loads_interrupted_at_random_moments():
    out, _ = child(
        """
        import random, signal
        rng, turns, kinds, other = random.Random(0), 0, {}, []

        class Mine(Exception):
            pass

        def handler(*_):
            if raising:
                raise rng.choice([Mine, TimeoutError, KeyboardInterrupt, SystemExit])

        def load():
            aeedge.load(bundle, threads=2).close()

        load()
        raising, took, files = False, 1.0, len(os.listdir("/proc/self/fd"))  # it takes that at most, so far
        signal.signal(signal.SIGALRM, handler)
        while turns < 400 or len(kinds) < 4:
            turns, began = turns + 1, time.perf_counter()
            try:
                raising = True
                signal.setitimer(signal.ITIMER_REAL, max(1e-6, rng.uniform(0, took)))
                load()
                signal.setitimer(signal.ITIMER_REAL, 0)
                took = min(took, time.perf_counter() - began)
            except (Mine, TimeoutError, KeyboardInterrupt, SystemExit) as error:
                kinds[type(error).__name__] = kinds.get(type(error).__name__, 0) + 1
            except BaseException as error:
                other.append(error)
            finally:
                raising = False
        print(other, len(os.listdir("/proc/self/fd")) == files)
        """
    )
    assert out == "[] True"
