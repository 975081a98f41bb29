"""int8: what it keeps, what it refuses, and that it is the same for every batch and machine."""

import json
import warnings

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from helpers.factory import canonical, factory_rows, kinds, with_outlier
from helpers.tampering import replace_graph
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

import aeedge
from aeedge.bundle.manifest import Tolerance
from aeedge.cli.group import AeedgeGroup
from aeedge.runtime.session import Session, as_run
from aeedge.verification import deviation
from aeedge_export import Autoencoder, bundle, export_bundle
from aeedge_export.acceptance import check_batch_invariance
from aeedge_export.conversion.graph import RawEncoder, Scaling, frozen, to_onnx
from aeedge_export.quantization.affine import Affine, quantized_weight
from aeedge_export.quantization.calibration import METHODS, activations, corrected_biases, minmax, ranges
from aeedge_export.quantization.choice import Int8, NotQuantizableError
from aeedge_export.quantization.encoder_decoder import EncoderDecoder, nudged
from aeedge_export.quantization.quality_limits import LIMITS, Quality, compare

pytestmark = pytest.mark.usefixtures("time_has_no_say")


@pytest.fixture(scope="module")
def bundle_of(net, tmp_path_factory):
    """A bundle with both variants, made once for each input dtype."""
    made = {}

    def make(dtype):
        if dtype not in made:
            path = tmp_path_factory.mktemp("int8") / f"{dtype}.aeedge"
            top = {"float32": 1.0, "uint8": 255.0, "int16": 2000.0}[dtype]
            rows = (factory_rows() * top).astype(dtype)
            export_bundle(
                encoder=net[0], decoder=net[1], path=path, example=rows, scaler=(0.0, top), variants=("int8", "fp32")
            )
            made[dtype] = path, rows
        return made[dtype]

    return make


def integer_graph(path, role="encoder"):
    return onnx.load_from_string(as_run((path / f"{role}.int8.onnx").read_bytes()))


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int16"])
def test_the_quality_limits_are_met_and_recorded(bundle_of, dtype):
    path, _ = bundle_of(dtype)
    with aeedge.load(path) as model:
        assert (model.variant, model.arithmetic) == ("int8", "integer")
        variant = model.manifest.variants["int8"]
    assert Quality(**variant.quality).failures(LIMITS) == []
    assert variant.decisions["calibration"]["method"] in METHODS
    assert {one["choice"] for one in variant.decisions["layers"]} <= {"int8", "fp32"}
    assert len(variant.decisions["layers"]) == 6


def test_dense_nets_are_integer_from_end_to_end(bundle_of):
    path, _ = bundle_of("float32")
    decided = json.loads((path / "manifest.json").read_text())["variants"]["int8"]["decisions"]["layers"]
    for role in ("encoder", "decoder"):
        if any(one["choice"] == "fp32" for one in decided if one["graph"] == role):
            continue  # slower on integers on this machine: nets this small may be
        found = kinds(integer_graph(path, role))
        assert not {"Gemm", "FusedGemm", "Conv", "FusedConv", "MatMul"} & set(found)
        assert {"QGemm", "QLinearConv"} & set(found)


def test_raw_bytes_feed_the_first_integer_layer(net):
    rows = (factory_rows() * 255).astype(np.uint8)
    models = canonical(net, rows, 255.0)
    model = onnx.load_from_string(as_run(plainly_quantised(models["encoder"], rows).SerializeToString()))
    assert kinds(model)[0] in ("QGemm", "QLinearConv", "Unsqueeze")
    assert "QuantizeLinear" not in kinds(model)


@pytest.mark.parametrize("mean", [(3, 1, 1), (3, 4, 4), (1, 4, 1)], ids=str)
@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1)], ids=["as it is", "channels last"])
def test_raw_bytes_of_unlike_channels_feed_a_dense_layer(mean, axes):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(48, 3)

        def forward(self, x):
            return self.layer(x.permute(axes).flatten(1))

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (300, 3, 4, 4)).astype(np.uint8)
    scaling = Scaling(rng.uniform(50, 200, mean).astype(np.float32), np.float32(60))
    raw = frozen(RawEncoder(Flat(), scaling))
    model = plainly_quantised(to_onnx(raw, torch.from_numpy(rows), "encoder"), rows)
    got = Session(model.SerializeToString(), "m", "uint8", (3, 4, 4), (3,)).run(rows)
    with torch.no_grad():
        exact = raw(torch.from_numpy(rows)).numpy()
    assert np.abs(got - exact).max() < 0.05 * np.abs(exact).max()


