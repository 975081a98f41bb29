"""Every family: trained, exported, verified and run by aeedge; and its defining properties."""

import itertools
import warnings

import numpy as np
import onnx
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

import aeedge
from aeedge.errors import InputError
from aeedge_export import Autoencoder
from aeedge_export.data.corruption import corruption, parse_noise
from aeedge_export.networks.base import Design
from aeedge_export.networks.dense import contractive
from aeedge_export.networks.variational import vae

QUICK = {"latent": 4, "epochs": 3, "random_state": 0}


@pytest.fixture(scope="module")
def images(digits):
    return (digits[:300] / 16).reshape(-1, 1, 8, 8)


@pytest.fixture(scope="module")
def signals():
    """Two channels of sines of random phase, 50 samples: no multiple of any stride."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 6, (200, 2, 1))
    return (np.sin(np.arange(50) / 4 + phase) * np.array([1, 30])[:, None] + np.array([0, 500])[:, None]).astype("f4")


def rows_of(family, digits, images, signals):
    return {"conv2d": images, "conv1d": signals}.get(family, digits[:300])


def not_to_the_digit(estimator):
    """Weights decide how often a row is drawn; where it lands in the order of rows is chance, as for all of SGD."""
    return {"check_sample_weight_equivalence_on_dense_data": "rows are drawn in random order"}


@parametrize_with_checks([Autoencoder(epochs=2, random_state=0)], expected_failed_checks=not_to_the_digit)
@pytest.mark.filterwarnings("ignore")
def test_checks_of_scikit_learn(estimator, check):
    if "check_array_api_input" in str(check):
        pytest.skip("scikit-learn runs this check only where SCIPY_ARRAY_API is set")
    check(estimator)


@pytest.mark.parametrize("batch", [1, 2, 7, 257])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("family", ["dense", "sparse", "contractive", "vae", "conv2d", "conv1d", "pca"])
def test_aeedge_reproduces_torch(family, ordered, batch, digits, images, signals, tmp_path_factory, request):
    X = rows_of(family, digits, images, signals)
    cache = request.config.cache_dict = getattr(request.config, "cache_dict", {})
    if (family, ordered) not in cache:
        ae = Autoencoder(family=family, ordered=ordered, **QUICK).fit(X)
        path = tmp_path_factory.mktemp(family) / "m.aeedge"
        ae.save(path.parent / "run")
        Autoencoder.load(path.parent / "run").export(path)
        cache[family, ordered] = ae, aeedge.load(path, check="golden")
    ae, model = cache[family, ordered]
    x = X[np.arange(batch) % len(X)]
    scale = np.abs(ae.transform(X)).max()
    np.testing.assert_allclose(model.encode(x), ae.transform(x), atol=1e-4 * scale)
    np.testing.assert_allclose(model.denoise(x), ae.inverse_transform(ae.transform(x)), atol=1e-3 * np.abs(X).max())
    np.testing.assert_allclose(model.score(x), -ae.score_samples(x), rtol=1e-2, atol=1e-4)
    assert model.manifest.family == family
    assert model.manifest.ordered is ordered


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 10), (1, 5, 7), (2, 4, 4)])
def test_conv2d_takes_any_size_by_padding(shape, tmp_path):
    X = np.random.default_rng(0).random((80, *shape)).astype(np.float32)
    ae = Autoencoder(family="conv2d", **QUICK).fit(X)
    ae.export(tmp_path / "m.aeedge")
    assert aeedge.load(tmp_path / "m.aeedge").denoise(X).shape == X.shape


@pytest.mark.parametrize("length", [16, 33, 100])
def test_conv1d_takes_any_length_and_exports_two_dimensional_kernels(length, tmp_path):
    X = np.random.default_rng(0).normal(size=(80, 3, length)).astype(np.float32)
    ae = Autoencoder(family="conv1d", **QUICK).fit(X)
    ae.export(tmp_path / "m.aeedge")
    graph = onnx.load(tmp_path / "m.aeedge" / "encoder.onnx").graph
    weights = {t.name: t.dims for t in graph.initializer}
    kernels = [list(weights[node.input[1]])[2:] for node in graph.node if node.op_type == "Conv"]
    assert kernels
    assert all(kernel[0] == 1 and kernel[1] > 1 for kernel in kernels)


def test_normalisation_and_centring_leave_no_operator(digits, tmp_path):
    ae = Autoencoder(**QUICK).fit(digits[:300] / 16)
    ae.export(tmp_path / "m.aeedge")
    graph = onnx.load(tmp_path / "m.aeedge" / "encoder.onnx").graph
    assert sorted({node.op_type for node in graph.node}) in (["Add", "Gemm", "Relu"], ["Add", "Gemm", "MatMul", "Relu"])


def test_latents_are_uncorrelated_and_the_most_important_first(digits):
    ae = Autoencoder(latent=8, epochs=10, random_state=0, validation=0, calibration=0).fit(digits)
    latents = ae.transform(digits)
    covariance = np.cov(latents, rowvar=False)
    variance = np.diag(covariance)
    np.testing.assert_allclose(latents.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(covariance, np.diag(variance), atol=0.02 * variance.max())
    assert (np.diff(variance) < 0.01 * variance.max()).all()
    assert variance.mean() == pytest.approx(1, rel=0.05)


def test_pca_is_pca(digits, tmp_path):
    reference = PCA(8).fit(digits)
    ae = Autoencoder(family="pca", latent=8, validation=0, calibration=0).fit(digits)
    expected = reference.inverse_transform(reference.transform(digits))
    np.testing.assert_allclose(ae.inverse_transform(ae.transform(digits)), expected, atol=0.05)
    np.save(tmp_path / "x.npy", digits)
    mapped = Autoencoder(family="pca", latent=8, validation=0, calibration=0).fit(
        np.load(tmp_path / "x.npy", mmap_mode="r")
    )
    np.testing.assert_allclose(
        mapped.reconstruction_error(digits).mean(), ae.reconstruction_error(digits).mean(), rtol=0.02
    )
    with pytest.raises(InputError, match="closed form; use fit"):
        Autoencoder(family="pca").partial_fit(digits)


def test_sparse_latents_are_sparser(digits):
    active = {}
    for weight in (0.0, 1.0):
        ae = Autoencoder(family="sparse", latent=16, sparsity=f"l1:{weight}", epochs=15, random_state=0).fit(digits)
        active[weight] = np.abs(ae.transform(digits)).mean()
    assert active[1.0] < 0.8 * active[0.0]
    rate = Autoencoder(family="sparse", latent=16, sparsity="kl:0.1:5", epochs=15, random_state=0).fit(digits)
    assert rate.transform(digits).mean() < 0.3


def penalty(network, x):
    return network.bottleneck(x)[1].detach()


def test_the_jacobian_penalty_is_the_squared_frobenius_norm():
    """One layer exactly, against autograd; deeper as the mean of many estimates."""
    options = {"contraction": 1.0}
    x = torch.rand(5, 6, generator=torch.Generator().manual_seed(0))
    for hidden, draws in (((), 1), ((7,), 3000)):
        design = Design((6,), 3, hidden, "tanh", latent_activation="sigmoid", options=options)
        network = contractive(design)
        summed = lambda row, network=network: network.encoder(row).sum(dim=0)  # noqa: E731
        jacobian = torch.autograd.functional.jacobian(summed, x)
        expected = jacobian.square().sum(dim=(0, 2)).mean() / 3
        torch.manual_seed(0)
        got = torch.stack([penalty(network, x) for _ in range(draws)]).mean()
        torch.testing.assert_close(got, expected, rtol=0.05 if hidden else 1e-5, atol=0)


def test_contraction_contracts(rows):
    norms = []
    for weight in (0.0, 10.0):
        ae = Autoencoder(family="contractive", latent=2, contraction=weight, epochs=20, noise="none", random_state=0)
        ae.fit(rows)
        x = torch.from_numpy(ae.scaler_(rows[:50]))
        with torch.no_grad():
            z = ae.network_.encoder(x)
            moved = ae.network_.encoder(x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))
        norms.append(float((moved - z).square().mean()))
    assert norms[1] < norms[0]


@pytest.mark.parametrize("loss", ["mse", "bce", "huber"])
def test_the_losses_of_a_vaes_rows_average_to_that_of_all(loss):
    torch.manual_seed(0)
    options = {"beta": 2.0, "free_bits": 0.5, "kl_warmup": 0}
    network = vae(Design((6,), 3, (8,), output="sigmoid", loss=loss, options=options))
    x = torch.rand(50, 6)
    mean, log_variance = network._posterior(x)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    nats = divergence.mean(dim=0).clamp_min(0.5 * np.log(2)).sum() * 2.0 / 6
    penalty = nats * {"mse": 0.2, "bce": 1, "huber": 0.1}[loss]
    output = network.decoder(mean)
    function = {
        "mse": nn.functional.mse_loss,
        "bce": nn.functional.binary_cross_entropy,
        "huber": nn.functional.huber_loss,
    }[loss]
    rows = network.validation_loss(x)
    assert rows.shape == (50,)
    assert float(rows.mean()) == pytest.approx((function(output, x) + penalty).item(), rel=1e-4)


def test_vae_exports_its_mean_and_samples(digits, tmp_path):
    ae = Autoencoder(family="vae", latent=8, epochs=15, random_state=0).fit(digits)
    np.testing.assert_array_equal(ae.transform(digits), ae.transform(digits))
    rows = ae.sample(50, random_state=1)
    assert rows.shape == (50, 64)
    assert -0.1 <= rows.min() <= rows.max() <= 16.1
    np.testing.assert_array_equal(rows, ae.sample(50, random_state=1))
    with pytest.raises(InputError, match="only family 'vae' has a prior"):
        Autoencoder(**QUICK).fit(digits).sample(3)


def test_free_bits_keep_latents_alive(digits):
    variances = []
    for free_bits in (0.0, 1.0):
        ae = Autoencoder(family="vae", latent=16, beta=20.0, free_bits=free_bits, epochs=20, random_state=0).fit(digits)
        variances.append(np.median(ae.transform(digits).var(axis=0)))
    assert variances[1] > 2 * variances[0]


def test_ordered_latents_lose_less_the_more_are_kept(digits, tmp_path):
    ae = Autoencoder(latent=8, ordered=True, epochs=40, random_state=0).fit(digits)
    ae.export(tmp_path / "m.aeedge")
    model = aeedge.load(tmp_path / "m.aeedge")
    latents = model.encode(digits)
    errors = [np.square(digits - model.decode(latents[:, :k])).mean() for k in range(1, 9)]
    assert all(a > b for a, b in itertools.pairwise(errors)), errors
    np.testing.assert_allclose(model.decode(latents[:, :3]), ae.inverse_transform(latents[:, :3]), atol=1e-3)
    plain = Autoencoder(latent=8, epochs=40, random_state=0).fit(digits)
    assert errors[2] < np.square(digits - plain.inverse_transform(plain.transform(digits) * (np.arange(8) < 3))).mean()
    plain.export(tmp_path / "p.aeedge")
    with pytest.raises(InputError, match=r"decode: expected an array of shape \(n, 8\)"):
        aeedge.load(tmp_path / "p.aeedge").decode(latents[:, :3])


class Halves(nn.Module):
    def forward(self, x):
        return x[:, ::2]


def test_custom_modules_are_trained_and_exported(digits, tmp_path):
    encoder = nn.Sequential(nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 5))
    decoder = nn.Linear(5, 64)
    before = encoder[0].weight.clone()
    ae = Autoencoder(family="custom", encoder=encoder, decoder=decoder, epochs=5, random_state=0).fit(digits)
    assert torch.equal(encoder[0].weight, before)  # a copy is trained
    assert ae.history_[-1]["train_loss"] < ae.history_[0]["train_loss"]
    ae.save(tmp_path / "run")
    ae.export(tmp_path / "m.aeedge")
    assert aeedge.load(tmp_path / "m.aeedge").encode(digits).shape == (1797, 5)
    with pytest.raises(InputError, match="family 'custom' needs encoder= and decoder="):
        Autoencoder.load(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run", encoder=encoder, decoder=decoder)
    np.testing.assert_array_equal(again.transform(digits), ae.transform(digits))


def test_noise_is_parsed_or_explained():
    assert parse_noise("gaussian:0.2") == (("gaussian", 0.2),)
    assert parse_noise("masking:0.3 + salt_pepper:0.1") == (("masking", 0.3), ("salt_pepper", 0.1))
    assert parse_noise(None) == parse_noise("none") == ()
    for wrong in ("gauss:1", "masking:1.5", "gaussian", "masking:x", "gaussian:-1"):
        with pytest.raises(InputError, match=r"noise: expected names with strengths .*, got "):
            parse_noise(wrong)


def test_noise_has_its_strength():
    x = torch.full((400, 500), 0.5)
    low, high = torch.zeros(500), torch.full((500,), 2.0)
    torch.manual_seed(0)
    noisy = {
        name: corruption(parse_noise(name), low, high)(x)
        for name in ("gaussian:0.2", "masking:0.3", "salt_pepper:0.1", "dropout:0.4")
    }
    assert float((noisy["gaussian:0.2"] - x).std()) == pytest.approx(0.2, rel=0.02)
    assert float((noisy["masking:0.3"] == 0).float().mean()) == pytest.approx(0.3, rel=0.02)
    assert float((noisy["salt_pepper:0.1"] == 0).float().mean()) == pytest.approx(0.05, rel=0.05)
    assert float((noisy["salt_pepper:0.1"] == 2).float().mean()) == pytest.approx(0.05, rel=0.05)
    assert float((noisy["dropout:0.4"] == 0).float().mean()) == pytest.approx(0.4, rel=0.02)
    assert float(noisy["dropout:0.4"].mean()) == pytest.approx(0.5, rel=0.02)


def test_denoising_removes_noise_and_keeps_the_target_clean(digits):
    clean = digits / 16
    noisy = clean + 0.3 * np.random.default_rng(0).normal(size=clean.shape).astype(np.float32)
    plain, denoising = (
        Autoencoder(latent=16, noise=noise, epochs=30, random_state=0).fit(clean) for noise in ("none", "gaussian:0.3")
    )
    errors = [np.square(ae.inverse_transform(ae.transform(noisy)) - clean).mean() for ae in (plain, denoising)]
    assert errors[1] < 0.8 * errors[0]
    assert errors[1] < 0.3 * np.square(noisy - clean).mean()


def test_partial_fit_learns_from_portions(digits):
    ae = Autoencoder(latent=8, random_state=0)
    errors = []
    for _ in range(10):
        for part in np.array_split(digits, 3):
            ae.partial_fit(part)
        errors.append(ae.reconstruction_error(digits).mean())
    assert errors[-1] < 0.7 * errors[0]
    assert ae.n_iter_ == 30


def test_pipelines_and_grid_search(digits):
    search = GridSearchCV(
        make_pipeline(MinMaxScaler(), Autoencoder(epochs=5, random_state=0)), {"autoencoder__latent": [2, 8]}, cv=2
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(digits[:400])
    assert search.best_params_ == {"autoencoder__latent": 8}


@pytest.mark.parametrize(
    ("family", "shape", "message"),
    [
        ("conv2d", (20, 64), r"needs images, rows of shape \(channels, height, width\), got \(64,\)"),
        ("conv2d", (40, 1, 3, 3), "expected rows of at least 4×4 for hidden=.16, 32. channels, got 3×3"),
        ("conv1d", (20, 1, 8, 8), r"needs signals, rows of shape \(channels, samples\)"),
        ("sparse", (20, 6), "sparsity: expected 'l1:WEIGHT'"),
    ],
)
def test_rows_that_a_family_cannot_take(family, shape, message):
    X = np.random.default_rng(0).random(shape)
    options = {"sparsity": "l2:1"} if family == "sparse" else {}
    with pytest.raises(InputError, match=message):
        Autoencoder(family=family, latent=2, epochs=1, **options).fit(X)


def test_images_given_to_dense_are_flattened_inside(images, tmp_path):
    ae = Autoencoder(**QUICK).fit(images)
    ae.export(tmp_path / "m.aeedge")
    assert aeedge.load(tmp_path / "m.aeedge").denoise(images).shape == images.shape


def test_one_channel_where_three_were_trained():
    X = np.random.default_rng(0).random((40, 3, 8, 8)).astype(np.float32)
    ae = Autoencoder(family="conv2d", **QUICK).fit(X)
    with pytest.raises(InputError, match=r"expected rows of shape \(3, 8, 8\), got \(1, 8, 8\)"):
        ae.transform(X[:, :1])


@pytest.mark.filterwarnings("ignore:.*columns never change")
@pytest.mark.parametrize("family", ["dense", "sparse", "contractive", "vae", "pca"])
def test_one_latent_ten_columns_three_of_them_constant_twenty_rows(family, tmp_path):
    X = np.random.default_rng(0).normal(size=(20, 10))
    X[:, [2, 5, 7]] = [3.0, 0.0, -1e6]
    ae = Autoencoder(family=family, latent=1, random_state=0).fit(X)
    ae.export(tmp_path / "m.aeedge")
    assert np.isfinite(aeedge.load(tmp_path / "m.aeedge").score(X)).all()


def test_a_rate_that_diverges_later_keeps_the_best_weights(rows, monkeypatch):
    from aeedge_export.training import loop as training

    real = training._run_epoch

    def explode(network, *args):
        loss, rate = real(network, *args)
        return (float("nan") if args[3].epoch == 3 else loss), rate

    monkeypatch.setattr(training, "_run_epoch", explode)
    with pytest.warns(UserWarning, match="training diverged in epoch 4: the best weights before were kept"):
        ae = Autoencoder(latent=2, epochs=10, random_state=0).fit(rows)
    assert (ae.stopped_, ae.n_iter_) == ("diverged", 3)
    assert np.isfinite(ae.transform(rows)).all()
