"""The choice of torch's number of threads: injected times decide, the caller's is restored, bytes stay the same."""

import json
import math
import pickle
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from aeedge.cli.group import AeedgeGroup
from aeedge.errors import InputError
from aeedge_export import Autoencoder
from aeedge_export.training import threads
from aeedge_export.training.threads import ThreadChoice, contended

CPU = torch.device("cpu")
PLAIN = {"latent": 2, "hidden": (8,), "random_state": 3, "batch_size": 32, "patience": None}
STEPS = 1000


class Machine:
    """A machine of `cpus`, of which only the clock is simulated: a step takes `seconds[threads]`."""

    def __init__(self, one=0.010, more=0.006, cpus=4):
        self.now, self.cpus, self.neighbour = 100.0, cpus, False
        self.seconds = {1: one, cpus: more}
        self.checks, self.trials = [], 0

    def perf_counter(self):
        return self.now

    def contended(self, number):
        torch.set_num_threads(number)
        self.checks.append(self.now)
        self.now += 0.016 if self.neighbour else 0.001
        return self.neighbour

    def step(self):
        crowded = self.neighbour and torch.get_num_threads() > 1
        self.now += 0.4 if crowded else self.seconds[torch.get_num_threads()]

    def trial(self):
        self.trials += 1
        return nullcontext(self.step)

    def during(self, choice, asked=None, device=CPU, work=math.inf, steps=STEPS):
        return choice.during(asked, device, self.trial, work, steps)

    def train(self, choice, steps):
        """The number of threads of each step."""
        numbers = []
        for _ in range(steps):
            numbers.append(torch.get_num_threads())
            began = self.now
            self.step()
            choice.after_step(self.now - began)
        return numbers


@pytest.fixture(autouse=True)
def callers_threads():
    torch.set_num_threads(4)
    yield
    assert torch.get_num_threads() == 4, "not restored"
    torch.set_num_threads(1)


@pytest.fixture
def simulated(monkeypatch):
    def make(**settings):
        machine = Machine(**settings)
        monkeypatch.setattr(threads, "perf_counter", machine.perf_counter)
        monkeypatch.setattr(threads, "contended", machine.contended)
        monkeypatch.setattr(threads, "cpu_count", lambda: machine.cpus)
        return machine

    return make


@pytest.mark.parametrize(("more", "expected"), [(0.004, 4), (0.0094, 4), (0.0096, 1), (0.011, 1), (0.03, 1)])
def test_more_threads_only_where_they_are_clearly_faster(simulated, more, expected):
    machine, choice = simulated(more=more), ThreadChoice()
    with machine.during(choice):
        assert torch.get_num_threads() == choice.number == expected
        assert set(machine.train(choice, 20)) == {expected}
    assert str(choice) == f"{expected} (measured: 4 threads take {more / 0.01:.2f} of the time of one)"


def test_a_clear_answer_is_not_measured_again(simulated):
    spent = []
    for more in (0.0085, 0.0094, 0.011):
        machine = simulated(more=more)
        with machine.during(ThreadChoice()):
            spent.append(machine.now - 100.0)
    assert spent[1] > 2 * max(spent[0], spent[2])


@pytest.mark.parametrize(
    ("case", "expected", "reason"),
    [
        ({"work": 999_999}, 1, "too little work to share"),
        ({"steps": 19}, 1, "too few steps to measure"),
        ({"asked": 3}, 3, "as set"),
        ({"device": torch.device("cuda")}, 4, "training is on cuda"),
    ],
)
def test_nothing_is_measured_without_need(simulated, case, expected, reason):
    machine, choice = simulated(), ThreadChoice()
    machine.seconds[3] = 0.01
    with machine.during(choice, **case):
        assert set(machine.train(choice, 10)) == {expected}
    assert str(choice) == f"{expected} ({reason})"
    assert not machine.trials
    assert not machine.checks


@pytest.mark.parametrize(("callers", "cpus"), [(1, 8), (4, 1)])
def test_callers_number_and_allowed_cpus_are_limits(simulated, callers, cpus):
    machine, choice = simulated(cpus=cpus), ThreadChoice()
    torch.set_num_threads(callers)
    with machine.during(choice):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == callers
    assert (choice.reason, machine.checks) == ("no more may be used", [])
    torch.set_num_threads(4)


