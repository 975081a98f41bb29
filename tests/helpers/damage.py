"""Files of rows of each kind, and the accidents that happen to files."""

import gzip
import io
import json
import zipfile

import numpy as np

X = np.round(np.random.default_rng(3).normal(size=(60, 5)) * [1, 10, 100, 0.1, 5], 4)


def tables():
    """Bytes of a sound file of each kind by its name; standard library and numpy alone."""
    text = "\n".join([",".join("abcde"), *(",".join(map(repr, row)) for row in X.tolist())]) + "\n"
    plain, fortran = io.BytesIO(), io.BytesIO()
    np.save(plain, X)
    np.save(fortran, np.asfortranarray(X))
    lines = "".join(json.dumps(dict(zip("abcde", row))) + "\n" for row in X.tolist())
    found = {
        "x.csv": text.encode(),
        "x.jsonl": lines.encode(),
        "arrays.ndjson": "".join(f"{row}\n" for row in X.tolist()).encode(),
        "x.jsonl.gz": gzip.compress(lines.encode(), mtime=0),
        "latin.csv": text.replace("a,b", "größe,b", 1).encode("latin-1"),
        "wide.csv": text.encode("utf-16"),
        "x.tsv": text.replace(",", "\t").encode(),
        "quoted.csv": text.replace("a,b", '"a, 1",b', 1).encode(),
        "x.csv.gz": gzip.compress(text.encode(), mtime=0),
        "x.npy": plain.getvalue(),
        "fortran.npy": fortran.getvalue(),
        "x.npy.gz": gzip.compress(plain.getvalue(), mtime=0),
    }
    for name, method in (
        ("stored", zipfile.ZIP_STORED),
        ("deflated", zipfile.ZIP_DEFLATED),
        ("bz2", zipfile.ZIP_BZIP2),
        ("lzma", zipfile.ZIP_LZMA),
    ):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            archive.writestr(zipfile.ZipInfo("X.npy"), plain.getvalue(), method)
        found[f"{name}.npz"] = stream.getvalue()
    return found


def parquets():
    """Bytes of sound Parquet files by name; needs pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet

    columns = {name: X[:, i] for i, name in enumerate("abcde")}
    vectors = {"v": pa.array(X[:, :3].tolist()), "t": X[:, 3]}
    found = {}
    for name, table in (("x.parquet", columns), ("vectors.parquet", vectors)):
        for codec in ("snappy", "none", "gzip", "zstd"):
            stream = io.BytesIO()
            pa.parquet.write_table(pa.table(table), stream, compression=codec)
            found[f"{codec}-{name}"] = stream.getvalue()
    return found


def images():
    """Bytes of sound images by name; needs Pillow."""
    from PIL import Image

    grey = np.random.default_rng(5).integers(0, 256, (12, 16), np.uint8)
    wide = Image.fromarray(grey.astype(np.uint16) * 200)
    picture = Image.fromarray(grey)
    found = {}
    for name, image, options in (
        ("x.png", picture, {}),
        ("wide.png", wide, {}),
        ("x.jpg", picture, {}),
        ("x.bmp", picture, {}),
        ("x.gif", picture, {"save_all": True, "append_images": [picture.rotate(90)]}),
        ("x.tiff", picture, {"save_all": True, "append_images": [picture]}),
        ("lzw.tiff", wide, {"compression": "tiff_lzw"}),
        ("x.webp", picture.convert("RGB"), {}),
        ("x.pgm", picture, {}),
    ):
        stream = io.BytesIO()
        image.save(stream, {"jpg": "jpeg", "pgm": "ppm"}.get(name.split(".")[1], name.split(".")[1]), **options)
        found[name] = stream.getvalue()
    return found


def damaged(data, rng):
    """A copy with one to three accidents: bits or bytes changed, a part lost, put in, zeroed, doubled or moved."""
    for _ in range(rng.integers(1, 4)):
        size = len(data)
        start, length = int(rng.integers(0, size + 1)), int(min(rng.geometric(0.02), 4096))
        if rng.random() < 0.4:  # headers are where readers look first
            start = int(rng.integers(0, min(size, 128) + 1))
        part = data[start : start + length]
        accident = rng.integers(0, 9)
        if accident == 0 and start < size:
            data = data[:start] + bytes([data[start] ^ 1 << rng.integers(0, 8)]) + data[start + 1 :]
        elif accident == 1 and start < size:
            data = data[:start] + bytes([rng.integers(0, 256)]) + data[start + 1 :]
        elif accident == 2:
            data = data[:start]
        elif accident == 3:
            data = data[:start] + rng.bytes(length) + data[start:]
        elif accident == 4:
            data = data[:start] + bytes(len(part)) + data[start + length :]
        elif accident == 5:
            data = data[: start + length] + data[start:]
        elif accident == 6:
            data = data[start + length :] + part
        elif accident == 7:
            data = data[:start] + data[start + length :]
        else:
            data = data[:start] + rng.bytes(len(part)) + data[start + length :]
    return data
