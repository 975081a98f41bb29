"""The exceptions of aeedge.

AeedgeError
├── BundleError                  the bundle cannot be used
│   ├── CorruptBundleError       it is damaged: a file is truncated, changed, or of another bundle
│   └── IncompatibleBundleError  it needs another version of aeedge or onnxruntime, or lacks what a call needs
├── InputError (also ValueError) an argument, array or file does not fit
└── VerificationError            the outputs differ from the recorded reference outputs

A message names what was expected, what came, where, and what to do, in at most 2 000 printable characters. Too little
memory is a MemoryError. Any other exception is a bug.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

_SPACES = "\xa0\u2007\u2009\u202f"  # which no terminal acts on, and units have
_LONGEST, _NAMES, _NAME = 2000, 10, 80  # characters of a message, names in a list, characters of a name


class AeedgeError(Exception):
    """Base of all exceptions of aeedge."""

    def __init__(self, message: object = "") -> None:
        text = str(message)
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST * 3 // 4]} … {text[-_LONGEST // 4 :]}"
        super().__init__(printable(text, None))


class BundleError(AeedgeError):
    """The bundle cannot be used."""


class CorruptBundleError(BundleError):
    """The bundle is damaged: a file is truncated, was changed, or belongs to another bundle."""


class IncompatibleBundleError(BundleError):
    """The bundle needs another version of aeedge or onnxruntime, or lacks what a call needs."""


class InputError(AeedgeError, ValueError):
    """An argument, array or file does not fit."""


class VerificationError(AeedgeError):
    """Outputs differ from the recorded reference outputs by more than the tolerance."""


def shortened(names: Collection[object], most: int = _NAMES) -> str:
    """Names in a sentence: the first `most` of many, each of a length that a terminal can show."""
    more = len(names) - most
    first = ", ".join(printable(str(name), 2 * _NAME) or "''" for name in islice(names, most))
    return first + (f" and {more:,} more" if more > 0 else "")


def printable(text: str, most: int | None = _NAME, keep: str = "") -> str:
    """Text that a terminal only shows: what would move its cursor or turn its writing is escaped, as repr() does.

    Args:
        text: of a name, a unit, a file, a message.
        most: characters to show; None for all.
        keep: characters to leave as they are, such as line ends between lines.
    """
    if most is not None and len(text) > most:
        text = text[:most] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _SPACES or c in keep else repr(c)[1:-1] for c in text)


def absent(name: str, names: Collection[str], kind: str = "a column", why: str = "") -> str:
    """What a message says of a name that is not there: the names that are, and which may be meant."""
    from difflib import get_close_matches

    parts, folded = [part.strip() for part in name.split(",")], {each.strip().lower(): each for each in names}
    near = get_close_matches(name.strip().lower(), folded, 1)
    said = f"expected {kind} '{printable(name)}'{why}, got {shortened(names)}"
    if len(parts) > 1 and set(parts) <= set(names):
        return f"{said}; '{printable(name)}' is {len(parts)} names: give each by itself"
    return f"{said}; did you mean '{printable(folded[near[0]])}'?" if near else said


def of_system(error: Exception) -> bool:
    """Whether the system raised an error, or Python; not a signal handler, whose TimeoutError is an OSError, too."""
    return not isinstance(error, OSError) or error.errno is not None
