"""Weights and metadata of ONNX files are replaced in their place, and nowhere else."""

import numpy as np
import pytest
from helpers import forging
from helpers.onnx_bytes import message, number, tensor

from aeedge.bundle.onnx_editing import edited, initializers
from aeedge.bundle.onnx_proto import inspect

OLD, NEW = "ab" * 32, "cd" * 32
WEIGHTS = np.random.default_rng(0).normal(size=forging.WEIGHTS.shape).astype(np.float32)


def decoys():
    """A graph whose names and texts hold the id, the key, and the bytes of the weights, as other fields."""
    more = message(10, f"aeedge.id {OLD} w") + message(5, tensor("w2", forging.WEIGHTS))
    before = message(2, OLD) + message(3, "aeedge.id")
    return forging.model(forging.gemm(more=more), OLD, before=before)


def test_what_is_named_is_replaced_and_the_same_bytes_elsewhere_are_not():
    data = decoys()
    found = edited(data, {"aeedge.id": NEW}, {"w": WEIGHTS})
    assert len(found) == len(data)
    np.testing.assert_array_equal(initializers(found)["w"], WEIGHTS)
    np.testing.assert_array_equal(initializers(found)["w2"], forging.WEIGHTS)
    assert inspect(found).metadata == {"aeedge.id": NEW, "aeedge.role": "encoder"}
    assert found.count(OLD.encode()) == data.count(OLD.encode()) - 1 == 2
    assert edited(found, {"aeedge.id": OLD}, {"w": forging.WEIGHTS}) == data  # nothing else was touched


def test_nothing_to_replace_gives_the_same_bytes():
    assert edited(decoys(), {}, {}) == decoys()


FAULTS = {
    "no such key": ({"aeedge.name": "x"}, {}),
    "another length of a text": ({"aeedge.id": NEW + "0"}, {}),
    "more bytes than characters": ({"aeedge.id": NEW[:-1] + "é"}, {}),
    "no such weights": ({}, {"v": WEIGHTS}),
    "another shape": ({}, {"w": WEIGHTS[:-1]}),
    "the same number of values": ({}, {"w": WEIGHTS.T}),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_does_not_fit_is_refused(case):
    with pytest.raises(ValueError, match=r"expected one|of another type or shape"):
        edited(decoys(), *FAULTS[case])


def test_names_that_are_there_twice_and_numbers_that_are_no_bytes_are_refused():
    twice = forging.model(forging.gemm(more=message(5, tensor("w", forging.WEIGHTS))), OLD)
    with pytest.raises(ValueError, match="got 2 of it"):
        edited(twice, {}, {"w": WEIGHTS})
    again = forging.model(forging.gemm(), OLD, after=message(14, message(1, "aeedge.id") + message(2, OLD)))
    with pytest.raises(ValueError, match="got 2 of it"):
        edited(again, {"aeedge.id": NEW}, {})
    field = number(1, 12) + number(1, 3) + number(2, 1) + message(8, "w") + message(4, forging.WEIGHTS.tobytes())
    listed = forging.model(forging.gemm(weights=field), OLD)
    assert "w" not in initializers(listed)
    with pytest.raises(ValueError, match="'w'"):
        edited(listed, {}, {"w": WEIGHTS})


def test_integers_of_the_same_size_are_refused():
    field = number(1, 12) + number(1, 3) + number(2, 6) + message(8, "w") + message(9, forging.WEIGHTS.tobytes())
    with pytest.raises(ValueError, match="of another type or shape"):
        edited(forging.model(forging.gemm(weights=field), OLD), {}, {"w": WEIGHTS})


@pytest.mark.parametrize("family", [forging.external])
def test_files_that_are_no_bundle_s_are_refused(family):
    for data in family(OLD).values():
        with pytest.raises(ValueError, match=r"."):
            edited(data, {"aeedge.id": NEW}, {})
