"""Recalibrated on the device: the promised rate of false alarms for another normal, and nothing else is different."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import tampering
from helpers.plant import NAMES, plant

import aeedge
import aeedge.verification
from aeedge.bundle.manifest import ScoreSpec, Tolerance
from aeedge.bundle.reader import Bundle
from aeedge.cli.group import AeedgeGroup
from aeedge.detection.calibration import alarm_band
from aeedge.detection.scores import Scoring, residual_scale
from aeedge.errors import IncompatibleBundleError, InputError, VerificationError
from aeedge.recalibration import writing
from aeedge.verification import deviation

DATA = Path(__file__).parent.parent / "data"
FITTED = {"bundle_v2_both": 3, "bundle_v2_mahalanobis": 4, "bundle_v1_robust_int8": 0}  # latents in the score


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def other():
    """Normal rows of another machine."""
    return plant(1000, 20, shift=0.6)


@pytest.fixture(scope="module", params=FITTED)
def pair(request, tmp_path_factory, other):
    """A bundle, the same recalibrated for another machine, and what is said of that."""
    old, new = DATA / request.param, tmp_path_factory.mktemp("new") / "new.aeedge"
    before = files(old)
    found = aeedge.recalibrate(old, other, new)
    assert files(old) == before
    return old, new, found


def variants(path):
    return list(Bundle(path).manifest.variants)


def test_alarms_on_another_machine_come_at_the_promised_rate_and_did_not_before(pair):
    old, new, _ = pair
    rows = plant(4000, 21, shift=0.6)
    for variant in variants(new):
        with aeedge.load(old, variant=variant) as before, aeedge.load(new, variant=variant) as after:
            low, high = alarm_band(after.false_alarm_rate, after.calibration_size, len(rows), coverage=0.999)
            assert low <= after.detect(rows).sum() <= high < before.detect(rows).sum()
            assert after.false_alarm_rate <= 0.01


def test_the_new_bundle_is_the_old_one_but_for_score_and_thresholds(pair):
    old, new, found = pair
    one, other = Bundle(old), Bundle(new)
    assert other.manifest.dumps() == found.manifest.dumps()
    assert other.manifest.parent == one.manifest.id != other.manifest.id
    assert set(files(old)) == set(files(new))
    changed = {"id", "parent", "variants", "golden", "score", "calibration"}
    for field in set(one.manifest._fields) - changed:
        assert getattr(one.manifest, field) == getattr(other.manifest, field), field
    for name in variants(new):
        before, after = one.golden(name), other.golden(name)
        for what in set(before) - {f"{name}.score"}:
            np.testing.assert_array_equal(before[what], after[what])
        with aeedge.load(old, variant=name) as loaded, aeedge.load(new, variant=name, check="golden") as again:
            rows = plant(50, 22)
            np.testing.assert_array_equal(loaded.encode(rows), again.encode(rows))
            assert not np.allclose(loaded.score(rows), again.score(rows), rtol=1e-2)


def test_only_the_id_and_the_weights_of_the_score_differ_in_the_graphs(pair):
    old, new, found = pair
    ids = Bundle(old).manifest.id.encode(), found.manifest.id.encode()
    for name, before in files(old).items():
        if name.endswith(".onnx"):
            after = (new / name).read_bytes()
            assert len(before) == len(after)
            assert before.count(ids[0]) == after.count(ids[1]) == 1
            place = before.index(ids[0])
            assert after.index(ids[1]) == place
            rest = [i for i in range(len(before)) if before[i] != after[i] and not place <= i < place + 64]
            latents = FITTED[old.name]
            weights = 4 * (latents + latents**2 + 8 * (old.name != "bundle_v2_mahalanobis"))
            assert bool(rest) == name.startswith("scorer")
            assert len(rest) <= weights


def test_the_first_quarter_fits_and_the_later_rows_calibrate_where_rows_are_in_the_order_of_time(tmp_path, other):
    old = DATA / "bundle_v1_robust_int8"
    found = aeedge.recalibrate(old, other, tmp_path / "n", time_ordered=True, false_alarm_rate=0.02)
    assert (found.fit_rows, found.calibration_rows) == (250, 750)
    assert found.manifest.calibration.time_ordered
    with aeedge.load(old, variant="fp32") as model:
        expected = residual_scale(other[:250] - model.denoise(other[:250]), model.manifest.score.scale)
    np.testing.assert_allclose(found.manifest.score.scale, expected, rtol=1e-6)
    for variant in ("fp32", "int8"):
        with aeedge.load(tmp_path / "n", variant=variant) as model:
            scores = np.sort(model.score(other[250:]))
            np.testing.assert_allclose(model.calibration.scores, scores, rtol=3e-5)
            assert (model.calibration.scores >= scores).all()
            assert model.threshold == model.calibration.scores[-15]  # floor(0.02 · 751)
            assert model.false_alarm_rate == pytest.approx(15 / 751)


def test_random_rows_are_no_rows_of_one_time(tmp_path, other):
    """Without an order in time, the rows that fit are spread over all of them, the same ones each time."""
    old, drifting = DATA / "bundle_v1_robust_int8", np.concatenate([plant(500, 1), plant(500, 2, shift=0.6)])
    scales = []
    for name, ordered in (("a", False), ("b", False), ("c", True)):
        scales.append(aeedge.recalibrate(old, drifting, tmp_path / name, time_ordered=ordered).manifest.score.scale)
    np.testing.assert_array_equal(scales[0], scales[1])
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert (scales[2] < 0.8 * scales[0])[[3, 5]].all()


def test_order_in_time_is_that_of_the_old_calibration_by_default(tmp_path, other):
    for name, ordered in (("bundle_v2_mahalanobis", True), ("bundle_v2_both", False)):
        assert aeedge.recalibrate(DATA / name, other, tmp_path / name).manifest.calibration.time_ordered == ordered


@pytest.mark.parametrize(("name", "keep"), [("bundle_v1_scorer", False), ("bundle_v1_robust_int8", True)])
def test_all_rows_calibrate_where_no_score_is_fitted(tmp_path, name, keep):
    old = DATA / name
    with aeedge.load(old) as model:
        rng, golden = np.random.default_rng(0), model.golden_rows()
        spread = golden[6:].std(axis=0)
        rows = (golden[rng.integers(6, len(golden), 300)] + spread * rng.normal(size=(300, model.input.size))).astype(
            np.float32
        )
        scores = model.score(rows)
    found = aeedge.recalibrate(old, rows, tmp_path / "n", keep_score=keep, false_alarm_rate=0.01)
    assert (found.fit_rows, found.calibration_rows) == (0, 300)
    with aeedge.load(tmp_path / "n", check="golden") as model:
        np.testing.assert_array_equal(model.score(rows), scores)
        np.testing.assert_allclose(model.calibration.scores, np.sort(scores), rtol=2e-5)
        assert model.detect(rows).sum() == 2  # floor(0.01 · 301) - 1 above the third largest


def test_images_of_integers_are_calibrated(tmp_path):
    images = np.random.default_rng(3).integers(0, 256, (150, 1, 4, 4), dtype=np.uint8)
    aeedge.recalibrate(DATA / "bundle_v1_uint8", images, tmp_path / "n")
    with aeedge.load(tmp_path / "n", check="golden") as model:
        assert model.calibration_size == 150
        assert model.detect(images).sum() == 0  # above the largest of 150, at 1 %


def test_the_id_names_what_is_computed_and_parents_form_a_chain(tmp_path, other):
    old = DATA / "bundle_v2_both"
    made = {
        "first": aeedge.recalibrate(old, other, tmp_path / "first"),
        "same": aeedge.recalibrate(old, other, tmp_path / "same"),
        "rows": aeedge.recalibrate(old, other[:-1], tmp_path / "rows"),
        "rate": aeedge.recalibrate(old, other, tmp_path / "rate", false_alarm_rate=0.05),
        "kept": aeedge.recalibrate(old, other, tmp_path / "kept", keep_score=True),
        "again": aeedge.recalibrate(tmp_path / "first", other, tmp_path / "again"),
    }
    assert files(tmp_path / "first") == files(tmp_path / "same")
    ids = {name: found.manifest.id for name, found in made.items()}
    assert len(set(ids.values())) == len(ids) - 1
    assert made["again"].manifest.parent == ids["first"]


def test_rates_are_inherited_and_scores_are_not(tmp_path, other):
    old = DATA / "bundle_v2_both"
    for name, rule, later in (
        ("rate", {"false_alarm_rate": 0.05}, {"false_alarm_rate": 0.05}),
        ("quantile", {"quantile": 0.9}, {"quantile": 0.9}),
        ("threshold", {"threshold": 3.0}, {"false_alarm_rate": 0.01}),
        ("trimmed", {"false_alarm_rate": 0.05, "contamination": 0.1}, {"false_alarm_rate": 0.05}),
    ):
        first = aeedge.recalibrate(old, other, tmp_path / name, **rule)
        assert dict(first.manifest.calibration.rule) == rule
        again = aeedge.recalibrate(tmp_path / name, other, tmp_path / f"{name} again")
        assert dict(again.manifest.calibration.rule) == later
    assert aeedge.load(tmp_path / "threshold").threshold == 3.0


def test_contamination_trims_the_highest_scores(tmp_path, other):
    spoiled = other.copy()
    spoiled[::25] *= 3
    rows, thresholds = plant(2000, 30, shift=0.6), []
    for share in (0.0, 0.05):
        found = aeedge.recalibrate(
            DATA / "bundle_v2_both", spoiled, tmp_path / f"{share}", contamination=share, false_alarm_rate=0.02
        )
        assert found.manifest.calibration.rows == 750 - int(share * 750)
        thresholds.append(aeedge.load(tmp_path / f"{share}").detect(rows).mean())
    assert thresholds[0] == 0 < thresholds[1] < 0.05


def test_each_variant_has_the_threshold_of_its_own_scores(tmp_path, other):
    found = aeedge.recalibrate(DATA / "bundle_v1_robust_int8", other, tmp_path / "n", threshold=2.0)
    thresholds, alarms = found.manifest.calibration.thresholds, {}
    assert thresholds["fp32"] == 2.0 != thresholds["int8"]
    for variant in thresholds:
        with aeedge.load(tmp_path / "n", variant=variant) as model:
            alarms[variant] = (model.calibration.scores > np.float32(model.threshold)).sum()
    assert alarms["fp32"] == alarms["int8"] > 0


def test_a_variant_that_is_not_right_here_is_left_without_a_threshold(tmp_path, other, monkeypatch):
    check = aeedge.verification.self_check

    def int8_is_wrong(bundle, variant, *more):
        if variant == "int8":
            raise VerificationError("int8 differs")
        return check(bundle, variant, *more)

    with monkeypatch.context() as patch:
        patch.setattr(aeedge.verification, "self_check", int8_is_wrong)
        found = aeedge.recalibrate(DATA / "bundle_v1_robust_int8", other, tmp_path / "n")
        with pytest.warns(UserWarning, match="int8 is not right"), aeedge.load(tmp_path / "n") as model:
            assert model.detect(other[:5]).shape == (5,)
    assert list(found.manifest.calibration.thresholds) == ["fp32"]
    assert ["int8" in note for note in found.notes] == [True]
    with aeedge.load(tmp_path / "n", variant="int8", check="golden") as model:  # it has the new scale all the same
        assert model.calibration_size == 0
        with pytest.raises(IncompatibleBundleError, match="none of int8"):
            model.detect(other[:5])


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("rate", [0.2, 0.01])
@pytest.mark.parametrize("given", [5, 41])
def test_a_refusal_says_exactly_how_many_rows_are_missing(tmp_path, name, rate, given):
    rows = plant(400, 40)
    with pytest.raises(InputError, match="rows are missing") as raised:
        aeedge.recalibrate(DATA / name, rows[:given], tmp_path / "n", false_alarm_rate=rate)
    missing = int(str(raised.value).split(" rows are missing")[0].split(": ")[-1])
    with pytest.raises(InputError, match=": 1 rows are missing"):
        aeedge.recalibrate(DATA / name, rows[: given + missing - 1], tmp_path / "n", false_alarm_rate=rate)
    assert not (tmp_path / "n").exists()
    aeedge.recalibrate(DATA / name, rows[: given + missing], tmp_path / "n", false_alarm_rate=rate)


BAD = {
    "another shape": (lambda x: x[:, :7], {}, InputError, r"normal_rows: expected an array of shape \(n, 8\)"),
    "no rows": (lambda x: x[:0], {}, InputError, "normal_rows: expected at least one row"),
    "one row": (lambda x: x[0], {}, InputError, "rows are missing"),
    "text": (lambda x: x.astype(str), {}, InputError, "normal_rows: expected numbers"),
    "NaN": (lambda x: np.where(x == x[3, 2], np.nan, x), {}, InputError, r"got nan in row 3, column 2 \('s2'\)"),
    "infinity": (lambda x: np.where(x == x[3, 2], -np.inf, x), {}, InputError, "got -inf in row 3, column 2"),
    "beyond float32": (
        lambda x: np.where(np.arange(8) == 0, np.float32(1e38), x),
        {},
        InputError,
        "normal_rows: the network gives numbers beyond",
    ),
    "other names": (lambda x: dict(zip("abcdefgh", x.T)), {}, InputError, "normal_rows: expected columns named"),
    "contamination": (None, {"contamination": 0.51}, InputError, "contamination: expected a number from 0 to 0.5"),
    "rate": (None, {"false_alarm_rate": 1.5}, InputError, "false_alarm_rate: expected a number above 0 and below 1"),
    "tiny rate": (None, {"false_alarm_rate": 1e-6}, InputError, "a bundle keeps up to 4,096 scores"),
    "NaN threshold": (
        None,
        {"threshold": float("nan")},
        InputError,
        "threshold: expected a finite number within float32, got nan",
    ),
    "two rules": (None, {"threshold": 1, "quantile": 0.9}, InputError, "expected one rule for the threshold"),
    "trimmed threshold": (None, {"threshold": 1, "contamination": 0.1}, InputError, "contamination: a threshold"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_nothing_is_written(tmp_path, case, other):
    change, options, kind, words = BAD[case]
    rows = other if change is None else change(other)
    with pytest.raises(kind, match=words) as raised:
        aeedge.recalibrate(DATA / "bundle_v2_both", rows, tmp_path / "n", **options)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["bundle_v2_both", "bundle_v2_mahalanobis"])
@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_a_machine_that_stands_still_fits_no_distance_of_latents(tmp_path, name, noise, other):
    still = (other[:1] + noise * other).astype(np.float32)
    with pytest.raises(InputError, match="normal_rows: they vary too little"):
        aeedge.recalibrate(DATA / name, still, tmp_path / "n")
    assert not list(tmp_path.iterdir())
    aeedge.recalibrate(DATA / name, still, tmp_path / "n", keep_score=True)
    with aeedge.load(tmp_path / "n") as model:
        assert not model.detect(still).any()  # equal rows raise no alarm, whatever rounding does
        assert model.detect(other).any()


def test_bundles_without_a_score_are_refused(tmp_path):
    rows = np.zeros((200, 4), np.float32)
    with pytest.raises(IncompatibleBundleError, match="needs a decoder, but the bundle has only an encoder"):
        aeedge.recalibrate(DATA / "bundle_v1_encoder", rows, tmp_path / "n")
    assert not list(tmp_path.iterdir())


def test_floats_for_a_model_of_integers_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected uint8"):
        aeedge.recalibrate(DATA / "bundle_v1_uint8", np.zeros((200, 1, 4, 4)), tmp_path / "n")


def test_frames_are_taken_by_name(tmp_path, other):
    frame = {name: other[:, i] for i, name in reversed(list(enumerate(NAMES)))} | {"time": np.arange(len(other))}
    for path, rows in (("array", other), ("frame", frame)):
        aeedge.recalibrate(DATA / "bundle_v2_both", rows, tmp_path / path)
    assert files(tmp_path / "array") == files(tmp_path / "frame")


@pytest.mark.parametrize("policy", ["drop", "median"])
def test_missing_values_are_treated_as_the_bundle_says(tmp_path, policy, other):
    old = Path(shutil.copytree(DATA / "bundle_v2_both", tmp_path / "old"))
    fill = {"fill": [float(v) for v in np.median(other, axis=0)]} if policy == "median" else {}
    tampering.reseal(old, lambda d: d["input"].update(missing={"policy": policy, **fill, "codes": {"s1": [-999.0]}}))
    spoiled = other.copy()
    spoiled[::10, 1], spoiled[5::10, 4] = -999, np.nan
    missing = (spoiled == -999) | np.isnan(spoiled)
    assert missing.sum() == 200
    plain = other[~missing.any(axis=1)] if policy == "drop" else np.where(missing, fill["fill"], spoiled)
    found = aeedge.recalibrate(old, spoiled, tmp_path / "n")
    assert [note.split()[0] for note in found.notes] == ["200"]
    aeedge.recalibrate(old, plain, tmp_path / "plain")
    assert files(tmp_path / "n") == files(tmp_path / "plain")
    if policy == "drop":
        with pytest.raises(InputError, match="all 1,000 have some"):
            aeedge.recalibrate(old, np.full_like(other, np.nan), tmp_path / "m")


def test_the_old_bundle_is_never_replaced_and_others_are_when_asked(tmp_path, other):
    old = Path(shutil.copytree(DATA / "bundle_v2_both", tmp_path / "old"))
    (tmp_path / "link").symlink_to(old)
    before = files(old)
    for place in (old, tmp_path / "link", tmp_path / "old" / "..", Path(f"{old}/")):
        with pytest.raises(InputError, match="is or holds"):
            aeedge.recalibrate(old, other, place, overwrite=True)
    aeedge.recalibrate(old, other, tmp_path / "new")
    first = files(tmp_path / "new")
    with pytest.raises(InputError, match="already exists"):
        aeedge.recalibrate(old, other[:500], tmp_path / "new")
    assert files(tmp_path / "new") == first
    aeedge.recalibrate(old, other[:500], tmp_path / "new", overwrite=True)
    assert files(tmp_path / "new") != first
    (tmp_path / "new" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        aeedge.recalibrate(old, other, tmp_path / "new", overwrite=True)
    assert files(old) == before


def test_what_does_not_reproduce_its_reference_outputs_never_appears(tmp_path, other, monkeypatch):
    def wrong(model):
        raise VerificationError(f"{model.path} (fp32): the score of row 2 differs; use another")

    monkeypatch.setattr(aeedge.Model, "self_check", wrong)
    with pytest.raises(VerificationError, match="not written, the score of row 2 differs") as raised:
        aeedge.recalibrate(DATA / "bundle_v2_both", other, tmp_path / "n")
    assert ".part" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_scorer_of_another_make_is_found_out(tmp_path, other):
    """Its weights have the names that they should have, and it computes something else: the self-check says so."""
    old = Path(shutil.copytree(DATA / "bundle_v1_robust_int8", tmp_path / "old"))
    data = (old / "scorer.onnx").read_bytes()
    scale = np.array(json.loads((old / "manifest.json").read_text())["score"]["scale"], np.float32).tobytes()
    twice = (2 * np.frombuffer(scale, np.float32)).tobytes()
    assert data.count(scale) == 1
    tampering.replace_graph(old, "scorer.onnx", data.replace(scale, twice), "fp32")
    with pytest.raises(VerificationError, match="the score of row"):
        aeedge.load(old, variant="fp32", check="golden")
    with pytest.raises(VerificationError, match="the score of row"):
        aeedge.recalibrate(old, other, tmp_path / "kept", keep_score=True)
    assert not (tmp_path / "kept").exists()


def without_scale(path, name, variant):
    """A scorer whose scale has another name, as that of another exporter may have."""
    data = (path / name).read_bytes()
    assert data.count(b"score/scale") == 2  # the initializer, and the node that divides by it
    tampering.replace_graph(path, name, data.replace(b"score/scale", b"score/units"), variant)


def test_a_scorer_whose_scale_cannot_be_replaced_is_left_out_where_it_is_not_needed(tmp_path, other):
    old = Path(shutil.copytree(DATA / "bundle_v1_robust_int8", tmp_path / "old"))
    without_scale(old, "scorer.onnx", "fp32")
    found = aeedge.recalibrate(old, other, tmp_path / "n")
    assert [note for note in found.notes if note.startswith("scorer.onnx was left out")]
    assert (tmp_path / "n" / "scorer.int8.onnx").exists()
    assert not (tmp_path / "n" / "scorer.onnx").exists()
    aeedge.recalibrate(DATA / old.name.replace("old", "bundle_v1_robust_int8"), other, tmp_path / "full")
    for variant in ("fp32", "int8"):
        with (
            aeedge.load(tmp_path / "n", variant=variant) as one,
            aeedge.load(tmp_path / "full", variant=variant) as two,
        ):
            np.testing.assert_allclose(one.score(other), two.score(other), rtol=1e-4)
            assert one.threshold == two.threshold


def test_a_scorer_whose_weights_cannot_be_replaced_is_refused_where_it_is_needed(tmp_path, other):
    old = Path(shutil.copytree(DATA / "bundle_v2_both", tmp_path / "old"))
    without_scale(old, "scorer.onnx", "fp32")
    with pytest.raises(IncompatibleBundleError, match="keep_score=True"):
        aeedge.recalibrate(old, other, tmp_path / "n")
    found = aeedge.recalibrate(old, other, tmp_path / "n", keep_score=True)
    assert found.fit_rows == 0


@pytest.mark.parametrize("seed", range(20))
def test_tolerances_in_new_units_allow_what_the_old_ones_did(seed):
    """Errors of residuals and of latents that the old tolerances allow, the new ones allow as well."""
    rng = np.random.default_rng(seed)
    old = np.geomspace(0.1, 10, 6).astype(np.float32)
    new = (old * rng.uniform(0.2, 4, 6)).astype(np.float32)
    limits = {name: Tolerance(1e-4, 1e-3) for name in ("latent", "reconstruction", "score")}
    found = writing._tolerances(limits, Scoring("robust", old), Scoring("robust", new))
    rows = rng.normal(size=(40, 6)).astype(np.float32) * old * np.geomspace(1, 1e3, 40)[:, None].astype(np.float32)
    recorded = rows - rng.normal(size=rows.shape).astype(np.float32) * old
    most = limits["reconstruction"]
    size = np.abs((rows - recorded) / old).max(axis=1)
    error = rng.uniform(-0.9, 0.9, rows.shape) * (most.atol + most.rtol * size)[:, None] * old
    got = (recorded.astype(np.float64) + error).astype(np.float32)
    before = deviation("reconstruction", rows, got, recorded, most, ScoreSpec("robust", old))
    after = deviation("reconstruction", rows, got, recorded, found["reconstruction"], ScoreSpec("robust", new))
    assert after.ok or not before.ok
    assert found["latent"] == limits["latent"]
    same = writing._tolerances(limits, Scoring("robust", old), Scoring("robust", old))
    assert all(limits[name].atol <= same[name].atol <= 1.01 * limits[name].atol for name in limits)


def test_import_is_as_cheap_as_before():
    code = (
        "import sys, aeedge; assert not {'aeedge.recalibration', 'aeedge.files.atomic'} & set(sys.modules); "
        "aeedge.recalibrate; assert 'aeedge.recalibration' in sys.modules; aeedge.nothing"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "AttributeError: module 'aeedge' has no attribute 'nothing'" in done.stderr


# --- the command


def call(*args):
    result = CliRunner().invoke(AeedgeGroup.build(), [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def table(tmp_path, other):
    np.savetxt(tmp_path / "normal.csv", other, delimiter=",", header=",".join(NAMES), comments="", fmt="%.9g")
    return tmp_path / "normal.csv"


def test_the_command_says_what_was_done_with_how_many_rows(tmp_path, table, other):
    result = call("recalibrate", DATA / "bundle_v1_robust_int8", table, "-o", tmp_path / "new")
    assert result.exit_code == 0
    found = aeedge.recalibrate(DATA / "bundle_v1_robust_int8", other, tmp_path / "api")
    assert files(tmp_path / "new") == files(tmp_path / "api")
    text = " ".join(result.stdout.split())
    assert "1,000: 250 of them fitted the score, 750 calibrated" in text
    for variant, threshold in found.manifest.calibration.thresholds.items():
        assert f"threshold, {variant} {found.before.thresholds[variant]:.6g} → {threshold:.6g}" in text
    assert f"id {found.manifest.id} parent {found.manifest.parent}" in text
    kept = call("recalibrate", DATA / "bundle_v1_robust_int8", table, "-o", tmp_path / "kept", "--keep-score")
    assert "1,000: all calibrated" in " ".join(kept.stdout.split())


def test_the_command_reads_several_files_and_names_its_options_in_messages(tmp_path, table, other):
    halves = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for path, rows in zip(halves, (other[:400], other[400:])):
        np.save(path, rows)
    old = DATA / "bundle_v2_both"
    for names, place in (([table], "one"), (halves, "two")):
        assert call("recalibrate", old, *names, "-o", tmp_path / place, "--time-ordered").exit_code == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")
    few = call("recalibrate", old, table, "-o", tmp_path / "n", "--false-alarm-rate", "0.001")
    assert few.exit_code == 2
    assert "--false-alarm-rate: 0.001 needs 999 calibration samples" in few.stderr
    assert "--keep-score" in few.stderr
    again = call("recalibrate", old, table, "-o", tmp_path / "one")
    assert (again.exit_code, "--force" in again.stderr) == (2, True)
    assert call("recalibrate", old, table, "-o", tmp_path / "one", "--force").exit_code == 0
    assert "expected one rule" in call("recalibrate", old, table, "-o", tmp_path / "n", *TWO_RULES).stderr
    for source, place in ((old, old), (tmp_path / "one", tmp_path / "one")):
        refused = call("recalibrate", source, table, "-o", place, "--force")
        assert (refused.exit_code, "is or holds" in refused.stderr) == (2, True)


TWO_RULES = ("--quantile", "0.9", "--threshold", "2")


def test_info_shows_score_threshold_rate_rows_and_parent(tmp_path, table):
    call("recalibrate", DATA / "bundle_v2_both", table, "-o", tmp_path / "new")
    manifest = Bundle(tmp_path / "new").manifest
    text = " ".join(call("info", tmp_path / "new").stdout.split())
    assert "score both" in text
    assert f"threshold {manifest.calibration.thresholds['fp32']:.6g} (fp32)" in text
    assert "false alarms 0.932 % of normal rows" in text
    assert "calibration 750 rows" in text
    assert f"parent {manifest.parent}, recalibrated" in text
    assert "in the order of time" in call("info", DATA / "bundle_v2_mahalanobis").stdout
    assert "score none, for there is no decoder" in " ".join(call("info", DATA / "bundle_v1_encoder").stdout.split())


def test_verify_checks_the_calibration_scores(tmp_path):
    bundle = Path(shutil.copytree(DATA / "bundle_v1_robust_int8", tmp_path / "b"))
    fine = call("verify", bundle)
    assert (fine.exit_code, fine.stdout.count("calibration.npz")) == (0, 1)
    data = bytearray((bundle / "calibration.npz").read_bytes())
    for place in range(0, len(data), 97):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        (bundle / "calibration.npz").write_bytes(changed)
        with pytest.raises(aeedge.CorruptBundleError, match=r"calibration\.npz: its content was changed"):
            aeedge.load(bundle, variant="fp32").p_value(plant(3, 1))
    found = call("verify", bundle)
    assert (found.exit_code, "calibration.npz: its content was changed" in found.stderr) == (1, True)
