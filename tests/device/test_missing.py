"""Missing values: where the manifest says how, results are those of the filled rows; nothing missing goes unnoticed."""

import json
import pickle
import shutil

import numpy as np
import pytest
from helpers import tampering
from helpers.strategies import with_sentinels
from hypothesis import given, settings
from hypothesis import strategies as st

import aeedge
from aeedge.bundle.manifest import InputSpec, Missing, missing_fault
from aeedge.bundle.manifest_reading import read_manifest
from aeedge.runtime.missing import fill_missing, missing_rows, missing_values

METHODS = ["encode", "denoise", "residual", "score"]
FILL = [float(v) for v in np.linspace(-50, 1000, 12)]
CODES = {"s2": [-9999.0, 99.5], "7": [0.0], "s11": [1e20]}  # by name and by position
AT = {2: [-9999.0, 99.5], 7: [0.0], 11: [1e20]}


def opened(bundle, **missing):
    tampering.reseal(bundle, lambda d: d["input"].update(missing=missing))
    return aeedge.load(bundle, threads=2)


def spoiled(rows, codes, nan=True):
    """Rows with missing values in about a third of them, and where those are."""
    rng = np.random.default_rng(1)
    rows, where = rows.copy(), np.zeros(rows.shape, bool)
    for row in range(0, len(rows), 3):
        position = int(rng.choice(sorted(codes))) if codes else int(rng.integers(12))
        value = np.nan if nan and (not codes or row % 2) else rng.choice(codes[position])
        rows[row, position], where[row, position] = value, True
    return rows, where


CASES = {"NaN": ({}, {}), "codes": (CODES, AT)}


