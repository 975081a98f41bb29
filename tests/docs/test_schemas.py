"""docs/reference/schemas: made from the page of JSON outputs; real documents are held against them by `compare`."""

import copy
import json
from pathlib import Path

import pytest
from json_schemas import COMMANDS, SCHEMAS, documented, schema
from jsonschema import Draft202012Validator

DATA = Path(__file__).parents[1] / "data"
MANIFESTS = sorted(DATA.glob("bundle_v*/manifest.json"))


def validator(name):
    return Draft202012Validator(json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("command", COMMANDS)
def test_schemas_are_up_to_date(command):
    written = json.loads((SCHEMAS / f"{COMMANDS[command]}.json").read_text(encoding="utf-8"))
    assert written == schema(command), "run python tools/json_schemas.py"


@pytest.mark.parametrize("name", [*COMMANDS.values(), "manifest"])
def test_schemas_are_schemas(name):
    Draft202012Validator.check_schema(validator(name).schema)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_documented_key_is_in_the_schema_with_its_type(command):
    def leaves(node, path=""):
        if "items" in node:
            yield from leaves(node["items"], f"{path}[]")
        elif "properties" in node or "additionalProperties" in node:
            for key, inner in node.get("properties", {}).items():
                yield from leaves(inner, f"{path}.{key}" if path else key)
            if "additionalProperties" in node:
                yield from leaves(node["additionalProperties"], f"{path}.*")
        else:
            yield path, node["type"] if isinstance(node["type"], list) else [node["type"]]

    assert dict(leaves(schema(command))) == {key: types for key, (types, _) in documented(command).items()}


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda path: path.parent.name)
def test_manifests_fit(file):
    validator("manifest").validate(json.loads(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(format="other"),
        lambda m: m.pop("variants"),
        lambda m: m.update(id="0123"),
        lambda m: m["input"].update(dtype="float64"),
        lambda m: m["input"].update(shape=[0]),
        lambda m: m["variants"]["fp32"]["encoder"].pop("sha256"),
        lambda m: m["variants"]["fp32"]["tolerance"]["latent"].update(atol=-1),
    ],
)
def test_other_manifests_do_not(change):
    manifest = json.loads((DATA / "bundle_v1" / "manifest.json").read_text(encoding="utf-8"))
    changed = copy.deepcopy(manifest)
    change(changed)
    assert validator("manifest").is_valid(manifest)
    assert not validator("manifest").is_valid(changed)
