"""Graphs rewritten for onnxruntime: `exact.py` and `folding.py` are the rewrites, each with the measurement that
justifies it, and `editing.py` the edits that they share.
"""

from onnx import ModelProto

from aeedge_export.conversion.exact import conv1d_as_conv2d, fold_normalization, fold_scaler

__all__ = ["for_fp32"]


def for_fp32(model: ModelProto) -> ModelProto:
    """The canonical graph in the form that onnxruntime runs fastest in fp32, equal up to the last digits."""
    return conv1d_as_conv2d(fold_scaler(fold_normalization(model)))
