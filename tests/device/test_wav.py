"""Recordings in WAV files: every encoding there and back, and headers as other programs write them."""

import gzip
import os
import struct
import tracemalloc
import wave

import numpy as np
import pytest

from aeedge import InputError
from aeedge.files.source import Source
from aeedge.files.wav import ENCODINGS, WavFile, read_wav, write_wav

RANGES = {"pcm8": 2**7, "pcm16": 2**15, "pcm24": 2**23, "pcm32": 2**31, "float32": 1, "float64": 1}
GUID = bytes.fromhex("000000001000800000aa00389b71")


def chunk(kind, data, size=None):
    return kind + struct.pack("<I", len(data) if size is None else size) + data + b"\0" * (len(data) % 2)


def fmt(tag=1, channels=1, rate=8000, bits=16, more=b""):
    width = (bits + 7) // 8
    return chunk(
        b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * channels * width, channels * width, bits) + more
    )


def riff(*chunks, kind=b"RIFF"):
    body = b"WAVE" + b"".join(chunks)
    return kind + struct.pack("<I", min(len(body), 2**32 - 1)) + body


def written(tmp_path, data):
    path = tmp_path / "x.wav"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_was_written_is_read(tmp_path, encoding, channels):
    rng, top = np.random.default_rng(0), RANGES[encoding]
    samples = rng.uniform(-top, top, (1001, channels))
    samples[0], samples[1] = -top, top - 1
    if encoding.startswith("pcm"):
        samples = np.floor(samples)
    samples = samples.astype(np.int16 if encoding == "pcm16" else np.float32)
    write_wav(tmp_path / "x.wav", samples, 44100, encoding=encoding)
    found, rate = read_wav(tmp_path / "x.wav")
    assert rate == 44100
    assert found.dtype == samples.dtype
    np.testing.assert_array_equal(found, samples)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_integers_are_those_of_python_s_own_reader(tmp_path, width):
    rng = np.random.default_rng(width)
    data = rng.bytes(6 * width * 50)
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setparams((2, width, 16000, 0, "NONE", ""))
        file.writeframes(data)
    values = [int.from_bytes(data[i : i + width], "little", signed=width > 1) for i in range(0, len(data), width)]
    expected = np.reshape(values, (-1, 2)) - (128 if width == 1 else 0)
    found, rate = read_wav(tmp_path / "x.wav")
    assert rate == 16000
    np.testing.assert_array_equal(found, expected.astype(found.dtype))
    if width == 4:
        return  # float32 does not hold all of them
    name = {1: "pcm8", 2: "pcm16", 3: "pcm24"}[width]
    write_wav(tmp_path / "y.wav", found, rate, encoding=name)
    with wave.open(str(tmp_path / "y.wav"), "rb") as file:
        assert file.getparams()[:4] == (2, width, 16000, 150)
        assert file.readframes(1000) == data


def test_integers_are_rounded_and_cut_off_at_the_largest_ones(tmp_path):
    write_wav(tmp_path / "x.wav", [[0.6], [-0.6], [1e9], [-1e9]], 100, encoding="pcm16")
    assert read_wav(tmp_path / "x.wav")[0].ravel().tolist() == [1, -1, 32767, -32768]
    with pytest.raises(InputError, match="finite"):
        write_wav(tmp_path / "y.wav", [[np.nan]], 100, encoding="pcm16")
    assert not (tmp_path / "y.wav").exists()


def test_extensible_formats_and_other_chunks_are_read(tmp_path):
    samples = np.arange(8, dtype="<i2")
    extensible = fmt(0xFFFE, 2, more=struct.pack("<HHI", 22, 12, 3) + b"\1\0" + GUID)
    data = riff(chunk(b"JUNK", b"odd"), extensible, chunk(b"LIST", b"x" * 100_001), chunk(b"data", samples.tobytes()))
    found, _ = read_wav(written(tmp_path, data + chunk(b"LIST", b"after")))
    np.testing.assert_array_equal(found, samples.reshape(4, 2))
    floats = np.linspace(-1, 1, 6, dtype="<f4")
    extensible = fmt(0xFFFE, 3, bits=32, more=struct.pack("<HHI", 22, 32, 7) + b"\3\0" + GUID)
    found, _ = read_wav(written(tmp_path, riff(extensible, chunk(b"data", floats.tobytes()))))
    np.testing.assert_array_equal(found, floats.reshape(2, 3))


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000, 0x80000000 - 44])
def test_a_stream_whose_writer_did_not_know_the_end_is_read_up_to_it(tmp_path, size):
    samples = np.arange(1000, dtype="<i2")
    path = written(tmp_path, riff(fmt(channels=2), chunk(b"data", samples.tobytes() + b"\7", size))[:-1])
    np.testing.assert_array_equal(read_wav(path)[0], samples.reshape(-1, 2))
    file = WavFile(Source(path))
    assert file.count is None
    assert sum(map(len, file.blocks())) == 500
    assert file.notes == ["the last sample is incomplete and was left out"]


def test_a_large_file_s_size_is_in_a_chunk_of_its_own(tmp_path):
    samples = np.arange(50, dtype="<i2")
    large = chunk(b"ds64", struct.pack("<QQQI", 0, 100, 50, 0))
    data = riff(large, fmt(), chunk(b"data", samples.tobytes(), 2**32 - 1), chunk(b"LIST", b"after"), kind=b"RF64")
    np.testing.assert_array_equal(read_wav(written(tmp_path, data))[0][:, 0], samples)


