"""Comparing version numbers."""

from __future__ import annotations


def release(version: str | None) -> tuple[int, ...]:
    """The first three numbers of a version, missing ones as 0: "1.20rc1" is (1, 20, 1); empty where there is none."""
    found = "".join(c if c.isdecimal() else " " for c in version or "").split()  # no regex to compile at every start
    numbers = [int(number) for number in found[:3]]
    return tuple(numbers + [0] * (3 - len(numbers))) if numbers else ()
