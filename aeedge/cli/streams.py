"""Standard output and error as they are: in another encoding than UTF-8, closed, full, or a pipe that nobody reads."""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

import click

from aeedge.errors import InputError, printable

_ERRORS = _ASCII = "aeedge_ascii"  # an error handler and an encoding
_ASCII_FOR = {
    "…": "...", "×": "x", "µ": "u", "–": "-", "—": "-", "−": "-", "·": "*", "•": "*", "→": "->", "±": "+/-", "≤": "<=",
    "≥": ">=", "≈": "~", "°": "deg ", "²": "^2", "⁶": "^6", "€": "EUR", "£": "GBP", "‘": "'", "’": "'", "“": '"',
    "”": '"', "─": "-", "━": "-", "│": "|", "├": "|", "└": "`", "β": "beta", "σ": "sigma", "ß": "ss", "ø": "o",
}  # fmt: skip
_CLOSED_PIPE = {errno.EPIPE, errno.EINVAL} if os.name == "nt" else {errno.EPIPE}
_UNWRITABLE = {errno.ENOSPC, errno.EFBIG, errno.EBADF, getattr(errno, "EDQUOT", errno.ENOSPC)} | _CLOSED_PIPE
_PIPE_CLOSED, _INTERRUPTED = 128 + 13, 128 + 2  # as a shell reports what SIGPIPE and SIGINT end


def prepare() -> None:
    """Let standard output and error take every character, and stand for a closed one with the null device.

    What the encoding lacks is written in ASCII, as in "3x4 rows".
    """
    _fill_descriptors()
    codecs.register_error(_ERRORS, _replaced)
    codecs.register(_codec)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stdout = _prepared(sys.stdout)
    if not isinstance(sys.stderr, _Unfailing):
        sys.stderr = cast(TextIO, _Unfailing(_prepared(sys.stderr)))


def show(result: str | bytes) -> None:
    """Print the result of a command: bytes as they are, of text what a terminal only shows.

    Raises:
        InputError: standard output is closed.
    """
    check_stdout()
    raw = getattr(sys.stdout, "buffer", None)
    if isinstance(result, bytes) and isinstance(raw, io.RawIOBase):  # PYTHONUNBUFFERED: a signal may cut a write short
        rest = memoryview(result + b"\n")
        while rest:
            rest = rest[raw.write(rest) or 0 :]
        return
    click.echo(printable(result, None, "\n") if isinstance(result, str) else result)


def show_json(document: Mapping[str, Any]) -> None:
    """Print a document in UTF-8, whatever the encoding of standard output: it is data.

    Raises:
        InputError: standard output is closed.
    """
    show(json.dumps(document, indent=1).encode())


def check_stdout() -> None:
    """Refuse to compute what is to be printed where standard output is closed.

    Raises:
        InputError: it is closed.
    """
    if getattr(sys.stdout, "name", None) == os.devnull:
        raise InputError("standard output is closed, expected a place for the result: redirect it to a file")


@contextmanager
def ended_quietly() -> Iterator[None]:
    """End with a sentence where output cannot be written, and without one where nobody reads it or after Ctrl-C.

    Raises:
        click.ClickException: it cannot be written; exit code 2.
        click.exceptions.Exit: the pipe was closed (141) or Ctrl-C was pressed (130), as a shell reports these signals.
    """
    try:
        yield
    except KeyboardInterrupt:
        click.echo("\nAborted!", err=True)
        raise click.exceptions.Exit(_INTERRUPTED) from None
    except OSError as error:
        if error.filename is not None or error.errno not in _UNWRITABLE:
            raise
        _discard()
        if error.errno in _CLOSED_PIPE:
            raise click.exceptions.Exit(_PIPE_CLOSED) from None
        raise UnusableError(f"output cannot be written ({error.strerror})") from error


class _Unfailing:
    """Standard error: where a message cannot be written, the work goes on, and the exit code is what it would be."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class UnusableError(click.ClickException):
    """Wrong usage, or an input or output that cannot be used: exit code 2."""

    exit_code = 2


def _fill_descriptors() -> None:
    """Open the null device as 0, 1 and 2 where they are closed: a file opened later would get what is printed there."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(opened)


def _prepared(stream: TextIO | None) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if hasattr(stream, "reconfigure"):  # a test or a notebook may have put something else there
        ascii_only = codecs.lookup(stream.encoding).name == "ascii"
        stream.reconfigure(encoding=_ASCII if ascii_only else None, errors=_ERRORS)
    return stream


def _codec(name: str) -> codecs.CodecInfo | None:
    """ASCII by another name: where it is called ASCII, click writes UTF-8."""
    if name != _ASCII:
        return None
    known = codecs.lookup("ascii")
    return codecs.CodecInfo(
        known.encode,
        known.decode,
        known.streamreader,
        known.streamwriter,
        known.incrementalencoder,
        known.incrementaldecoder,
        name,
    )


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(character: str) -> str:
    """What stands for a character: from the table, a letter without its accent, or a question mark."""
    from unicodedata import normalize

    plain = normalize("NFKD", character)[0]
    return _ASCII_FOR.get(character, plain if plain.isascii() else "?")


def _discard() -> None:
    """Write nothing more to standard output where that failed, also not when Python ends."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