def plainly_quantised(model, rows):
    from aeedge_export.quantization.forms import formed, prepared
    from aeedge_export.quantization.qdq import layers_of, quantize

    model = prepared(model)
    model = formed(model, "engine", layers_of(model))
    return quantize(model, ranges(activations(model, rows), minmax), layers_of(model))


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int16"])
def test_a_latent_does_not_depend_on_its_batch(bundle_of, dtype):
    path, rows = bundle_of(dtype)
    with aeedge.load(path, variant="int8", threads=1) as one, aeedge.load(path, variant="int8", threads=3) as three:
        whole = one.encode(rows)
        for size in (1, 2, 7, 257):
            parts = [one.encode(rows[i : i + size]) for i in range(0, len(rows), size)]
            assert np.array_equal(np.concatenate(parts), whole)
        assert np.array_equal(three.encode(np.tile(rows, (10, 1)))[: len(rows)], whole)
        assert np.array_equal(one.encode(rows[::-1])[::-1], whole)


def test_dynamic_quantisation_is_refused(bundle_of, tmp_path):
    path, rows = bundle_of("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_dynamic(path / "encoder.onnx", tmp_path / "d.onnx", weight_type=QuantType.QInt8)
    session = Session((tmp_path / "d.onnx").read_bytes(), "d.onnx", "float32", (24,), (4,))
    for allowed in (None, Tolerance(rtol=1e-5, atol=1e-5)):
        with pytest.raises(aeedge.VerificationError, match=r"changes with its neighbours: at batch 1 .*dynamic"):
            check_batch_invariance(lambda some: session.run(some), rows[:257], "d", allowed)


def test_weights_are_scaled_so_that_no_processor_saturates():
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((9, 33)) < 0.6, 1, -1).astype(np.float32) * (1 + 0.1 * rng.random((9, 33), np.float32))
    steps, scale = quantized_weight(weight, 0)
    pairs = np.pad(steps.astype(int), ((0, 0), (0, 1))).reshape(9, -1, 2)
    most = np.maximum(pairs, 0).sum(axis=2).max() * 255, np.minimum(pairs, 0).sum(axis=2).min() * 255
    assert most[0] <= 32767
    assert most[1] >= -32768
    assert np.abs(steps * scale[:, None] - weight).max() <= scale.max() / 2 * 1.0001
    full = np.pad(quantized_weight(weight, 0, safe=False)[0].astype(int), ((0, 0), (0, 1))).reshape(9, -1, 2)
    assert np.maximum(full, 0).sum(axis=2).max() * 255 > 32767


def test_zero_is_exact_in_every_range():
    for low, high in ((-3.0, 5.0), (2.0, 5.0), (-5.0, -2.0), (0.0, 0.0)):
        affine = Affine.of(low, high)
        assert affine.rounded(np.zeros(1, np.float32))[0] == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_range_covers_what_it_keeps(method):
    values = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    low, high = METHODS[method](values)
    assert values.min() <= low < -1
    assert 1 < high <= values.max()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 3.0, -0.5])
def test_a_value_that_never_changes_is_its_own_range(method, value):
    """The first state of a recurrent network, for example."""
    assert METHODS[method](np.full(100, value, np.float32)) == (value, value)


def test_a_last_digit_of_weights_is_no_exponent_of_its_own():
    """x³ of a GELU by tanh is NaN for negative x where the 3 is moved as well."""
    rows = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    net = nn.Sequential(nn.Linear(6, 8), nn.GELU("tanh"), nn.Linear(8, 3)).eval()
    models = {"encoder": to_onnx(net, torch.from_numpy(rows), "encoder")}
    exact, moved = (EncoderDecoder(m, np.float32(1)).outputs(rows)["latent"] for m in (models, nudged(models)))
    assert 0 < np.abs(moved - exact).max() < 1e-5


def test_quality_is_measured_without_labels():
    rng = np.random.default_rng(0)
    z, errors = rng.normal(size=(300, 5)).astype(np.float32), rng.random(300).astype(np.float32)
    same = compare((z, z), (errors, errors))
    assert (same.error_ratio, same.neighbours) == (1.0, 1.0)
    assert (same.cosine, same.rank) == pytest.approx((1.0, 1.0))
    worse = compare((z, z[::-1]), (errors, errors[::-1] * 1.05))
    assert len(worse.failures(LIMITS)) == 5
    assert compare((z, z), None).failures(LIMITS) == []


