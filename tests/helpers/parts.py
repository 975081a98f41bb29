"""Tasks for engines: what happens to a part, and whether it happens once."""

import os
import platform
import signal
import time
from pathlib import Path
from typing import NamedTuple

from aeedge.archive.engines import Outcome
from aeedge.archive.parts import Part
from aeedge.archive.storage import Place
from aeedge.errors import InputError


def parts(count):
    """Parts of files that nobody reads."""
    return [Part(number, Place("", f"/archive/day-{number}.parquet"), (), 0, 10) for number in range(count)]


class Work(NamedTuple):
    """A task that takes a moment, and does something to one part.

    Attributes:
        folder: where what happens is written down.
        number: of the part to which it happens.
        what: happens: "kill" the process, "kill executor", "kill node", "wait", "raise", "fail" with a sentence; "" for nothing.
        times: how often.
        seconds: that each part takes.
    """

    folder: str
    number: int = -1
    what: str = ""
    times: int = 1
    seconds: float = 0.0

    def __call__(self, part, bundle):
        time.sleep(self.seconds)
        if part.number == self.number and self._counted() <= self.times:
            getattr(self, f"_{self.what.replace(' ', '_')}")()
        if self.what == "fail" and part.number == self.number:
            return Outcome(part.number, error=f"{part.name}: is bad")
        Path(self.folder, f"done-{part.number}").write_text(bundle)
        return Outcome(
            part.number, part.rows, part.rows, host=platform.node(), payload=(os.getpid(), os.listdir(bundle))
        )

    def _counted(self):
        with Path(self.folder, "times").open("a") as file:
            file.write("x")
        return Path(self.folder, "times").stat().st_size

    def _kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def _kill_executor(self):
        """Spark's JVM, which started the daemon that forked this process."""
        fields = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
        os.kill(int(fields[1]), signal.SIGKILL)
        self._wait()

    def _kill_node(self):
        """Ray's node, unless it is the one that the driver is connected to."""
        os.kill(os.getppid(), signal.SIGKILL)
        self._wait()

    def _raise(self):
        raise MemoryError("nothing is left")

    def _fail(self):
        pass

    def _wait(self):
        time.sleep(3600)
