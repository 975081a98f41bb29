"""Drift of latents and scores: found where it is, not found where it is not."""

import numpy as np
import pytest

from aeedge.errors import InputError
from aeedge.signals.drift import AVERAGE_RUN_LENGTH, LEAST_WINDOWS, DriftMonitor, fit_reference

MIX = np.random.default_rng(3).normal(size=(6, 6))


def windows(count, seed, shift=0.0, spread=1.0, memory=0.0, offset=0.0):
    """Latents (count, 6) and scores (count,), correlated among each other and in time."""
    rng = np.random.default_rng(seed)
    x = np.zeros((count + 100, 7))
    noise = rng.normal(size=x.shape) * np.sqrt(1 - memory**2)
    for t in range(1, len(x)):
        x[t] = memory * x[t - 1] + noise[t]
    x = x[100:]
    x[:, 0] += shift
    x[:, 1] *= spread
    return (x[:, :6] @ MIX).astype(np.float32), np.exp(0.5 * x[:, 6] + offset).astype(np.float32)


def values(monitor, latents, scores):
    return np.array([monitor.update(latent, score) for latent, score in zip(latents, scores.tolist())])


@pytest.fixture(scope="module")
def reference():
    return fit_reference(*windows(400, 0))


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_nothing_is_found_where_nothing_changes(memory):
    for seed in range(3):
        monitor = DriftMonitor(fit_reference(*windows(600, 2 * seed + 1, memory=memory)))
        found = values(monitor, *windows(3000, 2 * seed + 2, memory=memory))
        assert found.max() < 1
        assert found[-1000:].max() > 0.2  # it has looked


@pytest.mark.parametrize(
    "change", [{"shift": 1.5}, {"shift": -1.5}, {"spread": 3.0}, {"spread": 0.1}, {"offset": 1.0}, {"offset": -1.0}]
)
def test_a_change_is_found(reference, change):
    monitor = DriftMonitor(reference)
    assert values(monitor, *windows(300, 5)).max() < 1
    found = values(monitor, *windows(400, 6, **change))
    assert found[-1] >= 1
    assert found[0] < 1  # one window is no drift
    assert values(monitor, *windows(1500, 7))[-1] < 1  # and it is over when it is over


def test_a_change_of_correlation_alone_is_found(reference):
    monitor, (latents, scores) = DriftMonitor(reference), windows(800, 8)
    x = latents @ np.linalg.inv(MIX)
    x[:, 1] = 0.95 * x[:, 0] + np.sqrt(1 - 0.95**2) * x[:, 1]
    values(monitor, x @ MIX, scores)
    assert monitor.parts[1] >= 1


def test_a_few_anomalous_windows_are_no_drift(reference):
    monitor = DriftMonitor(reference)
    values(monitor, *windows(200, 9))
    latents, scores = windows(3, 10)
    assert values(monitor, latents + 1e6, scores + 1e6).max() < 1


@pytest.mark.parametrize("at", [0, 1, 137])
def test_state_and_restore_change_nothing(reference, at):
    latents, scores = windows(300, 11, shift=0.7)
    whole, first, second = (DriftMonitor(reference) for _ in range(3))
    expected = values(whole, latents, scores)
    before = values(first, latents[:at], scores[:at])
    second.restore(first.state())
    assert second.value == first.value
    after = values(second, latents[at:], scores[at:])
    np.testing.assert_array_equal(np.concatenate([before, after]), expected)
    for name, array in whole.state().items():
        np.testing.assert_array_equal(second.state()[name], array)


def test_a_state_is_a_copy(reference):
    monitor = DriftMonitor(reference)
    values(monitor, *windows(10, 12))
    state = monitor.state()
    kept = {name: array.copy() for name, array in state.items()}
    other = DriftMonitor(reference)
    other.restore(state)
    for one in (monitor, other):
        values(one, *windows(10, 13))
        for name, array in kept.items():
            np.testing.assert_array_equal(state[name], array)


def test_a_state_of_another_reference_is_refused(reference):
    small = DriftMonitor(fit_reference(*(part[:, :2] if part.ndim > 1 else part for part in windows(100, 1))))
    state = DriftMonitor(reference).state()
    for wrong in (small.state(), {}, state | {"mean": state["mean"] * np.nan}, state | {"mean": "x"}):
        monitor = DriftMonitor(reference)
        with pytest.raises(InputError, match="state: expected"):
            monitor.restore(wrong)
        assert monitor.value == 0


