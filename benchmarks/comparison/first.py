"""A fresh process up to its first latent: prints the time when it was computed, and the peak memory."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Open the contender, encode one row, report."""
    order = json.loads(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, order["cpus"])
    private = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import numpy as np

    contender = importlib.import_module(order["module"]).Contender(order["folder"], order["options"], 1)
    contender.encode(contender.prepare(np.load(order["folder"] + "/first.npy")))
    private.write(json.dumps({"at": time.monotonic(), "peak": peak_bytes()}) + "\n")
    private.flush()


if __name__ == "__main__":
    main()
