"""Broken sensors in windows: each kind of fault is found, with its channel; healthy signals of all kinds pass."""

import json
import warnings
from types import MappingProxyType

import numpy as np
import pytest
from helpers.signals import machine, signal_bundle

import aeedge
from aeedge.bundle.json_node import Node
from aeedge.bundle.manifest import HEALTH, InputSpec, Missing, SignalSpec
from aeedge.bundle.manifest_reading import read_signal
from aeedge.errors import CorruptBundleError
from aeedge.signals.health import Fault, HealthCheck, reference_of
from aeedge.signals.window import window

LENGTH, TRAINING, LATER = 128, 12_000, 12_000
NAMES = ("inlet", "outlet", "motor")


def sines(rng, t):
    return np.stack([np.sin(t / 9 + i) + 0.3 * np.sin(t / 31) + 0.05 * rng.normal(size=t.shape) for i in range(3)], 1)


def noise(rng, t):
    return 20 + 3 * rng.normal(size=(len(t), 3))


def smooth(rng, t):
    """A random walk that is pulled back, as a temperature: 40 ± 2."""
    steps, out = rng.normal(size=(len(t), 3)), np.zeros((len(t), 3))
    for i in range(1, len(t)):
        out[i] = 0.97 * out[i - 1] + 0.5 * steps[i]
    return 40 + out


def bursts(rng, t):
    """A bearing: short ringing, and silence in between."""
    ring = np.exp(-np.arange(30) / 6) * np.sin(np.arange(30))
    strikes = (rng.random((len(t), 3)) < 0.02).astype(float)
    return np.stack([np.convolve(s, ring)[: len(t)] for s in strikes.T], 1) + 0.02 * rng.normal(size=(len(t), 3))


def coarse(rng, t):
    """Sensors with few steps, so that neighbours are often equal."""
    return np.round(smooth(rng, t) * 2) / 2


def counts(rng, t):
    return np.round(300 * sines(rng, t)).astype(np.int16)


def pixels(rng, t):
    return np.clip(128 + 40 * sines(rng, t), 0, 255).astype(np.uint8)


KINDS = {f.__name__: f for f in (sines, noise, smooth, bursts, coarse, counts, pixels)}


@pytest.fixture(scope="module", params=KINDS)
def sensor(request):
    """Of a kind of signal: the check, and later windows."""
    rng, t = np.random.default_rng(5), np.arange(TRAINING + LATER)
    values = KINDS[request.param](rng, t)
    values = values if values.dtype.kind in "iu" else values.astype(np.float32)
    reference = json.loads(json.dumps(reference_of(window(values[:TRAINING], LENGTH, 16)), allow_nan=False))
    return HealthCheck(reference, NAMES, values.dtype), window(values[TRAINING:], LENGTH, 64)


def kinds_of(faults):
    return {(fault.kind, fault.channel) for fault in faults}


def test_windows_of_the_training_distribution_have_no_fault(sensor):
    check, windows = sensor
    assert len(windows) > 180
    assert sum(bool(check.check(w)) for w in windows) == 0


@pytest.mark.parametrize("channel", range(3))
def test_each_fault_is_found_with_its_channel(sensor, channel):
    check, windows = sensor
    dtype, rng = windows.dtype, np.random.default_rng(7)
    for w in windows[::20]:
        w = w.copy()
        span, middle = np.ptp(w[:, channel].astype(float)), float(np.median(w[:, channel]))

        def having(change, w=w):
            spoilt = w.copy()
            change(spoilt[:, channel])
            return kinds_of(check.check(spoilt))

        name = NAMES[channel]
        assert having(lambda x, m=middle: x.fill(m)) == {("stuck", name)}
        assert having(lambda x: x[50:].fill(x[50])) & {("stuck", name), ("saturated", name)}
        found = having(lambda x: x.fill(0))
        assert ("stuck", name) in found
        assert {fault[1] for fault in found} == {name}
        if dtype.kind == "f":
            assert having(lambda x: x.__setitem__(3, np.nan)) == {("not finite", name)}
            assert having(lambda x: x.__setitem__(slice(60, None), np.inf)) == {("not finite", name)}
            assert ("out of range", name) in having(lambda x: x.__setitem__(9, 1e20))
            assert ("out of range", name) in having(lambda x: x.__setitem__(9, -1e30))
        if dtype != np.uint8:
            far = np.asarray(w[:, channel], float).max() + 10 * span + 60
            assert ("out of range", name) in having(lambda x, far=far: x.__setitem__(slice(40, 44), far))
        mixed = rng.random(LENGTH) < 0.4
        found = having(lambda x, mixed=mixed: x.__setitem__(mixed, 0))
        assert found or np.mean(w == 0) > 0.01 or dtype.kind == "u"


