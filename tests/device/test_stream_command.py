"""aeedge stream: samples in, a line of JSON for each window out, whatever pipes, files and signals do."""

import json
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.children import TIMEOUT, child_process
from helpers.signals import machine, signal_bundle
from helpers.streams import environment
from helpers.waiting import soon

import aeedge
from aeedge.bundle.manifest import SignalSpec
from aeedge.cli.group import AeedgeGroup

SIGNAL = SignalSpec(("x", "y"), window=32, hop=8, rate=100.0, time="t")
START = 1_750_000_000.0
FAULTS = ("not finite", "missing", "gap", "clock")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return signal_bundle(tmp_path_factory.mktemp("stream") / "m.aeedge", signal=SIGNAL, rate=0.01)


@pytest.fixture(scope="module")
def samples():
    """Normal, but for 100 samples of noise in x."""
    found = machine(1200, seed=3)
    found[600:700, 0] += np.random.default_rng(1).normal(size=100) * 3
    return found


def csv(samples, times=None, header=True):
    columns = samples if times is None else np.column_stack([times, samples])
    head = ("x,y" if times is None else "t,x,y") + "\n"
    return (head * header + "".join(",".join(map(repr, row)) + "\n" for row in columns.tolist())).encode()


def call(bundle, data, *options):
    """Exit code, documents and what was said."""
    done = CliRunner().invoke(AeedgeGroup.build(), ["stream", str(bundle), *map(str, options)], input=data)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def started(bundle, *options, **pipes):
    command = [sys.executable, "-m", "aeedge", "stream", str(bundle), *map(str, options)]
    return child_process(command, env=environment(), **pipes)


def ended(process):
    """Exit code, documents and what was said."""
    out, err = process.communicate(timeout=TIMEOUT)
    return process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


@pytest.fixture(scope="module")
def expected(bundle, samples):
    """What the command should say."""
    code, documents, _ = call(bundle, csv(samples))
    assert code == 0
    return documents


def test_documents_are_the_events_of_a_stream(bundle, samples, expected):
    with aeedge.load(bundle) as model:
        events = aeedge.Stream(model).push(samples)
        assert len(events) == len(expected) == (len(samples) - 32) // 8 + 1
        for event, document in zip(events, expected):
            for name in ("start", "end"):
                assert document[name] == pytest.approx(getattr(event, name), abs=1e-6)
            assert np.float32(document["score"]) == pytest.approx(np.float32(event.score), rel=1e-5)
            assert document["p_value"] == pytest.approx(event.p_value, abs=0.01)
            same = {"window": event.index, "alarm": event.alarm, "raised": event.raised, "verdict": event.verdict}
            assert same.items() <= document.items()
            assert document["health"] == [fault._asdict() for fault in event.health]
            assert bool(document["causes"]) == event.alarm
    assert any(document["raised"] for document in expected)


@pytest.mark.parametrize(
    "kind", ["csv", "no names", "json objects", "json arrays", "f64le", "f32le", "file", "semicolons"]
)
def test_every_format_says_the_same(bundle, samples, expected, kind, tmp_path):
    options, data = [], csv(samples, header=kind == "csv")
    if kind == "json objects":
        data = "".join(json.dumps({"x": x, "y": y}) + "\n" for x, y in samples.tolist()).encode()
    elif kind == "json arrays":
        data = "".join(f"{row}\n" for row in samples.tolist()).encode()
    elif kind.startswith("f64") or kind.startswith("f32"):
        options = ["--format", kind, "--channels", 2, "--rate", "100Hz"]
        data = samples.astype("<f8" if kind == "f64le" else "<f4").tobytes()
    elif kind == "semicolons":
        data = data.replace(b",", b";").replace(b".", b",")
    elif kind == "file":
        (tmp_path / "x.csv").write_bytes(data)
        options, data = [tmp_path / "x.csv"], b""
    assert call(bundle, data, *options)[1] == expected


def test_times_of_the_signal_are_those_of_the_windows(bundle, samples, expected):
    times = START + np.arange(len(samples)) / 100
    _, documents, said = call(bundle, csv(samples, times))
    assert [d["start"] for d in documents] == pytest.approx([START + d["start"] for d in expected])
    assert [d["score"] for d in documents] == [d["score"] for d in expected]
    assert "lag" not in said  # of an old recording


