"""What an engine is, and the three there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from aeedge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from aeedge.archive.packing import Packed
    from aeedge.archive.parts import Part

ENGINES = ("local", "spark", "ray")

TRIES = 4
"""How often a part is tried whose worker ends: as often as Spark does."""


class Outcome(NamedTuple):
    """What became of a part.

    Attributes:
        number: of the part.
        rows: that were read.
        written: rows of the result.
        set_aside: rows that could not be computed, and were written elsewhere.
        host: of the worker.
        variant: that ran there.
        seconds: that it took.
        alarms: rows with an alarm; 0 where none are asked for.
        reasons: why rows were set aside, and how many.
        unreadable: why the whole part is set aside; "" where it is not.
        error: a sentence where it failed; trying again would not help.
        is_unverified: whether it failed because the bundle does not compute there what it should.
        payload: what a task gives back beside what it writes.
    """

    number: int
    rows: int = 0
    written: int = 0
    set_aside: int = 0
    host: str = ""
    variant: str = ""
    seconds: float = 0.0
    alarms: int = 0
    reasons: dict[str, int] | None = None
    unreadable: str = ""
    error: str = ""
    is_unverified: bool = False
    payload: Any = None


Task: TypeAlias = "Callable[[Part, str], Outcome]"
"""Does a part with the bundle at a path. It raises nothing that another try would raise again: that is an `Outcome`
with an error. Engines try again what ended without an outcome."""


class Engine(Protocol):
    """Runs a task for each part, somewhere.

    Attributes:
        name: of ENGINES.
        workers: how many parts are done beside each other.
    """

    name: str

    @property
    def workers(self) -> int: ...  # noqa: D102

    def run(self, task: Task, parts: Sequence[Part], bundle: Packed) -> Generator[Outcome, None, None]:
        """The outcomes, in any order, as they come; closing the generator ends what runs.

        Raises:
            InputError: there are no workers.
        """


def gave_up(part: Part, reason: str, tries: int = TRIES) -> Outcome:
    """Of a part whose worker always ended before it was done."""
    why = f"its worker ended {tries} times before it was done ({reason}); is there too little memory?"
    return Outcome(part.number, error=f"{part.name}: {why}")


def make_engine(
    name: str = "local", *, workers: int | None = None, master: str | None = None, address: str | None = None
) -> Engine:
    """An engine.

    Args:
        name: of ENGINES.
        workers: of local, processes; of Spark and Ray without a cluster, too. None for the CPUs that this process may
            use.
        master: of Spark: the URL of a cluster; None for the session that there is, or one on this machine.
        address: of Ray: that of a cluster, or "auto"; None for one on this machine.

    Raises:
        InputError: another name, an option of another engine, an engine that is not installed.
    """
    for option, value, owner in (("master", master, "spark"), ("address", address, "ray")):
        if value is not None and name != owner:
            raise InputError(f"{option}: is an option of the engine {owner!r}, got it with {name!r}; leave it out")
    if workers is not None and workers < 1:
        raise InputError(f"workers: expected a whole number of at least 1, got {workers!r}")
    if name == "local":
        from aeedge.archive.local import LocalEngine

        return LocalEngine(workers)
    if name == "spark":
        from aeedge.archive.spark import SparkEngine

        return SparkEngine(master, workers)
    if name == "ray":
        from aeedge.archive.ray import RayEngine

        return RayEngine(address, workers)
    raise InputError(f"engine: expected {', '.join(ENGINES)}, got {name!r}")
