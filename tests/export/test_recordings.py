"""Recordings become windows: segments, rates, channels, and a model that knows what its windows are."""

from __future__ import annotations

import gzip
import json
import mmap
import re
import warnings
import wave
from datetime import datetime, timedelta, timezone
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import aeedge
from aeedge.bundle.manifest import SignalSpec
from aeedge.bundle.reader import Bundle
from aeedge.cli.group import AeedgeGroup
from aeedge.errors import InputError
from aeedge.signals.drift import LEAST_WINDOWS, fit_reference
from aeedge.signals.window import window as cut
from aeedge_export import Autoencoder, window
from aeedge_export.data.cutting import Cutting
from aeedge_export.data.cutting import cut as cut_recordings
from aeedge_export.data.dataset import Selection
from aeedge_export.data.recording_files import read_recordings

RNG = np.random.default_rng(0)
RATE = 50.0


def signal(n=3000, rate=RATE, seed=0):
    """Two channels, unlike in size, (n, 2) float32."""
    t = np.arange(n) / rate
    noise = 0.05 * np.random.default_rng(seed).normal(size=(n, 2))
    clean = np.stack([np.sin(6 * np.pi * t), 20 * np.cos(6 * np.pi * t) + 5], axis=1)
    return (clean + noise).astype(np.float32)


def small(**params):
    return Autoencoder(**{"latent": 2, "hidden": (8,), "epochs": 2, "random_state": 0, **params})


SPEC = SignalSpec(("a", "b"), 32, 8, RATE, units=("g", "V"), time="time")


# --- a model knows what its windows are


def test_a_run_and_a_bundle_keep_what_a_window_is(tmp_path):
    windows = cut(signal(), 32, 8)
    ae = small().fit_rows(windows, signal=SPEC)
    ae.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run")
    assert again.run_.signal == again.run_.input_spec.signal == ae.run_.signal
    assert ae.run_.signal._replace(reference={}) == SPEC
    again.resume(windows, epochs=3)
    assert again.run_.signal == ae.run_.signal
    made = again.export(tmp_path / "m.aeedge")
    assert made.input.signal == Bundle(tmp_path / "m.aeedge").manifest.input.signal == ae.run_.signal
    assert made.training["channels"] == "last"
    other = ae.run_.signal._replace(hop=16)
    assert small().fit_rows(windows, signal=other).export(tmp_path / "o.aeedge").id != made.id
    assert np.isfinite(aeedge.load(tmp_path / "m.aeedge").score(windows[:3])).all()


@pytest.mark.parametrize(("window", "hop"), [(32, 1), (32, 5), (32, 8), (32, 32), (8, 20)])
def test_parts_of_windows_are_later_blocks_that_share_no_sample(window, hop):
    windows = cut(signal(9000), window, hop)
    ae = Autoencoder("pca", latent=2, calibration=0.2).fit_rows(windows, signal=SPEC._replace(window=window, hop=hop))
    parts = [part for part in ae.run_.split(len(windows)) if len(part)]
    assert len(parts) == 4
    samples = [np.unique(part[:, None] * hop + np.arange(window)) for part in parts]
    for one, later in pairwise(samples):
        assert one.max() < later.min()


@pytest.mark.parametrize(
    "params", [{}, {"hidden": "auto"}, {"hidden": ()}, {"linear_path": True}, {"family": "sparse"}]
)
def test_few_windows_are_trained_on_by_networks_of_any_depth(params):
    windows = cut(signal(800), 32, 40)
    ae = small(**params).fit_rows(windows, signal=SPEC._replace(hop=40))
    assert np.isfinite(ae.transform(windows)).all()


