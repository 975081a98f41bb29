"""Run code with a model in a process of its own, where it may hang or crash without taking the tests along."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

import aeedge

DATA = Path(__file__).parent.parent / "data"
BUNDLE = DATA / "bundle_v1"
BUNDLES = ["bundle_v1", "bundle_v1_int8"]
TIMEOUT = 300  # seconds; a child takes a few, more where the machine is busy

PRELUDE = """
import os, sys, threading, time
import numpy as np
import aeedge
from helpers import reference
from helpers.reference import forked, right, rows_of, same
from helpers.waiting import soon

bundle = sys.argv[1]

def tasks():  # threads as the kernel counts them, also those that Python did not start
    return len(os.listdir("/proc/self/task"))
"""


def run(command, **options):
    """What a process prints, which must end with 0 and in time, and what it says on stderr."""
    places = [
        str(Path(aeedge.__file__).parent.parent),
        str(Path(__file__).parents[1]),
        os.environ.get("PYTHONPATH", ""),
    ]
    env = {
        **options.pop("env", os.environ),
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "PYTHONFAULTHANDLER": "1",
    }
    pipe = subprocess.PIPE
    # A session of its own: what it forked is ended with it.
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=env, start_new_session=True, **options
    ) as process:
        try:
            out, err = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)  # each process says where it hangs
            out, err = process.communicate()
            pytest.fail(f"hangs\n{out}{err}")
    assert process.returncode == 0, f"exit code {process.returncode}\n{out}{err}"
    return out.strip(), err


def child(code, bundle=BUNDLE, *, first="", wrap=(), **options):
    """What a fresh Python prints that runs `first`, the prelude and `code`."""
    script = first + PRELUDE + textwrap.dedent(code)
    return run([*wrap, sys.executable, "-c", script, str(bundle)], **options)


@contextmanager
def child_process(command, **options):
    """A process with pipes, which is killed at the end, or after TIMEOUT."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, **{"stdin": pipe, "stdout": pipe, "stderr": pipe} | options)
    limit = threading.Timer(TIMEOUT, process.kill)
    limit.start()
    try:
        yield process
    finally:
        limit.cancel()
        process.kill()
        process.communicate()


@contextmanager
def busy_loops(count):
    """Processes that use all of a CPU each, and do so already where this begins."""
    code = "print(flush=True)\nwhile True: pass"
    loops = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for loop in loops:
            assert loop.stdout.readline()
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.communicate()


def in_namespace(mounts):
    """How to run a command where `mounts` were done: root's or a user's own file systems, which vanish with it."""
    wrap = ["unshare", "-rm", "sh", "-ec", mounts + '\nexec "$@"', "sh"]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare(1) here")
    done = subprocess.run([*wrap, "true"], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    return wrap
