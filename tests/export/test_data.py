"""Files to train on: every format gives the same rows, and errors name the place."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from aeedge.errors import InputError
from aeedge_export.data.files import read

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3) / 7


def write(path, text):
    path.write_text(text)
    return path


def test_npy_stays_on_disk(tmp_path):
    np.save(tmp_path / "x.npy", ROWS)
    X = read(tmp_path / "x.npy").X
    assert isinstance(X, np.memmap)
    np.testing.assert_array_equal(X, ROWS)


def test_npz(tmp_path):
    np.savez(tmp_path / "x.npz", X=ROWS, y=np.zeros(4))
    np.testing.assert_array_equal(read(tmp_path / "x.npz").X, ROWS)
    with pytest.raises(InputError, match=r"shape \(4,\)"):
        read(tmp_path / "x.npz", array="y")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_with_and_without_header(tmp_path, delimiter):
    lines = [delimiter.join(map(repr, row)) for row in ROWS.astype(float).tolist()]
    named = read(write(tmp_path / "a.csv", "\n".join([delimiter.join(["u", "v", "w"]), *lines])))
    plain = read(write(tmp_path / "b.csv", "\n".join(lines) + "\n"))
    np.testing.assert_array_equal(named.X, ROWS)
    np.testing.assert_array_equal(plain.X, ROWS)
    assert named.features == ("u", "v", "w")
    assert plain.features is None


def test_columns_and_drop(tmp_path):
    path = write(tmp_path / "x.csv", "when,a,b\n2026-01-01,1,2\n2026-01-02,3,4\n")
    dropped = read(path, drop=["when"])
    np.testing.assert_array_equal(dropped.X, [[1, 2], [3, 4]])
    assert dropped.features == ("a", "b")
    assert read(path, columns=["b"]).features == ("b",)
    with pytest.raises(InputError, match="expected a column 'c', got when, a, b"):
        read(path, columns=["c"])
    with pytest.raises(InputError, match="no column is left"):
        read(path, drop=["when", "a", "b"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,x\n", r"line 3, column 2 \('b'\): expected a number, got 'x'; .*--drop b"),
        ("a,b\n1,\n3,4\n", r"line 2, column 2 \('b'\): expected a number, got nothing"),
        ("a,b\n1,2\n3\n", "line 3: expected 2 cells, got 1"),
        ("a,b\n", "it has none"),
        ("", "it is empty"),
    ],
)
def test_faults_of_a_csv_are_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(write(tmp_path / "x.csv", text))


def test_parquet(tmp_path):
    pa.parquet.write_table(pa.table({"a": [1, 2], "b": [0.5, 1.5], "s": ["x", "y"]}), tmp_path / "x.parquet")
    found = read(tmp_path / "x.parquet", drop=["s"])
    np.testing.assert_array_equal(found.X, [[1, 0.5], [2, 1.5]])
    assert found.features == ("a", "b")
    assert read(tmp_path / "x.parquet").features == ("a", "b")
    with pytest.raises(InputError, match="column 's': expected numbers, got text"):
        read(tmp_path / "x.parquet", columns=["a", "s"])
    pa.parquet.write_table(pa.table({"a": [1.0, None]}), tmp_path / "n.parquet")
    with pytest.raises(InputError, match=r"row 1 \(counted from 0\), column 'a': expected a number, got nothing"):
        read(tmp_path / "n.parquet")
    with pytest.raises(InputError, match="expected a Parquet file"):
        read(write(tmp_path / "bad.parquet", "no"))


def test_image_folders(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        (tmp_path / f"class{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"class{i % 2}" / f"{i}.png")
    found = read(tmp_path).X
    assert found.shape == (5, 3, 8, 6)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[1], pixels[2].transpose(2, 0, 1))
    Image.new("L", (6, 8)).save(tmp_path / "z.png")
    with pytest.raises(InputError, match=r"z\.png: expected RGB, as 0\.png has, got grey"):
        read(tmp_path)
    left = read(tmp_path, labels="folders", skip_bad=True)
    np.testing.assert_array_equal(left.X, found)
    assert left.labels.tolist() == ["class0"] * 3 + ["class1"] * 2
    assert any("1 of 6 files are left out" in note for note in left.notes)
    assert read(tmp_path / "class0", resize=(4, 3)).X.shape == (3, 3, 4, 3)


def test_each_page_has_the_label_of_its_file(tmp_path):
    pages = [Image.fromarray(np.full((4, 6), 1000 * i, np.uint16)) for i in range(4)]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    pages[0].save(tmp_path / "a" / "x.tif", save_all=True, append_images=pages[1:3])
    pages[3].save(tmp_path / "b" / "y.png")
    found = read(tmp_path, labels="folders")
    assert found.X.dtype == np.int16
    assert found.X[:, 0, 0, 0].tolist() == [0, 1000, 2000, 3000]
    assert found.labels.tolist() == ["a", "a", "a", "b"]
    np.testing.assert_array_equal(read(tmp_path / "a" / "x.tif").X, found.X[:3])


def test_grey_images_have_one_channel(tmp_path):
    Image.new("L", (6, 8), 7).save(tmp_path / "a.png")
    Image.new("L", (6, 8), 9).save(tmp_path / "b.png")
    assert read(tmp_path).X.shape == (2, 1, 8, 6)


def test_other_faults(tmp_path):
    with pytest.raises(InputError, match="nothing is there"):
        read(tmp_path / "none.csv")
    with pytest.raises(InputError, match="expected images"):
        read(tmp_path)
    with pytest.raises(InputError, match=r"got '\.xlsx'"):
        read(write(tmp_path / "x.xlsx", "x"))
    write(tmp_path / "broken.png", "no image")
    with pytest.raises(InputError, match=r"broken\.png: expected an image"):
        read(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read(write(tmp_path / "x.npy", "no numpy"))
    np.save(tmp_path / "x.npy", ROWS)
    with pytest.raises(InputError, match="slice the array instead"):
        read(tmp_path / "x.npy", drop=["a"])
    for options in ({"resize": (2, 2)}, {"skip_bad": True}):
        with pytest.raises(InputError, match=r"x\.npy: only images can be resized"):
            read(tmp_path / "x.npy", **options)
