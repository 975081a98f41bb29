"""The packages, built once as a release builds them."""

import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def dist(tmp_path_factory):
    """The source package, the wheel made of it, and the wheel of the tree."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "-q", "-o"]
    subprocess.run([*build, str(folder), str(ROOT)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*build, str(folder / "tree"), "-w", str(ROOT)], check=True, stdout=subprocess.DEVNULL)
    (sdist,), (wheel,), (of_tree,) = folder.glob("*.tar.gz"), folder.glob("*.whl"), folder.glob("tree/*.whl")
    return SimpleNamespace(sdist=sdist, wheel=wheel, of_tree=of_tree)


@pytest.fixture(scope="session")
def metadata(dist):
    """What the wheel says of itself."""
    with zipfile.ZipFile(dist.wheel) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(wheel.read(name))
