"""Rows of labelled files, rows in time order, rows for calibration, and labels that must not be inputs."""

import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from aeedge.cli.group import AeedgeGroup
from aeedge.errors import InputError
from aeedge_export import Autoencoder
from aeedge_export.data.columns import find_time, label_notes, why_not_by_values
from aeedge_export.data.conditions import parse_condition
from aeedge_export.data.files import read
from aeedge_export.data.times import in_time_order

N = 600
RNG = np.random.default_rng(5)
A = RNG.normal(size=N).round(4)
B = (A + 0.1 * RNG.normal(size=N)).round(4)
C = (A - 0.1 * RNG.normal(size=N)).round(4)
FAULT = (np.arange(N) % 10 == 9).astype(int)
START = datetime.datetime(2026, 3, 9, 15)
TIMES = [str(START + datetime.timedelta(seconds=i)) for i in range(N)]
STATES = np.array(["run", "off", "", "in use"])[np.arange(N) % 4]


def table(path, delimiter=",", decimal=".", **columns):
    lines = [delimiter.join(columns)]
    for row in zip(*columns.values()):
        cells = [
            str(cell).replace(".", decimal) if isinstance(cell, (float, np.floating)) else str(cell) for cell in row
        ]
        lines.append(delimiter.join(cells))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def labelled(tmp_path):
    return table(tmp_path / "x.csv", datetime=TIMES, a=A, b=B, **{"flow rate": C}, state=STATES, anomaly=FAULT)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("anomaly == 0", FAULT == 0),
        ("anomaly==0.0", FAULT == 0),
        ("anomaly != 0 AND a > 0", (FAULT != 0) & (A > 0)),
        ("a>=-0.5 and a<=.5 and b<1e-1", (A >= -0.5) & (A <= 0.5) & (B < 0.1)),
        ("'flow rate' < 0", C < 0),
        ('"flow rate" < 0 and `flow rate` > -1', (C < 0) & (C > -1)),
        ("state == run", STATES == "run"),
        ("state == 'in use'", STATES == "in use"),
        ("state != run", (STATES == "off") | (STATES == "in use")),  # what is missing never matches
        ("datetime >= '2026-03-09 15:05:00'", np.arange(N) >= 300),
        ("datetime < 2026-03-10", np.ones(N, bool)),
    ],
)
def test_rows_that_match(labelled, condition, expected):
    data = read(labelled, select=condition)
    wanted = np.c_[A, B, C].astype(np.float32)[expected]
    columns = {"a": 0, "b": 1, "flow rate": 2}
    np.testing.assert_array_equal(data.X, wanted[:, [columns[name] for name in data.features]])
    assert f"selected {expected.sum():,} of {N:,} rows, where {condition}" in data.notes
    (left_out,) = (note for note in data.notes if note.startswith("left out"))
    for comparison in parse_condition(condition):
        assert comparison.column not in data.features
        assert f"{comparison.column} (--select)" in left_out


def test_labels_and_weights_follow_the_rows(labelled, tmp_path):
    np.save(tmp_path / "y.npy", np.arange(N))
    chosen = np.flatnonzero(FAULT == 0)
    data = read(labelled, select="anomaly == 0", labels="state", weights="b", columns=["a", "anomaly"])
    assert data.features == ("a", "anomaly")
    assert data.labels.tolist() == STATES[chosen].tolist()
    np.testing.assert_array_equal(data.weights, B[chosen].astype(np.float32))
    assert read(labelled, select="anomaly == 0", labels=str(tmp_path / "y.npy")).labels.tolist() == chosen.tolist()


