"""The harness of `aeedge bench`: latencies, statistics, disturbances."""

import itertools
import math
import os
import time
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from helpers.children import busy_loops
from helpers.simulated import Simulated

import aeedge
from aeedge.bench import measuring, scenarios, statistics
from aeedge.bench.compare import compare, verdict
from aeedge.bench.measuring import Measurement
from aeedge.bench.plan import Plan
from aeedge.bench.summary import summarise, too_few, trend
from aeedge.system import conditions
from aeedge.system.clock import Clock, disagreement
from aeedge.system.fingerprint import fingerprint
from aeedge.system.timing import repeat

DATA = Path(__file__).parent.parent / "data"
BUNDLE = str(DATA / "bundle_v1")
MS = 1_000_000


def endless(value):
    while True:
        yield value


ROWS = [np.zeros(3, np.float32)]


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_samples_needed_are_those_of_mlperf():
    assert [statistics.least_count(p) for p in (90, 99)] == [64, 662]


def test_early_stopping_discards_what_loadgen_discards():
    assert (
        statistics.allowed_above(55_464, 90) - 1 == 5381
    )  # LoadGen 6.0.17: "Would discard 5381 highest latency queries"


def test_a_noisy_machine_is_compared_for_longer():
    def noisy(seed):
        random = np.random.default_rng(seed)
        while True:
            yield int(1_000_000 * np.exp(random.normal(0, 0.3)))

    loads = []

    def opened():
        loads.append(0)
        return nullcontext(simulated.call)

    simulated = Simulated(noisy(0))
    found = compare(opened, opened, ROWS, 1, 0.5, simulated.clock)
    assert len(loads) > 20
    assert found.ratio.low < 1 < found.ratio.high


@pytest.mark.parametrize(("count", "percentile"), [(64, 90), (200, 90), (1000, 99), (5000, 99.9), (63, 90), (10, 50)])
def test_allowed_above_is_the_binomial_bound(count, percentile):
    above = 1 - percentile / 100
    chance, expected = 0.0, -1
    for t in range(count):
        chance += math.comb(count, t) * above**t * (1 - above) ** (count - t)
        if chance > 0.01:
            break
        expected = t
    assert statistics.allowed_above(count, percentile) == expected


def test_early_stopping_bounds_the_true_percentile_99_times_in_100():
    random = np.random.default_rng(0)
    estimates = [statistics.early_stopping(random.random(300), 90) for _ in range(1000)]
    assert np.mean(np.array(estimates) >= 0.9) >= 0.985


def test_percentiles_that_a_sample_does_not_support_are_none():
    found = statistics.percentiles(np.arange(700.0))
    assert found["p99"] is not None
    assert found["p99.9"] is None


def test_slope_is_unmoved_by_an_outlier():
    x = np.arange(30.0)
    y = 5 * x
    y[7] = 1e9
    assert statistics.slope(x, y) == pytest.approx(5)


def test_histogram_counts_every_latency():
    values = np.random.default_rng(0).lognormal(3, 1, 5000)
    assert sum(statistics.histogram(values)["counts"]) == 5000
    assert sum(statistics.histogram([7.0, 7.0])["counts"]) == 2


def test_a_few_stalls_do_not_leave_all_others_in_one_bin_of_a_histogram():
    values = np.append(np.random.default_rng(0).uniform(3, 6, 9_995), [20_000.0] * 5)
    found = statistics.histogram(values)
    *within, above = found["counts"]
    assert (len(within), above) == (60, 9)  # a thousandth of 10 000, less the one at its edge
    assert min(within) > 0
    assert found["edges"][-2] == pytest.approx(6, rel=0.01)
    assert found["edges"][-1] == 20_000


@pytest.mark.parametrize("values", [[5.0], [5.0, 900.0], [5.0] * 700, [1.0] * 1099 + [2.0]])
def test_of_up_to_a_thousand_latencies_none_is_above_the_histogram(values):
    found = statistics.histogram(values)
    assert found["counts"][-1] == (len(values) > 1000)
    assert sum(found["counts"]) == len(values)
    assert np.diff(found["edges"]).min() >= 0


