"""Files of recordings: tables (CSV, JSON lines, Parquet), arrays (.npy, .npz) and WAV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aeedge.errors import InputError, printable, shortened
from aeedge.files.images import are_images
from aeedge.files.rows import row_files
from aeedge.files.source import Source
from aeedge.files.times import to_seconds
from aeedge.files.wav import read_wav
from aeedge_export.data.clocks import find_times
from aeedge_export.data.dataset import Dataset, Selection
from aeedge_export.data.files import label_file, stored_array
from aeedge_export.data.labels import as_classes
from aeedge_export.data.recording_arrays import as_samples
from aeedge_export.data.segments import Recording
from aeedge_export.data.tables import read_tables, table_names

_ARRAYS = ("npy", "npz", "wav")


def read_recordings(paths: Sequence[str | os.PathLike[str]], wanted: Selection, *, missing: bool) -> list[Recording]:
    """Read files, each a recording; the channels of the first one are read in all.

    Args:
        paths: files, or folders of them; "-" for standard input.
        wanted: which columns, and how; `columns` are channels, of arrays by number.
        missing: whether values may be missing; they become NaN.

    Raises:
        InputError: as `data.files.read`, or a column that tells no time.
    """
    if are_images(paths):
        raise InputError(f"{paths[0]}: expected recordings, got images; leave --window out")
    if wanted.weights is not None:
        raise InputError("--weights: windows have no weights; leave it out")
    sources = [Source(file) for file in row_files(paths)]
    if wanted.labels is not None and wanted.labels.endswith(".npy"):
        if len(sources) > 1:
            raise InputError(f"--labels: expected a column of labels for several recordings, got {wanted.labels}")
        one = _read(sources[0], replace(wanted, labels=None), missing)
        return [replace(one, labels=label_file(Path(wanted.labels), len(one.samples)))]
    first = _read(sources[0], wanted, missing)
    same = replace(wanted, columns=first.channels, drop=())
    return [
        first,
        # Arrays have no names to find channels by: all of them are as many
        *(
            _read(one, wanted if one.kind in _ARRAYS and not wanted.columns else same, missing, first)
            for one in sources[1:]
        ),
    ]


def selected_alike(path: str | os.PathLike[str], wanted: Selection) -> tuple[Selection, str]:
    """`wanted` for a file that may lack the columns to select by, which then selects nothing, and a note about that."""
    source = Source(row_files([path])[0])
    if not wanted.condition or source.is_pipe or source.kind in ("npy", "npz", "wav"):
        return wanted, ""
    names = table_names(source, wanted.dialect if source.kind == "text" else None)
    absent = next((one.column for one in wanted.condition if one.column not in names), None)
    if absent is None:
        return wanted, ""
    return replace(wanted, select=None), f"no column '{printable(absent)}' to select by: all samples are taken"


def _read(source: Source, wanted: Selection, missing: bool, first: Recording | None = None) -> Recording:
    if source.kind not in _ARRAYS:
        wanted = wanted if source.kind == "text" else replace(wanted, dialect=None)
        return _of_table(source, wanted, missing, first)
    if wanted.drop or wanted.dialect is not None or (wanted.select is not None and source.kind != "npz"):
        raise InputError(
            f"{source.name}: only tables have columns that can be dropped or selected by, a header and a delimiter; "
            "leave them out"
        )
    if source.kind != "npz" and (wanted.array or wanted.time or wanted.labels):
        raise InputError(f"{source.name}: only tables and .npz have columns or arrays by name; leave such options out")
    if source.kind == "wav":
        samples, rate = read_wav(source.path or source.name)
        return _chosen(Recording(source.name, as_samples(samples, source.name), (), rate=rate), wanted.columns)
    samples = as_samples(stored_array(source, wanted.array, least=1), source.name)
    if len(samples) < samples.shape[1] and source.kind == "npy":
        raise InputError(
            f"{source.name}: expected an array (samples, channels), got {samples.shape}, fewer samples than channels; "
            "save it transposed"
        )
    found = Recording(source.name, samples, ())
    for name in filter(None, (wanted.time, wanted.labels)):
        values = stored_array(source, name, least=1, numbers=False)
        if values.shape != (len(samples),):
            raise InputError(
                f"{source.name}, array {printable(name)!r}: expected one value for each of {len(samples):,} samples, "
                f"got an array of shape {values.shape}"
            )
        if name == wanted.labels:
            found = replace(found, labels=as_classes(values, len(samples), f"{source.name}, array {name!r}"))
        else:
            seconds, how = to_seconds(values if values.dtype.kind in "fiuM" else values.tolist(), name=name)
            found = replace(found, times=seconds, time=name, dated=how.dated)
    return _chosen(found, wanted.columns)


def _chosen(recording: Recording, columns: Sequence[str]) -> Recording:
    """An array's channels, called x0, x1, …: some of them, by name or number."""
    names = [f"x{i}" for i in range(recording.samples.shape[1])]
    places = {name: i for i, name in enumerate(names)} | {str(i): i for i in range(len(names))}
    for name in columns:
        if name not in places:
            raise InputError(f"{recording.name}: expected a channel '{printable(name)}', got {shortened(names)}")
    shape = f"{len(recording.samples):,} samples of {len(names)} {recording.samples.dtype}"
    notes = (f"{recording.name}: {shape}",)
    if not columns:
        return replace(recording, channels=tuple(names), notes=notes)
    at = [places[name] for name in columns]
    samples = recording.samples if at == list(range(len(names))) else recording.samples[:, at]
    return replace(recording, samples=samples, channels=tuple(names[i] for i in at), notes=notes)


