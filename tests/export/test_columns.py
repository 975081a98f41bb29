"""Columns that are no features are left out, and named; those that are stay. Labels and weights of any kind."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from aeedge.cli.group import AeedgeGroup
from aeedge.errors import InputError
from aeedge_export.autoencoder import Autoencoder
from aeedge_export.data.files import read
from aeedge_export.data.labels import as_classes

N = 60
RNG = np.random.default_rng(5)
A, B = RNG.normal(size=(2, N)).round(4)


def table(path, **columns):
    names = list(columns)
    rows = zip(*columns.values())
    path.write_text("\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


@pytest.mark.parametrize(
    ("name", "cells", "why"),
    [
        ("", range(N), "no name"),
        ("Unnamed: 0", RNG.permutation(N), "an index"),
        ("__index_level_0__", range(N), "an index"),
        ("n", range(100, 100 + N), "counts up"),
        ("machine_id", RNG.permutation(10_000)[:N], "an identifier"),
        ("sensorId", RNG.permutation(10_000)[:N], "an identifier"),
        ("time", [f"2026-01-01 00:{i:02}:00" for i in range(N)], "timestamps"),
        ("date", [f"{1 + i % 28:02}.01.2026" for i in range(N)], "timestamps"),
        ("ts", 1.7e9 + np.sort(RNG.random(N)) * 1e4, "timestamps"),
        ("timestamp", RNG.permutation(1_700_000_000 + 7 * np.arange(N)), "timestamps"),
        ("label", RNG.integers(0, 2, N), "looks like a label: 2 classes"),
        ("is_anomaly", RNG.integers(0, 2, N), "looks like a label"),
        ("site", RNG.choice(["a", "b"], N), "text such as"),
        ("comment", [""] * N, "no values"),
    ],
)
def test_columns_that_are_no_features(tmp_path, name, cells, why):
    data = read(table(tmp_path / "x.csv", **{"a": A, name: list(cells), "b": B}))
    assert data.features == ("a", "b")
    np.testing.assert_array_equal(data.X, np.c_[A, B].astype(np.float32))
    (said,) = (note for note in data.notes if note.startswith("left out"))
    assert why in said
    if why.startswith(("counts", "an id", "looks")):
        kept = read(tmp_path / "x.csv", columns=["a", name])
        assert kept.features == ("a", name)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("temperature", np.cumsum(RNG.random(N) + 0.01).round(3)),
        ("rpm", RNG.integers(0, 3000, N)),
        ("valve", RNG.integers(0, 2, N)),
        ("humid", RNG.permutation(N)),
        ("uptime_share", RNG.random(N).round(3)),
        ("class_size", RNG.normal(size=N).round(3)),
        ("status", RNG.integers(0, 3, N)),
    ],
)
def test_columns_that_stay(tmp_path, name, cells):
    data = read(table(tmp_path / "x.csv", a=A, **{name: list(cells)}))
    assert data.features == ("a", name)
    rises = any("only rises" in note for note in data.notes)
    assert rises == (name == "temperature")


def test_a_table_of_nothing_else_is_kept(tmp_path):
    assert read(table(tmp_path / "x.csv", n=range(N))).features == ("n",)
    with pytest.raises(InputError, match=r"no column is left of site \('site': text such as 'x'\)"):
        read(table(tmp_path / "y.csv", site=["x"] * N))


def test_the_index_of_a_parquet_file(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": A, "b": B}).sample(40, random_state=0)
    frame.to_parquet(tmp_path / "x.parquet")
    data = read(tmp_path / "x.parquet")
    assert data.features == ("a", "b")
    np.testing.assert_array_equal(data.X, frame.to_numpy(np.float32))
    frame.set_index(pandas.Index(np.linspace(0, 1, 40), name="position")).to_parquet(tmp_path / "named.parquet")
    assert read(tmp_path / "named.parquet").features == ("a", "b")
    assert read(tmp_path / "named.parquet", columns=["position", "a"]).features == ("position", "a")


def test_two_parquet_columns_of_one_name(tmp_path):
    column = pa.array([1.0, 2.0])
    pa.parquet.write_table(pa.Table.from_arrays([column, column], names=["a", "a"]), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="expected each column name once, got 'a' twice"):
        read(tmp_path / "x.parquet")


def test_classes_of_any_kind():
    assert as_classes([1, 2, 1], 3).tolist() == [1, 2, 1]
    assert as_classes(np.array([1.0, 2.0, 1.0]), 3).tolist() == [1, 2, 1]
    assert as_classes(np.array([0.5, 1.5]), 2).tolist() == ["0.5", "1.5"]
    assert as_classes(["ok", "", None, "NA"], 4).tolist() == ["ok", "", "", ""]
    assert as_classes(np.array([b"x", b"y"]), 2).tolist() == ["x", "y"]
    assert as_classes(np.array(["2026-01-01", "2026-01-02"], "datetime64[D]"), 2).tolist() == [
        "2026-01-01",
        "2026-01-02",
    ]
    with pytest.raises(InputError, match="expected one label for each of the 3 rows"):
        as_classes([1, 2], 3)


def call(*args):
    return CliRunner().invoke(AeedgeGroup.build(), [str(arg) for arg in args])


TRAIN = ("-o", "run", "-q", "--epochs", 1, "--latent", 1, "--threads", 1)


@pytest.mark.parametrize(
    "labels",
    [
        [["ok", "bad", ""][i % 3] for i in range(N)],
        [[0.5, 1.5][i % 2] for i in range(N)],
        [f"2026-01-{1 + i % 28:02}" for i in range(N)],
        [""] * N,
        ["one"] * N,
    ],
)
def test_labels_of_any_kind_end_in_a_run(tmp_path, monkeypatch, labels):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "x.csv", a=A, b=B, c=A - B, kind=labels)
    done = call("train", "x.csv", "--labels", "kind", *TRAIN)
    assert done.exit_code == 0, done.output
    assert Autoencoder.load("run").run_.labels is not None
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_run_is_saved_before_it_is_evaluated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "x.csv", a=A, b=B)

    def fail(*args):
        raise RuntimeError("evaluation")

    monkeypatch.setattr(Autoencoder, "evaluate", fail)
    assert isinstance(call("train", "x.csv", *TRAIN).exception, RuntimeError)
    assert Autoencoder.load("run").history_


def test_weights_of_a_column(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "x.csv", a=A, b=B, w=np.arange(N) % 3)
    done = call("train", "x.csv", "--weights", "w", *TRAIN)
    assert done.exit_code == 0, done.output
    assert "left out: w (weights)" in done.stderr
    assert Autoencoder.load("run").run_.sample_weight.tolist() == (np.arange(N) % 3).tolist()
    table(tmp_path / "y.csv", a=A, b=B, w=["x"] * N)
    assert "expected a weight in each row" in call("train", "y.csv", "--weights", "w", *TRAIN, "-f").stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["x.csv", "--columns", "a", "--columns", "a"], "expected each name once, got 'a' twice"),
        (["x.csv", "--drop", "nope"], "expected a column 'nope', got a, b"),
        (["x.csv", "--array", "nope"], "an array can be named in an .npz only"),
        (["x.npy", "--columns", "a"], "columns can be chosen by name in tables only"),
        (["x.npy", "--header"], "only text files have a header"),
        (["x.npy", "--missing", "median", "--skip-bad"], "only images can be resized or skipped"),
        (["x.csv", "x.npy"], "expected files of one kind, got npy, text"),
        (["one.csv"], "expected two or more rows"),
        (["str.npy"], "expected numbers, got dtype <U"),
        (["complex.npy"], "expected numbers, got dtype complex128"),
        (["objects.npz"], "got Python objects; save it as a numeric array"),
        (["x.npy", "--labels", "objects.npy"], "got Python objects; save them as a plain array"),
        (["objects.npy"], "got Python objects; save it as a numeric array"),
        (["nan.npy"], "row 3 (counted from 0), column 1"),
        (["x.csv", "--seed", "-1"], "--seed: expected a whole number from 0"),
        (["x.csv", "-o", "missing/run"], "expected the folder missing to exist"),
    ],
)
def test_one_sentence_before_anything_is_trained(tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "x.csv", a=A, b=B)
    (tmp_path / "one.csv").write_text("a,b\n1,2\n")
    X = np.c_[A, B, A + B]
    half = X.astype(np.float16)
    half[3, 1] = np.nan
    for name, array in {"x": X, "str": X.astype(str), "complex": X.astype(complex), "nan": half}.items():
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "objects.npy", X.astype(object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", X=X.astype(object))
    done = call("train", *TRAIN, *args)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--columns", "speed, flow"], "'speed, flow' is 2 names: repeat the option for each"),
        (["--drop", "speed,flow"], "'speed,flow' is 2 names: repeat the option for each"),
        (["--columns", "sped"], "expected a column 'sped', got speed, flow, a,b; did you mean 'speed'?"),
        (["--drop", "FLOW"], "did you mean 'flow'?"),
        (["--labels", "flo"], "did you mean 'flow'?"),
        (["--columns", "a, b"], "did you mean 'a,b'?"),
    ],
)
def test_a_column_that_is_not_there_is_told_from_several_and_from_a_mistyped_one(tmp_path, options, said):
    file = table(tmp_path / "x.csv", speed=A, flow=B, **{'"a,b"': A + B})
    result = CliRunner().invoke(AeedgeGroup.build(), ["train", str(file), "-o", str(tmp_path / "run"), *options])
    assert result.exit_code == 2
    assert said in result.output


def test_the_name_of_a_column_may_have_a_comma(tmp_path):
    file = table(tmp_path / "x.csv", speed=A, flow=B, **{'"a,b"': A + B})
    options = ["--columns", "a,b", "--columns", "flow", "--epochs", "1"]
    result = CliRunner().invoke(AeedgeGroup.build(), ["train", str(file), "-o", str(tmp_path / "run"), *options])
    assert result.exit_code == 0
    assert "inputs (2): a,b, flow" in result.output


@pytest.mark.parametrize(
    ("value", "advice"),
    [(np.nan, "--missing drop), or fill them (--missing median)"), (np.inf, "drop such rows first")],
)
def test_a_value_of_an_array_that_is_not_finite_is_placed_and_it_is_said_what_to_do(tmp_path, value, advice):
    X = np.column_stack([A, B])
    X[7, 1] = value
    np.save(tmp_path / "x.npy", X)
    arguments = ["train", str(tmp_path / "x.npy"), "-o", str(tmp_path / "run")]
    result = CliRunner().invoke(AeedgeGroup.build(), arguments)
    assert result.exit_code == 2
    assert f"x.npy: expected finite numbers that fit float32, got {value} in row 7 (counted from 0)" in result.output
    assert advice in result.output
