"""JSON schemas of what commands print, written from the tables of docs/reference/json-outputs.md.

    python tools/json_schemas.py            # writes docs/reference/schemas/
    python tools/json_schemas.py --check    # exit code 1 where a schema is not up to date

manifest.json in the same folder is written by hand, after docs/reference/bundle-format.md.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
SCHEMAS = REFERENCE / "schemas"
COMMANDS = {  # section of the page: file
    "doctor": "doctor",
    "verify": "verify",
    "bench": "bench",
    "bench --batch": "bench-batch",
    "tune": "tune",
    "search": "search",
    "encode": "archive",
    "stream": "stream",
}
_WITH_MACHINE = ("doctor", "bench", "bench --batch", "search")
_ROW = re.compile(
    r"^\| `([^`]+)` \| ((?:string|integer|number|boolean|null)(?: or (?:null|string))?) \| ?(.*?) ?\|$", re.MULTILINE
)
_VALUE = r'"([\w ]+)"(?: \([^)]*\))?'
_VALUES = re.compile(rf"{_VALUE}(?:(?:, or |, | or ){_VALUE})+(?=$|[;:,])")


def section(command: str) -> str:
    """The part of the page about a command, with the shared objects that it contains."""
    page = (REFERENCE / "json-outputs.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    return sections[f"aeedge {command}"] + (sections["Shared objects"] if command in _WITH_MACHINE else "")


def documented(command: str) -> dict[str, tuple[list[str], str]]:
    """Types and meaning by key."""
    return {key: (types.split(" or "), meaning) for key, types, meaning in _ROW.findall(section(command))}


def schema(command: str) -> dict[str, Any]:
    """The schema of a command's document: keys may be added to any object, so none is refused."""
    rows = documented(command)
    root: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"aeedge {command} --json" if "schema" in rows else "A line of aeedge stream",
        "type": "object",
    }
    if "schema" in rows:
        root["required"] = ["schema"]
    for key, (types, meaning) in rows.items():
        parent, name = root, ""
        for name in re.split(r"\.(?!\d)", key):
            parent = _child(parent, name)
        parent.update(_leaf(name, types, meaning))
    for path in re.findall(r"`([\w.]+)` is null", section(command)):
        found = root
        for name in path.split("."):
            found = found["properties"][name]
        found["type"] = [found["type"], "null"]
    return root


def _child(parent: dict[str, Any], name: str) -> dict[str, Any]:
    """The schema of a key of an object, or of the elements of the list there."""
    parent.setdefault("type", "object")
    plain = name.rstrip("[]")
    found = parent.setdefault("additionalProperties", {}) if plain == "*" else None
    if found is None:
        found = parent.setdefault("properties", {}).setdefault(plain, {})
    for _ in range(name.count("[]")):
        found["type"] = "array"
        found = found.setdefault("items", {})
    child: dict[str, Any] = found
    return child


def _leaf(name: str, types: list[str], meaning: str) -> dict[str, Any]:
    leaf: dict[str, Any] = {"type": types[0] if len(types) == 1 else types}
    if meaning:
        leaf["description"] = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", meaning)
    if name == "schema":
        leaf["const"] = meaning.strip('"')
    elif name != "code" and (listed := _VALUES.match(meaning)):
        leaf["enum"] = re.findall(r'"([\w ]+)"', re.sub(r"\([^)]*\)", "", listed.group()))
        leaf["enum"] += [None] if "null" in types else []
    return leaf


def main() -> int:
    """Write the schemas, or compare them."""
    stale = []
    SCHEMAS.mkdir(exist_ok=True)
    for command, name in COMMANDS.items():
        file, text = SCHEMAS / f"{name}.json", json.dumps(schema(command), indent=2, ensure_ascii=False) + "\n"
        if "--check" not in sys.argv:
            file.write_text(text, encoding="utf-8")
        elif not file.exists() or file.read_text(encoding="utf-8") != text:
            stale.append(file.name)
    if stale:
        print(f"not up to date: {', '.join(stale)}; run python tools/json_schemas.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
