"""aeedge score: what it writes in each format, which columns it keeps, and what its summary promises."""

import csv
import datetime
import decimal
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import tampering

import aeedge
from aeedge.cli.group import AeedgeGroup
from aeedge.files import delimited, jsonlines

DATA = Path(__file__).parent.parent / "data"
NAMES = [f"s{i}" for i in range(12)]
MEAN, SCALE = np.linspace(-50, 1000, 12), np.geomspace(0.01, 100, 12)


def call(*args, stdin=None):
    result = CliRunner().invoke(AeedgeGroup.build(), [str(a) for a in args], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def sensors(seed, n):
    return (np.random.default_rng(seed).normal(size=(n, 12)) * SCALE + MEAN).astype(np.float32)


@pytest.fixture
def alarming(bundle):
    """The bundle, with calibration scores of rows as `sensors` makes them; a false-alarm rate of 5 %."""
    with aeedge.load(bundle) as model:
        tampering.add_calibration(bundle, model.score(sensors(1, 199)))
    return bundle


@pytest.fixture
def given():
    """Rows with two faults, a time of each, and a text with everything that a file format may stumble over."""
    x = sensors(2, 60)
    x[7, 3] += 40 * SCALE[3]
    x[31, 9] -= 90 * SCALE[9]
    times = [f"2026-01-01 00:00:{i:02d}" for i in range(60)]
    notes = [f' #{i}, "é"\n☃ ' if i % 7 == 0 else "" if i % 7 == 1 else f"{i:03d}" for i in range(60)]
    return x, times, notes


def as_text(given):
    x, times, notes = given
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["time", *NAMES, "note", "n"])
    writer.writerows([time, *row, note, i] for i, (time, row, note) in enumerate(zip(times, x.tolist(), notes)))
    return out.getvalue()


