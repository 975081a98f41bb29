"""Where the channels of signals and images are: asked for, found in the data, and exported as the rows were given."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import aeedge
from aeedge.errors import InputError
from aeedge_export import Autoencoder
from aeedge_export.data.axes import resolve_channels
from aeedge_export.data.scaling import fit_statistics
from aeedge_export.networks import build
from aeedge_export.networks.base import Design
from aeedge_export.reporting.page import _reconstructions


def walks(samples, scales, n=200, seed=5):
    """Random walks (n, samples, channels) of channels with these scales, each with an offset of its own."""
    rng = np.random.default_rng(seed)
    scales = np.asarray(scales, float)
    steps = rng.normal(size=(n, samples, len(scales))) / np.sqrt(samples)
    return (scales * (3 * rng.normal(size=len(scales)) + np.cumsum(steps, axis=1))).astype(np.float32)


def found(X, family="dense"):
    return resolve_channels("auto", None, fit_statistics(X), matters=True, family=family)


@pytest.mark.parametrize(
    ("samples", "scales"),
    [
        (10, 10.0 ** np.linspace(-3, 3, 12)),
        (40, [0.3, 900]),
        (30, [1, 1e3, 0.1, 20, 5, 1e-3, 300]),
        (12, 10.0 ** np.array([0, 3, -2, 1, -3, 2] * 4)),
    ],
)
def test_channels_of_unlike_units_are_found_in_either_axis(samples, scales):
    X = walks(samples, scales)
    last, notes = found(X)
    assert last
    assert f"{X.shape[1:]} were taken as (samples, channels): the last axis holds values of unlike units" in notes[0]
    assert found(X.transpose(0, 2, 1)) == (False, [])


@pytest.mark.parametrize("shape", [(2, 60), (6, 40), (1, 50)])
def test_an_event_along_time_is_not_taken_for_channels(shape):
    """Signals aligned at an event: mean and deviation differ widely along time, but smoothly."""
    along = np.exp(-np.square(np.linspace(-3, 3, shape[1])))
    noise = np.random.default_rng(0).normal(size=(200, *shape))
    X = 5 * along + (along + 0.02) * noise
    assert found(X) == (False, [])


def test_a_shape_that_suggests_channels_last_is_only_noted():
    X = np.random.default_rng(0).normal(size=(100, 40, 3))
    last, (note,) = found(X)
    assert not last
    assert "(40, 3) were taken as (channels, samples), though 3 is small beside 40; pass channels=" in note
    assert found(X[..., :1])[0]  # one sample would be no signal
    assert resolve_channels("first", None, fit_statistics(X), matters=True, family="dense") == (False, [])
    assert resolve_channels("auto", "ntc", fit_statistics(X), matters=True, family="dense") == (True, [])


def sines(n, rng, step=12):
    """(n, 40, 2): a valve from 0 to 1 and a speed about 2000."""
    t, phase = np.arange(40) / 40, rng.uniform(0, 6, (2, n, 1))
    valve = 0.5 + 0.4 * np.sin(step * t + phase[0]) + 0.02 * rng.normal(size=(n, 40))
    return np.stack([valve, 2000 + 300 * np.sin(6 * t + phase[1])], -1).astype(np.float32)


@pytest.mark.parametrize("family", ["dense", "conv1d"])
@pytest.mark.parametrize("options", [{}, {"axes": "NTC"}, {"channels": "last"}])
def test_scores_do_not_depend_on_the_layout(family, options):
    rng = np.random.default_rng(3)
    X, normal, odd = sines(400, rng), sines(100, rng), sines(100, rng, step=20)
    y, areas = np.repeat([0, 1], 100), []
    for order, chosen in (((0, 1, 2), options), ((0, 2, 1), {})):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ae = Autoencoder(family, latent=4, epochs=15, random_state=0, **chosen).fit(X.transpose(order))
        assert ae.design_.channels_last == (order == (0, 1, 2))
        assert bool(ae.notes_) == (order == (0, 1, 2) and not options)
        assert ae.scaler_.scale.size == 2
        areas.append(roc_auc_score(y, ae.reconstruction_error(np.concatenate([normal, odd]).transpose(order))))
    assert areas[0] == pytest.approx(areas[1], abs=0.01)
    assert areas[0] > 0.95


@pytest.mark.parametrize(("family", "shape"), [("conv1d", (3, 50)), ("conv2d", (2, 9, 12))])
def test_the_network_is_the_same_function_in_either_layout(family, shape):
    first, last = (
        build(family, Design(size, 4, (8, 8), normalization="batch", channels_last=is_last), seed=1).eval()
        for size, is_last in ((shape, False), ((*shape[1:], shape[0]), True))
    )
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    moved = x.movedim(1, -1)
    torch.testing.assert_close(last.encoder(moved), first.encoder(x))
    torch.testing.assert_close(last(moved), first(x).movedim(1, -1))


@pytest.mark.usefixtures("time_has_no_say")
@pytest.mark.parametrize("family", ["conv1d", "conv2d"])
def test_bundles_take_rows_as_they_were_given(family, digits, tmp_path):
    rng = np.random.default_rng(0)
    X = sines(400, rng) if family == "conv1d" else np.stack([digits, 16 - digits], -1)[:600].reshape(-1, 8, 8, 2)
    shape = X.shape[1:]
    ae = Autoencoder(family, latent=4, channels="last", epochs=10, random_state=0).fit(X)
    ae.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run")
    assert again.design_.channels_last
    manifest = again.export(tmp_path / "m.aeedge", variants=("fp32", "int8"), calibration=X)
    assert set(manifest.variants) == {"fp32", "int8"}
    assert manifest.training["channels"] == "last"
    for variant, tolerance in (("fp32", 1e-3), ("int8", 0.2)):
        model = aeedge.load(tmp_path / "m.aeedge", variant=variant)
        assert model.variant == variant
        assert model.denoise(X[:9]).shape == (9, *shape)
        np.testing.assert_allclose(model.encode(X), ae.transform(X), atol=tolerance * np.abs(ae.transform(X)).max())


@pytest.mark.parametrize("family", ["conv1d", "conv2d"])
def test_the_report_shows_either_layout(family, digits):
    rng = np.random.default_rng(0)
    X = sines(100, rng) if family == "conv1d" else np.stack([digits] * 3, -1)[:100].reshape(-1, 8, 8, 3)
    pages = []
    for channels in ("first", "last"):
        rows = np.moveaxis(X, -1, 1) if channels == "first" else X
        run = Autoencoder(family, channels=channels, latent=2, epochs=1, random_state=0).fit(rows).run_
        pages.append(_reconstructions(run, run.sample))  # inputs beside themselves
    assert str(pages[0]) == str(pages[1])


def test_resuming_keeps_the_layout(tmp_path):
    X = walks(16, [1e-3, 1, 1e3])
    options = {"latent": 2, "hidden": (8,), "random_state": 0, "patience": None, "schedule": "constant"}
    with pytest.warns(UserWarning, match="taken as"):
        whole = Autoencoder("conv1d", epochs=4, **options).fit(X)
    with pytest.warns(UserWarning, match="taken as"):
        half = Autoencoder("conv1d", epochs=2, **options).fit(X)
    half.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run").resume(X, epochs=4)
    np.testing.assert_allclose(again.transform(X), whole.transform(X), atol=1e-4)


@pytest.mark.parametrize("shape", [(16, 16, 3), (28, 20, 1), (9, 40, 4)])
def test_images_with_their_channels_last(shape):
    X = np.random.default_rng(0).random((40, *shape)).astype(np.float32)
    with pytest.raises(
        InputError, match=r"expects channels first, rows of shape \(channels, height, width\), got .*'last'"
    ):
        Autoencoder("conv2d", latent=2, epochs=1).fit(X)
    with pytest.warns(UserWarning, match=r"taken as \(height, width, channels\)"):
        Autoencoder(latent=2, epochs=1).fit(X)
    for options in ({"channels": "last"}, {"axes": "nhwc"}):
        ae = Autoencoder("conv2d", latent=2, epochs=1, random_state=0, **options).fit(X)
        assert ae.inverse_transform(ae.transform(X)).shape == X.shape
    assert found(X.transpose(0, 3, 1, 2), "conv2d") == (False, [])


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((6, 8), {"axes": "nhwc"}, r"axes: 'nhwc' needs rows of 3 axes, got rows of shape \(6, 8\)"),
        ((6, 8, 8), {"axes": "ntc"}, "axes: 'ntc' needs rows of 2 axes"),
        ((6,), {"axes": "nct"}, "axes: 'nct' needs rows of 2 axes"),
        ((6, 8), {"axes": "ntc", "channels": "first"}, "axes: 'ntc' has its channels last, but channels='first'"),
        ((6,), {"channels": "last"}, "channels: expected signals or images"),
        ((6, 8), {"axes": "tcn"}, "axes: expected nct, ntc, nchw, nhwc, got 'tcn'"),
        ((6, 8), {"channels": "middle"}, "channels: expected auto, first, last, got 'middle'"),
    ],
)
def test_layouts_that_do_not_fit(shape, options, message):
    with pytest.raises(InputError, match=message):
        Autoencoder(latent=2, epochs=1, **options).fit(np.random.default_rng(0).normal(size=(20, *shape)))