@pytest.mark.parametrize("make", [sines, smooth])
@pytest.mark.parametrize("level", [0.3, 0.6])
def test_flat_tops_are_saturated(make, level):
    values = make(np.random.default_rng(5), np.arange(TRAINING + LATER)).astype(np.float32)
    check = HealthCheck(reference_of(window(values[:TRAINING], LENGTH, 16)), NAMES, np.float32)
    found = 0
    windows = window(values[TRAINING:], LENGTH, 640)
    for w in windows:
        centre, half = w[:, 1].mean(), np.ptp(w[:, 1]) / 2
        spoilt = w.copy()
        spoilt[:, 1] = np.clip(w[:, 1], centre - level * half, centre + level * half)
        faults = check.check(spoilt)
        assert {fault.channel for fault in faults} <= {"outlet"}
        found += "saturated" in {fault.kind for fault in faults}
    assert found > 0.8 * len(windows)


@pytest.mark.parametrize(("dtype", "top"), [("int16", 32767), ("uint8", 255)])
def test_the_limits_of_integers_are_saturated(dtype, top):
    t, rng = np.arange(8000), np.random.default_rng(0)
    middle = 0 if dtype == "int16" else 128
    values = np.round(middle + top / 4 * sines(rng, t)).astype(dtype)
    check = HealthCheck(reference_of(window(values, LENGTH, 16)), NAMES, dtype)
    limits = np.iinfo(dtype)
    loud = np.clip(middle + 4 * (values[:LENGTH, 2].astype(float) - middle), limits.min, limits.max)
    spoilt = values[:LENGTH].copy()
    spoilt[:, 2] = loud
    assert ("saturated", "motor") in kinds_of(check.check(spoilt))


