"""Fixed costs of a contender: cold start in a fresh process, memory, installed size."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from comparison.contenders import Entry
from comparison.processes import cpus, environment

OURS = ("aeedge", "aeedge_export")  # the packages of our wheel; an editable install does not list their files


def cold_starts(entries: Sequence[Entry], folder: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Median seconds from the start of a process to its first latent, and peak memory; contenders are interleaved."""
    found: dict[str, list[dict[str, float]]] = {entry.name: [] for entry in entries}
    failed: dict[str, str] = {}
    for _ in range(rounds + 1):
        for entry in entries:
            if entry.name not in failed:
                try:
                    found[entry.name].append(_first(entry, folder))
                except RuntimeError as error:
                    failed[entry.name] = str(error)
    for name, values in found.items():
        if name in failed:
            yield {"contender": name, "failed": failed[name]}
            continue
        counted = values[1:]  # the first writes bytecode and fills the page cache
        seconds = statistics.median(value["seconds"] for value in counted)
        peak = statistics.median(value["peak"] for value in counted)
        yield {"contender": name, "seconds": seconds, "peak_bytes": peak, "rounds": len(counted)}


def _first(entry: Entry, folder: Path) -> dict[str, float]:
    order = {"module": entry.module, "options": entry.options, "folder": str(folder), "cpus": cpus("one")}
    command = [sys.executable, "-m", "comparison.first", json.dumps(order)]
    began = time.monotonic()  # one clock for all processes
    done = subprocess.run(command, capture_output=True, text=True, env=environment(1), check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no error output"])[-1][:300])
    answer = json.loads(done.stdout)
    return {"seconds": answer["at"] - began, "peak": answer["peak"]}


def installed_size(needs: Sequence[str]) -> dict[str, Any]:
    """Bytes on disk of distributions and their dependencies, without bytecode."""
    closure: dict[str, Distribution] = {}
    todo = list(needs)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in closure:
            continue
        try:
            closure[name] = distribution(name)
        except PackageNotFoundError:
            if name in needs:
                return {"failed": f"{name} is not installed"}
            continue  # an optional dependency that is not installed
        for text in closure[name].requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
    return {"bytes": sum(map(_bytes, closure.values())), "distributions": sorted(closure)}


def _bytes(found: Distribution) -> int:
    if found.metadata["Name"] in OURS:
        folders = [Path(spec.origin).parent for name in OURS if (spec := find_spec(name)) and spec.origin]
        return sum(path.stat().st_size for folder in folders for path in folder.rglob("*.py"))
    files = (Path(str(found.locate_file(file))) for file in found.files or () if file.suffix != ".pyc")
    return sum(path.stat().st_size for path in files if path.is_file())