@pytest.mark.parametrize(
    ("params", "changes", "message"),
    [
        ({"channels": "first"}, {}, "channels: windows of a signal are"),
        ({"axes": "nct"}, {}, "channels: windows of a signal are"),
        ({"time_ordered": False}, {}, "time_ordered: windows of 32 samples with a hop of 8 overlap"),
        ({"gap": 2}, {}, "gap: expected 3 windows or more"),
        ({}, {"channels": ("a",), "units": None}, r"expected rows \(window, channels\) = \(32, 1\)"),
        ({}, {"channels": ("a", "a")}, "different names"),
        ({}, {"units": ("g",)}, "a unit for each of 2 channels"),
        ({}, {"hop": 0}, "hop: expected a whole number of at least 1, got 0"),
        ({}, {"rate": -1.0}, "rate: expected samples a second above 0"),
        ({}, {"calendar": ("year",)}, "a calendar of day and week"),
    ],
)
def test_what_does_not_fit_windows_is_one_sentence(params, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        small(**params).fit_rows(cut(signal(), 32, 8), signal=SPEC._replace(**changes))
    assert "\n" not in str(caught.value)


# --- from times to stretches

N = 600
T0 = 1.7e9


def clock(steps):
    """Times whose steps are given, from 2023 on."""
    return T0 + np.concatenate([[0], np.cumsum(steps)])


def stretches(w):
    """First sample and one past the last of each stretch that windows with a hop of one cover."""
    edges = np.flatnonzero(np.diff(w.spans[:, 0]) > 1) + 1
    return [(int(part[0, 0]), int(part[-1, 1])) for part in np.split(w.spans, edges)]


def test_windows_of_one_stretch_are_a_view():
    for dtype in (np.float32, np.float64, np.uint8, np.int16):
        x = (50 * signal(N) % 100).astype(dtype)
        w = window(x, window=32, hop=5, rate="50Hz")
        assert np.shares_memory(w.X, x)
        assert w.X.dtype == dtype
        assert all(np.array_equal(one, x[5 * i : 5 * i + 32]) for i, one in enumerate(w.X))
        np.testing.assert_allclose(w.starts, np.arange(len(w.X)) * 0.1)
    assert window(x[:, 0].astype(np.int32), window=32).X.dtype == np.float32
    assert window(x, window=32).signal.hop == 8


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_no_window_crosses_a_gap_a_step_back_or_a_recording(data):
    recordings, times, borders, at = [], [], [], 0
    for _ in range(data.draw(st.integers(1, 3))):
        lengths = [*data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=4)), 40]
        jumps = data.draw(st.lists(st.sampled_from([0.2, 3.0, 5000.0, -3.0, -500.0]), min_size=4, max_size=4))
        steps = np.full(sum(lengths) - 1, 0.1)
        for place, jump in zip(np.cumsum(lengths[:-1]), jumps):
            steps[place - 1] = jump
        times.append(clock(steps))
        recordings.append(np.arange(at, at + sum(lengths), dtype=np.float32))
        borders += (at + np.cumsum(lengths)).tolist()
        at += sum(lengths)
    if any((np.diff(t) < 0).sum() > 0.1 * len(t) for t in times):
        return
    length = data.draw(st.integers(2, 40))
    hop = data.draw(st.integers(1, length))
    w = window(recordings, window=length, hop=hop, times=times)
    expected = []
    for start, stop in zip([0, *borders], borders):
        expected += list(range(start, stop - length + 1, hop))
    assert w.X[:, 0, 0].tolist() == expected
    assert (np.diff(w.X[:, :, 0], axis=1) == 1).all()
    assert (w.spans == np.stack([w.X[:, 0, 0], w.X[:, -1, 0] + 1], axis=1)).all()
    assert w.signal.rate == pytest.approx(10, rel=1e-3)


@pytest.mark.parametrize(
    ("rate", "digits"), [(0.2, 1), (1.0, 0), (50.0, 3), (128.0, 3), (256.0, 3), (1000.0, 4), (1 / 300, 0), (44100.0, 6)]
)
def test_the_rate_is_found_in_times_that_are_rounded(rate, digits):
    times = np.round(np.arange(N) / rate, digits)
    w = window(signal(N), window=32, times=times)
    assert w.signal.rate == pytest.approx(rate, rel=3e-4)
    assert len(w.X) == (N - 32) // 8 + 1


def test_gaps_are_told_with_their_number_size_and_place():
    steps = np.full(N - 1, 1.0)
    steps[[99, 299]] = 60.0, 7200.0
    steps[399] = -1800.0
    w = window(signal(N), window=10, hop=1, times=clock(steps))
    assert stretches(w) == [(0, 100), (100, 300), (300, 400), (400, N)]
    assert any("2 gaps, the largest 7,200 s after 2023-11-14 22:19:18" in note for note in w.findings)
    assert any("1 step back of the clock, the largest 1,800 s" in note for note in w.findings)
    assert any("rate: 1 Hz, found in its times" in note for note in w.findings)


def test_the_same_time_twice_is_left_out_and_said():
    times = np.insert(np.arange(N, dtype=float), 100, 99.0)
    w = window(np.insert(signal(N), 100, 7.0, axis=0), window=10, hop=1, times=times)
    assert len(w.X) == N - 9
    np.testing.assert_array_equal(w.X, cut(signal(N), 10, 1))
    assert any("1 sample has the time of the one before: left out" in note for note in w.findings)


def test_a_clock_coarser_than_the_samples_needs_the_rate():
    times = np.floor(np.arange(N) / 50)
    times[300:] += 3600
    with pytest.raises(InputError, match="this clock is too coarse; give the rate"):
        window(signal(N), window=32, times=times)
    w = window(signal(N), window=32, hop=1, times=times, rate=50)
    assert stretches(w) == [(0, 300), (300, N)]
    with pytest.raises(InputError, match=r"rate: expected about .*Hz, as the times of recordings say, got 80 Hz"):
        window(signal(N), window=32, times=times, rate=80)


