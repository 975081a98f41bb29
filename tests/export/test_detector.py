"""The estimator as an outlier detector: scores, thresholds, drift, and the bundles that carry them."""

import copy

import numpy as np
import pytest
from sklearn.base import is_outlier_detector

import aeedge
from aeedge.detection.calibration import ThresholdRule, alarm_band
from aeedge.errors import InputError
from aeedge_export import Autoencoder
from aeedge_export.quantization.rows import apart_from

KINDS = ("mse", "robust", "mahalanobis", "both")
RAISED = 2e-5  # calibration scores are raised by half of it, above rounding
SMALL = {"latent": 3, "hidden": (16,), "epochs": 15, "random_state": 0}


def plant(n, seed=0, drift=0.0):
    """Rows (n, 8) on a curved surface of three dimensions; with `drift` the last third moves away from it."""
    rng = np.random.default_rng(seed)
    weights = np.random.default_rng(1).normal(size=(3, 8))
    rows = np.tanh(rng.normal(size=(n, 3))) @ weights + 0.05 * rng.normal(size=(n, 8))
    rows[:, 2] += drift * np.clip(np.arange(n) / n - 2 / 3, 0, None)
    return (rows * np.geomspace(0.1, 100, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    return Autoencoder(**SMALL).fit(plant(2000))


@pytest.fixture
def detector(fitted):
    """A copy, which a test may calibrate."""
    return copy.copy(fitted)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_what_their_kind_says_and_those_of_the_device(kind, tmp_path):
    X = plant(1000)
    ae = Autoencoder(**SMALL, score_kind=kind).fit(X)
    scoring, latent = ae.run_.scoring, ae.transform(X).astype(np.float64)
    expected = np.zeros(len(X))
    if kind != "mahalanobis":
        residual = (X - ae.inverse_transform(latent)) / scoring.scale
        expected += np.square(residual).mean(axis=1)
    if kind in ("mahalanobis", "both"):
        expected += np.square((latent - scoring.mean) @ scoring.whitening.T).mean(axis=1)
    np.testing.assert_allclose(-ae.score_samples(X), expected, rtol=1e-3, atol=1e-5)
    if kind == "mse":
        np.testing.assert_allclose(-ae.score_samples(X), ae.reconstruction_error(X), rtol=1e-5)
    manifest = ae.export(tmp_path / "m.aeedge")
    assert manifest.score.kind == kind
    with aeedge.load(tmp_path / "m.aeedge", check="golden") as model:
        np.testing.assert_allclose(model.score(X), -ae.score_samples(X), rtol=1e-3, atol=1e-5)
        near = np.abs(ae.decision_function(X)) < 1e-3 * ae.threshold_
        np.testing.assert_array_equal(model.detect(X)[~near], ae.predict(X)[~near] == -1)
        assert near.mean() < 0.01
        assert model.threshold == pytest.approx(ae.threshold_, rel=1e-3)
        assert model.calibration_size == ae.run_.alarm.rows


def test_the_contract_of_outlier_detectors(detector):
    assert is_outlier_detector(detector)
    X = plant(500, seed=3)
    X[:20, 4] *= 5
    scores, decision = detector.score_samples(X), detector.decision_function(X)
    np.testing.assert_allclose(decision, scores - detector.offset_, rtol=1e-5)
    np.testing.assert_array_equal(detector.predict(X), np.where(decision < 0, -1, 1))
    assert detector.threshold_ == -detector.offset_
    assert (detector.predict(X)[:20] == -1).mean() > 0.5 > 0.1 > (detector.predict(X)[20:] == -1).mean()


def test_fit_predict_has_the_names_of_pyod():
    X = plant(600)
    ae = Autoencoder(**SMALL)
    found = ae.fit_predict(X)
    np.testing.assert_array_equal(found, ae.predict(X))
    np.testing.assert_array_equal(ae.labels_, (found == -1).astype(int))
    np.testing.assert_array_equal(ae.decision_scores_, -ae.score_samples(X))


def test_a_threshold_by_default_is_that_of_one_per_cent_of_held_out_rows(detector):
    alarm, held = detector.run_.alarm, detector.run_.calibration
    assert (alarm.rows, len(held)) == (200, 200)
    k = int(0.01 * 201)
    assert alarm.threshold == pytest.approx(np.sort(-detector.score_samples(held))[-k], rel=RAISED)
    assert alarm.rate == pytest.approx(k / 201)
    low, high = alarm_band(alarm.rate, alarm.rows, 4000, coverage=0.9999)
    assert low <= (detector.predict(plant(4000, seed=9)) == -1).sum() <= high


def test_calibrate_with_rows_of_ones_own(detector, tmp_path):
    ae = Autoencoder(**SMALL).fit(plant(300))  # too few to hold some out
    assert ae.run_.alarm is None
    assert ae.threshold_ == (-ae.score_samples(ae.sample_)).max()
    with pytest.raises(InputError, match=r"X: expected rows of normal operation, for fit held none out"):
        ae.calibrate(false_alarm_rate=0.1)
    rows = plant(999, seed=5)
    assert ae.calibrate(rows, false_alarm_rate=0.001) is ae
    assert ae.threshold_ == pytest.approx((-ae.score_samples(rows)).max(), rel=RAISED)
    with pytest.raises(InputError, match=r"0.0005 needs 1,999 calibration samples, there are 999: 1,000 are missing"):
        ae.calibrate(rows, false_alarm_rate=0.0005)
    assert ae.run_.alarm.rate == 0.001  # as before
    ae.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run")
    assert (again.run_.alarm, again.run_.rule) == (ae.run_.alarm, ae.run_.rule)
    np.testing.assert_array_equal(again.score_samples(rows), ae.score_samples(rows))
    again.export(tmp_path / "m.aeedge")
    with aeedge.load(tmp_path / "m.aeedge") as model:
        assert (model.calibration_size, model.false_alarm_rate) == (999, 0.001)
        assert dict(model.manifest.calibration.rule) == {"false_alarm_rate": 0.001}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"contamination": 0.6}, "contamination: expected a number from 0 to 0.5, got 0.6"),
        ({"false_alarm_rate": 0.0}, "false_alarm_rate: expected a number above 0 and below 1, got 0.0"),
        ({"false_alarm_rate": "1%"}, "false_alarm_rate: expected a number above 0 and below 1, got '1%'"),
        ({"threshold": np.nan}, "threshold: expected a finite number within float32, got nan"),
        ({"false_alarm_rate": 0.1, "quantile": 0.9}, "expected one rule .*, got false_alarm_rate=0.1 and quantile=0.9"),
        ({"threshold": 1.0, "contamination": 0.1}, "contamination: a threshold that is given does not depend"),
    ],
)
def test_rules_that_are_none(detector, rule, message):
    before = detector.run_.alarm
    with pytest.raises(InputError, match=message):
        detector.calibrate(**rule)
    assert detector.run_.alarm == before