@pytest.mark.parametrize("what", METHODS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sentinels", ["none", "first", "all"])
def test_results_are_those_of_the_filled_rows(sentinels, case, what, bundle, tmp_path, model, rows):
    codes, at = CASES[case]
    path = bundle if sentinels == "none" else with_sentinels(bundle, tmp_path / "s.aeedge", sentinels=sentinels)
    given, where = spoiled(rows, at)
    filled = np.where(where, np.array(FILL, np.float32), given)
    assert np.isfinite(filled).all()
    with opened(path, policy="median", fill=FILL, codes=codes) as knowing:
        call, expected = getattr(knowing, what), getattr(model, what)
        for _ in range(2):  # the first call opens sessions, the second would take the fast path
            for n in (1, 5, 300, 3000):
                before = given[:n].copy()
                np.testing.assert_allclose(call(given[:n]), expected(filled[:n]), rtol=1e-5, atol=1e-4)
                np.testing.assert_array_equal(given[:n], before)  # the caller's array stays as it is
            np.testing.assert_array_equal(call(given[0]), expected(filled[0]))
        out = np.empty_like(expected(filled))
        for given_as in (given.astype(np.float64), np.asfortranarray(given), given.tolist()):
            np.testing.assert_allclose(call(given_as, out=out), expected(filled), rtol=1e-5, atol=1e-4)
        parts = knowing.map_iter(what, iter([given[:7], given[7:50]]))
        np.testing.assert_allclose(np.concatenate(list(parts)), expected(filled[:50]), rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(call(given, invalid="propagate"), expected(filled), rtol=1e-5, atol=1e-4)
        bound = knowing.bind(4)
        for start in (0, 4):
            bound.input[...] = given[start : start + 4]
            found = getattr(bound, what)()
            np.testing.assert_allclose(found, expected(filled[start : start + 4]), rtol=1e-5, atol=1e-4)
            np.testing.assert_array_equal(bound.input, given[start : start + 4])


def test_nulls_of_frames_are_filled(bundle, model, rows):
    columns = {f"s{i}": rows[:20, i].tolist() for i in reversed(range(12))}
    columns["s4"][3] = None
    filled = rows[:20].copy()
    filled[3, 4] = FILL[4]
    with opened(bundle, policy="median", fill=FILL, codes={}) as knowing:
        np.testing.assert_array_equal(knowing.encode(columns), model.encode(filled))


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("policy", [{"policy": "median", "fill": FILL}, {"policy": "drop"}])
def test_infinity_is_not_missing(policy, value, bundle, rows):
    given = rows[:20].copy()
    given[5, 2] = value
    with opened(bundle, **policy, codes=CODES) as knowing:
        with pytest.raises(aeedge.InputError, match=r"got -?inf in row 5, column 2"):
            knowing.encode(given)
        assert np.isnan(knowing.encode(given, invalid="propagate")[5]).all()


@pytest.mark.parametrize("what", METHODS)
def test_what_cannot_be_filled_is_refused_and_named(what, bundle, model, rows):
    given = rows[:20].copy()
    given[5, 2] = 99.5
    given[6, 3] = 99.5  # a code of another column
    with opened(bundle, policy="drop", codes=CODES) as knowing:
        for _ in range(2):
            for x in (given, given.astype(np.float64), given[5:6], given[5]):
                place = "row 5" if len(x) == 20 else "row 0"
                with pytest.raises(
                    aeedge.InputError, match=f"got 99.5, the code of a missing value, in {place}, col.* 2"
                ):
                    getattr(knowing, what)(x)
        found = getattr(knowing, what)(given, invalid="propagate")
        assert np.isnan(found[5]).all()
        others = np.arange(20) != 5
        np.testing.assert_allclose(found[others], getattr(model, what)(given)[others], rtol=1e-5, atol=1e-4)
        slot = knowing.bind(20)
        slot.input[...] = given
        with pytest.raises(aeedge.InputError, match=r"99\.5, the code of a missing value, in row 5"):
            getattr(slot, what)()


def test_latents_have_no_codes(bundle, model, rows):
    latents = model.encode(rows[:20])
    codes = {str(i): [float(latents[0, i])] for i in range(3)}
    with opened(bundle, policy="drop", codes=codes) as knowing:
        np.testing.assert_array_equal(knowing.decode(latents), model.decode(latents))


def test_other_processes_know_too(bundle, model, rows):
    given, where = spoiled(rows[:30], {2: AT[2]})
    filled = np.where(where, np.array(FILL, np.float32), given)
    with opened(bundle, policy="median", fill=FILL, codes={"s2": CODES["s2"]}) as knowing:
        assert all(d.ok for d in knowing.self_check())
        with pickle.loads(pickle.dumps(knowing)) as again:
            np.testing.assert_array_equal(again.encode(given), model.encode(filled))


SPEC = InputSpec((2, 3), "float32", missing=Missing("median", {"4": (-1.0, 7.0)}, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)))


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 1.5, -1.0, 7.0, np.nan, np.inf]), min_size=6, max_size=6), min_size=1, max_size=9
    ),
    st.sampled_from(["float16", "float32", "float64"]),
)
def test_masks_and_filled_rows_value_by_value(values, dtype):
    block = np.array(values, dtype).reshape(-1, 2, 3)
    flat = block.reshape(-1, 6)
    expected = np.array([[x != x or (i == 4 and x in (-1, 7)) for i, x in enumerate(row)] for row in flat])
    before = block.copy()
    filled, count = fill_missing(block, SPEC)
    np.testing.assert_array_equal(missing_values(block, SPEC).reshape(-1, 6), expected)
    np.testing.assert_array_equal(missing_rows(block, SPEC), expected.any(axis=1))
    np.testing.assert_array_equal(filled.reshape(-1, 6), np.where(expected, np.arange(1, 7), flat).astype(dtype))
    assert count == expected.sum()
    assert (filled is block) == (count == 0)
    np.testing.assert_array_equal(block, before)


def test_integers_have_codes():
    block = np.array([[[0, 1, 2], [3, -1, 5]]] * 2)
    block[1, 1, 1] = 8
    filled, count = fill_missing(block, SPEC)
    assert (count, filled[0, 1, 1], filled[1, 1, 1]) == (1, 5.0, 8.0)
    assert missing_rows(block, SPEC).tolist() == [True, False]


