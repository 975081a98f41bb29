"""Graphs rewritten for onnxruntime: `editing.py` has the editable graph, `exact.py` and `folding.py` the rewrites, each
with the measurement that justifies it.
"""

from onnx import ModelProto

from aeedge_export.conversion.exact import conv1d_as_conv2d, fold_normalization, fold_scaler

__all__ = ["for_fp32"]


def for_fp32(model: ModelProto) -> ModelProto:
    """The canonical graph in the form that onnxruntime runs fastest in fp32, equal up to the last digits."""
    return conv1d_as_conv2d(fold_scaler(fold_normalization(model)))
