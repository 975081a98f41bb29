"""Every route gives the same results, and each is taken where the policy says."""

import math
import os
import signal
import threading
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import reference
from helpers.waiting import PATIENCE

import aeedge
from aeedge.runtime import dispatch, session
from aeedge.runtime.policy import SERIAL, DispatchPolicy
from aeedge.runtime.threadpool import ThreadPool
from aeedge.system import limits

DATA = Path(__file__).parent.parent / "data"
pytestmark = pytest.mark.usefixtures("four_cpus")
INF = math.inf
ROUTES = {
    "serial": SERIAL,
    "pool": DispatchPolicy(0.0, INF),
    "workers": DispatchPolicy(INF, 0.0, block_us=1e-3),
    "small blocks": DispatchPolicy(INF, INF, max_rows=7),
    "single rows on the pool": DispatchPolicy(single_on_pool=True),
}


def recorded(real, route, calls):
    def call(block, *out):
        calls.append((route, len(block), threading.current_thread().name))
        return real(block, *out)

    return call


def spied(model, monkeypatch):
    """Which methods ran how many rows on which thread."""
    calls, sessions = [], model._dispatcher._sessions
    for pooled in (False, True):
        for name in model.methods:
            method = sessions.method(name, pooled=pooled)
            for run in ("run", "run_into"):
                monkeypatch.setattr(method, run, recorded(getattr(method, run), "pool" if pooled else "serial", calls))
    return calls


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("what", ["encode", "denoise", "score", "residual"])
def test_any_route_gives_the_same_results(rows, route, what):
    with aeedge.load(DATA / "bundle_v1", threads=1) as model:
        expected = getattr(model, what)(rows)
    with aeedge.load(DATA / "bundle_v1", threads=3) as model:
        model._dispatcher.set_policy(ROUTES[route], {})
        for count in (1, 2, 16, 17, 300, 3000):
            got = getattr(model, what)(rows[:count])
            np.testing.assert_allclose(got, expected[:count], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("route", ROUTES)
def test_any_route_finds_what_is_not_finite(rows, route):
    bad = rows.copy()
    bad[[1234, 2000], 5] = np.nan, np.inf
    with aeedge.load(DATA / "bundle_v1", threads=3) as model:
        model._dispatcher.set_policy(ROUTES[route], {})
        with pytest.raises(aeedge.InputError, match="row 1234, column 5"):
            model.encode(bad)
        found = model.encode(bad, invalid="propagate")
        assert np.argwhere(np.isnan(found).any(axis=1)).ravel().tolist() == [1234, 2000]


def test_the_policy_decides(rows, monkeypatch):
    with aeedge.load(DATA / "bundle_v1", threads=3) as model:
        calls = spied(model, monkeypatch)
        model._dispatcher.set_policy(DispatchPolicy(100.0, 1000.0, 64.0), {"encode": 1.0})
        for count, route in ((50, "serial"), (99, "serial"), (100, "pool"), (999, "pool"), (1000, "workers")):
            calls.clear()
            model.encode(rows[:count])
            assert {routes for routes, _, _ in calls} == {"serial" if route == "workers" else route}
            assert sum(size for _, size, _ in calls) == count
            if route == "workers":
                assert max(size for _, size, _ in calls) < count
            else:
                assert {thread for _, _, thread in calls} == {"MainThread"}


def test_another_policy_without_times_forgets_the_cutoffs(rows, monkeypatch):
    with aeedge.load(DATA / "bundle_v1", threads=3) as model:
        model._dispatcher.set_policy(DispatchPolicy(2.0, INF), {"encode": 1.0})
        model.encode(rows[:20])
        timed = []
        real = dispatch._row_us
        monkeypatch.setattr(dispatch, "_row_us", lambda *given: timed.append(1) or real(*given))
        model._dispatcher.set_policy(SERIAL, {})
        calls = spied(model, monkeypatch)
        model.encode(rows[:20])
        assert timed == [1]
        assert {route for route, _, _ in calls} == {"serial"}


def test_few_rows_of_a_large_network_share_the_pool(rows, monkeypatch):
    with aeedge.load(DATA / "bundle_v1", threads=3) as model:
        calls = spied(model, monkeypatch)
        model._dispatcher.set_policy(DispatchPolicy(100.0, 1000.0), {"encode": 1e6, "score": 1e6})
        model.score(rows[:4])
        model.encode(rows[:20])
        assert {route for route, _, _ in calls} == {"pool"}


def test_few_rows_are_bound_on_the_pool_too(rows, monkeypatch):
    monkeypatch.setattr(dispatch, "_row_us", lambda *given: 0.1)  # measured on a busy machine, it opens the pool early
    with aeedge.load(DATA / "bundle_v1", threads=3) as model:
        expected = model.encode(rows[:4])
        model._dispatcher.set_policy(DispatchPolicy(100.0), {"encode": 26.0})
        arrays = model._dispatcher._sessions.method("encode", pooled=True).arrays
        model.encode(rows[:4])  # the general path opens the pool's session
        assert len(arrays._made) == 0
        model.encode(rows[:3])
        assert len(arrays._made) == 0
        got = model.encode(rows[:4])
        assert len(arrays._made) == 1
        assert reference.same(model, "encode", got, expected)
        with pytest.raises(aeedge.InputError, match="row 3, column 2"):
            model.encode(np.concatenate([rows[:3], np.where(np.arange(rows.shape[1]) == 2, np.nan, rows[3:4])]))
        assert not arrays.busy


class Timed:
    """A method that takes a time for a number of rows."""

    def __init__(self, clock, us):
        self.clock, self.us, self.sizes = clock, us, []

    def run(self, block):
        self.sizes.append(len(block))
        self.clock[0] += int(1000 * self.us(len(block)))


@pytest.mark.parametrize(
    ("serial", "pooled", "expected", "most"),
    [
        (lambda n: 10 + n, lambda n: 8 + n / 2, 2, 4),  # faster from the start: two sizes are enough
        (lambda n: 2 * n, lambda n: 20 + n, 32, 64),
        (lambda n: 2 * n, lambda n: 50 + n, 64, 64),
        (lambda n: 2 * n, lambda n: 3 * n, math.inf, 64),
        (lambda n: 1000 * n, lambda n: 600 * n, 2, 2),  # a large network is not run more often than needed
    ],
)
def test_from_how_many_rows_on_the_pool_is_faster_is_measured(monkeypatch, serial, pooled, expected, most):
    clock = [0]
    monkeypatch.setattr(time, "perf_counter_ns", lambda: clock[0])
    one, other = Timed(clock, serial), Timed(clock, pooled)
    assert dispatch._pool_from(one, other, np.zeros((3, 2), np.float32)) == expected
    assert max(one.sizes) == max(other.sizes) == most


def test_what_is_measured_of_the_pool_lowers_the_cutoff(rows, monkeypatch):
    monkeypatch.setattr(dispatch, "_pool_from", lambda *given: 4)
    with aeedge.load(DATA / "bundle_v1", threads=3) as model:
        calls = spied(model, monkeypatch)
        monkeypatch.setattr(dispatch, "_row_us", lambda *given: 1.0)
        model.encode(rows[:2])
        for count, route in ((17, "pool"), (3, None)):
            calls.clear()
            model.encode(rows[:count])
            assert {taken for taken, _, _ in calls} == ({route} if route else set())  # a few are bound


@pytest.mark.parametrize(
    ("chain", "pooled"),
    [(("Cast", "Gemm", "Relu"), False), (("Cast", "Gemm"), False), (("Cast", "Gemm", "Relu", "Gemm"), True)],
)
def test_what_mostly_casts_is_not_given_to_the_pool(monkeypatch, chain, pooled):
    monkeypatch.setattr(session, "chain", lambda graph: chain)
    with aeedge.load(DATA / "bundle_v1_uint8") as model:
        assert (model._dispatcher.policy.pool_from_us < INF) == pooled


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_single_rows_on_the_pool_survive_fork(rows):
    with aeedge.load(DATA / "bundle_v1", threads=3) as model:
        model._dispatcher.set_policy(DispatchPolicy(single_on_pool=True), {})
        expected = model.encode(rows[:3])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 advises against forking with threads
            child = os.fork()
        if child == 0:
            signal.alarm(60)  # rather than hang
            os._exit(0 if np.allclose(model.encode(rows[:3]), expected) and np.isfinite(model.score(rows[0])) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_row_is_timed_once_by_the_first_batch(rows, monkeypatch):
    timed = []
    real = dispatch._row_us
    monkeypatch.setattr(dispatch, "_row_us", lambda method, *more: timed.append(method.name) or real(method, *more))
    with aeedge.load(DATA / "bundle_v1", threads=2) as model:
        model.encode(rows[:1])
        model.encode(rows[:1].astype(np.float64))
        assert not timed
        for count in (2, 16, 3000, 16):
            model.encode(rows[:count])
        model.score(rows)
    assert timed == ["encode", "score"]


@pytest.mark.parametrize(("given", "row_us", "tried"), [(2, 40, 3), (2, 200, 2), (40, 2, 50), (3, 0.001, 64)])
def test_a_row_is_timed_on_rows_for_some_work(rows, monkeypatch, given, row_us, tried):
    """Fewer would take hardly longer than one. A large network is not run on more rows than were given."""
    clock = [0]
    monkeypatch.setattr(time, "perf_counter_ns", lambda: clock[0])
    method = Timed(clock, lambda count: row_us * count)
    assert dispatch._row_us(method, rows[:given], 64) == pytest.approx(row_us)
    assert (method.sizes[0], method.sizes[-1]) == (given, tried)


def test_one_thread_starts_none(rows):
    before = set(threading.enumerate())
    with aeedge.load(DATA / "bundle_v1", threads=1) as model:
        model.encode(np.tile(rows, (10, 1)))
        assert set(threading.enumerate()) <= before
        assert not model._dispatcher._sessions.has_pool


def test_worker_threads_run_each_block_once_and_raise_the_first_failure():
    pool = ThreadPool(4)
    done = []
    pool.run(done.append, range(100))
    assert sorted(done) == list(range(100))

    def fails(start):
        if start >= 40:
            raise aeedge.InputError(str(start))

    with pytest.raises(aeedge.InputError, match=r"^40$"):
        pool.run(fails, range(100))
    pool.close()
    pool.close()
    pool.run(done.append, range(100, 103))  # on this thread alone
    assert sorted(done) == list(range(103))


@pytest.mark.skipif(len(limits.allowed_cpus()) < 2, reason="one CPU")
def test_workers_keep_off_the_cpu_of_their_caller(monkeypatch):
    pool, cpus, seen = ThreadPool(2), set(limits.allowed_cpus()), []
    here, together = threading.current_thread(), threading.Barrier(2, timeout=PATIENCE)

    def look(start):
        together.wait()  # each thread has a block
        if threading.current_thread() is not here:
            seen.append(os.sched_getaffinity(0))

    for cpu in sorted(cpus)[:2]:
        monkeypatch.setattr(limits, "_this_cpu", partial(int, cpu))
        pool.run(look, range(2))
        assert seen == [cpus - {cpu}]
        seen.clear()
    assert os.sched_getaffinity(0) == cpus
    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    monkeypatch.setattr(limits, "_this_cpu", lambda: min(cpus))
    pool.run(look, range(2))
    assert len(seen) == 1
    pool.close()


def forbidden(*_):
    raise PermissionError(1, "Operation not permitted")


def test_blocks_within_blocks_do_not_wait_for_each_other():
    pool, done = ThreadPool(3), []
    pool.run(lambda start: pool.run(lambda inner: done.append((start, inner)), range(5)), range(20))
    assert sorted(done) == [(a, b) for a in range(20) for b in range(5)]
    pool.close()


def test_where_no_thread_can_be_started_the_caller_does_it_all(monkeypatch):
    def refused(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    pool, done = ThreadPool(3), []
    with pytest.warns(UserWarning, match=r"^no more threads can be started, so calls take longer; raise the"):
        pool.run(done.append, range(10))
    assert done == list(range(10))
