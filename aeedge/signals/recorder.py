"""Keeps the samples around alarms in files."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.errors import InputError
from aeedge.files.atomic import atomic_file
from aeedge.files.replacing import check_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.bundle.manifest import SignalSpec
    from aeedge.signals.event import Event

_AROUND = 2  # windows before and after an alarm
_LONGEST = 50  # windows of one recording


class Recorder:
    """Writes a recording for each alarm: alarm-TIME-WINDOW.npy, (samples, channels), and .json, what it is.

    Two windows before the one with which the alarm begins belong to it, and those after its end; of an alarm that goes
    on, no more than 50 windows in all. The .json, which is written last, has the names of the channels and what the
    stream said of each window.

    Args:
        folder: to write to; it is made if it is not there.
        signal: what windows are.
        hop: of the stream.
        about: of the bundle, for the .json.
        most: recordings that are kept; the oldest are removed.

    Raises:
        InputError: the folder cannot be written to, or `most` is less than 1.
    """

    def __init__(
        self, folder: str | os.PathLike[str], signal: SignalSpec, hop: int, about: Mapping[str, Any], most: int = 100
    ) -> None:
        if most < 1:
            raise InputError(f"record_limit: expected at least 1 recording, got {most}")
        self._folder, self._signal, self._hop, self._about, self._most = Path(folder), signal, hop, dict(about), most
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: expected a folder to write to ({error.strerror}); make it first") from None
        check_file(self._folder / "alarm.npy", overwrite=True)
        self.count = 0  # recordings that were written
        self._clear()

    def _clear(self) -> None:
        self._parts: deque[NDArray[Any]] = deque()
        self._size = 0  # samples of the parts
        self._windows: list[dict[str, Any]] = []  # of the recording that is being made
        self._left = 0  # samples until it ends

    def add(self, event: Event, document: dict[str, Any]) -> None:
        """Take an event, and what is said of it.

        Raises:
            InputError: a recording cannot be written; the next one is tried again.
        """
        samples, window = event.samples, self._signal.window
        if samples is None:
            self.close()
            return
        part = samples if not self._parts or self._hop >= window else samples[-self._hop :]
        self._parts.append(np.array(part))
        self._size += len(part)
        while not self._windows and self._size - len(self._parts[0]) >= (_AROUND + 1) * window:
            self._size -= len(self._parts.popleft())
        if event.raised and not self._windows:
            self._left = _AROUND * window
            self._windows.append(document)
        elif self._windows:
            self._windows.append(document)
            self._left = _AROUND * window if event.alarm else self._left - self._hop
            if self._left <= 0 or self._size >= _LONGEST * window:
                self._end()

    def close(self) -> None:
        """End a recording that is being made, and forget the samples.

        Raises:
            InputError: it cannot be written.
        """
        try:
            if self._windows:
                self._end()
        finally:
            self._clear()

    def _end(self) -> None:
        windows, self._windows = self._windows, []
        samples, signal = np.concatenate(list(self._parts)), self._signal
        name = f"alarm-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{windows[0]['window']:09d}"
        document = {
            "format": "aeedge-recording/1",
            "samples": f"{name}.npy",
            "channels": list(signal.names),
            "units": None if signal.units is None else list(signal.units),
            "rate": signal.rate,
            **self._about,
            "windows": windows,
        }
        with atomic_file(self._folder / f"{name}.npy", overwrite=True) as part, part.open("wb") as file:
            np.save(file, samples)
        with atomic_file(self._folder / f"{name}.json", overwrite=True) as part:
            part.write_text(json.dumps(document, indent=1), encoding="utf-8")
        self.count += 1
        for old in sorted(self._folder.glob("alarm-*.json"))[: -self._most]:
            for path in (old, old.with_suffix(".npy")):
                with suppress(OSError):
                    path.unlink()
