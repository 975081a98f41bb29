"""Recordings at the command line: cut into windows as the bundle says, or denoised as a whole; others are refused."""

import io
import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.signals import machine, signal_bundle

import aeedge
from aeedge.bundle.manifest import SignalSpec
from aeedge.cli.group import AeedgeGroup
from aeedge.detection.calibration import alarm_band
from aeedge.detection.scores import residual_scale
from aeedge.files.wav import read_wav, write_wav
from aeedge.signals import recording
from aeedge.signals.recording import Recordings

SAMPLES = machine(400, seed=1)
STARTS = list(range(0, 400 - 32 + 1, 8))
TIMED = SignalSpec(("x", "y"), window=32, hop=8, rate=100.0, time="t")
DAY = SignalSpec(("x",), window=24, hop=6, rate=1 / 300, time="when", calendar=("day", "week"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def path(folder):
    return signal_bundle(folder / "machine")


@pytest.fixture(scope="module")
def timed(folder):
    return signal_bundle(folder / "timed", signal=TIMED)


@pytest.fixture(scope="module")
def model(path):
    with aeedge.load(path, threads=1) as model:
        yield model


def run(*args, code=0, data=None):
    done = CliRunner().invoke(AeedgeGroup.build(), [*map(str, args)], input=data)
    assert done.exit_code == code, done.output
    return done


def csv(path, samples, names=("x", "y"), times=None, time="t", delimiter=",", decimal="."):
    """A table with a row for each sample."""
    lines = [delimiter.join([*([time] if times is not None else []), *names])]
    for i, row in enumerate(np.atleast_2d(samples)):
        cells = [] if times is None else [str(times[i])]
        lines.append(delimiter.join([*cells, *(f"{value:.7g}".replace(".", decimal) for value in row)]))
    path.write_text("\n".join(lines) + "\n")
    return path


def table(path):
    """Columns of a CSV file, by name."""
    head, *lines = path.read_text().splitlines()
    return dict(zip(head.split(","), zip(*(line.split(",") for line in lines))))


def written_as(kind, folder):
    """SAMPLES in a file of some kind."""
    path = folder / f"rec.{kind}"
    if kind == "csv":
        return csv(path, SAMPLES)
    if kind == "npy":
        np.save(path, SAMPLES)
    elif kind == "npz":
        np.savez(path, X=SAMPLES)
    elif kind == "wav":
        write_wav(path, SAMPLES, 100)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"y": float(y), "x": float(x)}) + "\n" for x, y in SAMPLES))
    else:
        pa = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pa.table({"y": SAMPLES[:, 1], "x": SAMPLES[:, 0]}), path)
    return path


