"""Streams: windows of any chunks are those of the whole recording, and nothing is remembered that should not be."""

import contextlib
import itertools
import math
import shutil
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.signals import machine, signal_bundle
from helpers.tampering import reseal
from hypothesis import given, settings
from hypothesis import strategies as st

import aeedge
from aeedge import InputError, Stream, window
from aeedge.bundle.manifest import HEALTH, SignalSpec
from aeedge.signals.alarm_logic import AlarmLogic
from aeedge.signals.expectation import alarms_per_day

DATA = Path(__file__).parents[1] / "data"
WINDOW, HOP, RATE = 32, 8, 100.0


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A model of windows of two channels, for all tests here."""
    path = signal_bundle(tmp_path_factory.mktemp("signal") / "machine.aeedge")
    with aeedge.load(path) as model:
        yield model


@pytest.fixture(scope="module")
def recording():
    """A recording in which a channel goes wrong for a while, and is not a number once."""
    samples = machine(2000, seed=7)
    samples[700:900, 1] += np.linspace(0, 4, 200, dtype=np.float32)
    samples[1300, 0] = np.nan
    return samples


def all_of(event):
    return (event.index, event.start, event.end, event.exceeded, event.alarm, event.raised, event.health, event.verdict)


def assert_same(found, expected):
    assert [all_of(one) for one in found] == [all_of(one) for one in expected]
    for name in ("score", "drift", "p_value"):
        values = [[getattr(event, name) for event in events] for events in (found, expected)]
        np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-5, err_msg=name)


def pushed(stream, samples, cuts=()):
    """Events of samples that come in chunks, which end where `cuts` says."""
    edges = [0, *sorted(cuts), len(samples)]
    return [event for a, b in itertools.pairwise(edges) for event in stream.push(samples[a:b])]


def test_scores_and_latents_are_those_of_the_batch(watched, recording):
    """Each window's event has the results that the model has for it, and its place in time."""
    windows = window(recording, WINDOW, HOP)
    events = pushed(Stream(watched), recording, range(0, 2000, 37))
    assert [event.index for event in events] == list(range(len(windows)))
    scores = watched.score(windows, invalid="propagate")
    np.testing.assert_allclose([event.score for event in events], scores, rtol=1e-4, atol=1e-6)
    latents = watched.encode(windows, invalid="propagate")
    np.testing.assert_allclose([event.latent for event in events], latents, rtol=1e-4, atol=1e-5)
    assert events[3].start == pytest.approx(3 * HOP / RATE)
    assert events[3].end == pytest.approx((3 * HOP + WINDOW - 1) / RATE)
    np.testing.assert_array_equal(events[3].samples, windows[3])
    over = watched.detect(windows, invalid="propagate")
    finite = np.isfinite(scores)
    assert [event.exceeded for event in events] == (over & finite).tolist()
    assert 0 < over[finite].sum() < len(over)


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 2000), max_size=60),
    hop=st.sampled_from([1, 5, 8, 32, 50]),
    patience=st.sampled_from(["1 of 1", "2 of 3", "3 of 5"]),
)
def test_any_chunks_give_the_same_events(watched, recording, cuts, hop, patience):
    """How samples are divided is no matter, for any hop, with gaps between windows too."""
    options = {"hop": hop, "patience": patience, "cooldown": 1.0}
    whole = Stream(watched, **options).push(recording)
    assert len(whole) == (len(recording) - WINDOW) // hop + 1
    assert_same(pushed(Stream(watched, **options), recording, cuts), whole)


@settings(max_examples=30, deadline=None)
@given(at=st.integers(0, 2000), lost=st.integers(0, 50), hop=st.sampled_from([1, 8, 50]))
def test_a_restored_stream_goes_on_as_if_nothing_had_happened(watched, recording, at, lost, hop):
    """State and restore anywhere change nothing, also within a gap."""

    def run(restart):
        stream = Stream(watched, hop=hop, patience="2 of 3", cooldown=0.5)
        found = stream.push(recording[:at])
        if lost:
            found += stream.push(None, missing=lost)
        if restart:
            stream = Stream.restore(watched, stream.state())
        return found + stream.push(recording[at:]), stream.state()

    (found, after), (expected, untouched) = run(True), run(False)
    assert_same(found, expected)
    assert len(after) == len(untouched)


