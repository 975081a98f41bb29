"""The MQTT broker that tests start: mosquitto from the PATH, or Debian's package, unpacked but not installed.

    python tools/mosquitto.py        # install what is missing, show how it is started

It is cached in .mosquitto/. No root privileges are needed, and nothing outside .mosquitto/ is changed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from debian_packages import UnavailableError, done, download, kept, unpack

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".mosquitto"
_STATUS = Path("/var/lib/dpkg/status")


def command() -> tuple[str, dict[str, str]]:
    """The program, and the environment to start it in; what is missing is installed first, some seconds once.

    Raises:
        UnavailableError: it is not installed, and Debian's packages cannot be had.
        RuntimeError: any other failure.
    """
    found = shutil.which(
        "mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    )
    if found:
        return found, dict(os.environ)
    if not _STATUS.exists():
        raise UnavailableError("there is no mosquitto on the PATH, and this is no Debian")
    folder = kept(CACHE, "debian", _make)
    libraries = os.pathsep.join(sorted({str(path.parent) for path in folder.rglob("*.so*")}))
    return str(folder / "usr/sbin/mosquitto"), {**os.environ, "LD_LIBRARY_PATH": libraries}


def _make(folder: Path, scratch: Path) -> None:
    """The broker with the libraries that this machine lacks."""
    architecture = done(["dpkg", "--print-architecture"]).strip()
    for package in download(architecture, ["mosquitto"], scratch, closure=True, installed=_STATUS):
        unpack(package, folder)


if __name__ == "__main__":
    print(command()[0])