@pytest.mark.parametrize("jitter", [0.4, 0.9])
def test_irregular_sampling_is_refused_or_resampled_on_request(jitter):
    rng = np.random.default_rng(3)
    times = np.arange(2000) / 50 + rng.uniform(0, jitter / 50, 2000)
    x = np.sin(2 * np.pi * 1.5 * times)[:, None]
    with pytest.raises(InputError, match=r"expected samples at a constant rate, but \d+% .*resample='\d+.*Hz'"):
        window(x, window=64, times=times)
    w = window(x, window=64, hop=32, times=times, resample="50Hz")
    assert w.signal.rate == 50
    at = w.starts[:, None] + np.arange(64) / 50
    inner = slice(2, -2)
    assert np.abs(w.X[inner, :, 0] - np.sin(2 * np.pi * 1.5 * at[inner])).max() < 0.05
    assert (np.diff(w.spans, axis=1) > 50).all()


def test_slower_sampling_does_not_alias():
    """A tone above the new Nyquist frequency is gone; one below stays."""
    t = np.arange(8000) / 400
    for hertz, low, high in ((3.0, 0.69, 0.72), (19.0, 0, 0.71), (30.0, 0, 1e-2), (55.0, 0, 1e-2), (170.0, 0, 1e-2)):
        w = window(np.sin(2 * np.pi * hertz * t), window=100, rate=400, resample="50Hz")
        rms = float(np.sqrt(np.mean(np.square(w.X[5:-5]))))
        assert low <= rms <= high, hertz
    for source, target in ((400, 60), (400, 123.4)):
        w = window(np.sin(2 * np.pi * 2.0 * t) + 5, window=50, hop=25, rate=source, resample=target)
        at = w.starts[:, None] + np.arange(50) / target
        inner = slice(2, -2)
        assert np.abs(w.X[inner, :, 0] - 5 - np.sin(2 * np.pi * 2 * at[inner])).max() < 0.02


def test_resampling_stays_inside_stretches():
    steps = np.full(N - 1, 0.02)
    steps[299] = 100.0
    x = np.where(np.arange(N) < 300, -1.0, 1.0)
    for target in (20, 100):
        w = window(x, window=20, hop=1, times=clock(steps), resample=target)
        assert set(np.round(np.unique(w.X), 4).tolist()) == {-1.0, 1.0}
        assert (np.ptp(w.X, axis=1) < 1e-4).all()


def test_a_rate_that_contradicts_the_times_is_refused():
    times = np.arange(N) / 50
    assert window(signal(N), window=32, times=times, rate="50.5Hz").signal.rate == 50.5
    with pytest.raises(InputError, match=r"rate: expected 50 Hz, as the times of recordings say, got 100 Hz"):
        window(signal(N), window=32, times=times, rate=100)


def test_the_calendar_becomes_channels():
    start = np.datetime64("2026-01-05T06:00")  # a Monday
    times = start + np.arange(N) * np.timedelta64(10, "m")
    w = window(signal(N), window=16, times=times, calendar=("day", "week"))
    assert w.X.shape[1:] == (16, 6)
    assert w.signal.names == ("x0", "x1", "day sin", "day cos", "week sin", "week cos")
    np.testing.assert_allclose(w.X[0, 0, 2:4], [1, 0], atol=1e-6)
    np.testing.assert_allclose(w.X[0, 0, 4], np.sin(2 * np.pi / 28), atol=1e-6)
    np.testing.assert_array_equal(w.X[..., :2], window(signal(N), window=16).X)
    with pytest.raises(InputError, match="calendar: expected dated times of recordings, got seconds since some start"):
        window(signal(N), window=16, times=np.arange(N), calendar="day")
    with pytest.raises(InputError, match="calendar: expected dated times of recordings, got none"):
        window(signal(N), window=16, calendar="day")


@pytest.mark.parametrize("policy", ["drop", "median"])
def test_missing_values_are_refused_left_out_or_filled(policy, tmp_path):
    x = signal(3000)
    x[100, 1] = np.nan
    x[np.arange(500, 2600, 300), 0] = -9999
    with pytest.raises(InputError, match=r"sample 100 \(counted from 0\), channel 'x1': .*missing='drop'"):
        window(x, window=32)
    w = window(x, window=32, hop=4, missing=policy)
    assert np.abs(w.X).max() < 30
    touched = np.zeros(3001)
    touched[[100, *range(500, 2600, 300)]] = 1
    crossed = (np.add.accumulate(touched)[w.spans[:, 1] - 1] - np.add.accumulate(touched)[w.spans[:, 0] - 1]) > 0
    assert crossed.any() == (policy == "median")
    ae = small().fit_rows(w.X, signal=w.signal, missing=w.missing)
    ae.export(tmp_path / "m.aeedge")
    model = aeedge.load(tmp_path / "m.aeedge")
    other = np.array(w.X[:2])
    other[0, 3, 0] = -9999
    other[1, 3, 1] = np.nan
    if policy == "median":
        filled = np.array(w.X[:2])
        filled[0, 3, 0], filled[1, 3, 1] = (np.median(np.delete(x[:, i], np.flatnonzero(touched))) for i in (0, 1))
        np.testing.assert_allclose(model.encode(other), model.encode(filled), rtol=1e-3, atol=1e-4)
    else:
        assert np.isnan(model.encode(other, invalid="propagate")).all()


