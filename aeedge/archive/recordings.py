"""Recordings in an archive: a file is a recording, a row for each sample, cut into windows as for training."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from aeedge.archive.parts import Part, UnreadableError
from aeedge.archive.storage import accessing
from aeedge.errors import InputError
from aeedge.model import Model
from aeedge.signals.recording import Recordings

WINDOW = "_window"
"""The column of windows."""


def is_recording(model: Model, schema: Any, column: str | None) -> bool:
    """Whether rows are samples of the model's signal, its channels by name; otherwise they are windows."""
    signal = model.input.signal
    return signal is not None and column is None and not {*signal.channels}.isdisjoint(schema.names)


def recording_batches(
    model: Model, part: Part, keep: Sequence[str], *, missing: bool, notes: list[str]
) -> Iterator[Any]:
    """Windows of a recording as record batches: the number of the first sample ("start"), its time ("start_time") where
    that is known, the columns that are kept at the last sample, and the values, flat.

    Raises:
        UnreadableError: what `Recordings` raises.
    """
    import pyarrow as pa

    with ExitStack() as stack:
        path = part.place.path
        if part.place.root:  # the reader of recordings takes files of this machine
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="aeedge-recording-"))
            path = str(Path(folder) / Path(part.place.path).name)
            opened = part.place.filesystem.open_input_stream
            with accessing(part.place), opened(part.place.path) as source, open(path, "wb") as copy:
                shutil.copyfileobj(source, copy)
        try:
            recordings = Recordings(model, [path], keep=keep, missing=missing, dialect=None)
            named = ["start", *(() if recordings.time is None else ("start_time",)), *keep]
            types: list[Any] = [None] * len(named)
            for windows, kept in recordings.windows():
                columns = [pa.array(values, kind) for values, kind in zip(kept, types)]
                types = [column.type for column in columns]
                values = pa.array(np.ascontiguousarray(windows).reshape(-1))
                size = len(values) // len(windows)
                columns.append(pa.FixedSizeListArray.from_arrays(values, size))
                yield pa.RecordBatch.from_arrays(columns, names=[*named, WINDOW])
            notes += recordings.notes
        except InputError as error:
            raise UnreadableError(str(error).replace(path, part.place.name)) from None