def tampered(path, change):
    """The bundle with a changed int8 encoder, all hashes in order."""
    model = onnx.load(path / "encoder.int8.onnx")
    change({t.name: t for t in model.graph.initializer})
    replace_graph(path, "encoder.int8.onnx", model.SerializeToString(), "int8")


def perturb_weight(tensors):
    tensor = next(t for name, t in tensors.items() if name.endswith(".w.steps"))
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[np.argmax(np.abs(values))] = 0
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def flip_a_bit_of_a_scale(tensors):
    *_, tensor = (t for name, t in tensors.items() if name.endswith(".w.scale"))
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.view(np.int32)[0] ^= 1 << 12  # one part in two thousand
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


@pytest.mark.parametrize("change", [perturb_weight, flip_a_bit_of_a_scale])
def test_int8_whose_outputs_differ_from_the_recorded_ones_is_not_used(bundle_of, change, tmp_path):
    import shutil

    path = shutil.copytree(bundle_of("float32")[0], tmp_path / "m.aeedge")
    tampered(path, change)
    with (
        pytest.warns(UserWarning, match=r"int8 is not right on this machine, fp32 is used instead: .*latent of row"),
        aeedge.load(path) as model,
    ):
        assert (model.variant, model.arithmetic) == ("fp32", "float")
    result = CliRunner().invoke(AeedgeGroup.build(), ["verify", str(path)])
    assert result.exit_code == 1
    assert "int8 is not right on this machine" in result.stderr


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (factory_rows(100), r"expected 192 or more rows .*, got 100"),
        (factory_rows(width=23), r"expected rows of shape \(24,\), got \(23,\)"),
        (np.where(factory_rows() > 0.9, np.nan, factory_rows()), r"expected finite numbers, got nan in row \d+"),
        (factory_rows() * 100, r"lie outside the range of the example, .* is it from the same sensor"),
        (np.full((300, 24), "a"), "expected numbers, got dtype"),
    ],
    ids=["few", "shape", "nan", "sensor", "text"],
)
def test_calibration_rows_that_do_not_fit_are_refused(net, rows, message, tmp_path):
    with pytest.raises(aeedge.InputError, match=message):
        export_bundle(
            encoder=net[0], decoder=net[1], path=tmp_path / "m", example=factory_rows(), variants=("fp32", "int8"),
            calibration=rows,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variants", [("int8",), ("fp32", "fp16"), (), "int8", ("fp32", "fp32")])
def test_variants_that_do_not_exist_are_refused(net, variants, tmp_path):
    with pytest.raises(aeedge.InputError, match="variants: expected fp32, or fp32 and int8"):
        export_bundle(encoder=net[0], decoder=net[1], path=tmp_path / "m", example=factory_rows(), variants=variants)


def test_all_means_as_many_as_the_rows_suffice_for(net, tmp_path):
    def made(count):
        return export_bundle(
            encoder=net[0], decoder=net[1], path=tmp_path / str(count), example=factory_rows(count), variants="all"
        )

    assert list(made(50).variants) == ["fp32"]
    assert made(600).default_variant == "fp32"


def test_a_net_without_layers_for_integers_gets_no_int8(tmp_path):
    class Halves(nn.Module):
        def forward(self, x):
            return x[:, ::2] * 0.5

    with pytest.warns(UserWarning, match="no int8 variant: expected Gemm or Conv layers with constant weights"):
        manifest = export_bundle(
            encoder=Halves(), path=tmp_path / "m", example=factory_rows(), variants=("fp32", "int8")
        )
    assert list(manifest.variants) == ["fp32"]


@pytest.mark.parametrize("family", ["dense", "sparse", "contractive", "vae", "conv2d", "conv1d", "pca"])
def test_every_family_can_be_int8(family, digits, tmp_path):
    images = (digits / 16).reshape(-1, 1, 8, 8)
    phase = np.random.default_rng(0).uniform(0, 6, (600, 2, 1))
    signals = np.sin(np.arange(32) / 4 + phase).astype(np.float32)
    X = {"conv2d": images, "conv1d": signals}.get(family, digits)
    ae = Autoencoder(family=family, latent=6, epochs=8, random_state=0).fit(X[:600])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no int8 variant: every layer is slower")  # tiny nets on a busy machine
        manifest = ae.export(tmp_path / "m", variants=("int8", "fp32"), calibration=X)
    with aeedge.load(tmp_path / "m") as model:
        assert model.variant == manifest.default_variant
        z, exact = model.encode(X[:300]), ae.transform(X[:300])
    assert np.abs(z - exact).max() <= 0.2 * np.abs(exact).max()


def grouped(kind):
    """Encoder, decoder and rows with grouped convolutions."""
    rng = np.random.default_rng(0)
    signals = (np.cumsum(rng.normal(size=(300, 4, 16)), axis=2) / 4).astype(np.float32)
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(3, 32), nn.ReLU())
    if kind == "1d":
        down = [nn.Conv1d(4, 8, 3, padding=1, groups=2), nn.ReLU(), nn.Conv1d(8, 8, 3, stride=2, padding=1, groups=8)]
        back = [nn.Unflatten(1, (4, 8)), nn.ConvTranspose1d(4, 8, 4, stride=2, padding=1, groups=2), nn.ReLU()]
        back.append(nn.Conv1d(8, 4, 3, padding=1, groups=4))
    else:
        signals = signals.reshape(300, 4, 4, 4)
        down = [nn.Conv2d(4, 8, 3, padding=1, groups=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False)]
        back = [nn.Unflatten(1, (8, 2, 2)), nn.ConvTranspose2d(8, 4, 2, stride=2, groups=4), nn.ReLU()]
        back.append(nn.Conv2d(4, 4, 3, padding=1, groups=4))
    down = nn.Sequential(*down, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    return down.eval(), nn.Sequential(head, *back), signals


@pytest.mark.parametrize(("kind", "qat"), [("1d", False), ("2d", False), ("1d", True)])
def test_grouped_convolutions_can_be_int8(kind, qat, tmp_path):
    down, up, rows = grouped(kind)
    manifest = export_bundle(
        encoder=down, decoder=up, path=tmp_path / "m", example=rows, variants=("int8", "fp32"), qat=qat
    )
    assert manifest.default_variant == "int8"
    decided = {one["layer"]: one["choice"] for one in manifest.variants["int8"].decisions["layers"]}
    assert any(layer.startswith("Conv") and choice == "int8" for layer, choice in decided.items())
    with torch.no_grad(), aeedge.load(tmp_path / "m") as model:
        exact = down(torch.from_numpy(rows)).numpy()
        assert np.abs(model.encode(rows) - exact).max() <= 0.1 * np.abs(exact).max()


@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(4, 4, 1), (4, 6, 2), (6, 6, 6), (3, 9, 3)])
@pytest.mark.parametrize("layer", [nn.Conv1d, nn.Conv2d])
def test_corrected_biases_undo_the_mean_error_of_rounding_in_every_group(layer, inputs, outputs, groups):
    torch.manual_seed(0)
    conv = layer(inputs, outputs, 1, groups=groups)
    rows = torch.rand(50, inputs, *[4] * (conv.weight.ndim - 2)) * torch.rand(inputs, *[1] * (conv.weight.ndim - 2)) - 1
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten())
    model = to_onnx(net.eval(), rows, "encoder")
    name = next(node.name for node in model.graph.node if node.op_type == "Conv")
    found = ranges(activations(model, rows.numpy()), minmax)
    bias = corrected_biases(model, activations(model, rows.numpy()), found)[name]
    steps, scale = quantized_weight(conv.weight.detach().numpy(), 0)
    rounded = torch.from_numpy(Affine.of(*found["input"]).rounded(rows.numpy()))
    over = tuple(i for i in range(rows.ndim) if i != 1)
    with torch.no_grad():
        exact = conv(rows).mean(over)
        conv.weight.copy_(torch.from_numpy(steps * scale.reshape([-1] + [1] * (conv.weight.ndim - 1))))
        conv.bias.zero_()
        ours = conv(rounded).mean(over)
    np.testing.assert_allclose(ours + torch.from_numpy(bias), exact, atol=1e-6)


