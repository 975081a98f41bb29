"""What is given to the estimator: rows that do not fit, weights, more latents than values, rows to evaluate on."""

import warnings

import numpy as np
import pytest
import torch

import aeedge
from aeedge.errors import InputError
from aeedge_export import Autoencoder
from aeedge_export.data.rows import ResidentRows, StreamedRows, resampled, split
from aeedge_export.data.scaling import Scaler

SMALL = {"latent": 2, "hidden": (8,), "epochs": 2, "random_state": 0}


def with_nan(dtype):
    X = np.random.default_rng(0).normal(size=(50, 3)).astype(dtype)
    X[3, 1] = np.nan
    return X


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((1, 3)), "X: expected two or more rows to train on, got 1 sample"),
        (with_nan("f2"), "expected finite numbers that fit float32, got nan in row 3, column 1"),
        (with_nan("f8"), "got nan in row 3, column 1"),
        (with_nan("f4").tolist(), "got nan in row 3, column 1"),
        (np.full((9, 3), "1.5"), r"X: expected numbers, got text \(dtype <U3\); convert it to numbers"),
        (np.full((9, 3), b"1.5"), r"X: expected numbers, got text \(dtype \|S3\)"),
        (np.full((9, 3), "a", object), "X: expected numbers, but could not convert string to float: 'a'"),
        (np.ones((9, 3), complex), "X: Complex data not supported; pass real and imaginary parts as columns"),
        (np.zeros(9), r"X: expected rows, an array of two or more axes, got shape \(9,\)"),
        (np.zeros((9, 0)), r"X: .*0 feature"),
        (np.zeros((9, 3), "M8[s]"), "X: expected numbers, got dtype datetime64"),
        ([[1, 2], [3]], "X: "),
    ],
    ids=str,
)
def test_rows_that_do_not_fit_are_one_sentence(X, message):
    with pytest.raises(InputError, match=message) as caught:
        Autoencoder(**SMALL).fit(X)
    assert "\n" not in str(caught.value)


def test_what_is_not_finite_is_one_sentence_after_fitting(trained, rows):
    bad = rows.copy()
    bad[0, 0] = np.nan
    for method in (trained.transform, trained.score_samples, trained.reconstruction_error):
        with pytest.raises(InputError, match="got nan in row 0, column 0"):
            method(bad)


@pytest.mark.parametrize("dtype", ["f4", "f8", "u1"])
@pytest.mark.parametrize("scaling", ["none", "auto"])
def test_arrays_that_cannot_be_written_to(dtype, scaling, digits, tmp_path):
    X = digits[:200].astype(dtype)
    expected = Autoencoder(**SMALL, scaling=scaling).fit(X)
    X.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ae = Autoencoder(**SMALL, scaling=scaling, validation=0.1).fit(X)
        np.testing.assert_array_equal(ae.transform(X), expected.transform(X))
        Z = ae.transform(X)
        Z.setflags(write=False)
        ae.inverse_transform(Z)
        ae.score_samples(X[::2])
        ae.evaluate(X)
        ae.export(tmp_path / "m.aeedge", calibration=X, variants="fp32")


def test_one_hidden_layer_may_be_a_number(rows):
    one, several = (Autoencoder(**SMALL | {"hidden": hidden}).fit(rows) for hidden in (8, (8,)))
    assert one.design_ == several.design_
    np.testing.assert_array_equal(one.transform(rows), several.transform(rows))


@pytest.mark.parametrize("options", [{"family": "sparse"}, {"noise": "masking:0.3"}, {"noise": "gaussian:0.5"}])
def test_more_latents_than_values_where_copying_does_not_pay(rows, options, tmp_path):
    ae = Autoencoder(**SMALL | {"latent": 9, "epochs": 5}, **options).fit(rows)
    assert ae.transform(rows).shape == (400, 9)
    ae.evaluate(rows)
    ae.export(tmp_path / "m.aeedge")
    model = aeedge.load(tmp_path / "m.aeedge", variant="fp32", check="golden")
    np.testing.assert_allclose(model.encode(rows), ae.transform(rows), rtol=1e-3, atol=1e-3)


def test_more_latents_than_values_of_images_start_at_pca(digits):
    X = digits[:, 20:30]
    ae = Autoencoder(latent=12, hidden=(16,), noise="gaussian:0.1", linear_path=True, epochs=2, random_state=0).fit(X)
    assert np.isfinite(ae.reconstruction_error(X)).all()


@pytest.mark.parametrize("options", [{}, {"noise": "none"}, {"family": "vae"}, {"family": "pca"}])
def test_more_latents_than_values_are_refused_elsewhere(rows, options):
    with pytest.raises(InputError, match="got 7; with more, an autoencoder can copy its input"):
        Autoencoder(latent=7, **options).fit(rows)


def test_evaluation_is_for_the_fitted_rows(rows, other_rows, tmp_path):
    ae = Autoencoder(**SMALL).fit(rows)
    labels = np.arange(400) % 2
    for others in (rows[:50], other_rows, rows[::-1], np.concatenate([rows, rows])):
        with pytest.raises(InputError, match=r"evaluate: expected the rows that were fitted.*use reconstruction_error"):
            ae.evaluate(others, np.arange(len(others)) % 2)
    ae.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run")
    with pytest.raises(InputError, match="expected the rows that were fitted"):
        again.evaluate(other_rows)
    for same in (rows, rows.astype(np.float64), rows.tolist(), np.asfortranarray(rows)):
        assert again.evaluate(same, labels)["rows_compared"] == 40
    portions = Autoencoder(**SMALL).partial_fit(rows[:200]).partial_fit(rows[200:])
    assert portions.evaluate(rows)["baseline"]


