"""The command `aeedge`: subcommands of the device are here, those of the workstation are found by entry point."""

from __future__ import annotations

import sys
from typing import Any

from aeedge.cli.group import AeedgeGroup


def main() -> None:
    """Run the command line and exit: 0 done, 1 a check failed, 2 wrong usage or unusable input, 128 + n on signal n."""
    sys.exit(command())


def command(args: list[str] | None = None) -> int:
    """Run the command line with `args` (default: those of the process) and return its exit code."""
    result: Any = AeedgeGroup.build().main(args, prog_name="aeedge", standalone_mode=True)
    return int(result or 0)