def test_contamination_leaves_the_highest_scores_out(detector):
    rows = plant(1000, seed=6)
    rows[:50, 3] += 100
    plain = detector.calibrate(rows, false_alarm_rate=0.02).threshold_
    trimmed = detector.calibrate(rows, false_alarm_rate=0.02, contamination=0.05).threshold_
    clean = detector.calibrate(rows[50:], false_alarm_rate=0.02).threshold_
    assert trimmed == pytest.approx(clean, rel=0.05)
    assert plain > 3 * clean


def test_drift_is_never_silent():
    steady = Autoencoder(**SMALL, time_ordered=True).fit(plant(3000))
    assert steady.run_.alarm.drift["drift"] is False
    assert steady.notes_ == []
    with pytest.warns(UserWarning, match=r"drift: \d+ of 150 rows after the calibration rows raise an alarm, chance"):
        moved = Autoencoder(**SMALL, time_ordered=True).fit(plant(3000, drift=200.0))
    assert moved.run_.alarm.drift["alarms"] > moved.run_.alarm.drift["high"]
    assert any(note.startswith("drift:") for note in moved.notes_)


def test_resume_calibrates_again_by_the_same_rule():
    X = plant(1200)
    ae = Autoencoder(**SMALL).fit(X).calibrate(false_alarm_rate=0.05)
    before = ae.run_.alarm
    ae.resume(X, epochs=20)
    assert ae.run_.alarm.rate == before.rate
    assert ae.run_.alarm.threshold == pytest.approx(np.sort(-ae.score_samples(ae.run_.calibration))[-6], rel=RAISED)


