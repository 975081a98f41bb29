"""Accept a bundle: `aeedge` itself loads it, and must say what torch says.

The reference is torch on the CPU in float32. Rows agree when their largest error is at most
`tolerance * (typical magnitude of that output + the row's own magnitude)`; reconstructions are compared as residuals,
in scaled units.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import onnx.helper
import onnx.shape_inference
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

import aeedge
from aeedge.bundle.manifest import InputSpec, ScoreSpec, Tolerance
from aeedge.detection.scores import Scoring
from aeedge.errors import BundleError, InputError, VerificationError
from aeedge.runtime.missing import missing_values
from aeedge.runtime.session import Session, runtime_version
from aeedge.verification import deviation
from aeedge_export.conversion import rowwise
from aeedge_export.conversion.graph import RawDecoder, RawEncoder, Scaling
from aeedge_export.conversion.messages import first_line
from aeedge_export.networks.front_ends import FrontEnd, features

BATCHES = (1, 2, 7, 257)
GOLDEN_ROWS = 16
_EXTREME = 6
_INTEGER_TOLERANCE = 1e-5
_ROUNDING = 0.1  # the largest tolerance relative to an output's magnitude, see _check_rounding
_LARGEST = 0.05  # the largest that a user may ask for
_BEYOND = 10.0  # how far outside the example's range extreme rows lie, in ranges


def extreme_rows(example: NDArray[Any]) -> NDArray[Any]:
    """Six rows at and beyond the edges: all values at their least, most, middle, zero, and far outside both ends.

    Args:
        example: raw rows (n, *shape); the rows are of its dtype, clipped to what it holds.
    """
    low, high = example.min(axis=0).astype(np.float64), example.max(axis=0).astype(np.float64)
    reach = _BEYOND * np.maximum(high - low, 1e-3 * np.maximum(np.abs(high), np.abs(low)))
    rows = np.stack([low, high, (low + high) / 2, np.zeros_like(low), low - reach, high + reach])
    if example.dtype.kind in "iu":
        limits = np.iinfo(example.dtype)
        rows = np.clip(np.rint(rows), limits.min, limits.max)
    limit = np.finfo(np.float32).max
    edge: NDArray[Any] = np.clip(rows, -limit, limit).astype(example.dtype)
    return edge


def trial_rows(example: NDArray[Any]) -> NDArray[Any]:
    """Exactly 257 rows: extreme ones, then the example's, repeated as often as needed."""
    edge = extreme_rows(example)
    return np.concatenate([edge, example[np.arange(max(BATCHES) - len(edge)) % len(example)]])


def without_codes(rows: NDArray[Any], plain: NDArray[Any], spec: InputSpec) -> NDArray[Any]:
    """Rows with the values of `plain`, a row without, where they have codes of missing values: no graph sees those."""
    return rows if spec.missing is None else np.where(missing_values(rows, spec), plain, rows)


def golden_rows(example: NDArray[Any]) -> NDArray[Any]:
    """Sixteen rows to record in the bundle: extreme ones, then rows spread over the example."""
    edge = extreme_rows(example)
    spread = np.linspace(0, len(example) - 1, GOLDEN_ROWS - len(edge)).astype(int)
    return np.concatenate([edge, example[spread]])