@pytest.mark.parametrize("k", [1, 2, 48, 300, 2048])
def test_the_state_is_small_for_any_number_of_latents(k):
    rng = np.random.default_rng(k)
    reference = fit_reference(rng.normal(size=(500, k)).astype(np.float32), rng.normal(size=500) ** 2)
    monitor = DriftMonitor(reference)
    assert monitor.update(rng.normal(size=k).astype(np.float32), 1.0) < 1
    assert sum(array.nbytes for array in monitor.state().values()) < 50_000
    assert len(reference.index) == min(k, 48)


def test_dead_latents_do_no_harm_and_are_found_when_they_move():
    latents, scores = windows(400, 1)
    latents[:, 2], latents[:, 4] = 0, 7.3
    monitor = DriftMonitor(fit_reference(latents, scores))
    later, later_scores = windows(1000, 2)
    later[:, 2], later[:, 4] = 1e-7, 7.3 * (1 + 1e-6)  # as another machine rounds
    assert values(monitor, later, later_scores).max() < 1
    later[:, 4] = 7.6
    assert values(monitor, later[:300], later_scores[:300])[-1] >= 1


def test_all_latents_and_scores_may_be_constant():
    reference = fit_reference(np.full((60, 3), 2.0, np.float32), np.zeros(60, np.float32))
    monitor = DriftMonitor(reference)
    assert (
        monitor.update(np.full(3, 2.0, np.float32), 0.0)
        == monitor.update(np.full(3, 2.000001, np.float32), 1e-10)
        < 0.1
    )
    assert all(np.isfinite(array).all() for array in reference._asdict().values())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_passed_over(reference, bad):
    monitor, same = DriftMonitor(reference), DriftMonitor(reference)
    latents, scores = windows(50, 3)
    values(same, latents, scores)
    for latent, score in zip(latents, scores.tolist()):
        monitor.update(latent, score)
        before = monitor.value
        assert monitor.update(np.where(np.arange(6) == 2, bad, latent).astype(np.float32), score) == before
        assert monitor.update(latent, float(bad)) == before
    assert monitor.value == same.value


def test_rounding_makes_no_difference(reference):
    latents, scores = windows(500, 4)
    one, other = DriftMonitor(reference), DriftMonitor(reference)
    rounded = (latents * (1 + 1e-6)).astype(np.float32)
    np.testing.assert_allclose(values(one, latents, scores), values(other, rounded, scores), rtol=1e-3, atol=1e-3)


def test_units_of_latents_make_no_difference(reference):
    latents, scores = windows(400, 0)
    factor = np.array([1e-6, 1, 1e6, 3, 1e-3, 10], np.float32)
    scaled = fit_reference(latents * factor, scores * 1e4)
    later, later_scores = windows(300, 6, shift=0.6)
    one, other = DriftMonitor(reference), DriftMonitor(scaled)
    np.testing.assert_allclose(
        values(one, later, later_scores), values(other, later * factor, later_scores * 1e4), rtol=0.02, atol=0.02
    )


def test_a_reference_that_tells_too_little_is_refused():
    latents, scores = windows(400, 1)
    with pytest.raises(InputError, match=f"{LEAST_WINDOWS} windows or more"):
        fit_reference(latents[: LEAST_WINDOWS - 1], scores[: LEAST_WINDOWS - 1])
    with pytest.raises(InputError, match="as many scores"):
        fit_reference(latents, scores[:-1])
    with pytest.raises(InputError, match="longer reference"):
        fit_reference(*windows(60, 1, memory=0.98))
    latents[3, 2] = np.nan
    with pytest.raises(InputError, match="finite"):
        fit_reference(latents, scores)


def test_the_same_reference_comes_of_the_same_windows(reference):
    again = fit_reference(*windows(400, 0))
    for name, array in reference._asdict().items():
        np.testing.assert_array_equal(getattr(again, name), array)
    assert DriftMonitor(reference).average_run_length == AVERAGE_RUN_LENGTH
