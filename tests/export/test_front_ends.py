"""Front ends: equal to scipy and librosa, trained, saved, exported and explained as the device has them."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch
from click.testing import CliRunner

import aeedge
from aeedge.bundle.manifest import SignalSpec
from aeedge.bundle.onnx_proto import inspect
from aeedge.cli.group import AeedgeGroup
from aeedge.errors import InputError
from aeedge_export import Autoencoder, export_bundle
from aeedge_export.networks.front_ends import features, from_document, front_end, hann, mel_filters
from aeedge_export.reporting.page import render

LIBROSA = np.load(Path(__file__).parent.parent / "data" / "librosa_mel.npz")  # see make_librosa_mel.py
RATE = 2000.0
TONES = (53.0, 100.0, 170.0, 250.0, 333.0)
WINDOW = 300  # more than one product, and no power of two


def machine(count, channels=2, seed=0, dtype="float32", window=WINDOW):
    """Windows (count, window, channels) at 2 kHz: a rotation with harmonics, and noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(window) / RATE
    speed = 50 * (1 + 0.02 * rng.normal(size=(count, 1)))
    phase = rng.uniform(0, 2 * np.pi, (count, 1))
    tones = sum(np.sin(2 * np.pi * k * speed * time + k * phase) / k for k in (1, 2, 3))
    x = np.stack([(i + 1) * tones + 0.2 * rng.normal(size=tones.shape) + i for i in range(channels)], axis=2)
    return x.astype(np.float32) if dtype == "float32" else np.rint(500 * x).astype(dtype)


def spec(channels=2, window=WINDOW, rate=RATE, **more):
    return SignalSpec(channels=("x", "y", "z")[:channels], window=window, hop=window, rate=rate, **more)


def small(kind, **params):
    return Autoencoder(**{"front_end": kind, "latent": 4, "hidden": (16,), "epochs": 4, "random_state": 0, **params})


# --- what they compute


@pytest.mark.parametrize("window", [8, 9, 64, 255, 256, 257, 258, 300, 343, 1000, 1024, 4096])
def test_the_spectrum_is_that_of_scipy(window):
    x = np.random.default_rng(window).normal(2, 1, (3, window, 2)).astype(np.float32)
    made = front_end("spectrum", window, ("x", "y"), RATE)
    found = features(made, x).reshape(3, 2, -1)
    frequency, _, expected = scipy.signal.spectrogram(
        x.astype(float), RATE, "hann", window, 0, detrend="constant", scaling="spectrum", mode="magnitude", axis=1
    )
    expected = expected[:, 1:, :, 0].swapaxes(1, 2)
    assert np.abs(found[..., 1:] - expected).max() < 1e-5 * expected.max()
    assert np.allclose(found[..., 0], x.mean(axis=1), atol=1e-5)
    assert len(made.names) == found[0].size
    assert made.names[0] == "x mean"
    assert float(made.names[1].split()[1].split("-")[0]) <= frequency[1]


@pytest.mark.parametrize("window", [64, 255, 300, 512, 1000])
@pytest.mark.parametrize("band", [[0.0, RATE / 2], [300.0, 700.0]])
def test_the_envelope_is_that_of_scipys_hilbert(window, band):
    x = np.random.default_rng(window).normal(3, 1, (4, window, 2)).astype(np.float32)
    made = front_end("envelope", window, ("x", "y"), RATE, {"band": band, "most": 400.0})
    lines = np.fft.rfft(x - x.mean(axis=1, keepdims=True, dtype=float), axis=1)
    frequency = np.fft.rfftfreq(window, 1 / RATE)
    lines[:, (frequency < band[0]) | (frequency > band[1])] = 0
    expected = np.abs(scipy.signal.hilbert(np.fft.irfft(lines, window, axis=1), axis=1)).swapaxes(1, 2)
    with torch.inference_mode():
        found = made.envelope(torch.from_numpy(x).swapaxes(1, 2)).numpy()
    assert np.abs(found - expected).max() < 1e-5 * expected.max()
    shown = features(made, x).reshape(4, 2, -1)
    mean = expected.mean(axis=2, keepdims=True)
    spectrum = np.abs(np.fft.rfft((expected - mean) * hann(window), axis=2)) / hann(window).sum()
    assert np.abs(shown[..., 1:] - spectrum[..., 1 : shown.shape[2]]).max() < 1e-5 * expected.max()
    assert np.allclose(shown[..., 0], mean[..., 0], rtol=1e-5)
    assert frequency[shown.shape[2] - 1] <= 400 < frequency[min(shown.shape[2], len(frequency) - 1)] + RATE / window


