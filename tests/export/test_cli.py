"""aeedge train and export, called as from a shell."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.signals import machine
from PIL import Image

import aeedge
from aeedge.cli.group import WORKSTATION, AeedgeGroup
from aeedge.errors import InputError
from aeedge.files.images import Images
from aeedge.files.replacing import BUNDLE, RUN
from aeedge_export import Autoencoder
from aeedge_export import window as cut
from aeedge_export.data.files import read

QUICK = ["--latent", "2", "--hidden", "8", "--epochs", "3", "-q"]


def call(*args):
    result = CliRunner().invoke(AeedgeGroup.build(), [str(a) for a in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def csv(tmp_path, rows):
    path = tmp_path / "pump.csv"
    np.savetxt(path, rows, delimiter=";", fmt="%.9g", header="a;b;c;d;e;f", comments="")
    return path


@pytest.mark.parametrize("name", WORKSTATION)
def test_the_help_of_the_group_is_that_of_the_command(name):
    command = AeedgeGroup.build().get_command(None, name)
    assert WORKSTATION[name].rstrip(".").split()[0] in command.help
    assert f"aeedge {name} " in command.help


def test_from_csv_to_latents(tmp_path, csv, rows):
    result = call("train", csv, "-o", tmp_path / "run", *QUICK)
    assert result.exit_code == 0, result.output
    assert "wrote" in result.output
    assert "next: aeedge export" in result.output
    result = call("export", tmp_path / "run", "-o", tmp_path / "pump.aeedge")
    assert result.exit_code == 0, result.output
    assert "outputs match torch" in result.output
    assert call("verify", tmp_path / "pump.aeedge").exit_code == 0
    assert (tmp_path / "pump.aeedge" / "scorer.onnx").exists()
    small = call("export", tmp_path / "run", "-o", tmp_path / "small.aeedge", "--no-scorer", "--score-kind", "robust")
    assert small.exit_code == 0, small.output
    assert not (tmp_path / "small.aeedge" / "scorer.onnx").exists()
    result = call("encode", tmp_path / "pump.aeedge", csv, "-o", tmp_path / "z.npy")
    assert result.exit_code == 0, result.output
    ae = Autoencoder.load(tmp_path / "run")
    expected = ae.network_.encoder(torch.from_numpy(ae.scaler_(rows))).detach()
    np.testing.assert_allclose(np.load(tmp_path / "z.npy"), expected, rtol=1e-3, atol=1e-4)
    assert aeedge.load(tmp_path / "pump.aeedge").input.features == tuple("abcdef")


def test_resume(tmp_path, csv):
    call("train", csv, "-o", tmp_path / "run", *QUICK)
    result = call("train", csv, "-o", tmp_path / "run", "--resume", "--epochs", "5", "-q")
    assert result.exit_code == 0, result.output
    assert Autoencoder.load(tmp_path / "run").n_iter_ == 5
    result = call("train", csv, "-o", tmp_path / "run", "--resume", "-q")
    assert result.exit_code == 2
    assert "all 5 epochs are done" in result.output


def test_a_killed_run_continues_from_its_last_checkpoint(tmp_path, csv, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(state):
        if state.epoch == 4:
            raise Killed

    monkeypatch.setattr("aeedge_export.cli.training._CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("aeedge_export.training.progress.Silence.__call__", lambda self, state: kill(state))
    with pytest.raises(Killed):
        call("train", csv, "-o", tmp_path / "run", "--latent", "2", "--hidden", "8", "--epochs", "9", "-q")
    monkeypatch.undo()
    killed = Autoencoder.load(tmp_path / "run")
    assert (killed.n_iter_, killed.stopped_) == (3, "running")
    assert call("train", csv, "-o", tmp_path / "run", "--resume", "-q").exit_code == 0
    done = Autoencoder.load(tmp_path / "run")
    assert (done.n_iter_, done.stopped_) == (9, "epochs")


def test_a_run_is_overwritten_only_by_force(tmp_path, csv):
    for force, code in (([], 0), ([], 2), (["--force"], 0)):
        assert call("train", csv, "-o", tmp_path / "run", *QUICK, *force).exit_code == code


@pytest.mark.parametrize(("kind", "dtype"), [(np.uint8, "uint8"), (np.uint16, "int16"), (np.float32, "float32")])
def test_images_on_the_workstation_are_the_rows_of_the_device(tmp_path, kind, dtype):
    rng = np.random.default_rng(0)
    worth = {np.uint8: 1, np.uint16: 100, np.float32: 1 / 255}[kind]
    (tmp_path / "parts").mkdir()
    for i in range(12):
        Image.fromarray((rng.integers(0, 256, (10, 8)) * worth).astype(kind)).save(tmp_path / "parts" / f"{i:02}.tif")
    (tmp_path / "parts" / "._00.tif").write_text("litter")
    (tmp_path / "parts" / "bad.tif").touch()
    args = ["train", tmp_path / "parts", "-o", tmp_path / "run", "--family", "conv2d", "--latent", "2", "--epochs", "1"]
    refused = call(*args, "-q")
    assert refused.exit_code == 2
    assert "bad.tif: expected an image, but the file is empty; correct or remove it, or leave it out (--skip-bad)" in (
        refused.output
    )
    result = call(*args, "-q", "--skip-bad", "--resize", "8x8")
    assert result.exit_code == 0, result.output
    assert "1 hidden files" in result.output
    assert "1 of 13 files are left out" in result.output
    Autoencoder.load(tmp_path / "run").export(tmp_path / "m.aeedge", with_scorer=False, score_kind="mse")
    with aeedge.load(tmp_path / "m.aeedge") as model:
        assert (model.input.shape, model.input.dtype) == ((1, 8, 8), dtype)
        images = Images([tmp_path / "parts"], resize=(8, 8), skip_bad=True)
        rows = np.concatenate(list(images.blocks(model.input.shape, model.input.dtype)))
        trained = read(tmp_path / "parts", resize=(8, 8), skip_bad=True).X
        assert (rows.dtype, rows.shape) == (dtype, (12, 1, 8, 8))
        np.testing.assert_array_equal(rows, trained)
        assert np.isfinite(model.encode(rows)).all()
    given = ("score", tmp_path / "m.aeedge", tmp_path / "parts", "--skip-bad", "--resize", "8x8")
    result = call(*given, "-o", tmp_path / "scores.csv", "--keep", "file")
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines[0].startswith("file,score")
    assert [line.split(",")[0] for line in lines[1:]] == [str(tmp_path / "parts" / f"{i:02}.tif") for i in range(12)]
    assert "of images only 'file' can be kept, got 'day'" in call(*given, "--keep", "day").output


@pytest.mark.parametrize("size", ["8", "8x", "0x8", "axb", "8,8", "-8x8"])
def test_a_size_that_is_none(tmp_path, size):
    result = call("train", tmp_path, "-o", tmp_path / "run", "--resize", size)
    assert result.exit_code == 2
    assert f"--resize: expected height and width in pixels such as 64x48, got {size!r}" in result.output


def tree(path):
    return {p.relative_to(path): p.read_bytes() if p.is_file() else None for p in path.rglob("*")}


@pytest.fixture
def place(tmp_path, monkeypatch, rows):
    """A folder with a run, a bundle, data and things that are not aeedge's."""
    monkeypatch.chdir(tmp_path)
    ae = Autoencoder(latent=2, hidden=(4,), epochs=1, random_state=0).fit(rows)
    for name in ("run", "mixed"):
        ae.save(name)
    ae.export("m.aeedge")
    (tmp_path / "mixed" / "thesis.txt").write_text("years of work")
    (tmp_path / "photos").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos" / "1.txt").write_text("precious")
    np.save("x.npy", rows)
    np.save("photos/x.npy", rows)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("photos")
    return tmp_path


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("train x.npy -o photos", "photos: holds files that are no run or bundle (1.txt, x.npy)"),
        ("train x.npy -o link", "link: holds files that are no run or bundle (1.txt, x.npy)"),
        ("train x.npy -o mixed", "mixed: holds files that are no part of this run (thesis.txt)"),
        ("train x.npy -o mixed --resume --epochs 3", "(thesis.txt)"),
        ("train x.npy -o file", "file: is a file"),
        ("train x.npy -o x.npy", "x.npy: is or holds x.npy"),
        ("train x.npy -o .", ".: is or holds x.npy"),
        ("train /dev/null -o .", ".: holds the current folder"),
        ("train x.npy -o /", "/: is or holds x.npy"),
        ("train photos -o photos", "photos: is or holds photos"),
        ("train photos/x.npy -o photos", "photos: is or holds photos/x.npy"),
        ("train run/sample.npy -o run", "run: is or holds run/sample.npy"),
        ("train x.npy -o run --labels run/sample.npy", "run: is or holds run/sample.npy"),
        ("train x.npy -o run --calibration run/sample.npy", "run: is or holds run/sample.npy"),
        ("train x.npy -o missing/run", "missing/run: expected the folder missing to exist"),
        ("train x.npy -o file/run", "file/run: expected the folder file to exist"),
        ("export run -o run", "run: is or holds run"),
        ("export run -o mixed", "mixed: holds files that are no part of this run (thesis.txt)"),
        ("export mixed -o run", "run: is a run, which is not replaced here"),
        ("export run -o photos", "photos: holds files that are no run or bundle (1.txt, x.npy)"),
        ("export run -o .", ".: is or holds run"),
        ("export run -o m.aeedge --calibration m.aeedge/golden.npz", "m.aeedge: is or holds m.aeedge/golden.npz"),
        ("report run -o run/sample.npy", "would damage the run"),
        ("report run -o photos", "photos: is a folder"),
    ],
)
def test_force_replaces_only_runs_and_bundles_and_never_what_is_read(place, monkeypatch, args, message):
    for name in ("aeedge_export.fitting.fit", "aeedge_export.fitting.resume", "aeedge_export.bundle.to_onnx"):
        monkeypatch.setattr(name, lambda *args, **options: pytest.fail("it was refused too late"))
    before = tree(place)
    result = call(*args.split(), "--force")
    assert result.exit_code == 2
    assert message in result.output
    assert "overwrite=True" not in result.output
    assert tree(place) == before


