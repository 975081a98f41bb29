"""Gross outliers and codes for missing values: found, named, left out; and what is none of them."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.utils import check_random_state

from aeedge.errors import InputError
from aeedge_export import Autoencoder
from aeedge_export.data.outliers import find_outliers
from aeedge_export.data.rows import split

PLAIN = {"latent": 2, "hidden": (8,), "epochs": 4, "random_state": 0}


def table(seed, n=300, d=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) @ rng.normal(size=(2, d)) + 0.3 * rng.normal(size=(n, d))


def spoilt(X, *cells):
    X = X.copy()
    for place, value in cells:
        X[place] = value
    return X


def held_out(count, seed=0):
    return split(count, 0.1, int(check_random_state(seed).randint(2**31 - 1)))[:2]


DISTRIBUTIONS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "uniform": lambda rng, shape: rng.random(shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape),
    "laplace": lambda rng, shape: rng.laplace(size=shape),
    "counts": lambda rng, shape: rng.poisson(3, shape).astype(np.float64),
    "rare events": lambda rng, shape: rng.poisson(0.05, shape).astype(np.float64),
    "flags": lambda rng, shape: (rng.random(shape) < 0.02).astype(np.float64),
    "levels": lambda rng, shape: rng.choice([20, 20.5, 21, 80], p=[0.4, 0.2, 0.2, 0.2], size=shape),
    "off for a fifth of the time": lambda rng, shape: np.where(rng.random(shape) < 0.2, 0, rng.normal(1500, 10, shape)),
    "a random walk": lambda rng, shape: rng.normal(size=shape).cumsum(axis=0),
    "one-hot": lambda rng, shape: np.eye(shape[1])[rng.integers(0, shape[1], shape[0])],
    "minus one and one": lambda rng, shape: rng.choice([-1.0, 1.0], size=shape),
    "a constant": lambda rng, shape: np.full(shape, 7.0),
}


# Always the same tables: of exponential numbers one in some hundred has, by chance, a number far from all others
@pytest.mark.parametrize("name", DISTRIBUTIONS)
@settings(deadline=None, max_examples=10, derandomize=True)
@given(seed=st.integers(0, 10**6), n=st.integers(100, 900), d=st.integers(1, 12), dtype=st.sampled_from("fd"))
def test_ordinary_columns_have_none(name, seed, n, d, dtype):
    X = DISTRIBUTIONS[name](np.random.default_rng(seed), (n, d)).astype(dtype)
    assert find_outliers(X).findings == ()


def test_heavy_tails_are_no_outliers():
    """A few rows of a million values at most: extreme values have others on the way to them."""
    rng = np.random.default_rng(3)
    for X in (rng.standard_t(3, (10_000, 20)), np.exp(rng.normal(size=(10_000, 20))), rng.pareto(2, (10_000, 20))):
        assert find_outliers(X).mask.sum() <= 2
        assert find_outliers(spoilt(X, ((17, 4), 1e12))).mask[17]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(50, 600),
    size=st.floats(2, 37),
    sign=st.sampled_from([-1, 1]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_a_glitch_of_any_size_is_found_alone(seed, n, size, sign, dtype):
    X = table(seed, n).astype(dtype)
    row, column = np.random.default_rng(seed + 1).integers((n, 5))
    X[row, column] = sign * 10**size * X[:, column].std() if size < 30 else sign * 10**size
    found = find_outliers(X, tuple("abcde"))
    assert np.flatnonzero(found.mask).tolist() == [row]
    (finding,) = found.findings
    assert (finding.column, finding.code, finding.rows.tolist()) == (column, None, [row])
    assert f"column '{'abcde'[column]}': " in found.notes[0]
    assert f" in row {row} is " in found.notes[0]
    assert found.notes[0].endswith("1 row was left out of training and comparison")


@pytest.mark.parametrize("code", [-9999, -999, 9999, 99999, -32768, 1e20, 1e30, -1e31, -9999.9, 9.96921e36])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.45])
def test_codes_for_missing_values_are_named(code, share):
    X = table(5)
    rows = np.random.default_rng(2).choice(len(X), round(share * len(X)), replace=False)
    for dtype in (np.float32, np.float64):
        found = find_outliers(spoilt(X, ((rows, 3), code)).astype(dtype), tuple("abcde"))
        assert np.flatnonzero(found.mask).tolist() == sorted(rows)
        (finding,) = found.findings
        assert finding.column == 3
        assert finding.code == pytest.approx(code)
        assert f"column 'd': {code:g} in {len(rows)} rows looks like a code for a missing value" in found.notes[0]


def test_two_codes_and_a_glitch_in_one_column():
    rng = np.random.default_rng(0)
    first, second, glitch = np.split(rng.permutation(300)[:61], [40, 60])
    found = find_outliers(spoilt(table(1), ((first, 2), -9999), ((second, 2), 9999), ((glitch, 2), 60)))
    assert {f.code: sorted(f.rows) for f in found.findings} == {
        -9999: sorted(first),
        9999: sorted(second),
        None: sorted(glitch),
    }
    assert len(found.notes) == 3
    assert found.notes[-1].endswith("61 rows were left out of training and comparison")


def test_any_value_that_repeats_far_away_is_a_code_if_it_is_rare():
    X = table(2, 1000)
    assert find_outliers(spoilt(X, ((slice(0, 30), 1), 777.5))).findings[0].code == 777.5
    assert find_outliers(spoilt(X, ((slice(0, 300), 1), 777.5))).findings == ()  # a state of the machine
    assert find_outliers(spoilt(X + 1500, ((slice(0, 300), 1), 0))).findings == ()


def test_rows_that_deviate_together_are_a_mode_of_operation():
    X = table(2, 1000)
    running = spoilt(X, (slice(0, 15), 100 + X[:15]))
    assert find_outliers(running).findings == ()
    assert find_outliers(spoilt(X, ((slice(0, 15), 2), 100 + X[:15, 2]))).mask[:15].all()  # a single column: glitches
    garbage = spoilt(X, (slice(0, 15), 1000 * X[:15]))
    assert find_outliers(garbage).mask[:15].all()


def test_images_and_signals_are_judged_by_their_common_range():
    rng = np.random.default_rng(0)
    dots = np.zeros((400, 1, 8, 8))
    dots[np.arange(400), 0, rng.integers(0, 8, 400), rng.integers(0, 8, 400)] = 1  # bright where others are dark
    assert find_outliers(dots).findings == ()
    assert np.flatnonzero(find_outliers(spoilt(dots, ((9, 0, 1, 1), 1e4))).mask).tolist() == [9]
    flat = rng.random((400, 64)) * (rng.random((400, 64)) < 0.2)  # pixels that are mostly dark
    assert find_outliers(flat).findings == ()
    found = find_outliers(spoilt(flat, ((9, 5), 100)))
    assert (found.findings[0].place, np.flatnonzero(found.mask).tolist()) == ("values", [9])
    bands = rng.random((300, 3, 8, 8)) * [[[1]], [[1]], [[1000]]]
    assert find_outliers(bands).findings == ()
    assert find_outliers(spoilt(bands, ((4, 0, 7, 7), 900))).findings[0].place == "channel 0"
    signals = rng.normal(size=(300, 2, 50)) * [[1], [1000]]
    assert find_outliers(signals).findings == ()
    found = find_outliers(spoilt(signals, ((4, 0, 7), 900)))  # nothing special in the other channel
    assert (found.findings[0].place, np.flatnonzero(found.mask).tolist()) == ("channel 0", [4])


def test_integers():
    rng = np.random.default_rng(0)
    counts = rng.normal(0, 100, (500, 4)).astype(np.int16)
    assert find_outliers(spoilt(counts, ((slice(0, 9), 1), -32768))).findings[0].code == -32768
    ages = rng.integers(18, 40, (500, 4)).astype(np.uint8)
    assert find_outliers(spoilt(ages, ((3, 1), 255))).mask[3]
    assert find_outliers(spoilt(np.zeros((500, 1, 8, 8), np.uint8), ((3, 0, 1), 255))).findings == ()


def test_more_examples_are_counted():
    cells = [((row, 1), 100.0 + 7 * row) for row in (3, 30, 60, 90, 120)]
    (note,) = find_outliers(spoilt(table(1), *cells)).notes
    assert note.count(" deviations away") == 3
    assert "column 1: 940 in row 120 is " in note
    assert "; and 2 more. 5 rows were left out" in note


def test_rows_are_kept_where_hardly_any_would_be_left():
    X = spoilt(table(1, d=30), *[((slice(col, None, 3), col), -9999) for col in range(30)])
    found = find_outliers(X)
    assert not found.mask.any()
    assert "Too few rows would be left" in found.notes[-1]


def test_chunks_of_a_mapped_file_give_the_same_findings(tmp_path, monkeypatch):
    X = spoilt(table(4, 2000), ((7, 1), 1e6), ((1999, 1), -500.0), ((slice(100, 140), 2), -999))
    np.save(tmp_path / "x.npy", X)
    whole = find_outliers(X)
    monkeypatch.setattr("aeedge_export.data.scaling._CHUNK_BYTES", 8 * 5 * 37)
    mapped = find_outliers(np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert mapped.notes == whole.notes
    np.testing.assert_array_equal(mapped.mask, whole.mask)
    assert mapped.mask.sum() == 42


@pytest.mark.parametrize("value", [100.0, -1e25, 3e38])
@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.filterwarnings("ignore:column")
def test_a_glitch_leaves_the_training_as_it_was(value, part):
    X = table(8, 400)
    X = np.repeat(X[:200], 2, axis=0)  # the row that replaces the spoilt one is never far from it
    clean = Autoencoder(**PLAIN).fit(X)
    row = held_out(len(X))[part][20]
    ae = Autoencoder(**PLAIN).fit(spoilt(X, ((row, 2), value)))
    np.testing.assert_array_equal(ae.run_.left_out, [row])
    assert row not in ae.run_.sample_rows
    np.testing.assert_allclose(ae.scaler_.scale, clean.scaler_.scale, rtol=0.02)
    a, b = ae.reconstruction_error(X), clean.reconstruction_error(X)
    assert np.corrcoef(a, b)[0, 1] > 0.99
    assert [n for n in ae.notes_ if f"in row {row}" in n]


@pytest.mark.filterwarnings("ignore:column")
@pytest.mark.parametrize("family", ["dense", "vae", "contractive", "pca"])
def test_a_spoilt_run_ranks_anomalies_as_the_clean_one(family):
    rng = np.random.default_rng(11)
    mixing = rng.normal(size=(2, 6))
    X, fine, off = (rng.normal(size=(n, 2)) @ mixing + 0.1 * rng.normal(size=(n, 6)) for n in (600, 200, 200))
    off[:, 2] += 1.5
    train, validation = held_out(len(X))
    cells = [((train[5], 0), 1e30), ((train[99], 4), -70.0), ((validation[7], 2), 1e25), ((train[200:218], 3), -9999)]
    labels, test = np.repeat([0, 1], 200), np.r_[fine, off]

    def auc(rows):
        ae = Autoencoder(family, latent=2, epochs=15, random_state=0).fit(rows)
        assert np.isfinite(ae.run_.state.best_loss)
        return roc_auc_score(labels, ae.reconstruction_error(test))

    clean = auc(X)
    assert clean > 0.9
    assert auc(spoilt(X, *cells)) > clean - 0.01


@pytest.mark.filterwarnings("ignore:column")
def test_runs_remember_the_rows_that_were_left_out(tmp_path):
    X = spoilt(table(6, 400), ((12, 1), 5000.0), ((slice(50, 60), 2), -999))
    whole = Autoencoder(**PLAIN | {"epochs": 6}, schedule="constant", patience=None).fit(X)
    Autoencoder(**PLAIN, schedule="constant", patience=None).fit(X).save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run")
    np.testing.assert_array_equal(again.run_.left_out, [12, *range(50, 60)])
    again.resume(X, epochs=6)
    for name, tensor in whole.network_.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), again.network_.state_dict()[name].numpy())
    assert again.evaluate(X)["baseline"][0]["error"] < 10
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    document["version"] = 1
    del document["sha256"]  # as runs of former versions
    del document["left_out"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(document))
    assert len(Autoencoder.load(tmp_path / "run").run_.left_out) == 0


@pytest.mark.filterwarnings("ignore:column")
def test_portions_leave_out_their_own_outliers():
    X = table(6, 400)
    ae = Autoencoder(latent=2, hidden=(8,), random_state=0)
    ae.partial_fit(spoilt(X[:200], ((12, 1), 1e30))).partial_fit(spoilt(X[200:], ((3, 0), 1e30)))
    assert [note.split(" is ")[0] for note in ae.notes_] == ["column 1: 1e+30 in row 12", "column 0: 1e+30 in row 3"]
    assert np.isfinite([epoch["train_loss"] for epoch in ae.history_]).all()
    assert ae.reconstruction_error(X).mean() < 10


def test_a_loss_that_is_not_finite_never_becomes_a_run():
    X = table(6, 100)
    X[::7] *= 1e37  # too many to be outliers
    for family in ("dense", "vae", "pca"):
        with pytest.raises(InputError, match="not finite"):
            Autoencoder(family, latent=2, epochs=2, scaling="none", random_state=0).fit(X)
