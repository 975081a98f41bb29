"""Threads of our own that share blocks of rows. They are started when first needed, and sleep when there is nothing.

concurrent.futures would do this too, but not from a signal handler that interrupts it (its locks are not reentrant),
not after Ctrl-C (which may leave them taken), and not while the interpreter ends. Here nothing is locked: a call takes
threads that nobody uses from a list, which is atomic, and does without where there are none.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence

from aeedge.system.limits import other_cpus


class _Team:
    """Threads that were started together: those that are idle, and whether they are still wanted."""

    def __init__(self) -> None:
        self.idle: list[_Helper] = []
        self.started = 0
        self.process = os.getpid()
        self.over = False


class _Helper:
    """A thread that does one job after another, and puts itself back among the idle ones after each."""

    def __init__(self, team: _Team) -> None:
        self._team = team
        self._go = _taken_lock()
        self._job: Callable[[], None] | None = None
        self._done = _taken_lock()
        self._cpus: set[int] = set()
        # A daemon: it must not keep a program from ending.
        self._thread = threading.Thread(target=self._work, name="aeedge", daemon=True)
        self._thread.start()

    def keep_to(self, cpus: set[int]) -> None:
        """Run on these CPUs from now on. A system that does not allow it is left as it is."""
        if cpus and cpus != self._cpus and self._thread.native_id is not None:
            self._cpus = cpus
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self._thread.native_id, cpus)

    def begin(self, job: Callable[[], None] | None) -> threading.Lock:
        """Do a job; None ends the thread. The lock is given back when it is done."""
        done = self._done = _taken_lock()
        self._job = job
        self._go.release()
        return done

    def _work(self) -> None:
        team = self._team
        while True:
            self._go.acquire()
            job, done = self._job, self._done
            if job is None:
                return
            job()
            self._job = job = None  # holds the caller's arrays
            team.idle.append(self)
            done.release()
            if team.over:  # closed meanwhile, which only ended those that were idle then
                try:
                    team.idle.remove(self)
                except ValueError:
                    continue  # somebody took it, and will say what to do
                return

    def end(self) -> None:
        """End the thread after its work."""
        self.begin(None)

    def join(self) -> None:
        """Wait until the thread has ended."""
        if self._thread is not threading.current_thread():
            self._thread.join()


def _taken_lock() -> threading.Lock:
    """A lock that is given back by another thread than took it: the cheapest signal there is."""
    lock = threading.Lock()
    lock.acquire()
    return lock


class Lanes:
    """Runs a function over the beginnings of blocks on `threads` threads, the caller's among them. Survives fork."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._team = _Team()

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

        helpers = self._take(min(self.threads, len(starts)) - 1)
        # Linux wakes a thread where it slept, which may be where its caller is: one would wait for the other.
        elsewhere = other_cpus()
        for helper in helpers:
            helper.keep_to(elsewhere)
        waiting = [helper.begin(lane) for helper in helpers]
        try:
            lane()
            for done in waiting:
                done.acquire()
        except BaseException as error:  # Ctrl-C between two blocks, or while waiting: the others stop after theirs
            failures.append((-1, error))
        if failures:  # blocks are begun in order, so the first failing row is among them
            try:
                raise min(failures, key=lambda failure: failure[0])[1]
            finally:
                failures.clear()  # the error's traceback has this frame: a cycle would keep the caller's arrays

    def _take(self, count: int) -> list[_Helper]:
        """Up to so many threads that nobody uses; new ones while there are fewer than there may be."""
        team = self._team
        if team.process != os.getpid():  # a forked child has none of its parent's threads
            over, team = team.over, _Team()
            team.over, self._team = over, team
        taken: list[_Helper] = []
        while len(taken) < count and not team.over:
            try:
                taken.append(team.idle.pop())
            except IndexError:
                if team.started >= self.threads - 1:
                    break
                team.started += 1
                try:
                    taken.append(_Helper(team))
                except RuntimeError:  # no more threads, or the interpreter ends
                    team.started -= 1
                    break
        return taken

    def close(self) -> None:
        """End the threads: the idle ones now, the others after their work. Calls do without from then on."""
        for helper in self._end():
            helper.join()

    def __del__(self) -> None:
        self._end()

    def _end(self) -> list[_Helper]:
        team, ended = self._team, []
        team.over = True
        while team.idle and team.process == os.getpid():
            helper = team.idle.pop()
            helper.end()
            ended.append(helper)
        return ended
