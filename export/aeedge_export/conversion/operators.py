"""Operators of torch that its exporter lacks, or converts inexactly, in standard ONNX operators.

LogSigmoid as log(sigmoid(x)) is minus infinity from x = -104 on, where it should be x.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset18 as op
from onnxscript.function_libs.torch_lib.ops.nn import aten_scaled_dot_product_attention

aten = torch.ops.aten


def _kthvalue(x: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    values, indices = op.TopK(x, _ints(k), axis=dim, largest=0, sorted=1)
    last = _ints(k - 1) if keepdim else op.Constant(value_int=k - 1)
    return op.Gather(values, last, axis=dim), op.Gather(indices, last, axis=dim)


def _median(x: Any, dim: int, keepdim: bool = False) -> Any:
    return _kthvalue(x, (_size(x, dim) + 1) // 2, dim, keepdim)


def _cdist(x: Any, y: Any, p: float, compute_mode: int | None = None) -> Any:
    if p not in (1, 2):
        raise ValueError(f"cdist: expected p=1 or p=2, got {p:g}")
    apart = op.Sub(op.Unsqueeze(x, _ints(-2)), op.Unsqueeze(y, _ints(-3)))
    reduce = op.ReduceL1 if p == 1 else op.ReduceL2
    return reduce(apart, _ints(-1), keepdims=0)


def _rrelu(x: Any, noise: Any, lower: float = 0.125, upper: float = 1 / 3, training: bool = False) -> Any:
    if training:
        raise ValueError("rrelu draws random slopes while training; call eval()")
    return op.LeakyRelu(x, alpha=(lower + upper) / 2), op.Identity(noise)


def _average_pool(x: Any, output_size: Any) -> Any:
    return _pool(x, output_size, op.AveragePool, op.ReduceMean)


def _max_pool(x: Any, output_size: Any) -> Any:
    pooled = _pool(x, output_size, op.MaxPool, op.ReduceMax)
    return (
        pooled if isinstance(pooled, tuple) else (pooled, op.Identity(pooled))
    )  # torch also gives places, seldom read


def _pool(x: Any, output_size: Any, pool: Any, reduce: Any) -> Any:
    """Adaptive pooling: by windows of one size where it divides, else axis by axis and window by window."""
    sizes = {axis: _size(x, axis) for axis in range(-len(output_size), 0)}
    if not any(size % count for size, count in zip(sizes.values(), output_size)):
        kernel = [size // count for size, count in zip(sizes.values(), output_size)]
        return pool(x, kernel_shape=kernel, strides=kernel)
    for (axis, size), count in zip(sizes.items(), output_size):
        ends = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        along = _ints(axis)
        parts = [op.Slice(x, _ints(start), _ints(end), along) for start, end in ends]
        x = op.Concat(*[reduce(part, along, keepdims=1) for part in parts], axis=axis)
    return x


def _ints(value: int) -> Any:
    return op.Constant(value_ints=[value])


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Attention with any number of axes ahead of steps and values; torch's exporter wants heads."""
    rank = len(query.shape)
    if rank == 4:
        return aten_scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    factor = op.Constant(value_float=_size(query, -1) ** -0.5 if scale is None else scale)
    scores = op.MatMul(op.Mul(query, factor), op.Transpose(key, perm=[*range(rank - 2), rank - 1, rank - 2]))
    if is_causal:
        past = np.tri(_size(query, -2), _size(key, -2), dtype=bool)
        scores = op.Where(op.Constant(value=ir.tensor(past)), scores, op.Constant(value_float=-np.inf))
    elif attn_mask is not None and attn_mask.dtype == ir.DataType.BOOL:
        scores = op.Where(attn_mask, scores, op.Constant(value_float=-np.inf))
    elif attn_mask is not None:
        scores = op.Add(scores, attn_mask)
    return op.MatMul(op.Softmax(scores, axis=-1), value)


def _size(x: Any, axis: int) -> int:
    return int(x.shape[axis])


OPERATORS: dict[Callable[..., Any], Callable[..., Any]] = {
    aten.scaled_dot_product_attention.default: _attention,
    aten.mish.default: lambda x: op.Mul(x, op.Tanh(op.Softplus(x))),
    aten.log_sigmoid.default: lambda x: op.Neg(op.Softplus(op.Neg(x))),
    aten.rrelu_with_noise_functional.default: _rrelu,
    aten.kthvalue.default: _kthvalue,
    aten.median.dim: _median,
    aten._cdist_forward.default: _cdist,
    aten._adaptive_avg_pool3d.default: _average_pool,
    aten.adaptive_max_pool2d.default: _max_pool,
    aten.adaptive_max_pool3d.default: _max_pool,
}
