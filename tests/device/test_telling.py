"""Latents may tell that a row was not finite: where they are trusted they do, and where they do not they are not."""

import json

import drawing
import numpy as np
import onnxbytes
import pytest
import witness
from hypothesis import given
from hypothesis import strategies as st
from onnxbytes import gemm

import aeedge
from aeedge import telling, tuned, tuning
from aeedge.finite import may_tell
from aeedge.loading import load_as
from aeedge.onnxfile import chain
from aeedge.session import Session

rng = np.random.default_rng(0)


class Way:
    """A step of `encode` for a graph."""

    dtype = "float32"

    def __init__(self, wide, k, *layers):
        self.session = Session(onnxbytes.model(onnxbytes.chain(wide, k, *layers)), "g", "float32", (wide,), (k,))
        self.chain, self.new = self.session.chain, self.session.run


def weights(*shape):
    return rng.normal(size=shape).astype(np.float32)


def tell(*layers, wide=30, k=5):
    return telling.latents_tell([Way(wide, k, *layers)], np.zeros(wide, np.float32))


def deep(first, second):
    return gemm(first), ("Relu",), gemm(second)


@pytest.mark.parametrize("wide", [1, 3, 30, 100])
@pytest.mark.parametrize("hidden", [8, 13, 64])
def test_usual_layers_tell(wide, hidden):
    first, second = weights(wide, hidden), weights(hidden, 5)
    first[:, :2], second[:2] = [1.0, -1.0], 1.0  # by chance, all of a row might have had one sign
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
    assert tell(*deep(first, second), ("Relu",))
    assert not tell(*deep(first, -second), ("Relu",))


@pytest.mark.parametrize("kind", ["Sigmoid", "Tanh", "Softplus", "Abs", "Sign"])
def test_other_operators_are_not_tried(kind):
    layers = gemm(weights(30, 8)), (kind,), gemm(weights(8, 5))
    assert not may_tell(Way(30, 5, *layers).chain)
    assert not tell(*layers)


def test_what_is_not_a_chain_of_weights_is_not_tried():
    both = onnxbytes.message(1, "x") * 2 + onnxbytes.message(2, "y") + onnxbytes.message(4, "Add")
    ends = onnxbytes.message(11, onnxbytes.rows("x", 3)) + onnxbytes.message(12, onnxbytes.rows("y", 3))
    assert chain(onnxbytes.model(onnxbytes.message(1, both) + onnxbytes.message(2, "g") + ends)) == ()
    assert not may_tell(())
    assert chain(onnxbytes.model(onnxbytes.chain(3, 3, ("Add", weights(3)), ("Relu",)))) == ("Add", "Relu")


def test_nobody_waits_long_for_a_wide_net(monkeypatch):
    layers = deep(weights(30, 8), weights(8, 5))
    assert tell(*layers)
    monkeypatch.setattr(telling, "_MOST_SECONDS", 0.0)
    assert not tell(*layers)


@given(data=st.data())
@drawing.some(max_examples=200)
def test_where_latents_tell_no_row_that_is_not_finite_has_finite_ones(data):
    """The proof in telling.py, tried: one column at a time is enough for any values in any columns."""
    wide, hidden, k = (data.draw(st.integers(1, 6)) for _ in range(3))
    some_weights = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0])
    layers = []
    for shape in ((wide, hidden), (hidden, hidden), (hidden, k)):
        values = data.draw(st.lists(some_weights, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
        layers += [gemm(np.array(values, np.float32).reshape(shape)), ("Relu",)]
    way = Way(wide, k, *layers[:-1])
    if telling.latents_tell([way], np.zeros(wide, np.float32)):
        values = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 1.0, -3e38, 3e38])
        row = np.array(data.draw(st.lists(values, min_size=wide, max_size=wide)), np.float32)
        bad = data.draw(st.integers(0, wide - 1))
        row[bad] = data.draw(drawing.bad_values)
        rows = np.stack([row] * data.draw(st.integers(1, 20)))
        assert not np.isfinite(way.new(rows)).all(axis=1).any()


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """A folder for device state, and short measurements."""
    monkeypatch.setenv("AEEDGE_STATE", str(tmp_path))
    monkeypatch.setattr(tuning, "_ROUNDS", 1)
    monkeypatch.setattr(tuning, "_BULK_US", 500.0)
    return tmp_path


@pytest.mark.parametrize("aim", ["latency", "memory"])
def test_what_tuning_found_is_used_and_told(quick, aim):
    path = str(drawing.DATA / "bundle_v1")
    found = tuning.tune(path, aim)
    assert found.trust_latents
    with aeedge.load(path) as model:
        expected = model.encode(model.golden_rows())
        assert not model.trusts_latents
        tuned.write(model.manifest.id, found)
    with aeedge.load(path) as model:
        assert model.trusts_latents
        assert witness.same(model, "encode", model.encode(model.golden_rows()), expected)
    assert not tuning.tune(str(drawing.DATA / "bundle_v1_int8"), "memory").trust_latents


def test_a_record_alone_is_not_believed(quick):
    """Not of a graph that cannot tell; and nothing is known from a record of before."""
    path = drawing.DATA / "bundle_v1_saturating"
    with load_as(str(path), "int8", 1, trust_latents=True) as model:
        rows = model.golden_rows()
        rows[3, 2] = np.nan
        with pytest.raises(aeedge.InputError, match="row 3, column 2"):
            model.encode(rows)
        with pytest.raises(aeedge.InputError, match="row 0, column 2"):
            model.encode(rows[3])
        found = tuning.tune(str(path), variant="fp32")
        kept = tuned.write(model.manifest.id, found)
        assert tuned.read(model.manifest.id).trust_latents
        with open(kept) as stream:
            text = stream.read()
        for given_instead in ('"maybe"', "1", "null"):
            with open(kept, "w") as stream:
                stream.write(text.replace('"trust_latents": true', f'"trust_latents": {given_instead}'))
            assert not tuned.read(model.manifest.id).trust_latents
        document = json.loads(text)
        for record in document["records"].values():
            del record["trust_latents"]
        with open(kept, "w") as stream:
            json.dump(document, stream)
        assert tuned.read(model.manifest.id) == found._replace(trust_latents=False)