class Attention(nn.Module):
    """Float layers, then an integer one."""

    def __init__(self):
        super().__init__()
        self.inner = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.middle, self.out = nn.Linear(24, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.out(torch.relu(self.middle(self.inner(x.unflatten(1, (3, 8))).flatten(1))))


def attention_bundle(path, dtype):
    torch.manual_seed(0)
    down, up = Attention().eval(), nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 24))
    rows = (factory_rows(300) * 255).astype(dtype)
    return rows, export_bundle(
        encoder=down, decoder=up, path=path, example=rows, scaler=(0.0, 255.0), variants=("int8", "fp32")
    )


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_latents_behind_float_layers_have_a_tolerance_for_a_last_digit(dtype, tmp_path):
    rows, manifest = attention_bundle(tmp_path / "m", dtype)
    allowed = manifest.variants["int8"].tolerance["latent"]
    with aeedge.load(tmp_path / "m", variant="int8", threads=1) as model:
        whole = model.encode(rows)
        assert 1e-5 * np.sqrt(np.mean(whole**2)) < allowed.atol < 0.05 * np.sqrt(np.mean(whole**2))
        for size in (1, 3, 17):
            parts = np.concatenate([model.encode(rows[i : i + size]) for i in range(0, len(rows), size)])
            assert deviation("latent", rows, parts, whole, allowed, model.manifest.score).ok


