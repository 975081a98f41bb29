"""Findings on a run, each with the part of it that it concerns."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from aeedge.system import conditions
from aeedge.system.clock import Clock
from aeedge.system.conditions import Finding


class Findings:
    """What was found so far, beginning with the machine's settings; `clock` is what times are read from."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._found = [("machine", finding) for finding in conditions.standing()]

    def add(self, part: str, finding: Finding) -> None:
        """Keep a finding on a part of the run."""
        self._found.append((part, finding))

    @contextmanager
    def watched(self, part: str) -> Iterator[None]:
        """Read the state of the machine before and after, and keep the findings."""
        gc.collect()
        before = conditions.read(self._clock)
        yield
        self._found += [(part, finding) for finding in conditions.judge(before, conditions.read(self._clock))]

    def is_invalid(self) -> bool:
        """Whether one of them makes the numbers worthless."""
        return any(finding.grade == "invalid" for _, finding in self._found)

    def document(self) -> list[dict[str, str]]:
        """All of them as plain values (docs/reference/json-outputs.md)."""
        return [{"part": part, "grade": f.grade, "code": f.code, "message": f.message} for part, f in self._found]
