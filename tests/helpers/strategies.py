"""What the properties are tried on: models, rows in every layout and dtype, numbers of rows and of threads."""

import functools
import itertools
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

import aeedge
from helpers import reference, tampering

DATA = Path(__file__).parent.parent / "data"
BUNDLES = ["bundle_v1", "bundle_v1_uint8", "bundle_v1_int8"]
# fp32, the same where latents are looked at instead of the input, and int8
FLOAT_BUNDLES = ["bundle_v1", "bundle_v1 with first", "bundle_v1 with all", "bundle_v1_saturating", "bundle_v1_scorer"]
METHODS = ["encode", "decode", "denoise", "residual", "score"]
MOST = 5000
FLOATS = ["float32", "float64", ">f4", ">f8", "float16", "longdouble"]
INTEGERS = ["uint8", "int16", ">i2", "int32", "uint32", "int64", ">u8", "bool"]

some = functools.partial(settings, deadline=None)
counts = st.one_of(
    st.integers(1, 9), st.sampled_from([16, 63, 64, 65, 256, 257, 1023, 1024, 1025]), st.integers(1, MOST)
)
threads = st.integers(1, 5)
bad_values = st.sampled_from([np.nan, np.inf, -np.inf])
_made = tempfile.TemporaryDirectory()


@functools.cache
def loaded(name, threads):
    bundle, _, sentinels = name.partition(" with ")
    path = DATA / bundle
    if sentinels:
        path = with_sentinels(path, Path(_made.name) / f"{name}.{threads}", sentinels=sentinels)
    return aeedge.load(path, threads=threads)


def with_sentinels(bundle, path, variant="fp32", sentinels="first"):
    """A copy of a bundle whose manifest says which latents expose NaN and infinity."""
    shutil.copytree(bundle, path)
    tampering.reseal(path, lambda d: d["variants"][variant].update(nonfinite_sentinels=sentinels))
    return path


@functools.cache
def given_to(name, what):
    """Rows that a method takes."""
    one = loaded(name, 1)
    rows = reference.rows_of(one, MOST)
    rows = one.encode(rows) if what == "decode" else rows
    rows.flags.writeable = False
    return rows


def spread(x, axis):
    """Every second of an axis that is twice as long."""
    return np.repeat(x, 2, axis=axis)[(slice(None),) * axis + (slice(None, None, 2),)]


def inside(x, axis):
    """Amid values that must not be read."""
    padded = np.pad(x, [(3, 2) if a == axis else (0, 0) for a in range(x.ndim)], constant_values=1)
    return padded[(slice(None),) * axis + (slice(3, -2),)]


def reversed_in_memory(x):
    return np.ascontiguousarray(x[(slice(None, None, -1),) * x.ndim])[(slice(None, None, -1),) * x.ndim]


def unaligned(x):
    buffer = bytearray(x.nbytes + 1)
    moved = np.frombuffer(buffer, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    moved[...] = x
    return moved


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


class Subclass(np.ndarray):
    pass


LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "every second row": lambda x: spread(x, 0),
    "every second value": lambda x: spread(x, x.ndim - 1),
    "some rows of more": lambda x: inside(x, 0),
    "some columns of more": lambda x: inside(x, x.ndim - 1),
    "backwards": reversed_in_memory,
    "rows backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "transposed twice": lambda x: np.ascontiguousarray(np.moveaxis(x, 0, -1)).transpose(-1, *range(x.ndim - 1)),
    "unaligned": unaligned,
    "read-only": read_only,
    "a subclass": lambda x: x.copy().view(Subclass),
    "lists": lambda x: x.tolist() if len(x) <= 64 else x,
}
layouts = st.sampled_from(sorted(LAYOUTS))


@st.composite
def converted(draw, name, what):
    """Rows that a method takes, of some dtype, and the same in the dtype of the model."""
    integer = loaded(name, 1).input.dtype != "float32" and what != "decode"
    dtype = np.dtype(draw(st.sampled_from(INTEGERS if integer else FLOATS + INTEGERS)))
    count = draw(counts)
    first = draw(st.integers(0, MOST - count))
    rows = given_to(name, what)[first : first + count]
    if dtype.kind != "f":
        rows = np.abs(np.rint(rows)).astype(np.int64) % (2 if dtype.kind == "b" else 128)
    if draw(st.integers(0, 9)) == 0:
        rows = np.broadcast_to(rows[:1], rows.shape)  # no bytes from row to row; astype would lose that
        return rows.astype(dtype)[:1], count, integer
    return rows.astype(dtype), count, integer


def plain(rows, integer):
    return np.ascontiguousarray(rows, np.uint8 if integer else np.float32)


def room(draw, expected):
    """An `out` for results of this shape: nothing, new, or part of something larger; NaN, to be overwritten."""
    kind = draw(st.sampled_from(["none", "new", "every second", "Fortran", "backwards"]))
    if kind == "none":
        return None
    out = np.full(expected.shape, np.nan, np.float32)
    if kind == "new" or out.ndim == 0:
        return out
    if kind == "every second":
        return np.full((*out.shape[:-1], 2 * out.shape[-1]), np.nan, np.float32)[..., ::2]
    return np.asfortranarray(out) if kind == "Fortran" else out[::-1]


def close_all():
    """Close every model that was loaded here."""
    for name, count in itertools.product([*BUNDLES, *FLOAT_BUNDLES], range(1, 6)):
        loaded(name, count).close()
    loaded.cache_clear()
    shutil.rmtree(_made.name, ignore_errors=True)
    given_to.cache_clear()
