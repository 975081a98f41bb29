"""What is fuzzed. A target takes bytes and returns; it raises where a reader does anything but to give a result or an
AeedgeError whose message is short and printable."""

import contextlib
import functools
import hashlib
import json
import shutil
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np

from aeedge.bundle.manifest_reading import read_manifest
from aeedge.bundle.onnx_proto import chain
from aeedge.bundle.reader import Bundle
from aeedge.detection.calibration import Calibration
from aeedge.errors import AeedgeError
from aeedge.files.dialect import Dialect
from aeedge.files.rows import Wanted, open_rows

DATA = Path(__file__).parents[1] / "data"
CORPUS = Path(__file__).parent / "corpus"
_LONGEST = 3000
_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-")
_BLANK = "0" * 64


@contextlib.contextmanager
def refused():
    """An AeedgeError is an answer, if people can read it."""
    try:
        yield
    except AeedgeError as error:
        text = str(error)
        assert len(text) < _LONGEST, f"a message of {len(text)} characters: {text[:200]}"
        assert text.replace("\n", "").isprintable(), f"a message with control characters: {text!r}"


def place(name):
    return Path(_FOLDER.name) / name


@functools.cache
def opened(name, bundle="bundle_v1"):
    """A copy of a frozen bundle, and its manifest."""
    path = Path(shutil.copytree(DATA / bundle, place(name)))
    return path, json.loads((path / "manifest.json").read_text())


def sealed(data):
    """A manifest with the right checksum, if it has one at all."""
    mark = b'"manifest_sha256": "'
    before, seal, after = data.partition(mark)
    blank = before + seal + _BLANK.encode() + after[64:]
    return blank.replace(_BLANK.encode(), hashlib.sha256(blank).hexdigest().encode(), 1) if seal else data


def put(path, document, name, data, *keys):
    """A file of a bundle, with its checksum in the manifest."""
    (path / name).write_bytes(data)
    inside = document
    for key in keys[:-1]:
        inside = inside[key]
    inside[keys[-1]] |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    document["manifest_sha256"] = _BLANK
    (path / "manifest.json").write_bytes(sealed((json.dumps(document, indent=1) + "\n").encode()))


def manifest(data):
    """A manifest that is accepted says the same when it is written again."""
    with refused():
        found = read_manifest(sealed(data))
        Dialect.parse(found.input.dialect)
        again = read_manifest(found.dumps().encode())
        assert again._replace(score=None) == found._replace(score=None)
        np.testing.assert_array_equal(again.score.scale, found.score.scale)


def onnx(data):
    """A graph that is accepted has all its data inside, also as protobuf reads it."""
    path, document = opened("onnx")
    put(path, document, "encoder.onnx", data, "variants", "fp32", "encoder")
    with refused():
        bundle = Bundle(path)
        found = bundle.graph("encoder", "fp32")
        chain(found)
        assert not outside(found), "protobuf sees data outside the file"


def outside(data):
    """Whether a tensor of an ONNX file, as protobuf reads it, has data elsewhere; False without the package onnx."""
    try:
        from onnx import load_model_from_string
        from onnx.external_data_helper import _get_all_tensors
    except ImportError:
        return False
    tensors = _get_all_tensors(load_model_from_string(data))
    return any(tensor.external_data or tensor.data_location for tensor in tensors)


def golden(data):
    """The archive of reference inputs and outputs."""
    path, document = opened("golden")
    put(path, document, "golden.npz", data, "golden")
    with refused():
        for values in Bundle(path).golden("fp32").values():
            values.sum()


def calibration(data):
    """The archive of calibration scores."""
    path, document = opened("calibration", "bundle_v2_mahalanobis")
    put(path, document, "calibration.npz", data, "calibration")
    with refused():
        bundle = Bundle(path)
        found = Calibration(bundle.calibration("fp32"))
        assert found.size == bundle.manifest.calibration.rows
        p = found.p_value([-np.inf, 0, found.threshold(0.1), np.inf])
        assert (np.diff(p) <= 0).all()
        assert (p[0], p[-1]) == (1, found.smallest_rate)


def _rows(name, data):
    file = place(name)
    file.write_bytes(data)
    kind = zlib.crc32(data) % 4
    names = tuple(f"s{i}" for i in range(3))
    wanted = (Wanted(), Wanted(shape=(3,)), Wanted(names, (3,)), Wanted(names, (3,), recorded=dict(vars(Dialect()))))[
        kind
    ]
    with refused(), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = open_rows(file, wanted, missing=bool(kind & 1))
        count = sum(len(block) for block in found.blocks())
        assert found.count in (None, count)


TARGETS = {
    "manifest": manifest,
    "onnx": onnx,
    "golden": golden,
    "calibration": calibration,
    "text": functools.partial(_rows, "rows.csv"),
    "jsonl": functools.partial(_rows, "rows.jsonl"),
    "gzip": functools.partial(_rows, "rows.csv.gz"),
    "npy": functools.partial(_rows, "rows.npy"),
    "npz": functools.partial(_rows, "rows.npz"),
}
_FROZEN = {
    "manifest": "manifest.json",
    "onnx": "encoder*.onnx",
    "golden": "golden.npz",
    "calibration": "calibration.npz",
}
_MOST_SEED = 10_000  # bytes


def seeds(name):
    """What mutations begin with: small files of the frozen bundles, and the corpus."""
    files = sorted(DATA.glob(f"bundle_v*/{_FROZEN[name]}")) if name in _FROZEN else []
    found = [file.read_bytes() for file in [*files, *sorted((CORPUS / name).iterdir())]]
    return [data for data in dict.fromkeys(found) if len(data) <= _MOST_SEED]
