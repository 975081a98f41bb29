"""The scorer: encoder, decoder and mean squared error as one graph, raw samples in and scores out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.checker
import onnx.compose
import onnx.helper
import onnx.numpy_helper
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

_PREFIX = "decoder_"


def scorer(encoder: ModelProto, decoder: ModelProto, scale: NDArray[np.float32]) -> ModelProto:
    """Join an encoder and a decoder into one graph that computes anomaly scores.

    score = mean(((input - decoder(encoder(input))) / scale)²), the same operations in the same order as
    `aeedge.runtime.methods.score`. ReduceMean is faster than a product with a vector of ones.

    Args:
        encoder: raw samples "input" (n, *shape) of float32, uint8 or int16 to latents (n, k).
        decoder: latents (n, k) to raw samples (n, *shape), float32.
        scale: divides the residual, in raw units; broadcasts to one sample.

    Returns:
        A model named "scorer" from "input" (n, *shape) to "score" (n,), with the opset and IR version of the encoder.

    Raises:
        onnx.checker.ValidationError: the joined graph is not valid; a fault of the given graphs.
    """
    ends = [(encoder.graph.output[0].name, decoder.graph.input[0].name)]
    model = onnx.compose.merge_models(encoder, decoder, ends, prefix2=_PREFIX, name="scorer")
    model.ir_version, model.producer_name = encoder.ir_version, encoder.producer_name
    model.producer_version = model.doc_string = model.graph.doc_string = ""
    del model.opset_import[len(encoder.opset_import) :]  # merging repeats them
    graph = model.graph
    given, made = graph.input[0], graph.output[0].name

    def add(kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        output = output or f"score_{kind.lower()}"
        graph.node.append(onnx.helper.make_node(kind, inputs, [output], f"score_{kind}", **attributes))
        return output

    raw = given.name
    if given.type.tensor_type.elem_type != TensorProto.FLOAT:
        raw = _float_of(model) or add("Cast", raw, to=TensorProto.FLOAT)
    residual = add("Sub", raw, made)
    divisor = np.asarray(scale, np.float32)
    if (divisor != 1).any():
        divisor = divisor.ravel()[0].reshape(()) if (divisor == divisor.flat[0]).all() else divisor
        graph.initializer.append(onnx.numpy_helper.from_array(divisor, "score_scale"))
        residual = add("Div", residual, "score_scale")
    squared = add("Mul", residual, residual)
    if len(given.type.tensor_type.shape.dim) > 2:
        squared = add("Flatten", squared, axis=1)
    add("ReduceMean", squared, output="score", axes=[1], keepdims=0)
    batch = given.type.tensor_type.shape.dim[0].dim_param
    graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("score", TensorProto.FLOAT, [batch]))
    onnx.checker.check_model(model, full_check=True)
    return model


def _float_of(model: ModelProto) -> str | None:
    """The input as float32 where the encoder casts it already."""
    casts = [n for n in model.graph.node if n.op_type == "Cast" and n.input[0] == model.graph.input[0].name]
    found = (n.output[0] for n in casts if onnx.helper.get_node_attr_value(n, "to") == TensorProto.FLOAT)
    return next(found, None)
