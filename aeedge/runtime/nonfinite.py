"""Is a number NaN or infinite? Looked for in rows and, where they tell (see telling.py), in results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Block = NDArray[Any]
    Floats = NDArray[np.float32]

BAD = math.nan, math.inf, -math.inf
_OF_WEIGHTS = {"Add", "Conv", "Div", "Gemm", "MatMul", "Mul", "Sub"}  # in a chain the other input is constant
_KEEPING = _OF_WEIGHTS | {"Flatten", "LeakyRelu", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_COMPLAINTS = RuntimeWarning, FloatingPointError  # numpy raises them of tiny numbers, if it was told to
# Without their search for other kinds of arrays, which takes up to 1 µs. Both never warn, unlike ndarray.dot.
_einsum = getattr(np.einsum, "__wrapped__", np.einsum)
_product = getattr(np.vdot, "__wrapped__", np.vdot)
# numpy multiplies so many numbers on the calling thread; for more, OpenBLAS may wake threads of its own. A product with
# small numbers takes less time than a sum, and cannot overflow: 2**13 of the largest ones, times 2**-14, are below it.
_MOST_ALONE = 2**13
_SMALL = np.full(_MOST_ALONE, 2.0**-14, np.float32)


def all_finite(block: Block) -> bool:
    """Whether no value of a float32 array is NaN or infinity; False also where finite values add up to too much."""
    values = block.ravel()
    return isfinite(_product(values, _SMALL[: len(values)]) if len(values) <= _MOST_ALONE else _total(values))


def looker(block: Block) -> Callable[[], float]:
    """The same for an array that is always the same one: a function whose result is finite if all values are."""
    values = block if block.ndim == 1 else block.ravel()
    if len(values) == 1:
        return partial(values.item, 0)
    return partial(_product, values, _SMALL[: len(values)]) if len(values) <= _MOST_ALONE else partial(_total, values)


def _total(values: Floats) -> float:
    """The sum of an array (n,): it takes half the time of numpy.isfinite, never warns, and starts no threads."""
    found: float = _einsum("i->", values)
    return found


def may_tell(chain: Sequence[str]) -> bool:
    """Whether an encoder consists of nothing but weights, ReLU and reshaping."""
    return bool(chain) and _KEEPING.issuperset(chain)


def still_tell(
    chain: Sequence[str], run: Callable[[Block], Floats], shape: tuple[int, ...], latents: int | None = None
) -> bool:
    """Whether latents that tell elsewhere do so here: the graph is such a chain, and NaN gets through.

    Tried in batches of one, two and three rows: the time of six.

    Args:
        chain: the encoder's operators.
        run: runs it, float32 (n, *shape) to (n, k).
        shape: of a row.
        latents: so many first ones tell; None for all.
    """
    if not may_tell(chain):
        return False
    size = math.prod(shape)
    for count in range(1, len(BAD) + 1):
        rows = np.zeros((count, size), np.float32)
        for row, column, bad in zip(rows, (0, size // 2, size - 1), BAD):
            row[column] = bad
        if any(map(all_finite, run(rows.reshape(-1, *shape))[:, :latents])):
            return False
    return True


def teller(chain: Sequence[str], width: int, *, telling: int) -> Callable[[Floats], bool]:
    """How the results (n, width) of a graph tell that all rows were finite: a function that is True where they do.

    Results are far fewer than values. A dense layer makes each of its sums NaN or infinite if one value is (0 times
    infinity is NaN), so that the first one tells. If a ReLU follows, which may make zeros of NaN, then a row with a
    result that is neither zero nor infinite was finite. Of other graphs it has to be known (see telling.py).

    Args:
        chain: of the graph's operators.
        width: results of a row.
        telling: no value that is not finite leaves so many first results of its row finite; 0 if that is not known.
    """
    if telling == 1 or tuple(chain) == ("Gemm",):
        return _first_finite
    if telling:
        return _all_finite(width)
    return _all_positive(width) if tuple(chain) == ("Gemm", "Relu") else nothing


def _all_finite(width: int) -> Callable[[Floats], bool]:
    """`all_finite` for results (n, width), which is a third faster where the width is known."""
    most = _MOST_ALONE // width
    small = _SMALL[: most * width].reshape(most, width)

    def tell(results: Floats) -> bool:
        count = len(results)
        return isfinite(_product(results, small[:count]) if count <= most else _total(results.ravel()))

    return tell


def _first_finite(results: Floats) -> bool:
    """Whether the first result of each row is finite, of results (n, k)."""
    firsts, count = results[:, 0], len(results)
    return isfinite(_product(firsts, _SMALL[:count]) if count <= _MOST_ALONE else _total(firsts))


def _all_positive(width: int) -> Callable[[Floats], bool]:
    """Whether each row of numbers from 0 on has one that is not 0, and none that is not finite."""
    small = np.full(width, 2.0**-14, np.float32)

    def tell(results: Floats) -> bool:
        try:
            sums = results.dot(small) if results.size <= _MOST_ALONE else _einsum("ij->i", results)
        except _COMPLAINTS:
            return False
        least, most = sums.item(sums.argmin()), sums.item(sums.argmax())  # NaN, if there is one
        return least > 0 and isfinite(most)

    return tell


def nothing(results: Floats) -> bool:
    """What results tell that tell nothing: False."""
    return False
