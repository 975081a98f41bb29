"""What does `import aeedge` cost beyond numpy and onnxruntime? Fresh processes, taking turns, medians."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

from common import fingerprint, publish

ROUNDS = 41
SCRIPTS = {"numpy + onnxruntime": "import numpy, onnxruntime", "aeedge": "import aeedge"}
TIMED = "import time; a = time.perf_counter(); {}; print(time.perf_counter() - a)"


def main() -> None:
    found: dict[str, list[float]] = {name: [] for name in SCRIPTS}
    # As installed: with compiled bytecode, which some environments switch off for sources.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {
        "ORT_DISABLE_TELEMETRY": "1"
    }
    for _ in range(ROUNDS + 1):
        for name, script in SCRIPTS.items():
            command = [sys.executable, "-c", TIMED.format(script)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            found[name].append(float(done.stdout))
    found = {name: values[1:] for name, values in found.items()}  # the first writes the bytecode
    medians = {name: statistics.median(values) * 1e3 for name, values in found.items()}
    base = medians["numpy + onnxruntime"]
    rows = [[name, f"{ms:.1f}", f"{ms - base:+.1f}"] for name, ms in medians.items()]
    publish("startup", {"machine": fingerprint(), "seconds": found}, ["import", "ms", "beyond"], rows)


if __name__ == "__main__":
    main()
