"""How a text file is written is found out from its first lines: delimiter, decimal mark, header, units, encoding."""

import gzip
import io
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from aeedge.errors import InputError
from aeedge.files.dialect import Dialect, number
from aeedge.files.rows import Wanted, open_all, open_rows
from aeedge.files.sniffing import DialectOptions, detect, fits
from aeedge.files.source import Source

RNG = np.random.default_rng(3)
X = np.round(RNG.normal(size=(12, 3)) * [1, 100, 0.01], 5)


def table(delimiter=",", decimal=".", names=("u", "v", "w"), rows=X, end="\n"):
    lines = [delimiter.join(names)] if names else []
    lines += [delimiter.join(repr(v).replace(".", decimal) for v in row) for row in rows.tolist()]
    return end.join(lines) + end


def head(text, **dialect):
    data = text if isinstance(text, bytes) else text.encode()
    return detect(data, True, "x.csv", DialectOptions(**dialect))


def read(path, text, columns=None, **options):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return np.concatenate(list(open_rows(path, Wanted(columns), **options).blocks()))


@pytest.mark.parametrize("names", [("u", "v", "w"), ()])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " "])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_delimiter_decimal_mark_and_line_end(tmp_path, names, delimiter, decimal, end):
    if (delimiter, decimal) == (",", ","):
        pytest.skip("needs quotes, see below")
    text = table(delimiter, decimal, names, end=end)
    found = head(text)
    assert (found.dialect.delimiter, found.dialect.decimal, found.names) == (delimiter, decimal, names or None)
    np.testing.assert_array_equal(read(tmp_path / "x.csv", text), X)


@pytest.mark.parametrize(
    ("text", "names", "rows"),
    [
        ("\n\nu,v\n1,2\n\n3,4\n\n", ("u", "v"), [[1, 2], [3, 4]]),
        ("# made by hand\nu,v\n# a comment\n1,2\n3,4\n", ("u", "v"), [[1, 2], [3, 4]]),
        ("# u,v\n1,2\n3,4\n", ("u", "v"), [[1, 2], [3, 4]]),
        ("# two words here\n1,2\n3,4\n", None, [[1, 2], [3, 4]]),
        ('"u","v, too"\n"1","2"\n"3","4"\n', ("u", "v, too"), [[1, 2], [3, 4]]),
        ("'u','v'\n'1','2'\n'3','4'\n", ("u", "v"), [[1, 2], [3, 4]]),
        ('u,v\n"1\n",2\n3,4\n', ("u", "v"), [[1, 2], [3, 4]]),
        ('u;v\n"1,5";2\n3,25;4\n', ("u", "v"), [[1.5, 2], [3.25, 4]]),
        ('u,v\n"1,5",2\n"3,25",4\n', ("u", "v"), [[1.5, 2], [3.25, 4]]),
        ("temperature\n21,5\n22,1\n20,9\n", ("temperature",), [[21.5], [22.1], [20.9]]),
        ("sep=;\nu;v\n1;2\n3;4\n", ("u", "v"), [[1, 2], [3, 4]]),
        ("u,v,\n1,2,\n3,4,\n", ("u", "v", ""), [[1, 2, np.nan], [3, 4, np.nan]]),
        ("u,v\n1,2,\n3,4,\n", ("u", "v"), [[1, 2], [3, 4]]),
        ('"u" "v"\n"1" 5 2\n"2" 6 4\n', ("", "u", "v"), [[1, 5, 2], [2, 6, 4]]),
        ("  u    v\n  1.0  2\n 30.0  4\n", ("u", "v"), [[1, 2], [30, 4]]),
        ("u, v\n1, 2\n3, 4\n", ("u", "v"), [[1, 2], [3, 4]]),
        ("u,v\n1,True\n3,FALSE\n", ("u", "v"), [[1, 1], [3, 0]]),
        ("u,v\n1,\nNA,4\n-,N/A\n", ("u", "v"), [[1, np.nan], [np.nan, 4], [np.nan, np.nan]]),
        ("u,v\n1e-3,+2\n.5,-4.E2\n", ("u", "v"), [[1e-3, 2], [0.5, -400]]),
    ],
)
def test_what_people_write(tmp_path, text, names, rows):
    assert head(text).names == names
    np.testing.assert_array_equal(read(tmp_path / "x.csv", text, missing=True), rows)


