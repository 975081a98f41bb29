"""Damaged, forged and odd files of rows: they end in rows or in one sentence, and in nothing else."""

import gzip
import io
import os
import socket
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from helpers import damage

from aeedge.errors import InputError, printable
from aeedge.files.rows import Wanted, open_all, open_rows
from aeedge.files.source import Source

TRIALS = 40  # for each kind of file


def outcome(path, wanted):
    """How reading ended: "rows" or the message."""
    count = 0
    try:
        for block in open_all([path], wanted).blocks():
            count += len(block)
            assert count < 100_000
    except InputError as error:
        message = str(error)
        assert os.fspath(path) in message
        assert message == printable(message, 1000)
        return message
    return "rows"


def sound(kind):
    """(name, bytes, what a model wants) of sound files."""
    if kind != "tables":
        pytest.importorskip({"parquets": "pyarrow", "images": "PIL"}[kind])
    for name, data in getattr(damage, kind)().items():
        channels = 3 if name in ("x.gif", "x.webp") else 1
        yield name, data, Wanted(shape=(channels, 12, 16)) if kind == "images" else None


@pytest.mark.parametrize("kind", ["tables", "parquets", "images"])
def test_a_damaged_file_gives_rows_or_one_sentence(tmp_path, kind):
    rng = np.random.default_rng(0)
    for name, data, wanted in sound(kind):
        path = tmp_path / name
        path.write_bytes(data)
        assert outcome(path, wanted) == "rows"
        ends = []
        for _ in range(TRIALS):
            path.write_bytes(damage.damaged(data, rng))
            ends.append(outcome(path, wanted) == "rows")
        assert not all(ends)


@pytest.mark.parametrize("kind", ["tables", "parquets", "images"])
def test_a_file_cut_at_any_place_gives_rows_or_one_sentence(tmp_path, kind):
    for name, data, wanted in sound(kind):
        path = tmp_path / name
        for size in range(0, len(data), max(1, len(data) // 30)):
            path.write_bytes(data[:size])
            end = outcome(path, wanted)
            assert end != "rows" or not path.suffix.startswith(".np")  # whose header says how many there are


def npy(text, version=1, size=None, data=bytes(480)):
    """A file in numpy's format with any header."""
    width = 2 if version == 1 else 4
    header = text.encode("latin-1")
    length = (len(header) if size is None else size).to_bytes(width, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


SOUND = "{'descr': '<f8', 'fortran_order': False, 'shape': (20, 3), }"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(SOUND, 4), "its header is damaged"),
        (npy(SOUND)[:9], "its header is damaged"),
        (npy(SOUND)[1:], "its header is damaged"),
        (npy(SOUND, 2, size=2**32 - 1), "its header is damaged"),
        (npy(""), "its header is damaged"),
        (npy("\0" * 50), "its header is damaged"),
        (npy("(" * 60_000), "cannot be read"),
        (npy("-" * 9000 + "1"), "cannot be read"),
        (npy("{[]: 1}"), "cannot be read"),
        (npy("{'descr': '<f8'}"), "cannot be read"),
        (npy(SOUND.replace("20", "9" * 5000)), "its header is damaged"),
        (npy(SOUND.replace("20", "60and")), "its header is damaged"),
        (npy(SOUND.replace("20", "20.0")), "its header is damaged"),
        (npy("__import__('os').abort()"), "its header is damaged"),
        (npy(SOUND.replace("20", "-20")), "its shape is (-20, 3)"),
        (npy(SOUND.replace("20", "True")), "its shape is (True, 3)"),
        (npy(SOUND.replace("(20, 3)", "'20'")), "its shape is 20"),
        (npy(SOUND.replace("(20, 3)", f"({'1,' * 60})")), "its shape is (1, 1,"),
        (npy(SOUND.replace("False", "'C'")), "its order is C"),
        (npy(SOUND.replace("(20, 3)", "()")), "expected an array of rows, got a single value"),
        (npy(SOUND.replace("20, 3", f"{10**16}, 0")), "expected rows of numbers, got an array of shape"),
        (npy(SOUND.replace("20", "9" * 25)), "truncated, expected 9999999999999999999999999 rows, got 20"),
        (npy(SOUND.replace("3)", "9" * 25 + ")")), "truncated, expected 20 rows, got 0"),
        (npy(SOUND.replace("False", "True").replace("20", "9" * 25)), "truncated, expected 3 columns of 9999999"),
        (npy(SOUND.replace("False", "True").replace("3)", "9" * 25 + ")")), "truncated, expected 9999999"),
        (npy(SOUND.replace("<f8", "<f3")), "'<f3' not understood"),
        (npy(SOUND.replace("<f8", "<c16")), "expected numbers, got dtype complex128"),
        (npy(SOUND.replace("<f8", "<U9")), "expected numbers, got dtype <U9"),
        (npy(SOUND.replace("<f8", "|V8")), "expected numbers, got dtype |V8"),
        (npy(SOUND.replace("<f8", "<M8[ns]")), "expected numbers, got dtype <M8[ns]"),
        (npy(SOUND.replace("<f8", "|O")), "expected numbers, got Python objects"),
        (npy(SOUND.replace("'<f8'", "[('a', '<f8')]")), "expected numbers, got dtype [('a', '<f8')]"),
    ],
)
def test_an_odd_npy_header_is_refused(tmp_path, data, message, packed):
    path = tmp_path / ("x.npy.gz" if packed else "x.npy")
    path.write_bytes(gzip.compress(data) if packed else data)
    assert message in outcome(path, None)


