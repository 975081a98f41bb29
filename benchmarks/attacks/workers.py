"""Runs tries in worker processes with limits of time and memory.

    python -m attacks.workers    # a worker: reads lines "attack index", writes lines of JSON

The tree that is attacked is the one that PYTHONPATH puts first.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from attacks.outcomes import CRASH, HANG, Outcome

HERE = Path(__file__).resolve().parents[1]
ADDRESS_SPACE = 6 * 2**30  # bytes
START_SECONDS = 60.0


class Worker:
    """A process that makes one try after another.

    Args:
        tree: the checkout that is attacked.
        folder: for temporary files; the current folder of the process.
    """

    def __init__(self, tree: Path, folder: Path) -> None:
        self._folder = folder
        places = [tree, tree / "export", HERE, HERE.parent / "tests"]
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, places)),
            "AEEDGE_STATE": str(folder / "state"),
            "TMPDIR": str(folder),
            "OMP_NUM_THREADS": "1",
        }
        with (folder / "said").open("ab") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "attacks.workers"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                cwd=folder,
                env=env,
                start_new_session=True,
            )
        self._answer(START_SECONDS)  # its imports are done

    def attempt(self, name: str, index: int, seconds: float) -> Outcome:
        """One try; the process is gone after a crash or a hang."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{name} {index}\n".encode())
            self._process.stdin.flush()
            answer = self._answer(seconds)
        except TimeoutError:
            self.end()
            return Outcome(HANG, f"more than {seconds:g} s")
        except (EOFError, BrokenPipeError):
            code = self._process.wait()
            self.end()
            if code < 0:
                return Outcome(CRASH, signal.Signals(-code).name)
            said = (self._folder / "said").read_text(errors="replace")
            raise RuntimeError(f"{name} {index}: the attack itself failed\n{said[-2000:]}") from None
        return Outcome(*answer)

    @property
    def is_alive(self) -> bool:
        """Whether more tries can be made."""
        return self._process.poll() is None

    def _answer(self, seconds: float) -> Any:
        stream = self._process.stdout
        assert stream is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            if not selector.select(seconds):
                raise TimeoutError
        line = stream.readline()
        if not line:
            raise EOFError
        return json.loads(line)

    def end(self) -> None:
        """End the process, and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def outcomes(tree: Path, name: str, tries: Iterable[int], seconds: float) -> Iterator[tuple[int, Outcome]]:
    """Make tries of one attack; a new process follows one that is gone."""
    with tempfile.TemporaryDirectory(prefix="attacks-") as folder:
        worker = Worker(tree, Path(folder))
        try:
            for index in tries:
                if not worker.is_alive:
                    worker.end()
                    worker = Worker(tree, Path(folder))
                yield index, worker.attempt(name, index, seconds)
        finally:
            worker.end()


def main() -> None:
    """Answer on the standard output that we were given, whatever else is printed goes nowhere."""
    import resource

    import aeedge
    from attacks.registry import ATTACKS

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps([aeedge.__file__]), file=answers, flush=True)
    for line in sys.stdin:
        name, index = line.rsplit(None, 1)
        with tempfile.TemporaryDirectory(dir=".") as folder:
            found = ATTACKS[name].attempt(int(index), Path(folder).resolve())
            words = found.detail
            for place in (Path(folder).resolve(), Path.cwd(), HERE.parent, Path(aeedge.__file__).parents[1]):
                words = words.replace(f"{place}/", "")
        print(json.dumps([found.name, words]), file=answers, flush=True)


if __name__ == "__main__":
    main()
