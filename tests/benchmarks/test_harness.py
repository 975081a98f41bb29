"""The harness under disturbance: other load, bad clocks and failing contenders are attributed or reported."""

import itertools
import math
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from comparison import field, start
from comparison.field import Plan, WrongAnswerError
from comparison.processes import Worker, WorkerError, cpus
from comparison.timing import ClockError, timed
from comparison.watch import Watch
from helpers import fake_clock
from helpers.children import busy_loops
from helpers.waiting import soon

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
SHORT = Plan((4,), rounds=2, seconds=0.05, tries=1)


def measured(folder, entries, plan=SHORT):
    with ExitStack() as stack:
        workers, out = field.start(entries, folder, "one", stack)
        assert not out
        return {worker.entry.name: cell for worker, cell in field.measure(workers, 4, plan)}


def test_a_sleep_in_a_contender_counts_as_its_time_alone(folder, fake):
    found = measured(folder, [fake("slow", sleep=0.03, clock="fake"), fake("fast", sleep=1e-5, clock="fake")])
    assert found["slow"]["seconds"] == pytest.approx(0.03, rel=0.1)
    assert found["fast"]["seconds"] == pytest.approx(1e-5, rel=0.1)


@pytest.mark.parametrize("jump", [1.0, -1.0, 0.05])
def test_a_clock_that_jumps_is_detected(jump):
    reads = itertools.count()

    def jumping():
        return fake_clock.now() + (jump if next(reads) > 4 else 0)

    with pytest.raises(ClockError, match="the clock measured"):
        timed(lambda: fake_clock.sleep(0.005), 0.05, clock=jumping, reference=fake_clock.now)


def test_a_slow_clock_is_detected():
    with pytest.raises(ClockError):
        timed(lambda: fake_clock.sleep(0.001), 0.02, clock=lambda: fake_clock.now() * 0.9, reference=fake_clock.now)


def test_good_clocks_count_every_call():
    calls = []

    def call():
        calls.append(1)
        fake_clock.sleep(1e-5)

    found = timed(call, 0.01, clock=fake_clock.now, reference=fake_clock.now)
    assert found.calls == len(calls) > 100
    assert found.seconds >= 0.01


class Voided:
    """A worker whose clock always disagrees."""

    entry = None

    def ask(self, do, **arguments):
        return {"void": "the clock measured 1 s, the reference clock 2 s", "cpu": 0.0}


def test_rounds_with_a_bad_clock_give_the_reason_instead_of_a_time():
    ((_, cell),) = field.measure([Voided()], 4, SHORT)
    assert cell == {"seconds": None, "disturbed": "the clock measured 1 s, the reference clock 2 s"}


@LINUX
def test_a_busy_loop_in_another_process_is_reported(folder, fake, monkeypatch):
    monkeypatch.setattr(field, "_LONG", math.inf)  # repeated, however long a round takes here
    with busy_loops(len(cpus("all"))):
        found = measured(folder, [fake(sleep=0.001)], Plan((4,), rounds=1, seconds=0.3, tries=2))
    assert found["fake"]["disturbed"].startswith("other processes used ")
    assert found["fake"]["repeated"] == 2


def stat(path, busy, idle=0, stolen=0):
    """A /proc/stat in which CPU 0 was busy for `busy` ticks, and CPU 9, which is not watched, for many more."""
    path.write_text(f"cpu 1 1 1 1\ncpu0 {busy} 0 0 {idle} 0 0 0 {stolen} 0 0\ncpu9 99999{busy} 0 0 0 0 0 0 0 0 0\n")
    return path


@LINUX
@pytest.mark.parametrize(("ours", "disturbed"), [(1.0, False), (0.2, True)])
def test_only_time_of_other_processes_is_foreign(tmp_path, ours, disturbed):
    watch = Watch([0], stat(tmp_path / "stat", busy=100))
    stat(tmp_path / "stat", busy=200)  # 1 s at the usual 100 ticks a second
    load = watch.stop(ours)
    assert load.foreign == pytest.approx(1.0 - ours, abs=0.05)
    assert load.disturbed is disturbed


@LINUX
def test_steal_time_is_reported(tmp_path):
    watch = Watch([0], stat(tmp_path / "stat", busy=100))
    stat(tmp_path / "stat", busy=100, stolen=50)
    load = watch.stop(0.0)
    assert load.disturbed
    assert "steal time" in load.describe()


def test_without_counters_the_load_is_unknown(tmp_path):
    load = Watch([0], tmp_path / "nothing").stop(0.0)
    assert not load.disturbed
    assert "not available" in load.describe()


def test_wrong_outputs_are_refused(folder, fake):
    out = folder / "answers.npz"
    wrong = pytest.raises(WrongAnswerError, match=r"liar computes other latents .* 0\.01")
    with Worker(fake("liar", factor=1.01), folder, "one") as worker, wrong:
        field.check(worker, folder, out)
    with Worker(fake("honest", exact=False, factor=1.01), folder, "one") as worker:
        assert field.check(worker, folder, out) == pytest.approx(0.01, rel=1e-3)
    with Worker(fake("nan", factor=float("nan")), folder, "one") as worker, pytest.raises(WrongAnswerError):
        field.check(worker, folder, out)


def test_a_contender_that_cannot_be_opened_is_left_out_with_the_reason(folder, fake):
    with ExitStack() as stack:
        workers, out = field.start([fake("a"), fake("b", refuses="not on Sundays")], folder, "one", stack)
        assert [worker.entry.name for worker in workers] == ["a"]
        assert [(entry.name, reason) for entry, reason in out] == [("b", "ValueError: not on Sundays")]


def test_a_contender_that_dies_does_not_stop_the_others(folder, fake):
    found = measured(folder, [fake("mortal", dies_at=4), fake("other")])
    assert "ended with 3" in found["mortal"]["failed"]
    assert found["other"]["seconds"] > 0


@LINUX
def test_idle_contenders_are_stopped_and_die_with_their_driver(folder, fake):
    with Worker(fake(), folder, "one") as worker:
        state = Path(f"/proc/{worker._process.pid}/stat")
        assert soon(lambda: state.read_text().rsplit(")", 1)[1].split()[0] == "T")
        assert worker.ask("ready", batch=4, seconds=0.01)["seconds"] > 0
    with pytest.raises((WorkerError, ValueError)):
        worker.ask("time", seconds=0.01)


def test_cold_start_counts_from_before_the_process(folder, fake):
    (found,) = start.cold_starts([fake(sleep=0.2)], folder, rounds=1)
    assert found["seconds"] > 0.2
    assert found["peak_bytes"] > 5e6
    (found,) = start.cold_starts([fake(refuses="no")], folder, rounds=1)
    assert "no" in found["failed"]


def test_installed_size_includes_dependencies():
    numpy, aeedge = start.installed_size(("numpy",)), start.installed_size(("aeedge",))
    assert numpy["distributions"] == ["numpy"]
    assert {"aeedge", "click", "numpy", "onnxruntime"} <= set(aeedge["distributions"])
    assert "torch" not in aeedge["distributions"]  # extras are not counted
    assert aeedge["bytes"] > numpy["bytes"] > 1e6
    assert "not installed" in start.installed_size(("no-such-thing",))["failed"]
