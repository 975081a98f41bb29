"""Documents that commands print, compared with docs/reference/json-outputs.md and the schemas made from it."""

import json
import re

import json_schemas

try:
    from jsonschema import Draft202012Validator
except ModuleNotFoundError:  # where the device's tests run with the device's packages alone
    Draft202012Validator = None
TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
NAMES_AS_KEYS = re.compile(
    r"(machine\.)?versions|scenarios|variants|bundles\[\]\.(latency_us|noise)|row_us|measurements\.(\w+_us|bytes|rejected)(\.\*)?"
)


def documented(command):
    """Types by key, of a command's section and of the shared objects that it contains."""
    return {key: tuple(types) for key, (types, _) in json_schemas.documented(command).items()}


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
        if Draft202012Validator is not None:
            schema = json_schemas.SCHEMAS / f"{json_schemas.COMMANDS[command]}.json"
            Draft202012Validator(json.loads(schema.read_text(encoding="utf-8"))).validate(document)
        for key, value in leaves(document):
            if value is None and any(other.startswith(f"{key}.") for other in described):
                continue  # an object that is not there
            assert key in described, key
            kinds = tuple(TYPES[kind] for kind in described[key])
            assert isinstance(value, bool) == ("boolean" in described[key]), key
            assert any(isinstance(value, kind) for kind in kinds), (key, value)
            produced.add(key)
    return set(described) - produced
