"""Write a file or a directory atomically: it is complete or absent, also after a crash.

A temporary sibling, ".NAME.aeedge-XXXXXXXX.part", is written and renamed. Its writer holds a lock on it, which ends
with the process, however that ends: a sibling whose lock is free was left by a writer that was killed, and the next
write to the same name removes it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aeedge.errors import InputError
from aeedge.files.replacing import (
    BUNDLE,
    RUN,
    Kind,
    check_file,
    check_folder,
    check_replaceable,
    input_errors,
    temporary,
    temporary_start,
)

try:
    import fcntl
except ImportError:  # Windows: siblings that a killed writer has left stay
    fcntl = None  # type: ignore[assignment]

_AT_FDCWD, _NEW, _EXCHANGE = -100, 1, 2
_MAC = {_NEW: 4, _EXCHANGE: 2}
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling to write; on success it is synced and becomes `path`, otherwise it is removed.

    Of several writers that may not overwrite, one wins.

    Raises:
        InputError: what `check_file` refuses, or it cannot be written, because the disk is full or otherwise.
    """
    check_file(path, overwrite=overwrite)
    target = Path(os.path.realpath(path))
    with input_errors(Path(path)), _part(target, lambda part: part.touch(exist_ok=False)) as part:
        yield part
        _sync(part)
        check_file(path, overwrite=overwrite)
        if overwrite:
            os.replace(part, target)
        else:
            _rename_new(part, target)
        _sync(target.parent)


@contextmanager
def atomic_directory(
    path: str | os.PathLike[str], *, overwrite: bool = False, kinds: Iterable[Kind] = (RUN, BUNDLE)
) -> Iterator[Path]:
    """Yield a temporary sibling directory to fill; on success it becomes `path`, otherwise it is removed.

    An existing directory is exchanged for the new one in one step where the file system can do that (Linux, macOS);
    elsewhere it is moved aside first, and put back if the second step fails. Only a directory of `kinds` or an empty
    one is. Of several writers that may not overwrite, one wins.

    Raises:
        InputError: what `check_folder` refuses, or it cannot be written, because the disk is full or otherwise.
    """
    check_folder(path, overwrite=overwrite, kinds=kinds)
    target = Path(os.path.realpath(path))
    with input_errors(Path(path)), _part(target, Path.mkdir) as part:
        yield part
        for entry in sorted(part.rglob("*")):
            _sync(entry)
        _sync(part)
        check_folder(path, overwrite=overwrite, kinds=kinds)
        _install(part, target, overwrite, kinds)
        _sync(target.parent)


# --- the temporary sibling


@contextmanager
def _part(target: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """A temporary sibling, locked; it is removed unless it was renamed."""
    _remove_stale(target)
    part, lock = temporary(target), None
    try:
        lock = _made(part, make)
        yield part
    finally:
        _remove(part)
        if lock is not None:
            os.close(lock)


def _made(part: Path, make: Callable[[Path], None]) -> int | None:
    """Make a file or folder and lock it; gives the handle that holds the lock, None where there are no locks."""
    make(part)
    if fcntl is None:
        return None
    with suppress(FileNotFoundError):
        handle = _handle(part)
        with suppress(OSError):  # the disk of another machine may have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if part.exists():
            return handle
        os.close(handle)
    return _made(part, make)  # another writer took it for a stale one before it was locked


def _remove_stale(target: Path) -> None:
    """Remove what killed writers of `target` left; what one of them moved aside only where `target` is there."""
    if fcntl is None:
        return
    kinds = "part|old" if target.exists() else "part"
    ours = re.compile(re.escape(temporary_start(target)) + rf"[0-9a-f]{{8}}\.({kinds})")
    with suppress(OSError):
        for path in [target.parent / name for name in os.listdir(target.parent) if ours.fullmatch(name)]:
            with suppress(OSError):
                handle = _handle(path)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(path)
                finally:
                    os.close(handle)


def _handle(path: Path) -> int:
    return os.open(path, (os.O_RDONLY if path.is_dir() else os.O_RDWR) | os.O_NOFOLLOW | os.O_NONBLOCK)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


# --- the last step


def _install(part: Path, target: Path, overwrite: bool, kinds: Iterable[Kind]) -> None:
    """Rename a directory, in the place of another one if it may be overwritten."""
    while True:
        try:
            _rename_new(part, target)
            return
        except FileExistsError:
            if not overwrite:
                raise
        with _held(target) as is_held:  # or another writer takes the old one for a stale one while it is checked
            if _exchange(part, target):  # `part` is now the old one, which the caller removes
                try:
                    if is_held(part):
                        check_replaceable(part, target, kinds)
                except (InputError, OSError):  # put there since it was checked
                    _exchange(part, target)
                    raise
                return
        if _moved(part, target):
            return


@contextmanager
def _held(target: Path) -> Iterator[Callable[[Path], bool]]:
    """Lock what is there, if it can be locked; yields whether another path leads to it now: nobody else removes it."""
    handle = None
    with suppress(OSError):
        handle = _handle(target) if fcntl is not None else None
    if handle is None:  # nor can another writer lock it
        yield lambda path: True
        return
    held = handle
    try:
        with suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX)
        yield lambda path: os.path.samestat(os.fstat(held), os.lstat(path))
    finally:
        os.close(held)


def _moved(part: Path, target: Path) -> bool:
    """Replace a directory in two steps; False where another writer came between them."""
    aside = temporary(target, ".old")
    try:
        os.rename(target, aside)
        os.rename(part, target)
    except BaseException as error:
        if target.exists():
            _remove(aside)
        elif aside.exists():
            with suppress(OSError):  # another writer was faster
                os.rename(aside, target)
        if isinstance(error, OSError) and error.errno in (errno.ENOENT, *_TAKEN) and part.exists():
            return False
        raise
    _remove(aside)
    return True


def _rename_new(part: Path, target: Path) -> None:
    """Rename where nothing is yet.

    Raises:
        FileExistsError: there is something.
    """
    try:
        if os.name != "nt" and _rename(part, target, _NEW):
            return
        if os.name == "nt" or part.is_dir():
            os.rename(part, target)  # refuses what is no empty folder
        else:
            _link(part, target)
    except OSError as error:
        if error.errno in _TAKEN:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        raise


def _link(part: Path, target: Path) -> None:
    try:
        os.link(part, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        os.close(os.open(target, os.O_CREAT | os.O_EXCL))  # on such a disk it is empty for a moment
        os.replace(part, target)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two directory entries; False where that is not possible in one step."""
    return _rename(first, second, _EXCHANGE)


def _rename(source: Path, target: Path, flag: int) -> bool:
    """Rename to a new name alone, or exchange two, in one step; False where system or disk cannot do that.

    Raises:
        FileExistsError: the new name is taken.
    """
    try:
        library = ctypes.CDLL(None, use_errno=True)
    except (OSError, TypeError):
        return False
    names = os.fsencode(source), os.fsencode(target)
    if hasattr(library, "renameat2"):
        failed = library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(flag))
    elif hasattr(library, "renamex_np"):
        failed = library.renamex_np(*names, ctypes.c_uint(_MAC[flag]))
    else:
        return False
    if failed and ctypes.get_errno() == errno.EEXIST:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    return not failed


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot sync a directory
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