def test_a_row_of_units_under_the_names():
    found = head("time,temp,press\ns,°C,hPa\n0,21.5,1013\n1,21.6,1012\n")
    assert (found.names, found.units) == (("time", "temp", "press"), ("s", "°C", "hPa"))
    assert head("a,b\nx,NA\n1,2\n3,4\n").units == ("x", "NA")
    assert head("a,b\nNA,NA\n1,2\n3,4\n").units is None  # a row without values
    assert head("a,kind\n1,ok\n2,bad\n").units is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
def test_encodings(tmp_path, encoding):
    text = table(names=("Länge", "Größe", "µm"))
    np.testing.assert_array_equal(read(tmp_path / "x.csv", text.encode(encoding), ["µm", "Länge"]), X[:, [2, 0]])


@pytest.mark.parametrize(
    "first",
    [
        "400,440,480,520",
        "2015,2016,2017,2018",
        "0,1,2,3",
        "1,2,3,4",
        "2500,2460,2420,2380",
        "399.8,441.2,480.1,519.9",
    ],
)
def test_names_that_are_numbers(first):
    rows = "\n".join(",".join(f"{v:.4f}" for v in row) for row in np.random.default_rng(1).normal(size=(20, 4)))
    found = head(f"{first}\n{rows}\n")
    assert found.names == tuple(first.split(","))
    assert "was taken for the names" in found.notes[0]
    assert "--no-header" in found.notes[0]
    assert head(f"{first}\n{rows}\n", header=False).names is None


@pytest.mark.parametrize("first", ["400,440,480,520,560", "1,2,4,8,16,32,64,128", "2024,2023,2022"])
def test_names_that_are_numbers_over_counts(first):
    width = first.count(",") + 1
    counts = np.random.default_rng(2).integers(0, 4000, (20, width)).tolist()
    found = head("\n".join([first, *(",".join(map(str, row)) for row in counts)]) + "\n")
    assert found.names == tuple(first.split(","))


@pytest.mark.parametrize("first", ["0,0,0,0", "1,1,2,2", "0,7,3,9"])
def test_a_row_that_is_far_from_the_others_is_no_header(first):
    rows = (500 + np.random.default_rng(2).integers(0, 9, (20, 4))).tolist()
    assert head("\n".join([first, *(",".join(map(str, row)) for row in rows)]) + "\n").names is None


@pytest.mark.parametrize("seed", range(20))
def test_a_first_row_of_numbers_is_a_row_if_it_is_like_the_others(seed):
    rng = np.random.default_rng(seed)
    for rows in (
        rng.normal(size=(30, 4)).round(3),
        rng.integers(0, 100, (30, 5)),
        rng.integers(0, 2, (30, 6)),
        np.sort(rng.integers(0, 1000, (30, 6)), axis=1),
        np.cumsum(rng.random((30, 5)), axis=1).round(3),
        rng.permuted(np.tile(np.arange(1, 5), (30, 1)), axis=1),
        np.arange(120).reshape(30, 4),
        rng.normal([1, 100, 1000], [0.1, 5, 50], (30, 3)).round(2),
    ):
        text = "\n".join(",".join(map(str, row)) for row in rows.tolist()) + "\n"
        assert head(text).names is None, text[:80]
    assert head(text, header=True).names == tuple(text.splitlines()[0].split(","))


def test_a_file_without_a_header_may_hold_text():
    connections = "".join(f"0,tcp,{s},SF,{200 + i},normal.\n" for i, s in enumerate(["http", "smtp"] * 10))
    found = head(connections)
    assert found.names is None
    assert found.width == 6
    assert "taken for a row" in found.notes[0]
    assert head("2026-01-01 00:00,1.5\n2026-01-01 00:01,1.6\n").names is None
    assert head("time,v\n2026-01-01 00:00,1.5\n2026-01-01 00:01,1.6\n").names == ("time", "v")
    assert head("0,1,label\n0.5,2.5,ok\n1.5,0.2,bad\n1.1,0.2,ok\n1.1,0.2,ok\n").names == ("0", "1", "label")


