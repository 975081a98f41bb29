"""Calls, loads and commands that are interrupted at random moments."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from attacks.bundles import BUNDLE, close, copied, latents, rows
from attacks.outcomes import CRASH, HANG, LEFT, MISLEADING, RIGHT, TYPED, UNTYPED, WRONG, Outcome

THREADS, COUNT = 4, 4 * 4096  # few large blocks: the caller often waits for the other threads
_SETTLE = 0.02  # seconds in which a thread that was left alone would write


class StopError(Exception):
    """What the handler of a signal raises."""


@contextmanager
def interrupted(seconds: float, error: type[BaseException]) -> Iterator[None]:
    """Raise in the main thread after some time."""

    def stop(*_: object) -> None:
        raise error("now")

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@cache
def _model() -> Any:
    """A model whose calls are shared among worker threads, as `aeedge tune` may choose it."""
    import aeedge
    from aeedge.runtime import policy_store
    from aeedge.runtime.policy import DispatchPolicy

    with aeedge.load(BUNDLE, threads=1) as model:
        identity = model.manifest.id
    shared = DispatchPolicy(math.inf, 100.0, 1e6, 4096, measure_pool=False)
    tuned = policy_store.TunedPolicy("throughput", "fp32", THREADS, shared, {"encode": 0.2, "score": 1.0}, {})
    policy_store.write(identity, tuned)
    model = aeedge.load(BUNDLE)
    for _ in range(5):
        model.encode(rows(COUNT))
    return model


@cache
def _duration(what: str) -> float:
    """Seconds of a call, the least of some."""
    import aeedge

    calls: dict[str, Callable[[], Any]] = {
        "call": lambda: _model().encode(rows(COUNT)),
        "load": lambda: aeedge.load(BUNDLE, threads=2).close(),
    }
    spent: list[float] = []
    for _ in range(9):
        begin = time.perf_counter()
        calls[what]()
        spent.append(time.perf_counter() - begin)
    return min(spent)


def _ended(call: Callable[[], Any], seconds: float, error: type[BaseException]) -> Outcome | None:
    """Call and interrupt; None where it was stopped as it should be, or was done before."""
    import aeedge

    try:
        with interrupted(seconds, error):
            call()
    except error:
        return None
    except aeedge.AeedgeError as other:
        return Outcome(MISLEADING, f"{type(other).__name__}: {other}"[:200])
    except BaseException as other:
        return Outcome(UNTYPED, f"{type(other).__name__}: {other}"[:200])
    return None


def call(index: int, folder: Path) -> Outcome:
    """A call with `out=` is interrupted: nothing writes there later, and the next call is right."""
    dice = random.Random(index)
    error = (StopError, KeyboardInterrupt)[index % 2]
    model, x, expected = _model(), rows(COUNT), latents(COUNT)
    out = np.full(expected.shape, np.nan, np.float32)
    done: list[None] = []

    def encode() -> None:
        model.encode(x, out=out)
        done.append(None)

    found = _ended(encode, dice.uniform(0.2, 1) * _duration("call"), error)
    out[...] = -1.0  # the caller uses it again
    if not done:
        time.sleep(_SETTLE)
    if not (out == -1.0).all():
        return Outcome(WRONG, "written to after the call had ended")
    if not close(model.encode(x), expected):
        return Outcome(WRONG, "the next call is wrong")
    return found or Outcome(RIGHT)


def load(index: int, folder: Path) -> Outcome:
    """A load is interrupted: the caller's exception comes out, and no descriptor stays open."""
    import aeedge

    dice = random.Random(index)
    error = (StopError, KeyboardInterrupt)[index % 2]
    duration = _duration("load")
    before = set(os.listdir("/proc/self/fd"))
    found = _ended(lambda: aeedge.load(BUNDLE, threads=2).close(), dice.uniform(0, 1.2) * duration, error)
    if set(os.listdir("/proc/self/fd")) - before:
        gc.collect()
    if left := set(os.listdir("/proc/self/fd")) - before:
        for each in left:
            with contextlib.suppress(OSError):
                os.close(int(each))
        return found or Outcome(LEFT, f"{len(left)} descriptors are open")
    return found or Outcome(RIGHT)