@pytest.mark.parametrize(
    ("name", "rate", "options"),
    [
        ("ad01", 16000.0, {}),
        ("narrow", 8000.0, {"n_fft": 512, "hop": 200, "mels": 40, "low": 50, "high": 3500}),
    ],
)
def test_log_mels_are_those_of_librosa(name, rate, options):
    made = front_end("log_mel", 3072, ("sound",), rate, options)
    found = features(made, LIBROSA["x"][np.newaxis, :, np.newaxis]).reshape(-1, made.options["mels"]).T
    expected = LIBROSA[name]
    assert found.shape == expected.shape
    assert np.abs(10 ** (found.astype(float) / 10) / expected - 1).max() < 1e-4
    assert np.abs(found - LIBROSA[f"{name}_db"]).max() < 1e-3
    filters = mel_filters(rate, made.options["n_fft"], made.options["mels"], made.options["low"], made.options["high"])
    assert np.abs(filters - LIBROSA[f"{name}_filters"]).max() < 1e-7


def test_the_defaults_of_log_mels_are_those_of_ad01():
    made = front_end("log_mel", 1024 + 4 * 512, ("sound",), 16000.0)
    assert made.options == {"n_fft": 1024, "hop": 512, "mels": 128, "low": 0.0, "high": 8000.0}
    assert len(made.names) == 640
    assert len(set(made.names)) == 128
    assert made.names[17] == made.names[17 + 128] == "sound mel 17 (421 Hz)"
    assert front_end("log_mel", 4096, ("sound",), 48000.0).options["n_fft"] == 4096
    assert front_end("log_mel", 512, ("sound",), 8000.0).options["n_fft"] == 512


def test_decibels_end_80_below_the_loudest():
    made = front_end("spectrum", 128, ("x",), RATE, {"log": True})
    time = np.arange(128) / 128
    x = (np.sin(2 * np.pi * 10 * time)[:, np.newaxis] * np.array([[1.0, 1e6]])).T[..., np.newaxis]
    found = features(made, x.astype(np.float32))[:, 1:]
    assert found.max(axis=1) == pytest.approx([20 * np.log10(0.5), 120 + 20 * np.log10(0.5)], abs=0.01)
    assert found.max(axis=1) - found.min(axis=1) == pytest.approx([80, 80], abs=0.01)
    assert np.isfinite(features(made, np.zeros((1, 128, 1), np.float32))).all()


def test_integers_are_taken_as_they_are():
    x = machine(5, dtype="int16")
    for kind, options in (("spectrum", {}), ("envelope", {}), ("log_mel", {"n_fft": 128})):
        made = front_end(kind, WINDOW, ("x", "y"), RATE, options)
        assert np.array_equal(features(made, x), features(made, x.astype(np.float32)))


@pytest.mark.parametrize("kind", ["spectrum", "envelope", "log_mel"])
def test_a_windows_features_do_not_depend_on_the_others(kind):
    x = machine(70)
    made = front_end(kind, WINDOW, ("x", "y"), RATE, {"n_fft": 128} if kind == "log_mel" else {})
    whole = features(made, x)
    assert np.array_equal(np.concatenate([features(made, x[i : i + 1]) for i in range(70)]), whole)
    assert np.array_equal(features(from_document(json.loads(json.dumps(made.document()))), x), whole)


# --- from windows to a bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Makes (estimator, its windows, path of its bundle) of a kind of front end."""

    @cache
    def make(kind):
        options = {"n_fft": 128, "mels": 10} if kind == "log_mel" else None
        windows = machine(600, dtype="int16" if kind == "envelope" else "float32")
        ae = small(kind, front_end_options=options).fit_rows(windows, signal=spec())
        path = tmp_path_factory.mktemp("bundle") / "m.aeedge"
        ae.export(path)
        return ae, windows, path

    return make


@pytest.fixture(params=["spectrum", "log_mel", "envelope"])
def trained(request, made):
    return made(request.param)


@pytest.fixture
def spectrum(made):
    return made("spectrum")


def test_the_device_says_what_the_estimator_says(trained):
    ae, windows, path = trained
    with aeedge.load(path, check="golden") as model:
        assert model.input.dtype == windows.dtype.name
        assert model.input.signal._replace(reference={}) == spec()
        found = model.manifest.front_end
        assert (found.kind, found.names) == (ae.front_end, ae.run_.front_end.names)
        assert json.loads(json.dumps(dict(found.options))) == json.loads(json.dumps(ae.run_.front_end.options))
        limit, scale = model.manifest.variants["fp32"].tolerance, model.manifest.score.scale
        error = (model.features(windows) - ae.run_.extract(windows)) / scale
        assert np.abs(error).max() <= limit["features"].atol + 1e-4 * np.abs(ae.run_.extract(windows) / scale).max()
        assert np.allclose(model.encode(windows), ae.transform(windows), atol=1e-3)
        assert np.allclose(model.score(windows), -ae.score_samples(windows), rtol=1e-3)
        assert model.threshold == pytest.approx(ae.threshold_, rel=1e-3)
        assert model.reconstruct(windows).shape == ae.inverse_transform(ae.transform(windows)).shape
        with pytest.raises(aeedge.IncompatibleBundleError, match="cannot denoise"):
            model.denoise(windows)