def test_force_replaces_runs_bundles_and_empty_folders(place):
    for target in ("run", "m.aeedge", "empty"):
        assert call("train", "x.npy", "-o", target, *QUICK, "--force").exit_code == 0
        assert Autoencoder.load(target).n_iter_ == 3
    (place / "empty2").mkdir()
    for _ in range(2):
        assert call("export", "run", "-o", "empty2", "--force").exit_code == 0
        assert (aeedge.load("empty2").latent_size, (place / "run").exists()) == (2, True)


@pytest.mark.usefixtures("time_has_no_say")
def test_export_takes_its_calibration_rows_from_one_array_of_several(place, rows):
    np.savez("both.npz", normal=rows, other=100 * rows)
    int8 = ("--variants", "int8,fp32", "--calibration")
    call("export", "run", "-o", "named.aeedge", *int8, "both.npz", "--array", "normal")
    call("export", "run", "-o", "alone.aeedge", *int8, "x.npy")
    named, alone = (aeedge.load(place / f"{name}.aeedge") for name in ("named", "alone"))
    assert named.manifest.variants["int8"].encoder == alone.manifest.variants["int8"].encoder
    assert "normal, other" in call("export", "run", "-o", "x.aeedge", *int8, "both.npz").output


@pytest.mark.usefixtures("time_has_no_say")
def test_everything_in_a_run_or_bundle_belongs_to_it(place, rows):
    """Otherwise --force would refuse what aeedge itself has written."""
    windows = cut(machine(8000), window=32, hop=8, rate=100.0)
    settings = {"latent": 2, "calibration": 0.2, "time_ordered": True, "epochs": 1}
    for X, spec, front_end, variants, absent in (
        (rows, None, "none", ("fp32", "int8"), {"reference.npy"}),
        (windows.X, windows.signal, "spectrum", ("fp32",), set()),
    ):
        Autoencoder(**settings, front_end=front_end).fit_rows(X, signal=spec).save("run", overwrite=True)
        call("report", "run")
        Autoencoder.load("run").export("m.aeedge", variants=variants, calibration=X, overwrite=True)
        assert {p.name for p in (place / "run").iterdir()} == RUN.files - absent
        assert {p.name for p in (place / "m.aeedge").iterdir()} <= BUNDLE.files


