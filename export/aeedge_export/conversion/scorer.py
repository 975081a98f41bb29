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

from aeedge.detection.scores import Scoring


def scorer(encoder: ModelProto, decoder: ModelProto | None, scoring: Scoring, features: str = "") -> ModelProto:
    """The anomaly score as a graph of standard operators.

    Args:
        encoder: raw samples (n, *shape), float32 or integers, to latents.
        decoder: latents to reconstructions (n, *shape) in raw units, float32; None where the score needs none.
        scoring: the score; its parameters are the initializers "score/scale", "score/mean" and "score/whitening".
        features: the value of the encoder's graph that the decoder reconstructs; its input where empty.

    Returns:
        A model of the encoder's input and one output "score", (n,) float32.
    """
    given, latent = encoder.graph.input[0], encoder.graph.output[0].name
    model = ModelProto()
    model.CopyFrom(encoder)
    if decoder is not None and scoring.uses_residuals:
        model = onnx.compose.merge_models(
            encoder,
            decoder,
            io_map=[(latent, decoder.graph.input[0].name)],
            prefix2="decoder/",
            producer_name=encoder.producer_name,
        )
    graph, reconstructed = model.graph, model.graph.output[0]
    reconstruction = reconstructed.name
    graph.name = "scorer"
    both = scoring.uses_residuals and scoring.whitening is not None

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        graph.node.append(onnx.helper.make_node(kind, inputs, [output], name=f"{output}/{kind}", **attributes))
        return output

    def constant(name: str, values: NDArray[np.float32]) -> str:
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    if scoring.uses_residuals:
        x, axes = given.name, list(range(1, len(given.type.tensor_type.shape.dim)))
        if features:
            x, axes = features, list(range(1, len(reconstructed.type.tensor_type.shape.dim)))
        elif given.type.tensor_type.elem_type != TensorProto.FLOAT:
            x = _cast(encoder, x) or add("Cast", [x], "score/input", to=TensorProto.FLOAT)
        residual = add("Sub", [x, reconstruction], "score/difference")
        if scoring.kind != "mse" or not (scoring.scale == 1).all():  # fitted scales can be fitted again on a device
            residual = add("Div", [residual, constant("score/scale", scoring.scale)], "score/residual")
        squares = add("Mul", [residual, residual], "score/squares")
        add("ReduceMean", [squares], "score/residuals" if both else "score", axes=axes, keepdims=0)
    if scoring.mean is not None and scoring.whitening is not None:
        flat = add("Flatten", [latent], "score/latent", axis=1)
        centred = add("Sub", [flat, constant("score/mean", scoring.mean)], "score/centred")
        white = add("MatMul", [centred, constant("score/whitening", scoring.whitening.T)], "score/whitened")
        squares = add("Mul", [white, white], "score/whitened_squares")
        add("ReduceMean", [squares], "score/latents" if both else "score", axes=[1], keepdims=0)
    if both:
        add("Add", ["score/residuals", "score/latents"], "score")
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
