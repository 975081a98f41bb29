"""Frames are taken by name: in whatever order their columns come, results are those of the array in order."""

import datetime
import decimal
import warnings

import numpy as np
import pytest
from helpers import tampering
from helpers.strategies import Subclass

import aeedge
from aeedge.runtime import frames

METHODS = ["encode", "denoise", "residual", "score"]


def of_dict(columns):
    return dict(columns)


def of_records(columns):
    found = np.empty(len(next(iter(columns.values()))), [(name, np.asarray(v).dtype) for name, v in columns.items()])
    for name, values in columns.items():
        found[name] = values
    return found


def of_pandas(columns):
    return pytest.importorskip("pandas").DataFrame(columns)


def of_pandas_nullable(columns):
    return of_pandas(columns).convert_dtypes()


def of_pandas_arrow(columns):
    pytest.importorskip("pyarrow")
    return of_pandas(columns).convert_dtypes(dtype_backend="pyarrow")


def of_polars(columns):
    return pytest.importorskip("polars").DataFrame(columns)


def of_polars_lazy(columns):
    return of_polars(columns).lazy()


def of_arrow(columns):
    return pytest.importorskip("pyarrow").table(columns)


def of_arrow_batch(columns):
    return pytest.importorskip("pyarrow").RecordBatch.from_pydict(columns)


def of_arrow_chunks(columns):
    table = of_arrow(columns)
    return pytest.importorskip("pyarrow").concat_tables([table.slice(0, 3), table.slice(3)])


