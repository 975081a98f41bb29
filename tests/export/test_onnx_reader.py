"""The device's reader of ONNX files knows the format as the package onnx does."""

import onnx
import pytest
from google.protobuf.descriptor import FieldDescriptor

from aeedge.bundle import onnx_proto

PROTOS = {
    **{name: getattr(onnx, f"{name}Proto") for name in ("Model", "Graph", "Node", "Attribute", "Tensor", "ValueInfo")},
    **{name: getattr(onnx, f"{name}Proto") for name in ("Type", "TensorShape", "OperatorSetId", "StringStringEntry")},
    **{"TensorType": onnx.TypeProto.Tensor, "Dimension": onnx.TensorShapeProto.Dimension},
}
SCALARS = ("string", "bytes", "enum", "float", "double", "int32", "int64", "uint64")
KINDS = {getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name for name in SCALARS}
SAME = {"text": "string", "data": "bytes"}  # what the reader calls otherwise


def kind_of(field):
    """A field's type as the reader names it."""
    if field.message_type is None:
        return KINDS[field.type]
    return next(name for name, proto in PROTOS.items() if proto.DESCRIPTOR is field.message_type)


@pytest.mark.parametrize("message", onnx_proto._MESSAGES)
def test_numbers_names_and_types_of_fields_are_those_of_onnx(message):
    fields = PROTOS[message].DESCRIPTOR.fields_by_number
    for number, words in onnx_proto._MESSAGES[message].items():
        name, kind = words.split()
        repeated, kind = kind.startswith("*"), kind.lstrip("*")
        field = fields[number]
        assert (name, repeated) == (field.name, field.is_repeated)
        if name != "external_data":  # refused, and so not read
            assert SAME.get(kind, kind) == kind_of(field)


def test_types_of_attributes_and_sizes_of_values_are_those_of_onnx():
    types = onnx.AttributeProto.AttributeType
    for number, name in onnx_proto._ATTRIBUTE_TYPES.items():
        assert {"INT": "i", "INTS": "ints"}.get(types.Name(number), name) == name
        word = {"f": "FLOAT", "i": "INT", "s": "STRING", "t": "TENSOR", "g": "GRAPH"}.get(name, name.upper())
        assert types.Value(word) == number
    for number, size in onnx_proto._ITEM_BYTES.items():
        assert onnx.helper.tensor_dtype_to_np_dtype(number).itemsize == size
        field = onnx.helper.tensor_dtype_to_field(number)
        assert onnx_proto._DATA_FIELDS[number] == field