@pytest.mark.parametrize(
    "data",
    [
        npy(SOUND, 2),
        npy(SOUND, 3),
        npy(SOUND.replace("(20, 3)", "(20L, 3L)")),
        npy(SOUND.replace("'", '"')),
        npy(SOUND.replace("<f8", ">f8")),
        npy(SOUND.replace("<f8", "<f2"), data=bytes(120)),
        npy(SOUND.replace("<f8", "|b1"), data=bytes(60)),
        npy(SOUND.replace("False", "True")),
        npy("{'shape': (20, 3), 'fortran_order': False, 'descr': '<f8'}" + " " * 60_000, 2),
    ],
)
def test_an_unusual_npy_is_read(tmp_path, data):
    (tmp_path / "x.npy").write_bytes(data)
    (block,) = open_rows(tmp_path / "x.npy").blocks()
    np.testing.assert_array_equal(block, np.zeros((20, 3)))


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path, monkeypatch):
    """Also in column order: a mapped file that shrinks would end the process with SIGBUS."""
    monkeypatch.setattr("aeedge.files.npy.BLOCK_BYTES", 4096)
    for name, order in (("c.npy", "C"), ("f.npy", "F")):
        np.save(tmp_path / name, np.ones((50_000, 3), order=order))
        blocks = open_rows(tmp_path / name).blocks()
        next(blocks)
        os.truncate(tmp_path / name, 100_000)
        with pytest.raises(InputError, match="truncated"):
            list(blocks)


