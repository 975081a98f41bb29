"""Runs on disk: damage and tampering are one sentence, before torch sees a tensor that does not fit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from aeedge.errors import InputError
from aeedge.files.replacing import RUN
from aeedge_export import Autoencoder, run_files

FILES = ("run.json", "weights.safetensors", "checkpoint.safetensors", "history.jsonl", "sample.npy")
CALIBRATION = ("calibration.npy", "later.npy")  # where there are such rows


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    trained.save(path)
    return path


@pytest.fixture(scope="module")
def saved_with_calibration(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    Autoencoder(latent=2, hidden=(8,), epochs=1, random_state=0, calibration=0.2, time_ordered=True).fit(rows).save(
        path
    )
    return path


@pytest.fixture
def run(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def without_sums(run):
    """The run as version 1 wrote it, or as somebody leaves it who changes it on purpose."""
    document = json.loads((run / "run.json").read_text())
    document["version"] = 1
    document.pop("sha256", None)
    (run / "run.json").write_text(json.dumps(document))
    return run


def test_the_sums_are_those_of_the_files(run):
    import hashlib

    text = (run / "run.json").read_bytes()
    sums = json.loads(text)["sha256"]
    assert sorted(sums) == sorted(FILES)
    for name in FILES[1:]:
        assert sums[name] == hashlib.sha256((run / name).read_bytes()).hexdigest()
    assert sums["run.json"] == hashlib.sha256(text.replace(sums["run.json"].encode(), b"0" * 64, 1)).hexdigest()


@pytest.mark.parametrize("name", FILES)
def test_no_flipped_bit_passes(run, name):
    good = (run / name).read_bytes()
    whole = Autoencoder.load(run)
    rng = np.random.default_rng(0)
    for bit in rng.choice(len(good) * 8, 60, replace=False):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        (run / name).write_bytes(data)
        with pytest.raises(InputError, match=r"this run is damaged|expected a run of version 3"):
            Autoencoder.load(run)
    (run / name).write_bytes(good)
    assert Autoencoder.load(run).history_ == whole.history_


@pytest.mark.parametrize("name", CALIBRATION)
def test_damaged_rows_for_calibration_are_one_sentence(saved_with_calibration, tmp_path, name):
    run = shutil.copytree(saved_with_calibration, tmp_path / "run")
    assert {p.name for p in run.iterdir()} == {*FILES, *CALIBRATION}
    good = (run / name).read_bytes()
    for bit in np.random.default_rng(0).choice(len(good) * 8, 40, replace=False):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        (run / name).write_bytes(data)
        with pytest.raises(InputError, match=rf"this run is damaged: {name} is not what was saved"):
            Autoencoder.load(run)
    (run / name).unlink()
    with pytest.raises(InputError, match=rf"this run is damaged: {name} is missing"):
        Autoencoder.load(run)
    np.save(without_sums(run) / name, np.zeros((9, 5), np.float32))
    with pytest.raises(InputError, match=rf"this run is damaged: {name} holds rows \(5,\) float32, expected \(6,\)"):
        Autoencoder.load(run)


def test_rows_for_calibration_that_were_put_there_are_refused(run):
    np.save(run / "calibration.npy", np.zeros((9, 6), np.float32))
    with pytest.raises(InputError, match=r"this run is damaged: calibration\.npy is no part of it"):
        Autoencoder.load(run)


def test_no_flipped_bit_of_the_beginning_of_run_json_passes(run):
    good = (run / "run.json").read_bytes()
    for bit in range(8 * good.index(b"weights")):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        (run / "run.json").write_bytes(data)
        with pytest.raises(InputError, match=r"this run is damaged|expected a run of version 3"):
            Autoencoder.load(run)


def test_a_flipped_bit_names_the_file(run):
    data = bytearray((run / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (run / "weights.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=r"damaged: weights.safetensors is not what was saved, its sha256 differs"):
        Autoencoder.load(run)


def test_runs_without_sums_still_load(run, trained, rows):
    again = Autoencoder.load(without_sums(run))
    np.testing.assert_array_equal(again.transform(rows), trained.transform(rows))


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage", "zip"])
def test_damaged_files_without_sums_are_one_sentence(run, name, damage):
    data = (run / name).read_bytes()
    rng = np.random.default_rng(0)
    changed = {"empty": b"", "truncated": data[: len(data) // 3], "garbage": rng.bytes(999), "zip": b"PK\3\4" + data}
    (without_sums(run) / name).write_bytes(changed[damage])
    with pytest.raises(InputError, match="this run is damaged: "):
        Autoencoder.load(run)


def changed_tensors(run, name, change):
    tensors = load_file(run / name)
    change(tensors)
    save_file({key: value.contiguous() for key, value in tensors.items()}, run / name)


def replaced(key, by):
    return lambda tensors: tensors.__setitem__(key, by(tensors[key]))


def renamed(key, other):
    return lambda tensors: tensors.__setitem__(other, tensors.pop(key))


def first(run, name, prefix, end=""):
    return next(key for key in load_file(run / name) if key.startswith(prefix) and key.endswith(end))


TRICKS = {
    "smaller": lambda t: t[..., :1].clone(),
    "larger": lambda t: torch.cat([t, t]),
    "other axes": lambda t: t.reshape(-1)[None, None].clone(),
    "no axes": lambda t: t.sum(),
    "empty": lambda t: t.new_zeros(0),
    "float64": lambda t: t.double(),
    "float16": lambda t: t.half(),
    "integers": lambda t: t.to(torch.int64),
}


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize(
    ("name", "prefix"), [("weights.safetensors", "net."), ("checkpoint.safetensors", "last.")], ids=["best", "last"]
)
def test_weights_of_another_form_are_named(run, name, prefix, trick):
    key = first(run, name, prefix, "weight")
    changed_tensors(without_sums(run), name, replaced(key, TRICKS[trick]))
    with pytest.raises(InputError, match=rf"this run is damaged: {key} is of shape .* and dtype .*, expected of shape"):
        Autoencoder.load(run)


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("end", ["step", "exp_avg", "exp_avg_sq"])
def test_state_of_the_optimiser_of_another_form_is_named_before_torch_sees_it(run, rows, end, trick):
    key = first(run, "checkpoint.safetensors", "adam.", f".{end}")
    if end == "step" and trick in ("smaller", "larger", "other axes", "no axes"):
        by = {"other axes": lambda t: t.reshape(1, 1)}.get(trick, lambda t: t.repeat(3))
    else:
        by = TRICKS[trick]
    changed_tensors(without_sums(run), "checkpoint.safetensors", replaced(key, by))
    ae = Autoencoder.load(run)
    with pytest.raises(InputError, match=rf"resume: .* damaged: {key} is of shape .* and dtype .*, expected of shape"):
        ae.resume(rows, epochs=17)


@pytest.mark.parametrize(
    ("end", "value"),
    [("step", np.nan), ("step", np.inf), ("step", 0), ("step", -3), ("exp_avg", np.nan), ("exp_avg_sq", -1.0)],
)
def test_state_of_the_optimiser_of_impossible_values_is_named(run, rows, end, value):
    key = first(run, "checkpoint.safetensors", "adam.", f".{end}")
    changed_tensors(without_sums(run), "checkpoint.safetensors", replaced(key, lambda t: torch.full_like(t, value)))
    with pytest.raises(InputError, match=rf"damaged: {key} holds values that are not from"):
        Autoencoder.load(run).resume(rows, epochs=17)


@pytest.mark.parametrize("other", ["adam.99.step", "adam.0.max_exp_avg_sq", "adam.x.step", "adam.-1.exp_avg", "adam.0"])
def test_unknown_state_of_the_optimiser_is_named(run, rows, other):
    key = first(run, "checkpoint.safetensors", "adam.", ".step")
    changed_tensors(without_sums(run), "checkpoint.safetensors", renamed(key, other))
    with pytest.raises(InputError, match=r"damaged: adam\..* is none, expected of|damaged: adam\..*, expected none"):
        Autoencoder.load(run).resume(rows, epochs=17)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["state"].update(epoch=7), r"state.epoch is 7, but history.jsonl has 15 epochs"),
        (lambda d: d["state"].update(epoch="15"), r"state.epoch is '15', expected 0 to 15"),
        (lambda d: d["state"].update(best_epoch=16), r"state.best_epoch is 16, expected 0 to 15"),
        (lambda d: d["state"].update(plateau_scale=float("nan")), "state.plateau_scale is nan, expected a number"),
        (lambda d: d["state"].update(best_loss=float("nan")), "state.best_loss is nan, expected a number"),
        (lambda d: d["state"].update(stopped="bored"), "state.stopped is 'bored', expected one of running, epochs"),
        (lambda d: d["state"].update(tiredness=1), "TypeError: .*tiredness"),
        (lambda d: d["design"].update(hidden=[10**6, 10**6, 10**6]), "net.* expected "),
        (lambda d: d["design"].update(latent="two"), "TypeError"),
        (lambda d: d["design"].update(input_shape=[7]), "net.* expected of shape"),
        (lambda d: d.update(rows=-1), "rows is -1, expected a whole number from 2"),
        (lambda d: d.update(sample_rows=[10**9] * 40), "sample_rows are not all whole numbers from 0 to 399"),
        (lambda d: d.update(sample_rows=[1, 2]), "sample.npy, sample_rows and labels differ in length"),
        (lambda d: d.update(labels=[1, 2]), "sample.npy, sample_rows and labels differ in length"),
        (lambda d: d.update(dtype="uint8"), r"sample.npy holds rows \(6,\) float32, expected \(6,\) uint8"),
        (lambda d: d.update(features=["a"]), "features has 1 names, expected 6"),
        (lambda d: d["params"].update(abacus=1), "expected parameters of an Autoencoder, got abacus"),
        (lambda d: d.pop("seed"), "KeyError: 'seed'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_document_that_does_not_fit_is_one_sentence(run, change, message):
    document = json.loads((without_sums(run) / "run.json").read_text())
    change(document)
    (run / "run.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=message):
        Autoencoder.load(run)


def test_a_tampered_scaler_is_refused(run):
    changed_tensors(without_sums(run), "weights.safetensors", replaced("scaler.scale", lambda t: t.clone().fill_(-1.0)))
    with pytest.raises(InputError, match=r"damaged: scaler.scale is not finite, not above 0, or no float32"):
        Autoencoder.load(run)


def test_a_custom_run_with_other_modules_says_so(rows, tmp_path):
    encoder, decoder = torch.nn.Linear(6, 2), torch.nn.Linear(2, 6)
    ae = Autoencoder(family="custom", encoder=encoder, decoder=decoder, epochs=1, random_state=0).fit(rows)
    ae.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run", encoder=encoder, decoder=decoder)
    np.testing.assert_array_equal(again.transform(rows), ae.transform(rows))
    with pytest.raises(
        InputError, match=r"net.encoder.weight is of shape \(2, 6\) .*; or encoder= and decoder= are not"
    ):
        Autoencoder.load(tmp_path / "run", encoder=torch.nn.Linear(6, 3), decoder=torch.nn.Linear(3, 6))


def test_a_run_that_is_replaced_while_it_is_read_is_read_again(saved, tmp_path, rows, monkeypatch):
    run = shutil.copytree(saved, tmp_path / "run")
    other = Autoencoder(latent=2, hidden=(8,), epochs=1, random_state=1).fit(rows)
    real, replaced_after = run_files.Path.read_bytes, ["weights.safetensors"]

    def read(path):
        data = real(path)
        if path.name in replaced_after:
            replaced_after.clear()
            other.save(run, overwrite=True)
        return data

    monkeypatch.setattr(run_files.Path, "read_bytes", read)
    np.testing.assert_array_equal(Autoencoder.load(run).transform(rows), other.transform(rows))


TRAINING = """
import sys
import numpy as np
import torch
from aeedge_export import Autoencoder
torch.set_num_threads(1)
ae = Autoencoder(latent=2, hidden=(8,), epochs=100_000, patience=None, random_state=0, schedule="constant", threads=1)
rows = np.load(sys.argv[1])

def save(state):
    ae.save(sys.argv[2], overwrite=True)
    print(state.epoch, flush=True)

ae.fit_rows(rows, on_epoch=save)
"""


def test_a_run_that_is_killed_while_it_is_saved_loads_and_continues_to_the_bit(rows, tmp_path):
    np.save(tmp_path / "rows.npy", rows)
    command = [sys.executable, "-c", TRAINING, str(tmp_path / "rows.npy"), str(tmp_path / "run")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    for _ in range(4):
        assert child.stdout.readline()
    time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    killed = Autoencoder.load(tmp_path / "run")
    assert killed.n_iter_ >= 4
    settings = {"latent": 2, "hidden": (8,), "patience": None, "random_state": 0, "schedule": "constant", "threads": 1}
    whole = Autoencoder(**settings, epochs=killed.n_iter_ + 2).fit(rows)
    killed.resume(rows, epochs=killed.n_iter_ + 2)
    for name, tensor in whole.network_.state_dict().items():
        np.testing.assert_array_equal(killed.network_.state_dict()[name].numpy(), tensor.numpy())


def test_a_run_is_replaced_whatever_of_its_files_it_has():
    assert RUN.files == {"run.json", *run_files._DATA, *run_files._OPTIONAL, "report.html"}