def test_all_means_the_smaller_of_callers_number_and_allowed_cpus(simulated):
    machine, choice = simulated(cpus=2), ThreadChoice()
    with machine.during(choice):
        assert torch.get_num_threads() == choice.number == 2


def test_beside_a_neighbour_no_step_is_tried(simulated):
    machine, choice = simulated(), ThreadChoice()
    machine.neighbour = True
    with machine.during(choice):
        assert torch.get_num_threads() == 1
    assert machine.now - 100.0 < 0.02
    assert str(choice) == "1 (measured: another process is busy)"


def test_a_neighbour_that_comes_during_the_trial_ends_it(simulated):
    machine, choice = simulated(), ThreadChoice()
    calls = []

    @contextmanager
    def trial():
        def step():
            calls.append(torch.get_num_threads())
            machine.neighbour = len(calls) > 2  # comes just after the last check
            machine.step()

        yield step

    with choice.during(None, CPU, trial, math.inf, STEPS):
        assert torch.get_num_threads() == 1
    assert calls == [1, 1, 4]
    assert choice.reason == "measured: another process is busy"


def test_a_neighbour_comes_and_goes(simulated):
    machine, choice = simulated(), ThreadChoice()
    with machine.during(choice):
        assert set(machine.train(choice, 50)) == {4}
        machine.neighbour = True
        assert machine.train(choice, 5) == [4, 1, 1, 1, 1]
        machine.neighbour, checks = False, len(machine.checks)
        numbers = machine.train(choice, 400)
        assert numbers[0] == 1
        assert numbers[-1] == 4
        assert 1.9 < 0.010 * numbers.count(1) < 2.1  # the first pause
        assert len(machine.checks) > checks
    assert str(choice) == "4 (measured: 4 threads take 0.60 of the time of one, changed 2 times)"


def test_looking_again_costs_little_and_ever_less(simulated):
    machine, choice = simulated(), ThreadChoice()
    machine.neighbour = True
    with machine.during(choice, steps=10**6):
        began = machine.now
        assert set(machine.train(choice, 30_000)) == {1}
    gaps = np.diff(machine.checks)
    assert len(gaps) > 5
    assert (np.diff(gaps) > -0.1).all()
    assert 2 <= gaps[0] < 2.1
    assert 30 <= gaps[-1] < 30.1
    assert 0.016 * len(machine.checks) < 0.01 * (machine.now - began)


def test_a_costly_look_is_repeated_less_often(simulated):
    machine, choice = simulated(one=2.0, more=2.2), ThreadChoice()
    with machine.during(choice, steps=10**6):
        trials, began = machine.trials, machine.now
        machine.train(choice, 2000)
    assert machine.trials > trials
    spent = machine.now - began - 2000 * 2.0
    assert 0 < spent < 0.02 * (machine.now - began)


def test_one_slow_step_on_free_cpus_changes_nothing_two_do(simulated):
    machine, choice = simulated(), ThreadChoice()
    with machine.during(choice):
        machine.train(choice, 5)
        choice.after_step(0.060)
        assert torch.get_num_threads() == 4
        choice.after_step(0.006)
        choice.after_step(0.060)
        assert torch.get_num_threads() == 4
        choice.after_step(0.060)
        assert torch.get_num_threads() == 1


def test_slower_by_microseconds_is_no_reason_to_look(simulated):
    machine, choice = simulated(one=0.0002, more=0.0001), ThreadChoice()
    with machine.during(choice):
        machine.train(choice, 5)
        checks = len(machine.checks)
        for _ in range(10):
            choice.after_step(0.0009)
        assert (torch.get_num_threads(), len(machine.checks)) == (4, checks)


def test_short_trainings_add_up(simulated):
    machine, choice = simulated(), ThreadChoice()
    found = []
    for _ in range(4):
        with machine.during(choice, steps=8):
            found.append(machine.train(choice, 8)[0])
    assert found == [1, 1, 4, 4]
    assert machine.trials == 1
    machine.neighbour = True
    with machine.during(choice, steps=8):
        assert machine.train(choice, 8) == [1] * 8
    machine.neighbour = False
    with machine.during(choice, steps=8):  # not yet time to look
        assert torch.get_num_threads() == 1
    assert machine.trials == 1