def test_a_code_is_compared_in_the_precision_of_the_rows():
    spec = InputSpec((1,), "float32", missing=Missing("drop", {"0": (-999.9, 1e300)}))
    for dtype in (np.float32, np.float64):
        assert missing_rows(np.array([[-999.9], [-999.0]], dtype), spec).tolist() == [True, False]


# --- the manifest


def test_both_keys_survive_writing_and_reading(bundle):
    missing = {"policy": "median", "fill": FILL, "codes": CODES}
    dialect = {"delimiter": ";", "decimal": ",", "header": True, "columns": ["a", None]}
    tampering.reseal(bundle, lambda d: d["input"].update(missing=missing, dialect=dialect))
    found = read_manifest((bundle / "manifest.json").read_bytes())
    assert found.input.missing == Missing("median", {k: tuple(v) for k, v in CODES.items()}, tuple(FILL))
    assert found.input.dialect == dialect
    again = read_manifest(found.dumps().encode())
    assert again.input == found.input
    assert json.loads(found.dumps())["input"]["missing"] == missing


def test_neither_key_is_written_where_there_is_nothing_to_say(bundle):
    data = (bundle / "manifest.json").read_bytes()
    assert read_manifest(data).dumps().encode() == data
    assert b'"missing"' not in data
    assert b'"dialect"' not in data


GOOD = {"policy": "median", "fill": FILL, "codes": CODES}
FAULTS = [
    ({"policy": "mean"}, "the policy 'drop' or 'median'"),
    ({"policy": 3}, "a string"),
    ({"policy": None}, "a string"),
    ({"policy": "drop"}, "no fill with the policy 'drop'"),
    ({"fill": None}, "a fill of 12 finite numbers"),
    ({"fill": FILL[1:]}, "a fill of 12 finite numbers"),
    ({"fill": [*FILL[1:], "1"]}, "a number"),
    ({"fill": 3}, "a list"),
    ({"codes": {"s12": [1.0]}}, "codes by name or position of a value, not 's12'"),
    ({"codes": {"12": [1.0]}}, "codes by name or position of a value, not '12'"),
    ({"codes": {"s1": []}}, "one or more finite numbers as the codes of 's1'"),
    ({"codes": {"s1": 5}}, "a list"),
    ({"codes": {"s1": [True]}}, "a number"),
    ({"codes": {"s1": [FILL[1]]}}, "a fill of 's1' that is not one of its codes"),
    ({"codes": [1]}, "an object"),
]


@pytest.mark.parametrize(("change", "expected"), FAULTS)
def test_a_fault_is_named(change, expected, bundle):
    tampering.reseal(bundle, lambda d: d["input"].update(missing=GOOD | change))
    with pytest.raises(aeedge.BundleError, match=r"manifest.json: expected .*\$\.input\.missing") as raised:
        aeedge.load(bundle)
    assert f"expected {expected}" in str(raised.value)


def test_faults_that_json_cannot_hold():
    assert "finite" in missing_fault(InputSpec((1,), "float32", missing=Missing("median", {}, (np.nan,))))
    assert "finite" in missing_fault(InputSpec((1,), "float32", missing=Missing("drop", {"0": (np.inf,)})))
    assert "uint8" in missing_fault(InputSpec((1,), "uint8", missing=Missing("drop", {"0": (0,)})))
    assert missing_fault(InputSpec((1,), "uint8")) == ""
    assert missing_fault(SPEC) == ""


def test_integers_cannot_be_missing(pixels, tmp_path):
    bundle = shutil.copytree(pixels.path, tmp_path / "p.aeedge")
    tampering.reseal(bundle, lambda d: d["input"].update(missing={"policy": "drop", "codes": {"0": [0]}}))
    with pytest.raises(aeedge.BundleError, match="values of uint8 cannot be missing"):
        aeedge.load(bundle)


@pytest.mark.parametrize("dialect", [3, [], "csv"])
def test_a_dialect_is_an_object(dialect, bundle):
    tampering.reseal(bundle, lambda d: d["input"].update(dialect=dialect))
    with pytest.raises(aeedge.BundleError, match=r"an object, got .* at \$\.input\.dialect"):
        aeedge.load(bundle)
