"""Start each contender in its own process, with the same environment for all."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from comparison.contenders import Entry

BENCHMARKS = Path(__file__).parent.parent
PATIENCE = 180.0  # seconds; compiling a network takes tens of seconds


class WorkerError(Exception):
    """A contender cannot be opened, or failed; the message gives the reason."""


def cpus(threads: str) -> list[int]:
    """The CPUs for "one" thread (the last allowed: the first ones serve interrupts) or for "all"."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return allowed[-1:] if threads == "one" else allowed


def environment(threads: int) -> dict[str, str]:
    """The same for every contender: number of threads, no telemetry, quiet logs, bytecode as after installation."""
    libraries = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM")
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | {
        **{f"{library}_NUM_THREADS": str(threads) for library in libraries},
        "ORT_DISABLE_TELEMETRY": "1",
        "OPENVINO_TELEMETRY": "0",
        "DO_NOT_TRACK": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TORCHINDUCTOR_CACHE_DIR": str(BENCHMARKS / ".work" / "inductor"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # otherwise idle compiler processes remain during the measurement
        "PYTHONPATH": os.pathsep.join(filter(None, (str(BENCHMARKS), os.environ.get("PYTHONPATH", "")))),
    }


class Worker:
    """One contender in one process, pinned; it runs only between a request and its reply, and is stopped otherwise.

    Raises:
        WorkerError: the contender cannot be opened.
    """

    def __init__(self, entry: Entry, folder: Path, threads: str) -> None:
        self.entry = entry
        self.cpus = cpus(threads)
        order: dict[str, Any] = {"module": entry.module, "options": entry.options, "folder": str(folder)}
        order |= {"threads": len(self.cpus), "cpus": self.cpus}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "comparison.worker", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment(len(self.cpus)),
            start_new_session=True,  # Ctrl-C is for the driver, which then ends its workers
        )
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for the reply.

        Raises:
            WorkerError: the contender failed, died, or did not reply in time.
        """
        assert self._process.stdin is not None
        self._signal("SIGCONT")
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._last_words()) from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        if not ready:
            raise WorkerError(f"no reply for {PATIENCE:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        self._signal("SIGSTOP")
        return answer

    def _signal(self, name: str) -> None:
        if hasattr(signal, name):  # not on Windows, where idle contenders go on spinning
            self._process.send_signal(getattr(signal, name))

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"the process ended with {code}" + (f": {lines[-1][:300]}" if lines else "")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()
