"""Which latents expose a non-finite input: where they are relied on they do, and where they do not they are not."""

import numpy as np
import pytest
from helpers import onnx_bytes, reference, strategies, tampering
from helpers.onnx_bytes import gemm
from hypothesis import given
from hypothesis import strategies as st

import aeedge
from aeedge.bundle.onnx_proto import chain
from aeedge.runtime import nonfinite
from aeedge.runtime.nonfinite import find_sentinels, sentinels_here
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


def found(*layers, wide=30, k=5):
    return find_sentinels(opened(wide, k, *layers), np.zeros(wide, np.float32))


def kept(chain, run, shape=(30,), recorded="all"):
    """What is relied on here of what a manifest says."""
    return sentinels_here(recorded, chain, run, shape, "float32")


def deep(first, second):
    return gemm(first), ("Relu",), gemm(second)


@pytest.mark.parametrize("wide", [1, 3, 30, 100])
@pytest.mark.parametrize("hidden", [8, 13, 64])
def test_usual_layers_have_sentinels(wide, hidden):
    first, second = mixed(wide, hidden)
    assert found(*deep(first, second), wide=wide) != "none"
    assert found(("Sub", weights(wide)), ("Div", weights(wide)), *deep(first, second), wide=wide) != "none"
    assert found(("MatMul", first), ("Add", weights(hidden)), ("Relu",), ("MatMul", second), wide=wide) != "none"
    assert found(gemm(first), ("LeakyRelu",), gemm(second), wide=wide) != "none"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_column_whose_infinity_a_relu_makes_zero_is_not_exposed(sign):
    first, second = np.abs(weights(30, 8)), weights(8, 5)
    first[17] *= sign  # minus infinity, or infinity, becomes minus infinity in all sums, and then zero
    assert found(*deep(first, second)) == "none"


def test_latents_that_end_in_zeros_are_no_sentinels():
    first, second = np.zeros((30, 8), np.float32), np.abs(weights(8, 5))
    first += [1, -1, 1, -1, 1, -1, 1, -1]
    assert found(*deep(first, second), ("Relu",)) == "first"
    assert found(*deep(first, -second), ("Relu",)) == "none"
    for needed in (1, 2, 5):
        signs = np.repeat(np.float32([-1, 1]), [needed - 1, 6 - needed])
        assert found(*deep(first, second * signs), ("Relu",)) == ("first" if needed == 1 else "all")


@pytest.mark.parametrize("kind", ["Sigmoid", "Tanh", "Softplus", "Abs", "Sign"])
def test_other_operators_are_not_tried(kind):
    layers = gemm(weights(30, 8)), (kind,), gemm(weights(8, 5))
    encoder = opened(30, 5, *layers)
    assert kept(encoder.chain, encoder.run) == "none"
    assert found(*layers) == "none"


def test_what_is_not_a_chain_of_weights_is_not_tried():
    both = onnx_bytes.message(1, "x") * 2 + onnx_bytes.message(2, "y") + onnx_bytes.message(4, "Add")
    ends = onnx_bytes.message(11, onnx_bytes.rows("x", 3)) + onnx_bytes.message(12, onnx_bytes.rows("y", 3))
    assert chain(onnx_bytes.model(onnx_bytes.message(1, both) + onnx_bytes.message(2, "g") + ends)) == ()
    assert kept((), lambda rows: np.full((len(rows), 5), np.nan)) == "none"
    assert chain(onnx_bytes.model(onnx_bytes.chain(3, 3, ("Add", weights(3)), ("Relu",)))) == ("Add", "Relu")


def test_integers_and_latents_that_overflow_have_no_sentinels():
    encoder = opened(30, 5, *deep(*mixed(30, 8)))
    assert find_sentinels(encoder, np.zeros(30, np.float32)) == "first"
    assert find_sentinels(encoder, np.zeros(30, np.uint8)) == "none"
    assert find_sentinels(encoder, np.full(30, np.inf, np.float32)) == "none"


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
    assert kept(CHAIN, Forgetful(*layers, ()).run) == "all"
    assert find_sentinels(Forgetful(*layers, ()), row) == "first"
    assert kept(CHAIN, Forgetful(*layers, sizes).run) == "none"
    assert find_sentinels(Forgetful(*layers, sizes), row) == "none"


