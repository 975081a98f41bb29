"""Run the command with standard streams of a kind."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import aeedge.cli
from helpers.children import TIMEOUT


class Run(NamedTuple):
    code: int
    out: bytes
    err: bytes


def exit_code(arguments):
    with pytest.raises(SystemExit) as ended:
        aeedge.cli.command([str(argument) for argument in arguments])
    return ended.value.code


def in_encoding(encoding, arguments):
    """The command in this process, as with PYTHONIOENCODING."""
    with pytest.MonkeyPatch.context() as patch:
        for name, errors in (("stdout", "strict"), ("stderr", "backslashreplace")):
            patch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors))
        code = exit_code(arguments)
        return Run(code, *(stream.buffer.getvalue() for stream in (sys.stdout, sys.stderr)))


def environment():
    return os.environ | {"PYTHONPATH": str(Path(aeedge.__file__).parent.parent)}


def process(arguments, *, closed="", env=None, stdout=subprocess.PIPE):
    """The command in a process of its own, its streams changed by a shell as `closed` says."""
    command = ["sh", "-c", f'exec "$@" {closed}', "sh"] if closed else []
    command += [sys.executable, "-m", "aeedge", *map(str, arguments)]
    done = subprocess.run(
        command,
        stdout=stdout,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=(env or os.environ) | {"PYTHONPATH": environment()["PYTHONPATH"]},
        timeout=TIMEOUT,
        check=False,
    )
    return Run(done.returncode, done.stdout or b"", done.stderr)
