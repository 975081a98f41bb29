"""Bundles of random networks, which an old exporter accepted (tests/data/make_random_bundles.py), do not pass."""

import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from helpers.tampering import reseal

import aeedge
from aeedge import verification
from aeedge.bundle.reader import Bundle
from aeedge.cli.group import AeedgeGroup
from aeedge.errors import VerificationError

# In the others onnxruntime passes the Dropout over, which was on while the outputs were recorded.
CHANGING = ["random_bernoulli", "random_dropout", "random_sampling", "random_sampling_little"]
RANDOM = sorted((Path(__file__).parent.parent / "data").glob("random_*"))


def computed(path):
    """The bundle's latents by onnxruntime alone, whatever the device would refuse to load."""
    session = onnxruntime.InferenceSession((path / "encoder.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    return {"latent": lambda x: session.run(None, {"input": x})[0]}


def test_there_are_some():
    assert len(RANDOM) == 6


@pytest.mark.parametrize("path", RANDOM, ids=lambda path: path.name)
def test_verify_fails_on_a_random_network(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = CliRunner().invoke(AeedgeGroup.build(), ["verify", str(path)])
    assert result.exit_code in (1, 2)
    assert "Error: " in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("path", RANDOM, ids=lambda path: path.name)
def test_self_check_fails_on_a_random_network(path):
    with pytest.raises(VerificationError, match="random"):
        verification.self_check(Bundle(path), "fp32", computed(path), None)


@pytest.mark.parametrize("name", CHANGING)
def test_outputs_that_change_from_call_to_call_are_seen_without_the_tolerance(name, monkeypatch):
    path = RANDOM[0].parent / name
    monkeypatch.setattr(verification, "_check_tolerances", lambda *given: None)
    with pytest.raises(VerificationError, match="between two calls with the same input: the network draws random"):
        verification.self_check(Bundle(path), "fp32", computed(path), None)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_noise_within_the_tolerance_is_seen(model, share):
    rng = np.random.default_rng(0)
    bundle = Bundle(model.path)
    atol = bundle.manifest.variants["fp32"].tolerance["latent"].atol

    def noisy(x):
        z = model.encode(x)
        return z + np.float32(share * atol) * rng.choice([-1, 1], z.shape).astype(np.float32)

    verification.self_check(bundle, "fp32", {"latent": model.encode}, None)
    with pytest.raises(VerificationError, match="between two calls"):
        verification.self_check(bundle, "fp32", {"latent": noisy}, None)


@pytest.mark.parametrize("what", ["latent", "reconstruction"])
@pytest.mark.parametrize("key", ["atol", "rtol"])
def test_a_tolerance_above_the_outputs_is_none(bundle, what, key):
    reseal(bundle, lambda d: d["variants"]["fp32"]["tolerance"][what].__setitem__(key, 1e7))
    with (
        aeedge.load(bundle) as loaded,
        pytest.raises(VerificationError, match=f"its tolerance of the {what}, .*, is too large"),
    ):
        loaded.self_check()


def test_latents_that_are_zero_need_no_tolerance(model):
    bundle = Bundle(model.path)
    recorded = bundle.golden("fp32")
    recorded["fp32.latent"] = np.zeros_like(recorded["fp32.latent"])
    bundle.golden = lambda variant: recorded
    found = verification.self_check(bundle, "fp32", {"latent": lambda x: np.zeros((len(x), 3), np.float32)}, None)
    assert found[0].error == 0