# --- faster, slower, no difference -----------------------------------------------------------------------------------


def two_bundles(seed, slowdown, loads=10, blocks=12):
    """Ratios as a real machine gives them: loads differ by 1.5 %, blocks by 3 %, and one block in 20 is disturbed."""
    random = np.random.default_rng(seed)
    shape = (loads, blocks)
    load = random.normal(0, 0.015, (loads, 1))
    disturbed = np.where(random.random(shape) < 0.05, random.normal(0, 0.5, shape), 0)
    return np.exp(load + random.normal(0, 0.03, shape) + disturbed) * (1 + slowdown)


def test_a_bundle_against_itself_is_no_different_at_least_95_times_in_100():
    verdicts = [verdict(statistics.clustered_ratio(two_bundles(seed, 0.0), draws=1000)) for seed in range(200)]
    assert verdicts.count("no_difference") >= 190


def test_a_slowdown_of_5_percent_is_found():
    verdicts = [verdict(statistics.clustered_ratio(two_bundles(seed, 0.05), draws=1000)) for seed in range(100)]
    assert verdicts.count("slower") >= 95


def test_two_separate_runs_differ_only_by_more_than_their_noise():
    random = np.random.default_rng(1)
    same = [np.exp(random.normal(3, 0.01, 5)) for _ in range(2)]
    assert verdict(statistics.independent_ratio(*same)) == "no_difference"
    assert verdict(statistics.independent_ratio(same[0] * 1.1, same[1])) == "slower"
    assert verdict(statistics.independent_ratio(same[0] / 1.1, same[1])) == "faster"


def test_a_sleep_put_into_one_bundle_is_its_time_and_not_the_others():
    simulated = Simulated(endless(1 * MS))

    def slow(rows):
        simulated.call(rows)
        simulated.sleep(0.002)

    found = compare(lambda: nullcontext(slow), lambda: nullcontext(simulated.call), ROWS, 1, 1.0, simulated.clock)
    assert found.verdict == "slower"
    assert found.this_us - found.other_us == pytest.approx(2050)
    assert found.ratio == pytest.approx([3.05] * 3, rel=1e-4)


def test_the_order_of_two_bundles_does_not_matter():
    simulated = Simulated(endless(10_000))
    found = compare(
        lambda: nullcontext(simulated.call), lambda: nullcontext(simulated.call), ROWS, 1, 0.1, simulated.clock
    )
    assert found.ratio == (1.0, 1.0, 1.0)
    assert found.verdict == "no_difference"


# --- scenarios -------------------------------------------------------------------------------------------------------


def test_latencies_are_those_of_the_calls():
    simulated = Simulated([3000, 5000, 4000] * 1000)
    run = scenarios.back_to_back(simulated.call, ROWS, 1, 12e-6, simulated.clock)
    assert run.latencies.tolist() == [3010, 5010, 4010]


def test_offline_takes_all_rows_at_least_twice():
    simulated = Simulated(endless(900 * MS))
    run = scenarios.offline(simulated.call, np.zeros((50, 3)), 0.5, simulated.clock)
    assert run.latencies.tolist() == [900 * MS + 10] * 2
    assert run.rows == 50
    run = scenarios.offline(lambda rows: time.sleep(0.002), np.zeros((50, 3)), 0.001, Clock())
    assert len(run.latencies) == 2


def test_a_stall_shows_in_every_query_that_waited_behind_it():
    latencies = [100_000] * 1000
    latencies[10] = 55 * MS
    simulated = Simulated(latencies)
    run = scenarios.fixed_rate(simulated.call, ROWS, 100, 1.0, simulated.clock)
    late = run.latencies > 1 * MS
    assert late.tolist() == [10 <= i <= 15 for i in range(100)]  # due every 10 ms, the stall lasts 55
    assert run.latencies[11] == pytest.approx(45 * MS, abs=MS)
    assert run.delays[11] == pytest.approx(45 * MS, abs=MS)
    assert run.unserved == 0


