"""A process with one contender that executes commands: a JSON line in, a JSON line out.

    python -m comparison.worker '{"module": ..., "options": ..., "folder": ..., "threads": ..., "cpus": [...]}'

Commands: "answer" (write latents of test and anomalous samples to a file), "ready" (prepare a batch and warm up),
"time" (call for a number of seconds). A contender with a method `call` makes calls of several kinds. A reply with
"error" or "void" has the reason why there is no result.
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

CHECKED_ROWS = 257  # odd, so that kernels have remainders


class Server:
    """The contender, and the batch that it is timed with."""

    def __init__(self, order: dict[str, Any]) -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, order["cpus"])
        made = importlib.import_module(order["module"]).Contender
        self._contender = made(order["folder"], order["options"], order["threads"])
        self._folder = order["folder"]
        self._calls: list[Callable[[], object]] = []

    def answer(self, out: str) -> dict[str, Any]:
        """Write the contender's latents; those of the first test rows also as a separate batch."""
        import numpy as np

        encode, prepare = self._contender.encode, self._contender.prepare
        with np.load(f"{self._folder}/rows.npz") as rows:
            found = {part: np.array(encode(prepare(rows[part]))) for part in ("test", "anomalous")}
            found["checked"] = np.array(encode(prepare(rows["test"][:CHECKED_ROWS])))
        np.savez(out, **found)
        return {}

    def ready(self, batch: int, seconds: float, what: str = "encode", keep: bool = False) -> dict[str, Any]:
        """Prepare a batch and call a few times; with `keep` beside those that were prepared before."""
        import numpy as np

        with np.load(f"{self._folder}/rows.npz") as rows:
            test = rows["test"]
        if not keep:
            self._calls.clear()
        rows = np.resize(test, (batch, *test.shape[1:]))
        if hasattr(self._contender, "call"):
            self._calls.append(self._contender.call(what, rows))
        else:
            prepared, encode = self._contender.prepare(rows), self._contender.encode
            self._calls.append(lambda: encode(prepared))
        return {"seconds": timed(self._calls[-1], seconds).per_call, "call": len(self._calls) - 1}

    def time(self, seconds: float, call: int = -1, warm_up: float = 0.0) -> dict[str, Any]:
        """Seconds per call, and the number of calls, after some seconds of calls that do not count."""
        if warm_up:
            timed(self._calls[call], warm_up)
        found = timed(self._calls[call], seconds)
        return {"seconds": found.per_call, "calls": found.calls}


def serve(order: dict[str, Any], commands: Any, replies: Any) -> None:
    """Reply to commands until there are no more."""

    def reply(answer: dict[str, Any]) -> None:
        replies.write(json.dumps(answer) + "\n")
        replies.flush()

    try:
        server = Server(order)
    except Exception as error:  # whatever a runtime raises that is not installed or does not support the network
        reply({"error": _describe(error)})
        return
    reply({"pid": os.getpid()})
    for line in commands:
        command = json.loads(line)
        used = time.process_time()
        try:
            answer = getattr(server, command.pop("do"))(**command)
        except ClockError as error:
            answer = {"void": str(error)}
        except Exception as error:
            answer = {"error": _describe(error)}
        reply(answer | {"cpu": time.process_time() - used})


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies, even while it is stopped (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _describe(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__


if __name__ == "__main__":
    die_with_parent()
    # Runtimes may print to stdout: replies use a private copy of it.
    private = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(json.loads(sys.argv[1]), sys.stdin, private)