def test_numbers():
    assert number(" 1.5 ") == 1.5
    assert number("1,5", ",") == 1.5
    assert np.isnan(number("n/a"))
    for text in ("1_000", "١", "0x10", "1.2.3", "12 %", "x"):
        assert number(text) is None
    assert number("1.5", ",") is None  # thousands, or the wrong mark: never silently one of both


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'u,v\n1,"1,234.5"\n2,"2,345.6"\n',
            r"line 2, column 2 \('v'\): expected a number, got '1,234.5' with separators",
        ),
        ("u;v\n1;2\n3;4\n" + "5;6\n" * 200 + "7;1,5\n", r"line 204, .*got '1,5' with a decimal comma \(--decimal ,\)"),
        ("u,v\n1,2\n3,4,5\n", "line 3: expected 2 cells, got 3"),
        ('u,v\n1,2\n3,"4\n', "line 3: expected cells whose quotes match"),
        ("u,u\n1,2\n", "'u' twice in the header"),
        ("Device: X\n\nu,v,w\n1,2,3\n4,5,6\n", r"expected names of 3 columns above the rows, got 1 \(Device: X\)"),
        ("u,v\n1,2\n3," + "x" * 1000 + "\n", r"line 3, column 2 \('v'\): expected a number, got 'x{40}…'"),
        ('u,v\n1,2\n3,"' + "4\n" * 100_000, "line 3: expected cells of at most 131072 characters, got a longer one"),
        ("u,v\n1,2\n3,inf\n", "line 3, .*expected a finite number that fits float32, got 'inf'"),
        ("u,v\n1,2\n3,-1e300\n", "line 3, .*expected a finite number that fits float32, got '-1e300'"),
        ('u,v\n"1\n",2\n\n# note\n3,oops\n', r"line 6, column 2 \('v'\): expected a number, got 'oops'"),
    ],
)
def test_faults_name_line_and_column(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path / "x.csv", text)


def test_bytes_of_another_encoding_late_in_a_file(tmp_path):
    with pytest.raises(InputError, match=r"after line \d+: expected text in utf-8"):
        read(tmp_path / "x.csv", b"u,v\n" + b"1,2\n" * 100_000 + b"3,\xff\n")


def test_only_needed_columns_must_hold_numbers(tmp_path):
    text = 'time,u,site,v\n2026-01-01,1,"Smith, John",2\n2026-01-02,3,"multi\nline",4\n'
    np.testing.assert_array_equal(read(tmp_path / "x.csv", text, ["v", "u"]), [[2, 1], [4, 3]])


def test_a_recorded_dialect_decides_what_a_short_file_leaves_open(tmp_path):
    recorded = Dialect(";", ",", "row")._asdict() | {"width": 2, "columns": [0, 1]}
    (tmp_path / "x.csv").write_text("400;440\n1;2\n")  # by itself a file of two rows
    rows = open_rows(tmp_path / "x.csv", Wanted(("440", "400"), recorded=recorded))
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks())), [[2, 1]])
    assert rows.notes == []
    plain = Dialect()._asdict() | {"width": 3, "columns": [2, 0]}
    (tmp_path / "y.csv").write_text("0,a,2\n1,b,3\n")
    rows = open_rows(tmp_path / "y.csv", Wanted(("x2", "x0"), recorded=plain))
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks())), [[2, 0], [3, 1]])
    (tmp_path / "named.csv").write_text("u,v,w\n0,a,2\n1,b,3\n")  # other than the file that was recorded
    rows = open_rows(tmp_path / "named.csv", Wanted(("w", "u"), recorded=plain))
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks())), [[2, 0], [3, 1]])
    other = Dialect("|")._asdict() | {"width": 2, "columns": [0, 1]}
    np.testing.assert_array_equal(read(tmp_path / "z.csv", "1,2\n3,4\n"), [[1, 2], [3, 4]])
    assert fits(b"1,2\n3,4\n", True, "z.csv", Dialect.parse(other), 2) is None
    assert Dialect.parse({"delimiter": "§"}) is None  # of a later version: found out instead


@pytest.mark.parametrize("name", ["x.csv.gz", "x.txt.gz", "x.npy.gz", "x.parquet.gz"])
def test_compressed_files(tmp_path, name):
    plain = io.BytesIO()
    if "npy" in name:
        np.save(plain, X)
    elif "parquet" in name:
        pq = pytest.importorskip("pyarrow.parquet")
        import pyarrow as pa

        pq.write_table(pa.table({"u": X[:, 0], "v": X[:, 1], "w": X[:, 2]}), plain)
    else:
        plain.write(table().encode())
    (tmp_path / name).write_bytes(gzip.compress(plain.getvalue()))
    np.testing.assert_array_equal(np.concatenate(list(open_rows(tmp_path / name).blocks())), X)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "npy"])
