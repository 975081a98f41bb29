"""explain: what takes a value out of a sample, what the score loses by that, and what it is called."""

import copy

import numpy as np
import pytest
from helpers import tampering
from helpers.signals import machine, signal_bundle

import aeedge
from aeedge.bundle.manifest import InputSpec
from aeedge.detection import explain
from aeedge.detection.explain import Cause, Explainer, Parts

from .conftest import DATA

ALL = 12


@pytest.fixture(scope="module")
def plain(model):
    """Rows that are normal, or nearly."""
    rows = model.golden_rows()
    normal = rows[model.score(rows) < 10]
    assert len(normal) >= 8
    return normal[:8].copy()


def close(found, expected):
    """The same causes, up to what float32 leaves open between calls of several sizes."""
    assert [(c.name, c.index) for c in found] == [(c.name, c.index) for c in expected]
    for field in ("share", "residual", "actual", "expected"):
        np.testing.assert_allclose(
            [getattr(c, field) for c in found], [getattr(c, field) for c in expected], rtol=1e-3, atol=1e-4
        )


# ---- what a cause says


def test_each_field_is_what_it_is_said_to_be(model, plain):
    scale = np.broadcast_to(model.manifest.score.scale, model.input.shape).astype(float)
    scores = model.score(plain).astype(float)
    for row, score, causes in zip(plain, scores, model.explain(plain, ALL)):
        assert sorted(c.index for c in causes) == [(j,) for j in range(ALL)]
        losses = []
        for cause in causes:
            (j,) = cause.index
            changed = row.copy()
            changed[j] = cause.expected
            losses.append(max(0.0, score - float(model.score(changed))))
            assert cause.name == model.input.features[j]
            assert cause.actual == row[j]
            assert cause.residual == pytest.approx((cause.actual - cause.expected) / scale[j], rel=1e-9)
        shares = [c.share for c in causes]
        np.testing.assert_allclose(shares, np.array(losses) / max(score, sum(losses)), rtol=1e-3, atol=1e-5)
        assert shares == sorted(shares, reverse=True)
        assert min(shares) >= 0
        assert 0 < sum(shares) <= 1 + 1e-9


def test_what_is_expected_does_not_depend_on_the_value_itself(model, plain):
    for j in range(ALL):
        for value in (-1e6, 0.0, 1e6):
            spoilt = plain.copy()
            spoilt[:, j] = value
            before, after = (
                [next(c.expected for c in causes if c.index == (j,)) for causes in model.explain(x, ALL)]
                for x in (plain, spoilt)
            )
            np.testing.assert_allclose(before, after, rtol=1e-5, atol=1e-5)


def test_a_wild_value_is_named_first(model, plain):
    scale = np.broadcast_to(model.manifest.score.scale, model.input.shape).astype(float)
    for j in range(ALL):
        for sign in (-1, 1):
            spoilt = plain.copy()
            spoilt[:, j] += sign * 100 * scale[j]
            for causes in model.explain(spoilt, 1):
                (cause,) = causes
                assert cause.index == (j,)
                assert cause.share > 0.9
                assert np.sign(cause.residual) == sign


def test_fewer_causes_where_fewer_are_asked_for_or_there(model, plain):
    for top in (1, 3, ALL, ALL + 1, np.int64(2)):
        found = model.explain(plain, top)
        assert isinstance(found, list)
        assert [len(causes) for causes in found] == [min(top, ALL)] * len(plain)
        for causes, more in zip(found, model.explain(plain, ALL)):
            close(causes, more[:top])
    assert [len(causes) for causes in model.explain(plain)] == [3] * len(plain)


def test_a_single_sample_gives_one_tuple(model, plain):
    many = model.explain(plain)
    for row, causes in zip(plain, many):
        one = model.explain(row)
        assert isinstance(one, tuple)
        assert all(isinstance(c, Cause) for c in one)
        close(one, causes)
        close(model.explain(row.tolist()), causes)


@pytest.mark.parametrize("of", ["dict", "pandas", "polars"])
def test_frames_are_taken_by_name(of, model, plain):
    names = model.input.features
    frame = {"other": np.arange(len(plain))} | {n: plain[:, names.index(n)] for n in reversed(names)}
    if of != "dict":
        frame = pytest.importorskip(of).DataFrame(frame)
    for found, expected in zip(model.explain(frame), model.explain(plain)):
        close(found, expected)


