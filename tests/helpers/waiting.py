"""Wait for what comes soon, but nobody knows when: a busy machine may take its time."""

import time

PATIENCE = 60  # seconds, after which it will not come any more


def soon(condition):
    """Whether a condition comes true."""
    end = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()
