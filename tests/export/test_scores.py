"""Scores are fitted by numpy alone, as scikit-learn would; a device changes a scorer as the exporter would make it."""

import numpy as np
import onnx
import pytest
import torch
from sklearn.covariance import ledoit_wolf as sklearns
from torch import nn

import aeedge
from aeedge.bundle.onnx_editing import edited
from aeedge.bundle.reader import Bundle
from aeedge.detection.calibration import alarm_band
from aeedge.detection.scores import Scoring, ledoit_wolf
from aeedge_export import export_bundle


@pytest.mark.parametrize("k", [1, 2, 7, 40])
@pytest.mark.parametrize("n", [2, 10, 45, 500])
@pytest.mark.parametrize("alike", [0.0, 0.9, 0.999])
def test_covariances_are_shrunk_as_scikit_learn_shrinks_them(n, k, alike):
    rng = np.random.default_rng(n * k)
    z = rng.normal(size=(n, k)) * np.sqrt(1 - alike) + rng.normal(size=(n, 1)) * np.sqrt(alike)
    z = (z - z.mean(axis=0)) / np.maximum(z.std(axis=0), 1e-12)
    expected, _ = sklearns(z, assume_centered=True)
    np.testing.assert_allclose(ledoit_wolf(z), expected, rtol=1e-6, atol=1.1e-6)  # its diagonal is 1e-6 at least


@pytest.mark.parametrize("kind", ["robust", "mahalanobis", "both"])
def test_a_scorer_with_other_weights_is_the_one_that_the_exporter_makes_of_them(tmp_path, kind):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(100, 6)).astype(np.float32)
    net = {"encoder": nn.Linear(6, 2), "decoder": nn.Linear(2, 6), "example": rows}
    scale = rng.uniform(1, 2, (2, 6)).astype(np.float32)
    terms = [
        (None, None) if kind == "robust" else (rng.normal(size=2).astype(np.float32), np.eye(2, dtype=np.float32) + i)
        for i in range(2)
    ]
    scorings = [Scoring(kind, scale[i], *terms[i]) for i in range(2)]
    ids = [export_bundle(**net, path=tmp_path / str(i), score_kind=s).id for i, s in enumerate(scorings)]
    made = [Bundle(tmp_path / str(i)).graph("scorer", "fp32") for i in range(2)]
    assert made[0] != made[1]
    changed = edited(made[0], {"aeedge.id": ids[1]}, scorings[1].weights())
    onnx.checker.check_model(onnx.load_model_from_string(changed), full_check=True)
    assert changed == made[1]


def test_a_scale_of_ones_is_in_the_scorer_where_it_can_be_fitted_again(tmp_path):
    net = {"encoder": nn.Linear(6, 2), "decoder": nn.Linear(2, 6)}
    rows = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    for kind, there in (("robust", True), ("mse", False)):
        scoring = Scoring(kind, np.ones(6, np.float32))
        export_bundle(**net, path=tmp_path / kind, example=rows, score_kind=scoring)
        assert (b"score/scale" in (tmp_path / kind / "scorer.onnx").read_bytes()) == there


SHAPES = {
    "images of bytes": ((1, 8, 8), "uint8", (0.0, 255.0)),
    "signals, a scale for each channel": ((2, 16), "float32", (np.float32([[5], [-3]]), np.float32([[0.1], [40]]))),
    "values, one scale": ((6,), "int16", (10.0, 300.0)),
}


@pytest.mark.parametrize(("kind", "maps"), [("robust", False), ("both", True)], ids=["vectors", "maps"])
@pytest.mark.parametrize("case", SHAPES)
def test_a_device_recalibrates_rows_and_latents_of_any_shape(tmp_path, kind, case, maps):
    shape, dtype, scaler = SHAPES[case]
    torch.manual_seed(0)
    size = int(np.prod(shape))
    down, up = nn.Sequential(nn.Flatten(), nn.Linear(size, 4)), nn.Sequential(nn.Linear(4, size))
    if maps:
        down.append(nn.Unflatten(1, (1, 2, 2)))
        up.insert(0, nn.Flatten())
    up.append(nn.Unflatten(1, shape))

    def rows(count, seed, gain):
        rng = np.random.default_rng(seed)
        states = np.tanh(rng.normal(size=(count, 3))) @ np.random.default_rng(1).normal(size=(3, size)) / 3
        scaled = (gain * states + 0.05 * rng.normal(size=states.shape)).reshape(-1, *shape)
        raw = (scaled * 0.3 + 0.5 if dtype == "uint8" else scaled) * scaler[1] + scaler[0]
        if dtype == "float32":
            return raw.astype(dtype)
        return np.clip(np.rint(raw), np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)

    net = {"encoder": down, "decoder": up, "scaler": scaler, "score_kind": kind}
    export_bundle(**net, path=tmp_path / "old", example=rows(300, 2, 1.0), normal=rows(200, 3, 1.0))
    found = aeedge.recalibrate(tmp_path / "old", rows(1000, 4, 2.0), tmp_path / "new")
    assert found.manifest.score.scale.shape == Bundle(tmp_path / "old").manifest.score.scale.shape
    later = rows(2000, 5, 2.0)
    with aeedge.load(tmp_path / "old") as old, aeedge.load(tmp_path / "new", check="golden") as new:
        low, high = alarm_band(new.false_alarm_rate, new.calibration_size, len(later), coverage=0.999)
        assert low <= new.detect(later).sum() <= high < old.detect(later).sum()
