"""What every program that reads bundles without Python has to do; the tests of each inherit these."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import aeedge
from aeedge.bundle.reader import Bundle
from aeedge.cli.group import AeedgeGroup
from helpers import tampering

DATA = Path(__file__).parent.parent / "data"
BUNDLES = sorted(DATA.glob("bundle_*"))
WITH_ALL_FILES = ("bundle_v1_robust_int8", "bundle_v3_spectrum")
FIXED_NAMES = {"manifest.json", "golden.npz", "calibration.npz", "features.onnx"} | {
    f"{role}{variant}.onnx" for role in ("encoder", "decoder", "scorer") for variant in ("", ".int8")
}


def copied(name, folder):
    """A copy of a frozen bundle, free to be damaged."""
    return Path(shutil.copytree(DATA / name, folder / "mötor 1.aeedge"))


def refused(result, *words):
    """Exit code 1 and one sentence with some words, and not a result."""
    assert result.returncode == 1, (result.stdout, result.stderr)
    *_, said = result.stderr.splitlines()
    assert all(str(word) in said for word in words), said
    assert "verified" not in result.stdout + result.stderr
    assert len(said) < 500
    return said


def numbers(text):
    """Columns of a CSV by name, as float64."""
    header, *rows = csv.reader(io.StringIO(text))
    return dict(zip(header, np.array(rows, np.float64).T))


def of_aeedge(command, bundle, file, variant="auto"):
    """What `aeedge encode` or `aeedge score` writes of a CSV, by the same variant."""
    result = CliRunner().invoke(AeedgeGroup.build(), [command, str(bundle), str(file), "-o", "-", "--variant", variant])
    assert result.exit_code == 0, result.output
    return csv.DictReader(io.StringIO(result.stdout))


def column(rows, name):
    return np.array([float(row[name]) for row in rows])


def write_rows(path, rows, names=None):
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        if names:
            writer.writerow(names)
        writer.writerows(rows)
    return path


def reference_rows(bundle):
    """The reference inputs of a bundle, flat."""
    with np.load(bundle / "golden.npz") as golden:
        return golden["input"].reshape(len(golden["input"]), -1)


class Consumer:
    """Tests of a program; the fixture `verify` runs it with arguments."""

    @pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
    def test_frozen_bundles_verify(self, verify, bundle):
        result = verify(bundle)
        assert result.returncode == 0, result.stderr
        said = [line.split() for line in result.stdout.splitlines()]
        files = {file.name for file in bundle.iterdir()}
        assert files <= {words[0] for words in said if words[-1] == "right"}
        for name, variant in Bundle(bundle).manifest.variants.items():
            for what in variant.tolerance:
                (words,) = [words for words in said if words[:2] == [name, what]]
                exact = words[2:] == ["equal", "to", "the", "bit"]
                share = 0.0 if exact else float(words[words.index("uses") + 1])
                assert 0 <= share < 10  # percent
                assert exact or name != "int8" or what == "score"  # whose squares are added in float32

    @pytest.mark.parametrize("name", WITH_ALL_FILES)
    def test_a_flipped_byte_in_any_file_is_refused(self, verify, name, tmp_path):
        bundle, rng = copied(name, tmp_path), np.random.default_rng(0)
        for file in bundle.iterdir():
            data = file.read_bytes()
            for at in rng.integers(len(data), size=2).tolist():
                file.write_bytes(data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :])
                refused(verify(bundle), file.name)
            file.write_bytes(data)
        assert verify(bundle).returncode == 0

    def test_the_bundles_with_flipped_bytes_have_all_kinds_of_files(self):
        assert {file.name for name in WITH_ALL_FILES for file in (DATA / name).iterdir()} == FIXED_NAMES

    def test_missing_shortened_and_lengthened_files_are_refused(self, verify, tmp_path):
        bundle = copied("bundle_v1_robust_int8", tmp_path)
        for file in bundle.iterdir():
            data = file.read_bytes()
            file.unlink()
            refused(verify(bundle), file.name)
            for other in (b"", data[:-1], data + b"\n"):
                file.write_bytes(other)
                refused(verify(bundle), file.name)
            file.write_bytes(data)

    def test_every_bit_of_the_checksum_of_a_manifest_counts(self, verify, tmp_path):
        bundle = copied("bundle_v1", tmp_path)
        text = (bundle / "manifest.json").read_text()
        for old, new in (('"motor"', '"Motor"'), ("0.0001", "0.0100"), (" 12", " 12 ")):
            if old in text:
                (bundle / "manifest.json").write_text(text.replace(old, new, 1))
                refused(verify(bundle), "manifest.json", "its own checksum")
        assert "0.0001" in text

    @pytest.mark.parametrize("what", ["latent", "reconstruction", "score", "features"])
    def test_outputs_that_are_not_reproduced_are_refused(self, verify, what, tmp_path):
        bundle = copied("bundle_v3_spectrum", tmp_path)
        tampering.change_golden(bundle, f"fp32.{what}", 5, 1e9)
        refused(verify(bundle), "fp32", what, "row 5 (from 0)")

    def test_a_recorded_nan_is_not_reproduced_by_a_number(self, verify, tmp_path):
        bundle = copied("bundle_v1", tmp_path)
        tampering.change_golden(bundle, "fp32.latent", (3, 1), np.nan)
        refused(verify(bundle), "latent", "row 3 (from 0)")

    @pytest.mark.parametrize("path", sorted(DATA.glob("random_*")), ids=lambda path: path.name)
    def test_random_networks_are_refused(self, verify, path):
        refused(verify(path), "latent")

    @pytest.mark.parametrize("name", ["bundle_v1_int8", "bundle_v1_map"])
    def test_arrays_in_fortran_order_and_deflated(self, verify, name, tmp_path):
        bundle = copied(name, tmp_path)
        with np.load(bundle / "golden.npz") as golden:
            arrays = {key: np.asfortranarray(values) for key, values in golden.items()}
        assert not arrays["input"].flags.c_contiguous
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        tampering.replace_golden_bytes(bundle, buffer.getvalue())
        result = verify(bundle)
        assert result.returncode == 0, result.stderr
        assert result.stdout == verify(DATA / name).stdout.replace(str(DATA / name), str(bundle))

    def test_damaged_archives_with_a_right_checksum_are_refused(self, verify, tmp_path):
        bundle, rng = copied("bundle_v1_encoder", tmp_path), np.random.default_rng(1)
        data = (bundle / "golden.npz").read_bytes()
        cases = [data[: int(at)] for at in rng.integers(1, len(data), 8)]
        for at in rng.integers(len(data), size=24):
            cases.append(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        for case in cases:
            tampering.replace_golden_bytes(bundle, case)
            result = verify(bundle)  # a bit of a name or a time may not matter
            assert result.returncode in (0, 1), result.stderr
            assert result.returncode == 0 or refused(result)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda d: d.update(format_version=4), ["format version is 4"]),
            (lambda d: d.update(format="other"), ["manifest.json"]),
            (lambda d: d.update(min_onnxruntime="99.1"), ["needs onnxruntime 99.1"]),
            (lambda d: d["score"].update(kind="later"), ["score", "unknown kind"]),
            (lambda d: d["score"].update(scale=[1.0, 2.0]), ["manifest.json"]),
            (lambda d: d["score"].update(scale=0.0), ["manifest.json"]),
            (
                lambda d: (d["input"].update(shape=[11]), d["score"].update(scale=1.0)),
                ["golden.npz", "another dtype or shape"],
            ),
            (lambda d: d["input"].update(dtype="float64"), ["unknown dtype"]),
            (lambda d: d["latent"].update(size=4), ["latent"]),
            (lambda d: d.update(default_variant="int8"), ["default variant"]),
            (lambda d: d["variants"]["fp32"].pop("encoder"), ["encoder"]),
            (lambda d: d["variants"]["fp32"]["tolerance"].pop("latent"), ["manifest.json"]),
            (lambda d: d.pop("golden"), ["manifest.json"]),
        ],
    )
    def test_sealed_manifests_that_do_not_fit_are_refused(self, verify, change, words, tmp_path):
        bundle = copied("bundle_v1", tmp_path)
        tampering.reseal(bundle, change)
        refused(verify(bundle), *words)

    def test_keys_and_variants_of_a_later_version_are_passed_over(self, verify, tmp_path):
        bundle = copied("bundle_v1_robust_int8", tmp_path)

        def change(document):
            document.update(later={"any": [1, None]}, parent=None, codes=None, front_end=None)
            document["variants"]["int4"] = {"encoder": {"sha256": "0" * 64, "bytes": 1}}
            document["variants"]["int8"]["later"] = [1.5]
            document["calibration"]["thresholds"]["int4"] = 1.0
            document["latent"]["shape"] = None

        tampering.reseal(bundle, change)
        result = verify(bundle)
        assert result.returncode == 0, result.stderr

    @pytest.mark.parametrize("name", ["bundle_v1_int8", "bundle_v1_scorer_int8", "bundle_v1_robust_int8"])
    def test_int8_alone(self, verify, name, tmp_path):
        bundle = copied(name, tmp_path)
        tampering.reseal(bundle, lambda d: d["variants"].pop("fp32"))
        for role in ("encoder", "decoder", "scorer"):
            (bundle / f"{role}.onnx").unlink(missing_ok=True)
        result = verify(bundle)
        assert result.returncode == 0, result.stderr
        assert "int8" in result.stdout
        assert "fp32" not in result.stdout

    @pytest.mark.parametrize("words", [[], ["a", "b", "c"], ["-x"], ["--version", "a"]], ids=str)
    def test_wrong_usage(self, verify, words):
        result = verify(*words)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("usage: ")
        assert result.stderr.count("\n") == 1

    def test_help(self, verify):
        result = verify("--help")
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.startswith("usage: ")

    def test_no_bundle(self, verify, tmp_path):
        refused(verify(tmp_path / "nothing"), "manifest.json")
        refused(verify(DATA), "manifest.json")

    @pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
    def test_latents_scores_and_alarms_of_a_csv_are_those_of_aeedge(self, verify, bundle, tmp_path):
        manifest, rows = Bundle(bundle).manifest, reference_rows(bundle)
        if manifest.input.signal is not None:
            rows = rows.reshape(-1, manifest.input.shape[-1])
        names = manifest.input.features or (manifest.input.signal and manifest.input.signal.channels)
        if names:  # in another order, beside another column
            names, rows = ["when", *names[::-1]], np.insert(rows[:, ::-1], 0, np.arange(len(rows)), axis=1)
        file = write_rows(tmp_path / "rows.csv", rows.tolist(), names)
        result = verify(bundle, file)
        if manifest.input.signal is not None and manifest.input.signal.calendar:
            assert result.returncode == 1
            assert "calendar" in result.stderr.splitlines()[-1]
            return
        assert result.returncode == 0, result.stderr
        assert "verified" in result.stderr
        self.compare_with_aeedge(result.stdout, bundle, file)

    def compare_with_aeedge(self, text, bundle, file):
        """All columns, within the tolerances of the variant that ran; int8 latents to the last digit."""
        manifest, got = Bundle(bundle).manifest, numbers(text)
        variant = manifest.default_variant
        tolerance = manifest.variants[variant].tolerance
        expected = list(of_aeedge("encode", bundle, file, variant))
        names = [f"latent_{i}" for i in range(int(np.prod(manifest.latent_shape)))]
        latents, here = (np.array([column(expected, n) for n in names]).T, np.array([got[n] for n in names]).T)
        assert here.shape == latents.shape
        assert len(here)
        limit = tolerance["latent"]
        assert (np.abs(here - latents).max(axis=1) <= limit.atol + limit.rtol * np.abs(latents).max(axis=1)).all()
        if variant == "int8":
            np.testing.assert_array_equal(here.astype(np.float32), latents.astype(np.float32))
        if manifest.input.signal is not None:
            np.testing.assert_array_equal(got["start"], column(expected, "start"))
        if "score" not in tolerance:
            assert "score" not in got
            return
        scored = list(of_aeedge("score", bundle, file, variant))
        limit, scores = tolerance["score"], column(scored, "score")
        assert (np.abs(got["score"] - scores) <= limit.atol + limit.rtol * np.abs(scores)).all()
        assert ("alarm" in got) == (manifest.calibration is not None)
        if "alarm" in got:
            alarms = column(scored, "alarm")
            np.testing.assert_array_equal(got["alarm"], alarms)
            assert alarms.any()  # of the reference inputs, some lie far outside

    def test_windows_overlap_by_the_hop(self, verify, tmp_path):
        bundle = copied("bundle_v3_spectrum", tmp_path)
        tampering.reseal(bundle, lambda d: d["input"]["signal"].update(hop=111))
        rows = reference_rows(bundle).reshape(-1, 2)[:1000]
        file = write_rows(tmp_path / "recording.csv", rows.tolist(), ["x", "y"])
        result = verify(bundle, file)
        assert result.returncode == 0, result.stderr
        assert numbers(result.stdout)["start"].tolist() == list(range(0, 1000 - 320 + 1, 111))
        self.compare_with_aeedge(result.stdout, bundle, file)

    @pytest.mark.parametrize("policy", ["median", "drop"])
    def test_missing_values_are_treated_as_the_manifest_says(self, verify, policy, tmp_path):
        bundle = copied("bundle_v2_both", tmp_path)
        missing = {"policy": policy, "codes": {"s2": [-9999.0, 0.1], "7": [0.0]}}
        if policy == "median":
            missing["fill"] = np.linspace(-20, 500, 8).tolist()
        tampering.reseal(bundle, lambda d: d["input"].update(missing=missing))
        rows = [[repr(float(v)) for v in row] for row in reference_rows(bundle)[:8]]
        rows[1][2], rows[2][2], rows[3][7], rows[4][0], rows[5][1] = "-9999", "0.1", "0", "", "NaN"
        file = write_rows(tmp_path / "rows.csv", rows)
        result = verify(bundle, file)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("\n") == 1 + (8 if policy == "median" else 3)
        assert ("5 rows with missing values were left out" in result.stderr) == (policy == "drop")
        self.compare_with_aeedge(result.stdout, bundle, file)

    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            ("bundle_v1_encoder", "1,2,3,4\n1,2,,4\n", ["value 2 of sample 1", "missing"]),
            ("bundle_v1_encoder", "1,2,3,inf\n", ["value 3 of sample 0"]),
            ("bundle_v1_encoder", "1,2,3\n", ["3 columns", "needs 4"]),
            ("bundle_v1_encoder", "1,2,3,4\n1,2,3\n", ["line 2"]),
            ("bundle_v1_encoder", "1,2,3,4\n1,two,3,4\n", ["line 2", "two"]),
            ("bundle_v1_encoder", "", ["no rows"]),
            ("bundle_v1_encoder", "a,b,c,d\n", ["no rows"]),
            ("bundle_v2_both", "s0,s1,s2,s3,s4,s5,s6,s9\n1,2,3,4,5,6,7,8\n", ["s7"]),
            ("bundle_v1_uint8", ",".join(["1"] * 15 + ["256"]), ["value 15", "uint8"]),
            ("bundle_v1_uint8", ",".join(["1"] * 15 + ["0.5"]), ["value 15", "uint8"]),
            ("bundle_v3_spectrum", "1,2\n" * 319, ["window of 320"]),
        ],
    )
    def test_rows_that_do_not_fit_are_refused(self, verify, name, text, words, tmp_path):
        (tmp_path / "rows.csv").write_text(text)
        result = verify(DATA / name, tmp_path / "rows.csv")
        assert (result.returncode, result.stdout) == (1, "")
        said = result.stderr.splitlines()[-1]
        assert all(word in said for word in ["rows.csv", *words]), said

    def test_no_rows(self, verify, tmp_path):
        result = verify(DATA / "bundle_v1", tmp_path / "nothing.csv")
        assert result.returncode == 1
        assert "nothing.csv" in result.stderr.splitlines()[-1]

    def test_a_header_a_byte_order_mark_blank_lines_and_windows_ends_of_lines(self, verify, tmp_path):
        rows = reference_rows(DATA / "bundle_v1_encoder")[:3].tolist()
        file = write_rows(tmp_path / "rows.csv", rows)
        plain = verify(DATA / "bundle_v1_encoder", file)
        lines = file.read_text().split()
        file.write_bytes(b"\xef\xbb\xbfa, b,c,d\r\n\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n")
        assert verify(DATA / "bundle_v1_encoder", file).stdout == plain.stdout
        assert plain.stdout.count("\n") == 4

    def test_many_rows(self, verify, tmp_path):
        """More than are computed at once."""
        bundle = DATA / "bundle_v1_encoder"
        rows = np.random.default_rng(0).normal(size=(2500, 4)).astype(np.float32)
        result = verify(bundle, write_rows(tmp_path / "rows.csv", rows.tolist()))
        assert result.returncode == 0, result.stderr
        with aeedge.load(bundle) as model:
            np.testing.assert_allclose(numbers(result.stdout)["latent_0"], model.encode(rows)[:, 0], atol=1e-5)

    def test_the_readme_shows_what_is_printed(self, verify, readme):
        """The alarms of examples/rows.csv; last digits depend on the processor."""
        rows = DATA.parent.parent / "examples/rows.csv"
        result = verify(DATA / "bundle_v2_both", rows)
        shown = readme.read_text().partition("latent_0,")[2].partition("```")[0]
        got, expected = numbers(result.stdout), numbers("latent_0," + shown)
        assert list(got) == list(expected)
        np.testing.assert_allclose(np.array(list(got.values())), np.array(list(expected.values())), rtol=1e-3)
        assert set(got["alarm"]) == {0, 1}