def test_reset_leaves_no_trace(watched, recording):
    """After a reset the stream is a new one, whatever it saw before."""
    stream = Stream(watched, patience="2 of 3", cooldown=100.0)
    stream.push(recording[:911], time=1e9)
    stream.push(None, missing=3)
    stream.reset()
    assert_same(stream.push(recording), Stream(watched, patience="2 of 3", cooldown=100.0).push(recording))


def test_patience_and_cooldown(watched, recording):
    """An alarm begins when k of the last n windows are above the threshold, and not within the cool-down."""
    plain = Stream(watched).push(recording)
    patient = Stream(watched, patience="3 of 5").push(recording)
    over = [event.exceeded for event in plain]
    assert [event.alarm for event in plain if not event.health] == [
        event.exceeded for event in plain if not event.health
    ]
    healthy = [i for i, event in enumerate(plain) if not event.health]
    for place, i in enumerate(healthy):
        last = [over[j] for j in healthy[max(0, place - 4) : place + 1]]
        assert patient[i].alarm == (sum(last) >= 3)
    raised = [event.end for event in plain if event.raised]
    quiet = [event.end for event in Stream(watched, cooldown=20.0).push(recording) if event.raised]
    assert 0 < len(quiet) < len(raised)
    assert set(quiet) <= set(raised) or min(np.diff(quiet)) >= 20.0


def test_hysteresis_keeps_an_alarm_on(watched, recording):
    """An alarm ends only when scores are well below the threshold."""
    plain, held = (Stream(watched, hysteresis=share).push(recording) for share in (0.0, 0.5))
    assert sum(event.raised for event in held) <= sum(event.raised for event in plain)
    limit = watched.threshold
    on = False
    for event in (event for event in held if not event.health):
        on = event.score > (0.5 * limit if on else limit)
        assert event.alarm == on


def test_a_gap_is_an_event_and_no_window_crosses_it(watched, recording):
    """Missing samples, however they are told, interrupt the windows; one event says so."""
    clean = machine(600, seed=3)
    for parts in ([120], [50, 70], [1] * 120):
        stream = Stream(watched)
        before = stream.push(clean[:100])
        gap = [event for lost in parts for event in stream.push(None, missing=lost)]
        after = stream.push(clean[220:])
        assert [event.verdict for event in gap] == ["bad input"]
        assert gap[0].health[0].kind == "missing"
        assert gap[0].start == pytest.approx(1.0)
        assert math.isnan(gap[0].score)
        assert gap[0].latent is None
        assert gap[0].explain() == ()
        assert after[0].start == pytest.approx(2.2)
        assert len(before) == (100 - WINDOW) // HOP + 1
        expected = watched.score(window(clean[220:], WINDOW, HOP))
        np.testing.assert_allclose([event.score for event in after], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("each", [False, True])
def test_times_that_jump_are_gaps_and_clocks_that_go_back_are_said(watched, each):
    """A time later than due is a gap, an earlier one a clock that went back."""
    clean = machine(300, seed=3)
    stream = Stream(watched)

    def push(samples, start):
        return stream.push(samples, start + np.arange(len(samples)) / RATE if each else start)

    assert not any(event.health for event in push(clean[:100], 50.0))
    assert not any(event.health for event in push(clean[100:150], 51.0))
    late = push(clean[150:200], 60.0)
    assert [fault.kind for fault in late[0].health] == ["gap"]
    assert late[0].start == pytest.approx(51.5)
    assert late[1].start == pytest.approx(60.0)
    back = push(clean[200:250], 40.0)
    assert [fault.kind for fault in back[0].health] == ["clock"]
    assert back[1].start == pytest.approx(40.0)


def test_gaps_within_a_chunk_are_found(watched):
    """Times of each sample show where some are missing in the middle of a chunk."""
    clean = machine(300, seed=3)
    times = np.arange(300) / RATE
    times[100:] += 7.0
    times[200:] -= 20.0
    events = Stream(watched).push(clean, times)
    kinds = [event.health[0].kind for event in events if event.health]
    assert kinds == ["gap", "clock"]
    cut = Stream(watched)
    assert_same(cut.push(clean[:150], times[:150]) + cut.push(clean[150:], times[150:]), events)


def test_a_sensor_that_runs_a_little_fast_is_no_gap(watched):
    """Chunks with the time of their first sample, of a sensor with half a per cent more samples a second."""
    clean = machine(4000, seed=3)
    stream, events = Stream(watched), []
    for start in range(0, 4000, 400):
        events += stream.push(clean[start : start + 400], time=5.0 + start / (1.005 * RATE))
    assert not [event for event in events if event.samples is None]


def test_memory_is_bounded(watched):
    """The buffer does not grow, and a state is small."""
    stream, clean = Stream(watched, hop=1), machine(1000, seed=3)
    sizes = set()
    for _ in range(5):
        stream.push(clean)
        sizes.add(len(stream.state()))
    assert max(sizes) - min(sizes) < 100


def test_bundles_without_a_signal_are_streamed_by_their_shape(model):
    """A table's rows are samples, each a window."""
    rows = model.golden_rows()
    events = Stream(model).push(rows.reshape(-1, 1) if model.input.features is None else rows)
    assert len(events) >= 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"hop": 0}, "hop: expected a whole number of at least 1, got 0"),
        ({"hop": 2.5}, "hop"),
        ({"hop": 2**70}, "hop: expected a whole number of at most 2147483647"),
        ({"patience": "5 of 3"}, "patience: expected how many"),
        ({"patience": 3}, "patience"),
        ({"patience": "0 of 3"}, "patience"),
        ({"cooldown": -1}, "cooldown: expected seconds, from 0, got -1"),
        ({"cooldown": math.nan}, "cooldown"),
        ({"hysteresis": 1}, "hysteresis: expected a share"),
        ({"threshold": math.nan}, "threshold"),
        ({"threshold": 1.0, "false_alarm_rate": 0.1}, "got both"),
        ({"false_alarm_rate": 1e-9}, "false_alarm_rate"),
    ],
)
def test_options_out_of_range(watched, arguments, said):
    """One sentence says what was expected."""
    with pytest.raises(InputError, match=said):
        Stream(watched, **arguments)


