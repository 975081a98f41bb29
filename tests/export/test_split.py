"""Training, validation, calibration and later rows: none in two parts, and those for calibration have no say."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aeedge.bundle.manifest import Missing
from aeedge.errors import InputError
from aeedge_export import Autoencoder
from aeedge_export.data.rows import kept_rows, split, split_options
from aeedge_export.data.windows import windows_per_span

SMALL = {"latent": 2, "hidden": (8,), "epochs": 2, "random_state": 0, "threads": 1}


def table(n, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, 2)) @ rng.normal(size=(2, 5)) + 0.2 * rng.normal(size=(n, 5))).astype(np.float32)


def weights_of(ae):
    return {name: tensor.numpy() for name, tensor in ae.network_.state_dict().items()}


def assert_same_training(one, other):
    for name, values in weights_of(one).items():
        np.testing.assert_array_equal(values, weights_of(other)[name])
    np.testing.assert_array_equal(one.scaler_.mean, other.scaler_.mean)
    np.testing.assert_array_equal(one.sample_, other.sample_)


@settings(deadline=None, max_examples=150)
@given(
    n=st.integers(60, 900),
    validation=st.sampled_from([0, 0.1, 0.3]),
    calibration=st.sampled_from([0, 0.1, 0.3, "auto"]),
    time_ordered=st.booleans(),
    gap=st.integers(0, 2),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_no_row_is_in_two_parts(n, validation, calibration, time_ordered, gap, seed, data):
    left_out = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=n // 5, unique=True)), np.intp)
    zero = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=n // 5, unique=True)), np.intp)
    weights = np.ones(n, np.float32)
    weights[zero] = 0
    options = {"calibration": calibration, "time_ordered": time_ordered, "gap": gap}
    whole = split(n, validation, seed, weights=weights, **options)
    assume(not np.isin(whole.train, left_out).all())
    parts = split(n, validation, seed, left_out, weights if len(zero) else None, **options)
    disjoint = [np.unique(part) for part in parts]  # a training row may stand for another one
    together = np.concatenate(disjoint)
    assert len(np.unique(together)) == len(together)
    assert not np.isin(together, [*left_out, *zero]).any()
    assert len(parts.train)
    assert bool(len(parts.validation)) >= bool(validation and not len(left_out))
    if calibration != "auto" and not len(left_out):
        assert bool(len(parts.calibration)) == bool(calibration)
    if not time_ordered:
        assert not len(parts.later)
        return
    full = [part for part in disjoint if len(part)]
    for before, after in pairwise(full):
        assert after.min() - before.max() > gap
    positions = np.flatnonzero(weights)
    for part in whole:  # blocks: without a hole
        at = np.searchsorted(positions, part)
        assert (np.diff(at) == 1).all()


@settings(deadline=None, max_examples=50)
@given(n=st.integers(10, 400), seed=st.integers(0, 99), share=st.sampled_from([0.1, 0.5]))
def test_random_calibration_rows_take_no_row_from_validation(n, seed, share):
    without, parts = split(n, 0.2, seed), split(n, 0.2, seed, calibration=share)
    np.testing.assert_array_equal(parts.validation, without.validation)
    assert len(parts.calibration) == max(round(n * share), 1)
    np.testing.assert_array_equal(np.union1d(parts.train, parts.calibration), without.train)


@pytest.mark.parametrize(
    ("n", "options", "sizes"),
    [
        (494, {}, (445, 49, 0, 0)),
        (495, {}, (340, 50, 105, 0)),
        (2000, {}, (1600, 200, 200, 0)),
        (100_000, {}, (85_904, 10_000, 4096, 0)),
        (100_000, {"row_bytes": 2**20}, (89_936, 10_000, 64, 0)),
        (2000, {"validation": 0.9}, (200, 1800, 0, 0)),
        (2000, {"time_ordered": True, "gap": 10}, (1470, 200, 200, 100)),
        (2000, {"time_ordered": True, "gap": 400}, (1400, 200, 0, 0)),
    ],
)
def test_how_many_rows_are_enough(n, options, sizes):
    parts = split(n, **{"validation": 0.1, "seed": 0, "calibration": "auto"} | options)
    assert tuple(map(len, parts)) == sizes


def test_compression_needs_no_thresholds():
    params = Autoencoder().get_params()
    assert split_options(params)["calibration"] == "auto"
    assert split_options(params | {"goal": "compress"})["calibration"] == 0
    assert split_options(params | {"goal": "compress", "calibration": 0.2})["calibration"] == 0.2


@pytest.mark.parametrize("options", [{"calibration": 0.5, "validation": 0.6}, {"time_ordered": True, "gap": 200}])
def test_blocks_that_leave_nothing_to_train_on_are_one_sentence(options):
    X = table(100)
    with pytest.raises(InputError, match=r"^X: expected rows to train on beside .* got 100 in all; use more rows, or"):
        Autoencoder(**SMALL, **options).fit(X)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 300), most=st.integers(1, 60), time_ordered=st.booleans())
def test_kept_rows_are_some_of_them_in_order(n, most, time_ordered):
    rows = 3 * np.arange(n)
    kept = kept_rows(rows, most, 0, time_ordered=time_ordered)
    assert len(kept) == min(n, most)
    assert np.isin(kept, rows).all()
    assert (np.diff(kept) > 0).all()
    if time_ordered and most > 1:
        assert (kept[0], kept[-1]) == (rows[0], rows[-1])
        steps = np.diff(kept)
        assert not len(steps) or steps.max() - steps.min() <= 3


@pytest.mark.parametrize("family", ["dense", "pca", "conv1d"])
@pytest.mark.parametrize("time_ordered", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_calibration_rows_have_no_say(family, time_ordered):
    X = table(800)
    X = X if family != "conv1d" else np.repeat(X, 4, axis=1).reshape(800, 2, 10)
    options = SMALL | ({} if family == "dense" else {"hidden": "auto"}) | {"family": family}
    ae = Autoencoder(**options, time_ordered=time_ordered).fit(X)
    parts = ae.run_.split(800)
    assert len(parts.calibration) >= 99
    assert bool(len(parts.later)) == time_ordered
    np.testing.assert_array_equal(ae.run_.calibration, X[parts.calibration])
    rng = np.random.default_rng(1)
    for change in (lambda x: 1000 * x, lambda x: rng.permuted(x, axis=1) - 3, lambda x: np.where(x > 1, 1e9, x)):
        other = X.copy()
        for part in (parts.calibration, parts.later):
            other[part] = change(X[part])
        again = Autoencoder(**options, time_ordered=time_ordered).fit(other)
        assert_same_training(ae, again)
    changed = X.copy()
    changed[parts.validation] *= 2  # this comparison can tell
    assert not np.array_equal(Autoencoder(**options, time_ordered=time_ordered).fit(changed).sample_, ae.sample_)


@pytest.mark.filterwarnings("ignore")
def test_a_glitch_among_calibration_rows_is_left_out_and_said():
    X = table(800)
    parts = Autoencoder(**SMALL).fit(X).run_.split(800)
    X[parts.calibration[3], 2] = 1e9
    ae = Autoencoder(**SMALL).fit(X)
    assert ae.run_.left_out.tolist() == [parts.calibration[3]]
    assert len(ae.run_.calibration) == len(parts.calibration) - 1 >= 99
    assert ae.run_.calibration.max() < 1e3
    assert [note for note in ae.notes_ if note.endswith("1 row was left out of calibration")]


@pytest.mark.parametrize("options", [{"time_ordered": True, "gap": 7}, {"calibration": 0.3}, {"calibration": 0}])
def test_a_run_keeps_its_split(tmp_path, options):
    X = table(700)
    plain = SMALL | {"schedule": "constant", "patience": None} | options
    whole = Autoencoder(**plain | {"epochs": 4}).fit(X)
    Autoencoder(**plain).fit(X).save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run")
    again.set_params(validation=0.3, calibration=0.0, time_ordered=False)  # of another fit, not of this run
    again.resume(X, epochs=4)
    assert_same_training(whole, again)
    for one, other in zip(whole.run_.split(700), again.run_.split(700)):
        np.testing.assert_array_equal(one, other)
    assert again.run_.time_ordered == whole.run_.time_ordered == ("gap" in options)
    for name in ("calibration", "later"):
        kept, expected = getattr(again.run_, name), getattr(whole.run_, name)
        assert (kept is None) == (expected is None)
        if kept is not None:
            np.testing.assert_array_equal(kept, expected)
    compared = again.evaluate(X)
    assert compared["rows_compared"] == len(whole.run_.split(700).validation)


def test_portions_and_compression_hold_nothing_out():
    X = table(800)
    for ae in (Autoencoder(**SMALL).partial_fit(X), Autoencoder(**SMALL, goal="compress").fit(X)):
        assert ae.run_.calibration is None
        assert ae.run_.later is None


def test_given_calibration_rows_take_the_place_of_a_share(tmp_path):
    X, others = table(600), table(5000, seed=1)
    ae = Autoencoder(**SMALL).fit_rows(X, calibration_rows=others)
    assert_same_training(ae, Autoencoder(**SMALL, calibration=0).fit(X))
    assert ae.run_.calibration.shape == (4096, 5)
    assert np.isin(ae.run_.calibration[:, 0], others[:, 0]).all()
    ae.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run")
    np.testing.assert_array_equal(again.run_.calibration, ae.run_.calibration)
    again.resume(X, epochs=3)
    assert len(again.run_.calibration) == 4096


@pytest.mark.filterwarnings("ignore:column")
def test_given_calibration_rows_are_treated_as_a_device_would():
    pandas = pytest.importorskip("pandas")
    names = list("abcde")
    X, others = pandas.DataFrame(table(300), columns=names), table(200, seed=1)
    spoilt = others.copy()
    spoilt[3, 1], spoilt[9, 2] = np.nan, 1e9
    shuffled = pandas.DataFrame(spoilt, columns=names)[list("edcba")].assign(more=1.0)
    for policy, count in ((Missing("drop", {}), 198), (Missing("median", {}, (0.0,) * 5), 199)):
        ae = Autoencoder(**SMALL)
        with pytest.warns(UserWarning, match="calibration_rows: column 'c': .* 1 row was left out of calibration"):
            ae.fit_rows(X, missing=policy, calibration_rows=shuffled)
        assert len(ae.run_.calibration) == count
        np.testing.assert_array_equal(ae.run_.calibration[0], others[0])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((50, 4)), r"calibration_rows: expected rows of shape \(5,\), got an array \(50, 4\) float64"),
        (np.zeros(5), r"expected rows of shape \(5,\), got an array \(5,\)"),
        (np.zeros((0, 5)), "calibration_rows: expected rows .* got none"),
        (np.full((50, 5), "a"), "expected rows of shape"),
        ([[1, 2], [3]], "calibration_rows: expected rows of shape"),
        (np.full((50, 5), np.nan), "calibration_rows: expected finite numbers that fit float32, got nan in row 0"),
    ],
    ids=["narrow", "flat", "empty", "text", "ragged", "nan"],
)
def test_calibration_rows_that_do_not_fit_are_one_sentence(rows, message):
    with pytest.raises(InputError, match=message):
        Autoencoder(**SMALL).fit_rows(table(100), calibration_rows=rows)


def test_calibration_rows_keep_the_dtype_of_the_run():
    X = np.random.default_rng(0).integers(0, 256, (300, 1, 6, 6)).astype(np.uint8)
    ae = Autoencoder(**SMALL).fit_rows(X, calibration_rows=X[:50].astype(np.float64))
    assert ae.run_.calibration.dtype == np.uint8
    with pytest.raises(InputError, match="calibration_rows: expected uint8 as the rows to train on, got float32"):
        Autoencoder(**SMALL).fit_rows(X, calibration_rows=X[:50] / np.float32(255))


def test_a_run_of_before_held_nothing_out(tmp_path):
    X = table(600)
    plain = SMALL | {"schedule": "constant", "patience": None, "calibration": 0.0}
    Autoencoder(**plain).fit(X).save(tmp_path / "run")
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    document["version"] = 1
    del document["sha256"]
    for name in ("calibration", "time_ordered", "gap"):
        del document["params"][name]
    (tmp_path / "run" / "run.json").write_text(json.dumps(document))
    again = Autoencoder.load(tmp_path / "run")
    assert again.run_.calibration is None
    assert again.run_.time_ordered is False
    again.resume(X, epochs=4)
    assert_same_training(again, Autoencoder(**plain | {"epochs": 4}).fit(X))


@pytest.mark.parametrize("hop", [1, 5, 20])
@pytest.mark.parametrize("layout", ["table", "channels first", "channels last"])
def test_windows_that_overlap_are_found(hop, layout):
    recording = np.random.default_rng(0).normal(size=(900, 2)).astype(np.float32)
    windows = np.stack([recording[start : start + 32] for start in range(0, 900 - 32, hop)])
    rows = {"table": windows[:, :, 0], "channels first": windows.transpose(0, 2, 1), "channels last": windows}[layout]
    assert windows_per_span(rows) == -(-32 // hop)
    assert windows_per_span(rows[:: 32 // hop + 1]) == 0
    assert windows_per_span(np.random.default_rng(1).permutation(rows)) == 0


def test_tables_and_images_do_not_overlap(digits):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(500, 12))
    table[:, [0, 5, 11]] = 3.0  # constant columns
    for rows in (table, np.zeros((50, 20)), digits, digits.reshape(-1, 8, 8), rng.integers(0, 2, (400, 9)), table[:3]):
        assert windows_per_span(rows) == 0


def test_windows_that_overlap_are_split_in_time_order():
    recording = np.sin(np.arange(3400) / 9) + 0.1 * np.random.default_rng(0).normal(size=3400)
    windows = np.stack([recording[start : start + 32] for start in range(0, 3300, 2)]).astype(np.float32)
    with pytest.warns(UserWarning, match=r"rows overlap, .* 16 rows later\): .* blocks at the end, 16 rows apart"):
        ae = Autoencoder(latent=2, hidden=(8,), epochs=1, random_state=0).fit(windows)
    parts = ae.run_.split(len(windows))
    assert ae.run_.time_ordered
    for before, after in pairwise(parts):
        assert after[0] - before[-1] > 16
    ae = Autoencoder(latent=2, hidden=(8,), epochs=1, random_state=0, time_ordered=False).fit(windows)
    assert not ae.run_.time_ordered
