"""A task on its way to machines of a cluster, which may lack what it needs, and outcomes on their way back."""

from __future__ import annotations

import pickle
import re
import socket
from collections.abc import Callable, Sequence

import aeedge
from aeedge.archive.packing import Packed
from aeedge.archive.parts import Part
from aeedge.archive.work import Outcome, Task

PATIENCE = 120.0
"""Seconds after which a cluster that does nothing has no workers; new machines take a minute or two."""

Sent = tuple[int, bytes]
"""A part, for those who may not know what that is: its number, and all of it pickled."""
Reply = tuple[int, str, bytes]
"""A part's number, what the worker lacks, and the outcome pickled."""

_RAISED = re.compile(r"aeedge part (\d+): (.*)")


def sent(part: Part) -> Sent:
    """A part as a worker gets it."""
    return part.number, pickle.dumps(part)


def shipped(task: Task, bundle: Packed) -> Callable[[Sent, Callable[[], bytes]], Reply]:
    """What a worker does with a part: unpack the bundle, of which it is told how to read it, and do the task.

    It is a function in a function, which travels as code, not as the name of something that a worker has to have.
    """
    pickled, name, version = pickle.dumps(task), bundle.name, aeedge.__version__

    def work(part: Sent, read: Callable[[], bytes]) -> Reply:
        import pickle
        import platform
        import sys

        where = f"worker {platform.node()}, {sys.executable}"
        try:
            import pyarrow  # noqa: F401

            import aeedge
        except ImportError as error:
            advice = "install 'aeedge[arrow]' there, or let workers run a Python that has it (Spark: PYSPARK_PYTHON)"
            return part[0], f"{where}: cannot import {error.name} ({error}); {advice}", b""
        if aeedge.__version__ != version:
            found = aeedge.__version__
            return part[0], f"{where}: expected aeedge {version} as here, got {found}; install the same version", b""
        from aeedge.archive.packing import discard, unpacked
        from aeedge.errors import AeedgeError

        try:
            path = unpacked(name, read)
        except AeedgeError as error:
            return part[0], f"{where}: {error}", b""
        try:
            outcome = pickle.loads(pickled)(pickle.loads(part[1]), path)
        except Exception as error:
            raise RuntimeError(f"aeedge part {part[0]}: {type(error).__name__}: {error}") from error
        if outcome.is_unverified:
            discard(path)
        return part[0], "", pickle.dumps(outcome)

    return work


def arrived(reply: Reply) -> Outcome:
    """The outcome that a worker sent."""
    number, lacks, data = reply
    if lacks:
        return Outcome(number, error=lacks)
    outcome: Outcome = pickle.loads(data)
    return outcome


def raised(text: str) -> tuple[int, str] | None:
    """The number of the part whose task raised what an engine reports, and what it raised."""
    found = _RAISED.search(text)
    return None if found is None else (int(found[1]), found[2])


def unreachable(addresses: Sequence[str]) -> str | None:
    """Why none of these HOST:PORT accepts a connection; None where one does. Engines themselves try for minutes."""
    reason = "no address"
    for address in addresses:
        host, _, port = address.rpartition(":")
        try:
            if not host or not port.isdigit():
                raise ValueError(f"{address}: expected HOST:PORT")
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, ValueError, OverflowError) as error:
            reason = str(error)
        else:
            return None
    return reason
