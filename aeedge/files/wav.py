"""Recordings in WAV files, read and written block by block, with the standard library and numpy alone.

Samples are raw: 16-bit integers stay int16; other integers become float32 in their own units (8 bits −128 to 127, 24
bits −2²³ to 2²³ − 1; of 32 bits the last ones are rounded), floats float32 as they are. Nothing is scaled to ±1.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from aeedge.errors import InputError
from aeedge.files.atomic import atomic_file
from aeedge.files.source import Source, reading
from aeedge.record import Record

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

ENCODINGS = {"pcm8": (1, 1), "pcm16": (1, 2), "pcm24": (1, 3), "pcm32": (1, 4), "float32": (3, 4), "float64": (3, 8)}
"""Encodings of a value: format tag and bytes."""

_NAMES = {1: "PCM", 3: "float", 2: "ADPCM", 6: "A-law", 7: "mu-law", 17: "IMA ADPCM", 80: "MPEG", 85: "MP3"}
_EXTENSIBLE = 0xFFFE
_OPEN_END = 0x7FFFF000  # sizes from here on, and 0, are those of writers that could not know the end (sox, arecord)
_MOST_BYTES = 2**32 - 2**12
_BLOCK_BYTES = 2**22


class WavFormat(Record):
    """What a WAV file holds: `rate` in Hz, number of `channels`, and `encoding`, one of ENCODINGS."""

    rate: int
    channels: int
    encoding: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of samples that were read: int16 or float32."""
        return np.dtype(np.int16 if self.encoding == "pcm16" else np.float32)

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return self.channels * ENCODINGS[self.encoding][1]


