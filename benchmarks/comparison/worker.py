"""A process that holds one contender and does what it is told: a JSON line in, a JSON line out.

    python -m comparison.worker '{"module": ..., "options": ..., "folder": ..., "threads": ..., "cpus": [...]}'

Commands: "answer" (latents of test and strange rows into a file), "ready" (rows of a batch, and some calls to warm up),
"time" (calls for so many seconds). An answer with "error" or "void" says why there is none.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from comparison.timing import ClockError, timed

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKED_ROWS = 257  # odd, and no power of two: kernels with edges


class Server:
    """The contender, and the rows that it is timed with."""

    def __init__(self, order: dict[str, Any]) -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, order["cpus"])
        made = importlib.import_module(order["module"]).Contender
        self._contender = made(order["folder"], order["options"], order["threads"])
        self._folder = order["folder"]
        self._call: Callable[[], object] = lambda: None

    def answer(self, out: str) -> dict[str, Any]:
        """Write the contender's latents; of the first test rows also as a batch of their own."""
        import numpy as np

        encode, prepare = self._contender.encode, self._contender.prepare
        with np.load(f"{self._folder}/rows.npz") as rows:
            found = {part: np.array(encode(prepare(rows[part]))) for part in ("test", "strange")}
            found["checked"] = np.array(encode(prepare(rows["test"][:CHECKED_ROWS])))
        np.savez(out, **found)
        return {}

    def ready(self, batch: int, seconds: float) -> dict[str, Any]:
        """Prepare a batch and call a few times."""
        import numpy as np

        with np.load(f"{self._folder}/rows.npz") as rows:
            test = rows["test"]
        prepared = self._contender.prepare(np.resize(test, (batch, *test.shape[1:])))
        encode = self._contender.encode
        self._call = lambda: encode(prepared)
        return {"seconds": timed(self._call, seconds).per_call}

    def time(self, seconds: float) -> dict[str, Any]:
        """Seconds a call."""
        found = timed(self._call, seconds)
        return {"seconds": found.per_call, "calls": found.calls}


def serve(order: dict[str, Any], commands: Any, answers: Any) -> None:
    """Answer commands until there are no more."""

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        server = Server(order)
    except Exception as error:  # whatever a runtime raises that is not installed or does not like the net
        say({"error": _in_words(error)})
        return
    say({"pid": os.getpid()})
    for line in commands:
        command = json.loads(line)
        used = time.process_time()
        try:
            answer = getattr(server, command.pop("do"))(**command)
        except ClockError as error:
            answer = {"void": str(error)}
        except Exception as error:
            answer = {"error": _in_words(error)}
        say(answer | {"cpu": time.process_time() - used})


def die_with_parent() -> None:
    """Let the system end this process when its parent dies: nobody else would, it may be stopped (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _in_words(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__


if __name__ == "__main__":
    die_with_parent()
    # Runtimes print to stdout as they like: answers keep the real one for themselves.
    private = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(json.loads(sys.argv[1]), sys.stdin, private)