@pytest.mark.parametrize(
    ("samples", "more", "said"),
    [
        (np.zeros((5, 3)), {}, r"samples: expected numbers \(k, 2\), for the channels are x, y; got an array \(5, 3\)"),
        (np.zeros((5, 2, 2)), {}, "samples"),
        ([["a", "b"]], {}, "samples"),
        ([[1, 2], [3]], {}, "samples"),
        (np.zeros((5, 2), complex), {}, "samples"),
        (np.zeros((5, 2)), {"time": math.nan}, "time: expected seconds"),
        (np.zeros((5, 2)), {"time": [1.0, 2.0]}, "time: expected seconds"),
        (np.zeros((5, 2)), {"time": "noon"}, "time: expected seconds"),
        (None, {}, "missing: expected a whole number"),
        (np.zeros((5, 2)), {"time": 10**400}, "time: expected seconds"),
        (np.zeros((5, 2)), {"time": np.zeros(5, complex)}, "time: expected seconds"),
        ([[10**400, 1]], {}, "samples: expected numbers"),
        (None, {"missing": 10**400}, "missing: expected a whole number of at most"),
        (None, {"missing": 0}, "missing"),
        (None, {"missing": -3}, "missing"),
        (np.zeros((5, 2)), {"missing": 3}, "missing: expected samples or how many"),
    ],
)
def test_samples_that_do_not_fit_are_not_taken(watched, recording, samples, more, said):
    """One sentence, and the stream goes on as if they had not come."""
    stream, untouched = Stream(watched), Stream(watched)
    stream.push(recording[:50])
    untouched.push(recording[:50])
    with pytest.raises(InputError, match=said):
        stream.push(samples, **more)
    assert_same(stream.push(recording[50:]), untouched.push(recording[50:]))


def test_states_that_are_none(watched, tmp_path):
    """A damaged state, another bundle's, and something else are refused with a sentence."""
    state = Stream(watched).state()
    other = signal_bundle(tmp_path / "other.aeedge", signal=SignalSpec(("x", "y"), window=16, hop=4, rate=RATE))
    with aeedge.load(other) as model, pytest.raises(InputError, match="of the bundle"):
        Stream.restore(model, state)
    for damaged in (b"", b"nothing", state[:-40], state[:100], state.replace(b"bundle", b"bungle")):
        with pytest.raises(InputError, match="state"):
            Stream.restore(watched, damaged)


