"""A pytest plugin that runs the fenced blocks of the pages (`make docs-test`), each page in a folder of its own.

- `sh`: commands; each has to succeed.
- `console`: lines that begin with "$ " are commands, the others their output, which has to be the same but for the
  numbers: these may differ by a factor of two, durations, rates and ids by more. "..." stands for any lines. Commands
  fail only where the output shows an Error.
- `python`: one namespace for the page; blocks that begin with ">>>" are doctests, compared in the same way.
- `text` after a paragraph that ends in "prints": what the Python block before has printed, compared in the same way.

Other languages are not run, nor is a block after `<!-- skip: next "reason" -->`; `<!-- invisible-code-block: sh` and
`<!-- invisible-code-block: python` begin comments that are run and not shown. $PROJECT is the checkout.

What most pages begin from is made once, by the commands in `_READY`. A page that has one of them, word for word, gets
what it made and what it printed. $READY, a path in Python, is the folder with all of it, to copy from.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

from sybil import Example, Sybil
from sybil.evaluators.doctest import DocTestEvaluator
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).resolve().parent.parent
_TIMEOUT_S = 300
_ENVIRONMENT = dict(os.environ)  # now: Python blocks that import aeedge change it

# What most pages begin from, made once for all of them.
_READY = """
aeedge sample motor.csv motor-new.csv
aeedge sample ecg.npz
aeedge sample digits.npz
aeedge train motor.csv -o run
aeedge export run -o motor.aeedge --variants int8,fp32 --calibration motor.csv --false-alarm-rate 0.001
aeedge train motor.csv -o signal-run --window 24 --hop 12 --epochs 10
aeedge export signal-run -o signal.aeedge
aeedge train digits.npz --array X -o digits-run --latent 8 --epochs 20
aeedge export digits-run -o digits.aeedge
"""
_MADE: dict[str, tuple[list[str], str]] = {}  # command: the files and folders that it made, and what it printed

_NUMBER = r"[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?"
_TOKEN = re.compile(
    rf"(?P<free>\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{{12,64}}\b"  # an id
    rf"|{_NUMBER} %(?=  ok)"  # of verify: how much of the allowed difference
    rf"|\d{{4}}-\d\d-\d\dT[\d:.Z+]+|{_NUMBER}\s?(?:µs|ms|s|min|h|rows/s|MB/s)(?!\w))"
    rf"|(?P<number>(?<![^\W\d]){_NUMBER})|(?P<text>[^\W\d]\w*|[^\w\s+-]+|[+-])"  # "int8" is a word
)


def check(expected: str, got: str) -> str:
    """An empty string if the lines of `got` are those of `expected` but for numbers, else what differs."""
    lines = [line for line in got.splitlines() if line.strip()]
    at, skipping = 0, False
    for line in (line for line in expected.splitlines() if line.strip()):
        if line.strip() == "...":
            skipping = True
            continue
        while skipping and at < len(lines) and not _alike(line, lines[at]):
            at += 1
        if at == len(lines) or not _alike(line, lines[at]):
            return f"expected the line\n    {line}\namong\n{textwrap.indent(got, '    ')}"
        at, skipping = at + 1, False
    return "" if skipping or at == len(lines) else f"expected no more lines, got\n    {lines[at]}"


def _alike(expected: str, got: str) -> bool:
    """Whether two lines are equal but for the size of numbers, rules under headings, and white space."""
    expected, got = (re.sub(r"─+", "─", line) for line in (expected, got))
    pairs = list(_TOKEN.finditer(expected)), list(_TOKEN.finditer(got))
    if len(pairs[0]) != len(pairs[1]):
        return False
    for a, b in zip(*pairs):
        if a.lastgroup == "text" or b.lastgroup == "text":
            if a.group() != b.group():
                return False
        elif a.lastgroup == b.lastgroup == "number" and not _near(a.group(), b.group()):
            return False
    return True


def _near(expected: str, got: str) -> bool:
    a, b = (float(text.replace(",", "")) for text in (expected, got))
    return abs(a - b) <= max(0.5 * max(abs(a), abs(b)), 0.02)


class _Checker(doctest.OutputChecker):
    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(want, got, optionflags) or not check(want, got)


class _PythonParser(PythonCodeBlockParser):
    def __init__(self) -> None:
        super().__init__()
        self.codeblock_parser = CodeBlockParser("python", _Printing())
        evaluator = DocTestEvaluator(doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        evaluator.runner._checker = _Checker()  # type: ignore[attr-defined]
        self.doctest_parser = DocTestStringParser(evaluator)


def _run(commands: str, folder: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), _ENVIRONMENT["PATH"]])
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env={**_ENVIRONMENT, "PATH": path, "COLUMNS": "80", "PROJECT": str(ROOT), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


@cache
def ready() -> Path:
    """A folder with samples, runs and bundles, made when the first page asks for it."""
    folder = Path(tempfile.mkdtemp(prefix="aeedge-ready-"))
    for command in _READY.strip().splitlines():
        before = set(os.listdir(folder))
        done = _run(command, folder)
        if done.returncode != 0:
            raise RuntimeError(f"what pages begin from cannot be made:\n{done.stdout}")
        _MADE[command] = sorted(set(os.listdir(folder)) - before), done.stdout
    return folder


def _copied(command: str, folder: str | Path) -> str | None:
    """What `command` printed when it was run for all pages, after copying what it made; None for other commands."""
    source = ready()
    command = re.sub(r"\s*\\\n\s*", " ", command).partition("  #")[0].strip()
    if command not in _MADE:
        return None
    names, printed = _MADE[command]
    for name in names:
        (shutil.copytree if (source / name).is_dir() else shutil.copy)(source / name, Path(folder) / name)
    return printed


def _commands(example: Example) -> str | None:
    lines, folder = example.parsed.splitlines(), example.namespace["_folder"]
    while lines and _copied(lines[0], folder) is not None:
        lines.pop(0)
    if not lines:
        return None
    done = _run("\n".join(lines), folder, READY=str(ready()))
    return None if done.returncode == 0 else f"ended with {done.returncode}:\n{done.stdout}"


def _session(example: Example) -> str | None:
    parts = re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)
    if parts[0].strip():
        return "a console block begins with a command: '$ …'"
    for part in parts[1:]:
        command, _, expected = part.partition("\n")
        while command.endswith("\\"):
            line, _, expected = expected.partition("\n")
            command += "\n" + line
        folder = example.namespace["_folder"]
        printed = _copied(command, folder)
        if printed is None:
            done = _run(command, folder, READY=str(ready()))
            printed = done.stdout
            if done.returncode not in (0, 141) and "Error" not in expected:  # 141: `head` has read enough
                return f"$ {command}\nended with {done.returncode}:\n{printed}"
        if wrong := check(expected, printed):
            return f"$ {command}\n{wrong}"
    return None


class _Printing(PythonEvaluator):
    """Runs a block, shows what it prints, and keeps it for the `text` block that says so."""

    def __call__(self, example: Example) -> None:
        stream = io.StringIO()
        try:
            with contextlib.redirect_stdout(stream):
                super().__call__(example)
        finally:
            example.namespace["_printed"] = stream.getvalue()
            print(stream.getvalue(), end="")


def _printed(example: Example) -> str | None:
    if not re.search(r"\bprints:?\s*$", example.document.text[: example.region.start]):
        return None
    if "_printed" not in example.namespace:
        return "no Python block before has printed this"
    return check(example.parsed, example.namespace["_printed"]) or None


def _enter(namespace: dict[str, Any]) -> None:
    namespace["_before"], namespace["_folder"] = os.getcwd(), tempfile.mkdtemp(prefix="aeedge-page-")
    os.chdir(namespace["_folder"])
    namespace["READY"] = ready()


def _leave(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_before"])
    shutil.rmtree(namespace["_folder"])


def pytest_unconfigure() -> None:
    """Remove what pages began from."""
    if ready.cache_info().currsize:
        shutil.rmtree(ready(), ignore_errors=True)


pytest_collect_file = Sybil(
    parsers=[
        _PythonParser(),
        CodeBlockParser("sh", _commands),
        CodeBlockParser("console", _session),
        CodeBlockParser("text", _printed),
        SkipParser(),
    ],
    path=str(ROOT),
    patterns=["*.md"],
    excludes=["docs/decisions/*.md"],
    setup=_enter,
    teardown=_leave,
).pytest()
