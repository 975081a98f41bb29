"""Images as rows (channels, height, width): the only file that imports Pillow, and only when images are read.

Grey images have one channel, all others three (RGB). Values are neither clipped nor scaled: 8-bit and black-and-white
images (0 and 255) are uint8, 16-bit ones uint16 or int16, 32-bit ones float32. Images are turned upright by their EXIF
orientation. Each page of a TIFF and each frame of an animation is a row.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge.errors import InputError, printable, shortened

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
BLOCK_BYTES = 2**22
"""Bytes of pixels in a block."""

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # none of which runs another program
_GREY = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _ORIENTATION, _SAMPLE_FORMAT = 254, 256, 257, 258, 274, 339  # TIFF tags
_TURNS = {  # by EXIF orientation, to be upright
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_SIZE = "the size"
_SHOWN = 5  # files that a message names


class Images:
    """Image files as rows, whole or block by block.

    Args:
        paths: folders, which are searched recursively, and image files.
        resize: (height, width) that all images are scaled to.
        skip_bad: leave out files that cannot be read or are of another shape, instead of raising.
        finite: whether NaN and infinity in an image make its file a bad one.

    Attributes:
        files: the image files, sorted by path within each folder.
        row_files: the file of each row that has been read.
        notes: what was left out or changed, in sentences; complete once all images are read.

    Raises:
        InputError: a path is missing or no image, no images, Pillow is missing.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        resize: tuple[int, int] | None = None,
        skip_bad: bool = False,
        finite: bool = True,
    ) -> None:
        _pillow()
        self.files, self.notes = image_files(paths)
        self.row_files: list[Path] = []
        self._resize, self._skip_bad, self._finite = resize, skip_bad, finite

    def read(self) -> NDArray[Any]:
        """All rows (n, channels, height, width).

        The shape is that of most files. The rows are uint8 if all images are, int16 if all are whole numbers that fit,
        otherwise float32.

        Raises:
            InputError: files that cannot be read or are of another shape, unless `skip_bad`; the message counts them.
        """
        shape, like = self._usual_shape()
        found = [picture.pixels for picture in self._pictures(shape, None, like)]
        kinds = Counter(str(pixels.dtype) for pixels in found)
        if len(kinds) > 1:
            listed = ", ".join(f"{name} in {count} files" for name, count in kinds.most_common())
            self.notes.append(f"values are of several types and taken as they are: {listed}")
        return np.concatenate(found, dtype=_dtype(found), casting="unsafe")

    def blocks(self, shape: tuple[int, ...], dtype: str) -> Iterator[NDArray[Any]]:
        """Rows for a model, in blocks (m, *shape) of some megabytes; the pages of one file are in memory at once.

        Args:
            shape: of one row, (channels, height, width), or (height, width) for grey images.
            dtype: "uint8", "int16" or "float32".

        Raises:
            InputError: files that cannot be read or do not fit, unless `skip_bad`; the message counts them.
        """
        if len(shape) not in (2, 3):
            raise InputError(f"{self.files[0]}: expected rows of shape {shape}, as the model takes, got an image")
        full, wanted = (1, *shape) if len(shape) == 2 else shape, np.dtype(dtype)
        block: list[NDArray[Any]] = []
        narrow = 0
        for picture in self._pictures(full, wanted, "the model takes"):
            narrow += picture.pixels.dtype == np.uint8 and wanted != np.uint8
            for page in picture.pixels:
                block.append(page.astype(wanted).reshape(shape))
                if len(block) * block[0].nbytes >= BLOCK_BYTES:
                    yield np.stack(block)
                    block = []
        if block:
            yield np.stack(block)
        if narrow:
            self.notes.append(f"{narrow} files hold values from 0 to 255, which the {dtype} model gets as they are")

    def _usual_shape(self) -> tuple[tuple[int, ...] | None, str]:
        """The shape of most files, by their headers, and the name of one that has it."""
        shapes: dict[tuple[int, ...], list[Path]] = {}
        for file in self.files:
            try:
                with _opened(file) as image:
                    shapes.setdefault(_shape(image, self._resize), []).append(file)
            except _BadImageError:
                pass  # it will be met again
        usual = max(shapes, key=lambda shape: len(shapes[shape]), default=None)
        return usual, f"{shapes[usual][0].name} has" if usual else ""

    def _pictures(self, shape: tuple[int, ...] | None, dtype: np.dtype[Any] | None, like: str) -> Iterator[_Picture]:
        """The good files: of `shape`, with values that fit `dtype`; `like` says who has that shape.

        After the first bad one the rest is only searched for more, unless they are skipped.
        """
        bad: dict[Path, str] = {}
        special: dict[str, list[Path]] = {}
        for file in self.files:
            try:
                picture = _read(file, self._resize, shape, like, self._finite)
                _check_dtype(picture.pixels, dtype)
            except _BadImageError as error:
                bad[file] = str(error)
                continue
            for sentence, applies in (
                ("transparency is left out", picture.transparent),
                ("previews, and pictures beside a camera's first one, are left out", picture.previews),
                ("each page or frame is a row of its own", len(picture.pixels) > 1),
            ):
                if applies:
                    special.setdefault(sentence, []).append(file)
            if not bad or self._skip_bad:
                self.row_files += [file] * len(picture.pixels)
                yield picture
        if bad and not (self._skip_bad and len(bad) < len(self.files)):
            raise InputError(_complaint(bad, len(self.files)))
        if bad:
            self.notes.append(f"{len(bad)} of {len(self.files)} files are left out: {_reasons(bad)}")
        for sentence, files in special.items():
            self.notes.append(f"{sentence} ({len(files)} of {len(self.files)} files: {_few(files)})")


