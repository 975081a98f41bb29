"""Graphs made to be read in two ways, and graphs that onnxruntime should never see: each is one sentence."""

import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import forging, onnx_bytes
from helpers.tampering import replace_graph

import aeedge
import aeedge.runtime.session
from aeedge.bundle.onnx_proto import chain, inspect
from aeedge.bundle.operators import operator_fault
from aeedge.cli.group import AeedgeGroup
from aeedge.runtime.session import runtime_version
from aeedge.system.versions import release

DATA = Path(__file__).parent.parent / "data"
IDENTITY = json.loads((DATA / "bundle_v1" / "manifest.json").read_text())["id"]
FORGED = forging.forged(IDENTITY)
SECRET = 2 * forging.WEIGHTS


def load(bundle, data, **how):
    replace_graph(bundle, "encoder.onnx", data)
    return aeedge.load(bundle, threads=1, **how)


def test_what_the_tricks_start_from_is_a_sound_graph(bundle):
    with load(bundle, forging.model(forging.gemm(), IDENTITY)) as model:
        x = np.arange(24, dtype=np.float32).reshape(2, 12)
        np.testing.assert_allclose(model.encode(x), x @ forging.WEIGHTS, rtol=1e-5)


@pytest.mark.parametrize("trick", FORGED)
def test_a_forged_graph_is_refused_before_onnxruntime_sees_it(bundle, monkeypatch, trick):
    (bundle / "w.bin").write_bytes(SECRET.tobytes())
    monkeypatch.chdir(bundle)
    monkeypatch.setattr(aeedge.runtime.session.Session, "_open", lambda *_: pytest.fail("onnxruntime saw it"))
    with pytest.raises(aeedge.BundleError, match=r"encoder\.onnx: ") as caught:
        load(bundle, FORGED[trick])
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