def test_the_lag_is_from_the_last_sample_of_a_window_where_samples_have_dates(bundle, samples, tmp_path):
    times = time.time() - 500 + np.arange(len(samples)) / 100
    _, documents, _ = call(bundle, csv(samples, times), "--metrics-file", tmp_path / "m.prom")
    (lag,) = [
        line.split()[-1] for line in (tmp_path / "m.prom").read_text().splitlines() if line.startswith("aeedge_lag")
    ]
    assert float(lag) == pytest.approx(time.time() - documents[-1]["end"], abs=100)
    assert float(lag) > 400


def test_a_window_is_told_of_before_the_next_sample_comes(bundle, samples):
    with started(bundle) as process:
        for number in range(3):
            process.stdin.write(
                csv(samples[:32] if not number else samples[24 + 8 * number : 32 + 8 * number], None, False)
            )
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["window"] == number
        process.stdin.write(b"1,")  # and what is not a whole line, is none
        process.stdin.flush()
        process.send_signal(signal.SIGTERM)
        code, rest, said = ended(process)
    assert (code, rest) == (0, [])
    assert "48 samples, 3 windows" in said
    assert "at 100 Hz, a window of 32 samples (0.32 s) every 8; alarm above" in said
    assert "false alarms a day" in said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_with_its_state_and_it_goes_on_from_there(bundle, samples, expected, tmp_path, number, code):
    state, found = tmp_path / "state", []
    for part in (samples[:500], samples[500:]):
        with started(bundle, "--state", state) as process:
            process.stdin.write(csv(part, header=False))
            process.stdin.flush()
            windows = (len(samples if found else part) - 32) // 8 + 1 - len(found)
            found += [json.loads(process.stdout.readline()) for _ in range(windows)]
            process.send_signal(number)
            got, rest, said = ended(process)
        assert (got, rest) == (code, [])
        assert "samples" in said
    keys = ("window", "start", "score", "alarm", "raised", "verdict")
    assert [[d[key] for key in keys] for d in found] == [
        [pytest.approx(d[key]) if key in ("start", "score") else d[key] for key in keys] for d in expected
    ]


def test_a_killed_process_has_kept_its_state_now_and_then(bundle, samples, tmp_path, monkeypatch):
    monkeypatch.setattr("aeedge.signals.gateway._KEEP_EVERY", 0.0)
    pieces = [csv(part, header=False) for part in np.array_split(samples, 7)]
    kept = []

    def read(*_):
        for piece in pieces:
            yield piece
            kept.append((tmp_path / "state").exists())

    monkeypatch.setattr("aeedge.cli.stream.read_pieces", read)
    assert call(bundle, b"", "--state", tmp_path / "state")[0] == 0
    assert all(kept)


def test_state_of_another_bundle_or_other_options_or_damaged_is_refused(bundle, samples, tmp_path):
    state = tmp_path / "state"
    other = signal_bundle(tmp_path / "other.aeedge", machine(4000, 2, seed=9), SIGNAL, rate=0.01)
    assert call(other, csv(samples), "--state", state)[0] == 0
    code, documents, said = call(bundle, csv(samples), "--state", state)
    assert (code, documents) == (2, [])
    assert "another" in said or "bundle" in said
    assert str(state) in said
    code, _, said = call(other, csv(samples), "--state", state, "--patience", "2 of 3")
    assert code == 2
    assert "other options (patience 1 of 1)" in said
    for damage in (b"", b"{}\n", b"\x00" * 100, state.read_bytes()[:-50]):
        state.write_bytes(damage)
        code, documents, said = call(other, csv(samples), "--state", state)
        assert (code, documents) == (2, [])
        assert "Traceback" not in said


def test_lines_that_are_no_samples_are_missing_and_told_of(bundle, samples):
    lines = csv(samples, header=False).splitlines()
    lines[300] = b"rubbish"
    lines[800] = b"1,2,3,4"
    code, documents, said = call(bundle, b"\n".join(lines))
    assert code == 0
    assert "standard input, line 301: column 'x'" in said or "line 301: expected" in said
    assert "line 801: expected 2 cells, got 4" in said
    assert "2 unreadable" in said
    gaps = [d for d in documents if d["verdict"] == "bad input"]
    assert [gap["health"][0]["kind"] for gap in gaps] == ["missing"] * 2
    assert [round(gap["start"], 2) for gap in gaps] == [3.0, 8.0]
    assert all(d["score"] is None for d in gaps)
    assert documents[-1]["end"] == pytest.approx(11.99, abs=0.08)
    code, _, said = call(bundle, b"\n".join(lines), "--strict")
    assert code == 2
    assert "line 301" in said


