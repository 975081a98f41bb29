"""JSON that everybody reads alike, as values that know their place, so that a complaint can name it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from aeedge.errors import CorruptBundleError, printable

_MAX_DEPTH, _MAX_DIGITS = 64, 40  # a manifest has some six levels, and a seed has up to 39 digits
_MISSING = object()


def load_json(data: bytes, where: str) -> Any:
    """JSON that everybody reads alike: whole numbers that fit, text that can be printed, each key once."""
    try:
        text = data.decode("utf-8")
        document = json.loads(text, parse_constant=_no_number, parse_int=_whole, object_pairs_hook=_once)
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode()  # a UnicodeEncodeError is a ValueError
    except (ValueError, RecursionError) as error:
        raise CorruptBundleError(
            f"{where}: expected JSON, but it cannot be read ({str(error)[:200]}); "
            "copy the bundle again or export it again"
        ) from None
    return document


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON number")


def _whole(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _once(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) != len(items):
        twice = next(key for i, (key, _) in enumerate(items) if any(key == other for other, _ in items[:i]))
        raise ValueError(f"the key {twice[:60]!r} is there twice")
    return found


def is_sha256(text: str) -> bool:
    """Whether a text is a sha256 in hexadecimal."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


class Node:
    """A JSON value that knows its place, so that a complaint can name it."""

    def __init__(self, value: Any, place: str, where: str) -> None:
        self.value, self.place, self.where = value, place, where

    def wrong(self, expected: str) -> CorruptBundleError:
        """A complaint that names what was expected, what is there, and where."""
        try:
            got = "nothing" if self.value is _MISSING else json.dumps(self.value)[:60]
        except RecursionError:
            got = "lists in lists"
        return CorruptBundleError(
            f"{self.where}: expected {expected[:200]}, got {got} at {printable(self.place, 200)}; "
            "export the bundle again"
        )

    def get(self, key: str) -> Node:
        """The value of a key of an object; it may be missing."""
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        return Node(self.value.get(key, _MISSING), f"{self.place}.{key}", self.where)

    def optional(self, read: Callable[[Node], Any]) -> Any:
        """What `read` makes of the value; None where it is null or missing."""
        return None if self.value is None or self.value is _MISSING else read(self)

    def mapping(self) -> dict[str, Node]:
        """The values of an object."""
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        return {key: self.get(key) for key in self.value}

    def items(self) -> list[Node]:
        """The values of a list."""
        if not isinstance(self.value, list):
            raise self.wrong("a list")
        return [Node(item, f"{self.place}[{i}]", self.where) for i, item in enumerate(self.value)]

    def integer(self, least: int = 0, most: int = 2**63 - 1) -> int:
        """A whole number."""
        if not isinstance(self.value, int) or isinstance(self.value, bool) or not least <= self.value <= most:
            limit = f", at most {most}" if most < 2**63 - 1 else ""
            raise self.wrong(f"a whole number of at least {least}{limit}")
        return self.value

    def number(self, least: float = -math.inf, most: float = math.inf) -> float:
        """A finite number."""
        if not isinstance(self.value, (int, float)) or isinstance(self.value, bool):
            raise self.wrong("a number")
        if not math.isfinite(self.value) or not least <= self.value <= most:
            limit = f", at most {most:g}" if most < math.inf else ""
            raise self.wrong(f"a finite number of at least {least:g}{limit}")
        return float(self.value)

    def boolean(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def text(self) -> str:
        """A string."""
        if not isinstance(self.value, str):
            raise self.wrong("a string")
        return self.value

    def sha256(self) -> str:
        """A sha256 in hexadecimal."""
        if not isinstance(self.value, str) or not is_sha256(self.value):
            raise self.wrong("a sha256 of 64 hexadecimal digits")
        return self.value

    def plain(self) -> dict[str, Any]:
        """An object of anything that can be written again: of finite numbers, and not nested deeply."""
        found = {key: item.value for key, item in self.mapping().items()}
        level: list[Any] = [found]
        for _ in range(_MAX_DEPTH):
            if any(isinstance(item, float) and not math.isfinite(item) for item in level):
                raise self.wrong("finite numbers")
            inner = [
                item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))
            ]
            level = [value for values in inner for value in values]
            if not level:
                return found
        raise self.wrong(f"no more than {_MAX_DEPTH} levels")
