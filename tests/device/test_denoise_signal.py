"""A signal denoised in windows that fade into each other: no seams, every sample covered, whatever the blocks."""

import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers.signals import machine, signal_bundle

import aeedge
from aeedge import InputError, denoise_signal, window
from aeedge.bundle.manifest import SignalSpec
from aeedge.errors import IncompatibleBundleError
from aeedge.signals import crossfade
from aeedge.signals.crossfade import Crossfade

DATA = Path(__file__).parent.parent / "data"
DAY = SignalSpec(("x",), window=24, hop=6, rate=1 / 300, calendar=("day", "week"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def model(folder):
    with aeedge.load(signal_bundle(folder / "machine"), threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def smooth(folder):
    """A model whose own reconstructions are smooth, so that nothing but borders of windows is rough."""
    with aeedge.load(signal_bundle(folder / "smooth", machine(8000, noise=0.002), latents=4), threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def identity(folder):
    with aeedge.load(signal_bundle(folder / "identity", identity=True), threads=1) as model:
        yield model


@pytest.mark.parametrize("count", [32, 33, 39, 40, 41, 63, 64, 1000, 1001, 20_007])
@pytest.mark.parametrize("hop", [None, 1, 5, 16])
def test_a_model_that_changes_nothing_gives_the_recording_back_from_edge_to_edge(identity, count, hop):
    samples = 100 + 50 * machine(count, seed=1)
    found = denoise_signal(identity, samples, hop)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, samples, rtol=1e-5)


@pytest.mark.parametrize("hop", [1, 8, 16])
def test_each_sample_is_the_weighted_mean_of_all_windows_that_cover_it(model, hop):
    samples, length = machine(205, seed=2), model.manifest.input.signal.window
    weights = np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 2
    starts = [*range(0, 205 - length + 1, hop)]
    starts += [205 - length] if starts[-1] < 205 - length else []
    total, weight = np.zeros_like(samples, np.float64), np.zeros((205, 1))
    for start in starts:
        total[start : start + length] += weights[:, None] * model.denoise(samples[start : start + length])
        weight[start : start + length] += weights[:, None]
    np.testing.assert_allclose(denoise_signal(model, samples, hop), total / weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hop", [None, 4, 16])
def test_there_are_no_seams(smooth, hop):
    """Second differences where windows begin and end are those of all other samples; of windows put end to end not."""
    samples = machine(32 * 400, noise=0.5, seed=3)

    def ratio(signal, step):
        """Of second differences across the borders of windows to all others, on average and at most."""
        bends = np.abs(np.diff(signal, 2, axis=0)).mean(axis=1)[: len(signal) // step * step - step]
        across = np.isin(np.arange(len(bends)) % step, [step - 2, step - 1])
        return bends[across].mean() / bends[~across].mean(), bends[across].max() / bends[~across].max()

    assert min(ratio(smooth.denoise(window(samples, 32, 32)).reshape(-1, 2), 32)) > 2
    assert max(ratio(denoise_signal(smooth, samples, hop), hop or 8)) < 1.1


def test_noise_becomes_less(smooth):
    truth = machine(8000, noise=0.0, seed=4)
    noisy = truth + np.random.default_rng(4).normal(0, 0.3, truth.shape).astype(np.float32)

    def error(signal):
        return float(np.square(signal - truth).mean())

    windows = smooth.denoise(window(noisy, 32, 32)).reshape(-1, 2)
    assert error(denoise_signal(smooth, noisy)) < 0.85 * error(windows) < 0.1 * error(noisy)


@pytest.mark.parametrize("most", [1, 3, 50])
def test_blocks_make_no_difference(model, monkeypatch, most):
    samples = machine(3001, seed=5)
    expected = denoise_signal(model, samples)
    monkeypatch.setattr(crossfade, "_MOST_WINDOWS", most)
    np.testing.assert_allclose(denoise_signal(model, samples), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hop", [None, 1, 7])
def test_parts_of_any_size_make_none_to_the_bit(model, hop, monkeypatch):
    monkeypatch.setattr(crossfade, "_MOST_WINDOWS", 20)
    samples, rng = machine(2003, seed=6), np.random.default_rng(6)
    expected = denoise_signal(model, samples, hop)
    for most in (1, 10, 100, 3000):
        edges = [0]
        while edges[-1] < len(samples):
            edges.append(min(len(samples), edges[-1] + int(rng.integers(0, most + 1))))
        parts = [samples[a:b] for a, b in pairwise(edges)]
        np.testing.assert_array_equal(np.concatenate(list(Crossfade(model, hop)(parts))), expected)


def test_windows_do_not_cross_gaps_in_time(model):
    samples, time = machine(500, seed=7), np.arange(500) / 100
    time[200:] += 3.0
    found = denoise_signal(model, samples, time=time)
    np.testing.assert_array_equal(found[:200], denoise_signal(model, samples[:200]))
    np.testing.assert_array_equal(found[200:], denoise_signal(model, samples[200:]))
    assert not np.allclose(found, denoise_signal(model, samples), atol=1e-4)
    time[220:] += 3.0
    with pytest.raises(InputError, match="32 samples or more without a gap, as a window has, got 20"):
        denoise_signal(model, samples, time=time)


def test_models_that_take_the_time_of_day_give_the_measured_channels(folder):
    """Seasons are made from times; they are no part of the result."""
    time = 1.6e9 + 300.0 * np.arange(6000)
    season = np.sin(2 * np.pi * time / 86400)
    samples = (season + 0.1 * np.random.default_rng(8).normal(size=6000)).astype(np.float32)[:, None]
    phases = 2 * np.pi * np.stack([time % 86400 / 86400, (time - 4 * 86400) % 604800 / 604800])
    calendar = np.stack([np.sin(phases[0]), np.cos(phases[0]), np.sin(phases[1]), np.cos(phases[1])], 1)
    path = signal_bundle(folder / "day", np.concatenate([samples, calendar.astype(np.float32)], 1), DAY, latents=4)
    with aeedge.load(path) as model:
        found = denoise_signal(model, samples, time=time)
        assert found.shape == samples.shape
        assert np.square(found[:, 0] - season).mean() < 0.5 * np.square(samples[:, 0] - season).mean()
        np.testing.assert_array_equal(denoise_signal(model, samples[:, 0], time=time[0]), found)
        with pytest.raises(InputError, match="time of day or week"):
            denoise_signal(model, samples)


def test_integers_stay_in_raw_units(folder):
    samples = (1000 * machine(4000, seed=9)).astype(np.int16)
    path = signal_bundle(folder / "int16", samples, dtype="int16", identity=True)
    with aeedge.load(path) as model:
        np.testing.assert_allclose(denoise_signal(model, samples), samples, atol=0.1)
        np.testing.assert_allclose(denoise_signal(model, samples.astype(float)), samples, atol=0.1)
        with pytest.raises(InputError, match="whole numbers"):
            denoise_signal(model, samples + 0.5)


def test_what_is_no_recording_of_the_model_is_refused(model):
    samples = machine(100)
    for given, hop, message in (
        (samples, 0, "hop: expected a whole number of at least 1"),
        (samples, 17, "hop: expected at most half a window of 32 samples"),
        (samples, 2.5, "hop: expected a whole number"),
        (samples[:31], None, "a recording of 32 samples or more, as a window has, got 31"),
        (samples[:0], None, "32 samples or more"),
        (samples[:, :1], None, "the channels are x, y"),
        (np.zeros((100, 3)), None, "the channels are x, y"),
        (np.zeros((5, 32, 2)), None, "expected numbers"),
        (np.full((100, 2), "a"), None, "expected numbers"),
        (np.where(np.arange(200).reshape(100, 2) == 51, np.nan, samples), None, "nan in sample 25, channel 'y'"),
    ):
        with pytest.raises(InputError, match=message):
            denoise_signal(model, given, hop)
    with aeedge.load(DATA / "bundle_v1_encoder") as encoder, pytest.raises(IncompatibleBundleError):
        denoise_signal(encoder, np.zeros(10))
    with aeedge.load(DATA / "bundle_v1_uint8") as images, pytest.raises(InputError, match="a model of windows"):
        denoise_signal(images, np.zeros(10))


def test_nan_touches_only_what_no_other_window_covers(model):
    samples = machine(400, seed=10)
    expected = denoise_signal(model, samples)
    samples[200] = np.nan
    found = np.concatenate(list(Crossfade(model, invalid="propagate")([samples])))
    lost = np.flatnonzero(np.isnan(found).any(axis=1))
    assert 200 in lost
    assert len(lost) < 32
    np.testing.assert_allclose(found[:150], expected[:150], atol=1e-5)
    np.testing.assert_allclose(found[250:], expected[250:], atol=1e-5)
    assert np.isnan(np.concatenate(list(Crossfade(model, invalid="propagate")([samples[:10]])))).all()


def test_models_whose_windows_are_rows_are_taken_too():
    """As those that were trained before bundles said what a window is: rows of one moment, by name."""
    with aeedge.load(DATA / "bundle_v1") as model:
        rows = model.golden_rows()
        np.testing.assert_allclose(denoise_signal(model, rows), model.denoise(rows), rtol=1e-5)


def test_memory_is_the_result_and_some_blocks(model):
    samples = machine(300_000, seed=11)
    denoise_signal(model, samples[:5000])
    tracemalloc.start()
    denoise_signal(model, samples, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < samples.nbytes + 12 * 2**20  # its windows would be 19 MiB, the blocks are of 256 KiB


def test_a_longer_step_between_samples_that_training_knew_is_no_gap(folder):
    """As for a stream."""
    spec = SignalSpec(("x", "y"), window=32, hop=8, rate=100.0, longest_step=10.0)
    samples, times = machine(200, seed=1), np.arange(200) / 100
    times[20:] += 5.0
    with aeedge.load(signal_bundle(folder / "jitter", signal=spec, identity=True)) as model:
        np.testing.assert_allclose(denoise_signal(model, samples, time=times), samples, atol=1e-4)


def test_a_path_is_no_model(model):
    with pytest.raises(InputError, match=r"model: expected what aeedge\.load gives"):
        denoise_signal(model.path, machine(100))