class Reference:
    """What torch says: `encoder` and `decoder` take and give raw rows, or what `front_end` makes of such."""

    def __init__(
        self,
        encoder: RawEncoder,
        decoder: RawDecoder | None,
        scoring: Scoring | None = None,
        front_end: FrontEnd | None = None,
    ) -> None:
        self._encoder, self._decoder, self.scoring, self._front_end = encoder, decoder, scoring, front_end

    @property
    def has_front_end(self) -> bool:
        """Whether the encoder is given features."""
        return self._front_end is not None

    def seen(self, rows: NDArray[Any]) -> NDArray[Any]:
        """What the encoder is given for raw rows: the rows, or their features."""
        return rows if self._front_end is None else features(self._front_end, rows)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """By role; the decoder without the mapping to raw units, which would hide small changes."""
        decoder = {} if self._decoder is None else {"decoder": self._decoder.decoder}
        return {"encoder": self._encoder, **decoder}

    def inputs(self, role: str, rows: NDArray[Any]) -> Tensor:
        """What the module of a role is given for raw rows."""
        given = torch.from_numpy(np.array(self.seen(rows)))
        if role == "encoder":
            return given
        with torch.inference_mode():
            latents: Tensor = self._encoder(given)
        return latents.clone()

    def outputs(self, rows: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Latents (n, *latent_shape), with a decoder reconstructions (n, *shape), and scores (n,) of raw rows.

        With a front end features (n, *features_shape), too, of which shape reconstructions are.
        """
        seen = self.seen(rows)
        with torch.inference_mode():
            latent = self._encoder(torch.from_numpy(np.array(seen)))
            found = {} if self._front_end is None else {"features": seen}
            found["latent"] = latent.numpy()
            if self._decoder is not None:
                found["reconstruction"] = self._decoder(latent).numpy()
        if self.scoring is not None:
            found["score"] = self.scoring.scores(seen, found["latent"], found.get("reconstruction"))
        return found


def check_repeatable(reference: Reference, fresh: Reference, example: NDArray[Any]) -> None:
    """The same rows must give the same again, also after others, in torch.

    Args:
        reference: called before.
        fresh: the same, not called yet.
        example: raw rows (n, *shape).

    Raises:
        InputError: they do not.
    """
    for role, module in reference.modules.items():
        rows, others = (reference.inputs(role, part[:GOLDEN_ROWS]) for part in _compared(example))
        rowwise.check_repeatable(role, module, fresh.modules[role], rows, others)


def check_independent(
    reference: Reference, example: NDArray[Any], allowed: Mapping[str, Tolerance], tolerance: float
) -> None:
    """A row must give the same in any batch, and by itself, in torch.

    Args:
        reference: known to be repeatable.
        example: raw rows (n, *shape).
        allowed: tolerances by output.
        tolerance: largest error relative to an output's magnitude.

    Raises:
        InputError: it does not.
    """
    for role, module in reference.modules.items():
        rows, others = (reference.inputs(role, part) for part in _compared(example))
        limit = allowed["latent"]
        if role == "decoder":
            with torch.inference_mode():
                limit = Tolerance(rtol=tolerance, atol=tolerance * _rms(module(rows.clone()).double().numpy()))
        rowwise.check_independent(role, module, rows, others, limit)


def _compared(example: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows whose outputs are compared, and the others of their batch: together 257."""
    rows = example[: GOLDEN_ROWS - _EXTREME]
    edge = extreme_rows(example)
    others = example[np.arange(max(BATCHES) - len(edge) - len(rows)) % len(example)]
    return rows, np.concatenate([edge, others])


def tolerances(reference: Reference, example: NDArray[Any], scaling: Scaling, tolerance: float) -> dict[str, Tolerance]:
    """Tolerances by output, from its typical magnitude (root mean square) over the example.

    Nothing can be more exact than float32 inputs are: latents also get what changes when inputs move by their last
    digit, reconstructions four steps of float32 at the largest raw value. A score is a square, so it inherits twice its
    residual's error.

    Raises:
        InputError: `tolerance` is none, or rounding alone needs more than a tenth of what an output varies by (or five
            times `tolerance` where that is larger).
    """
    if not (isinstance(tolerance, Real) and 0 < tolerance <= _LARGEST):
        raise InputError(f"tolerance: expected a number above 0, at most {_LARGEST}, got {tolerance!r}")
    found, scoring = reference.outputs(example), reference.scoring
    last_digit = 4 * _last_digit(reference, example, found["latent"])
    varying, seen = _varying(example), found.get("features", example)
    if _hidden(last_digit, found["latent"], tolerance):
        _check_rounding(
            "latents", 4 * _last_digit(reference, example, found["latent"], varying), found["latent"], tolerance
        )
    result = {"latent": Tolerance(rtol=tolerance, atol=_round(tolerance * _rms(found["latent"]) + last_digit))}
    residual_step = residual_error = 0.0
    scale = scaling.scale if scoring is None else scoring.scale
    if "features" in found:
        scaled = found["features"] / scale
        residual_step = 4 * _last_digit(reference, example, scaled, what="features", scale=scale)
        result["features"] = Tolerance(rtol=tolerance, atol=_round(tolerance * _rms(scaled) + residual_step))
    if "reconstruction" in found:
        steps = _steps(seen, scaling.scale)
        _check_rounding(
            "reconstructions", float(steps.max(where=_varying(seen), initial=0.0)), seen / scaling.scale, tolerance
        )
        residual_step += float(_steps(seen, scale).max())
        residual_error = tolerance * _rms((found["reconstruction"] - scaling.mean) / scale) + residual_step
        result["reconstruction"] = Tolerance(rtol=tolerance, atol=_round(residual_error))
    if scoring is not None:
        score, error = _rms(found["score"]), 0.0
        for step, whole in (
            (residual_step, residual_error) if scoring.uses_residuals else (0.0, 0.0),
            (scoring.latent_gain * last_digit, scoring.latent_gain * result["latent"].atol),
        ):
            error += 2 * np.sqrt(score) * step + whole**2
        result["score"] = Tolerance(rtol=10 * tolerance, atol=_round(float(tolerance * score + error)))
    return result


def _steps(example: NDArray[Any], scale: NDArray[np.float32]) -> NDArray[np.float64]:
    """Four steps of float32 at the largest size of each value, in units of the scale."""
    steps: NDArray[np.float64] = 4 * 2.0**-23 * np.abs(example / scale.astype(np.float64)).max(axis=0)
    return steps


def _check_rounding(what: str, needed: float, values: NDArray[Any], tolerance: float) -> None:
    """Refuse a tolerance for rounding that would hide what the values vary by."""
    if share := _hidden(needed, values, tolerance):
        more = f", or pass tolerance={0.22 * share:.2g}" if 0.22 * share <= _LARGEST else ""
        raise InputError(
            f"example: rounding its values to float32 may change {what} by {share:.0%} of what they vary by; values "
            f"that are large beside their variation need a scaler, scaler=(mean, scale), or rows less their mean{more}"
        )


def _hidden(needed: float, values: NDArray[Any], tolerance: float) -> float:
    """The share of what values vary by that a tolerance would hide, where it is too much; 0 also for constants."""
    spread = _rms(values - values.mean(axis=0, dtype=np.float64))
    too_much = spread > 2.0**-22 * _rms(values) and needed > max(_ROUNDING, 5 * tolerance) * spread
    return needed / spread if too_much else 0.0


def _varying(example: NDArray[Any]) -> NDArray[np.bool_]:
    """Mask of the values that change by more than a few of float32's steps."""
    low, high = example.min(axis=0).astype(np.float64), example.max(axis=0).astype(np.float64)
    mask: NDArray[np.bool_] = high - low > 1e-6 * np.maximum(np.abs(low), np.abs(high))
    return mask


def check_runs(model: ModelProto, role: str) -> None:
    """onnxruntime must take the graph, and run it on one row and on two.

    Args:
        model: with one input and one output.
        role: "encoder" or "decoder".

    Raises:
        InputError: it does not; parts in another precision than float32 may lack kernels.
    """
    given, result = (end.type.tensor_type for end in (model.graph.input[0], model.graph.output[0]))
    shapes = [tuple(axis.dim_value for axis in end.shape.dim[1:]) for end in (given, result)]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(given.elem_type)
    try:
        session = Session(model.SerializeToString(), role, dtype.name, shapes[0], shapes[1])
        for count in (1, 2):
            session.run(np.zeros((count, *shapes[0]), dtype))
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise InputError(f"{role}: expected a graph that onnxruntime runs, but {_unsupported(model, error)}") from error


def _unsupported(model: ModelProto, error: Exception) -> str:
    """What onnxruntime cannot do; a kernel that it lacks with the type of its numbers."""
    version, reason = runtime_version(), re.sub(r"^.*?cannot load it \((.*)\); .*$", r"\1", first_line(error))
    if found := re.search(r"Could not find an implementation for (\w+)\(\d+\) node with name '(\w+)'", reason):
        kind, name = found.groups()
        inferred = onnx.shape_inference.infer_shapes(model).graph
        types = {value.name: value.type.tensor_type.elem_type for value in [*inferred.value_info, *inferred.input]}
        node = next(node for node in inferred.node if node.name == name)
        given = next((types[value] for value in node.input if value in types), 0)
        dtype = onnx.TensorProto.DataType.Name(given).lower().replace("double", "float64")
        return f"version {version} has no {kind} of {dtype}; compute that part in float32"
    return f"version {version} says: {reason}"


def accept(path: Path, reference: Reference, example: NDArray[Any], name: str) -> None:
    """Load the bundle at `path` with aeedge and compare it with torch at batches of 1, 2, 7 and 257.

    Raises:
        VerificationError: an output differs, the message names output, batch, row and tolerance; or the bundle does not
            run, or not reproduce its golden rows.
    """
    try:
        with aeedge.load(path, variant="fp32", threads=1) as model:
            _compare(model, reference, example, name)
            model.self_check()
    except (BundleError, VerificationError) as error:
        text = str(error)
        if text.startswith(name):
            raise
        # A device's words: a folder that is gone, this machine, advice to export again.
        reason = text.removeprefix(f"{path} (fp32): ").removeprefix("on this machine ").partition(";")[0]
        raise VerificationError(f"{name}: not exported, {reason.replace(str(path), name)}") from error


def _compare(model: aeedge.Model, reference: Reference, example: NDArray[Any], name: str) -> None:
    rows = without_codes(trial_rows(example), example[0], model.input)
    calls: dict[str, Callable[[Any], Any]] = {"latent": model.encode, "reconstruction": model.reconstruct}
    calls |= {"score": model.score, "features": model.features}
    allowed = model.manifest.variants["fp32"].tolerance
    compared = reference.seen(rows)
    for what, values in reference.outputs(rows).items():
        for batch in BATCHES:
            parts = [calls[what](rows[start : start + batch]) for start in range(0, len(rows), batch)]
            found = deviation(what, compared, np.concatenate(parts), values, allowed[what], model.manifest.score)
            if not found.ok:
                kind = "extreme " if found.row < _EXTREME else ""
                raise VerificationError(
                    f"{name}: not exported, aeedge and torch disagree: at batch {batch} the {found} ({kind}row of "
                    "257); find the layer that onnxruntime computes differently (in float16?), or raise the tolerance"
                )


def integer_tolerances(
    fp32: Mapping[str, Tolerance],
    outputs: Callable[[NDArray[Any]], dict[str, NDArray[np.float32]]],
    rows: NDArray[Any],
    score: ScoreSpec,
    elsewhere: Callable[[NDArray[Any]], dict[str, NDArray[np.float32]]] | None,
) -> dict[str, Tolerance]:
    """Tolerances of an int8 variant against itself on another machine.

    Integers are the same everywhere; what is left is the rounding of the last scaling to float32, and where float
    layers come before integer ones, a last digit that decides between two steps: measured by moving the input by one,
    by giving the rows one by one, which float layers sum in another order, and by moving the weights.

    Args:
        fp32: tolerances of fp32.
        outputs: of the variant, by name.
        rows: raw rows (n, *shape) to measure with.
        score: how rows are scored.
        elsewhere: `outputs` with the weights of float layers moved by a last digit; None without float layers.
    """
    found = outputs(rows)
    others = [_one_by_one(outputs, rows)] + ([] if elsewhere is None else [elsewhere(rows)])
    if rows.dtype.kind == "f":
        others += [outputs(np.nextafter(rows, rows.dtype.type(end))) for end in (-np.inf, np.inf)]
    exactly = Tolerance(rtol=0.0, atol=0.0)
    flips = {
        what: max(deviation(what, rows, other[what], values, exactly, score).error for other in others)
        for what, values in found.items()
    }
    latent = Tolerance(rtol=_INTEGER_TOLERANCE, atol=_INTEGER_TOLERANCE * _rms(found["latent"]))
    return {
        what: Tolerance(rtol=base.rtol, atol=_round(base.atol + flips[what]))
        for what, base in {**fp32, "latent": latent}.items()
    }


def _one_by_one(
    outputs: Callable[[NDArray[Any]], dict[str, NDArray[np.float32]]], rows: NDArray[Any]
) -> dict[str, NDArray[np.float32]]:
    parts = [outputs(rows[i : i + 1]) for i in range(len(rows))]
    return {what: np.concatenate([part[what] for part in parts]) for what in parts[0]}


def accept_integer(path: Path, example: NDArray[Any], name: str, *, exact: bool) -> None:
    """Load the int8 variant with aeedge: golden rows, and latents that do not depend on the batch.

    Args:
        path: the bundle.
        example: raw rows (n, *shape).
        name: of the bundle, for messages.
        exact: whether latents must be equal to the bit; else within the variant's tolerance, for float layers sum in an
            order that depends on the batch.

    Raises:
        VerificationError: a row's latent depends on its neighbours, or the golden rows are not reproduced.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a device is told: here it is an error
        model = aeedge.load(path, variant="int8", threads=1, check="golden")
    with model:
        rows = without_codes(trial_rows(example), example[0], model.input)
        if model.variant != "int8":
            raise VerificationError(f"{name}: int8 does not reproduce its own golden rows here")
        allowed = None if exact else model.manifest.variants["int8"].tolerance["latent"]
        check_batch_invariance(model.encode, rows, name, allowed)


def check_batch_invariance(
    encode: Callable[[NDArray[Any]], NDArray[Any]], rows: NDArray[Any], name: str, allowed: Tolerance | None = None
) -> None:
    """A row's latent must not depend on its batch: equal to the bit, or within `allowed`, at 1, 2, 7 and 257 rows.

    Raises:
        VerificationError: it does, as after dynamic quantisation, whose steps follow the batch's range.
    """
    whole = encode(rows)
    for batch in BATCHES:
        parts = np.concatenate([encode(rows[start : start + batch]) for start in range(0, len(rows), batch)])
        found = deviation(
            "latent", rows, parts, whole, allowed or Tolerance(0.0, 0.0), ScoreSpec("mse", np.ones((), np.float32))
        )
        if not found.ok:
            raise VerificationError(
                f"{name}: the int8 latent of row {found.row} changes with its neighbours: at batch {batch} it differs "
                f"by {found.error:.2g}, allowed is {found.allowed:.2g}; dynamic quantisation does that"
            )


def _last_digit(
    reference: Reference,
    example: NDArray[Any],
    before: NDArray[np.float32],
    which: NDArray[np.bool_] | bool = True,
    *,
    what: str = "latent",
    scale: NDArray[np.float32] | float = 1.0,
) -> float:
    """Largest change of an output when inputs are moved up or down by float32's resolution.

    0 for integer inputs, but for those of a front end, which sums them as float32.

    Args:
        reference, example: see `tolerances`.
        before: the output, divided by `scale`.
        which: mask of the inputs that are moved.
        what: name of the output.
        scale: what it is divided by.
    """
    if example.dtype.kind != "f" and not reference.has_front_end:
        return 0.0
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), example.shape) * which
    moved = reference.outputs((example * (1 + signs * np.float32(2**-23))).astype(np.float32))[what] / scale
    return float(np.abs(moved.astype(np.float64) - before).max())


def _rms(values: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _round(value: float) -> float:
    """Three digits are plenty for a tolerance, and read better in the manifest; rounded up."""
    return float(f"{value * 1.005:.2e}")