class _Picture(NamedTuple):
    """One image file: pages (m, channels, height, width), whether transparency was dropped, pages left out."""

    pixels: NDArray[Any]
    transparent: bool
    previews: int


class _BadImageError(Exception):
    """One file cannot be used; the message is the reason, without the file's name."""


# --- finding files


def image_files(paths: Sequence[str | os.PathLike[str]]) -> tuple[list[Path], list[str]]:
    """Image files by their names, those of each folder sorted by path, and notes on other files in the folders.

    Raises:
        InputError: a path is missing or no image, a folder cannot be read, or there are no images.
    """
    files: list[Path] = []
    hidden, others = 0, Counter[str]()
    expected = f"({', '.join(sorted(SUFFIXES))})"
    for path in map(Path, paths):
        if os.path.isdir(path):
            seen, skipped = _search(path)
            images = [file for file in seen if _is_image(file)]
            if not images:
                raise InputError(f"{path}: expected images {expected}, but there are none")
            files += images
            hidden += skipped
            others.update(file.suffix.lower() or "no suffix" for file in seen if not _is_image(file))
        elif not os.path.isfile(path):
            raise InputError(f"{path}: expected an image or a folder of images, but nothing is there; check the path")
        elif not _is_image(path):
            raise InputError(f"{path}: expected an image {expected}, got {path.suffix or 'no suffix'!r}")
        else:
            files.append(path)
    notes = []
    if hidden:
        notes.append(f"{hidden} hidden files and folders are left out")
    if others:
        notes.append(f"{others.total()} files that are no images by their names are left out ({_few(sorted(others))})")
    return files, notes


def are_images(paths: Sequence[str | os.PathLike[str]]) -> bool:
    """Whether the first path is an image by its name, or a folder that has some."""
    first = Path(paths[0])
    return any(map(_is_image, _search(first)[0])) if os.path.isdir(first) else _is_image(first)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES


def _search(folder: Path) -> tuple[list[Path], int]:
    """All files below a folder, sorted, links followed once; and how many hidden files and folders were passed by."""

    def fail(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions")

    files: list[Path] = []
    hidden, visited = 0, set[str]()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=fail):
        real = os.path.realpath(root)
        if real in visited:  # a link back
            folders.clear()
            continue
        visited.add(real)
        hidden += sum(name.startswith(".") for name in (*folders, *names))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(files), hidden


# --- reading one file


def _read(
    path: Path, resize: tuple[int, int] | None, shape: tuple[int, ...] | None, like: str, finite: bool
) -> _Picture:
    """All pages of a file; each must have `shape`, after scaling to `resize`, and be finite where that is asked for."""
    with _opened(path) as image:
        coding = _coding(image)
        if image.format == "PNG":
            image.load()  # its orientation may come after the pixels
        found = _shape(image, resize)
        _check_shape(found, shape, like)
        pages = _pages(image)
        read = [_page(image, page, resize, coding) for page in pages]
        previews = getattr(image, "n_frames", 1) - len(pages)
    shapes = {pixels.shape for pixels, _ in read}
    if shapes != {found}:
        raise _BadImageError(f"expected pages of one shape, got {shortened(sorted(shapes))}")
    pixels = np.stack([pixels for pixels, _ in read])
    if finite and pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        at = tuple(np.argwhere(~np.isfinite(pixels))[0])
        raise _BadImageError(f"expected finite values, got {pixels[at]} in pixel row {at[2]}, column {at[3]}")
    return _Picture(pixels, any(transparent for _, transparent in read), previews)


