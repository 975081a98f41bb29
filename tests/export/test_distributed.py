"""Several processes train as one: started by torchrun, by `aeedge train --nproc`, and in a script of the user's."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from aeedge.cli.group import AeedgeGroup
from aeedge.errors import InputError
from aeedge_export import Autoencoder
from aeedge_export.cli import processes
from aeedge_export.data.outliers import OutlierSearch
from aeedge_export.data.scaling import FiniteCheck, fit_statistics, scan
from aeedge_export.training import loop
from aeedge_export.training.distributed import ALONE, Group

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")

SCRIPT = """
import os, runpy, sys
import numpy as np
from aeedge.errors import InputError
from aeedge_export import Autoencoder

rank, folder = int(os.environ["RANK"]), sys.argv[1]
cases = np.load(f"{folder}/cases.npy", allow_pickle=True).item()
for name, (rows, params) in cases.items():
    ae = Autoencoder(**params).fit(np.load(f"{folder}/{rows}.npy"))
    found = {f"weights {key}": value.numpy() for key, value in ae.run_.state.last_weights.items()}
    found |= {"history": [[epoch["train_loss"], epoch["validation_loss"]] for epoch in ae.history_]}
    found |= {"mean": ae.scaler_.mean, "scale": ae.scaler_.scale, "threshold": ae.run_.alarm.threshold}
    np.savez(f"{folder}/{name}-{rank}.npz", **found)
said = []
table = np.load(f"{folder}/table.npy")
for rows, params in ((table[rank:], {}), (table, {"latent": 2 + rank})):
    try:
        Autoencoder(epochs=1, **params).fit(rows)
    except InputError as error:
        said.append(str(error))
np.save(f"{folder}/said-{rank}.npy", said)
del sys.argv[1]  # the rest is for the command
runpy.run_module("aeedge_export.train", run_name="__main__")
"""
SMALL = {"latent": 2, "hidden": (8,), "batch_size": 256, "random_state": 0, "patience": None}
CASES = {
    "dense": ("table", {**SMALL, "epochs": 5}),
    "uneven": ("table", {**SMALL, "epochs": 2, "batch_size": 33, "gradient_clip": 0.1}),
    "dropout": ("table", {**SMALL, "epochs": 2, "noise": "dropout:0.4"}),
    "ordered": ("table", {**SMALL, "epochs": 2, "ordered": True}),
    "vae": ("table", {**SMALL, "epochs": 2, "family": "vae"}),
    "kl": ("table", {**SMALL, "epochs": 2, "family": "sparse", "sparsity": "kl:0.1:0.1"}),
    "contractive": ("table", {**SMALL, "epochs": 2, "family": "contractive"}),
    "normalised": ("digits", {**SMALL, "epochs": 2}),
    "conv": ("images", {**SMALL, "epochs": 2, "family": "conv2d"}),
    "bf16": ("table", {**SMALL, "epochs": 2, "precision": "bf16"}),
}
DRAWN = {"drawn": ("table", {**SMALL, "epochs": 1, "random_state": None})}
OF_TRAIN = ["--latent", "2", "--hidden", "8", "--batch-size", "64", "--patience", "none", "--epochs"]


def environment():
    """Of a process that starts others; without what torchrun gave this one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TORCHELASTIC", "COVERAGE"))}
    return kept | {"OMP_NUM_THREADS": "1"}


def torchrun(*args, processes=2, **options):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run(
        [*command, *map(str, args)], env=environment(), capture_output=True, text=True, timeout=300, **options
    )


def aeedge(*args, **options):
    command = [sys.executable, "-m", "aeedge", *map(str, args)]
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def epochs_of(run):
    return len((run / "history.jsonl").read_text().splitlines()) if (run / "history.jsonl").exists() else 0


def wait_for(condition, process):
    end = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def in_threads(size, function):
    """What `function(group)` gives in each of a group of so many threads."""
    places, barrier = [None] * size, threading.Barrier(size)

    class Thread(Group):
        def __init__(self, rank):
            self.rank, self.size = rank, size

        def gathered(self, value):
            places[self.rank] = value
            barrier.wait(60)
            found = list(places)
            barrier.wait(60)
            return found

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: function(Thread(rank)), range(size)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, rows, digits):
    place = tmp_path_factory.mktemp("distributed")
    np.save(place / "table.npy", np.concatenate([rows, rows[::-1] * 1.1, rows * 0.9])[:1101])
    np.save(place / "digits.npy", digits[:700])
    np.save(place / "images.npy", digits[:600].reshape(-1, 1, 8, 8))
    np.save(place / "cases.npy", CASES | DRAWN)
    (place / "own.py").write_text(SCRIPT)
    return place


