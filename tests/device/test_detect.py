"""detect and p_value: the score, compared with what the bundle recorded; and every way in which that can be missing."""

import io
import itertools
import os
import pickle
import shutil
import threading
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import reference, tampering
from helpers.children import child
from helpers.tampering import replace_calibration, replace_calibration_bytes, reseal

import aeedge
from aeedge.bundle.manifest import FORMAT_VERSION
from aeedge.bundle.reader import Bundle
from aeedge.cli.group import AeedgeGroup

DATA = Path(__file__).parent.parent / "data"
SENSORS = DATA / "bundle_v1_robust_int8"  # fp32 and int8, with names
MODELS = [
    ("bundle_v1_robust_int8", "int8"),
    ("bundle_v1_robust_int8", "fp32"),
    ("bundle_v2_both", "fp32"),
    ("bundle_v2_mahalanobis", "fp32"),
]
COUNTS = (1, 2, 3, 15, 16, 17, 64, 255, 256, 257, 1000, 3000)


@pytest.fixture
def plant(tmp_path):
    return Path(shutil.copytree(SENSORS, tmp_path / "plant.aeedge"))


@pytest.fixture(scope="module", params=MODELS, ids="-".join)
def model(request):
    name, variant = request.param
    with aeedge.load(DATA / name, variant=variant, threads=1) as found:
        yield found


@pytest.fixture(scope="module")
def sensors():
    with aeedge.load(SENSORS, variant="fp32", threads=1) as found:
        yield found


def mixed(model, count=3000):
    """Rows of which some are anomalous and some are not: between two reference inputs, and a little off."""
    rng, golden = np.random.default_rng(0), model.golden_rows()
    near = golden[np.argsort(model.score(golden))[:10]]
    weights = rng.random((count, 1))
    rows = weights * near[rng.integers(0, 10, count)] + (1 - weights) * near[rng.integers(0, 10, count)]
    rows += near.std(axis=0) * rng.normal(size=rows.shape) * rng.choice([0.01, 0.3, 1], (count, 1))
    return rows.astype(np.float32)


def naive(model, scores):
    known = model.calibration.scores
    return np.array([(1 + (known >= s).sum()) / (len(known) + 1) for s in scores])


def test_scores_p_values_and_alarms_are_of_one_kind_at_every_batch_size(model):
    rows, k = mixed(model), 0
    for count in COUNTS:
        x = rows[k : k + count] if k + count <= len(rows) else rows[:count]
        model.score(x)  # the first call of a size measures
        scores, p, alarms = model.score(x), model.p_value(x), model.detect(x)
        assert (p.dtype, alarms.dtype, p.shape, alarms.shape) == (np.float64, np.bool_, (count,), (count,))
        np.testing.assert_array_equal(p, naive(model, scores))
        np.testing.assert_array_equal(alarms, scores > model.threshold)
        np.testing.assert_array_equal(alarms, p <= model.false_alarm_rate)
        for rate in (0.5, 0.1, 0.02, 0.005):
            there = model.detect(x, false_alarm_rate=rate)
            np.testing.assert_array_equal(there, scores > model.calibration.threshold(rate))
            np.testing.assert_array_equal(there, p <= rate)
        np.testing.assert_array_equal(model.detect(x, threshold=1.0), scores > 1)
        k += count
    share = model.detect(rows).mean()
    assert 0.05 < share < 0.95, "rows of both kinds"


def test_a_single_sample_gives_scalars(model):
    for row in mixed(model, 20):
        alarm, p = model.detect(row), model.p_value(row)
        assert isinstance(alarm, np.bool_)
        assert isinstance(p, np.float64)
        assert alarm == (p <= model.false_alarm_rate) == (model.score(row) > model.threshold)
        assert isinstance(model.detect(row.tolist()), np.bool_)
        assert model.detect(row, threshold=1e30) == np.False_


