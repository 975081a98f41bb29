"""Every way of running rows gives the same results, and each is taken where the schedule says."""

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

import aeedge
from aeedge.runtime import dispatch, session
from aeedge.runtime.policy import Schedule
from aeedge.runtime.threadpool import Lanes
from aeedge.system import limits

DATA = Path(__file__).parent.parent / "data"
WAYS = {
    "alone": Schedule(pool_from=math.inf, lanes_from=math.inf),
    "pool": Schedule(pool_from=0.0, lanes_from=math.inf),
    "lanes": Schedule(pool_from=math.inf, lanes_from=0.0, block=1e-3),
    "small blocks": Schedule(pool_from=math.inf, lanes_from=math.inf, most_rows=7),
    "single rows on the pool": Schedule(single_on_pool=True),
}


def noted(real, way, seen):
    def call(block, *out):
        seen.append((way, len(block), threading.current_thread().name))
        return real(block, *out)

    return call


def spied(model, monkeypatch):
    """Which steps ran how many rows on which thread."""
    seen = []
    engine = model._engine
    for way, steps in (("alone", engine.alone()), ("pool", engine.shared())):
        for name, step in list(steps.items()):
            monkeypatch.setattr(step.short, "new", noted(step.short.new, way, seen))
            step = step._replace(new=noted(step.new, way, seen), into=noted(step.into, way, seen))
            monkeypatch.setitem(steps, name, step)
    return seen


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", ["encode", "denoise", "score", "residual"])
def test_any_way_gives_the_same_results(rows, way, what):
    with aeedge.load(DATA / "bundle_v1", threads=1) as model:
        expected = getattr(model, what)(rows)
    with aeedge.load(DATA / "bundle_v1", threads=3) as model:
        model.use(3, WAYS[way], {})
        for count in (1, 2, 16, 17, 300, 3000):
            got = getattr(model, what)(rows[:count])
            np.testing.assert_allclose(got, expected[:count], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_any_way_finds_what_is_not_finite(rows, way):
    bad = rows.copy()
    bad[[1234, 2000], 5] = np.nan, np.inf
    with aeedge.load(DATA / "bundle_v1", threads=3) as model:
        model.use(3, WAYS[way], {})
        with pytest.raises(aeedge.InputError, match="row 1234, column 5"):
            model.encode(bad)
        found = model.encode(bad, invalid="propagate")
        assert np.argwhere(np.isnan(found).any(axis=1)).ravel().tolist() == [1234, 2000]


def test_the_schedule_decides(rows, monkeypatch):
    with aeedge.load(DATA / "bundle_v1", threads=3) as model:
        seen = spied(model, monkeypatch)
        model.use(3, Schedule(pool_from=100.0, lanes_from=1000.0, block=64.0), {"encode": 1.0})
        for count, way in ((50, "alone"), (99, "alone"), (100, "pool"), (999, "pool"), (1000, "lanes")):
            seen.clear()
            model.encode(rows[:count])
            assert {ways for ways, _, _ in seen} == {"alone" if way == "lanes" else way}
            assert sum(size for _, size, _ in seen) == count
            if way == "lanes":
                assert max(size for _, size, _ in seen) < count
            else:
                assert {thread for _, _, thread in seen} == {"MainThread"}


def test_few_rows_of_a_large_net_share_the_pool(rows, monkeypatch):
    with aeedge.load(DATA / "bundle_v1", threads=3) as model:
        seen = spied(model, monkeypatch)
        model.use(3, Schedule(pool_from=100.0, lanes_from=1000.0), {"encode": 1e6, "score": 1e6})
        model.score(rows[:4])
        model.encode(rows[:20])
        assert {way for way, _, _ in seen} == {"pool"}


def test_few_rows_are_bound_on_the_pool_too(rows):
    with aeedge.load(DATA / "bundle_v1", threads=3) as model:
        expected = model.encode(rows[:4])
        model.use(3, Schedule(pool_from=100.0), {"encode": 26.0})
        shared = model._engine.shared()["encode"].short
        assert len(shared._made) == 0
        model.encode(rows[:3])
        assert len(shared._made) == 0
        got = model.encode(rows[:4])
        assert len(shared._made) == 1
        assert reference.same(model, "encode", got, expected)
        with pytest.raises(aeedge.InputError, match="row 3, column 2"):
            model.encode(np.concatenate([rows[:3], np.where(np.arange(rows.shape[1]) == 2, np.nan, rows[3:4])]))
        assert not shared.busy


@pytest.mark.parametrize(
    ("chain", "pooled"),
    [(("Cast", "Gemm", "Relu"), False), (("Cast", "Gemm"), False), (("Cast", "Gemm", "Relu", "Gemm"), True)],
)
def test_what_mostly_converts_is_not_given_to_the_pool(monkeypatch, chain, pooled):
    monkeypatch.setattr(session, "chain", lambda graph: chain)
    with aeedge.load(DATA / "bundle_v1_uint8") as model:
        assert (model.schedule.pool_from < math.inf) == pooled


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_single_rows_on_the_pool_survive_fork(rows):
    with aeedge.load(DATA / "bundle_v1", threads=3) as model:
        model.use(3, Schedule(single_on_pool=True), {})
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
    monkeypatch.setattr(dispatch, "_row_us", lambda step, rows, most: timed.append(step.name) or real(step, rows, most))
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
    """Fewer would take hardly longer than one. A large net is not run on more rows than were given."""
    now, sizes = [0], []

    def run(block):
        sizes.append(len(block))
        now[0] += int(1000 * row_us * len(block))

    monkeypatch.setattr(dispatch.time, "perf_counter_ns", lambda: now[0])
    with aeedge.load(DATA / "bundle_v1", threads=2) as model:
        step = model._engine.alone()["encode"]
        found = dispatch._row_us(step._replace(new=run), step.rows(rows[:given], "raise"), 64)
    assert found == pytest.approx(row_us)
    assert (sizes[0], sizes[-1]) == (given, tried)


def test_one_thread_starts_none(rows):
    before = threading.active_count()
    with aeedge.load(DATA / "bundle_v1", threads=1) as model:
        model.encode(np.tile(rows, (10, 1)))
        assert threading.active_count() == before
        assert not model._engine.has_pool


def test_lanes_do_each_block_once_and_say_the_first_failure():
    lanes = Lanes(4)
    done = []
    lanes.run(done.append, range(100))
    assert sorted(done) == list(range(100))

    def fails(start):
        if start >= 40:
            raise ValueError(str(start))

    with pytest.raises(ValueError, match=r"^40$"):
        lanes.run(fails, range(100))
    lanes.close()
    lanes.close()
    lanes.run(done.append, range(100, 103))  # on this thread alone
    assert sorted(done) == list(range(103))


@pytest.mark.skipif(len(limits.allowed_cpus()) < 2, reason="one CPU")
def test_helpers_keep_off_the_cpu_of_their_caller(monkeypatch):
    lanes, cpus, seen = Lanes(2), set(limits.allowed_cpus()), []
    here = threading.current_thread()

    def look(start):
        time.sleep(0.01)  # until the other thread has a block too
        if threading.current_thread() is not here:
            seen.append(os.sched_getaffinity(0))

    for cpu in sorted(cpus)[:2]:
        monkeypatch.setattr(limits, "_this_cpu", partial(int, cpu))
        lanes.run(look, range(4))
        assert seen
        assert all(mask == cpus - {cpu} for mask in seen)
        seen.clear()
    assert os.sched_getaffinity(0) == cpus
    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    monkeypatch.setattr(limits, "_this_cpu", lambda: min(cpus))
    lanes.run(look, range(4))
    assert seen
    lanes.close()


def forbidden(*_):
    raise PermissionError(1, "Operation not permitted")


def test_lanes_within_lanes_do_not_wait_for_each_other():
    lanes, done = Lanes(3), []
    lanes.run(lambda start: lanes.run(lambda inner: done.append((start, inner)), range(5)), range(20))
    assert sorted(done) == [(a, b) for a in range(20) for b in range(5)]
    lanes.close()


def test_where_no_thread_can_be_started_the_caller_does_it_all(monkeypatch):
    def refused(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    lanes, done = Lanes(3), []
    lanes.run(done.append, range(10))
    assert done == list(range(10))
