"""Tasks for engines: what happens to a part, and whether it happens once."""

import os
import platform
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from aeedge.archive.parts import Part
from aeedge.archive.storage import Place
from aeedge.archive.work import Outcome


def parts(count):
    """Parts of files that nobody reads."""
    return [Part(number, Place("", f"/archive/day-{number}.parquet"), (), 0, 10) for number in range(count)]


class Work(NamedTuple):
    """A task that takes a moment, and to some part something happens.

    Attributes:
        folder: where what happens is written down.
        number: of the part to which it happens; None for any.
        what: happens to it, the name of a method below; "" for nothing.
        times: how often.
        seconds: that each part takes.
    """

    folder: str
    number: int | None = None
    what: str = ""
    times: int = 1
    seconds: float = 0.0

    def __call__(self, part, bundle):
        time.sleep(self.seconds)
        if self.what and self.number in (None, part.number):
            getattr(self, self.what)()
            if self.what == "fail":
                return Outcome(part.number, error=f"{part.name}: is bad")
        Path(self.folder, f"done-{part.number}").write_text(bundle)
        found = (os.getpid(), sorted(os.listdir(bundle)))
        return Outcome(part.number, part.rows, part.rows, host=platform.node(), payload=found)

    def done(self):
        """Numbers of the parts that are done."""
        return {int(path.name.removeprefix("done-")) for path in Path(self.folder).glob("done-*")}

    def happened(self):
        """How often it happened."""
        return len(list(Path(self.folder).glob("happened-*")))

    def _is_over(self):
        """Whether it happened often enough; if not, it counts as happened now, in one process alone."""
        for i in range(self.times):
            with suppress(FileExistsError), Path(self.folder, f"happened-{i}").open("x"):
                return False
        return True

    def end(self):
        if not self._is_over():
            os.kill(os.getpid(), signal.SIGKILL)

    def end_executor(self):
        """Spark's Java, which started the process that forked this one."""
        if not self._is_over():
            fields = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
            os.kill(int(fields[1]), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    def end_node(self):
        """Ray's node, unless the driver is connected to it."""
        if b"--head" not in Path(f"/proc/{os.getppid()}/cmdline").read_bytes() and not self._is_over():
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    def complain(self):
        if not self._is_over():
            raise MemoryError("nothing is left")

    def fail(self):
        self._is_over()


class Both(NamedTuple):
    """Two tasks one after the other; the outcome is that of the one that is not `Work`."""

    one: Any
    other: Any

    def __call__(self, part, bundle):
        outcomes = self.one(part, bundle), self.other(part, bundle)
        return outcomes[0 if isinstance(self.other, Work) else 1]


class Meddled(NamedTuple):
    """An engine to whose tasks something happens before or after they are done."""

    engine: Any
    work: Work
    is_before: bool = True

    @property
    def name(self):
        return self.engine.name

    @property
    def workers(self):
        return self.engine.workers

    def run(self, task, parts, bundle):
        return self.engine.run(Both(*((self.work, task) if self.is_before else (task, self.work))), parts, bundle)
