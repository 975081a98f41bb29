"""A piece of work for an engine, what becomes of it, and what an engine is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from aeedge.archive.packing import Packed
    from aeedge.archive.parts import Part

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
        name: of `aeedge.archive.engines.ENGINES`.
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
