"""Whether a bundle still produces the outputs that were recorded for its reference inputs when it was made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from aeedge.errors import VerificationError
from aeedge.runtime.methods import residual

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.bundle.manifest import ScoreSpec, Tolerance
    from aeedge.bundle.reader import Bundle
    from aeedge.types import Floats

_REPEATED = 0.02  # of the tolerance: how much the same input may differ from call to call
_LARGEST = 0.5  # tolerance relative to the magnitude of an output


class Deviation(NamedTuple):
    """The sample that comes nearest to its tolerance, or exceeds it by the most.

    Attributes:
        what: "latent", "reconstruction", "score" or "features".
        row: its index.
        error: largest absolute error within that sample.
        allowed: the largest that the tolerance allows there.
    """

    what: str
    row: int
    error: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether every sample is within its tolerance."""
        return self.error <= self.allowed

    def __str__(self) -> str:
        verdict = "within" if self.ok else "more than"
        return f"{self.what} of row {self.row} differs by {self.error:.3g}, {verdict} the allowed {self.allowed:.3g}"


def self_check(
    bundle: Bundle,
    variant: str,
    calls: Mapping[str, Callable[[Any], Any]],
    find_sentinels: Callable[[NDArray[Any]], str] | None,
) -> list[Deviation]:
    """Run the reference inputs and compare with the recorded outputs; see `Model.self_check`.

    Args:
        bundle: what was recorded.
        variant: which of its variants runs.
        calls: what computes each output, "latent", "reconstruction" and "score", with a front end "features" too, of
            samples (n, *shape).
        find_sentinels: tries on a sample which latents expose a non-finite input; None where that is not relied on.
    """
    spec, reference = bundle.manifest.variants[variant], bundle.golden(variant)
    rows, worst = reference["input"], []
    compared = reference.get(f"{variant}.features", rows)  # with reconstructions
    where = f"{bundle.path} ({variant})"
    _check_tolerances(where, spec.tolerance, {what: reference[f"{variant}.{what}"] for what in spec.tolerance}, bundle)
    for what, call in calls.items():
        if what not in spec.tolerance:  # a bundle without decoder
            continue
        tolerance, expected = spec.tolerance[what], reference[f"{variant}.{what}"]
        one_by_one, again = (np.concatenate([call(rows[i : i + 1]) for i in range(len(rows))]) for _ in range(2))
        _check_repeated(where, deviation(what, compared, again, one_by_one, tolerance, bundle.manifest.score))
        found = [
            deviation(what, compared, got, expected, tolerance, bundle.manifest.score)
            for got in (call(rows), one_by_one)
        ]
        worst.append(max(found, key=lambda d: d.error / max(d.allowed, 1e-300)))
    if bad := [d for d in worst if not d.ok]:
        raise VerificationError(
            f"{where}: on this machine the {bad[0]}; do not use this variant here: "
            "try another, another onnxruntime, or export the bundle again"
        )
    if find_sentinels is not None and spec.nonfinite_sentinels != "none":
        here = find_sentinels(rows[-1])
        if here not in ("first", spec.nonfinite_sentinels):
            raise VerificationError(
                f"{where}: nonfinite_sentinels is {spec.nonfinite_sentinels!r} in the manifest, but "
                f"on this machine it is {here!r}: NaN or infinity would be missed; export the bundle again"
            )
    return worst


def _check_tolerances(
    where: str, tolerances: Mapping[str, Tolerance], outputs: Mapping[str, NDArray[Any]], bundle: Bundle
) -> None:
    """Refuse tolerances of half the outputs themselves or more, with which nearly anything would pass."""
    scale = bundle.manifest.score.scale
    for what, tolerance in tolerances.items():
        values = outputs[what] / scale if what in ("reconstruction", "features") else outputs[what]
        magnitude = float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
        allowed = tolerance.atol + tolerance.rtol * magnitude
        if what != "score" and allowed > _LARGEST * magnitude > 0:
            raise VerificationError(
                f"{where}: its tolerance of the {what}, {allowed:.3g}, is too large beside the {what} itself, "
                f"{magnitude:.3g} on the reference inputs: it was exported from a random network, or from values "
                "that float32 cannot tell apart; export it again with a newer aeedge"
            )


def _check_repeated(where: str, found: Deviation) -> None:
    """Refuse outputs that change from call to call by more than rounding, a hundredth of what is allowed elsewhere."""
    if found.error > _REPEATED * found.allowed:
        raise VerificationError(
            f"{where}: the {found.what} of row {found.row} differs by {found.error:.3g} between two calls with the "
            "same input: the network draws random numbers; export it again with a newer aeedge, which says where"
        )


def deviation(
    what: str, rows: NDArray[Any], got: Floats, expected: Floats, tolerance: Tolerance, spec: ScoreSpec
) -> Deviation:
    """The worst sample of computed outputs (n, ...) against recorded ones; one that is not finite is the worst.

    Reconstructions are compared as residuals of `rows`, in scaled units, so that a feature of small numbers counts as
    much as one of large numbers; with a front end, `rows` are its features, which are compared in scaled units as well.
    """
    if what == "features":
        got, expected = got / spec.scale, expected / spec.scale
    if what == "reconstruction":
        got, expected = residual(rows, got, spec), residual(rows, expected, spec)
    return _worst(what, got, expected, tolerance)


def _worst(what: str, got: NDArray[Any], recorded: NDArray[Any], tolerance: Tolerance) -> Deviation:
    got = np.asarray(got, np.float64).reshape(len(got), -1)
    recorded = np.asarray(recorded, np.float64).reshape(len(recorded), -1)
    with np.errstate(invalid="ignore"):
        same = (got == recorded) | (np.isnan(got) & np.isnan(recorded))  # also equal infinities
        error = np.where(same, 0.0, np.abs(got - recorded)).max(axis=1)
    error = np.where(np.isnan(error), np.inf, error)
    magnitude = np.abs(np.where(np.isfinite(recorded), recorded, 0.0)).max(axis=1)
    allowed = tolerance.atol + tolerance.rtol * magnitude
    row = int(np.argmax(error / np.maximum(allowed, 1e-300)))
    return Deviation(what, row, float(error[row]), float(allowed[row]))