def test_parts_of_a_run_at_a_fixed_rate_are_spread_over_its_time():
    simulated = Simulated(endless(10_000))
    found = summarise("FixedRate", [scenarios.fixed_rate(simulated.call, ROWS, 100, 1.2, simulated.clock)])
    assert [part["at_s"] for part in found["series"]] == pytest.approx(np.arange(60) / 50, abs=0.02)


def test_parts_of_a_run_have_a_p99_where_they_are_long_enough():
    parts = [summarise("SingleStream", [scenarios.Run(np.arange(60 * n), 1, 1.0)])["series"] for n in (661, 662)]
    assert all(part["p99_us"] is None for part in parts[0])
    assert all(part["p50_us"] < part["p99_us"] < part["max_us"] for part in parts[1])


def test_a_rate_that_cannot_be_reached_ends_in_time():
    simulated = Simulated(endless(10 * MS))
    run = scenarios.fixed_rate(simulated.call, ROWS, 1000, 1.0, simulated.clock)
    assert run.seconds == pytest.approx(1.0, abs=0.05)
    assert run.due == 1000
    assert run.unserved == pytest.approx(900, abs=3)


def test_a_clock_that_is_set_back_does_not_make_a_run_last_for_ever():
    simulated = Simulated(endless(1 * MS))
    seen = iter(range(10**9))

    def jumping():
        return simulated.now() - (10**13 if next(seen) > 50 else 0)

    clock = Clock(jumping, lambda: simulated.true, simulated.sleep)
    run = scenarios.back_to_back(simulated.call, ROWS, 1, 0.1, clock)
    assert (run.latencies < 0).any()
    seen = iter(range(10**9))
    scenarios.fixed_rate(simulated.call, ROWS, 100, 1.0, clock)
    assert simulated.true < 10 * 10**9


def test_repeat_reaches_both_minimums():
    simulated = Simulated(endless(1000))
    assert len(repeat(simulated.call, ROWS, least_calls=7, clock=simulated.clock)) == 7
    assert len(repeat(simulated.call, ROWS, least_ns=10_100, clock=simulated.clock)) == 10
    assert len(repeat(simulated.call, ROWS, least_ns=10_100, least_calls=500, clock=simulated.clock)) == 500
    assert min(repeat(time.sleep, [0.001, 0.003], least_calls=2)) >= 1 * MS


def test_ctrl_c_keeps_what_was_measured():
    def latencies():
        yield from [1000] * 20
        raise KeyboardInterrupt

    simulated = Simulated(latencies())
    run = scenarios.back_to_back(simulated.call, ROWS, 1, 1.0, simulated.clock)
    assert run.interrupted
    assert len(run.latencies) == 20


def test_too_few_samples_and_a_trend_are_findings():
    assert "which needs 64; raise --seconds" in too_few("SingleStream", 63).message
    assert too_few("SingleStream", 64) is None
    assert "last third of the run was 50% slower" in trend("Offline", np.repeat([100, 120, 150], 20)).message
    assert trend("Offline", np.repeat([100, 101, 102], 20)) is None


# --- what disturbs ---------------------------------------------------------------------------------------------------

QUIET = conditions.Reading(0, 0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 2000.0, 50.0)
LATER = conditions.Reading(10**10, 10**10, 9.0, 9.3, 0.0, 0.0, 0, 0, 0, 2000.0, 60.0)


def test_a_quiet_machine_gives_no_finding():
    assert conditions.judge(QUIET, LATER, cpus=4) == []


