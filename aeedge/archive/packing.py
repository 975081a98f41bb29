"""A bundle that travels to workers: packed into one zip, unpacked once on each node.

An engine moves the bytes (Spark's files, Ray's object store). What is unpacked is checked as any bundle is: hashes of
all files by `aeedge.load`, and the reference outputs by each process that runs it.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from aeedge.bundle.reader import MANIFEST
from aeedge.errors import BundleError, InputError


class Packed(NamedTuple):
    """A bundle as bytes.

    Attributes:
        path: where it is on the machine of the driver.
        name: of its folder on a node: the same bytes have the same name.
        data: a zip of its files.
    """

    path: str
    name: str
    data: bytes


def pack(path: str | os.PathLike[str]) -> Packed:
    """A bundle's files as one zip; the same files give the same bytes.

    Raises:
        BundleError: there is no bundle.
    """
    import hashlib

    folder = Path(path)
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder}: expected a bundle, found no {MANIFEST}")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.iterdir()):
            if file.is_file():
                archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes())
    data = stream.getvalue()
    return Packed(os.path.abspath(path), f"{hashlib.sha256(data).hexdigest()[:32]}.aeedge", data)


def unpacked(name: str, read: Callable[[], bytes]) -> str:
    """The folder of a packed bundle on this node; made by the first process that needs it.

    Args:
        name: of `Packed`.
        read: gives its data.

    Raises:
        InputError: there is no place for it, or another user made a folder of its name.
    """
    folder = Path(tempfile.gettempdir()) / f"aeedge-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
            raise InputError(f"{folder}: belongs to another user; remove it, or set TMPDIR")
        target = folder / name
        if not target.is_dir():
            part = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
            with zipfile.ZipFile(io.BytesIO(read())) as archive:
                archive.extractall(part)
            try:
                part.rename(target)
            except OSError:  # another process was first
                shutil.rmtree(part, ignore_errors=True)
                if not target.is_dir():
                    raise
    except OSError as error:
        raise InputError(f"{folder}: the bundle cannot be unpacked there ({error.strerror}); set TMPDIR") from None
    return str(target)


def discard(path: str) -> None:
    """Remove an unpacked bundle that is not what was sent: the next process that needs it unpacks it anew."""
    shutil.rmtree(path, ignore_errors=True)
