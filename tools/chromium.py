"""The browser that tests open pages in: chromium from the PATH, or Debian's package, unpacked but not installed.

    python tools/chromium.py        # install what is missing, show where it is

It is cached in .chromium/. No root privileges are needed, and nothing outside .chromium/ is changed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from debian_packages import UnavailableError, done, download, kept, unpack

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".chromium"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_STATUS = Path("/var/lib/dpkg/status")


def command() -> tuple[str, dict[str, str]]:
    """The program, and the environment to start it in; what is missing is installed first, a minute once.

    Raises:
        UnavailableError: it is not installed, and Debian's packages cannot be had.
        RuntimeError: any other failure.
    """
    for name in _NAMES:
        if found := shutil.which(name):
            return found, dict(os.environ)
    if not _STATUS.exists():
        raise UnavailableError("there is no chromium on the PATH, and this is no Debian")
    folder = kept(CACHE, "debian", _make)
    libraries = os.pathsep.join(sorted({str(path.parent) for path in folder.rglob("*.so*")}))
    return str(folder / "usr/lib/chromium/chromium"), {**os.environ, "LD_LIBRARY_PATH": libraries}


def _make(folder: Path, scratch: Path) -> None:
    """The browser with the libraries and fonts that this machine lacks."""
    architecture = done(["dpkg", "--print-architecture"]).strip()
    for package in download(architecture, ["chromium", "fonts-dejavu-core"], scratch, closure=True, installed=_STATUS):
        unpack(package, folder)


if __name__ == "__main__":
    print(command()[0])
