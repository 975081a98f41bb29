"""examples/browser in a headless Chromium: what it says of bundles, and its numbers beside those of aeedge."""

import csv
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.browsers import DATA, ExamplePage, samples, write
from helpers.tampering import replace_graph, reseal

import aeedge
from aeedge.cli.group import AeedgeGroup

SOUND = sorted(path.name for path in DATA.glob("bundle_*"))
RANDOM = sorted(path.name for path in DATA.glob("random_*"))
FLOAT_AT_END = {"bundle_v1_saturating"}  # its last layer computes in float32


@pytest.fixture
def page(browser, examples):
    """The page, just opened; at the end nothing was asked of other servers, and no script failed."""
    browser.open(f"{examples}/browser/")
    browser.wait("document.body.dataset.state === 'ready'")
    yield ExamplePage(browser)
    assert {url for url in browser.requests if not url.startswith((f"{examples}/", "data:", "blob:"))} == set()
    assert browser.errors == []


@pytest.fixture
def copy(tmp_path):
    """A copy of a frozen bundle that may be changed."""

    def make(name):
        return Path(shutil.copytree(DATA / name, tmp_path / name))

    return make


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_bundle_is_verified_and_int8_latents_are_equal_to_the_bit(page, name):
    assert page.bundle(DATA / name) is None
    assert page.browser.text("#verdict").startswith("✓")
    found = page.golden()
    assert {row[5] for row in found} == {"✓ reproduced"}
    with aeedge.load(DATA / name) as model:
        expected = [(v, what) for v, spec in model.manifest.variants.items() for what in spec.tolerance]
    assert sorted((row[0], row[1]) for row in found) == sorted(expected)
    equal = {row[1]: row[4] for row in found if row[0] == "int8"}
    if equal and name not in FLOAT_AT_END:
        with np.load(DATA / name / "golden.npz") as golden:
            assert equal["latent"] == f"{golden['int8.latent'].size:,} of {golden['int8.latent'].size:,}"


@pytest.mark.parametrize("name", RANDOM)
def test_a_network_that_draws_random_numbers_is_refused(page, name):
    found = page.bundle(DATA / name)
    assert "random" in found or "tolerance" in found