def test_estimators_refuse_before_they_convert(place, trained, monkeypatch):
    monkeypatch.setattr("aeedge_export.bundle.to_onnx", lambda *args: pytest.fail("it was refused too late"))
    for target, message in (
        ("photos", r"1\.txt"),
        ("run", "is a run"),
        ("mixed", r"thesis\.txt"),
        ("no/m", "create it"),
    ):
        with pytest.raises(InputError, match=message):
            trained.export(target, overwrite=True)
    with pytest.raises(InputError, match=r"overwrite it \(overwrite=True\)"):
        trained.export("m.aeedge")
    with pytest.raises(InputError, match=r"1\.txt"):
        trained.save("photos", overwrite=True)


def test_files_put_into_a_run_while_it_trains_are_kept_and_so_is_the_training(tmp_path, csv, monkeypatch):
    def take_notes(self, state):
        if state.epoch == 4:
            (tmp_path / "run" / "notes.txt").write_text("looks good")

    monkeypatch.setattr("aeedge_export.cli.training._CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("aeedge_export.training.progress.Silence.__call__", take_notes)
    result = call("train", csv, "-o", tmp_path / "run", "--latent", "2", "--hidden", "8", "--epochs", "9", "-q")
    assert result.exit_code == 0
    assert (tmp_path / "run" / "notes.txt").read_text() == "looks good"
    assert "notes.txt" in result.output
    (other,) = tmp_path.glob("run-*")
    assert f"the run is saved as {other}" in result.output
    assert Autoencoder.load(other).n_iter_ == 9


def test_a_report_is_overwritten_only_by_force(place):
    for force, code in (([], 0), ([], 2), (["--force"], 0)):
        assert call("report", "run", "-o", "page.html", *force).exit_code == code
    for _ in range(2):
        assert call("report", "run").exit_code == 0


@pytest.mark.parametrize("epochs", [3, 40])
def test_without_a_terminal_progress_is_a_line_for_each_tenth(tmp_path, csv, epochs):
    args = ["train", csv, "-o", tmp_path / "run", "--latent", "2", "--hidden", "8", "--epochs", epochs]
    code = f"import aeedge.cli; aeedge.cli.command({[str(a) for a in [*args, '--patience', 'none']]!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("Read: ")]
    expected = [1, 2, 3] if epochs == 3 else [1, *range(4, 41, 4)]
    assert [line.split(",")[0] for line in lines] == [f"epoch {epoch}/{epochs}" for epoch in expected]
    assert all(re.search(r"(\d s left|nearly done)$", line) for line in lines[:-1])
    assert max(map(len, lines)) < 80


def test_ctrl_c_keeps_the_best_weights_and_resume_continues(tmp_path, csv):
    args = ["train", csv, "-o", tmp_path / "run", "--latent", "2", "--hidden", "8"]
    args += ["--epochs", "100000", "--patience", "none"]
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may have it ignored
    code += f"import aeedge.cli; aeedge.cli.command({[str(a) for a in args]!r})"
    child = subprocess.Popen(
        [sys.executable, "-u", "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    while "epoch 1/" not in child.stderr.readline():
        assert child.poll() is None
    time.sleep(1)  # some epochs more, which a pipe is not told of
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=300)
    assert child.returncode == 0
    assert "interrupted" in out
    done = Autoencoder.load(tmp_path / "run").n_iter_
    assert done >= 1
    result = call("train", csv, "-o", tmp_path / "run", "--resume", "--epochs", str(done + 2), "-q")
    assert result.exit_code == 0, result.output
    assert Autoencoder.load(tmp_path / "run").n_iter_ == done + 2


@pytest.mark.parametrize("delay", [0.0, 0.2])
def test_killed_while_exporting_the_old_bundle_is_intact(tmp_path, trained, delay):
    trained.save(tmp_path / "run")
    trained.export(tmp_path / "m.aeedge")
    code = (
        "import aeedge_export; from aeedge_export import Autoencoder; import sys; "
        f"ae = Autoencoder.load({str(tmp_path / 'run')!r})\n"
        f"while True: ae.export({str(tmp_path / 'm.aeedge')!r}, overwrite=True); print('done', flush=True)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout.readline()  # it has replaced it once
    time.sleep(delay)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    aeedge.load(tmp_path / "m.aeedge", check="golden")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "none.csv", "-o", "run"], "nothing is there"),
        (["train", "words.csv", "-o", "run"], "line 3, column 2 ('b'): expected a number, got 'blue'"),
        (["train", "x.csv", "-o", "run", "--latent", "9"], "latent: expected at most 2"),
        (["train", "x.csv", "-o", "run", "--latent", "many"], "expected 'auto' or a number, got 'many'"),
        (["train", "x.csv", "-o", "run", "--hidden", "8;8"], "expected 'auto', 'none' or widths such as 256,64"),
        (["train", "x.csv", "-o", "no/run"], "create it first"),
        (["train", "x.csv", "-o", "run", "--resume"], "expected a run"),
        (["train", "x.csv", "-o", "run", "--drop", "z"], "expected a column 'z', got a, b"),
        (["export", "none", "-o", "m.aeedge"], "expected a run"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.csv").write_text("a,b\n1,2\n3,blue\n")
    (tmp_path / "x.csv").write_text("a,b\n" + "1,2\n3,5\n" * 10)
    result = call(*args)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


PROVOKED = [
    *("--latent 7", "--latent 0", "--latent -1", "--hidden 0", "--hidden 8,x", "--family conv2d", "--family conv1d"),
    *("--family custom", "--family nope", "--activation nope", "--latent-activation nope", "--output-activation nope"),
    *("--loss nope", "--loss bce --scaling standard", "--output-activation sigmoid --scaling none", "--noise nope:1"),
    *("--normalization nope", "--strides 2", "--separable", "--family sparse --sparsity l3:1", "--sparsity kl:0.1:1"),
    *("--contraction 1", "--beta 2", "--family vae --beta -1", "--family vae --kl-warmup 2", "--scaling nope"),
    *("--channels nope", "--axes nope", "--front-end nope", "--front-end spectrum", "--front-end-option band=1,2"),
    *("--window 10 --front-end log_mel", "--window 10 --front-end-option band=1,2", "--epochs 0", "--batch-size 0"),
    *("--learning-rate 0", "--weight-decay -1", "--schedule nope", "--gradient-clip -1", "--validation 2"),
    *("--calibration-share 0.9", "--gap -1", "--score-kind nope", "--score-kind mahalanobis --family pca --goal nope"),
    *("--patience 0", "--device nope", "--threads 0", "--threads 99999", "--precision nope", "--seed -1", "--nproc 0"),
    *("--window 100000", "--window 0", "--window 10 --hop 0", "--hop 3", "--rate 5Hz", "--window 10 --rate 0"),
    *(
        "--window 10 --time nope",
        "--window 10 --resample 1Hz",
        "--window 10 --calendar day",
        "--window 10 --calendar x",
    ),
    *("--array x", "--columns nope", "--drop nope", "--select nope", "--select 'a > 99'", "--labels nope"),
    *("--weights nope", "--resize 8x8", "--skip-bad", "--stream", "--false-alarm-rate 2", "--quantile 3"),
    *("--threshold x", "--false-alarm-rate 0.1 --quantile 0.1", "--contamination 2", "--family pca --hidden 8"),
    *("--time-ordered --gap 9999", "--missing nope", "--linear-path nope", "--goal nope", "--resume"),
]


@pytest.mark.parametrize("args", PROVOKED)
def test_messages_name_options_and_not_what_python_calls_them(tmp_path, csv, args):
    result = call("train", csv, "-o", tmp_path / "run", "-q", "--epochs", "1", *shlex.split(args))
    assert result.exit_code == 2, result.output
    said = result.output[result.output.index("Error: ") :]
    python = r"(?<![\w-])[a-z_]+=(?!2000)|`|\bargument|\b[a-z]+_[a-z]+(?=: )|\bNone\b|\bTrue\b|\bFalse\b"
    assert not re.search(python, said), said
    assert not re.match(r"Error: [a-z_]+: ", said), said


def test_a_bad_cell_is_named_by_its_line_whatever_becomes_of_missing_ones(tmp_path):
    lines = ["a,b,kind", *(f"{i},{i % 7},x" for i in range(40))]
    lines[5], lines[9], lines[20] = ",3,x", "8,inf,x", ",4,y"
    table = tmp_path / "x.csv"
    table.write_text("\n".join(lines) + "\n")
    for more, line in (
        (["--missing", "drop"], 10),
        (["--missing", "median"], 10),
        (["--select", "kind == x"], 6),
        (["--select", "kind == y"], 21),
    ):
        result = call("train", table, "-o", tmp_path / "run", "-q", "--drop", "kind", *more)
        assert result.exit_code == 2, result.output
        assert f"x.csv, line {line}, column " in result.output
    np.save(tmp_path / "x.npy", np.where(np.arange(60).reshape(20, 3) == 22, np.nan, 1.0))
    result = call("train", tmp_path / "x.npy", "-o", tmp_path / "run", "-q")
    assert "x.npy: expected finite numbers" in result.output
    assert "in row 7 (counted from 0), column 1" in result.output


def test_a_run_of_few_rows_says_why_it_has_no_alarms_and_what_to_do(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32))
    trained = call("train", str(tmp_path / "x.npy"), "-o", str(tmp_path / "run"), "-q", "--epochs", "1")
    assert trained.exit_code == 0, trained.output
    assert (
        "of fewer than 495 rows none are held out by default; take more rows, or --calibration-share" in trained.output
    )
    exported = call("export", str(tmp_path / "run"), "-o", str(tmp_path / "m.aeedge"))
    assert "no rows were held out to calibrate it; train with --calibration-share" in exported.output
    held = ("--calibration-share", "0.2", "-f")
    again = call("train", str(tmp_path / "x.npy"), "-o", str(tmp_path / "run"), "-q", "--epochs", "1", *held)
    assert "from 40 calibration rows" in again.output, again.output
    assert "no alarms" not in again.output
