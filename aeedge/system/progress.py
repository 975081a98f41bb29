"""What a command is doing, on standard error: one line of a terminal, elsewhere a line for each tenth of the work."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from shutil import get_terminal_size
from unicodedata import east_asian_width

from aeedge.errors import printable
from aeedge.table import human_duration

_LINE = 80
_LEAST_SMOOTHING = 0.1  # of a new pace, when there were many before it


class ProgressLine:
    """Shows what is being done.

    Args:
        quiet: whether nothing is shown.
        every: least seconds between the lines that no terminal shows, and before the first one, which is then of a
            tenth that is done.
    """

    def __init__(self, *, quiet: bool = False, every: float = 0.0) -> None:
        self.is_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._quiet, self._every = quiet, every
        self._shown, self._tenth, self._said = 0, 0 if every else -1, time.monotonic()

    def show(self, parts: Sequence[str], share: float | None = None) -> None:
        """Show some words with commas between them, as many as there is room for.

        Args:
            parts: the first one says what is done, the last one is, where there are more, the next important one; of
                those between, the last ones are left out first.
            share: of the work that is done. Where no terminal shows lines, there is one for each tenth of it; None for
                none.
        """
        if self._quiet:
            return
        if self.is_terminal:
            self._draw(fitted(parts, _columns() - 1))
        elif share is not None:
            tenth, now = int(10 * share + 1e-9), time.monotonic()
            if tenth > self._tenth and now - self._said >= self._every:
                self._tenth, self._said = tenth, now
                print(fitted(parts, _LINE - 1), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Remove the line."""
        if self.is_terminal and self._shown:
            self._draw("")
            print("\r", end="", file=sys.stderr, flush=True)

    def _draw(self, text: str) -> None:
        """Write over what is there, which takes several lines where the terminal became narrower."""
        columns, width = _columns(), _width(text)
        above = max(self._shown - 1, 0) // columns
        start = f"\x1b[{above}A\r\x1b[J" if above else "\r"
        rest = " " * (0 if above else max(min(self._shown, columns - 1) - width, 0))
        print(f"{start}{text}{rest}", end="", file=sys.stderr, flush=True)
        self._shown = width + len(rest) if text else 0


class Pace:
    """The time that is left, smoothed: it does not jump with each part of the work.

    Args:
        done: what is done at the start.
    """

    def __init__(self, done: float = 0) -> None:
        self._done, self._at = done, time.monotonic()
        self._count, self._seconds = 0, 0.0  # for one unit

    def left(self, done: float, total: float) -> str:
        """What is to be said of it, such as "2 min 10 s left"; empty while nothing is known, and at the end."""
        now = time.monotonic()
        if done > self._done:
            self._count += 1
            weight = max(1 / self._count, _LEAST_SMOOTHING)
            self._seconds += weight * ((now - self._at) / (done - self._done) - self._seconds)
            self._done, self._at = done, now
        return time_left(self._seconds * (total - done)) if self._count and done < total else ""


def time_left(seconds: float) -> str:
    """In steps that people read: "42 s left", "2 min 10 s left", "3 h 20 min left"."""
    if seconds < 1:
        return "nearly done"
    step = 1 if seconds < 60 else 10 if seconds < 600 else 60
    return f"{human_duration(max(round(seconds / step) * step, 1))} left"


def fitted(parts: Sequence[str], columns: int) -> str:
    """Words with commas between them in so many columns, see `ProgressLine.show`."""
    found = [printable(part, None) for part in parts if part]
    while len(found) > 2 and _width(", ".join(found)) > columns:
        del found[-2]
    text, end = ", ".join(found), "" if len(found) < 2 else f", {found[-1]}"
    if _width(text) > columns:
        room = columns - _width(end) - 1
        text, end = (found[0], end) if room >= 8 else (text, "")
        text = _cut(text, columns - _width(end) - 1) + "…" + end
    return text


def _cut(text: str, columns: int) -> str:
    while _width(text) > max(columns, 0):
        text = text[:-1]
    return text


def _width(text: str) -> int:
    """Columns of a terminal: Chinese, Japanese and Korean characters take two."""
    return len(text) + (0 if text.isascii() else sum(east_asian_width(c) in "WF" for c in text))


def _columns() -> int:
    """Of the terminal, which may have been resized."""
    try:
        return max(os.get_terminal_size(sys.stderr.fileno()).columns, 10)
    except (OSError, ValueError, AttributeError):
        return max(get_terminal_size().columns, 10)
