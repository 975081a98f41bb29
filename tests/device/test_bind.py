"""bind: arrays of the caller's own, the same results as the methods, and refused as everywhere."""

import os
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import reference

import aeedge

DATA = Path(__file__).parent.parent / "data"
METHODS = ["encode", "denoise", "residual", "score"]
BUNDLES = ["bundle_v1", "bundle_v1_scorer", "bundle_v1_uint8", "bundle_v1_int8", "bundle_v1_scorer_int8"]


@pytest.mark.parametrize("what", METHODS)
@pytest.mark.parametrize("n", [1, 3, 100])
@pytest.mark.parametrize("name", BUNDLES)
def test_a_slot_gives_what_the_method_gives(name, n, what):
    with aeedge.load(DATA / name) as model:
        slot, rows = model.bind(n), reference.rows_of(model, 2 * n)
        assert (slot.input.shape, slot.input.dtype) == ((n, *model.input.shape), model.input.dtype)
        for part in (rows[:n], rows[n:], rows[:n]):
            slot.input[:] = part
            assert reference.same(model, what, getattr(slot, what)(), getattr(model, what)(part))


def test_a_slot_reuses_its_arrays():
    with aeedge.load(DATA / "bundle_v1") as model:
        slot, rows = model.bind(2), model.golden_rows()
        slot.input[:] = rows[:2]
        first = slot.encode()
        kept = first.copy()
        slot.input[:] = rows[2:4]
        assert slot.encode() is first
        assert not np.array_equal(first, kept)
        assert slot.score() is slot.score()


def test_methods_of_a_slot_share_its_input():
    with aeedge.load(DATA / "bundle_v1_scorer") as model:
        slot, rows = model.bind(), model.golden_rows()
        slot.input[0] = rows[5]
        np.testing.assert_allclose(slot.residual()[0], model.residual(rows[5]), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(slot.score()[0], model.score(rows[5]), rtol=1e-4)
        np.testing.assert_array_equal(slot.input[0], rows[5])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", METHODS)
@pytest.mark.parametrize("name", ["bundle_v1", "bundle_v1_scorer", "bundle_v1_saturating"])
def test_what_is_not_finite_is_named_or_marked(name, what, value):
    with aeedge.load(DATA / name) as model:
        rows = model.golden_rows()[:3]
        strict, lenient = model.bind(3), model.bind(3, invalid="propagate")
        for slot in (strict, lenient):
            slot.input[:] = rows
            slot.input[1, 2] = value
        with pytest.raises(aeedge.InputError, match=f"{what}: expected finite numbers, got {value} in row 1, column 2"):
            getattr(strict, what)()
        got = getattr(lenient, what)()
        assert np.isnan(got[1]).all()
        assert np.isfinite(got[[0, 2]]).all()
        for slot in (strict, lenient):
            slot.input[:] = rows
            assert reference.same(model, what, getattr(slot, what)(), getattr(model, what)(rows))


def test_a_closed_model_has_no_slots():
    with aeedge.load(DATA / "bundle_v1") as model:
        slot = model.bind()
        slot.encode()
    for call in (slot.encode, slot.encode, lambda: slot.score(), model.bind):
        with pytest.raises(aeedge.AeedgeError, match="the model was closed; load it again"):
            call()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_slot_survives_fork():
    with aeedge.load(DATA / "bundle_v1", threads=2) as model:
        slot, rows = model.bind(2), reference.rows_of(model, 3000)
        model.encode(rows)
        encode = slot.encode
        slot.input[:] = rows[:2]
        expected = encode().copy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 advises against forking with threads
            child = os.fork()
        if child == 0:
            signal.alarm(60)  # rather than hang
            os._exit(0 if all(np.array_equal(call(), expected) for call in (encode, slot.encode, encode)) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
def test_what_is_no_number_of_samples(n):
    with (
        aeedge.load(DATA / "bundle_v1") as model,
        pytest.raises(aeedge.InputError, match="bind: expected a whole number of samples of at least 1, got"),
    ):
        model.bind(n)


def test_another_policy_for_nan_is_refused():
    with (
        aeedge.load(DATA / "bundle_v1") as model,
        pytest.raises(aeedge.InputError, match="invalid: expected 'raise' or 'propagate', got 'ignore'"),
    ):
        model.bind(invalid="ignore")


def test_a_bundle_without_decoder_binds_its_encoder():
    with aeedge.load(DATA / "bundle_v1_encoder") as model:
        slot = model.bind()
        assert slot.encode().shape == (1, 1)
        with pytest.raises(aeedge.IncompatibleBundleError, match="needs a decoder"):
            slot.score()