@pytest.mark.parametrize(
    ("change", "grade", "message"),
    [
        ({"busy": 16.0}, "invalid", "other processes used 18% of the CPU time"),
        ({"busy": 11.0}, "warning", "other processes used 5%"),
        ({"steal": 3.0}, "invalid", "7.5% of the CPU time to other machines"),
        ({"quota_wait": 5.0}, "invalid", "kept this process waiting for 5.00 s of 10.0 s"),
        ({"swapped": 5000}, "invalid", "swapped 5000 pages"),
        ({"throttles": 3}, "invalid", "throttled 3 times"),
        ({"pi_flags": 0b101}, "invalid", "the board reports under-voltage, throttled"),
        ({"frequency": 1200.0}, "warning", "from 2000 to 1200 MHz"),
        ({"celsius": 85.0}, "warning", "85 °C"),
        (
            {"reference_ns": 11 * 10**9},
            "invalid",
            "the clock jumped: it counted 10.000 s, the reference clock 11.000 s",
        ),
    ],
)
def test_each_disturbance_is_a_finding(change, grade, message):
    found = conditions.judge(QUIET, LATER._replace(**change), cpus=4)
    assert [f.grade for f in found] == [grade]
    assert message in found[0].message


def test_a_machine_that_reports_nothing_gives_no_finding():
    unknown = dict.fromkeys(("busy", "steal", "quota_wait", "swapped", "throttles", "pi_flags", "frequency", "celsius"))
    assert conditions.judge(QUIET._replace(**unknown), LATER._replace(**unknown)) == []


