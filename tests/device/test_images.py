"""Images become rows with the values that were saved, or are refused by name: nothing is clipped or lost in silence."""

import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aeedge.errors import InputError
from aeedge.files.images import Images, image_files

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 4, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 4), dtype=np.uint8)


def read(*paths, **options):
    return Images(paths, **options).read()


def notes(*paths, **options):
    images = Images(paths, **options)
    images.read()
    return "\n".join(images.notes)


def write_png(path, values, colour_type, bits):
    """A PNG with more bits than Pillow writes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, colour_type, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


def write_tiff(path, values, sample_format):
    """A TIFF of any type: sample format 1 is unsigned, 2 signed, 3 float."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    bits = 8 * values.itemsize
    spare = b"".join(struct.pack(f"<{channels}H", *[value] * channels) for value in (bits, sample_format))
    after = 8 + 2 + 10 * 12 + 4
    bits_at = bits if channels == 1 else after
    format_at = sample_format if channels == 1 else after + 2 * channels
    tags = [
        (256, 1, width),
        (257, 1, height),
        (258, channels, bits_at),
        (259, 1, 1),
        (262, 1, 2 if channels == 3 else 1),
        (273, 1, after + len(spare)),
        (277, 1, channels),
        (278, 1, height),
        (279, 1, values.nbytes),
        (339, channels, format_at),
    ]
    entries = b"".join(
        struct.pack("<HHII", tag, 4 if count > 1 or tag in (273, 279) else 3, count, value)
        if count == 1
        else struct.pack("<HHII", tag, 3, count, value)
        for tag, count, value in tags
    )
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, 10) + entries + bytes(4) + spare + values.tobytes())
    return path


@pytest.mark.parametrize(
    ("name", "values", "dtype"),
    [
        ("8-bit.png", GREY, np.uint8),
        ("8-bit.bmp", GREY, np.uint8),
        ("8-bit.pgm", GREY, np.uint8),
        ("8-bit.tif", GREY, np.uint8),
        ("12-bit.png", np.array([[0, 1, 255], [256, 4095, 32767]], np.uint16), np.int16),
        ("12-bit.tif", np.array([[0, 1, 255], [256, 4095, 32767]], np.uint16), np.int16),
        ("12-bit.pgm", np.array([[0, 1, 255], [256, 4095, 32767]], np.uint16), np.int16),
        ("16-bit.png", np.array([[0, 1, 255], [256, 4095, 32768]], np.uint16), np.float32),
        ("16-bit.tif", np.array([[0, 65535]], np.uint16), np.float32),
        ("32-bit.tif", np.array([[-70000, 0, 1_000_000]], np.int32), np.float32),
        ("float.tif", np.array([[-0.25, 0, 1e-6, 3e7]], np.float32), np.float32),
    ],
)
def test_values_are_those_that_were_saved(tmp_path, name, values, dtype):
    Image.fromarray(values).save(tmp_path / name)
    rows = read(tmp_path)
    assert rows.dtype == dtype
    np.testing.assert_array_equal(rows, values[np.newaxis, np.newaxis].astype(dtype))


@pytest.mark.parametrize(
    ("values", "sample_format", "dtype"),
    [
        (np.array([[-32768, -5, 32767]], np.int16), 2, np.int16),
        (np.array([[1, 2**31, 2**32 - 2**10]], np.uint32), 1, np.float32),
        (np.array([[-(2**30), 7]], np.int32), 2, np.float32),
    ],
)
def test_tiffs_of_other_types(tmp_path, values, sample_format, dtype):
    rows = read(write_tiff(tmp_path / "x.tif", values, sample_format))
    assert rows.dtype == dtype
    np.testing.assert_array_equal(rows[0, 0], values.astype(dtype))


def test_a_pgm_of_12_bits_keeps_its_values(tmp_path):
    """Pillow scales them to 16 bits."""
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    (tmp_path / "x.pgm").write_bytes(b"P5\n64 64\n4095\n" + values.astype(">u2").tobytes())
    np.testing.assert_array_equal(read(tmp_path)[0, 0], values)


