"""`torchrun --nproc-per-node N -m aeedge_export.train ARGS`: what `aeedge train ARGS` does, in N processes."""

import sys

from aeedge_export.cli.processes import work

if __name__ == "__main__":
    sys.exit(work(sys.argv[1:]))