def test_what_is_constant_or_coarse_in_training_is_not_stuck():
    rng = np.random.default_rng(1)
    t = np.arange(9000)
    point = np.where(t < 8200, 50.0, 90.0)  # a set point, and another one later
    switch = (t // 700 % 2).astype(float)  # on and off for longer than a window
    coarse_ = np.round(np.sin(t / 400) * 3)  # a few steps of a slow signal
    values = np.stack([point, switch, coarse_], 1).astype(np.float32)
    check = HealthCheck(reference_of(window(values[:6000], LENGTH, 16)), NAMES, np.float32)
    assert all(check.check(w) == () for w in window(values[6000:], LENGTH, 16))
    values[:, 2] += rng.normal(size=len(t))
    check = HealthCheck(reference_of(window(values[:6000], LENGTH, 16)), NAMES, np.float32)
    assert all(check.check(w) == () for w in window(values[6000:], LENGTH, 16))
    values[7000:, 2] = values[7000, 2]
    assert kinds_of(check.check(values[7000 : 7000 + LENGTH])) == {("stuck", "motor")}


def test_calendar_channels_and_those_without_a_reference_are_not_checked():
    values = noise(np.random.default_rng(0), np.arange(4000)).astype(np.float32)
    windows = window(values, LENGTH, 32)
    names = (*NAMES, "day sin", "day cos")
    calendar = np.full((LENGTH, 2), 0.25, np.float32)
    w = np.concatenate([windows[0], calendar], 1)
    assert HealthCheck(reference_of(windows), names, np.float32).check(w) == ()
    for reference in ({}, {"low": [0.0] * 3}, {"later": 1}, MappingProxyType({})):
        check = HealthCheck(reference, NAMES, np.float32)
        assert check.check(np.full((LENGTH, 3), 1e20, np.float32)) == ()
        spoilt = windows[0].copy()
        spoilt[4, 1] = np.nan
        assert check.check(spoilt) == (Fault("not finite", "outlet", f"1 of {LENGTH} samples are NaN or infinite"),)


def test_missing_values_are_told_from_broken_ones():
    values = noise(np.random.default_rng(0), np.arange(4000)).astype(np.float32)
    codes = {str(3 * i + 1): (-9999.0,) for i in range(LENGTH)}
    spec = InputSpec((LENGTH, 3), "float32", missing=Missing("median", codes, tuple([0.0] * (3 * LENGTH))))
    check = HealthCheck(reference_of(window(values, LENGTH, 32)), NAMES, np.float32, spec)
    w = values[:LENGTH].copy()
    assert check.check(w) == ()
    w[5, 1], w[6, 2] = -9999, np.nan
    assert kinds_of(check.check(w)) == {("missing", "outlet"), ("missing", "motor")}
    w[6, 2] = np.inf
    assert kinds_of(check.check(w)) == {("missing", "outlet"), ("not finite", "motor")}
    values[::50, 0] = np.nan  # usual, and filled by the model
    plain = spec._replace(missing=Missing("median", {}, tuple([0.0] * (3 * LENGTH))))
    check = HealthCheck(reference_of(window(values, LENGTH, 32)), NAMES, np.float32, plain)
    assert check.check(values[:LENGTH]) == ()
    values[:LENGTH:4, 0] = np.nan
    assert kinds_of(check.check(values[:LENGTH])) == {("missing", "inlet")}


def test_a_quick_look_never_hides_a_fault(sensor, monkeypatch):
    """Windows that are done with after one look at all channels have no fault in any of them."""
    check, windows = sensor
    rng, spoilt = np.random.default_rng(3), []
    for w in windows:
        w = w.copy()
        for _ in range(rng.integers(3)):
            start, channel = rng.integers(LENGTH), rng.integers(3)
            w[start : start + rng.integers(1, 40), channel] = rng.choice([0, w[start, channel], 90])
        spoilt.append(w)
    found = [check.check(w) for w in spoilt]
    monkeypatch.setattr(HealthCheck, "_is_usual", lambda self, rows: False)
    assert found == [check.check(w) for w in spoilt]
    assert sum(map(bool, found)) > 20
    assert not all(found)


SHAPES = [(0, 3), (1, 3), (2, 3), (5, 3), (LENGTH, 3), (1000, 3), (LENGTH, 7)]
VALUES = [0, 1, -1, np.nan, np.inf, -np.inf, 1e38, 255]
DTYPES = [np.float32, np.float64, np.float16, np.int16, np.uint8, np.int64, np.bool_]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_nothing_crashes(dtype):
    """Any shape, any value, any order in memory: faults, or none."""
    rng, checked = np.random.default_rng(0), 0
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of casts here
        references = [{}]
        for shape in SHAPES[1:]:
            references += [reference_of(np.full((2, *shape), value).astype(dtype)) for value in VALUES]
            references.append(reference_of(rng.normal(size=(2, *shape)).astype(dtype)))
        windows = [np.full(shape, value).astype(dtype) for shape in SHAPES for value in VALUES]
        windows += [np.asfortranarray(rng.normal(size=shape).astype(dtype)) for shape in SHAPES]
    windows += [w[::-2] for w in windows]
    for reference in references:
        json.dumps(reference, allow_nan=False)
        check = HealthCheck(reference, [*NAMES, *"abcd"], np.float32 if dtype().dtype.kind in "fb" else dtype)
        for w in windows:
            if w.shape[1] >= len(reference.get("low", range(7))):
                faults = check.check(w)
                checked += 1
                assert all(fault.detail.isprintable() for fault in faults)
                assert faults or np.isfinite(w).all() or not w.size
    assert checked > 1000


@pytest.mark.parametrize("value", [None, "x", np.zeros(3), np.zeros((4, 2)), np.array([["a", "b", "c"]]), [[1, 2, 1j]]])
def test_no_window_is_one_sentence(value):
    with pytest.raises(aeedge.InputError, match=r"window: expected numbers \(samples, channels\) of 3 channels"):
        HealthCheck({}, NAMES, np.float32).check(value)


@pytest.mark.parametrize("value", [np.zeros((3, 4)), np.zeros((0, 4, 2)), np.zeros((2, 2, 2), "U1"), 5])
def test_no_training_windows_are_one_sentence(value):
    with pytest.raises(aeedge.InputError, match=r"windows: expected numbers \(n, samples, channels\)"):
        reference_of(value)


def test_the_reference_is_the_same_in_blocks(monkeypatch):
    values = coarse(np.random.default_rng(0), np.arange(3000))
    windows = window(values, LENGTH, 16)
    whole = reference_of(windows)
    monkeypatch.setattr("aeedge.signals.health._BLOCK_BYTES", 1)
    assert reference_of(windows) == whole
    assert whole["low"] == pytest.approx(values.min(axis=0))
    assert max(whole["longest_run"]) > 3


ODD = [
    None,
    True,
    1,
    "x",
    [],
    [1],
    [1, 2],
    [1, 2, "3"],
    [1, 2, None],
    [1, 2, True],
    [[1], [2], [3]],
    [1, 2, 1e39],
    [1, 2, 10**39],
    [1, 2, -1],
    {"a": 1},
    [0] * 1000,
    [3, 2, 1],
    [2**70] * 3,
]


@pytest.mark.parametrize("key", [*HEALTH, None])
def test_an_odd_reference_of_a_manifest_is_refused_or_works(key):
    values = noise(np.random.default_rng(0), np.arange(400)).astype(np.float32)
    good = reference_of(window(values, LENGTH))
    document = SignalSpec(NAMES, LENGTH, 32, reference=good).document()
    assert read_signal(Node(document, "$", "manifest.json")).reference == good
    refused = 0
    for odd in ODD:
        reference = odd if key is None else {**good, key: odd}
        try:
            found = read_signal(Node({**document, "reference": reference}, "$", "manifest.json"))
        except CorruptBundleError as error:
            refused += "$.reference" in str(error)
            continue
        check = HealthCheck(found.reference, found.names, np.float32)
        for w in (values[:LENGTH], np.zeros((LENGTH, 3)), np.full((LENGTH, 3), np.nan)):
            assert isinstance(check.check(w), tuple)
    assert refused > 10


@pytest.mark.parametrize("chunk", [1, 7, 400])
def test_a_stream_of_integers_names_the_channel_that_drops_out(tmp_path, chunk):
    signal = SignalSpec(("x", "y"), window=32, hop=8, rate=100.0)
    path = signal_bundle(tmp_path / "m.aeedge", 100 * machine(4000), signal, dtype="int16")
    samples = np.round(100 * machine(400, seed=1))
    samples[200:204, 1] = samples[300:304] = np.nan
    with aeedge.load(path, threads=1) as model:
        stream = aeedge.Stream(model)
        events = [event for i in range(0, 400, chunk) for event in stream.push(samples[i : i + chunk])]
    gaps = [event for event in events if event.samples is None]
    assert [(event.verdict, event.health[0].kind, event.health[0].channel) for event in gaps] == [
        ("bad input", "missing", "y"),
        ("bad input", "missing", None),
    ]


def test_a_coarse_signal_that_crosses_zero_is_not_missing():
    """Converters of few steps meet 0 on their way; a channel that rests at 0 is stuck."""
    t = np.arange(6000)
    signal = np.round(4 * np.sin(2 * np.pi * t / 40), 1)[:, np.newaxis].astype(np.float32)
    check = HealthCheck(reference_of(window(signal, 64, 16)), ["x"], "float32")
    slow = np.round(0.2 * np.sin(2 * np.pi * np.arange(64) / 40 * 1.3), 1)[:, np.newaxis].astype(np.float32)
    assert np.count_nonzero(slow == 0) > 8
    assert [fault.kind for fault in check.check(slow)] in ([], ["stuck"])
    dropped = signal[:64].copy()
    dropped[20:50] = 0
    assert [fault.kind for fault in check.check(dropped)] == ["stuck", "missing"]
