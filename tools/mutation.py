"""Mutation testing: change the code a little, and see whether a test notices.

    python tools/mutation.py                                  # all subjects; an hour or two
    python tools/mutation.py aeedge/verification.py           # one
    python tools/mutation.py --share 0.2 --seed 1             # some of the mutants, always the same ones

Mutants that no test notices are printed, and the exit code is 1 unless tools/mutation_accepted.json says for each why
it may live. Neither mutmut nor cosmic-ray fits: the first learns which tests run a function from calls in its own
process, and half of ours start others; neither removes statements or exchanges names, which are the mutants that once
survived here.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import contextlib
import json
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ACCEPTED = ROOT / "tools" / "mutation_accepted.json"
SUBJECTS = {  # file -> tests that know it, the fastest first
    "aeedge/verification.py": ["device/verification", "device/bundle", "device/nonfinite_sentinels", "device/int8"],
    "aeedge/runtime/nonfinite.py": ["device/nonfinite_sentinels", "device/nonfinite"],
    "aeedge/bundle/manifest_reading.py": ["device/bundle", "device/odd_manifests", "device/missing"],
    "aeedge/bundle/onnx_proto.py": [
        "export/onnx_reader",
        "device/forged_graphs",
        "device/nonfinite_sentinels",
        "device/bundle",
    ],
    "aeedge/files/atomic.py": ["device/atomic"],
    "aeedge/runtime/sessions.py": ["device/session", "device/processes", "device/threads"],
    "aeedge/runtime/threadpool.py": ["device/interrupted", "device/threads", "device/processes"],
    "aeedge/runtime/session.py": [
        "device/session",
        "device/model",
        "device/bind",
        "device/int8",
        "device/nonfinite_sentinels",
    ],
}
_COPIED = ("aeedge", "export", "tests", "benchmarks", "tools", "docs", "pyproject.toml")
_COMPARED = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In},
}
_ARITHMETIC = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.Mod: ast.Mult},
}
_PAIRS = ("rtol", "atol"), ("min", "max"), ("any", "all"), ("minimum", "maximum"), ("start", "stop"), ("first", "all")
_NAMES = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}


class Mutant(NamedTuple):
    """A change of a file: what stands at `begin` to `end`, offsets in its text, becomes `new`."""

    file: str
    line: int
    begin: int
    end: int
    old: str
    new: str

    def key(self, source: str) -> str:
        """A name that survives when lines are added elsewhere."""
        return f"{self.file}: {source.splitlines()[self.line - 1].strip()} | {self.old} -> {self.new}"


def mutants(file: str, source: str) -> Iterator[Mutant]:
    """All changes of a file."""
    lines = [0]
    for text in source.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(text))
    for node, new in _changes(ast.parse(source)):
        begin = lines[node.lineno - 1] + node.col_offset
        end = lines[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        old = source.encode()[begin:end].decode()
        if old != new:
            yield Mutant(file, node.lineno, begin, end, old, new)


def _changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Parts of a syntax tree, and what each may become. Messages, types and docstrings are left alone."""
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        return
    if isinstance(node, (ast.Expr, ast.Raise, ast.AugAssign, ast.Continue, ast.Break, ast.Delete)):
        if not (isinstance(node, ast.Expr) and isinstance(node.value, (ast.Constant, ast.Yield))):
            yield node, "pass"
    elif isinstance(node, ast.Assign) and not isinstance(node.targets[0], (ast.Name, ast.Tuple)):
        yield node, "pass"
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARED:
        changed = ast.Compare(node.left, [_COMPARED[type(node.ops[0])](), *node.ops[1:]], node.comparators)
        yield node, f"({ast.unparse(changed)})"
    elif isinstance(node, ast.BoolOp):
        yield node, f"({ast.unparse(ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values))})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node, ast.unparse(node.operand)
        if isinstance(node.operand, ast.Constant):
            return
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        yield node, f"({ast.unparse(ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right))})"
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield node, str(not node.value) if isinstance(node.value, bool) else f"({node.value + 1})"
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in _NAMES:
        yield node, _NAMES[node.id]
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node.attr in _NAMES:
        yield node, f"{ast.unparse(node.value)}.{_NAMES[node.attr]}"
    if isinstance(node, (ast.If, ast.While, ast.IfExp)) and isinstance(node.test, (ast.Name, ast.Attribute, ast.Call)):
        yield node.test, f"(not {ast.unparse(node.test)})"
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _changes(child)


