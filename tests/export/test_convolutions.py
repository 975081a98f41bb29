"""conv1d and conv2d with strides of one's own and separable convolutions: shapes, export, counting, what is refused."""

import itertools
import json

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

import aeedge
from aeedge.cli.group import AeedgeGroup
from aeedge.errors import InputError
from aeedge_export import Autoencoder
from aeedge_export.networks import build
from aeedge_export.networks.base import Design, multiply_adds
from aeedge_export.networks.convolutional import convolutional_choices
from aeedge_export.reporting.page import render

QUICK = {"latent": 3, "epochs": 2, "random_state": 0}
SHAPES = {"conv2d": [(1, 8, 8), (3, 17, 19), (2, 33, 16)], "conv1d": [(1, 64), (3, 37), (2, 101)]}
STRIDES = [(1,), (3,), (4,), (5, 1), (2, 3), (1, 4), (4, 2), (2, 2, 2)]


def network(family, shape, hidden, strides, *, separable=False, **options):
    chosen = {"strides": strides, "separable": separable}
    return build(family, Design(shape, 3, hidden, options=chosen, **options), seed=0)


@pytest.mark.parametrize(
    ("family", "shape"), [(family, shape) for family, shapes in SHAPES.items() for shape in shapes], ids=str
)
@pytest.mark.parametrize("separable", [False, True], ids=["plain", "separable"])
def test_any_strides_give_back_the_shape_and_lose_no_value(family, shape, separable):
    tried = 0
    for strides in STRIDES:
        fits = np.prod(strides) <= min(shape[1:]) and (len(strides) > 1 or not separable)
        if not fits:
            continue
        tried += 1
        net = network(family, shape, (4, 6, 5)[: len(strides)], strides, separable=separable, activation="linear")
        x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
        assert net(x).shape == x.shape
        (gradient,) = torch.autograd.grad(net.encoder(x).sum(), x)
        assert (gradient != 0).all(), strides  # no stride passes over a value
        z = torch.rand(1, 3, requires_grad=True)
        reached = torch.autograd.functional.jacobian(net.body, z).abs().sum(dim=(0, -2, -1))
        assert (reached > 0).all(), strides
    assert tried >= 3


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("family", "shape"), [("conv2d", (2, 13, 18)), ("conv1d", (3, 41))])
def test_normalisation_is_folded_into_separable_layers(family, shape, channels_last):
    shape = (*shape[1:], shape[0]) if channels_last else shape
    options = {"normalization": "batch", "linear_path": True, "channels_last": channels_last}
    net = network(family, shape, (4, 6), (3, 2), separable=True, **options).eval()
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.running_mean.uniform_(-1, 1, generator=generator)
    encoder, decoder = net.exportable()
    assert not any("BatchNorm" in type(m).__name__ for part in (encoder, decoder) for m in part.modules())
    x = torch.rand(3, *shape, generator=generator)
    torch.testing.assert_close(decoder(encoder(x)), net(x), rtol=1e-4, atol=1e-5)


def test_separable_multiply_adds_are_counted_by_group():
    net = network("conv2d", (2, 16, 16), (4, 6), (4, 2), separable=True)
    first, depthwise, pointwise = 4 * 16 * 2 * 25, 4 * 4 * 9, 4 * 6 * 4
    head = tail = 3 * 24
    depthwise_up, mixing_up, last = 6 * 4 * 9, 4 * 6 * 4 * 4, 16 * 4 * 2 * 64
    expected = first + depthwise + pointwise + head + tail + depthwise_up + mixing_up + last
    assert multiply_adds(net) == expected
    assert multiply_adds(network("conv2d", (2, 16, 16), (4, 6), (4, 2))) > expected


@pytest.mark.parametrize("family", ["conv2d", "conv1d"])
def test_separable_and_strided_networks_are_exported_as_trained(family, tmp_path):
    shape = {"conv2d": (9, 14, 2), "conv1d": (50, 3)}[family]
    X = np.random.default_rng(0).random((120, *shape)).astype(np.float32)
    options = {"hidden": (8, 12), "strides": (4, 2), "separable": True, "channels": "last"}
    ae = Autoencoder(family, **options, **QUICK).fit(X)
    ae.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run")
    assert again.design_ == ae.design_
    assert (again.strides, again.separable) == ((4, 2), True)
    assert "4, 2, separable" in render(again.run_)
    again.export(tmp_path / "m.aeedge")
    model = aeedge.load(tmp_path / "m.aeedge", check="golden")
    scale = np.abs(ae.transform(X)).max()
    np.testing.assert_allclose(model.encode(X[:7]), ae.transform(X[:7]), atol=1e-4 * scale)
    np.testing.assert_allclose(model.denoise(X[:7]), ae.inverse_transform(ae.transform(X[:7])), atol=1e-3)
    graph = onnx.load(tmp_path / "m.aeedge" / "encoder.onnx").graph
    groups = [a.i for node in graph.node if node.op_type == "Conv" for a in node.attribute if a.name == "group"]
    assert groups == [1, 8, 1]