def test_integers_stay_integers_and_lost_samples_are_gaps(tmp_path):
    """A model of int16 takes whole numbers alone; NaN among them is a sample that is missing."""
    samples = np.round(1000 * machine(600, seed=3)).astype(np.int16)
    path = signal_bundle(tmp_path / "adc.aeedge", samples, dtype="int16")
    with aeedge.load(path) as model:
        whole = Stream(model).push(samples)
        assert_same(Stream(model).push(samples.astype(np.float64)), whole)
        with pytest.raises(InputError, match="whole numbers"):
            Stream(model).push(samples + 0.5)
        with pytest.raises(InputError, match="whole numbers"):
            Stream(model).push(samples.astype(np.int64) * 100)
        broken = samples.astype(np.float32)
        broken[300:303, 1] = np.nan
        events = Stream(model).push(broken)
        gap = [event for event in events if event.health]
        assert [event.health[0].kind for event in gap] == ["missing"]
        assert all(event.start >= 3.03 for event in events[gap[0].index + 1 :])


def test_calendar_channels_are_made_of_the_time(tmp_path):
    """The model's windows have sine and cosine of the time of day after the measured channels."""
    spec = SignalSpec(("load",), window=12, hop=3, rate=1 / 600, calendar=("day", "week"))
    times = 1.7e9 + 600.0 * np.arange(400)
    day, week = 2 * np.pi * times / 86_400, 2 * np.pi * (times - 4 * 86_400) / 604_800
    load = 10 + np.sin(day)[:, None] + 0.1 * np.random.default_rng(0).normal(size=(400, 1))
    full = np.column_stack([load, np.sin(day), np.cos(day), np.sin(week), np.cos(week)]).astype(np.float32)
    with aeedge.load(signal_bundle(tmp_path / "load.aeedge", full, spec)) as model:
        events = Stream(model).push(load, times)
        np.testing.assert_allclose([e.score for e in events], model.score(window(full, 12, 3)), rtol=1e-2, atol=1e-4)
        with pytest.raises(InputError, match="time: expected the time of the samples"):
            Stream(model).push(load)


def test_expected_false_alarms(watched):
    """More patience promises fewer alarms; without an order in time each window above the threshold counts."""
    plain = Stream(watched).expected_false_alarms_per_day
    assert plain == pytest.approx(watched.false_alarm_rate * 86_400 * RATE / HOP)
    assert Stream(watched, false_alarm_rate=0.2).expected_false_alarms_per_day > plain


def test_int8_scores_are_the_same_to_the_bit_for_any_chunks():
    """Integer sums do not depend on how many windows are scored together."""
    with aeedge.load(DATA / "bundle_v1_robust_int8", variant="int8") as model:
        rows = np.tile(model.golden_rows(), (40, 1))
        rows = rows.reshape(-1, 1) if model.input.features is None else rows
        whole = [event.score for event in Stream(model).push(rows)]
        for size in (1, 7, 64):
            stream = Stream(model)
            found = [e.score for at in range(0, len(rows), size) for e in stream.push(rows[at : at + size])]
            assert found == whole
    assert len(set(whole)) > 10


def test_nothing_among_numbers_is_a_missing_value(watched):
    """None in lists is what NaN is in arrays."""
    clean = machine(64, seed=3)
    listed, broken = clean.tolist(), clean.copy()
    listed[40][1], broken[40, 1] = None, np.nan
    assert_same(Stream(watched).push(listed), Stream(watched).push(broken))


def test_a_stream_says_what_it_is(watched):
    """In a shell, and where it was given a path for a model."""
    assert repr(Stream(watched)) == "<aeedge.Stream of 'machine': 2 channels at 100 Hz, 32 samples every 8>"
    with pytest.raises(InputError, match=r"model: expected what aeedge\.load gives"):
        Stream(watched.path)


def test_times_may_be_dates(watched):
    """Seconds since 1970 UTC are what dates are; those without a zone are taken as UTC."""
    clean, start = machine(64, seed=3), 1_700_000_000.0
    expected = Stream(watched).push(clean, start)
    when = datetime.fromtimestamp(start, timezone.utc)
    each = np.datetime64(int(start), "s") + (np.arange(64) * 1e7).astype("timedelta64[ns]")
    for time in (when, when.replace(tzinfo=None), np.datetime64(int(start), "s"), each):
        found = Stream(watched).push(clean, time)
        assert [event.end for event in found] == pytest.approx([event.end for event in expected], abs=1e-6)


