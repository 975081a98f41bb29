"""The device's tables of ONNX against the onnx package: which fields there are, and which types operators make."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import defs
from torch import nn

from aeedge import InputError
from aeedge.bundle import onnx_proto, operators
from aeedge_export.bundle import export_bundle

DATA = Path(__file__).parent.parent / "data"
GRAPHS = sorted(DATA.glob("bundle_v1*/*.onnx"))
PROTOS = {
    "Model": onnx.ModelProto,
    "OperatorSetId": onnx.OperatorSetIdProto,
    "StringStringEntry": onnx.StringStringEntryProto,
    "Graph": onnx.GraphProto,
    "Node": onnx.NodeProto,
    "Attribute": onnx.AttributeProto,
    "Tensor": onnx.TensorProto,
    "ValueInfo": onnx.ValueInfoProto,
    "Type": onnx.TypeProto,
    "TensorType": onnx.TypeProto.Tensor,
    "TensorShape": onnx.TensorShapeProto,
    "Dimension": onnx.TensorShapeProto.Dimension,
}
REFUSED = {  # fields of onnx that a bundle must not have
    "Model": {"training_info", "functions", "configuration"},
    "Graph": {"sparse_initializer", "quantization_annotation"},
    "Node": {"overload", "device_configurations"},
    "Attribute": {"ref_attr_name", "sparse_tensor", "tp", "sparse_tensors", "type_protos"},
    "Tensor": {"segment", "string_data"},
    "Type": {"sequence_type", "map_type", "optional_type", "sparse_tensor_type", "opaque_type"},
}
KINDS = {1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 14: "enum", 9: "text", 12: "bytes"}
SCHEMAS = [schema for schema in defs.get_all_schemas_with_history() if not schema.domain]


@pytest.mark.parametrize("message", PROTOS)
def test_known_fields_are_those_of_onnx(message):
    fields = {field.number: field for field in PROTOS[message].DESCRIPTOR.fields}
    known = onnx_proto._MESSAGES[message]
    for number, words in known.items():
        name, kind = words.split()
        field = fields[number]
        assert field.name == name
        assert field.is_repeated == kind.startswith("*")
        if kind.strip("*") in onnx_proto._MESSAGES:
            assert field.message_type.name.removesuffix("Proto") in kind or field.message_type.name == "Tensor"
        elif name not in ("raw_data", "external_data"):
            assert KINDS[field.type] == kind.strip("*")
    assert {fields[number].name for number in fields.keys() - known.keys()} <= REFUSED.get(message, set())


def read_by_protobuf(data):
    """What matters of a file as protobuf reads it."""
    model = onnx.load_from_string(data)
    assert not any(onnx.external_data_helper.uses_external_data(tensor) for tensor in model.graph.initializer)
    return (
        [(n.op_type, list(n.input), list(n.output), n.domain, len(n.attribute)) for n in model.graph.node],
        [(t.name, list(t.dims), t.data_type, t.raw_data) for t in model.graph.initializer],
        {entry.key: entry.value for entry in model.metadata_props},
        len(model.functions) + len(model.training_info) + len(model.graph.sparse_initializer),
    )


def read_here(data):
    info = onnx_proto.inspect(data)
    return (
        [
            (n.get("op_type", ""), n.get("input", []), n.get("output", []), n.get("domain", ""), len(n["attribute"]))
            for n in ({"attribute": []} | node for node in info.graph.get("node", ()))
        ],
        [
            (t.get("name", ""), t["dims"], t.get("data_type", 0), bytes(t.get("raw_data", b"")))
            for t in info.graph.get("initializer", ())
        ],
        info.metadata,
        0,
    )


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_whatever_is_accepted_is_read_as_protobuf_reads_it(path):
    """Bits flipped, and bytes doubled, dropped and replaced: none is taken for something else than what runs."""
    whole, rng, accepted = path.read_bytes(), np.random.default_rng(0), 0
    assert read_here(whole) == read_by_protobuf(whole)
    outline = [i for i in range(len(whole)) if len(whole) < 4000 or rng.random() < 4000 / len(whole)]
    for _ in range(400):
        data, at = bytearray(whole), int(rng.choice(outline))
        kind = rng.integers(4)
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at:at] = data[at : at + int(rng.integers(1, 9))]
        elif kind == 2:
            del data[at : at + int(rng.integers(1, 9))]
        else:
            data[at] = int(rng.choice([0, 1, 8, 0x80, 0xFF, 0x6A, 0x70]))
        try:
            here = read_here(bytes(data))
        except ValueError:
            continue
        accepted += 1
        assert here == read_by_protobuf(bytes(data))
    assert accepted > 10  # of weights and names


@pytest.mark.parametrize("kind", sorted(operators.ALLOWED))
def test_types_are_those_of_the_operators_definition(kind):
    """What is thought to be float is: an integer that passed for one could be divided by 0."""
    schemas = [schema for schema in SCHEMAS if schema.name == kind]
    assert schemas
    if kind in ("Constant", "ConstantOfShape", "EyeLike"):  # by attributes: "value", "dtype"
        return
    for schema in schemas:
        names = [i.name for i in schema.inputs]
        types = {name: 1000 + i for i, name in enumerate(names)}
        node = {"input": names, "output": [o.name for o in schema.outputs]}
        made = operators._made(kind, node, {}, types)
        for output, found in zip(schema.outputs, made):
            constraints = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
            legal = constraints.get(output.type_str, {output.type_str})
            if found is None:
                continue
            if found >= 1000:
                assert schema.inputs[found - 1000].type_str == output.type_str or not any(map(integral, legal))
            else:
                name = onnx.TensorProto.DataType.Name(found).lower()
                assert f"tensor({name})" in legal
                assert len(legal) == 1 or operators._OF_ATTRIBUTE.get(kind) == "output_datatype"


def integral(kind):
    return "int" in kind and "float" not in kind


def test_nothing_that_loops_or_draws_or_holds_no_tensors_is_allowed():
    for schema in SCHEMAS:
        kinds = {attribute.type for attribute in schema.attributes.values()}
        constraints = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
        made = [kind for output in schema.outputs for kind in constraints.get(output.type_str, [output.type_str])]
        sequences = any(kind.startswith(("seq", "optional")) for kind in made) and schema.name != "Identity"
        if defs.OpSchema.AttrType.GRAPH in kinds or "seed" in schema.attributes or sequences:
            assert schema.name not in operators.ALLOWED


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.net, self.last = kind(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.net(x)[0].mean(1))


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)

    def forward(self, x):
        return self.net(x).flatten(1)[:, ::7]


class Mixed(nn.Module):
    def forward(self, x):
        z = torch.fft.rfft(x, dim=1).abs().flatten(1)
        z = z.roll(1, 1) * torch.where(z > z.mean(1, keepdim=True), z.sin(), z.cumsum(1))
        return z.topk(4, dim=1).values.clamp(-3, 3).softmax(1)


NETS = {"lstm": Recurrent(nn.LSTM), "gru": Recurrent(nn.GRU), "attention": Attentive(), "mixed": Mixed()}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_layers_of_torch_are_allowed(tmp_path, net):
    torch.manual_seed(0)
    rows = torch.randn(20, 5, 6).numpy()
    made = export_bundle(encoder=net.eval(), path=tmp_path / "a.aeedge", example=rows)
    assert made.latent in (3, 4, 5)


class Quotients(nn.Module):
    def forward(self, x):
        whole = x.to(torch.int64)
        return torch.remainder(whole, whole.abs() + 1).to(torch.float32)[:, :2]


def test_an_operator_that_may_end_the_process_is_refused_at_export(tmp_path):
    rows = np.arange(1, 41, dtype=np.float32).reshape(10, 4) + 0.5  # far from where a last digit counts
    with pytest.raises(InputError, match=r"encoder: .*division of whole numbers by 0 in Mod .*; replace that layer"):
        export_bundle(encoder=Quotients(), path=tmp_path / "a.aeedge", example=rows)
    assert not (tmp_path / "a.aeedge").exists()
