"""The second output that tells which rows are not finite, added to a graph's bytes."""

import struct
from pathlib import Path

import numpy as np
import onnxbytes as pb
import pytest

import aeedge
from aeedge.onnxfile import inspect
from aeedge.session import Session, runtime_version
from aeedge.watch import WATCH, add_watch

DATA = Path(__file__).parent.parent / "data"
BAD = (np.nan, np.inf, -np.inf)


def value_info(name, *shape):
    sizes = b"".join(pb.message(1, pb.number(1, n) if n else pb.message(2, "n")) for n in shape)
    return pb.message(1, name) + pb.message(2, pb.message(1, pb.number(1, 1) + pb.message(2, sizes)))


def tensor(name, values):
    dims = b"".join(pb.number(1, n) for n in values.shape)
    return dims + pb.number(2, 1) + pb.message(8, name) + pb.message(9, values.astype("<f4").tobytes())


def attribute(name, value):
    if isinstance(value, float):
        return pb.message(5, pb.message(1, name) + pb.varint(2 << 3 | 5) + struct.pack("<f", value) + pb.number(20, 1))
    return pb.message(5, pb.message(1, name) + pb.number(3, value) + pb.number(20, 2))


def node(kind, inputs, output, **attributes):
    names = b"".join(pb.message(1, name) for name in inputs) + pb.message(2, output)
    return pb.message(1, names + pb.message(4, kind) + b"".join(attribute(*item) for item in attributes.items()))


def dense(weights, *, opset=17, kind="Gemm", **attributes):
    """x (n, a) -> Relu(x times weights), (n, b): where everything negative is lost."""
    rows, columns = weights.shape[::-1] if attributes.get("transB") else weights.shape
    inputs = ["x", "w", "b"] if kind == "Gemm" else ["x", "w"]  # old versions fuse no Gemm without a bias
    graph = node(kind, inputs, "sums", **attributes) + node("Relu", ["sums"], "y") + pb.message(2, "g")
    graph += pb.message(5, tensor("w", weights)) + pb.message(5, tensor("b", np.zeros(columns, np.float32)))
    graph += pb.message(11, value_info("x", 0, rows)) + pb.message(12, value_info("y", 0, columns))
    return pb.model(graph, opset=opset)


def opened(graph, a, b):
    return Session(graph, "here", "float32", (a,), (b,))


@pytest.mark.parametrize(("a", "b"), [(64, 8), (8, 64), (64, 64), (1, 1)])
@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
def test_every_value_that_is_not_finite_shows_wherever_it_is(a, b, kind):
    """Weights are all negative or zero: whatever is large is cut off by Relu, and the latents look harmless."""
    weights = -np.abs(np.random.default_rng(0).normal(size=(a, b))).astype(np.float32)
    weights[::2] = 0
    session = opened(dense(weights, kind=kind), a, b)
    for bad in BAD:
        rows = np.random.default_rng(1).normal(size=(a, a)).astype(np.float32)
        rows[np.arange(a), np.arange(a)] = bad  # in row i at column i
        _, watch = session.run(rows)
        assert not np.isfinite(watch).any()
        for n in (1, 2, 3, 17):
            clean = np.zeros((n, a), np.float32)
            assert np.isfinite(session.run(clean)[1]).all()
            clean[n - 1, a - 1] = bad
            assert np.isfinite(session.run(clean)[1]).tolist() == [True] * (n - 1) + [False]


@pytest.mark.parametrize("opset", [11, 13, 17, 18])
def test_older_and_newer_operators(opset):
    if opset > 17 and tuple(map(int, runtime_version().split(".")[:2])) < (1, 14):
        pytest.skip("this onnxruntime knows operators up to opset 17")
    session = opened(dense(np.ones((4, 4), np.float32), opset=opset), 4, 4)
    result, watch = session.run(np.array([[1, 2, 3, 4], [1, np.nan, 1, 1]], np.float32))
    assert result[0].tolist() == [10.0] * 4
    assert np.isfinite(watch).tolist() == [True, False]


@pytest.mark.parametrize(("attributes", "watched"), [({}, "sums"), ({"alpha": 1.0}, "sums"), ({"alpha": 0.0}, "x")])
def test_sums_are_watched_only_where_they_hold_the_row(attributes, watched):
    weights = np.ones((16, 2), np.float32)
    added = add_watch(dense(weights, **attributes))[len(dense(weights, **attributes)) :]
    assert pb.message(1, watched) in added
    assert pb.message(1, {"sums": "x", "x": "sums"}[watched]) not in added
    session = opened(dense(weights, **attributes), 16, 2)
    assert np.isnan(session.run(np.full((1, 16), np.nan, np.float32))[1]).all()


def test_transposed_weights():
    weights = np.ones((2, 16), np.float32)
    assert pb.message(1, "sums") in add_watch(dense(weights, transB=1))
    assert np.isinf(opened(dense(weights, transB=1), 16, 2).run(np.full((1, 16), np.inf, np.float32))[1]).all()


def test_what_was_there_stays_as_it_is():
    for path in sorted(DATA.glob("bundle_*/*coder*.onnx")):
        before = path.read_bytes()
        watched = add_watch(before)
        assert watched.startswith(before)
        assert inspect(watched).metadata == inspect(before).metadata
        assert WATCH.encode() in watched[len(before) :]


@pytest.mark.parametrize("graph", [b"", b"not a model", pb.model(b"")])
def test_what_is_no_graph_is_refused(graph):
    with pytest.raises(ValueError, match=r"it is no ONNX file|it has no input|it ends in the middle"):
        add_watch(graph)


def test_large_finite_rows_are_looked_at_again_and_pass(model):
    rows = np.full((100, 12), 3e38, np.float32)
    rows[1::2] *= -1
    with np.errstate(all="ignore"):
        assert model.encode(rows).shape == (100, 3)
        assert model.encode(rows[0]).shape == (3,)


def test_a_bundle_with_another_second_output_is_refused(bundle):
    """Only ours is taken for the watch."""
    graph = (bundle / "encoder.onnx").read_bytes()
    more = pb.message(7, pb.message(1, pb.message(1, "input") + pb.message(2, "b") + pb.message(4, "Identity")))
    more += pb.message(7, pb.message(12, value_info("b", 0, 12)))
    with pytest.raises(aeedge.CorruptBundleError, match="expected one output, got 2"):
        Session(graph + more, "here", "float32", (12,), (3,))
