"""Files of rows: what is read comes out, block by block, and every fault is named with its place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aeedge.errors import InputError
from aeedge.files import delimited, npy
from aeedge.files.rows import Wanted, open_rows
from aeedge.files.writing import Layout, row_writer


def read(path, columns=None, **options):
    rows = open_rows(path, Wanted(columns), **options)
    return np.concatenate(list(rows.blocks()))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(npy, "BLOCK_BYTES", 200)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 200)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", ">i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_round_trip(tmp_path, dtype, order):
    x = np.asarray((np.arange(3000) % 250).reshape(1000, 3), dtype, order=order)
    np.save(tmp_path / "x.npy", x)
    rows = open_rows(tmp_path / "x.npy")
    assert rows.count == 1000
    assert len(list(rows.blocks())) > 5
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks())), x)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_takes_the_only_array_or_x_or_the_one_named(tmp_path, save):
    x, y = np.arange(60.0).reshape(20, 3), np.arange(20)
    save(tmp_path / "one.npz", data=x)
    save(tmp_path / "two.npz", X=x, y=y)
    save(tmp_path / "other.npz", a=x, b=x + 1)
    np.testing.assert_array_equal(read(tmp_path / "one.npz"), x)
    np.testing.assert_array_equal(read(tmp_path / "two.npz"), x)
    np.testing.assert_array_equal(read(tmp_path / "other.npz", array="b"), x + 1)
    with pytest.raises(InputError, match=r"got 2 \(a, b\); name one with --array"):
        read(tmp_path / "other.npz")
    with pytest.raises(InputError, match="expected an array 'c', got a, b"):
        read(tmp_path / "other.npz", array="c")


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", [True, False])
def test_csv_with_any_delimiter_with_or_without_header(tmp_path, delimiter, header):
    x = np.random.default_rng(0).normal(size=(50, 3))
    lines = [delimiter.join(map(repr, row)) for row in x.tolist()]
    text = "\n".join([delimiter.join(["a", "b", "c"])] * header + lines) + "\n\n"
    (tmp_path / "x.csv").write_text(text)
    np.testing.assert_array_equal(read(tmp_path / "x.csv"), x)
    assert open_rows(tmp_path / "x.csv", Wanted(["c", "a"]) if header else None).notes == (
        ["columns that the model does not use: b"] if header else []
    )


def test_csv_columns_are_taken_by_name(tmp_path):
    (tmp_path / "x.csv").write_text("time,b,a\n1,2,3\n4,5,6\n")
    rows = open_rows(tmp_path / "x.csv", Wanted(["a", "b"]))
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks())), [[3, 2], [6, 5]])
    assert rows.notes == ["columns that the model does not use: time"]
    with pytest.raises(InputError, match="expected a column 'c', got time, b, a"):
        open_rows(tmp_path / "x.csv", Wanted(["a", "c"]))


def test_csv_with_other_names_is_read_in_order_with_a_note(tmp_path):
    (tmp_path / "x.csv").write_text("p,q\n1,2\n")
    rows = open_rows(tmp_path / "x.csv", Wanted(["a", "b"]))
    np.testing.assert_array_equal(next(rows.blocks()), [[1, 2]])
    assert "columns are read in order" in rows.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("a,b\n1,2\n3,x\n", r"line 3, column 2 \('b'\): expected a number, got 'x'"),
        ("a,b\n1,2\n3,\n", r"line 3, column 2 \('b'\): expected a number, got nothing \(a missing value\)"),
        ("1,2\n3\n", "line 2: expected 2 cells, got 1"),
        ("1,2\n3,4,5\n", "line 2: expected 2 cells, got 3"),
        ("a,a\n1,2\n", "got 'a' twice in the header"),
    ],
)
def test_faults_of_a_csv_are_named(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "x.csv")


def test_a_csv_that_is_not_text(tmp_path):
    (tmp_path / "x.csv").write_bytes(bytes(range(256)) * 10)
    with pytest.raises(InputError, match=r"expected text \(UTF-8\), got binary data") as caught:
        read(tmp_path / "x.csv")
    assert str(caught.value).isprintable()


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="nothing is there"):
        open_rows(tmp_path / "none.npy")
    (tmp_path / "x.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"expected \.npy, \.npz, \.parquet, .*, got '\.xlsx'; convert"):
        open_rows(tmp_path / "x.xlsx")


def test_a_damaged_npy(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((100, 3)))
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="truncated, expected 100 rows, got 4"):
        read(tmp_path / "x.npy")
    (tmp_path / "x.npy").write_bytes(b"no numpy")
    with pytest.raises(InputError, match="expected numpy's format"):
        read(tmp_path / "x.npy")
    np.save(tmp_path / "o.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(InputError, match="got Python objects"):
        read(tmp_path / "o.npy")
    (tmp_path / "x.npz").write_bytes(b"PK no zip")
    with pytest.raises(InputError, match=r"expected an \.npz archive"):
        read(tmp_path / "x.npz")


@settings(deadline=None, max_examples=50)
@given(
    x=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=20),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    ),
    suffix=st.sampled_from([".npy", ".csv"]),
    cut=st.integers(0, 20),
)
def test_what_is_written_reads_back_to_the_bit(tmp_path, x, suffix, cut):
    path = tmp_path / f"x{suffix}"
    with row_writer(path, Layout.of_array(x.shape[1:], [f"c{i}" for i in range(x.shape[1])]), overwrite=True) as writer:
        writer.write(x[:cut])
        writer.write(x[cut:])
    np.testing.assert_array_equal(read(path).astype(np.float32), x)
    if suffix == ".npy":
        np.testing.assert_array_equal(np.load(path), x)


def test_output_is_not_overwritten_unasked(tmp_path):
    (tmp_path / "x.npy").write_text("precious")
    with (
        pytest.raises(InputError, match=r"already exists; .*overwrite=True"),
        row_writer(tmp_path / "x.npy", Layout.of_array((1,), ["a"]), overwrite=False),
    ):
        pass
    assert (tmp_path / "x.npy").read_text() == "precious"


def test_an_output_of_another_suffix(tmp_path):
    with (
        pytest.raises(InputError, match=r"ends in \.npy, \.csv, .*\.ndjson, got '\.txt'"),
        row_writer(tmp_path / "x.txt", Layout.of_array((1,), ["a"]), overwrite=False),
    ):
        pass


@pytest.mark.parametrize("missing", [False, True])
def test_a_cell_that_no_model_takes_is_named_by_its_line_also_where_missing_ones_are_taken(tmp_path, missing):
    from aeedge.files.rows import open_rows, row_place

    (tmp_path / "x.csv").write_text('a,b\n1,2\n\n3,"inf"\n')
    (tmp_path / "y.jsonl").write_text('{"a": 1, "b": 2}\n\n{"a": 3, "b": 1e99}\n')
    np.save(tmp_path / "z.npy", np.zeros((3, 2)))
    for name, line in (("x.csv", 4), ("y.jsonl", 3)):
        with pytest.raises(InputError, match=rf"{name}, line {line}, .*expected a finite number that fits float32"):
            list(open_rows(tmp_path / name, missing=missing, infinite=False).blocks())
        (block,) = open_rows(tmp_path / name, missing=True).blocks()
        assert np.abs(block[1, 1]) > 1e38
    files = [tmp_path / name for name in ("x.csv", "z.npy", "y.jsonl")]
    places = [row_place(files, row).removeprefix(f"{tmp_path}/") for row in range(7)]
    assert places == [
        *("x.csv, line 2", "x.csv, line 4"),
        *(f"z.npy, row {row} (counted from 0)" for row in range(3)),
        *("y.jsonl, line 1", "y.jsonl, line 3"),
    ]
