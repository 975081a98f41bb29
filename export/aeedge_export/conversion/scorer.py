"""The scorer: encoder, decoder and anomaly score of a variant as one graph, raw samples to scores.

One session instead of two and numpy takes half the time for a single sample, and it is what a consumer in another
language wants: raw samples in, score out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.checker
import onnx.compose
import onnx.helper
import onnx.numpy_helper
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto


def scorer(encoder: ModelProto, decoder: ModelProto, scale: NDArray[np.float32]) -> ModelProto:
    """The mean over a sample of ((x - decoder(encoder(x))) / scale)², as a graph of standard operators.

    Args:
        encoder: raw samples (n, *shape), float32 or integers, to latents.
        decoder: latents to reconstructions (n, *shape) in raw units, float32.
        scale: in raw units, broadcasts to one sample.

    Returns:
        A model of the encoder's input and one output "score", (n,) float32.
    """
    given, latent = encoder.graph.input[0], encoder.graph.output[0].name
    model: ModelProto = onnx.compose.merge_models(
        encoder,
        decoder,
        io_map=[(latent, decoder.graph.input[0].name)],
        prefix2="decoder/",
        name="scorer",
        producer_name=encoder.producer_name,
    )
    graph, reconstruction = model.graph, model.graph.output[0].name
    axes = list(range(1, len(given.type.tensor_type.shape.dim)))

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        graph.node.append(onnx.helper.make_node(kind, inputs, [output], name=f"score/{kind}", **attributes))
        return output

    x = given.name
    if given.type.tensor_type.elem_type != TensorProto.FLOAT:
        x = _cast(encoder, x) or add("Cast", [x], "score/input", to=TensorProto.FLOAT)
    residual = add("Sub", [x, reconstruction], "score/difference")
    if not (scale == 1).all():
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(scale, np.float32), "score/scale"))
        residual = add("Div", [residual, "score/scale"], "score/residual")
    squares = add("Mul", [residual, residual], "score/squares")
    add("ReduceMean", [squares], "score", axes=axes, keepdims=0)
    del graph.output[:], graph.value_info[:]
    graph.output.append(onnx.helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n"]))
    model.ir_version = encoder.ir_version
    onnx.checker.check_model(model, full_check=True)
    return model


def _cast(encoder: ModelProto, value: str) -> str | None:
    """What the encoder has already converted to float32 of its input, if it does."""
    for node in encoder.graph.node:
        to = [attribute.i for attribute in node.attribute if attribute.name == "to"]
        if node.op_type == "Cast" and list(node.input) == [value] and to == [TensorProto.FLOAT]:
            output: str = node.output[0]
            return output
    return None