def test_a_flood_of_garbage_is_not_a_flood_of_messages(bundle, samples):
    lines = csv(samples, header=False).splitlines()
    lines[100:1100] = [b"rubbish"] * 1000
    code, _, said = call(bundle, b"\n".join(lines))
    assert code == 0
    assert said.count("expected 2 cells, got 1") == 10
    assert "1,000 unreadable" in said


def test_missing_values_and_gaps_of_time_are_bad_input(bundle, samples):
    times = START + np.arange(len(samples)) / 100
    times[400:] += 5.0
    data = csv(samples, times).replace(repr(float(samples[800, 1])).encode(), b"", 1)
    code, documents, _ = call(bundle, data)
    kinds = {fault["kind"] for d in documents for fault in d["health"]}
    assert code == 0
    assert "gap" in kinds
    assert kinds & {"not finite", "missing"}


def test_raw_data_that_ends_within_a_sample_is_an_error_after_all_windows(bundle, samples, expected):
    code, documents, said = call(bundle, samples.astype("<f4").tobytes()[:-3], "--format", "f32le")
    assert code == 2
    assert documents == expected[: len(documents)]
    assert len(documents) >= len(expected) - 1
    assert "expected whole samples of 8 bytes (2 channels of 4), got 5 bytes more" in said


@pytest.mark.parametrize(
    ("options", "data", "words"),
    [
        (["--channels", "3"], b"", "--channels: expected 2, as the bundle has (x, y), got 3"),
        (["--rate", "50Hz"], b"", "--rate: expected 100 Hz, as the bundle was trained with, got 50 Hz;"),
        (["--rate", "-50Hz"], b"", "--rate: expected samples a second above 0"),
        (["--hop", "0"], b"", "--hop"),
        (["--patience", "5 of 3"], b"", "--patience: expected how many"),
        (["--cooldown", "-3s"], b"", "--cooldown: expected a duration"),
        (["--hysteresis", "1.5"], b"", "--hysteresis: expected"),
        (["--threshold", "1", "--false-alarm-rate", "0.1"], b"", "expected a false_alarm_rate or a threshold"),
        (["--format", "mp3"], b"", "--format: expected one of csv"),
        (["nowhere.csv"], b"", "nowhere.csv: expected a file"),
        (["."], b"", "."),
        (["--publish", "t"], b"", "--publish: needs --mqtt"),
        (["--record-limit", "0", "--record", "d"], b"", "record-limit"),
        (["--state", "no/where"], b"", "expected the folder no to exist"),
        (["--record", "no/where"], b"", "no/where"),
        ([], b"", "expected at least a window of 32 samples"),
        ([], b"x,y\n1,2\n", "expected at least a window of 32 samples, but the input ended after 1"),
        ([], b"1,2,3,4\n4,5,6,7\n", "expected 2 numbers (x, y), got 4"),
        ([], b"x,z\n1,2\n", "expected the columns x, y, got x, z"),
        ([], b"\x00\x01\x02" * 99, "--format"),
        ([], b"{not json\n" * 30, "expected a JSON object or array"),
        ([], b"RIFF\x00\x00\x00\x00WAVE\n" * 9, "'aeedge score' reads such files"),
        ([], b"\x93NUMPY\x01\x00v\x00{}\n" * 9, "got a recording with a header"),
        (["--format", "s16le"], b"RIFF....WAVE", "arecord -t raw"),
        (["--time", "when"], b"x,y\n1,2\n", "expected a column 'when'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(bundle, tmp_path, monkeypatch, options, data, words):
    monkeypatch.chdir(tmp_path)
    code, documents, said = call(bundle, data, *options)
    assert (code, documents) == (2, [])
    assert words in said
    assert "Traceback" not in said


def test_a_bundle_that_has_no_windows_streams_its_rows_or_is_refused(tmp_path):
    from helpers.children import DATA

    rows = np.load(DATA / "bundle_v1" / "golden.npz")["input"]
    text = "".join(",".join(map(repr, row)) + "\n" for row in rows.tolist()).encode()
    code, documents, _ = call(DATA / "bundle_v1", text)
    assert code == 0
    assert len(documents) == len(rows)
    code, _, said = call(DATA / "bundle_v1_map", b"1\n")
    assert (code, "Traceback" in said) in ((2, False), (0, False))


def test_a_reader_that_goes_away_ends_it_as_elsewhere(bundle, samples):
    read, write = os.pipe()
    os.close(read)
    with started(bundle, stdout=write) as process:
        os.close(write)
        _, err = process.communicate(csv(samples), timeout=TIMEOUT)
    assert process.returncode == 141
    assert b"Traceback" not in err


def test_a_named_pipe_is_read_as_it_is_filled(bundle, samples, expected, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with started(bundle, tmp_path / "fifo") as process:
        with open(tmp_path / "fifo", "wb") as fifo:
            fifo.write(csv(samples))
        code, documents, _ = ended(process)
    assert (code, documents) == (0, expected)


def test_alarms_and_changes_alone_can_be_written(bundle, samples, expected):
    alarms = call(bundle, csv(samples), "--only", "alarms")[1]
    assert alarms == [d for d in expected if d["alarm"]]
    changes = call(bundle, csv(samples), "--only", "changes")[1]
    states = [(False, "ok"), *((d["alarm"], d["verdict"]) for d in expected)]
    assert changes == [d for d, before, now in zip(expected, states, states[1:]) if before != now]
    assert 0 < len(changes) < len(alarms)


def test_the_number_of_causes_can_be_chosen(bundle, samples):
    for top in (0, 1, 2):
        alarms = call(bundle, csv(samples), "--only", "alarms", "--top", top)[1]
        assert {len(d["causes"]) for d in alarms} == {top}


def test_samples_around_alarms_are_recorded(bundle, samples, expected, tmp_path):
    for size in (len(samples), 13):
        folder = tmp_path / f"rec{size}"
        data = [csv(part, header=False) for part in np.split(samples, range(size, len(samples), size))]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("aeedge.cli.stream.read_pieces", lambda *_, pieces=data: iter(pieces))
            assert call(bundle, b"", "--record", folder)[0] == 0
        raised = [d["window"] for d in expected if d["raised"]]
        covered = set()
        for path in sorted(folder.glob("*.json")):
            document = json.loads(path.read_text())
            kept = np.load(folder / document["samples"])
            windows = [d["window"] for d in document["windows"]]
            covered |= set(windows)
            assert windows[0] in raised
            assert windows == list(range(windows[0], windows[-1] + 1))
            last = round(document["windows"][-1]["end"] * 100) + 1
            np.testing.assert_array_equal(kept, samples[last - len(kept) : last])
            assert len(kept) == min(last, 32 + 64 + 8 * (len(windows) - 1))
            assert document["channels"] == ["x", "y"]
            assert document["rate"] == 100
        assert covered >= {d["window"] for d in expected if d["alarm"]}


def test_no_more_recordings_are_kept_than_asked_for(bundle, samples, tmp_path):
    many = np.concatenate([samples] * 4)
    assert call(bundle, csv(many), "--record", tmp_path / "all")[0] == 0
    assert len(list((tmp_path / "all").glob("*.npy"))) > 2
    assert call(bundle, csv(many), "--record", tmp_path / "two", "--record-limit", 2)[0] == 0
    names = [sorted(path.name for path in (tmp_path / "two").glob(f"*.{kind}")) for kind in ("npy", "json")]
    assert [len(found) for found in names] == [2, 2]
    latest = max(path.name[-13:-4] for path in (tmp_path / "all").glob("*.npy"))
    assert names[0][-1].endswith(f"{latest}.npy")


def test_recordings_do_not_go_into_a_bundle(bundle, samples):
    code, _, said = call(bundle, csv(samples), "--record", bundle)
    assert code == 2
    assert "bundle" in said


def test_metrics_are_prometheus_text(bundle, samples, expected, tmp_path):
    assert call(bundle, csv(samples) + b"rubbish\n", "--metrics-file", tmp_path / "m.prom")[0] == 0
    text = (tmp_path / "m.prom").read_text()
    found = {line.split("{")[0]: line.split()[-1] for line in text.splitlines() if not line.startswith("#")}
    assert all('{model="machine"}' in line for line in text.splitlines() if not line.startswith("#"))
    assert {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")} == set(found)
    assert float(found["aeedge_windows_total"]) == len(expected) + 1
    assert float(found["aeedge_alarms_total"]) == sum(d["raised"] for d in expected)
    assert float(found["aeedge_bad_windows_total"]) == 1
    assert float(found["aeedge_unreadable_total"]) == 1
    assert float(found["aeedge_lag_seconds"]) >= 0
    assert abs(float(found["aeedge_last_window_timestamp_seconds"]) - time.time()) < 1000
    assert os.listdir(tmp_path) == ["m.prom"]


def test_a_calendar_needs_no_times_where_samples_come_live(tmp_path):
    spec = SIGNAL._replace(calendar=("day",))
    bundle = signal_bundle(tmp_path / "c.aeedge", machine(4000, 4), spec)
    code, documents, _ = call(bundle, csv(machine(200)))
    assert code == 0
    assert abs(documents[0]["start"] - time.time()) < 1000


def test_an_integer_model_goes_on_after_values_that_it_cannot_take(tmp_path):
    recording = np.round(machine(4000) * 1000).astype(np.int16)
    bundle = signal_bundle(tmp_path / "i.aeedge", recording, SIGNAL._replace(time=None), dtype="int16")
    rows = [",".join(map(str, row)).encode() for row in recording[:300].tolist()]
    rows[100] = b"0.5,1"
    code, documents, said = call(bundle, b"\n".join(rows))
    assert code == 0
    assert "expected whole numbers" in said
    assert [d["verdict"] for d in documents].count("bad input") == 1
    assert documents[-1]["end"] > 2.9


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_of_recordings_ends_nothing(bundle, samples, tmp_path, monkeypatch):
    from aeedge.errors import InputError

    def full(*_, **__):
        raise InputError("rec: not written, the disk is full")

    folder = tmp_path / "rec"
    folder.mkdir()
    monkeypatch.setattr("aeedge.signals.recorder.atomic_file", full)
    code, documents, said = call(bundle, csv(samples), "--record", folder)
    assert code == 0
    assert documents
    assert "the disk is full" in said


def test_output_comes_although_the_input_stays_open(bundle, samples):
    with started(bundle) as process:
        process.stdin.write(csv(samples[:40]))
        process.stdin.flush()
        first = json.loads(process.stdout.readline())
        assert process.poll() is None
        process.stdin.close()
        process.stdin = None
        assert soon(lambda: process.poll() is not None)
        process.communicate()
    assert first["window"] == 0


def test_with_adapt_windows_are_judged_by_likelihood(bundle, samples):
    """The threshold is a likelihood, which the lines have, and which is refused where it is none."""
    code, found, said = call(bundle, csv(samples), "--adapt", "--false-alarm-rate", "0.002")
    assert code == 0
    assert "likelihood 0.998" in said
    expected = aeedge.Stream(aeedge.load(bundle), adapt=True, false_alarm_rate=0.002).push(samples)
    assert [line["raised"] for line in found] == [event.raised for event in expected]
    likelihoods = [[line["likelihood"] for line in found], [event.likelihood for event in expected]]
    np.testing.assert_allclose(*likelihoods, atol=1e-3)
    assert not any("likelihood" in line for line in call(bundle, csv(samples))[1])
    code, _, said = call(bundle, csv(samples), "--adapt", "--threshold", "5")
    assert code == 2
    assert "--threshold: expected a likelihood between 0 and 1" in said


def test_a_signal_while_it_is_busy_loses_no_window(bundle, tmp_path):
    """What was read is told of before the end, and the next process goes on with what is still in the pipe."""
    data = csv(np.round(machine(30_000, seed=3), 4), header=False)
    read, write = os.pipe()

    def fill():
        with os.fdopen(write, "wb") as pipe:
            pipe.write(data)

    feeder = threading.Thread(target=fill, daemon=True)
    feeder.start()
    found = []
    try:
        for last in (False, False, True):
            with started(bundle, "--state", tmp_path / "state", "--hop", 2, stdin=read) as process:
                found.append(json.loads(process.stdout.readline()))
                if not last:
                    process.send_signal(signal.SIGTERM)
                found += [json.loads(line) for line in process.stdout]
                assert process.wait(TIMEOUT) == 0
    finally:
        os.close(read)
    assert len(found) > 14_000
    assert [document["window"] for document in found] == list(range(len(found)))


def test_a_signal_ends_it_although_nobody_takes_what_it_says(bundle, tmp_path):
    """A reader that hangs does not keep it alive."""
    (tmp_path / "long.csv").write_bytes(csv(machine(20_000, seed=3)))
    with started(bundle, tmp_path / "long.csv", "--hop", 1) as process:
        process.stdout.readline()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) in (0, 120)  # 120: Python could not write the rest


def test_state_and_metrics_are_different_files(bundle, samples, tmp_path):
    code, _, said = call(
        bundle, csv(samples), "--state", tmp_path / "file", "--metrics-file", f"{tmp_path}/../{tmp_path.name}/file"
    )
    assert code == 2
    assert "--metrics-file: expected another file than that of --state" in said


def test_a_hop_longer_than_the_stream_is_told_of(bundle, samples):
    code, documents, said = call(bundle, csv(samples), "--hop", 5000)
    assert (code, len(documents)) == (0, 1)
    assert "Note: --hop: of 1,200 samples, fewer than the hop of 5,000, there is one window at most" in said
