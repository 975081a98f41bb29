"""A bundle is recalibrated over an archive as over an array of its rows: every row counts, once, whoever scores it."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import tampering
from helpers.inline_engine import KillingEngine
from helpers.plant import NAMES, plant

import aeedge
from aeedge.archive import score_task
from aeedge.archive.calibration import calibrate_archive
from aeedge.archive.ledger import SCRATCH
from aeedge.archive.local import LocalEngine
from aeedge.archive.parts import Part
from aeedge.archive.score_task import FitRows
from aeedge.archive.sketch import RELATIVE_ERROR
from aeedge.archive.storage import Place
from aeedge.cli.group import AeedgeGroup
from aeedge.detection.calibration import Calibration, alarm_band, raised
from aeedge.errors import AeedgeError, BundleError, InputError, VerificationError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

DATA = Path(__file__).parent.parent / "data"
INT8, BOTH, WINDOWS = (DATA / name for name in ("bundle_v1_robust_int8", "bundle_v2_both", "bundle_v1_windows"))
SIZES = (3000, 1, 2000, 4000, 999)
ROUNDING = 2e-6  # of scores in batches of another size, and of a float32


class Here:
    """An engine without processes: parts in some order; `change` is what becomes of outcomes."""

    name, workers = "here", 1

    def __init__(self, order=lambda parts: parts, change=lambda outcomes: outcomes):
        self.order, self.change = order, change

    def run(self, task, parts, bundle):
        self.task = task
        yield from self.change(task(part, bundle.path) for part in self.order(list(parts)))


def write(folder, rows, sizes=SIZES, names=NAMES, group=512):
    """Rows as files of these sizes, with an id."""
    folder.mkdir()
    first = 0
    for number, size in enumerate(sizes):
        part = rows[first : first + size]
        columns = {"id": np.arange(first, first + size), **{name: part[:, i] for i, name in enumerate(names)}}
        pq.write_table(pa.table(columns), folder / f"day-{number}.parquet", row_group_size=group)
        first += size
    assert first == len(rows)
    return folder


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def calibration_of(path, variant):
    with aeedge.load(path, variant=variant) as model:
        return model.calibration


@pytest.fixture(scope="module")
def rows():
    """Normal rows of another machine than the bundles were calibrated for."""
    return plant(sum(SIZES), 50, shift=0.6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, rows):
    return write(tmp_path_factory.mktemp("calibration") / "archive", rows)


@pytest.fixture(scope="module")
def small(tmp_path_factory, rows):
    """As many rows as a bundle keeps scores of, in two files."""
    return write(tmp_path_factory.mktemp("calibration") / "small", rows[:4096], (3000, 1096))


@pytest.mark.parametrize(
    "rule",
    [{}, {"false_alarm_rate": 1 / 4097}, {"quantile": 0.9}, {"threshold": 2.0}, {"contamination": 0.1}],
    ids=str,
)
def test_thresholds_and_scores_are_those_of_recalibrate_within_the_stated_error_and_never_lower(
    tmp_path, rows, small, rule
):
    report = calibrate_archive(INT8, [small], tmp_path / "n", engine=Here(), keep_score=True, **rule)
    aeedge.recalibrate(INT8, rows[:4096], tmp_path / "one", keep_score=True, time_ordered=False, **rule)
    exact, spec = aeedge.load(tmp_path / "one").manifest.calibration, report.recalibrated.manifest.calibration
    assert (report.recalibrated.fit_rows, report.recalibrated.calibration_rows, report.rows) == (0, 4096, 4096)
    assert (spec.rows, spec.rule, spec.time_ordered) == (exact.rows, exact.rule, False)
    assert (spec.calibrated, spec.relative_error) == (exact.rows, RELATIVE_ERROR)
    assert spec.false_alarm_rate <= exact.false_alarm_rate + (2e-3 if "threshold" in rule else 0)
    for variant, wanted in exact.thresholds.items():
        high = 1 + RELATIVE_ERROR + ROUNDING
        assert (1 - ROUNDING) * wanted <= spec.thresholds[variant] <= high * wanted
        one, other = (calibration_of(tmp_path / name, variant).scores for name in ("one", "n"))
        assert (other >= (1 - ROUNDING) * one).all()
        assert (other <= high * one).all()


@pytest.mark.parametrize("bundle", [INT8, BOTH], ids=lambda path: path.name)
def test_rows_that_fit_the_score_do_not_calibrate_and_all_others_do(tmp_path, rows, folder, bundle):
    engine = Here()
    found = calibrate_archive(bundle, [folder], tmp_path / "n", engine=engine, false_alarm_rate=1e-3)
    fits, first = np.zeros(len(rows), np.bool_), 0
    for number, size in enumerate(SIZES):
        part = Part(number, Place("", ""), (), 0, size)
        fits[first : first + size] = engine.task.fit.among(part, np.arange(size))[0]
        first += size
    done = found.recalibrated
    assert (done.fit_rows, done.calibration_rows) == (fits.sum(), (~fits).sum())
    assert 0.2 * len(rows) <= fits.sum() <= len(rows) / 3
    for variant in done.manifest.variants:
        with aeedge.load(tmp_path / "n", variant=variant) as model:
            exact, known = Calibration(raised(model.score(rows[~fits]))), model.calibration
            wanted = exact.threshold(1e-3)
            assert (1 - ROUNDING) * wanted <= model.threshold <= (1 + RELATIVE_ERROR + ROUNDING) * wanted
            assert exact.rate(model.threshold) <= model.false_alarm_rate + 1e-12 <= 1e-3 + 1e-9
            assert (known.size, known.count, model.calibration_size) == (4096, exact.size, 4096)
            new = model.score(plant(3000, 51, shift=0.6))
            p, of_all = known.p_value(new), exact.p_value(new)
            assert (p >= of_all - 1 / exact.size).all()  # rounding may move a score past one other
            lower = exact.p_value(new / (1 + RELATIVE_ERROR + ROUNDING))  # a bin may count scores below
            assert (p <= lower + 1 / 4097 + 1e-12).all()
            low, high = alarm_band(model.false_alarm_rate, known.count, 20_000, coverage=0.9999)
            assert low <= model.detect(plant(20_000, 52, shift=0.6)).sum() <= high
    with aeedge.load(bundle) as before, aeedge.load(tmp_path / "n") as after:
        assert before.score(rows[:1000]).mean() != pytest.approx(after.score(rows[:1000]).mean(), rel=0.05)
        assert done.manifest.parent == before.manifest.id


def test_order_of_parts_and_number_of_workers_make_no_difference_to_a_byte(tmp_path, folder):
    def engines():
        yield "here", Here()
        yield "backward", Here(order=lambda parts: parts[::-1])
        yield "one", LocalEngine(1)
        yield "two", LocalEngine(2)

    for name, engine in engines():
        calibrate_archive(BOTH, [folder], tmp_path / name, engine=engine)
    for name in ("backward", "one", "two"):
        assert files(tmp_path / name) == files(tmp_path / "here")


def test_rates_that_no_array_supports_are_promised_by_an_archive(tmp_path, rows, folder):
    found = calibrate_archive(INT8, [folder], tmp_path / "n", engine=Here(), keep_score=True, false_alarm_rate=2e-4)
    with pytest.raises(InputError, match=r"support rates from 0\.000245 on"):
        aeedge.recalibrate(INT8, rows, tmp_path / "one", keep_score=True, false_alarm_rate=2e-4)
    spec = found.recalibrated.manifest.calibration
    assert (spec.rows, spec.calibrated) == (4096, 10_000)
    with aeedge.load(tmp_path / "n", variant="fp32") as model:
        assert model.false_alarm_rate == spec.false_alarm_rate <= 2e-4 < model.calibration.smallest_rate
        assert (model.detect(rows).sum() + 1) / 10_001 <= 2e-4
        assert (model.detect(rows, false_alarm_rate=2e-4) == model.detect(rows)).all()
        assert (model.p_value(rows) >= 1 / 4097).all()
        with pytest.raises(InputError, match=r"false_alarm_rate: 0\.0001 needs 9,999 calibration samples"):
            model.detect(rows, false_alarm_rate=1e-4)
    with pytest.raises(InputError, match=r"5e-05 needs 19,999 cal\S+ samples, there are 10,000: 9,999 are missing; "):
        calibrate_archive(INT8, [folder], tmp_path / "m", engine=Here(), keep_score=True, false_alarm_rate=5e-5)
    assert not (tmp_path / "m").exists()


def test_the_rate_is_that_of_before_where_none_is_given(tmp_path, folder):
    calibrate_archive(INT8, [folder], tmp_path / "n", engine=Here(), false_alarm_rate=3e-4)
    again = calibrate_archive(tmp_path / "n", [folder], tmp_path / "m", engine=Here())
    assert again.recalibrated.manifest.calibration.rule == {"false_alarm_rate": 3e-4}
    assert again.recalibrated.before.calibrated == again.recalibrated.manifest.calibration.calibrated


# --- rows that cannot be scored


@pytest.fixture
def spoiled(tmp_path, rows):
    """An archive with three rows at fault in two files, one of which would fit the score."""
    wrong = rows.copy()
    wrong[0, 3], wrong[10, 2], wrong[5003, 0] = np.nan, np.inf, np.nan
    return write(tmp_path / "spoiled", wrong), np.isfinite(wrong).all(axis=1)


@pytest.mark.parametrize("keep_score", [True, False])
def test_a_row_with_nan_is_an_error_with_its_file_and_number(tmp_path, spoiled, keep_score):
    with pytest.raises(InputError, match=r"day-\d\.parquet, row \d+ \(counted from 0\).*got (nan|inf)") as raised_:
        calibrate_archive(INT8, [spoiled[0]], tmp_path / "n", engine=Here(), keep_score=keep_score)
    said = str(raised_.value)
    assert "day-0.parquet, row 0 " in said
    assert "'s3'" in said
    assert "invalid='propagate' to leave them out" in said
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("keep_score", [True, False])
@pytest.mark.parametrize("how", ["propagate", "bad_rows"])
def test_rows_that_cannot_be_scored_are_left_out_or_set_aside_and_counted(tmp_path, rows, spoiled, how, keep_score):
    options = {"invalid": "propagate"} if how == "propagate" else {"bad_rows": tmp_path / "bad"}
    found = calibrate_archive(INT8, [spoiled[0]], tmp_path / "n", engine=Here(), keep_score=keep_score, **options)
    done = found.recalibrated
    assert found.rows == done.fit_rows + done.calibration_rows + found.left_out + found.set_aside == len(rows)
    assert (found.left_out, found.set_aside) == ((3, 0) if how == "propagate" else (0, 3))
    if how == "bad_rows":
        kept = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / "bad").glob("*.parquet"))])
        assert kept["id"].to_pylist() == [0, 10, 5003]
        assert kept["_row"].to_pylist() == [0, 10, 2]
        assert all("expected a finite number" in reason for reason in kept["_reason"].to_pylist())
    else:
        assert any(note.startswith("3 rows with missing values, NaN or infinity") for note in done.notes)
    if keep_score:
        calibrate_archive(
            INT8, [write(tmp_path / "sound", rows[spoiled[1]], (9997,))], tmp_path / "m", engine=Here(), keep_score=True
        )
        assert files(tmp_path / "m") == files(tmp_path / "n")


@pytest.mark.parametrize("policy", ["drop", "median"])
def test_missing_values_are_treated_as_the_bundle_says(tmp_path, rows, policy):
    old = Path(shutil.copytree(BOTH, tmp_path / "old"))
    fill = {"fill": [float(v) for v in np.median(rows, axis=0)]} if policy == "median" else {}
    tampering.reseal(old, lambda d: d["input"].update(missing={"policy": policy, **fill, "codes": {"s1": [-999.0]}}))
    holes = rows[:4000].copy()
    holes[::10, 1], holes[5::10, 4] = -999, np.nan
    missing = (holes == -999) | np.isnan(holes)
    found = calibrate_archive(old, [write(tmp_path / "holes", holes, (4000,))], tmp_path / "n", engine=Here())
    done = found.recalibrated
    assert found.rows == 4000
    if policy == "drop":
        assert found.left_out == missing.any(axis=1).sum() == 800
        assert done.fit_rows + done.calibration_rows == 3200
    else:
        plain = np.where(missing, fill["fill"], holes).astype(np.float32)
        calibrate_archive(old, [write(tmp_path / "plain", plain, (4000,))], tmp_path / "m", engine=Here())
        assert files(tmp_path / "m") == files(tmp_path / "n")
        assert found.left_out == 0


def test_a_row_whose_score_is_beyond_float32_is_named(tmp_path, rows):
    huge = rows[:2000].copy()
    huge[1234] = 3e38
    folder = write(tmp_path / "huge", huge, (1000, 1000))
    with pytest.raises(InputError, match=r"day-1\.parquet, row 234 \(counted from 0\)"):
        calibrate_archive(INT8, [folder], tmp_path / "n", engine=Here(), keep_score=True)
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("name", ["bundle_v1_uint8", "bundle_v1_map", "bundle_v1_int8"])
def test_lists_of_any_shape_and_dtype_are_scored(tmp_path, name):
    with aeedge.load(DATA / name) as model:
        golden = model.golden_rows()
    images = np.concatenate([golden] * (300 // len(golden) + 1))
    lists = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), images[0].size)
    pq.write_table(pa.table({"time": np.arange(len(images)), "image": lists}), tmp_path / "images.parquet")
    source = [tmp_path / "images.parquet"]
    found = calibrate_archive(DATA / name, source, tmp_path / "n", engine=Here(), column="image", quantile=0.5)
    aeedge.recalibrate(DATA / name, images, tmp_path / "m", quantile=0.5)
    for variant, wanted in aeedge.load(tmp_path / "m").manifest.calibration.thresholds.items():
        limit = found.recalibrated.manifest.calibration.thresholds[variant]
        assert (1 - ROUNDING) * wanted <= limit <= (1 + RELATIVE_ERROR + ROUNDING) * wanted


# --- recordings


def record(folder, signal, lengths):
    """Recordings of so many samples of a signal that takes the time of day."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, count in enumerate(lengths):
        times = np.datetime64("2026-03-02", "ms") + np.arange(count) * np.timedelta64(round(1000 / signal.rate), "ms")
        values = {name: rng.normal(size=count).astype(np.float32) for name in signal.channels}
        pq.write_table(pa.table({signal.time: times, **values}), folder / f"day-{number}.parquet")
    return folder, [(count - signal.window) // signal.hop + 1 for count in lengths]


@pytest.mark.parametrize("lengths", [(2000, 40, 900), (5000,)])
def test_windows_of_recordings_calibrate_but_those_that_share_samples_with_windows_that_fit(tmp_path, lengths):
    with aeedge.load(WINDOWS) as model:
        signal = model.input.signal
    folder, cut = record(tmp_path / "recordings", signal, lengths)
    plain = calibrate_archive(WINDOWS, [folder], tmp_path / "n", engine=Here(), false_alarm_rate=0.02)
    assert plain.are_windows
    assert plain.rows == plain.recalibrated.calibration_rows == sum(cut)
    assert any("finds no drift" in note for note in plain.recalibrated.notes)
    robust = Path(shutil.copytree(WINDOWS, tmp_path / "robust"))
    tampering.reseal(robust, lambda d: d["score"].update(scale_from="residuals"))
    engine = Here()
    found = calibrate_archive(robust, [folder], tmp_path / "m", engine=engine, false_alarm_rate=0.05)
    done, fit = found.recalibrated, engine.task.fit
    assert found.rows == done.fit_rows + done.calibration_rows + found.left_out == sum(cut)
    assert done.fit_rows >= 20
    for number, count in enumerate(cut):
        fits, unused = fit.among(Part(number, Place("", ""), (), 0, 0), np.arange(count))
        used = np.zeros(count * signal.hop + signal.window, np.bool_)
        for i in np.flatnonzero(fits):
            used[i * signal.hop : i * signal.hop + signal.window] = True
        for i in np.flatnonzero(~fits & ~unused):
            assert not used[i * signal.hop : i * signal.hop + signal.window].any()
        assert not (fits & unused).any()


@pytest.mark.parametrize(("period", "run", "apart"), [(4, 1, 0), (3, 1, 0), (40, 10, 1), (40, 10, 3), (51, 17, 16)])
def test_rows_near_those_that_fit_are_as_far_as_they_share_samples(period, run, apart):
    until, count = 10 * period, 12 * period
    fit = FitRows(frozenset([0]), until, period, run, apart)
    fits, unused = fit.among(Part(0, Place("", ""), (), 0, 0), np.arange(count))
    near = [i for i in range(count) if not fits[i] and fits[max(0, i - apart) : i + apart + 1].any()]
    assert np.flatnonzero(unused).tolist() == near
    assert [fits[i : i + period].sum() for i in range(0, count, period)] == [run] * 10 + [0] * 2
    pieces = [
        fit.among(Part(0, Place("", ""), (), 0, 0), np.arange(i, min(i + 7, count)))[0] for i in range(0, count, 7)
    ]
    assert np.array_equal(np.concatenate(pieces), fits)
    none = fit.among(Part(1, Place("", ""), (), 0, 0), np.arange(50))
    assert not none[0].any()
    assert not none[1].any()


@pytest.mark.parametrize("period", [4, 60, 512])
@pytest.mark.parametrize("cycle", [4, 60, 512])
def test_rows_that_fit_show_all_phases_of_a_cycle(period, cycle):
    fit = FitRows(frozenset([0]), 2**20, period, 1, 0)
    fits, _ = fit.among(Part(0, Place("", ""), (), 0, 0), np.arange(400 * period * cycle // 4)[: 2**20])
    quarters = np.bincount(np.flatnonzero(fits) % cycle * 4 // cycle, minlength=4) / fits.sum()
    assert quarters == pytest.approx(np.full(4, 0.25), abs=0.03)


# --- workers


def test_a_variant_that_is_not_right_on_a_worker_is_left_without_a_threshold(tmp_path, folder, monkeypatch):
    verified, seen = score_task.verified, []

    def int8_is_wrong_once(bundle, identity, variant):
        if variant == "int8":
            seen.append(variant)
            if len(seen) == 3:
                raise VerificationError("the latent of row 2 differs")
        return verified(bundle, identity, variant)

    monkeypatch.setattr(score_task, "verified", int8_is_wrong_once)
    found = calibrate_archive(INT8, [folder], tmp_path / "n", engine=Here())
    assert list(found.recalibrated.manifest.calibration.thresholds) == ["fp32"]
    note = next(note for note in found.recalibrated.notes if "int8" in note)
    assert f"int8 has no threshold: worker {found.hosts[0]}: the latent of row 2 differs" in note


def test_a_bundle_that_no_worker_verifies_fails_with_its_name(tmp_path, folder, monkeypatch):
    def wrong(bundle, identity, variant):
        raise VerificationError(f"the score of row 2 differs ({variant})")

    monkeypatch.setattr(score_task, "verified", wrong)
    with pytest.raises(AeedgeError, match=r"worker \S+: the score of row 2 differs \(fp32\)"):
        calibrate_archive(INT8, [folder], tmp_path / "n", engine=Here())
    assert not (tmp_path / "n").exists()


def twice(outcomes):
    for outcome in outcomes:
        yield from (outcome, outcome)


def test_a_part_that_is_done_twice_counts_once(tmp_path, folder):
    for name, engine in (("n", Here(change=twice)), ("m", Here())):
        calibrate_archive(BOTH, [folder], tmp_path / name, engine=engine)
    assert files(tmp_path / "n") == files(tmp_path / "m")


def test_a_part_that_an_engine_forgets_is_an_error(tmp_path, folder):
    with pytest.raises(AeedgeError, match=r"day-0\.parquet: the engine gave no outcome for it"):
        calibrate_archive(BOTH, [folder], tmp_path / "n", engine=Here(change=lambda o: list(o)[1:]))
    assert not (tmp_path / "n").exists()


def test_a_worker_that_is_killed_loses_nothing(tmp_path, folder):
    (tmp_path / "marks").mkdir()
    calibrate_archive(BOTH, [folder], tmp_path / "n", engine=KillingEngine(2, 1, tmp_path / "marks"))
    assert len(list((tmp_path / "marks").iterdir())) == 1
    calibrate_archive(BOTH, [folder], tmp_path / "m", engine=Here())
    assert files(tmp_path / "n") == files(tmp_path / "m")


def test_an_archive_on_s3_gives_the_same_bytes(tmp_path, folder, s3):
    from pyarrow.fs import FileSystem, copy_files

    system, path = FileSystem.from_uri("s3://plant")
    copy_files(str(folder), f"{path}/calibration/in", destination_filesystem=system)
    source, bad = "s3://plant/calibration/in/day-*.parquet", "s3://plant/calibration/bad"
    calibrate_archive(BOTH, [source], tmp_path / "n", engine=Here(), bad_rows=bad)
    calibrate_archive(BOTH, [folder], tmp_path / "m", engine=Here())
    assert files(tmp_path / "n") == files(tmp_path / "m")


def test_spark_gives_the_same_bytes(tmp_path, folder, spark):
    calibrate_archive(INT8, [folder], tmp_path / "n", engine="spark")
    calibrate_archive(INT8, [folder], tmp_path / "m", engine=Here())
    assert files(tmp_path / "n") == files(tmp_path / "m")


def test_ray_gives_the_same_bytes(tmp_path, folder, ray_session):
    calibrate_archive(INT8, [folder], tmp_path / "n", engine="ray", address="auto")
    calibrate_archive(INT8, [folder], tmp_path / "m", engine=Here())
    assert files(tmp_path / "n") == files(tmp_path / "m")


# --- bad input

BAD = {
    "no files": (lambda f: f / "none", {}, InputError, "no such file or folder"),
    "two rules": (None, {"threshold": 1, "quantile": 0.9}, InputError, "expected one rule for the threshold"),
    "rate": (None, {"false_alarm_rate": 1.5}, InputError, "false_alarm_rate: expected a number above 0 and below 1"),
    "tiny rate": (None, {"false_alarm_rate": 1e-6}, InputError, "false_alarm_rate: 1e-06 needs 999,999 calibration"),
    "contamination": (None, {"contamination": 0.6}, InputError, "contamination: expected a number from 0 to 0.5"),
    "column": (None, {"column": "x"}, InputError, "column: expected one of id, s0"),
    "engine": (None, {"engine": "slurm"}, InputError, "engine: expected local, spark, ray, got 'slurm'"),
    "workers": (None, {"engine": "local", "workers": 0}, InputError, "workers: expected a whole number of at least 1"),
    "invalid": (None, {"invalid": "skip"}, InputError, "invalid: expected 'raise' or 'propagate'"),
    "url": (
        None,
        {"output": "s3://plant/new"},
        InputError,
        "output: expected a folder on this machine, got a URL",
    ),
    "no bundle": (None, {"bundle": "none"}, BundleError, "none"),
    "no score": (None, {"bundle": DATA / "bundle_v1_encoder"}, BundleError, "has only an encoder"),
    "other columns": (None, {"bundle": DATA / "bundle_v1"}, InputError, "expected a column 's8'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_nothing_is_written(tmp_path, folder, case):
    change, options, kind, words = BAD[case]
    given = {"bundle": BOTH, "engine": Here(), "output": tmp_path / "n"} | options
    with pytest.raises(kind, match=words) as caught:
        calibrate_archive(sources=[change(folder) if change else folder], **given)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_too_few_rows_are_refused(tmp_path, rows):
    folder = write(tmp_path / "few", rows[:50], (50,))
    with pytest.raises(InputError, match=r"normal_rows: expected 20 or more that fit the score.*got 1"):
        calibrate_archive(BOTH, [folder], tmp_path / "n", engine=Here())
    with pytest.raises(InputError, match=r"0\.01 needs 99 calibration samples, there are 50: 49 are missing"):
        calibrate_archive(BOTH, [folder], tmp_path / "n", engine=Here(), keep_score=True, false_alarm_rate=0.01)
    assert not (tmp_path / "n").exists()


def test_the_old_bundle_is_never_replaced_and_others_are_when_asked(tmp_path, folder, small):
    old = Path(shutil.copytree(BOTH, tmp_path / "old"))
    before = files(old)
    with pytest.raises(InputError, match="is or holds"):
        calibrate_archive(old, [small], old, engine=Here(), overwrite=True)
    calibrate_archive(old, [small], tmp_path / "new", engine=Here())
    first = files(tmp_path / "new")
    with pytest.raises(InputError, match="already exists"):
        calibrate_archive(old, [folder], tmp_path / "new", engine=Here())
    assert files(tmp_path / "new") == first
    calibrate_archive(old, [folder], tmp_path / "new", engine=Here(), overwrite=True)
    assert files(tmp_path / "new") != first
    assert files(old) == before


# --- the command


def call(*arguments):
    return CliRunner().invoke(AeedgeGroup.build(), ["recalibrate", *map(str, arguments)])


def test_the_command_says_what_became_of_all_rows(tmp_path, spoiled):
    pattern = f"{spoiled[0]}/day-*.parquet"
    found = call(INT8, pattern, "-o", tmp_path / "n", "--bad-rows", tmp_path / "bad", "--false-alarm-rate", "2e-4")
    assert found.exit_code == 0, found.output
    text = " ".join(found.output.split())
    assert "5 files in 5 parts: 10,000 rows" in text
    counts = re.search(r"10,000 rows in = (\S+) fitted the score \+ (\S+) calibrated \+ 3 set aside", text).groups()
    assert sum(int(count.replace(",", "")) for count in counts) == 9_997
    assert "1 × column 's3': expected a finite number, got nan" in text
    assert "thresholds are up to 0.012 % above those of all scores, never below" in text
    shown = CliRunner().invoke(AeedgeGroup.build(), ["info", str(tmp_path / "n")]).output
    assert f"{counts[1]} rows; 4,096 scores are kept, up to 0.012 % too high" in " ".join(shown.split())
    assert not (tmp_path / "bad" / SCRATCH).exists()
    again = call(INT8, pattern, "-o", tmp_path / "m", "--bad-rows", tmp_path / "bad", "--false-alarm-rate", "2e-4")
    assert again.exit_code == 0, again.output
    assert files(tmp_path / "n") == files(tmp_path / "m")
    first = f"{spoiled[0]}/day-0*.parquet"
    other = call(INT8, first, "-o", tmp_path / "k", "--bad-rows", tmp_path / "bad")
    assert other.exit_code == 2
    assert "holds the results of another run" in other.output
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--workers", "2"), "--workers: is for archives; give --engine local, too"),
        (("--invalid", "propagate"), "--invalid: is for archives"),
        (("--engine", "local", "--time-ordered"), "--time-ordered: is for files, not for archives; leave it out"),
        (("--engine", "local", "--delimiter", ";"), "--delimiter: is for files, not for archives; leave it out"),
        (("--engine", "local", "rows.csv"), "rows.csv: archives (--engine) are Parquet; to read files of other kinds"),
        (("--engine", "local", "--address", "auto"), "--address: is an option of the engine 'ray'"),
        (
            ("--engine", "local", "--false-alarm-rate", "1e-7"),
            "--false-alarm-rate: 1e-07 needs 9,999,999 calibration",
        ),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_one_sentence(tmp_path, folder, options, words):
    found = call(INT8, folder / "day-0.parquet", "-o", tmp_path / "n", *options)
    assert found.exit_code == 2
    assert words in " ".join(found.output.split())
    assert len(found.output.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_nan_names_the_options_that_help(tmp_path, spoiled):
    found = call(INT8, spoiled[0], "--engine", "local", "--workers", "1", "-o", tmp_path / "n")
    assert found.exit_code == 2
    assert "day-0.parquet, row 0 (counted from 0): column 's3'" in found.output
    assert "give --bad-rows to set such rows aside, or --invalid propagate to leave them out" in found.output
    left = call(INT8, spoiled[0], "--engine", "local", "-o", tmp_path / "n", "--invalid", "propagate")
    assert left.exit_code == 0, left.output
    assert "calibrated + 3 left out" in " ".join(left.output.split())
