"""CPU time of other processes during a measurement, from /proc/stat; unknown on systems without it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

STAT = Path("/proc/stat")
LIMIT = 0.10  # of one CPU
_TICK = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01


class Load(NamedTuple):
    """CPU seconds of other processes, and steal time among them, during `seconds`; None where unknown."""

    seconds: float
    foreign: float | None
    stolen: float | None

    @property
    def disturbed(self) -> bool:
        """Whether others used more than a tenth of a CPU, plus two ticks, the resolution of the counters."""
        return self.foreign is not None and self.foreign > LIMIT * self.seconds + 2 * _TICK

    def describe(self) -> str:
        """The load as text."""
        if self.foreign is None or self.stolen is None:
            return "the load of other processes is not available on this system"
        share, stolen = self.foreign / self.seconds, self.stolen / self.seconds
        return f"other processes used {share:.0%} of a CPU" + (
            f", of it {stolen:.0%} steal time" if stolen > 0.01 else ""
        )


class Watch:
    """Counts over the given CPUs, from construction on."""

    def __init__(self, cpus: Iterable[int], stat: Path = STAT) -> None:
        self._names, self._stat = {f"cpu{cpu}" for cpu in cpus}, stat
        self._began, self._before, self._own = time.perf_counter(), self._read(), time.process_time()

    def stop(self, ours: float) -> Load:
        """The load of other processes, given the worker's CPU seconds; those of this process are subtracted too."""
        seconds, now = time.perf_counter() - self._began, self._read()
        if now is None or self._before is None:
            return Load(seconds, None, None)
        busy, stolen = (after - before for after, before in zip(now, self._before))
        foreign = busy - ours - (time.process_time() - self._own)
        return Load(seconds, max(0.0, foreign), stolen)

    def _read(self) -> tuple[float, float] | None:
        """CPU seconds so far: busy, and steal time."""
        try:
            lines = [line.split() for line in self._stat.read_text().splitlines()]
        except OSError:
            return None
        counts = [[int(field) for field in line[1:9]] for line in lines if line[0] in self._names]
        # user, nice, system, idle, iowait, irq, softirq, steal
        busy = sum(sum(fields) - fields[3] - fields[4] for fields in counts)
        return busy * _TICK, sum(fields[7] for fields in counts) * _TICK
