"""Latents that are maps: every method, command and format keeps their shape, (2, 4, 4) for each sample here."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.tampering import reseal

import aeedge
from aeedge.autotune import autotune
from aeedge.cli.group import AeedgeGroup
from aeedge.errors import CorruptBundleError, InputError

BUNDLE = Path(__file__).parent.parent / "data" / "bundle_v1_map"
SHAPE = (2, 4, 4)


@pytest.fixture(scope="module", params=["fp32", "int8"])
def model(request):
    with aeedge.load(BUNDLE, variant=request.param, threads=2) as model:
        yield model


@pytest.fixture(scope="module")
def rows():
    golden = np.load(BUNDLE / "golden.npz")["input"]
    mixed = np.random.default_rng(0).dirichlet(np.ones(10), 3000) @ golden[6:].reshape(10, -1)
    return mixed.reshape(-1, 1, 8, 8).astype(np.float32)


def call(*args):
    result = CliRunner().invoke(AeedgeGroup.build(), [str(a) for a in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_golden_maps_are_reproduced_in_their_shape(model):
    golden = np.load(BUNDLE / "golden.npz")
    expected = golden[f"{model.variant}.latent"]
    assert expected.shape == (16, *SHAPE)
    np.testing.assert_allclose(model.encode(golden["input"]), expected, rtol=1e-4, atol=1e-3)
    assert {d.what for d in model.self_check()} == {"latent", "reconstruction", "score"}
    assert (model.latent_shape, model.latent_size, model.manifest.latent) == (SHAPE, 32, 32)
    assert "2×4×4 latents" in repr(model)


@pytest.mark.parametrize("n", [1, 3, 17, 1000])
def test_there_and_back_in_any_number(model, rows, n):
    z = model.encode(rows[:n])
    assert z.shape == (n, *SHAPE)
    one_by_one = np.stack([model.encode(row) for row in rows[: min(n, 17)]])
    np.testing.assert_allclose(one_by_one, z[:17], rtol=1e-4, atol=1e-4)
    back = model.decode(z)
    assert back.shape == (n, 1, 8, 8)
    np.testing.assert_allclose(back, model.denoise(rows[:n]), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.decode(z[0]), back[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        model.score(rows[:n]), np.square(rows[:n] - back).mean(axis=(1, 2, 3)), rtol=1e-3, atol=1e-5
    )


def test_other_dtypes_layouts_and_targets(model, rows):
    z = model.encode(rows[:5])
    out, place = np.empty((5, *SHAPE), np.float32), np.empty(SHAPE, np.float32)
    assert model.encode(rows[:5].astype(np.float64), out=out) is out
    np.testing.assert_array_equal(out, z)
    assert model.encode(rows[0], out=place) is place
    np.testing.assert_array_equal(place, z[0])
    np.testing.assert_array_equal(model.decode(np.asfortranarray(z)), model.decode(z.tolist()))
    slot = model.bind(5)
    slot.input[...] = rows[:5]
    np.testing.assert_array_equal(slot.encode(), z)


def test_iteration_tells_samples_from_batches(model, rows):
    batches = [rows[:3], rows[3], rows[4:9]]
    shapes = [z.shape for z in model.encode_iter(iter(batches))]
    assert shapes == [(3, *SHAPE), SHAPE, (5, *SHAPE)]
    bad = rows[4:9].copy()
    bad[2, 0, 1, 1] = np.nan
    with pytest.raises(InputError, match=r"got nan in row 6, position \(0, 1, 1\)"):
        list(model.encode_iter(iter([*batches[:2], bad])))


def test_nan_in_rows_and_maps(model, rows):
    bad = rows[:20].copy()
    bad[7, 0, 3, 3] = np.inf
    z = model.encode(bad, invalid="propagate")
    assert np.isnan(z[7]).all()
    np.testing.assert_array_equal(np.delete(z, 7, 0), np.delete(model.encode(rows[:20]), 7, 0))
    z = model.encode(rows[:20])
    z[3, 1, 2, 2] = np.nan
    with pytest.raises(InputError, match=r"decode: .*nan in row 3, position \(1, 2, 2\)"):
        model.decode(z)
    assert np.isnan(model.decode(z, invalid="propagate")[3]).all()


@pytest.mark.parametrize("shape", [(32,), (5, 32), (5, 4, 4), (5, 4, 4, 2), (0, 2, 4, 4)])
def test_latents_of_another_shape_are_refused(model, shape):
    with pytest.raises(
        InputError, match=r"decode: expected .*\(2, 4, 4\), got .*" + str(shape).replace("(", r"\(")[:-1]
    ):
        model.decode(np.zeros(shape, np.float32))


def test_pickled_limited_and_tuned(model, rows):
    expected = model.encode(rows[:300])
    with pickle.loads(pickle.dumps(model)) as again:
        np.testing.assert_array_equal(again.encode(rows[:300]), expected)
    with aeedge.load(BUNDLE, variant=model.variant, memory_limit_mb=64) as limited:
        np.testing.assert_allclose(limited.encode(rows[:300]), expected, rtol=1e-4, atol=1e-4)
    assert autotune(str(BUNDLE), "memory", variant=model.variant).tuned.variant == model.variant


def test_files(model, rows, tmp_path):
    np.save(tmp_path / "x.npy", rows[:50])
    own = ("--variant", model.variant)
    expected = model.encode(rows[:50])
    assert "50×2×4×4 float32, in" in call("encode", BUNDLE, tmp_path / "x.npy", "-o", tmp_path / "z.npy", *own)
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), expected)
    said = call("encode", BUNDLE, tmp_path / "x.npy", "-o", tmp_path / "z.csv", *own)
    assert "50×32 float32, 2×4×4 flattened in C order, in" in said
    head, *lines = (tmp_path / "z.csv").read_text().splitlines()
    assert head == ",".join(f"latent_{i}" for i in range(32))
    flat = np.array([line.split(",") for line in lines], np.float32)
    np.testing.assert_allclose(flat, expected.reshape(50, 32), rtol=1e-6)
    np.save(tmp_path / "flat.npy", flat)
    for name in ("z.npy", "z.csv", "flat.npy"):
        call("decode", BUNDLE, tmp_path / name, "-o", tmp_path / "back.npy", "-f", *own)
        np.testing.assert_allclose(np.load(tmp_path / "back.npy"), model.decode(expected), rtol=1e-4, atol=1e-5)


def test_commands_name_the_shape(rows, tmp_path):
    assert "latents    2×4×4" in call("info", BUNDLE)
    assert json.loads(call("info", BUNDLE, "--json"))["latent"] == {"size": 32, "shape": [2, 4, 4]}
    call("verify", BUNDLE)
    np.save(tmp_path / "z.npy", aeedge.load(BUNDLE).encode(rows[:9]))
    for method, more in (("encode", ()), ("decode", ()), ("decode", ("--data", tmp_path / "z.npy"))):
        quick = ("--seconds", 0.05, "--quick", "--scenario", "SingleStream", "--threads", 1, "--json", *more)
        result = CliRunner().invoke(
            AeedgeGroup.build(), [str(a) for a in ("bench", BUNDLE, "--method", method, *quick)]
        )
        document = json.loads(result.stdout)
        assert document["bundle"]["latent_shape"] == [2, 4, 4]
        assert "SingleStream" in document["scenarios"]


def test_vectors_have_no_shape_in_their_manifest():
    path = BUNDLE.parent / "bundle_v1"
    assert aeedge.load(path).latent_shape == (3,)
    assert json.loads((path / "manifest.json").read_text())["latent"] == {"size": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [2, 4, 5]}, r"expected sizes whose product is 32, got \[2, 4, 5\] at \$\.latent\.shape"),
        (
            {"shape": [2, -4, -4]},
            r"whole number of at least 1, got -4 at \$\.latent\.shape\[1\]",
        ),
        ({"shape": []}, r"expected one to a few sizes.* at \$\.latent\.shape"),
        ({"shape": "2,4,4"}, r"expected a list, got \"2,4,4\" at \$\.latent\.shape"),
        ({"ordered": True}, r"expected \[32\], got \[2, 4, 4\] at \$\.latent\.shape"),
        ({"shape": [2, 2, 8]}, r"encoder.onnx: expected its output to be float32 of shape \('n', 2, 2, 8\)"),
        ({"shape": [32]}, r"encoder.onnx: expected its output to be float32 of shape \('n', 32\)"),
    ],
)
def test_a_shape_that_the_graph_does_not_have(tmp_path, change, message):
    path = Path(shutil.copytree(BUNDLE, tmp_path / "map.aeedge"))
    reseal(path, lambda document: document["latent"].update(change))
    with pytest.raises(CorruptBundleError, match=message):
        aeedge.load(path)
