"""An editable graph for the rewrites: nodes in order, weights as arrays by name.

onnx_ir sorts it, removes unused nodes and weights, and infers shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx.helper
import onnx.numpy_helper
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, ValueInfoProto
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass, TopologicalSortPass


@dataclass
class Graph:
    """A model with one input and one output.

    Attributes:
        name: the graph's name.
        nodes: in an order in which they can run.
        weights: initializers by name.
        input, output: as in the model.
    """

    name: str
    nodes: list[NodeProto]
    weights: dict[str, NDArray[Any]]
    input: ValueInfoProto
    output: ValueInfoProto

    @classmethod
    def of(cls, model: ModelProto) -> Graph:
        """A copy of a model's graph; Constant nodes become weights."""
        weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        nodes = []
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                weights[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
            else:
                nodes.append(copy_of(node))
        return cls(model.graph.name, nodes, weights, model.graph.input[0], model.graph.output[0])

    def model(self, like: ModelProto) -> ModelProto:
        """A model with opset, IR version and metadata of `like`: nodes sorted, unused nodes and weights removed."""
        weights = [onnx.numpy_helper.from_array(a, n) for n, a in self.weights.items()]
        graph = onnx.helper.make_graph(self.nodes, self.name, [self.input], [self.output], initializer=weights)
        model = onnx.helper.make_model(graph, opset_imports=like.opset_import)
        model.ir_version, model.producer_name = like.ir_version, like.producer_name
        model.metadata_props.extend(like.metadata_props)
        sorted_model = ir.from_proto(model)
        ir.passes.Sequential(RemoveUnusedNodesPass(), TopologicalSortPass())(sorted_model)
        result = ir.to_proto(sorted_model)
        del result.graph.value_info[:]  # onnx_ir writes one for each weight
        return result

    def producer(self, value: str) -> NodeProto | None:
        """The node that computes a value; None for the input and for weights."""
        return next((node for node in self.nodes if value in node.output), None)

    def consumers(self, value: str) -> list[NodeProto]:
        """The nodes that read a value."""
        return [node for node in self.nodes if value in node.input]

    def only_consumer(self, value: str) -> NodeProto | None:
        """The one node that reads a value, or None: several, none, or it is the graph's output."""
        consumers = self.consumers(value)
        return consumers[0] if len(consumers) == 1 and value != self.output.name else None

    def constant(self, value: str) -> NDArray[Any] | None:
        """A weight's array, or None for what is computed."""
        return self.weights.get(value)

    def add_weight(self, stem: str, array: NDArray[Any]) -> str:
        """Add an array under a name that is not taken yet, and return that name."""
        name, count = stem, 1
        while name in self.weights:
            name, count = f"{stem}_{count}", count + 1
        self.weights[name] = np.ascontiguousarray(array).reshape(np.shape(array))
        return name

    def remove(self, node: NodeProto, instead: str) -> None:
        """Remove a node; its consumers read `instead`. The graph's output keeps its name."""
        self.nodes.remove(node)
        if node.output[0] == self.output.name:
            for other in self.nodes:
                replace(other.output, instead, node.output[0])
                replace(other.input, instead, node.output[0])
            return
        for other in self.nodes:
            replace(other.input, node.output[0], instead)


def shapes(model: ModelProto) -> dict[str, tuple[Any, ...]]:
    """The inferred shape of each value whose rank is known; None for free axes."""
    inferred = ir.from_proto(model)
    ShapeInferencePass(check_type=False, strict_mode=False)(inferred)
    values = ir.convenience.create_value_mapping(inferred.graph)
    return {
        name: tuple(axis if isinstance(axis, int) else None for axis in value.shape)
        for name, value in values.items()
        if value.shape is not None
    }


def copy_of(node: NodeProto) -> NodeProto:
    """A node that can be changed without changing the original."""
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def replace(names: Any, old: str, new: str) -> None:
    """Rename within a node's inputs or outputs."""
    for index, name in enumerate(names):
        if name == old:
            names[index] = new


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value, or the default if the node has none."""
    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return default


def set_attribute(node: NodeProto, name: str, value: Any) -> None:
    """Set or replace an attribute."""
    for item in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(item)
    node.attribute.append(onnx.helper.make_attribute(name, value))
