"""Engines and tasks for tests of archives: no process, and workers that are killed."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class InlineEngine:
    """Does parts one after the other, here."""

    name, workers = "local", 1

    def run(self, task, parts, bundle):
        for part in parts:
            yield task(part, bundle.path)


@dataclass(frozen=True)
class KilledTask:
    """Kills its worker with the part of a number, so many times, and otherwise does the task.

    `marks`: a folder with a file for each time.
    """

    task: Any
    number: int
    times: int
    marks: str

    def __call__(self, part, bundle):
        count = len(list(Path(self.marks).iterdir()))
        if part.number == self.number and count < self.times:
            Path(self.marks, str(count)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.task(part, bundle)


class KillingEngine:
    """LocalEngine, some of whose workers are killed."""

    name, workers = "local", 2

    def __init__(self, number, times, marks):
        from aeedge.archive.local import LocalEngine

        self.engine, self.killed = LocalEngine(2), (number, times, str(marks))

    def run(self, task, parts, bundle):
        return self.engine.run(KilledTask(task, *self.killed), parts, bundle)


@dataclass(frozen=True)
class RaisingTask:
    """Has a bug that one part shows."""

    task: Any
    number: int

    def __call__(self, part, bundle):
        if part.number == self.number:
            raise RuntimeError("as a bug")
        return self.task(part, bundle)


class RaisingEngine:
    """LocalEngine with such a task."""

    name, workers = "local", 2

    def __init__(self, number):
        from aeedge.archive.local import LocalEngine

        self.engine, self.number = LocalEngine(2), number

    def run(self, task, parts, bundle):
        return self.engine.run(RaisingTask(task, self.number), parts, bundle)
