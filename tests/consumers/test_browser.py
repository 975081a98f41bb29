"""examples/browser in a headless Chromium: what it says of bundles, and its numbers beside those of aeedge."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import aeedge
from aeedge.cli import main
from helpers.waiting import soon

DATA = Path(__file__).parent.parent / "data"
SOUND = sorted(path.name for path in DATA.glob("bundle_*"))
RANDOM = sorted(path.name for path in DATA.glob("random_*"))
FLOAT_AT_END = {"bundle_v1_saturating"}  # its last layer computes in float32


@pytest.fixture
def page(browser, examples):
    """The page, just opened; at the end nothing was asked of other servers, and no script failed."""
    browser.open(f"{examples}/browser/")
    browser.wait("document.body.dataset.state === 'ready'")
    yield Page(browser)
    assert {url for url in browser.requests if not url.startswith((f"{examples}/", "data:", "blob:"))} == set()
    assert browser.errors == []


class Page:
    """What a visitor does and sees."""

    def __init__(self, browser):
        self.browser = browser

    def choose(self, selector, *paths):
        """Choose files; returns the sentence of the error, or None."""
        self.browser.evaluate("document.body.dataset.state = 'waiting'")
        self.browser.upload(selector, *paths)
        self.browser.wait("['ready', 'failed'].includes(document.body.dataset.state)")
        failed = self.browser.evaluate("document.body.dataset.state") == "failed"
        return self.browser.text("#error") if failed else None

    def bundle(self, folder):
        return self.choose("#files", *sorted(folder.iterdir()))

    def csv(self, path):
        return self.choose("#csv", path)

    def golden(self):
        """Cells of the table of reference outputs."""
        return self.browser.evaluate(
            "[...document.querySelectorAll('#golden tr')].map((row) => [...row.cells].map((cell) => cell.innerText))"
        )

    def variant(self, name):
        self.browser.evaluate(
            "document.body.dataset.state = 'waiting', document.querySelector('#variant').value = '%s',"
            "document.querySelector('#variant').dispatchEvent(new Event('change'))" % name
        )
        self.browser.wait("document.body.dataset.state === 'ready'")

    def result(self, folder):
        """Columns of the file that can be downloaded, by name."""
        folder.mkdir()
        self.browser.download("#download", folder)
        assert soon(lambda: (folder / "scores.csv").exists())
        with (folder / "scores.csv").open() as file:
            head, *rows = csv.reader(file)
        return dict(zip(head, np.array(rows, np.float64).T))


@pytest.fixture
def copy(tmp_path):
    """A copy of a frozen bundle that may be changed."""

    def make(name):
        return Path(shutil.copytree(DATA / name, tmp_path / name))

    return make


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_bundle_is_verified(page, name):
    assert page.bundle(DATA / name) is None
    assert page.browser.text("#verdict").startswith("✓")
    found = page.golden()
    assert {row[5] for row in found} == {"✓ reproduced"}
    with aeedge.load(DATA / name) as model:
        expected = [(v, what) for v, spec in model.manifest.variants.items() for what in spec.tolerance]
    assert sorted((row[0], row[1]) for row in found) == sorted(expected)


@pytest.mark.parametrize("name", [name for name in SOUND if (DATA / name / "encoder.int8.onnx").exists()])
def test_int8_latents_are_those_of_the_exporter_to_the_bit(page, name):
    assert page.bundle(DATA / name) is None
    (equal,) = [row[4] for row in page.golden() if row[:2] == ["int8", "latent"]]
    same, count = equal.split(" of ")
    assert (same == count) is (name not in FLOAT_AT_END)
    with np.load(DATA / name / "golden.npz") as golden:
        assert int(count.replace(",", "")) == golden["int8.latent"].size


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


def test_outputs_other_than_the_recorded_ones_are_no_bundle_to_use(page, copy):
    import hashlib

    from helpers.tampering import reseal

    folder = copy("bundle_v2_both")
    with np.load(folder / "golden.npz") as golden:
        arrays = dict(golden)
    arrays["fp32.latent"][3, 0] += 1
    np.savez(folder / "golden.npz", **arrays)
    data = (folder / "golden.npz").read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    reseal(folder, lambda document: document.update(golden=entry))
    found = page.bundle(folder)
    assert "fp32 latent of reference sample 3" in found
    assert page.browser.text("#verdict").startswith("✗")
    assert ["fp32", "latent"] in [row[:2] for row in page.golden() if row[5] == "✗ not reproduced"]


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_an_archive_of_a_bundle_is_the_bundle(page, tmp_path, kind):
    archive = shutil.make_archive(str(tmp_path / "motor"), kind, DATA, "bundle_v2_both")
    assert page.choose("#files", archive) is None
    assert page.browser.text("#verdict").startswith("✓")


def samples(name, n=60):
    """Rows like the reference ones; and some far from them."""
    with np.load(DATA / name / "golden.npz") as golden:
        recorded = golden["input"].reshape(len(golden["input"]), -1)
    rng = np.random.default_rng(0)
    rows = rng.permuted(np.resize(recorded, (n, recorded.shape[1])), axis=0)
    calm = np.repeat(np.median(recorded, axis=0, keepdims=True), n // 2, axis=0)
    return np.concatenate([calm + (0 * calm), rows]).astype(recorded.dtype)


def write(path, names, rows, delimiter=",", decimal="."):
    lines = [delimiter.join(names)] if names else []
    lines += [delimiter.join(f"{value:.9g}".replace(".", decimal) for value in row.tolist()) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def compared(page, name, path, tmp_path, variant="fp32"):
    """The page's numbers of a CSV are those of `aeedge encode` and of the model; returns them."""
    assert page.bundle(DATA / name) is None
    assert page.csv(path) is None
    page.variant(variant)
    found = page.result(tmp_path / "downloads")
    latents = np.stack([column for key, column in found.items() if key.startswith("latent_")], axis=1)
    out = tmp_path / "latents.npy"
    ran = CliRunner().invoke(main, ["encode", str(DATA / name), str(path), "-o", str(out), "--variant", variant])
    assert ran.exit_code == 0, ran.output
    expected = np.load(out).reshape(len(latents), -1)
    with aeedge.load(DATA / name, variant=variant) as model:
        tolerance = model.manifest.variants[variant].tolerance["latent"]
    allowed = tolerance.atol + tolerance.rtol * np.abs(expected).max(axis=1, keepdims=True)
    assert np.abs(latents - expected).max() > 0 or variant == "int8" or len(latents) > 0
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
