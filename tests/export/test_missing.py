"""Missing values: what a run knows of them is saved, exported, and done on the workstation as on the device."""

import json

import numpy as np
import pytest
from torch import nn

import aeedge
import aeedge_export.bundle
from aeedge.bundle.manifest import Missing
from aeedge.errors import InputError
from aeedge_export import Autoencoder, export_bundle

SMALL = {"latent": 2, "hidden": (8,), "epochs": 2, "random_state": 0}
NAMES, UNITS = tuple("abcdef"), ("mm", "s", "V", "A", "K", "1")
CODES = {"b": (-9999.0,), "2": (0.0, 77.0)}
DIALECT = {"delimiter": ";", "decimal": ",", "header": True}


@pytest.fixture(scope="module")
def median(rows):
    return Missing("median", CODES, tuple(np.median(rows, axis=0).tolist()))


@pytest.fixture(scope="module")
def run(rows, median):
    return Autoencoder(**SMALL).fit_rows(rows, features=NAMES, units=UNITS, missing=median, dialect=DIALECT)


def spoiled(rows, median):
    """Rows with values missing, and the same filled."""
    given, filled = rows[:50].astype(np.float64), rows[:50].astype(np.float64)
    for row, column, value in ((0, 0, np.nan), (3, 1, -9999.0), (4, 2, 77.0), (4, 5, np.nan), (9, 2, 0.0)):
        given[row, column], filled[row, column] = value, median.fill[column]
    return given, filled


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_from_fit_to_the_device(run, rows, median, tmp_path):
    run.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run")
    assert (again.run_.units, again.run_.missing, again.run_.dialect) == (UNITS, median, DIALECT)
    given, filled = spoiled(rows, median)
    expected = run.transform(filled)
    np.testing.assert_array_equal(again.transform(given), expected)
    np.testing.assert_array_equal(again.reconstruction_error(given), run.reconstruction_error(filled))
    manifest = again.export(tmp_path / "m.aeedge")
    assert (manifest.input.units, manifest.input.missing, manifest.input.dialect) == (UNITS, median, DIALECT)
    with aeedge.load(tmp_path / "m.aeedge", check="golden") as model:
        assert model.input == manifest.input
        np.testing.assert_array_equal(model.encode(given), model.encode(filled))
        np.testing.assert_array_equal(model.score(given), model.score(filled))
        np.testing.assert_allclose(model.encode(given), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_refused_where_they_cannot_be_filled(rows, median, tmp_path):
    ae = Autoencoder(**SMALL).fit_rows(rows, features=NAMES, missing=Missing("drop", CODES))
    given, filled = spoiled(rows, median)
    ae.export(tmp_path / "m.aeedge")
    with aeedge.load(tmp_path / "m.aeedge") as model:
        for call in (ae.transform, model.encode):
            with pytest.raises(InputError, match=r"row 3, column 1 \('b'\)"):
                call(np.vstack([filled[:3], given[3:4]]))
        np.testing.assert_allclose(model.encode(filled), ae.transform(filled), rtol=1e-4, atol=1e-4)


def test_a_run_of_before_knows_nothing(run, tmp_path):
    run.save(tmp_path / "run")
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    document["version"] = 1
    del document["sha256"]  # as runs of former versions
    for name in ("units", "missing", "dialect"):
        del document[name]
    (tmp_path / "run" / "run.json").write_text(json.dumps(document))
    found = Autoencoder.load(tmp_path / "run").run_
    assert (found.units, found.missing, found.dialect) == (None, None, None)


def plain(rows, path, **options):
    net = nn.Linear(6, 2), nn.Linear(2, 6)
    return export_bundle(encoder=net[0], decoder=net[1], path=path, example=rows, **options)


@pytest.mark.parametrize("policy", ["median", "drop"])
def test_codes_among_the_reference_inputs(policy, rows, tmp_path):
    """Zero, and the least and the most of each value, stand in every bundle's reference inputs."""
    low, high = rows.min(axis=0), rows.max(axis=0)
    codes = {str(i): (0.0, float(low[i]), float(high[i])) for i in range(6)}
    fill = tuple(np.median(rows, axis=0).tolist()) if policy == "median" else None
    plain(rows, tmp_path / "m.aeedge", missing=Missing(policy, codes, fill))
    with aeedge.load(tmp_path / "m.aeedge", check="golden") as model:
        golden = model.golden_rows()
        assert len(golden) == 16
        for column, values in zip(golden.T, codes.values()):
            assert not np.isin(column, np.array(values, np.float32)).any()


@pytest.mark.parametrize("policy", ["median", "drop"])
def test_example_and_calibration_have_none_left(policy, rows, median, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        aeedge_export.bundle, "_int8", lambda models, wanted, calibration, *rest: (seen.append(calibration), "")
    )
    given, filled = spoiled(rows, median)
    missing = median if policy == "median" else Missing("drop", CODES)
    expected = filled if policy == "median" else np.delete(filled, [0, 3, 4, 9], axis=0)
    plain(given, tmp_path / "m.aeedge", calibration=given, missing=missing, features=NAMES)
    np.testing.assert_array_equal(seen[0], expected)
    with aeedge.load(tmp_path / "m.aeedge", check="golden") as model:
        for column, values in zip(model.golden_rows()[6:].T, expected.T):
            assert np.isin(column, values.astype(np.float32)).all()


def test_nothing_is_written_where_nothing_is_known(rows, tmp_path):
    manifest = plain(rows, tmp_path / "m.aeedge")
    assert (manifest.input.missing, manifest.input.dialect) == (None, None)
    assert {"shape", "dtype", "features", "units"} == set(
        json.loads((tmp_path / "m.aeedge" / "manifest.json").read_text())["input"]
    )


def test_another_treatment_is_another_model(rows, median, tmp_path):
    net = nn.Linear(6, 2)
    ids = {
        export_bundle(encoder=net, path=tmp_path / f"{i}.aeedge", example=rows, missing=missing).id
        for i, missing in enumerate([None, Missing("drop", {}), Missing("median", {}, median.fill)])
    }
    assert len(ids) == 3


FAULTS = [
    (Missing("mean", {}), "the policy 'drop' or 'median'"),
    (Missing("median", {}), "a fill of 6 finite numbers"),
    (Missing("median", {}, (1.0, np.nan, 1.0, 1.0, 1.0, 1.0)), "a fill of 6 finite numbers"),
    (Missing("drop", {"z": (1.0,)}), "codes by name or position of a value, not 'z'"),
]


@pytest.mark.parametrize(("missing", "expected"), FAULTS)
def test_faults_are_found_before_training_and_before_anything_is_written(missing, expected, rows, tmp_path):
    with pytest.raises(InputError, match=f"missing: expected {expected}"):
        Autoencoder(**SMALL).fit_rows(rows, missing=missing, on_epoch=lambda state: pytest.fail("it was trained"))
    with pytest.raises(InputError, match=f"missing: expected {expected}"):
        plain(rows, tmp_path / "m.aeedge", missing=missing)
    assert not (tmp_path / "m.aeedge").exists()


def test_integers_cannot_be_missing(rows, tmp_path):
    pixels = np.arange(60, dtype=np.uint8).reshape(10, 6)
    with pytest.raises(InputError, match="missing: expected nothing: values of uint8 cannot be missing"):
        plain(pixels, tmp_path / "m.aeedge", missing=Missing("drop", {"0": (0.0,)}))
