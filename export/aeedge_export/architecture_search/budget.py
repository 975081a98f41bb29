"""What a network may cost on the device, and what one costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from aeedge.errors import InputError
from aeedge.table import human_bytes

_ONE, _MANY = 1, 1024  # samples per call, of a latency and of a rate


@dataclass(frozen=True)
class Cost:
    """What a network costs, as `aeedge bench --batch` measures it on a device.

    Attributes:
        latency_us: microseconds of a call with `Budget.latency_at` samples.
        rate: samples a second in calls of `Budget.rate_at` samples.
        size: bytes of the bundle.
        memory: bytes of resident memory that the bundle adds to a process; None where the device cannot tell.
        macs: multiply-adds of encoding one sample.
    """

    latency_us: float
    rate: float
    size: int
    memory: int | None
    macs: int


@dataclass(frozen=True)
class Budget:
    """Limits; None for none.

    Attributes:
        latency_us: microseconds of a call with `at` samples, at most.
        rate: samples a second in calls of `at` samples, at least.
        size: bytes of the bundle, at most.
        memory: bytes of resident memory that the bundle adds to a process, at most.
        macs: multiply-adds of encoding one sample, at most.
        at: samples per call; None for 1 (latency) and 1 024 (rate).

    Raises:
        InputError: a limit that is no positive number, or both a latency and a rate.
    """

    latency_us: float | None = None
    rate: float | None = None
    size: int | None = None
    memory: int | None = None
    macs: int | None = None
    at: int | None = None

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (number and math.isfinite(value) and value > 0):
                raise InputError(f"{limit.name}: expected a number above 0, or None for no limit, got {value!r}")
        if self.at is not None and int(self.at) != self.at:
            raise InputError(f"at: expected a whole number of samples per call, got {self.at!r}")
        if self.latency_us is not None and self.rate is not None:
            raise InputError("latency_us, rate: both limit the time of a sample; give one of them")

    @property
    def latency_at(self) -> int:
        """Samples in the calls whose latency counts."""
        return int(self.at or _ONE)

    @property
    def rate_at(self) -> int:
        """Samples in the calls whose rate counts."""
        return int(self.at or _MANY)

    @property
    def unlimited(self) -> bool:
        """Whether anything is allowed."""
        return all(getattr(self, name) is None for name in _SHOWN)

    def excesses(self, cost: Cost) -> dict[str, float]:
        """How many times a cost is what it may be, by the limits that are not met: all above 1."""
        return {name: ratio for name, ratio in self._ratios(cost) if ratio > 1}

    def pressing(self, cost: Cost) -> float:
        """What is to be little where several networks meet the budget: the first limited cost, or the latency."""
        return next((ratio for _, ratio in self._ratios(cost)), cost.latency_us)

    def described(self) -> str:
        """The limits, for people."""
        found = [f"{word} {shown(getattr(self, name))}" for name, (word, shown) in _SHOWN.items() if _given(self, name)]
        return ", ".join(found) or "no limit"

    def excess_described(self, cost: Cost) -> str:
        """The costs that do not meet their limits, for people."""
        found = []
        for name in self.excesses(cost):
            word, shown = _SHOWN[name]
            found.append(f"{shown(getattr(cost, name))} ({word} {shown(getattr(self, name))})")
        return ", ".join(found)

    def _ratios(self, cost: Cost) -> Iterator[tuple[str, float]]:
        """Costs as multiples of their limits; a memory that is not known counts as met."""
        for name in _SHOWN:
            limit, value = getattr(self, name), getattr(cost, name)
            if limit is not None and value is not None:
                yield name, limit / max(value, 1e-30) if name == "rate" else value / limit


def _given(budget: Budget, name: str) -> bool:
    return getattr(budget, name) is not None


def human_time(microseconds: float) -> str:
    """Microseconds for people: 12.3 µs, 4.56 ms, 1.2 s."""
    return _human(microseconds, ((1e6, " s"), (1e3, " ms"), (1.0, " µs")))


def human_count(count: float) -> str:
    """A number for people: 950, 12.3k, 4.56M."""
    return _human(count, ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")))


def _human(value: float, units: Sequence[tuple[float, str]]) -> str:
    """Three digits in the largest unit of which there is one, as rounded."""
    factor, unit = next((pair for pair in units if value >= 0.9995 * pair[0]), units[-1])
    shown = value / factor
    return f"{shown:,.0f}{unit}" if shown >= 999.5 else f"{shown:.3g}{unit}"


_SHOWN: dict[str, tuple[str, Any]] = {
    "latency_us": ("at most", human_time),
    "rate": ("at least", lambda rate: f"{human_count(rate)}/s"),
    "size": ("at most", human_bytes),
    "memory": ("at most", lambda size: f"{human_bytes(size)} of memory"),
    "macs": ("at most", lambda count: f"{human_count(count)} multiply-adds"),
}
