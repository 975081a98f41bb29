"""All attacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from attacks import damage, forgeries, graphs, inputs, interruptions, resources
from attacks.outcomes import Outcome


class Attack(NamedTuple):
    """Something that is tried.

    Attributes:
        title: for the table.
        attempt: makes the try of an index, in an empty folder of its own.
        tries: how many there are.
        seconds: that one may take.
    """

    title: str
    attempt: Callable[[int, Path], Outcome]
    tries: int
    seconds: float = 20.0


ATTACKS = {
    "flipped": Attack("a file of a bundle is damaged", damage.flipped, 4000),
    "forgery": Attack("forged bundles, whose checksums are right", forgeries.forgery, len(forgeries.TRICKS)),
    "graph": Attack("hostile graphs, whose checksums are right", graphs.hostile, len(graphs.GRAPHS), 10.0),
    "manifest": Attack("odd manifests, sealed again", damage.odd_manifest, 1500),
    "record": Attack("odd records of `aeedge tune`", damage.odd_record, 500),
    "replaced": Attack("a bundle is replaced while it is loaded", interruptions.replaced, 1500),
    "call": Attack("calls interrupted by a signal", interruptions.call, 4000),
    "load": Attack("loads interrupted by a signal", interruptions.load, 2500),
    "command": Attack("commands ended by a signal", interruptions.command, 60, 60.0),
    "memory": Attack("load and encode with little memory", resources.low_memory, 300, 30.0),
    "memory-command": Attack("the command with little memory", resources.low_memory_command, 40, 60.0),
    "damaged": Attack("damaged files of rows", inputs.damaged, 4000),
    "file": Attack("odd files of rows", inputs.odd_file, 6 * len(inputs.ODD)),
    "array": Attack("odd arrays", inputs.odd_array, 4 * len(inputs.ARRAYS)),
    "race": Attack("two who write one target", resources.race, 200),
    "target": Attack("odd targets", resources.target, 2 * len(resources.TARGETS)),
}
