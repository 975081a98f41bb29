"""Write a file or a directory atomically: it is complete or absent, also after a crash."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aeedge.files.replacing import BUNDLE, RUN, Kind, check_file, check_folder, input_errors

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling to write; on success it is synced and becomes `path`, otherwise it is removed.

    Raises:
        InputError: what `check_file` refuses, or the disk is full.
    """
    check_file(path, overwrite=overwrite)
    target = Path(os.path.realpath(path))
    with input_errors(Path(path)):
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        os.close(handle)
        part = Path(name)
        try:
            yield part
            os.chmod(part, 0o666 & ~_umask())
            _sync(part)
            check_file(path, overwrite=overwrite)
            os.replace(part, target)
            _sync(target.parent)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def atomic_directory(
    path: str | os.PathLike[str], *, overwrite: bool = False, kinds: Iterable[Kind] = (RUN, BUNDLE)
) -> Iterator[Path]:
    """Yield a temporary sibling directory to fill; on success it becomes `path`, otherwise it is removed.

    An existing directory is exchanged for the new one in one step where the file system can do that (Linux); elsewhere
    it is moved aside first, and put back if the second step fails. Only a directory of `kinds` or an empty one is.

    Raises:
        InputError: what `check_folder` refuses, or the disk is full.
    """
    check_folder(path, overwrite=overwrite, kinds=kinds)
    target = Path(os.path.realpath(path))
    with input_errors(Path(path)):
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        try:
            yield part
            os.chmod(part, 0o777 & ~_umask())
            for entry in sorted(part.rglob("*")):
                _sync(entry)
            _sync(part)
            check_folder(path, overwrite=overwrite, kinds=kinds)
            _install(part, target)
            _sync(target.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _install(part: Path, target: Path) -> None:
    if not target.exists():
        os.rename(part, target)
        return
    if _exchange(part, target):
        return  # `part` is now the old directory, which the caller removes
    aside = part.with_suffix(".old")
    os.rename(target, aside)
    try:
        os.rename(part, target)
    except BaseException:
        os.rename(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two directory entries atomically with renameat2(2); False where that is not possible."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return bool(
        renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), ctypes.c_uint(_RENAME_EXCHANGE)) == 0
    )


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot sync a directory
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
