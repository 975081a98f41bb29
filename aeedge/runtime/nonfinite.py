"""Where NaN and infinity in the input are found: in the latents where they are known to expose it, else in the input.

Latents are far fewer than input values, so looking at them is cheaper. Which of them expose a non-finite input (the
`sentinels`) is tried by the exporter, column by column, and recorded in the manifest as "none", "first" or "all".
docs/decisions/0011-nonfinite-sentinels.md has the proof that one column at a time is enough. What depends on the
machine, that its ReLU keeps NaN, is tried where a session is opened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from aeedge.runtime.session import Session
    from aeedge.types import Block, Floats


_NON_FINITE = math.nan, math.inf, -math.inf
_WITH_WEIGHTS = {"Add", "Conv", "Div", "Gemm", "MatMul", "Mul", "Sub"}  # in a chain the other input is constant
_NAN_KEEPING = _WITH_WEIGHTS | {"Flatten", "LeakyRelu", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_COLUMNS_AT_ONCE = 256
# Without numpy's dispatch to other kinds of arrays, which takes up to 1 µs. Both never warn, unlike ndarray.dot.
_einsum = getattr(np.einsum, "__wrapped__", np.einsum)
_product = getattr(np.vdot, "__wrapped__", np.vdot)
# numpy multiplies this many numbers on the calling thread; for more, OpenBLAS may wake threads. A product with small
# numbers takes less time than a sum, and cannot overflow: 2**13 of the largest ones, times 2**-14, are below it.
_SERIAL_SIZE = 2**13
_SMALL = np.full(_SERIAL_SIZE, 2.0**-14, np.float32)


def all_finite(block: Block) -> bool:
    """Whether no value of a float32 array is NaN or infinity; False also where the sum of finite values overflows."""
    values = block.ravel()
    return isfinite(_product(values, _SMALL[: len(values)]) if len(values) <= _SERIAL_SIZE else _sum(values))


def probe_of(array: Block) -> Callable[[], float]:
    """`all_finite` for an array that is reused: a function whose result is finite if all its values are."""
    values = array if array.ndim == 1 else array.ravel()
    if len(values) == 1:
        return partial(values.item, 0)
    return partial(_product, values, _SMALL[: len(values)]) if len(values) <= _SERIAL_SIZE else partial(_sum, values)


def _sum(values: Floats) -> float:
    """The sum of an array (n,): it takes half the time of numpy.isfinite, never warns, and starts no threads."""
    found: float = _einsum("i->", values)
    return found


def first_finite(latents: Floats) -> bool:
    """Whether the first latent of each row is finite, of latents (n, *latent_shape)."""
    count = len(latents)
    values = latents.reshape(count, -1)[:, 0]
    return isfinite(_product(values, _SMALL[:count]) if count <= _SERIAL_SIZE else _sum(values))


def sentinels_here(
    recorded: str, chain: Sequence[str], run: Callable[[Block], Floats], shape: tuple[int, ...], dtype: str
) -> str:
    """Which latents expose a non-finite input on this machine: "none", "first" or "all".

    Args:
        recorded: what the manifest says.
        chain: the encoder's operators (see onnx_proto.chain).
        run: runs the encoder, (n, *shape) of `dtype` to (n, *latent_shape).
        shape, dtype: of one sample.
    """
    if dtype != "float32":
        return "none"
    if tuple(chain) == ("Gemm",):
        return "first"  # each sum of a dense layer has every value in it, and 0 times infinity is NaN
    return recorded if recorded != "none" and _keeps_nan(chain, run, shape, recorded) else "none"


def _keeps_nan(chain: Sequence[str], run: Callable[[Block], Floats], shape: tuple[int, ...], sentinels: str) -> bool:
    """Whether NaN reaches the sentinels here; tried in batches of one, two and three rows, the time of six."""
    if not chain or not _NAN_KEEPING.issuperset(chain):
        return False
    size, watched = math.prod(shape), slice(0, 1) if sentinels == "first" else slice(None)
    for count in range(1, len(_NON_FINITE) + 1):
        rows = np.zeros((count, size), np.float32)
        for row, column, value in zip(rows, (0, size // 2, size - 1), _NON_FINITE):
            row[column] = value
        if any(map(all_finite, run(rows.reshape(-1, *shape)).reshape(count, -1)[:, watched])):
            return False
    return True


def find_sentinels(encoder: Session, sample: Block) -> str:
    """Which latents expose a non-finite input, by trying each column: "none", "first" or "all".

    Used by the exporter, and again by `self_check`.

    Args:
        encoder: its session.
        sample: of the encoder's dtype and shape; one whose latents are finite.
    """
    chain, run = encoder.chain, encoder.run
    if sample.dtype != np.float32 or not _keeps_nan(chain, run, sample.shape, "all"):
        return "none"
    if not all_finite(run(sample[np.newaxis])):
        return "none"
    found = "first"
    for value in _NON_FINITE:
        for start in range(0, sample.size, _COLUMNS_AT_ONCE):
            columns = range(start, min(start + _COLUMNS_AT_ONCE, sample.size))
            rows = np.tile(sample.reshape(-1), (len(columns), 1))
            rows[range(len(columns)), columns] = value
            exposed = ~np.isfinite(run(rows.reshape(-1, *sample.shape)).reshape(len(rows), -1))
            if not exposed.any(axis=1).all():
                return "none"
            found = found if exposed[:, 0].all() else "all"
    return found
