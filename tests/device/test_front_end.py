"""Bundles with a front end: raw windows in, scores and causes of their features out."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import reference
from helpers.tampering import reseal

import aeedge
from aeedge.bundle.reader import Bundle
from aeedge.cli.group import AeedgeGroup
from aeedge.detection.explain import FeatureExplainer
from aeedge.recalibration import recalibrate
from aeedge.verification import deviation

NAME = "bundle_v3_spectrum"
DATA = Path(__file__).parent.parent / "data"
RATE = 1000.0


@pytest.fixture(scope="module")
def model():
    with aeedge.load(DATA / NAME, threads=2) as opened:
        yield opened


def windows(count, seed=5):
    """As the bundle's machine makes them."""
    rng = np.random.default_rng(seed)
    time, phase = np.arange(320) / RATE, rng.uniform(0, 2 * np.pi, (count, 1))
    speed = 40 * (1 + 0.02 * rng.normal(size=(count, 1)))
    tones = [
        np.sin(2 * np.pi * k * speed * time + k * phase) * rng.uniform(0.5, 1.5, (count, 1)) / k for k in (1, 2, 3)
    ]
    noise = rng.normal(size=(2, count, 320)) * 0.2
    return np.stack([sum(tones) + noise[0], 3 + 0.1 * tones[0] + 0.1 * noise[1]], axis=2).astype(np.float32)


def spectrum(x):
    """What the front end should make of windows, by numpy in float64."""
    x = x.astype(np.float64).swapaxes(1, 2)
    mean = x.mean(axis=2, keepdims=True)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(x.shape[2]) / x.shape[2])
    found = np.concatenate([mean, np.abs(np.fft.rfft((x - mean) * hann, axis=2))[..., 1:] / hann.sum()], axis=2)
    return found.reshape(len(x), -1)


def tone(hertz, size, channel):
    """A fault: a tone in one channel, (320, 2)."""
    fault = np.zeros((320, 2), np.float32)
    fault[:, channel] = size * np.sin(2 * np.pi * hertz * np.arange(320) / RATE)
    return fault


def test_the_bundle_is_right_here(model):
    found = {one.what: one for one in model.self_check()}
    assert set(found) == {"features", "latent", "reconstruction", "score"}
    assert model.manifest.front_end.kind == "spectrum"
    assert model.nonfinite_check == "inputs"


def test_features_are_those_of_an_fft(model):
    x = windows(40)
    expected = spectrum(x)
    assert np.abs(model.features(x) - expected).max() < 1e-5 * np.abs(expected).max()
    assert model.features(x[0]).shape == (322,)
    names = model.manifest.front_end.names
    line = int(np.argmax(model.features(x + tone(250, 100, 1))[0]))
    low, high = map(float, re.fullmatch(r"y ([\d.]+)-([\d.]+) Hz", names[line]).groups())
    assert low < 250 < high
    assert (names[0], names[161]) == ("x mean", "y mean")


def test_residual_and_score_are_those_of_features(model):
    x, scale = windows(20), model.manifest.score.scale
    back = model.decode(model.encode(x))
    assert np.array_equal(model.reconstruct(x), back)
    assert np.allclose(model.residual(x), (model.features(x) - back) / scale, atol=1e-4)
    assert back.shape == (20, 322)
    faulty = x + tone(310, 1.0, 0)
    assert not model.detect(x).all()
    assert model.detect(faulty).all()
    assert (model.p_value(faulty) < 0.01).all()


@pytest.mark.parametrize("what", ["encode", "residual", "score", "features"])
@pytest.mark.parametrize("n", [1, 3, 300])
def test_any_number_of_windows_and_bound_arrays_get_the_same(model, what, n):
    x = windows(n)
    whole, name = getattr(model, what)(x), {"encode": "latent", "residual": "reconstruction"}.get(what, what)
    one_by_one = np.concatenate([getattr(model, what)(x[i : i + 1]) for i in range(n)])
    slot = model.bind(n)
    slot.input[:] = x
    limit = model.manifest.variants["fp32"].tolerance[name]
    for got in (one_by_one, getattr(slot, what)(), getattr(model, what)(x, out=np.empty_like(whole))):
        if what == "residual":
            assert np.abs(got - whole).max() <= limit.atol + limit.rtol * np.abs(whole).max()
        else:
            assert deviation(name, x, got, whole, limit, model.manifest.score).ok


