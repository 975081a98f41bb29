"""From torch to a bundle: parity, identity of bytes, and what is refused without a trace."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import aeedge
import aeedge_export.acceptance
from aeedge.errors import InputError, VerificationError
from aeedge_export import Autoencoder, export_bundle

RNG = np.random.default_rng(0)
EXAMPLE = RNG.normal(size=(40, 6)).astype(np.float32)


def encoder(outputs=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, outputs))


def decoder(outputs=6):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, outputs))


@pytest.mark.parametrize("batch", [1, 2, 7, 257])
def test_outputs_equal_those_of_torch(trained, rows, tmp_path, batch):
    trained.export(tmp_path / "m.aeedge")
    model = aeedge.load(tmp_path / "m.aeedge")
    x = rows[:batch]
    np.testing.assert_allclose(model.encode(x), trained.transform(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.denoise(x), trained.inverse_transform(trained.transform(x)), rtol=1e-3)
    np.testing.assert_allclose(model.score(x), -trained.score_samples(x), rtol=1e-2, atol=1e-5)


def test_the_graphs_are_canonical(trained, tmp_path):
    trained.export(tmp_path / "m.aeedge")
    for role, ends in (("encoder", ("input", "latent")), ("decoder", ("latent", "reconstruction"))):
        model = onnx.load(tmp_path / "m.aeedge" / f"{role}.onnx", load_external_data=False)
        assert model.ir_version == 8
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
        assert [model.graph.input[0].name, model.graph.output[0].name] == list(ends)
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
        text = onnx.printer.to_text(model)
        assert "torch" not in text
        assert "/" not in text
        assert {p.key for p in model.metadata_props} == {"aeedge.id", "aeedge.role"}


def test_exporting_twice_gives_the_same_bytes(trained, tmp_path):
    trained.save(tmp_path / "run")
    trained.export(tmp_path / "m.aeedge")
    (tmp_path / "other").mkdir()
    Autoencoder.load(tmp_path / "run").export(tmp_path / "other" / "m.aeedge")
    names = sorted(p.name for p in (tmp_path / "m.aeedge").iterdir())
    assert names == ["decoder.onnx", "encoder.onnx", "golden.npz", "manifest.json", "scorer.onnx"]
    for name in names:
        assert (tmp_path / "m.aeedge" / name).read_bytes() == (tmp_path / "other" / "m.aeedge" / name).read_bytes()


def test_names_and_training_travel_into_the_manifest(rows, tmp_path):
    ae = Autoencoder(latent=2, hidden=(8,), epochs=2, random_state=0).fit_rows(rows, features=list("abcdef"))
    ae.save(tmp_path / "run")
    Autoencoder.load(tmp_path / "run").export(tmp_path / "m.aeedge", name="pump")
    manifest = aeedge.load(tmp_path / "m.aeedge").manifest
    assert manifest.input.features == tuple("abcdef")
    assert manifest.name == "pump"
    assert manifest.family == "dense"
    assert manifest.training["epochs"] == 2
    assert manifest.made_with["torch"] == torch.__version__


@pytest.mark.filterwarnings("ignore:.*nearly constant beside the others")
def test_scaling_is_inside_the_graphs(rows, tmp_path):
    for scaling in ("standard", "robust", "minmax", "none"):
        ae = Autoencoder(latent=2, hidden=(8,), epochs=2, random_state=0, scaling=scaling).fit(rows)
        ae.export(tmp_path / scaling)
        with aeedge.load(tmp_path / scaling) as model:
            np.testing.assert_allclose(model.encode(rows[:9]), ae.transform(rows[:9]), rtol=1e-3, atol=1e-4)


def test_constant_and_tiny_columns_survive_export(rows, tmp_path):
    X = rows.copy()
    X[:, 1] = 7
    X[:, 2] *= 1e-12
    with pytest.warns(UserWarning, match="never change"):
        ae = Autoencoder(latent=2, hidden=(8,), epochs=2, random_state=0).fit(X)
    ae.export(tmp_path / "m.aeedge")
    assert np.isfinite(aeedge.load(tmp_path / "m.aeedge").denoise(X)).all()


def test_any_pair_of_modules(tmp_path):
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 2))
    net.train()
    export_bundle(encoder=net, decoder=decoder(), path=tmp_path / "m.aeedge", example=EXAMPLE.astype(np.float64))
    assert net.training  # the caller's module is left as it was
    model = aeedge.load(tmp_path / "m.aeedge")
    assert model.manifest.family == "custom"
    assert model.input.dtype == "float32"
    net.eval()
    with torch.no_grad():
        np.testing.assert_allclose(model.encode(EXAMPLE), net(torch.from_numpy(EXAMPLE)), rtol=1e-4, atol=1e-5)


def test_integer_images_are_taken_raw(tmp_path):
    images = RNG.integers(0, 256, (20, 1, 4, 4), dtype=np.uint8)
    conv = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    back = nn.Sequential(nn.Linear(2, 16), nn.Sigmoid(), nn.Unflatten(1, (1, 4, 4)))
    export_bundle(encoder=conv, decoder=back, path=tmp_path / "m.aeedge", example=images, scaler=(0.0, 255.0))
    model = aeedge.load(tmp_path / "m.aeedge")
    assert model.input.dtype == "uint8"
    with torch.no_grad():
        expected = conv(torch.from_numpy(images.astype(np.float32) / 255))
    np.testing.assert_allclose(model.encode(images), expected, rtol=1e-4, atol=1e-5)


def test_an_encoder_alone(tmp_path):
    export_bundle(encoder=encoder(), path=tmp_path / "m.aeedge", example=EXAMPLE)
    assert aeedge.load(tmp_path / "m.aeedge", check="golden").encode(EXAMPLE).shape == (40, 2)


def test_subnormal_weights_are_flushed(tmp_path):
    net = encoder()
    with torch.no_grad():
        net[0].weight[0, 0] = 1e-40
    export_bundle(encoder=net, path=tmp_path / "m.aeedge", example=EXAMPLE)
    graph = onnx.load(tmp_path / "m.aeedge" / "encoder.onnx").graph
    values = np.concatenate([onnx.numpy_helper.to_array(t).ravel() for t in graph.initializer])
    assert not ((np.abs(values) < np.finfo(np.float32).tiny) & (values != 0)).any()


class TwoOutputs(nn.Module):
    def forward(self, x):
        return x[:, :2], x[:, 2:4]


class BatchDependent(nn.Module):
    def forward(self, x):
        return x.reshape(2, 6)[:, :2]


class PlusOne(nn.Module):
    """Says something else at every second batch size, as a graph that depends on the batch would."""

    def forward(self, x):
        return x[:, :2] + x.mean(dim=0, keepdim=True)[:, :2]


class Reductions(nn.Module):
    """Operators whose form changed between the opset that torch writes and the one that bundles hold."""

    def forward(self, x):
        first, second = torch.split(x, 3, dim=1)
        return torch.cat([first.mean(dim=1, keepdim=True), second.amax(dim=1, keepdim=True)], dim=1)


def test_operators_that_changed_their_form_are_lowered(tmp_path):
    export_bundle(encoder=Reductions(), path=tmp_path / "m.aeedge", example=EXAMPLE)
    got = aeedge.load(tmp_path / "m.aeedge", check="golden").encode(EXAMPLE)
    np.testing.assert_allclose(got, np.stack([EXAMPLE[:, :3].mean(1), EXAMPLE[:, 3:].max(1)], 1), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decoder": decoder(5)}, r"decoder: expected rows of shape \(6,\), got \(5,\)"),
        ({"decoder": nn.Linear(3, 6)}, r"decoder: failed on 3 rows, shape \(3, 2\)"),
        ({"encoder": TwoOutputs()}, "encoder: expected one tensor, got tuple of Tensor, Tensor; wrap it"),
        ({"encoder": BatchDependent()}, r"encoder: failed on 3 rows, shape \(3, 6\)"),
        ({"encoder": nn.Sequential(encoder(), nn.Flatten(0))}, r"expected latents of shape \(n, k\)"),
        ({"example": EXAMPLE[:1]}, r"example: expected two or more rows .* got \(1, 6\)"),
        ({"example": EXAMPLE[0]}, "example: expected two or more rows"),
        ({"example": np.full((4, 6), np.nan)}, "example: expected finite numbers, got nan in row 0"),
        ({"example": [["a"] * 6] * 4}, "example: expected numbers"),
        ({"scaler": (0.0, 0.0)}, "scaler: expected a finite mean and a finite scale above 0"),
        ({"scaler": (np.zeros(5), 1.0)}, r"scaler: expected mean and scale that broadcast to \(6,\)"),
        ({"features": ["a", "b"]}, r"features: expected one name for each of the values of a row \(6,\), got 2"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path, arguments, message):
    fitting = {"encoder": encoder(), "decoder": decoder(), "example": EXAMPLE}
    with pytest.raises(InputError, match=message):
        export_bundle(**{**fitting, **arguments}, path=tmp_path / "m.aeedge")
    assert list(tmp_path.iterdir()) == []


def test_a_disagreement_names_tolerance_and_worst_row_and_leaves_nothing(tmp_path, monkeypatch):
    real = aeedge.Model.encode

    def wrong(self, x, **options):
        z = real(self, x, **options)
        if len(x) == 7:
            z[3, 0] += 0.01
        return z

    monkeypatch.setattr(aeedge.Model, "encode", wrong)
    with pytest.raises(
        VerificationError, match=r"at batch 7 the latent of row \d+ differs by 0\.01, more than .*allowed"
    ):
        export_bundle(encoder=encoder(), decoder=decoder(), path=tmp_path / "m.aeedge", example=EXAMPLE)
    assert list(tmp_path.iterdir()) == []


def test_rows_that_depend_on_their_neighbours_are_found(tmp_path):
    with pytest.raises(
        InputError, match=r"row 0 changes by .* with the other rows of its batch, first in PlusOne.forward"
    ):
        export_bundle(encoder=PlusOne(), path=tmp_path / "m.aeedge", example=EXAMPLE)
    assert list(tmp_path.iterdir()) == []


def test_the_old_bundle_survives_a_failed_export(tmp_path, monkeypatch):
    export_bundle(encoder=encoder(), path=tmp_path / "m.aeedge", example=EXAMPLE)
    before = {p.name: p.read_bytes() for p in (tmp_path / "m.aeedge").iterdir()}
    with pytest.raises(InputError, match="already exists"):
        export_bundle(encoder=encoder(1), path=tmp_path / "m.aeedge", example=EXAMPLE)
    monkeypatch.setattr(aeedge.Model, "self_check", lambda self: (_ for _ in ()).throw(VerificationError("no")))
    with pytest.raises(VerificationError):
        export_bundle(encoder=encoder(1), path=tmp_path / "m.aeedge", example=EXAMPLE, overwrite=True)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in (tmp_path / "m.aeedge").iterdir()} == before
    export_bundle(encoder=encoder(1), path=tmp_path / "m.aeedge", example=EXAMPLE, overwrite=True)
    assert aeedge.load(tmp_path / "m.aeedge").latent_size == 1


def test_extreme_rows_reach_far_and_fit_the_dtype():
    extreme = aeedge_export.acceptance.extreme_rows(EXAMPLE)
    assert extreme.min() < EXAMPLE.min() - 5
    assert extreme.max() > EXAMPLE.max() + 5
    pixels = aeedge_export.acceptance.extreme_rows(RNG.integers(10, 200, (5, 4), dtype=np.uint8))
    assert pixels.dtype == np.uint8
    assert pixels.max() == 255
    assert len(aeedge_export.acceptance.trial_rows(EXAMPLE)) == 257


@pytest.mark.parametrize(("between", "expected"), [(nn.ReLU(), "first"), (nn.GELU(), "none")])
def test_which_latents_expose_nan_is_tried_and_recorded(tmp_path, between, expected):
    torch.manual_seed(0)
    down = nn.Sequential(nn.Linear(6, 32), between, nn.Linear(32, 2))
    made = export_bundle(encoder=down, path=tmp_path / "m.aeedge", example=EXAMPLE)
    assert made.variants["fp32"].nonfinite_sentinels == expected
    with aeedge.load(tmp_path / "m.aeedge") as model:
        assert model.manifest.variants["fp32"].nonfinite_sentinels == expected
        assert (model.nonfinite_check == "latents") == (expected != "none")
        rows = EXAMPLE.copy()
        rows[7, 3] = -np.inf
        for given, row in ((rows, 7), (rows[7], 0)):
            with pytest.raises(InputError, match=f"row {row}, column 3"):
                model.encode(given)


def test_latents_that_hide_an_infinity_are_no_sentinels(tmp_path):
    down = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
    with torch.no_grad():
        down[0].weight[:, 3] = 1.0  # minus infinity becomes zero in each hidden unit
    made = export_bundle(encoder=down, path=tmp_path / "m.aeedge", example=EXAMPLE)
    assert made.variants["fp32"].nonfinite_sentinels == "none"
