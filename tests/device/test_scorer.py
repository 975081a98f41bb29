"""scorer.onnx, encoder, decoder and score as one graph: the same scores, and checked before it runs."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import reference
from helpers.tampering import reseal

import aeedge
from aeedge.cli.group import AeedgeGroup

DATA = Path(__file__).parent.parent / "data"
BUNDLES = ["bundle_v1_scorer", "bundle_v1_scorer_int8"]


@pytest.fixture
def sensors(tmp_path):
    return Path(shutil.copytree(DATA / "bundle_v1_scorer", tmp_path / "motor.aeedge"))


def without_scorer(name, tmp_path):
    path = Path(shutil.copytree(DATA / name, tmp_path / "plain.aeedge"))
    reseal(path, lambda document: [variant.pop("scorer") for variant in document["variants"].values()])
    return path


@pytest.mark.parametrize("variant", ["fp32", "int8"])
@pytest.mark.parametrize("name", BUNDLES)
def test_scores_are_those_of_encoder_and_decoder(name, variant, tmp_path):
    if variant == "int8" and not name.endswith("int8"):
        variant = "fp32"
    plain = without_scorer(name, tmp_path)
    with aeedge.load(DATA / name, variant=variant) as model, aeedge.load(plain, variant=variant) as other:
        rows = reference.rows_of(model, 3000)
        for count in (1, 3, 16, 64, 300, 3000):
            assert reference.same(model, "score", model.score(rows[:count]), other.score(rows[:count]))
        assert np.ndim(model.score(rows[0])) == 0
        assert len(model._dispatcher._sessions.method("score").stages) == 1
        assert len(other._dispatcher._sessions.method("score").stages) == 2


def test_nan_and_infinity_are_found_by_the_score():
    with aeedge.load(DATA / "bundle_v1_scorer", threads=2) as model:
        rows = reference.rows_of(model, 3000)
        for count, row in ((1, 0), (5, 4), (300, 17), (3000, 2999)):
            for value in (np.nan, np.inf, -np.inf):
                dirty = rows[:count].copy()
                dirty[row, 7] = value
                with pytest.raises(aeedge.InputError, match=rf"score: .* in row {row}, column 7 \('s7'\)"):
                    model.score(dirty)
                scores = model.score(dirty, invalid="propagate")
                assert np.isnan(scores).nonzero()[0].tolist() == [row]


def test_scores_that_overflow_are_infinite_and_no_error():
    with aeedge.load(DATA / "bundle_v1_scorer") as model:
        rows = np.full((3, 12), 1e25, np.float32)
        assert np.isposinf(model.score(rows)).all()
        assert np.isposinf(model.score(rows[0]))


def test_a_changed_scorer_is_refused_before_it_runs(sensors):
    data = bytearray((sensors / "scorer.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (sensors / "scorer.onnx").write_bytes(data)
    with aeedge.load(sensors) as model:
        rows = model.golden_rows()
        assert model.encode(rows).shape == (16, 3)
        with pytest.raises(aeedge.CorruptBundleError, match=r"scorer\.onnx: its content was changed"):
            model.score(rows)
    with pytest.raises(aeedge.CorruptBundleError, match=r"scorer\.onnx"):
        aeedge.load(sensors, check="golden")
    assert CliRunner().invoke(AeedgeGroup.build(), ["verify", str(sensors)]).exit_code == 1


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_scorer_of_another_size_is_refused_at_load(sensors, size):
    data = (sensors / "scorer.onnx").read_bytes()
    (sensors / "scorer.onnx").write_bytes((data * 2)[:size])
    with pytest.raises(aeedge.CorruptBundleError, match=r"scorer\.onnx: (truncated|too long)"):
        aeedge.load(sensors)


def test_a_missing_scorer_is_refused_at_load(sensors):
    (sensors / "scorer.onnx").unlink()
    with pytest.raises(aeedge.CorruptBundleError, match=r"scorer\.onnx: the manifest lists this file, but"):
        aeedge.load(sensors)


def test_a_scorer_of_another_role_is_refused(sensors):
    data = (sensors / "encoder.onnx").read_bytes()
    (sensors / "scorer.onnx").write_bytes(data)

    def as_listed(document):
        document["variants"]["fp32"]["scorer"] = document["variants"]["fp32"]["encoder"]

    reseal(sensors, as_listed)
    with (
        aeedge.load(sensors) as model,
        pytest.raises(aeedge.CorruptBundleError, match="expected the scorer, got the encoder"),
    ):
        model.score(model.golden_rows())


def test_the_scorer_is_held_when_the_bundle_is_removed(sensors):
    with aeedge.load(sensors) as model, aeedge.load(DATA / "bundle_v1_scorer") as other:
        shutil.rmtree(sensors)
        rows = other.golden_rows()
        assert np.array_equal(model.score(rows), other.score(rows))


def test_a_scorer_without_a_decoder_is_ignored(sensors):
    def encoder_alone(document):
        variant = document["variants"]["fp32"]
        del variant["decoder"]
        variant["tolerance"] = {"latent": variant["tolerance"]["latent"]}

    reseal(sensors, encoder_alone)
    with aeedge.load(sensors) as model:
        assert model.methods == ("encode",)
