"""What can be wrong with a bundle, and the sentence that each fault gets."""

import contextlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import onnx_bytes
from helpers.tampering import change_golden, replace_graph, reseal
from hypothesis import given, settings
from hypothesis import strategies as st

import aeedge
import aeedge.runtime.session
from aeedge.bundle.manifest import FileEntry, InputSpec, Manifest, ScoreSpec, Tolerance, Variant
from aeedge.bundle.manifest_reading import read_manifest
from aeedge.bundle.onnx_proto import inspect

DATA = Path(__file__).parent.parent / "data"
FROZEN = sorted(path.name for path in DATA.glob("bundle_v1*"))
FILES = ("encoder.onnx", "decoder.onnx", "golden.npz")


@pytest.mark.parametrize("name", FROZEN)
def test_frozen_bundles_load_and_reproduce_their_golden_rows(name):
    with aeedge.load(DATA / name, check="golden") as model:
        assert all(d.ok for d in model.self_check())


def test_nothing_there(tmp_path):
    with pytest.raises(aeedge.BundleError, match=r"expected a bundle .* nothing is there"):
        aeedge.load(tmp_path / "none.aeedge")


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(aeedge.BundleError, match=r"not an aeedge bundle.*aeedge export"):
        aeedge.load(tmp_path)


def test_a_file_instead_of_a_bundle(bundle):
    with pytest.raises(aeedge.BundleError, match="not an aeedge bundle"):
        aeedge.load(bundle / "encoder.onnx")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(aeedge.CorruptBundleError, match=rf"{name}: .*missing; copy"):
        aeedge.load(bundle, check="golden")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 1, 0.5, -1])
def test_a_truncated_file_is_named(bundle, name, keep):
    data = (bundle / name).read_bytes()
    (bundle / name).write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(aeedge.CorruptBundleError, match=rf"{name}: truncated, expected \d+ bytes, got \d+"):
        aeedge.load(bundle, check="golden")


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_found(bundle, name):
    data = (bundle / name).read_bytes()
    for at in np.random.default_rng(0).integers(0, 8 * len(data), 25):
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << at % 8
        (bundle / name).write_bytes(flipped)
        with pytest.raises(aeedge.CorruptBundleError, match="its content was changed, expected sha256"):
            aeedge.load(bundle, check="golden")


def test_every_flipped_bit_of_the_manifest_is_found(bundle):
    data = (bundle / "manifest.json").read_bytes()
    for at in np.random.default_rng(0).integers(0, 8 * len(data), 200):
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << at % 8
        (bundle / "manifest.json").write_bytes(flipped)
        with pytest.raises(aeedge.BundleError, match=r"manifest\.json"):
            aeedge.load(bundle)