def archive(method=zipfile.ZIP_STORED, **members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as opened:
        for name, data in members.items():
            opened.writestr(f"{name}.npy", data)
    return stream.getvalue()


def test_an_encrypted_or_unknown_archive_is_refused(tmp_path):
    plain, path = archive(X=npy(SOUND)), tmp_path / "x.npz"
    directory = plain.rfind(b"PK\x01\x02")
    for at, value, message in (
        (6, 1, "encrypted"),  # the flag in the member's header and in the directory
        (8, 99, "compression"),
        (4, 99, "version"),
    ):
        data = bytearray(plain)
        data[at] = data[directory + at + 2] = value
        path.write_bytes(data)
        assert message in outcome(path, None)
    path.write_bytes(archive())
    assert "expected one array, but it has none" in outcome(path, None)


def test_arrays_by_the_thousand_are_not_all_listed(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(archive(**{f"array_{i:05}": b"" for i in range(3000)}))
    assert outcome(path, None).endswith("array_00009 and 2,990 more); name one with --array")


def test_a_million_columns_make_no_long_message(tmp_path):
    path = tmp_path / "x.csv"
    names = [f"column_{i}" for i in range(1_000_000)]
    path.write_text(",".join(names) + "\n" + ",".join(["1"] * 3) + "\n")
    assert "cells, got 3" in outcome(path, None) or "columns" in outcome(path, None)
    path.write_text(",".join(names) + "\n" + ",".join(["1"] * 1_000_000) + "\n")
    for columns in (["a"], [*names[:-1], "a"]):
        assert "expected a column 'a', got column_0, " in outcome(path, Wanted(columns))


def test_a_column_with_a_long_name_makes_no_long_message(tmp_path):
    path, name = tmp_path / "x.csv", "n" * 100_000
    path.write_text(f"{name},b\n1,2\nx,3\n")
    assert "expected a number, got 'x'" in outcome(path, None)
    assert "expected a column 'b" in outcome(path, Wanted([name, "b" * 100_000]))
    path.write_text(f"{name},{name}\n1,2\n")
    assert "twice in the header" in outcome(path, None)


@pytest.mark.parametrize("line", [1, 5000])
@pytest.mark.parametrize("cell", ["9" * 200_000, '"' + "x\n" * 100_000])
def test_a_cell_beyond_the_limit_of_csv_is_refused(tmp_path, line, cell):
    rows = ["1,2"] * 6000
    rows[line] = f"{cell},2"
    (tmp_path / "x.csv").write_text("\n".join(rows))
    outcome(tmp_path / "x.csv", None)
    rows[line] = (f'"{cell}',)
    (tmp_path / "x.csv").write_text("\n".join(map(str, rows)))
    assert outcome(tmp_path / "x.csv", None) != "rows"


@pytest.mark.parametrize("line", [1, 2, 90, 150_000])
def test_bytes_of_another_encoding_anywhere(tmp_path, line):
    rows = [b"1,2,3"] * 200_000
    rows[line] = b"1,\xff\xfe\x81,3"
    (tmp_path / "x.csv").write_bytes(b"\n".join(rows))
    assert "expected" in outcome(tmp_path / "x.csv", None)
    rows[line] = b"1,\0,3"
    (tmp_path / "x.csv").write_bytes(b"\n".join(rows))
    assert "expected" in outcome(tmp_path / "x.csv", None)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="nothing is there"):
        Source(tmp_path / "none.csv")
    with pytest.raises(InputError, match="got a folder"):
        Source(tmp_path)
    for name in ("n" * 300 + ".csv", "x" * 5000, "a\0b.csv", "file.csv/x.csv"):
        (tmp_path / "file.csv").touch()
        with pytest.raises(InputError):
            open_all([tmp_path / name])
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(tmp_path / "socket"))
        with pytest.raises(InputError, match=r"socket: expected rows .* cannot be read \(No such device"):
            Source(tmp_path / "socket")
    for place, message in (("/dev/null", "it is empty"), ("/proc/self/mem", "cannot be read")):
        with pytest.raises(InputError, match=message):
            open_all([place])


@pytest.mark.parametrize(
    ("redirection", "message"), [("<&-", "expected rows, but it is closed"), ("< /dev/zero", "got binary data")]
)
def test_standard_input_that_is_closed_or_endless(redirection, message):
    code = "from aeedge.files.rows import open_all\nopen_all(['-'])"
    line = ["bash", "-c", f'"$0" -c "$1" {redirection}', sys.executable, code]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert "aeedge.errors.InputError: standard input: " in done.stderr
    assert message in done.stderr


def test_an_exception_of_a_caller_is_not_taken_for_damage(tmp_path):
    class StopError(Exception):
        pass

    (tmp_path / "x.csv").write_bytes(damage.tables()["x.csv"])

    def read():
        for _ in open_rows(tmp_path / "x.csv").blocks():
            raise StopError

    with pytest.raises(StopError):
        read()


def test_messages_are_short_and_printable():
    text = str(InputError("x" * 10**7 + "\x1b[31m\n\r\u202e what to do"))
    assert text.isprintable()
    assert len(text) < 2100
    assert text.endswith(r"\x1b[31m\n\r\u202e what to do")