class Stream:
    """A table of some package, of which nothing is known but Arrow's C stream."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


class Interchange:
    """The same with the interchange protocol."""

    def __init__(self, table):
        self._table = table

    def __dataframe__(self, nan_as_null=False, allow_copy=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pandas and polars have deprecated it
            return self._table.__dataframe__(allow_copy=allow_copy)


class Columned:
    """The same with names of columns, and columns by name, as lists."""

    def __init__(self, columns):
        self._columns = columns

    @property
    def columns(self):
        return tuple(self._columns)

    def __getitem__(self, name):
        return [value.item() if isinstance(value, np.generic) else value for value in self._columns[name]]


def of_stream(columns):
    return Stream(of_arrow_chunks(columns))


def of_polars_stream(columns):
    return Stream(of_polars(columns))


def of_stream_slice(columns):
    table, concat = of_arrow(columns), pytest.importorskip("pyarrow").concat_tables
    return Stream(concat([table] * 3).combine_chunks().slice(len(table), len(table)))


def of_interchange(columns):
    return Interchange(of_arrow_chunks(columns))


def of_pandas_interchange(columns):
    return Interchange(of_pandas(columns))


FRAMES = [
    of_dict,
    of_records,
    of_pandas,
    of_pandas_nullable,
    of_pandas_arrow,
    of_polars,
    of_polars_lazy,
    of_arrow,
    of_arrow_batch,
    of_arrow_chunks,
    of_stream,
    of_polars_stream,
    of_stream_slice,
    of_interchange,
    of_pandas_interchange,
    Columned,
]
WITH_NULLS = [frame for frame in FRAMES if frame is not of_records]  # numpy's structured arrays know no nothing
INTERCHANGES = (of_interchange, of_pandas_interchange)  # which know no lists, no decimals
WITH_LISTS = [frame for frame in WITH_NULLS if frame not in INTERCHANGES]


def columns_of(model, rows, order=None):
    features = model.input.features
    names = features if order is None else [features[i] for i in order]
    return {name: rows[:, features.index(name)] for name in names}


@pytest.fixture
def some(rows):
    return rows[:40]


@pytest.mark.parametrize("what", METHODS)
@pytest.mark.parametrize("frame", FRAMES)
def test_columns_in_any_order_and_of_any_float(frame, what, model, some):
    order = np.random.default_rng(0).permutation(12)
    columns = columns_of(model, some, order)
    columns[model.input.features[3]] = columns[model.input.features[3]].astype(np.float64)
    columns["label"] = np.array(["x"] * len(some))
    expected = getattr(model, what)(some)
    np.testing.assert_array_equal(getattr(model, what)(frame(columns)), expected)
    out = np.empty_like(expected)
    assert getattr(model, what)(frame(columns), out=out) is out
    np.testing.assert_array_equal(out, expected)
    batches = [frame({name: v[a:b] for name, v in columns.items()}) for a, b in ((0, 7), (7, 40))]
    for iterable in (batches, iter(batches)):
        parts = list(model.map_iter(what, iterable))
        np.testing.assert_allclose(np.concatenate(parts), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("frame", FRAMES)
def test_many_rows(frame, model, rows):
    np.testing.assert_array_equal(model.encode(frame(columns_of(model, rows, range(11, -1, -1)))), model.encode(rows))


@pytest.mark.parametrize("frame", FRAMES)
def test_one_row_of_a_frame_gives_one_result(frame, model, some):
    found = model.encode(frame(columns_of(model, some[:1], range(11, -1, -1))))
    np.testing.assert_array_equal(found, model.encode(some[:1]))


def test_a_single_sample_by_name(model, some):
    columns = columns_of(model, some, range(11, -1, -1))
    sample = {name: values[0] for name, values in columns.items()} | {"label": "x"}
    expected = model.encode(some[0])
    assert model.encode(sample).shape == (model.latent_size,)
    np.testing.assert_array_equal(model.encode(sample), expected)
    np.testing.assert_array_equal(model.encode(of_records(columns)[0]), expected)
    assert model.score(sample).shape == ()
    with pytest.raises(aeedge.InputError, match="got nan in row 0, column 2 \\('s2'\\)"):
        model.encode(sample | {"s2": None})


def test_a_series_is_a_single_sample(model, some):
    frame = of_pandas(columns_of(model, some, range(11, -1, -1)))
    expected = model.encode(some[0])
    np.testing.assert_array_equal(model.encode(frame.iloc[0]), expected)
    np.testing.assert_array_equal(model.encode(frame.assign(label="x").iloc[0]), expected)
    with pytest.raises(aeedge.InputError, match="none of the model's features"):
        model.encode(type(frame.iloc[0])(some[0]))


@pytest.mark.parametrize("frame", FRAMES)
def test_names_that_do_not_fit_are_refused(frame, model, some):
    columns = columns_of(model, some)
    without = {name: v for name, v in columns.items() if name not in ("s3", "s7")}
    with pytest.raises(aeedge.InputError, match=r"expected a column 's3', 's7', got 's0', 's1', .*rename"):
        model.encode(frame(without))
    with pytest.raises(aeedge.InputError, match=r"none of the model's features; .*pass an array"):
        model.encode(frame({name.upper(): v for name, v in columns.items()}))


def test_a_name_that_is_there_twice_is_refused_where_it_matters(model, some):
    frame = of_pandas(columns_of(model, some))
    pandas = pytest.importorskip("pandas")
    with pytest.raises(aeedge.InputError, match="expected one column 's1', got 2"):
        model.encode(pandas.concat([frame, frame[["s1"]]], axis=1))
    others = pandas.concat([frame, frame[["s1", "s2"]].set_axis(["x", "x"], axis=1)], axis=1)
    np.testing.assert_array_equal(model.encode(others), model.encode(some))


def test_a_name_that_is_there_twice_in_a_table(model, some):
    table = of_arrow(columns_of(model, some))
    with pytest.raises(aeedge.InputError, match="expected one column 's1', got 2"):
        model.encode(table.append_column("s1", table.column("s1")))


NOT_NUMBERS = {
    "text": ["1.5"] * 40,
    "dates": np.full(40, "2026-01-01", "datetime64[ms]"),
    "durations": np.full(40, 5, "timedelta64[ms]"),
    "moments": [datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)] * 40,
}


@pytest.mark.parametrize("kind", NOT_NUMBERS)
@pytest.mark.parametrize("frame", WITH_NULLS)
def test_a_column_that_is_not_numbers_is_named(frame, kind, model, some):
    given = frame(columns_of(model, some) | {"s4": NOT_NUMBERS[kind]})
    with pytest.raises(aeedge.InputError, match=r"column 's4': expected numbers, got .*convert the column, or drop it"):
        model.encode(given)


def test_objects_and_complex_numbers_are_refused(model, some):
    columns = columns_of(model, some)
    mixed = np.array([1.5] * 40, dtype=object)
    mixed[7] = "seven"
    with pytest.raises(aeedge.InputError, match="column 's4': expected numbers, got 'seven' in row 7"):
        model.encode(columns | {"s4": mixed})
    with pytest.raises(aeedge.InputError, match="column 's4': expected numbers, got complex128"):
        model.encode(columns | {"s4": np.ones(40, complex)})


def test_categories_are_refused_even_of_numbers(model, some):
    """Of categories numpy sees the numbers that they name."""
    columns = columns_of(model, some)
    refused = pytest.raises(aeedge.InputError, match="column 's4': expected numbers, got categories")
    frame = of_pandas(columns)
    with refused:
        model.encode(frame.assign(s4=(frame["s4"] > 0).astype(int).astype("category")))


def test_structures_and_lists_of_lists_are_refused(model, some):
    with pytest.raises(aeedge.InputError, match=r"column 's4': expected lists of 1 values, .* got lists in row 0"):
        model.encode(of_pandas(columns_of(model, some)).assign(s4=[[[1.0]]] * 40))
    polars = pytest.importorskip("polars")
    with pytest.raises(aeedge.InputError, match="column 's4': expected numbers, got Struct"):
        model.encode(of_polars(columns_of(model, some)).with_columns(s4=polars.struct("s1", "s2")))


def test_dictionaries_of_arrow_and_categories_of_polars_are_refused(model, some):
    columns = columns_of(model, some)
    pyarrow = pytest.importorskip("pyarrow")
    with pytest.raises(aeedge.InputError, match="column 's4': expected numbers, got categories"):
        model.encode(of_arrow(columns | {"s4": pyarrow.array([1.0, 2.0] * 20).dictionary_encode()}))
    polars = pytest.importorskip("polars")
    for dtype in (polars.Categorical, polars.Enum(["a"])):
        with pytest.raises(aeedge.InputError, match="column 's4': expected numbers, got 'a' in row 0"):
            model.encode(of_polars(columns).with_columns(s4=polars.lit("a").cast(dtype)))


@pytest.mark.parametrize("kind", ["floats", "integers", "booleans", "decimals"])
@pytest.mark.parametrize("frame", WITH_NULLS)
def test_nothing_is_nan(frame, kind, model, some):
    if frame in INTERCHANGES and kind in ("booleans", "decimals"):
        pytest.skip("objects, of which the interchange protocol knows nothing")
    value = {"floats": 2.5, "integers": 2, "booleans": True, "decimals": decimal.Decimal("2.5")}[kind]
    column = [value] * 40
    plain = some.copy()
    plain[:, 4] = float(value)
    columns = columns_of(model, some, range(11, -1, -1))
    np.testing.assert_array_equal(model.encode(frame(columns | {"s4": column})), model.encode(plain))
    column[5] = None
    given = frame(columns | {"s4": column})
    with pytest.raises(aeedge.InputError, match="expected finite numbers, got nan in row 5, column 4 \\('s4'\\)"):
        model.encode(given)
    found = model.encode(given, invalid="propagate")
    assert np.isnan(found[5]).all()
    others = np.delete(np.arange(40), 5)
    np.testing.assert_array_equal(found[others], model.encode(plain)[others])


@pytest.mark.parametrize("frame", FRAMES)
def test_rows_are_counted_over_all_batches(frame, model, some):
    bad = some.copy()
    bad[3, 4] = np.nan
    batches = [frame(columns_of(model, x)) for x in (some, bad)]
    with pytest.raises(aeedge.InputError, match="row 43, column 4"):
        list(model.encode_iter(batches))


def test_a_frame_of_pandas_may_be_filled_again_and_again(model, rows):
    frame = of_pandas(columns_of(model, rows[:100]))

    def refilled():
        for start in range(0, 3000, 100):
            frame.loc[:, :] = rows[start : start + 100]
            yield frame

    found = np.concatenate(list(model.encode_iter(refilled())))
    np.testing.assert_allclose(found, model.encode(rows), rtol=1e-5, atol=1e-4)


def test_columns_of_unequal_length_are_refused(model, some):
    with pytest.raises(aeedge.InputError, match="columns of one length, but 's0' and 's3' differ"):
        model.encode(columns_of(model, some) | {"s3": [1.0, 2.0]})


@pytest.mark.parametrize("frame", FRAMES)
def test_a_frame_without_rows(frame, model, some):
    with pytest.raises(aeedge.InputError, match="at least one row"):
        model.encode(frame(columns_of(model, some[:0])))


@pytest.fixture
def spectra(bundle):
    """A model whose features are a vector of eleven values, and a number."""
    tampering.reseal(bundle, lambda d: d["input"].update(features=[f"v[{i}]" for i in range(11)] + ["t"]))
    with aeedge.load(bundle) as model:
        yield model


@pytest.mark.parametrize("frame", WITH_LISTS)
def test_a_column_of_lists_is_a_vector(frame, spectra, some):
    lists = [row[:11].tolist() for row in some]
    expected = spectra.encode(some)
    np.testing.assert_array_equal(spectra.encode(frame({"t": some[:, 11], "v": lists})), expected)
    wide = frame(columns_of(spectra, some, range(11, -1, -1)))
    np.testing.assert_array_equal(spectra.encode(wide), expected)
    with pytest.raises(aeedge.InputError, match="column 't': expected a number in each row, got a list"):
        spectra.encode(frame({"t": lists, "v": lists}))
    message = "'v' and 't' differ" if frame is of_dict else "column 'v': expected a list in each row, got a number"
    with pytest.raises(aeedge.InputError, match=message):
        spectra.encode(frame({"t": some[:, 11], "v": some[:, 11]}))
    with pytest.raises(aeedge.InputError, match="column 'v': expected lists of 4 or more values, got 3"):
        spectra.encode(frame({"t": some[:, 11], "v": [x[:3] for x in lists]}))


def test_a_single_sample_with_a_vector(spectra, some):
    sample = {"t": some[0, 11], "v": some[0, :11].tolist()}
    expected = spectra.encode(some[0])
    assert spectra.encode(sample).shape == (spectra.latent_size,)
    np.testing.assert_array_equal(spectra.encode(sample), expected)
    pandas = pytest.importorskip("pandas")
    np.testing.assert_array_equal(spectra.encode(pandas.Series(sample)), expected)
    np.testing.assert_array_equal(
        spectra.encode(of_polars({"v": [sample["v"]], "t": some[:1, 11]}).row(0, named=True)), expected
    )


@pytest.mark.parametrize("frame", [frame for frame in WITH_LISTS if frame not in (of_dict, Columned)])
def test_lists_of_unequal_length_are_refused_with_the_row(frame, spectra, some):
    lists = [row[:11].tolist() for row in some]
    missing = [*lists[:8], None, *lists[9:]]
    with pytest.raises(aeedge.InputError, match="got nan in row 8, column 0"):
        spectra.encode(frame({"t": some[:, 11], "v": missing}))
    lists[9] = lists[9][:4]
    with pytest.raises(aeedge.InputError, match=r"column 'v': expected lists of 11 values, .*got 4 in row 9"):
        spectra.encode(frame({"t": some[:, 11], "v": lists}))


@pytest.mark.parametrize("frame", FRAMES)
def test_without_names_columns_are_taken_in_order(frame, bundle, model, some):
    tampering.reseal(bundle, lambda d: d["input"].update(features=None))
    columns = {f"any{i}": some[:, i] for i in range(12)}
    with aeedge.load(bundle) as nameless:
        np.testing.assert_array_equal(nameless.encode(frame(columns)), model.encode(some))
        with pytest.raises(aeedge.InputError, match=r"expected an array of shape \(n, 12\) or \(12,\), got \(40, 13\)"):
            nameless.encode(frame(columns | {"any12": some[:, 0]}))


@pytest.mark.parametrize("frame", FRAMES)
def test_latents_are_taken_in_order(frame, model, some):
    latents = model.encode(some)
    columns = {name: latents[:, i] for i, name in enumerate(["s2", "s1", "s0"])}  # whatever they are called
    np.testing.assert_array_equal(model.decode(frame(columns)), model.decode(latents))


@pytest.mark.parametrize("frame", FRAMES)
def test_a_prefix_of_ordered_latents(frame, bundle, some):
    tampering.reseal(bundle, lambda d: d["latent"].update(ordered=True))
    with aeedge.load(bundle) as ordered:
        latents = ordered.encode(some)[:, :2]
        columns = {"a": latents[:, 0], "b": latents[:, 1]}
        np.testing.assert_array_equal(ordered.decode(frame(columns)), ordered.decode(latents))


def test_labels_that_are_numbers(bundle, model, some):
    """A frame of spectra has wavelengths for labels, the manifest their text."""
    waves = [400 + 10 * i for i in range(12)]
    tampering.reseal(bundle, lambda d: d["input"].update(features=[str(w) for w in waves]))
    frame = of_pandas({w: some[:, i] for i, w in enumerate(waves)})
    with aeedge.load(bundle) as named:
        np.testing.assert_array_equal(named.encode(frame[waves[::-1]]), model.encode(some))


def test_what_is_no_frame_is_taken_as_before(model, some):
    expected = model.encode(some)
    for given in (some, some.tolist(), some.view(Subclass), [tuple(row) for row in some]):
        np.testing.assert_array_equal(model.encode(given), expected)
    with pytest.raises(aeedge.InputError):
        model.encode(object())
    with pytest.raises(aeedge.InputError):
        model.encode({})


def test_what_is_masked_is_missing(model, some):
    masked = np.ma.masked_array(some, np.zeros(some.shape, bool))
    np.testing.assert_array_equal(model.encode(masked), model.encode(some))
    masked[5, 4] = np.ma.masked
    records = of_records(columns_of(model, some)).view(np.ma.MaskedArray)
    records["s4"][5] = np.ma.masked
    for given in (masked, records):
        with pytest.raises(aeedge.InputError, match="got nan in row 5, column 4"):
            model.encode(given)


def test_a_query_is_run_once_for_all_columns(model, some):
    """Its rows may come in another order each time; `columns` is there too."""
    tables = [of_arrow(columns_of(model, np.roll(some, i, axis=0))) for i in range(3)]

    class Query(Columned):
        def __arrow_c_stream__(self, requested_schema=None):
            return tables.pop().__arrow_c_stream__(requested_schema)

    found = model.encode(Query(columns_of(model, some)))
    np.testing.assert_array_equal(found, model.encode(np.roll(some, 2, axis=0)))
    assert len(tables) == 2


def test_a_stream_of_one_column_is_no_table(model, some):
    pyarrow = pytest.importorskip("pyarrow")
    lists = pyarrow.chunked_array([some.tolist()])
    assert np.asarray(lists).dtype == object  # and so no array of rows
    with pytest.raises(aeedge.InputError, match="expected an array of numbers, got Stream"):
        model.encode(Stream(lists))


def test_a_stream_that_ends_in_an_error_is_one_sentence(model, some):
    pyarrow = pytest.importorskip("pyarrow")
    table = of_arrow(columns_of(model, some))

    def batches():
        yield from table.to_batches()
        raise ValueError("the connection was lost")

    reader = pyarrow.RecordBatchReader.from_batches(table.schema, batches())
    with pytest.raises(aeedge.InputError, match=r"encode: .*RecordBatchReader"):
        model.encode(reader)
    whole = pyarrow.RecordBatchReader.from_batches(table.schema, table.to_batches())
    np.testing.assert_array_equal(model.encode(whole), model.encode(some))


def test_the_workstation_gets_names_from_any_of_them(some):
    for frame in FRAMES:
        rows, names = frames.named_rows(frame({"b": some[:, 0], "a": some[:, 1]}), "X")
        assert names == ("b", "a")
        np.testing.assert_array_equal(rows, some[:, :2])


@pytest.mark.parametrize("labels", ["counted", "other"])
def test_a_frame_without_names_for_a_model_with_names(model, some, labels):
    pandas = pytest.importorskip("pandas")
    given = pandas.DataFrame(some, columns=None if labels == "counted" else [f"x{i}" for i in range(12)])
    got = "12 columns without names" if labels == "counted" else "'x0', 'x1', .*"
    with pytest.raises(aeedge.InputError, match=f"expected columns named 's0', .*got {got}, none of .*pass an array"):
        model.encode(given)