def test_a_bundle_without_scorer_scores_the_same(spectrum, tmp_path):
    ae, windows, _ = spectrum
    made = ae.export(tmp_path / "m.aeedge", with_scorer=False, score_kind="robust")
    with aeedge.load(tmp_path / "m.aeedge", check="golden") as model:
        ae = Autoencoder.load(_saved(ae, tmp_path)).set_params(score_kind="robust")
        ae.calibrate()
        assert made.variants["fp32"].scorer is None
        assert np.allclose(model.score(windows), -ae.score_samples(windows), rtol=1e-3)
        assert np.allclose(np.square(model.residual(windows)).mean(axis=1), model.score(windows), rtol=1e-3)


def _saved(ae, folder):
    ae.save(folder / "run")
    return folder / "run"


def test_a_run_is_loaded_and_trained_further(trained, tmp_path):
    ae, windows, _ = trained
    again = Autoencoder.load(_saved(ae, tmp_path))
    assert again.front_end == ae.front_end
    assert again.run_.sample.shape[1:] == windows.shape[1:]
    assert np.array_equal(again.transform(windows), ae.transform(windows))
    again.resume(windows, epochs=5)
    assert again.n_iter_ == 5
    again.calibrate(machine(200, seed=4, dtype=windows.dtype.name))
    assert again.threshold_ != ae.threshold_


def test_the_report_shows_features(trained):
    ae, windows, _ = trained
    found = ae.evaluate(windows)
    assert found["baseline"][0]["error"] < 5
    assert found["detection"]["worst"][0]["causes"][0]["name"] in ae.run_.front_end.names
    page = render(ae.run_)
    assert f"feature of {ae.front_end}" in page
    assert "data:image/png" not in page


def test_the_fault_and_its_channel_are_found(trained):
    _, windows, path = trained
    faulty = machine(50, seed=7).astype(np.float64)
    time = np.arange(WINDOW) / RATE
    faulty[:, :, 1] += (1 + np.sin(2 * np.pi * 70 * time)) * np.sin(2 * np.pi * 600 * time)  # modulated, high
    faulty = faulty.astype(np.float32) if windows.dtype == np.float32 else np.rint(500 * faulty).astype(np.int16)
    with aeedge.load(path) as model:
        assert model.detect(faulty).mean() > 0.95
        assert all(causes[0].name.startswith("y ") for causes in model.explain(faulty))


def test_operators_are_plain_and_the_graphs_share_the_features(trained):
    _, _, path = trained
    operators = {node["op_type"] for node in inspect((path / "features.onnx").read_bytes()).graph["node"]}
    assert not operators & {"STFT", "DFT", "HannWindow", "MelWeightMatrix", "Loop", "If", "Scan"}
    manifest = aeedge.load(path).manifest
    assert manifest.front_end.file.bytes < manifest.variants["fp32"].encoder.bytes
    assert manifest.opset == 17


def test_two_exports_are_the_same_bytes(spectrum, tmp_path):
    ae, _, path = spectrum
    ae.export(tmp_path / path.name)
    for file in path.iterdir():
        assert file.read_bytes() == (tmp_path / path.name / file.name).read_bytes()


def test_tones_without_noise_are_exported(tmp_path):
    """All else in their spectra is rounding, which differs from machine to machine: 80 dB below counts as silence."""
    time, rng = np.arange(WINDOW) / RATE, np.random.default_rng(0)
    tones = (rng.uniform(0, 1, (200, 1)) * np.sin(2 * np.pi * f * time + rng.uniform(0, 6, (200, 1))) for f in TONES)
    windows = sum(tones)[..., np.newaxis].astype(np.float32)
    for kind, options in (("log_mel", {"n_fft": 128, "mels": 10}), ("spectrum", {"log": True}), ("spectrum", {})):
        ae = small(kind, front_end_options=options, epochs=2).fit_rows(windows, signal=spec(1))
        ae.export(tmp_path / f"{kind}{len(options)}.aeedge")


def test_int8_is_left_out_with_the_reason(spectrum, tmp_path):
    ae, windows, _ = spectrum
    with pytest.warns(UserWarning, match="no int8 variant: a front end computes in float32"):
        manifest = ae.export(tmp_path / "m.aeedge", variants=("int8", "fp32"), calibration=windows)
    assert (list(manifest.variants), manifest.default_variant) == (["fp32"], "fp32")


