"""Other CPUs by emulation: Python with numpy and onnxruntime on emulated machines.

    python tools/emulated.py                                  # install what is missing, list the machines
    python tools/emulated.py nehalem -c 'import numpy; ...'   # run Python on one of them

qemu comes from the PATH, or from a Debian package that is unpacked but not installed. The x86 machines run this Python
and its environment; the ARM machines run Debian's Python and aarch64 wheels in a separate root directory. Everything is
cached in .isa/. No root privileges are needed, and nothing outside .isa/ is changed.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from debian_packages import UnavailableError, done, download, fetched, kept, unpack

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".isa"


class Machine(NamedTuple):
    """A CPU that qemu emulates."""

    emulator: str
    cpu: str
    what: str


MACHINES = {
    "haswell": Machine("qemu-x86_64-static", "Haswell-v1", "x86-64 of 2013: AVX2 and FMA, no AVX-512, no VNNI"),
    "nehalem": Machine("qemu-x86_64-static", "Nehalem", "x86-64 of 2008: SSE4.2, no AVX"),
    "cortex-a72": Machine("qemu-aarch64-static", "cortex-a72", "aarch64 of a Raspberry Pi 4: no dot products"),
    "cortex-a76": Machine("qemu-aarch64-static", "cortex-a76", "aarch64 of a Raspberry Pi 5: with dot products"),
}

# numpy and click are those of constraints.txt. onnxruntime is older: on aarch64 under qemu 7.2 (Debian 12) 1.27 is the
# newest that starts, 1.28 to 1.32 crash while they are imported.
ARM_RUNTIME = "1.27.0"
PACKAGES = ["python3", "libstdc++6"]  # the wheels need the second; apt adds what these two need
GLIBC_MINORS = range(17, 37)  # manylinux_2_17 to 2_36, the glibc of Debian 12; pip wants each one named


def command(name: str) -> list[str]:
    """The command that starts Python on a machine; what is missing is installed first, half a minute once.

    Raises:
        UnavailableError: the emulators cannot be installed here.
        RuntimeError: any other failure.
    """
    machine = MACHINES[name]
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise UnavailableError(f"the emulators are for x86-64 Linux, this is {platform.machine()} {sys.platform}")
    qemu = [_qemu(machine.emulator), "-cpu", machine.cpu]
    if machine.emulator == "qemu-x86_64-static":
        return [*qemu, sys.executable]
    root = arm_root()
    # -L: absolute paths that exist below the root are resolved there, all others on this machine.
    return [*qemu, "-L", str(root), str(root / "usr/bin/python3")]


def starter(name: str, folder: Path) -> Path:
    """A file in a folder that starts Python on a machine: `sys.executable` of programs that start processes there.

    Raises:
        UnavailableError, RuntimeError: as `command`.
    """
    file = folder / name
    file.write_text(f'#!/bin/sh\nexec {shlex.join(command(name))} "$@"\n')
    file.chmod(0o755)
    return file


def environment() -> dict[str, str]:
    """Environment variables of an emulated Python: aeedge from the source tree, one thread, no bytecode written."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    # numpy's BLAS would start a thread per CPU, which is slower under emulation.
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    # On an AMD host numpy's BLAS takes an emulated Nehalem for a Haswell, and dies of the first AVX instruction.
    core = {"OPENBLAS_CORETYPE": "Nehalem"}
    return {**own, **threads, **core, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def arm_root() -> Path:
    """The folder with Debian's Python for arm64 and the wheels; its name lists the versions."""
    wheels = [f"onnxruntime=={ARM_RUNTIME}", _pinned("numpy"), _pinned("click")]
    name = "-".join(["arm64", *(wheel.replace("==", "-") for wheel in wheels)])
    return kept(CACHE, name, lambda folder, scratch: _make_arm_root(folder, scratch, wheels))


def _qemu(name: str) -> str:
    """The emulator on the PATH, or the one in Debian's package."""
    if found := shutil.which(name):
        return found
    return str(kept(CACHE, "qemu", _make_qemu) / "usr/bin" / name)


def _pinned(package: str) -> str:
    """The line of constraints.txt for a package."""
    text = (ROOT / "constraints.txt").read_text()
    found = re.search(rf"^{package}==\S+", text, re.MULTILINE)
    if not found:
        raise RuntimeError(f"constraints.txt: expected a line {package}==…")
    return found.group()


def _make_qemu(folder: Path, scratch: Path) -> None:
    """The two emulators from Debian's package."""
    names = sorted({machine.emulator for machine in MACHINES.values()})
    (package,) = download("amd64", ["qemu-user-static"], scratch)
    unpack(package, folder, *(f"./usr/bin/{name}" for name in names))
    for name in names:
        done([str(folder / "usr/bin" / name), "--version"])


def _make_arm_root(folder: Path, scratch: Path, wheels: list[str]) -> None:
    """Debian's packages, then the wheels for their Python; complete only if all of it can be imported."""
    for name in ("bin", "lib", "sbin"):  # one /usr: packages of Debian 12 still name /lib, later ones do not
        (folder / "usr" / name).mkdir(parents=True)
        (folder / name).symlink_to(f"usr/{name}")
    for package in download("arm64", PACKAGES, scratch, closure=True):
        unpack(package, folder)
    version = (folder / "usr/bin/python3").readlink().name.removeprefix("python")
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in GLIBC_MINORS]
    options = ["--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={version}", "--retries=1"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    fetched([*pip, *options, *platforms, "--dest", str(scratch / "wheels"), *wheels])
    for wheel in (scratch / "wheels").glob("*.whl"):
        shutil.unpack_archive(wheel, folder / "usr/lib/python3/dist-packages", "zip")
    emulator = _qemu("qemu-aarch64-static")
    python = [emulator, "-L", str(folder), str(folder / "usr/bin/python3")]
    done([*python, "-c", "import click, numpy, onnxruntime"], env=environment())


def main() -> int:
    """Exit code of the emulated Python; 1 if there are no emulators."""
    if len(sys.argv) > 1:
        name, *arguments = sys.argv[1:]
        if name not in MACHINES:
            raise SystemExit(f"expected one of {', '.join(MACHINES)}, got {name!r}")
        return subprocess.run([*command(name), *arguments], env=environment(), check=False).returncode
    for name, machine in MACHINES.items():
        print(f"{name:12}{machine.what}\n{'':12}{' '.join(command(name))}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UnavailableError as error:
        raise SystemExit(f"emulated: {error}") from None
