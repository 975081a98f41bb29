"""The command: what it prints, its exit codes, and never a traceback for a user's mistake."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import aeedge
from aeedge.bundle.reader import Bundle
from aeedge.cli.group import DEVICE, WORKSTATION, AeedgeGroup
from aeedge.table import percent_of

DATA = Path(__file__).parent.parent / "data"
BUNDLE = str(DATA / "bundle_v1")


def call(*args):
    result = CliRunner().invoke(AeedgeGroup.build(), [str(a) for a in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_help_lists_both_packages():
    out = call("--help").output
    for name, text in {**DEVICE, **WORKSTATION}.items():
        assert name in out
        assert text.split()[0] in out


@pytest.mark.parametrize("name", DEVICE)
def test_every_command_has_help_and_an_example(name):
    out = call(name, "--help").output
    assert DEVICE[name] in out or name == "verify"
    assert f"aeedge {name} " in out


def test_version():
    assert call("--version").output.strip() == f"aeedge, version {aeedge.__version__}"


def test_info():
    out = call("info", BUNDLE).output
    assert "12 float32" in out
    assert "s0, s1, s2, s3, s4, s5 and 6 more" in out
    assert json.loads(call("info", BUNDLE, "--json").output)["latent"] == {"size": 3}


def test_info_shows_the_whole_id_and_short_numbers(bundle):
    manifest = Bundle(bundle).manifest
    long = {
        "loss": 0.2557566165924072,
        "seen": [1 / 3, {"x": 123456789.125}],
        "rows": 12345678,
        "note": "0.33333333333",
    }
    (bundle / "manifest.json").write_text(manifest._replace(training=long).dumps())
    lines = call("info", bundle).output.splitlines()
    assert f"id         {manifest.id}" in lines
    for expected in ("loss: 0.255757", 'seen: [0.333333, {"x": 123457000.0}]', "rows: 12345678", "note: 0.33333333333"):
        assert any(line.endswith(expected) for line in lines), expected
    assert json.loads(call("info", bundle, "--json").output)["training"] == long


def test_verify():
    result = call("verify", BUNDLE)
    assert result.exit_code == 0
    assert "Checksums of encoder.onnx, decoder.onnx and golden.npz match; reference" in result.output
    found = json.loads(call("verify", BUNDLE, "--json").output)
    assert (found["schema"], found["ok"]) == ("aeedge-verify/1", True)
    assert [o["output"] for o in found["variants"][0]["outputs"]] == ["latent", "reconstruction", "score"]


def test_verify_lists_the_files_that_it_checked():
    path = DATA / "bundle_v1_scorer_int8"
    variants = json.loads(call("verify", path, "--json").output)["variants"]
    assert [name for variant in variants for name in variant["files"]] == sorted(
        (file.name for file in path.glob("*.onnx")), key=lambda name: ("int8" in name, "scorer" in name, name[0] == "d")
    )
    output = call("verify", path).output
    assert all(file.name in output for file in path.iterdir() if file.name != "manifest.json")
    assert max(map(len, output.splitlines())) <= 80


def test_verify_shows_the_error_as_a_share_of_the_tolerance():
    out = call("verify", BUNDLE).output
    assert "of the allowed difference" in out
    shown = re.findall(r"fp32 \(float\) +(\w+) +([\d.]+) %  ok", out)
    outputs = json.loads(call("verify", BUNDLE, "--json").output)["variants"][0]["outputs"]
    assert [name for name, _ in shown] == [o["output"] for o in outputs]
    for (_, percent), o in zip(shown, outputs):
        assert float(percent) == pytest.approx(o["used_percent"], rel=0.06)
        assert o["used_percent"] == pytest.approx(100 * o["error"] / o["tolerance"])
    assert [percent_of(*pair) for pair in ((0.0, 0.0), (1.0, 3.0), (1e-6, 1.0))] == ["0 %", "33 %", "0.0001 %"]


def test_verify_fails_for_a_changed_file(bundle):
    data = bytearray((bundle / "decoder.onnx").read_bytes())
    data[500] ^= 1
    (bundle / "decoder.onnx").write_bytes(data)
    result = call("verify", bundle)
    assert result.exit_code == 1
    assert "decoder.onnx: its content was changed" in result.output
    assert not json.loads(call("verify", bundle, "--json").stdout)["ok"]


@pytest.mark.parametrize("what", ["encode", "denoise", "score"])
@pytest.mark.parametrize(("source", "target"), [("x.npy", "z.npy"), ("x.csv", "z.csv"), ("x.npz", "z.npy")])
def test_files_give_what_the_model_gives(tmp_path, model, rows, what, source, target):
    x = rows[:1500]
    if source.endswith(".npy"):
        np.save(tmp_path / source, x)
    elif source.endswith(".npz"):
        np.savez(tmp_path / source, X=x)
    else:
        header = ",".join(f"s{i}" for i in range(12))
        np.savetxt(tmp_path / source, x, fmt="%.9g", delimiter=",", header=header, comments="")
    result = call(what, BUNDLE, tmp_path / source, "-o", tmp_path / target)
    assert result.exit_code == 0, result.output
    assert "rows/s" in result.output
    if target.endswith(".npy"):
        got = np.load(tmp_path / target)
    else:
        got = np.loadtxt(tmp_path / target, delimiter=",", skiprows=1, dtype=np.float32)
    np.testing.assert_allclose(got, getattr(model, what)(x), rtol=1e-5, atol=1e-4)


ONE = {  # the array of one sample in a file, and whether the API takes it as it is
    "one": (lambda x: x, True),
    "column order": (np.asfortranarray, True),
    "strided": (lambda x: np.repeat(x, 2, axis=-1)[..., ::2], True),
    "float64": (lambda x: x.astype(np.float64), False),
    "flat": (lambda x: x.reshape(-1), False),
    "n = 1": (lambda x: x[np.newaxis], True),
}


@pytest.mark.parametrize("what", ["encode", "decode", "denoise", "score"])
@pytest.mark.parametrize("name", ["bundle_v1", "bundle_v1_uint8", "bundle_v1_int8"])
def test_one_sample_is_one_row(tmp_path, monkeypatch, name, what):
    monkeypatch.setattr("aeedge.files.npy.BLOCK_BYTES", 8)  # a sample is larger than a block
    monkeypatch.chdir(tmp_path)
    with aeedge.load(DATA / name) as model:
        x = np.arange(model.input.size).reshape(model.input.shape).astype(model.input.dtype)
        sample = model.encode(x) if what == "decode" else x
        expected = getattr(model, what)(sample)
        assert expected.shape == getattr(model, what)(sample[np.newaxis]).shape[1:]
    for form, (make, as_is) in ONE.items():
        np.save("x.npy", make(sample))
        np.savez("x.npz", make(sample).copy(order="C"))
        if as_is:
            np.testing.assert_array_equal(np.load("x.npy").reshape(sample.shape), sample)
        for source in ("x.npy", "x.npz"):
            result = call(what, DATA / name, source, "-o", "z.npy", "-f")
            assert "wrote z.npy: 1 row, 1" in result.output, form
            got = np.load("z.npy")
            assert got.shape == (1, *expected.shape)
            np.testing.assert_allclose(got[0], expected, rtol=1e-5, atol=1e-6)
        assert call(what, DATA / name, source, "-o", "z.csv", "-f").exit_code == 0
        printed = call(what, DATA / name, source, "-o", "-")
        assert "wrote standard output: 1 row, 1" in printed.stderr
        for text in (Path("z.csv").read_text(), printed.stdout):
            header, row = csv.reader(text.splitlines())
            assert len(header) == len(row) == expected.size
            np.testing.assert_allclose(np.float32(row), expected.reshape(-1), rtol=1e-5, atol=1e-6)


def test_one_sample_each_from_several_files(tmp_path, model, rows):
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", rows[i])
    np.save(tmp_path / "3.npy", rows[3:5])
    assert call("encode", BUNDLE, tmp_path, "-o", tmp_path / "z.npy").exit_code == 0
    np.testing.assert_allclose(np.load(tmp_path / "z.npy"), model.encode(rows[:5]), rtol=1e-5, atol=1e-6)


def test_one_sample_is_one_score_in_the_table(tmp_path, model, rows):
    np.save(tmp_path / "x.npy", rows[0])
    table = call("score", BUNDLE, tmp_path / "x.npy").output.splitlines()
    assert len(table) == 3
    assert float(table[-1].split()[1]) == pytest.approx(float(model.score(rows[0])), rel=1e-5)


def test_an_error_is_broken_between_words_in_a_terminal_alone(monkeypatch):
    missing = ("score", "no-such-bundle.aeedge", "x.csv")
    line = call(*missing).stderr
    assert line.startswith("Error: no-such-bundle.aeedge: ")
    assert line.count("\n") == 1
    monkeypatch.setattr("aeedge.cli.wording.get_terminal_size", lambda: os.terminal_size((40, 24)))
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)
    lines = call(*missing).stderr.splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 40
    assert " ".join(lines) == line.strip()


def test_a_prefix_of_ordered_latents_is_one_row_as_in_the_api(tmp_path, bundle):
    manifest = Bundle(bundle).manifest
    (bundle / "manifest.json").write_text(manifest._replace(ordered=True).dumps())
    prefix = np.float32([1.5, -0.5])
    np.save(tmp_path / "z.npy", prefix)
    assert call("decode", bundle, tmp_path / "z.npy", "-o", tmp_path / "x.npy").exit_code == 0
    with aeedge.load(bundle) as model:
        np.testing.assert_allclose(np.load(tmp_path / "x.npy"), [model.decode(prefix)], rtol=1e-6)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.float32(3), "expected an array of rows, got a single value"),
        (np.zeros(0), "expected at least one row"),
        (np.zeros((0, 12)), "expected at least one row"),
        (np.zeros((3, 0)), "expected rows of numbers, got an array of shape (3, 0)"),
        (np.zeros(13), "expected an array of shape (n, 12) or (12,), got (1, 13)"),
        (np.zeros((12, 1)), "expected an array of shape (n, 12) or (12,), got (12, 1)"),
        (np.zeros((1, 1, 12)), "expected an array of shape (n, 12) or (12,), got (1, 1, 12)"),
        (np.zeros((2, 3, 2, 2)), "expected an array of shape (n, 12) or (12,), got (2, 3, 2, 2)"),
        (np.array([{}]), "expected numbers, got Python objects"),
        (np.zeros(12, "U3"), "expected numbers, got dtype <U3"),
        (np.zeros(12, complex), "expected numbers, got dtype complex128"),
    ],
)
def test_arrays_that_are_no_rows_are_one_sentence(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    for what in ("encode", "denoise", "score"):
        result = call(what, BUNDLE, tmp_path / "x.npy", "-o", tmp_path / "z.npy")
        assert result.exit_code == 2
        assert message in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_decode_undoes_encode(tmp_path, model, rows):
    np.save(tmp_path / "z.npy", model.encode(rows))
    assert call("decode", BUNDLE, tmp_path / "z.npy", "-o", tmp_path / "x.csv").exit_code == 0
    assert (tmp_path / "x.csv").read_text().startswith("s0,s1,s2")
    got = np.loadtxt(tmp_path / "x.csv", delimiter=",", skiprows=1, dtype=np.float32)
    np.testing.assert_allclose(got, model.denoise(rows), rtol=1e-5, atol=1e-4)


def test_flat_csv_pixels_become_images(tmp_path, pixels):
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 4, 4))
    np.savetxt(tmp_path / "x.csv", images.reshape(20, 16), fmt="%d", delimiter=",")
    assert call("encode", DATA / "bundle_v1_uint8", tmp_path / "x.csv", "-o", tmp_path / "z.npy").exit_code == 0
    np.testing.assert_allclose(np.load(tmp_path / "z.npy"), pixels.encode(images), rtol=1e-5)


def test_nan_is_named_by_its_row_in_the_whole_file(tmp_path, rows, monkeypatch):
    monkeypatch.setattr("aeedge.files.npy.BLOCK_BYTES", 4800)
    x = rows.copy()
    x[2345, 6] = np.nan
    np.save(tmp_path / "x.npy", x)
    result = call("encode", BUNDLE, tmp_path / "x.npy", "-o", tmp_path / "z.npy")
    assert result.exit_code == 2
    assert "got nan in row 2345 (counted from 0), column 6 ('s6')" in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]
    result = call("encode", BUNDLE, tmp_path / "x.npy", "-o", tmp_path / "z.npy", "--invalid", "propagate")
    assert np.isnan(np.load(tmp_path / "z.npy")).all(axis=1).nonzero()[0].tolist() == [2345]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["info", "none"], 2, "nothing is there"),
        (["verify", "none"], 2, "nothing is there"),
        (["encode", BUNDLE, "none.npy", "-o", "z.npy"], 2, "nothing is there"),
        (["encode", BUNDLE, "x.npy", "-o", "no/z.npy"], 2, "create it first"),
        (["encode", BUNDLE, "x.npy", "-o", "old.npy"], 2, "choose another name, or overwrite it (--force)"),
        (["encode", BUNDLE, "x.npy", "-o", "x.npy", "-f"], 2, "x.npy: is the file that is read"),
        (["encode", BUNDLE, "x.npy", "-o", "folder.npy", "-f"], 2, "folder.npy: is a folder"),
        (["encode", BUNDLE, "x.npy", "-o", "copy/z.npy", "-f"], 2, "would damage the bundle"),
        (["encode", BUNDLE, "wide.npy", "-o", "z.npy"], 2, "expected an array of shape (n, 12)"),
        (["encode", BUNDLE, "empty.npy", "-o", "z.npy"], 2, "expected at least one row"),
        (["encode", BUNDLE, "x.npy", "-o", "z.npy", "--variant", "int8"], 1, "it holds fp32"),
        (["encode", BUNDLE, "x.npy"], 2, "Missing option"),
        (["frobnicate"], 2, "No such command"),
        (["calibrate"], 2, "did you mean 'recalibrate'?"),
        (["encode", BUNDLE, "x.npy", "-o", "z.npy", "--threads", "0"], 2, "0"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, args, code, message):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros((3, 12)))
    np.save("wide.npy", np.zeros((3, 13)))
    np.save("empty.npy", np.zeros((0, 12)))
    Path("old.npy").touch()
    Path("folder.npy").mkdir()
    shutil.copytree(BUNDLE, "copy")
    before = {p: p.is_file() and p.read_bytes() for p in Path().rglob("*")}
    result = call(*args)
    assert result.exit_code == code
    assert message in result.output
    assert "Traceback" not in result.output
    assert {p: p.is_file() and p.read_bytes() for p in Path().rglob("*")} == before


def test_output_is_overwritten_only_by_force(tmp_path, rows):
    np.save(tmp_path / "x.npy", rows)
    for force, code in (([], 0), ([], 2), (["--force"], 0)):
        assert call("encode", BUNDLE, tmp_path / "x.npy", "-o", tmp_path / "z.npy", *force).exit_code == code


@pytest.mark.parametrize("name", WORKSTATION)
def test_without_the_extra_workstation_commands_name_it(name, tmp_path):
    """Torch is hidden from a clean process, as where the extra is not installed."""
    arguments = [name, "digits.npz"] if name == "sample" else [name, "x", "-o", "y"]
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'onnx', 'sklearn', 'pyarrow'], None)); "
        f"import aeedge.cli; aeedge.cli.command({arguments!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'aeedge[export]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_memory_stays_bounded_however_long_the_file(tmp_path):
    """120 MB of rows in a process that may only grow by a fraction of that."""
    header = np.lib.format.header_data_from_array_1_0(np.zeros((1, 12), np.float32)) | {"shape": (2_500_000, 12)}
    with (tmp_path / "x.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        stream.truncate(stream.tell() + 2_500_000 * 12 * 4)
    code = f"""
import resource, aeedge.cli
try: aeedge.cli.command(["score", {BUNDLE!r}, {str(tmp_path / "one.npy")!r}, "-o", {str(tmp_path / "a.npy")!r}])
except SystemExit: pass
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try: aeedge.cli.command(["score", {BUNDLE!r}, {str(tmp_path / "x.npy")!r}, "-o", {str(tmp_path / "z.npy")!r}])
except SystemExit as done: assert not done.code
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    np.save(tmp_path / "one.npy", np.zeros((2000, 12), np.float32))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 40
    assert np.load(tmp_path / "z.npy").shape == (2_500_000,)
