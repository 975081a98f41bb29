"""The scorer, joined of encoder and decoder, computes what numpy computes of both."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import aeedge
from aeedge.bundle.manifest import ScoreSpec
from aeedge.detection.scores import Scoring
from aeedge.runtime.methods import score
from aeedge.runtime.session import Session
from aeedge_export import export_bundle
from aeedge_export.conversion.graph import RawDecoder, RawEncoder, Scaling, frozen, to_onnx
from aeedge_export.conversion.scorer import scorer

RNG = np.random.default_rng(0)
DENSE = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)), nn.Linear(3, 12), (12,)
IMAGES = (
    nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)),
    nn.Sequential(nn.Linear(3, 16), nn.Unflatten(1, (1, 4, 4))),
    (1, 4, 4),
)


def rows_of(dtype, shape, count=50):
    if dtype == "float32":
        return RNG.normal(size=(count, *shape)).astype(np.float32)
    return RNG.integers(0, 200, (count, *shape)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int16"])
@pytest.mark.parametrize("modules", [DENSE, IMAGES], ids=["dense", "images"])
@pytest.mark.parametrize("scaled", ["not", "together", "by value"])
def test_scores_are_those_of_numpy(dtype, modules, scaled):
    encoder, decoder, shape = modules
    scale = {"not": np.float32(1), "together": np.float32(3), "by value": RNG.uniform(1, 9, shape).astype(np.float32)}
    scaling = Scaling(np.float32(2), scale[scaled])
    rows = rows_of(dtype, shape)
    down, up = frozen(RawEncoder(encoder, scaling)), frozen(RawDecoder(decoder, scaling))
    model = scorer(
        to_onnx(down, torch.from_numpy(rows), "encoder"),
        to_onnx(up, torch.zeros(2, 3), "decoder"),
        Scoring("mse", scaling.scale),
    )
    session = Session(model.SerializeToString(), "scorer", dtype, shape, ())
    with torch.inference_mode():
        back = up(down(torch.from_numpy(rows))).numpy()
    expected = score(rows, back, ScoreSpec("mse", scaling.scale))
    for count in (1, 3, 50):
        np.testing.assert_allclose(session.run(rows[:count]), expected[:count], rtol=1e-5)
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == (0 if dtype == "float32" else 1)  # shared with the encoder
    assert {opset.domain for opset in model.opset_import} == {""}
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)


def test_a_bundle_has_a_scorer_for_each_variant_and_the_same_bytes_each_time(tmp_path, net, time_has_no_say):
    encoder, decoder = net[:2]
    rows = rows_of("float32", (24,), 300)
    for name in ("a", "b"):
        made = export_bundle(
            encoder=encoder, decoder=decoder, path=tmp_path / name, example=rows, variants="all", calibration=rows
        )
    for variant, files in made.variants.items():
        place = "scorer.onnx" if variant == "fp32" else f"scorer.{variant}.onnx"
        data = (tmp_path / "a" / place).read_bytes()
        assert data == (tmp_path / "b" / place).read_bytes()
        assert files.scorer.bytes == len(data)
        metadata = {entry.key: entry.value for entry in onnx.load_model_from_string(data).metadata_props}
        assert metadata == {"aeedge.id": made.id, "aeedge.role": "scorer"}


@pytest.mark.parametrize("decoder", [None, DENSE[1]], ids=["no decoder", "not wanted"])
def test_there_is_none_where_there_is_no_decoder_or_it_is_not_wanted(tmp_path, decoder):
    made = export_bundle(
        encoder=DENSE[0], decoder=decoder, path=tmp_path / "m", example=rows_of("float32", (12,)), with_scorer=False
    )
    assert made.variants["fp32"].scorer is None
    assert not (tmp_path / "m" / "scorer.onnx").exists()
    with aeedge.load(tmp_path / "m", check="golden") as model:
        assert ("score" in model.methods) == (decoder is not None)
