"""Read a bundle from disk: only bytes that match the manifest's checksums are returned.

Nothing here runs a graph. The session gets the same bytes that were checked. All files are opened at once, through one
descriptor of the directory, and read later: a bundle that is replaced or removed meanwhile makes no difference.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bundle.manifest import FileEntry, Manifest, sha256
from aeedge.bundle.manifest_reading import read_manifest
from aeedge.bundle.onnx_proto import inspect
from aeedge.bundle.operators import operator_fault
from aeedge.errors import AeedgeError, BundleError, CorruptBundleError, IncompatibleBundleError, of_system

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.bundle.drift_reference import DriftReference
    from aeedge.bundle.golden import Wanted

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
CALIBRATION = "calibration.npz"
ROLES = ("encoder", "decoder", "scorer")  # of each variant
FEATURES = "features"  # the role of a front end, the same for all variants
_TRIES = 1000  # how often a bundle may be replaced while it is opened
_PART = 2**16  # bytes
_MANIFEST_LIMIT = 64 * 2**20  # bytes; a manifest is a few kilobytes, more is a mistake or an attack
_FILE_LIMIT = 2**31 - 1  # bytes; an ONNX file is one protobuf message, which cannot be larger
_LOOKS, _PAUSE = 5, 0.005  # times, seconds: where nothing is, it may come, a replacement may take two renames
_READ = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_BINARY", "O_CLOEXEC", "O_NONBLOCK"))
_SEARCH = getattr(os, "O_PATH", os.O_RDONLY) | sum(getattr(os, name, 0) for name in ("O_DIRECTORY", "O_CLOEXEC"))


def file_name(role: str, variant: str) -> str:
    """The fixed name of a graph inside a bundle; no name is ever read from the manifest."""
    return f"{role}.onnx" if variant == "fp32" or role == FEATURES else f"{role}.{variant}.onnx"


class Bundle:
    """An opened bundle: `path`, `manifest`, and its files by role and variant, all of one generation.

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
        self.check, self.allow_ops = check, allow_ops
        self._place = os.path.abspath(self.path)  # the current directory may change
        self._files: dict[str, _File] = {}  # all of them, held open
        looks = _LOOKS
        for left in reversed(range(_TRIES)):
            self._seen = _generation(self._place)
            try:
                complete = self._open()
            except BundleError:
                if self._seen is None and looks:
                    looks -= 1
                    time.sleep(_PAUSE)
                elif not left or not self.is_replaced():
                    raise
            else:
                if complete or not left or not self.is_replaced():
                    break

    def _open(self) -> bool:
        """Read the manifest and open all files, of one directory; whether all are there."""
        self.close()
        self._files = {}
        with _folder(self.path, self._place) as folder:
            place = os.path.join(self.path, MANIFEST)
            with _File(place, self._place, folder) as file:
                if file.missing:
                    raise BundleError(
                        f"{self.path}: not an aeedge bundle, it has no {MANIFEST}; 'aeedge export' makes bundles"
                    )
                if file.size > _MANIFEST_LIMIT:
                    raise CorruptBundleError(
                        f"{place}: {file.size} bytes are too many for a manifest; export the bundle again"
                    )
                self.manifest = read_manifest(file.read(file.size), place)
            for name in _names(self.manifest):
                self._files[name] = _File(os.path.join(self.path, name), self._place, folder)
        self._closed = False
        return not any(file.missing for file in self._files.values())

    def is_replaced(self) -> bool:
        """Whether another bundle is at the path since this one was opened."""
        return _generation(self._place) != self._seen

    def graph(self, role: str, variant: str) -> bytes:
        """The checked bytes of one graph.

        Raises:
            IncompatibleBundleError: the bundle lacks this variant or role, or the graph has an operator that is not
                allowed.
            CorruptBundleError: missing, truncated, changed, of another bundle, or refers to files outside.
        """
        with self._unless_closed():
            file, entry = self._graph(role, variant)
            data = self._checked(file, entry)
        self._check_graph(file.place, data, role)
        return data

    def verify(self, role: str, variant: str) -> None:
        """Compare a graph's file with the manifest, without parsing it; it is read and checked again when it is opened.

        Raises:
            as `graph`, which alone finds faults in a file whose checksum is right.
        """
        if self.check == "hash":
            file, entry = self._graph(role, variant)
            self._compare(file, file.parts(entry.bytes, _PART), entry)  # a part stays in cache
        else:
            self.graph(role, variant)

    @contextmanager
    def _unless_closed(self) -> Iterator[None]:
        """A bundle that another thread closes while it is read is not damaged: its descriptors may be other files'."""
        try:
            yield
        except BundleError:
            if self._closed:
                raise AeedgeError(f"{self.path}: the model was closed; load it again") from None
            raise

    def _graph(self, role: str, variant: str) -> tuple[_File, FileEntry]:
        """A graph's file, of the right size."""
        entries = self.manifest.variants.get(variant)
        if entries is None:
            raise IncompatibleBundleError(
                f"{self.path}: expected variant {variant!r}, but it holds {', '.join(self.manifest.variants)}; "
                "use one of these, or variant='auto'"
            )
        front_end = self.manifest.front_end
        entry: FileEntry | None
        if role == FEATURES:
            if front_end is None:
                raise IncompatibleBundleError(f"{self.path}: has no features, for it has no front end")
            entry = front_end.file
        else:
            entry = getattr(entries, role)
        if entry is None:
            raise IncompatibleBundleError(
                f"{self.path}: this needs a decoder, but the bundle has only an encoder; export it with its decoder"
            )
        return self._file(file_name(role, variant), entry), entry

    def _file(self, name: str, entry: FileEntry) -> _File:
        file = self._files[name]
        if file.missing:
            raise CorruptBundleError(
                f"{file.place}: the manifest lists this file, but it is missing; copy the bundle again"
            )
        _compare_size(file.place, file.size, entry)
        if entry.bytes > _FILE_LIMIT:
            raise CorruptBundleError(f"{file.place}: {entry.bytes} bytes are too many; export the bundle again")
        return file

    def hold(self, role: str, variant: str) -> None:
        """Compare the size of a graph's file, which is read later, when the bundle may have been replaced.

        Raises:
            as `graph`.
        """
        self._graph(role, variant)

    def hold_calibration(self) -> None:
        """Compare the size of calibration.npz, if there is one; it is read later.

        Raises:
            CorruptBundleError: it is missing, or of another size.
        """
        if self.manifest.calibration is not None:
            self._file(CALIBRATION, self.manifest.calibration.file)

    def keep(self, variant: str) -> None:
        """Close the files of other variants."""
        kept = {GOLDEN, CALIBRATION, *(file_name(role, variant) for role in (*ROLES, FEATURES))}
        for name, file in self._files.items():
            if name not in kept:
                file.close()

    def close(self) -> None:
        """Close the files."""
        self._closed = True
        for file in self._files.values():
            file.close()

    def golden(self, variant: str) -> dict[str, NDArray[Any]]:
        """The recorded arrays of a variant by name: "input", "fp32.latent", "fp32.reconstruction", "fp32.score".

        With a front end "fp32.features", too.

        Raises:
            CorruptBundleError: golden.npz is missing, damaged, or has not what the manifest promises.
        """
        manifest, entry = self.manifest, self.manifest.golden
        shape = manifest.input.shape
        made = manifest.reconstruction_shape
        rows = {"features": made, "latent": manifest.latent_shape, "reconstruction": made, "score": ()}
        wanted = {f"{variant}.{what}": ("float32", rows[what]) for what in manifest.variants[variant].tolerance}
        return self._arrays(GOLDEN, entry, {"input": (manifest.input.dtype, shape)} | wanted)

    def calibration(self, variant: str) -> NDArray[np.float32]:
        """The calibration scores of a variant, (n,), sorted.

        Raises:
            IncompatibleBundleError: the bundle has none.
            CorruptBundleError: calibration.npz is missing, damaged, or has not what the manifest promises.
        """
        spec, name = self.manifest.calibration, f"{variant}.score"
        if spec is None or variant not in spec.thresholds:
            of = "" if spec is None else f" of {variant} (of {', '.join(spec.thresholds) or 'nothing'} alone)"
            raise IncompatibleBundleError(
                f"{self.path}: this needs a calibration, and the bundle has none{of}; "
                "make one with 'aeedge recalibrate', or pass a threshold"
            )
        scores: NDArray[np.float32] = self._arrays(CALIBRATION, spec.file, {name: ("float32", ())})[name]
        if len(scores) != spec.rows or not (np.isfinite(scores).all() and (scores[1:] >= scores[:-1]).all()):
            raise CorruptBundleError(
                f"{os.path.join(self.path, CALIBRATION)}: expected {spec.rows} finite scores in order as {name!r}; "
                "export the bundle again"
            )
        return scores

    def calibration_sequence(self, variant: str) -> NDArray[np.float32] | None:
        """The calibration scores of a variant in time order, (n,); None where they have none.

        Raises:
            IncompatibleBundleError, CorruptBundleError: as `calibration`.
        """
        scores, spec, name = self.calibration(variant), self.manifest.calibration, f"{variant}.sequence"
        if spec is None or spec.spacing is None:
            return None
        found: NDArray[np.float32] = self._arrays(CALIBRATION, spec.file, {name: ("float32", ())})[name]
        if not np.array_equal(np.sort(found), scores):
            raise CorruptBundleError(
                f"{os.path.join(self.path, CALIBRATION)}: expected the calibration scores in time order as {name!r}; "
                "export the bundle again"
            )
        return found

    def drift_reference(self, variant: str) -> DriftReference | None:
        """What windows of a stream are compared with, of a variant; None where there is none.

        Raises:
            CorruptBundleError: calibration.npz is missing, damaged, or has not what the manifest promises.
        """
        from aeedge.bundle.drift_reference import checked, wanted  # streams alone need it

        spec = self.manifest.calibration
        if spec is None or variant not in spec.drift_references:
            return None
        sizes, prefix = spec.drift_references[variant], f"{variant}.drift."
        arrays = {
            name: self._arrays(CALIBRATION, spec.file, {prefix + name: of})[prefix + name]
            for name, of in wanted(*sizes).items()
        }
        try:
            return checked(arrays, *sizes, self.manifest.latent)
        except ValueError as error:
            raise CorruptBundleError(
                f"{os.path.join(self.path, CALIBRATION)}: {error} of {variant}; export the bundle again"
            ) from None

    def _arrays(self, name: str, entry: FileEntry, wanted: Mapping[str, Wanted]) -> dict[str, NDArray[Any]]:
        from aeedge.bundle.golden import read_arrays  # most loads need none

        with self._unless_closed():
            file = self._file(name, entry)
            data = self._checked(file, entry)
        try:
            return read_arrays(data, wanted)
        except ValueError as error:
            raise CorruptBundleError(f"{file.place}: {error}; export the bundle again") from None

    def _checked(self, file: _File, entry: FileEntry) -> bytes:
        data = file.read(entry.bytes)
        self._compare(file, [data], entry)
        return data

    def _compare(self, file: _File, parts: Iterable[bytes], entry: FileEntry) -> None:
        """Compare a file's content with its size and sha256 in the manifest."""
        size, digest = 0, sha256(entry.bytes) if self.check == "hash" else None
        for part in parts:
            size += len(part)
            if digest is not None:
                digest.update(part)
        _compare_size(file.place, size, entry)
        if digest is not None and (found := digest.hexdigest()) != entry.sha256:
            raise CorruptBundleError(
                f"{file.place}: its content was changed, expected sha256 {entry.sha256[:12]}…, got {found[:12]}…; "
                "copy the bundle again"
            )

    def _check_graph(self, place: str, data: bytes, role: str) -> None:
        try:
            info = inspect(data)
            fault = operator_fault(info, self.allow_ops)
        except ValueError as error:
            raise CorruptBundleError(f"{place}: {error}; export the bundle again") from None
        if fault:
            raise IncompatibleBundleError(
                f"{place}: expected what a feed-forward network needs, got {fault}; "
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
    """A file that is held open, so that replacing it does not change what is read.

    Args:
        place: how messages name it.
        folder, handle: the directory that it is in, and a descriptor of that, where there are such.
    """

    def __init__(self, place: str, folder: str, handle: int | None) -> None:
        self.place, self.missing = place, False
        self._handles: list[int] = []  # one, as long as it is open
        self._error: OSError | None = None  # raised when the file is needed
        name = os.path.basename(place)
        try:
            _open(self._handles, name if handle is not None else os.path.join(folder, name), _READ, handle)
            self.missing = not stat.S_ISREG(os.fstat(self._opened()).st_mode)
        except FileNotFoundError:
            self.missing = True
        except OSError as error:
            if not of_system(error):
                raise
            self._error = error

    @property
    def size(self) -> int:
        """Bytes of the file."""
        with _readable(self.place):
            return os.fstat(self._opened()).st_size

    def read(self, size: int) -> bytes:
        """The first `size` bytes, or fewer where the file ends before."""
        with _readable(self.place):
            return b"".join(self.parts(size, size))

    def parts(self, size: int, most: int) -> Iterator[bytes]:
        """The first `size` bytes in parts of at most `most`.

        Processes may share the handle, so its position is not used.
        """
        at = 0
        with _readable(self.place):
            while at < size and (part := self._at(at, min(most, size - at))):
                yield part
                at += len(part)

    def _at(self, at: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._opened(), size, at)
        os.lseek(self._opened(), at, os.SEEK_SET)  # Windows
        return os.read(self._opened(), size)

    def _opened(self) -> int:
        if self._error is not None:
            raise self._error
        if not self._handles:
            raise AeedgeError(f"{self.place}: the bundle was closed; load it again")
        return self._handles[0]

    def close(self) -> None:
        """Close it; it cannot be read any more."""
        handles, self._handles = self._handles, []
        for handle in handles:
            self._close(handle)

    _close = staticmethod(os.close)  # modules may be gone when the interpreter ends

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_handles"):  # not where the constructor was interrupted
            self.close()


def _open(kept: list[int], path: str, flags: int, folder: int | None = None) -> None:
    """Open a file and keep its descriptor, in one step: a signal handler may raise between two."""
    kept.extend(map(partial(os.open, dir_fd=folder), [path], [flags]))


@contextmanager
def _folder(path: str, place: str) -> Iterator[int | None]:
    """A descriptor of the bundle's directory; None on systems that open files by path alone."""
    if os.open not in os.supports_dir_fd:
        if not os.path.exists(place):
            raise _nothing(path)
        yield None
        return
    handles: list[int] = []
    try:
        try:
            _open(handles, place, _SEARCH)
        except (FileNotFoundError, ValueError):
            raise _nothing(path) from None
        except NotADirectoryError:
            raise BundleError(f"{path}: not an aeedge bundle, but a file; 'aeedge export' makes bundles") from None
        except OSError as error:
            if not of_system(error):
                raise
            raise BundleError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
        yield handles[0]
    finally:
        for handle in handles:
            os.close(handle)


def _nothing(path: str) -> BundleError:
    return BundleError(f"{path}: expected a bundle (a directory), but nothing is there; check the path")


def _names(manifest: Manifest) -> list[str]:
    """The files that a manifest lists."""
    graphs = [
        file_name(role, variant)
        for variant, entries in manifest.variants.items()
        for role in ROLES
        if getattr(entries, role) is not None
    ]
    features = [] if manifest.front_end is None else [file_name(FEATURES, "fp32")]
    return [*graphs, *features, GOLDEN, *([] if manifest.calibration is None else [CALIBRATION])]


def _generation(place: str) -> object:
    """What differs between a bundle and the one that replaces it; None where nothing is."""
    try:
        found = [os.stat(place), os.stat(os.path.join(place, MANIFEST))]
    except ValueError:
        return None
    except OSError as error:
        if not of_system(error):
            raise
        return None
    return [(e.st_dev, e.st_ino, e.st_mtime_ns, e.st_ctime_ns, e.st_size) for e in found]


def _compare_size(place: str, size: int, entry: FileEntry) -> None:
    if size != entry.bytes:
        how = "truncated" if size < entry.bytes else "too long"
        raise CorruptBundleError(f"{place}: {how}, expected {entry.bytes} bytes, got {size}; copy the bundle again")


@contextmanager
def _readable(place: str) -> Iterator[None]:
    """Turn an OSError while reading into a BundleError, and too little memory as well."""
    try:
        yield
    except OSError as error:
        if not of_system(error):
            raise
        raise BundleError(f"{place}: cannot be read ({error.strerror}); check its permissions") from None
    except MemoryError:
        raise BundleError(f"{place}: cannot be read, there is too little memory for it") from None
