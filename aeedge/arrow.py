"""Batches of Arrow in, batches of Arrow out: a bundle inside Spark, Ray, Dask, Polars, DuckDB or Beam.

`encode_batches` goes from an iterator of batches to an iterator of batches, `BatchEncoder` from one batch to one: that
is what these engines take. pyarrow, the extra aeedge[arrow], is imported when they are called; torch is never needed.

    # Spark: mapInArrow has to be told the columns that come out
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

    encoder = BatchEncoder("/bundles/motor.aeedge", ("latent", "score"), keep=("id",))
    columns = from_arrow_schema(encoder.schema(to_arrow_schema(frame.schema)))
    frame.mapInArrow(lambda batches: map(encoder, batches), columns)

    # Ray Data: an actor opens the bundle once
    arguments = {"outputs": ("latent", "score"), "keep": ("id",)}
    dataset.map_batches(
        BatchEncoder, fn_constructor_args=["/bundles/motor.aeedge"], fn_constructor_kwargs=arguments,
        batch_format="pyarrow", concurrency=2,
    )

More engines are in docs/how-to/scale.md. Null is a missing value, like NaN. What becomes of rows with missing values
the bundle says (`model.input.missing`), and every row that comes in comes out:

- "median": they are filled, as for training.
- "drop": the outputs of such rows are null.
- A bundle that knows none: an InputError, or with invalid="propagate" NaN in their outputs, and an alarm.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge.bundle.reader import Bundle
from aeedge.errors import InputError, absent, printable, shortened
from aeedge.loading import load
from aeedge.model import Model
from aeedge.runtime import arrow_columns
from aeedge.runtime.arrow_columns import EVERYTHING, Column, Field, is_number, misfits, sizes, stacked
from aeedge.runtime.batch import INVALID
from aeedge.runtime.frames import named_places, vector_name
from aeedge.runtime.missing import missing_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

OUTPUTS = ("latent", "score", "p_value", "alarm")
"""What can be computed of each row, in the order of the columns."""

_ADVICE = "rename the columns, or name one of lists with column="
_FIRST = slice(0, 1)
_MOST_OFFSET = 2**31 - 1  # of Arrow's lists


def encode_batches(
    bundle: str | os.PathLike[str] | Model,
    batches: Iterable[Any],
    outputs: Sequence[str] = ("latent",),
    keep: Sequence[str] = (),
    *,
    column: str | None = None,
    variant: str = "auto",
    threads: int | str = 1,
    invalid: str = "raise",
    false_alarm_rate: float | None = None,
    threshold: float | None = None,
) -> Iterator[Any]:
    """What a bundle makes of each batch, in order: pyarrow RecordBatches (or Tables) to as many, row by row.

    The kept columns come first, then `latent` (list<float32>, maps flattened in C order), `score` (float32), `p_value`
    (float64) and `alarm` (bool), those that were asked for. A process opens a bundle once, however often this is
    called.

        for batch in encode_batches("motor.aeedge", parquet_file.iter_batches(), ("latent", "score"), keep=("id",)):
            writer.write_batch(batch)

    Args:
        bundle: its directory, or a loaded model.
        batches: an iterable of RecordBatches, such as a RecordBatchReader; of one set of columns.
        outputs: some of `OUTPUTS`.
        keep: names of columns to pass through as they are.
        column: name of the column with the samples, if they are lists or tensors; None to take columns by the bundle's
            names of features, or the only column of lists that fits (see `BatchEncoder`).
        variant: as in `aeedge.load`, for a directory.
        threads: the same. An engine has a process for each CPU: one thread each.
        invalid: "raise" or "propagate", for rows with null, NaN or infinity; see this module.
        false_alarm_rate: of alarms, in place of the bundle's; see `Model.detect`.
        threshold: the same, as a score.

    Raises:
        InputError: at once, pyarrow is missing or an argument is none of the above; when a batch is reached, its
            columns do not fit, or a row cannot be encoded: the message has its number, counted from 0 over all batches.
        BundleError: at once, as `aeedge.load` raises it; a score, p-value or alarm that the bundle cannot give.
    """
    encoder = BatchEncoder(
        bundle,
        outputs,
        keep,
        column=column,
        variant=variant,
        threads=threads,
        invalid=invalid,
        false_alarm_rate=false_alarm_rate,
        threshold=threshold,
    )
    if isinstance(batches, (encoder.pa.RecordBatch, encoder.pa.Table)):
        raise InputError(f"batches: expected an iterable of batches, got one {type(batches).__name__}; pass [it]")
    return map(encoder, batches)


class BatchEncoder:
    """What `encode_batches` does with each batch; a callable for Ray's `map_batches`. Safe to call from many threads.

    Samples are columns of numbers, found by the bundle's names of features in any order, others are ignored; or one
    column of lists or tensors, of the shape of a sample or flattened in C order; or, for windows of a signal, a column
    of lists for each channel. Tensors, and lists of one length without nulls, are used where they are. Where neither
    `column` nor names tell, the only column of lists that fits is taken, or, for a bundle without names, all columns of
    numbers that are not kept, if they are exactly as many as a sample has; `notes` says so.

    A pickled encoder opens its bundle where it is unpickled, at the same path, once in a process.

    Args:
        bundle: this and what is not said here is as in `encode_batches`.
        first_row: number of the first row, for messages; it grows with every batch, and may be set.

    Attributes:
        model: the loaded bundle.
        notes: what was guessed, in sentences.

    Raises:
        InputError, BundleError: as `encode_batches`.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Model,
        outputs: Sequence[str] = ("latent",),
        keep: Sequence[str] = (),
        *,
        column: str | None = None,
        variant: str = "auto",
        threads: int | str = 1,
        invalid: str = "raise",
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
        first_row: int = 0,
    ) -> None:
        self.pa = _pyarrow()
        self.outputs = _checked_outputs(outputs)
        self.keep = tuple(dict.fromkeys((keep,) if isinstance(keep, str) else keep))
        clash = next((name for name in self.keep if name in self.outputs), None)
        if clash is not None:
            raise InputError(f"keep: a column of the result is called '{clash}', too; rename the input's")
        if invalid not in INVALID:
            raise InputError(f"invalid: expected 'raise' or 'propagate', got {invalid!r}")
        self.column, self.invalid, self.first_row = column, invalid, first_row
        self.model = bundle if isinstance(bundle, Model) else _opened(bundle, variant, threads)
        self.notes: list[str] = []
        self._rule = {"false_alarm_rate": false_alarm_rate, "threshold": threshold}
        self._limit = self._checked_limit(**self._rule)
        self._known: _Known | None = None

    def __call__(self, batch: Any) -> Any:
        """The results of a batch: a RecordBatch to a RecordBatch, a Table to a Table, of as many rows.

        A Table gives the same whatever its chunks are: those of the samples are joined first.

        Raises:
            InputError: columns that do not fit, or that are not those of the first batch; a row that cannot be encoded,
                unless invalid="propagate" (see `faults`).
        """
        known = self._checked(batch)
        first, found = 0, []
        for part in _parts(self.pa, batch, known.fields):
            found.append(self._results(part, known.fields, self.first_row + first))
            first += part.num_rows
        self.first_row += first
        kept = [batch.column(batch.schema.get_field_index(name)) for name in self.keep]
        if isinstance(batch, self.pa.RecordBatch):
            return self.pa.RecordBatch.from_arrays([*kept, *found[0]], schema=known.out)
        types = known.out.types[len(kept) :]
        made = [self.pa.chunked_array([part[i] for part in found], kind) for i, kind in enumerate(types)]
        return self.pa.Table.from_arrays([*kept, *made], schema=known.out)

    def schema(self, given: Any) -> Any:
        """The schema of what comes out for batches of the schema `given`.

        Raises:
            InputError: columns that are missing or do not fit, so that no batch would.
        """
        fields = [given.field(i).with_nullable(True) for i in self._kept(given)]
        self._fields(given)
        return self.pa.schema([*fields, *self._made()])

    def columns(self, given: Any) -> list[str]:
        """Names of the columns of the schema `given` that are needed, those of the samples first.

        Raises:
            InputError: as `schema`.
        """
        self._kept(given)
        return list(dict.fromkeys([*(field.name for field in self._fields(given)), *self.keep]))

    def samples(self, batch: Any) -> NDArray[Any]:
        """The samples of a batch without faults, (n, *input_shape); missing values are NaN, or the codes of the bundle.

        Raises:
            InputError: as `schema`; there are faults.
        """
        known, spec, found = self._checked(batch), self.model.input, []
        for part in _parts(self.pa, batch, known.fields):
            read = [self._read(part, field) for field in known.fields]
            x, _ = stacked(known.fields, read, spec.shape, np.dtype(spec.dtype))
            if x is None or any(column.wrong is not None for column in read):
                raise self._refused(part, known.fields, self.first_row)
            found.append(x)
        return np.concatenate(found) if found else np.empty((0, *spec.shape), spec.dtype)

    def faults(self, batch: Any, *, invalid: str | None = None) -> dict[int, str]:
        """Rows of a batch that cannot be encoded, counted from 0 in it, and why: what a call would raise for.

        Null, NaN and infinity, unless invalid="propagate" or the bundle says what becomes of missing values; lists of
        another length; for models of integers, what is no whole number in the range of the dtype.

        Args:
            batch: as for a call.
            invalid: in place of the encoder's.

        Raises:
            InputError: as `schema`.
        """
        fields, found, first = self._fields(self._given(batch).schema), dict[int, str](), 0
        for part in _parts(self.pa, batch, fields) if batch.num_rows else ():
            looked = self._looked_at(part, fields, invalid or self.invalid)
            found |= {first + row: self._why(looked, row) for row in map(int, np.flatnonzero(_any_bad(looked)))}
            first += part.num_rows
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        options = {"column": self.column, "invalid": self.invalid, "first_row": self.first_row, **self._rule}
        return _unpickled, (self.model.__reduce__(), self.outputs, self.keep, options)

    # --- columns

    def _checked_limit(self, false_alarm_rate: float | None, threshold: float | None) -> np.float32 | None:
        """The threshold of alarms, if they are asked for; refuses outputs that the bundle cannot give."""
        model, outputs = self.model, self.outputs
        if outputs != ("latent",):
            model.score_iter(())
        if "p_value" in outputs:
            _ = model.calibration
        if "alarm" in outputs:
            model.detect_iter((), false_alarm_rate=false_alarm_rate, threshold=threshold)
            given = threshold if false_alarm_rate is None else model.calibration.threshold(false_alarm_rate)
            return np.float32(model.threshold if given is None else given)
        if false_alarm_rate is not None or threshold is not None:
            raise InputError(
                "expected 'alarm' in outputs for a false_alarm_rate or threshold; add it, or leave them out"
            )
        return None

    def _given(self, batch: Any) -> Any:
        if isinstance(batch, (self.pa.RecordBatch, self.pa.Table)):
            return batch
        raise InputError(
            f"expected a pyarrow RecordBatch or Table, got {type(batch).__name__}; pyarrow.table(frame) makes one"
        )

    def _checked(self, batch: Any) -> _Known:
        """What is known of a batch's columns; those of later batches are to be the same, but for types of numbers."""
        given, known = self._given(batch).schema, self._known
        if known is not None and given.equals(known.given):
            return known
        found = _Known(given, self._fields(given), self.schema(given))
        if known is not None:
            names, before = ([field.name for field in each.fields] for each in (found, known))
            got = f"samples in {shortened(names)}, not in {shortened(before)}" if names != before else ""
            for field, first in zip(found.out, known.out):
                if field.type != first.type:
                    got = f"'{printable(field.name)}' as {field.type}, not {first.type}"
            if got:
                raise InputError(
                    f"batch from row {self.first_row:,} on (counted from 0): expected columns as in the first batch, "
                    f"got {got}; cast all batches to one schema"
                )
        self._known = found
        return found

    def _kept(self, given: Any) -> list[int]:
        for name in self.keep:
            if name not in given.names:
                raise InputError(f"keep: {absent(name, given.names)}")
        return [_place(given, name) for name in self.keep]

    def _made(self) -> list[Any]:
        pa = self.pa
        types = {"latent": pa.list_(pa.float32()), "score": pa.float32(), "p_value": pa.float64(), "alarm": pa.bool_()}
        return [pa.field(name, types[name]) for name in self.outputs]

    def _fields(self, given: Any) -> list[Field]:
        """Which columns hold the samples.

        Raises:
            InputError: none, or which ones is open.
        """
        spec, names = self.model.input, given.names
        if self.column is not None:
            if self.column not in names:
                raise InputError(f"column: expected one of {shortened(names)}, got '{printable(self.column)}'")
            return [self._whole(given, self.column)]
        features, channels = spec.features or (), () if spec.signal is None else spec.signal.names
        if any(name in names or vector_name(name) in names for name in features):
            return self._named(given, features)
        if channels and all(name in names and self._type(given, name)[0] for name in channels):
            return self._windows(given, channels)
        others = [name for name in dict.fromkeys(names) if name not in self.keep]
        lists = [name for name in others if self._dims(*self._type(given, name)) is not None]
        if len(lists) == 1:
            self._note(f"samples are taken from the column '{printable(lists[0])}', the only one of lists that fits")
            return [self._whole(given, lists[0])]
        if lists:
            raise InputError(
                f"expected one column of lists that can be samples of shape {spec.shape}, got {shortened(lists)}; name "
                "one with column="
            )
        if features:
            named_places(names, features, "batch", _ADVICE)  # says which are missing
        if spec.signal is not None and set(spec.signal.channels) <= set(names):
            raise InputError(
                f"expected windows, lists of {spec.signal.window} consecutive samples in each row, got one sample in "
                f"each row ({shortened(spec.signal.channels)}); cut the recording into windows first, or give it to "
                "aeedge encode or aeedge score, which do that"
            )
        numbers = [name for name in others if is_number(self.pa, given.field(_place(given, name)).type)]
        if len(numbers) == spec.size and not channels:
            self._note(f"columns of numbers are taken in order, for the bundle has no names: {shortened(numbers)}")
            return [Field(name, (), _FIRST, slice(i, i + 1)) for i, name in enumerate(numbers)]
        also = "" if channels else f", or {spec.size} columns of numbers that are not kept"
        raise InputError(
            f"expected a column of lists for samples of shape {spec.shape}{also}, got "
            + shortened([f"{name} ({given.field(_place(given, name)).type})" for name in others])
        )

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _type(self, given: Any, name: str) -> tuple[list[int | None], Any]:
        """The lengths of a column's lists, level by level, and the type of what is in them."""
        return sizes(self.pa, given.field(_place(given, name)).type)

    def _dims(self, levels: list[int | None], leaf: Any) -> tuple[int, ...] | None:
        """The shape in which lists or tensors hold a sample; None where they do not."""
        shape = self.model.input.shape
        dims = shape if len(levels) == len(shape) else (math.prod(shape),) if len(levels) == 1 else ()
        fits = all(size in (None, dim) for size, dim in zip(levels, dims))
        return dims if dims and fits and is_number(self.pa, leaf) else None

    def _whole(self, given: Any, name: str) -> Field:
        """A column that holds whole samples."""
        (levels, leaf), spec = self._type(given, name), self.model.input
        dims = self._dims(levels, leaf)
        if dims is not None:
            return Field(name, dims, EVERYTHING, EVERYTHING)
        if not levels and spec.size == 1 and is_number(self.pa, leaf):
            return Field(name, (), _FIRST, _FIRST)
        expected = " × ".join(map(str, spec.shape)) + (f" or {spec.size}" if len(spec.shape) > 1 else "")
        raise self._other_type(given, name, f"lists of {expected} numbers")

    def _named(self, given: Any, features: Sequence[str]) -> list[Field]:
        """Columns by the names of features; "v[3]" is in lists of the column "v"."""
        places, fields = named_places(given.names, features, "batch", _ADVICE), []
        for i in dict.fromkeys(i for i, _ in places):
            name = given.names[i]
            levels, leaf = self._type(given, name)
            into = [at for at, (column, _) in enumerate(places) if column == i]
            take = [place for column, place in places if column == i and place is not None]
            if not take:
                if levels or not is_number(self.pa, leaf):
                    raise self._other_type(given, name, "numbers")
                fields.append(Field(name, (), _FIRST, slice(into[0], into[0] + 1)))
                continue
            length = max(take) + 1
            if len(levels) != 1 or not is_number(self.pa, leaf) or (levels[0] or length) < length:
                raise self._other_type(given, name, f"lists of {length} numbers")
            fields.append(Field(name, None, take, into))
        return fields

    def _windows(self, given: Any, channels: Sequence[str]) -> list[Field]:
        """For windows of a signal a column of lists for each channel."""
        window, count, fields = self.model.input.shape[0], len(channels), []
        for i, name in enumerate(channels):
            levels, leaf = self._type(given, name)
            if len(levels) != 1 or levels[0] not in (None, window) or not is_number(self.pa, leaf):
                raise self._other_type(given, name, f"lists of {window} numbers")
            fields.append(Field(name, (window,), EVERYTHING, slice(i, None, count) if count > 1 else EVERYTHING))
        return fields

    def _other_type(self, given: Any, name: str, expected: str) -> InputError:
        kind = given.field(_place(given, name)).type
        return InputError(f"column '{printable(name)}': expected {expected}, got {printable(str(kind))}; convert it")

    # --- rows

    def _read(self, part: Any, field: Field) -> Column:
        return arrow_columns.read(self.pa, part.column(_place(part.schema, field.name)), field)

    def _results(self, part: Any, fields: list[Field], first: int) -> list[Any]:
        """Columns of the outputs of some rows.

        Raises:
            InputError: a row that cannot be encoded.
        """
        if not part.num_rows:
            return [
                self._arrow(np.empty((0, 1) if name == "latent" else 0, _DTYPES[name]), None) for name in self.outputs
            ]
        spec, read = self.model.input, [self._read(part, field) for field in fields]
        x, left_out = stacked(fields, read, spec.shape, np.dtype(spec.dtype))
        wrong = any(column.wrong is not None for column in read)
        if x is None or wrong or (left_out is not None and self.invalid == "raise"):
            raise self._refused(part, fields, first)
        nulls = None
        if spec.missing is not None and spec.missing.policy == "drop" and self.invalid == "raise":
            nulls = missing_rows(x, spec)
            left_out = nulls = nulls if nulls.any() else None
        try:
            found = self._computed(x if left_out is None else x[~left_out])
        except InputError as error:
            raise self._refused(part, fields, first, error) from None
        if left_out is not None:
            found = {name: _spread(values, ~left_out) for name, values in found.items()}
        if "p_value" in self.outputs:
            found["p_value"] = self.model.calibration.p_value(found["score"])
        if "alarm" in self.outputs:
            found["alarm"] = np.logical_not(found["score"] <= self._limit)
        return [self._arrow(found[name], nulls) for name in self.outputs]

    def _computed(self, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Latents (n, k) and scores (n,) of samples, those that are needed."""
        found: dict[str, NDArray[Any]] = {}
        if "latent" in self.outputs:
            latents = self.model.encode(x, invalid=self.invalid) if len(x) else np.empty(0, np.float32)
            found["latent"] = latents.reshape(len(x), self.model.latent_size)
        if self.outputs != ("latent",):
            found["score"] = self.model.score(x, invalid=self.invalid) if len(x) else np.empty(0, np.float32)
        return found

    def _arrow(self, values: NDArray[Any], nulls: NDArray[np.bool_] | None) -> Any:
        """A column of numbers (n,) or of lists of k (n, k), null where nothing was computed."""
        pa = self.pa
        if values.ndim == 1:
            return pa.array(values, mask=nulls)
        rows, size = values.shape
        if rows * size > _MOST_OFFSET:
            raise InputError(
                f"expected at most {_MOST_OFFSET // size:,} rows in a batch, for {size:,} latents of each, "
                f"got {rows:,}; pass smaller batches"
            )
        offsets = pa.array(np.arange(0, rows * size + 1, size, dtype=np.int32))
        mask = None if nulls is None else pa.array(nulls)
        return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)), mask=mask)

    # --- faults

    def _refused(self, part: Any, fields: list[Field], first: int, error: InputError | None = None) -> InputError:
        """The error of the first row that cannot be encoded; `error` where there is none."""
        looked = self._looked_at(part, fields, self.invalid)
        rows = np.flatnonzero(_any_bad(looked))
        if not len(rows) and error is not None:
            return error
        row = int(rows[0])
        many = f" ({len(rows):,} such rows in this batch)" if len(rows) > 1 else ""
        helps = not _any_bad(self._looked_at(part, fields, "propagate"))[row]
        return InputError(
            f"row {first + row:,} (counted from 0): {self._why(looked, row)}{many}; mend such rows or leave them out"
            + (", or pass invalid='propagate' to get NaN for them" if helps else "")
        )

    def _looked_at(self, part: Any, fields: list[Field], invalid: str) -> list[_Looked]:
        """Columns of some rows, and which of their values cannot be encoded."""
        spec, looked = self.model.input, []
        for field in fields:
            column = self._read(part, field)
            flat = column.shaped(part.num_rows, -1)
            missing, unfit = misfits(flat.values, flat.nulls, np.dtype(spec.dtype))
            bad = unfit if invalid == "raise" or spec.dtype != "float32" else np.zeros_like(unfit)
            if invalid == "raise" and spec.missing is None:
                bad |= missing
            taken = np.zeros(bad.shape[1], np.bool_)
            taken[field.take] = True
            bad &= taken
            if column.wrong is not None:
                bad[column.wrong >= 0] = True
            looked.append(_Looked(field.name, column, bad))
        return looked

    def _why(self, looked: list[_Looked], row: int) -> str:
        """What is wrong with a row."""
        name, (values, nulls, wrong), bad = next(each for each in looked if each.bad[row].any())
        where, shape = f"column '{printable(name)}'", values.shape[1:]
        if wrong is not None and wrong[row] >= 0:
            return f"{where}: expected lists of {' × '.join(map(str, shape))} numbers, got one of {wrong[row]}"
        at = tuple(map(int, np.unravel_index(int(bad[row].argmax()), shape))) if shape else ()
        if shape:
            where += f", position {at if len(at) > 1 else at[0]}"
        dtype = self.model.input.dtype
        wanted = "a finite number" if dtype == "float32" else f"a whole number that fits {dtype}"
        got = "null" if nulls is not None and nulls[(row, *at)] else f"{values[(row, *at)]:.9g}"
        return f"{where}: expected {wanted}, got {got}"


class _Looked(NamedTuple):
    """A column with samples, and which of its values cannot be encoded, (n, m); of a list of another length all."""

    name: str
    column: Column
    bad: NDArray[np.bool_]


def _any_bad(looked: list[_Looked]) -> NDArray[np.bool_]:
    """Which rows have a value that cannot be encoded."""
    found: NDArray[np.bool_] = np.any([each.bad.any(axis=1) for each in looked], axis=0)
    return found


class _Known(NamedTuple):
    """What follows from the columns of a batch: which hold samples, and what comes out."""

    given: Any
    fields: list[Field]
    out: Any


_DTYPES = {"latent": np.float32, "score": np.float32, "p_value": np.float64, "alarm": np.bool_}


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.compute
    except ModuleNotFoundError:
        raise InputError("batches of Arrow need pyarrow, which is not installed; pip install 'aeedge[arrow]'") from None
    return pa


def _checked_outputs(outputs: Sequence[str]) -> tuple[str, ...]:
    """The outputs that were asked for, in the order of `OUTPUTS`."""
    given = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    other = next((name for name in given if name not in OUTPUTS), None)
    if other is not None or not given:
        got = "none" if other is None else f"'{printable(str(other))}'"
        raise InputError(f"outputs: expected some of {', '.join(OUTPUTS)}, got {got}")
    return tuple(name for name in OUTPUTS if name in given)


def _place(given: Any, name: str) -> int:
    """Where a column stands that is there once."""
    places = given.get_all_field_indices(name)
    if len(places) > 1:
        raise InputError(f"expected one column '{printable(name)}', got {len(places)}; rename or drop the others")
    return int(places[0])


def _parts(pa: Any, batch: Any, fields: Sequence[Field]) -> list[Any]:
    """The columns with samples as RecordBatches: one, unless lists are too long to be joined."""
    places = [_place(batch.schema, field.name) for field in fields]
    if isinstance(batch, pa.RecordBatch):
        return [batch.select(places)]
    found: list[Any] = batch.select(places).combine_chunks().to_batches()
    return found


def _spread(values: NDArray[Any], there: NDArray[np.bool_]) -> NDArray[Any]:
    """Results of some rows among all, NaN elsewhere."""
    found = np.full((len(there), *values.shape[1:]), np.nan, np.float32)
    found[there] = values
    return found


# --- one model for each bundle in a process

_models: dict[tuple[Any, ...], Model] = {}  # by what `load` was asked: path, id, variant, threads, …
_lock = threading.Lock()


def _opened(path: str | os.PathLike[str], variant: str, threads: int | str) -> Model:
    """The model of a bundle; another one when the bundle was replaced."""
    with _lock:
        bundle = Bundle(path)
        bundle.close()
        key = (os.path.realpath(bundle.path), bundle.manifest.id, variant, threads, None, "hash", ())
        return _models.get(key) or _remembered(load(path, variant=variant, threads=threads))


def _unpickled(
    reopen: tuple[Any, tuple[Any, ...]], outputs: tuple[str, ...], keep: tuple[str, ...], options: dict[str, Any]
) -> BatchEncoder:
    """What a pickled encoder becomes: of the same bundle, which is opened once in a process."""
    function, asked = reopen
    with _lock:
        model = _models.get(asked) or _remembered(function(*asked))
    return BatchEncoder(model, outputs, keep, **options)


def _remembered(model: Model) -> Model:
    asked = model.__reduce__()[1]
    for other in [key for key in _models if key[0] == asked[0] and key[1] != asked[1]]:
        del _models[other]  # of a bundle that was replaced
    _models[asked] = model
    return model


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