# --- frames and lists


def test_frames_of_any_package():
    pandas = pytest.importorskip("pandas")
    when = pandas.date_range("2026-01-01", periods=N, freq="20ms")
    values = signal(N)
    frame = pandas.DataFrame({"a": values[:, 0], "b": values[:, 1], "site": "north", "id": 7})
    for one in (frame.set_index(when), frame.assign(when=when), frame.assign(when=when.astype(str))):
        w = window(one, window=32)
        assert w.signal.channels == ("a", "b")
        assert w.signal.rate == pytest.approx(50)
        assert w.starts[0] == np.datetime64("2026-01-01").astype("datetime64[s]").astype(int)
        np.testing.assert_array_equal(w.X, cut(values, 32))
    picked = window(frame, window=32, channels=["b"], rate=50, units=["V"])
    assert (picked.signal.channels, picked.signal.units) == (("b",), ("V",))
    polars = pytest.importorskip("polars")
    w = window([polars.DataFrame({"t": np.arange(N) / 50, "b": values[:, 1]})] * 2, window=32, times="t")
    assert w.signal._replace(longest_step=None) == SignalSpec(("b",), 32, 8, 50.0, time="t")
    with pytest.raises(InputError, match="expected a column 'c', got a, b, site, id"):
        window(frame, window=32, channels=["c"])


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (signal(20), {}, "recordings: expected 32 samples or more, as a window has, got 20"),
        ([signal(), signal(20)], {}, "recording 1: expected 32 samples or more, as a window has, got 20"),
        ([signal(), signal()[:, :1]], {}, "recording 1: expected the channels x0, x1, as recording 0 has them, got x0"),
        (
            [signal()] * 2,
            {"times": [np.arange(3000) / 50, np.arange(3000) / 60]},
            "recording 1: expected 50 Hz, .*60 Hz",
        ),
        (signal(), {"window": 0}, "window: expected a whole number of at least 1, got 0"),
        (signal(), {"window": 1}, "window: expected 2 samples or more, got 1"),
        (signal(), {"window": 2.5}, "window: expected a whole number"),
        (signal(), {"hop": 0}, "hop: expected a whole number of at least 1, got 0"),
        (signal(), {"hop": 3001}, "hop: expected at most 3,000, the samples of recordings, got 3,001"),
        (signal(), {"rate": -50}, "rate: expected samples a second above 0, such as 50Hz"),
        (signal(), {"rate": 1e-300}, "rate: expected samples a second above 0"),
        (signal(), {"times": np.arange(3000) * 1e300}, "rate: expected samples a second above 0"),
        (signal(), {"rate": "fast"}, "rate: expected samples a second above 0"),
        (signal(), {"resample": "50Hz"}, "resample: the rate of recordings is not known"),
        (signal(), {"channels": ["a", "a"]}, "channels: expected each name once, got a, a"),
        (signal(), {"channels": ["a"]}, "channels: expected 2 different names"),
        (signal(), {"units": ["g"]}, "units: expected one for each of 2 channels"),
        (signal(), {"times": np.arange(5)}, "times: expected one for each of the 3,000 samples"),
        (signal(), {"times": np.zeros(3000)}, "expected times that rise, but they do not"),
        (
            signal(),
            {"times": np.random.default_rng(0).random(3000)},
            "expected times that rise .* of the steps go back",
        ),
        (signal(), {"calendar": "year"}, "calendar: expected day and week, got year"),
        (signal(), {"missing": "zero"}, "missing: expected refuse, drop, median"),
        (signal()[:0], {}, "recordings: expected samples, but it has none"),
        (np.zeros((5, 32, 2)), {}, "if these are windows already"),
        (["a", "b"], {}, "expected a file, but nothing is there"),
        ([], {}, "recordings: expected one or more, got none"),
        (np.array(["a"] * 50), {}, "expected numbers"),
        ([signal(), "a.csv"], {}, "expected either paths of files or arrays and frames, got some of both"),
        (["a.csv", signal()], {}, "expected either paths of files or arrays and frames, got some of both"),
        (
            np.where(signal() == signal()[7, 1], np.inf, signal()),
            {"missing": "drop"},
            "sample 7 .* infinity is no missing",
        ),
        (np.where(signal() == signal()[7, 1], np.inf, signal()), {"missing": "median"}, "sample 7 .* is no missing"),
        (signal(), {"channels": "ab"}, "channels: expected 2 different names"),
        (signal(), {"rate": 50, "resample": 1e12}, "resample: expected a rate at which recordings have fewer than"),
        (signal(), {"rate": 50, "resample": 1e-9}, "recordings: expected 32 samples or more, as a window has, got 1"),
        (signal() * [1, np.nan], {"missing": "drop"}, "the channel 'x1', but all of its values are missing"),
        (signal() * [1, np.nan], {"missing": "median"}, "the channel 'x1', but all of its values are missing"),
    ],
)
def test_recordings_that_cannot_be_cut_are_one_sentence(given, options, message):
    with pytest.raises(InputError, match=message) as caught:
        window(given, **{"window": 32, **options})
    assert "\n" not in str(caught.value)


