"""From windows that score above a threshold to alarms that people want: patience, hysteresis, cool-down."""

from __future__ import annotations

import math
import re
from typing import Any

from aeedge.detection.calibration import as_number
from aeedge.errors import InputError

_MOST = 10_000  # windows that a patience may look back on


def parse_patience(value: Any) -> tuple[int, int]:
    """ "3 of 5" as (3, 5).

    Raises:
        InputError: it is no such text.
    """
    found = re.fullmatch(r"\s*(\d{1,5})\s*of\s*(\d{1,5})\s*", value) if isinstance(value, str) else None
    k, n = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= k <= n <= _MOST:
        raise InputError(
            f"patience: expected how many of the last windows must be above the threshold, such as '3 of 5' "
            f"(at most of {_MOST:,}), got {value!r:.60}"
        )
    return k, n


class AlarmLogic:
    """When an alarm begins, and how long it is on.

    An alarm begins when `k` of the last `n` windows score above the threshold, and is on until fewer than `k` of the
    last `n` score above the release level, which is lower by the share `hysteresis`. After its end, none begins for
    `cooldown` seconds.

    Args:
        patience: such as "3 of 5".
        cooldown: seconds, from 0.
        hysteresis: 0 up to, not including, 1.

    Raises:
        InputError: a value out of range.
    """

    def __init__(self, patience: str = "1 of 1", cooldown: float = 0.0, hysteresis: float = 0.0) -> None:
        self.k, self.n = parse_patience(patience)
        below_zero = math.nextafter(0.0, -1.0)
        self.cooldown = as_number("cooldown", cooldown, below_zero, math.inf, "seconds, from 0")
        self.hysteresis = as_number("hysteresis", hysteresis, below_zero, 1.0, "a share from 0, below 1")
        self._window = (1 << self.n) - 1
        self.clear()

    def clear(self) -> None:
        """Forget all windows and alarms."""
        self.on = False
        self.interrupt()
        self.quiet_until = -math.inf

    def interrupt(self, time: float = -math.inf) -> None:
        """Forget the last windows, and end an alarm at a time: what comes next does not follow on them."""
        if self.on:
            self.quiet_until = time + self.cooldown
        self._above = self._still = 0  # a bit for each of the last n windows
        self.on = False

    def update(self, score: float, threshold: float, time: float) -> bool:
        """Count a window, with the time of its last sample; whether an alarm begins."""
        self._above = (self._above << 1 | (score > threshold)) & self._window
        if not self.on and not self._above:  # nearly always
            self._still = 0
            return False
        self._still = (self._still << 1 | (score > threshold * (1.0 - self.hysteresis))) & self._window
        if self.on:
            self.on = self._still.bit_count() >= self.k
            if not self.on:
                self.quiet_until = time + self.cooldown
            return False
        is_quiet = 0 < self.quiet_until - time <= self.cooldown  # more is left where the clock went back
        self.on = self._above.bit_count() >= self.k and not is_quiet
        return self.on

    def state(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        quiet = None if math.isinf(self.quiet_until) else self.quiet_until
        return {"above": hex(self._above), "still": hex(self._still), "on": self.on, "quiet_until": quiet}

    def restore(self, state: dict[str, Any]) -> None:
        """Remember what another one did.

        Raises:
            ValueError, TypeError, KeyError: this is no state.
        """
        above, still = int(state["above"], 16), int(state["still"], 16)
        if not (0 <= above <= self._window and 0 <= still <= self._window) or not isinstance(state["on"], bool):
            raise ValueError("alarm")
        quiet = state["quiet_until"]
        self._above, self._still, self.on = above, still, state["on"]
        self.quiet_until = -math.inf if quiet is None else float(quiet)
