"""A tar of bundles from a stream, unpacked into a temporary folder.

An archive comes from another machine, so only what a folder of bundles needs is taken: regular files NAME.aeedge/FILE
and their folders. Links, devices, other places and other depths are refused before anything of them is written.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from aeedge.errors import InputError, of_system, printable
from aeedge.files.source import reading

SUFFIX = ".aeedge"
_MOST_BYTES = (
    2**30
)  # where the temporary folder is memory, as on many devices, more would leave too little for the rest
_MOST_MEMBERS = 10_000  # folders and files of a thousand bundles
_UNUSABLE = re.compile(r'[\x00-\x1f\\:*?"<>|]' if os.name == "nt" else r"\x00")  # in a name


@contextmanager
def unpacked(stream: IO[bytes], name: str) -> Iterator[Path]:
    """Yield a temporary folder with the bundles of an uncompressed tar; it is removed at the end, whatever that is.

    Args:
        stream: read to the end of the archive.
        name: of the stream, for messages.

    Raises:
        InputError: empty, truncated, no tar, too large, or with a member that is none of NAME.aeedge/FILE.
    """
    try:
        folder = TemporaryDirectory(prefix="aeedge-batch-")
    except OSError as error:
        if not of_system(error):
            raise
        raise InputError(f"{name}: there is no place for temporary files ({error.strerror}); set TMPDIR") from None
    with folder as place:
        _unpack(_Limited(stream, name), Path(place), name)
        yield Path(place)


def _unpack(stream: _Limited, place: Path, name: str) -> None:
    with reading(name, tarfile.TarError, expected="an uncompressed tar archive of bundles"):
        try:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive:  # type: ignore[call-overload]
                for number, member in enumerate(archive):
                    if number >= _MOST_MEMBERS:
                        raise InputError(f"{name}: expected at most {_MOST_MEMBERS} files in the archive; send fewer")
                    _write(archive, member, place, name)
        except tarfile.TarError:
            if stream.count:
                raise
            raise InputError(f"{name}: expected a tar archive of bundles, but it is empty") from None
    if not any(place.iterdir()):
        raise InputError(f"{name}: expected a tar archive of bundles, but it holds none; pack some")


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, place: Path, name: str) -> None:
    """Write one member, if it may be there."""
    parts = _parts(member, name)
    content: Any = archive.extractfile(member)
    try:
        if parts:
            (place / parts[0]).mkdir(exist_ok=True)
        if content is not None:
            with open(place.joinpath(*parts), "xb") as file:
                shutil.copyfileobj(content, file)
    except FileExistsError:
        raise InputError(f"{name}: {printable(member.name)!r} is in the archive twice; make it again") from None
    except OSError as error:
        if not of_system(error):
            raise
        raise InputError(
            f"{name}: {printable(member.name)!r} cannot be unpacked to {place.parent} ({error.strerror}); "
            "free space there, or set TMPDIR"
        ) from None


def _parts(member: tarfile.TarInfo, name: str) -> list[str]:
    """The folder and the file of a member; nothing of the folder that holds them all."""
    parts = member.name.split("/")
    if parts[0] == ".":  # of tar -C FOLDER -c .
        del parts[0]
    plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
    depth = 2 if plain else 1 if member.isdir() else 0
    usable = all(part not in ("", ".", "..") and not _UNUSABLE.search(part) for part in parts)
    if member.isdir() and not parts:
        return []
    if not depth or len(parts) != depth or not usable or not parts[0].endswith(SUFFIX) or parts[0] == SUFFIX:
        kind = "a link" if member.islnk() or member.issym() else "a folder" if member.isdir() else "a file"
        what = kind if depth or kind == "a link" else "a special file"
        raise InputError(
            f"{name}: expected files NAME{SUFFIX}/FILE alone in the archive, got {printable(member.name)!r} ({what}); "
            "pack folders of bundles, such as: tar -C FOLDER -c ."
        )
    return parts


class _Limited:
    """A stream that counts its bytes, and ends in an InputError where they are too many."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream, self._name, self.count = stream, name, 0

    def read(self, size: int) -> bytes:
        """Up to so many bytes."""
        data = self._stream.read(size)
        self.count += len(data)
        if self.count > _MOST_BYTES:
            raise InputError(
                f"{self._name}: expected at most {_MOST_BYTES // 2**20} MiB of bundles; send fewer at a time, "
                "or copy the folder to the device"
            )
        return data


class _Member(tarfile.TarInfo):
    """A header of an archive; a damaged or missing one, which tarfile takes for the end, is an error."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Any:
        """The next header."""
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the mark of the end
                raise
            raise tarfile.ReadError(str(error)) from None