class WavFile:
    """A WAV file of a known source.

    Args:
        source: the file, or a pipe.

    Attributes:
        format: rate, channels and encoding.
        count: number of samples; None where only the end of the file tells.
        notes: what was left out; complete once all is read.

    Raises:
        InputError: no WAV, a damaged header, or an encoding that is not read.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.notes: list[str] = []
        if source.is_pipe:  # can be read once: its header has to be in the head
            stream: IO[bytes] = io.BytesIO(source.head)
        else:
            stream = source.open()
        with stream:
            self.format, size = _header(stream, source.name)
        self.count = None if size is None else size // self.format.sample_bytes

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Samples (m, channels), int16 or float32, in bounded memory.

        Raises:
            InputError: truncated, or no samples at all.
        """
        name, step = self._source.name, self.format.sample_bytes
        with self._source.open() as stream:
            _, size = _header(stream, name)
            done, at_once = 0, max(1, _BLOCK_BYTES // step) * step
            while size is None or done < size:
                data = _read(stream, at_once if size is None else min(at_once, size - done), name)
                done += len(data)
                whole = len(data) - len(data) % step
                if whole:
                    yield _decoded(data[:whole], self.format)
                if len(data) < at_once:
                    break
            while not isinstance(stream, io.BufferedReader) and _read(stream, _BLOCK_BYTES, name):
                pass  # a compressed file compares its checksum only at its end
        if size is not None and done < size:
            expected, got = size // step, done // step
            raise InputError(f"{name}: truncated, expected {expected:,} samples, got {got:,}; copy it again")
        if done < step:
            raise InputError(f"{name}: expected a recording, but it has no samples")
        if done % step:
            self.notes.append("the last sample is incomplete and was left out")


def read_wav(path: str | os.PathLike[str]) -> tuple[NDArray[Any], float]:
    """A whole recording: samples (n, channels), int16 or float32 in raw units, and the rate in Hz.

    Read are integers of 8, 16, 24 and 32 bits and floats of 32 and 64, also as WAVE_FORMAT_EXTENSIBLE, RF64 and
    compressed by gzip. A data size of 0, or one from 2³¹ − 4096 on, is that of a stream whose writer could not know the
    end: all that follows is read.

    Args:
        path: of a file, "-" for standard input.

    Raises:
        InputError: missing, no WAV, truncated, or of an encoding that is not read.
    """
    found = WavFile(Source(path))
    return np.concatenate(list(found.blocks())), float(found.format.rate)


def write_wav(
    path: str | os.PathLike[str],
    samples: ArrayLike,
    rate: float,
    *,
    encoding: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a recording; the file appears when it is whole.

    Args:
        path: the file.
        samples: (n, channels), or (n,) of one channel, in raw units.
        rate: in Hz, a whole number.
        encoding: "pcm8", "pcm16", "pcm24", "pcm32", "float32" or "float64"; None for pcm16 of int16, else float32.
            Integers are rounded, and cut off at the largest ones there are.
        overwrite: whether a file may be replaced.

    Raises:
        InputError: samples that are no recording, a rate that WAV cannot hold, another encoding, or the file cannot be
            written.
    """
    array = np.asarray(samples)
    array = array[:, np.newaxis] if array.ndim == 1 else array
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiub":
        raise InputError(f"samples: expected numbers (samples, channels), got an array {array.shape} {array.dtype}")
    encoding = encoding or ("pcm16" if array.dtype == np.int16 else "float32")
    found = wav_format(rate, array.shape[1], encoding)
    with atomic_file(path, overwrite=overwrite) as part, part.open("wb") as stream:
        writer = WavWriter(stream, found)
        step = max(1, _BLOCK_BYTES // found.sample_bytes)
        for start in range(0, len(array), step):
            writer.write(array[start : start + step])
        writer.finish()


def wav_format(rate: float | None, channels: int, encoding: str) -> WavFormat:
    """A format that can be written.

    Raises:
        InputError: the rate is unknown or no whole number, there are too many channels, or the encoding is another.
    """
    if encoding not in ENCODINGS:
        raise InputError(f"encoding: expected {', '.join(ENCODINGS)}, got {encoding!r:.60}")
    if rate is None or not 1 <= rate < 2**32 or rate != int(rate):
        raise InputError(
            f"rate: expected a whole number of Hz from 1 on, as WAV needs it, got {rate}; write .csv or .npy"
        )
    if not 1 <= channels < 2**16:
        raise InputError(f"samples: expected 1 to 65,535 channels, as WAV can hold, got {channels}; write .npy")
    return WavFormat(int(rate), channels, encoding)


class WavWriter:
    """Append samples to a WAV file whose length is not known in advance.

    Args:
        stream: a new file that can seek.
        format: of the file.
    """

    def __init__(self, stream: IO[bytes], format: WavFormat) -> None:
        self._stream, self._format, self._size = stream, format, 0
        stream.write(self._header())

    def write(self, samples: NDArray[Any]) -> None:
        """Append samples (m, channels) in raw units.

        Raises:
            InputError: the file would be larger than a WAV can be, 4 GiB.
        """
        data = _encoded(samples, self._format.encoding)
        self._size += len(data)
        if self._size > _MOST_BYTES:
            raise InputError("a WAV holds up to 4 GiB, and there is more; write .npy, or divide the recording")
        self._stream.write(data)

    def finish(self) -> None:
        """Write the length, which is known now."""
        if self._size % 2:
            self._stream.write(b"\0")
        self._stream.seek(0)
        self._stream.write(self._header())
        self._stream.flush()

    def _header(self) -> bytes:
        tag, width = ENCODINGS[self._format.encoding]
        rate, channels, step = self._format.rate, self._format.channels, self._format.sample_bytes
        chunk = struct.pack("<HHIIHH", tag, channels, rate, min(rate * step, 2**32 - 1), step % 2**16, 8 * width)
        head = b"WAVEfmt " + struct.pack("<I", len(chunk)) + chunk
        if tag == 3:  # floats need the number of samples
            chunk += b"\0\0"
            head = b"WAVEfmt " + struct.pack("<I", len(chunk)) + chunk
            head += b"fact" + struct.pack("<II", 4, self._size // step)
        head += b"data" + struct.pack("<I", self._size)
        return b"RIFF" + struct.pack("<I", len(head) + self._size + self._size % 2) + head


# --- the header


def _header(stream: IO[bytes], name: str) -> tuple[WavFormat, int | None]:
    """What is said before the samples, which follow; the size of these in bytes, None for all up to the end."""
    start = _read(stream, 12, name)
    if start[:4] not in (b"RIFF", b"RF64") or start[8:] != b"WAVE":
        raise InputError(f"{name}: expected a WAV file, but it does not begin as one; check it, or convert it")
    found, large = None, None
    while len(head := _read(stream, 8, name)) == 8:
        kind, size = head[:4], int.from_bytes(head[4:], "little")
        if kind == b"data":
            if found is None:
                raise _damaged(name, "its samples come before their format")
            size = large if large is not None and size == 2**32 - 1 else size
            return found, None if size == 0 or (large is None and size >= _OPEN_END) else size
        body = _read(stream, min(size, 40), name)
        if kind == b"fmt ":
            found = _format(body, name)
        elif kind == b"ds64" and len(body) >= 16:
            large = int.from_bytes(body[8:16], "little")
        rest = size + size % 2 - len(body)
        while rest > 0 and (skipped := _read(stream, min(rest, _BLOCK_BYTES), name)):
            rest -= len(skipped)
    raise _damaged(name, "it ends before its samples")


def _format(chunk: bytes, name: str) -> WavFormat:
    if len(chunk) < 16:
        raise _damaged(name, "its format is incomplete")
    tag, channels, rate, _, step, bits = struct.unpack("<HHIIHH", chunk[:16])
    if tag == _EXTENSIBLE and len(chunk) >= 26:
        tag = int.from_bytes(chunk[24:26], "little")
    width = (bits + 7) // 8
    encoding = next((key for key, value in ENCODINGS.items() if value == (tag, width)), None)
    if encoding is None:
        raise InputError(
            f"{name}: expected a WAV of 8, 16, 24 or 32-bit integers or 32 or 64-bit floats, got {bits} bits of "
            f"{_NAMES.get(tag, f'format {tag}')}; convert it"
        )
    if not channels or not rate or step != channels * width:
        raise _damaged(name, f"its format says {channels} channels, {rate} Hz, {step} bytes a sample")
    return WavFormat(rate, channels, encoding)


def _damaged(name: str, why: str) -> InputError:
    return InputError(f"{name}: expected a WAV file, but {why}; copy it again")


# --- the samples


def _decoded(data: bytes, format: WavFormat) -> NDArray[Any]:
    """Samples (m, channels) of whole ones in bytes."""
    tag, width = ENCODINGS[format.encoding]
    values: NDArray[Any]
    if tag == 3:
        with np.errstate(over="ignore"):
            values = np.frombuffer(data, f"<f{width}").astype(np.float32)
    elif width == 2:
        values = np.frombuffer(data, "<i2").astype(np.int16)
    elif width == 1:
        values = np.frombuffer(data, np.uint8).astype(np.float32) - np.float32(128)
    else:
        padded = np.zeros((len(data) // width, 4), np.uint8)
        padded[:, 4 - width :] = np.frombuffer(data, np.uint8).reshape(-1, width)
        values = (padded.view("<i4")[:, 0] >> 8 * (4 - width)).astype(np.float32)
    return values.reshape(-1, format.channels)


def _encoded(samples: NDArray[Any], encoding: str) -> bytes:
    tag, width = ENCODINGS[encoding]
    if tag == 3:
        with np.errstate(over="ignore"):
            return samples.astype(f"<f{width}").tobytes()
    if not np.isfinite(samples).all():
        raise InputError("samples: expected finite numbers to write as integers, got NaN or infinity; write float32")
    top = 2 ** (8 * width - 1)
    integers = np.clip(np.rint(samples.astype(np.float64)), -top, top - 1).astype(np.int64)
    if width == 1:
        return (integers + 128).astype(np.uint8).tobytes()
    return integers.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width].tobytes()


def _read(stream: IO[bytes], size: int, name: str) -> bytes:
    """So many bytes, fewer at the end."""
    parts = []
    with reading(name, expected="a WAV file"):
        while size > 0 and (part := stream.read(size)):
            parts.append(part)
            size -= len(part)
    return b"".join(parts)