def test_a_layer_whose_input_is_always_zero_does_not_keep_int8_out(tmp_path):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells, self.out = nn.GRU(8, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x):
            return self.out(self.cells(x.unflatten(1, (3, 8)))[0][:, -1])

    torch.manual_seed(0)
    manifest = export_bundle(
        encoder=Recurrent(), path=tmp_path / "m", example=factory_rows(300), variants=("int8", "fp32")
    )
    assert manifest.default_variant == "int8"


def fails(kind):
    def fail(*args, **options):
        raise kind("the abacus is broken")

    return fail


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("choose", NotQuantizableError),
        ("choose", ValueError),
        ("EncoderDecoder", MemoryError),
        ("integer_tolerances", IndexError),
        ("accept_integer", aeedge.VerificationError),
    ],
)
def test_no_failure_of_int8_loses_fp32(net, place, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, place, fails(kind))
    monkeypatch.setattr(bundle, "check_finite", lambda reference, rows: None)
    if place != "choose":
        monkeypatch.setattr(bundle, "choose", lambda models, *args, **options: Int8(dict(models), LIMITS, {}, True))
    said = (
        "the abacus is broken" if kind in (NotQuantizableError, aeedge.VerificationError) else f"{kind.__name__}: the"
    )
    with pytest.warns(UserWarning, match=f"^no int8 variant: {said}"):
        manifest = export_bundle(
            encoder=net[0], decoder=net[1], path=tmp_path / "m", example=factory_rows(), variants=("int8", "fp32")
        )
    assert list(manifest.variants) == ["fp32"]
    assert manifest.default_variant == "fp32"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]
    assert not any("int8" in p.name for p in (tmp_path / "m").iterdir())
    with aeedge.load(tmp_path / "m", check="golden") as model:
        assert model.variant == "fp32"


def test_fp32_without_int8_has_the_id_that_it_has_alone(net, tmp_path, monkeypatch):
    example = {"encoder": net[0], "decoder": net[1], "example": factory_rows()}
    alone = export_bundle(**example, path=tmp_path / "a")
    monkeypatch.setattr(bundle, "accept_integer", fails(aeedge.VerificationError))
    with pytest.warns(UserWarning, match="no int8 variant"):
        left = export_bundle(**example, path=tmp_path / "b", variants=("int8", "fp32"))
    assert left.id == alone.id


def test_fine_tuning_leaves_the_random_state_alone(net, tmp_path):
    down, up = with_outlier(net, 1e4)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    export_bundle(
        encoder=down, decoder=up, path=tmp_path / "m", example=factory_rows(), variants=("int8", "fp32"), qat=True
    )
    assert torch.equal(torch.rand(3), expected)


def call(*args):
    return CliRunner().invoke(AeedgeGroup.build(), [str(a) for a in args])


def test_the_command(trained, rows, tmp_path):
    trained.save(tmp_path / "run")
    np.save(tmp_path / "rows.npy", rows)
    out = tmp_path / "m.aeedge"
    done = call(
        "export", tmp_path / "run", "-o", out, "--variants", "fp32,int8", "--calibration", tmp_path / "rows.npy"
    )
    left_out = "int8 was left out: no int8 variant:" in done.output
    assert done.exit_code == (1 if left_out else 0)
    assert left_out or "int8 quality on held-out rows, against fp32: error_ratio" in done.output
    assert call("verify", out).exit_code == 0
    assert call("report", tmp_path / "run", "-o", tmp_path / "r.html", "--bundle", out).exit_code == 0
    assert ("no int8 variant" if left_out else "error_ratio") in (tmp_path / "r.html").read_text()
    missing = call("export", tmp_path / "run", "-o", tmp_path / "n", "--variants", "fp32,int8")
    assert missing.exit_code == 2
    assert "expected --calibration DATA, rows like the training rows; got none" in missing.output
    assert call("export", tmp_path / "run", "-o", tmp_path / "n", "--calibration", tmp_path / "rows.npy").exit_code == 0
    assert aeedge.load(tmp_path / "n").manifest.codes.rows == len(rows) / 4  # codes are of these rows too
