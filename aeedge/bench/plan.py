"""What a run is to measure, checked before anything is measured."""

from __future__ import annotations

import re
from typing import NamedTuple

from aeedge.errors import InputError

SCENARIOS = ("SingleStream", "MultiStream", "Offline")
METHODS = ("encode", "decode", "denoise", "score")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Plan(NamedTuple):
    """Settings of one run.

    Attributes:
        path, variant, threads: as for `aeedge.load`.
        method: which method of the model is called.
        scenarios: of SCENARIOS.
        seconds: length of each scenario.
        rate: queries a second of an additional run at a fixed rate, or None.
        deadline: seconds within which those must be answered; None for their distance.
        soak: seconds of an additional long run, or None.
        quick: leave out the fresh processes and the batch sizes.
        profile: time by operator as well.
    """

    path: str
    variant: str = "auto"
    threads: int | str = "auto"
    method: str = "encode"
    scenarios: tuple[str, ...] = SCENARIOS
    seconds: float = 5.0
    rate: float | None = None
    deadline: float | None = None
    soak: float | None = None
    quick: bool = False
    profile: bool = False


def scenario(text: str) -> str:
    """The scenario's name in MLPerf's spelling, whatever the case or separator.

    Raises:
        InputError: none of that name.
    """
    wanted = re.sub(r"[-_ ]", "", text).lower()
    for name in SCENARIOS:
        if name.lower() == wanted:
            return name
    raise InputError(f"scenario: expected {', '.join(SCENARIOS)}, got {text!r} (for a fixed rate: --rate 200/s)")


def duration(text: str, what: str) -> float:
    """Seconds from "500us", "20ms", "90s", "30m", "2h"; a bare number is seconds.

    Raises:
        InputError: anything else, or nothing above 0.
    """
    found = re.fullmatch(r"([0-9.]+(?:e-?\d+)?)\s*(us|µs|ms|s|m|h)?", text.strip())
    seconds = _number(found[1]) * _UNITS[(found[2] or "s").replace("µ", "u")] if found else 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"{what}: expected a duration above 0 such as 20ms, 90s or 30m, got {text!r}")
    return seconds


def rate(text: str) -> float:
    """Queries a second from "200/s", "12/m" or a bare number.

    Raises:
        InputError: anything else, or nothing above 0.
    """
    found = re.fullmatch(r"([0-9.]+(?:e\d+)?)\s*(?:/\s*(s|m|h))?", text.strip())
    per_second = _number(found[1]) / _UNITS[found[2] or "s"] if found else 0.0
    if not 0 < per_second < float("inf"):
        raise InputError(f"--rate: expected queries a second above 0 such as 200/s, got {text!r}")
    return per_second


def percent(text: str, what: str) -> float:
    """A share from "5%" or "5".

    Raises:
        InputError: anything else, or below 0.
    """
    found = re.fullmatch(r"([0-9.]+)\s*%?", text.strip())
    share = _number(found[1]) / 100 if found else -1.0
    if not 0 <= share < float("inf"):
        raise InputError(f"{what}: expected percent such as 5%, got {text!r}")
    return share


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0
