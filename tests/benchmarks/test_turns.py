"""Interleaving in one process: every contender in every round, in shuffled order, and ratios within a round."""

import itertools
import statistics
from functools import partial
from types import SimpleNamespace

import common
import pytest
from comparison.timing import ClockError, Timed, timed
from helpers import fake_clock


@pytest.fixture
def clock(monkeypatch):
    """Replaces the timing: given durations for each contender's calls, one per round."""
    taken = {}

    def timed(call, seconds):
        name = call()
        order.append(name)
        value = taken[name].pop(0) if name in taken else 1.0
        if isinstance(value, Exception):
            raise value
        return Timed(1, value)

    order = []
    monkeypatch.setattr(common, "timed", timed)
    return taken, order


def contenders(*names):
    return {name: lambda name=name: name for name in names}


def test_every_contender_runs_in_every_round_in_changing_order(clock):
    _, order = clock
    found = common.turns(contenders("a", "b", "c"), 0.0, 20, pause=0, warm_up=0)
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 20, "b": 20, "c": 20}
    rounds = [tuple(order[i : i + 3]) for i in range(0, len(order), 3)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len(set(rounds)) > 3
    assert len({names[0] for names in rounds}) == 3


def test_a_turn_begins_with_calls_that_are_not_timed(clock, monkeypatch):
    _, order = clock
    calls, slept = [], []
    simulated = SimpleNamespace(perf_counter=itertools.count().__next__, sleep=slept.append)
    monkeypatch.setattr(common, "time", simulated)
    common.turns({"a": lambda: calls.append(1)}, 0.0, 2, pause=7, warm_up=100)
    assert len(order) == 2
    assert len(calls) == 2 + 2 * 100  # the former are timed
    assert slept == [7, 7]


def test_values_are_in_the_order_of_rounds_and_a_ratio_stays_within_its_round(clock):
    taken, _ = clock
    taken |= {"ours": [1.0, 10.0, 2.0], "peer": [2.0, 30.0, 1.0]}
    found = common.turns(contenders("ours", "peer"), 0.0, 3, pause=0, warm_up=0)
    assert found == {"ours": [1.0, 10.0, 2.0], "peer": [2.0, 30.0, 1.0]}
    ratios = common.speedups(found, "ours", "peer")
    assert ratios == [2.0, 3.0, 0.5]
    assert statistics.median(ratios) == 2.0  # the ratio of medians is 1


def test_a_turn_with_a_bad_clock_is_repeated(clock):
    taken, order = clock
    taken["a"] = [ClockError("jumped"), 3.0, 4.0]
    assert common.turns(contenders("a"), 0.0, 2, pause=0, warm_up=0) == {"a": [3.0, 4.0]}
    assert len(order) == 3
    taken["a"] = [ClockError("jumped")] * 100
    with pytest.raises(ClockError, match="jumped"):
        common.turns(contenders("a"), 0.0, 1, pause=0, warm_up=0)


def test_a_sleep_counts_as_its_contenders_time(monkeypatch):
    monkeypatch.setattr(common, "timed", partial(timed, clock=fake_clock.now, reference=fake_clock.now))
    calls = {"slow": lambda: fake_clock.sleep(0.01), "fast": lambda: fake_clock.sleep(1e-5)}
    found = common.turns(calls, 0.002, 3, pause=0, warm_up=0)
    assert found["slow"] == pytest.approx([0.01] * 3, rel=0.1)
    assert found["fast"] == pytest.approx([1e-5] * 3, rel=0.1)


def test_a_quick_or_partial_run_has_a_separate_name():
    assert common.kept_as("speed", False) == "speed"
    assert common.kept_as("speed", True, ["one"]) == "speed-quick"
    assert common.kept_as("speed", False, ["one", "bulk"]) == "speed-one-bulk"


def test_tables_are_kept_with_their_titles(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    common.publish_all("x", {"n": 1}, {"First": (["a", "b"], [["1", "2"]]), "Second": (["c"], [["3"]])})
    kept = common.json.loads((tmp_path / "x.json").read_text())
    assert kept["n"] == 1
    assert "\n".join(kept["table"]) in capsys.readouterr().out
    assert {"First", "Second"} <= set(kept["table"])
