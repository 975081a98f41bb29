"""The device's reader of ONNX files knows the format as the package onnx does."""

import numpy as np
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
def test_texts_that_say_nothing_to_a_runtime_are_known(message):
    for number, field in PROTOS[message].DESCRIPTOR.fields_by_number.items():
        if field.name in ("name", "doc_string", "denotation", "metadata_props"):
            assert number in onnx_proto._MESSAGES[message]


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
    assert set(onnx_proto._ATTRIBUTE_TYPES) == set(range(1, 11))
    for number, name in onnx_proto._ATTRIBUTE_TYPES.items():
        assert {"INT": "i", "INTS": "ints"}.get(types.Name(number), name) == name
        word = {"f": "FLOAT", "i": "INT", "s": "STRING", "t": "TENSOR", "g": "GRAPH"}.get(name, name.upper())
        assert types.Value(word) == number
    for number, size in onnx_proto._ITEM_BYTES.items():
        assert onnx.helper.tensor_dtype_to_np_dtype(number).itemsize == size
        field = onnx.helper.tensor_dtype_to_field(number)
        assert onnx_proto._DATA_FIELDS[number] == field


def model_of(*nodes, tensors=()):
    opset = onnx.helper.make_opsetid("", 17)
    graph = onnx.helper.make_graph(nodes, "g", [], [], tensors)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


NUMBERS = [0, 1, -1, 127, 128, -128, 2**31 - 1, -(2**31), 2**62, 2**63 - 1, -(2**63)]


def test_integers_are_read_as_protobuf_reads_them():
    singles = {f"i{at}": value for at, value in enumerate(NUMBERS)}
    node = onnx.helper.make_node("N", ["x"], ["y"], ints=NUMBERS, **singles)
    (read,) = onnx_proto.inspect(model_of(node)).graph["node"]
    found = {each["name"]: each.get("ints", each.get("i", 0)) for each in read["attribute"]}
    assert found == {"ints": NUMBERS, **singles}


@pytest.mark.parametrize("kind", ["INT64", "INT32", "INT8", "UINT8", "BOOL"])
@pytest.mark.parametrize("raw", [True, False])
def test_values_of_tensors_are_read_as_protobuf_reads_them(kind, raw):
    number = onnx.TensorProto.DataType.Value(kind)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(number)
    values = np.array(NUMBERS).astype(dtype)
    held = onnx.helper.make_tensor("t", number, values.shape, values.tobytes() if raw else values.tolist(), raw=raw)
    (read,) = onnx_proto.inspect(model_of(tensors=[held])).graph["initializer"]
    assert onnx_proto.integers(read) == values.astype(np.int64).tolist()


@pytest.mark.parametrize("by", ["location", "entry", "both"])
def test_either_mark_of_data_elsewhere_is_enough(by):
    held = onnx.helper.make_tensor("t", onnx.TensorProto.FLOAT, (2,), np.ones(2, np.float32).tobytes(), raw=True)
    assert onnx_proto.inspect(model_of(tensors=[held])).graph["initializer"]
    if by != "entry":
        held.data_location = onnx.TensorProto.EXTERNAL
    if by != "location":
        held.external_data.add(key="location", value="w.bin")
    with pytest.raises(ValueError, match="outside the file"):
        onnx_proto.inspect(model_of(tensors=[held]))


@pytest.mark.parametrize("lacks", ["ir_version", "opset_import"])
def test_what_has_no_version_is_no_model(lacks):
    model = onnx.load_model_from_string(model_of())
    model.ClearField(lacks)
    with pytest.raises(ValueError, match="not an ONNX file"):
        onnx_proto.inspect(model.SerializeToString())
