"""Drift of latents and scores: found where it is, not found where it is not."""

import io
import shutil

import numpy as np
import pytest
from helpers.signals import machine, signal_bundle
from helpers.tampering import replace_calibration_bytes, reseal

import aeedge
from aeedge.bundle.reader import Bundle
from aeedge.errors import CorruptBundleError, InputError
from aeedge.recalibration import recalibrate
from aeedge.signals.drift import AVERAGE_RUN_LENGTH, LEAST_WINDOWS, DriftMonitor, fit_reference
from aeedge.signals.window import window

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
        monitor = DriftMonitor(fit_reference(*windows(1000, 2 * seed + 1, memory=memory)))
        found = values(monitor, *windows(3000, 2 * seed + 2, memory=memory))
        assert found.max() < 1
        assert found[-1000:].max() > 0.2  # it has looked


@pytest.mark.parametrize(
    "change", [{"shift": 1.5}, {"shift": -1.5}, {"spread": 3.0}, {"offset": 1.0}, {"offset": -1.0}]
)
def test_a_change_is_found(reference, change):
    monitor = DriftMonitor(reference)
    assert values(monitor, *windows(300, 5)).max() < 1
    found = values(monitor, *windows(600, 6, **change))
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
    assert monitor.update(np.full(3, 2.0, np.float32), 0.0) == 0
    assert monitor.update(np.full(3, 2.000001, np.float32), 1e-10) < 0.01
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


# --- in bundles


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle of windows of a signal, recalibrated in time order: (its path, rows)."""
    path = tmp_path_factory.mktemp("drift")
    rows = window(machine(6000), 32, 8)
    signal_bundle(path / "old.aeedge")
    found = recalibrate(path / "old.aeedge", rows, path / "new.aeedge", time_ordered=True)
    assert not found.notes
    return path / "new.aeedge", rows


def test_recalibration_makes_a_reference_of_windows_that_do_not_overlap(bundle):
    path, rows = bundle
    assert aeedge.load(path.parent / "old.aeedge").drift_reference is None
    with aeedge.load(path) as model:
        apart = rows[::4]
        expected = fit_reference(model.encode(apart), model.score(apart))
        for name, array in expected._asdict().items():
            found = getattr(model.drift_reference, name)
            assert found.dtype == array.dtype
            np.testing.assert_allclose(found, array, rtol=1e-4, atol=1e-6)
        model.self_check()
        monitor = DriftMonitor(model.drift_reference)
        assert values(monitor, model.encode(apart), model.score(apart)).max() < 1


def test_without_an_order_there_is_no_reference(bundle, tmp_path):
    path, rows = bundle
    recalibrate(path, rows, tmp_path / "b.aeedge", time_ordered=False)
    assert aeedge.load(tmp_path / "b.aeedge").drift_reference is None


def test_too_few_windows_are_a_note(bundle, tmp_path):
    path, rows = bundle
    found = recalibrate(path, rows[:150], tmp_path / "b.aeedge")
    assert [note.startswith("fp32: drift will not be found: ") for note in found.notes] == [True]
    assert aeedge.load(tmp_path / "b.aeedge").drift_reference is None


FORGERIES = {
    "NaN": lambda a: a["projection"].__setitem__((0, 0), np.nan),
    "infinity": lambda a: a["edges"].__setitem__(-1, np.inf),
    "limit 0": lambda a: a["limits"].__setitem__(1, 0),
    "negative scale": lambda a: a["second_scale"].__setitem__((0, 0), -1),
    "edges out of order": lambda a: a["edges"].__setitem__(0, a["edges"][-1] + 1),
    "share above 1": lambda a: a["shares"].__setitem__(3, 1.5),
    "latent that is none": lambda a: a["index"].__setitem__(-1, 6),
    "latent below 0": lambda a: a["index"].__setitem__(0, -1),
    "latents out of order": lambda a: a["index"].__setitem__(1, 0),
    "a row less": lambda a: a.__setitem__("offset", a["offset"][:-1]),
    "a limit more": lambda a: a.__setitem__("limits", np.ones(4, np.float32)),
    "another width": lambda a: a.__setitem__("projection", a["projection"][:, :-1]),
    "float64": lambda a: a.__setitem__("second", a["second"].astype(np.float64)),
    "text": lambda a: a.__setitem__("shares", np.full(15, "x")),
    "missing": lambda a: a.pop("mean_scale"),
}


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle[0], tmp_path / "copy.aeedge")


@pytest.mark.parametrize("change", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_reference_is_refused(copy, change):
    with np.load(copy / "calibration.npz") as archive:
        arrays = dict(archive)
    own = {name[len("fp32.drift.") :]: array for name, array in arrays.items() if ".drift." in name}
    change(own)
    kept = {name: array for name, array in arrays.items() if ".drift." not in name}
    replace_calibration_bytes(copy, _npz(kept | {f"fp32.drift.{name}": array for name, array in own.items()}))
    with aeedge.load(copy) as model:
        for use in (lambda: model.drift_reference, model.self_check):
            with pytest.raises(CorruptBundleError, match=r"calibration\.npz: .*; export the bundle again"):
                use()
        assert model.calibration.size  # what does not need it goes on


@pytest.mark.parametrize("sizes", [[6], [0, 0], [6, 7], [49, 6], [6, -1], "6", [6, 5], [5, 5], [6.5, 6], None])
def test_forged_sizes_are_refused(copy, sizes):
    reseal(copy, lambda document: document["calibration"]["drift_references"].__setitem__("fp32", sizes))
    with pytest.raises(CorruptBundleError, match="export the bundle again"):
        aeedge.load(copy).self_check()


def test_a_later_variant_is_ignored(copy):
    reseal(copy, lambda document: document["calibration"]["drift_references"].__setitem__("int4", [6, 6]))
    assert Bundle(copy).manifest.calibration.drift_references.keys() == {"fp32"}


def _npz(arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()