@given(data=st.data())
@strategies.some(max_examples=200)
def test_sentinels_expose_any_non_finite_row(data):
    """The proof in docs/decisions/0011-nonfinite-sentinels.md, tried: one column at a time is enough for any others."""
    wide, hidden, k = (data.draw(st.integers(1, 6)) for _ in range(3))
    some_weights = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0])
    layers = []
    for shape in ((wide, hidden), (hidden, hidden), (hidden, k)):
        values = data.draw(st.lists(some_weights, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
        layers += [gemm(np.array(values, np.float32).reshape(shape)), ("Relu",)]
    encoder = opened(wide, k, *layers[:-1])
    sentinels = find_sentinels(encoder, np.zeros(wide, np.float32))
    if sentinels != "none":
        values = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 1.0, -3e38, 3e38])
        row = np.array(data.draw(st.lists(values, min_size=wide, max_size=wide)), np.float32)
        bad = data.draw(st.integers(0, wide - 1))
        row[bad] = data.draw(strategies.bad_values)
        rows = np.stack([row] * data.draw(st.integers(1, 20)))
        assert not np.isfinite(encoder.run(rows)[:, : 1 if sentinels == "first" else k]).all(axis=1).any()


@pytest.fixture
def promised(tmp_path):
    """A bundle whose manifest names sentinels, rightly."""
    return strategies.with_sentinels(strategies.DATA / "bundle_v1", tmp_path / "b.aeedge")


def test_what_the_manifest_says_is_used(promised):
    with aeedge.load(strategies.DATA / "bundle_v1") as model, aeedge.load(promised) as relying:
        assert relying.nonfinite_check == "latents"
        assert model.nonfinite_check == "inputs"
        relying.self_check()
        for rows in (model.golden_rows(), model.golden_rows()[:1]):
            assert reference.same(model, "encode", relying.encode(rows), model.encode(rows))


def test_the_manifest_is_not_relied_on_for_a_relu_that_loses_nan(promised, monkeypatch):
    monkeypatch.setattr(nonfinite, "_keeps_nan", lambda *given: False)
    with aeedge.load(promised) as model:
        assert model.nonfinite_check == "inputs"
        assert_row_3_is_named(model)


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_the_manifest_is_not_relied_on_for_a_graph_that_swallows_nan(tmp_path, variant):
    path = strategies.with_sentinels(strategies.DATA / "bundle_v1_saturating", tmp_path / "b.aeedge", variant)
    with aeedge.load(path, variant="int8") as model:
        assert model.nonfinite_check == "inputs"
        assert_row_3_is_named(model)


def assert_row_3_is_named(model):
    rows = model.golden_rows()
    rows[3, 2] = np.nan
    with pytest.raises(aeedge.InputError, match="row 3, column 2"):
        model.encode(rows)
    with pytest.raises(aeedge.InputError, match="row 0, column 2"):
        model.encode(rows[3])


def test_self_check_finds_a_wrong_manifest(promised):
    """In one column: of weights of one sign, the ReLU makes zeros of minus infinity."""
    with aeedge.load(promised) as model:
        stands_in_it = {"aeedge.id": model.manifest.id, "aeedge.role": "encoder"}
    first, second = mixed(12, 8, 3)
    first[3] = 1.0
    graph = onnx_bytes.model(onnx_bytes.chain(12, 3, *deep(first, second)), stands_in_it)
    tampering.replace_graph(promised, "encoder.onnx", graph)
    with aeedge.load(promised) as model:
        rows = model.golden_rows()
        outputs = {"latent": model.encode(rows), "reconstruction": model.denoise(rows), "score": model.score(rows)}
    tampering.replace_golden(promised, {"input": rows} | {f"fp32.{what}": values for what, values in outputs.items()})
    with aeedge.load(promised) as model:
        assert model.nonfinite_check == "latents"
        with pytest.raises(aeedge.VerificationError, match="nonfinite_sentinels is 'first'"):
            model.self_check()


@pytest.mark.parametrize("value", ["maybe", True, -1, 1.5, 1])
def test_other_values_are_not_understood(tmp_path, value):
    path = strategies.with_sentinels(strategies.DATA / "bundle_v1", tmp_path / "b.aeedge", sentinels=value)
    with pytest.raises(aeedge.CorruptBundleError, match=r"none, first, all.*variants\.fp32\.nonfinite_sentinels"):
        aeedge.load(path)


@pytest.mark.parametrize("value", [None, "none"])
def test_no_sentinels(tmp_path, value):
    path = strategies.with_sentinels(strategies.DATA / "bundle_v1", tmp_path / "b.aeedge", sentinels=value)
    with aeedge.load(path) as model:
        assert model.nonfinite_check == "inputs"


@pytest.mark.parametrize(
    ("exposing", "recorded", "found"), [(0, "first", "first"), (1, "first", "none"), (1, "all", "all")]
)
def test_the_first_latent_is_relied_on_only_where_it_exposes_nan_itself(exposing, recorded, found):
    def run(rows):
        latents = np.zeros((len(rows), 3), np.float32)
        latents[:, exposing] = rows.sum(axis=1)
        return latents

    assert sentinels_here(recorded, ("Gemm", "Relu"), run, (4,), "float32") == found
