"""A clock for processes started by the tests: time passes in its sleeps, and a little when it is read."""

import sys
from functools import partial

_now = 0.0


def now():
    sleep(1e-7)
    return _now


def sleep(seconds):
    global _now
    _now += seconds


def install():
    """Let the worker that this process is time calls by this clock, so that a busy machine measures the same."""
    worker = sys.modules["__main__"]
    worker.timed = partial(worker.timed, clock=now, reference=now)