def test_a_truncated_manifest(bundle):
    data = (bundle / "manifest.json").read_bytes()
    (bundle / "manifest.json").write_bytes(data[: len(data) // 2])
    with pytest.raises(aeedge.CorruptBundleError, match="expected JSON"):
        aeedge.load(bundle)


def test_swapped_halves_are_refused(bundle):
    encoder, decoder = (bundle / "encoder.onnx").read_bytes(), (bundle / "decoder.onnx").read_bytes()
    replace_graph(bundle, "encoder.onnx", decoder)
    replace_graph(bundle, "decoder.onnx", encoder)
    with pytest.raises(aeedge.CorruptBundleError, match="expected the encoder, got the decoder"):
        aeedge.load(bundle)


def test_a_half_of_another_bundle_is_refused(bundle):
    replace_graph(bundle, "encoder.onnx", (DATA / "bundle_v1_uint8" / "encoder.onnx").read_bytes())
    with pytest.raises(aeedge.CorruptBundleError, match="belongs to another bundle"):
        aeedge.load(bundle)


def test_a_newer_format_says_what_to_upgrade(bundle):
    reseal(bundle, lambda d: d.__setitem__("format_version", 4))
    with pytest.raises(aeedge.IncompatibleBundleError, match=r"version is 4, .* up to 3; .*pip install -U aeedge"):
        aeedge.load(bundle)


def test_a_foreign_manifest(bundle):
    (bundle / "manifest.json").write_text('{"name": "chrome extension"}')
    with pytest.raises(aeedge.IncompatibleBundleError, match="expected format 'aeedge', got None"):
        aeedge.load(bundle)


def test_too_old_an_onnxruntime(bundle, monkeypatch):
    monkeypatch.setattr(aeedge.runtime.session, "runtime_version", lambda: "1.4.0")
    with pytest.raises(aeedge.IncompatibleBundleError, match=r"expected onnxruntime 1\.\d+.*, this is 1\.4\.0; upg"):
        aeedge.load(bundle)


@pytest.mark.parametrize("location", ["weights.bin", "/etc/passwd", "../../secret", ""])
@pytest.mark.parametrize("nested", [False, True])
def test_external_data_is_refused(bundle, location, nested):
    graph = onnx_bytes.message(5, onnx_bytes.external_tensor(location))
    if nested:  # in a subgraph that is an attribute of a node
        graph = onnx_bytes.message(1, onnx_bytes.message(5, onnx_bytes.message(6, graph)))
    replace_graph(bundle, "encoder.onnx", onnx_bytes.model(graph))
    with pytest.raises(aeedge.CorruptBundleError, match="refers to data outside the file"):
        aeedge.load(bundle)


def test_a_graph_that_onnxruntime_cannot_load(bundle):
    identity = json.loads((bundle / "manifest.json").read_text())["id"]
    data = onnx_bytes.model(b"", {"aeedge.id": identity, "aeedge.role": "encoder"}, opset=999)
    replace_graph(bundle, "encoder.onnx", data)
    with pytest.raises(aeedge.BundleError, match=r"encoder\.onnx: .*(onnxruntime|expected)"):
        aeedge.load(bundle)


def test_a_graph_of_another_shape_than_the_manifest_says(bundle):
    reseal(bundle, lambda d: d["latent"].__setitem__("size", 4))
    with pytest.raises(aeedge.CorruptBundleError, match=r"expected its output to be float32 of shape \('n', 4\)"):
        aeedge.load(bundle)


def test_a_variant_that_is_not_there(bundle):
    with pytest.raises(aeedge.IncompatibleBundleError, match="expected variant 'int8', but it holds fp32"):
        aeedge.load(bundle, variant="int8")


@pytest.mark.parametrize(
    ("argument", "value"), [("variant", "int4"), ("check", "maybe"), ("threads", 0), ("threads", "two")]
)
def test_wrong_arguments_of_load(bundle, argument, value):
    with pytest.raises(aeedge.InputError, match=f"{argument}: expected .*, got {value!r}"):
        aeedge.load(bundle, **{argument: value})


def test_recorded_numbers_that_differ_are_named(bundle):
    change_golden(bundle, "fp32.latent", (7, 1), 0.5)
    aeedge.load(bundle)
    with pytest.raises(aeedge.VerificationError, match=r"latent of row 7 differs by 0\.5, more than the allowed"):
        aeedge.load(bundle, check="golden")


def test_unknown_keys_and_variants_are_passed_over(bundle):
    def change(document):
        document["colour"] = "blue"
        document["input"]["smell"] = 3
        document["variants"]["fp8"] = {"of": "the future"}

    reseal(bundle, change)
    assert list(aeedge.load(bundle).manifest.variants) == ["fp32"]


def paths(value, place=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*place, key)
            yield from paths(item, (*place, key))


FROZEN = json.loads((DATA / "bundle_v1" / "manifest.json").read_text())
FREE = ("training", "made_with", "created", "quality")


@pytest.mark.parametrize("place", [p for p in paths(FROZEN) if not set(p) & set(FREE)], ids=".".join)
@pytest.mark.parametrize("wrong", ["missing", [], "", -1, None], ids=str)
def test_every_key_of_the_manifest_is_checked(bundle, place, wrong):
    """Missing or of a wrong type: a sentence that names the place, or (units may be null, say) a bundle that works."""

    def change(document):
        for key in place[:-1]:
            document = document[key]
        if wrong == "missing":
            del document[place[-1]]
        else:
            document[place[-1]] = wrong

    if place != ("manifest_sha256",):
        reseal(bundle, change)
    else:
        text = (bundle / "manifest.json").read_text()
        (bundle / "manifest.json").write_text(text.replace("manifest_sha256", "sha", 1))
    problem = ""
    try:
        aeedge.load(bundle, check="golden")
    except aeedge.AeedgeError as error:
        problem = str(error)
    if place[-1] not in ("name", "family", "min_onnxruntime", "units", "features", "decoder"):
        assert re.search(r"manifest\.json|motor\.aeedge", problem)
        assert len(problem) < 500


names = st.text(min_size=1, max_size=8)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
entries = st.builds(FileEntry, sha256=digests, bytes=st.integers(1, 2**40))
positive = st.floats(2.0**-100, 2.0**100, width=32)
tolerances = st.builds(Tolerance, rtol=st.floats(0, 1), atol=st.floats(0, 1e6))


@st.composite
def manifests(draw):
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    features = draw(st.none() | st.tuples(*[names] * shape[0])) if len(shape) == 1 else None
    scale = draw(st.one_of(positive, st.lists(positive, min_size=shape[-1], max_size=shape[-1])))
    variant = st.builds(
        Variant,
        encoder=entries,
        decoder=entries,
        tolerance=st.fixed_dictionaries(dict.fromkeys(["latent", "reconstruction", "score"], tolerances)),
        quality=st.dictionaries(names, st.floats(allow_nan=False, allow_infinity=False)),
        decisions=st.dictionaries(names, st.lists(names, max_size=2)),
    )
    chosen = draw(st.lists(st.sampled_from(["fp32", "int8"]), min_size=1, max_size=2, unique=True))
    return Manifest(
        id=draw(entries).sha256,
        name=draw(names),
        family=draw(names),
        input=InputSpec(shape, draw(st.sampled_from(["float32", "uint8", "int16"])), features, None),
        latent_shape=tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))),
        variants={name: draw(variant) for name in chosen},
        default_variant=chosen[0],
        golden=draw(entries),
        score=ScoreSpec("mse", np.array(scale, np.float32)),
        opset=17,
        min_onnxruntime="1.2.3",
        created=draw(st.none() | names),
        made_with=draw(st.dictionaries(names, names)),
        training=draw(st.dictionaries(names, st.integers() | names | st.booleans())),
    )


