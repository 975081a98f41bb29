"""The estimator: scikit-learn's interface, parameters, saving."""

import json

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aeedge.errors import InputError
from aeedge_export import Autoencoder

SMALL = {"latent": 2, "hidden": (8,), "epochs": 2, "random_state": 0}


def test_shapes_and_units(trained, rows):
    latents = trained.transform(rows)
    assert latents.shape == (400, 2)
    assert latents.dtype == np.float32
    back = trained.inverse_transform(latents)
    assert back.shape == rows.shape
    spread = rows.std(axis=0)
    assert (np.abs(back - rows).mean(axis=0) < spread).all()  # raw units, all of very different magnitude
    scaled = (rows - back) / trained.scaler_.scale
    np.testing.assert_allclose(trained.reconstruction_error(rows), (scaled**2).mean(axis=1), rtol=1e-2, atol=1e-4)


def test_it_learns_more_than_nothing(digits):
    train, test = digits[:1400], digits[1400:]
    ae = Autoencoder(latent=8, random_state=0).fit(train)
    mean_error = np.square(test - train.mean(axis=0)).mean()
    pca = PCA(8).fit(train)
    pca_error = np.square(test - pca.inverse_transform(pca.transform(test))).mean()
    error = np.square(test - ae.inverse_transform(ae.transform(test))).mean()
    assert error < 0.9 * pca_error < mean_error


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "softplus"])
def test_activations(rows, activation):
    assert Autoencoder(**SMALL, activation=activation).fit(rows).transform(rows).shape == (400, 2)


@pytest.mark.filterwarnings("ignore:.*columns never change")
def test_the_textbook_net(digits):
    """784-32-784 in small: no hidden layer, ReLU latents, sigmoid output, cross-entropy, Adam."""
    ae = Autoencoder(
        latent=8,
        hidden=(),
        latent_activation="relu",
        output="sigmoid",
        loss="bce",
        scaling="minmax",
        schedule="constant",
        learning_rate=1e-3,
        gradient_clip=None,
        epochs=5,
        random_state=0,
    ).fit(digits)
    layers = [type(layer).__name__ for layer in ae.network_.modules() if not list(layer.children())]
    layers = [name for name in layers if name not in ("Sequential", "Identity")]
    assert layers == ["Linear", "ReLU", "Linear", "Sigmoid"]
    assert ae.noise_ == ()
    assert ae.transform(digits).min() >= 0
    assert ae.history_[-1]["train_loss"] < ae.history_[0]["train_loss"]


def test_clone_and_pipeline(rows):
    ae = clone(Autoencoder(**SMALL))
    assert ae.get_params()["latent"] == 2
    piped = make_pipeline(StandardScaler(), ae).fit(rows)
    assert piped.transform(rows).shape == (400, 2)
    assert list(piped.get_feature_names_out()) == ["autoencoder0", "autoencoder1"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"latent": 7}, "latent: expected at most 6, the number of values in a row, got 7"),
        ({"latent": 0}, "latent: expected 'auto' or a whole number of at least 1, got 0"),
        ({"latent": 2.5}, "got 2.5"),
        ({"hidden": (8, 0)}, r"hidden: expected 'auto' or whole numbers above 0, got \(8, 0\)"),
        ({"hidden": "deep"}, "hidden: expected 'auto'"),
        ({"family": "gan"}, "family: expected dense.*, got 'gan'"),
        ({"activation": "relu6"}, "activation: expected relu, .*, got 'relu6'"),
        ({"output": "tanh"}, "output: expected 'linear' or 'sigmoid', got 'tanh'"),
        ({"loss": "mae"}, "loss: expected 'mse' or 'bce' or 'huber', got 'mae'"),
        ({"loss": "bce", "scaling": "standard"}, "loss 'bce' needs values from 0 to 1 after scaling, got -"),
        ({"loss": "bce", "scaling": "minmax", "output": "linear"}, "loss 'bce' needs output='sigmoid'"),
        ({"schedule": "step"}, "schedule: expected cosine, plateau, constant, got 'step'"),
        ({"learning_rate": 0}, "learning_rate: expected a number above 0, got 0"),
        ({"epochs": 0}, "epochs: expected 'auto' or a whole number of at least 1, got 0"),
        ({"validation": 1.0}, "validation: expected a share from 0 to 0.9, got 1.0"),
        ({"device": "abacus"}, "device: 'abacus' cannot be used here"),
        ({"scaling": "log"}, "scaling: expected auto"),
    ],
    ids=str,
)
def test_parameters_that_do_not_fit(rows, params, message):
    with pytest.raises(InputError, match=message):
        Autoencoder(**{**SMALL, **params}).fit(rows)


