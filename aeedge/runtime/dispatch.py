"""How a number of rows is run: alone, on onnxruntime's pool, or in blocks on threads of our own; and doing it.

- A few rows run on the calling thread.
- More rows, up to some milliseconds of work, go to onnxruntime's pool, which shares each operator: its threads look
  for work for a millisecond after the last, so that they need not be woken.
- Many rows are cut into blocks that stay in cache, shared among our own threads. Waking them takes 20 to 100 µs, but
  then none waits for another between operators.

Where the borders lie depends on how long a row takes, which is measured once, by the first call with more than one,
or by `aeedge tune` beforehand.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from aeedge.runtime.batch import output, prefetch
from aeedge.runtime.policy import Schedule
from aeedge.runtime.threadpool import Lanes

if TYPE_CHECKING:
    from aeedge.runtime.batch import Block, Floats, Rows
    from aeedge.runtime.methods import Step
    from aeedge.runtime.sessions import Engine

_TRIED_ROWS, _TRIED_US = 64, 100.0  # a row's time is measured on rows for so much work: less would say little
_TRIES = 3
_LEAST_BLOCK = 64  # rows; smaller products waste the processor
_MOST_BYTES = 2**21  # of a block's input: with its activations it should stay in a core's cache


class Runner:
    """Runs the methods of an engine over rows.

    Args:
        engine: the sessions.
        threads: of our own, the calling one included.
        schedule: where the borders lie.
        row_us: microseconds of a row by method, as far as they are known.
    """

    def __init__(self, engine: Engine, threads: int, schedule: Schedule, row_us: Mapping[str, float]) -> None:
        self._engine, self._lanes, self._schedule = engine, Lanes(threads), schedule
        self._row_us = dict(row_us)
        self._set_borders()

    @property
    def schedule(self) -> Schedule:
        """Where the borders lie; may be set, while no other thread calls."""
        return self._schedule

    @schedule.setter
    def schedule(self, schedule: Schedule) -> None:
        if schedule is not self._schedule:
            self._schedule = schedule
            self._set_borders()

    def _set_borders(self) -> None:
        """Say in rows what may go the short way: what needs neither blocks nor to be timed first."""
        schedule, has_pool = self._schedule, self._engine.has_pool
        self._engine.single_on_pool(schedule.single_on_pool and has_pool)
        for name, borders in self._engine.borders.items():
            us = self._row_us.get(name)
            most = 1 if us is None else _first(schedule.lanes_from, us) - 1
            borders.most = min(most, schedule.most_rows)
            borders.pool = max(1.0, _first(schedule.pool_from, us or 0.0)) if has_pool else math.inf
            borders.alone = min(borders.most, max(_LEAST_BLOCK, _first(schedule.block, us or 0.0) - 1))

    @property
    def threads(self) -> int:
        """Threads that many rows are spread over."""
        return self._lanes.threads

    def run(self, name: str, rows: Rows, out: Floats | None) -> Floats:
        """Results of a method for rows, in `out` or a new array.

        Raises:
            InputError: rows that are not finite, the first one named, or an `out` that does not fit. After an error
                the content of `out` is undefined.
        """
        self._engine.busy.append(None)
        try:
            return self._run(self._engine.alone()[name], rows, out)
        finally:
            self._engine.busy.pop()

    def _run(self, step: Step, rows: Rows, out: Floats | None) -> Floats:
        work = self._work(step, rows)
        size = self._block_rows(step, rows, work)
        if work >= self.schedule.lanes_from and size < len(rows) and self.threads > 1:
            return self._blocks(step, rows, out, size, on_lanes=True)
        # Also a few rows of a large net, which are too few to be cut into blocks.
        if work >= self.schedule.pool_from and self._engine.has_pool:
            step, size = self._engine.shared()[step.name], len(rows)
        if out is None and len(rows) <= size:  # what the graph returns is new: no need to copy it
            return _whole(step, rows)
        return self._blocks(step, rows, out, size, on_lanes=False)

    def _work(self, step: Step, rows: Rows) -> float:
        """Microseconds that these rows take on one thread; 0 for a single one as long as that is not known."""
        row_us = self._row_us.get(step.name)
        if row_us is None:
            if len(rows) == 1:
                return 0.0
            row_us = self._row_us[step.name] = _row_us(step, rows, min(_TRIED_ROWS, self.schedule.most_rows))
            self._set_borders()
        return row_us * len(rows)

    def _block_rows(self, step: Step, rows: Rows, work: float) -> int:
        """Rows in a block, a power of two: of about the work that the schedule says, two for each thread at least."""
        fitting = max(1, _MOST_BYTES // rows.row_bytes)
        row_us = work / len(rows)
        wanted = int(self.schedule.block / row_us) if row_us else fitting
        share = -(-len(rows) // (2 * self.threads))
        most = min(fitting, self.schedule.most_rows)
        return _power_of_two(min(max(min(wanted, share), _LEAST_BLOCK), most))

    def _blocks(self, step: Step, rows: Rows, out: Floats | None, size: int, *, on_lanes: bool) -> Floats:
        result, integers = output(rows, step.row_out, out), step.dtype != "float32"

        def fill(start: int) -> None:
            stop = min(start + size, len(rows))
            block = rows.block(start, stop)
            if integers:
                prefetch(block)
            step.into(block, result[start:stop])
            bad = rows.bad(block, start, told=step.tells(result[start:stop]))
            if bad is not None:
                result[start:stop][bad] = np.nan

        starts = range(0, len(rows), size)
        if on_lanes:
            self._lanes.run(fill, starts)
        else:
            for start in starts:
                fill(start)
        if out is not None:
            return out
        single: Floats = result[0] if rows.single else result
        return single

    def close(self) -> None:
        """End our threads; a later `run` starts them anew."""
        self._lanes.close()


def _whole(step: Step, rows: Rows) -> Floats:
    """All rows as one block."""
    block = rows.block(0, len(rows))
    result = step.new(block)
    bad = rows.bad(block, 0, told=step.tells(result))
    if bad is not None:
        result[bad] = np.nan
    single: Floats = result[0] if rows.single else result
    return single


def _row_us(step: Step, rows: Rows, most: int) -> float:
    """Microseconds of a row on one thread, measured on the first rows, over and over if they are few."""
    block = rows.block(0, min(len(rows), most))
    count = min(most, math.ceil(len(block) * max(1.0, _TRIED_US / _fastest_us(step, block, 1))))
    block = np.resize(block, (count, *block.shape[1:]))
    return _fastest_us(step, block, _TRIES) / count


def _fastest_us(step: Step, block: Block, tries: int) -> float:
    """Microseconds of the fastest try, which nothing disturbed, after one that does not count."""
    fastest = float("inf")
    step.new(block)
    for _ in range(tries):
        began = time.perf_counter_ns()
        step.new(block)
        fastest = min(fastest, time.perf_counter_ns() - began)
    return max(fastest, 1) / 1000


def _first(border: float, row_us: float) -> float:
    """The number of rows from which on there is so much work, in microseconds."""
    if border == math.inf or not row_us:
        return 0.0 if border <= 0 else math.inf
    return math.ceil(border / row_us)


def _power_of_two(rows: int) -> int:
    return 1 << (max(1, rows).bit_length() - 1)
