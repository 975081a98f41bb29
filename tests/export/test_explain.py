"""Faults injected into the sensors of a small plant, a heat exchanger: explain names the faulty one."""

import numpy as np
import pytest

import aeedge
from aeedge_export import Autoencoder, export_bundle

NAMES = ("flow", "pressure", "pump_current", "inlet", "outlet", "coolant_flow", "coolant_outlet", "valve", "power")
RATE = 0.01


def heat_exchanger(n, seed):
    """Nine sensors that four free quantities move: flow, inlet temperature, coolant flow, valve; 3 % noise."""
    rng = np.random.default_rng(seed)
    flow, inlet, coolant = rng.uniform(20, 60, n), rng.uniform(60, 90, n), rng.uniform(10, 40, n)
    valve = rng.uniform(30, 100, n)
    exchange = 1 - np.exp(-1.5 * coolant / flow)  # of the largest possible heat
    heat = 0.5 * np.minimum(flow, coolant) * (inlet - 15) * exchange
    pressure = 1 + 8e-4 * flow**2 * (100 / valve) ** 0.5
    current = 2 + 0.03 * flow * pressure**0.5
    sensors = [flow, pressure, current, inlet, inlet - heat / flow, coolant, 15 + heat / coolant, valve, heat / 10]
    clean = np.stack(sensors, axis=1)
    return (clean + 0.03 * clean.std(axis=0) * rng.normal(size=clean.shape)).astype(np.float32)


FAULTS = {
    "offset": lambda value, scale, rng: value + scale * rng.uniform(2, 5, len(value)) * rng.choice([-1, 1], len(value)),
    "gain": lambda value, scale, rng: value * rng.choice([0.5, 1.5, 2], len(value)),
    "dropout": lambda value, scale, rng: np.zeros_like(value),
    "spike": lambda value, scale, rng: value + scale * rng.uniform(6, 12, len(value)) * rng.choice([-1, 1], len(value)),
    "stuck": lambda value, scale, rng: rng.permutation(value),
}


@pytest.fixture(scope="module")
def plant():
    return Autoencoder(random_state=0, threads=1, epochs=40).fit(heat_exchanger(1500, 0))


@pytest.fixture(scope="module", params=["robust", "mahalanobis"])
def model(request, plant, tmp_path_factory):
    """With each of the two terms that scores are made of."""
    run = plant.run_
    encoder, decoder = run.network.exportable()
    path = tmp_path_factory.mktemp("bundle") / "plant.aeedge"
    export_bundle(
        encoder=encoder,
        decoder=decoder,
        path=path,
        example=run.sample,
        scaler=(run.scaler.mean, run.scaler.scale),
        features=NAMES,
        score_kind=request.param,
    )
    with aeedge.load(path, threads=1) as model:
        yield model


def test_the_faulty_sensor_is_named_whatever_the_score(model):
    calibration, test = heat_exchanger(999, 1), heat_exchanger(500, 2)
    threshold = np.sort(model.score(calibration))[-int(RATE * 1000)]
    quiet = test[model.score(test) <= threshold]
    assert len(quiet) > 470
    faulty = np.random.default_rng(4).integers(len(NAMES), size=(len(FAULTS), len(quiet)))
    spoilt = np.stack([quiet] * len(FAULTS))
    for k, fault in enumerate(FAULTS.values()):
        for j, sensor in enumerate(quiet.T):
            at = faulty[k] == j
            spoilt[k, at, j] = fault(sensor[at], sensor.std(), np.random.default_rng(k))
    found = model.score(spoilt.reshape(-1, len(NAMES))).reshape(faulty.shape) > threshold
    right = np.zeros(faulty.shape, bool)
    right[found] = [NAMES.index(cause.name) for (cause,) in model.explain(spoilt[found], 1)] == faulty[found]
    assert found.sum() > 400
    assert right.sum() >= 0.9 * found.sum()
    spikes = list(FAULTS).index("spike")
    assert right[spikes].sum() >= 0.97 * found[spikes].sum() > 0.4 * len(quiet)


def test_what_is_expected_is_nearer_the_truth_than_the_mean(model):
    rows = heat_exchanger(300, 3)
    spread = rows.std(axis=0)
    spoilt = rows + 8 * spread * np.eye(len(NAMES), dtype=np.float32)[np.arange(300) % len(NAMES)]
    errors = np.full(len(NAMES), 0.0)
    for i, causes in enumerate(model.explain(spoilt, len(NAMES))):
        j = i % len(NAMES)
        (cause,) = [cause for cause in causes if cause.index == (j,)]
        assert cause.residual > 0
        errors[j] += abs(cause.expected - rows[i, j]) / spread[j]
    guessed = np.abs(rows - rows.mean(axis=0)).mean(axis=0) / spread
    assert errors.sum() / 300 < 0.5 * guessed.mean()
