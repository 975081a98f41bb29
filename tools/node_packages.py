"""The packages of examples/package.json, installed by npm into a folder of their own, and the Node.js that runs them.

    python tools/node_packages.py        # install what is missing, show where it is

They are cached in .node/, one folder for each state of the lock file. Nothing outside .node/ is changed, and no install
script of a package is run.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

from debian_packages import UnavailableError, done, fetched, kept

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".node"
OLDEST = 20  # that runs the examples and their tests
_SOURCES = (ROOT / "examples/package.json", ROOT / "examples/package-lock.json")


def node() -> str:
    """The program `node` of the PATH.

    Raises:
        UnavailableError: there is none, or it is older than 20.
    """
    found = shutil.which("node")
    if not found:
        raise UnavailableError(f"there is no node on the PATH; install Node.js {OLDEST} or newer")
    said = re.match(r"v(\d+)", done([found, "--version"]))
    if not said or int(said[1]) < OLDEST:
        raise UnavailableError(f"{found} is older than Node.js {OLDEST}")
    return found


def node_modules() -> Path:
    """The folder `node_modules` with the locked packages; half a minute when it is made, once for each lock file.

    Raises:
        UnavailableError: there is no Node.js or npm here, or no registry.
        RuntimeError: any other failure.
    """
    node()
    if not shutil.which("npm"):
        raise UnavailableError("there is no npm on the PATH")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()
    return kept(CACHE, digest[:16], _install) / "node_modules"


def _install(folder: Path, _scratch: Path) -> None:
    for path in _SOURCES:
        shutil.copy(path, folder)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    try:
        fetched(["npm", "ci", *options], cwd=folder)
    except RuntimeError as error:
        if re.search(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|E403|E50\d", str(error)):
            raise UnavailableError(f"npm's registry cannot be reached: {str(error).splitlines()[1]}") from error
        raise


if __name__ == "__main__":
    print(node_modules())
