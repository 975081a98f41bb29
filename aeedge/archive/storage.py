"""Places on any file system: paths here and URLs (s3, gs, hdfs, file by pyarrow; others by fsspec, where there is one).

Workers open a place anew from what a user wrote: file systems themselves do not travel between machines.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from aeedge.errors import InputError, of_system, printable

if TYPE_CHECKING:
    from os import PathLike

_T = TypeVar("_T")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_FINAL = re.compile(r"ACCESS_DENIED|NO_SUCH|INVALID|[Pp]ermission|[Cc]redentials")  # no other time will help
_PAUSES = (1.0, 5.0)  # seconds; the clients of object stores have tried some times by themselves
_GLOB = re.compile(r"[*?\[]")
_SUFFIXES = (".parquet", ".pq", ".parq")
OTHER_SUFFIXES = {".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".npy", ".npz", ".wav", ".gz"}
"""Of files that aeedge reads one by one."""


class UnreachableError(InputError):
    """A file system that is somewhere else fails; another time may help."""


class Place(NamedTuple):
    """A file or a folder.

    Attributes:
        root: what its file system is opened from: a URL as the user wrote it; "" for this machine's.
        path: within that file system.
    """

    root: str
    path: str

    @property
    def name(self) -> str:
        """For people: the path or the URL, without user and password."""
        if not self.root:
            return self.path
        parts, path = _split(self.root), self.path.lstrip("/")
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{path if path.startswith(host) else f'{host}/{path}'}"

    @property
    def filesystem(self) -> Any:
        """Its pyarrow.fs.FileSystem, opened once in a process."""
        return _opened(self.root)

    def __truediv__(self, name: str) -> Place:
        return self._replace(path=f"{self.path.rstrip('/')}/{name}")


class File(NamedTuple):
    """A file of an archive.

    Attributes:
        place: where it is.
        version: its size and when it was changed, as far as the file system says.
    """

    place: Place
    version: str

    @property
    def name(self) -> str:
        """For people."""
        return self.place.name


def is_url(text: str | PathLike[str]) -> bool:
    """Whether it names a place by a URL, not by a path."""
    return isinstance(text, str) and _SCHEME.match(text) is not None


def is_glob(text: str | PathLike[str]) -> bool:
    """Whether it stands for many files."""
    return not os.path.lexists(text) and _GLOB.search(_without_query(os.fspath(text))) is not None


def place(given: str | PathLike[str]) -> Place:
    """The place that a path or a URL names.

    Raises:
        InputError: a scheme that nothing here knows, or a file system that cannot be opened.
    """
    text = os.fspath(given)
    if not is_url(text):
        return Place("", os.path.abspath(text))
    parts = _split(_without_query(text))
    if parts.scheme == "file":
        return Place("", os.path.abspath(unquote(parts.path)))
    system = _opened(text)
    if system.type_name.startswith("py::fsspec"):
        return Place(text, system.handler.fs._strip_protocol(text).rstrip("/"))
    if parts.scheme in ("hdfs", "viewfs"):
        return Place(text, unquote(parts.path))
    host = parts.netloc.rpartition("@")[2]
    return Place(text, f"{host}{unquote(parts.path)}".strip("/"))


def files(sources: Sequence[str | PathLike[str]], notes: list[str]) -> list[File]:
    """The Parquet files of paths, URLs, globs and folders, sorted by name; what was left out is noted.

    Names that begin with "_" or "." are none, as for Spark and Arrow.

    Raises:
        InputError: a source that is not there, has no Parquet file, a pipe, or is named twice.
    """
    found: list[File] = []
    for source in sources:
        of_source = sorted(_files(source, notes), key=lambda file: file.place.path)
        if not of_source:
            raise InputError(f"{_said(source)}: expected Parquet files (.parquet), got none there")
        found += of_source
    twice = [name for name, count in Counter(file.name for file in found).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]}: is among the sources twice; name it once")
    return found


def covers(source: str | PathLike[str], target: Place) -> bool:
    """Whether a file in the folder `target` would be among the files of a source."""
    folder, glob = _asked(os.fspath(source))
    inside, start = (
        (each.path if each.root else os.path.realpath(each.path)).rstrip("/") + "/" for each in (target, folder)
    )
    inside += "part.parquet"
    if _split(folder.root)[:2] != _split(target.root)[:2] or not inside.startswith(start):
        return False
    name = inside[len(start) :]
    return not _is_hidden(name, glob) and (not glob or _regex(glob).fullmatch(name) is not None)


def is_file(place: Place) -> bool:
    """Whether there is a file, not a folder or nothing."""
    import pyarrow.fs

    with accessing(place):
        return bool(place.filesystem.get_file_info(place.path).type == pyarrow.fs.FileType.File)


def entries(folder: Place) -> list[Any]:
    """What is directly in a folder, as pyarrow.fs.FileInfo; nothing where there is no folder."""
    import pyarrow.fs

    with accessing(folder):
        return list(
            folder.filesystem.get_file_info(pyarrow.fs.FileSelector(folder.path, allow_not_found=True)),
        )


def read(place: Place) -> bytes | None:
    """A small file, None where there is none."""
    try:
        with accessing(place), place.filesystem.open_input_stream(place.path) as stream:
            return bytes(stream.read())
    except FileNotFoundError:
        return None


def write(target: Place, data: bytes, scratch: Place) -> None:
    """Write a small file, which appears whole: under another name in the folder `scratch` first."""
    with written(target, scratch) as stream:
        stream.write(data)


@contextmanager
def written(target: Place, scratch: Place) -> Iterator[IO[bytes]]:
    """A stream whose file appears, in the place of any before, when all is written; nothing of it after an error.

    A move replaces a file in one step on disks and HDFS. On object stores it is a copy, and an object appears whole.
    """
    system = target.filesystem
    part = scratch / f"{os.path.basename(target.path)}-{os.urandom(6).hex()}"
    folder = target._replace(path=os.path.dirname(target.path))
    with accessing(target, "written"):
        stream = _in_folder(scratch, lambda: system.open_output_stream(part.path))
    try:
        with accessing(target, "written"):
            yield stream
            stream.close()
            _synced(part)
            _in_folder(folder, lambda: system.move(part.path, target.path))
    except BaseException:
        with _ignored():
            stream.close()
        with _ignored():
            system.delete_file(part.path)
        raise


def _in_folder(folder: Place, act: Callable[[], Any]) -> Any:
    """Act; where the folder is missing, make it first. Object stores have none: nothing is asked there."""
    try:
        return act()
    except FileNotFoundError:
        folder.filesystem.create_dir(folder.path, recursive=True)
        return act()


def remove(place: Place) -> None:
    """Remove a file or a folder, if it is there."""
    import pyarrow.fs

    with accessing(place, "removed"):
        kind = place.filesystem.get_file_info(place.path).type
        if kind == pyarrow.fs.FileType.Directory:
            place.filesystem.delete_dir(place.path)
        elif kind != pyarrow.fs.FileType.NotFound:
            place.filesystem.delete_file(place.path)


def patiently(call: Callable[[], _T]) -> _T:
    """The result of a call that is made again after a while where a server fails.

    Raises:
        UnreachableError: it fails each time.
    """
    for seconds in _PAUSES:
        try:
            return call()
        except UnreachableError:
            time.sleep(seconds)
    return call()


@contextmanager
def accessing(place: Place, what: str = "read") -> Iterator[None]:
    """What a file system refuses as an InputError; a missing file stays a FileNotFoundError where it is read.

    Raises:
        InputError: the system refuses it.
        UnreachableError: a server does, which may be over in a while.
    """
    try:
        yield
    except FileNotFoundError:
        if what == "read":
            raise
        raise InputError(f"{place.name}: cannot be {what}, for its folder is not there") from None
    except OSError as error:
        why = printable(" ".join(str(error).split()), 200)
        kind = InputError if of_system(error) or _FINAL.search(str(error)) else UnreachableError
        raise kind(f"{place.name}: cannot be {what} ({why})") from None


@lru_cache(maxsize=16)
def _opened(root: str) -> Any:
    fs = _pyarrow_fs()
    if not root:
        return fs.LocalFileSystem()
    parts = _split(root)
    base = f"{parts.scheme}://{parts.netloc}/" + (f"?{_query(root)}" if _query(root) else "")
    try:
        if parts.scheme in ("s3", "s3a", "s3n"):  # the last two are Hadoop's names
            base = base.replace(parts.scheme, "s3", 1)
        if parts.scheme in ("s3", "s3a", "s3n", "gs", "gcs", "hdfs", "viewfs"):
            return fs.FileSystem.from_uri(base)[0]
        return _by_fsspec(root, parts.scheme)
    except InputError:
        raise
    except Exception as error:
        why = printable(" ".join(str(error).split()), 200)
        raise InputError(f"{Place(root, parts.path).name}: its file system cannot be opened ({why})") from None


def _by_fsspec(root: str, scheme: str) -> Any:
    fs = _pyarrow_fs()
    try:
        import fsspec
    except ModuleNotFoundError:
        raise InputError(
            f"{scheme}://: expected a path or a URL with s3, gs, hdfs or file; for others pip install fsspec, and what "
            f"it needs for {scheme}"
        ) from None
    try:
        system = fsspec.core.url_to_fs(root)[0]
    except (ValueError, ImportError) as error:
        raise InputError(f"{scheme}://: fsspec cannot open it ({printable(str(error), 200)})") from None
    return fs.PyFileSystem(fs.FSSpecHandler(system))


def _files(source: str | PathLike[str], notes: list[str]) -> Iterator[File]:
    import pyarrow.fs

    text, others = os.fspath(source), list[str]()
    folder, glob = _asked(text)
    if not glob:
        with accessing(folder):
            info = folder.filesystem.get_file_info(folder.path)
        if info.type == pyarrow.fs.FileType.NotFound:
            raise InputError(f"{_said(source)}: no such file or folder")
        if info.type == pyarrow.fs.FileType.File:
            _check_parquet(text)
            yield File(folder, _version(info))
            return
    start = len(folder.path.rstrip("/")) + 1
    for info in _listed_deep(folder, glob):
        name = info.path[start:]
        found = _regex(glob).fullmatch(name) if glob else None
        if info.type == pyarrow.fs.FileType.Directory or _is_hidden(name, glob) or (glob and not found):
            continue
        if (not found or found["below"]) and not name.lower().endswith(_SUFFIXES):
            others.append(name)
            continue
        if info.type != pyarrow.fs.FileType.File:
            raise InputError(f"{(folder / name).name}: expected a file, got a pipe or a device; remove it")
        _check_parquet(name)
        yield File(folder._replace(path=info.path), _version(info))
    if others:
        many = "a file that is" if len(others) == 1 else f"{len(others):,} files that are"
        notes.append(f"{folder.name}: {many} no Parquet left out, such as {printable(others[0])}")


def _asked(text: str) -> tuple[Place, str]:
    """A file or folder and ""; of a glob the folder before the first wildcard, and the pattern of names in it."""
    if not is_glob(text):
        return place(text), ""
    before, after = _split_glob(_without_query(text))
    query = f"?{_query(text)}" if is_url(text) and _query(text) else ""
    return place(before + query), after


def _is_hidden(name: str, glob: str) -> bool:
    """Whether a name in a folder begins with "_" or ".", and the pattern does not ask for such names."""
    marks = {part[:1] for part in name.split("/")} & {"_", "."}
    return not marks <= {part[:1] for part in glob.split("/")}


def _check_parquet(name: str) -> None:
    suffix = os.path.splitext(name)[1].lower()
    if suffix in OTHER_SUFFIXES:
        raise InputError(
            f"{printable(name, None)}: archives are Parquet, got {suffix}; convert it, or encode it alone, file to file"
        )


def _version(info: Any) -> str:
    return f"{info.size} {info.mtime_ns}"


def _listed(folder: Place, deep: bool) -> list[Any]:
    import pyarrow.fs

    try:
        with accessing(folder):
            return list(folder.filesystem.get_file_info(pyarrow.fs.FileSelector(folder.path, recursive=deep)))
    except FileNotFoundError:
        raise InputError(f"{folder.name}: no such folder") from None


def _listed_deep(folder: Place, glob: str) -> Iterator[Any]:
    """What may be among the files of a folder, or of a pattern in it, for which no more is listed than it needs."""
    import pyarrow.fs

    is_deep = not glob or "/" in glob or "**" in glob
    start = len(folder.path.rstrip("/")) + 1
    for info in _listed(folder, is_deep):
        yield info
        name = info.path[start:]
        is_folder = not is_deep and info.type == pyarrow.fs.FileType.Directory
        if is_folder and not _is_hidden(name, glob) and _regex(glob).fullmatch(name):
            yield from _listed(folder._replace(path=info.path), True)


def _split_glob(text: str) -> tuple[str, str]:
    """The folder before the first segment with a wildcard, and the pattern of what is in it."""
    scheme = _SCHEME.match(text)
    start = scheme.end() if scheme else 0
    segments = text[start:].split("/")
    first = next(i for i, segment in enumerate(segments) if _GLOB.search(segment))
    before = "/".join(segments[:first])
    return (
        text[:start] + (before or ("/" if text[start:].startswith("/") else "" if scheme else ".")),
        "/".join(segments[first:]).rstrip("/"),
    )


@lru_cache(maxsize=16)
def _regex(pattern: str) -> re.Pattern[str]:
    """A glob as a regular expression: "*" within a name, "**" across folders; "below" it, what is in a folder."""
    tokens = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", pattern)
    text = "".join(
        tokens.get(part) or (_of_set(part) if part[:1] == "[" and len(part) > 2 else re.escape(part)) for part in parts
    )
    try:
        return re.compile(f"{text}(?P<below>/.*)?")
    except re.error as error:  # such as [9-0]
        raise InputError(f"{printable(pattern, None)}: expected a pattern with *, **, ? and [...]: {error}") from None


def _of_set(part: str) -> str:
    """The regular expression of "[...]" in a glob, where only "!" and "-" stand for something else."""
    mark, inside = ("^", part[2:-1]) if part[1] == "!" and len(part) > 3 else ("", part[1:-1])
    escaped = re.sub(r"([^\w-]|(?<!\w)-|-(?!\w))", r"\\\1", inside)
    return f"[{mark}{escaped}]"


def _without_query(text: str) -> str:
    """A URL without its options: "?" within a path is a wildcard, so options are NAME=VALUE."""
    return re.sub(r"\?[\w.]+=[^?*]*$", "", text) if is_url(text) else text


def _split(url: str) -> SplitResult:
    """The pieces of a URL, in which "#" is a character as any other."""
    return urlsplit(url, allow_fragments=False)


def _query(text: str) -> str:
    return text[len(_without_query(text)) + 1 :]


def _synced(part: Place) -> None:
    """See that a file survives a loss of power before it gets its name."""
    if not part.root:
        handle = os.open(part.path, os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _ignored() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not of_system(error) and not isinstance(error, (OSError, ValueError)):
            raise


def _said(source: str | PathLike[str]) -> str:
    text = os.fspath(source)
    parts = _split(text) if is_url(text) else None
    return text if parts is None or "@" not in parts.netloc else text.replace(parts.netloc.rpartition("@")[0] + "@", "")


def _pyarrow_fs() -> Any:
    try:
        import pyarrow.fs
    except ModuleNotFoundError:
        raise InputError("archives need pyarrow, which is not installed; pip install 'aeedge[arrow]'") from None
    return pyarrow.fs
