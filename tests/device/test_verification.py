"""The comparison with recorded outputs: what a row may differ by, and what is said when it differs by more."""

import numpy as np
import pytest
from helpers.tampering import change_golden, reseal

import aeedge
from aeedge.bundle.manifest import ScoreSpec, Tolerance
from aeedge.bundle.reader import Bundle
from aeedge.verification import deviation, self_check

PLAIN = ScoreSpec("mse", np.array(1.0, np.float32))


@pytest.mark.parametrize(("rtol", "atol"), [(0.25, 0.0), (0.0, 0.5), (0.25, 0.5), (0.5, 0.25), (0.0, 0.0)])
@pytest.mark.parametrize("largest", [4.0, -4.0], ids=str)
def test_a_row_may_differ_by_atol_and_rtol_of_its_largest_number(rtol, atol, largest):
    recorded = np.array([[1.0, largest, 2.0]])
    allowed = atol + rtol * 4.0
    for error, ok in ((allowed, True), (-allowed, True), (allowed + 0.125, False), (-allowed - 0.125, False)):
        got = recorded + np.array([error, 0, 0])
        found = deviation("latent", np.zeros((1, 3), np.float32), got, recorded, Tolerance(rtol, atol), PLAIN)
        assert (found.error, found.allowed, found.ok) == (abs(error), allowed, ok)


def test_each_row_is_measured_by_its_own_largest_number():
    recorded, got = np.array([[1.0, 0.5], [100.0, 0.5]]), np.array([[1.0, 2.0], [100.0, 2.0]])
    found = deviation("latent", np.zeros((2, 2), np.float32), got, recorded, Tolerance(0.5, 0.0), PLAIN)
    assert found == ("latent", 0, 1.5, 0.5)


def test_the_row_nearest_to_its_limit_is_the_one_that_is_told():
    recorded = np.array([[1.0], [100.0], [10.0]])
    got = recorded + np.array([[0.1], [1.0], [5.0]])
    found = deviation("latent", np.zeros((3, 1), np.float32), got, recorded, Tolerance(0.5, 0.0), PLAIN)
    assert (found.row, found.ok) == (2, True)


def test_reconstructions_are_measured_in_units_of_the_scale_whatever_their_mean():
    rows = np.full((1, 2), 1000, np.float32)
    spec = ScoreSpec("mse", np.array([10.0, 0.1], np.float32))
    recorded = rows + np.array([[1.0, 0.0]], np.float32)  # a residual of 0.1 scales
    for error, ok in ((0.004, True), (0.25, False)):
        got = recorded + np.array([[0.0, error]], np.float32)
        found = deviation("reconstruction", rows, got, recorded, Tolerance(0.5, 0.0), spec)
        assert found.allowed == pytest.approx(0.05)
        assert found.error == pytest.approx(error * 10, rel=1e-2)
        assert found.ok is ok


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_result_that_is_not_finite_differs_unless_it_was_recorded(bad):
    recorded = np.array([[1.0, 2.0], [3.0, 4.0]])
    got = recorded.copy()
    got[1, 0] = bad
    rows, tolerance = np.zeros((2, 2), np.float32), Tolerance(1.0, 1.0)
    for a, b in ((got, recorded), (recorded, got)):
        found = deviation("latent", rows, a, b, tolerance, PLAIN)
        assert (found.row, found.error, found.ok) == (1, np.inf, False)
    assert deviation("latent", rows, got, got, tolerance, PLAIN).error == 0


def test_what_is_not_finite_in_the_recorded_row_allows_nothing_for_the_rest_of_it():
    recorded, got = np.array([[np.inf, 0.5]]), np.array([[np.inf, 0.8]])
    found = deviation("latent", np.zeros((1, 2), np.float32), got, recorded, Tolerance(0.5, 0.0), PLAIN)
    assert (found.allowed, found.ok) == (0.25, False)


@pytest.mark.parametrize("wrong", ["one", "all"])
def test_samples_alone_and_all_at_once_are_both_compared(bundle, wrong):
    """Also where the other way is off by more, but less than its row allows."""
    reseal(bundle, lambda d: d["variants"]["fp32"]["tolerance"].update(latent={"rtol": 1e-2, "atol": 0.0}))
    with np.load(bundle / "golden.npz") as golden:
        rows, recorded = golden["input"], golden["fp32.latent"]
    size = np.abs(recorded).max(axis=1)
    small, large = int(np.argmin(size)), int(np.argmax(size))
    assert 2 * size[small] < 0.5 * size[large]

    def call(x):
        found = recorded[[int(np.flatnonzero((rows == row).all(axis=1))[0]) for row in x]].copy()
        row = small if (len(x) == 1) == (wrong == "one") else large
        found[np.abs(found).max(axis=1) == size[row]] += 1e-2 * size[row] * (2.0 if row == small else 0.5)
        return found

    with pytest.raises(aeedge.VerificationError, match=f"latent of row {small} differs"):
        self_check(Bundle(bundle), "fp32", {"latent": call}, None)


@pytest.mark.parametrize("what", ["latent", "reconstruction", "score"])
@pytest.mark.parametrize("by", ["rtol", "atol"])
def test_the_tolerances_of_the_manifest_decide_about_golden_rows(bundle, what, by):
    """Half of what is allowed is accepted, and twice as much is not, for either tolerance alone."""
    row = 5
    with aeedge.load(bundle) as model, np.load(bundle / "golden.npz") as golden:
        rows, recorded, scale = golden["input"], golden[f"fp32.{what}"], model.manifest.score.scale
    compared = np.abs((recorded - rows) / scale if what == "reconstruction" else recorded)
    allowed = 1e-2 * float(compared[row].max()) if by == "rtol" else 1e-2 * float(compared.max())
    tolerance = {"rtol": 1e-2, "atol": 0.0} if by == "rtol" else {"rtol": 0.0, "atol": allowed}
    reseal(bundle, lambda d: d["variants"]["fp32"]["tolerance"].update({what: tolerance}))
    place = (row,) if what == "score" else (row, int(np.argmin(compared[row])))
    unit = float(np.broadcast_to(scale, rows.shape)[place]) if what == "reconstruction" else 1.0
    change_golden(bundle, f"fp32.{what}", place, 0.5 * allowed * unit)
    aeedge.load(bundle, check="golden").close()
    change_golden(bundle, f"fp32.{what}", place, 1.5 * allowed * unit)
    with pytest.raises(aeedge.VerificationError, match=rf"{what} of row {row} differs"):
        aeedge.load(bundle, check="golden")
