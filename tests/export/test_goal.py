"""goal="compress": as good as PCA where PCA is best, better elsewhere; goal="detect": scores, and an honest verdict."""

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.decomposition import PCA

from aeedge.cli.group import AeedgeGroup
from aeedge_export import Autoencoder

GOALS = ("detect", "compress")


def linear(rng, n, size, rank, noise):
    """Gaussian rows of a rank, with noise, in columns of unlike units."""
    return (rng.normal(size=(n, rank)) @ rng.normal(size=(rank, size)) + noise * rng.normal(size=(n, size))) * units(
        size
    )


def curved(rng, n, size, rank):
    """Rows on a curved surface."""
    first, second = rng.normal(size=(rank, 30)), rng.normal(size=(30, size)) / 5
    return (np.tanh(rng.normal(size=(n, rank)) @ first) @ second + 0.03 * rng.normal(size=(n, size))) * units(size)


def units(size):
    return 10.0 ** (np.arange(size) % 5 - 2)


def ratio(X, latent, **options):
    """Error on rows that nothing was fitted to, as a multiple of PCA's."""
    fitted, others = X[:-1000].astype(np.float32), X[-1000:].astype(np.float32)
    ae = Autoencoder(latent=latent, goal="compress", random_state=0, **options).fit(fitted)
    mean, scale = fitted.mean(axis=0), fitted.std(axis=0)
    pca = PCA(latent).fit((fitted - mean) / scale)
    flat = (others - mean) / scale
    reference = np.square(flat - pca.inverse_transform(pca.transform(flat))).mean()
    return np.square((others - ae.inverse_transform(ae.transform(others))) / scale).mean() / reference, ae


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("n", "size", "rank", "latent", "noise"),
    [(200, 5, 2, 2, 0.1), (200, 20, 5, 5, 0.3), (300, 40, 8, 4, 0.5), (1000, 12, 3, 6, 0.2), (2500, 50, 10, 10, 0.1)],
)
def test_compressing_linear_data_loses_nothing_to_pca(n, size, rank, latent, noise, seed):
    found, ae = ratio(linear(np.random.default_rng(seed), n + 1000, size, rank, noise), latent)
    assert found <= 1.05
    assert ae.noise_ == ()
    assert ae.design_.linear_path


@pytest.mark.parametrize(("n", "size", "rank"), [(300, 10, 2), (1200, 20, 3)])
def test_compressing_curved_data_beats_pca(n, size, rank):
    found, _ = ratio(curved(np.random.default_rng(3), n + 1000, size, rank), rank)
    assert found < 0.8


def test_the_start_is_pca_and_stays_where_nothing_is_better(tmp_path):
    X = linear(np.random.default_rng(4), 1400, 10, 3, 0.3).astype(np.float32)
    ae = Autoencoder(latent=3, goal="compress", random_state=0, epochs=4).fit(X)
    assert ae.run_.state.best_epoch == 0
    reference = Autoencoder("pca", latent=3, calibration=0, random_state=0).fit(X)
    np.testing.assert_allclose(ae.reconstruction_error(X), reference.reconstruction_error(X), rtol=1e-2, atol=1e-4)
    assert ae.run_.state.best_loss == pytest.approx(reference.run_.state.best_loss, rel=1e-3)
    ae.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run").resume(X, epochs=6)
    assert again.n_iter_ == 6
    assert again.reconstruction_error(X).mean() == pytest.approx(ae.reconstruction_error(X).mean(), rel=1e-3)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_network_without_hidden_layers_is_at_least_pca(digits, seed):
    found, ae = ratio(linear(np.random.default_rng(seed), 1400, 20, 3, 0.1), 3, hidden=())
    assert ae.design_.hidden == ()
    assert found <= 1.05
    ae = Autoencoder(latent=8, hidden=(), calibration=0, epochs=20, random_state=seed).fit(digits)
    network, pca = ae.evaluate(digits)["baseline"]
    assert network["error"] <= 1.02 * pca["error"]


@pytest.mark.parametrize("shape", [(20,), (1, 4, 5), (20, 1)])
def test_bytes_and_images_start_as_pca_too(shape):
    rng = np.random.default_rng(8)
    X = np.clip(50 + 15 * linear(rng, 600, 20, 4, 0.3) / units(20) / 2, 0, 255).round().astype(np.uint8)
    X = X.reshape(-1, *shape)
    family = "conv1d" if shape == (20, 1) else "dense"
    ae = Autoencoder(
        family, latent=4, goal="compress", channels="auto" if family == "dense" else "last", random_state=0
    )
    network, pca = ae.fit(X).evaluate(X)["baseline"]
    assert ae.scaler_.kind == ("standard" if shape == (20,) else "shared")  # a table of bytes, or images and signals
    assert network["error"] <= 1.02 * pca["error"]


def test_the_network_for_what_is_no_table_is_the_same(digits):
    detect, compress = (Autoencoder(latent=4, epochs=2, random_state=0, goal=goal).fit(digits) for goal in GOALS)
    assert detect.design_ == compress.design_
    assert detect.noise_ == compress.noise_ == ()


@pytest.mark.parametrize(
    ("options", "offered"),
    [([], True), (["--goal", "compress"], False), (["--noise", "none"], False), (["--noise", "dropout:0.4"], False)],
)
def test_the_verdict_says_what_the_recipe_is_for(tmp_path, options, offered):
    X = linear(np.random.default_rng(6), 400, 6, 2, 0.05)
    np.savetxt(tmp_path / "t.csv", X, delimiter=",", header="a,b,c,d,e,f", comments="")
    args = ["train", str(tmp_path / "t.csv"), "-o", str(tmp_path / "run"), "-q", "--epochs", "5", "--latent", "2"]
    result = CliRunner().invoke(AeedgeGroup.build(), args + options)
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("held-out error")]
    assert "× that of PCA" in line
    assert ("trades reconstruction for anomaly scores; for compression: --goal compress" in line) == offered
