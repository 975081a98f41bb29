"""The settings of a run."""

from __future__ import annotations

from typing import NamedTuple

SCENARIOS = ("SingleStream", "MultiStream", "Offline")
METHODS = ("encode", "decode", "denoise", "score")


class Plan(NamedTuple):
    """Settings of one run.

    Attributes:
        path, variant, threads: as for `aeedge.load`.
        method: which method of the model is called.
        scenarios: of SCENARIOS.
        seconds: length of each scenario.
        rate: queries per second of an additional run at a fixed rate, or None.
        deadline: seconds within which those must be answered; None for the time between two queries.
        soak: seconds of an additional long run, or None.
        quick: skip the fresh processes and the batch sizes.
        profile: also measure the time per operator.
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