def test_other_files_with_labels(tmp_path):
    pa.parquet.write_table(
        pa.table({"a": A, "b": B, "bad": FAULT == 1, "day": [START + datetime.timedelta(hours=i) for i in range(N)]}),
        tmp_path / "x.parquet",
    )
    for condition in ("bad == false", "bad == 0", "bad != True"):
        np.testing.assert_array_equal(
            read(tmp_path / "x.parquet", select=condition).X[:, 0], A[FAULT == 0].astype("f4")
        )
    assert len(read(tmp_path / "x.parquet", select="day < 2026-03-10").X) == 9
    np.savez(tmp_path / "x.npz", X=np.c_[A, B], y=FAULT)
    np.testing.assert_array_equal(read(tmp_path / "x.npz", array="X", select="y == 0").X[:, 1], B[FAULT == 0])
    german = table(tmp_path / "g.csv", ";", ",", a=A, b=B, c=C)
    for limit in ("0,5", "0.5"):
        assert len(read(german, select=f"c < {limit}").X) == (C < 0.5).sum()


def test_only_selected_rows_need_values(tmp_path):
    a = [("" if fault else value) for value, fault in zip(A, FAULT)]
    x = table(tmp_path / "x.csv", a=a, b=B, anomaly=FAULT)
    assert len(read(x, select="anomaly == 0").X) == (FAULT == 0).sum()
    with pytest.raises(InputError, match=r"line 11, column 'a': expected a number, got nothing .*--missing drop"):
        read(x, select="anomaly == 1")
    with pytest.raises(InputError, match="line 11"):
        read(x)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("nope == 0", r"x.csv: expected a column 'nope', got datetime, a, b"),
        ("anomaly = 0", "equal is =="),
        ("anomaly", "expected comparisons such as"),
        ("", "expected comparisons such as"),
        ("anomaly ==", "expected comparisons such as"),
        ("anomaly == 0 or a > 1", "expected comparisons such as"),
        ("anomaly == 0 and", "expected comparisons such as"),
        ("anomaly == 0 a > 1", "expected comparisons such as"),
        ("flow rate > 0", "put names and values with blanks in quotes"),
        ("'flow rate > 0", "a quote is not closed"),
        ("__import__('os').system('x')", "expected comparisons such as"),
        ("anomaly == nan", "stands for a missing one"),
        ("anomaly == ''", "stands for a missing one"),
        ("anomaly == 7", "select: expected rows that match anomaly == 7, but none of 600 does"),
        ("state > 3", "column 'state': expected numbers, or dates .* to compare by >, got 'run'"),
        ("a < high", "column 'a': expected numbers, or dates .* got 'high'"),
        ("datetime < yesterday", "column 'datetime': expected numbers, or dates .* got 'yesterday'"),
    ],
)
def test_conditions_that_are_none_are_one_sentence(labelled, condition, message):
    with pytest.raises(InputError, match=message) as caught:
        read(labelled, select=condition)
    assert "\n" not in str(caught.value)


def test_what_has_no_columns_cannot_be_selected_from(tmp_path):
    np.save(tmp_path / "x.npy", np.c_[A, B])
    np.savez(tmp_path / "x.npz", X=np.c_[A, B], y=FAULT[:7])
    with pytest.raises(InputError, match=r"only rows of tables and of \.npz can be selected"):
        read(tmp_path / "x.npy", select="y == 0")
    with pytest.raises(InputError, match=r"array 'y': expected one value for each of the 600 rows .* shape \(7,\)"):
        read(tmp_path / "x.npz", array="X", select="y == 0")
    with pytest.raises(InputError, match="z"):
        read(tmp_path / "x.npz", array="X", select="z == 0")


STEPS = [datetime.datetime(2026, 1, 30) + datetime.timedelta(hours=5 * i) for i in range(40)]


@pytest.mark.parametrize(
    "form",
    ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%d.%m.%Y %H:%M", "%m/%d/%Y %I:%M %p", "%d/%m/%y %H:%M", "%Y/%m/%d %H"],
)
def test_dates_of_any_form_that_rise(form):
    cells = [step.strftime(form) for step in STEPS]
    assert in_time_order(cells)
    assert in_time_order([*cells[:5], "", "n/a", *cells[5:]])
    assert not in_time_order(cells[::-1])
    assert not in_time_order([*cells[20:], *cells[:20]])
    assert not in_time_order([*cells[:30], *cells[20:40]])
    assert not in_time_order([cells[0]] * 9)


