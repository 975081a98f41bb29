"""A fixed number of runs of a target, each with a limit of time and all with a limit of memory.

PYTHONPATH=tests python -m fuzz.run TARGET RUNS [SEED]
"""

import base64
import faulthandler
import resource
import sys
import traceback
from pathlib import Path

from fuzz.mutation import runs
from fuzz.targets import TARGETS, seeds

SECONDS = 20  # of one input
ROOM = 512 * 2**20  # bytes above what the imports take


def main(name, count, seed="0"):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM,) * 2)
    done = 0
    for data in runs(name, seeds(name), int(count), seed):
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            TARGETS[name](data)
        except BaseException:
            traceback.print_exc()
            sys.exit(f"{name}, input {done}: {base64.b64encode(data).decode()}")
        done += 1
    faulthandler.cancel_dump_traceback_later()
    print(done)


if __name__ == "__main__":
    main(*sys.argv[1:])
