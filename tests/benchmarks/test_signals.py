"""The benchmark of signals and the example of an ECG: recordings that are plausible, and counts that add up."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")


@pytest.fixture
def modules(monkeypatch, request):
    root = request.config.rootpath
    monkeypatch.syspath_prepend(root / "examples")
    monkeypatch.syspath_prepend(root / "benchmarks")
    import ecg
    import plants
    import signals

    return signals, plants, ecg


def test_plants_repeat_and_their_faults_come_after_the_training(modules):
    signals, plants, _ = modules
    for seed in range(20):
        x, faulty = plants.plant(seed)
        again, _ = plants.plant(seed)
        np.testing.assert_array_equal(x, again)
        assert np.isfinite(x).all()
        assert not faulty[: signals.TRAINED].any()
        assert 200 <= faulty.sum() <= 400


def test_the_trivial_detector_finds_an_offset_and_counts_every_second_after_the_training(modules):
    signals, _, _ = modules
    x = np.random.default_rng(0).normal(size=(900, 8)).astype(np.float32)
    faulty = np.zeros(900, bool)
    faulty[500:800] = True
    x[faulty] += 3
    counts = signals.trivial(x, faulty)
    assert sum(counts.values()) == 900 - signals.TRAINED
    assert counts["found"] > 280
    assert signals._rates({"one": counts})["all"]["f1"] > 0.8


def test_the_ecg_is_trained_on_normal_beats_and_a_ventricular_beat_raises_an_alarm(modules, monkeypatch, tmp_path):
    _, _, ecg = modules
    monkeypatch.setattr(ecg, "LEAST", 30)
    recording = ecg.simulate(200, np.random.default_rng(3))
    first, last = ecg.quiet_stretch(recording)
    ectopic = recording.beats[recording.symbols != "N"]
    assert (recording.symbols == "V").any()
    assert not ((ectopic > first) & (ectopic < last)).any()
    found, events = ecg.measured(recording, tmp_path)
    seen, among = map(int, found["V beats found"].split(" of "))
    assert seen == among > 0
    ecg.picture(recording, events, found["threshold"], tmp_path / "ecg.png")
    assert (tmp_path / "ecg.png").stat().st_size > 10_000