def test_alarms_a_day_are_counted_by_stretches_of_the_calibration():
    """Windows that overlap make one alarm of one odd moment; more patience promises less, and never nothing."""
    signal = SignalSpec(("x",), window=40, hop=10, rate=10.0)
    scores = np.zeros(400, np.float32)
    scores[[50, 51, 52, 200, 201, 300]] = 2.0  # three moments in 100 stretches of four windows
    spec = SimpleNamespace(spacing=1.0)
    model: Any = SimpleNamespace(manifest=SimpleNamespace(calibration=spec), calibration_sequence=scores)
    stretches_a_day = 86_400 * 10.0 / 40
    for patience, moments in (("1 of 1", 3), ("2 of 4", 2), ("3 of 4", 1), ("4 of 4", 0)):
        found = alarms_per_day(model, signal, 10, 1.0, AlarmLogic(patience))
        assert found == pytest.approx((moments + 1) / 101 * stretches_a_day)
    assert alarms_per_day(model, signal, 10, 1.0, AlarmLogic("1 of 1", cooldown=1e6)) == pytest.approx(
        2 / 101 * stretches_a_day
    )


@pytest.mark.parametrize(
    ("samples", "length", "hop", "said"),
    [
        ([[1, 2], [3]], 1, 1, "samples: expected rows of one shape"),
        (None, 1, 1, "samples: expected an array of numbers"),
        (np.zeros((4, 2, 2)), 1, 1, "samples: expected numbers"),
        (np.zeros((4, 2)), 5, 1, "samples: expected a recording of 5 samples or more, as a window has, got 4"),
        (np.zeros((4, 2)), 0, 1, "length: expected a whole number"),
        (np.zeros((4, 2)), 2.0, 1, "length: expected a whole number"),
        (np.zeros((4, 2)), 2, 0, "hop: expected a whole number"),
    ],
)
def test_what_cannot_be_cut_into_windows_is_refused(samples, length, hop, said):
    with pytest.raises(InputError, match=said):
        aeedge.window(samples, length, hop)


def test_a_clock_that_goes_back_does_not_silence_alarms(watched):
    """A device that starts at 1970 again is not quiet until its old time comes."""
    wild = machine(100, seed=3) + 10 * np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    stream = Stream(watched, cooldown=30.0)
    first = stream.push(wild, 1.7e9) + stream.push(machine(100, seed=3))
    again = stream.push(wild, 0.0)
    assert [sum(event.raised for event in found) for found in (first, again)] == [1, 1]


def test_a_cooldown_goes_on_over_a_gap(watched):
    """An alarm that a gap ends has ended: none begins for a while."""
    wild = machine(100, seed=3) + 10 * np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    for cooldown, raised in ((0.0, 2), (60.0, 1)):
        stream = Stream(watched, cooldown=cooldown)
        events = stream.push(wild) + stream.push(None, missing=3) + stream.push(wild)
        assert sum(event.raised for event in events) == raised


@pytest.mark.parametrize(
    "options",
    [
        {"cooldown": np.float32(3)},
        {"hysteresis": np.float32(0.1)},
        {"threshold": np.float32(1)},
        {"false_alarm_rate": np.float32(0.1)},
        {"adapt": np.True_},
        {"hop": np.int16(4)},
    ],
)
def test_options_that_are_numpy_numbers_have_a_state(watched, recording, options):
    stream = Stream(watched, **options)
    stream.push(recording[:500])
    again = Stream.restore(watched, stream.state())
    assert_same(again.push(recording[500:700]), stream.push(recording[500:700]))


def test_adapt_is_true_or_false(watched):
    with pytest.raises(InputError, match="adapt: expected True or False, got 'no'"):
        Stream(watched, adapt="no")


def test_a_state_with_any_bit_wrong_is_no_traceback(watched, recording):
    """It is refused with a sentence, or nothing that matters was hit."""
    stream = Stream(watched, adapt=True)
    stream.push(recording[:100])
    state, rng, refused = stream.state(), np.random.default_rng(0), 0
    for _ in range(1500):
        damaged = bytearray(state)
        damaged[rng.integers(len(state))] ^= 1 << rng.integers(8)
        try:
            Stream.restore(watched, bytes(damaged))
        except InputError:
            refused += 1
    assert refused > 500


