"""A model of windows knows what its sensors usually deliver."""

import json

import numpy as np
import pytest

import aeedge
from aeedge.bundle.manifest import HEALTH, SignalSpec
from aeedge.signals.health import HealthCheck, reference_of
from aeedge.signals.window import window
from aeedge_export import Autoencoder, export_bundle

SPEC = SignalSpec(("flow", "pressure"), 32, 8, 50.0, calendar=("day",))


def recording(n=2400, seed=0):
    """Flow and pressure, with the time of day, (n, 4)."""
    t, rng = np.arange(n), np.random.default_rng(seed)
    flow, pressure = np.sin(t / 5), 40 + 3 * np.cos(t / 7)
    day = 2 * np.pi * t / n
    values = np.stack([flow, pressure, np.sin(day), np.cos(day)], 1)
    values[:, :2] += 0.05 * rng.normal(size=(n, 2))
    return values.astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    windows = window(recording(), 32, 8)
    return windows, Autoencoder("pca", latent=6, random_state=0).fit_rows(windows, signal=SPEC)


def test_the_reference_is_that_of_the_training_windows(fitted):
    windows, ae = fitted
    reference = ae.run_.signal.reference
    assert set(reference) == set(HEALTH)
    used = windows[ae.run_.split(len(windows)).fitted][:, :, :2]
    whole = reference_of(used)
    for key in HEALTH:
        assert len(reference[key]) == 2
        assert reference[key] == pytest.approx(whole[key])
    later = window(recording(seed=1), 32, 8)
    check = HealthCheck(reference, SPEC.channels, np.float32)
    assert len(later) > 20
    assert all(check.check(w) == () for w in later)


def test_it_travels_in_runs_and_bundles(fitted, tmp_path):
    _, ae = fitted
    ae.save(tmp_path / "run")
    assert Autoencoder.load(tmp_path / "run").run_.signal == ae.run_.signal
    ae.export(tmp_path / "m.aeedge")
    signal = aeedge.load(tmp_path / "m.aeedge").input.signal
    assert signal == ae.run_.signal
    stuck = recording()[:32].copy()
    stuck[:, 1] = 40
    faults = HealthCheck(signal.reference, signal.names, np.float32).check(stuck)
    assert [(fault.kind, fault.channel) for fault in faults] == [("stuck", "pressure")]


def test_modules_of_ones_own_take_it_from_the_example(fitted, tmp_path):
    windows, ae = fitted
    encoder, decoder = ae.run_.network.exportable()
    example = windows[:50]
    scaler = (ae.run_.scaler.mean, ae.run_.scaler.scale)
    given = {"encoder": encoder, "decoder": decoder, "example": example, "scaler": scaler}
    made = export_bundle(path=tmp_path / "a.aeedge", signal=SPEC, **given)
    assert dict(made.input.signal.reference) == reference_of(example[:, :, :2])
    json.dumps(made.input.signal.document())
    known = SPEC._replace(reference={**reference_of(example[:, :, :2]), "low": [-9.0, -9.0]})
    made = export_bundle(path=tmp_path / "b.aeedge", signal=known, **given)
    assert made.input.signal == known


def test_causes_have_the_names_of_channels_and_the_calendar_is_none(fitted, tmp_path):
    windows, ae = fitted
    with_bundle = tmp_path / "m.aeedge"
    ae.export(with_bundle)
    spoilt = windows[[9, 30]].copy()
    spoilt[0, :, 0] += 1.0
    spoilt[1, :, 1] *= 1.2
    with aeedge.load(with_bundle, threads=1) as model:
        found = model.explain(spoilt, 9)
        report = model.explain(windows[:1].copy() * np.float32([1, 1, 0, 5]), 9)[0]
    assert [causes[0].name for causes in found] == ["flow", "pressure"]
    assert all({cause.name for cause in causes} == {"flow", "pressure"} for causes in (*found, report))
    assert all(cause.index[1] == SPEC.names.index(cause.name) for causes in found for cause in causes)


def test_a_single_channel_has_its_name_too(tmp_path):
    windows = window(recording()[:, :1], 32, 8)
    spec = SignalSpec(("flow",), 32, 8)
    ae = Autoencoder("pca", latent=3, random_state=0).fit_rows(windows, signal=spec)
    ae.export(tmp_path / "m.aeedge")
    spoilt = windows[4].copy()
    spoilt[17] = 9
    with aeedge.load(tmp_path / "m.aeedge", threads=1) as model:
        (cause,) = model.explain(spoilt, 3)
    assert (cause.name, cause.index, cause.actual) == ("flow", (17, 0), 9.0)
