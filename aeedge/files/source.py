"""Where bytes come from: a file, standard input ("-"), a named or anonymous pipe; gzip is decompressed."""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from aeedge.errors import AeedgeError, InputError, of_system, printable

STDIN = "-"
SUFFIXES = (
    {".npy": "npy", ".npz": "npz", ".parquet": "parquet", ".pq": "parquet"}
    | dict.fromkeys((".csv", ".tsv", ".tab", ".txt", ".dat", ".data"), "text")
    | dict.fromkeys((".jsonl", ".ndjson"), "jsonl")
    | dict.fromkeys((".wav", ".wave"), "wav")
)
"""Kinds of files by suffix; each may be followed by .gz."""

_HEAD_BYTES, _MOST_HEAD_BYTES, _HEAD_LINES = 2**18, 2**26, 100
_MAGIC = {b"\x93NUMPY": "npy", b"PK\x03\x04": "npz", b"PAR1": "parquet", b"RIFF": "wav", b"RF64": "wav"}
_GZIP = b"\x1f\x8b"
_JSON = re.compile(rb'(\xef\xbb\xbf)?\s*(\{|\[\s*([-\d\[\]{"]|null|true|false|NaN|Infinity|$))')
_OBJECT = re.compile(rb'(\xef\xbb\xbf)?\s*\{\s*"[^"\n]*"\s*:')
DAMAGE: tuple[type[Exception], ...] = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError),
    *(
        RuntimeError,
        SyntaxError,
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        struct.error,
        zlib.error,
    ),  # the first: encrypted
)
"""What reading a damaged file may raise, compressed or not."""
with suppress(ImportError):  # a Python may lack it
    from lzma import LZMAError

    DAMAGE += (LZMAError,)


class Source:
    """A readable file or pipe.

    Attributes:
        name: for messages.
        kind: "npy", "npz", "parquet", "jsonl", "wav" or "text": by the suffix of a regular file, by the first bytes of
            a pipe.
        is_pipe: whether it is standard input, a pipe or a device.
        head: the first bytes: a hundred lines of text, or all of it.
        is_whole: whether `head` is all there is.

    Raises:
        InputError: missing, empty, a folder, not readable, or of an unknown format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = STDIN if os.fspath(path) in ("/dev/stdin", "/dev/fd/0") else os.fspath(path)
        self.name = "standard input" if self._path == STDIN else self._path
        with reading(self.name):
            self.is_pipe = self._path == STDIN or not stat.S_ISREG(os.stat(self._path).st_mode)
            if self.is_pipe and os.path.isdir(self._path):
                raise InputError(f"{self.name}: expected a file, got a folder; name the files in it")
            stream = self._reopened()
        keep = self._path == STDIN
        try:
            with reading(self.name):
                self.head, self.is_whole = _read_head(stream)
            if not self.head:
                raise InputError(f"{self.name}: expected rows of numbers, but it is empty")
            self.kind = self._kind()
            keep = self.is_pipe
        finally:
            if not keep:
                stream.close()
        self._pipe = stream if self.is_pipe else None
        self._whole: bytes | None = None

    @property
    def path(self) -> Path | None:
        """The path of a regular, uncompressed file, which can be mapped into memory; None otherwise."""
        return None if self.is_pipe or self._path.endswith(".gz") else Path(self._path)

    def open(self) -> IO[bytes]:
        """A stream from the first byte on; of a pipe only once."""
        if not self.is_pipe:
            with reading(self.name):
                return self._reopened()
        if self._pipe is None:
            raise InputError(f"{self.name}: a pipe can be read only once; write it to a file first")
        rest, self._pipe = self._pipe, None
        return io.BufferedReader(_Replayed(self.head, rest))

    def open_seekable(self) -> IO[bytes]:
        """A stream that can seek; what is no plain file is read into memory."""
        with reading(self.name):
            if self.path:
                return self.path.open("rb")
            if self._whole is None:
                with self.open() as stream:
                    self._whole = stream.read()
            return io.BytesIO(self._whole)

    def _reopened(self) -> IO[bytes]:
        stream: Any = standard_input() if self._path == STDIN else open(self._path, "rb")  # noqa: SIM115
        try:
            start = stream.peek(2)[:2]
        except OSError:
            stream.close()
            raise
        if start != _GZIP:
            return stream  # type: ignore[no-any-return]
        unzipped = gzip.GzipFile(fileobj=stream)
        unzipped.myfileobj = stream  # so that closing the one closes the other
        return unzipped  # type: ignore[return-value]

    def _kind(self) -> str:
        text = "jsonl" if _JSON.match(self.head) else "text"
        by_content = next((kind for magic, kind in _MAGIC.items() if self.head.startswith(magic)), text)
        suffix = Path(self._path.removesuffix(".gz")).suffix.lower()
        if self.is_pipe or (not suffix and by_content != "text"):
            return by_content
        if suffix not in SUFFIXES:
            raise InputError(
                f"{self.name}: expected {', '.join(SUFFIXES)}, got {suffix or 'no suffix'!r}; convert or rename it"
            )
        if SUFFIXES[suffix] == "text" and _OBJECT.match(self.head):
            raise InputError(f"{self.name}: expected cells with a delimiter, got JSON; name it .jsonl")
        return SUFFIXES[suffix]


@contextmanager
def reading(name: str, *more: type[Exception], expected: str = "rows of numbers") -> Iterator[None]:
    """Turn what a damaged file makes a reader raise (DAMAGE, and `more`) into an InputError that names the file."""
    try:
        yield
    except AeedgeError:
        raise
    except (*DAMAGE, *more) as error:
        if isinstance(error, TimeoutError) and not of_system(error):
            raise
        raise unreadable(name, error, expected) from None


def unreadable(name: str, error: Exception, expected: str = "rows of numbers") -> InputError:
    """What to say of a file whose reading ended in one of DAMAGE."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"{name}: expected a file, but nothing is there; check the path")
    if isinstance(error, MemoryError):
        return InputError(f"{name}: does not fit into memory; check it, or divide it into several files")
    why = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split()) or type(error).__name__
    why = printable(why, 300)
    return InputError(f"{name}: expected {expected}, but it cannot be read ({why}); check it, or copy it again")


def standard_input() -> Any:
    """Standard input, by a reader of its own: a thread that waits in `sys.stdin.buffer` makes Python abort at its end.

    Raises:
        InputError: it is closed.
    """
    if sys.stdin is None:
        raise InputError("standard input: expected rows, but it is closed; name a file")
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except OSError:  # it was replaced, as tests do
        return io.BufferedReader(sys.stdin.buffer)


class _Replayed(io.RawIOBase):
    """The head of a pipe again, then the rest of it."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head, self._rest = io.BytesIO(head), rest

    def readable(self) -> bool:
        """True: for BufferedReader."""
        return True

    def close(self) -> None:
        """Close the pipe as well."""
        if not self.closed:
            self._rest.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        """Fill a part of a buffer."""
        data = self._head.read(len(buffer)) or self._rest.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _read_head(stream: IO[bytes]) -> tuple[bytes, bool]:
    """The first bytes of a stream, and whether it ends there."""
    head = b""
    while len(head) < _MOST_HEAD_BYTES:
        wanted = max(_HEAD_BYTES, len(head))
        part = stream.read(wanted)
        head += part
        if len(part) < wanted:
            return head, True
        if head.count(b"\n") + head.count(b"\r") >= _HEAD_LINES or b"\0" in head:  # enough lines, or no text
            break
    return head, False