@pytest.mark.parametrize(("period", "start"), [(0.0097, 0.0), (0.0102, 1.7e9), (0.01, -50.0)])
def test_times_of_values_that_an_integer_model_cannot_take_are_kept(tmp_path, period, start):
    """However chunks end within them, the clock is that of the samples."""
    samples = np.round(1000 * machine(400, seed=3)).astype(np.int16)
    broken = samples.astype(np.float32)
    broken[:20, 0] = broken[100:200, 0] = np.nan
    times = start + period * np.arange(400)
    with aeedge.load(signal_bundle(tmp_path / "adc.aeedge", samples, dtype="int16")) as model:
        whole = Stream(model).push(broken, times)
        assert [(event.start, event.health[0].kind) for event in whole if event.health] == [
            (times[0], "missing"),
            (times[100], "missing"),
        ]
        cut = Stream(model)
        parts = [(0, 5), (5, 150), (150, 151), (151, 400)]
        assert_same([event for a, b in parts for event in cut.push(broken[a:b], times[a:b])], whole)


@pytest.mark.parametrize("period", [0.01005, 0.00995])
def test_chunks_with_one_time_and_with_many_may_take_turns(watched, period):
    """A sensor with half a per cent more or fewer samples a second, which do not always come with their time."""
    clean, stream = machine(3000, seed=3), Stream(watched)
    times, events = period * np.arange(3000), []
    for at, to, time in (
        (0, 1000, times[0]),
        (1000, 1001, times[1000]),
        (1001, 2000, None),
        (2000, 3000, times[2000:]),
    ):
        events += stream.push(clean[at:to], time)
    assert not [event for event in events if event.health]