# --- files


def table(path, delimiter=",", decimal=".", header=True, **columns):
    rows = [columns] if header else []
    rows += [
        [str(c).replace(".", decimal) if isinstance(c, float) else str(c) for c in row]
        for row in zip(*columns.values())
    ]
    path.write_text("\n".join(delimiter.join(row) for row in rows) + "\n")
    return path


def dates(n=N, rate=RATE, start=datetime(2026, 1, 5, 6)):
    return [str(start + timedelta(seconds=i / rate)) for i in range(n)]


A, B = (signal(N)[:, i].astype(float).tolist() for i in (0, 1))
EXPECTED = cut(signal(N), 32, 8)


def files(folder):
    """The same recording in files of every kind."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    when = dates()
    table(folder / "comma.csv", time=when, a=A, b=B)
    table(folder / "semicolon.csv", ";", ",", time=when, a=A, b=B)
    table(folder / "german.csv", ";", ",", zeit=[f"{d[8:10]}.{d[5:7]}.{d[:4]} {d[11:]}" for d in when], a=A, b=B)
    table(folder / "two.csv", date=[d[:10] for d in when], clock=[d[11:] for d in when], a=A, b=B)
    table(folder / "none.csv", header=False, t=[i / RATE for i in range(N)], a=A, b=B)
    table(folder / "epoch.csv", ts=[str(int(1e3 * (T0 + i / RATE))) for i in range(N)], a=A, b=B)
    table(
        folder / "id.csv",
        time=when,
        device_id=[7] * N,
        a=A,
        b=B,
        site=["north"] * N,
        label=[int(i > 500) for i in range(N)],
    )
    columns = {"time": [datetime.fromisoformat(d) for d in when], "a": A, "b": B}
    parquet.write_table(pa.table(columns), folder / "x.parquet")
    lines = [json.dumps({"time": d, "a": a, "b": b}) for d, a, b in zip(when, A, B)]
    (folder / "x.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "x.csv.gz").write_bytes(gzip.compress((folder / "comma.csv").read_bytes()))
    np.save(folder / "x.npy", signal(N))
    np.savez(folder / "x.npz", X=signal(N), ts=np.arange(N) / RATE)
    return sorted(folder.iterdir())


def test_recordings_in_files_of_every_kind(tmp_path):
    for path in files(tmp_path):
        options = {"times": "ts"} if path.suffix == ".npz" else {"rate": 50} if path.suffix == ".npy" else {}
        w = window(path, window=32, hop=8, **options)
        named = path.suffix not in (".npy", ".npz") and path.name != "none.csv"
        assert len(w.signal.channels) == 2, path.name
        assert (w.signal.channels == ("a", "b")) == named, path.name
        assert w.signal.rate == pytest.approx(50, rel=1e-4), path.name
        np.testing.assert_allclose(w.X, EXPECTED, rtol=1e-6, err_msg=path.name)
        time = {
            "german.csv": "zeit",
            "two.csv": "date clock",
            "none.csv": "0",
            "epoch.csv": "ts",
            "x.npz": "ts",
            "x.npy": None,
        }
        assert w.signal.time == time.get(path.name, "time"), path.name
        assert np.allclose(np.diff(w.starts), 8 / RATE), path.name
        if path.name in ("comma.csv", "german.csv", "two.csv", "x.parquet", "x.jsonl", "x.csv.gz"):
            assert w.starts[0] == datetime(2026, 1, 5, 6, tzinfo=timezone.utc).timestamp(), path.name
    notes = " ".join(window(tmp_path / "id.csv", window=32).notes)
    assert "device_id (an identifier: the same in all rows)" in notes
    assert "site (text such as 'north')" in notes
    assert "label (looks like a label" in notes
    assert "column 'x0' rises evenly: taken for the time" in " ".join(window(tmp_path / "none.csv", window=32).notes)


def test_the_unit_of_a_column_of_times(tmp_path):
    for names, unit in (("time;a;b\nms;g;V", 1000), ("time_ms;a;b", 1000), ("t [µs];a;b", 1e6), ("time;a;b", 1)):
        rows = [f"{round(unit * i / RATE, 3):g};{a:.6f};{b:.6f}" for i, (a, b) in enumerate(zip(A, B))]
        (tmp_path / "x.csv").write_text("\n".join([names, *rows]) + "\n")
        w = window(tmp_path / "x.csv", window=32)
        assert w.signal.rate == pytest.approx(50, rel=1e-3), names
        assert w.signal.units == (("g", "V") if "g" in names else None)


def test_a_sound_file_has_its_rate(tmp_path):
    x = (1000 * signal(N)).astype(np.int16)
    with wave.open(str(tmp_path / "x.wav"), "wb") as sound:
        sound.setnchannels(2), sound.setsampwidth(2), sound.setframerate(8000)
        sound.writeframes(x.astype("<i2").tobytes())
    w = window(tmp_path / "x.wav", window=32, hop=8)
    assert (w.X.dtype, w.signal.rate) == (np.int16, 8000)
    np.testing.assert_array_equal(w.X, cut(x, 32, 8))
    one = window([tmp_path / "x.wav"] * 2, window=32, channels=["x1"])
    assert one.X.shape[2] == 1
    with pytest.raises(InputError, match=r"rate: expected 8000 Hz, as the header of .* says, got 50 Hz"):
        window(tmp_path / "x.wav", window=32, rate=50)


def test_an_array_that_is_mapped_stays_so(tmp_path):
    np.save(tmp_path / "x.npy", signal(N)[:, 0])
    w = window(tmp_path / "x.npy", window=32, rate=50)
    assert not w.X.flags.owndata
    assert isinstance(_root(w.X), mmap.mmap)


def _root(array):
    while getattr(array, "base", None) is not None:
        array = array.base
    return array.obj if isinstance(array, memoryview) else array


@pytest.mark.parametrize("selected", [False, True])
def test_a_window_is_anomalous_if_any_of_its_samples_is(tmp_path, selected):
    faults = np.zeros(N, int)
    faults[[200, 201, 450]] = 1
    path = table(tmp_path / "x.csv", time=dates(), a=A, b=B, fault=faults)
    recordings = read_recordings(
        [path, path], Selection(labels="fault", select="fault == 0" if selected else None), missing=False
    )
    w = cut_recordings(recordings, Cutting(20, 3))
    if selected:
        assert not w.labels.any()
        covered = {i % N for start, stop in w.spans for i in range(start, stop)}
        assert covered.isdisjoint({200, 201, 450})
    else:
        truth = np.concatenate([faults, faults])
        assert w.labels.tolist() == [int(truth[start:stop].any()) for start, stop in w.spans]
        assert w.labels.any()


# --- the command


def call(*args):
    result = CliRunner().invoke(AeedgeGroup.build(), [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


QUICK = ["--latent", "2", "--hidden", "8", "--epochs", "2", "-q", "--threads", "1"]


def test_from_recordings_to_a_bundle(tmp_path):
    both = tmp_path / "both"
    both.mkdir()
    first = table(both / "1.csv", time=dates(), a=A, b=B)
    second = table(both / "2.csv", time=dates(start=datetime(2026, 1, 6)), b=B, a=A)
    done = call("train", first, second, "-o", tmp_path / "run", "--window", 32, "--hop", 4, *QUICK)
    assert done.exit_code == 0, done.output
    for line in ("channels: a, b", "rate: 50 Hz, found in column 'time'", "windows: 286 of 32 samples, hop 4 (0.64 s"):
        assert line in done.stdout
    assert "windows to train on" in done.stdout
    assert " rows" not in done.stdout
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Reconstructions of training windows" in page  # too few to hold some out
    assert "time in the window (s)" in page
    run = Autoencoder.load(tmp_path / "run").run_
    assert run.signal._replace(longest_step=None, reference={}) == SignalSpec(("a", "b"), 32, 4, 50.0, time="time")
    assert (run.params["time_ordered"], run.params["gap"]) == (True, 8)
    again = call("train", both, "-o", tmp_path / "run", "--resume", "--epochs", 3, "-q")
    assert again.exit_code == 0, again.output
    resumed = Autoencoder.load(tmp_path / "run").run_
    assert (resumed.signal, resumed.state.epoch, resumed.fingerprint) == (run.signal, 3, run.fingerprint)
    other = call("train", first, "-o", tmp_path / "run", "--resume", "--hop", 2)
    assert "--hop: a run that is continued keeps its windows" in other.stderr
    assert call("report", tmp_path / "run", "--test", second).exit_code == 0
    c, d = (signal(1200, seed=5)[:, i].astype(float).tolist() for i in (0, 1))
    other = table(tmp_path / "other.csv", time=dates(1200), a=c, b=d)
    made = call(
        "export", tmp_path / "run", "-o", tmp_path / "m.aeedge", "--variants", "fp32,int8", "--calibration", other
    )
    assert made.exit_code in (0, 1), made.output
    shown = " ".join(call("info", tmp_path / "m.aeedge").stdout.split())
    for part in ("channels a, b", "rate 50 Hz", "windows 32 samples, hop 4 (0.64 s, every 0.08 s)"):
        assert part in shown


def test_labels_select_and_calibration_files_of_windows(tmp_path):
    faults = [int(i % 300 > 280) for i in range(N)]
    path = table(tmp_path / "x.csv", time=dates(), a=A, b=B, fault=faults)
    normal = table(tmp_path / "n.csv", time=dates(), a=A, b=B)
    options = ["--window", 16, "--hop", 2, "--select", "fault == 0", "--labels", "fault", "--calibration", normal]
    done = call("train", path, "-o", tmp_path / "run", *options, *QUICK)
    assert done.exit_code == 0, done.output
    assert "Read for calibration: windows: 293 of 16 samples" in done.stderr
    run = Autoencoder.load(tmp_path / "run").run_
    assert run.rows == 2 * 133
    assert len(run.calibration) == 293
    assert run.evaluation["detection"]["labels"]["anomalous"] == "1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hop", 4], "--hop: expected --window with it"),
        (["--rate", "50Hz"], "--rate: expected --window with it"),
        (["--window", 32, "--rate", "-50Hz"], "--rate: expected samples a second above 0"),
        (["--window", 32, "--channels", "a,c"], "expected a column 'c', got time, a, b"),
        (["--window", 32, "--time", "a"], "expected times that rise"),
        (["--window", 32, "--time", "c"], "expected a column 'c', got time, a, b"),
        (["--window", 32, "--weights", "b"], "--weights: windows have no weights"),
        (["--window", 32, "--no-time-ordered"], "--time-ordered: windows of 32 samples with a hop of 8 overlap"),
        (["--window", 601], "expected 601 samples or more, as a window has, got 600"),
        (["--window", 1], "window: expected 2 samples or more, got 1"),
        (["--window", 32, "--calendar", "month"], "calendar: expected day and week, got month"),
        (["--window", 32, "--columns", "a", "--channels", "b"], "both name the channels"),
        (["--window", 32, "--channels", "a,a"], "--channels: expected each name once, got a,a"),
        (["--window", 32, "--gap", 1], "gap: expected 3 windows or more"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(tmp_path, options, message):
    path = table(tmp_path / "x.csv", time=dates(), a=A, b=B)
    done = call("train", path, "-o", tmp_path / "run", *options, *QUICK)
    assert done.exit_code == 2
    assert re.search(rf"^Error: .*{message}", done.stderr.splitlines()[-1])
    assert not (tmp_path / "run").exists()


def test_a_recording_without_windows_is_told_of_them(tmp_path):
    with wave.open(str(tmp_path / "x.wav"), "wb") as sound:
        sound.setnchannels(1), sound.setsampwidth(2), sound.setframerate(8000)
        sound.writeframes(bytes(2000))
    done = call("train", tmp_path / "x.wav", "-o", tmp_path / "run")
    assert "a recording is trained on in windows; say of how many samples (--window N)" in done.stderr


# --- what drift is found by


def test_bundles_have_a_drift_reference_of_windows_that_training_did_not_see(tmp_path):
    windows = cut(signal(16000), 32, 8)
    ae = small(calibration=0.2).fit_rows(windows, signal=SPEC)
    parts = ae.run_.split(len(windows))
    apart = np.concatenate([rows[::4] for rows in parts[1:]])
    np.testing.assert_array_equal(ae.run_.reference, windows[apart])
    ae.save(tmp_path / "run")
    again = Autoencoder.load(tmp_path / "run")
    np.testing.assert_array_equal(again.run_.reference, windows[apart])
    again.export(tmp_path / "m.aeedge", variants=["int8", "fp32"], calibration=windows)
    found = {}
    for variant in ("fp32", "int8"):
        with aeedge.load(tmp_path / "m.aeedge", variant=variant) as model:
            found[variant] = model.drift_reference
            expected = fit_reference(model.encode(windows[apart]), model.score(windows[apart]))
            for name, array in expected._asdict().items():
                np.testing.assert_allclose(getattr(found[variant], name), array, rtol=0.02, atol=1e-3)
    assert (found["int8"].projection != found["fp32"].projection).any()
    text = CliRunner().invoke(AeedgeGroup.build(), ["info", str(tmp_path / "m.aeedge")]).output
    assert "components of 2 latents (fp32)" in text
    again.partial_fit(windows[:100])
    assert again.run_.reference is None


def test_training_windows_are_the_reference_where_others_are_too_few(tmp_path):
    windows = cut(signal(3000), 32, 8)
    run = small().fit_rows(windows, signal=SPEC).run_
    held = sum(len(part[::4]) for part in run.split(len(windows))[1:])
    assert held < LEAST_WINDOWS <= len(run.reference) <= len(windows) / 4
    assert small().fit_rows(windows[:150], signal=SPEC).run_.reference is None
    assert small(channels="last", time_ordered=True).fit_rows(windows).run_.reference is None


def test_a_run_with_a_reference_of_other_rows_is_refused(tmp_path):
    small().fit_rows(cut(signal(), 32, 8), signal=SPEC).save(tmp_path / "run")
    np.save(tmp_path / "run" / "reference.npy", np.zeros((60, 32, 3), np.float32))
    with pytest.raises(InputError, match=r"reference\.npy"):
        Autoencoder.load(tmp_path / "run")


def test_calibration_scores_are_kept_in_time_order(tmp_path):
    """A device counts false alarms by stretches of the calibration recording."""
    windows = cut(signal(6000), 32, 4)
    small(calibration=0.3).fit_rows(windows, signal=SPEC._replace(hop=4)).export(tmp_path / "m.aeedge")
    with aeedge.load(tmp_path / "m.aeedge") as model:
        spec, sequence = model.manifest.calibration, model.calibration_sequence
        assert spec is not None
        assert spec.spacing == 1.0
        np.testing.assert_array_equal(np.sort(sequence), model.calibration.scores)
        stream = aeedge.Stream(model)
        each_window = model.false_alarm_rate * 86_400 * stream.rate / stream.hop
        assert 0 < stream.expected_false_alarms_per_day < each_window


def test_few_windows_of_a_long_recording_calibrate_too(tmp_path):
    """A stream without a threshold would watch nothing."""
    windows = cut(signal(8000), 32, 32)
    run = small().fit_rows(windows, signal=SPEC._replace(hop=32)).run_
    assert len(windows) < 495
    assert len(run.calibration) == round(0.2 * len(windows))
    assert run.alarm is not None
    assert small(goal="compress").fit_rows(windows, signal=SPEC._replace(hop=32)).run_.alarm is None


def test_a_sample_that_is_in_many_windows_is_no_code_for_missing_values():
    """One odd sample is an outlier, however many windows overlap there; a value that comes again is a code."""
    once = signal(4000)
    once[2000, 0] = -9999.0
    twice = once.copy()
    twice[500, 0] = -9999.0
    for recording, said in ((once, "deviations away"), (twice, "looks like a code")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            ae = small(epochs=1).fit_rows(cut(recording, 32, 4), signal=SPEC._replace(hop=4))
        assert any(said in note for note in ae.notes_)
        assert any("code" in note for note in ae.notes_) == ("code" in said)


@pytest.mark.parametrize("order", ["reversed", "shuffled"])
@pytest.mark.parametrize("name", ["time", "Timestamp", "date"])
def test_rows_that_are_not_in_the_order_of_time_are_refused(tmp_path, order, name):
    """Windows of them would be of nothing that was."""
    at = np.arange(300)[::-1] if order == "reversed" else np.random.default_rng(0).permutation(300)
    when = [datetime(2026, 1, 1) + timedelta(seconds=int(i)) for i in at]
    rows = "".join(f"{t},{x:.5g},{y:.5g}\n" for t, (x, y) in zip(when, signal()[at].tolist()))
    (tmp_path / "a.csv").write_text(f"{name},x,y\n{rows}")
    with pytest.raises(InputError, match="expected times that rise"):
        window(tmp_path / "a.csv", window=32)


def test_a_column_of_other_dates_is_no_time(tmp_path):
    when = np.random.default_rng(0).permutation(300)
    rows = "".join(f"{datetime(2020, 1, 1) + timedelta(days=int(d))},{x:.5g}\n" for d, x in zip(when, signal()[:, 0]))
    (tmp_path / "a.csv").write_text(f"calibrated,x\n{rows}")
    assert window(tmp_path / "a.csv", window=32).signal.channels == ("x",)


def test_an_index_with_a_time_zone_is_the_time():
    """Also over the end of daylight saving time."""
    pandas = pytest.importorskip("pandas")
    when = pandas.date_range("2023-10-25", periods=400, freq="h", tz="Europe/Berlin")
    found = window(pandas.DataFrame({"a": signal(400)[:, 0]}, index=when), window=32)
    assert found.signal.rate == pytest.approx(1 / 3600)
    assert found.starts[0] == when[0].timestamp()
    assert len(found.X) == (400 - 32) // 8 + 1


@pytest.mark.parametrize("kind", ["npy", "wav"])
def test_arrays_with_other_numbers_of_channels_are_refused(tmp_path, kind):
    """Channels without names cannot be told apart: none is left out in silence."""
    paths = []
    for width in (1, 2):
        paths.append(tmp_path / f"{width}.{kind}")
        samples = np.round(1000 * signal(500)[:, :width]).astype("<i2")
        if kind == "npy":
            np.save(paths[-1], samples)
        else:
            with wave.open(str(paths[-1]), "wb") as file:
                file.setparams((width, 2, 8000, 0, "NONE", ""))
                file.writeframes(samples.tobytes())
    with pytest.raises(InputError, match=r"expected the channels x0, as .* has them, got x0, x1"):
        window(paths, window=32)
    assert len(window(paths, window=32, channels=["x0"]).X) == 2 * len(cut(signal(500), 32))
