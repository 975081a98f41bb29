"""Raise in the middle of a call, where a signal handler might: at a given line that is reached within it."""

import inspect
import sys

import onnxruntime

# Versions that try again with other settings, and cannot be told not to, swallow what a handler raises there.
_TOLD = '"enable_fallback"' in inspect.getsource(onnxruntime.InferenceSession.__init__)
_WATCHED = ("aeedge.", "onnxruntime.capi.") if _TOLD else ("aeedge.",)
_GIVING_BACK = {"__del__", "close", "_folder"}


class InterruptionError(Exception):
    """What a handler raises."""


def interrupt(call, lines, error=InterruptionError):
    """What `call` raises when `error` is raised at the line that `lines` picks: a function from a frame to a bool.

    Only lines of aeedge and onnxruntime count, but for those that give something back, between whose steps Python runs
    no handler, and destructors, where what is raised is lost. None where no line was picked.
    """
    picked = False

    def trace(frame, event, _):
        nonlocal picked
        name = frame.f_globals.get("__name__", "")
        if not name.startswith(_WATCHED) or _gives_back(frame):
            return None
        if event == "line" and not picked and lines(frame):
            picked = True
            sys.settrace(None)
            raise error("of a handler")
        return trace

    sys.settrace(trace)
    try:
        call()
    except BaseException as raised:
        return raised
    finally:
        sys.settrace(None)
    return None


def _gives_back(frame):
    while frame is not None and frame.f_code.co_name not in _GIVING_BACK:
        frame = frame.f_back
    return frame is not None


class Nth:
    """Picks one line event by its number."""

    def __init__(self, number):
        self.left, self.place = number, None

    def __call__(self, frame):
        if self.left == 0:
            self.place = f"{frame.f_globals['__name__']}:{frame.f_lineno}"
        self.left -= 1
        return self.place is not None


class Fresh:
    """Picks the next line that it has not picked before, wherever it is."""

    def __init__(self):
        self.seen, self.place = set(), None

    def __call__(self, frame):
        place = f"{frame.f_globals['__name__']}:{frame.f_lineno}"
        if place in self.seen:
            return False
        self.seen.add(place)
        self.place = place
        return True
