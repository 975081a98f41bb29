"""From a torch module to a canonical ONNX graph: raw units in and out, opset 17, IR 8, the same bytes every time.

Everything that the model needs to see raw input is inside the graph: a cast for integer pixels, the scaler's mean and
scale. Names are set by position and metadata of the exporter is dropped, so that the same module gives the same bytes.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.checker
import onnx.helper
import onnx.numpy_helper
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from aeedge.errors import InputError

OPSET, IR_VERSION = 17, 8
_NAMES = {"encoder": ("input", "latent"), "decoder": ("latent", "reconstruction")}


@dataclass(frozen=True)
class Scaling:
    """`mean` and `scale`, float32, that broadcast to one row."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]


class RawEncoder(nn.Module):
    """An encoder of scaled rows as one of raw rows: encoder((x - mean) / scale)."""

    def __init__(self, encoder: nn.Module, scaling: Scaling) -> None:
        super().__init__()
        self.encoder = encoder
        self.mean, self.scale = _buffer(scaling.mean, 0.0), _buffer(scaling.scale, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """(n, *input_shape) raw, any dtype -> (n, latent)."""
        x = x.to(torch.float32)
        x = x if self.mean is None else x - self.mean
        latent: Tensor = self.encoder(x if self.scale is None else x / self.scale)
        return latent


class RawDecoder(nn.Module):
    """A decoder of scaled rows as one of raw rows: decoder(z) * scale + mean."""

    def __init__(self, decoder: nn.Module, scaling: Scaling) -> None:
        super().__init__()
        self.decoder = decoder
        self.mean, self.scale = _buffer(scaling.mean, 0.0), _buffer(scaling.scale, 1.0)

    def forward(self, z: Tensor) -> Tensor:
        """(n, latent) -> (n, *input_shape) raw, float32."""
        x: Tensor = self.decoder(z)
        x = x if self.scale is None else x * self.scale
        return x if self.mean is None else x + self.mean


def _buffer(values: NDArray[np.float32], neutral: float) -> nn.Parameter | None:
    """Constants of the graph, or None where they would change nothing."""
    if (values == neutral).all():
        return None
    return nn.Parameter(torch.from_numpy(np.array(values, np.float32)), requires_grad=False)


def frozen(module: nn.Module) -> nn.Module:
    """A copy on the CPU in evaluation mode, so that exporting leaves the caller's module alone."""
    return copy.deepcopy(module).cpu().eval()


def to_onnx(module: nn.Module, example: Tensor, role: str) -> ModelProto:
    """Convert a frozen module with one input and one output, whose first axis is the free batch size.

    Args:
        module: RawEncoder or RawDecoder.
        example: two or more rows of input.
        role: "encoder" or "decoder", which names input and output.

    Raises:
        InputError: torch cannot convert the module, or not with a free batch size.
    """
    names = _NAMES[role]
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (example[:2].contiguous(),),
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                input_names=[names[0]],
                output_names=[names[1]],
                dynamic_shapes=({0: torch.export.Dim("n")},),
                verbose=False,
            )
            assert program is not None
            model: ModelProto = program.model_proto
    except Exception as error:  # torch raises many kinds; the first line says most
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{role}: expected a module that torch can export with a free batch size, but: {reason}; "
            "avoid shapes and branches that depend on the batch"
        ) from error
    return _canonical(model, role)


def _canonical(model: ModelProto, role: str) -> ModelProto:
    graph = model.graph
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version, model.doc_string = "aeedge", "", ""
    del model.metadata_props[:]
    graph.name, graph.doc_string = role, ""
    del graph.value_info[:]
    if any(t.HasField("data_location") and t.data_location == onnx.TensorProto.EXTERNAL for t in graph.initializer):
        raise InputError(f"{role}: expected weights inside the graph, got external data; models over 2 GB do not fit")
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets.get("") != OPSET or set(opsets) != {""} or len(model.functions):
        raise InputError(
            f"{role}: expected standard operators of opset {OPSET}, got {opsets}; "
            "replace the layer that needs a newer or a vendor's operator"
        )
    _rename(graph)
    for tensor in graph.initializer:
        _flush_subnormal(tensor)
    onnx.checker.check_model(model, full_check=True)
    return model


def _rename(graph: onnx.GraphProto) -> None:
    """Number nodes and values in order: names of torch's tracing vary with versions, and mean nothing on a device."""
    keep = {value.name: value.name for value in [*graph.input, *graph.output]}
    for index, tensor in enumerate(graph.initializer):
        keep.setdefault(tensor.name, f"w{index}")
        tensor.name, tensor.doc_string = keep[tensor.name], ""
    for index, node in enumerate(graph.node):
        node.name, node.doc_string = f"{node.op_type}_{index}", ""
        del node.metadata_props[:]
        for position, name in enumerate(node.output):
            if name:
                node.output[position] = keep.setdefault(name, f"v{index}" + (f"_{position}" if position else ""))
        for position, name in enumerate(node.input):
            if name:
                node.input[position] = keep[name]
    for value in [*graph.input, *graph.output]:
        value.doc_string = ""
        del value.metadata_props[:]


def _flush_subnormal(tensor: onnx.TensorProto) -> None:
    """Subnormal weights to zero: they slow CPUs down a hundredfold and carry nothing."""
    if tensor.data_type != onnx.TensorProto.FLOAT:
        return
    values = onnx.numpy_helper.to_array(tensor)
    small = (np.abs(values) < np.finfo(np.float32).tiny) & (values != 0)
    if small.any():
        values = np.where(small, np.float32(0), values)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))


def stamped(model: ModelProto, identity: str, role: str) -> bytes:
    """The bytes of the file, with the bundle's id and the role in its metadata."""
    model = copy.deepcopy(model)
    for key, value in (("aeedge.id", identity), ("aeedge.role", role)):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    data: bytes = model.SerializeToString(deterministic=True)
    return data


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks about its own versions; none of it is for the person who exports a model."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
