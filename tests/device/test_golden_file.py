"""What can be wrong with golden.npz although its checksum is right: read within its sizes, and one sentence each."""

import io
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.tampering import replace_golden_bytes

import aeedge
from aeedge.bundle.golden import read_arrays

DATA = Path(__file__).parent.parent / "data"
NAMES = ("input", "fp32.latent", "fp32.reconstruction", "fp32.score")
ARRAYS = dict(np.load(DATA / "bundle_v1" / "golden.npz"))
ROWS = len(ARRAYS["input"])


def npy(array, version=(1, 0)):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), version, allow_pickle=True)
    return stream.getvalue()


def header(text, payload=b""):
    text = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + payload


def archive(members, method=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as found, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in members:
            found.writestr(name, data)
    return stream.getvalue()


def with_one(name, data, method=zipfile.ZIP_STORED):
    """All arrays, and `data` in the place of one."""
    arrays = {key: npy(values) for key, values in ARRAYS.items()} | {name: data}
    return archive([(f"{key}.npy", values) for key, values in arrays.items()], method)


def lying(data, name, offset, value, size):
    """A number of an entry's record in the central directory changed."""
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(f"{name}.npy".encode()))
    return data[: at + offset] + value.to_bytes(size, "little") + data[at + offset + size :]


LATENT = ARRAYS["fp32.latent"]
SOUND = with_one("input", npy(ARRAYS["input"]))
BIG = header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**40}, 3), }}")
DEEP = header("{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 3000 + ")" * 3000 + ", }")
FAULTS = {
    "float64": with_one("fp32.latent", npy(LATENT.astype(float))),
    "big-endian": with_one("fp32.latent", npy(LATENT.astype(">f4"))),
    "objects": with_one("fp32.latent", npy(LATENT.astype(object))),
    "text": with_one("fp32.latent", npy(LATENT.astype("U8"))),
    "records": with_one("fp32.latent", npy(np.zeros(ROWS, [("a", "f4")]))),
    "format 2": with_one("fp32.latent", npy(LATENT, (2, 0))),
    "other input": with_one("input", npy(ARRAYS["input"].astype(np.int32))),
    "one latent less": with_one("fp32.latent", npy(LATENT[:, :-1])),
    "one row less": with_one("fp32.latent", npy(LATENT[:-1])),
    "no rows": archive([(f"{name}.npy", npy(values[:0])) for name, values in ARRAYS.items()]),
    "no axis": with_one("fp32.score", npy(np.float32(1))),
    "more axes": with_one("fp32.score", npy(ARRAYS["fp32.score"][:, None])),
    "too many rows": with_one("fp32.latent", BIG),
    "header alone": with_one("fp32.latent", npy(LATENT)[:128]),
    "truncated values": with_one("fp32.latent", npy(LATENT)[:-1]),
    "more values": with_one("fp32.latent", npy(LATENT) + b"\0"),
    "nested header": with_one("fp32.latent", DEEP),
    "header of another kind": with_one("fp32.latent", header("[1, 2]")),
    "negative size": with_one("fp32.latent", header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }")),
    "size of 5000 digits": with_one(
        "fp32.latent", header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'9' * 5000}, 3), }}")
    ),
    "empty member": with_one("fp32.latent", b""),
    "noise in a member": with_one("fp32.latent", b"noise"),
    "twice": archive([*((f"{key}.npy", npy(v)) for key, v in ARRAYS.items()), ("input.npy", npy(ARRAYS["input"]))]),
    "missing": archive([(f"{name}.npy", npy(ARRAYS[name])) for name in NAMES[:-1]]),
    "encrypted": lying(lying(SOUND, "input", 8, 1, 2), "fp32.latent", 8, 1, 2),
    "unknown compression": lying(SOUND, "input", 10, 99, 2),
    "bzip2": with_one("input", npy(ARRAYS["input"]), zipfile.ZIP_BZIP2),
    "lzma": with_one("input", npy(ARRAYS["input"]), zipfile.ZIP_LZMA),
    "larger than it is": lying(SOUND, "fp32.latent", 24, 2**31, 4),
    "smaller than it is": lying(SOUND, "fp32.latent", 24, 130, 4),
    "zip64 without sizes": lying(SOUND, "fp32.latent", 24, 2**32 - 1, 4),
    "another place": lying(SOUND, "fp32.latent", 42, 2**31, 4),
    "another checksum": lying(SOUND, "fp32.latent", 16, 1, 4),
    "compressed, it says": lying(SOUND, "fp32.latent", 10, 8, 2),
    "no archive": b"noise" * 100,
    "empty archive": archive([]),
    "half an archive": SOUND[: len(SOUND) // 2],
    "nothing but an end": SOUND[-22:],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_golden_rows_is_one_sentence(bundle, fault):
    replace_golden_bytes(bundle, FAULTS[fault])
    with aeedge.load(bundle) as model:  # it is not needed for a load
        for call in (model.self_check, model.golden_rows):
            with pytest.raises(aeedge.CorruptBundleError, match=r"golden\.npz: .*; export the bundle again") as caught:
                call()
            assert len(str(caught.value)) < 600


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_arrays_are_read_however_numpy_wrote_them(bundle, method):
    replace_golden_bytes(bundle, with_one("fp32.latent", npy(np.asfortranarray(LATENT)), method))
    with aeedge.load(bundle, check="golden") as model:
        rows = model.golden_rows()
        np.testing.assert_array_equal(rows, ARRAYS["input"])
        rows[0] = 0  # it is the caller's own


def test_members_that_nobody_needs_are_not_read(bundle):
    more = [("notes.txt", b"x" * 10), ("bomb.npy", bytes(2**25)), ("objects.npy", npy(LATENT.astype(object)))]
    members = [(f"{name}.npy", npy(values)) for name, values in ARRAYS.items()]
    replace_golden_bytes(bundle, archive(members + more, zipfile.ZIP_DEFLATED))
    tracemalloc.start()
    try:
        aeedge.load(bundle, check="golden").close()
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("declared", ["as it is", "as expected"])
def test_a_bomb_is_not_unpacked(declared):
    """64 MB of zeros in 65 kB, in the place of an array, with its own size or a wrong one."""
    start = npy(LATENT)[:128]
    data = with_one("fp32.latent", start + bytes(2**26), zipfile.ZIP_DEFLATED)
    if declared == "as expected":
        data = lying(data, "fp32.latent", 24, 128 + LATENT.nbytes, 4)
    wanted = {"input": ("float32", (12,)), "fp32.latent": ("float32", (LATENT.shape[1],))}
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"fp32\.latent|cannot be read"):
            read_arrays(data, wanted)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