def _check_shape(found: tuple[int, ...], expected: tuple[int, ...] | None, like: str) -> None:
    if expected is None:
        return
    if found[0] != expected[0]:
        names = {1: "grey", 3: "RGB"}
        wanted = names.get(expected[0], f"{expected[0]} channels")
        raise _BadImageError(f"expected {wanted}, as {like}, got {names[found[0]]}")
    if found != expected:
        wanted, got = (f"{height}×{width}" for _, height, width in (expected, found))
        raise _BadImageError(f"expected {_SIZE} {wanted} (height×width), as {like}, got {got}")


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """An image with its header read. Whatever Pillow raises for a damaged file becomes a `_BadImageError`."""
    library = _pillow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", library.DecompressionBombWarning)
        try:
            # A stream is never memory-mapped: Pillow maps TIFFs that are to be turned with the wrong width.
            with path.open("rb") as stream, library.open(stream, formats=_FORMATS) as image:
                yield image
        except _BadImageError:
            raise
        except Exception as error:
            raise _BadImageError(_reason(path, error)) from None


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise InputError("images are read with Pillow, which is missing: pip install 'aeedge[images]'") from None
    return Image


def _reason(path: Path, error: Exception) -> str:
    if "DecompressionBomb" in type(error).__name__:
        limit = _pillow().MAX_IMAGE_PIXELS
        return f"expected an image of at most {limit:,} pixels, since larger ones may be an attack; scale it down first"
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return "expected an image, but the file is empty"
    if isinstance(error, _pillow().UnidentifiedImageError):
        return "expected an image, but its content is none that can be read"
    if isinstance(error, MemoryError):
        return "expected an image that fits into memory; scale it down first"
    return f"expected an image, but it cannot be read ({printable(str(error), 200) or type(error).__name__})"


def _shape(image: Image, resize: tuple[int, int] | None) -> tuple[int, ...]:
    """(channels, height, width) of the pixels to come, by the header."""
    if image.mode not in _GREY + _COLOUR:
        raise _BadImageError(f"expected grey or RGB, got the mode {image.mode!r}; convert it")
    tags = _tags(image)
    width, height = (tags[_WIDTH], tags[_HEIGHT]) if tags else image.size  # a TIFF's size may be turned already
    if _orientation(image) in (5, 6, 7, 8):  # turned by a quarter
        width, height = height, width
    return (1 if _is_grey(image) else 3, *(resize or (height, width)))


def _orientation(image: Image) -> int:
    if image.format == "PNG" and getattr(image, "tile", None) and "exif" not in image.info:
        return 1  # asking would decode the pixels
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF, which is no reason to lose the image
        return 1


def _upright(image: Image) -> Image:
    image.load()  # which turns a TIFF, and forgets its orientation
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(_pillow().Transpose[turn])


def _is_grey(image: Image) -> bool:
    return image.mode in _GREY and image.format != "GIF"  # a GIF may have colour in later frames


def _tags(image: Image) -> Mapping[int, Any]:
    """The tags of a TIFF's page, empty for other formats."""
    return image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]


def _pages(image: Image) -> list[int]:
    """The pages that are rows: none that is a reduced copy, and of the pictures in a camera's JPEG the first alone."""
    if image.format == "MPO":
        return [0]
    pages = []
    for page in range(getattr(image, "n_frames", 1)):
        image.seek(page)
        if not _tags(image).get(_SUBFILE, 0) & 1:
            pages.append(page)
    return pages


