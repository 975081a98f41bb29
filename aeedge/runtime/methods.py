"""What each method does with a block of samples: the graphs that run, and what is made of their results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.runtime.bound import Bound, BoundArrays
from aeedge.runtime.nonfinite import all_finite, first_finite, probe_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.bundle.manifest import ScoreSpec
    from aeedge.runtime.session import Session
    from aeedge.types import Block, Floats

    Finish = Callable[[Block, Floats], Floats]

NAMES = ("encode", "decode", "denoise", "residual", "score", "features")

# With more, copying into bound arrays costs what binding saves; on a pool the others' caches have to fetch the copy.
_BOUND_ROWS, _BOUND_BYTES, _BOUND_BYTES_POOLED = 16, 2**14, 2**13
_EXPOSES = {"none": None, "first": first_finite, "all": all_finite}


def residual(x: Block, reconstruction: Floats, spec: ScoreSpec) -> Floats:
    """(x - reconstruction) / scale: raw samples (n, *shape) to a float32 array of the same shape."""
    with np.errstate(all="ignore"):
        difference = np.subtract(x, reconstruction, dtype=np.float32)
        difference /= spec.scale
    return difference


def score(x: Block, reconstruction: Floats, spec: ScoreSpec) -> Floats:
    """Mean squared residual of each sample: raw samples (n, *shape) to (n,) float32. Infinity beyond float32."""
    flat = residual(x, reconstruction, spec).reshape(len(x), -1)
    with np.errstate(all="ignore"):
        total: Floats = np.einsum("ij,ij->i", flat, flat)
    total /= np.float32(flat.shape[1])
    return total


class Method:
    """One of NAMES: `stages` run one after the other, and `finish` makes the result of the input and the last output.

    Args:
        name: of the method.
        stages: the sessions, at least one.
        row_in, dtype: of one sample of input.
        row_out: shape of one result, float32.
        finish: None where the last stage's output is the result.
        sentinels: which outputs of the first stage expose a non-finite input: "none", "first" or "all".
        mean_of_squares: whether each result is a mean of squares that holds every value of its sample.

    Attributes:
        bind: makes arrays for a number of samples (see `_bind`).
        run: gives the results of a block (n, *row_in), C-contiguous and of the dtype, in a new array.
        exposes: whether results prove that their samples were finite; None where they prove nothing.
        bound_rows: the most samples for which binding arrays pays.
        arrays: the arrays that are bound for so few.
    """

    # Attributes and no methods where they would make a cycle, which could go with the garbage collector alone.
    run: Callable[[Block], Floats]
    bind: Callable[..., Bound]
    exposes: Callable[[Floats], bool] | None

    def __init__(
        self,
        name: str,
        stages: tuple[Session, ...],
        row_in: tuple[int, ...],
        dtype: str,
        row_out: tuple[int, ...],
        finish: Finish | None = None,
        sentinels: str = "none",
        mean_of_squares: bool = False,
    ) -> None:
        self.name, self.stages, self.row_in, self.row_out = name, stages, row_in, row_out
        self.dtype, self.sentinels, self._finish = np.dtype(dtype), sentinels, finish
        most = _BOUND_BYTES_POOLED if stages[0].pooled else _BOUND_BYTES
        self.bound_rows = max(1, min(_BOUND_ROWS, most // max(1, self.dtype.itemsize * prod(row_in))))
        self.bind = partial(_bind, stages, row_in, self.dtype, finish, sentinels, mean_of_squares)
        self.arrays = BoundArrays(self.bind, self.bound_rows)
        direct = len(stages) == 1 and finish is None
        self.run = stages[0].run if direct else partial(_run_stages, stages, finish)
        self.exposes = all_finite if mean_of_squares else _EXPOSES[sentinels] if direct else None

    def run_into(self, block: Block, out: Floats) -> None:
        """`run`, with the results written to `out`, a float32 (n, *row_out)."""
        if self._finish is not None:
            out[...] = self.run(block)
            return
        for session in self.stages[:-1]:
            block = session.run(block)
        self.stages[-1].run_into(block, out)

    def finite(self, block: Block, result: Floats) -> bool:
        """Whether a block was finite, by its results where they prove it, else by its values."""
        if self.dtype != np.float32 or (self.exposes is not None and self.exposes(result)):
            return True
        return all_finite(block)


def _run_stages(stages: tuple[Session, ...], finish: Finish | None, block: Block) -> Floats:
    result = block
    for session in stages:
        result = session.run(result)
    return result if finish is None else finish(block, result)


def _bind(
    stages: tuple[Session, ...],
    row_in: tuple[int, ...],
    dtype: np.dtype[Any],
    finish: Finish | None,
    sentinels: str,
    mean_of_squares: bool,
    count: int,
    given: Block | None = None,
) -> Bound:
    """Arrays for this many samples, `given` for the input, bound once so that a call allocates nothing."""
    arrays: list[NDArray[Any]] = [np.zeros((count, *row_in), dtype) if given is None else given]
    calls = []
    for session in stages:
        arrays.append(np.zeros((count, *session.row_out), np.float32))
        calls.append(session.bind(*arrays[-2:]))
    rows, first, last = arrays[0], arrays[1], arrays[-1]
    result = last.copy if finish is None else partial(finish, rows, last)
    watched: Callable[[], float] | None = None
    if dtype == np.float32:  # looked at after a run
        if mean_of_squares and finish is None:
            watched = probe_of(last)
        else:
            watched = probe_of({"none": rows, "first": first.reshape(count, -1)[:, 0], "all": first}[sentinels])
    failed = stages[0].failed if len(stages) == 1 else _failed_of(stages)
    return Bound(rows, last, _in_turn(calls), result, finish is None, failed, watched)


def _failed_of(stages: tuple[Session, ...]) -> Callable[[Exception], Exception | None]:
    return lambda error: stages[0].failed(error, *stages[1:])


def _in_turn(calls: list[Callable[[], None]]) -> Callable[[], None]:
    """One function that makes all calls."""
    if len(calls) == 1:
        return calls[0]
    first, second = calls

    def both() -> None:
        first()
        second()

    return both


def methods(
    latent: tuple[int, ...],
    shape: tuple[int, ...],
    dtype: str,
    spec: ScoreSpec,
    encoder: Session,
    decoder: Callable[[], Session] | None,
    scorer: Callable[[], Session] | None,
    sentinels: str,
    features: Callable[[], Session] | None = None,
    made_shape: tuple[int, ...] | None = None,
) -> dict[str, Callable[[], Method]]:
    """How to make each method by name; graphs other than the encoder are opened when a method needs them.

    Args:
        latent: shape of one sample's latents.
        shape, dtype: of one sample.
        spec: how samples are scored.
        encoder: its session.
        decoder, scorer: open their sessions. Without a decoder there is "encode" alone, with a scorer "score" too;
            without a scorer the score is computed by encoder, decoder and numpy.
        sentinels: see `Method`.
        features: opens the session of a front end, whose features the decoder reconstructs. Then there is "features",
            but no "denoise".
        made_shape: shape of one sample's features.
    """
    back = shape if features is None or made_shape is None else made_shape
    made = {"encode": lambda: Method("encode", (encoder,), shape, dtype, latent, sentinels=sentinels)}
    if features is not None:
        made["features"] = lambda: Method("features", (features(),), shape, dtype, back)
    if scorer is not None:
        made["score"] = lambda: Method(  # features of a sample that is not finite may be: a maximum passes over NaN
            "score", (scorer(),), shape, dtype, (), mean_of_squares=spec.kind != "mahalanobis" and features is None
        )
    if decoder is None:
        return made

    def both(name: str, row_out: tuple[int, ...], finish: Finish | None = None, squares: bool = False) -> Method:
        return Method(name, (encoder, decoder()), shape, dtype, row_out, finish, sentinels, squares)

    def finished(finish: Callable[[Block, Floats, ScoreSpec], Floats]) -> Finish:
        if features is None:
            return lambda x, back: finish(x, back, spec)
        return partial(_of_features, features(), finish, spec)

    denoise = {"denoise": lambda: both("denoise", shape)} if features is None else {}
    return {
        "decode": lambda: Method("decode", (decoder(),), latent, "float32", back),
        **denoise,
        "residual": lambda: both("residual", back, finished(residual)),
        "score": lambda: both("score", (), finished(score), squares=features is None),
        **made,
    }


def _of_features(
    features: Session, finish: Callable[[Block, Floats, ScoreSpec], Floats], spec: ScoreSpec, x: Block, back: Floats
) -> Floats:
    return finish(features.run(x), back, spec)
