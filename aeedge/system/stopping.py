"""Ends a loop on a signal, at a place where nothing is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")
_GRACE = 2.0  # seconds for what is being written


class Stopped(BaseException):
    """A signal came: `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Stopping:
    """A context in which signals that end a process raise Stopped, but only where the loop waits.

    A second one does the same, so that a loop that hangs in the middle can be ended by SIGKILL alone. Signals that are
    ignored stay so, and outside the main thread nothing is changed.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._waits = self._writes = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._stop)
            if hasattr(signal, "setitimer"):
                self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what waits for ever: a signal ends it, also one that came before."""
        self._waits = True
        try:
            if self._number is not None:
                raise Stopped(self._number)
            yield
        finally:
            self._waits = False

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around output, which a signal lets come to its end, unless nobody takes it for two seconds."""
        if not hasattr(signal, "setitimer"):  # Windows
            with self.waiting():
                yield
            return
        self._writes = True
        try:
            if self._number is not None:
                self._limit(_GRACE)
            yield
        finally:
            self._writes = False
            if self._number is not None:
                self._limit(0.0)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        if self._waits:
            self._waits = False
            raise Stopped(number)
        if self._writes:
            self._limit(_GRACE)

    def _end(self, *_: object) -> None:
        if self._writes and self._number is not None:
            raise Stopped(self._number)

    def _limit(self, seconds: float) -> None:
        if signal.SIGALRM in self._before:
            signal.setitimer(signal.ITIMER_REAL, seconds)
