"""The scorer: one graph from raw samples to scores, equal to encoder, decoder and numpy one after the other."""

import numpy as np
import onnx
import pytest
import torch
from helpers.factory import canonical, factory_rows, kinds
from torch import nn

from aeedge.bundle.manifest import ScoreSpec
from aeedge.runtime import methods
from aeedge.runtime.session import as_run, every_output
from aeedge_export.conversion.graph import RawDecoder, RawEncoder, Scaling, frozen, to_onnx
from aeedge_export.conversion.rewriting import for_fp32
from aeedge_export.conversion.scorer import scorer
from aeedge_export.quantization.calibration import activations, minmax, ranges
from aeedge_export.quantization.forms import formed, prepared
from aeedge_export.quantization.qdq import layers_of, quantize

DENSE = (24,), nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 4)), nn.Sequential(nn.Linear(4, 24))
CONV = (
    (1, 8, 8),
    nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4)),
    nn.Sequential(
        nn.Linear(4, 64), nn.ReLU(), nn.Unflatten(1, (4, 4, 4)), nn.ConvTranspose2d(4, 1, 3, 2, 1, 1), nn.Sigmoid()
    ),
)
SIGNALS = (
    (2, 16),
    nn.Sequential(nn.Conv1d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)),
    nn.Sequential(nn.Linear(4, 32), nn.Unflatten(1, (2, 16))),
)
NETWORKS = {"dense": DENSE, "conv2d": CONV, "conv1d": SIGNALS}
TOP = {"float32": 1.0, "uint8": 255.0, "int16": 2000.0}


def graphs(network, dtype, mean=0.0, scale=None, rewrite=for_fp32):
    shape, down, up = network
    torch.manual_seed(0)
    for layer in [*down.modules(), *up.modules()]:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    scale = TOP[dtype] if scale is None else scale
    scaling = Scaling(np.asarray(mean, np.float32), np.asarray(scale, np.float32))
    raw = (factory_rows(64, int(np.prod(shape))).reshape(-1, *shape) * TOP[dtype]).astype(dtype)
    encoder = to_onnx(frozen(RawEncoder(down, scaling)), torch.from_numpy(raw), "encoder")
    decoder = to_onnx(frozen(RawDecoder(up, scaling)), torch.zeros(2, 4), "decoder")
    return rewrite(encoder), rewrite(decoder), scaling.scale, raw


def run(model, rows):
    return every_output(model.SerializeToString(), rows)[model.graph.output[0].name]


def integers(encoder, decoder, rows):
    """Both graphs with every layer on integers."""
    result, given = [], rows
    for model in (encoder, decoder):
        form = formed(prepared(model), "engine", layers_of(prepared(model)))
        result.append(quantize(form, ranges(activations(form, given), minmax), layers_of(form)))
        given = run(model, given)
    return result


def assert_scores(encoder, decoder, scale, rows, rtol=1e-5):
    joined = scorer(encoder, decoder, scale)
    expected = methods.score(rows, run(decoder, run(encoder, rows)), ScoreSpec("mse", scale))
    for count in (1, 7, len(rows)):
        got = run(joined, rows[:count])
        assert (got.shape, got.dtype) == ((count,), np.float32)
        np.testing.assert_allclose(got, expected[:count], rtol=rtol)
    return joined


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("dtype", TOP)
def test_scores_are_those_of_encoder_decoder_and_numpy(network, dtype):
    joined = assert_scores(*graphs(NETWORKS[network], dtype))
    onnx.checker.check_model(joined, full_check=True)
    assert joined.graph.name == "scorer"
    assert joined.ir_version == 8
    assert [(o.domain, o.version) for o in joined.opset_import] == [("", 17)]
    assert kinds(joined).count("Cast") == (dtype != "float32")
    assert ("Flatten" in kinds(joined)[-2:]) == (network != "dense")
    names = [name for node in joined.graph.node for name in node.output]
    assert len(names) == len(set(names))


def test_a_scale_for_every_column_divides_the_residual():
    given = graphs(DENSE, "float32", np.linspace(-1, 1, 24), np.linspace(0.5, 4, 24))
    joined = assert_scores(*given)
    assert kinds(joined)[-4:] == ["Sub", "Div", "Mul", "ReduceMean"]


def test_a_scale_of_one_costs_no_operator():
    assert kinds(assert_scores(*graphs(DENSE, "float32")))[-3:] == ["Sub", "Mul", "ReduceMean"]


def test_one_scale_for_all_columns_is_a_scalar():
    encoder, decoder, _, rows = graphs(CONV, "float32", 0.0, 3.0)
    joined = assert_scores(encoder, decoder, np.full((1, 8, 8), 3.0, np.float32), rows)
    assert next(t.dims for t in joined.graph.initializer if t.name == "score_scale") == []


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("dtype", TOP)
def test_integer_graphs_join_and_stay_integers(network, dtype):
    encoder, decoder, scale, rows = graphs(NETWORKS[network], dtype, rewrite=lambda model: model)
    low, high = integers(encoder, decoder, rows)
    joined = assert_scores(low, high, scale, rows, rtol=0.05)  # a latent half way between two steps may take the other
    integer = ("QGemm", "QLinearConv")
    found = [kinds(onnx.load_from_string(as_run(m.SerializeToString()))) for m in (low, high, joined)]
    counts = [sum(kind in integer for kind in one) for one in found]
    assert counts[2] == counts[0] + counts[1]


def test_a_row_with_a_value_that_is_not_finite_has_no_finite_score():
    encoder, decoder, scale, rows = graphs(DENSE, "float32")
    for value in (np.nan, np.inf, -np.inf):
        rows[3, 5] = value
        found = run(scorer(encoder, decoder, scale), rows)
        assert not np.isfinite(found[3])
        assert np.isfinite(np.delete(found, 3)).all()


def test_the_same_graphs_give_the_same_bytes(net):
    models = canonical(net, factory_rows())
    one, two = (
        scorer(models["encoder"], models["decoder"], np.float32(2)).SerializeToString(deterministic=True)
        for _ in range(2)
    )
    assert one == two
