"""The general path of a call: checks the input, chooses a route by its number of rows, and runs it.

Routes are serial, intra-op pool, or blocks on worker threads (see policy.py). From how many rows on each is taken
depends on the time of a row, which is measured once per method, by the first call with several rows, or by
`aeedge tune` beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from math import isfinite
from threading import get_ident
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from aeedge.runtime.batch import BLOCK_BYTES, InputBatch, output, touch_cache_lines
from aeedge.runtime.fastpath import fast_call, not_open
from aeedge.runtime.methods import NAMES
from aeedge.runtime.nonfinite import find_sentinels
from aeedge.runtime.policy import Cutoffs, DispatchPolicy, block_rows, default_policy
from aeedge.runtime.threadpool import ThreadPool

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from aeedge.bundle.manifest import InputSpec
    from aeedge.runtime.methods import Method
    from aeedge.runtime.sessions import SessionPool
    from aeedge.types import Block, Floats

_TIMED_ROWS, _TIMED_US = 64, 100.0  # a row's time is measured on rows for this much work: less would say little
_TRIES = 3
_POOL_ROWS, _POOL_TRIES, _POOL_FASTER, _POOL_SURELY_US = (2, 4, 8, 16, 32, 64), 5, 0.97, 300.0


class Dispatcher:
    """Runs the methods of a variant.

    Args:
        sessions: its sessions.
        threads: worker threads, the calling one included.
        policy: which way a number of rows is run; None for the default.
        row_us: microseconds of a row by method, as far as they are known.
        spec: names of the values of a sample, and which are missing.

    Attributes:
        fast: the fast path by method (see fastpath.py): (x, out, invalid) to results, or None where `run` is needed.
        default_policy: the policy where nothing was tuned.
    """

    def __init__(
        self,
        sessions: SessionPool,
        threads: int,
        policy: DispatchPolicy | None = None,
        row_us: Mapping[str, float] = MappingProxyType({}),
        spec: InputSpec | None = None,
    ) -> None:
        self._sessions, self.fast = sessions, sessions.fast
        self._columns = None if spec is None else spec.features
        self._fill: Callable[[Block], tuple[Block, int]] | None = None
        self._has_codes = False  # finite numbers, which no result exposes
        if spec is not None and spec.missing is not None:
            from aeedge.runtime.missing import fill_missing  # most models know none

            self._fill, self._has_codes = partial(fill_missing, spec=spec), bool(spec.missing.codes)
        self._cutoffs = {name: Cutoffs() for name in NAMES}
        self.default_policy = default_policy(sessions.method("encode").stages[0].chain)
        self._threads = ThreadPool(threads)
        self._row_us: dict[str, float] = {}
        self.set_policy(policy or self.default_policy, row_us)

    @property
    def threads(self) -> int:
        """Threads that many rows are spread over."""
        return self._threads.threads

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the methods that there are graphs for."""
        return self._sessions.names

    @property
    def policy(self) -> DispatchPolicy:
        """Which way a number of rows is run."""
        return self._policy

    @property
    def nonfinite_check(self) -> str:
        """Where NaN and infinity are looked for: "latents", "inputs", or "none" for integer input."""
        encode = self._sessions.method("encode")
        return "none" if encode.dtype != np.float32 else "inputs" if encode.sentinels == "none" else "latents"

    def find_sentinels(self, sample: Block) -> str:
        """Try on a sample which latents expose a non-finite input: "none", "first" or "all"."""
        return find_sentinels(self._sessions.method("encode").stages[0], sample)

    def set_policy(
        self, policy: DispatchPolicy, row_us: Mapping[str, float] | None = None, threads: int | None = None
    ) -> None:
        """Run calls another way from now on; not while other threads call."""
        self._policy = policy
        self._row_us = self._row_us if row_us is None else dict(row_us)
        if threads is not None and threads != self.threads:
            self._threads.close()
            self._threads = ThreadPool(threads)
        for name, cutoffs in self._cutoffs.items():
            if name in self._row_us:
                cutoffs.set(policy, self._row_us[name], self._sessions.has_pool)
            else:
                cutoffs.clear()
        for name in self.fast:
            if self.fast[name] is not not_open:
                self._refresh(name)

    def run(self, name: str, x: ArrayLike, out: Floats | None = None, invalid: str = "raise", first: int = 0) -> Floats:
        """Results of a method, in `out` or a new array.

        Args:
            name: of the method.
            x, out, invalid: see `Model.encode`.
            first: number of the first row, for messages.

        Raises:
            InputError: input that does not fit or is not finite, the first row named, or an `out` that does not fit.
                After an error the content of `out` is undefined.
        """
        method, busy = self._sessions.method(name), self._sessions.busy
        batch = self._batch(method, x, invalid, first)
        thread = get_ident()
        try:
            busy.add(thread)
            return self._run(name, batch, out)
        finally:
            busy.discard(thread)
            if self.fast[name] is not_open:
                self._refresh(name)

    def _batch(self, method: Method, x: ArrayLike, invalid: str, first: int = 0) -> InputBatch:
        columns, fill = (None, None) if method.name == "decode" else (self._columns, self._fill)
        return InputBatch(
            x, method.row_in, method.dtype, what=method.name, columns=columns, first=first, invalid=invalid, fill=fill
        )

    def _run(self, name: str, batch: InputBatch, out: Floats | None) -> Floats:
        method, size, on_workers = self._route(name, batch)
        if out is not None or size < len(batch):
            return self._blocks(method, batch, out, size, on_workers=on_workers)
        result = method.run(block := batch.block(0, len(batch)))  # what the graph returns is new: no need to copy it
        if not method.finite(block, result):
            _mark_nonfinite(batch, block, 0, result)
        single: Floats = result[0] if batch.single else result
        return single

    def _route(self, name: str, batch: InputBatch) -> tuple[Method, int, bool]:
        """The method on the sessions that run it, rows of a block, and whether blocks go to worker threads."""
        policy, rows, serial = self._policy, len(batch), self._sessions.method(name)
        if rows == 1:
            on_pool = policy.single_on_pool and self._sessions.has_pool
            return self._sessions.method(name, pooled=True) if on_pool else serial, 1, False
        if name not in self._row_us:
            self._measure(serial, batch)
        row_us, cutoffs = self._row_us[name], self._cutoffs[name]
        fitting = max(1, BLOCK_BYTES // batch.row_bytes)
        size = block_rows(policy, row_us, rows, self.threads, fitting)
        if row_us * rows >= policy.workers_from_us and size < rows and self.threads > 1:
            return serial, size, True
        if rows >= cutoffs.pool_from:  # also a few rows of a large network, which are too few to be cut into blocks
            most = fitting if batch.is_converted else rows
            return self._sessions.method(name, pooled=True), min(rows, most), False
        return serial, rows if rows <= cutoffs.serial_to else size, False

    def _blocks(self, method: Method, batch: InputBatch, out: Floats | None, size: int, *, on_workers: bool) -> Floats:
        result, integers = output(batch, method.row_out, out), method.dtype != np.float32

        def fill(start: int) -> None:
            stop = min(start + size, len(batch))
            block = batch.block(start, stop)
            if integers:
                touch_cache_lines(block)
            method.run_into(block, result[start:stop])
            if not method.finite(block, result[start:stop]):
                _mark_nonfinite(batch, block, start, result[start:stop])

        starts = range(0, len(batch), size)
        if on_workers:
            self._threads.run(fill, starts)
        else:
            for start in starts:
                fill(start)
        if out is not None:
            return out
        single: Floats = result[0] if batch.single else result
        return single

    def _measure(self, serial: Method, batch: InputBatch) -> None:
        """Measure what a row takes and, if the policy asks for it, from how many rows on the pool is faster."""
        policy, name = self._policy, serial.name
        block = batch.block(0, min(len(batch), _TIMED_ROWS, policy.max_rows))
        row_us = _row_us(serial, block, min(_TIMED_ROWS, policy.max_rows))
        measured = math.inf
        if self._sessions.has_pool and policy.measure_pool and _TIMED_ROWS * row_us >= policy.pool_from_us:
            measured = _pool_from(serial, self._sessions.method(name, pooled=True), block)
        self._cutoffs[name].set(policy, row_us, self._sessions.has_pool, measured)
        self._row_us[name] = row_us  # last: it says that the cutoffs are set

    def _refresh(self, name: str) -> None:
        """Make the fast path of a method, with the sessions that are open now; none where codes must be looked for."""
        if self._has_codes and name != "decode":
            return
        sessions, cutoffs = self._sessions, self._cutoffs[name]
        on_pool = self._policy.single_on_pool and sessions.has_pool
        pooled = sessions.method(name, pooled=True) if on_pool else sessions.opened(name, pooled=True)
        serial = sessions.opened(name, pooled=False)
        if serial is not None:
            one = pooled if pooled is not None and on_pool else serial
            made = fast_call(serial, pooled, one, cutoffs, sessions.busy)
            sessions.refresh(name, made)

    def bind(self, name: str, given: Block, invalid: str) -> Callable[[], Floats]:
        """A method on an array of the caller's: a call runs what it then holds and returns an array that is reused."""
        sessions, method = self._sessions, self._sessions.method(name)
        if self._fill is not None:  # missing values are replaced in a copy
            return partial(self.run, name, given, np.empty((len(given), *method.row_out), np.float32), invalid)
        bound, busy, alive = method.bind(len(given), given), sessions.busy, sessions.alive
        run, failed, watched, result, direct = bound.run, bound.failed, bound.watched, bound.result, bound.direct
        output = bound.output if direct else np.empty((len(given), *method.row_out), np.float32)
        renewed: list[Callable[[], Floats]] = []

        def call() -> Floats:
            if not alive:  # closed, forked, or the interpreter ends
                if not renewed:
                    renewed.append(self.bind(name, given, invalid))
                return renewed[0]()
            thread = get_ident()
            try:
                busy.add(thread)
                try:
                    run()
                except Exception as error:
                    if (told := failed(error)) is None:
                        raise
                    raise told from None
                if not direct:
                    output[...] = result()
                if watched is None or isfinite(watched()):
                    return output
            finally:
                busy.discard(thread)
            _mark_nonfinite(self._batch(method, given, invalid), given, 0, output)
            return output

        return call

    def run_block(self, rows: int) -> None:
        """Run this many rows as one block through all graphs, for measuring memory."""
        for name in ("encode", "residual", "score"):
            if name in self.names:
                method = self._sessions.method(name)
                method.run(np.zeros((rows, *method.row_in), method.dtype))

    def close(self) -> None:
        """End the worker threads and let go of the sessions."""
        self._threads.close()
        self._sessions.close()


def _mark_nonfinite(batch: InputBatch, block: Block, start: int, result: Floats) -> None:
    """Find the rows that are not finite: an error, or NaN in their results."""
    found = batch.nonfinite_rows(block, start)
    if found is not None:
        result[found] = np.nan


def _row_us(method: Method, block: Block, most: int) -> float:
    """Microseconds of a row on one thread, measured on these rows, repeated if they are few."""
    count = min(most, math.ceil(len(block) * max(1.0, _TIMED_US / _fastest_us(method, block, 1))))
    return _fastest_us(method, np.resize(block, (count, *block.shape[1:])), _TRIES) / count


def _fastest_us(method: Method, block: Block, tries: int) -> float:
    """Microseconds of the fastest try, which nothing disturbed, after one that does not count."""
    method.run(block)
    return min(_run_us(method, block) for _ in range(tries))


def _run_us(method: Method, block: Block) -> float:
    from aeedge.system.timing import repeat  # single samples need none, and it is felt when a program starts

    return max(repeat(method.run, [block])[0], 1) / 1000


def _pool_from(serial: Method, pooled: Method, block: Block) -> float:
    """The number of rows, up to 64, from which on the pool is faster, taking turns; infinite if it is not even then.

    Twice in a row, so that one disturbance decides nothing.
    """
    won = math.inf
    for rows in _POOL_ROWS:
        part = np.resize(block, (rows, *block.shape[1:]))
        times = [(_run_us(serial, part), _run_us(pooled, part)) for _ in range(_POOL_TRIES)]
        alone, shared = (min(side) for side in zip(*times))
        if shared >= _POOL_FASTER * alone:
            won = math.inf
        elif won < math.inf or alone >= _POOL_SURELY_US:
            return min(won, rows)
        else:
            won = rows
    return won
