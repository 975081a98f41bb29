"""Codes of latents at export: which steps are chosen, by which rows, and that what is recorded is true."""

import copy

import numpy as np
import pytest
from helpers.factory import canonical, factory_rows
from torch import nn

import aeedge
from aeedge.errors import IncompatibleBundleError
from aeedge.recalibration import recalibrate
from aeedge.runtime.codes import dequantize, quantize
from aeedge_export import export_bundle
from aeedge_export.alarms import Normal
from aeedge_export.bundle import _code_rows
from aeedge_export.networks.front_ends import front_end
from aeedge_export.quantization.codes import choose_steps, code_scales
from aeedge_export.quantization.encoder_decoder import EncoderDecoder

BITS = pytest.mark.parametrize("bits", [8, 4])


@pytest.fixture(scope="module")
def frozen(net):
    return copy.deepcopy(net)


@pytest.fixture(scope="module")
def path(frozen, tmp_path_factory):
    """A bundle of both variants."""
    path = tmp_path_factory.mktemp("codes") / "net.aeedge"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aeedge_export.quantization.choice._FASTER", float("inf"))
        made = exported(frozen, path, variants=("fp32", "int8"))
    assert set(made.variants) == {"fp32", "int8"}
    return path


@pytest.fixture(scope="module")
def graphs(frozen):
    return {"fp32": EncoderDecoder(canonical(frozen, factory_rows()), np.float32(1))}


def exported(net, path, rows=None, **options):
    rows = factory_rows() if rows is None else rows
    return export_bundle(encoder=net[0], decoder=net[1], path=path, example=rows, **options)


def mean_error(model, rows, latents):
    return float(np.square(rows - model.decode(latents)).mean(dtype=float))


@BITS
@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_recorded_errors_are_those_of_rows_without_a_say(path, bits, variant):
    """Only the judging rows give exactly these errors; others are close, for both variants."""
    rows = factory_rows()
    order = np.random.default_rng(0).permutation(len(rows))
    with aeedge.load(path, variant=variant, threads=1) as model:
        scale = model.manifest.codes.scales[bits]

        def ratio(rows):
            coded = model.decode(model.encode(rows, bits=bits), bits=bits)
            plain = mean_error(model, rows, model.encode(rows))
            return np.square(rows - coded).mean(dtype=float) / plain

        judging, unseen = rows[order[450:]], factory_rows(2000, seed=7)
        assert model.manifest.codes.rows == len(judging) == 150
        assert scale.error_ratio[variant] == pytest.approx(ratio(judging), rel=1e-3)
        assert scale.error_ratio[variant] != pytest.approx(ratio(rows[order[300:450]]), rel=1e-4)
        assert scale.error_ratio[variant] == pytest.approx(ratio(unseen), rel=0.02 if bits == 8 else 0.1)
        assert 0.99 < scale.error_ratio[variant] < (1.02 if bits == 8 else 1.5)
        assert scale.latent_error < (0.02 if bits == 8 else 0.2)


def test_variants_share_codes(path):
    """What one variant encodes the other one decodes, nearly as its own."""
    rows = factory_rows(500, seed=8)
    with aeedge.load(path, variant="fp32") as fp32, aeedge.load(path, variant="int8") as int8:
        for bits, most in ((8, 1.03), (4, 1.3)):
            theirs = np.square(rows - fp32.decode(int8.encode(rows, bits=bits), bits=bits)).mean()
            assert theirs <= most * mean_error(fp32, rows, fp32.encode(rows))


def test_steps_are_a_part_of_the_identity(path, frozen, tmp_path):
    """A receiver knows by the id how to read codes; two exports of the same are the same bytes."""
    some, others = factory_rows(), factory_rows(seed=3)
    made = [exported(frozen, tmp_path / str(i), rows, name="net") for i, rows in enumerate((some, some, others))]
    assert made[0].dumps() == made[1].dumps()
    assert made[0].variants["fp32"].encoder.bytes == made[2].variants["fp32"].encoder.bytes
    assert made[0].codes != made[2].codes
    assert made[0].id != made[2].id