def _encode(folder: Path) -> list[str]:
    return [sys.executable, "-m", "aeedge", "encode", str(BUNDLE), "rows.npy", "-o", "made.npy", "-f", "--threads", "1"]


@cache
def _command_seconds() -> float:
    begin = time.monotonic()
    subprocess.run([sys.executable, "-m", "aeedge", "info", str(BUNDLE)], stdout=subprocess.DEVNULL, check=False)
    return time.monotonic() - begin


def command(index: int, folder: Path) -> Outcome:
    """The command is ended by a signal at some moment: the target is whole or as it was, and nothing stays beside."""
    dice = random.Random(index)
    number = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)[index % 4]
    count = 400_000
    np.save(folder / "rows.npy", np.tile(rows(1000), (count // 1000, 1)))
    old = np.zeros((2, 2), np.float32)
    np.save(folder / "made.npy", old)
    with subprocess.Popen(_encode(folder), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        until = time.monotonic() + 20
        if index % 3:  # while it writes
            while process.poll() is None and not list(folder.glob(".*.part")) and time.monotonic() < until:
                time.sleep(0.0005)
            time.sleep(dice.uniform(0, 0.1))
        else:
            time.sleep(dice.uniform(0.05, 1.5) * _command_seconds())
        process.send_signal(number)
        try:
            said = process.communicate(timeout=20)[0].decode()
        except subprocess.TimeoutExpired:
            process.kill()
            return Outcome(HANG, f"{number.name}")
    try:
        found = np.load(folder / "made.npy")
    except (ValueError, OSError) as error:
        return Outcome(LEFT, f"{number.name}: half a file, {error}")
    if found.shape not in ((2, 2), (count, 3)):
        return Outcome(LEFT, f"{number.name}: a file of {found.shape}")
    if number is signal.SIGKILL:  # nobody can clean up then; the next run has to
        subprocess.run(_encode(folder), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    if left := [part.name for part in folder.iterdir() if part.name not in ("rows.npy", "made.npy")]:
        return Outcome(LEFT, f"{number.name}: {', '.join(left)}")
    if process.returncode in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS):
        return Outcome(CRASH, f"{number.name}: {process.returncode}")
    if "Traceback" in said and number is not signal.SIGINT:
        return Outcome(UNTYPED, f"{number.name}: {said[-200:]}")
    return Outcome(RIGHT if process.returncode == 0 else TYPED, f"{number.name}")


def _replacing(path: Path) -> None:
    """Replace a bundle again and again, as `aeedge export -f` does."""
    import ctypes
    import shutil

    libc = ctypes.CDLL(None)
    others = ["bundle_v1", "bundle_v1_uint8", "bundle_v1_scorer"]
    for turn in range(10**9):
        part = Path(shutil.copytree(BUNDLE.parent / others[turn % 3], path.with_name("part")))
        libc.renameat2(-100, os.fsencode(part), -100, os.fsencode(path), 2)
        shutil.rmtree(part)
        time.sleep(0.001)


@cache
def _replaced() -> Path:
    """A bundle that another process replaces all the time."""
    folder = Path("replaced").resolve()
    folder.mkdir()
    path = copied(folder)
    code = f"import attacks.interruptions as i; from pathlib import Path; i._replacing(Path({str(path)!r}))"
    subprocess.Popen([sys.executable, "-c", code])
    time.sleep(0.5)
    return path


def replaced(index: int, folder: Path) -> Outcome:
    """A bundle is replaced by another while it is loaded: it is the one or the other, and sound."""
    import aeedge

    path = _replaced()
    try:
        with aeedge.load(path, threads=1, check="golden" if index % 2 else "hash") as model:
            model.score(np.ones((3, *model.input.shape), model.input.dtype))
            right = all(deviation.ok for deviation in model.self_check()) if index % 4 == 0 else True
    except aeedge.AeedgeError as error:
        return Outcome(MISLEADING, f"{type(error).__name__}: {error}"[:200])
    except Exception as error:
        return Outcome(UNTYPED, f"{type(error).__name__}: {error}"[:200])
    return Outcome(RIGHT if right else WRONG)