class Copy:
    """A copy of the tree, in which tests are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in _COPIED:
            place = ROOT / name
            ignore = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(place, folder / name, ignore=ignore) if place.is_dir() else shutil.copy(place, folder)

    def run(self, tests: list[str], limit: float) -> bool:
        """Whether the tests pass, in time."""
        files = [_file(name) for name in tests]
        line = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(self.folder), str(self.folder / "export")])}
        env |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        with subprocess.Popen(
            line, cwd=self.folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            try:
                return process.wait(limit) == 0
            except subprocess.TimeoutExpired:
                return False
            finally:
                _end(process.pid)

    def survives(self, mutant: Mutant, tests: list[str], limit: float) -> bool:
        """Whether the tests pass with a change."""
        place = self.folder / mutant.file
        before = place.read_bytes()
        changed = before[: mutant.begin] + mutant.new.encode() + before[mutant.end :]
        try:
            place.write_bytes(changed)
            return self.run(tests, limit)
        finally:
            place.write_bytes(before)


def _file(name: str) -> str:
    folder, _, subject = name.partition("/")
    return f"tests/{folder}/test_{subject}.py"


def _end(group: int) -> None:
    """End what a run has left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 9)


def tried(file: str, copies: queue.Queue[Copy], share: float, seed: int) -> tuple[Counter[str], list[str]]:
    """How many mutants of a file were killed, accepted or survived, and the survivors."""
    tests = [name for name in SUBJECTS[file] if (ROOT / _file(name)).exists()]
    source, accepted = (ROOT / file).read_text(encoding="utf-8"), json.loads(ACCEPTED.read_text(encoding="utf-8"))
    found = list(mutants(file, source))
    chosen = random.Random(seed).sample(found, max(1, round(share * len(found))))
    with _taken(copies) as copy:
        begin = time.monotonic()
        if not copy.run(tests, 3600):
            raise SystemExit(f"{file}: the tests fail without a change: {', '.join(tests)}")
        limit = 20 + 4 * (time.monotonic() - begin)
    counts, left = Counter[str](), []

    def attempt(mutant: Mutant) -> tuple[str, str]:
        if mutant.key(source) in accepted:
            return "accepted", ""
        with _taken(copies) as copy:
            alive = copy.survives(mutant, tests, limit)
        return ("survived", f"{file}:{mutant.line}: {mutant.key(source)}") if alive else ("killed", "")

    with concurrent.futures.ThreadPoolExecutor(copies.maxsize) as pool:
        for result, words in pool.map(attempt, sorted(chosen)):
            counts[result] += 1
            if words:
                print(words, flush=True)
                left.append(words)
    return counts, left


class _taken:  # noqa: N801 (a context manager)
    """A copy of the tree that nobody else uses meanwhile."""

    def __init__(self, copies: queue.Queue[Copy]) -> None:
        self._copies = copies

    def __enter__(self) -> Copy:
        self._copy = self._copies.get()
        return self._copy

    def __exit__(self, *_: object) -> None:
        self._copies.put(self._copy)


def main() -> int:
    """Exit code 1 if a mutant survives that nobody has accepted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="some subjects; all by default")
    parser.add_argument("--share", type=float, default=1.0, help="of the mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--count", action="store_true", help="only count the mutants")
    given = parser.parse_args()
    files = given.files or list(SUBJECTS)
    if given.count:
        for file in files:
            print(f"{file}: {sum(1 for _ in mutants(file, (ROOT / file).read_text(encoding='utf-8')))}")
        return 0
    survived = False
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copies: queue.Queue[Copy] = queue.Queue(given.jobs)
        for job in range(given.jobs):
            place = Path(folder) / str(job)
            place.mkdir()
            copies.put(Copy(place))
        for file in files:
            counts, left = tried(file, copies, given.share, given.seed)
            survived = survived or bool(left)
            print(f"{file}: {', '.join(f'{count} {name}' for name, count in sorted(counts.items()))}", flush=True)
    return int(survived)


if __name__ == "__main__":
    sys.exit(main())