@settings(deadline=None, max_examples=150)
@given(manifests())
def test_a_manifest_survives_writing_and_reading(manifest):
    text = manifest.dumps()
    again = read_manifest(text.encode())
    assert again.dumps() == text
    np.testing.assert_array_equal(again.score.scale, manifest.score.scale)
    assert again._replace(score=None) == manifest._replace(score=None)


def test_every_truncation_of_a_graph_is_seen_or_harmless():
    data = (DATA / "bundle_v1" / "encoder.onnx").read_bytes()
    whole = inspect(data)
    assert whole.opsets == {"": 17}
    assert whole.ir_version == 8
    for end in range(len(data)):
        try:
            found = inspect(data[:end])
        except ValueError:
            continue
        assert found.metadata != whole.metadata  # only what comes after the graph can be cut off unseen


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_looking_into_noise_never_fails_otherwise_than_by_value_error(data):
    with contextlib.suppress(ValueError):
        inspect(data)


def test_a_path_never_comes_from_the_manifest(bundle, tmp_path):
    """Names in a manifest cannot lead outside: there are none, and unknown variants are passed over."""
    secret = tmp_path / "secret.onnx"
    shutil.copy(bundle / "encoder.onnx", secret)
    reseal(bundle, lambda d: d["variants"].__setitem__("../../secret", d["variants"]["fp32"]))
    assert list(aeedge.load(bundle).manifest.variants) == ["fp32"]
