"""Worker threads that share blocks of rows. They are started when first needed, and sleep when there is no work.

Why not concurrent.futures: its locks are not reentrant, so a signal handler that interrupts it deadlocks; Ctrl-C may
leave them taken for ever; and it refuses work while the interpreter ends. Here nothing is locked: a call takes idle
threads from a list, which is atomic under the interpreter's lock, and does without where there are none.

Traps of the platform: a forked child has none of its parent's threads, only the memory of them, so the process id is
compared before they are used. Linux wakes a thread on the CPU where it slept, which may be the caller's, where both
would take turns; so workers are kept off that CPU. A thread that is not a daemon keeps a program from ending.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence

from aeedge.system.limits import other_cpus


class _Group:
    """Threads that were started together: those that are idle, and whether they are still wanted."""

    def __init__(self) -> None:
        self.idle: list[_Worker] = []
        self.started = 0
        self.process = os.getpid()
        self.over = False


class _Worker:
    """A thread that runs one job after another, and puts itself back among the idle ones after each."""

    def __init__(self, group: _Group) -> None:
        self._group = group
        self._go = _taken_lock()
        self._job: Callable[[], None] | None = None
        self._done = _taken_lock()
        self._cpus: set[int] = set()
        # A daemon: it must not keep a program from ending.
        self._thread = threading.Thread(target=self._work, name="aeedge", daemon=True)
        self._thread.start()

    def set_affinity(self, cpus: set[int]) -> None:
        """Run on these CPUs from now on; nothing where the system forbids it."""
        if cpus and cpus != self._cpus and self._thread.native_id is not None:
            self._cpus = cpus
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self._thread.native_id, cpus)

    def submit(self, job: Callable[[], None] | None) -> threading.Lock:
        """Run a job; None ends the thread. The lock is released when it is done."""
        done = self._done = _taken_lock()
        self._job = job
        self._go.release()
        return done

    def _work(self) -> None:
        group = self._group
        while True:
            self._go.acquire()
            job, done = self._job, self._done
            if job is None:
                return
            job()
            self._job = job = None  # holds the caller's arrays
            group.idle.append(self)
            done.release()
            if group.over:  # closed meanwhile, which ended the idle ones alone
                try:
                    group.idle.remove(self)
                except ValueError:
                    continue  # a call took it, and will submit a job
                return

    def end(self) -> None:
        """End the thread after its work."""
        self.submit(None)

    def join(self) -> None:
        """Wait until the thread has ended."""
        if self._thread is not threading.current_thread():
            self._thread.join()


def _taken_lock() -> threading.Lock:
    """A lock that another thread releases: the cheapest signal there is."""
    lock = threading.Lock()
    lock.acquire()
    return lock


class ThreadPool:
    """Runs a function over the beginnings of blocks on `threads` threads, the caller's among them. Survives fork."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._group = _Group()

    def run(self, fill: Callable[[int], None], starts: Sequence[int]) -> None:
        """Call `fill` for each start; the first block that fails, in their order, raises its error here."""
        todo = deque(starts)
        failures: list[tuple[int, BaseException]] = []

        def work() -> None:
            while todo and not failures:
                try:
                    start = todo.popleft()
                except IndexError:
                    return  # another thread took the last block
                try:
                    fill(start)
                except BaseException as error:  # raised below, on the caller's thread
                    failures.append((start, error))

        workers = self._take(min(self.threads, len(starts)) - 1)
        # Linux wakes a thread where it slept, which may be where its caller is: one would wait for the other.
        elsewhere = other_cpus()
        for worker in workers:
            worker.set_affinity(elsewhere)
        waiting = [worker.submit(work) for worker in workers]
        try:
            work()
            for done in waiting:
                done.acquire()
        except BaseException as error:  # Ctrl-C between two blocks, or while waiting: the others stop after theirs
            failures.append((-1, error))
        if failures:  # blocks are begun in order, so the first failing row is among them
            try:
                raise min(failures, key=lambda failure: failure[0])[1]
            finally:
                failures.clear()  # the error's traceback has this frame: a cycle would keep the caller's arrays

    def _take(self, count: int) -> list[_Worker]:
        """Up to `count` idle threads; new ones as long as there are fewer than allowed."""
        group = self._group
        if group.process != os.getpid():  # a forked child has none of its parent's threads
            over, group = group.over, _Group()
            group.over, self._group = over, group
        taken: list[_Worker] = []
        while len(taken) < count and not group.over:
            try:
                taken.append(group.idle.pop())
            except IndexError:
                if group.started >= self.threads - 1:
                    break
                group.started += 1
                try:
                    taken.append(_Worker(group))
                except RuntimeError:  # no more threads, or the interpreter ends
                    group.started -= 1
                    break
        return taken

    def close(self) -> None:
        """End the threads: the idle ones now, the others after their work. Calls do without from then on."""
        for worker in self._end():
            worker.join()

    def __del__(self) -> None:
        self._end()

    def _end(self) -> list[_Worker]:
        group, ended = self._group, []
        group.over = True
        while group.idle and group.process == os.getpid():
            worker = group.idle.pop()
            worker.end()
            ended.append(worker)
        return ended
