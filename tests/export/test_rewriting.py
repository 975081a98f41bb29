"""Graphs rewritten for onnxruntime compute the same, and are what they claim to be."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from aeedge.runtime.session import as_run, every_output
from aeedge_export.conversion.exact import conv1d_as_conv2d, dense_as_convolution, fold_normalization, fold_scaler
from aeedge_export.conversion.folding import fold_width
from aeedge_export.conversion.graph import RawDecoder, RawEncoder, Scaling, frozen, to_onnx
from aeedge_export.conversion.rewriting import for_fp32
from aeedge_export.quantization.forms import formed, prepared
from aeedge_export.quantization.qdq import layers_of


def graph(module, shape, mean=0.0, scale=1.0, role="encoder", dtype=torch.float32):
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.running_mean.uniform_(-1, 1)
            layer.running_var.uniform_(0.5, 2)
    scaling = Scaling(np.asarray(mean, np.float32), np.asarray(scale, np.float32))
    raw = (RawEncoder if role == "encoder" else RawDecoder)(module, scaling)
    return to_onnx(frozen(raw), torch.zeros(2, *shape).to(dtype), role)


def run(model, rows):
    return every_output(model.SerializeToString(), rows)[model.graph.output[0].name]


def kinds(model):
    return [node.op_type for node in model.graph.node]


def assert_same(model, rewritten, shape, dtype=np.float32, count=5):
    onnx.checker.check_model(rewritten, full_check=True)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 200, (count, *shape)).astype(dtype) if dtype != np.float32 else None
    rows = rng.normal(size=(count, *shape)).astype(np.float32) if rows is None else rows
    before, after = run(model, rows), run(rewritten, rows)
    assert np.abs(after - before).max() <= 2e-6 * max(1.0, np.abs(before).max())


DENSE = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
IMAGES = nn.Sequential(
    nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Flatten(),
    nn.Linear(8 * 16, 5),
)  # fmt: skip
SIGNALS = nn.Sequential(
    nn.Conv1d(3, 4, 7, stride=2, padding=3), nn.ReLU(), nn.Conv1d(4, 8, 5, stride=2, padding=2), nn.Sigmoid(),
    nn.Flatten(), nn.Linear(8 * 8, 5),
)  # fmt: skip


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 255.0), (3.0, 2.0), (np.arange(12.0), np.linspace(1, 5, 12))])
def test_the_scaler_is_folded_into_a_dense_layer(mean, scale):
    model = graph(DENSE, (12,), mean, scale)
    folded = fold_scaler(model)
    assert not {"Sub", "Div"} & set(kinds(folded))
    assert_same(model, folded, (12,))


def test_a_scale_is_folded_into_a_convolution_but_an_offset_cannot_pass_its_padding():
    scaled = graph(IMAGES, (1, 8, 8), 0.0, 255.0)
    assert "Div" not in kinds(fold_scaler(scaled))
    assert_same(scaled, fold_scaler(scaled), (1, 8, 8))
    shifted = graph(IMAGES, (1, 8, 8), 100.0, 255.0)
    assert fold_scaler(shifted) == shifted


@pytest.mark.parametrize(("shape", "folds"), [((4, 1, 1), True), ((1, 4, 1), False), ((4,), False), ((1, 4, 4), False)])
def test_a_scale_of_another_axis_than_the_channels_is_not_folded(shape, folds):
    module = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    size = int(np.prod(shape))
    model = graph(module, (4, 4, 4), 0.0, np.linspace(1, 9, size).reshape(shape))
    assert ("Div" not in kinds(for_fp32(model))) == folds
    assert_same(model, for_fp32(model), (4, 4, 4))


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("scale", [2.0, np.linspace(1, 9, 4)[:, None]], ids=["one", "channels"])
def test_grouped_convolutions_are_rewritten_alike(groups, scale):
    module = nn.Sequential(
        nn.Conv1d(4, 8, 3, padding=1, groups=groups), nn.BatchNorm1d(8), nn.ReLU(),
        nn.ConvTranspose1d(8, 4, 4, stride=2, padding=1, groups=groups), nn.BatchNorm1d(4), nn.Flatten(),
        nn.Linear(64, 3),
    )  # fmt: skip
    model = graph(module.eval(), (4, 8), 0.0, scale)
    assert_same(model, for_fp32(model), (4, 8))
    assert_same(model, formed(prepared(model), "engine", layers_of(prepared(model))), (4, 8))


def test_an_offset_that_would_cancel_digits_stays():
    model = graph(DENSE, (12,), 1e6, 1.0)
    assert fold_scaler(model) == model


def test_normalisation_is_folded_into_the_layer_before():
    gain = np.linspace(0.5, 2, 4).astype(np.float32)
    model = graph(nn.Sequential(nn.Linear(12, 4)), (12,))
    node = onnx.helper.make_node("BatchNormalization", ["latent_", "gain", "bias", "mean", "var"], ["latent"], "bn")
    model.graph.node[0].output[0] = "latent_"
    model.graph.node.append(node)
    for name in ("gain", "bias", "mean", "var"):
        model.graph.initializer.append(onnx.numpy_helper.from_array(gain, name))
    folded = fold_normalization(model)
    assert kinds(folded) == ["Gemm"]
    assert_same(model, folded, (12,))


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_one_dimensional_convolutions_become_two_dimensional(role):
    up = nn.Sequential(
        nn.Linear(5, 8 * 8), nn.ReLU(), nn.Unflatten(1, (8, 8)), nn.ConvTranspose1d(8, 4, 5, 2, 2, 1), nn.ReLU(),
        nn.Conv1d(4, 3, 3, padding=1),
    )  # fmt: skip
    module, shape = (SIGNALS, (3, 32)) if role == "encoder" else (up, (5,))
    model = graph(module, shape, role=role)
    wide = conv1d_as_conv2d(model)
    ranks = {t.name: len(t.dims) for t in wide.graph.initializer}
    assert all(ranks[n.input[1]] == 4 for n in wide.graph.node if n.op_type.startswith("Conv"))
    assert_same(model, wide, shape)


def test_runs_of_dense_layers_become_convolutions_over_rows():
    model = graph(DENSE, (12,))
    formed_model = dense_as_convolution(model, layers_of(model))
    assert kinds(formed_model).count("Conv") == 2
    assert kinds(formed_model).count("Gemm") == 1
    assert_same(model, formed_model, (12,), count=7)
    assert dense_as_convolution(model, layers_of(model)[1:]) == model


@pytest.mark.parametrize(("channels", "stride", "kernel"), [(1, 2, 3), (1, 1, 3), (3, 2, 7), (2, 4, 5)])
def test_neighbours_become_channels(channels, stride, kernel):
    module = nn.Sequential(
        nn.Conv2d(channels, 4, kernel, stride=stride, padding=kernel // 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
    )
    module(torch.zeros(1, channels, 8, 16))
    model = graph(module, (channels, 8, 16))
    conv = next(n.name for n in model.graph.node if n.op_type == "Conv")
    assert_same(model, fold_width(model, conv, 4), (channels, 8, 16))


def test_a_signal_is_folded_without_becoming_an_image_first():
    wide = conv1d_as_conv2d(graph(SIGNALS, (3, 32)))
    folded = fold_width(wide, next(n.name for n in wide.graph.node if n.op_type == "Conv"), 4)
    assert kinds(wide).count("Unsqueeze") == 1
    assert "Unsqueeze" not in kinds(folded)
    assert_same(wide, folded, (3, 32))


@pytest.mark.parametrize("end", [nn.Identity(), nn.Softmax(1)], ids=["flattened", "read as a signal"])
def test_signals_are_flattened_as_images_are(end):
    model = graph(nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), end, nn.Flatten(), nn.Linear(24, 2)), (3, 8))
    wide = conv1d_as_conv2d(model)
    assert ("Squeeze" in kinds(wide)) == isinstance(end, nn.Softmax)
    assert_same(model, wide, (3, 8))


def test_a_convolution_that_cannot_be_folded_is_refused():
    model = graph(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, 2)), (1, 8, 8))
    with pytest.raises(ValueError, match="expected a plain Conv and its Relu"):
        fold_width(model, layers_of(model)[0], 4)


@pytest.mark.parametrize(
    ("module", "shape"), [(DENSE, (12,)), (IMAGES, (1, 8, 8)), (SIGNALS, (3, 32))], ids=["dense", "conv2d", "conv1d"]
)
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_all_rewrites_together_compute_the_same(module, shape, dtype):
    model = graph(module, shape, 0.0, 255.0, dtype=torch.float32 if dtype == np.float32 else torch.uint8)
    assert_same(model, for_fp32(model), shape, dtype)
    plain = prepared(model)
    assert_same(model, formed(plain, "engine", layers_of(plain)), shape, dtype)


def test_subnormal_weights_are_flushed():
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight[0, 0] = 1e-40
    weights = onnx.numpy_helper.to_array(graph(layer, (4,)).graph.initializer[0])
    assert not ((weights != 0) & (np.abs(weights) < np.finfo(np.float32).tiny)).any()


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Sigmoid(), nn.Tanh(), nn.LeakyReLU()])
def test_activations_fuse_into_dense_layers(activation):
    model = for_fp32(graph(nn.Sequential(nn.Linear(8, 8), activation, nn.Linear(8, 2)), (8,), 0.0, 2.0))
    optimised = onnx.load_from_string(as_run(model.SerializeToString()))
    assert kinds(optimised) == ["FusedGemm", "Gemm"]


def test_normalisation_of_a_sum_is_folded_into_both_layers():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.norm = nn.Linear(12, 4), nn.Linear(12, 4), nn.BatchNorm1d(4)

        def forward(self, x):
            return self.norm(self.one(x) + self.two(torch.relu(x)))

    model = graph(Sum(), (12,))
    assert "BatchNormalization" in kinds(model)
    folded = fold_normalization(model)
    assert "BatchNormalization" not in kinds(folded)
    assert_same(model, folded, (12,))