@pytest.mark.parametrize("name", ["bundle_v1_robust_int8", "bundle_v3_spectrum"])
def test_a_flipped_bit_is_found_in_every_file(page, copy, name):
    folder = copy(name)
    for path in sorted(folder.iterdir()):
        sound = path.read_bytes()
        for at in (len(sound) // 3, len(sound) - 3):
            data = bytearray(sound)
            data[at] ^= 1
            path.write_bytes(data)
            found = page.bundle(folder)
            assert path.name in found
            assert "damaged" in found
            assert page.browser.evaluate("document.querySelector('#bundle').hidden") is True
        path.write_bytes(sound)
    assert page.bundle(folder) is None


def test_files_that_are_cut_short_missing_or_others_are_named(page, copy):
    folder = copy("bundle_v1_scorer")
    decoder = (folder / "decoder.onnx").read_bytes()
    (folder / "decoder.onnx").write_bytes(decoder[:-1])
    assert "decoder.onnx is damaged: expected" in page.bundle(folder)
    (folder / "decoder.onnx").unlink()
    assert "decoder.onnx is missing" in page.bundle(folder)
    assert "expected one manifest.json, got none among 1 file" in page.choose("#files", folder / "encoder.onnx")
    (folder / "manifest.json").write_text("{}")
    assert "not a bundle of aeedge" in page.bundle(folder)
    (folder / "manifest.json").write_text('{"format": "aeedge", "format_version": 99}')
    assert "format version is 99" in page.bundle(folder)


def replace_golden(folder, change):
    """Change golden.npz, and the manifest so that it fits."""
    with np.load(folder / "golden.npz") as golden:
        arrays = dict(golden)
    change(arrays)
    np.savez(folder / "golden.npz", **arrays)
    data = (folder / "golden.npz").read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    reseal(folder, lambda document: document.update(golden=entry))


def test_outputs_other_than_the_recorded_ones_are_no_bundle_to_use(page, copy):
    folder = copy("bundle_v2_both")

    def change(arrays):
        arrays["fp32.latent"][3, 0] += 1

    replace_golden(folder, change)
    found = page.bundle(folder)
    assert "fp32 latent of reference sample 3" in found
    assert page.browser.text("#verdict").startswith("✗")
    assert ["fp32", "latent"] in [row[:2] for row in page.golden() if row[5] == "✗ not reproduced"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("variants"), "not as the format describes it: see variants"),
        (lambda d: d["input"].update(shape=[]), "see input.shape"),
        (lambda d: d["input"].update(dtype="float64"), "see input.dtype"),
        (lambda d: d["score"].update(scale=0), "see score"),
        (lambda d: d.update(min_onnxruntime="99.0.0"), "needs onnxruntime 99.0.0 or newer; this page has 1."),
        (lambda d: d.update(format_version=4), "format version is 4; this page reads up to 3"),
        (lambda d: d["variants"]["fp32"]["tolerance"].pop("latent"), "does not say what the fp32 latent should be"),
        (lambda d: d["variants"]["fp32"]["tolerance"].pop("score"), "does not say what the fp32 score should be"),
        (lambda d: d["input"].update(shape=[9]), "encoder.onnx cannot be run here"),
        (lambda d: d["variants"]["fp32"]["tolerance"]["latent"].update(rtol=1.0), "too large beside its values"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(page, copy, change, said):
    folder = copy("bundle_v2_both")
    reseal(folder, change)
    assert said in page.bundle(folder)


def test_reference_outputs_and_graphs_have_to_be_there(page, copy):
    folder = copy("bundle_v1_encoder")
    replace_graph(folder, "encoder.onnx", b"no graph")
    assert "encoder.onnx cannot be run here" in page.bundle(folder)
    folder = copy("bundle_v2_both")
    replace_golden(folder, lambda arrays: arrays.pop("fp32.reconstruction"))
    assert "does not say what the fp32 reconstruction should be" in page.bundle(folder)


def test_a_bundle_may_be_a_folder_an_archive_or_files_chosen_or_dropped(page, tmp_path):
    folder = DATA / "bundle_v2_both"
    makes = [shutil.make_archive(str(tmp_path / "motor"), kind, DATA, folder.name) for kind in ("zip", "tar", "gztar")]
    path = write(tmp_path / "rows.csv", [f"s{i}" for i in range(8)], samples(folder.name))
    ways = [(page.choose, ["#files", archive]) for archive in makes]
    ways += [(page.choose, ["#folder", folder]), (page.drop, [folder]), (page.drop, [makes[0]])]
    ways += [(page.drop, [folder, path]), (page.drop, sorted(folder.iterdir()))]
    for act, paths in ways:
        assert page.choose("#files", DATA / "bundle_v1/golden.npz") is not None  # the one before is gone
        assert page.browser.evaluate("document.querySelector('#bundle').hidden") is True
        assert act(*paths) is None
        assert page.browser.text("#verdict").startswith("✓")
    assert page.browser.text("#status") == "rows.csv: 75 rows, variant fp32."


def compared(page, name, path, tmp_path, variant="fp32"):
    """The page's numbers of a CSV are those of `aeedge encode` and of the model; returns them."""
    assert page.bundle(DATA / name) is None
    assert page.csv(path) is None
    page.variant(variant)
    found = page.result(tmp_path / "downloads")
    latents = np.stack([column for key, column in found.items() if key.startswith("latent_")], axis=1)
    out = tmp_path / "latents.npy"
    ran = CliRunner().invoke(
        AeedgeGroup.build(), ["encode", str(DATA / name), str(path), "-o", str(out), "--variant", variant]
    )
    assert ran.exit_code == 0, ran.output
    expected = np.load(out).reshape(len(latents), -1)
    with aeedge.load(DATA / name, variant=variant) as model:
        tolerance = model.manifest.variants[variant].tolerance["latent"]
    allowed = tolerance.atol + tolerance.rtol * np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(latents - expected) <= allowed).all()
    return found, latents, expected


@pytest.mark.parametrize(
    ("name", "variant"),
    [(name, "fp32") for name in SOUND if "windows" not in name and "spectrum" not in name]
    + [(name, "int8") for name in SOUND if (DATA / name / "encoder.int8.onnx").exists()],
)
def test_latents_scores_and_alarms_are_those_of_aeedge(page, tmp_path, name, variant):
    rows = samples(name)
    with aeedge.load(DATA / name, variant=variant) as model:
        names = list(model.input.features or [])
        path = write(tmp_path / "rows.csv", names, rows)
        found, latents, expected = compared(page, name, path, tmp_path, variant)
        if variant == "int8" and name not in FLOAT_AT_END:
            assert (latents.astype(np.float32) == expected).all()
        shaped = rows.reshape(len(rows), *model.input.shape)
        assert ("score" in found) is ("score" in model.methods)
        if "score" in found:
            scores = model.score(shaped)
            close = 1e-3 * np.abs(scores) + model.manifest.variants[variant].tolerance["score"].atol
            assert (np.abs(found["score"] - scores) <= close).all()
        assert ("alarm" in found) is (model.calibration_size > 0)
        if "alarm" in found:
            alarms = model.detect(shaped)
            assert 0 < alarms.sum() < len(alarms)
            assert (found["alarm"] == alarms).all()
            assert np.allclose(found["p_value"], model.p_value(shaped), atol=1e-2)


def test_a_recording_is_cut_into_windows_as_aeedge_cuts_it(page, tmp_path):
    """Channels by name, the time of day from dates, no window across a gap."""
    rng = np.random.default_rng(2)
    n = 300
    seconds = 100 * np.arange(n) + np.where(np.arange(n) < 200, 0, 1000)
    load = np.sin(2 * np.pi * seconds / 86_400)
    signal = np.stack([load, 5 + 0.5 * load**2], axis=1) + 0.1 * rng.normal(size=(n, 2))
    signal[150:160, 0] += 2.0
    times = np.datetime64("2026-11-22T00:00:00") + seconds.astype("timedelta64[s]")
    lines = [f"{t},{b:.6g},{a:.6g},7" for t, (a, b) in zip(times, signal)]
    path = tmp_path / "recording.csv"
    path.write_text("time,y,x,other\n" + "\n".join(lines) + "\n")
    found, latents, _ = compared(page, "bundle_v1_windows", path, tmp_path)
    out = tmp_path / "scores.csv"
    ran = CliRunner().invoke(AeedgeGroup.build(), ["score", str(DATA / "bundle_v1_windows"), str(path), "-o", str(out)])
    assert ran.exit_code == 0, ran.output
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert found["start"].tolist() == [int(row["start"]) for row in rows]
    assert 200 in found["start"]
    assert 0 < found["alarm"].sum() < len(latents)
    assert [bool(alarm) for alarm in found["alarm"]] == [row["alarm"] in ("True", "true", "1") for row in rows]


def test_a_front_end_computes_features_of_windows(page, tmp_path):
    with np.load(DATA / "bundle_v3_spectrum" / "golden.npz") as golden:
        rows = golden["input"][:6].reshape(-1, 2)
    path = write(tmp_path / "vibration.csv", ["y", "x"], rows[:, ::-1])
    found, _, _ = compared(page, "bundle_v3_spectrum", path, tmp_path)
    with aeedge.load(DATA / "bundle_v3_spectrum") as model:
        assert (found["alarm"] == model.detect(rows.reshape(6, 320, 2))).all()


@pytest.mark.parametrize(
    ("policy", "kept", "said"), [("median", 5, "replaced by medians: 3"), ("drop", 3, "left out: 2")]
)
def test_missing_values_are_treated_as_the_manifest_says(page, copy, tmp_path, policy, kept, said):
    folder, fill = copy("bundle_v1"), [float(i) for i in range(12)]
    missing = {"policy": policy, "codes": {"s2": [-999]}} | ({"fill": fill} if policy == "median" else {})
    reseal(folder, lambda document: document["input"].update(missing=missing))
    rows = samples("bundle_v1")[20:25]
    path = write(tmp_path / "rows.csv", [f"s{i}" for i in range(12)], rows)
    lines = [line.split(",") for line in path.read_text().splitlines()]
    lines[2][2], lines[4][0], lines[4][5] = "-999", "", "NaN"
    path.write_text("\n".join(",".join(line) for line in lines) + "\n")
    assert page.bundle(folder) is None
    assert page.csv(path) is None
    assert said in page.browser.text("#notes")
    found = page.result(tmp_path / "downloads")
    assert len(found["row"]) == kept
    filled = rows.copy()
    filled[1, 2], filled[3, 0], filled[3, 5] = fill[2], fill[0], fill[5]
    with aeedge.load(DATA / "bundle_v1") as model:
        expected = model.encode(filled[found["row"].astype(int)])
    latents = np.stack([found[f"latent_{i}"] for i in range(3)], axis=1)
    assert np.allclose(latents, expected, atol=1e-3, rtol=1e-4)


NAMES = [f"s{i}" for i in range(12)]
WAYS = {
    "semicolons and decimal commas": lambda path, rows: write(path, NAMES, rows, ";", ","),
    "tabs": lambda path, rows: write(path, NAMES, rows, "\t"),
    "white space": lambda path, rows: write(path, NAMES, rows, " "),
    "no header": lambda path, rows: write(path, None, rows),
    "another order, and a column more": lambda path, rows: write(
        path, [*NAMES[::-1], "more"], np.column_stack([rows[:, ::-1], np.zeros(len(rows))])
    ),
    "quotes": lambda path, rows: write(path, [f'"{name}"' for name in NAMES], rows),
    "comments and blank lines": lambda path, rows: path.write_text(
        "# from the plant\n\n" + write(path, NAMES, rows).read_text().replace("\n", "\n\n")
    ),
    "a row of units": lambda path, rows: path.write_text(
        write(path, NAMES, rows).read_text().replace("\n", "\n" + ",".join(["mm"] * 12) + "\n", 1)
    ),
    "lines of Windows and a byte order mark": lambda path, rows: path.write_bytes(
        b"\xef\xbb\xbf" + write(path, NAMES, rows).read_bytes().replace(b"\n", b"\r\n")
    ),
}


def test_a_table_is_read_however_it_is_written(page, tmp_path):
    rows = samples("bundle_v1")[20:28].round(3)
    with aeedge.load(DATA / "bundle_v1") as model:
        expected = model.encode(rows)
    assert page.bundle(DATA / "bundle_v1") is None
    for i, (way, make) in enumerate(WAYS.items()):
        path = tmp_path / f"rows{i}.csv"
        make(path, rows)
        assert page.csv(path) is None, way
        found = page.result(tmp_path / f"downloads{i}")
        latents = np.stack([found[f"latent_{j}"] for j in range(3)], axis=1)
        assert latents.shape == expected.shape, way
        assert np.allclose(latents, expected, atol=1e-3, rtol=1e-4), way


FAULTS = {
    "": "rows.csv has no rows",
    "a,b,c\n1,2,3\n": "expected 4 columns, as the model takes, got 3",
    "a,b,c,d\n1,2,3,4\n1,2,x,4\n1,2,3,4\n": "line 3, column 'c': expected a finite number that fits 32 bits, got 'x'",
    "1,2,3,4\n1,2,,4\n": "line 2, column 3: expected a number, got a missing value",
    "a,b,c,d\n1,2,NaN,4\n": "line 2, column 'c': expected a number, got a missing value",
    "a,b,c,d\n1,2,inf,4\n": "line 2, column 'c': expected a finite number",
    "a,b,c,d\n1,2,1e39,4\n": "line 2, column 'c': expected a finite number that fits 32 bits, got '1e39'",
    "a,b,c,d\n1,2,3,4\n1,2,3\n1,2,3,4\n": "line 3: expected 4 cells, got 3",
    "a,b,a,d\n1,2,3,4\n": "the column 'a' stands twice",
    "a\0b\0c\0d": "rows.csv is no text",
}


def test_a_table_that_does_not_fit_is_refused_with_its_place(page, tmp_path):
    path = tmp_path / "rows.csv"
    assert page.bundle(DATA / "bundle_v1_encoder") is None
    for text, said in FAULTS.items():
        path.write_text(text)
        assert said in (page.csv(path) or ""), text
        assert page.browser.evaluate("document.querySelector('#data').hidden") is True
    path.write_text("1,2,3,4\n5,6,7,8\n")
    assert page.csv(path) is None
    assert "latents and no scores" in page.browser.text("#notes")


def test_columns_of_another_model_and_fractions_for_integers_are_refused(page, tmp_path):
    path = write(tmp_path / "rows.csv", ["s0", "s1", *[f"t{i}" for i in range(10)]], samples("bundle_v1"))
    assert page.csv(path) is None
    assert page.browser.text("#status") == "rows.csv waits for a bundle."
    assert "expected a column 's2', got 's0', 's1', 't0'" in page.bundle(DATA / "bundle_v1")
    path = write(tmp_path / "pixels.csv", None, np.full((3, 16), 0.5))
    page.bundle(DATA / "bundle_v1_uint8")
    assert "expected a whole number from 0 to 255, got '0.5'" in page.csv(path)
