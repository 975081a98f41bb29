"""Threads of our own that share blocks of rows. They are started when first needed, and sleep when there is nothing."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor


class Lanes:
    """Runs a function over the beginnings of blocks on `threads` threads, the caller's among them. Survives fork."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._pool_process = 0

    def run(self, fill: Callable[[int], None], starts: Sequence[int]) -> None:
        """Call `fill` for each start; the first block that fails, in their order, raises its error here."""
        todo = deque(starts)
        failures: list[tuple[int, BaseException]] = []

        def lane() -> None:
            while todo and not failures:
                try:
                    start = todo.popleft()
                except IndexError:
                    return  # another lane took the last block
                try:
                    fill(start)
                except BaseException as error:  # raised below, on the caller's thread
                    failures.append((start, error))

        pool = self._executor()
        helpers = [pool.submit(lane) for _ in range(min(self.threads, len(starts)) - 1)]
        lane()
        for helper in helpers:
            if not helper.cancel():  # all blocks may be done before a thread has woken up
                helper.result()
        if failures:  # blocks are begun in order, so the first failing row is among them
            raise min(failures, key=lambda failure: failure[0])[1]

    def _executor(self) -> ThreadPoolExecutor:
        if self._pool is None or self._pool_process != os.getpid():  # a forked child has none of its parent's threads
            from concurrent.futures import ThreadPoolExecutor  # costs milliseconds, and single rows need none

            self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="aeedge")
            self._pool_process = os.getpid()
        return self._pool

    def close(self) -> None:
        """End the threads; a later `run` starts them anew."""
        pool, self._pool = self._pool, None
        if pool is not None and self._pool_process == os.getpid():
            pool.shutdown()