GOOD = riff(fmt(), chunk(b"data", bytes(200)))
FAULTS = {
    "a text": (b"a,b\n1,2\n", "does not begin as one"),
    "another RIFF": (b"RIFF\4\0\0\0WEBP", "does not begin as one"),
    "truncated samples": (GOOD[:-100], "truncated, expected 100 samples, got 50; copy it again"),
    "no samples": (riff(fmt(), chunk(b"data", b"")), "it has no samples"),
    "a header alone": (GOOD[:12], "ends before its samples"),
    "no data chunk": (riff(fmt(), chunk(b"LIST", b"abcd")), "ends before its samples"),
    "a chunk larger than the file": (riff(fmt(), chunk(b"LIST", b"abcd", 2**31)), "ends before its samples"),
    "samples before their format": (riff(chunk(b"data", bytes(4)), fmt()), "come before their format"),
    "a short format": (riff(chunk(b"fmt ", bytes(10))), "format is incomplete"),
    "A-law": (riff(fmt(6, bits=8), chunk(b"data", bytes(4))), "got 8 bits of A-law; convert it"),
    "an unknown format": (riff(fmt(999), chunk(b"data", bytes(4))), "16 bits of format 999"),
    "64-bit integers": (riff(fmt(1, bits=64), chunk(b"data", bytes(8))), "64 bits of PCM"),
    "no channels": (riff(fmt(channels=0), chunk(b"data", bytes(4))), "0 channels"),
    "no rate": (riff(fmt(rate=0), chunk(b"data", bytes(4))), "0 Hz"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_none_is_one_sentence(tmp_path, fault):
    data, message = FAULTS[fault]
    path = written(tmp_path, data)
    with pytest.raises(InputError, match=message) as caught:
        read_wav(path)
    assert str(path) in str(caught.value)


def test_any_damage_is_a_sentence_or_samples(tmp_path):
    """Also of a header that claims 4 GiB: memory is taken for what is there."""
    data = riff(fmt(channels=2), chunk(b"LIST", b"abc"), chunk(b"data", bytes(range(200))))
    rng, outcomes = np.random.default_rng(0), set()
    for _ in range(500):
        forged = bytearray(data[: rng.integers(1, len(data) + 1)])
        forged[rng.integers(min(len(forged), 60))] = rng.integers(256)
        try:
            found, rate = read_wav(written(tmp_path, bytes(forged)))
        except InputError:
            outcomes.add("refused")
        else:
            assert found.ndim == 2
            assert found.size
            assert rate > 0
            outcomes.add("read")
    assert outcomes == {"refused", "read"}


@pytest.mark.parametrize(
    ("samples", "rate", "encoding", "message"),
    [
        (np.zeros((0, 2)), 100, None, "samples"),
        (np.zeros((2, 2, 2)), 100, None, "samples"),
        (["a"], 100, None, "samples"),
        (np.zeros(3), 0.5, None, "whole number of Hz"),
        (np.zeros(3), -8000, None, "whole number of Hz"),
        (np.zeros(3), np.nan, None, "whole number of Hz"),
        (np.zeros(3), None, None, "whole number of Hz"),
        (np.zeros((1, 70000)), 100, None, "65,535 channels"),
        (np.zeros(3), 100, "mp3", "encoding"),
    ],
)
def test_what_a_wav_cannot_hold_is_refused_and_nothing_written(tmp_path, samples, rate, encoding, message):
    with pytest.raises(InputError, match=message):
        write_wav(tmp_path / "x.wav", samples, rate, encoding=encoding)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_only_where_that_was_said(tmp_path):
    write_wav(tmp_path / "x.wav", np.zeros(3, np.int16), 100)
    with pytest.raises(InputError, match="exists"):
        write_wav(tmp_path / "x.wav", np.ones(3, np.int16), 100)
    assert not read_wav(tmp_path / "x.wav")[0].any()
    write_wav(tmp_path / "x.wav", np.ones(3, np.int16), 100, overwrite=True)
    assert read_wav(tmp_path / "x.wav")[0].all()


def test_compressed_files_and_pipes_are_read(tmp_path):
    samples = np.arange(-1000, 1000, dtype=np.int16).reshape(-1, 2)
    write_wav(tmp_path / "x.wav", samples, 8000)
    data = (tmp_path / "x.wav").read_bytes()
    (tmp_path / "x.wav.gz").write_bytes(gzip.compress(data))
    np.testing.assert_array_equal(read_wav(tmp_path / "x.wav.gz")[0], samples)
    if hasattr(os, "mkfifo"):
        reader, writer = os.pipe()
        with open(writer, "wb") as stream:
            stream.write(data)
        np.testing.assert_array_equal(read_wav(f"/dev/fd/{reader}")[0], samples)
        os.close(reader)


def test_a_long_file_is_read_and_written_in_bounded_memory(tmp_path):
    path = written(tmp_path, b"")
    with path.open("wb") as stream:
        stream.write(riff(fmt(), chunk(b"data", b"", 2**26)))
        stream.truncate(stream.tell() + 2**26)
    file, count = WavFile(Source(path)), 0
    assert file.count == 2**25
    tracemalloc.start()
    for block in file.blocks():
        count += len(block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2**25
    assert peak < 2**25