@pytest.mark.parametrize(("channels", "colour_type"), [(2, 4), (3, 2), (4, 6)])
def test_a_png_of_16_bits_per_channel_is_refused(tmp_path, channels, colour_type):
    write_png(tmp_path / "x.png", RNG.integers(0, 2**16, (6, 4, channels)), colour_type, 16)
    with pytest.raises(InputError, match=r"x\.png: expected 8 bits per channel, got 16-bit (RGBA?|LA)"):
        read(tmp_path)
    write_png(tmp_path / "x.png", RNG.integers(0, 256, (6, 4, channels)), colour_type, 8)
    assert read(tmp_path).dtype == np.uint8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: write_tiff(p / "x.tif", RNG.integers(0, 2**16, (6, 4, 3), np.uint16), 1), "got 16-bit RGB"),
        (lambda p: write_tiff(p / "x.tif", RNG.integers(-9, 9, (6, 4), np.int8), 2), "got signed 8-bit"),
        (lambda p: write_tiff(p / "x.tif", RNG.random((6, 4)), 3), "none that can be read"),
        (lambda p: (p / "x.ppm").write_bytes(b"P6 1 1 65535\n" + bytes(6)), "got 16-bit RGB"),
        (lambda p: (p / "x.ppm").write_bytes(b"P3 1 1 1023\n 1 2 1023\n"), "got 16-bit RGB"),
        (lambda p: Image.new("LAB", (4, 6)).save(p / "x.tif"), "got the mode 'LAB'"),
    ],
)
def test_what_cannot_be_read_rightly_is_refused_by_name(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(InputError, match=rf"x\.\w+: expected .*{message}"):
        read(tmp_path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(tmp_path, bad):
    values = np.zeros((6, 4), np.float32)
    values[3, 2] = bad
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(InputError, match=rf"x\.tif: expected finite values, got {bad} in pixel row 3, column 2"):
        read(tmp_path)
    np.testing.assert_array_equal(read(tmp_path, finite=False)[0, 0], values)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes_of_8_bits(tmp_path, mode):
    image = Image.fromarray(COLOUR).convert(mode)
    image.save(tmp_path / "x.tif")
    expected = np.atleast_3d(np.asarray(image.convert("L" if mode in ("1", "L", "LA") else "RGB")))
    rows = read(tmp_path)
    assert rows.dtype == np.uint8
    np.testing.assert_array_equal(rows[0], expected.transpose(2, 0, 1))
    assert notes(tmp_path) == ""


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_dropped_transparency_is_noted_where_there_is_some(tmp_path, suffix):
    image = Image.fromarray(np.dstack([COLOUR, np.full((6, 4), 255, np.uint8)]))
    image.save(tmp_path / f"opaque.{suffix}", lossless=True)
    assert notes(tmp_path) == ""
    image.putpixel((0, 0), (1, 2, 3, 254))
    image.save(tmp_path / f"window.{suffix}", lossless=True, exact=True)
    assert "transparency is left out (1 of 2 files: " in notes(tmp_path)
    assert f"window.{suffix}" in notes(tmp_path)
    np.testing.assert_array_equal(read(tmp_path)[1], np.asarray(image)[..., :3].transpose(2, 0, 1))


def test_a_palette_with_a_transparent_colour_is_noted(tmp_path):
    Image.fromarray(GREY % 4, "L").convert("P").save(tmp_path / "x.png", transparency=0)
    assert "transparency is left out" in notes(tmp_path)


UPRIGHT = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: np.swapaxes(pixels, 0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(np.swapaxes(pixels, 0, 1), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("name", "values"),
    [
        *((f"colour.{suffix}", COLOUR) for suffix in ("jpg", "png", "tif", "webp")),
        *((f"grey.{suffix}", GREY) for suffix in ("jpg", "png", "tif")),
        *((f"wide.{suffix}", np.uint16(GREY) * 100) for suffix in ("png", "tif")),
        ("float.tif", np.float32(GREY) / 7),
    ],
)
def test_images_are_upright(tmp_path, orientation, name, values):
    image = Image.fromarray(values)
    exif = image.getexif()
    exif[274] = orientation
    options = {"lossless": True} if name.endswith("webp") else {"quality": 100, "subsampling": 0}
    image.save(tmp_path / name, exif=exif, **options)
    rows = read(tmp_path)
    expected = np.moveaxis(np.atleast_3d(UPRIGHT[orientation](values)), 2, 0)
    np.testing.assert_allclose(rows[0], expected, atol=3 if name.endswith("jpg") else 0)
    blocks = list(Images([tmp_path]).blocks(rows.shape[1:], rows.dtype.name))
    np.testing.assert_array_equal(np.concatenate(blocks), rows)
    assert read(tmp_path, resize=(12, 9)).shape == (1, len(expected), 12, 9)


def test_damaged_exif_does_not_lose_the_image(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "x.jpg", exif=b"Exif\0\0no such thing")
    assert read(tmp_path).shape == (1, 3, 6, 4)


@pytest.mark.parametrize(("name", "mode"), [("x.tif", "I;16"), ("x.gif", "RGB"), ("x.webp", "RGB"), ("x.png", "RGB")])
def test_each_page_or_frame_is_a_row(tmp_path, name, mode):
    pages = [np.full((6, 4), 1000 * i, np.uint16) if mode == "I;16" else np.roll(COLOUR, i, 0) for i in range(5)]
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(tmp_path / name, save_all=True, append_images=others, lossless=True)
    Image.fromarray(pages[3]).save(tmp_path / "y.png")
    images = Images([tmp_path])
    rows = images.read()
    assert [file.name for file in images.row_files] == [name] * 5 + ["y.png"]
    if name != "x.gif":  # whose palettes are approximate
        np.testing.assert_array_equal(rows[:5], [np.atleast_3d(page).transpose(2, 0, 1) for page in pages])
    assert len(np.unique(rows[:5].reshape(5, -1), axis=0)) == 5
    assert "each page or frame is a row of its own (1 of 2 files" in notes(tmp_path)


def test_pages_of_several_sizes_and_previews(tmp_path):
    large, small = Image.new("L", (4, 6), 7), Image.new("L", (2, 3), 7)
    large.save(tmp_path / "x.tif", save_all=True, append_images=[small])
    with pytest.raises(InputError, match=r"x\.tif: expected pages of one shape"):
        read(tmp_path)
    small.encoderinfo = {"tiffinfo": {254: 1}}  # a reduced copy
    large.save(tmp_path / "x.tif", save_all=True, append_images=[small])
    assert read(tmp_path).shape == (1, 1, 6, 4)
    assert "previews, and pictures beside a camera's first one, are left out (1 of 1" in notes(tmp_path)


def test_of_a_cameras_pictures_the_first_counts(tmp_path):
    main = Image.fromarray(np.tile(GREY, (3, 3)))
    main.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[Image.new("L", (2, 2))])
    assert read(tmp_path).shape == (1, 1, 18, 12)
    assert "previews" in notes(tmp_path)


def test_dtypes_of_a_folder_are_joined(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    assert read(tmp_path).dtype == np.uint8
    Image.fromarray(np.full((6, 4), 4095, np.uint16)).save(tmp_path / "b.png")
    assert read(tmp_path).dtype == np.int16
    assert "uint8 in 1 files, uint16 in 1 files" in notes(tmp_path)
    Image.fromarray(np.full((6, 4), 0.5, np.float32)).save(tmp_path / "c.tif")
    rows = read(tmp_path)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows[0, 0], GREY)
    np.testing.assert_array_equal(rows[1:, 0, 0, 0], [4095, 0.5])


@pytest.mark.parametrize(("kind", "worth"), [(np.uint8, 1), (np.uint16, 250), (np.float32, 0.01)])
def test_resizing_takes_the_mean_of_what_is_covered(tmp_path, kind, worth):
    """A linear ramp halved in size stays one, away from the border."""
    values = (np.arange(16)[:, np.newaxis] * 4 + np.arange(12) * 2) * worth
    Image.fromarray(values.astype(kind)).save(tmp_path / "x.tif")
    rows = read(tmp_path, resize=(8, 6))
    assert rows.shape == (1, 1, 8, 6)
    assert rows.dtype == {np.uint8: np.uint8, np.uint16: np.int16, np.float32: np.float32}[kind]
    means = values.reshape(8, 2, 6, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(rows[0, 0, 1:-1, 1:-1], means[1:-1, 1:-1], rtol=1e-5, atol=0.51 if worth >= 1 else 0)
    np.testing.assert_array_equal(read(tmp_path, resize=(16, 12))[0, 0], values.astype(kind))


def test_resizing_makes_one_size_of_many_upright(tmp_path):
    for i, (height, width) in enumerate([(6, 4), (20, 31), (3, 9)]):
        Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    with pytest.raises(
        InputError, match=r"2 of 3 files .*1\.png: expected the size 6×4 \(height×width\), as 0\.png has"
    ):
        read(tmp_path)
    assert read(tmp_path, resize=(8, 5)).shape == (3, 3, 8, 5)


def damaged(folder):
    """Ten good images, and one of each kind of damage; gives the names of the bad ones."""
    for i in range(10):
        Image.fromarray(np.roll(COLOUR, i, 0)).save(folder / f"good{i}.png")
    noise = Image.fromarray(RNG.integers(0, 256, (60, 40, 3), dtype=np.uint8))
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("<html>not found</html>")
    (folder / "gone.png").symlink_to(folder / "nowhere")
    noise.save(folder / "size.png")
    Image.fromarray(GREY).save(folder / "grey.png")
    for suffix in ("png", "jpg", "tif", "bmp", "webp", "ppm", "gif"):
        path = folder / f"cut.{suffix}"
        noise.resize((4, 6)).save(path)
        path.write_bytes(path.read_bytes()[:-30])
    return ["empty.png", "text.jpg", "gone.png", "size.png", "grey.png"] + [path.name for path in folder.glob("cut.*")]


def test_all_bad_files_are_listed_at_once_or_left_out(tmp_path):
    bad = damaged(tmp_path)
    with pytest.raises(InputError) as raised:
        read(tmp_path)
    message = str(raised.value)
    assert f"{len(bad)} of {10 + len(bad)} files cannot be used: " in message
    assert f"and {len(bad) - 5} more" in message
    assert sum(name in message for name in bad) == 5
    assert "good" not in message.replace("as good0.png has", "")
    assert "skip_bad=True" in message
    images = Images([tmp_path], skip_bad=True)
    rows = images.read()
    assert [file.name for file in images.row_files] == [f"good{i}.png" for i in range(10)]
    np.testing.assert_array_equal(rows, [np.roll(COLOUR, i, 0).transpose(2, 0, 1) for i in range(10)])
    assert any(f"{len(bad)} of {10 + len(bad)} files are left out" in note for note in images.notes)
    blocks = Images([tmp_path], skip_bad=True).blocks((3, 6, 4), "uint8")
    np.testing.assert_array_equal(np.concatenate(list(blocks)), rows)
    with pytest.raises(InputError, match=f"{len(bad)} of {10 + len(bad)} files"):
        list(Images([tmp_path]).blocks((3, 6, 4), "uint8"))


def test_if_all_files_are_bad_there_is_nothing_to_leave_out(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()
    for skip_bad in (False, True):
        with pytest.raises(InputError, match=r"2 of 2 files .*the file is empty"):
            read(tmp_path, skip_bad=skip_bad)


@pytest.mark.parametrize("factor", [1.5, 4])
def test_images_that_may_be_an_attack_are_bad_files(tmp_path, monkeypatch, factor):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(24 / factor))
    Image.fromarray(COLOUR).save(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"x\.png: expected an image of at most \d+ pixels"):
        read(tmp_path)


def test_grey_and_colour_are_not_mixed(tmp_path):
    for name in ("a", "b"):
        Image.fromarray(COLOUR).save(tmp_path / f"{name}.png")
    Image.fromarray(GREY).save(tmp_path / "z.png")
    with pytest.raises(InputError, match=r"z\.png: expected RGB, as a\.png has, got grey; "):
        read(tmp_path)


def test_hidden_and_other_files_are_noted(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    for name in (".DS_Store", "._a.png", ".git/x.png", "labels.csv", "README", "sub/Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files, found = image_files([tmp_path])
    assert files == [tmp_path / "a.png"]
    assert found == [
        "3 hidden files and folders are left out",
        "3 files that are no images by their names are left out (.csv, .db, no suffix)",
    ]
    assert image_files([tmp_path / "a.png"]) == ([tmp_path / "a.png"], [])


def test_files_are_sorted_within_each_folder(tmp_path):
    for name in ("b/z.png", "b/a.PNG", "a/q/x.jpeg", "a/k.tif", "c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files, _ = image_files([tmp_path / "b", tmp_path / "c.png", tmp_path / "a"])
    assert [str(file.relative_to(tmp_path)) for file in files] == [
        "b/a.PNG",
        "b/z.png",
        "c.png",
        "a/k.tif",
        "a/q/x.jpeg",
    ]
    assert image_files([tmp_path])[0] == sorted(files)


def test_links_to_folders_are_followed_once(tmp_path):
    (tmp_path / "real").mkdir()
    Image.fromarray(COLOUR).save(tmp_path / "real" / "a.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "back").symlink_to(tmp_path / "set")
    assert image_files([tmp_path / "set"])[0] == [tmp_path / "set" / "link" / "a.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("none", "nothing is there"), ("x.txt", "got '.txt'"), ("empty", "but there are none")],
)
def test_paths_that_hold_no_images(tmp_path, name, message):
    (tmp_path / "x.txt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=rf"{name}: expected .*{message}"):
        image_files([tmp_path / name])


def test_blocks_are_bounded_and_hold_the_same_rows(tmp_path, monkeypatch):
    for i in range(23):
        Image.fromarray(np.roll(COLOUR, i, 0)).save(tmp_path / f"{i:02}.png")
    monkeypatch.setattr("aeedge.files.images.BLOCK_BYTES", 5 * COLOUR.nbytes)
    images = Images([tmp_path])
    blocks = list(images.blocks((3, 6, 4), "uint8"))
    assert images.row_files == images.files
    assert [len(block) for block in blocks] == [5, 5, 5, 5, 3]
    np.testing.assert_array_equal(np.concatenate(blocks), read(tmp_path))


@pytest.mark.parametrize(
    ("values", "shape", "dtype", "message"),
    [
        (COLOUR, (1, 6, 4), "uint8", "expected grey, as the model takes, got RGB"),
        (GREY, (3, 6, 4), "uint8", "expected RGB, as the model takes, got grey"),
        (GREY, (1, 8, 8), "uint8", "expected the size 8×8 .*, as the model takes, got 6×4"),
        (np.uint16(GREY), (1, 6, 4), "uint8", "expected values that fit uint8, .* got uint16"),
        (np.uint16(GREY) + 40000, (1, 6, 4), "int16", "expected values that fit int16, .* got uint16 up to 40"),
        (np.float32(GREY), (1, 6, 4), "int16", "expected values that fit int16, .* got float32"),
        (GREY, (24,), "uint8", r"expected rows of shape \(24,\), as the model takes, got an image"),
    ],
)
def test_images_that_do_not_fit_a_model(tmp_path, values, shape, dtype, message):
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(InputError, match=rf"x\.tif: {message}"):
        list(Images([tmp_path]).blocks(shape, dtype))


@pytest.mark.parametrize(
    ("values", "shape", "dtype", "noted"),
    [
        (GREY, (6, 4), "uint8", False),
        (np.uint16(GREY) + 30000, (1, 6, 4), "int16", False),
        (np.uint16(GREY) + 40000, (1, 6, 4), "float32", False),
        (np.float32(GREY) / 7, (1, 6, 4), "float32", False),
        (GREY, (1, 6, 4), "float32", True),
        (GREY, (1, 6, 4), "int16", True),
    ],
)
def test_images_that_fit_a_model(tmp_path, values, shape, dtype, noted):
    Image.fromarray(values).save(tmp_path / "x.tif")
    images = Images([tmp_path])
    (block,) = images.blocks(shape, dtype)
    assert block.dtype == dtype
    np.testing.assert_array_equal(block, values.astype(dtype).reshape(1, *shape))
    assert bool(images.notes) == noted


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_damaged_file_is_a_sentence_or_an_image(tmp_path, data):
    """Bytes changed or cut off: never another exception."""
    suffix = data.draw(st.sampled_from(["png", "jpg", "tif", "bmp", "webp", "ppm", "gif"]))
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(np.tile(COLOUR, (2, 2, 1))).save(path)
    content = bytearray(path.read_bytes())
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=8)
    ):
        content[place] = value
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = str(read(path).ndim)
    except InputError as error:
        found = str(error)
    assert found == "4" or f"x.{suffix}: expected " in found


def test_without_pillow_the_extra_is_named(tmp_path):
    code = f"""
import sys
sys.modules["PIL"] = None
from aeedge.errors import InputError
from aeedge.files.images import Images
try:
    Images([{os.fspath(tmp_path)!r}])
except InputError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "images are read with Pillow, which is missing: pip install 'aeedge[images]'"
