"""What a release consists of: the wheel, the source package, and what an index says to them."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from readme_renderer import markdown

import aeedge

ROOT = Path(__file__).parents[2]
TEMPLATES = {"aeedge_export/reporting/base.html", "aeedge_export/reporting/page.html"}
TEMPLATES |= {"aeedge_export/architecture_search/search.html"}
METADATA = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def of_git(*folders):
    """Files that git keeps or would keep, of all or some folders."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("NOTHING WAS TESTED: this is no checkout")
    return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def names(dist):
    with zipfile.ZipFile(dist.wheel) as wheel:
        return set(wheel.namelist())


def test_the_wheel_of_the_source_package_is_that_of_the_tree_to_the_byte(dist):
    assert dist.wheel.name == dist.of_tree.name
    assert dist.wheel.read_bytes() == dist.of_tree.read_bytes()


def test_the_wheel_holds_the_two_packages_and_nothing_else(names):
    info = f"aeedge-{aeedge.__version__}.dist-info/"
    modules = {name.removeprefix("export/") for name in of_git("aeedge", "export/aeedge_export")}
    assert names - modules == {info + name for name in METADATA}
    assert modules <= names
    assert names >= TEMPLATES | {"aeedge/py.typed", "aeedge_export/py.typed"}


def test_the_source_package_holds_the_repository(dist):
    with tarfile.open(dist.sdist) as archive:
        members = {member.name.split("/", 1)[1] for member in archive.getmembers() if not member.isdir()}
    assert members - {"PKG-INFO"} == of_git()


def test_the_packages_are_small(dist):
    """A device gets the wheel over a thin line; bounds are twice what it is and thrice what the sources are."""
    assert dist.wheel.stat().st_size < 1_600_000
    assert dist.sdist.stat().st_size < 8_000_000


def test_an_index_takes_the_packages(dist):
    files = [str(dist.sdist), str(dist.wheel)]
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


def test_the_page_on_an_index_names_files_where_links_would_lead_nowhere(metadata):
    text = metadata.get_payload(decode=True).decode()
    page = markdown.render(text)
    assert "<h1" in page
    links = re.findall(r'(?:href|src|srcset)="([^"]*)"', page)
    anchors = set(re.findall(r'id="([^"]*)"', page))
    assert [link for link in links if not link.startswith("https://") and link.removeprefix("#") not in anchors] == []
    assert "](" not in re.sub("(?s)<(pre|code)>.*?</(pre|code)>", "", page), "a link that is not one"
    assert "(docs/" in text


def test_metadata(metadata):
    assert metadata["Name"] == "aeedge"
    assert metadata["Version"] == aeedge.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    page = (ROOT / "docs" / "how-to" / "install.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert set(metadata.get_all("Provides-Extra")) == {*documented, "dev", "docs"}
    unconditional = [name for name in metadata.get_all("Requires-Dist") if "extra ==" not in name]
    assert {Requirement(name).name for name in unconditional} == {"numpy", "onnxruntime", "click"}


def test_every_command_of_the_wheel_is_there(dist, names):
    with zipfile.ZipFile(dist.wheel) as wheel:
        text = wheel.read(f"aeedge-{aeedge.__version__}.dist-info/entry_points.txt").decode()
    assert "aeedge = aeedge.cli:main" in text
    commands = dict(re.findall(r"^(\w+) = (aeedge_export[\w.]*):\w+$", text, re.MULTILINE))
    assert commands.keys() >= {"train", "export", "report", "search"}
    assert {f"{module.replace('.', '/')}.py" for module in commands.values()} <= names


def test_every_requirement_is_met_by_the_versions_that_the_project_is_tested_with(metadata):
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    for requirement in map(Requirement, metadata.get_all("Requires-Dist")):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