def test_the_callers_array_stays_as_it_is(model, plain):
    for given in (plain.copy(), plain.astype(np.float64), np.asfortranarray(plain), np.repeat(plain, 2, 0)[::2]):
        before = given.copy()
        for found, expected in zip(model.explain(given), model.explain(plain)):
            close(found, expected)
        np.testing.assert_array_equal(given, before)


def test_many_samples_are_explained_in_blocks(model, plain, monkeypatch):
    rows = np.concatenate([plain + i for i in range(5)])
    whole = model.explain(rows)
    monkeypatch.setattr(explain, "_TRIED_BYTES", 48 * 7)
    monkeypatch.setattr(explain, "BLOCK_BYTES", 48 * 3)
    for found, expected in zip(model.explain(rows), whole, strict=True):
        close(found, expected)


# ---- what cannot be explained, or only in part


@pytest.mark.parametrize("top", [0, -1, 1.0, True, "3", None, np.float32(2)])
def test_top_is_a_whole_number(top, model, plain):
    with pytest.raises(aeedge.InputError, match="top: expected a whole number of at least 1, got "):
        model.explain(plain, top)


def test_bad_samples_are_refused_as_elsewhere(model, plain):
    for bad in (plain[:, :3], plain[:0], "rows", plain.astype(str), {"s0": plain[:, 0]}):
        with pytest.raises(aeedge.InputError, match=r"^explain: "):
            model.explain(bad)
    with pytest.raises(aeedge.InputError, match="invalid: expected 'raise' or 'propagate'"):
        model.explain(plain, invalid="ignore")
    plain = plain.copy()
    plain[2, 5] = np.nan
    with pytest.raises(
        aeedge.InputError, match=r"explain: expected finite numbers, got nan in row 2, column 5 \('s5'\)"
    ):
        model.explain(plain)


def test_a_bundle_without_a_decoder_is_refused():
    refused = pytest.raises(aeedge.IncompatibleBundleError, match="needs a decoder, but the bundle has only an encoder")
    with aeedge.load(DATA / "bundle_v1_encoder") as encoder, refused:
        encoder.explain(encoder.golden_rows())


def test_a_closed_model_is_refused(plain):
    closed = aeedge.load(DATA / "bundle_v1")
    closed.explain(plain)
    closed.close()
    with pytest.raises(aeedge.AeedgeError, match="was closed"):
        closed.explain(plain)


def test_values_that_are_not_finite_are_the_causes(model, plain):
    spoilt = plain.copy()
    spoilt[0, [3, 7]] = np.nan, np.inf
    spoilt[4] = -np.inf
    found = model.explain(spoilt, invalid="propagate")
    assert [c.name for c in found[0]] == ["s3", "s7"]
    assert [c.share for c in found[0]] == [0.5, 0.5]
    assert [str(c.actual) for c in found[0]] == ["nan", "inf"]
    assert np.isnan([c.residual for c in found[0]]).all()
    assert np.isfinite([c.expected for c in found[0]]).all()
    assert [c.name for c in found[4]] == ["s0", "s1", "s2"]
    assert [c.share for c in found[4]] == [1 / 12] * 3
    for i in (1, 2, 3, 5, 6, 7):  # the others as if these were not there
        close(found[i], model.explain(plain[i]))
    assert [c.name for c in model.explain(spoilt[0], 1, invalid="propagate")] == ["s3"]


def test_what_is_expected_of_a_value_that_is_not_there(model, plain):
    """The same as of the only one that is replaced."""
    known = next(c for c in model.explain(plain[0], ALL) if c.index == (6,))
    spoilt = plain[0].copy()
    spoilt[6] = np.nan
    (missing,) = model.explain(spoilt, invalid="propagate")
    assert missing.expected == pytest.approx(known.expected, rel=1e-5)


def test_scores_beyond_float32(model, plain):
    spoilt = plain.copy()
    spoilt[0, 2] = 3e38
    spoilt[1, [2, 9]] = 3e38, -3e38
    found = model.explain(spoilt, ALL)
    assert found[0][0].index == (2,)
    assert {c.index for c in found[1][:2]} == {(2,), (9,)}
    for causes in found:
        shares = np.array([c.share for c in causes])
        assert np.isfinite(shares).all()
        assert shares.sum() <= 1 + 1e-9
        assert np.isfinite([c.expected for c in causes]).all()


