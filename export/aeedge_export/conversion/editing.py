"""Models opened with onnx_ir for rewriting, and the few edits that the rewrites share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import ModelProto
from onnx_ir.passes import common


def opened(model: ModelProto, *, shapes: bool = False) -> ir.Model:
    """A copy to rewrite, with Constant nodes as initializers and, if asked for, the inferred shapes of all values."""
    network = ir.from_proto(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(network)
    if shapes:
        common.ShapeInferencePass()(network)
    return network


def closed(network: ir.Model) -> ModelProto:
    """The model again, without nodes and initializers that nothing reads, and without inferred shapes."""
    common.RemoveUnusedNodesPass()(network)
    model: ModelProto = ir.to_proto(network)
    del model.graph.value_info[:]
    return model


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The array of an initializer, or None for what is computed or absent."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def weight_of(layer: ir.Node) -> NDArray[Any]:
    """The constant weight of a Gemm, Conv or ConvTranspose; an array without elements where it is computed."""
    found = constant(layer.inputs[1])
    return np.empty(0) if found is None else found


def bias_of(layer: ir.Node) -> NDArray[Any] | None:
    """The constant bias of a layer, or None."""
    return constant(layer.inputs[2]) if len(layer.inputs) > 2 else None


def output_axis(layer: ir.Node) -> int:
    """The axis of the output channels in a layer's weight."""
    plain = layer.op_type == "Gemm" and not layer.attributes.get_int("transB", 0)
    return int(plain or layer.op_type == "ConvTranspose")


def per_channel(values: NDArray[Any], axis: int, rank: int) -> NDArray[Any]:
    """Values (n,) shaped to broadcast along one axis of a weight."""
    return values.reshape([-1 if i == axis else 1 for i in range(rank)])


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value, or None: several, none, or it is an output of the graph."""
    consumers = value.consumers()
    return consumers[0] if len(consumers) == 1 and not value.is_graph_output() else None


def add_weight(graph: ir.Graph, stem: str, array: NDArray[Any]) -> ir.Value:
    """Register an array as an initializer named after `stem`; numbered where that name is taken."""
    name, count = stem, 1
    while name in graph.initializers:
        name, count = f"{stem}_{count}", count + 1
    tensor = ir.tensor(np.ascontiguousarray(array).reshape(np.shape(array)), name=name)
    value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def node(kind: str, inputs: Sequence[ir.Value | None], output: str, name: str, **attributes: Any) -> ir.Node:
    """A new node with one output."""
    return ir.node(kind, inputs, attributes, outputs=[ir.Value(name=output)], name=name)


def take_over(new: ir.Value, old: ir.Value) -> None:
    """Let the consumers of one value read another, which becomes an output of the graph if the old one is."""
    if old.is_graph_output():
        new.name, new.type, new.shape = old.name, old.type, old.shape
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def substitute(old: Sequence[ir.Node], new: Sequence[ir.Node]) -> None:
    """Put nodes in the place of others; the last output of `new` takes over name and consumers of that of `old`."""
    graph = old[-1].graph
    assert graph is not None
    ends = old[-1].outputs[0], new[-1].outputs[0]
    ir.convenience.replace_nodes_and_values(graph, old[-1], list(reversed(old)), new, [ends[0]], [ends[1]])


def bypass(passed: ir.Node) -> None:
    """Remove a node: its consumers read its first input. An output of the graph keeps its name."""
    graph, source = passed.graph, passed.inputs[0]
    assert graph is not None
    assert source is not None
    take_over(source, passed.outputs[0])
    graph.remove(passed, safe=True)