def test_modules_of_ones_own_are_exported_with_a_front_end(tmp_path):
    windows = machine(100)
    made = front_end("spectrum", WINDOW, ("x", "y"), RATE)
    down, up = torch.nn.Linear(len(made.names), 3), torch.nn.Linear(3, len(made.names))
    export_bundle(encoder=down, decoder=up, path=tmp_path / "m.aeedge", example=windows, front_end=made)
    export_bundle(encoder=down, path=tmp_path / "e.aeedge", example=windows, front_end=made)
    with aeedge.load(tmp_path / "e.aeedge", check="golden") as model:
        assert set(model.methods) == {"encode", "features"}
    with pytest.raises(InputError, match=r"example: expected windows of shape \('n', 300, 2\)"):
        export_bundle(encoder=down, decoder=up, path=tmp_path / "o.aeedge", example=windows[:, :9], front_end=made)


def test_partial_fit_takes_windows():
    windows = machine(64)
    ae = small("spectrum").partial_fit(windows).partial_fit(windows)
    assert ae.transform(windows).shape == (64, 4)
    assert ae.run_.front_end.names[1] == "channel 0 bin 1"


# --- what does not fit


@pytest.mark.parametrize(
    ("params", "windows", "signal", "message"),
    [
        (
            {"front_end": "cepstrum"},
            machine(20),
            spec(),
            "front_end: expected none, spectrum, log_mel, envelope, got 'ce",
        ),
        ({"front_end": None}, machine(20), spec(), "front_end: expected none, spectrum"),
        ({"front_end": "log_mel"}, machine(20), spec(rate=16000.0), "needs windows of 1024 samples or more.*3072"),
        ({"front_end": "log_mel"}, machine(20), spec(rate=None), "'log_mel' needs the rate"),
        ({"front_end": "envelope"}, machine(20), spec(rate=None), "'envelope' needs the rate"),
        ({"front_end": "envelope"}, machine(20), None, "'envelope' needs the rate"),
        (
            {},
            machine(20)[:, 0],
            None,
            r"front_end: 'spectrum' takes windows of a recording, .*got rows of shape \(2,\)",
        ),
        ({}, np.zeros((20, 8, 8), np.uint8), None, "got bytes, as of images"),
        ({}, np.zeros((20, 3, 8, 8), np.float32), None, r"got rows of shape \(3, 8, 8\)"),
        ({}, machine(20).swapaxes(1, 2), None, "channels last"),
        ({}, machine(20, window=4), spec(window=4), "takes windows of 8 samples or more, got 4"),
        ({"family": "conv1d"}, machine(20), spec(), "family 'conv1d' does not take"),
        ({}, machine(20, 3), spec(1, calendar=("day",)), "calendar channels"),
        ({"front_end_options": {"logs": True}}, machine(20), spec(), "expected log for 'spectrum', got 'logs'"),
        ({"front_end_options": {"log": 1}}, machine(20), spec(), "expected log as True or False, got 1"),
        (
            {"front_end": "envelope", "front_end_options": {"band": [500, 2000]}},
            machine(20),
            spec(),
            r"expected band as two frequencies in Hz, from 0 to 1000.*got \[500, 2000\]",
        ),
        (
            {"front_end": "envelope", "front_end_options": {"band": [500, 503]}},
            machine(20),
            spec(),
            "tell 6.67 Hz apart",
        ),
        (
            {"front_end": "log_mel", "front_end_options": {"n_fft": 64, "mels": 128}},
            machine(20),
            spec(),
            "128 mels are too narrow",
        ),
        ({}, np.zeros((3, 2 * 1031, 1), np.float32), None, "large prime factors; cut windows of 2048"),
        ({"front_end": "none", "front_end_options": {"log": True}}, machine(20), spec(), "None without a front end"),
    ],
)
def test_what_does_not_fit_is_one_sentence(params, windows, signal, message):
    windows = windows + np.arange(len(windows)).astype(windows.dtype).reshape(-1, *[1] * (windows.ndim - 1))
    with pytest.raises(InputError, match=message) as caught:
        Autoencoder(**{"front_end": "spectrum", "epochs": 1, **params}).fit_rows(windows, signal=signal)
    assert "\n" not in str(caught.value)


def test_the_command_names_its_option(tmp_path):
    np.save(tmp_path / "t.npy", np.random.default_rng(0).normal(size=(50, 4)))
    done = CliRunner().invoke(
        AeedgeGroup.build(), ["train", str(tmp_path / "t.npy"), "-o", str(tmp_path / "run"), "--front-end", "spectrum"]
    )
    assert done.exit_code != 0
    assert "--front-end: 'spectrum' takes windows of a recording" in done.output
    done = CliRunner().invoke(
        AeedgeGroup.build(),
        ["train", str(tmp_path / "t.npy"), "-o", str(tmp_path / "run"), "--front-end-option", "band=a,b"],
    )
    assert "expected NAME=VALUE, such as band=2000,5000" in done.output
