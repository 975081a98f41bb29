"""What does aeedge cost a fresh process beyond bare onnxruntime: to be imported, to its first latent, in memory?

Two pairs of scripts, each in fresh processes, interleaved in shuffled order: the smallest script with onnxruntime
alone, and the same with aeedge and all its checks. Time counts from just before the process starts until its script is
done, memory is the peak until then. "beyond" is the median of the differences within a round.

    python benchmarks/startup.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from common import apart, fingerprint, kept_as, publish
from comparison import workloads

ROUNDS, QUICK_ROUNDS = 41, 3
NETWORKS = ("deep", "conv")
IMPORTS = {"onnxruntime": "import numpy, onnxruntime", "aeedge": "import aeedge"}
FIRST_LATENT = {
    "onnxruntime": """
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(f"{folder}/encoder.onnx", options, providers=["CPUExecutionProvider"])
latents = session.run(None, {"input": np.load(f"{folder}/first.npy")})[0]
""",
    "aeedge": """
import numpy as np
import aeedge
model = aeedge.load(f"{folder}/float32.aeedge", variant="fp32")
latents = model.encode(np.load(f"{folder}/first.npy"))
""",
}
# time.monotonic counts from the same moment in all processes. VmHWM, since ru_maxrss begins with what the parent had.
CHILD = """
import sys, time
spawned, folder = float(sys.argv[1]), sys.argv[2]
{}
seconds = time.monotonic() - spawned
try:
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
except OSError:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(seconds, peak)
"""


class Seen(NamedTuple):
    """What one process reported."""

    seconds: float
    peak_bytes: float


class Question(NamedTuple):
    """Two scripts by library, run in a network's folder, and how much aeedge's may cost beyond the other."""

    title: str
    scripts: Mapping[str, str]
    folder: Path
    milliseconds: float
    megabytes: float | None


def questions() -> list[Question]:
    folders = apart(workloads.prepare, NETWORKS, print)
    first = [Question(f"first latent of {name}", FIRST_LATENT, folder, 15, 4) for name, folder in folders.items()]
    return [Question("import", IMPORTS, folders[NETWORKS[0]], 10, None), *first]


def environment() -> dict[str, str]:
    """As installed: with compiled bytecode, which some environments turn off."""
    own = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return own | {"ORT_DISABLE_TELEMETRY": "1"}


def process(script: str, folder: Path) -> Seen:
    surroundings, code = environment(), CHILD.format(script)
    command = [sys.executable, "-c", code, repr(time.monotonic()), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings)
    if done.returncode:
        raise SystemExit(f"the script failed:\n{script}\n{done.stderr}")
    return Seen(*map(float, done.stdout.split()))


def ask(asked: Sequence[Question], rounds: int) -> dict[str, dict[str, list[Seen]]]:
    """The reports of all scripts of all questions, one per round."""
    found: dict[str, dict[str, list[Seen]]] = {q.title: {who: [] for who in q.scripts} for q in asked}
    order, dice = [(question, who) for question in asked for who in question.scripts], random.Random(0)
    for _ in range(rounds + 1):
        dice.shuffle(order)
        for question, who in order:
            found[question.title][who].append(process(question.scripts[who], question.folder))
    # The first round writes bytecode and fills the caches of the disk.
    return {title: {who: seen[1:] for who, seen in by_whom.items()} for title, by_whom in found.items()}


def cells(by_whom: Mapping[str, Sequence[Seen]], field: str, unit: float, target: float | None) -> dict[str, list[str]]:
    """By script: its median, the difference to the peer's, and the limit."""
    values = {who: [getattr(seen, field) / unit for seen in all_seen] for who, all_seen in by_whom.items()}
    beyond = statistics.median(ours - theirs for ours, theirs in zip(values["aeedge"], values["onnxruntime"]))
    allowed = "" if target is None else f"{target:+.0f}"
    return {
        who: [f"{statistics.median(found):.1f}", *([f"{beyond:+.1f}", allowed] if who == "aeedge" else ["", ""])]
        for who, found in values.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: does everything work?")
    quick = parser.parse_args().quick
    asked = questions()
    found = ask(asked, QUICK_ROUNDS if quick else ROUNDS)
    rows = []
    for question in asked:
        seen = found[question.title]
        time_cells = cells(seen, "seconds", 1e-3, question.milliseconds)
        memory_cells = cells(seen, "peak_bytes", 1e6, question.megabytes)
        rows += [[question.title, who, *time_cells[who], *memory_cells[who]] for who in seen]
    head = ["fresh process", "with", "ms", "beyond", "allowed", "MB", "beyond", "allowed"]
    kept = {
        title: {
            who: {field: [getattr(one, field) for one in seen] for field in Seen._fields} for who, seen in by.items()
        }
        for title, by in found.items()
    }
    publish(kept_as("startup", quick), {"machine": fingerprint(), "processes": kept}, head, rows)


if __name__ == "__main__":
    main()
