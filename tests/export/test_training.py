"""The loop: seeds, early stopping, resuming, interruption, memory-mapped rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import aeedge_export.data.rows
from aeedge.errors import InputError
from aeedge_export import Autoencoder
from aeedge_export.data.rows import ResidentRows, StreamedRows, split
from aeedge_export.data.scaling import Scaler, check_finite, fit_scaler, fit_statistics, pick_rows
from aeedge_export.networks.losses import reconstruction_loss
from aeedge_export.training.loop import evaluate

PLAIN = {"latent": 2, "hidden": (8,), "random_state": 3, "batch_size": 32}
NO_SCALING = Scaler("none", np.array(0, np.float32), np.array(1, np.float32))


def weights(ae):
    return {name: tensor.numpy().copy() for name, tensor in ae.network_.state_dict().items()}


def assert_same_weights(a, b):
    assert weights(a).keys() == weights(b).keys()
    for name, value in weights(a).items():
        np.testing.assert_array_equal(value, weights(b)[name])


@pytest.mark.parametrize("schedule", ["cosine", "plateau", "constant"])
def test_the_same_seed_gives_the_same_bytes(rows, schedule):
    first = Autoencoder(**PLAIN, epochs=4, schedule=schedule).fit(rows)
    assert_same_weights(first, Autoencoder(**PLAIN, epochs=4, schedule=schedule).fit(rows))
    other = Autoencoder(**{**PLAIN, "random_state": 4}, epochs=4, schedule=schedule).fit(rows)
    assert any((weights(first)[name] != weights(other)[name]).any() for name in weights(first))


def test_training_leaves_the_global_random_state_alone(rows):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Autoencoder(**PLAIN, epochs=2).fit(rows)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_resuming_gives_the_same_bytes_as_training_on(rows, tmp_path, schedule):
    whole = Autoencoder(**PLAIN, epochs=8, patience=None, schedule=schedule).fit(rows)
    half = Autoencoder(**PLAIN, epochs=3, patience=None, schedule=schedule).fit(rows)
    half.save(tmp_path / "run")
    resumed = Autoencoder.load(tmp_path / "run").resume(rows, epochs=8)
    assert_same_weights(whole, resumed)
    strip = [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in whole.history_]
    assert strip == [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in resumed.history_]


def test_resuming_refuses_other_rows_and_finished_runs(rows, other_rows):
    ae = Autoencoder(**PLAIN, epochs=2).fit(rows)
    with pytest.raises(InputError, match="expected the rows that the run was trained on"):
        ae.resume(other_rows, epochs=4)
    with pytest.raises(InputError, match="all 2 epochs are done; ask for more"):
        ae.resume(rows)


def test_early_stopping_restores_the_best_weights(rows):
    ae = Autoencoder(**PLAIN, epochs=300, patience=3, learning_rate=0.05, schedule="constant").fit(rows)
    assert ae.stopped_ == "patience"
    losses = [epoch["validation_loss"] for epoch in ae.history_]
    assert ae.n_iter_ == len(losses) == int(np.argmin(losses)) + 1 + 3
    held_out = split(len(rows), 0.1, ae.run_.drawn_seed).validation
    assert ae.reconstruction_error(rows[held_out]).mean() == pytest.approx(min(losses), rel=1e-4)


def test_ctrl_c_keeps_the_best_so_far(rows):
    def interrupt(state):
        if state.epoch == 3:
            raise KeyboardInterrupt

    ae = Autoencoder(**PLAIN, epochs=50).fit_rows(rows, on_epoch=interrupt)
    assert ae.stopped_ == "interrupted"
    assert ae.n_iter_ == 3
    assert ae.transform(rows).shape == (400, 2)
    assert Autoencoder(**PLAIN, epochs=3, schedule="constant").fit(rows).n_iter_ == 3


def test_ctrl_c_in_the_first_epoch_ends_training(rows, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("aeedge_export.training.loop._run_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Autoencoder(**PLAIN).fit(rows)


def test_a_diverging_learning_rate_is_one_sentence(rows):
    with pytest.raises(InputError, match=r"diverged in its first epoch.*learning rate 1e\+30; use a lower"):
        Autoencoder(**PLAIN, learning_rate=1e30, gradient_clip=None, schedule="constant").fit(rows)


def test_gradient_clipping_limits_the_step(rows):
    free = Autoencoder(**PLAIN, epochs=1, gradient_clip=None, schedule="constant").fit(rows)
    clipped = Autoencoder(**PLAIN, epochs=1, gradient_clip=1e-9, schedule="constant").fit(rows)
    assert any((weights(free)[name] != weights(clipped)[name]).any() for name in weights(free))


@settings(deadline=None, max_examples=40)
@given(n=st.integers(2, 300), size=st.integers(1, 64), chunk=st.integers(1, 40), seed=st.integers(0, 99))
def test_every_row_is_seen_once_an_epoch_streamed_or_resident(n, size, chunk, seed):
    X = np.arange(n, dtype=np.float32)[:, np.newaxis]
    train, held_out = split(n, 0.2, seed)[:2]
    for rows in (
        ResidentRows(X, train, held_out, NO_SCALING, torch.device("cpu")),
        StreamedRows(X, train, held_out, NO_SCALING, torch.device("cpu"), chunk_bytes=4 * chunk),
    ):
        batches = list(rows.batches(size, torch.Generator().manual_seed(seed)))
        assert sorted(torch.cat(batches).flatten().tolist()) == train.tolist()
        assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
        assert rows.validation.flatten().tolist() == held_out.tolist()


@settings(deadline=None, max_examples=40)
@given(n=st.integers(10, 300), fraction=st.sampled_from([0, 0.1, 0.5]), seed=st.integers(0, 99), data=st.data())
def test_left_out_rows_are_in_neither_part_and_move_no_other(n, fraction, seed, data):
    left_out = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=n // 4, unique=True)), np.intp)
    train, held_out = split(n, fraction, seed)[:2]
    kept_train, kept_held_out = split(n, fraction, seed, left_out)[:2]
    assert not np.isin([*kept_train, *kept_held_out], left_out).any()
    assert len(kept_train) == len(train)
    stays = ~np.isin(train, left_out)
    np.testing.assert_array_equal(kept_train[stays], train[stays])
    assert kept_held_out.tolist() == [row for row in held_out if row not in left_out]


def test_a_file_larger_than_memory_is_streamed(rows, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", rows)
    monkeypatch.setattr(aeedge_export.data.rows, "_free_memory", lambda device: 1000)
    monkeypatch.setattr(ResidentRows, "__init__", None)  # would fail if it were used
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    ae = Autoencoder(latent=2, hidden=(8,), epochs=60, random_state=0).fit(mapped)
    assert ae.history_[-1]["validation_loss"] < 0.5 * ae.history_[0]["validation_loss"]


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 50), d=st.integers(1, 4), chunk=st.integers(1, 20), seed=st.integers(0, 99))
def test_statistics_do_not_depend_on_chunks(n, d, chunk, seed):
    X = np.random.default_rng(seed).normal(1e3, 2, (n, d))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aeedge_export.data.scaling._CHUNK_BYTES", 8 * d * chunk)
        found = fit_statistics(X)
    np.testing.assert_allclose(found.mean, X.mean(axis=0))
    np.testing.assert_allclose(found.std, X.std(axis=0), atol=1e-9)
    np.testing.assert_array_equal(found.min, X.min(axis=0))


def test_a_memory_mapped_file_gives_the_same_bytes_as_an_array(rows, tmp_path):
    np.save(tmp_path / "x.npy", rows)
    mapped = Autoencoder(**PLAIN, epochs=2).fit(np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert_same_weights(Autoencoder(**PLAIN, epochs=2).fit(rows), mapped)


def test_what_is_not_finite_is_named(rows):
    bad = rows.copy()
    bad[17, 4] = np.inf
    with pytest.raises(InputError, match=r"got inf in row 17, column 4 \('e'\)"):
        check_finite(bad, tuple("abcdef"))


def test_scalings(rows, digits):
    stats = fit_statistics(rows)
    standard = fit_scaler("standard", stats, rows)(rows)
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-2)
    np.testing.assert_allclose(standard.std(axis=0), 1, rtol=1e-2)
    robust = fit_scaler("robust", stats, rows)(rows)
    np.testing.assert_allclose(np.median(robust, axis=0), 0, atol=1e-2)
    np.testing.assert_allclose(np.subtract(*np.quantile(robust, (0.75, 0.25), axis=0)), 1.349, rtol=1e-2)
    minmax = fit_scaler("minmax", stats, rows)(rows)
    assert minmax.min() >= -1e-6
    assert minmax.max() <= 1 + 1e-6
    assert fit_scaler("none", stats, rows).identity
    assert fit_scaler("auto", stats, rows).kind == "standard"
    shared = fit_scaler("auto", fit_statistics(digits), digits)
    assert (shared.kind, float(shared.mean), float(shared.scale)) == ("shared", 0, 16)
    with pytest.raises(InputError, match="scaling: expected auto, standard, robust, minmax, none, got 'quantile'"):
        fit_scaler("quantile", stats, rows)


def percentages(rng, n, count):
    return (100 / (1 + np.exp(-4 * rng.normal(size=(n, count))))).round(1)


def auto(X):
    return fit_scaler("auto", fit_statistics(X), pick_rows(X)).kind


@pytest.mark.parametrize(
    ("percents", "others"),
    [(9, lambda rng, n: rng.normal(0.5, 0.05, (n, 6))), (20, lambda rng, n: rng.random((n, 1)))],
)
def test_columns_of_unlike_units_are_scaled_one_by_one(percents, others):
    rng = np.random.default_rng(0)
    for n in (200, 3000):
        X = np.c_[percentages(rng, n, percents), others(rng, n)]
        assert auto(X) == auto(X.astype(np.float32)) == "standard"
        assert auto((10 * X).astype(np.int16)) == "standard"
        assert auto(np.c_[X[:, :percents], 20 * X[:, percents:]].astype(np.uint8)) == "standard"


@pytest.mark.parametrize("top", [1, 4, 15, 25])
def test_a_column_that_would_disappear_forbids_a_common_scale(top):
    rng = np.random.default_rng(1)
    X = np.c_[percentages(rng, 2000, 8).clip(1, 99) - 1, rng.integers(0, top + 1, (2000, 4))]
    assert auto(X[:, :8]) == "shared"
    assert auto(X) == "standard"


def test_pixels_share_one_scale_in_any_form(digits):
    rng = np.random.default_rng(0)
    for X in (digits, digits[rng.permutation(1797)[:120]]):
        for form in (X, X.astype(np.float64) / 16, X.astype(np.uint8), X.astype(np.int16), X > 7):
            assert auto(form) == "shared"
        assert auto(X.reshape(-1, 1, 8, 8)) == "shared"


def test_a_glitch_does_not_choose_the_scaling(digits):
    for value in (30, 1e4, -50):
        for place in ((3, 20), (700, 0), (1796, 63)):
            X = digits.copy()
            X[place] = value
            assert auto(X) == "shared"
    rng = np.random.default_rng(3)
    X = np.c_[percentages(rng, 1000, 9), rng.normal(0.5, 0.05, (1000, 3))]
    X[5, 10] = 100
    assert auto(X) == "standard"


@pytest.mark.parametrize("shape", [(6,), (64,), (1, 8, 8), (8, 8)])
def test_flags_are_not_scaled(shape):
    flags = np.random.default_rng(0).random((200, *shape)) < 0.3
    for dtype in (np.uint8, np.bool_) if len(shape) != 2 else (np.uint8,):
        X = flags.astype(dtype)
        scaler = fit_scaler("auto", fit_statistics(X), X)
        assert (scaler.kind, float(scaler.mean), float(scaler.scale)) == ("shared", 0, 1)


def test_bytes_are_scaled_by_the_range_that_they_use():
    rng = np.random.default_rng(0)
    for top, scale in ((15, 15), (63, 63), (100, 255), (255, 255)):
        X = rng.integers(0, top + 1, (300, 1, 8, 8)).astype(np.uint8)
        scaler = fit_scaler("auto", fit_statistics(X), X)
        assert (scaler.kind, float(scaler.mean), float(scaler.scale)) == ("shared", 0, scale)
    people = np.c_[rng.integers(18, 90, 500), rng.integers(0, 2, (500, 9)), rng.integers(1, 32, 500)].astype(np.uint8)
    assert auto(people) == "standard"


def test_channels_of_unlike_units_are_scaled_one_by_one():
    rng = np.random.default_rng(0)
    X = (rng.random((60, 3, 8, 8)) * [[[1]], [[0.5]], [[1000]]]).astype(np.float32)
    scaler = fit_scaler("auto", fit_statistics(X), X)
    assert (scaler.kind, scaler.scale.shape) == ("channel", (3, 1, 1))
    np.testing.assert_allclose(scaler(X).std(axis=(0, 2, 3)), 1, rtol=1e-3)
    assert auto(X[:, :2]) == "shared"
    assert auto(np.ascontiguousarray(X[:, [0, 1, 1]])) == "shared"


def test_columns_that_hardly_count_are_named():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5)) * [1, 1, 1e-3, 1, 1]
    with pytest.warns(
        UserWarning, match=r"1 of 5 columns are nearly constant beside the others .* 'none'.*: c; scaling"
    ):
        Autoencoder(**PLAIN, epochs=1, scaling="none").fit_rows(X, features=tuple("abcde"))


def test_rows_without_a_difference_are_refused(rows):
    for X in (np.full((60, 4), 3.0), np.full((60, 1, 8, 8), 3, np.uint8), np.repeat(rows[:1], 50, axis=0)):
        with pytest.raises(InputError, match="expected training rows that differ"):
            Autoencoder(**PLAIN).fit(X)


class Errors(nn.Module):
    """A network whose validation losses are the rows."""

    def validation_loss(self, x):
        return x[:, 0]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), n=st.integers(10, 300), worst=st.sampled_from([50.0, 1e30, np.inf, np.nan]))
def test_one_row_does_not_decide_the_validation_loss(seed, n, worst):
    losses = torch.from_numpy(np.random.default_rng(seed).uniform(0.5, 1, (n, 1)).astype(np.float32))
    fine = evaluate(Errors(), losses)
    assert fine == pytest.approx(float(losses.mean()), rel=1e-5)
    losses[seed % n] = worst
    assert fine - 1 / n < evaluate(Errors(), losses) <= fine + 10 / n


def test_a_validation_loss_that_is_not_finite_shows(rows):
    assert not np.isfinite(evaluate(Errors(), torch.full((20, 1), torch.nan)))
    assert evaluate(Errors(), torch.zeros(20, 1)) == 0


def test_constant_columns_get_scale_one(rows):
    X = rows.copy()
    X[:, 1] = 7
    for kind in ("standard", "robust", "minmax"):
        scaler = fit_scaler(kind, fit_statistics(X), X)
        assert scaler.scale[1] == 1
        assert np.isfinite(scaler(X)).all()
    with pytest.warns(UserWarning, match="1 of 6 columns never change and were given scale 1: 1"):
        ae = Autoencoder(**PLAIN, epochs=2).fit(X)
    assert ae.notes_


def test_huber_is_trained_on_saved_and_resumed(rows, tmp_path):
    options = PLAIN | {"loss": "huber", "schedule": "constant", "patience": None}
    ae = Autoencoder(**options, epochs=3).fit(rows)
    assert (ae.design_.loss, ae.design_.output) == ("huber", "linear")
    ae.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run").resume(rows, epochs=4)
    assert again.run_.summary()["loss"] == "huber"
    assert_same_weights(Autoencoder(**options, epochs=4).fit(rows), again)


@pytest.mark.parametrize("family", ["vae", "sparse", "contractive", "conv1d"])
def test_huber_trains_every_family(rows, family):
    X = rows if family != "conv1d" else rows.reshape(400, 1, 6)
    ae = Autoencoder(family, loss="huber", latent=2, epochs=8, random_state=0).fit(X)
    assert ae.history_[-1]["validation_loss"] < ae.history_[0]["validation_loss"]


def test_huber_is_half_of_mse_for_small_errors_and_linear_for_large_ones():
    target = torch.linspace(-9, 9, 37)[:, None]
    loss = reconstruction_loss("huber")(torch.zeros_like(target), target, torch.nn.Identity(), reduction="none")
    expected = torch.where(target.abs() <= 1, target**2 / 2, target.abs() - 0.5)
    torch.testing.assert_close(loss, expected)


def test_huber_lets_a_few_wild_rows_pull_less():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 1)) @ rng.normal(size=(1, 6)) + 0.05 * rng.normal(size=(600, 6))
    wild = np.arange(600) % 12 == 0
    X[wild] += 4 * rng.normal(size=(wild.sum(), 1)) * rng.normal(size=6)  # a direction of its own
    options = {"latent": 1, "hidden": (), "noise": "none", "epochs": 60, "learning_rate": 0.02, "random_state": 0}
    error = {
        loss: Autoencoder(**options, loss=loss, scaling="robust").fit(X).reconstruction_error(X[~wild]).mean()
        for loss in ("mse", "huber")
    }
    assert error["huber"] < 0.7 * error["mse"]