def test_each_variant_has_its_own_threshold_and_both_alarm_alike(tmp_path, time_has_no_say):
    X = plant(4000)
    ae = Autoencoder(**SMALL).fit(X)
    manifest = ae.export(tmp_path / "m.aeedge", variants=("fp32", "int8"), calibration=X[:1500])
    assert set(manifest.calibration.thresholds) == {"fp32", "int8"}
    thresholds, alarms = {}, {}
    for variant in ("fp32", "int8"):
        with aeedge.load(tmp_path / "m.aeedge", variant=variant) as model:
            assert model.variant == variant
            scores = np.sort(model.score(ae.run_.calibration))
            k = int(0.01 * (len(scores) + 1))
            thresholds[variant] = model.threshold
            assert model.threshold == pytest.approx(scores[-k], rel=RAISED)
            alarms[variant] = model.detect(plant(4000, seed=8))
            with pytest.raises(InputError, match="is that of"):
                model.detect(X, threshold=manifest.calibration.thresholds["int8" if variant == "fp32" else "fp32"])
    assert thresholds["fp32"] != thresholds["int8"]
    assert (alarms["fp32"] == alarms["int8"]).mean() >= 0.995
    assert manifest.variants["int8"].quality["alarms"] >= 0.995


def test_rows_that_calibrate_the_threshold_have_no_say_in_int8(detector, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("aeedge_export.bundle.choose", lambda models, rows, *_, **__: seen.append(rows) or 1 / 0)
    X = plant(2000)
    with pytest.warns(UserWarning, match="no int8 variant: ZeroDivisionError"):
        detector.export(tmp_path / "m", variants=("fp32", "int8"), calibration=X)  # all that it was fitted to
    held = {row.tobytes() for row in detector.run_.calibration}
    assert len(seen[0]) == 2000 - len(held)
    assert not held & {row.tobytes() for row in seen[0]}
    with pytest.raises(InputError, match=r"192 or more rows beside those that calibrate the threshold, got 0 of 200"):
        detector.export(tmp_path / "n", variants=("fp32", "int8"), calibration=detector.run_.calibration)


def test_parts_of_a_score_can_be_exported(detector, tmp_path):
    X = plant(500, seed=4)
    both, calibration = detector.run_.scoring, detector.run_.calibration
    found = {}
    for kind in ("robust", "mahalanobis", "mse"):
        detector.export(tmp_path / kind, score_kind=kind, with_scorer=kind == "mahalanobis")
        with aeedge.load(tmp_path / kind, check="golden") as model:
            assert model.manifest.score.kind == kind
            found[kind] = model.score(X)
            assert (model.score(calibration) > model.threshold).sum() == 1  # of 200, at 1 %
    np.testing.assert_allclose(found["robust"] + found["mahalanobis"], -detector.score_samples(X), rtol=1e-3)
    np.testing.assert_allclose(found["mse"], detector.reconstruction_error(X), rtol=1e-3, atol=1e-6)
    assert detector.run_.scoring is both
    with pytest.raises(InputError, match=r"score_kind: 'both' is computed by scorer.onnx alone, which was not wanted"):
        detector.export(tmp_path / "x", with_scorer=False)
    plain = Autoencoder(**SMALL, score_kind="robust").fit(plant(600))
    with pytest.raises(InputError, match=r"score_kind: expected 'robust', .* or mse, got 'both'; train again"):
        plain.export(tmp_path / "x", score_kind="both")


def test_a_kind_that_is_changed_counts_from_the_next_calibration_on(detector, tmp_path):
    X, before = plant(300, seed=7), detector.threshold_
    detector.set_params(score_kind="mse")
    assert detector.threshold_ == before
    detector.calibrate()
    np.testing.assert_allclose(-detector.score_samples(X), detector.reconstruction_error(X), rtol=1e-4)
    assert (-detector.score_samples(detector.run_.calibration) > detector.threshold_).sum() == 1
    detector.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run")
    np.testing.assert_array_equal(again.score_samples(X), detector.score_samples(X))
    detector.set_params(score_kind="both").calibrate()
    assert detector.threshold_ == before
    plain = Autoencoder(**SMALL, score_kind="mse").fit(plant(600))
    with pytest.raises(InputError, match="score_kind: expected 'mse', for which it was trained, got 'both'"):
        plain.set_params(score_kind="both").calibrate()


def test_contaminated_rows_in_time_order_are_no_drift():
    X = plant(3000)
    X[np.random.default_rng(0).random(3000) < 0.05, 3] += 100
    rule = ThresholdRule(contamination=0.05)
    ae = Autoencoder(**SMALL, time_ordered=True).fit_rows(X, rule=rule)
    assert ae.run_.alarm.drift["alarms"] > 3
    assert ae.run_.alarm.drift["drift"] is False


def test_rows_that_are_trained_on_later_calibrate_no_more(tmp_path):
    X = plant(1000)
    ae = Autoencoder(**SMALL).fit(X)
    assert ae.run_.alarm is not None
    ae.partial_fit(X)
    assert (ae.run_.alarm, ae.run_.calibration) == (None, None)
    ae.calibrate(plant(300, seed=1))
    assert ae.run_.alarm.rows == 300
    with pytest.warns(UserWarning, match="X: these rows were trained on, so no false-alarm rate holds"):
        Autoencoder(**SMALL).fit(X).calibrate(X)


def test_integers_are_not_wrapped():
    X = np.random.default_rng(0).integers(0, 256, (600, 8), dtype=np.uint8)
    ae = Autoencoder(**SMALL).fit(X)
    for value in (300.0, -5.0, 0.5):
        bad = X.astype(np.float32)
        bad[7, 2] = value
        with pytest.raises(InputError, match=r"X: expected whole numbers from 0 to 255, got .* in row 7, position"):
            ae.calibrate(bad)
    assert ae.calibrate(X[:200].astype(np.float64)).run_.calibration.dtype == np.uint8


def test_rows_that_repeat_leave_enough_for_int8(tmp_path):
    X = np.repeat(plant(60), 50, axis=0)
    ae = Autoencoder(**SMALL).fit(X)
    kept = apart_from(X, ae.run_.calibration)
    assert len(kept) == len(X) - len(ae.run_.calibration)


def test_a_score_of_too_many_latents_is_refused_before_the_training():
    X = np.random.default_rng(0).normal(size=(60, 2200)).astype(np.float32)
    epochs = []
    with pytest.raises(InputError, match="score_kind: 'both' compares up to 2048 latents, there are 2100"):
        Autoencoder(latent=2100, hidden=(), score_kind="both").fit_rows(X, on_epoch=epochs.append)
    assert not epochs


def test_gross_outliers_that_are_left_out_are_recorded(tmp_path):
    X = plant(2000)
    X[::50, 4] = 1e6
    with pytest.warns(UserWarning, match="left out"):
        ae = Autoencoder(**SMALL).fit(X)
    assert ae.run_.calibration_left_out > 0
    manifest = ae.export(tmp_path / "m")
    assert manifest.calibration.rule["left_out"] == ae.run_.calibration_left_out
    assert ae.calibrate(plant(300, seed=2)).run_.calibration_left_out == 0


def test_labels_of_another_threshold_go(detector):
    X = plant(600)
    ae = Autoencoder(**SMALL)
    ae.fit_predict(X)
    ae.calibrate(plant(300, seed=2), false_alarm_rate=0.2)
    assert not hasattr(ae, "labels_")
    assert "detection" not in ae.run_.evaluation