@pytest.mark.parametrize("what", ["encode", "residual", "score", "features"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [1, 5, 400])
def test_a_value_that_is_not_finite_is_found_anywhere(model, what, value, count):
    for place in ((0, 0), (160, 1), (319, 1)):
        x = windows(count)
        x[count // 2][place] = value
        with pytest.raises(aeedge.InputError, match=rf"row {count // 2}"):
            getattr(model, what)(x)
        found = getattr(model, what)(x, invalid="propagate").reshape(count, -1)
        assert np.isnan(found[count // 2]).all()
        assert np.isfinite(np.delete(found, count // 2, axis=0)).all()


def test_causes_are_bands_of_the_channel_with_the_fault(model):
    for hertz, channel in ((111, "y"), (310, "x"), (444, "y")):
        causes = model.explain(windows(30) + tone(hertz, 1.0, "xy".index(channel)))
        for first, *_ in causes:
            low, high = map(float, re.fullmatch(rf"{channel} ([\d.]+)-([\d.]+) Hz", first.name).groups())
            assert low - 5 < hertz < high + 5
            assert first.share > 0.2
            assert first.actual > first.expected
    offset = windows(1) + np.array([0, 5], np.float32)
    assert model.explain(offset)[0][0].name == "y mean"
    assert model.explain(offset[0], 1)[0].residual == pytest.approx(model.residual(offset)[0, 161], rel=1e-3)


def test_shares_add_up_and_are_ordered(model):
    for causes in model.explain(windows(5), 322):
        shares = [cause.share for cause in causes]
        assert sum(shares) == pytest.approx(1)
        assert shares == sorted(shares, reverse=True)
        assert len({cause.name for cause in causes}) == 322


def test_features_of_one_name_are_one_cause():
    features = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)

    def given(rows, invalid):
        return features

    def zeros(rows, invalid):
        return np.zeros_like(features)

    spec = aeedge.bundle.manifest.InputSpec((2, 1), "float32")
    explain = FeatureExplainer(spec, ("a", "b", "a", "b"), np.float32(1), np.zeros((2, 1)), given, zeros)
    (causes,) = explain(np.zeros((1, 2, 1), np.float32), 5, "raise")
    assert [(cause.name, cause.index) for cause in causes] == [("b", (3,)), ("a", (2,))]
    assert [cause.share for cause in causes] == pytest.approx([20 / 30, 10 / 30])


def test_causes_of_a_window_that_is_not_finite_are_its_channels(model):
    x = windows(3)
    x[1, 7, 1] = np.nan
    before, broken, after = model.explain(x, invalid="propagate")
    assert [(cause.name, cause.index, cause.share) for cause in broken] == [("y", (7, 1), 1.0)]
    assert len(before) == len(after) == 3
    with pytest.raises(aeedge.InputError, match="row 1"):
        model.explain(x)


def test_what_a_front_end_rules_out_says_what_to_do(model, bundle):
    with pytest.raises(aeedge.IncompatibleBundleError, match=r"cannot denoise, .*features \(spectrum\).*residual"):
        model.denoise(windows(1))
    with aeedge.load(bundle) as other, pytest.raises(aeedge.IncompatibleBundleError, match="no front end"):
        other.features(np.zeros((1, 12)))


def test_a_damaged_or_missing_features_graph_is_refused(tmp_path):
    place = Path(shutil.copytree(DATA / NAME, tmp_path / "m.aeedge"))
    (place / "features.onnx").write_bytes((place / "features.onnx").read_bytes()[::-1])
    with aeedge.load(place) as opened:
        opened.score(windows(2))  # which needs it not
        with pytest.raises(aeedge.CorruptBundleError, match=r"features\.onnx.*changed"):
            opened.features(windows(2))
    (place / "features.onnx").write_bytes(b"short")
    with pytest.raises(aeedge.CorruptBundleError, match=r"features\.onnx: truncated"):
        aeedge.load(place)
    (place / "features.onnx").unlink()
    with pytest.raises(aeedge.CorruptBundleError, match=r"features\.onnx.*missing"):
        aeedge.load(place)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["front_end"].__setitem__("names", ["x"]), r"322 features.*\$\.front_end\.names"),
        (lambda d: d["front_end"].__setitem__("shape", [0]), r"\$\.front_end\.shape"),
        (lambda d: d["front_end"].pop("features"), r"\$\.front_end\.features"),
        (lambda d: d["front_end"].__setitem__("kind", 3), r"\$\.front_end\.kind"),
        (lambda d: d["variants"]["fp32"]["tolerance"].pop("features"), r"tolerance\.features"),
        (lambda d: d["score"].__setitem__("scale", [1.0, 2.0]), r"322.*\$\.score\.scale"),
        (lambda d: d.__setitem__("front_end", []), r"\$\.front_end"),
    ],
)
def test_a_manifest_whose_front_end_is_none_names_the_key(tmp_path, change, message):
    place = Path(shutil.copytree(DATA / NAME, tmp_path / "m.aeedge"))
    reseal(place, change)
    with pytest.raises(aeedge.CorruptBundleError, match=message):
        aeedge.load(place)


def test_the_manifest_is_written_as_it_was_read():
    manifest = Bundle(DATA / NAME).manifest
    text = (DATA / NAME / "manifest.json").read_text(encoding="utf-8")
    assert manifest.dumps() == text
    assert '"format_version": 3' in text
    assert '"format_version": 3' not in manifest._replace(front_end=None).dumps()


@pytest.mark.parametrize("keep_score", [False, True])
def test_it_is_recalibrated(tmp_path, model, keep_score):
    other = windows(600, seed=8) + tone(200, 0.5, 0)
    made = recalibrate(DATA / NAME, other, tmp_path / "new.aeedge", keep_score=keep_score).manifest
    with aeedge.load(tmp_path / "new.aeedge", check="golden") as new:
        assert new.detect(other).mean() < 0.05
        assert model.detect(other).mean() > 0.5
        assert np.array_equal(new.features(other[:5]), model.features(other[:5]))
        assert np.array_equal(new.manifest.score.scale, model.manifest.score.scale) == keep_score
    assert made.front_end._replace(file=None) == model.manifest.front_end._replace(file=None)


def test_commands(tmp_path, model):
    np.save(tmp_path / "w.npy", windows(10) + tone(310, 1.0, 0))

    def run(*words):
        return CliRunner().invoke(AeedgeGroup.build(), [str(word) for word in words])

    place, given = DATA / NAME, tmp_path / "w.npy"
    assert "spectrum, 322 features (x mean …" in run("info", place).output
    checked = run("verify", place)
    assert checked.exit_code == 0, checked.output
    assert "features.onnx" in checked.output
    scored = run("score", place, given, "-o", tmp_path / "s.csv")
    assert scored.exit_code == 0, scored.output
    assert "x 308-311 Hz" in (tmp_path / "s.csv").read_text().splitlines()[1]
    refused = run("denoise", place, given, "-o", tmp_path / "d.npy")
    assert refused.exit_code != 0
    assert "cannot denoise" in refused.output
    assert not (tmp_path / "d.npy").exists()
    assert run("encode", place, given, "-o", tmp_path / "z.npy").exit_code == 0
    assert run("decode", place, tmp_path / "z.npy", "-o", tmp_path / "f.csv").exit_code == 0
    assert (tmp_path / "f.csv").read_text().startswith("x mean,x ")


def test_a_stream_scores_raw_samples(model):
    samples = windows(5).reshape(-1, 2)
    stream = aeedge.Stream(model, hop=320)
    scores = [event.score for start in range(0, len(samples), 77) for event in stream.push(samples[start : start + 77])]
    assert np.allclose(scores, model.score(windows(5)), rtol=1e-3)


def test_pool_and_threads_get_the_same(four_cpus):
    x = windows(3000)
    with aeedge.load(DATA / NAME, threads=1) as one, aeedge.load(DATA / NAME, threads=4) as four:
        assert reference.same(one, "encode", four.encode(x), one.encode(x))
        assert np.allclose(one.residual(x), four.residual(x), atol=1e-3)
