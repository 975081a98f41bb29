"""How a try may end, and what a call that is attacked came to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

RIGHT = "right"
TYPED = "typed error"
MISLEADING = "misleading error"
UNTYPED = "untyped exception"
WRONG = "wrong result"
CRASH = "crash"
HANG = "hang"
LEFT = "left behind"
OUTCOMES = {
    RIGHT: "the result is right, or the caller's own exception came through",
    TYPED: "an AeedgeError of at most 2,000 characters, or MemoryError",
    MISLEADING: "an AeedgeError that blames what is not at fault, or that nobody reads to its end",
    UNTYPED: "any other exception",
    WRONG: "a result, and it is not right; a file that was read or written and must not be",
    CRASH: "the process was ended by a signal",
    HANG: "no end within the time limit",
    LEFT: "half a file, a temporary file, or open descriptors stay",
}
_LONGEST = 2000 + len("IncompatibleBundleError: ")


class Outcome(NamedTuple):
    """How a try ended: one of OUTCOMES, and the words of it."""

    name: str
    detail: str = ""


def outcome(call: Callable[[], Any], is_right: Callable[[Any], bool], wrong_blame: Iterable[str] = ()) -> Outcome:
    """Call, and judge what comes of it.

    Args:
        call: what is attacked.
        is_right: whether its result is right.
        wrong_blame: words that an error must not have, as something else is at fault.
    """
    import aeedge

    try:
        found = call()
    except aeedge.AeedgeError as error:
        text = f"{type(error).__name__}: {error}"
        bad = len(text) > _LONGEST or any(words in text for words in wrong_blame)
        return Outcome(MISLEADING if bad else TYPED, text[:300])
    except MemoryError as error:
        return Outcome(TYPED, f"MemoryError: {error}"[:300])
    except BaseException as error:
        return Outcome(UNTYPED, f"{type(error).__name__}: {error}"[:300])
    return Outcome(RIGHT) if is_right(found) else Outcome(WRONG, str(found)[:300])