def test_the_state_of_a_system_is_read(tmp_path):
    def put(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    tick = os.sysconf("SC_CLK_TCK")
    put("proc/stat", f"cpu  {3 * tick} 0 {tick} 500 7 0 0 {2 * tick} 0 0\ncpu0 1 1 1\n")
    put("proc/vmstat", "nr_free_pages 1\npswpin 3\npswpout 4\n")
    put("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1800000\n")
    put("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n")
    put("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "9\n")
    put("sys/class/thermal/thermal_zone0/temp", "61500\n")
    put("sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n")
    reading = conditions.read(Clock(), str(tmp_path))
    assert (reading.busy, reading.steal, reading.swapped, reading.throttles) == (4.0, 2.0, 7, 9)
    assert (reading.frequency, reading.celsius, reading.pi_flags) == (1800.0, 61.5, 0x50005)
    assert "governor powersave" in conditions.standing(str(tmp_path))[0].message


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux to see other processes")
def test_a_busy_loop_beside_it_makes_a_run_invalid():
    with busy_loops(os.cpu_count() or 1):
        document = Measurement(Plan(BUNDLE, scenarios=("SingleStream",), seconds=1.0, quick=True)).run()
    assert document["status"] == "invalid"
    assert any(f["code"] == "other_load" and f["grade"] == "invalid" for f in document["findings"])


@pytest.mark.parametrize("jump", [5 * 10**9, -5 * 10**9])
def test_a_clock_that_jumps_makes_a_run_invalid(jump):
    simulated, readings = Simulated(tick=MS // 10), itertools.count()

    def now():
        return simulated.now() + (jump if next(readings) > 5000 else 0)  # 2000 are read before it begins

    plan = Plan(BUNDLE, scenarios=("SingleStream",), seconds=0.6, quick=True)
    document = Measurement(plan, clock=simulated.clock._replace(now=now)).run()
    assert next(readings) > 5000
    assert document["status"] == "invalid"
    assert any(f["code"] == "clock" for f in document["findings"])


def test_clocks_may_differ_a_little():
    assert disagreement(10**9, 10**9 + 10**6) is None
    assert disagreement(10**9, 0) is not None


# --- a whole run -----------------------------------------------------------------------------------------------------


def test_a_sleep_put_into_the_model_is_in_every_number(monkeypatch):
    true = aeedge.Model.encode

    def slow(self, x, **options):
        time.sleep(0.003)
        return true(self, x, **options)

    monkeypatch.setattr(aeedge.Model, "encode", slow)
    document = Measurement(Plan(BUNDLE, scenarios=("SingleStream", "Offline"), seconds=0.5, quick=True)).run()
    for scenario in document["scenarios"].values():
        assert scenario["min_us"] >= 3000
    assert document["scenarios"]["SingleStream"]["rows_per_second"] < 334


def test_a_fresh_process_is_measured_phase_by_phase(monkeypatch):
    monkeypatch.setattr(measuring, "_PROCESSES", 1)
    monkeypatch.setattr(measuring, "_PROCESS_SECONDS", 0.2)
    document = Measurement(Plan(BUNDLE, scenarios=(), seconds=0.1)).run()
    phases = document["phases"]
    parts = ("start_ms", "import_numpy_ms", "import_aeedge_ms", "load_ms", "first_call_ms")
    assert all(phases[name] > 0 for name in parts)
    assert phases["start_to_first_result_ms"] >= sum(phases[name] for name in parts) * 0.99
    assert phases["idle_cpu_percent"] < 50
    assert [b["rows"] for b in document["batches"]] == [2**k for k in range(13)]


def test_what_others_do_before_the_run_is_found(monkeypatch):
    """And in one moment: the machine's settings."""
    readings = iter([QUIET, LATER._replace(busy=16.0)])
    monkeypatch.setattr(conditions, "read", lambda clock: next(readings))
    monkeypatch.setattr(conditions.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(conditions, "cpu_count", lambda: 2)
    note = conditions.Finding("note", "governor", "")
    monkeypatch.setattr(conditions, "standing", lambda: [note])
    busy, last = conditions.at_start(Clock())
    assert (busy.grade, busy.code, last) == ("invalid", "other_load", note)
    assert busy.message.startswith("other processes used 35% of the CPU time")


def test_another_build_of_onnxruntime_has_a_version(monkeypatch):
    """onnxruntime-gpu has the module onnxruntime and no metadata of that name."""
    import onnxruntime

    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("aeedge.system.fingerprint.version", version)
    versions = fingerprint("no_such_package")["versions"]
    assert versions["onnxruntime"] == onnxruntime.__version__
    assert versions["no_such_package"] is None


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("name", ["bundle_v1", "bundle_v1_int8"])
def test_memory_of_a_fresh_process_is_its_own(name):
    """Not what this process has occupied, and without what the measurement keeps: the peak is the largest."""
    from aeedge.bench.phases import phases

    large = np.ones(2**26 // 8)  # resident here while the other process starts
    found = phases(str(DATA / name), "fp32", 1, "encode", 1, 0.2)["memory_mb"]
    assert found["imported"] < found["loaded"] < found["peak"]
    assert found["loaded"] < found["steady"] <= found["peak"]
    assert found["peak"] < found["loaded"] + large.nbytes / 2e6


def test_a_process_that_cannot_start_is_one_sentence(tmp_path):
    from aeedge.bench.phases import phases

    with pytest.raises(aeedge.AeedgeError, match=r"a fresh process could not use the bundle: .*nothing is there"):
        phases(str(tmp_path / "none"), "fp32", 1, "encode", 1, 0.1)


@pytest.mark.parametrize("method", ["encode", "decode", "denoise", "score"])
def test_every_method_is_measured_and_profiled(method):
    plan = Plan(BUNDLE, method=method, scenarios=("MultiStream",), seconds=0.3, quick=True, profile=True)
    document = Measurement(plan).run()
    assert document["scenarios"]["MultiStream"]["rows_per_query"] == 8
    graphs = {o["graph"] for o in document["profile"]["operators"]}
    assert graphs == {"encode": {"encoder"}, "decode": {"decoder"}}.get(method, {"encoder", "decoder"})
    assert [t["rows"] for t in document["profile"]["totals"]] == [1, 1024]


def test_integer_rows_reach_the_model_as_they_are():
    document = Measurement(Plan(str(DATA / "bundle_v1_uint8"), scenarios=("Offline",), seconds=0.1, quick=True)).run()
    assert document["bundle"]["input_dtype"] == "uint8"
    assert document["scenarios"]["Offline"]["queries"] >= 2