def test_measurements_do_not_travel(simulated):
    machine, choice = simulated(), ThreadChoice()
    with machine.during(choice):
        pass
    assert pickle.loads(pickle.dumps(choice)).number == 0


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("asked", [None, 2])
def test_the_callers_number_is_restored_after_errors(simulated, error, asked):
    machine = simulated()

    def train():
        with machine.during(ThreadChoice(), asked=asked):
            assert torch.get_num_threads() == (asked or 4)
            raise error

    with pytest.raises(error):
        train()
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0.008] * 9, True),
        ([0.0004, 0.008, 0.00001, 0.004] + [0.00001] * 9999, True),
        ([0.003] + [0.00001] * 9999, False),
        ([0.00001] * 9999, False),
    ],
)
def test_two_stalls_show_a_neighbour_one_may_be_chance(monkeypatch, times, expected):
    clock = {"now": 0.0}
    left = iter(times)

    def seconds(function):
        function()
        spent = next(left)
        clock["now"] += spent
        return spent

    monkeypatch.setattr(threads, "perf_counter", lambda: clock["now"])
    monkeypatch.setattr(threads, "_seconds", seconds)
    assert contended(4) is expected
    assert clock["now"] < 0.02


# With real networks


@pytest.fixture
def probing(monkeypatch):
    """Every training is preceded by trial steps, after which so many threads are used, whatever was measured."""

    def make(number):
        looks = []
        monkeypatch.setattr(threads, "contended", lambda _: bool(looks.append(1)))
        monkeypatch.setattr(threads, "cpu_count", lambda: 2)
        monkeypatch.setattr(threads, "_SMALL", 0)
        monkeypatch.setattr(threads, "_FEWEST_STEPS", 0)
        monkeypatch.setattr(threads, "_HOPELESS", math.inf)
        monkeypatch.setattr(threads, "_SLOW", math.inf)
        monkeypatch.setattr(threads, "_FASTER", math.inf if number == 2 else 0.0)
        return looks

    return make


