"""A weight matrix as two thinner ones, of which the second runs on fewer numbers: less work for one operator more.

The factors are those that change the layer's outputs on calibration rows least: a truncated SVD of the weight times the
square root of its inputs' second moments (as in ASVD: Yuan et al. 2023, https://arxiv.org/abs/2312.05821).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx.helper
import onnx.numpy_helper
import torch
from onnx import ModelProto, TensorProto
from torch import Tensor, nn

from aeedge_export.compression.units import EncoderAndDecoder, inputs_of
from aeedge_export.conversion.graph import IR_VERSION, OPSET
from aeedge_export.quantization.encoder_decoder import EncoderDecoder, time_ratio

_BATCHES = (1, 1024)
_FASTER = 0.95  # of the time of one matrix, from which two are faster: timing is noisy
_RIDGE = 1e-6


@dataclass(frozen=True)
class Basis:
    """Directions that a linear layer's outputs vary in, the most first: (outputs, directions); `mean` of its inputs."""

    left: Tensor
    mean: Tensor


@torch.no_grad()
def bases(network: EncoderAndDecoder, names: Iterable[str], rows: Tensor) -> dict[str, Basis]:
    """By name of a linear layer, for inputs (n, *shape) on which its outputs are to be kept."""
    layers = {name: network.get_submodule(name) for name in names}
    inputs = inputs_of(network, layers, rows)
    return {name: _basis(layers[name], inputs[name].flatten(0, -2).double()) for name in layers}


def _basis(layer: nn.Module, x: Tensor) -> Basis:
    mean = torch.zeros(x.shape[1], dtype=x.dtype) if layer.bias is None else x.mean(dim=0)
    moments = (x - mean).T @ (x - mean) / len(x)
    moments += _RIDGE * moments.diagonal().mean().clamp(min=1e-30) * torch.eye(len(moments), dtype=x.dtype)
    root = torch.linalg.cholesky(moments)  # outputs change by |(W - W') root|
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return Basis(torch.linalg.svd(weight.double() @ root, full_matrices=False)[0], mean)


@torch.no_grad()
def factored(network: EncoderAndDecoder, ranks: Mapping[str, int], found: Mapping[str, Basis]) -> EncoderAndDecoder:
    """Replace linear layers of a network, which is changed, by two of these ranks."""
    for name, rank in ranks.items():
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        network.set_submodule(name, _factors(layer, found[name].left[:, :rank], found[name].mean))
    return network


def _factors(layer: nn.Linear, left: Tensor, mean: Tensor) -> nn.Sequential:
    weight, rank = layer.weight.double(), left.shape[1]
    first, second = nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features)
    inner = left.T @ weight
    first.weight.copy_(inner.float())
    second.weight.copy_(left.float())
    if layer.bias is None:
        second.bias = None
    else:
        second.bias.copy_((layer.bias.double() + weight @ mean - left @ (inner @ mean)).float())
    return nn.Sequential(first, second).requires_grad_(False).eval()


def largest_that_pays(inputs: int, outputs: int, ranks: Sequence[int]) -> int:
    """The largest of rising ranks with which two factors are faster than their product; 0 where none is."""
    low, high = 0, len(ranks)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if _pays(inputs, outputs, ranks[middle]) else (low, middle)
    return ranks[low - 1] if low else 0


def _pays(inputs: int, outputs: int, rank: int) -> bool:
    """Whether onnxruntime multiplies by both factors faster than by their product, on this machine."""
    one, two = _chain(inputs, outputs), _chain(inputs, rank, outputs)
    scale = np.ones((), np.float32)
    variants = EncoderDecoder({"encoder": two}, scale), EncoderDecoder({"encoder": one}, scale)
    rng = np.random.default_rng(0)
    return all(
        time_ratio(*variants, "encoder", rng.normal(size=(rows, inputs)).astype(np.float32))[1] < _FASTER
        for rows in _BATCHES
    )


def _chain(*widths: int) -> ModelProto:
    """Matrix products between these widths as a graph."""
    rng, nodes, weights = np.random.default_rng(0), [], []
    for i in range(len(widths) - 1):
        weight = rng.normal(size=widths[i : i + 2]).astype(np.float32) / np.sqrt(widths[i])
        weights += [
            onnx.numpy_helper.from_array(weight.astype(np.float32), f"w{i}"),
            onnx.numpy_helper.from_array(np.zeros(widths[i + 1], np.float32), f"b{i}"),
        ]
        nodes.append(onnx.helper.make_node("Gemm", [f"x{i}", f"w{i}", f"b{i}"], [f"x{i + 1}"]))
    ends = [
        onnx.helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, ["n", widths[i]]) for i in (0, len(widths) - 1)
    ]
    graph = onnx.helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    opset = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
