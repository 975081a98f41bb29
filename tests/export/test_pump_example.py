"""The example of a pump: a plant that is plausible, faults where they are said to be, and a demo that runs."""

import numpy as np
import pytest


@pytest.fixture
def examples(monkeypatch, request):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(request.config.rootpath / "examples")
    import anomaly

    from aeedge_export.samples import motor

    return anomaly, motor


def test_faults_change_the_rows_and_sensors_that_they_name_and_no_others(examples):
    _, plant = examples
    normal, faulty, faults = plant.recording(3600, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    rng.random(480)  # which rows drop out
    without = plant.simulate(len(normal) + len(faulty), rng)
    np.testing.assert_array_equal(normal, without[: len(normal)])
    changed = faulty != without[len(normal) :]
    sensors, named = list(plant.SENSORS), np.zeros(faulty.shape, bool)
    closing, *of_sensors = faults
    for fault in of_sensors:
        columns = [sensors.index(name) for name in fault.sensors]
        named[np.ix_(fault.rows, columns)] = True
        assert changed[np.ix_(fault.rows, columns)].mean() > 0.95
    elsewhere = np.setdiff1d(np.arange(len(faulty)), closing.rows)
    at_once = [name not in ("temp_motor", "temp_bearing") for name in sensors]  # these two are cold for a while
    assert not (changed & ~named)[np.ix_(elsewhere, at_once)].any()
    assert faulty[closing.rows[-1], sensors.index("flow")] < 0.8 * without[len(normal) + closing.rows[-1], 1]


def test_normal_time_follows_the_affinity_laws(examples):
    _, plant = examples
    normal, _, _ = plant.recording(4 * 3600, np.random.default_rng(1))
    sensor = dict(zip(plant.SENSORS, normal.T.astype(np.float64)))
    head = np.polyfit(np.log(sensor["speed"]), np.log(sensor["pressure"]), 1)[0]
    assert 1.7 < head < 2.3  # ~ speed²
    motor_load = np.sqrt(sensor["current"] ** 2 - 12**2) * sensor["voltage"]
    power = np.polyfit(np.log(sensor["speed"]), np.log(motor_load), 1)[0]
    assert 2.5 < power < 3.6  # ~ speed³
    assert np.isfinite(normal).all()


@pytest.mark.filterwarnings("ignore:no int8 variant", "ignore:drift")
def test_the_demo_runs_and_its_tables_fit_the_terminal(examples, monkeypatch, tmp_path, capsys):
    anomaly, _ = examples
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(anomaly, "HOUR", 400)  # seconds, for a smaller recording
    anomaly.main()
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "valve closes" in said
    assert (anomaly.OUT / "anomaly.png").stat().st_size > 10_000
    assert (anomaly.OUT / "pump.aeedge" / "calibration.npz").exists()
