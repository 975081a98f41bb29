"""Ranges of activations from example rows, by several methods, and bias correction for given ranges.

minmax keeps every value; the others give up rare ones for finer steps:
percentile, entropy (Migacz 2017, "8-bit inference with TensorRT"), mse (least squared rounding error, as OMSE:
Choukroun et al. 2019, https://arxiv.org/abs/1902.06822). Which is best depends on the network, so it is measured.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx.helper
from numpy.typing import NDArray
from onnx import ModelProto

from aeedge.runtime.session import every_output
from aeedge_export.conversion.editing import bias_of, opened, output_axis, per_channel, weight_of
from aeedge_export.quantization.affine import Affine, Floats, quantized_weight

Range = tuple[float, float]

_BINS, _LEVELS, _CUTS, _SAMPLE = 2048, 128, 64, 200_000


def activations(model: ModelProto, rows: NDArray[Any]) -> dict[str, Floats]:
    """Every value of a float graph for some rows, input included, by name."""
    model = copy.deepcopy(model)
    names = [name for node in model.graph.node for name in node.output if name]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return {model.graph.input[0].name: rows, **every_output(model.SerializeToString(), rows)}


def minmax(values: Floats) -> Range:
    """Least and largest value."""
    return float(values.min()), float(values.max())


def percentile(keep: float) -> Callable[[Floats], Range]:
    """The range that holds `keep` percent of values, half of the others left out on each side; 0 is never cut off."""

    def method(values: Floats) -> Range:
        low, high = minmax(values)
        rest = (100 - keep) / (1 if low >= 0 or high <= 0 else 2)
        return (low if low >= 0 else float(np.percentile(values, rest))), (
            high if high <= 0 else float(np.percentile(values, 100 - rest))
        )

    return method


def mse(values: Floats) -> Range:
    """The cut range whose 256 steps lose least, in squared error, of the values."""
    low, high = minmax(values)
    sample = np.random.default_rng(0).choice(values.ravel(), min(values.size, _SAMPLE))  # a stride would miss channels
    cuts = np.linspace(0.3, 1.0, _CUTS)

    def loss(cut: float) -> float:
        return float(np.square(Affine.of(low * cut, high * cut).rounded(sample) - sample, dtype=np.float64).sum())

    best = min(cuts[::-1], key=loss)
    return low * float(best), high * float(best)


def entropy(values: Floats) -> Range:
    """The cut range whose 128 levels keep the histogram's shape: least Kullback-Leibler divergence."""
    low, high = minmax(values)
    if low == high:  # a state of zeros has no shape to keep
        return low, high
    reach = max(-low, high, 1e-30)
    counts = np.histogram(np.abs(values), _BINS, (0, reach))[0].astype(np.float64)
    counts[0] = counts[1]  # ReLU's zeros are exact at any range, and would outweigh all else
    cuts = range(_LEVELS, _BINS + 1, 16)
    limit = reach * min(cuts, key=lambda cut: _divergence(counts, cut)) / _BINS
    return max(low, -limit), min(high, limit)


def _divergence(counts: NDArray[np.float64], cut: int) -> float:
    """KL divergence of a histogram whose tail is clipped at `cut`, from its form with _LEVELS steps."""
    p = counts[:cut].copy()
    p[-1] += counts[cut:].sum()
    level = np.arange(cut) * _LEVELS // cut
    kept = counts[:cut]
    filled = np.bincount(level, kept > 0, _LEVELS)
    q = np.where(kept > 0, (np.bincount(level, kept, _LEVELS) / np.maximum(filled, 1))[level], 0.0)
    p, q = p / max(p.sum(), 1e-30), q / max(q.sum(), 1e-30)
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-12))).sum())


METHODS: dict[str, Callable[[Floats], Range]] = {
    "minmax": minmax,
    "percentile 99.99": percentile(99.99),
    "percentile 99.9": percentile(99.9),
    "entropy": entropy,
    "mse": mse,
}


def ranges(values: Mapping[str, Floats], method: Callable[[Floats], Range]) -> dict[str, Range]:
    """A range for every value that can be quantised; raw integers keep theirs."""
    finite = {name: v for name, v in values.items() if isinstance(v, np.ndarray) and v.size and np.isfinite(v).all()}
    return {name: minmax(v) if v.dtype != np.float32 else method(v) for name, v in finite.items()}


def corrected_biases(
    model: ModelProto, values: Mapping[str, Floats], found: Mapping[str, Range], *, safe: bool = True
) -> dict[str, Floats]:
    """Biases that undo the mean error of rounding weights and inputs, by name of Gemm or Conv.

    E[W x] - E[Wq xq] by output channel (Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.2, with means
    measured instead of derived). At the borders of convolutions it is approximate.
    """
    result = {}
    for node in opened(model).graph:
        if node.op_type not in ("Gemm", "Conv"):
            continue
        weight, bias, axis, source = weight_of(node), bias_of(node), output_axis(node), node.inputs[0]
        if not weight.size or bias is None or source is None:
            continue
        steps, scale = quantized_weight(weight, axis, safe=safe)
        rounded = steps * per_channel(scale, axis, weight.ndim)
        x = values[str(source.name)]
        over = tuple(i for i in range(x.ndim) if i != 1)
        mean = x.mean(axis=over, dtype=np.float64)
        mean_rounded = Affine.of(*found[str(source.name)]).rounded(x).mean(axis=over, dtype=np.float64)
        groups = node.attributes.get_int("group", 1)
        error = _mean_output(weight, axis, groups, mean) - _mean_output(rounded, axis, groups, mean_rounded)
        result[str(node.name)] = (bias + error).astype(np.float32)
    return result


def _mean_output(weight: NDArray[Any], axis: int, groups: int, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """What inputs of a mean for each channel give in each output channel; a group of channels reads only its own."""
    taps = tuple(range(2, weight.ndim))
    matrix = np.moveaxis(weight.astype(np.float64).sum(axis=taps), axis, 0)
    parts = zip(np.split(matrix, groups), np.split(mean, groups))
    return np.concatenate([part @ own for part, own in parts])
