"""Codes of latents: 8 or 4 bits each, packed, and what becomes of latents that are read from them."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.tampering import add_codes, reseal
from hypothesis import given
from hypothesis import strategies as st

import aeedge
from aeedge.bundle.codes_spec import code_bytes
from aeedge.bundle.manifest_reading import read_manifest
from aeedge.bundle.reader import Bundle
from aeedge.cli.group import AeedgeGroup
from aeedge.errors import AeedgeError, IncompatibleBundleError, InputError
from aeedge.runtime.codes import Coder, dequantize, pack, quantize, unpack

DATA = Path(__file__).parent.parent / "data"
NAMES = ("bundle_v1", "bundle_v1_uint8", "bundle_v1_int8", "bundle_v1_map", "bundle_v3_spectrum")
BITS = pytest.mark.parametrize("bits", [8, 4])


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    """Paths of frozen bundles that were given codes, by name."""
    folder = tmp_path_factory.mktemp("coded")
    return {
        name: add_codes(Path(shutil.copytree(DATA / name, folder / name))) for name in (*NAMES, "bundle_v1_encoder")
    }


@pytest.fixture(scope="module")
def models(coded):
    opened = {name: aeedge.load(path, variant="fp32", threads=1) for name, path in coded.items()}
    yield opened
    for each in opened.values():
        each.close()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (300, 1, 16, 16), dtype=np.uint8)


# --- rounding and packing


@given(k=st.integers(1, 40), n=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_packing_round_trips_for_any_number_of_latents(k, n, seed):
    for bits in (8, 4):
        codes = np.random.default_rng(seed).integers(0, 2**bits, (n, k), dtype=np.uint8)
        packed = pack(codes, bits)
        assert packed.shape == (n, code_bytes(k, bits))
        assert (unpack(packed, bits)[:, :k] == codes).all()
        assert not unpack(packed, bits)[:, k:].any()


def test_the_first_of_two_latents_is_in_the_low_half():
    assert pack(np.array([[1, 2, 3]], np.uint8), 4).tolist() == [[0x21, 0x03]]
    assert pack(np.array([[1, 2, 3]], np.uint8), 8).tolist() == [[1, 2, 3]]


numbers = st.floats(-(2.0**100), 2.0**100, width=32)


@given(
    low=numbers,
    step=st.floats(2.0**-60, 2.0**60, width=32),
    latent=st.one_of(numbers, st.floats(-(2.0**127), 2.0**127, width=32)),
    share=st.floats(0, 1),
    bits=st.sampled_from([8, 4]),
)
def test_off_by_half_a_step_inside_the_range_and_at_an_end_beyond(low, step, latent, share, bits):
    end, as_array = low + (2**bits - 1) * step, [np.array([value], np.float64) for value in (low, step)]
    inside = np.clip(np.float32(low + share * (end - low)), low, end)
    latents = np.array([[latent], [inside]], np.float32)
    codes = quantize(latents, *as_array, bits)
    back = dequantize(codes, *as_array)
    assert codes.max() < 2**bits
    assert latents[1, 0] < low or abs(float(back[1, 0]) - inside) <= step / 2 + 2**-23 * max(abs(low), abs(end))
    if latent > end or latent < low:
        assert codes[0, 0] == (2**bits - 1 if latent > end else 0)


# --- models


@BITS
@pytest.mark.parametrize("name", NAMES)
def test_what_is_decoded_are_the_latents_on_the_grid(models, name, bits):
    model, scale = models[name], models[name].manifest.codes.scales[bits]
    rows = model.golden_rows()
    latents = model.encode(rows).reshape(len(rows), -1)
    codes = model.encode(rows, bits=bits)
    assert codes.shape == (len(rows), code_bytes(model.latent_size, bits))
    assert codes.dtype == np.uint8
    low, step = (np.array(values) for values in (scale.low, scale.step))
    steps = np.clip(np.rint((latents.astype(float) - low) / step), 0, 2**bits - 1)
    assert 0 < (steps == 0).mean() < 1  # some are cut off, and some are not
    grid = (low + step * steps).astype(np.float32).reshape(-1, *model.latent_shape)
    np.testing.assert_array_equal(model.decode(codes, bits=bits), model.decode(grid))


@BITS
@pytest.mark.parametrize("name", NAMES)
def test_a_single_sample_has_a_row_of_codes(models, name, bits):
    model = models[name]
    row = model.golden_rows()[0]
    code = model.encode(row, bits=bits)
    assert code.shape == (code_bytes(model.latent_size, bits),)
    np.testing.assert_array_equal(code, model.encode(row[np.newaxis], bits=bits)[0])
    np.testing.assert_array_equal(model.decode(code, bits=bits), model.decode(code[np.newaxis], bits=bits)[0])


@BITS
def test_int8_gives_the_same_codes_whatever_the_batch(coded, images, bits):
    with aeedge.load(coded["bundle_v1_int8"], variant="int8", threads=2) as model:
        whole = model.encode(images, bits=bits)
        assert len(np.unique(whole)) > 4
        for size in (1, 7, 64):
            parts = [model.encode(images[i : i + size], bits=bits) for i in range(0, len(images), size)]
            np.testing.assert_array_equal(np.concatenate(parts), whole)
        portions = list(model.encode_iter((images[i : i + 50] for i in range(0, 300, 50)), bits=bits))
        np.testing.assert_array_equal(np.concatenate(portions), whole)


@BITS
def test_blocks_of_rows_are_coded_as_the_whole(models, rows, bits):
    scale, latents = models["bundle_v1"].manifest.codes.scales[bits], models["bundle_v1"].encode(rows)
    whole, blocks = (Coder(bits, scale, (3,), False) for _ in range(2))
    blocks._block = 7
    codes = whole.encode(latents)
    np.testing.assert_array_equal(blocks.encode(latents), codes)
    np.testing.assert_array_equal(blocks.decode(codes), whole.decode(codes))


@BITS
def test_codes_are_written_into_an_array_of_the_callers(models, bits):
    model = models["bundle_v1"]
    rows = model.golden_rows()
    out = np.full((len(rows), code_bytes(3, bits)), 255, np.uint8)
    assert model.encode(rows, bits=bits, out=out) is out
    np.testing.assert_array_equal(out, model.encode(rows, bits=bits))
    one = np.empty(code_bytes(3, bits), np.uint8)
    assert model.encode(rows[0], bits=bits, out=one) is one
    np.testing.assert_array_equal(one, out[0])
    back = np.empty((len(rows), 12), np.float32)
    assert model.decode(out, bits=bits, out=back) is back


@pytest.mark.parametrize(
    "out", [np.empty((3, 3), np.float32), np.empty((3, 2), np.uint8), np.empty(3, np.uint8), [1, 2, 3]]
)
def test_an_array_for_codes_that_does_not_fit(models, out):
    with pytest.raises(InputError, match=r"^out: expected a writable uint8 array of shape \(3, 3\), got "):
        models["bundle_v1"].encode(models["bundle_v1"].golden_rows()[:3], bits=8, out=out)


@pytest.mark.parametrize("bits", [2, 16, 0, -8, True, "8", 8.0, [8], np.array([8, 4]), np.nan])
def test_another_number_of_bits(models, bits):
    model = models["bundle_v1"]
    model.encode(model.golden_rows(), bits=8)
    for call in (model.encode, model.decode, model.encode_iter):
        with pytest.raises(InputError, match=r"^bits: expected 8 or 4, got "):
            call(model.golden_rows(), bits=bits)


def test_bits_of_numpy_are_bits(models):
    model = models["bundle_v1"]
    np.testing.assert_array_equal(
        model.encode(model.golden_rows(), bits=np.int64(4)), model.encode(model.golden_rows(), bits=4)
    )


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.glob("bundle_*")))
def test_a_bundle_without_codes_is_to_be_exported_again(name):
    with aeedge.load(DATA / name, variant="fp32", threads=1) as model:
        assert model.manifest.codes is None
        calls = [model.encode, model.encode_iter, *([model.decode] if model.has_decoder else [])]
        for call in calls:
            with pytest.raises(IncompatibleBundleError, match="has no codes of 8 bits; export it again"):
                call(model.golden_rows(), bits=8)


def test_codes_of_a_bundle_without_decoder(models):
    model = models["bundle_v1_encoder"]
    codes = model.encode(model.golden_rows(), bits=4)
    assert codes.shape == (len(model.golden_rows()), 1)
    with pytest.raises(IncompatibleBundleError, match="needs a decoder"):
        model.decode(codes, bits=4)


def test_a_closed_model_has_no_codes(coded):
    model = aeedge.load(coded["bundle_v1"])
    row = model.golden_rows()[0]
    model.close()
    with pytest.raises(AeedgeError, match="was closed"):
        model.encode(row, bits=8)


def test_codes_of_a_pickled_model(models):
    model = models["bundle_v1"]
    with pickle.loads(pickle.dumps(model)) as again:
        np.testing.assert_array_equal(
            again.encode(model.golden_rows(), bits=4), model.encode(model.golden_rows(), bits=4)
        )


# --- samples without a code


@BITS
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_as_elsewhere(models, value, bits):
    rows = models["bundle_v1"].golden_rows().copy()
    rows[2, 5] = value
    with pytest.raises(InputError, match=r"expected finite numbers, got .* in row 2, column 5"):
        models["bundle_v1"].encode(rows, bits=bits)


@BITS
def test_there_is_no_code_for_a_missing_sample(models, bits):
    model = models["bundle_v1"]
    for call in (model.encode, model.encode_iter):
        with pytest.raises(
            InputError, match=r"^invalid: expected 'raise' for codes, .* has no code; leave such samples"
        ):
            call(model.golden_rows(), bits=bits, invalid="propagate")
    codes = model.encode(model.golden_rows(), bits=bits)
    np.testing.assert_array_equal(model.decode(codes, bits=bits, invalid="propagate"), model.decode(codes, bits=bits))
    for call in (model.encode, model.decode):
        with pytest.raises(InputError, match=r"^invalid: expected 'raise' or 'propagate'"):
            call(model.golden_rows() if call == model.encode else codes, bits=bits, invalid="drop")


def test_missing_values_that_are_filled_have_codes(coded, tmp_path):
    path = Path(shutil.copytree(coded["bundle_v1"], tmp_path / "filled"))
    fill = np.load(path / "golden.npz")["input"][-1].tolist()
    missing = {"policy": "median", "fill": fill, "codes": {"0": [-9999]}}
    reseal(path, lambda d: d["input"].__setitem__("missing", missing))
    with aeedge.load(path) as model:
        row = np.array(fill, np.float32)
        gap = row.copy()
        gap[:2] = -9999, np.nan
        np.testing.assert_array_equal(model.encode(gap, bits=8), model.encode(row, bits=8))


def test_latents_beyond_float32_have_no_code(models):
    rows = np.repeat(models["bundle_v1"].golden_rows()[-1:], 5, axis=0)
    rows[3] = 3e38
    with pytest.raises(InputError, match="expected finite latents, which alone have codes, got others for row 3"):
        models["bundle_v1"].encode(rows, bits=8)
    with pytest.raises(InputError, match="got others for row 3"):
        list(models["bundle_v1"].encode_iter([rows[:2], rows[2], rows[3:]], bits=8))


@pytest.mark.parametrize("n", [1, 3000])
def test_latents_whose_sum_is_beyond_float32_have_codes(models, n):
    scale = models["bundle_v1"].manifest.codes.scales[8]
    codes = Coder(8, scale, (3,), False).encode(np.full((n, 3), 3e38, np.float32))
    assert codes.shape == (n, 3)
    assert (codes == 255).all()


# --- codes that do not fit


@pytest.mark.parametrize(
    ("codes", "bits", "message"),
    [
        (
            np.zeros((5, 3), np.float32),
            8,
            r"uint8 of 3 bytes a sample, got float32 of shape \(5, 3\); latents are decoded without bits",
        ),
        (np.zeros((5, 3), np.int64), 8, r"got int64 of shape \(5, 3\); convert with .astype"),
        ([[1, 2, 3]], 8, r"got int64 of shape \(1, 3\)"),
        (np.zeros((5, 2), np.uint8), 8, r"got uint8 of shape \(5, 2\); codes of 4 bits have that width: pass bits=4"),
        (np.zeros((5, 3), np.uint8), 4, r"of 2 bytes a sample.*; codes of 8 bits have that width: pass bits=8"),
        (np.zeros((5, 4), np.uint8), 8, r"got uint8 of shape \(5, 4\)"),
        (np.zeros(2, np.uint8), 8, r"got uint8 of shape \(2,\)"),
        (np.zeros((1, 5, 3), np.uint8), 8, r"got uint8 of shape \(1, 5, 3\)"),
        (np.uint8(1), 8, r"got uint8 of shape \(\)"),
        (np.zeros((0, 3), np.uint8), 8, "expected at least one row"),
        (np.array([[0, 0], [0, 16]], np.uint8), 4, "expected 0 in the last 4 bits of each row.*got others in row 1"),
        (b"\0\0\0", 8, "expected an array of numbers, got bytes"),
    ],
)
def test_codes_of_another_dtype_or_width(models, codes, bits, message):
    with pytest.raises(InputError, match=f"^decode: .*{message}"):
        models["bundle_v1"].decode(codes, bits=bits)


@BITS
def test_the_first_bytes_of_ordered_latents_are_enough(coded, tmp_path, bits):
    path = Path(shutil.copytree(coded["bundle_v1"], tmp_path / "ordered"))
    reseal(path, lambda d: d["latent"].__setitem__("ordered", True))
    with aeedge.load(path, threads=1) as model:
        codes = model.encode(model.golden_rows(), bits=bits)
        latents = model._coder("decode", bits, "raise").decode(codes)
        np.testing.assert_array_equal(model.decode(codes[:, :1], bits=bits), model.decode(latents[:, : 8 // bits]))
        assert model.decode(codes[0, :1], bits=bits).shape == (12,)
        with pytest.raises(InputError, match=f"uint8 of up to {codes.shape[1]} bytes"):
            model.decode(np.hstack([codes, codes]), bits=bits)


@BITS
def test_one_step_for_all_latents(tmp_path, bits):
    path = add_codes(Path(shutil.copytree(DATA / "bundle_v1_map", tmp_path / "map")), common=True)
    with aeedge.load(path, variant="fp32", threads=1) as model:
        scale, rows = model.manifest.codes.scales[bits], model.golden_rows()
        assert len(scale.low) == len(scale.step) == 1
        steps = np.clip(np.rint((model.encode(rows).astype(float) - scale.low) / scale.step), 0, 2**bits - 1)
        grid = (steps * scale.step + scale.low).astype(np.float32)
        np.testing.assert_array_equal(
            model.decode(model.encode(rows, bits=bits), bits=bits), model.decode(grid.reshape(-1, 2, 4, 4))
        )


# --- the manifest


def test_a_manifest_keeps_its_codes(coded):
    manifest = Bundle(coded["bundle_v1"]).manifest
    again = read_manifest(manifest.dumps().encode())
    assert again.codes == manifest.codes
    assert again.dumps() == manifest.dumps()


def test_codes_of_a_later_version_are_passed_over(coded, tmp_path):
    path = Path(shutil.copytree(coded["bundle_v1"], tmp_path / "later"))
    reseal(path, lambda d: d["codes"]["scales"].update({"2": {"code": "book"}}))
    reseal(path, lambda d: d["codes"]["scales"].pop("8"))
    with aeedge.load(path) as model:
        assert list(model.manifest.codes.scales) == [4]
        model.encode(model.golden_rows(), bits=4)
        with pytest.raises(IncompatibleBundleError, match="has no codes of 8 bits"):
            model.encode(model.golden_rows(), bits=8)


# --- the commands


def call(*arguments):
    result = CliRunner().invoke(AeedgeGroup.build(), list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@BITS
@pytest.mark.parametrize("suffix", ["npy", "csv", "jsonl", "parquet"])
def test_codes_from_file_to_file(models, coded, tmp_path, bits, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    model, codes, back = models["bundle_v1"], tmp_path / f"codes.{suffix}", tmp_path / "back.npy"
    rows = model.golden_rows()
    np.save(tmp_path / "rows.npy", rows)
    expected = model.encode(rows, bits=bits)
    options = ["--bits", bits, "--variant", "fp32", "--threads", 1]
    assert call("encode", coded["bundle_v1"], tmp_path / "rows.npy", "-o", codes, *options).exit_code == 0
    names = [f"code_{i}" for i in range(expected.shape[1])]
    if suffix == "npy":
        stored = np.load(codes)
        assert stored.dtype == np.uint8
        np.testing.assert_array_equal(stored, expected)
    elif suffix == "csv":
        assert codes.read_text().splitlines() == [",".join(names), *(",".join(map(str, row)) for row in expected)]
    elif suffix == "jsonl":
        lines = [json.loads(line) for line in codes.read_text().splitlines()]
        assert lines == [dict(zip(names, row.tolist())) for row in expected]
    else:
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(codes)
        assert [(field.name, str(field.type)) for field in table.schema] == [(name, "uint8") for name in names]
    assert call("decode", coded["bundle_v1"], codes, "-o", back, *options).exit_code == 0
    np.testing.assert_allclose(np.load(back), model.decode(expected, bits=bits), rtol=1e-5)


@BITS
def test_codes_of_windows_keep_their_start(coded, tmp_path, bits):
    path = add_codes(Path(shutil.copytree(DATA / "bundle_v1_windows", tmp_path / "windows")))
    times = np.datetime64("2026-01-01T00:00:00") + 100 * np.arange(100)
    lines = [f"{time},{np.sin(i / 9):.3f},{np.cos(i / 9):.3f}" for i, time in enumerate(times)]
    (tmp_path / "recording.csv").write_text("\n".join(["time,x,y", *lines]) + "\n")
    codes = tmp_path / "codes.csv"
    result = call("encode", path, tmp_path / "recording.csv", "-o", codes, "--bits", bits)
    assert result.exit_code == 0, result.output
    head, *lines = codes.read_text().splitlines()
    names = [f"code_{i}" for i in range(code_bytes(3, bits))]
    assert head.split(",")[-len(names) :] == names
    assert head.startswith("start,start_time,")
    table = np.array([line.split(",")[-len(names) :] for line in lines]).astype(np.uint8)
    result = call("decode", path, codes, "-o", tmp_path / "back.npy", "--bits", bits)
    assert result.exit_code == 0, result.output
    with aeedge.load(path) as model:
        np.testing.assert_allclose(np.load(tmp_path / "back.npy"), model.decode(table, bits=bits), rtol=1e-5)


@pytest.mark.parametrize(
    ("array", "bits", "message"),
    [
        (
            np.full((4, 3), 0.5, np.float32),
            8,
            "whole numbers from 0 to 255, got 0.5 in row 0 (counted from 0), column 0",
        ),
        (np.full((4, 3), 256, np.float32), 8, "whole numbers from 0 to 255, got 256 in row 0"),
        (np.full((4, 3), np.nan, np.float32), 8, "got nan in row 0"),
        (np.ones((4, 3), np.int64), 8, "uint8 of 3 bytes a sample, got int64 of shape (4, 3)"),
        (np.ones((4, 2), np.uint8), 8, "got uint8 of shape (4, 2); codes of 4 bits have that width: pass --bits 4"),
        (np.ones((4, 7), np.uint8), 4, "uint8 of 2 bytes a sample, got uint8 of shape (4, 7)"),
    ],
)
def test_a_file_of_other_numbers_is_refused_in_a_sentence(coded, tmp_path, array, bits, message):
    np.save(tmp_path / "codes.npy", array)
    result = call("decode", coded["bundle_v1"], tmp_path / "codes.npy", "-o", tmp_path / "x.npy", "--bits", bits)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "x.npy").exists()


def test_a_file_of_codes_is_not_decoded_as_latents(coded, tmp_path):
    np.save(tmp_path / "codes.npy", np.ones((4, 3), np.uint8))
    result = call("decode", coded["bundle_v1"], tmp_path / "codes.npy", "-o", tmp_path / "back.npy")
    assert result.exit_code == 2
    assert "expected latents, got uint8, as 'aeedge encode --bits' writes codes; add --bits 8 or 4" in result.output
    assert not (tmp_path / "back.npy").exists()


@pytest.mark.parametrize("name", ["bundle_v1", "bundle_v1_windows"])
def test_a_table_of_codes_of_8_bits_is_none_of_4(tmp_path, name):
    """Also where other columns beside the codes are passed over."""
    path = add_codes(Path(shutil.copytree(DATA / name, tmp_path / "bundle")))
    (tmp_path / "codes.csv").write_text("code_0,code_1,code_2\n1,2,3\n4,5,6\n")
    result = call("decode", path, tmp_path / "codes.csv", "-o", tmp_path / "x.npy", "--bits", 4)
    assert result.exit_code == 2
    assert "expected 2 columns of codes for --bits 4, got more" in result.output


def test_latents_of_a_table_are_no_codes(coded, tmp_path):
    (tmp_path / "latents.csv").write_text("latent_0,latent_1,latent_2\n1,2,3\n4,0.25,6\n")
    result = call("decode", coded["bundle_v1"], tmp_path / "latents.csv", "-o", tmp_path / "x.npy", "--bits", 8)
    assert result.exit_code == 2
    assert "got 0.25 in row 1 (counted from 0), column 1" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bits", "8", "--invalid", "propagate"], "--invalid: expected 'raise' for codes"),
        (["--bits", "16"], "'16' is not one of '8', '4'"),
    ],
)
def test_options_that_do_not_go_together(coded, tmp_path, options, message):
    np.save(tmp_path / "rows.npy", np.zeros((4, 12), np.float32))
    result = call("encode", coded["bundle_v1"], tmp_path / "rows.npy", "-o", tmp_path / "x.npy", *options)
    assert result.exit_code == 2
    assert message in result.output


def test_a_bundle_without_codes_says_so_at_the_command_line(tmp_path):
    np.save(tmp_path / "rows.npy", np.zeros((4, 12), np.float32))
    result = call("encode", DATA / "bundle_v1", tmp_path / "rows.npy", "-o", tmp_path / "x.npy", "--bits", 8)
    assert result.exit_code == 1
    assert "has no codes of 8 bits; export it again" in result.output


def test_info_shows_bytes_and_errors(coded):
    out = call("info", coded["bundle_v1"]).output
    assert "8 bits: 3 B, error × 1.25 (fp32)" in out
    assert "4 bits: 2 B, error × 1.25 (fp32)" in out
    assert "8 bits: 1 B, latents off by 1 %" in call("info", coded["bundle_v1_encoder"]).output
    assert "bits" not in call("info", DATA / "bundle_v1").output