def test_rows_that_do_not_fit(rows, trained):
    with pytest.raises(ValueError, match="6 features"):
        trained.transform(rows[:, :5])
    with pytest.raises(InputError, match=r"Z: expected an array of shape \(n, 2\), got \(3, 3\)"):
        trained.inverse_transform(np.zeros((3, 3)))
    bad = rows.copy()
    bad[5, 2] = np.nan
    with pytest.raises(InputError, match="got nan in row 5, column 2"):
        Autoencoder(**SMALL).fit(bad)


def test_fewer_rows_than_a_batch(rows):
    with pytest.warns(UserWarning, match="18 training rows are fewer than a batch of 64: each epoch is one step"):
        ae = Autoencoder(**SMALL, batch_size=64).fit(rows[:20])
    assert ae.transform(rows).shape == (400, 2)


def test_saving_and_loading(trained, rows, tmp_path):
    trained.save(tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "checkpoint.safetensors",
        "history.jsonl",
        "run.json",
        "sample.npy",
        "weights.safetensors",
    ]
    again = Autoencoder.load(tmp_path / "run")
    np.testing.assert_array_equal(again.transform(rows), trained.transform(rows))
    assert again.history_ == trained.history_
    assert again.get_params()["hidden"] == (8,)
    with pytest.raises(InputError, match="already exists"):
        trained.save(tmp_path / "run")


def test_saving_twice_gives_the_same_bytes(trained, tmp_path):
    trained.save(tmp_path / "a")
    trained.save(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@pytest.mark.parametrize(
    "name", ["run.json", "weights.safetensors", "checkpoint.safetensors", "sample.npy", "history.jsonl"]
)
@pytest.mark.parametrize("fault", ["missing", "truncated"])
def test_a_damaged_run(trained, tmp_path, name, fault):
    trained.save(tmp_path / "run")
    file = tmp_path / "run" / name
    data = file.read_bytes()
    file.unlink()
    if fault == "truncated":
        file.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"expected a run|this run is damaged"):
        Autoencoder.load(tmp_path / "run")


def test_a_run_of_a_newer_version(trained, tmp_path):
    trained.save(tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": 9}))
    with pytest.raises(InputError, match="expected a run of version 3, got aeedge-run 9; upgrade"):
        Autoencoder.load(tmp_path / "run")


def test_a_run_written_when_the_baseline_was_called_referee(rows, tmp_path):
    ae = Autoencoder(**SMALL).fit(rows)
    ae.evaluate(rows)
    ae.save(tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    text = file.read_text().replace('"baseline"', '"referee"').replace('"sha256": {', '"former": {', 1)
    text = text.replace('"version": 3', '"version": 1')
    file.write_text(text)
    again = Autoencoder.load(tmp_path / "run")
    assert again.evaluation_ == ae.evaluation_
    assert again.resume(rows, epochs=3).n_iter_ == 3


def test_an_estimator_whose_training_failed_is_not_fitted(rows):
    ae = Autoencoder(**SMALL, device="abacus")
    with pytest.raises(InputError):
        ae.fit(rows)
    with pytest.raises(NotFittedError):
        ae.transform(rows)