def test_a_recalibrated_bundle_keeps_its_codes(path, tmp_path):
    rows = factory_rows(400, seed=11)
    recalibrate(path, rows, tmp_path / "new.aeedge")
    with aeedge.load(path) as old, aeedge.load(tmp_path / "new.aeedge") as new:
        assert new.manifest.codes == old.manifest.codes
        assert new.manifest.parent == old.manifest.id != new.manifest.id
        sent = old.encode(rows, bits=4)
        np.testing.assert_array_equal(new.encode(rows, bits=4), sent)
        np.testing.assert_array_equal(new.decode(sent, bits=4), old.decode(sent, bits=4))


def test_fewer_rows_than_it_takes_are_no_codes(graphs, frozen, tmp_path):
    assert code_scales(graphs, factory_rows(19)) is None
    assert code_scales(graphs, factory_rows(20)).rows == 5
    exported(frozen, tmp_path / "few", factory_rows(19))
    with (
        aeedge.load(tmp_path / "few") as model,
        pytest.raises(IncompatibleBundleError, match="export it again, with this version of aeedge and 20 or more"),
    ):
        model.encode(factory_rows(3), bits=8)


def test_rows_of_the_calibration_come_before_the_example(frozen, tmp_path):
    rows = factory_rows(400)
    inner = 0.5 + 0.5 * (rows - 0.5)
    plain, calibrated = (
        exported(frozen, tmp_path / str(i), rows, calibration=given) for i, given in enumerate((None, inner[:40]))
    )
    assert sum(calibrated.codes.scales[8].step) < 0.9 * sum(plain.codes.scales[8].step)
    assert (plain.codes.rows, calibrated.codes.rows) == (100, 10)


def test_normal_rows_count_as_well_and_none_twice():
    rows = factory_rows(150)
    found = _code_rows(rows[:100], None, Normal(rows[50:]))
    np.testing.assert_array_equal(found, rows)


def test_a_bundle_without_decoder_has_the_error_of_latents(frozen, tmp_path):
    made = export_bundle(encoder=frozen[0], path=tmp_path / "encoder", example=factory_rows())
    for bits, most in ((8, 0.02), (4, 0.2)):
        scale = made.codes.scales[bits]
        assert not scale.error_ratio
        with aeedge.load(tmp_path / "encoder") as model:
            latents = model.encode(factory_rows(1000, seed=2))
            steps = [np.array(values) for values in (scale.low, scale.step)]
            off = dequantize(quantize(latents, *steps, bits), *steps) - latents
        relative = np.sqrt(np.square(off).mean() / np.square(latents - latents.mean(axis=0)).mean())
        assert scale.latent_error == pytest.approx(relative, rel=0.2)
        assert 0 < scale.latent_error < most


def test_features_of_a_front_end_are_judged(tmp_path):
    made = front_end("spectrum", 64, ("x",), 100.0)
    width = len(made.names)
    down, up = nn.Linear(width, 3), nn.Linear(3, width)
    rows = np.random.default_rng(0).normal(size=(200, 64, 1)).astype(np.float32)
    manifest = export_bundle(encoder=down, decoder=up, path=tmp_path / "a", example=rows, front_end=made)
    with aeedge.load(tmp_path / "a") as model:
        codes = model.encode(rows, bits=8)
        assert model.decode(codes, bits=8).shape == (200, width)
    assert manifest.codes.scales[8].error_ratio["fp32"] == pytest.approx(1, rel=0.01)


@BITS
def test_latents_that_are_always_the_same_come_back(bits):
    """Also zero, and far from zero."""
    same = np.array([[0.0, 12345.678, -1e-30, 1e30, -7.0]], np.float32).repeat(20, axis=0)
    low, step = choose_steps(same, same, bits, lambda z: None)
    wide = low.astype(float), step.astype(float)
    assert (step > 0).all()
    np.testing.assert_array_equal(dequantize(quantize(same, *wide, bits), *wide), same)