@pytest.mark.parametrize(
    "missing",
    [{"policy": "drop", "codes": {"s4": [-9999.0]}}, {"policy": "median", "codes": {"s4": [-9999.0]}}],
    ids=lambda m: m["policy"],
)
def test_missing_values_as_the_bundle_knows_them(missing, bundle, model, plain):
    fill = [float(v) for v in np.median(model.golden_rows(), axis=0)]
    known = missing | ({"fill": fill} if missing["policy"] == "median" else {})
    tampering.reseal(bundle, lambda d: d["input"].update(missing=known))
    spoilt, filled = plain.copy(), plain.copy()
    spoilt[1, 4], filled[1, 4] = -9999, fill[4]
    with aeedge.load(bundle, threads=1) as knowing:
        if missing["policy"] == "drop":
            with pytest.raises(aeedge.InputError, match=r"explain: .*the code of a missing value"):
                knowing.explain(spoilt)
            (cause,) = knowing.explain(spoilt, invalid="propagate")[1]
            assert (cause.name, cause.share, cause.actual) == ("s4", 1.0, -9999.0)
            return
        found, expected = knowing.explain(spoilt, ALL), model.explain(filled, ALL)
    for i in range(len(plain)):
        close(found[i], [c._replace(actual=-9999.0) if (i, c.index) == (1, (4,)) else c for c in expected[i]])


# ---- integers, images, signals


def test_integers_are_replaced_by_integers_of_their_range(pixels):
    rows = pixels.golden_rows()
    for row, causes in zip(rows, pixels.explain(rows, 99)):
        assert len(causes) == 16
        for cause in causes:
            assert cause.actual == row[cause.index]
            assert cause.expected == round(cause.expected)
            assert 0 <= cause.expected <= 255
            assert cause.name == f"pixel {cause.index[1:]}"
    with pytest.raises(aeedge.InputError, match="explain: expected uint8"):
        pixels.explain(rows.astype(np.float32))
    with pytest.raises(aeedge.InputError, match="explain: expected values from 0 to 255"):
        pixels.explain(rows.astype(int) + 300)


def test_of_many_pixels_those_with_large_residuals_are_tried():
    with aeedge.load(DATA / "bundle_v1_int8", threads=1) as images:
        rows = images.golden_rows()
        for residual, causes in zip(np.abs(images.residual(rows)), images.explain(rows, 999)):
            tried = np.zeros(residual.shape, bool)
            for cause in causes:
                tried[cause.index] = True
            assert tried.sum() == len(causes) == explain.CANDIDATES < tried.size
            assert residual[tried].min() >= residual[~tried].max()


def names_of(shape, dtype="float32", features=None, last=False):
    """Of every value of a sample, through parts and back: each index once, and its name."""
    parts = Parts(InputSpec(shape, dtype, features), last)
    sample = np.arange(np.prod(shape)).reshape((1, *shape))
    view, found = parts(sample), {}
    for part in range(view.shape[1]):
        for position in range(view.shape[2]):
            index = parts.index(part, position)
            assert sample[(0, *index)] == view[0, part, position]
            found[index] = parts.name(index)
    assert len(found) == sample.size
    return found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (((3,),), {(1,): "1"}),
        (((3,), "float32", ("a", "b", "c")), {(1,): "b"}),
        (((3, 50),), {(2, 7): "channel 2"}),
        (((50, 3), "float32", None, True), {(7, 2): "channel 2"}),
        (((1, 50),), {(0, 7): "sample 7"}),
        (((50, 1), "int16", None, True), {(7, 0): "sample 7"}),
        (((4, 5), "uint8"), {(1, 3): "pixel (1, 3)"}),
        (((1, 4, 5),), {(0, 1, 3): "pixel (1, 3)"}),
        (((4, 5, 1), "uint8", None, True), {(1, 3, 0): "pixel (1, 3)"}),
        (((3, 4, 5),), {(2, 1, 3): "pixel (1, 3), channel 2"}),
        (((4, 5, 3), "float32", None, True), {(1, 3, 2): "pixel (1, 3), channel 2"}),
        (((2, 2, 2, 2),), {(0, 1, 0, 1): "pixel (0, 1, 0, 1)"}),
    ],
)
def test_names_and_places(given, expected):
    found = names_of(*given)
    for index, name in expected.items():
        assert found[index] == name


