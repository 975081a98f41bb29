"""Recordings become windows: segments, rates, channels, and a model that knows what its windows are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner

import aeedge
from aeedge.bundle.manifest import SignalSpec
from aeedge.bundle.reader import Bundle
from aeedge.cli.group import AeedgeGroup
from aeedge.errors import InputError
from aeedge.signals.drift import LEAST_WINDOWS, fit_reference
from aeedge.signals.window import window as cut
from aeedge_export import Autoencoder

RNG = np.random.default_rng(0)
RATE = 50.0


def signal(n=3000, rate=RATE, seed=0):
    """Two channels, unlike in size, (n, 2) float32."""
    t = np.arange(n) / rate
    noise = 0.05 * np.random.default_rng(seed).normal(size=(n, 2))
    clean = np.stack([np.sin(6 * np.pi * t), 20 * np.cos(6 * np.pi * t) + 5], axis=1)
    return (clean + noise).astype(np.float32)


def small(**params):
    return Autoencoder(**{"latent": 2, "hidden": (8,), "epochs": 2, "random_state": 0, **params})


SPEC = SignalSpec(("a", "b"), 32, 8, RATE, units=("g", "V"), time="time")


# --- a model knows what its windows are


def test_a_run_and_a_bundle_keep_what_a_window_is(tmp_path):
    windows = cut(signal(), 32, 8)
    ae = small().fit_rows(windows, signal=SPEC)
    ae.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run")
    assert again.run_.signal == again.run_.input_spec.signal == ae.run_.signal
    assert ae.run_.signal._replace(reference={}) == SPEC
    again.resume(windows, epochs=3)
    assert again.run_.signal == ae.run_.signal
    made = again.export(tmp_path / "m.aeedge")
    assert made.input.signal == Bundle(tmp_path / "m.aeedge").manifest.input.signal == ae.run_.signal
    assert made.training["channels"] == "last"
    other = ae.run_.signal._replace(hop=16)
    assert small().fit_rows(windows, signal=other).export(tmp_path / "o.aeedge").id != made.id
    assert np.isfinite(aeedge.load(tmp_path / "m.aeedge").score(windows[:3])).all()


@pytest.mark.parametrize(("window", "hop"), [(32, 1), (32, 5), (32, 8), (32, 32), (8, 20)])
def test_parts_of_windows_are_later_blocks_that_share_no_sample(window, hop):
    windows = cut(signal(9000), window, hop)
    ae = Autoencoder("pca", latent=2, calibration=0.2).fit_rows(windows, signal=SPEC._replace(window=window, hop=hop))
    parts = [part for part in ae.run_.split(len(windows)) if len(part)]
    assert len(parts) == 4
    samples = [np.unique(part[:, None] * hop + np.arange(window)) for part in parts]
    for one, later in pairwise(samples):
        assert one.max() < later.min()


@pytest.mark.parametrize(
    ("params", "changes", "message"),
    [
        ({"channels": "first"}, {}, "channels: windows of a signal are"),
        ({"axes": "nct"}, {}, "channels: windows of a signal are"),
        ({"time_ordered": False}, {}, "time_ordered: windows of 32 samples with a hop of 8 overlap"),
        ({"gap": 2}, {}, "gap: expected 3 windows or more"),
        ({}, {"channels": ("a",), "units": None}, r"expected rows \(window, channels\) = \(32, 1\)"),
        ({}, {"channels": ("a", "a")}, "different names"),
        ({}, {"units": ("g",)}, "a unit for each of 2 channels"),
        ({}, {"hop": 0}, "hop: expected a whole number of at least 1, got 0"),
        ({}, {"rate": -1.0}, "rate: expected samples a second above 0"),
        ({}, {"calendar": ("year",)}, "a calendar of day and week"),
    ],
)
def test_what_does_not_fit_windows_is_one_sentence(params, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        small(**params).fit_rows(cut(signal(), 32, 8), signal=SPEC._replace(**changes))
    assert "\n" not in str(caught.value)


# --- what drift is found by


def test_bundles_have_a_drift_reference_of_windows_that_training_did_not_see(tmp_path):
    windows = cut(signal(16000), 32, 8)
    ae = small(calibration=0.2).fit_rows(windows, signal=SPEC)
    parts = ae.run_.split(len(windows))
    apart = np.concatenate([rows[::4] for rows in parts[1:]])
    np.testing.assert_array_equal(ae.run_.reference, windows[apart])
    ae.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run")
    np.testing.assert_array_equal(again.run_.reference, windows[apart])
    again.export(tmp_path / "m.aeedge", variants=["int8", "fp32"], calibration=windows)
    found = {}
    for variant in ("fp32", "int8"):
        with aeedge.load(tmp_path / "m.aeedge", variant=variant) as model:
            found[variant] = model.drift_reference
            expected = fit_reference(model.encode(windows[apart]), model.score(windows[apart]))
            for name, array in expected._asdict().items():
                np.testing.assert_allclose(getattr(found[variant], name), array, rtol=0.02, atol=1e-3)
    assert (found["int8"].projection != found["fp32"].projection).any()
    text = CliRunner().invoke(AeedgeGroup.build(), ["info", str(tmp_path / "m.aeedge")]).output
    assert "components of 2 latents (fp32)" in text
    again.partial_fit(windows[:100])
    assert again.run_.reference is None


def test_training_windows_are_the_reference_where_others_are_too_few(tmp_path):
    windows = cut(signal(3000), 32, 8)
    run = small().fit_rows(windows, signal=SPEC).run_
    held = sum(len(part[::4]) for part in run.split(len(windows))[1:])
    assert held < LEAST_WINDOWS <= len(run.reference) <= len(windows) / 4
    assert small().fit_rows(windows[:150], signal=SPEC).run_.reference is None
    assert small(channels="last", time_ordered=True).fit_rows(windows).run_.reference is None


def test_a_run_with_a_reference_of_other_rows_is_refused(tmp_path):
    small().fit_rows(cut(signal(), 32, 8), signal=SPEC).save(tmp_path / "run")
    np.save(tmp_path / "run" / "reference.npy", np.zeros((60, 32, 3), np.float32))
    with pytest.raises(InputError, match=r"reference\.npy"):
        Autoencoder.load(tmp_path / "run")
