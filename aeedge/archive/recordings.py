"""Recordings in an archive: a file is a recording, a row for each sample, cut into windows as for training."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from aeedge.archive.parts import Part, UnreadableError, folder_values, opened
from aeedge.archive.storage import accessing
from aeedge.errors import InputError, absent, printable
from aeedge.model import Model
from aeedge.signals.recording import Recordings

_KNOWN = (".parquet", ".pq")
WINDOW = "_window"
"""The column of windows."""


def is_recording(model: Model, schema: Any, column: str | None) -> bool:
    """Whether rows are samples of the model's signal, its channels by name; otherwise they are windows."""
    signal = model.input.signal
    return signal is not None and column is None and not {*signal.channels}.isdisjoint(schema.names)


def window_schema(model: Model, schema: Any, keep: Sequence[str]) -> Any:
    """What stands beside the values of windows of recordings with these columns: the number of the first sample
    ("start"), its time ("start_time") where that is known, and the columns that are kept.

    Raises:
        InputError: a column that is to be kept is missing, or would have the name of another one.
    """
    import pyarrow as pa

    signal = model.input.signal
    assert signal is not None
    fields = [pa.field("start", pa.int64())]
    if signal.time in schema.names:
        fields.append(pa.field("start_time", schema.field(signal.time).type))
    elif signal.rate is not None:
        fields.append(pa.field("start_time", pa.float64()))
    for name in keep:
        if name not in schema.names:
            raise InputError(f"keep: {absent(name, schema.names)}")
        if name in (*(field.name for field in fields), WINDOW):
            raise InputError(f"keep: a column of the result is called '{printable(name)}', too; rename the input's")
        fields.append(pa.field(name, schema.field(name).type))
    return pa.schema(fields)


def recording_batches(model: Model, part: Part, beside: Any, *, missing: bool, notes: list[str]) -> Iterator[Any]:
    """Windows of a recording as record batches: the columns of `beside`, which is of `window_schema`, those that are
    kept at the last sample, and the values, flat.

    Raises:
        UnreadableError: what `Recordings` raises.
    """
    import pyarrow as pa

    names, keep = beside.names, [name for name in beside.names if name not in ("start", "start_time")]
    with opened(part.place, part.version) as file:
        said = folder_values(part.place, file.schema_arrow.names)
    with ExitStack() as stack:
        path = part.place.path
        if part.place.root or Path(path).suffix.lower() not in _KNOWN:  # the reader takes files of this machine
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="aeedge-recording-"))
            path = str(Path(folder, f"{Path(part.place.path).stem}.parquet"))
            stream = part.place.filesystem.open_input_stream
            with accessing(part.place), stream(part.place.path) as source, open(path, "wb") as copy:
                shutil.copyfileobj(source, copy)
        try:
            recordings = Recordings(
                model, [path], keep=[name for name in keep if name not in said], missing=missing, dialect=None
            )
            for windows, kept in recordings.windows():
                of_file = iter(kept)
                found = [[said[name]] * len(windows) if name in said else next(of_file) for name in names]
                columns = [_column(values, kind) for values, kind in zip(found, beside.types)]
                values = pa.array(np.ascontiguousarray(windows).reshape(-1))
                columns.append(pa.FixedSizeListArray.from_arrays(values, len(values) // len(windows)))
                yield pa.RecordBatch.from_arrays(columns, names=[*names, WINDOW])
            notes += recordings.notes
        except InputError as error:
            raise UnreadableError(str(error).replace(path, part.place.name)) from None


def _column(values: list[Any], kind: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values, kind)
    except pa.ArrowException:  # times in nanoseconds are text
        return pa.array(values).cast(kind)