@pytest.mark.parametrize("last", [False, True])
def test_a_channel_is_replaced_as_a_whole(last):
    """Three channels, each a multiple of one wave: two channels always say what the third should be."""
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(40) / 3) * rng.uniform(1, 2, (30, 1)) + rng.normal(size=(30, 1))
    factors = np.array([1.0, -2.0, 5.0])
    clean = (wave[:, np.newaxis] * factors[:, np.newaxis]).astype(np.float32)

    def denoise(x, invalid=None):
        x = x.swapaxes(1, 2) if last else x
        shared = np.median(x / factors[:, np.newaxis], axis=1, keepdims=True)
        found = (shared * factors[:, np.newaxis]).astype(np.float32)
        return found.swapaxes(1, 2) if last else found

    def score(x, invalid=None):
        return np.square(x - denoise(x)).mean(axis=(1, 2))

    given = clean.copy()
    given[:, 1, 10:20] += 3
    given[:, 1, 15] += 2  # the farthest
    shape = (40, 3) if last else (3, 40)
    rows = np.ascontiguousarray(given.swapaxes(1, 2)) if last else given
    typical = np.zeros(shape, np.float32)
    found = Explainer(InputSpec(shape, "float32"), np.float32(1), typical, last, score, denoise)(rows, 1, "raise")
    for row, (cause,) in zip(range(30), found):
        assert cause.name == "channel 1"
        assert cause.index == ((15, 1) if last else (1, 15))
        assert cause.share > 0.5
        assert cause.residual == pytest.approx(5, abs=1e-4)
        assert cause.expected == pytest.approx(clean[row, 1, 15], abs=1e-4)


# ---- the method


class Projection:
    """PCA in numpy: what a linear autoencoder with the least squared error does."""

    def __init__(self, rows, latent):
        self.mean = rows.mean(axis=0)
        _, _, axes = np.linalg.svd(rows - self.mean, full_matrices=False)
        self.matrix = axes[:latent].T @ axes[:latent]

    def denoise(self, x, invalid=None):
        return ((x - self.mean) @ self.matrix + self.mean).astype(np.float32)

    def score(self, x, invalid=None):
        return np.square(x - self.denoise(x)).mean(axis=1)

    def contributions(self, x):
        """Alcala and Qin's: the residual of a value, over what of a fault of it stays in the residual, squared."""
        kept = 1 - np.diag(self.matrix)
        return np.square(x - self.denoise(x)) / kept


def correlated(rng, n, width=10, latent=3):
    mixed = rng.normal(size=(n, latent)) @ np.random.default_rng(7).normal(size=(latent, width))
    return (mixed / mixed.std() + 0.15 * rng.normal(size=(n, width))).astype(np.float32)


@pytest.fixture(scope="module")
def linear():
    rng = np.random.default_rng(0)
    train = correlated(rng, 500)
    net = Projection(train, 3)
    spec = InputSpec((10,), "float32")
    explainer = Explainer(spec, np.ones(10, np.float32), np.median(train, axis=0), False, net.score, net.denoise)
    return net, explainer, rng


def test_of_pca_shares_are_reconstruction_based_contributions(linear, monkeypatch):
    net, explainer, rng = linear
    monkeypatch.setattr(explain, "ROUNDS", 200)  # until it is the fixed point
    x = correlated(rng, 50) + rng.normal(size=(50, 10)).astype(np.float32)
    theirs = net.contributions(x)
    whole = np.maximum(10 * net.score(x), theirs.sum(axis=1))
    for row, causes in enumerate(explainer(x, 10, "raise")):
        for cause in causes:
            assert cause.share == pytest.approx(theirs[row, cause.index[0]] / whole[row], rel=1e-2, abs=1e-3)


def test_the_faulty_sensor_is_named(linear):
    """Also where the largest residual is that of another sensor."""
    net, explainer, rng = linear
    x = correlated(rng, 600)
    threshold = np.sort(net.score(correlated(rng, 999)))[-10]
    faulty = rng.integers(10, size=len(x))
    x[np.arange(len(x)), faulty] += rng.choice([-1, 1], len(x)) * rng.uniform(1, 4, len(x))
    detected = net.score(x) > threshold
    assert detected.sum() > 300
    causes = explainer(x[detected], 1, "raise")
    right = np.array([first.index[0] for (first,) in causes]) == faulty[detected]
    largest = np.abs(x - net.denoise(x))[detected].argmax(axis=1) == faulty[detected]
    assert right.mean() >= 0.95
    assert right.mean() > largest.mean()


def test_explaining_is_independent_of_how_often_it_is_done(model, plain):
    first = model.explain(plain)
    assert first == model.explain(plain)
    assert copy.copy(first[0][0]) == first[0][0]


def test_channels_of_a_signal_have_their_names(tmp_path):
    with aeedge.load(signal_bundle(tmp_path / "machine")) as model:
        windows = np.array(aeedge.window(machine(200, seed=1), 32, 32))
        for channel, name in enumerate("xy"):
            broken = windows.copy()
            broken[:, :, channel] += 3
            assert [causes[0].name for causes in model.explain(broken)] == [name] * len(broken)