SPECS = {
    "two channels": SignalSpec(("x", "y"), window=32, hop=8, rate=RATE),
    "no rate": SignalSpec(("x", "y"), window=16, hop=4),
    "one channel": SignalSpec(("x",), window=16, hop=4, rate=RATE),
    "windows of one sample": SignalSpec(("x", "y", "z"), window=1, hop=1, rate=RATE),
    "a hop longer than a window": SignalSpec(("x", "y"), window=8, hop=20, rate=RATE),
    "integers": SignalSpec(("x", "y"), window=32, hop=8, rate=RATE),
    "calendar": SignalSpec(("x",), window=12, hop=3, rate=RATE, calendar=("day",)),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Models of all kinds of signals, by name."""
    folder, found = tmp_path_factory.mktemp("kinds"), {}
    with contextlib.ExitStack() as stack:
        for name, spec in SPECS.items():
            samples, dtype = machine(2000, spec.width), "float32"
            if name == "integers":
                samples, dtype = np.round(1000 * samples).astype(np.int16), "int16"
            bundle = signal_bundle(folder / name, samples, spec, latents=min(6, spec.window * spec.width), dtype=dtype)
            found[name] = stack.enter_context(aeedge.load(bundle))
        yield found


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(list(SPECS)),
    count=st.integers(1, 300),
    seed=st.integers(0, 20),
    jumps=st.lists(st.tuples(st.integers(0, 299), st.sampled_from([2.0, 100.0, 0.5, -0.5, -50.0])), max_size=3),
    broken=st.tuples(st.integers(0, 300), st.integers(0, 9)),
    lost=st.tuples(st.integers(0, 300), st.integers(0, 30)),
    skew=st.sampled_from([1.0, 1.02, 0.97]),
    hop=st.sampled_from([None, 1, 3, 40]),
    patience=st.sampled_from(["1 of 1", "2 of 3"]),
    cooldown=st.sampled_from([0.0, 0.5]),
    hysteresis=st.sampled_from([0.0, 0.3]),
    adapt=st.booleans(),
    timed=st.booleans(),
    cuts=st.lists(st.integers(0, 300), max_size=30) | st.just(list(range(300))),
)
def test_chunks_restarts_and_resets_change_nothing_for_any_signal(
    models, kind, count, seed, jumps, broken, lost, skew, timed, cuts, **options
):
    """Gaps, NaN and clocks that go wrong are where they are, however samples come and whatever came before a reset."""
    model, rng = models[kind], np.random.default_rng(seed)
    samples = machine(count, len(model.input.signal.channels), seed)
    samples[count // 2 : count // 2 + 20] += 3 * rng.normal(size=samples[count // 2 : count // 2 + 20].shape)
    samples = np.round(1000 * samples) if kind == "integers" else samples
    samples[broken[0] : sum(broken), 0] = np.nan
    times = rng.choice([0.0, 1.7e9]) + np.arange(count) * skew / (model.input.signal.rate or 1.0)
    for at, jump in jumps:
        times[at:] += jump / (model.input.signal.rate or 1.0)
    if not timed and kind != "calendar":
        times = None

    def run(cuts, whole):
        stream, found = Stream(model, **options), []
        if not whole:
            stream.push(samples, times)
            stream.reset()
        for a, b in itertools.pairwise(sorted({0, count, min(lost[0], count), *(min(cut, count) for cut in cuts)})):
            if a == lost[0] and lost[1]:
                for part in [lost[1]] if whole else [1] * lost[1]:
                    found += stream.push(None, missing=part)
            time = None if times is None else times[a] if b - a == 1 else times[a:b]
            found += stream.push(samples[a:b], time)
            stream = stream if whole else Stream.restore(model, stream.state())
        return found

    found, expected = run(cuts, False), run([], True)
    assert_same(found, expected)
    likelihoods = [[event.likelihood for event in events] for events in (found, expected)]
    np.testing.assert_allclose(*likelihoods, rtol=1e-3, atol=1e-4)


def test_a_frozen_bundle_of_windows_is_streamed_with_all_that_it_says():
    """What bundles of this version say of their windows is understood for ever."""
    with aeedge.load(DATA / "bundle_v1_windows") as model:
        assert all(found.error <= found.allowed for found in model.self_check())
        signal = model.input.signal
        assert (signal.channels, signal.units, signal.rate, signal.calendar) == (("x", "y"), ("g", "A"), 0.01, ("day",))
        times = 1.7e9 + 100.0 * np.arange(4000)
        load = np.sin(2 * np.pi * times / 86_400)
        samples = np.stack([load, 5 + 0.5 * load**2], 1) + 0.1 * np.random.default_rng(3).normal(size=(4000, 2))
        samples[2000:2100, 1] = 5.2
        samples[3000:, 0] += 1.0
        stream = Stream(model, patience="3 of 5")
        events = stream.push(samples, times)
        assert 0 < stream.expected_false_alarms_per_day < model.false_alarm_rate * 86_400 * 0.01 / 8
        kinds = {fault.kind for event in events for fault in event.health}
        assert kinds == {"stuck"}
        assert {fault.channel for event in events for fault in event.health} == {"y"}
        assert all(event.verdict == "anomaly" for event in events[-100:])
        assert events[-1].explain(1)[0].name == "x"
        before = [event.verdict for event in events if event.end < times[2000]]
        assert before.count("ok") > 0.95 * len(before)
        assert (
            max(event.drift for event in events) >= 1 > max(event.drift for event in events if event.end < times[2000])
        )


ODD = [
    None,
    0,
    -1,
    1.5,
    1e308,
    5e-324,
    10**30,
    True,
    "",
    "x",
    [],
    {},
    [None],
    ["x", "x"],
    ["day"],
    [0, 0],
    [5, -5],
    {"a": 1},
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("key", [*SPECS["calendar"].document(), "longest_step", "low", "high", "longest_run", "zeros"])
def test_a_forged_signal_is_refused_or_streams(tmp_path, key):
    """Nothing in a manifest makes a traceback, or a warning."""
    path = signal_bundle(tmp_path / "machine")
    reference = {name: [1.0, 1.0] for name in HEALTH} | {"low": [-9.0, -9.0], "high": [9.0, 9.0]}
    reseal(path, lambda document: document["input"]["signal"].update(reference=reference))
    for value in ODD:

        def change(document, value=value):
            signal = document["input"]["signal"]
            (signal["reference"] if key in HEALTH else signal)[key] = value

        shutil.copytree(path, forged := tmp_path / "forged", dirs_exist_ok=True)
        reseal(forged, change)
        with contextlib.suppress(aeedge.AeedgeError), aeedge.load(forged) as model:
            stream = Stream(model)
            stream.push(machine(100, len(stream.channels)), 1e9)
            Stream.restore(model, stream.state())
            assert stream.expected_false_alarms_per_day is None or stream.expected_false_alarms_per_day > 0


def test_no_samples_at_all_are_a_chunk_too(watched, recording):
    stream = Stream(watched)
    events = stream.push(recording[:100])
    assert [stream.push(nothing) for nothing in ([], np.zeros((0, 2)), np.zeros(0))] == [[], [], []]
    assert_same(events + stream.push(recording[100:]), Stream(watched).push(recording))