def _page(image: Image, page: int, resize: tuple[int, int] | None, coding: Any) -> tuple[NDArray[Any], bool]:
    """One page, (channels, height, width), and whether transparency was dropped."""
    image.seek(page)
    bits, is_grey = _bits(image, coding), _is_grey(image)
    if image.mode not in ("I", "I;16", "I;16L", "I;16B", "I;16N", "F"):
        if bits > 8:
            raise _BadImageError(
                f"expected 8 bits per channel, got {bits}-bit {image.mode}; convert it, or save it as grey"
            )
        upright = _upright(image)
        transparent = _is_transparent(upright)
        mode = "L" if is_grey else "RGB"
        plain = upright if upright.mode == mode else upright.convert(mode)
        pixels = np.asarray(plain if resize is None else _scaled(plain, resize))
        return np.ascontiguousarray(np.moveaxis(np.atleast_3d(pixels), 2, 0)), transparent
    dtype, white = _wide_dtype(image, bits), _ppm_white(image, coding)
    values = np.asarray(_upright(image))
    if dtype == np.uint32:
        values = values.view(np.uint32)  # Pillow has no such mode
    elif white:
        values = np.rint(values * (white / 65535))  # Pillow has scaled them up
    if resize is not None:
        smooth = np.asarray(_scaled(_pillow().fromarray(values.astype(np.float32)), resize))
        values = smooth if dtype.kind == "f" else np.rint(smooth)
    return values.astype(np.float32 if dtype == np.uint32 else dtype)[np.newaxis], False


def _scaled(image: Image, size: tuple[int, int]) -> Image:
    return image if image.size == size[::-1] else image.resize(size[::-1], _pillow().Resampling.BILINEAR)


def _coding(image: Image) -> Any:
    """What Pillow's decoder is told about the pixels; gone once they are loaded."""
    tiles = getattr(image, "tile", None)
    return tiles[0][3] if tiles else ""


def _bits(image: Image, coding: Any) -> int:
    """Bits per channel in the file: Pillow reads colour of 16 bits as 8 bits without a word."""
    if tags := _tags(image):
        bits: int = max(tags.get(_BITS, (1,)))
        if bits == 8 and 2 in tags.get(_SAMPLE_FORMAT, ()):
            raise _BadImageError("expected unsigned values, got signed 8-bit ones; save it with 16 bits")
        return bits
    wide = re.search(r";16[BLN]", str(coding)) or _ppm_white(image, coding) > 255
    return 16 if wide else 8


def _wide_dtype(image: Image, bits: int) -> np.dtype[Any]:
    """Of a page with more than 8 bits; uint32 for unsigned numbers that Pillow reads as signed ones."""
    signed = 2 in _tags(image).get(_SAMPLE_FORMAT, ())
    if image.mode == "F" or (bits == 32 and signed):
        return np.dtype(np.float32)
    return np.dtype(np.uint32 if bits == 32 else np.int16 if signed else np.uint16)


def _ppm_white(image: Image, coding: Any) -> int:
    """The largest value that a PGM or PPM declares, if Pillow scales it to 65535 or 255; otherwise 0."""
    return int(coding[-1]) if image.format == "PPM" and isinstance(coding, tuple) else 0


def _is_transparent(image: Image) -> bool:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return False
    lowest: Any = image.convert("RGBA").getchannel("A").getextrema()[0]
    return bool(lowest < 255)


# --- types and messages


def _dtype(pages: Sequence[NDArray[Any]]) -> type[np.generic]:
    """uint8 < int16 < float32: the first that holds all values."""
    if all(page.dtype == np.uint8 for page in pages):
        return np.uint8
    return np.int16 if all(_fits(page, np.dtype(np.int16)) for page in pages) else np.float32


def _fits(pixels: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    if dtype == np.int16 and pixels.dtype == np.uint16:
        return int(pixels.max()) <= np.iinfo(np.int16).max
    return np.can_cast(pixels.dtype, dtype)


def _check_dtype(pixels: NDArray[Any], dtype: np.dtype[Any] | None) -> None:
    if dtype is not None and not _fits(pixels, dtype):
        raise _BadImageError(
            f"expected values that fit {dtype}, which the model takes, got {pixels.dtype} up to {pixels.max()}"
        )


def _complaint(bad: Mapping[Path, str], count: int) -> str:
    advice = "correct or remove them, or leave them out (skip_bad=True)"
    if any(_SIZE in reason for reason in bad.values()):
        advice += ", or scale all images to one size (resize=(height, width))"
    if len(bad) == 1:
        return f"{_reasons(bad)}; {advice.replace('them', 'it')}"
    return f"{len(bad)} of {count} files cannot be used: {_reasons(bad)}; {advice}"


def _reasons(bad: Mapping[Path, str]) -> str:
    shown = "; ".join(f"{file}: {reason}" for file, reason in list(bad.items())[:_SHOWN])
    return shown + (f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else "")


def _few(names: Sequence[object]) -> str:
    return ", ".join(printable(str(name), 200) for name in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
