"""Detection: areas, means and bands of the benchmark, on made tables."""

import detection
import numpy as np
import pytest
from detection import KINDS, Task

from aeedge.detection.calibration import Calibration


def made(n=400, outliers=20):
    """Correlated values; in outliers each comes from another row."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 2)) @ rng.normal(size=(2, 6)) + 0.1 * rng.normal(size=(n, 6))
    y = np.zeros(n, int)
    y[-outliers:] = 1
    X[-outliers:] = 3 * rng.permuted(X[-outliers:], axis=0)
    return X, y


@pytest.fixture
def pump_folder(tmp_path):
    (tmp_path / "pump").mkdir()
    lines = ["datetime;flow;current;anomaly;changepoint", *(f"t{i};{i};{i}.5;{i // 3}.0;0.0" for i in range(6))]
    (tmp_path / "pump" / "0.csv").write_text("\n".join(lines))
    return tmp_path


def test_pump_files_give_sensors_alone(pump_folder):
    X, y = detection.pumps(pump_folder)["pump 0"]
    assert X.tolist() == [[i, i + 0.5] for i in range(6)]
    assert y.tolist() == [0, 0, 0, 1, 1, 1]


def test_rows_in_time_order_are_split_where_asked():
    X, y = made()
    train, test, labels = Task("made", X, y, first=300).split(0)
    assert (len(train), len(test)) == (300, 100)
    assert labels.tolist() == y[300:].tolist()
    np.testing.assert_allclose(test, (X[300:] - X[:300].mean(0)) / X[:300].std(0), rtol=1e-3, atol=1e-4)


def test_normal_training_rows_are_without_outliers():
    X, y = made()
    alone, with_outliers = (Task("made", X, y, normal=normal).split(0) for normal in (True, False))
    assert len(with_outliers[0]) - len(alone[0]) == 12  # 60 % of the 20
    assert np.array_equal(alone[2], with_outliers[2])


def test_infinite_scores_rank_highest():
    assert detection.ranked(np.array([0, 0, 1]), np.array([1.0, 2.0, np.inf])) == (1.0, 1.0)
    assert detection.ranked(np.array([0, 0, 1]), np.array([2.0, np.inf, 1.0]))[0] == 0.0


def test_every_kind_and_every_peer_is_ranked():
    groups = {"tables": [Task("made", *made())], "normal training rows alone": [Task("made", *made(), normal=True)]}

    def peer(seed):
        return {detection.PEERS[0]: lambda train, test: np.random.default_rng(seed).random(len(test))}

    found = detection.ranking(groups, (0, 1), peer, epochs=5)
    assert [list(row["mean"]) for row in found] == [[*KINDS, detection.PEERS[0]]] * 2
    assert all(len(values) == 2 for row in found for values in row["seeds"].values())
    verdict = detection.verdict(found)
    assert found[0]["mean"][verdict["best"]][0] == max(found[0]["mean"][kind][0] for kind in KINDS) > 0.9
    assert verdict["margin"] == verdict["smallest margin"] > 0
    assert list(detection.ranking_tables(found)) == ["Tables", "Normal training rows alone"]


def test_false_alarms_lie_within_the_band_or_the_rate_is_refused():
    found = detection.conformal({"made": made()[0][:380]}, 200, (50, 100), 200, epochs=2)
    assert len(found) == 6
    refused = [(row["calibrated"], row["rate"]) for row in found if "refused" in row]
    assert refused == [(50, 0.01), (50, 0.001), (100, 0.001)]
    for row in (row for row in found if "refused" not in row):
        assert row["p"] > 1e-4, row
        assert row["mean rate"] == pytest.approx(row["expected rate"], rel=0.4)
    assert "refused" in str(detection.conformal_tables(found))


def test_a_threshold_that_is_one_rank_too_low_is_outside_of_the_band(monkeypatch):
    scores, right = np.random.default_rng(0).random(1000), Calibration.threshold
    assert detection.resplit(scores, 100, 0.02, 300)["p"] > 1e-3
    monkeypatch.setattr(Calibration, "threshold", lambda self, rate: right(self, 2 * rate))
    assert detection.resplit(scores, 100, 0.02, 300)["p"] < 1e-6


def test_fit_and_predict_are_held_to_what_the_calibration_promises():
    normal = made(1500, 20)[0][:1480]
    (row,) = detection.predicted({"made": normal}, (0, 1), epochs=2)
    assert (row["calibrated"], row["runs"], row["inside"]) == (105, 2, 1.0)
    assert row["expected rate"] == pytest.approx(1 / 106)
    assert "2 of 2" in str(detection.predicted_table([row]))
