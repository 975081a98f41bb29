"""What stands beside the code for those who find, cite, package and report: that it agrees with the code."""

from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from rattler_build import Stage0Recipe, VariantConfig

import aeedge

ROOT = Path(__file__).parents[2]
CONDA_NAMES = {"torch": "pytorch"}


@pytest.fixture(scope="module")
def conda():
    """The conda packages by name, rendered."""
    recipe = Stage0Recipe.from_file(str(ROOT / "packaging" / "conda" / "recipe.yaml"))
    rendered = [variant.recipe.to_dict() for variant in recipe.render(VariantConfig())]
    return {output["package"]["name"]: output for output in rendered}


def needs(metadata, extra):
    """Requirements of the wheel as conda writes them."""
    found = map(Requirement, metadata.get_all("Requires-Dist"))
    chosen = [
        one for one in found if (f"extra == '{extra}'" if extra else "") == str(one.marker or "").replace('"', "'")
    ]
    return {f"{CONDA_NAMES.get(one.name, one.name)} {one.specifier}" for one in chosen}


def test_the_conda_packages_need_what_the_wheel_needs(conda, metadata):
    python = f"python {metadata['Requires-Python']}"
    assert set(conda["aeedge"]["requirements"]["run"]) == {python} | needs(metadata, None)
    first, *others = conda["aeedge-export"]["requirements"]["run"]
    assert first == {"pin_subpackage": {"name": "aeedge", "exact": True}}
    assert set(others) == needs(metadata, "export") != set()


def test_the_conda_packages_are_of_this_version_and_of_any_machine(conda):
    assert conda.keys() == {"aeedge", "aeedge-export"}
    for output in conda.values():
        assert output["package"]["version"] == aeedge.__version__
        assert output["about"]["license"] == "Apache-2.0"
    assert conda["aeedge"]["build"]["noarch"] == "python"
    assert conda["aeedge"]["build"]["python"]["entry_points"] == ["aeedge = aeedge.cli:main"]


def test_the_conda_package_is_built_by_what_pyproject_asks_for(conda):
    host = {line.split()[0]: line for line in conda["aeedge"]["requirements"]["host"]}
    lines = (ROOT / "pyproject.toml").read_text().split("[project]")[0].splitlines()
    asked = [line.split('"')[1] for line in lines if line.startswith('    "')]
    assert len(asked) == 2
    for requirement in map(Requirement, asked):
        assert host[requirement.name] == f"{requirement.name} {requirement.specifier}"


def test_the_version_has_notes_and_a_chapter_of_the_changelog():
    assert f"## {aeedge.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    notes = ROOT / "docs" / "release-notes" / f"{aeedge.__version__}.md"
    assert notes.read_text().startswith(f"# aeedge {aeedge.__version__}")


def test_the_citation_is_complete_and_repeats_no_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "abstract"} <= citation.keys()
    assert citation["license"] == "Apache-2.0"
    assert not {"version", "date-released"} & citation.keys()


@pytest.mark.parametrize("form", ["bug", "export", "feature"])
def test_a_form_for_issues_is_one_that_a_code_host_shows(form):
    content = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{form}.yml").read_text())
    assert {"name", "description", "body"} <= content.keys()
    fields = [part for part in content["body"] if part["type"] != "markdown"]
    assert {part["type"] for part in fields} <= {"textarea", "input", "dropdown", "checkboxes"}
    assert all(part["attributes"]["label"] for part in fields)
    ids = [part["id"] for part in fields]
    assert len(set(ids)) == len(ids) >= 3
    assert any(part.get("validations", {}).get("required") for part in fields)
