"""The engine of one machine: processes, each of which does one part at a time; one that ends is replaced."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any

from aeedge.archive.packing import Packed
from aeedge.archive.parts import Part
from aeedge.archive.work import TRIES, Outcome, Task, gave_up
from aeedge.errors import printable
from aeedge.system.limits import thread_count


class LocalEngine:
    """Processes on this machine.

    Args:
        workers: how many; None for the CPUs that this process may use.
    """

    name = "local"

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or thread_count("auto")

    def run(self, task: Task, parts: Sequence[Part], bundle: Packed) -> Generator[Outcome, None, None]:
        """The outcomes as they come; see `Engine`."""
        waiting, tries = deque(parts), dict.fromkeys((part.number for part in parts), 0)
        workers: list[_Worker] = []
        try:
            for _ in range(min(self.workers, len(parts))):
                workers.append(_Worker(task, bundle.path))
                workers[-1].give(waiting)
            while busy := [worker for worker in workers if worker.part is not None]:
                ready = set(wait([each for worker in busy for each in (worker.connection, worker.process.sentinel)]))
                for i, worker in enumerate(workers):
                    if worker.part is None or not ready & {worker.connection, worker.process.sentinel}:
                        continue
                    outcome, why = worker.outcome()
                    if outcome is None:  # it ended, killed or out of memory
                        part = worker.part
                        tries[part.number] += 1
                        if tries[part.number] < TRIES:
                            waiting.appendleft(part)
                        else:
                            outcome = gave_up(part, why)
                        worker.end()
                        workers[i] = worker = _Worker(task, bundle.path)
                    worker.give(waiting)
                    if outcome is not None:
                        yield outcome
        finally:
            for worker in workers:
                worker.end()


class _Worker:
    """A process, and the part that it does."""

    def __init__(self, task: Task, bundle: str) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would take this process's threads and locks along
        self.connection, other = context.Pipe()
        self.process: Any = context.Process(target=_serve, args=(other, task, bundle), daemon=True)
        with _interrupts_ignored(), _no_main(task):
            self.process.start()
        other.close()
        self.part: Part | None = None

    def give(self, waiting: deque[Part]) -> None:
        """Let it do the next part, if there is one."""
        self.part = waiting.popleft() if waiting else None
        if self.part is not None:
            with suppress(OSError):  # it has ended; `outcome` will see it
                self.connection.send(self.part)

    def outcome(self) -> tuple[Outcome | None, str]:
        """What became of its part; None and why, if it ended before."""
        try:
            found: tuple[Outcome | None, str] = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return None, f"exit code {self.process.exitcode}"
        return found

    def end(self) -> None:
        """End the process, whatever it does: what it has not committed does not count."""
        self.process.kill()
        self.process.join()
        self.connection.close()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ctrl-C goes to all processes of a terminal: those that are started in here never take notice."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)  # None is one that Python does not know


@contextmanager
def _no_main(task: Task) -> Iterator[None]:
    """Start processes that do not import the script that this one runs, unless the task is of it: it may not expect
    that.
    """
    main = sys.modules["__main__"]
    if getattr(task, "__module__", "") != "__main__":
        sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _end_with(parent: Any) -> None:
    """End this process, whatever it does, when the other one has ended."""
    parent.join()
    os._exit(1)


def _serve(connection: Connection, task: Task, bundle: str) -> None:
    """Do parts until the other process closes the connection, or has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process ends this one
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    while True:
        try:
            part = connection.recv()
        except (EOFError, OSError):
            return
        reply: tuple[Outcome | None, str]
        try:
            reply = task(part, bundle), ""
        except Exception as error:
            reply = None, printable(f"{type(error).__name__}: {error}", 200)
        try:
            connection.send(reply)
        except OSError:
            return
