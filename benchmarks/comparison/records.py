"""Measurements as JSON lines: first the machine, then the settings, then one line per measured cell."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aeedge.files.atomic import atomic_file

Line = dict[str, Any]


class Records:
    """Lines in order; each has a `kind`."""

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        self.lines = list(lines)

    def add(self, kind: str, **values: Any) -> Line:
        """Append a line."""
        self.lines.append({"kind": kind, **values})
        return self.lines[-1]

    def of(self, kind: str, **wanted: Any) -> list[Line]:
        """Lines of a kind with the given values."""
        return [
            line
            for line in self.lines
            if line["kind"] == kind and all(line.get(key) == value for key, value in wanted.items())
        ]

    def names(self, key: str, kind: str = "speed") -> list[Any]:
        """Distinct values of a key, in order of appearance."""
        return list(dict.fromkeys(line[key] for line in self.of(kind)))

    def write(self, path: Path) -> None:
        """Write the file, completely or not at all."""
        path.parent.mkdir(exist_ok=True, parents=True)
        write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self.lines))

    @classmethod
    def read(cls, path: Path) -> Records:
        """Read a file."""
        return cls(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def write_text(path: Path, text: str) -> None:
    """Replace a file's content atomically."""
    with atomic_file(path, overwrite=True) as part:
        part.write_text(text, encoding="utf-8")
