"""Debian packages unpacked into a folder, not installed: programs that tests need and a machine may lack.

They come from the mirrors that the machine's apt is configured for. No root privileges are needed, and nothing outside
the folders given is changed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Messages of apt, pip and proxies about an unreachable registry. Anything else is an ordinary error.
_UNREACHABLE = re.compile(
    r"Could not resolve|Temporary failure|[Cc]ould not connect|Unable to connect|Could not wait for server"
    r"|[Cc]onnection (refused|timed out|failed|reset|broken)|timed out|Network is unreachable|No route to host"
    r"|NewConnectionError|ProxyError|Max retries exceeded"
    r"|Forbidden|Bad Gateway|Service Unavailable|Gateway Time-?out|Proxy Authentication Required"
)

_LACKING = re.compile(r"E: (Unable to locate package|.*has no (installation )?candidate)")

# apt with separate state: needs no privileges and leaves the machine's packages alone. Mirrors, keys and proxies come
# from the machine's configuration, which apt reads first; hooks for the real state are cleared.
_APT_CONF = """\
#clear APT::Update;
#clear DPkg;
#clear APT::Architectures;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "30";
Dir::State "{state}";
Dir::State::status "{state}/status";
Dir::Cache "{state}/cache";
Dir::Log "{state}";
"""


class UnavailableError(RuntimeError):
    """What is needed cannot be installed: no registry reachable, or no Debian."""


class LackingError(RuntimeError):
    """The mirrors were reached, and have no package of this name."""


def kept(cache: Path, name: str, make: Callable[[Path, Path], None]) -> Path:
    """A folder of a cache; `make` fills it if it does not exist: it is called with the folder and one for scraps.

    It is filled under a temporary name and renamed when complete, so that an interrupted run leaves no partial folder.
    """
    found = cache / name
    if found.is_dir():
        return found
    cache.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="making-", dir=cache) as aside:
        folder, scratch = Path(aside, "made"), Path(aside, "scratch")
        folder.mkdir()
        scratch.mkdir()
        print(f"creating {found} …", file=sys.stderr, flush=True)
        make(folder, scratch)
        try:
            folder.rename(found)
        except OSError:  # another run was faster
            if not found.is_dir():
                raise
    return found


def download(
    architecture: str,
    packages: list[str],
    scratch: Path,
    *,
    closure: bool = False,
    installed: Path | None = None,
    suite: str | None = None,
) -> list[Path]:
    """Packages from the machine's Debian mirror, signatures checked.

    Args:
        architecture: such as "amd64".
        packages: their names.
        scratch: folder for apt's state.
        closure: whether to add their dependencies.
        installed: dpkg's list of what need not be added; None for nothing.
        suite: another release of Debian than the machine's, such as "trixie", of the same mirror.

    Raises:
        LackingError: the mirrors have no such package.
        UnavailableError: no apt here, or no mirror.
    """
    if not shutil.which("apt-get"):
        raise UnavailableError(f"{', '.join(packages)} come from Debian packages, and this machine has no apt-get")
    state = scratch / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True)
    (state / "status").write_bytes(b"" if installed is None else installed.read_bytes())
    conf = state / "apt.conf"
    conf.write_text(_APT_CONF.format(architecture=architecture, state=state))
    apt = ["apt-get", "--config-file", str(conf), "--quiet", "--yes"]
    # apt-get update succeeds although mirrors did not respond; its output explains why the next step finds nothing.
    said = fetched([*apt, "update"], cwd=state)
    if suite is not None:
        mirrors = done(
            [*apt, "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]
        ).split()
        if not mirrors:
            raise UnavailableError(f"{', '.join(packages)} come from Debian's mirrors, and this machine names none")
        (state / "sources.list").write_text(f"deb {mirrors[0]} {suite} main\n")
        apt += ["-o", f"Dir::Etc::sourcelist={state}/sources.list", "-o", "Dir::Etc::sourceparts=/dev/null"]
        said += fetched([*apt, "update"], cwd=state)
    fetch = ["install", "--download-only"] if closure else ["download"]
    fetched([*apt, *fetch, *packages], cwd=state, before=said)
    return sorted([*state.glob("*.deb"), *state.glob("cache/archives/*.deb")])


def unpack(package: Path, folder: Path, *members: str) -> None:
    """All of a Debian package, or some members; `dpkg-deb -x` would replace the links by folders."""
    archive = folder.with_name("package.tar")
    with archive.open("wb") as out:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=out, check=True)
    done(["tar", "-x", "--no-same-owner", "--keep-directory-symlink", "-C", str(folder), "-f", str(archive), *members])
    archive.unlink()


def done(words: list[str], **options: Any) -> str:
    """Run a command and return its output."""
    found = _ran(words, **options)
    if found.returncode != 0:
        raise RuntimeError(f"{' '.join(words)} ended with {found.returncode}:\n{found.stdout[-3000:]}")
    return found.stdout


def fetched(words: list[str], *, before: str = "", **options: Any) -> str:
    """As `done`, for commands that need a registry; `before` is an earlier step's output, to explain a failure."""
    found = _ran(words, **options)
    silent = [line.strip() for line in (before + found.stdout).splitlines() if _UNREACHABLE.search(line)]
    if found.returncode != 0 and silent:
        raise UnavailableError(f"a package registry cannot be reached: {silent[-1]}")
    if found.returncode != 0 and _LACKING.search(found.stdout):
        raise LackingError(found.stdout.strip().splitlines()[-1])
    if found.returncode != 0:
        raise RuntimeError(f"{' '.join(words)} ended with {found.returncode}:\n{(before + found.stdout)[-3000:]}")
    return found.stdout


def _ran(words: list[str], env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """A finished command with both output streams merged, in English because the output is parsed."""
    env = {**(os.environ if env is None else env), "LC_ALL": "C"}
    found: subprocess.CompletedProcess[str] = subprocess.run(
        words, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    return found
