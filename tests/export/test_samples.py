"""`aeedge sample` writes what the pages begin from."""

import csv

import numpy as np
import pytest

from aeedge.cli import command
from aeedge_export.samples import SAMPLES, motor


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        command(["sample", *map(str, arguments)])
    return ended.value.code


def test_all_samples_are_written_and_none_is_overwritten(tmp_path, capsys):
    assert run(*SAMPLES, "-o", tmp_path) == 0
    assert {path.name for path in tmp_path.iterdir()} == set(SAMPLES)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert run("digits.npz", "-o", tmp_path) == 2
    assert "-f" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_motor_is_the_same_every_time_and_its_faults_are_labelled(tmp_path):
    texts = []
    for name in ("a", "b"):
        motor._sample.cache_clear()
        motor.write_faulty(tmp_path / name)
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1]
    rows = list(csv.DictReader(texts[0].splitlines()))
    faults = {row["fault"] for row in rows} - {"normal"}
    assert len(faults) == 7
    stuck = [row["flow"] for row in rows if row["fault"] == "flow stuck"]
    assert len(stuck) > 50
    assert len(set(stuck)) == 1
    motor.write_normal(tmp_path / "normal")
    assert (tmp_path / "normal").read_text().splitlines()[-1][:19] < rows[0]["time"]


def test_arrays_have_the_documented_shapes_and_units(tmp_path):
    for name in ("ecg.npz", "digits.npz"):
        SAMPLES[name][1](tmp_path / name)
    with np.load(tmp_path / "digits.npz") as found:
        assert found["X"].shape == (1797, 64)
        assert found["X"].dtype == np.float32
        assert found["X"].max() == 16
        assert set(found["y"]) == set(range(10))
    with np.load(tmp_path / "ecg.npz") as found:
        assert found["signal"].shape == (12 * 60 * 360, 2)
        assert 0.5 < found["signal"].max() < 3
        assert found["rate_hz"] == 360
        assert len(found["beat_sample"]) == len(found["beat_symbol"])
        assert {"N", "V"} <= set(found["beat_symbol"])


def test_an_unknown_sample_is_refused_with_the_names(tmp_path, capsys):
    assert run("motr.csv", "-o", tmp_path) == 2
    assert "motor.csv" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_sample_that_is_named_twice_is_written_once(tmp_path, capsys):
    assert run("digits.npz", "digits.npz", "-o", tmp_path) == 0
    assert capsys.readouterr().out.count("wrote") == 1


@pytest.mark.parametrize(("folder", "said"), [("missing/deep", "create it first"), ("file", "is a file")])
def test_what_is_no_folder_to_write_into_is_named(tmp_path, capsys, monkeypatch, folder, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    assert run("digits.npz", "-o", folder, "--force") == 2
    assert f"--output: expected a folder to write into, {folder} {said}" in capsys.readouterr().err.replace(
        "is not there; ", ""
    )
    assert (tmp_path / "file").read_text() == "mine"