@pytest.mark.usefixtures("time_has_no_say")
def test_depthwise_layers_run_on_integers(digits, tmp_path):
    X = (digits[:600] * 15).astype(np.uint8).reshape(-1, 1, 8, 8)
    ae = Autoencoder("conv2d", hidden=(8, 8), separable=True, latent=4, epochs=5, random_state=0).fit(X)
    manifest = ae.export(tmp_path / "m.aeedge", variants=("fp32", "int8"), calibration=X)
    decided = manifest.variants["int8"].decisions["layers"]
    assert sum(one["graph"] == "encoder" for one in decided) >= 4
    assert all(one["choice"] == "int8" or "allowed" in one["why"] for one in decided)
    model = aeedge.load(tmp_path / "m.aeedge", variant="int8")
    assert model.variant == "int8"
    np.testing.assert_allclose(model.encode(X), ae.transform(X), atol=0.1 * np.abs(ae.transform(X)).max())


def test_runs_saved_before_there_were_strides_load(digits, tmp_path):
    X = digits[:200].reshape(-1, 1, 8, 8)
    ae = Autoencoder("conv2d", **QUICK).fit(X)
    ae.save(tmp_path / "run")
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    for name in ("strides", "separable"):
        del document["params"][name], document["design"]["options"][name]
    del document["sha256"]
    document["version"] = 1
    (tmp_path / "run" / "run.json").write_text(json.dumps(document))
    again = Autoencoder.load(tmp_path / "run")
    assert (again.strides, again.separable) == ("auto", False)
    np.testing.assert_array_equal(again.transform(X), ae.transform(X))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": (4, 2, 2)}, r"strides: expected one for each of the 2 hidden layers \(16, 32\), got \(4, 2, 2\)"),
        ({"strides": ()}, "strides: expected one for each of the 2 hidden layers"),
        ({"strides": (4, 4)}, r"at least 16×16 for hidden=\(16, 32\) channels and strides=\(4, 4\), got 8×8"),
        ({"hidden": 8, "separable": True}, r"separable: expected two or more hidden layers, .*got hidden=\(8,\)"),
        ({"hidden": (), "strides": 2}, "expected rows of at least 1×1"),
    ],
)
def test_strides_that_do_not_fit_are_one_sentence(options, message, digits):
    with pytest.raises(InputError, match=message):
        Autoencoder("conv2d", **options, **QUICK).fit(digits[:60].reshape(-1, 1, 8, 8))


def test_one_stride_is_for_all_layers(digits):
    X = digits[:60].reshape(-1, 1, 8, 8)
    assert Autoencoder("conv2d", hidden=(4, 4), strides=1, **QUICK).fit(X).design_.options["strides"] == [1, 1]
    assert Autoencoder("conv2d", hidden=4, strides=4, **QUICK).fit(X).design_.options["strides"] == [4]
    assert Autoencoder("conv2d", **QUICK).fit(X).design_.options["strides"] == [2, 2]


@pytest.mark.parametrize("channels", ["first", "last"])
def test_long_signals_are_shrunk_early_unless_channels_or_strides_are_given(channels):
    def chosen(samples, **options):
        X = np.random.default_rng(0).normal(size=(40, 2, samples)).astype(np.float32)
        X = X if channels == "first" else np.moveaxis(X, 1, 2)
        design = Autoencoder("conv1d", channels=channels, **options, **QUICK).fit(X).design_
        return design.hidden, design.options["strides"]

    assert chosen(127) == ((16, 32, 32), [2, 2, 2])
    assert chosen(128) == ((16, 32, 64), [4, 2, 2])
    assert chosen(128, hidden=(8, 8)) == ((8, 8), [2, 2])
    assert chosen(128, strides=2) == ((16, 32, 32), [2, 2, 2])


def test_the_command_takes_strides_and_separable(digits, tmp_path):
    np.save(tmp_path / "x.npy", digits[:80].reshape(-1, 1, 8, 8))

    def train(*options):
        command = ["train", str(tmp_path / "x.npy"), "-o", str(tmp_path / "run"), "--family", "conv2d", "--epochs", "1"]
        return CliRunner().invoke(AeedgeGroup.build(), [*command, "-q", *options])

    assert train("--strides", "4,x").exit_code == 2
    wrong = train("--strides", "4,2,2")
    assert wrong.exit_code == 2
    assert "--strides: expected one for each of the 2 hidden layers" in wrong.output
    done = train("--strides", "4,2", "--separable")
    assert done.exit_code == 0, done.output
    design = Autoencoder.load(tmp_path / "run").design_
    assert (design.options["strides"], design.options["separable"]) == ([4, 2], True)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("sizes", [(1,), (2,), (7,), (50,), (256,), (1, 1), (3, 40), (5, 7), (28, 28), (33, 17)])
def test_choices_fit_any_shape(sizes, channels_last):
    family = "conv2d" if len(sizes) == 2 else "conv1d"
    for channels in (1, 3):
        shape = (*sizes, channels) if channels_last else (channels, *sizes)
        choices = convolutional_choices(shape, family, channels_last=channels_last)
        assert 1 <= len(choices) <= 8
        assert not any(a == b for a, b in itertools.combinations(choices, 2))
        for choice in choices:
            net = network(family, shape, **choice, channels_last=channels_last)
            assert net(torch.zeros(2, *shape)).shape == (2, *shape)
            Autoencoder(family, **choice)._checked_params()
