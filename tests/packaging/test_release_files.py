"""What stands beside the code for those who find, cite, package and report: that it agrees with the code."""

import subprocess
import sys
from pathlib import Path

import pytest
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


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("citation-file-format", ["CITATION.cff"]),
        ("compose-spec", ["packaging/docker/compose.yaml"]),
        ("github-issue-config", [".github/ISSUE_TEMPLATE/config.yml"]),
        ("github-issue-forms", [f".github/ISSUE_TEMPLATE/{name}.yml" for name in ("bug", "export", "feature")]),
    ],
)
def test_files_for_other_programs_follow_their_schemas(schema, files):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_citation_repeats_no_version():
    text = (ROOT / "CITATION.cff").read_text()
    assert "license: Apache-2.0" in text
    assert aeedge.__version__ not in text