@pytest.fixture(scope="module")
def launched(folder):
    """A launch of torchrun: the user's own script, and then, in the same two processes, the command."""
    done = torchrun("own.py", folder, "table.npy", "-o", "undisturbed", *OF_TRAIN, "12", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def two(launched, folder):
    """What each of two processes found in the user's own script."""
    return {(name, rank): np.load(folder / f"{name}-{rank}.npz") for name in CASES | DRAWN for rank in (0, 1)}


@pytest.mark.parametrize("name", CASES | DRAWN)
def test_two_processes_agree_with_each_other_to_the_bit(two, name):
    first, second = two[name, 0], two[name, 1]
    assert set(first) == set(second) >= {"history", "mean", "scale", "threshold"}
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])


@pytest.mark.parametrize("name", CASES)
def test_two_processes_with_half_the_batch_agree_with_one(two, folder, name):
    """Losses to rounding. Validation losses and weights where no gradient is nought but for rounding: AdamW takes such
    a one, of a bias before batch normalisation, as seriously as any other."""
    rows, params = CASES[name]
    alone, found = Autoencoder(**params).fit(np.load(folder / f"{rows}.npy")), two[name, 0]
    losses = np.array([[epoch["train_loss"], epoch["validation_loss"]] for epoch in alone.history_])
    rounding = 1e-3 if name == "bf16" else 2e-6
    np.testing.assert_allclose(found["history"][:, 0], losses[:, 0], rtol=rounding)
    free = name in ("kl", "normalised", "conv", "contractive")
    np.testing.assert_allclose(found["history"][:, 1], losses[:, 1], rtol=1e-3 if free else rounding)
    np.testing.assert_array_equal(found["mean"], alone.scaler_.mean)
    np.testing.assert_array_equal(found["scale"], alone.scaler_.scale)
    if not free:
        for key, value in alone.run_.state.last_weights.items():
            np.testing.assert_allclose(
                found[f"weights {key}"], value.numpy(), rtol=1e-4, atol=1e-2 if name == "bf16" else 1e-5
            )


def test_processes_with_other_rows_or_parameters_are_refused_in_all(two, folder):
    for rank in (0, 1):
        other_rows, other_latent = np.load(folder / f"said-{rank}.npy")
        assert other_rows.startswith("X: expected the same in all 2 processes")
        assert other_latent.startswith("latent: expected the same in all 2 processes")


