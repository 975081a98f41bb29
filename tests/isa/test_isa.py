"""The same bundle on other CPUs, emulated: latents, reconstructions, scores and verdicts against this machine's.

docs/how-to/device-guide.md publishes TOLERANCES; whoever changes one changes both.
"""

import json

import emulated
import numpy as np
import pytest

BUNDLES = ["bundle_v1", "bundle_v1_uint8", "bundle_v1_int8", "bundle_v1_saturating"]

# By variant and output: how far a machine may be from this one, relative to the output's magnitude (see `deviation`).
# 0 means equal to the bit. Scores cannot be: numpy adds in another order on another CPU.
TOLERANCES = {
    "fp32": {"latent": 1e-5, "reconstruction": 1e-5, "score": 1e-5},
    "int8": {"latent": 0.0, "reconstruction": 1e-5, "score": 1e-5},
}
MIXED = {"latent": 1e-5, "reconstruction": 1e-5, "score": 1e-5}  # the saturating bundle has a float layer behind

# What numpy must see and must not see of each CPU, or the emulation is not what it claims to be.
FEATURES = {
    "haswell": ({"AVX2", "FMA3"}, {"AVX512F", "AVX512_SKX", "X86_V4"}),
    "nehalem": ({"SSE42"}, {"AVX", "FMA3", "AVX2"}),
    "cortex-a72": ({"ASIMD"}, {"ASIMDDP", "SVE"}),
    "cortex-a76": ({"ASIMD", "ASIMDDP"}, {"SVE"}),
}

machines = pytest.mark.parametrize("machine", emulated.MACHINES)


def deviation(what, got, native, many):
    """The largest difference, relative to the largest of many values; for reconstructions, feature by feature.

    Features of a row may be micrometres beside tons: without that the small ones would not count.
    """
    assert got.shape == native.shape
    assert got.dtype == native.dtype
    axis = 0 if what == "reconstruction" else None
    difference = np.abs(got.astype(float) - native).max(axis=axis)
    magnitude = np.abs(many.astype(float)).max(axis=axis)
    return float((difference / np.maximum(magnitude, np.finfo(np.float32).tiny)).max())


@machines
@pytest.mark.parametrize("bundle", BUNDLES)
def test_numbers_agree(results, machine, bundle):
    there, here = results(machine)[bundle], results("native")[bundle]
    outputs = [name.split(".") for name in here if name.count(".") == 2]
    assert outputs
    assert there.keys() == here.keys()
    far = []
    for variant, what, size in outputs:
        name = f"{variant}.{what}.{size}"
        found = deviation(what, there[name], here[name], here[f"{variant}.{what}.64"])
        allowed = (MIXED if bundle == "bundle_v1_saturating" else TOLERANCES[variant])[what]
        line = f"{machine:12}{bundle:22}{name:28}{found:.1e}, allowed {allowed:.0e}"
        print(line)  # pytest -rP shows what docs/how-to/device-guide.md publishes
        if not found <= allowed:  # NaN is far, too
            far.append(line)
    assert not far


@pytest.mark.parametrize("machine", ["native", *emulated.MACHINES])
@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_bundle_verifies(results, machine, bundle):
    verdicts = {name: str(value) for name, value in results(machine)[bundle].items() if name.endswith(".verdict")}
    assert verdicts
    assert set(verdicts.values()) == {"ok"}


@machines
def test_sums_are_exact_where_they_would_saturate_and_plain_everywhere_else(results, machine):
    found = results(machine)
    assert str(found["bundle_v1_int8"]["int8.arithmetic"]) == "integer"  # its weights are safe on every processor
    expected = "exact integer" if machine == "haswell" else "integer"
    assert str(found["bundle_v1_saturating"]["int8.arithmetic"]) == expected


@pytest.mark.parametrize("machine", ["native", *emulated.MACHINES])
def test_what_was_recorded_wrongly_is_refused(results, machine):
    assert "latent" in str(results(machine)["wrong"]["fp32.verdict"])


@machines
def test_the_machine_is_what_it_claims(results, machine):
    said = json.loads(str(results(machine)["bundle_v1"]["machine"]))
    arm = emulated.MACHINES[machine].emulator == "qemu-aarch64-static"
    assert said["architecture"] == ("aarch64" if arm else "x86_64")
    present, absent = FEATURES[machine]
    assert present <= set(said["features"])
    assert not absent & set(said["features"])