def test_maps_of_very_many_latents_share_a_step(tmp_path):
    rows = np.random.default_rng(0).normal(size=(40, 1, 72, 72)).astype(np.float32)
    down, up = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)
    made = export_bundle(encoder=down, decoder=up, path=tmp_path / "wide", example=rows)
    assert [len(made.codes.scales[bits].low) for bits in (8, 4)] == [1, 1]
    assert (tmp_path / "wide" / "manifest.json").stat().st_size < 2**14
    with aeedge.load(tmp_path / "wide") as model:
        codes = model.encode(rows, bits=4)
        assert codes.shape == (40, 2592)
        assert model.decode(codes, bits=4).shape == rows.shape


@pytest.mark.parametrize("place", [0, 60, 90])
def test_latents_that_are_not_finite_have_no_codes(graphs, place):
    """Wherever the row has its say."""
    rows = factory_rows(100)
    rows[np.random.default_rng(0).permutation(100)[place]] = 3e38
    assert code_scales(graphs, rows) is None


def test_the_estimator_exports_codes(trained, tmp_path, rows):
    made = trained.export(tmp_path / "a.aeedge")
    with aeedge.load(tmp_path / "a.aeedge") as model:
        back = model.decode(model.encode(rows, bits=8), bits=8)
    scale = trained.run_.scaler.scale
    coded, plain = (
        np.square((rows - other) / scale).mean() for other in (back, trained.inverse_transform(trained.transform(rows)))
    )
    assert coded / plain == pytest.approx(made.codes.scales[8].error_ratio["fp32"], abs=0.02)


# --- the choice


def heavy(n, k=3, seed=0):
    return np.random.default_rng(seed).standard_t(4, size=(n, k)).astype(np.float32)


def cost(latents, steps, bits):
    wide = [values.astype(float) for values in steps]
    return float(np.square(dequantize(quantize(latents, *wide, bits), *wide) - latents).mean(dtype=float))


def test_extremes_are_cut_off_at_4_bits_and_not_at_8():
    latents, others, unseen = heavy(1000), heavy(500, seed=1), heavy(5000, seed=2)
    spans = {}
    for bits in (8, 4):
        low, step = choose_steps(latents, others, bits, lambda z: None)
        spans[bits] = (2**bits - 1) * step
        least, most = latents.min(axis=0), latents.max(axis=0)
        full = least, (most - least) / (2**bits - 1)
        if bits == 4:
            assert cost(unseen, (low, step), bits) < 0.9 * cost(unseen, full, bits)
    assert (spans[4] < spans[8]).all()


def test_ends_are_kept_where_the_latents_have_them():
    uniform = np.random.default_rng(0).uniform(-1, 1, (3000, 2)).astype(np.float32)
    low, step = choose_steps(uniform[:2000], uniform[2000:], 4, lambda z: None)
    np.testing.assert_allclose(low, -1, atol=0.15)
    np.testing.assert_allclose(low + 15 * step, 1, atol=0.15)


def test_latents_that_are_often_zero_have_a_code_for_zero():
    rectified = np.maximum(np.random.default_rng(0).normal(size=(3000, 2)) - 0.5, 0).astype(np.float32)
    low, _ = choose_steps(rectified[:2000], rectified[2000:], 4, lambda z: None)
    assert (low == 0).all()


def test_reconstructions_decide_not_latents():
    """A decoder that saturates does not care for extremes; one that squares them does."""
    latents, others = heavy(1000), heavy(500, seed=1)

    def saturating(z):
        return np.square(np.tanh(2 * z) - np.tanh(2 * others)).mean(axis=1)

    def squaring(z):
        return np.square(z**3 - others**3).mean(axis=1)

    spans = [choose_steps(latents, others, 4, errors)[1].sum() for errors in (saturating, squaring)]
    assert spans[0] < spans[1]


def test_choosing_rows_do_not_judge(graphs):
    """The steps follow from three quarters of the rows: whatever the last ones are, they are the same."""
    rows = factory_rows(400)
    order = np.random.default_rng(0).permutation(400)
    changed = rows.copy()
    changed[order[300:]] = 1 - 0.3 * changed[order[300:]]
    made = [code_scales(graphs, x) for x in (rows, changed)]
    for bits in (8, 4):
        a, b = (codes.scales[bits] for codes in made)
        assert (a.low, a.step) == (b.low, b.step)
        assert a.error_ratio != b.error_ratio
