"""Lines of a stream to samples: what the kinds of lines have in common."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge.errors import InputError, printable
from aeedge.files.dialect import Dialect
from aeedge.files.sniffing import DialectOptions
from aeedge.files.times import TimeFormat, find_format

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.bundle.manifest import SignalSpec

_LONGEST_LINE = 2**20  # bytes
_WRONG_LINES, _WRONG_COUNTS = 20, 2  # with nothing right before
_SHOWN = 40  # characters of a cell in a message


class Chunk(NamedTuple):
    """Consecutive samples, or some that are missing.

    Attributes:
        samples: (k, channels), NaN where a value is missing; None where the samples are.
        times: seconds, of each sample (k,) or of the first one; None where they are not known.
        missing: number of samples that are missing.
        fault: why they are, one sentence.
    """

    samples: NDArray[Any] | None
    times: NDArray[np.float64] | float | None = None
    missing: int = 0
    fault: str = ""


class Fields(NamedTuple):
    """What a sample is made of.

    Attributes:
        channels: their names.
        time: name of the column or key with the time, or its position where columns have no names; None for none.
        time_given: whether it was asked for, and must be there.
        dialect: of the text files that the model was trained with.
        options: what is known about the text.
        places: of the channels among the columns of these files, where those have no names.
        width: number of these columns.
    """

    channels: tuple[str, ...]
    time: str | None = None
    time_given: bool = False
    dialect: Dialect | None = None
    options: DialectOptions = DialectOptions()
    places: tuple[int, ...] = ()
    width: int = 0

    @classmethod
    def of(
        cls, signal: SignalSpec, time: str | None, recorded: Mapping[str, Any] | None, options: DialectOptions | None
    ) -> Fields:
        """Those of a bundle's signal.

        Args:
            signal: of the manifest.
            time: in place of the bundle's column of time; None for that.
            recorded: the manifest's dialect.
            options: what is known about the text.
        """
        found = cls(signal.channels, time or signal.time, time is not None, Dialect.parse(recorded))
        found = found._replace(options=options or DialectOptions())
        places, width = (recorded or {}).get("columns"), (recorded or {}).get("width")
        if not isinstance(width, int) or not isinstance(places, (list, tuple)) or len(places) != len(signal.channels):
            return found
        if not all(isinstance(place, int) and 0 <= place < width for place in places):
            return found
        return found._replace(places=tuple(places), width=width)


class LineError(Exception):
    """A line is no sample; `wrong_count`: it is one with other channels."""

    def __init__(self, message: str, *, wrong_count: bool = False) -> None:
        super().__init__(message)
        self.wrong_count = wrong_count


class _Group:
    """Samples with or without times, collected into chunks."""

    def __init__(self) -> None:
        self._rows: list[Any] = []
        self._times: list[float] = []

    def add(self, samples: Any, times: Any) -> Iterator[Chunk]:
        """Add samples (k, channels); gives what was collected before, if these cannot be joined to it."""
        if len(samples) != 1 or isinstance(times, np.ndarray):
            yield from self.flush()
            yield Chunk(np.asarray(samples, np.float64), times)
            return
        if self._rows and bool(self._times) != (times is not None):
            yield from self.flush()
        self._rows.append(samples[0])
        if times is not None:
            self._times.append(times)

    def flush(self) -> Iterator[Chunk]:
        """What was collected."""
        if self._rows:
            times = np.array(self._times) if self._times else None
            yield Chunk(np.array(self._rows, np.float64), times)
        self._rows, self._times = [], []


class LineParser:
    """Lines to samples.

    A line that is no sample is a chunk of one missing sample that says why. Where nothing was right before, a second
    line with another number of channels, or twenty wrong lines, are refused: a serial line may be opened in the middle
    of a line, and devices say something when they start.

    Args:
        fields: of a sample.
        name: of the source, for messages.
    """

    def __init__(self, fields: Fields, name: str) -> None:
        self.fields, self.name = fields, name
        self._rest, self._line, self._too_long, self._after_return = b"", 0, False, False
        self._is_right, self._wrong, self._wrong_counts, self._first_fault = False, 0, 0, ""
        self._times: TimeFormat | None = None
        self._messages, self._latest = 0, 1  # number of messages, and of samples of the latest one

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """Samples of the lines that are complete with these bytes.

        Raises:
            InputError: these are no such samples.
        """
        yield from self._chunks(self._lines(data))

    def close(self) -> Iterator[Chunk]:
        """Samples of a last line without an end.

        Raises:
            InputError: these are no such samples, or not one line was.
        """
        yield from self._chunks(self._lines(b"\n") if self._rest or self._too_long else ())
        if self._wrong and not self._is_right:
            raise InputError(self._first_fault)

    def message(self, data: bytes) -> Iterator[Chunk]:
        """Samples of a message, whole lines; nothing is refused. Where all of it is wrong, as many as the one before
        had are missing.
        """
        self._messages += 1
        chunks: list[Chunk] = []
        try:
            chunks += self._chunks(self._lines(data + b"\n"))
        except InputError as error:
            chunks.append(Chunk(None, missing=1, fault=str(error)))
        if len(chunks) == 1 and chunks[0].missing:
            yield chunks[0]._replace(missing=self._latest)
            return
        self._latest = sum(chunk.missing if chunk.samples is None else len(chunk.samples) for chunk in chunks) or 1
        yield from chunks

    def _row(self, line: bytes) -> tuple[Any, Any] | None:
        """Samples (k, channels) and times of a line; None of one that has none and needs none."""
        raise NotImplementedError

    def _seconds(self, cell: Any, decimal: str = ".") -> float:
        """The time in a cell, in seconds."""
        if self._times is None:
            self._times = find_format([cell], decimal=decimal, name=self.fields.time or "time")
        found = self._times.seconds(cell)
        if math.isnan(found):  # 13/1/2026 after 1/1/2026
            self._times = find_format([cell], decimal=decimal, name=self.fields.time or "time")
            found = self._times.seconds(cell)
        if math.isnan(found):
            raise LineError(f"expected a time, got {shown(str(cell))}")
        return found

    def _lines(self, data: bytes) -> Iterator[bytes | None]:
        """Lines that are complete; None for one that is too long. Ends are \\n, \\r\\n and \\r."""
        if self._after_return and data.startswith(b"\n"):
            data = data[1:]
        self._after_return = data.endswith(b"\r")
        lines = (self._rest + data).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            yield None if self._too_long or len(line) > _LONGEST_LINE else line
            self._too_long = False
        if len(self._rest) > _LONGEST_LINE:
            self._rest, self._too_long = b"", True

    def _chunks(self, lines: Iterable[bytes | None]) -> Iterator[Chunk]:
        group = _Group()
        for line in lines:
            self._line += 1
            try:
                if line is None:
                    raise LineError(f"expected lines of at most {_LONGEST_LINE:,} bytes, got a longer one")
                found = self._row(line)
            except LineError as error:
                yield from group.flush()
                yield self._fault(error)
            else:
                if found is not None:
                    self._is_right = True
                    yield from group.add(*found)
        yield from group.flush()

    def _fault(self, error: LineError) -> Chunk:
        place = f"message {self._messages}" if self._messages else f"line {self._line}"
        message = f"{self.name}, {place}: {error}"
        self._first_fault = self._first_fault or message
        self._wrong += 1
        self._wrong_counts += error.wrong_count
        is_hopeless = self._wrong >= _WRONG_LINES or self._wrong_counts >= _WRONG_COUNTS
        if is_hopeless and not self._is_right and not self._messages:
            raise InputError(message)
        return Chunk(None, missing=int(self._is_right), fault=message)


def time_of(names: Sequence[str], time: str | None) -> list[int]:
    """Where the time is among columns or keys: one, or those of day and hour whose names make the wanted one."""
    if time is None:
        return []
    if time in names:
        return [list(names).index(time)]
    pairs = ([i, j] for i, day in enumerate(names) for j, hour in enumerate(names) if f"{day} {hour}" == time)
    return next(pairs, [])


def shown(text: str) -> str:
    """A cell in a message."""
    return repr(printable(text, _SHOWN)) if text else "nothing"