def as_lines(given):
    x, times, notes = given
    rows = (
        {"n": i, "note": note, **dict(zip(NAMES, row)), "time": time}
        for i, (time, row, note) in enumerate(zip(times, x.tolist(), notes))
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def files(tmp_path, given):
    (tmp_path / "x.csv").write_text(as_text(given), encoding="utf-8", newline="")
    (tmp_path / "x.jsonl").write_text(as_lines(given), encoding="utf-8")
    np.save(tmp_path / "x.npy", given[0])
    return tmp_path


def of_csv(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


def of_lines(text):
    return [json.loads(line, parse_constant=pytest.fail) for line in text.split("\n")[:-1]]


@pytest.mark.parametrize("source", ["x.csv", "x.jsonl"])
def test_columns_of_csv(alarming, files, given, source):
    x, times, notes = given
    done = call(
        "score", alarming, files / source, "-o", files / "s.csv", "--keep", "note", "--keep", "time", "--keep", "n"
    )
    assert done.exit_code == 0, done.output
    assert "wrote" in done.output
    assert "60 rows, 8 columns" in done.output
    rows = of_csv((files / "s.csv").read_bytes().decode())
    assert list(rows[0]) == ["note", "time", "n", "score", "p_value", "alarm", "cause_1", "share_1"]
    assert [row["time"] for row in rows] == times
    assert [row["note"].strip() for row in rows] == [note.strip() for note in notes]
    assert [row["n"] for row in rows] == [str(i) for i in range(60)]
    with aeedge.load(alarming) as model:
        np.testing.assert_allclose([float(row["score"]) for row in rows], model.score(x), rtol=1e-5)
        np.testing.assert_allclose([float(row["p_value"]) for row in rows], model.p_value(x), rtol=1e-8)
        alarms = model.detect(x)
        assert [row["alarm"] for row in rows] == [str(int(alarm)) for alarm in alarms]
        assert alarms[[7, 31]].all()
        assert not alarms.all()
        causes = dict(zip(np.flatnonzero(alarms), model.explain(x[alarms], top=1)))
    for i, row in enumerate(rows):
        assert row["cause_1"] == (causes[i][0].name if i in causes else "")
        assert (float(row["share_1"]) if row["share_1"] else None) == (
            pytest.approx(causes[i][0].share, abs=1e-3) if i in causes else None
        )


def test_json_lines_hold_the_same_with_their_types(alarming, files, given):
    _, times, notes = given
    keep = ["--keep", "time", "--keep", "note", "--keep", "n", "--keep", "s0"]
    assert call("score", alarming, files / "x.csv", "-o", files / "c.jsonl", *keep, "--top", 2).exit_code == 0
    assert call("score", alarming, files / "x.jsonl", "-o", files / "j.ndjson", *keep, "--top", 2).exit_code == 0
    assert call("score", alarming, files / "x.jsonl", "-o", files / "s.csv", *keep, "--top", 2).exit_code == 0
    ours = of_lines((files / "j.ndjson").read_text(encoding="utf-8"))
    other = of_lines((files / "c.jsonl").read_text(encoding="utf-8"))
    assert [row["note"] for row in ours] == notes
    assert [row["time"] for row in ours] == times
    for row, same, text in zip(ours, other, of_csv((files / "s.csv").read_bytes().decode())):
        assert list(row) == list(same) == list(text)
        assert row | {"note": 0} == same | {"note": 0}
        assert row["s0"] == float(text["s0"])
        assert isinstance(row["n"], int)
        assert isinstance(row["alarm"], bool)
        assert row["alarm"] is (text["alarm"] == "1")
        assert (row["cause_2"] is None) is (row["share_2"] is None) is (not row["alarm"])
        assert row["score"] == float(text["score"])


def test_npy_has_fields_where_there_is_a_calibration(alarming, bundle, files, given):
    assert call("score", alarming, files / "x.csv", "-o", files / "s.npy").exit_code == 0
    found = np.load(files / "s.npy")
    assert found.dtype.names == ("score", "p_value", "alarm")
    with aeedge.load(alarming) as model:
        np.testing.assert_allclose(found["score"], model.score(given[0]), rtol=1e-5)
        np.testing.assert_array_equal(found["alarm"], model.detect(given[0]))
        np.testing.assert_allclose(found["p_value"], model.p_value(given[0]))
    for option in (["--keep", "time"], ["--top", 1]):
        done = call("score", alarming, files / "x.csv", "-o", files / "t.npy", *option)
        assert done.exit_code == 2
        assert "an .npy holds numbers alone" in done.output
        assert not (files / "t.npy").exists()


def test_without_a_calibration_scores_alone_or_a_threshold(bundle, files, given):
    assert call("score", bundle, files / "x.csv", "-o", files / "s.npy").exit_code == 0
    scores = np.load(files / "s.npy")
    assert (scores.dtype, scores.shape) == (np.float32, (60,))
    limit = float(np.sort(scores)[-5])
    assert call("score", bundle, files / "x.csv", "-o", files / "s.jsonl", "--threshold", repr(limit)).exit_code == 0
    rows = of_lines((files / "s.jsonl").read_text())
    assert set(rows[0]) == {"score", "alarm", "cause_1", "share_1"}
    assert [row["alarm"] for row in rows] == (scores > np.float32(limit)).tolist()
    assert sum(row["alarm"] for row in rows) == 4
    for option, message in {
        ("--false-alarm-rate", "0.1"): "needs a calibration",
        ("--top", "1"): "--top: the bundle has no calibration",
    }.items():
        done = call("score", bundle, files / "x.csv", *option)
        assert done.exit_code in (1, 2)
        assert message in done.output
        assert len(done.output.splitlines()) == 1


def test_another_rate_or_threshold(alarming, files, given):
    with aeedge.load(alarming) as model:
        for option, expected in {
            ("--false-alarm-rate", "0.2"): model.detect(given[0], false_alarm_rate=0.2),
            ("--threshold", "1.2"): model.detect(given[0], threshold=1.2),
        }.items():
            done = call("score", alarming, files / "x.npy", "-o", files / "s.npy", "-f", *option)
            assert done.exit_code == 0, done.output
            np.testing.assert_array_equal(np.load(files / "s.npy")["alarm"], expected)
            assert expected.sum() != model.detect(given[0]).sum()
    for option, message in {
        ("--false-alarm-rate", "0.001"): "--false-alarm-rate: 0.001 needs 999 calibration samples, there are 199: 800",
        ("--false-alarm-rate", "1.5"): "--false-alarm-rate: expected a number above 0 and below 1",
        ("--threshold", "nan"): "--threshold: expected a finite number",
        ("--false-alarm-rate", "0.1", "--threshold", "1"): "expected --false-alarm-rate or --threshold, got both",
    }.items():
        done = call("score", alarming, files / "x.npy", *option)
        assert done.exit_code == 2
        assert message.replace("_", "-") in done.output.replace("_", "-")


def test_parquet(alarming, files, given, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("aeedge.files.parquet._GROUP_ROWS", 16)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 200)
    x, times, _ = given
    keep = ["--keep", "time", "--keep", "n", "--keep", "s0"]
    for source in ("x.csv", "x.jsonl"):
        done = call("score", alarming, files / source, "-o", files / "s.parquet", *keep, "-f")
        assert done.exit_code == 0, done.output
        found = parquet.read_table(files / "s.parquet")
        kinds = {field.name: str(field.type) for field in found.schema}
        assert kinds == {"time": "string", "n": "int64", "s0": "double", "score": "float", "p_value": "double",
                         "alarm": "bool", "cause_1": "string", "share_1": "float"}  # fmt: skip
        assert found["time"].to_pylist() == times
        assert found["n"].to_pylist() == list(range(60))
        with aeedge.load(alarming) as model:
            np.testing.assert_array_equal(found["alarm"].to_pylist(), model.detect(x))
    assert parquet.ParquetFile(files / "s.parquet").num_row_groups > 1 or source == "x.jsonl"
    again = call("score", alarming, files / "s.parquet", "-o", files / "t.csv")
    assert "expected a column 's1'" in again.output


@pytest.mark.parametrize("what", ["encode", "denoise"])
def test_parquet_of_results_reads_back(bundle, files, model, given, what):
    pytest.importorskip("pyarrow")
    assert call(what, bundle, files / "x.npy", "-o", files / "z.parquet").exit_code == 0
    back = "decode" if what == "encode" else "encode"
    assert call(back, bundle, files / "z.parquet", "-o", files / "y.npy").exit_code == 0
    expected = getattr(model, back)(getattr(model, what)(given[0]))
    np.testing.assert_allclose(np.load(files / "y.npy"), expected, rtol=1e-4, atol=1e-4)


def test_parquet_without_pyarrow_is_one_sentence(bundle, files, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = call("encode", bundle, files / "x.csv", "-o", files / "z.parquet")
    assert done.exit_code == 2
    assert "pip install 'aeedge[arrow]'" in done.output
    assert not (files / "z.parquet").exists()


def test_a_kept_column_that_changes_its_kind_is_refused_by_parquet_alone(alarming, files, given, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(jsonlines, "BLOCK_BYTES", 2000)
    rows = of_lines(as_lines(given))
    rows[50]["n"] = "fifty"
    (files / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = call("score", alarming, files / "x.jsonl", "-o", files / "s.parquet", "--keep", "n")
    assert done.exit_code == 2
    assert "column 'n': expected int64 in all rows, as Parquet needs it" in done.output
    assert not (files / "s.parquet").exists()
    assert call("score", alarming, files / "x.jsonl", "-o", files / "s.csv", "--keep", "n").exit_code == 0
    assert of_csv((files / "s.csv").read_text())[50]["n"] == "fifty"


@pytest.fixture
def gaps(alarming, files, given):
    """Rows with missing values, which the bundle drops; and which rows are left."""
    x = given[0].copy()
    x[[0, 5, 33], 4] = np.nan
    x[7, 2] = -999.0
    tampering.reseal(
        alarming, lambda d: d["input"].update(missing={"policy": "drop", "codes": {"s2": [-999.0]}, "fill": None})
    )
    changed = x, *given[1:]
    text = as_text(changed).replace("nan", "")
    (files / "x.csv").write_text(text, encoding="utf-8", newline="")
    (files / "x.jsonl").write_text(as_lines(changed).replace("NaN", "null"), encoding="utf-8")
    return [i for i in range(60) if i not in (0, 5, 7, 33)]


@pytest.mark.parametrize("source", ["x.csv", "x.jsonl"])
def test_what_is_kept_stays_with_its_row_where_rows_are_left_out(alarming, files, given, gaps, source, monkeypatch):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 500)
    monkeypatch.setattr(jsonlines, "BLOCK_BYTES", 500)
    done = call("score", alarming, files / source, files / source, "-o", files / "s.csv", "--keep", "n", "--keep", "s0")
    assert done.exit_code == 0, done.output
    assert "8 rows with missing values were left out" in done.output
    rows = of_csv((files / "s.csv").read_text())
    assert [int(row["n"]) for row in rows] == gaps * 2
    with aeedge.load(alarming) as model:
        np.testing.assert_allclose(
            [float(row["score"]) for row in rows][: len(gaps)], model.score(given[0][gaps]), rtol=1e-5
        )
    table = call("score", alarming, files / source, "--summary", "--keep", "n").output
    worst = table[table.index("worst") :].splitlines()[3]
    assert worst.split()[:2] == ["31", "31"]


def test_rows_that_cannot_be_scored_are_alarms_with_a_cause(alarming, files, given, gaps):
    done = call("score", alarming, files / "x.jsonl", "-o", files / "s.jsonl", "--invalid", "propagate", "--keep", "n")
    assert done.exit_code == 0, done.output
    rows = of_lines((files / "s.jsonl").read_text())
    assert [row["n"] for row in rows] == list(range(60))
    for i in (0, 5, 33):
        assert (rows[i]["score"], rows[i]["p_value"], rows[i]["alarm"], rows[i]["cause_1"]) == (None, None, True, "s4")
    assert rows[7]["cause_1"] == "s2"
    done = call("score", alarming, files / "x.jsonl", "--invalid", "propagate", "--summary")
    assert "not scored  4, " in done.output


def test_a_column_that_cannot_be_kept_is_one_sentence(alarming, files, given):
    np.savetxt(files / "bare.csv", given[0], delimiter=",")
    (files / "arrays.jsonl").write_text("".join(f"{row}\n" for row in given[0].tolist()))
    for source, message in {
        "x.csv": "expected a column 'tim' to keep, got time, s0, s1",
        "x.jsonl": "expected a column 'tim' to keep, got n, note, s0",
        "bare.csv": "expected a column 'tim' to keep, got columns without names",
        "arrays.jsonl": "expected a column 'tim' to keep, got columns without names",
        "x.npy": "expected a table with a column 'tim', got an array",
    }.items():
        done = call("score", alarming, files / source, "-o", "-", "--keep", "tim")
        assert done.exit_code == 2
        assert message in done.output
    (files / "x.csv").write_text(as_text(given).replace("note", "alarm", 1), encoding="utf-8", newline="")
    done = call("score", alarming, files / "x.csv", "-o", "-", "--keep", "alarm")
    assert "--keep: a column of the result is called 'alarm', too" in done.output


@pytest.mark.parametrize("what", ["encode", "denoise", "score"])
@pytest.mark.parametrize("form", ["csv", "jsonl", "npy"])
@pytest.mark.parametrize("out", ["csv", "jsonl"])
def test_from_standard_input_to_standard_output(bundle, files, model, given, what, form, out):
    done = call(what, bundle, "-", "-o", "-", "--format", out, stdin=(files / f"x.{form}").read_bytes())
    assert done.exit_code == 0, done.output
    rows = of_csv(done.stdout) if out == "csv" else of_lines(done.stdout)
    found = np.float32([[float(value) for value in row.values()] for row in rows])
    np.testing.assert_allclose(found, getattr(model, what)(given[0]).reshape(60, -1), rtol=1e-5, atol=1e-4)
    said = {"csv": "read as CSV: comma, header", "jsonl": "read as JSON lines, objects"}.get(form, "")
    assert said in done.stderr


def test_latents_through_two_pipes(bundle, files, model, given):
    for form in ("csv", "jsonl"):
        latents = call("encode", bundle, files / "x.npy", "-o", "-", "--format", form).stdout
        rows = call("decode", bundle, "-", "-o", "-", "--format", form, stdin=latents.encode()).stdout
        scores = call("score", bundle, "-", "-o", files / "s.npy", "-f", stdin=rows.encode())
        assert scores.exit_code == 0, scores.output
        np.testing.assert_allclose(np.load(files / "s.npy"), model.score(model.denoise(given[0])), rtol=1e-3, atol=1e-4)


def test_the_format_is_by_name_or_as_asked(bundle, files):
    assert call("encode", bundle, files / "x.npy", "-o", files / "z", "--format", "jsonl").exit_code == 0
    assert (files / "z").read_text().startswith('{"latent_0": ')
    for output, options, message in (
        ("z.txt", [], "expected an output name that ends in .npy, .csv, .parquet"),
        ("z.csv", ["--format", "jsonl"], "expected csv by its name, got --format jsonl"),
    ):
        done = call("encode", bundle, files / "x.npy", "-o", files / output, *options)
        assert done.exit_code == 2
        assert message in done.output
        assert not (files / output).exists()


def test_the_table_shows_p_values_and_alarms(alarming, files, given):
    done = call("score", alarming, files / "x.csv", "--keep", "time")
    assert done.exit_code == 0
    head, _, first, *_, last = done.stdout.splitlines()
    assert head.split() == ["row", "(from", "0)", "time", "score", "p-value", "alarm", "cause"]
    assert first.split()[:3] == ["31", "2026-01-01", "00:00:31"]
    assert first.split()[-3] == "yes"
    assert first.split()[-2] == "s9"
    with aeedge.load(alarming) as model:
        assert f"{model.detect(given[0]).sum()} alarms; all of them" in last
    few = call("score", alarming, "-", "--top", 0, stdin=as_text([part[:3] for part in given]))
    assert [line.split()[0] for line in few.stdout.splitlines()[2:]] == ["0", "1", "2"]
    assert "cause" not in few.stdout


def summarised(alarming, x):
    out = io.BytesIO()
    np.save(out, x)
    done = call("score", alarming, "-", "--summary", stdin=out.getvalue())
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.split())


def test_the_summary_compares_with_what_was_promised(alarming):
    """At 5 % from 199 rows, in 1 000 rows: the 99 % band is that of a beta-binomial of k = 10, simulated here."""
    rng = np.random.default_rng(0)
    simulated = np.sort(rng.binomial(1000, rng.beta(10, 190, 200_000)))
    low, high = simulated[[1000, -1001]]
    found = summarised(alarming, sensors(3, 1000))
    assert "promised 5 % of normal rows:" in found
    shown = found.split("of normal rows: ")[1].split()
    assert abs(int(shown[0]) - low) <= 1
    assert abs(int(shown[2]) - high) <= 2
    assert "as promised" in found
    drifted = sensors(4, 1000)
    drifted[:, 5] += 3 * SCALE[5]
    assert "more than promised: drift, or anomalies" in summarised(alarming, drifted)
    assert "fewer than promised" in summarised(alarming, np.repeat(MEAN[np.newaxis], 1000, axis=0).astype(np.float32))


def test_the_summary_lists_first_and_worst_alarms(alarming, files, given):
    for output in ([], ["-o", files / "s.csv"], ["-o", "-"]):
        done = call("score", alarming, files / "x.csv", "--summary", "--keep", "time", *output)
        said = done.stderr if "-" in output else done.stdout
        with aeedge.load(alarming) as model:
            count = int(model.detect(given[0]).sum())
            worst = np.argsort(-model.score(given[0]))[:2]
        assert f"alarms    {count} (" in said
        first, last = said.split("first alarms (rows are counted from 0)\n")[1].split("\n\nworst alarms ")
        last = last.split("\n", 1)[1]  # without the rest of the title
        assert [line.split()[0] for line in last.splitlines()[2:4]] == [str(i) for i in worst] == ["31", "7"]
        assert max(map(len, said.partition("rows   ")[2].splitlines())) <= 80
        assert "alarm" not in first  # each is one
        numbers = [int(line.split()[0]) for line in first.splitlines()[2:]]
        assert numbers == sorted(numbers)
        assert len(numbers) == min(count, 5)
        assert "s9 " in last.splitlines()[2]
        assert "2026-01-01 00:00:31" in last.splitlines()[2]


def test_the_summary_without_a_calibration_says_how_to_get_one(bundle, files):
    done = call("score", bundle, files / "x.csv", "--summary")
    assert done.exit_code == 0
    assert "none, for the bundle has no calibration" in done.stdout


def test_nothing_is_left_where_scoring_stops(alarming, files, given, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 500)
    monkeypatch.setattr("aeedge.files.parquet._GROUP_ROWS", 8)
    (files / "x.csv").write_text(as_text(given).replace("2026-01-01 00:00:55,", "2026-01-01 00:00:55,x", 1))
    before = sorted(files.iterdir())
    for name in ("s.csv", "s.jsonl", "s.npy", "s.parquet"):
        done = call("score", alarming, files / "x.csv", "-o", files / name)
        assert done.exit_code == 2
        assert "expected a number, got 'x" in done.output
    assert sorted(files.iterdir()) == before


def test_kept_columns_of_parquet_keep_their_types(alarming, files, given):
    pyarrow = pytest.importorskip("pyarrow")
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    seconds = [start + datetime.timedelta(seconds=i) for i in range(60)]
    kept = {
        "time": pyarrow.array(seconds),
        "exact": pyarrow.array([1_700_000_000_000_000_001] * 60).cast(pyarrow.timestamp("ns")),
        "price": pyarrow.array([decimal.Decimal("1.50")] * 60),
        "on": [True, None] * 30,
        "kind": pyarrow.array(["x", "y"] * 30).dictionary_encode(),
        "list": [[1.0, 2.0]] * 60,
        "nothing": pyarrow.nulls(60),
        "gap": [float("nan")] * 60,
    }
    columns = {name: given[0][:, i] for i, name in enumerate(NAMES)}
    pyarrow.parquet.write_table(pyarrow.table(columns | kept), files / "x.parquet")
    options = [
        part
        for name in ("time", "exact", "price", "on", "kind", "list[1]", "nothing", "gap")
        for part in ("--keep", name)
    ]
    for output in ("s.csv", "s.jsonl", "s.parquet"):
        done = call("score", alarming, files / "x.parquet", "-o", files / output, *options)
        assert done.exit_code == 0, done.output
    first = of_csv((files / "s.csv").read_text())[1]
    exact = first.pop("exact").replace("T", " ")
    assert exact.startswith("2023-11-14 22:13:20.000000001")
    expected = ["2026-01-01T00:00:01+00:00", "1.50", "", "y", "2.0", "", "nan"]
    assert list(first.values())[:7] == expected
    row = of_lines((files / "s.jsonl").read_text())[0]
    assert (row["price"], row["on"], row["list[1]"], row["nothing"], row["gap"]) == (1.5, True, 2.0, None, None)
    found = pyarrow.parquet.read_table(files / "s.parquet")
    assert found["time"].to_pylist() == seconds
    assert found["price"].to_pylist() == [decimal.Decimal("1.50")] * 60
    assert found["kind"].to_pylist() == ["x", "y"] * 30
    assert found["nothing"].null_count == 60


def test_drift_that_was_found_at_export_is_said_again(alarming, files):
    drift = {"rows": 100, "alarms": 55, "low": 1, "high": 12, "drift": True}
    tampering.reseal(alarming, lambda d: d["calibration"].update(drift=drift))
    said = " ".join(call("score", alarming, files / "x.npy", "--summary").output.split())
    assert "55 of 100 rows that came later raised an alarm" in said
    other = call("score", alarming, files / "x.npy", "--summary", "--false-alarm-rate", 0.2).output
    assert "came later" not in other


BUNDLES = sorted(path.name for path in DATA.glob("bundle_v*") if path.name != "bundle_v1_encoder")


@pytest.mark.parametrize("name", BUNDLES)
def test_every_kind_of_bundle(tmp_path, name):
    with aeedge.load(DATA / name) as model:
        x = model.golden_rows()
        np.save(tmp_path / "x.npy", x)
        scores = model.score(x, invalid="propagate")
        limit = repr(float(np.median(scores[np.isfinite(scores)])))
        alarms = model.detect(x, threshold=float(limit), invalid="propagate")
        calibrated = model.calibration_size > 0
        explained = model.has_decoder
    options = ["--threshold", limit, "--invalid", "propagate"]
    done = call("score", DATA / name, tmp_path / "x.npy", "-o", tmp_path / "s.jsonl", "--summary", *options)
    assert done.exit_code == 0, done.output
    rows = of_lines((tmp_path / "s.jsonl").read_text())
    assert [row["alarm"] for row in rows] == alarms.tolist()
    assert ("p_value" in rows[0]) is calibrated
    assert ("cause_1" in rows[0]) is explained
    assert 0 < alarms.sum() < len(alarms)
    assert "first alarms" in done.output
    assert call("score", DATA / name, tmp_path / "x.npy", *options).exit_code == 0