def test_frames_of_columns_in_any_order_and_with_more_columns(sensors):
    rows, names = mixed(sensors, 300), sensors.input.features
    columns = {"time": np.arange(300), **{name: rows[:, names.index(name)] for name in reversed(names)}}
    alarms, p = sensors.detect(rows), sensors.p_value(rows)
    assert 0 < alarms.sum() < 300
    np.testing.assert_array_equal(sensors.detect(columns), alarms)
    np.testing.assert_array_equal(sensors.p_value(columns), p)
    one = {name: float(values[7]) for name, values in columns.items()}
    assert sensors.detect(one) == alarms[7]
    del columns["s3"]
    for call in (sensors.detect, sensors.p_value):
        with pytest.raises(aeedge.InputError, match="s3"):
            call(columns)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [1, 5, 300])
def test_a_sample_that_cannot_be_scored_is_an_alarm(model, value, count):
    some = mixed(model, 200)
    rows = np.repeat(some[[model.score(some).argmin()]], count, axis=0)
    assert not model.detect(rows, false_alarm_rate=0.1).any()
    rows[count // 2, 3] = value
    for call in (model.detect, model.p_value):
        with pytest.raises(aeedge.InputError, match=rf"row {count // 2}, column 3"):
            call(rows)
    for more in ({}, {"threshold": 1e30}, {"false_alarm_rate": 0.1}):
        assert model.detect(rows, invalid="propagate", **more).nonzero()[0].tolist() == [count // 2]
    assert np.isnan(model.p_value(rows, invalid="propagate")).nonzero()[0].tolist() == [count // 2]
    assert model.detect(rows[count // 2], invalid="propagate") == np.True_
    assert np.isnan(model.p_value(rows[count // 2], invalid="propagate"))
    with pytest.raises(aeedge.InputError, match="invalid: expected 'raise' or 'propagate'"):
        model.detect(rows, invalid="ignore")


def test_a_score_beyond_float32_is_an_alarm_with_the_smallest_p_value(sensors):
    rows = np.full((3, 8), 1e30, np.float32)
    assert np.isposinf(sensors.score(rows)).all()
    assert sensors.detect(rows).all()
    assert sensors.detect(rows, threshold=3.4e38).all()
    assert (sensors.p_value(rows) == 1 / (sensors.calibration_size + 1)).all()


BAD = {
    "nan": np.nan,
    "inf": np.inf,
    "-inf": -np.inf,
    "text": "3",
    "true": True,
    "true of numpy": np.True_,
    "list": [1.0],
}
BAD |= {"array": np.array([1.0, 2.0]), "complex": 1j, "beyond float32": 1e39, "too many digits": 10**400}


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("call", ["detect", "detect_iter"])
def test_a_threshold_that_is_none(sensors, call, value):
    rows = sensors.golden_rows()
    with pytest.raises(aeedge.InputError, match="threshold: expected a finite number within float32, got"):
        getattr(sensors, call)(rows, threshold=BAD[value])
    with pytest.raises(aeedge.InputError, match="false_alarm_rate: expected a number above 0 and below 1, got"):
        getattr(sensors, call)(rows, false_alarm_rate=BAD[value])


def test_a_rate_that_is_not_supported_or_beside_a_threshold(sensors):
    rows = sensors.golden_rows()
    for call in (sensors.detect, sensors.detect_iter):
        with pytest.raises(
            aeedge.InputError, match=r"0\.001 needs 999 calibration samples, there are 350: 649 are mis"
        ):
            call(rows, false_alarm_rate=1e-3)
        with pytest.raises(aeedge.InputError, match="expected a false_alarm_rate or a threshold, got both"):
            call(rows, false_alarm_rate=0.1, threshold=1.0)
    for rate in (0, 1, -0.1, 2):
        with pytest.raises(aeedge.InputError, match="false_alarm_rate: expected a number above 0 and below 1"):
            sensors.detect(rows, false_alarm_rate=rate)


def test_a_threshold_is_compared_as_float32(sensors):
    row = mixed(sensors, 1)[0]
    score = sensors.score(row)
    between = (float(score) + float(np.nextafter(score, np.float32(np.inf)))) / 2
    assert not sensors.detect(row, threshold=score)
    assert not sensors.detect(row, threshold=between * (1 - 1e-9))
    assert sensors.detect(row, threshold=np.nextafter(score, np.float32(-np.inf)))


def test_the_threshold_of_another_variant_is_refused(sensors):
    with aeedge.load(SENSORS, variant="int8", threads=1) as other:
        rows = other.golden_rows()
        assert other.threshold != sensors.threshold
        for call in (other.detect, other.detect_iter):
            with pytest.raises(aeedge.InputError, match=r"threshold: 4\.12242 is that of fp32, and int8 runs, whose"):
                call(rows, threshold=sensors.threshold)
        with pytest.raises(
            aeedge.InputError, match=r"is that of int8, and fp32 runs.*; leave it out for its own, 4\.12"
        ):
            sensors.detect(rows, threshold=np.float32(other.threshold))
        np.testing.assert_array_equal(other.detect(rows, threshold=other.threshold), other.detect(rows))


def test_so_is_one_that_was_given_with_more_digits_than_float32_has(plant):
    reseal(plant, lambda d: d["calibration"].update(thresholds={"fp32": 0.1, "int8": 0.2}))
    with aeedge.load(plant, variant="fp32") as one, aeedge.load(plant, variant="int8") as other:
        for threshold in (0.1, one.threshold):
            with pytest.raises(aeedge.InputError, match="is that of fp32, and int8 runs"):
                other.detect(other.golden_rows(), threshold=threshold)


def test_variants_may_have_the_same_threshold(plant):
    reseal(plant, lambda d: d["calibration"].update(thresholds={"fp32": 0.1, "int8": 0.1}))
    with aeedge.load(plant, variant="int8") as model:
        np.testing.assert_array_equal(
            model.detect(model.golden_rows(), threshold=0.1), model.detect(model.golden_rows())
        )


def test_each_variant_has_scores_and_a_threshold_of_its_own(plant):
    replace_calibration(plant, fp32=np.arange(350, dtype=np.float32), int8=np.arange(1000, 1350, dtype=np.float32))
    reseal(plant, lambda d: d["calibration"].update(thresholds={"fp32": 346.0, "int8": 1346.0}))
    for variant, first in (("fp32", 0), ("int8", 1000)):
        with aeedge.load(plant, variant=variant) as model:
            assert model.threshold == first + 346
            assert model.false_alarm_rate == 4 / 351
            assert model.calibration.scores[0] == first
            assert model.calibration.threshold(0.5) == first + 175


def test_a_variant_without_a_calibration_of_its_own_gets_no_other(plant):
    with np.load(plant / "calibration.npz") as found:
        replace_calibration(plant, fp32=found["fp32.score"])
    reseal(plant, lambda d: d["calibration"]["thresholds"].pop("int8"))
    with aeedge.load(plant, variant="int8") as model:
        assert model.calibration_size == 0
        for use in uses(model):
            with pytest.raises(aeedge.IncompatibleBundleError, match=r"has none of int8 \(of fp32 alone\)"):
                use()
        with pytest.raises(aeedge.InputError, match=r"is that of fp32, and int8 runs, .*; it has none of its own"):
            model.detect(model.golden_rows(), threshold=4.122419357299805)
    with aeedge.load(plant, variant="fp32") as model:
        assert model.detect(model.golden_rows()).any()


def test_where_int8_is_wrong_alarms_are_those_of_fp32(plant, sensors):
    tampering.change_golden(plant, "int8.latent", (0, 0), 100)
    with pytest.warns(UserWarning, match="int8 is not right on this machine"):
        model = aeedge.load(plant, variant="int8", threads=1)
    with model:
        assert (model.variant, model.threshold) == ("fp32", sensors.threshold)
        rows = mixed(sensors, 300)
        np.testing.assert_array_equal(model.detect(rows), sensors.detect(rows))


def uses(model):
    """All that needs calibration scores or a threshold."""
    rows = model.golden_rows()
    return [
        lambda: model.detect(rows),
        lambda: model.detect(rows, false_alarm_rate=0.1),
        lambda: model.p_value(rows),
        lambda: model.detect_iter([rows]),
        lambda: model.detect_iter([rows], false_alarm_rate=0.1),
        lambda: model.calibration,
        lambda: model.threshold,
        lambda: model.false_alarm_rate,
    ]


def test_a_bundle_without_calibration_says_so_and_takes_a_threshold(bundle):
    with aeedge.load(bundle, threads=1) as model:
        rows = model.golden_rows()
        assert model.calibration_size == 0
        for use in uses(model):
            with pytest.raises(
                aeedge.IncompatibleBundleError,
                match=r"needs a calibration, and the bundle has none; make one with .*, or pass a threshold",
            ):
                use()
        np.testing.assert_array_equal(model.detect(rows, threshold=10), model.score(rows) > 10)
        np.testing.assert_array_equal(
            np.concatenate(list(model.detect_iter([rows, rows], threshold=10))), np.tile(model.score(rows) > 10, 2)
        )


def test_a_bundle_without_a_score_raises_no_alarm_but_an_error():
    with aeedge.load(DATA / "bundle_v1_encoder") as model:
        for call in (model.detect, model.detect_iter):
            with pytest.raises(aeedge.IncompatibleBundleError, match="only an encoder"):
                call(model.golden_rows(), threshold=1.0)


# calibration.npz


def archive(method=zipfile.ZIP_STORED, **members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as found:
        for name, data in members.items():
            found.writestr(f"{name}.score.npy", data)
    return stream.getvalue()


def npy(array):
    stream = io.BytesIO()
    np.save(stream, np.asarray(array))
    return stream.getvalue()


SORTED = np.linspace(0.1, 9, 350, dtype=np.float32)
FAULTS = {
    "unsorted": npy(SORTED[::-1]),
    "two in the wrong order": npy(np.r_[SORTED[:-2], SORTED[-1], SORTED[-2]]),
    "NaN at the end": npy(np.r_[SORTED[:-1], np.float32(np.nan)]),
    "NaN inside": npy(np.r_[SORTED[:9], np.float32(np.nan), SORTED[10:]]),
    "infinite": npy(np.r_[SORTED[:-1], np.float32(np.inf)]),
    "all infinite": npy(np.full(350, np.inf, np.float32)),
    "the largest of float32 before the smallest": npy(np.r_[np.float32([3.4e38, -3.4e38]), SORTED[2:]]),
    "one less": npy(SORTED[:-1]),
    "one more": npy(np.r_[SORTED, np.float32(10)]),
    "none": npy(SORTED[:0]),
    "float64": npy(SORTED.astype(np.float64)),
    "two axes": npy(SORTED[:, None]),
    "no axis": npy(SORTED[0]),
    "text": npy(SORTED.astype("U8")),
    "too many": npy(np.arange(5000, dtype=np.float32)),
    "cut": npy(SORTED)[:-1],
    "noise": b"noise",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_calibration_scores_is_one_sentence(plant, fault):
    replace_calibration_bytes(plant, archive(fp32=FAULTS[fault], int8=npy(SORTED)))
    with aeedge.load(plant, variant="fp32") as model:  # they are not needed for a load
        assert model.detect(model.golden_rows()).any()  # nor for its own threshold
        for use in (
            lambda: model.p_value(model.golden_rows()),
            lambda: model.detect(model.golden_rows(), false_alarm_rate=0.1),
            lambda: model.false_alarm_rate,
            model.self_check,
        ):
            with pytest.raises(
                aeedge.CorruptBundleError, match=r"calibration\.npz: .*; export the bundle again"
            ) as caught:
                use()
            assert len(str(caught.value)) < 600
    with aeedge.load(plant, variant="int8") as model:
        assert model.p_value(model.golden_rows()).min() == 1 / 351


def test_an_archive_that_is_none_or_lacks_a_variant(plant):
    for data in (b"noise" * 100, archive(), archive(int8=npy(SORTED)), archive(fp32=npy(SORTED))[:300]):
        replace_calibration_bytes(plant, data)
        with (
            aeedge.load(plant, variant="fp32") as model,
            pytest.raises(aeedge.CorruptBundleError, match=r"calibration\.npz: (cannot be read|lacks 'fp32\.score')"),
        ):
            model.p_value(model.golden_rows())


def test_arrays_that_nobody_needs_and_ties_are_no_fault(plant):
    tied = np.repeat(SORTED[:35], 10)
    replace_calibration_bytes(plant, archive(zipfile.ZIP_DEFLATED, fp32=npy(tied), bomb=bytes(2**25), objects=b"x"))
    tracemalloc.start()
    try:
        with aeedge.load(plant, variant="fp32") as model:
            np.testing.assert_array_equal(model.calibration.scores, tied)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_a_bomb_in_the_place_of_the_scores_is_not_unpacked(plant):
    replace_calibration_bytes(plant, archive(zipfile.ZIP_DEFLATED, fp32=npy(SORTED)[:128] + bytes(2**26)))
    tracemalloc.start()
    try:
        with aeedge.load(plant, variant="fp32") as model, pytest.raises(aeedge.CorruptBundleError, match="of 6710"):
            model.p_value(model.golden_rows())
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_a_missing_or_truncated_file_is_refused_at_load(plant):
    whole = (plant / "calibration.npz").read_bytes()
    for data in (whole[:-1], b"", whole + b"x"):
        (plant / "calibration.npz").write_bytes(data)
        with pytest.raises(aeedge.CorruptBundleError, match=r"calibration\.npz: (truncated|too long), expected"):
            aeedge.load(plant)
    (plant / "calibration.npz").unlink()
    with pytest.raises(aeedge.CorruptBundleError, match=r"calibration\.npz: the manifest lists this file, but"):
        aeedge.load(plant)
    (plant / "calibration.npz").mkdir()
    with pytest.raises(aeedge.CorruptBundleError, match=r"calibration\.npz"):
        aeedge.load(plant)


def test_a_flipped_bit_is_found_before_a_score_is_used_and_by_verify(plant):
    whole = (plant / "calibration.npz").read_bytes()
    for at in range(0, len(whole), 97):
        (plant / "calibration.npz").write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with (
            aeedge.load(plant, variant="fp32") as model,
            pytest.raises(
                aeedge.CorruptBundleError, match=r"calibration\.npz: its content was changed, expected sha256"
            ),
        ):
            model.p_value(model.golden_rows())
    with pytest.raises(aeedge.CorruptBundleError, match=r"calibration\.npz"):
        aeedge.load(plant, check="golden")
    result = CliRunner().invoke(AeedgeGroup.build(), ["verify", str(plant)])
    assert result.exit_code == 1
    assert "calibration.npz: its content was changed" in result.output
    (plant / "calibration.npz").write_bytes(whole)
    result = CliRunner().invoke(AeedgeGroup.build(), ["verify", str(plant)])
    assert result.exit_code == 0
    assert "calibration.npz" in result.output.replace("\n", " ")


def test_scores_are_those_that_were_loaded_whatever_becomes_of_the_file(plant, sensors):
    rows = mixed(sensors, 200)
    with aeedge.load(plant, variant="fp32", threads=1) as model:
        shutil.rmtree(plant)
        shutil.copytree(DATA / "bundle_v2_both", plant)
        np.testing.assert_array_equal(model.p_value(rows), sensors.p_value(rows))
        assert model.false_alarm_rate == sensors.false_alarm_rate
    shutil.copytree(SENSORS, plant, dirs_exist_ok=True)
    with aeedge.load(plant, variant="fp32", threads=1) as model:
        shutil.rmtree(plant)
        np.testing.assert_array_equal(model.detect(rows), sensors.detect(rows))
        np.testing.assert_array_equal(model.p_value(rows), sensors.p_value(rows))


def test_a_calibration_that_was_read_is_not_read_again(plant, monkeypatch):
    reads = []
    whole = Bundle.calibration
    monkeypatch.setattr(Bundle, "calibration", lambda self, variant: reads.append(variant) or whole(self, variant))
    with aeedge.load(plant, variant="fp32") as model:
        for _ in range(3):
            model.detect(model.golden_rows())
        assert reads == []
        for _ in range(3):
            model.p_value(model.golden_rows())
            model.detect(model.golden_rows(), false_alarm_rate=0.1)
    assert reads == ["fp32"]


# Models among threads and processes


@pytest.mark.parametrize("used", [False, True])
def test_a_closed_model_raises_no_alarm_but_an_error(plant, used):
    model = aeedge.load(plant)
    rows = model.golden_rows()
    if used:
        model.detect(rows)
        model.p_value(rows)
    model.close()
    calls = [
        lambda: model.detect(rows),
        lambda: model.detect(rows[0]),
        lambda: model.detect(rows, threshold=1.0),
        lambda: model.p_value(rows),
        lambda: model.score_iter([rows]),
        lambda: model.detect_iter([rows]),
    ]
    for call in calls:
        with pytest.raises(aeedge.AeedgeError, match="the model was closed; load it again"):
            call()


def test_threads_get_the_same_alarms(plant):
    with aeedge.load(plant, threads=2) as model:
        rows = mixed(model, 600)
        parts = [rows[i : i + n] for n in (1, 7, 600) for i in range(0, 600, 200)]
        expected = [(model.detect(part), model.p_value(part)) for part in parts]
        fresh, wrong = aeedge.load(plant, threads=2), []  # all begin with nothing read
        begin = threading.Barrier(6)

        def work():
            begin.wait()
            for part, (alarms, p) in zip(parts * 5, expected * 5):
                if not (np.array_equal(fresh.detect(part), alarms) and np.array_equal(fresh.p_value(part), p)):
                    wrong.append(part)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        fresh.close()
    assert not wrong


def test_a_pickled_model_detects(plant, sensors):
    rows = mixed(sensors, 300)
    with aeedge.load(plant, variant="fp32", threads=1) as model:
        again = pickle.loads(pickle.dumps(model))
        with again:
            np.testing.assert_array_equal(again.detect(rows), model.detect(rows))
            assert again.threshold == model.threshold


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("used", [False, True])
def test_a_forked_child_detects(used):
    out, _ = child(
        f"""
        model = aeedge.load(bundle, threads=2)
        rows = np.repeat(model.golden_rows(), 20, axis=0)
        alarms, p = model.detect(rows), model.p_value(rows)
        fresh = model if {used} else aeedge.load(bundle, threads=2)
        def right():
            return np.array_equal(fresh.detect(rows), alarms) and np.array_equal(fresh.p_value(rows), p)
        print(forked(right), forked(right, sys.exit), right(), 0 < alarms.sum() < len(rows))
        """,
        SENSORS,
    )
    assert out == "0 0 True True"


# Iteration


@pytest.mark.parametrize("made", [list, tuple, iter], ids=["list", "tuple", "iterator"])
def test_iterations_give_what_single_calls_give(model, made):
    rows = mixed(model, 400)
    batches = [rows[:1], rows[1], rows[2:19], rows[19:400]]
    found = list(model.detect_iter(made(batches)))
    for got, batch in itertools.zip_longest(found, batches):
        assert np.array_equal(got, model.detect(batch))
        assert got.dtype == np.bool_
    assert [np.ndim(got) for got in found] == [1, 0, 1, 1]
    for got, batch in itertools.zip_longest(model.score_iter(made(batches)), batches):
        assert np.array_equal(got, model.score(batch))
    for more in ({"threshold": 1.0}, {"false_alarm_rate": 0.1}):
        parts = list(model.detect_iter(made(batches[2:]), **more))
        np.testing.assert_array_equal(np.concatenate(parts), model.detect(rows[2:], **more))


@pytest.mark.parametrize("call", ["detect_iter", "score_iter"])
def test_an_iteration_names_the_row_over_all_batches(sensors, call):
    rows = mixed(sensors, 300)
    rows[123, 5] = np.nan
    iterator = getattr(sensors, call)(rows[i : i + 50] for i in range(0, 300, 50))
    assert [len(next(iterator)), len(next(iterator))] == [50, 50]
    with pytest.raises(aeedge.InputError, match=r"row 123, column 5 \('s5'\)"):
        next(iterator)
    parts = list(getattr(sensors, call)((rows[i : i + 50] for i in range(0, 300, 50)), invalid="propagate"))
    whole = np.concatenate(parts)
    assert (whole[123] == np.True_) if call == "detect_iter" else np.isnan(whole).nonzero()[0].tolist() == [123]


def test_an_iteration_checks_its_threshold_before_it_reads(sensors):
    taken = []
    batches = (taken.append(1) or rows for rows in [sensors.golden_rows()])
    for more in ({"threshold": np.nan}, {"false_alarm_rate": 1e-3}):
        with pytest.raises(aeedge.InputError):
            sensors.detect_iter(batches, **more)
    assert not taken


# What the bundle records


def test_what_is_recorded_is_what_the_scores_say(model):
    spec = model.manifest.calibration
    assert model.calibration_size == spec.rows == model.calibration.size
    assert model.threshold in model.calibration.scores
    assert model.threshold == model.calibration.threshold(spec.rule["false_alarm_rate"])
    assert model.false_alarm_rate == spec.false_alarm_rate <= 0.01


@pytest.mark.parametrize("name", sorted({name for name, _ in MODELS}))
def test_bundles_of_the_second_version_are_those_that_need_it(name):
    assert ('"format_version": 2' in (DATA / name / "manifest.json").read_text()) == name.startswith("bundle_v2")


def test_a_bundle_of_a_later_version_asks_for_an_upgrade(plant):
    reseal(plant, lambda d: d.update(format_version=FORMAT_VERSION + 1))
    said = rf"version is {FORMAT_VERSION + 1}, .* up to {FORMAT_VERSION}; upgrade it with: pip install -U"
    with pytest.raises(aeedge.IncompatibleBundleError, match=said):
        aeedge.load(plant)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("false_alarm_rate", 1.5), ("false_alarm_rate", -0.1), ("rows", 0), ("rows", 4097), ("rows", 3.5),
        ("thresholds", {"fp32": 1e39}), ("thresholds", {"fp32": "1"}), ("thresholds", {"fp32": None}),
        ("thresholds", {"fp32": True}), ("thresholds", 3), ("rule", 3), ("time_ordered", 1), ("time_ordered", None),
        ("drift", []), ("spacing", 0.5), ("spacing", "1"), ("drift_references", [3, 2]), ("sha256", "x"), ("bytes", 0),
    ],
)  # fmt: skip
def test_a_calibration_entry_that_is_none(plant, key, value):
    reseal(plant, lambda d: d["calibration"].update({key: value}))
    with pytest.raises(aeedge.CorruptBundleError, match=rf"expected .* at \$\.calibration\.{key}"):
        aeedge.load(plant)


@pytest.mark.parametrize("parent", ["x", "", 3, [], "A" * 64])
def test_a_parent_that_is_no_id(plant, parent):
    reseal(plant, lambda d: d.update(parent=parent))
    with pytest.raises(aeedge.CorruptBundleError, match=r"expected a sha256 .* at \$\.parent"):
        aeedge.load(plant)


def test_a_score_that_needs_a_scorer_which_is_not_there(tmp_path):
    path = Path(shutil.copytree(DATA / "bundle_v2_both", tmp_path / "plant.aeedge"))
    reseal(path, lambda d: d["variants"]["fp32"].pop("scorer"))
    with pytest.raises(aeedge.CorruptBundleError, match=r"a variant has no scorer, got .* at \$\.score\.kind"):
        aeedge.load(path)


def test_rows_of_a_reference_are_the_same_with_and_without_calibration(plant, sensors):
    """Readers of before the calibration score a bundle of the first version as this one does."""

    def as_before(document):
        del document["calibration"], document["score"]["scale_from"]

    reseal(plant, as_before)
    rows = reference.rows_of(sensors, 600)
    with aeedge.load(plant, variant="fp32", threads=1) as model:
        assert model.manifest.score.kind == "mse"
        for count in (1, 16, 600):
            np.testing.assert_array_equal(model.score(rows[:count]), sensors.score(rows[:count]))
            np.testing.assert_array_equal(model.residual(rows[:count]), sensors.residual(rows[:count]))
