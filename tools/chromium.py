"""The browser that tests open pages in: chromium from the PATH, or Debian's package, unpacked but not installed.

    python tools/chromium.py        # install what is missing, show where it is

It is cached in .chromium/. No root privileges are needed, and nothing outside .chromium/ is changed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from debian_packages import UnavailableError, done, download, kept, unpack

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".chromium"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_STATUS = Path("/var/lib/dpkg/status")


def command() -> str:
    """The program; if it is missing it is installed first, a minute once.

    Raises:
        UnavailableError: it is not installed, and Debian's packages cannot be had.
        RuntimeError: any other failure.
    """
    for name in _NAMES:
        if found := shutil.which(name):
            return found
    if not _STATUS.exists():
        raise UnavailableError("there is no chromium on the PATH, and this is no Debian")
    return str(kept(CACHE, "debian", _make) / "chromium")


def _make(folder: Path, scratch: Path) -> None:
    """The browser with the libraries and fonts that this machine lacks, and a script that starts it with them."""
    architecture = done(["dpkg", "--print-architecture"]).strip()
    for package in download(architecture, ["chromium", "fonts-dejavu-core"], scratch, closure=True, installed=_STATUS):
        unpack(package, folder)
    libraries = {path.parent.relative_to(folder) for path in folder.rglob("*.so*")}
    found = ":".join(f"$here/{path}" for path in sorted(libraries))
    script = folder / "chromium"
    lines = ["#!/bin/sh", 'here=$(dirname "$0")', f'export LD_LIBRARY_PATH="{found}"']
    script.write_text("\n".join([*lines, 'exec "$here/usr/lib/chromium/chromium" "$@"', ""]))
    script.chmod(0o755)


if __name__ == "__main__":
    print(command())