def test_an_hour_that_is_there_twice_rises_with_its_offset():
    assert in_time_order([f"2026-10-25T02:{m:02}:00+02:00" for m in (0, 30)] + ["2026-10-25T02:10:00+01:00"])
    assert not in_time_order(["2026-10-25T02:30:00+01:00", "2026-10-25T02:30:00+02:00"])


def test_a_clock_that_is_set_back_breaks_no_order_and_a_second_series_does():
    year = [datetime.datetime(2026, 1, 1) + datetime.timedelta(hours=i) for i in range(8760)]
    year[7000:] = [when - datetime.timedelta(hours=1) for when in year[7000:]]
    assert in_time_order([str(when) for when in year])
    assert in_time_order(year)
    assert not in_time_order(year + year)
    assert not in_time_order(year[:6000] + year[3000:])
    assert not in_time_order(year[::-1])
    assert not in_time_order([str(when) for when in np.random.default_rng(0).permutation(year)])


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"datetime": TIMES}, ("datetime", True)),
        ({"datetime": TIMES[::-1]}, ("datetime", False)),
        ({"date": [t[:10] for t in TIMES], "time": [t[11:] for t in TIMES]}, ("time", True)),
        ({"date": [str(s)[:10] for s in STEPS], "time": [str(s)[11:] for s in STEPS]}, ("date", True)),
        ({"time": [str(1.7e9 + i) for i in range(40)]}, ("time", True)),
        ({"time": [str(1.7e9 + i % 7) for i in range(40)]}, ("time", False)),
        ({"t": [str(20 + i % 7) for i in range(40)]}, (None, False)),  # a temperature
        ({"t": [str(20 + i // 2 - i % 2 / 9) for i in range(40)]}, (None, False)),
        ({"ts": [str(1.7e9 + 100 * i - 50 * (i == 30)) for i in range(400)]}, ("ts", True)),
        ({"t": [20 + i for i in range(40)]}, ("t", True)),
        ({"when": STEPS}, ("when", True)),
        ({"datetime": TIMES[:5]}, (None, False)),
        ({}, (None, False)),
    ],
)
def test_the_column_that_tells_the_time(columns, expected):
    assert find_time(columns, ".") == expected


def test_a_day_that_goes_on_after_midnight_rises_together_with_its_date():
    date, time = [str(s)[:10] for s in STEPS], [str(s)[11:] for s in STEPS]
    assert find_time({"time": time, "date": date}, ".") == ("date", True)
    mixed = [*range(1, 40, 2), *range(0, 40, 2)]
    assert find_time({"time": [time[i] for i in mixed], "date": [date[i] for i in mixed]}, ".") == ("time", False)


def call(*args):
    result = CliRunner().invoke(AeedgeGroup.build(), [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def train(tmp_path, *args):
    return call("train", *args, "-o", tmp_path / "run", "-f", "-q", "--epochs", 1, "--latent", 1, "--threads", 1)


def test_rows_in_time_order_are_split_in_blocks(tmp_path, labelled):
    done = train(tmp_path, labelled, "--gap", 3)
    assert done.exit_code == 0, done.output
    assert "rows are in time order (column 'datetime')" in done.stderr
    assert "--no-time-ordered for a random split" in done.stderr
    run = Autoencoder.load(tmp_path / "run").run_
    assert run.time_ordered
    parts = run.split(N)
    assert parts.later[-1] == N - 1
    assert parts.calibration[0] - parts.validation[-1] == 4
    np.testing.assert_array_equal(run.calibration[:, 0], A[parts.calibration].astype(np.float32))
    resumed = call("train", labelled, "-o", tmp_path / "run", "--resume", "--epochs", 2, "-q")
    assert resumed.exit_code == 0, resumed.output
    assert "in time order" not in resumed.stderr
    assert Autoencoder.load(tmp_path / "run").run_.time_ordered
    at_random = train(tmp_path, labelled, "--no-time-ordered")
    assert "in time order" not in at_random.stderr
    assert not Autoencoder.load(tmp_path / "run").run_.time_ordered


def test_a_column_of_times_that_does_not_rise_is_said(tmp_path):
    shuffled = table(tmp_path / "x.csv", datetime=RNG.permutation(TIMES), a=A, b=B)
    done = train(tmp_path, shuffled)
    assert "column 'datetime' does not rise from row to row: rows are split at random" in done.stderr
    assert not Autoencoder.load(tmp_path / "run").run_.time_ordered
    done = train(tmp_path, shuffled, "--time-ordered")
    assert "column 'datetime' does not rise from row to row: rows are taken to be in time order" in done.stderr
    assert Autoencoder.load(tmp_path / "run").run_.time_ordered


def test_several_files_are_in_order_only_together(tmp_path):
    first = table(tmp_path / "1.csv", datetime=TIMES[:300], a=A[:300], b=B[:300])
    second = table(tmp_path / "2.csv", datetime=TIMES[300:], a=A[300:], b=B[300:])
    assert "rows are in time order" in train(tmp_path, first, second).stderr
    assert "does not rise" in train(tmp_path, second, first).stderr


def test_times_in_other_files(tmp_path):
    pandas = pytest.importorskip("pandas")
    when = [START + datetime.timedelta(seconds=i) for i in range(N)]
    frame = pandas.DataFrame({"a": A, "b": B, "anomaly": FAULT}, index=pandas.DatetimeIndex(when))
    frame.to_parquet(tmp_path / "index.parquet")
    frame.reset_index(names="when").to_parquet(tmp_path / "column.parquet")
    frame.reset_index(names="when").to_json(tmp_path / "x.jsonl", orient="records", lines=True, date_format="iso")
    for name in ("index.parquet", "column.parquet", "x.jsonl"):
        data = read(tmp_path / name, times=True, select="anomaly == 0")
        assert data.time_ordered, name
        assert (data.features, len(data.X)) == (("a", "b"), 540)
    frame.sample(frac=1, random_state=0).to_parquet(tmp_path / "shuffled.parquet")
    shuffled = read(tmp_path / "shuffled.parquet", times=True)
    assert shuffled.time_column is not None
    assert not shuffled.time_ordered


def test_rows_taken_out_of_a_series_are_said(tmp_path, labelled):
    done = train(tmp_path, labelled, "--select", "anomaly == 0")
    assert done.exit_code == 0, done.output
    assert "selected 540 of 600 rows, where anomaly == 0" in done.stderr
    assert "rows between others were taken out; gaps in time order are counted in the rows that are left" in done.stderr
    assert "inputs (3): a, b, flow rate" in done.stderr
    assert "rows between others" not in train(tmp_path, labelled, "--select", "datetime > '2026-03-09 15:01'").stderr


def test_rows_for_calibration_from_files(tmp_path, labelled):
    more = table(tmp_path / "n.csv", anomaly=FAULT, b=B + 1, extra=A, **{"flow rate": C + 1}, a=A + 1)
    plain = table(tmp_path / "p.csv", a=A + 2, b=B, **{"flow rate": C})
    done = train(tmp_path, labelled, "--select", "anomaly == 0", "--calibration", more)
    assert done.exit_code == 0, done.output
    run = Autoencoder.load(tmp_path / "run").run_
    expected = np.c_[A + 1, B + 1, C + 1][FAULT == 0].astype(np.float32)
    np.testing.assert_allclose(run.calibration, expected, rtol=1e-6)
    assert not len(run.split(540).calibration)
    done = train(tmp_path, labelled, "--select", "anomaly == 0", "--calibration", plain)
    assert "Read for calibration: no column 'anomaly' to select by: all rows are taken" in done.stderr
    assert len(Autoencoder.load(tmp_path / "run").run_.calibration) == N
    assert train(tmp_path, labelled, "--calibration", plain, "--calibration", plain).exit_code == 0
    assert len(Autoencoder.load(tmp_path / "run").run_.calibration) == 2 * N


def test_rows_for_calibration_of_other_kinds(tmp_path):
    bare = tmp_path / "bare.csv"
    np.savetxt(bare, np.c_[A, np.arange(N), B], delimiter=",")
    np.save(tmp_path / "x.npy", np.c_[A, B])
    np.savetxt(tmp_path / "other.csv", np.c_[A, N + np.arange(N), B], delimiter=",")
    np.save(tmp_path / "y.npy", np.c_[B, A])
    for data, calibration in (
        (bare, tmp_path / "other.csv"),
        (bare, tmp_path / "x.npy"),
        (tmp_path / "y.npy", tmp_path / "x.npy"),
    ):
        done = train(tmp_path, data, "--calibration", calibration)
        assert done.exit_code == 0, done.output
        found = Autoencoder.load(tmp_path / "run").run_.calibration
        np.testing.assert_allclose(found, np.c_[A, B], rtol=1e-6)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--calibration", "none.csv"], "none.csv: expected a file, but nothing is there"),
        (["--calibration", "./x.csv"], "--calibration: expected rows that are not trained on, got ./x.csv"),
        (["--calibration", "narrow.csv"], "narrow.csv: expected a column 'b', got a"),
        (["--calibration", "wide.npy"], r"--calibration: expected rows of shape (3,), got an array (600, 2)"),
        (["--calibration", "nan.npy"], "--calibration: expected finite numbers that fit float32, got nan in row 3"),
        (["--calibration", "wide.npy", "--calibration-share", "0.1"], "--calibration: expected a file or a share"),
        (
            ["--calibration-share", "0.7"],
            "--calibration-share: expected 'auto' or a share from 0 to 0.5, got 0.7",
        ),
        (["--calibration-share", "0.5", "--validation", "0.6"], "expected rows to train on beside 360 for validation"),
        (["--gap", "-1"], "--gap: expected 'auto' or a whole number of rows from 0, got -1"),
        (["--gap", "700"], "expected rows to train on beside"),
        (["--select", "anomaly = 1"], "--select: expected comparisons"),
        (["--select", "anomaly == 3"], "--select: expected rows that match anomaly == 3, but none of 600 does"),
        (["--select", "size > 3"], "expected a column 'size', got datetime, a, b, flow rate, state, anomaly"),
    ],
)
def test_one_sentence_before_anything_is_trained(tmp_path, monkeypatch, labelled, args, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("aeedge_export.fitting.train", lambda *args: pytest.fail("it was refused too late"))
    table(tmp_path / "narrow.csv", a=A)
    np.save("wide.npy", np.c_[A, B])
    np.save("nan.npy", np.where(np.arange(N)[:, None] == 3, np.nan, np.c_[A, B, C]))
    done = call("train", "x.csv", "-o", "run", "-q", *args)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options", [["--calibration", "x.csv"], ["--calibration-share", "0.2"], ["--time-ordered"], ["--gap", "2"]]
)
def test_a_run_that_is_continued_keeps_its_split(tmp_path, monkeypatch, labelled, options):
    monkeypatch.chdir(tmp_path)
    train(tmp_path, labelled)
    done = call("train", "x.csv", "-o", "run", "--resume", "--epochs", "2", *options)
    assert done.exit_code == 2
    assert f"{options[0]}: a run that is continued keeps its settings" in done.stderr


LABELS = ["anomaly", "label", "Label", "y", "target", "changepoint", "change_point", "class", "is_anomaly", "isAnomaly"]
LABELS += ["attack_type", "AttackType", "fault", "fault_code", "has_fault", "y_true", "true_label", "ground truth"]
LABELS += ["is_defective", "machine_status", "outlier_label", "failure type", "Sensor.Anomaly"]
NO_LABELS = [
    "valve",
    "status",
    "class_size",
    "failure_rate",
    "a",
    "yaw",
    "target_temperature",
    "normal_x",
    "pump state",
]


@pytest.mark.parametrize("name", LABELS + NO_LABELS)
def test_labels_among_the_inputs_are_said(tmp_path, name):
    x = table(tmp_path / "x.csv", first=A, second=B, **{name: FAULT})
    assert (name in read(x).features) == (name in NO_LABELS)
    X = np.c_[A, FAULT]
    assert bool(label_notes(["first", name], X)) == (name in LABELS)
    assert bool(label_notes(["first", name], np.c_[A, np.arange(N) % 5])) == (name in LABELS)
    assert not label_notes(["first", name], np.c_[A, B])


def test_frames_and_named_columns_with_labels_are_trained_on_with_a_note(tmp_path, labelled):
    pandas = pytest.importorskip("pandas")
    options = {"latent": 1, "hidden": (4,), "epochs": 1, "random_state": 0}
    said = r"column 'anomaly' looks like a label \(2 values\), and is trained on as an input; leave it out"
    with pytest.warns(UserWarning, match=said):
        ae = Autoencoder(**options).fit(pandas.DataFrame({"a": A, "b": B, "anomaly": FAULT}))
    assert [note for note in ae.notes_ if note.startswith("column 'anomaly' looks like a label (2 values)")]
    with pytest.warns(UserWarning, match=said):
        Autoencoder(**options).fit_rows(np.c_[A, FAULT], features=["a", "anomaly"])
    done = train(tmp_path, labelled, "--columns", "a", "--columns", "anomaly")
    assert "Note: column 'anomaly' looks like a label (2 values)" in done.stderr
    assert "inputs (2): a, anomaly" in done.stderr


@pytest.mark.parametrize("name", ["x.csv", "x.npy", "x.npz", "x.parquet"])
def test_inputs_are_printed_for_every_kind_of_file(tmp_path, name):
    np.save(tmp_path / "x.npy", np.c_[A, B])
    np.savez(tmp_path / "x.npz", np.c_[A, B])
    table(tmp_path / "x.csv", a=A, b=B)
    pa.parquet.write_table(pa.table({"a": A, "b": B}), tmp_path / "x.parquet")
    done = train(tmp_path, tmp_path / name)
    assert done.exit_code == 0, done.output
    assert "inputs (2): " in done.stderr


def test_seconds_since_the_start_are_a_time_also_where_they_step_back_or_begin_again():
    elapsed = np.arange(0.5, 300.5)
    stepped = elapsed.copy()
    stepped[150:] -= 3
    other = np.random.default_rng(0).normal(size=300)
    assert find_time({"time": elapsed.tolist()}, ".") == ("time", True)
    assert find_time({"time": stepped.tolist()}, ".") == ("time", True)
    assert find_time({"time": [*elapsed, *elapsed]}, ".", [0, 300]) == ("time", True)  # of two files
    assert find_time({"time": [*elapsed, *elapsed]}, ".") == ("time", False)  # of one file: said
    assert find_time({"time": other.tolist()}, ".") == (None, False)
    for values in (elapsed, stepped, np.concatenate([elapsed, elapsed])):
        assert why_not_by_values("time", values.astype(np.float32)) == "timestamps"
    assert why_not_by_values("time", other.astype(np.float32)) is None
    cells = [f"2026-01-01 00:00:{second:02d}" for second in range(60)]
    assert find_time({"when": [*cells[:30], "n.v.", *cells[31:]]}, ".") == ("when", True)
    assert find_time({"when": [*cells[30:], *cells[:30]]}, ".", [0, 30]) == ("when", False)  # files out of order
