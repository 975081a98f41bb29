"""What a command may write over: nothing that is not aeedge's own, and nothing that it reads.

Links are followed: the file or folder that a link points to is the one that is checked, and replaced.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from aeedge.errors import InputError, of_system, shortened


class Kind(NamedTuple):
    """A kind of folder that aeedge writes.

    Attributes:
        name: for messages.
        marker: the file that shows the kind, JSON that begins with its format.
        format: the value of "format" in this file.
        files: names of all files that aeedge writes into such a folder.
        folders: names of the folders in it that are runs and bundles, or hold nothing else.
    """

    name: str
    marker: str
    format: str
    files: frozenset[str]
    folders: frozenset[str] = frozenset()


_STEM_BYTES = 100  # of a target's name in a temporary one
_RUN_FILES = (
    *("run.json", "weights.safetensors", "checkpoint.safetensors", "history.jsonl"),
    *("sample.npy", "calibration.npy", "later.npy", "reference.npy", "report.html"),
)
_GRAPHS = (f"{role}{variant}.onnx" for role in ("encoder", "decoder", "scorer") for variant in ("", ".int8"))
RUN = Kind("run", "run.json", "aeedge-run", frozenset(_RUN_FILES))
BUNDLE = Kind(
    "bundle",
    "manifest.json",
    "aeedge",
    frozenset(("manifest.json", "golden.npz", "calibration.npz", "features.onnx", *_GRAPHS)),
)
SEARCH = Kind(
    "search",
    "search.json",
    "aeedge-search",
    frozenset(("search.json", "report.html", "front.svg")),
    frozenset(("runs", "bundles", "unfinished", "best.aeedge")),
)
_TEMPORARY = re.compile(r"\..*\.aeedge-[0-9a-f]{8}\.(part|old)")  # left by a writer that was killed


def check_folder(
    path: str | os.PathLike[str],
    *,
    overwrite: bool,
    kinds: Iterable[Kind] = (RUN, BUNDLE),
    inputs: Iterable[str | os.PathLike[str] | None] = (),
) -> None:
    """Refuse a folder that must not be written.

    Args:
        path: the folder that will appear, or be replaced as a whole.
        overwrite: whether an empty folder, or one of `kinds` with no other files in it, may be replaced.
        kinds: what may be replaced.
        inputs: files and folders that the command reads, None for none; the folder must not be or hold one of them.

    Raises:
        InputError: it must not be replaced, it exists and `overwrite` is False, or its parent is missing.
    """
    target, real = _resolved(path)
    with input_errors(target):
        _check_parent(target, real)
        for read in inputs:
            if read is not None and _is_or_holds(real, read):
                raise InputError(f"{target}: is or holds {read}, which this command reads; choose another name")
        if not real.exists():
            return
        if any(_is_or_holds(real, place) for place in (Path.cwd(), Path.home())) or os.path.ismount(real):
            raise InputError(
                f"{target}: holds the current folder, your home or a mounted disk; name a folder inside it"
            )
        try:
            check_replaceable(real, target, kinds)
        except FileNotFoundError:
            return  # another writer has moved it aside
        if not overwrite:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def check_replaceable(real: Path, target: Path, kinds: Iterable[Kind]) -> None:
    """Refuse to replace what is no folder of `kinds`, or has other files in it; `target` is its name for messages."""
    if not stat.S_ISDIR(os.stat(real).st_mode):
        raise InputError(f"{target}: is a file, expected the name of a folder to make; choose another name")
    found = folder_kind(real)
    foreign = sorted(_foreign(real, found))
    if foreign and folder_kind(real) is not found:  # another writer was between
        check_replaceable(real, target, kinds)
    elif foreign:
        own = "search" if SEARCH in kinds else "run or bundle"
        what = f"no {own}" if found is None else f"no part of this {found.name}"
        raise InputError(
            f"{target}: holds files that are {what} ({shortened(foreign, 3)}); choose another name, or move them first"
        )
    if found is not None and found not in kinds:
        raise InputError(f"{target}: is a {found.name}, which is not replaced here; choose another name")


def check_file(
    path: str | os.PathLike[str], *, overwrite: bool, inputs: Iterable[str | os.PathLike[str] | None] = ()
) -> None:
    """Refuse a file that must not be written.

    Args:
        path: the file that will appear, or be replaced.
        overwrite: whether a file may be replaced.
        inputs: files and folders that the command reads, None for none; the file must not be one of them.

    Raises:
        InputError: it is a folder or a device, it is read, it belongs to a run or bundle, it exists and `overwrite` is
            False, or its folder is missing.
    """
    target, real = _resolved(path)
    with input_errors(target):
        if os.path.basename(path) in ("", os.curdir, os.pardir) and not real.is_dir():
            raise InputError(f"{os.fspath(path)}: is the name of a folder, expected the name of a file")
        _check_parent(target, real)
        if real.is_dir():
            raise InputError(f"{target}: is a folder, expected the name of a file; name one inside it")
        if real.exists() and not real.is_file():
            raise InputError(f"{target}: is a device or a pipe, expected the name of a file")
        if any(read is not None and is_same(real, Path(read)) for read in inputs):
            raise InputError(f"{target}: is the file that is read; choose another name")
        kind = folder_kind(real.parent)
        if kind is BUNDLE or (kind is RUN and real.name in RUN.files - {"report.html"}):
            raise InputError(f"{target}: would damage the {kind.name} that it is in; choose another folder")
        if real.exists() and not overwrite:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def check_page(path: str | os.PathLike[str], **options: Any) -> None:
    """Refuse an HTML page that must not be written; `options` are those of `check_file`.

    Raises:
        InputError: as `check_file`, or a name that ends otherwise.
    """
    check_file(path, **options)
    suffix = Path(path).suffix
    if suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path}: expected a name that ends in .html, got {suffix or 'no suffix'}")


def folder_kind(folder: Path) -> Kind | None:
    """Whether a folder is a run, a bundle or a search, by the start of its marker: a damaged one counts, too."""
    for kind in (RUN, BUNDLE, SEARCH):
        marker = folder / kind.marker
        if marker.is_file():
            with marker.open("rb") as stream:
                if re.match(rb'\s*{\s*"format"\s*:\s*"%s"' % kind.format.encode(), stream.read(200)):
                    return kind
    return None


@contextmanager
def input_errors(target: Path) -> Iterator[None]:
    """Turn an OSError of a disk into an InputError."""
    try:
        yield
    except FileExistsError:
        raise InputError(f"{target}: already exists; choose another name, or overwrite it (overwrite=True)") from None
    except OSError as error:
        if isinstance(error, BrokenPipeError) or not of_system(error):
            raise  # of no disk
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise InputError(f"{target}: not written, the disk is full; nothing was changed") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY):
            raise InputError(f"{target}: not written, {error.strerror}; choose a folder you may write to") from error
        raise InputError(f"{target}: not written, {error.strerror}; choose another place") from error


def temporary(target: Path, suffix: str = ".part") -> Path:
    """A new name beside `target`, of a length that any disk allows: ".NAME.aeedge-XXXXXXXX.part"."""
    return target.parent / f"{temporary_start(target)}{os.urandom(4).hex()}{suffix}"


def temporary_start(target: Path) -> str:
    """How temporary names for `target` begin."""
    stem = target.name
    while len(os.fsencode(stem)) > _STEM_BYTES:
        stem = stem[:-1]
    return f".{stem}.aeedge-"


def _resolved(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """A path as it was given, and where it leads."""
    try:
        os.fsencode(path)
        return Path(path), Path(os.path.realpath(path))
    except ValueError as error:  # a character that no name may have
        raise InputError(f"{os.fspath(path)}: cannot be the name of a file ({error}); choose another name") from None


def _foreign(folder: Path, kind: Kind | None) -> Iterator[str]:
    """What is in a folder, but not aeedge's."""
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        if kind is SEARCH and entry.name in kind.folders and entry.is_dir(follow_symlinks=False):
            yield from (f"{entry.name}/{name}" for name in _foreign_within(Path(entry.path)))
        elif not _belongs(entry, kind):
            yield entry.name


