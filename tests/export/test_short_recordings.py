"""Recordings that are too short to hold out some of them: all is trained on, cross-validation sets the threshold."""

import warnings

import numpy as np
import pytest
from torch import nn

import aeedge
from aeedge.errors import InputError
from aeedge_export import Autoencoder
from aeedge_export import window as windows_of

WINDOW = 24


def recording(samples, seed):
    """Four channels that follow two slow states, with noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples)[:, np.newaxis]
    states = np.sin(t / np.array([17.0, 29.0]) + rng.uniform(0, 6, 2))
    mixing = np.array([[1.0, 0.5, -0.7, 0.0], [0.0, 0.8, 0.6, 1.0]])
    return (states @ mixing + 0.1 * rng.normal(size=(samples, 4))).astype(np.float32)


def cut(samples):
    return windows_of(samples, window=WINDOW, hop=1, rate=1.0)


def fitted(found, **parameters):
    return Autoencoder(random_state=0, threads=1, **parameters).fit_rows(found.X, signal=found.signal)


@pytest.fixture(scope="module")
def short():
    found = cut(recording(240, 0))
    return found, fitted(found)


def test_every_window_is_trained_on_and_there_is_a_threshold(short):
    found, ae = short
    run = ae.run_
    assert run.params["calibration"] == "cross"
    assert [len(part) for part in run.split(len(found.X))] == [len(found.X), 0, 0, 0]
    assert run.design.hidden == ()
    assert run.state.epoch < 60
    assert run.scored_as.kind == "mse"
    assert run.inflation > 1
    assert run.alarm.threshold > run.scores(found.X).max()
    assert any("too few to hold some out" in note for note in ae.notes_)


def test_few_windows_start_at_pca_without_hidden_layers(short):
    found, ae = short
    flat = ae.scaler_(found.X).reshape(len(found.X), -1).astype(np.float64)
    centred = flat - flat.mean(axis=0)
    left = np.linalg.svd(centred, compute_uv=False)[ae.design_.latent :]
    best = np.square(left).sum() / flat.size
    assert best <= ae.run_.reconstruction_error(found.X).mean() < 1.1 * best


def test_later_normal_operation_raises_hardly_an_alarm_and_a_fault_does(short):
    _, ae = short
    rates = []
    for seed in range(1, 6):
        later = recording(240, seed)
        rates.append((ae.run_.scores(cut(later).X) > ae.run_.alarm.threshold).mean())
        later[:, 1] += 1
        assert (ae.run_.scores(cut(later).X) > ae.run_.alarm.threshold).mean() > 0.9
    assert np.mean(rates) < 0.05


def test_a_network_that_learns_by_heart_is_not_believed(short):
    found, ae = short
    by_heart = fitted(found, hidden=(64,), epochs=60, noise="none")
    assert by_heart.run_.scores(found.X).mean() < ae.run_.scores(found.X).mean()
    assert by_heart.run_.inflation > 1.5 * ae.run_.inflation


def test_the_bundle_has_the_inflated_scores_and_threshold(short, tmp_path):
    found, ae = short
    ae.export(tmp_path / "short.aeedge")
    model = aeedge.load(tmp_path / "short.aeedge")
    assert model.threshold == pytest.approx(ae.run_.alarm.threshold, rel=1e-4)
    assert model.manifest.calibration.rule["inflation"] == ae.run_.inflation
    expected = ae.run_.inflation * ae.run_.scores(found.X)
    np.testing.assert_allclose(model.calibration_sequence, expected, rtol=1e-3)
    np.testing.assert_allclose(model.calibration.scores, np.sort(expected), rtol=1e-3)


def test_a_run_keeps_its_inflation(short, tmp_path):
    found, ae = short
    ae.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run")
    assert again.run_.calibration_inflation == ae.run_.calibration_inflation
    again.calibrate()
    assert again.run_.alarm == ae.run_.alarm
    assert fitted(found, calibration="cross").run_.alarm.threshold == ae.run_.alarm.threshold


def test_rows_that_had_no_say_are_not_inflated(short):
    found, _ = short
    ae = fitted(found)
    later = cut(recording(240, 9)).X
    ae.calibrate(later)
    assert ae.run_.inflation == 1
    assert ae.run_.alarm.threshold == pytest.approx(np.sort(ae.run_.scores(later))[-2], rel=1e-3)


@pytest.mark.parametrize("kind", ["both", "robust", "mahalanobis"])
def test_each_kind_of_score_has_its_own_inflation(short, kind):
    found, _ = short
    ae = fitted(found, score_kind=kind)
    assert ae.run_.alarm.threshold > ae.run_.scores(found.X).max()
    assert kind in ae.run_.calibration_inflation


@pytest.mark.parametrize("family", ["conv1d", "pca"])
def test_other_families_do_so_too(short, family):
    found, _ = short
    run = fitted(found, family=family).run_
    assert run.alarm is not None
    assert run.inflation > 1


def test_windows_that_only_look_like_it_are_treated_alike_with_a_warning(short):
    found, ae = short
    with pytest.warns(UserWarning, match="too few to hold some out"):
        run = Autoencoder(channels="last", random_state=0, threads=1).fit(found.X).run_
    assert run.alarm.threshold == ae.run_.alarm.threshold


@pytest.mark.parametrize(
    "parameters", [{"calibration": 0.2, "validation": 0.0}, {"calibration": 0.0}, {"goal": "compress"}]
)
def test_what_was_asked_for_is_done(short, parameters):
    found, _ = short
    run = fitted(found, epochs=1, **parameters).run_
    assert run.params["calibration"] != "cross"
    assert run.inflation == 1


def test_other_rows_and_long_recordings_have_held_out_rows():
    rows = np.random.default_rng(0).normal(size=(600, 5)).astype(np.float32)
    ae = Autoencoder(epochs=1, random_state=0, threads=1).fit(rows)
    assert len(ae.run_.split(600).calibration) > 0
    long = cut(recording(101 * WINDOW, 0))
    run = fitted(long, epochs=1, hidden=(8,)).run_
    assert len(run.split(run.rows).calibration) > 0


def test_recordings_that_are_too_short_for_folds_have_no_threshold():
    found = cut(recording(3 * WINDOW, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert fitted(found, epochs=1).run_.alarm is None


def test_a_word_that_is_none_is_refused():
    with pytest.raises(InputError, match="calibration: expected 'auto', 'cross' or a share"):
        Autoencoder(calibration="crossed").fit(np.zeros((10, 3)))


def test_explicit_cross_validation_takes_modules_of_ones_own(short):
    found, _ = short
    size = found.X[0].size
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(size, 3))
    decoder = nn.Sequential(nn.Linear(3, size), nn.Unflatten(1, found.X.shape[1:]))
    run = fitted(found, family="custom", encoder=encoder, decoder=decoder, calibration="cross", epochs=2).run_
    assert run.alarm.threshold > 0
    assert run.inflation >= 1
