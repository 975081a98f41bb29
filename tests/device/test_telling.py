"""Latents may tell that a row was not finite: where they are trusted they do, and where they do not they are not."""

import numpy as np
import pytest
from helpers import onnx_bytes, reference, strategies, tampering
from helpers.onnx_bytes import gemm
from hypothesis import given
from hypothesis import strategies as st

import aeedge
from aeedge.bundle.onnx_proto import chain
from aeedge.runtime import methods, telling
from aeedge.runtime.nonfinite import may_tell, still_tell
from aeedge.runtime.session import Session

rng = np.random.default_rng(0)
CHAIN = "Gemm", "Relu", "Gemm"


def opened(wide, k, *layers):
    """An encoder's session."""
    return Session(onnx_bytes.model(onnx_bytes.chain(wide, k, *layers)), "g", "float32", (wide,), (k,))


def weights(*shape):
    return rng.normal(size=shape).astype(np.float32)


def mixed(wide, hidden, k=5):
    """Weights of two layers; by chance, all of a row might have had one sign."""
    first, second = weights(wide, hidden), weights(hidden, k)
    first[:, :2], second[:2] = [1.0, -1.0], 1.0
    return first, second


def tell(*layers, wide=30, k=5):
    return telling.telling_latents(opened(wide, k, *layers), np.zeros(wide, np.float32))


def deep(first, second):
    return gemm(first), ("Relu",), gemm(second)


@pytest.mark.parametrize("wide", [1, 3, 30, 100])
@pytest.mark.parametrize("hidden", [8, 13, 64])
def test_usual_layers_tell(wide, hidden):
    first, second = mixed(wide, hidden)
    assert tell(*deep(first, second), wide=wide)
    assert tell(("Sub", weights(wide)), ("Div", weights(wide)), *deep(first, second), wide=wide)
    assert tell(("MatMul", first), ("Add", weights(hidden)), ("Relu",), ("MatMul", second), wide=wide)
    assert tell(gemm(first), ("LeakyRelu",), gemm(second), wide=wide)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_column_whose_infinity_a_relu_makes_zero_does_not_tell(sign):
    first, second = np.abs(weights(30, 8)), weights(8, 5)
    first[17] *= sign  # minus infinity, or infinity, becomes minus infinity in all sums, and then zero
    assert not tell(*deep(first, second))


def test_a_hidden_unit_that_ends_in_zeros_does_not_tell():
    first, second = np.zeros((30, 8), np.float32), np.abs(weights(8, 5))
    first += [1, -1, 1, -1, 1, -1, 1, -1]
    assert tell(*deep(first, second), ("Relu",)) == 1
    assert not tell(*deep(first, -second), ("Relu",))
    for needed in (1, 2, 5):
        signs = np.repeat(np.float32([-1, 1]), [needed - 1, 6 - needed])
        assert tell(*deep(first, second * signs), ("Relu",)) == needed


@pytest.mark.parametrize("kind", ["Sigmoid", "Tanh", "Softplus", "Abs", "Sign"])
def test_other_operators_are_not_tried(kind):
    layers = gemm(weights(30, 8)), (kind,), gemm(weights(8, 5))
    assert not may_tell(opened(30, 5, *layers).chain)
    assert not tell(*layers)


def test_what_is_not_a_chain_of_weights_is_not_tried():
    both = onnx_bytes.message(1, "x") * 2 + onnx_bytes.message(2, "y") + onnx_bytes.message(4, "Add")
    ends = onnx_bytes.message(11, onnx_bytes.rows("x", 3)) + onnx_bytes.message(12, onnx_bytes.rows("y", 3))
    assert chain(onnx_bytes.model(onnx_bytes.message(1, both) + onnx_bytes.message(2, "g") + ends)) == ()
    assert not may_tell(())
    assert chain(onnx_bytes.model(onnx_bytes.chain(3, 3, ("Add", weights(3)), ("Relu",)))) == ("Add", "Relu")


def test_rows_of_integers_and_latents_that_overflow_do_not_tell():
    encoder = opened(30, 5, *deep(*mixed(30, 8)))
    assert telling.telling_latents(encoder, np.zeros(30, np.float32))
    assert not telling.telling_latents(encoder, np.zeros(30, np.uint8))
    assert not telling.telling_latents(encoder, np.full(30, np.inf, np.float32))


class Forgetful:
    """An encoder whose ReLU makes zeros of NaN, as IEEE 754's maxNum does, in batches of some sizes."""

    chain = CHAIN

    def __init__(self, first, second, sizes):
        self.first, self.second, self.sizes = first, second, sizes

    def run(self, rows):
        with np.errstate(invalid="ignore"):
            hidden = rows @ self.first
            forgets = len(rows) in self.sizes
            return (np.fmax(hidden, 0) if forgets else np.maximum(hidden, 0)) @ self.second