def weighted_draws(weights, draws=300):
    generator = np.random.default_rng(0)
    return (
        sum(np.bincount(resampled(weights, generator.random()), minlength=len(weights)) for _ in range(draws)) / draws
    )


def test_rows_are_drawn_as_often_as_their_weights_say():
    weights = np.array([0, 1, 2, 0.5, 4, 0, 1, 3.5], np.float32)
    np.testing.assert_allclose(weighted_draws(weights), weights * 8 / 12, atol=0.1)
    np.testing.assert_array_equal(weighted_draws(np.ones(50, np.float32)), np.ones(50))
    huge = np.r_[np.ones(99), 1e9].astype(np.float32)
    assert resampled(huge, 0.5).min() > 90


@pytest.mark.parametrize("chunk", [None, 4 * 7])
def test_batches_follow_the_weights_streamed_or_resident(chunk):
    X, n = np.arange(60, dtype=np.float32)[:, np.newaxis], 60
    weights = np.where(np.arange(n) % 3 == 0, 0, 1 + np.arange(n) % 2).astype(np.float32)
    train, held_out = split(n, 0.2, 0, weights=weights)[:2]
    assert not (weights[train] == 0).any()
    assert not (weights[held_out] == 0).any()
    plain, cpu = Scaler("none", np.array(0, np.float32), np.array(1, np.float32)), torch.device("cpu")
    if chunk is None:
        rows = ResidentRows(X, train, held_out, plain, cpu, weights[train])
    else:
        rows = StreamedRows(X, train, held_out, plain, cpu, weights[train], chunk_bytes=chunk)
    seen = torch.cat([b for seed in range(200) for b in rows.batches(8, torch.Generator().manual_seed(seed))])
    assert len(seen) == 200 * len(train)
    counts = np.bincount(seen.flatten().numpy().astype(int), minlength=n)[train] / 200
    np.testing.assert_allclose(counts, weights[train] * len(train) / weights[train].sum(), atol=0.12)


def two_kinds(n=600):
    """Rows of two lines in space, alternating."""
    rng = np.random.default_rng(0)
    kind = np.arange(n) % 2
    lines = rng.normal(size=(2, 6))
    return (rng.normal(size=(n, 1)) * lines[kind] + 0.02 * rng.normal(size=(n, 6))).astype(np.float32), kind


def test_weights_decide_what_is_reconstructed_well(tmp_path):
    X, kind = two_kinds()
    options = {"latent": 1, "hidden": (), "noise": "none", "epochs": 30, "learning_rate": 0.02, "random_state": 0}
    errors = []
    for weights in (1 + 30 * kind, 31 - 30 * kind):
        ae = Autoencoder(**options).fit(X, sample_weight=weights)
        error = ae.reconstruction_error(X)
        errors.append(error[kind == 1].mean() / error[kind == 0].mean())
    assert errors[0] < 0.2
    assert errors[1] > 5


def test_rows_of_weight_0_are_left_out(rows):
    X = np.concatenate([rows, 1e6 * rows[:200]])
    weights = np.r_[np.ones(400), np.zeros(200)]
    ae = Autoencoder(**SMALL).fit(X, sample_weight=weights)
    without = Autoencoder(**SMALL).fit(rows)
    np.testing.assert_array_equal(ae.scaler_.scale, without.scaler_.scale)
    assert ae.evaluate(X)["rows_compared"] == 40


def test_equal_weights_change_nothing_and_resuming_keeps_weights(rows, tmp_path):
    plain = Autoencoder(**SMALL).fit(rows)
    np.testing.assert_array_equal(
        plain.transform(rows), Autoencoder(**SMALL).fit(rows, None, np.full(400, 3)).transform(rows)
    )
    weights = np.random.default_rng(0).random(400)
    options = SMALL | {"patience": None, "schedule": "constant"}
    whole = Autoencoder(**options | {"epochs": 4}).fit(rows, sample_weight=weights)
    Autoencoder(**options).fit(rows, sample_weight=weights).save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run").resume(rows, epochs=4)
    np.testing.assert_array_equal(again.transform(rows), whole.transform(rows))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(399), r"expected one for each of the 400 rows, got shape \(399,\)"),
        (np.ones((400, 1)), r"got shape \(400, 1\)"),
        (np.r_[np.ones(399), -1], "expected finite numbers from 0, got -1.0 for row 399"),
        (np.r_[np.nan, np.ones(399)], "got nan for row 0"),
        (np.r_[1.0, np.zeros(399)], "expected two or more rows of a weight above 0"),
        (["heavy"] * 400, "sample_weight: expected numbers"),
    ],
    ids=["short", "column", "negative", "nan", "one", "text"],
)
def test_weights_that_do_not_fit(rows, weights, message):
    with pytest.raises(InputError, match=message):
        Autoencoder(**SMALL).fit(rows, sample_weight=weights)


def test_pca_takes_no_weights(rows):
    with pytest.raises(InputError, match="sample_weight: family 'pca' counts all rows alike"):
        Autoencoder("pca", latent=2).fit(rows, sample_weight=np.arange(400))
