"""Read a bundle from disk: only bytes that match the manifest's checksums are returned.

Nothing here runs a graph. The session gets the same bytes that were checked, so a file that changes in between makes no
difference.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bundle.manifest import FileEntry, Manifest, sha256
from aeedge.bundle.onnx_proto import inspect
from aeedge.bundle.operators import operator_fault
from aeedge.errors import BundleError, CorruptBundleError, IncompatibleBundleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
_MIN_PART, _PART = 2**12, 2**16  # bytes
_MANIFEST_LIMIT = 64 * 2**20  # bytes; a manifest is a few kilobytes, more is a mistake or an attack


def file_name(role: str, variant: str) -> str:
    """The fixed name of a graph inside a bundle; no name is ever read from the manifest."""
    return f"{role}.onnx" if variant == "fp32" else f"{role}.{variant}.onnx"


class Bundle:
    """An opened bundle directory: `path`, `manifest`, and its files by role and variant.

    Args:
        path: the bundle's directory; a relative one is resolved now.
        check: "hash" compares size and sha256 of each file as it is read; "size" the size alone.
        allow_ops: names of operators to take beside those that a feed-forward network needs (see operators.py).

    Raises:
        BundleError: nothing there, not a bundle, not readable.
        CorruptBundleError: the manifest is damaged.
        IncompatibleBundleError: the manifest is of a newer format.
    """

    def __init__(self, path: str | os.PathLike[str], check: str = "hash", allow_ops: Collection[str] = ()) -> None:
        self.path = os.fspath(path)
        self._folder = os.path.realpath(self.path)  # the current directory may change
        self.check, self.allow_ops = check, allow_ops
        self._kept: dict[str, _File] = {}  # held open: a bundle may be replaced before a graph is read
        self.manifest = self._read_manifest()

    def _read_manifest(self) -> Manifest:
        if not os.path.exists(self._folder):
            raise BundleError(f"{self.path}: expected a bundle (a directory), but nothing is there; check the path")
        place = os.path.join(self.path, MANIFEST)
        if not os.path.isfile(self._real(place)):
            raise BundleError(f"{self.path}: not an aeedge bundle, it has no {MANIFEST}; 'aeedge export' makes bundles")
        data = _read(place, self._real(place))
        if len(data) > _MANIFEST_LIMIT:
            raise CorruptBundleError(f"{place}: {len(data)} bytes are too many for a manifest; export the bundle again")
        return Manifest.parse(data, place)

    def graph(self, role: str, variant: str) -> bytes:
        """The checked bytes of one graph.

        Raises:
            IncompatibleBundleError: the bundle lacks this variant or role.
            CorruptBundleError: missing, truncated, changed, of another bundle, or refers to files outside.
        """
        place, file, entry = self._graph(role, variant)
        data = b"".join(file.parts(2**62))
        self._compare(place, [data], entry)
        self._check_graph(place, data, role)
        return data

    def verify(self, role: str, variant: str) -> None:
        """Compare a graph's file with the manifest, without parsing it; it is read and checked again when it is opened.

        Raises:
            as `graph`, which alone finds faults in a file whose checksum is right.
        """
        if self.check == "hash":
            place, file, entry = self._graph(role, variant)
            self._compare(place, file.parts(_PART), entry)  # a part stays in cache
        else:
            self.graph(role, variant)

    def _graph(self, role: str, variant: str) -> tuple[str, _File, FileEntry]:
        entries = self.manifest.variants.get(variant)
        if entries is None:
            raise IncompatibleBundleError(
                f"{self.path}: expected variant {variant!r}, but it holds {', '.join(self.manifest.variants)}; "
                "use one of these, or variant='auto'"
            )
        entry = {"encoder": entries.encoder, "decoder": entries.decoder, "scorer": entries.scorer}[role]
        if entry is None:
            raise IncompatibleBundleError(
                f"{self.path}: this needs a decoder, but the bundle has only an encoder; export it with its decoder"
            )
        place = os.path.join(self.path, file_name(role, variant))
        if place not in self._kept:
            self._expect(place)
            self._kept[place] = _File(place, self._real(place))
        return place, self._kept[place], entry

    def hold(self, role: str, variant: str) -> None:
        """Keep a graph's file open for later, when the bundle may have been replaced; its size is compared now.

        Raises:
            as `graph`.
        """
        place, file, entry = self._graph(role, variant)
        self._compare_size(place, file.size, entry)

    def close(self) -> None:
        """Close the files."""
        self._kept.clear()

    def golden(self) -> dict[str, NDArray[Any]]:
        """The recorded arrays by name: "input" and, per variant, "fp32.latent", "fp32.reconstruction", "fp32.score"."""
        from zipfile import BadZipFile  # numpy imports it when it reads an archive, not before

        place = os.path.join(self.path, GOLDEN)
        data = self._checked(place, self.manifest.golden)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (ValueError, OSError, BadZipFile, KeyError) as error:
            raise CorruptBundleError(f"{place}: cannot be read ({error}); export the bundle again") from None

    def _checked(self, place: str, entry: FileEntry) -> bytes:
        self._expect(place)
        data = _read(place, self._real(place))
        self._compare(place, [data], entry)
        return data

    def _expect(self, place: str) -> None:
        if not os.path.isfile(self._real(place)):
            raise CorruptBundleError(f"{place}: the manifest lists this file, but it is missing; copy the bundle again")

    def _compare(self, place: str, parts: Iterable[bytes], entry: FileEntry) -> None:
        """Compare a file's content with its size and sha256 in the manifest."""
        size, digest = 0, sha256(entry.bytes) if self.check == "hash" else None
        for part in parts:
            size += len(part)
            if digest is not None:
                digest.update(part)
        self._compare_size(place, size, entry)
        if digest is not None and (found := digest.hexdigest()) != entry.sha256:
            raise CorruptBundleError(
                f"{place}: its content was changed, expected sha256 {entry.sha256[:12]}…, got {found[:12]}…; "
                "copy the bundle again"
            )

    @staticmethod
    def _compare_size(place: str, size: int, entry: FileEntry) -> None:
        if size != entry.bytes:
            how = "truncated" if size < entry.bytes else "too long"
            raise CorruptBundleError(f"{place}: {how}, expected {entry.bytes} bytes, got {size}; copy the bundle again")

    def _real(self, place: str) -> str:
        """The path to open; the path as it was given is for messages."""
        return os.path.join(self._folder, os.path.basename(place))

    def _check_graph(self, place: str, data: bytes, role: str) -> None:
        try:
            info = inspect(data)
        except ValueError as error:
            raise CorruptBundleError(f"{place}: {error}; export the bundle again") from None
        if fault := operator_fault(info, self.allow_ops):
            raise IncompatibleBundleError(
                f"{place}: expected the operators of a feed-forward network, got {fault}; "
                "if you trust the bundle, name the operator in allow_ops"
            )
        got = (info.metadata.get("aeedge.id"), info.metadata.get("aeedge.role"))
        if got[0] != self.manifest.id:
            raise CorruptBundleError(
                f"{place}: belongs to another bundle, expected id {self.manifest.id[:12]}…, "
                f"got {str(got[0])[:12]}…; copy encoder and decoder of one export"
            )
        if got[1] != role:
            raise CorruptBundleError(f"{place}: expected the {role}, got the {got[1]}; copy the bundle again")


class _File:
    """A file that is held open, so that replacing it does not change what is read."""

    def __init__(self, place: str, real: str) -> None:
        self._handle = -1
        self._place = place
        with _readable(place):
            self._handle = os.open(real, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))

    @property
    def size(self) -> int:
        """Bytes of the file."""
        with _readable(self._place):
            return os.fstat(self._handle).st_size

    def parts(self, most: int) -> Iterator[bytes]:
        """The content in parts of at most `most` bytes; processes may share the handle, so its position is not used."""
        at = 0
        with _readable(self._place):
            left = self.size
            while part := self._at(at, max(_MIN_PART, min(most, left - at))):
                yield part
                at += len(part)

    def _at(self, at: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._handle, size, at)
        os.lseek(self._handle, at, os.SEEK_SET)  # Windows
        return os.read(self._handle, size)

    def __del__(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)


def _read(place: str, real: str) -> bytes:
    with _readable(place), open(real, "rb") as stream:
        return stream.read()


@contextmanager
def _readable(place: str) -> Iterator[None]:
    """Turn an OSError while reading into a BundleError."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{place}: cannot be read ({error.strerror}); check its permissions") from None