def test_a_trick_hides_in_no_operator_that_is_allowed_by_name(bundle):
    """allow_ops widens which operators there may be, and nothing else."""
    for trick, data in forging.external(IDENTITY).items():
        replace_graph(bundle, "encoder.onnx", data)
        with pytest.raises(aeedge.CorruptBundleError, match=r"encoder\.onnx: "):
            pytest.fail(f"{trick}: {aeedge.load(bundle, allow_ops=('If', 'Constant'))}")


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        (onnx_bytes.message(4, forging.WEIGHTS.tobytes()), "packed"),
        (b"".join(forging.tag(4, 5) + bytes(v.tobytes()) for v in forging.WEIGHTS.ravel()), "one by one"),
        (onnx_bytes.message(9, forging.WEIGHTS.tobytes()) + onnx_bytes.number(14, 0), "data_location 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_both_legal_ways_of_writing_values_are_read(bundle, fields, values):
    with load(bundle, forging.model(forging.gemm(weights=forging.long("w") + fields), IDENTITY)) as model:
        np.testing.assert_allclose(model.encode(np.ones(12, np.float32)), forging.WEIGHTS.sum(0), rtol=1e-5)


def test_packed_sizes_of_a_tensor_are_read():
    weights = onnx_bytes.message(1, bytes([12, 3])) + onnx_bytes.tensor("w", forging.WEIGHTS)[4:]
    graph = inspect(forging.model(forging.gemm(weights=weights), IDENTITY)).graph
    assert graph["initializer"][0]["dims"] == [12, 3]


def test_a_large_tensor_is_skipped_whatever_its_size():
    """Weights are neither copied nor walked through: 12 MB cost as many steps as 144 bytes."""

    def steps(rows):
        weights = onnx_bytes.tensor("w", np.zeros((rows, 3), np.float32))
        data, count = forging.model(forging.gemm(weights=weights), IDENTITY), [0]

        def count_line(frame, event, arg):
            count[0] += 1
            return count_line

        before = sys.gettrace()
        sys.settrace(count_line)
        try:
            inspect(data), chain(data)
        finally:
            sys.settrace(before)
        return count[0]

    assert 0 < steps(2**20) < steps(12) + 300  # the lengths themselves take a few bytes more


def test_too_many_fields_are_refused_soon():
    data = forging.model(forging.gemm(), IDENTITY, after=onnx_bytes.message(7, b"\x0a\x00" * (2**20 + 1)))
    with pytest.raises(ValueError, match="too many for a graph"):
        inspect(data)


def test_onnxruntime_is_told_the_format_and_a_folder_that_is_none():
    said = aeedge.runtime.session._options().get_session_config_entry
    assert said("session.load_model_format") == "ONNX"
    assert not os.path.isdir(said("session.model_external_initializers_file_folder_path"))


def test_onnxruntime_itself_finds_no_file_next_to_the_process(tmp_path, monkeypatch):
    """Should a reference be missed one day: the folder that onnxruntime looks in has no files."""
    (tmp_path / "w.bin").write_bytes(SECRET.tobytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(aeedge.runtime.session, "chain", lambda _: ())  # which would refuse it
    if release(runtime_version()) < (1, 20):
        pytest.skip("it knows no such setting")
    data = forging.external(IDENTITY)["plain"]
    with pytest.raises(aeedge.IncompatibleBundleError, match="cannot load it"):
        aeedge.runtime.session.Session(data, "w", "float32", (12,), (3,))


LOOPS = ["Loop", "Scan", "If", "SequenceMap"]
CHANCE = [
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
    "Dropout",
]
OTHERS = [
    "SequenceConstruct",
    "Optional",
    "StringNormalizer",
    "RegexFullMatch",
    "TfIdfVectorizer",
    "ImageDecoder",
    "Nix",
]


@pytest.mark.parametrize("kind", [*LOOPS, *CHANCE, *OTHERS])
def test_operators_of_no_feed_forward_network_are_refused(bundle, kind):
    data = forging.model(forging.gemm(middle=forging.node(kind, ["x"], "c", name="layer3")), IDENTITY)
    with pytest.raises(
        aeedge.IncompatibleBundleError, match=rf"got the operator {kind} \(node 'layer3'\); .* in allow_ops"
    ):
        load(bundle, data)
    assert not operator_fault(inspect(data), [kind])


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.ml", "me", "ai.onnx.preview.training"])
def test_operators_of_other_domains_are_refused(bundle, domain):
    data = forging.model(forging.gemm(middle=forging.node("Relu", ["x"], "c", domain=domain)), IDENTITY)
    with pytest.raises(aeedge.IncompatibleBundleError, match=rf"operator {domain}\.Relu"):
        load(bundle, data, allow_ops=["Relu"])
    assert not operator_fault(inspect(data), [f"{domain}.Relu"])


def condition(branch):
    """If(true): a graph whose branches end in "c"."""
    true = onnx_bytes.number(2, 9) + onnx_bytes.message(8, "true") + onnx_bytes.message(9, b"\1")
    inner = branch + onnx_bytes.message(2, "b") + onnx_bytes.message(12, onnx_bytes.rows("c", 12))
    branches = [forging.attribute(f"{n}_branch", 5, onnx_bytes.message(6, inner)) for n in ("then", "else")]
    chosen = forging.node("If", ["true"], "chosen", *branches)
    last = forging.node("Gemm", ["chosen", "w", "b"], "y")
    return chosen + last + forging.gemm(more=onnx_bytes.message(5, true))[len(forging.PRODUCT) :]


def test_an_operator_is_allowed_by_name_also_after_pickling(bundle):
    data = forging.model(condition(forging.node("Neg", ["x"], "c")), IDENTITY)
    with pytest.raises(aeedge.IncompatibleBundleError, match="operator If"):
        load(bundle, data)
    x = np.arange(12, dtype=np.float32)
    with load(bundle, data, allow_ops=("If",)) as model, pickle.loads(pickle.dumps(model)) as again:
        for each in (model, again):
            np.testing.assert_allclose(each.encode(x), -x @ forging.WEIGHTS, rtol=1e-5)


def test_a_branch_of_an_allowed_operator_is_looked_into(bundle):
    data = forging.model(condition(forging.node("RandomNormalLike", ["x"], "c")), IDENTITY)
    with pytest.raises(aeedge.IncompatibleBundleError, match="operator RandomNormalLike"):
        load(bundle, data, allow_ops=("If",))


BOUNDS = [
    ("Conv", "group", 0),
    ("Conv", "strides", 0),
    ("MaxPool", "kernel_shape", 2**31 - 1),
    ("AveragePool", "kernel_shape", 2**62),
    ("LpPool", "kernel_shape", 2**20),
    ("Conv", "pads", 2**30),
    ("ConvTranspose", "dilations", -1),
    ("DepthToSpace", "blocksize", 0),
    ("GatherND", "batch_dims", -(2**31)),
    ("Transpose", "perm", 2**40),
    ("LSTM", "hidden_size", -(2**63)),
    ("Softmax", "axis", 2**31),
    ("Relu", "anything", 2**31),
]


@pytest.mark.parametrize(("kind", "name", "value"), BOUNDS)
@pytest.mark.parametrize("one", [True, False], ids=["one", "list"])
def test_attributes_that_onnxruntime_divides_by_or_loops_over_have_bounds(bundle, kind, name, value, one):
    value = onnx_bytes.number(3 if one else 8, value % 2**64)
    middle = forging.node(kind, ["x"], "c", forging.attribute(name, 2 if one else 7, value), name="layer3")
    with pytest.raises(aeedge.IncompatibleBundleError, match=rf"'{name}' out of its range in {kind} \(node 'layer3'\)"):
        load(bundle, forging.model(forging.gemm(middle=middle), IDENTITY))


def held(name, values):
    kind = {np.dtype(np.int64): 7, np.dtype(np.int32): 6, np.dtype(np.uint8): 2, np.dtype(np.float32): 1}[values.dtype]
    shape = b"".join(onnx_bytes.number(1, size) for size in values.shape)
    return shape + onnx_bytes.number(2, kind) + onnx_bytes.message(8, name) + onnx_bytes.message(9, values.tobytes())


def frames(step, length=None, window=None, given=True):
    inputs = ["signal", "step", "window" if window is not None else "", "length" if length is not None else ""]
    weights = {"step": step, "length": length, "window": window}
    if not given:
        del weights["length"]
    tensors = b"".join(onnx_bytes.message(5, held(k, v)) for k, v in weights.items() if v is not None)
    return forging.gemm(middle=forging.node("STFT", inputs, "c"), more=tensors)


@pytest.mark.parametrize(
    "graph",
    [
        frames(np.array(2), np.array(0)),
        frames(np.array(0), np.array(4)),
        frames(np.array(2), np.array(-4)),
        frames(np.array(2), np.array(4), given=False),
        frames(np.array(2), window=np.zeros(0, np.float32)),
        frames(np.array(2)),
    ],
)
def test_frames_whose_length_may_be_0_are_refused(bundle, graph):
    with pytest.raises(aeedge.IncompatibleBundleError, match="frames whose length may be 0 in STFT"):
        load(bundle, forging.model(graph, IDENTITY))


def test_frames_of_a_constant_length_are_allowed():
    for graph in (frames(np.array(2), np.array(4)), frames(np.array(2), window=np.zeros(8, np.float32))):
        assert not operator_fault(inspect(forging.model(graph, IDENTITY)))


@pytest.mark.parametrize("command", ["encode", "verify"])
def test_a_command_allows_an_operator_by_name(bundle, tmp_path, command):
    replace_graph(bundle, "encoder.onnx", forging.model(condition(forging.node("Neg", ["x"], "c")), IDENTITY))
    np.save(tmp_path / "x.npy", np.zeros((2, 12), np.float32))
    arguments = [command, str(bundle), *([str(tmp_path / "x.npy"), "-o", "-"] if command == "encode" else [])]
    result = CliRunner().invoke(AeedgeGroup.build(), arguments)
    assert result.exit_code == 1
    assert "name the operator with --allow-ops" in result.output
    result = CliRunner().invoke(AeedgeGroup.build(), [*arguments, "--allow-ops", "Loop,If"])
    assert "--allow-ops" not in result.output  # verify finds other numbers than were recorded
    assert result.exit_code == (1 if command == "verify" else 0), result.output


@pytest.mark.parametrize("names", ["If", [1], [None]])
def test_names_of_operators_are_a_list_of_strings(bundle, names):
    with pytest.raises(aeedge.InputError, match=r"allow_ops: expected a list of names .* such as \('If',\)"):
        aeedge.load(bundle, allow_ops=names)


def cast(kind, made="k"):
    to = forging.attribute("to", 2, onnx_bytes.number(3, kind))
    return forging.node("Cast", ["x"], made, to)


def quotient(*nodes, operator="Div", by="d", of="k", divisor=None):
    weights = b"" if divisor is None else onnx_bytes.message(5, held("d", divisor))
    return forging.gemm(middle=b"".join([*nodes, forging.node(operator, [of, by], "q", name="half")]), more=weights)


SHAPE = forging.node("Shape", ["x"], "s")
DIVISIONS = {
    "by the input": quotient(cast(7), by="k"),
    "by 0": quotient(cast(7), divisor=np.array([2, 0])),
    "by -1": quotient(cast(7), divisor=np.array(-1)),
    "by 0 of bytes": quotient(cast(2), divisor=np.zeros(3, np.uint8)),
    "by -1 of 32 bits": quotient(cast(6), divisor=np.array([-1], np.int32)),
    "by a shape": quotient(SHAPE, of="s", by="s"),
    "of positions": quotient(forging.node("ArgMax", ["x"], "s"), of="s", by="s"),
    "of what was passed on": quotient(cast(7), forging.node("Transpose", ["k"], "t"), of="t", by="t"),
    "of chosen numbers": quotient(cast(9, "c"), cast(7), forging.node("Where", ["c", "k", "k"], "t"), of="t", by="t"),
    "of what is made later": quotient(of="later", by="later") + cast(7, "later"),
    "of a weight": quotient(of="d", by="d", divisor=np.array([2, 0])),
    "of what is nowhere": quotient(of="nowhere", by="nowhere"),
    "of a type that a missing output has": quotient(
        forging.node("Neg", ["x"], ""), forging.node("QuantizeLinear", ["x", "b", ""], "t"), of="t", by="t"
    ),
    "of a constant that is two": quotient(
        forging.node(
            *("Constant", [], "t"),
            forging.attribute("value_float", 1, forging.tag(2, 5) + b"\0\0\0\0"),
            forging.attribute("value", 4, onnx_bytes.message(5, held("", np.array([0])))),
        ),
        **{"of": "t", "by": "t"},
    ),
    "by one of two weights": quotient(cast(7), divisor=np.array([2])) + onnx_bytes.message(5, held("d", np.array([0]))),
}


@pytest.mark.parametrize("operator", ["Div", "Mod"])
@pytest.mark.parametrize("case", DIVISIONS)
def test_a_division_of_whole_numbers_that_may_end_the_process_is_refused(bundle, case, operator):
    graph = DIVISIONS[case].replace(onnx_bytes.message(4, "Div"), onnx_bytes.message(4, operator))
    with pytest.raises(aeedge.IncompatibleBundleError, match=rf"{operator} \(node 'half'\)|of the same name"):
        load(bundle, forging.model(graph, IDENTITY))


def typed(kind, field, data):
    """A tensor "d" of one value in another field than raw_data."""
    return onnx_bytes.number(1, 1) + onnx_bytes.number(2, kind) + onnx_bytes.message(8, "d") + field(data)


@pytest.mark.parametrize(
    "divisor",
    [
        typed(3, lambda v: onnx_bytes.number(5, v), 256),
        typed(3, lambda v: onnx_bytes.message(5, onnx_bytes.varint(v)), 255),
        typed(2, lambda v: onnx_bytes.number(5, v), 256),
        typed(5, lambda v: onnx_bytes.number(5, v), 2**16),
        typed(6, lambda v: onnx_bytes.message(5, onnx_bytes.varint(v)), 2**32),
        typed(12, lambda v: onnx_bytes.number(11, v), 2**32),
        typed(7, lambda v: onnx_bytes.message(7, v), forging.padded(2, 4)),
        typed(7, lambda v: onnx_bytes.message(7, v), b"\x80" * 9 + b"\2"),
    ],
    ids=["int8 256", "int8 255", "uint8 256", "int16 2**16", "int32 2**32", "uint32 2**32", "overlong", "65 bits"],
)
def test_a_divisor_whose_bits_are_cut_off_is_no_other_divisor(bundle, divisor):
    """256 is 0 in eight bits, and 255 is -1."""
    graph = quotient(cast(7)) + onnx_bytes.message(5, divisor)
    with pytest.raises(aeedge.CorruptBundleError, match=r"no room for|read differently|more than 32 bits"):
        load(bundle, forging.model(graph, IDENTITY))


@pytest.mark.parametrize(
    "graph",
    [
        quotient(cast(7), divisor=np.array([2, 7, -3, 1] * 3)),
        quotient(cast(2), divisor=np.array([255], np.uint8)),
        quotient(SHAPE, of="s", divisor=np.array([2])),
        quotient(of="x", by="x"),
        quotient(cast(1), by="k"),
        quotient(cast(7), forging.node("CastLike", ["k", "x"], "t"), of="t", by="t"),
        quotient(of="x", divisor=np.zeros(12, np.float32)),
    ],
    ids=["constant", "bytes", "shape", "float", "cast to float", "like float", "float by 0"],
)
def test_other_divisions_are_allowed(graph):
    assert operator_fault(inspect(forging.model(graph, IDENTITY))) == ""
