"""Lines of JSON, and messages, to samples."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from aeedge.errors import printable, shortened
from aeedge.signals.lines import Chunk, LineError, LineParser, shown, time_of


def _whole(text: str) -> float:
    return int(text) if len(text) < 300 else float(text)  # infinity


class JsonParser(LineParser):
    """JSON lines to samples.

    A line is an object with the channels by name, or an array in their order (behind the time, if it has one value
    more and there is a key of the time); of one channel also a number. An array of these, or an object of arrays, are
    several samples, then a single time is that of the first. null, and keys that are not there, are NaN.
    """

    def message(self, data: bytes) -> Iterator[Chunk]:
        """Samples of a message: one JSON document, or lines; see LineParser."""
        with suppress(ValueError, RecursionError):
            json.loads(data.removeprefix(b"\xef\xbb\xbf"), parse_int=_whole)
            data = re.sub(rb"[\r\n]+", b" ", data)  # one line: no string may hold their ends
        yield from super().message(data)

    def _row(self, line: bytes) -> tuple[Any, Any] | None:
        if not line.removeprefix(b"\xef\xbb\xbf").strip():
            return None
        try:
            found = json.loads(line.decode("utf-8-sig"), parse_int=_whole)
        except UnicodeDecodeError:
            raise LineError("expected JSON in UTF-8, got other bytes") from None
        except json.JSONDecodeError as error:
            why = f"{error.msg}, character {error.pos + 1}"
            got = shown(line.decode("utf-8", "replace").strip())
            raise LineError(f"expected a JSON object or array, got {got} ({why})") from None
        except RecursionError:  # thousands of brackets
            raise LineError("expected a JSON object or array of numbers, got another one") from None
        if isinstance(found, dict):
            return self._of_object(found)
        if isinstance(found, list) and found and all(isinstance(item, (list, dict)) for item in found):
            return self._of_samples(found)
        return self._of_array(found if isinstance(found, list) else [found])

    def _of_samples(self, items: list[Any]) -> tuple[Any, Any]:
        """An array of samples."""
        parts = [self._of_object(item) if isinstance(item, dict) else self._of_array(item) for item in items]
        samples, times = [row for part, _ in parts for row in part], [time for _, time in parts]
        if any(len(part) != 1 for part, _ in parts):
            raise LineError("expected an array of samples, got arrays in the arrays")
        if None in times:
            return samples, None
        return samples, times[0] if len(times) == 1 else np.array(times, np.float64)

    def _of_array(self, values: list[Any]) -> tuple[Any, Any]:
        count = len(self.fields.channels)
        if len(values) == count + 1 and self.fields.time is not None:
            return [
                [self._number(name, value) for name, value in zip(self.fields.channels, values[1:])]
            ], self._seconds(values[0])
        if len(values) != count:
            raise LineError(f"expected {count} numbers, got {len(values)} values", wrong_count=True)
        return [[self._number(name, value) for name, value in zip(self.fields.channels, values)]], None

    def _of_object(self, found: dict[str, Any]) -> tuple[Any, Any]:
        names = self.fields.channels
        if not any(name in found for name in names):
            got = shortened(list(found), 4) or "none"
            raise LineError(f"expected the keys {shortened(names, 4)}, got {got}", wrong_count=True)
        values = [found.get(name) for name in names]
        times = self._time_of(found)
        if not any(isinstance(value, list) for value in values):
            if isinstance(times, np.ndarray):
                raise LineError("expected one time of one sample, got an array")
            return [[self._number(name, value) for name, value in zip(names, values)]], times
        lengths = {len(value) for value in values if isinstance(value, list)}
        if len(lengths) != 1 or lengths == {0} or any(not isinstance(v, list) and v is not None for v in values):
            raise LineError(f"expected arrays of one length as {shortened(names, 4)}, got others")
        (length,) = lengths
        if isinstance(times, np.ndarray) and len(times) != length:
            raise LineError(f"expected {length} times, one for each sample, got {len(times)}")
        columns = [
            [self._number(name, v) for v in value] if value is not None else [math.nan] * length
            for name, value in zip(names, values)
        ]
        return [list(row) for row in zip(*columns)], times

    def _time_of(self, found: dict[str, Any]) -> Any:
        keys, time = list(found), self.fields.time
        at = time_of(keys, time)
        if not at and self.fields.time_given:
            raise LineError(f"expected the key '{printable(str(time))}' with the time, but it is not there")
        at = at or time_of(keys, "time")
        if len(at) == 2:
            return self._seconds(" ".join(str(found[keys[i]]) for i in at))
        if at:
            value = found[keys[at[0]]]
            return np.array([self._seconds(v) for v in value]) if isinstance(value, list) else self._seconds(value)
        return None

    @staticmethod
    def _number(name: str, value: Any) -> float:
        if value is None:
            return math.nan
        if isinstance(value, (int, float)):
            return float(value)
        raise LineError(f"'{printable(name)}': expected a number, got {shown(json.dumps(value, ensure_ascii=False))}")
