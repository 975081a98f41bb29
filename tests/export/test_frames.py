"""The estimator and the exporter take frames by name, as the device does."""

import numpy as np
import pytest
import torch
from torch import nn

import aeedge
import aeedge_export.bundle
from aeedge.errors import InputError
from aeedge_export import Autoencoder, export_bundle

SMALL = {"latent": 2, "hidden": (8,), "epochs": 2, "random_state": 0}
NAMES = tuple("abcdef")
ORDER = "dafceb"


def of_arrow(columns):
    return pytest.importorskip("pyarrow").table(columns)


def of_pandas(columns):
    return pytest.importorskip("pandas").DataFrame(columns)


def of_polars(columns):
    return pytest.importorskip("polars").DataFrame(columns)


def of_polars_lazy(columns):
    return of_polars(columns).lazy()


FRAMES = [dict, of_arrow, of_pandas, of_polars, of_polars_lazy]


def columns_of(rows, names=NAMES, dtype=np.float32):
    return {name: rows[:, NAMES.index(name)].astype(dtype) for name in names}


@pytest.fixture(scope="module")
def named(rows):
    return Autoencoder(**SMALL).fit_rows(rows, features=NAMES)


@pytest.fixture(scope="module")
def exported(named, tmp_path_factory):
    path = tmp_path_factory.mktemp("named") / "m.aeedge"
    named.export(path)
    with aeedge.load(path) as model:
        yield model


@pytest.mark.parametrize("frame", FRAMES)
def test_fitted_to_a_frame_as_to_its_array(frame, named, rows):
    found = Autoencoder(**SMALL).fit(frame(columns_of(rows)))
    assert tuple(found.feature_names_in_) == NAMES
    for name, weights in named.network_.state_dict().items():
        assert torch.equal(weights, found.network_.state_dict()[name])


@pytest.mark.parametrize("frame", FRAMES)
def test_columns_in_any_order(frame, named, exported, rows):
    turned = frame(columns_of(rows, ORDER) | {"label": np.array(["x"] * len(rows))})
    plain = frame(columns_of(rows))
    np.testing.assert_array_equal(named.transform(turned), named.transform(plain))
    np.testing.assert_array_equal(named.transform(turned), named.run_.encode(rows))
    np.testing.assert_array_equal(named.reconstruction_error(turned), named.run_.reconstruction_error(rows))
    again = Autoencoder(**SMALL).fit(frame(columns_of(rows, ORDER)))
    assert tuple(again.feature_names_in_) == tuple(ORDER)
    resumed = Autoencoder(**SMALL).fit_rows(rows, features=NAMES).resume(turned, epochs=3)
    assert resumed.n_iter_ == 3
    np.testing.assert_array_equal(exported.encode(turned), exported.encode(rows))
    np.testing.assert_allclose(exported.encode(turned), named.transform(turned), rtol=1e-4, atol=1e-4)


def test_rows_in_portions(rows):
    ae = Autoencoder(**SMALL)
    for start in (0, 200):
        part = rows[start : start + 200]
        ae.partial_fit(columns_of(part, NAMES if start == 0 else ORDER))
    other = Autoencoder(**SMALL)
    for start in (0, 200):
        other.partial_fit(columns_of(rows[start : start + 200]))
    np.testing.assert_array_equal(ae.run_.encode(rows), other.run_.encode(rows))


@pytest.mark.parametrize("frame", FRAMES)
def test_what_does_not_fit_is_refused_in_one_sentence(frame, named, rows):
    columns = columns_of(rows)
    text = frame(columns | {"c": np.array(["x"] * len(rows))})
    holes = frame(columns | {"c": [None, *rows[1:, 2].tolist()]})
    wrong = {
        "expected a column 'c', got 'a', 'b'": (named.transform, frame({n: columns[n] for n in "abdef"})),
        "none of the model's features": (named.transform, frame({n.upper(): columns[n] for n in NAMES})),
        "column 'c': expected numbers": (named.transform, text),
        "X: column 'c': expected numbers": (Autoencoder(**SMALL).fit, text),
        "got nan in row 0, column 2 ('c')": (named.transform, holes),
        "expected finite numbers that fit float32, got nan in row 0, column 2 ('c')": (
            Autoencoder(**SMALL).fit,
            holes,
        ),
    }
    for message, (call, given) in wrong.items():
        with pytest.raises(InputError) as raised:
            call(given)
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_name_twice_is_refused(rows):
    table = of_arrow(columns_of(rows))
    with pytest.raises(InputError, match="expected each column name once, got 'b' twice"):
        Autoencoder(**SMALL).fit(table.append_column("b", table.column("b")))