@pytest.mark.parametrize("sizes", [(1,), (2,), (3,), (1, 2, 3)])
def test_a_relu_that_loses_nan_is_found(sizes):
    layers = mixed(30, 8)
    row = np.zeros(30, np.float32)
    assert still_tell(CHAIN, Forgetful(*layers, ()).run, (30,))
    assert telling.telling_latents(Forgetful(*layers, ()), row)
    assert not still_tell(CHAIN, Forgetful(*layers, sizes).run, (30,))
    assert not telling.telling_latents(Forgetful(*layers, sizes), row)


@given(data=st.data())
@strategies.some(max_examples=200)
def test_where_latents_tell_they_do_for_any_row(data):
    """The proof in telling.py, tried: one column at a time is enough for any values in any columns."""
    wide, hidden, k = (data.draw(st.integers(1, 6)) for _ in range(3))
    some_weights = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0])
    layers = []
    for shape in ((wide, hidden), (hidden, hidden), (hidden, k)):
        values = data.draw(st.lists(some_weights, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
        layers += [gemm(np.array(values, np.float32).reshape(shape)), ("Relu",)]
    encoder = opened(wide, k, *layers[:-1])
    if needed := telling.telling_latents(encoder, np.zeros(wide, np.float32)):
        values = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 1.0, -3e38, 3e38])
        row = np.array(data.draw(st.lists(values, min_size=wide, max_size=wide)), np.float32)
        bad = data.draw(st.integers(0, wide - 1))
        row[bad] = data.draw(strategies.bad_values)
        rows = np.stack([row] * data.draw(st.integers(1, 20)))
        assert not np.isfinite(encoder.run(rows)[:, :needed]).all(axis=1).any()


@pytest.fixture
def promised(tmp_path):
    """A bundle that says that its latents tell, and they do."""
    return strategies.promising(strategies.DATA / "bundle_v1", tmp_path / "b.aeedge")


def test_what_the_bundle_says_is_used(promised):
    with aeedge.load(strategies.DATA / "bundle_v1") as model, aeedge.load(promised) as trusting:
        assert trusting.trusts_latents
        assert not model.trusts_latents
        trusting.self_check()
        for rows in (model.golden_rows(), model.golden_rows()[:1]):
            assert reference.same(model, "encode", trusting.encode(rows), model.encode(rows))


def test_what_the_bundle_says_is_not_believed_of_a_relu_that_loses_nan(promised, monkeypatch):
    monkeypatch.setattr(methods, "still_tell", lambda *given: False)
    with aeedge.load(promised) as model:
        assert not model.trusts_latents
        assert_row_3_is_named(model)


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_what_the_bundle_says_is_not_believed_of_a_graph_that_cannot_tell(tmp_path, variant):
    path = strategies.promising(strategies.DATA / "bundle_v1_saturating", tmp_path / "b.aeedge", variant)
    with aeedge.load(path, variant="int8") as model:
        assert not model.trusts_latents
        assert_row_3_is_named(model)


def assert_row_3_is_named(model):
    rows = model.golden_rows()
    rows[3, 2] = np.nan
    with pytest.raises(aeedge.InputError, match="row 3, column 2"):
        model.encode(rows)
    with pytest.raises(aeedge.InputError, match="row 0, column 2"):
        model.encode(rows[3])


def test_self_check_finds_what_the_bundle_says_wrongly(promised):
    """In one column: of weights of one sign, the ReLU makes zeros of minus infinity."""
    with aeedge.load(promised) as model:
        stands_in_it = {"aeedge.id": model.manifest.id, "aeedge.role": "encoder"}
    first, second = mixed(12, 8, 3)
    first[3] = 1.0
    graph = onnx_bytes.model(onnx_bytes.chain(12, 3, *deep(first, second)), stands_in_it)
    tampering.replace_graph(promised, "encoder.onnx", graph)
    with aeedge.load(promised) as model:
        rows = model.golden_rows()
        found = {"latent": model.encode(rows), "reconstruction": model.denoise(rows), "score": model.score(rows)}
    tampering.replace_golden(promised, {"input": rows} | {f"fp32.{what}": values for what, values in found.items()})
    with aeedge.load(promised) as model:
        assert model.trusts_latents
        with pytest.raises(aeedge.VerificationError, match="telling_latents is 1"):
            model.self_check()


@pytest.mark.parametrize("said", ["maybe", True, -1, 1.5])
def test_other_promises_are_not_understood(tmp_path, said):
    path = strategies.promising(strategies.DATA / "bundle_v1", tmp_path / "b.aeedge", latents=said)
    with pytest.raises(aeedge.CorruptBundleError, match=r"whole number.*variants\.fp32\.telling_latents"):
        aeedge.load(path)


@pytest.mark.parametrize("said", [None, 0])
def test_no_promise(tmp_path, said):
    path = strategies.promising(strategies.DATA / "bundle_v1", tmp_path / "b.aeedge", latents=said)
    with aeedge.load(path) as model:
        assert not model.trusts_latents