@pytest.mark.parametrize("size", [1, 2, 3, 40])
def test_shared_statistics_are_those_of_one_process_to_the_bit(size, monkeypatch):
    monkeypatch.setattr("aeedge_export.data.scaling._CHUNK_BYTES", 8 * 5 * 7)  # 7 rows
    X = np.random.default_rng(0).normal(1e3, 1e-2, size=(1000, 5))
    order = np.sort(np.random.default_rng(1).permutation(1000)[:901])
    alone = fit_statistics(X, order)
    np.testing.assert_allclose(alone.mean, X[order].mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(alone.std, X[order].std(axis=0), rtol=1e-9)

    for shared in in_threads(size, lambda group: fit_statistics(X, order, group)):
        assert shared.rows == alone.rows == 901
        for name in ("mean", "std", "min", "max"):
            np.testing.assert_array_equal(getattr(shared, name), getattr(alone, name))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("where", [[], [0], [999], [400, 407, 700], range(0, 1000, 100)])
def test_outliers_that_processes_find_together_are_those_of_one(where, size, monkeypatch):
    """Also where a process sees none of them, or no rows that count."""
    monkeypatch.setattr("aeedge_export.data.scaling._CHUNK_BYTES", 8 * 5 * 7)
    X = np.random.default_rng(0).normal(size=(1000, 5)).astype(np.float32)
    X[list(where), 3] = -999.25
    X[list(where)[:1], 1] = 1e6
    for rows in (None, np.arange(1000)[::2], np.arange(30)):

        def found(group, rows=rows):
            search = OutlierSearch(X, rows=rows)
            scan(X, search, group=group)
            return search.found()

        alone = found(ALONE)
        if rows is None:
            assert alone.mask.any() == (len(where) > 0)
        for shared in in_threads(size, found):
            np.testing.assert_array_equal(shared.mask, alone.mask)
            assert shared.notes == alone.notes


@pytest.mark.parametrize("size", [2, 3])
def test_the_first_of_several_bad_rows_is_named_whichever_process_sees_it(size, monkeypatch):
    monkeypatch.setattr("aeedge_export.data.scaling._CHUNK_BYTES", 8 * 5 * 7)
    X = np.zeros((1000, 5))
    X[[300, 45, 600], 2] = np.nan  # 45 is of the second block

    def said(group):
        with pytest.raises(InputError) as error:
            scan(X, FiniteCheck(X), group=group)
        return str(error.value)

    assert "in row 45, column 2" in said(ALONE)
    assert set(in_threads(size, said)) == {said(ALONE)}


@pytest.mark.parametrize("count", [1, 2, 7, 256])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_the_parts_of_a_batch_are_the_batch(count, size):
    def group(rank):
        made = Group()
        made.rank, made.size = rank, size
        return made

    rows = [row for rank in range(size) for row in range(count)[group(rank).part(count)]]
    assert rows == list(range(count))


@pytest.fixture(scope="module")
def undisturbed(launched, folder):
    assert launched.stdout.count("wrote undisturbed") == 1
    assert launched.stderr.count("epoch 12/12") == launched.stderr.count("Read: table.npy") == 1
    return folder / "undisturbed"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes of a process in /proc")
def test_a_killed_process_continues_from_the_last_epoch_with_the_same_bytes(folder, undisturbed):
    training = aeedge("train", "table.npy", "-o", "killed", *OF_TRAIN, "12", "--nproc", "2", cwd=folder)
    wait_for(lambda: epochs_of(folder / "killed") >= 3, training)
    of_all = Path(f"/proc/{training.pid}/task/{training.pid}/children").read_text().split()
    ranks = [int(pid) for pid in of_all if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    out, err = training.communicate(timeout=300)
    assert training.returncode == 0, err
    assert out.count("wrote killed") == 1
    after = int(err.split("and continue after epoch ")[1].split()[0])
    assert 3 <= after < 12
    assert err.count("epoch 1/12") == err.count("epoch 12/12") == err.count(f"epoch {after + 1}/12") == 1
    assert "Traceback" not in err
    for name in ("weights.safetensors", "checkpoint.safetensors", "calibration.npy", "sample.npy"):
        assert (folder / "killed" / name).read_bytes() == (undisturbed / name).read_bytes()
    documents = [json.loads((run / "run.json").read_text()) for run in (folder / "killed", undisturbed)]
    assert documents[0]["alarm"] == documents[1]["alarm"]
    assert not list(folder.glob(".*.part"))


def test_ctrl_c_ends_all_processes_and_keeps_the_best_weights(folder):
    training = aeedge("train", "table.npy", "-o", "stopped", *OF_TRAIN, "5000", "--nproc", "2", cwd=folder)
    wait_for(lambda: epochs_of(folder / "stopped") >= 2, training)
    training.send_signal(signal.SIGINT)
    out, err = training.communicate(timeout=300)
    assert training.returncode == 0, err
    assert "(interrupted)" in out
    run = Autoencoder.load(folder / "stopped")
    assert run.stopped_ == "interrupted"
    assert 2 <= run.n_iter_ < 5000


def test_bad_input_is_said_once(folder):
    training = aeedge("train", "table.npy", "-o", "none", "--latent", "99", "--nproc", "2", cwd=folder)
    _, err = training.communicate(timeout=300)
    assert training.returncode == 2
    assert err.count("Error:") == err.count("--latent: expected at most 6") == 1
    assert "Traceback" not in err
    assert "torch" not in err
    assert not (folder / "none").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["-", "--nproc", "2"], "--nproc: 2 processes cannot all read standard input"),
        (["table.npy", "--nproc", "0"], "--nproc: expected 'auto' or a number of at least 1, got 0"),
        (["table.npy", "--nproc", "100000"], "processes on this machine, got 100000; use 'auto'"),
        (["table.npy", "--nproc", "some"], "expected 'auto' or a number, got 'some'"),
    ],
)
def test_a_launch_refuses_what_several_processes_cannot_do(given, said, tmp_path):
    result = CliRunner().invoke(AeedgeGroup.build(), ["train", *given, "-o", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert said in result.stderr


def test_an_error_of_one_process_alone_is_said_and_ends_the_others(tmp_path, monkeypatch, capsys):
    """Number 1 of 2 cannot read its file, number 0 can: torchrun ends what is left once number 1 has failed."""
    place = tmp_path / "launch" / "attempt_0" / "1"
    place.mkdir(parents=True)
    for name, value in (("RANK", 1), ("WORLD_SIZE", 2), ("LOCAL_RANK", 1), ("LOCAL_WORLD_SIZE", 2), ("MASTER_PORT", 1)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(place / "error.json"))
    monkeypatch.setattr(processes, "_OTHERS_SECONDS", 0.1)
    monkeypatch.setattr(os, "setpgrp", lambda: None)
    args = [str(tmp_path / "nothing.npy"), "-o", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as ended:
        processes.work(args)
    assert ended.value.code == 2
    assert "nothing.npy" in capsys.readouterr().err
    assert processes.work(args) == 2  # started again: the same error is not worth another try
    assert capsys.readouterr().err == ""
    (tmp_path / "launch" / "ended-1").unlink()
    (tmp_path / "interrupted").touch()
    assert processes.work(args) == 130  # started again after Ctrl-C: it is to end
    assert capsys.readouterr().err == ""


def test_a_run_that_was_killed_before_its_last_look_at_patience_ends_as_the_undisturbed_one(rows, tmp_path):
    params = {"latent": 2, "hidden": (8,), "epochs": 40, "patience": 1, "learning_rate": 0.1, "random_state": 0}
    whole = Autoencoder(**params)
    whole.fit_rows(rows, on_epoch=lambda state: whole.save(tmp_path / "last", overwrite=True))
    assert whole.stopped_ == "patience"
    again = Autoencoder.load(tmp_path / "last")
    assert again.run_.state.stopped == "running"
    again.resume(rows)
    assert again.stopped_ == "patience"
    assert again.n_iter_ == whole.n_iter_
    np.testing.assert_array_equal(again.transform(rows), whole.transform(rows))


def test_bf16_trains_as_fp32_does_and_is_kept_by_a_run(rows, tmp_path):
    params = {"latent": 2, "hidden": (16,), "epochs": 20, "random_state": 0}
    exact, mixed = Autoencoder(**params).fit(rows), Autoencoder(**params, precision="bf16").fit(rows)
    losses = [ae.history_[-1]["validation_loss"] for ae in (exact, mixed)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert {value.dtype for value in mixed.network_.state_dict().values()} == {torch.float32}
    mixed.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run")
    assert (again.precision, again.compile) == ("bf16", False)
    again.resume(rows, epochs=21)
    assert again.n_iter_ == 21


def test_a_step_that_cannot_be_compiled_is_said(rows, monkeypatch):
    from torch._dynamo.exc import TorchDynamoException

    def refuse(function):
        def call(*tensors):
            raise TorchDynamoException("no working C++ compiler\n\nSet TORCH_LOGS")

        return call

    monkeypatch.setattr(loop.torch, "compile", refuse)
    with pytest.raises(InputError, match=r"^compile: torch.compile cannot make .*\(no working C\+\+ compiler\)"):
        Autoencoder(latent=2, epochs=1, compile=True).fit(rows)
    with pytest.raises(InputError, match=r"^compile: torch\.compile cannot differentiate .*'contractive'"):
        Autoencoder("contractive", latent=2, epochs=1, compile=True).fit(rows)


def test_compile_makes_the_step_of_the_training(rows, monkeypatch):
    compiled = []
    monkeypatch.setattr(loop.torch, "compile", lambda function: compiled.append(function) or function)
    params = {"latent": 2, "hidden": (8,), "epochs": 2, "random_state": 0}
    found = Autoencoder(**params, compile=True).fit(rows)
    assert len(compiled) == 1
    np.testing.assert_array_equal(found.transform(rows), Autoencoder(**params).fit(rows).transform(rows))


def test_a_group_of_one_sends_nothing(rows):
    assert ALONE.gathered(3) == [3]
    assert ALONE.shared(3) == 3
    assert ALONE.is_main
    assert ALONE.part(5) == slice(0, 5)
