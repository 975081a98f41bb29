"""What the C++ example is compiled with: headers of Debian's packages, and the library in the Python package.

    python tools/onnxruntime_headers.py        # install what is missing, show the folder for -DONNXRUNTIME_ROOT

The folder has include/ and lib/ as onnxruntime's release archives do, and include/ has nlohmann's JSON library too. It
is cached in .onnxruntime/. No root privileges are needed, and nothing outside .onnxruntime/ is changed.
"""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from debian_packages import LackingError, UnavailableError, done, download, kept, unpack

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".onnxruntime"
_OTHER_RELEASE = "trixie"  # the oldest Debian with libonnxruntime-dev, for machines with an older one
_PACKAGES = ("libonnxruntime-dev", "nlohmann-json3-dev")


def root() -> Path:
    """The folder with include/ and lib/; headers are downloaded first, some seconds once.

    The headers may be older than the library, which then does what they ask for.

    Raises:
        UnavailableError: the installed onnxruntime has no library for C++ (as before 1.20, and outside Linux), or
            Debian's packages cannot be had.
        RuntimeError: any other failure.
    """
    spec = find_spec("onnxruntime")
    libraries = (
        [] if spec is None or spec.origin is None else sorted(Path(spec.origin).parent.glob("capi/libonnxruntime.so.*"))
    )
    if not libraries:
        raise UnavailableError("the Python package onnxruntime is not installed, or has no library for C++ programs")
    headers = kept(CACHE, "debian", _make)
    library = libraries[0]
    made = CACHE / library.name
    for link, target in {
        "include": headers / "include",
        "lib/libonnxruntime.so": library,
        "lib/libonnxruntime.so.1": library,
    }.items():
        place = made / link
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():  # also where the virtual environment was removed since
            place.unlink(missing_ok=True)
            with suppress(FileExistsError):  # another run was faster
                place.symlink_to(target)
    return made


def _make(folder: Path, scratch: Path) -> None:
    """Only the headers: the library in Debian's package is older than most of the Python package."""
    architecture = done(["dpkg", "--print-architecture"]).strip()
    files = scratch / "files"
    files.mkdir()
    for name in _PACKAGES:
        try:
            found = download(architecture, [name], scratch / name)
        except LackingError:
            found = download(architecture, [name], scratch / f"{name}-other", suite=_OTHER_RELEASE)
        unpack(found[0], files, "./usr/include")
    include = files / "usr/include"
    (include / "onnxruntime").rename(folder / "include")
    (include / "nlohmann").rename(folder / "include/nlohmann")


if __name__ == "__main__":
    print(root())