def _of_table(source: Source, wanted: Selection, missing: bool, first: Recording | None) -> Recording:
    data = read_tables([source], replace(wanted, clock=True), missing or wanted.select is not None)
    decimal = str((data.dialect or {}).get("decimal", "."))
    names, samples, notes = data.columns, data.X, list(data.notes)
    names = names or tuple(f"x{i}" for i in range(samples.shape[1]))
    clock = find_times(data.clock, decimal, source.name, wanted.time, data.clock_units)
    if clock is not None and clock[0] in names and clock[0] not in wanted.columns and len(names) > 1:
        keep = [i for i, name in enumerate(names) if name != clock[0]]
        names, samples = tuple(names[i] for i in keep), np.ascontiguousarray(samples[:, keep])
        notes.append(f"column '{printable(clock[0])}' rises evenly: taken for the time, and left out")
        data = _without(data, keep)
    if clock is not None and clock[2].note:
        notes.append(f"column '{printable(clock[0])}': {clock[2].note}")
    if first is not None:  # what is left out, and why, is that of the first file
        notes = notes[:1]
    return Recording(
        name=source.name,
        samples=samples,
        channels=tuple(names),
        units=data.units,
        times=None if clock is None else clock[1],
        time=None if clock is None else _place_or_name(clock[0], data.dialect),
        dated=clock is not None and clock[2].dated,
        labels=data.labels,
        selected=data.selected,
        dialect=data.dialect,
        notes=tuple(notes),
    )


def _place_or_name(name: str, dialect: dict[str, Any] | None) -> str:
    """The name of a column, or its position where columns have none, from 0; such a column is called x0, x1, …"""
    is_named = dialect is None or dialect.get("header", "none") != "none"
    return name if is_named else name.removeprefix("x")


def _without(data: Dataset, keep: Sequence[int]) -> Dataset:
    """Units and positions of the columns that are kept."""
    units = None if data.units is None else tuple(data.units[i] for i in keep)
    dialect: dict[str, Any] | None = data.dialect
    if dialect is not None:
        dialect = {**dialect, "columns": [dialect["columns"][i] for i in keep]}
    return replace(data, units=units, dialect=dialect)
