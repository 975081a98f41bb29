"""encode, decode, denoise, score: shapes, dtypes, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

import aeedge

DATA = Path(__file__).parent.parent / "data"
CLOSE = {"rtol": 1e-5, "atol": 1e-4}  # fp32: a row's rounding may depend on the size of its block


def test_shapes(model, rows):
    assert model.encode(rows).shape == (3000, 3)
    assert model.encode(rows[0]).shape == (3,)
    assert model.decode(model.encode(rows[:5])).shape == (5, 12)
    assert model.decode(model.encode(rows[0])).shape == (12,)
    assert model.denoise(rows[:5]).shape == (5, 12)
    assert model.score(rows[:5]).shape == (5,)
    assert np.ndim(model.score(rows[0])) == 0
    assert model.residual(rows[:5]).shape == (5, 12)
    for result in (model.encode(rows), model.denoise(rows), model.score(rows)):
        assert result.dtype == np.float32


def test_denoise_is_decode_of_encode_and_score_its_error(model, rows):
    clean = model.denoise(rows)
    np.testing.assert_allclose(clean, model.decode(model.encode(rows)), **CLOSE)
    residual = (rows - clean) / model.manifest.score.scale
    np.testing.assert_allclose(model.residual(rows), residual, **CLOSE)
    np.testing.assert_allclose(model.score(rows), (residual**2).mean(axis=1), rtol=1e-4)


def test_the_input_is_never_changed(model, rows):
    x = rows.copy()
    x[5, 5] = np.nan
    before = x.copy()
    model.encode(x, invalid="propagate")
    np.testing.assert_array_equal(x, before)


def test_out_is_written_and_returned(model, rows):
    out = np.full((3000, 3), np.nan, np.float32)
    assert model.encode(rows, out=out) is out
    np.testing.assert_array_equal(out, model.encode(rows))
    wide = np.zeros((3000, 6), np.float32)
    model.encode(rows, out=wide[:, ::2])
    np.testing.assert_array_equal(wide[:, ::2], out)
    one = np.zeros(3, np.float32)
    model.encode(rows[0], out=one)
    np.testing.assert_array_equal(one, model.encode(rows[0]))


@pytest.mark.parametrize(
    "out", [np.zeros((4, 3)), np.zeros((5, 3), np.float32), [1], np.zeros((4, 3, 1), np.float32)], ids=str
)
def test_an_out_that_does_not_fit(model, rows, out):
    with pytest.raises(aeedge.InputError, match=r"out: expected a .*float32 array of shape \(4, 3\), got"):
        model.encode(rows[:4], out=out)


def test_a_read_only_out(model, rows):
    out = np.zeros((4, 3), np.float32)
    out.flags.writeable = False
    with pytest.raises(aeedge.InputError, match="got read-only float32"):
        model.encode(rows[:4], out=out)


@pytest.mark.parametrize("shape", [(3, 11), (11,), (12, 1), (2, 3, 12), ()])
def test_a_wrong_shape(model, shape):
    with pytest.raises(aeedge.InputError, match=r"encode: expected an array of shape \(n, 12\) or \(12,\), got"):
        model.encode(np.ones(shape))


def test_an_empty_array(model):
    with pytest.raises(aeedge.InputError, match="expected at least one row"):
        model.encode(np.ones((0, 12)))


@pytest.mark.parametrize(
    "x", [np.array([["a"] * 12]), np.ones((2, 12), complex), np.array([[None] * 12]), [[1] * 12, [2]], "abc"], ids=str
)
def test_what_is_not_numbers(model, x):
    with pytest.raises(aeedge.InputError, match=r"encode: expected"):
        model.encode(x)


def test_an_unknown_way_of_handling_nan(model, rows):
    with pytest.raises(aeedge.InputError, match="invalid: expected 'raise' or 'propagate', got 'ignore'"):
        model.encode(rows, invalid="ignore")


def test_integer_models_take_raw_integers(pixels):
    images = np.random.default_rng(0).integers(0, 256, (50, 1, 4, 4))
    np.testing.assert_array_equal(pixels.encode(images), pixels.encode(images.astype(np.uint8)))
    with pytest.raises(aeedge.InputError, match=r"encode: expected uint8 .*, got float64; pass the raw values"):
        pixels.encode(images / 255)
    images[7, 0, 1, 2] = 256
    with pytest.raises(
        aeedge.InputError, match=r"expected values from 0 to 255 .*, got 256 in row 7, position \(0, 1, 2\)"
    ):
        pixels.encode(images)


def test_a_bundle_without_decoder_encodes_and_says_what_it_lacks():
    model = aeedge.load(DATA / "bundle_v1_encoder")
    assert model.encode(np.ones((2, 4))).shape == (2, 1)
    with pytest.raises(aeedge.IncompatibleBundleError, match="needs a decoder"):
        model.denoise(np.ones((2, 4)))
    assert [d.what for d in model.self_check()] == ["latent"]


def test_repr_says_what_it_is(model):
    assert "'bundle_v1' (dense, fp32): float32 (12,) -> 3 latents, 2 threads" in repr(model)