@pytest.mark.parametrize("frame", FRAMES)
def test_a_column_of_lists(frame, rows):
    given = frame({"v": rows[:, :5].tolist(), "t": rows[:, 5]})
    ae = Autoencoder(**SMALL).fit(given)
    assert tuple(ae.feature_names_in_) == ("v[0]", "v[1]", "v[2]", "v[3]", "v[4]", "t")
    assert ae.run_.features == tuple(ae.feature_names_in_)  # what is exported
    for either in (given, frame({"t": rows[:, 5], "v": rows[:, :5].tolist()})):
        np.testing.assert_array_equal(ae.transform(either), ae.run_.encode(rows))


@pytest.mark.parametrize("frame", [of_arrow, of_pandas, of_polars])
def test_lists_of_unequal_length_are_refused_with_the_row(frame):
    with pytest.raises(InputError, match="column 'v': expected lists of 2 values, as in the first row, got 1 in row 1"):
        Autoencoder(**SMALL).fit(frame({"v": [[1.0, 2.0], [3.0]]}))


def test_labels_that_count_are_no_names(rows):
    frame = of_pandas(rows)
    ae = Autoencoder(**SMALL).fit(frame)
    assert not hasattr(ae, "feature_names_in_")
    np.testing.assert_array_equal(ae.transform(frame), ae.transform(rows))
    waves = frame.set_axis([400, 410, 420, 430, 440, 450], axis=1)
    ae = Autoencoder(**SMALL).fit(waves)
    assert tuple(ae.feature_names_in_) == ("400", "410", "420", "430", "440", "450")
    np.testing.assert_array_equal(ae.transform(waves[[450, 400, 420, 410, 430, 440]]), ae.run_.encode(rows))


def read_only(rows):
    rows = rows.copy()
    rows.flags.writeable = False
    return rows


def test_arrays_that_may_not_be_written_to(rows, tmp_path):
    """As pandas hands them out, and files that are mapped: torch warns of them, and warnings are errors here."""
    rows = (rows / rows.std(axis=0)).astype(np.float32)
    given = read_only(rows)
    ae = Autoencoder(**SMALL, scaling="none").fit(given)
    np.testing.assert_array_equal(ae.transform(given), ae.transform(rows))
    ae.evaluate(given)
    net = nn.Linear(6, 2), nn.Linear(2, 6)
    export_bundle(encoder=net[0], decoder=net[1], path=tmp_path / "m.aeedge", example=given)
    swapped = rows.astype(rows.dtype.newbyteorder())
    export_bundle(encoder=net[0], decoder=net[1], path=tmp_path / "s.aeedge", example=swapped)
    kinds = [aeedge.load(tmp_path / name).golden_rows() for name in ("m.aeedge", "s.aeedge")]
    np.testing.assert_array_equal(*kinds)


@pytest.mark.parametrize("frame", [dict, of_polars_lazy])
def test_example_and_calibration_by_name(frame, rows, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        aeedge_export.bundle, "_int8", lambda models, wanted, calibration, *rest: (seen.append(calibration), "")
    )
    given = frame(columns_of(rows, ORDER))
    export_bundle(encoder=nn.Linear(6, 2), path=tmp_path / "m.aeedge", example=given, calibration=given, features=NAMES)
    np.testing.assert_array_equal(seen[0], rows)
    with aeedge.load(tmp_path / "m.aeedge") as model:
        assert np.isin(model.golden_rows()[6:], rows).all(axis=0).all()
        for column, values in zip(model.golden_rows()[6:].T, rows.T):
            assert np.isin(column, values).all()