def _foreign_within(folder: Path) -> Iterator[str]:
    """What is in a folder that is a run or bundle, or holds nothing else, but not aeedge's."""
    kind = folder_kind(folder)
    if kind is not None:
        yield from _foreign(folder, kind)
        return
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_dir() or folder_kind(path) is None:
            if not _TEMPORARY.fullmatch(path.name):
                yield path.name
        else:
            yield from (f"{path.name}/{name}" for name in _foreign(path, folder_kind(path)))


def _belongs(entry: os.DirEntry[str], kind: Kind | None) -> bool:
    if kind is SEARCH and _TEMPORARY.fullmatch(entry.name):
        return True
    return kind is not None and entry.name in kind.files and not entry.is_dir()


def _check_parent(target: Path, real: Path) -> None:
    if not real.parent.is_dir():
        parent = real.parent if target.is_symlink() else target.parent
        if real.parent.exists():
            raise InputError(f"{target}: expected the folder {parent} to exist, but it is a file; choose another place")
        raise InputError(f"{target}: expected the folder {parent} to exist; create it first")
    probe = temporary(real)
    try:
        with suppress(FileNotFoundError):
            os.lstat(real)  # a name that is too long
        os.mkdir(probe)
        with suppress(FileNotFoundError):  # another writer took it for a stale one
            os.rmdir(probe)
    except OSError as error:  # a folder or disk that is read-only, an impossible name
        raise InputError(f"{target}: cannot be written there ({error.strerror}); choose another place") from error
    if real.is_symlink():
        raise InputError(f"{target}: is a link that leads back to itself; choose another name")


def _is_or_holds(folder: Path, place: str | os.PathLike[str]) -> bool:
    real = Path(os.path.realpath(place))
    return any(is_same(folder, part) for part in (real, *real.parents))


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, also where the file system ignores case."""
    try:
        return one.samefile(other)
    except (FileNotFoundError, NotADirectoryError):
        return False