KINDS = ["csv", "npy", "npz", "wav", "jsonl", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_recording_of_any_format_is_cut_into_the_windows_of_the_bundle(tmp_path, path, model, kind):
    source = written_as(kind, tmp_path)
    expected = model.encode(aeedge.window(SAMPLES, 32, 8))
    said = run("encode", path, source, "-o", tmp_path / "z.csv").stderr
    assert f"Note: {source}: 47 windows of 32 samples, hop 8, of 400 samples" in said
    found = table(tmp_path / "z.csv")
    assert list(found) == ["start", "start_time", *(f"latent_{i}" for i in range(6))]
    assert list(map(int, found["start"])) == STARTS
    np.testing.assert_allclose(np.array(found["start_time"], float), np.array(STARTS) / 100)
    latents = np.array([found[f"latent_{i}"] for i in range(6)], float).T
    np.testing.assert_allclose(latents, expected, rtol=1e-4, atol=1e-4)
    run("encode", path, source, "-o", tmp_path / "z.npy")
    np.testing.assert_allclose(np.load(tmp_path / "z.npy"), expected, rtol=1e-4, atol=1e-4)
    run("score", path, source, "-o", tmp_path / "s.npy")
    scores = np.load(tmp_path / "s.npy")
    assert scores.dtype.names == ("start", "start_time", "score", "p_value", "alarm")
    np.testing.assert_allclose(scores["score"], model.score(aeedge.window(SAMPLES, 32, 8)), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_recording_is_denoised_into_one_of_the_same_length_in_any_format(tmp_path, path, model, kind):
    source, expected = written_as(kind, tmp_path), aeedge.denoise_signal(model, SAMPLES)
    said = run("denoise", path, source, "-o", tmp_path / "clean.npy").stderr
    assert f"Note: {source}: denoised in windows of 32 samples, hop 8" in said
    np.testing.assert_allclose(np.load(tmp_path / "clean.npy"), expected, atol=1e-5)
    run("denoise", path, source, "-o", tmp_path / "clean.csv")
    found = table(tmp_path / "clean.csv")
    assert list(found) == ["x", "y"]
    np.testing.assert_allclose(np.array(list(found.values()), float).T, expected, atol=1e-5)
    run("denoise", path, source, "-o", tmp_path / "clean.wav")
    samples, rate = read_wav(tmp_path / "clean.wav")
    assert rate == 100
    np.testing.assert_allclose(samples, expected, atol=1e-5)


@pytest.mark.parametrize("encoding", ["pcm16", "pcm24"])
def test_a_wav_of_integers_becomes_one_of_the_same_integers(tmp_path, folder, encoding):
    units = np.rint(3000 * SAMPLES)
    bundle = signal_bundle(folder / encoding, 3000 * machine(4000), latents=4)
    write_wav(tmp_path / "long.wav", units, 100, encoding=encoding)
    said = run("denoise", bundle, tmp_path / "long.wav", "-o", tmp_path / "clean.wav").output
    assert f"400×2 {encoding} at 100 Hz" in said
    samples, rate = read_wav(tmp_path / "clean.wav")
    with aeedge.load(bundle) as model:
        np.testing.assert_allclose(samples, aeedge.denoise_signal(model, units), atol=0.51)
    assert rate == 100
    assert samples.dtype == (np.int16 if encoding == "pcm16" else np.float32)


def test_windows_do_not_cross_files_nor_gaps_in_time(tmp_path, timed):
    times = np.arange(400) / 100
    times[100:] += 0.05
    times[140:] += 60
    times[160:] += 5  # 20 samples before it
    first = csv(tmp_path / "a.csv", SAMPLES, times=times)
    second = csv(tmp_path / "b.csv", SAMPLES[:50], times=times[:50])
    said = run("encode", timed, first, second, "-o", tmp_path / "z.csv").stderr
    stretches = [(0, 100), (100, 140), (160, 400), (400, 450)]
    starts = [start for a, b in stretches for start in range(a, b - 31, 8)]
    found = table(tmp_path / "z.csv")
    assert list(map(int, found["start"])) == starts
    rows = [*map(str, times), *map(str, times[:50])]
    assert list(found["start_time"]) == [rows[start] for start in starts]
    with aeedge.load(timed) as model:
        both = np.concatenate([SAMPLES, SAMPLES[:50]])
        expected = np.stack([model.encode(both[start : start + 32]) for start in starts])
    latents = np.array([found[f"latent_{i}"] for i in range(6)], float).T
    np.testing.assert_allclose(latents, expected, rtol=1e-4, atol=1e-4)
    assert "gaps in time, which no window crosses: 3; stretches between them that are shorter than a window: 1" in said
    assert f"{len(starts)} windows of 32 samples, hop 8, of 450 samples in 2 files" in said


def test_a_denoised_recording_keeps_its_times_and_its_gaps(tmp_path, timed):
    times = np.arange(400) / 100
    times[200:] += 7
    run("denoise", timed, csv(tmp_path / "a.csv", SAMPLES, times=times), "-o", tmp_path / "c.csv")
    found = table(tmp_path / "c.csv")
    assert list(found) == ["t", "x", "y"]
    assert list(found["t"]) == list(map(str, times))
    with aeedge.load(timed) as model:
        expected = aeedge.denoise_signal(model, SAMPLES, time=times)
    np.testing.assert_allclose(np.array([found["x"], found["y"]], float).T, expected, atol=1e-5)
    times[220:] += 7
    source = csv(tmp_path / "b.csv", SAMPLES, times=times)
    said = run("denoise", timed, source, "-o", tmp_path / "d.npy", code=2).stderr
    assert f"{source}: expected a stretch of 32 samples or more without a gap, as a window has, got 20" in said
    assert not (tmp_path / "d.npy").exists()
    said = run("denoise", timed, source, "-o", tmp_path / "d.npy", "--invalid", "propagate").stderr
    assert np.isnan(np.load(tmp_path / "d.npy")).any(axis=1).nonzero()[0].tolist() == list(range(200, 220))
    assert "20 samples are NaN" in said


def test_kept_columns_have_the_value_at_the_end_of_a_window_and_the_time_that_of_its_beginning(tmp_path, timed):
    source = tmp_path / "a.csv"
    lines = ["t,x,y,state"] + [f"2026-03-01 00:00:{i / 100:06.3f},{x},{y},s{i}" for i, (x, y) in enumerate(SAMPLES)]
    source.write_text("\n".join(lines))
    run("score", timed, source, "-o", tmp_path / "s.csv", "--keep", "state")
    found = table(tmp_path / "s.csv")
    assert list(found)[:4] == ["start", "start_time", "state", "score"]
    assert list(found["state"]) == [f"s{start + 31}" for start in STARTS]
    assert found["start_time"][1] == "2026-03-01 00:00:00.080"
    run("score", timed, source, "-o", tmp_path / "t.csv", "--keep", "t")
    assert table(tmp_path / "t.csv")["t"][0] == "2026-03-01 00:00:00.310"
    run("score", timed, source, "-o", tmp_path / "s.npy")
    np.testing.assert_allclose(np.load(tmp_path / "s.npy")["start_time"], np.array(STARTS) / 100, atol=1e-6)
    shown = run("score", timed, source).stdout
    assert "start_time" in shown
    summary = run("score", timed, source, "--summary").stdout
    assert summary.startswith("windows")


def test_a_table_without_the_column_of_time_is_one_stretch_and_that_is_said(tmp_path, timed):
    said = run("score", timed, csv(tmp_path / "a.csv", SAMPLES), "-o", tmp_path / "s.csv").stderr
    assert "no column 't' with times: gaps are not seen" in said
    np.testing.assert_allclose(np.array(table(tmp_path / "s.csv")["start_time"], float), np.array(STARTS) / 100)
    source = csv(tmp_path / "b.csv", SAMPLES, times=np.arange(400) / 100)
    said = run("score", timed, source, tmp_path / "a.csv", "-o", tmp_path / "no.csv", code=2).stderr
    assert f"{tmp_path / 'a.csv'}: expected a column 't', as the first file has, got x, y" in said


def test_blocks_make_no_difference(tmp_path, timed, monkeypatch):
    """Neither those that files are read in nor those that windows are given in."""
    times = np.arange(400) / 100
    times[111:] += 1
    source = csv(tmp_path / "a.csv", SAMPLES, times=times)
    with aeedge.load(timed) as model:
        whole = list(Recordings(model, [source]).windows())
        monkeypatch.setattr(recording, "_BLOCK_BYTES", 600)
        monkeypatch.setattr("aeedge.files.delimited.BLOCK_BYTES", 8 * 3 * 13)
        parts = list(Recordings(model, [source]).windows())
    assert len(whole) == 2
    assert len(parts) > 20
    np.testing.assert_array_equal(
        np.concatenate([windows for windows, _ in parts]), np.concatenate([windows for windows, _ in whole])
    )
    for i in range(2):
        assert [*chain(*(kept[i] for _, kept in parts))] == [*chain(*(kept[i] for _, kept in whole))]


@pytest.mark.parametrize(("length", "hop"), [(32, 32), (10, 25), (7, 1), (1, 3), (400, 1)])
def test_any_length_and_hop(folder, tmp_path, length, hop, monkeypatch):
    signal = SignalSpec(("x", "y"), window=length, hop=hop, rate=100.0)
    path = signal_bundle(folder / f"{length}.{hop}", signal=signal, latents=2)
    monkeypatch.setattr("aeedge.files.npy.BLOCK_BYTES", 8 * 9)
    np.save(tmp_path / "x.npy", SAMPLES)
    with aeedge.load(path) as model:
        found = list(Recordings(model, [tmp_path / "x.npy"]).windows())
    starts = [*chain(*(kept[0] for _, kept in found))]
    assert starts == list(range(0, 400 - length + 1, hop))
    np.testing.assert_array_equal(
        np.concatenate([windows for windows, _ in found]), [SAMPLES[start : start + length] for start in starts]
    )


def test_an_array_of_windows_is_windows_as_they_are(tmp_path, path, model):
    windows = np.array(aeedge.window(SAMPLES, 32, 11))
    np.save(tmp_path / "w.npy", windows)
    for command, call in (("encode", model.encode), ("denoise", model.denoise)):
        said = run(command, path, tmp_path / "w.npy", "-o", tmp_path / f"{command}.npy").stderr
        assert "hop" not in said
        np.testing.assert_allclose(np.load(tmp_path / f"{command}.npy"), call(windows), atol=1e-5)
    run("encode", path, tmp_path / "w.npy", "-o", tmp_path / "z.csv")
    assert list(table(tmp_path / "z.csv")) == [f"latent_{i}" for i in range(6)]
    np.save(tmp_path / "one.npy", SAMPLES[:32])
    run("encode", path, tmp_path / "one.npy", "-o", tmp_path / "one.csv")
    assert table(tmp_path / "one.csv")["start"] == ("0",)
    said = run("encode", path, tmp_path / "w.npy", tmp_path / "one.npy", "-o", tmp_path / "no.npy", code=2).stderr
    assert f"{tmp_path / 'one.npy'}: expected windows (32, 2), as in the first file" in said


def test_standard_input_is_read_once(tmp_path, path, model):
    stream = io.BytesIO()
    np.save(stream, SAMPLES)
    run("denoise", path, "-", "-o", tmp_path / "c.npy", data=stream.getvalue())
    np.testing.assert_allclose(np.load(tmp_path / "c.npy"), aeedge.denoise_signal(model, SAMPLES), atol=1e-5)
    stream = io.BytesIO()
    np.save(stream, np.array(aeedge.window(SAMPLES, 32, 8)))
    run("denoise", path, "-", "-o", tmp_path / "w.npy", data=stream.getvalue())
    assert np.load(tmp_path / "w.npy").shape == (47, 32, 2)
    text = csv(tmp_path / "x.csv", SAMPLES).read_bytes()
    assert len(run("encode", path, "-", "-o", "-", data=text).stdout.splitlines()) == 48


def test_latents_of_a_recording_are_decoded_by_name(tmp_path, path, model):
    np.save(tmp_path / "x.npy", SAMPLES)
    run("encode", path, tmp_path / "x.npy", "-o", tmp_path / "z.csv")
    run("decode", path, tmp_path / "z.csv", "-o", tmp_path / "back.npy")
    np.testing.assert_allclose(np.load(tmp_path / "back.npy"), model.denoise(aeedge.window(SAMPLES, 32, 8)), atol=1e-4)


def test_calendar_channels_are_made_from_the_column_of_time(tmp_path, folder):
    seconds = 1.7e9 + 300.0 * np.arange(3000)
    value = np.sin(2 * np.pi * seconds / 86400)[:, None].astype(np.float32)
    phases = np.stack([seconds % 86400 / 86400, (seconds - 4 * 86400) % 604800 / 604800]) * 2 * np.pi
    waves = np.stack([np.sin(phases[0]), np.cos(phases[0]), np.sin(phases[1]), np.cos(phases[1])], 1)
    whole = np.concatenate([value, waves.astype(np.float32)], 1)
    path = signal_bundle(folder / "day", whole, DAY)
    dates = [str(np.datetime64(int(s), "s")).replace("T", " ") for s in seconds]
    source = csv(tmp_path / "a.csv", value, ["x"], dates, "when")
    run("encode", path, source, "-o", tmp_path / "z.npy")
    with aeedge.load(path) as model:
        expected = model.encode(aeedge.window(whole, 24, 6))
    np.testing.assert_allclose(np.load(tmp_path / "z.npy"), expected, atol=1e-4)
    run("denoise", path, source, "-o", tmp_path / "c.csv")
    found = table(tmp_path / "c.csv")
    assert list(found) == ["when", "x"]
    assert list(found["when"]) == dates
    said = run("encode", path, csv(tmp_path / "b.csv", value, ["x"]), "-o", tmp_path / "no.npy", code=2).stderr
    assert "expected a column 'when', for the model takes the time of day or week, got x" in said
    since_start = csv(tmp_path / "c2.csv", value, ["x"], 300 * np.arange(3000), "when")
    said = run("encode", path, since_start, "-o", tmp_path / "no.npy", code=2).stderr
    assert "expected dates in the column 'when'" in said


def test_columns_come_in_any_order_with_semicolons_and_decimal_commas(tmp_path, timed):
    times = [f"{i / 100:.2f}".replace(".", ",") for i in range(400)]
    source = csv(tmp_path / "a.csv", SAMPLES[:, ::-1], ["y", "x"], times, delimiter=";", decimal=",")
    run("encode", timed, source, "-o", tmp_path / "z.npy")
    with aeedge.load(timed) as model:
        np.testing.assert_allclose(np.load(tmp_path / "z.npy"), model.encode(aeedge.window(SAMPLES, 32, 8)), atol=1e-4)


def test_clocks_that_round_or_count_in_long_steps_make_no_gaps(tmp_path, folder):
    """Milliseconds of 800 Hz, seconds of 100 Hz; a gap is found all the same."""
    seconds = np.arange(800)
    for rate, digits in ((800.0, 3), (100.0, 0)):
        signal = TIMED._replace(rate=rate)
        path = signal_bundle(folder / f"rounded{rate:.0f}", signal=signal)
        times = np.floor(seconds / rate * 10**digits + 1e-9) / 10**digits
        source = csv(tmp_path / "a.csv", machine(800), times=times)
        assert f"{(800 - 32) // 8 + 1} windows of" in run("encode", path, source, "-o", tmp_path / "z.npy", "-f").stderr
        times[400:] += 5
        source = csv(tmp_path / "a.csv", machine(800), times=times)
        assert "no window crosses: 1" in run("encode", path, source, "-o", tmp_path / "z.npy", "-f").stderr


def test_a_time_in_two_columns_is_joined(tmp_path, folder):
    path = signal_bundle(folder / "joined", signal=TIMED._replace(time="Date Clock"))
    lines = ["Date,x,Clock,y"]
    for i, (x, y) in enumerate(SAMPLES):
        day, second = divmod(86_398 * 100 + i, 8_640_000)
        lines.append(
            f"{1 + day}.3.2026,{x},{second // 360000:02}:{second // 6000 % 60:02}:{second % 6000 / 100:05.2f},{y}"
        )
    (tmp_path / "a.csv").write_text("\n".join(lines))
    said = run("encode", path, tmp_path / "a.csv", "-o", tmp_path / "z.csv").stderr
    assert "47 windows" in said
    assert "gap" not in said
    assert "does not use" not in said
    assert table(tmp_path / "z.csv")["start_time"][0] == "1.3.2026 23:59:58.00"


def test_columns_without_names_are_taken_in_order_around_the_time(tmp_path, folder):
    path = signal_bundle(folder / "nameless", signal=SignalSpec(("x0", "x2"), 32, 8, 100.0, time="1"))
    times = np.arange(400) / 100
    np.savetxt(tmp_path / "a.csv", np.stack([SAMPLES[:, 0], times, SAMPLES[:, 1]], 1), delimiter=",", fmt="%.7g")
    run("encode", path, tmp_path / "a.csv", "-o", tmp_path / "z.npy", "--no-header")
    with aeedge.load(path) as model:
        np.testing.assert_allclose(np.load(tmp_path / "z.npy"), model.encode(aeedge.window(SAMPLES, 32, 8)), atol=1e-4)


def wrong_channels(folder):
    return written(folder, np.zeros((100, 3)))


def written(folder, array):
    np.save(folder / "x.npy", array)
    return folder / "x.npy"


def wav(folder, rate, channels=2):
    write_wav(folder / "x.wav", np.zeros((100, channels)), rate)
    return folder / "x.wav"


GOOD_TIMES = np.arange(100) / 100
FAULTS = {
    "too many channels": (wrong_channels, "expected a recording with 2 channels (x, y), or windows (n, 32, 2), got 3"),
    "one channel": (lambda f: written(f, np.zeros(100)), "expected a recording with 2 channels"),
    "windows of another length": (lambda f: written(f, np.zeros((5, 16, 2))), "got an array (n, 16, 2)"),
    "a mono wav": (lambda f: wav(f, 100, 1), "got 1 channels"),
    "a wav of another rate": (lambda f: wav(f, 200), "expected 100 Hz, as the model was trained with, got 200 Hz"),
    "times of another rate": (
        lambda f: csv(f / "x.csv", SAMPLES[:100], times=GOOD_TIMES / 2),
        "expected 100 Hz, as the model was trained with, got 200 Hz by the column 't'",
    ),
    "a missing channel": (lambda f: csv(f / "x.csv", SAMPLES[:100], ["x", "z"]), "expected a column 'y', got x, z"),
    "other names": (lambda f: csv(f / "x.csv", SAMPLES[:100], ["a", "b"]), "expected columns x, y, as the model"),
    "too short": (lambda f: written(f, SAMPLES[:31]), "expected a recording of 32 samples or more"),
    "nan": (lambda f: written(f, np.where(np.arange(200).reshape(100, 2) == 51, np.nan, 0)), "sample 25 (counted"),
    "a cell that is no time": (
        lambda f: csv(f / "x.csv", SAMPLES[:100], times=[*GOOD_TIMES[:50], "soon", *GOOD_TIMES[51:]]),
        "expected a time in the column 't', got 'soon' in sample 50",
    ),
    "gaps everywhere": (
        lambda f: csv(f / "x.csv", SAMPLES[:100], times=GOOD_TIMES + np.arange(100) // 20),
        "expected a stretch of 32 samples without a gap in time",
    ),
    "rows backwards": (
        lambda f: csv(f / "x.csv", SAMPLES[:100], times=GOOD_TIMES[::-1]),
        "expected times that rise from sample to sample in the column 't', but 99% of the steps go back; sort the rows",
    ),
    "rows out of order": (
        lambda f: csv(f / "x.csv", SAMPLES[:100], times=np.random.default_rng(0).permutation(GOOD_TIMES)),
        "of the steps go back; sort the rows",
    ),
    "an empty file": (lambda f: Path(f / "x.csv").write_text("") or f / "x.csv", "it is empty"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_recording_of_the_bundle_is_one_sentence_and_writes_nothing(tmp_path, timed, fault):
    make, message = FAULTS[fault]
    source = make(tmp_path)
    for command in ("encode", "score", "denoise"):
        if fault == "gaps everywhere" and command == "denoise":
            message = "expected a stretch of 32 samples or more without a gap"
        done = run(command, timed, source, "-o", tmp_path / "out.csv", code=2)
        assert message in done.stderr
        assert str(source) in done.stderr
        assert not (tmp_path / "out.csv").exists()


def test_a_short_file_among_others_is_named(tmp_path, path):
    np.save(tmp_path / "a.npy", SAMPLES)
    np.save(tmp_path / "b.npy", SAMPLES[:10])
    said = run("encode", path, tmp_path / "a.npy", tmp_path / "b.npy", "-o", tmp_path / "z.npy", code=2).stderr
    assert f"{tmp_path / 'b.npy'}: expected a recording of 32 samples or more" in said


def test_nan_becomes_nan_in_the_windows_that_have_it(tmp_path, path):
    samples = SAMPLES.copy()
    samples[200, 1] = np.nan
    np.save(tmp_path / "x.npy", samples)
    run("score", path, tmp_path / "x.npy", "-o", tmp_path / "s.npy", "--invalid", "propagate")
    found = np.load(tmp_path / "s.npy")
    lost = [start for start in STARTS if start <= 200 < start + 32]
    assert found["start"][np.isnan(found["score"])].tolist() == lost
    run("denoise", path, tmp_path / "x.npy", "-o", tmp_path / "c.npy", "--invalid", "propagate")
    assert 0 < np.isnan(np.load(tmp_path / "c.npy")[:, 0]).sum() < 32


def test_a_wav_is_no_place_for_latents_and_scores(tmp_path, path):
    np.save(tmp_path / "x.npy", SAMPLES)
    for command in ("encode", "score", "decode"):
        said = run(command, path, tmp_path / "x.npy", "-o", tmp_path / "z.wav", code=2).stderr
        assert "a WAV holds recordings alone" in said or command == "decode"
        assert not (tmp_path / "z.wav").exists()


def test_options_for_images_are_refused(tmp_path, path):
    np.save(tmp_path / "x.npy", SAMPLES)
    said = run("encode", path, tmp_path / "x.npy", "-o", tmp_path / "z.npy", "--skip-bad", code=2).stderr
    assert "only images" in said


def test_a_bundle_is_recalibrated_with_windows_of_recordings(tmp_path, path):
    """A machine that is noisier than the one of the training; its own later windows raise the promised alarms."""
    normal = machine(46_000, seed=30, noise=0.1)
    np.save(tmp_path / "normal.npy", normal[:6000])
    args = (path, tmp_path / "normal.npy", "-o", tmp_path / "new", "--false-alarm-rate", "0.02")
    assert "747 windows of 32 samples, hop 8, of 6,000 samples" in run("recalibrate", *args).stderr
    later = aeedge.window(normal[6000:], 32, 32)
    with aeedge.load(tmp_path / "new") as new, aeedge.load(path) as old:
        low, high = alarm_band(0.02, 747 // 4, len(later))
        assert 0 < low <= new.detect(later).sum() <= high < old.detect(later).sum()
        assert new.manifest.input.signal == old.manifest.input.signal
        assert new.manifest.calibration.time_ordered


def test_windows_that_fit_a_score_share_no_sample_with_those_that_calibrate(tmp_path, folder):
    old = signal_bundle(folder / "robust", score="robust")
    windows = aeedge.window(machine(6000, seed=32), 32, 8)
    found = aeedge.recalibrate(old, windows, tmp_path / "new")
    assert found.calibration_rows == 747 - 747 // 4
    assert found.fit_rows == 747 // 4 - 3  # which cover 32 samples with the next one
    with aeedge.load(old) as model:
        expected = residual_scale(
            windows[: found.fit_rows] - model.denoise(windows[: found.fit_rows]), model.manifest.score.scale
        )
    np.testing.assert_allclose(found.manifest.score.scale, expected, rtol=1e-5)
    assert aeedge.recalibrate(old, windows, tmp_path / "other", time_ordered=False).fit_rows == 747 // 4


@pytest.mark.parametrize(("noise", "verdict"), [(0.05, "as promised"), (0.15, "more than promised")])
def test_windows_that_overlap_are_counted_as_the_fewer_that_they_are(tmp_path, path, noise, verdict):
    np.save(tmp_path / "x.npy", machine(6000, noise=noise)[4000:])
    said = " ".join(run("score", path, tmp_path / "x.npy", "--summary").stdout.split())
    assert said.startswith("windows 247")
    assert "vary as 62 do that share no sample" in said
    assert verdict in said


def test_a_long_recording_needs_the_memory_of_some_blocks(tmp_path, path, monkeypatch):
    import tracemalloc

    np.save(tmp_path / "x.npy", np.tile(SAMPLES, (5000, 1)))
    with aeedge.load(path, threads=1) as model:
        tracemalloc.start()
        count = sum(len(windows) for windows, _ in Recordings(model, [tmp_path / "x.npy"]).windows())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert count == (2_000_000 - 32) // 8 + 1
    assert peak < 100 * 2**20
