"""The Java that tests start Spark with: 17 or newer from JAVA_HOME or the PATH, else Debian's, unpacked alone.

    python tools/java.py        # install what is missing, show where it is

It is cached in .java/. No root privileges are needed, and nothing outside .java/ is changed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from debian_packages import LackingError, UnavailableError, done, download, kept, unpack

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".java"
OLDEST = 17  # that Spark 4 runs on
_PACKAGES = ("openjdk-17-jre-headless", "openjdk-21-jre-headless")  # Debian 11 and 12, Debian 13


def home() -> Path:
    """What JAVA_HOME has to be; what is missing is installed first, half a minute once.

    Raises:
        UnavailableError: there is no Java that is new enough, and Debian's packages cannot be had.
        RuntimeError: any other failure.
    """
    on_path = shutil.which("java")
    given = os.environ.get("JAVA_HOME")
    for found in (Path(given) if given else None, Path(on_path).resolve().parent.parent if on_path else None):
        if found is not None and (version(found) or 0) >= OLDEST:
            return found
    if not shutil.which("dpkg"):
        raise UnavailableError(f"there is no Java {OLDEST} or newer on the PATH, and this is no Debian")
    folder = kept(CACHE, "debian", _make)
    return next(folder.glob("usr/lib/jvm/*/bin/java")).parent.parent


def version(home: Path) -> int | None:
    """The release of the Java in a folder: 8, 11, 17, …; None where none starts."""
    try:
        said = subprocess.run([home / "bin/java", "-version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', said.stderr) if said.returncode == 0 else None
    return int(found[1]) if found else None


def _make(folder: Path, scratch: Path) -> None:
    """The runtime alone: what its package depends on is for sound, printing and fonts, or on every machine."""
    unpack(_package(scratch), folder)
    for link in folder.rglob("*"):  # to its settings, which an installation has in /etc
        if link.is_symlink() and os.readlink(link).startswith("/etc/"):
            settings = folder / os.readlink(link)[1:]
            link.unlink()
            link.symlink_to(os.path.relpath(settings, link.parent))


def _package(scratch: Path) -> Path:
    """The first of the packages that this Debian has."""
    architecture = done(["dpkg", "--print-architecture"]).strip()
    for name in _PACKAGES:
        with suppress(LackingError):
            return download(architecture, [name], scratch / name)[0]
    raise UnavailableError(f"Debian's mirror has none of {', '.join(_PACKAGES)}")


if __name__ == "__main__":
    print(home())
