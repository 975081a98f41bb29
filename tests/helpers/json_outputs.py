"""Documents that commands print, compared with docs/reference/json-outputs.md."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
WITH_MACHINE = ("doctor", "bench", "bench --batch", "search")
NAMES_AS_KEYS = re.compile(
    r"(machine\.)?versions|scenarios|variants|bundles\[\]\.(latency_us|noise)|row_us|measurements\.(\w+_us|bytes|rejected)(\.\*)?"
)


def documented(command):
    """Types by key, of a command's section and of the shared objects that it contains."""
    page = (ROOT / "docs" / "reference" / "json-outputs.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    text = sections[f"aeedge {command}"] + (sections["Shared objects"] if command in WITH_MACHINE else "")
    rows = re.findall(rf"^\| `([^`]+)` \| ((?:{'|'.join(TYPES)})(?: or (?:null|string))?) \|", text, re.MULTILINE)
    return {key: tuple(types.split(" or ")) for key, types in rows}


def leaves(value, path=""):
    """Keys and values of a document, as the page writes them."""
    if isinstance(value, dict):
        for key, inner in value.items():
            name = "*" if NAMES_AS_KEYS.fullmatch(path) and not isinstance(inner, list) else key
            yield from leaves(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, f"{path}[]")
    else:
        yield path, value


def compare(command, *documents):
    described, produced = documented(command), set()
    for document in documents:
        for key, value in leaves(document):
            if value is None and any(other.startswith(f"{key}.") for other in described):
                continue  # an object that is not there
            assert key in described, key
            kinds = tuple(TYPES[kind] for kind in described[key])
            assert isinstance(value, bool) == ("boolean" in described[key]), key
            assert any(isinstance(value, kind) for kind in kinds), (key, value)
            produced.add(key)
    return set(described) - produced