def test_named_pipes(tmp_path, kind):
    stored = io.BytesIO()
    if kind == "npy":
        np.save(stored, np.tile(X, (20_000, 1)))
    else:
        stored.write(table(rows=np.tile(X, (20_000, 1))).encode())
    data = gzip.compress(stored.getvalue(), 1) if kind.endswith("gz") else stored.getvalue()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    rows = open_rows(pipe)
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks())), np.tile(X, (20_000, 1)))
    writer.join()
    with pytest.raises(InputError, match="a pipe can be read only once"):
        next(rows.blocks())


def test_standard_input():
    code = "import numpy as np; from aeedge.files.rows import open_rows\n"
    code += "for path in ('-',): print(np.concatenate(list(open_rows(path).blocks())).sum().round(5))"
    done = subprocess.run([sys.executable, "-c", code], input=table(), capture_output=True, text=True, check=True)
    assert float(done.stdout) == round(float(X.sum()), 5)


def test_several_files_and_folders(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    for i in range(3):
        (folder / f"part-{i}.csv").write_text(table(rows=X[4 * i : 4 * i + 4]))
    (folder / "_SUCCESS").write_text("")
    (folder / ".hidden.csv").write_text("no,numbers\n")
    for paths in ([folder], sorted(folder.glob("part*"))):
        rows = open_all(paths, Wanted(("w", "u")))
        np.testing.assert_array_equal(np.concatenate(list(rows.blocks())), X[:, [2, 0]])
        assert rows.notes == ["columns that the model does not use: v"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected images or files of rows"):
        open_all([tmp_path / "empty"])


def test_an_index_column_is_left_out_where_the_model_has_no_names(tmp_path):
    (tmp_path / "x.csv").write_text(",0,1,2\n" + "".join(f"{i},{r[0]},{r[1]},{r[2]}\n" for i, r in enumerate(X)))
    rows = open_rows(tmp_path / "x.csv", Wanted(shape=(3,)))
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks())), X)
    assert rows.notes[-1] == "columns without a name were left out"


@pytest.mark.parametrize(("name", "module", "extra"), [("x.parquet", "pyarrow", "arrow"), ("x.png", "PIL", "images")])
def test_an_extra_that_is_missing_is_named(tmp_path, monkeypatch, name, module, extra):
    (tmp_path / name).write_bytes(b"PAR1 and more")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"pip install 'aeedge\[{extra}\]'"):
        open_all([tmp_path / name], Wanted(shape=(1, 2, 2)))


def test_options_that_a_file_does_not_take_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.csv").write_text(table())
    for name, options, message in (
        ("x.csv", {"array": "a"}, r"only \(--array a\)"),
        ("x.npy", {"dialect": DialectOptions(header=True)}, "only text files have a header"),
        ("x.csv", {"resize": (2, 2)}, "only images can be resized"),
        ("x.npy", {"skip_bad": True}, "only images can be resized or skipped"),
    ):
        with pytest.raises(InputError, match=message):
            open_all([tmp_path / name], **options)


def test_a_large_array_without_line_ends_is_not_read_to_find_out_its_kind(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((300_000, 3)))
    assert len(Source(tmp_path / "x.npy").head) < 2**20


@pytest.mark.parametrize("suffix", ["csv", "npy", "npz"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "flipped early"])
def test_damaged_gzip_is_one_sentence(tmp_path, suffix, damage):
    rows, plain = np.random.default_rng(0).normal(size=(40_000, 3)), io.BytesIO()
    if suffix == "csv":
        plain.write(table(rows=rows).encode())
    else:
        (np.save if suffix == "npy" else np.savez)(plain, rows)
    data = bytearray(gzip.compress(plain.getvalue()))
    if damage == "cut":
        del data[-len(data) // 4 :]
    else:
        at = 20 if damage == "flipped early" else len(data) * 3 // 4
        data[at : at + 40] = bytes(255 - byte for byte in data[at : at + 40])
    path = tmp_path / f"x.{suffix}.gz"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"cannot be read|expected a number|expected 3 cells|damaged|got binary data"):
        np.concatenate(list(open_rows(path).blocks()))