def same_weights(a, b):
    a, b = a.network_.state_dict(), b.network_.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Counting(nn.Module):
    """A custom encoder that keeps a tensor with a gradient, and one that it updates."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.last = self.layer(nn.functional.dropout(x, 0.2, self.training))
        self.calls = self.calls + self.training
        return self.last


FAMILIES = {
    "dense": {"noise": "dropout:0.3", "normalization": "batch"},
    "sparse": {},
    "contractive": {},
    "vae": {},
    "conv1d": {"hidden": (4,)},
    "custom": {"encoder": Counting(), "decoder": nn.Linear(2, 6)},
}


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_bytes_as_with_a_fixed_number(rows, probing, family, number):
    X = rows[:160, np.newaxis] if family == "conv1d" else rows[:160]
    settings = {**PLAIN, "family": family, "epochs": 2, **FAMILIES[family]}
    if family == "custom":
        del settings["latent"], settings["hidden"]
    looks = probing(number)
    random = torch.random.get_rng_state()
    chosen = Autoencoder(**settings).fit(X)
    assert looks
    assert torch.equal(torch.random.get_rng_state(), random)
    assert [epoch["threads"] for epoch in chosen.history_] == [number] * 2
    fixed = Autoencoder(**settings, threads=number).fit(X)
    assert fixed.run_.state.threads == f"{number} (as set)"
    assert same_weights(chosen, fixed)


def test_looking_again_in_the_middle_does_not_change_the_bytes(rows, probing, monkeypatch):
    looks = probing(1)
    monkeypatch.setattr(threads, "_PAUSE", 0.0)
    monkeypatch.setattr(threads, "_COST", math.inf)  # after every step
    settings = {**PLAIN, "epochs": 2, "normalization": "batch", "noise": "gaussian:0.1"}
    chosen = Autoencoder(**settings).fit(rows[:200])
    assert len(looks) > 10
    fixed = Autoencoder(**settings, threads=1).fit(rows[:200])
    assert same_weights(chosen, fixed)


def test_a_neighbour_in_the_middle_is_recorded(rows, probing, monkeypatch):
    probing(2)
    neighbour = []
    monkeypatch.setattr(threads, "contended", lambda _: bool(neighbour))
    monkeypatch.setattr(threads, "_SLOW", 0.0)  # every step is looked at
    monkeypatch.setattr(threads, "_STALL", 0.0)
    ae = Autoencoder(**PLAIN, epochs=4)
    monkeypatch.setattr(ThreadChoice, "after_step", _once_slow(ThreadChoice.after_step))
    ae.fit_rows(rows, on_epoch=lambda state: neighbour.append(1) if state.epoch == 2 else None)
    assert [epoch["threads"] for epoch in ae.history_] == [2, 2, 1, 1]
    assert ae.run_.state.threads == "1 (measured: another process is busy, changed once)"


def _once_slow(after_step):
    def slow(self, seconds):
        self._slow = 0
        after_step(self, 1e3)

    return slow


@pytest.mark.parametrize("number", ["auto", 3])
def test_restored_after_every_way_that_training_ends(rows, number):
    def fail(error):
        def hook(state):
            assert number == "auto" or torch.get_num_threads() == number
            raise error

        return hook

    for error in (ZeroDivisionError, SystemExit):
        with pytest.raises(error):
            Autoencoder(**PLAIN, threads=number).fit_rows(rows, on_epoch=fail(error))
        assert torch.get_num_threads() == 4
    interrupted = Autoencoder(**PLAIN, threads=number).fit_rows(rows, on_epoch=fail(KeyboardInterrupt))
    assert interrupted.stopped_ == "interrupted"
    assert torch.get_num_threads() == 4
    with pytest.raises(InputError, match="diverged"):
        Autoencoder(**PLAIN, threads=number, learning_rate=1e30, schedule="constant").fit(rows)


@pytest.mark.parametrize("value", [0, -1, 2.0, "two", "2", None, True, 10**9])
def test_bad_numbers_are_refused_in_a_sentence(rows, value):
    with pytest.raises(InputError, match=r"^threads: expected 'auto' or .*, got ") as caught:
        Autoencoder(**PLAIN, threads=value).fit(rows)
    assert "\n" not in str(caught.value)


def test_pca_partial_fit_and_resume(rows, probing, monkeypatch):
    monkeypatch.setattr(threads, "cpu_count", lambda: 2)
    pca = Autoencoder("pca", latent=2, threads=2).fit(rows)
    assert (pca.history_[0]["threads"], pca.run_.state.threads) == (2, "2 (as set)")
    pca = Autoencoder("pca", latent=2).fit(rows)
    assert pca.run_.state.threads == "1 (too little work to share)"
    probing(2)
    pca = Autoencoder("pca", latent=2).fit(rows)
    assert pca.run_.state.threads == "2 (measured: the CPUs are free)"
    ae = Autoencoder(**PLAIN, epochs=2)
    ae.partial_fit(rows[:200])
    ae.set_params(threads=1).partial_fit(rows[200:])
    assert [epoch["threads"] for epoch in ae.history_] == [2, 1]
    ae = Autoencoder(**PLAIN, epochs=2, threads=2, schedule="constant").fit(rows)
    ae.resume(rows, epochs=4)
    assert [epoch["threads"] for epoch in ae.history_] == [2] * 4


def test_runs_keep_the_number_and_older_runs_load(rows, tmp_path):
    ae = Autoencoder(**PLAIN, epochs=2, threads=2, schedule="constant").fit(rows)
    ae.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run")
    assert again.threads == 2
    assert again.run_.summary()["threads"] == "2 (as set)"
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    document["version"] = 1
    del document["sha256"]  # as runs of former versions
    del document["params"]["threads"], document["state"]["threads"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(document))
    epochs = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [epoch.pop("threads") for epoch in epochs] == [2, 2]
    (tmp_path / "run" / "history.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
    old = Autoencoder.load(tmp_path / "run")
    assert (old.threads, old.run_.summary()["threads"]) == ("auto", "unknown")
    old.export(tmp_path / "old.aeedge")
    old.resume(rows, epochs=3)
    assert [epoch.get("threads") for epoch in old.history_] == [None, None, 1]


def test_the_command(rows, tmp_path):
    def train(*options):
        arguments = [
            "train",
            tmp_path / "rows.npy",
            "-o",
            tmp_path / "run",
            "--latent",
            "2",
            "--epochs",
            "2",
            "-q",
            "-f",
        ]
        return CliRunner().invoke(AeedgeGroup.build(), [str(a) for a in (*arguments, *options)])

    np.save(tmp_path / "rows.npy", rows)
    result = train("--threads", "2")
    assert result.exit_code == 0, result.output
    assert "threads 2 (as set)\n" in result.output
    assert "threads 1 (" in train().output
    for value in ("0", "-3", "many", "1.5"):
        result = train("--threads", value)
        assert result.exit_code == 2
        assert "threads" in result.output
        assert "expected 'auto' or" in result.output
