"""The networks are the same for every runtime, and their cost is computed correctly."""

import importlib
import json

import numpy as np
import pytest
import torch
from comparison import contenders, data, roofline
from comparison.networks import NETWORKS, cost, decoder, encoder, shapes


@pytest.mark.parametrize("name", NETWORKS)
def test_numpy_computes_what_torch_computes(name, tmp_path):
    net = NETWORKS[name]
    torch.manual_seed(0)
    down, up = encoder(net), decoder(net)
    rows = torch.rand(5, *net.shape)
    weights = [value.detach().numpy() for value in down.parameters()]
    np.savez(tmp_path / "weights.npz", **{f"{i // 2}.{('weight', 'bias')[i % 2]}": w for i, w in enumerate(weights)})
    (tmp_path / "workload.json").write_text(json.dumps({"workload": name}))
    by_numpy = importlib.import_module("comparison.contenders.by_numpy").Contender(str(tmp_path), {}, 1)
    with torch.inference_mode():
        latents = down(rows)
        assert latents.shape == (5, *shapes(net)[-1]) == (5, net.latent)
        assert up(latents).shape == rows.shape
    assert np.allclose(by_numpy.encode(by_numpy.prepare(rows.numpy())), latents.numpy(), atol=1e-5)
    assert cost(net).weights == sum(value.size for value in weights)


def test_cost_of_known_networks():
    assert cost(NETWORKS["seed"]).flops == 2 * 784 * 32
    conv = 2 * (14 * 14 * 16 * 9 + 7 * 7 * 32 * 16 * 9 + 7 * 7 * 32 * 32)
    assert cost(NETWORKS["conv"]).flops == conv


def test_the_limit_is_arithmetic_or_memory():
    seconds, limit = roofline.least_seconds("deep", 1000, "float32", {"flops": 1e9, "read": 1e12})
    assert limit == "arithmetic"
    assert seconds == pytest.approx(1000 * cost(NETWORKS["deep"]).flops / 1e9)
    floats, limit = roofline.least_seconds("deep", 100_000, "float32", {"flops": 1e15, "read": 1e9})
    pixels, _ = roofline.least_seconds("deep", 100_000, "uint8", {"flops": 1e15, "read": 1e9})
    assert limit == "memory"
    assert floats == pytest.approx(100_000 * 4 * (784 + 32) / 1e9, rel=0.01)
    assert pixels < floats / 3


def test_signals_repeat_and_anomalous_ones_differ():
    assert np.array_equal(data.vibration(3, 7, False), data.vibration(3, 7, False))
    assert not np.allclose(data.vibration(3, 7, False), data.vibration(3, 7, True))
    assert data.sound_frames(2, 0, True).shape == (2, 640)


def test_a_new_variant_is_measured_without_change(tmp_path):
    for dtype in ("float32", "uint8"):
        bundle = tmp_path / f"{dtype}.aeedge"
        bundle.mkdir()
        manifest = {"input": {"dtype": dtype}, "variants": {"fp32": {}, "int8": {}}}
        (bundle / "manifest.json").write_text(json.dumps(manifest))
    found = [entry for entry in contenders.entries(tmp_path) if entry.name.startswith("aeedge")]
    assert [entry.name for entry in found] == [
        "aeedge fp32",
        "aeedge fp32, bound",
        "aeedge int8",
        "aeedge fp32 uint8-in",
        "aeedge int8 uint8-in",
    ]
    assert [entry.exact for entry in found] == [True, True, False, True, False]
