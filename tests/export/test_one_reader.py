"""Training and device read the same rows from a file, or both refuse it."""

import csv
import gzip
import io
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from helpers import damage
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aeedge.cli.group import AeedgeGroup
from aeedge.errors import InputError, printable
from aeedge.files.rows import Wanted, open_all
from aeedge_export import Autoencoder
from aeedge_export.data.files import read
from aeedge_export.data.missing import treat_missing

RNG = np.random.default_rng(11)
X = np.round(RNG.normal(size=(40, 4)) @ RNG.normal(size=(4, 4)) * [1, 10, 100, 0.1] + [0, 5, 50, 1], 4)
NAMES = ("temp", "press", "flow rate", "µ")


def text(
    delimiter=",", decimal=".", names=NAMES, extra=(), quoting=csv.QUOTE_MINIMAL, quotechar='"', end="\n", above=""
):
    """The table in a dialect; `extra` are (position, name, cell of row i) of columns that are no features."""
    head, rows = list(names), [[repr(v).replace(".", decimal) for v in row] for row in X.tolist()]
    for place, name, cell in extra:
        head.insert(place, name)
        for i, row in enumerate(rows):
            row.insert(place, cell(i))
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, quoting=quoting, quotechar=quotechar, lineterminator=end)
    writer.writerows(([head] if names else []) + rows)
    return above + stream.getvalue()


STAMP = (0, "time", lambda i: f"2026-03-01 00:{i:02}:00")
SITE = (2, "site", lambda i: ["Smith, John", 'say "hi"', "two\nlines", ""][i % 4])
INDEX = (0, "", str)
STATE = (3, "state", lambda i: ["ok", "bad"][i % 2])
SPLIT = tuple(name.replace(" ", "_") for name in NAMES)

DIALECTS = {
    "comma": text(),
    "semicolon": text(";"),
    "tab": text("\t"),
    "bar": text("|"),
    "blanks": text(" ", names=SPLIT),
    "aligned": "\n".join("   ".join(line.split()) for line in text(" ", names=SPLIT).splitlines()) + "\n",
    "decimal comma": text(";", ","),
    "decimal comma, tab": text("\t", ","),
    "decimal comma, quoted": text(",", ","),
    "decimal comma, bar": text("|", ","),
    "all quoted": text(quoting=csv.QUOTE_ALL),
    "single quotes": text(quoting=csv.QUOTE_ALL, quotechar="'"),
    "windows": text(end="\r\n"),
    "old mac": text(end="\r"),
    "byte order mark": "\ufeff" + text(),
    "blank first line": "\n" + text(),
    "blank lines": text().replace("\n", "\n\n"),
    "comments above": text(above="# from the lab\n# 2026-03-01\n"),
    "names in a comment": "# " + text(names=SPLIT),
    "sep=": "sep=;\n" + text(";"),
    "units": text().replace("\n", "\n°C,hPa,l/min,\n", 1),
    "time": text(extra=[STAMP]),
    "text with delimiters and lines": text(extra=[SITE]),
    "index": text(extra=[INDEX]),
    "index, time, state": text(";", ",", extra=[INDEX, (1, *STAMP[1:]), STATE]),
    "trailing delimiter": text().replace("\n", ",\n"),
    "trailing delimiter of the rows": ",\n".join(text().splitlines()).replace(",\n", "\n", 1) + ",\n",
    "numbers as names": text(names=("400", "440", "480", "520")),
    "no header": text(names=()),
    "no header, text": text(names=(), extra=[(1, "", lambda i: ["tcp", "udp"][i % 2]), (5, "", lambda i: "normal.")]),
    "row names of R": '"a" "b" "c" "d"\n'
    + "".join(f'"r{i}" {line}\n' for i, line in enumerate(text(" ", names=()).splitlines())),
    "truth values": text(extra=[(4, "open", lambda i: str(i % 3 == 0))]),
}


def through_device(model_input, path, **options):
    wanted = Wanted(model_input.features, model_input.shape, model_input.dtype, model_input.dialect)
    return np.concatenate(list(open_all([path], wanted, **options).blocks())).astype(np.float32)


def fitted(data, missing=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Autoencoder(family="pca", latent=1, validation=0).fit_rows(
            data.X, features=data.features, units=data.units, missing=missing, dialect=data.dialect
        )


@pytest.mark.parametrize("kind", DIALECTS)
def test_the_same_rows_in_every_dialect(tmp_path, kind):
    path = tmp_path / "x.csv"
    path.write_bytes(DIALECTS[kind].encode())
    data = read(path)
    expected = np.c_[X, np.arange(40) % 3 == 0] if kind == "truth values" else X
    np.testing.assert_array_equal(data.X, expected.astype(np.float32))
    spec = fitted(data).run_.input_spec
    np.testing.assert_array_equal(through_device(spec, path), data.X)
    assert spec.units == (("°C", "hPa", "l/min", "") if kind == "units" else None)


@pytest.mark.parametrize(
    "kind", ["decimal comma", "index, time, state", "no header, text", "numbers as names", "comma"]
)
def test_train_and_encode_from_file_to_file(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text(DIALECTS[kind])
    run = CliRunner()
    for line in (
        "train x.csv -o run -q --epochs 2 --latent 2 --threads 1",
        "export run -o m.aeedge",
        "encode m.aeedge x.csv -o z.npy",
        "score m.aeedge x.csv",
    ):
        done = run.invoke(AeedgeGroup.build(), line.split())
        assert done.exit_code == 0, done.output
    assert "row (from 0)" in done.stdout
    assert "the 20 highest of 40 scores" in done.stdout
    ae = Autoencoder.load("run")
    np.testing.assert_allclose(np.load("z.npy"), ae.run_.encode(X.astype(np.float32)), rtol=1e-4, atol=1e-4)


def test_train_names_what_it_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text(DIALECTS["index, time, state"])
    done = CliRunner().invoke(
        AeedgeGroup.build(), ["train", "x.csv", "-o", "run", "-q", "--epochs", "1", "--latent", "2"]
    )
    assert "Read: x.csv: 40 rows; semicolon, decimal comma, header" in done.stderr
    assert "Read: inputs (4): temp, press, flow rate, µ" in done.stderr
    assert "time (timestamps)" in done.stderr
    assert "state (text such as 'ok')" in done.stderr
    assert "scaling standard" in done.stdout


def test_pipes_in_and_out_of_the_command(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(DIALECTS["decimal comma"])
    ae = fitted(read(path))
    ae.export(tmp_path / "m.aeedge")
    zipped = tmp_path / "x.csv.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    aeedge_ = f"{sys.executable} -m aeedge"
    outputs = [
        subprocess.run(["bash", "-c", line], capture_output=True, cwd=tmp_path, check=True).stdout
        for line in (
            f"{aeedge_} encode m.aeedge x.csv -o -",
            f"cat x.csv | {aeedge_} encode m.aeedge - -o -",
            f"cat x.csv | {aeedge_} encode m.aeedge /dev/stdin -o /dev/stdout",
            f"{aeedge_} encode m.aeedge <(cat x.csv) -o >(cat)",
            f"{aeedge_} encode m.aeedge x.csv.gz -o -",
        )
    ]
    latents = np.loadtxt(io.BytesIO(outputs[0]), delimiter=",", skiprows=1)
    np.testing.assert_allclose(latents, ae.run_.encode(X.astype(np.float32))[:, 0], rtol=1e-4, atol=1e-4)
    assert len(set(outputs)) == 1


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


JSON = {
    "objects": lines(dict(zip(NAMES, row)) for row in X.tolist()),
    "objects in other orders": lines(
        dict((list(zip(NAMES, row)) * 2)[i % 4 : i % 4 + 4]) for i, row in enumerate(X.tolist())
    ),
    "arrays": lines(X.tolist()),
    "arrays with a count": lines([i, *row] for i, row in enumerate(X.tolist())),
    "objects with more": lines(
        {
            "time": f"2026-03-01 00:{i:02}:00",
            "n": i,
            **dict(zip(NAMES, row)),
            "state": "ok",
            "tags": [1],
            "by": {"id": i},
        }
        for i, row in enumerate(X.tolist())
    ),
}


@pytest.mark.parametrize("kind", JSON)
def test_json_lines_are_trained_on_and_encoded_as_csv_is(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    Path("x.jsonl").write_text(JSON[kind], encoding="utf-8")
    Path("x.csv").write_text(text(names=() if "arrays" in kind else NAMES), encoding="utf-8")
    found, expected = read("x.jsonl"), read("x.csv")
    order = [0, 1, 2, 3] if "arrays" in kind else [found.features.index(name) for name in NAMES]
    np.testing.assert_array_equal(found.X[:, order], expected.X)
    ae = fitted(found)
    ae.export("m.aeedge")
    latents = ae.run_.encode(found.X)
    for name in ("x.jsonl", "x.csv") if kind != "objects with more" else ("x.jsonl",):
        if name == "x.csv" and kind == "arrays with a count":
            continue
        for arguments in ([name], ["-"]):
            done = CliRunner().invoke(
                AeedgeGroup.build(),
                ["encode", "m.aeedge", *arguments, "-o", "z.npy", "-f"],
                input=Path(name).read_bytes(),
            )
            assert done.exit_code == 0, done.output
            np.testing.assert_allclose(np.load("z.npy"), latents, rtol=1e-4, atol=1e-4)


def test_what_training_says_of_json_lines(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(JSON["objects with more"], encoding="utf-8")
    notes = "; ".join(read(path, labels="state").notes)
    assert "40 rows; JSON lines, objects" in notes
    assert "state (labels), time (timestamps), tags (arrays or objects), by (arrays or objects), n (counts up)" in notes
    assert set(read(path, labels="state").labels) == {"ok"}
    rows = JSON["objects"].splitlines()
    for pattern, instead, message in (
        (r'"temp": [^,]+', '"temp": true', r"line 3, key 'temp': expected a number, got true; .*--drop temp"),
        (r'"temp": [^,]+, ', "", r"line 3, key 'temp': .*the key is not there; leave such rows out \(--missing"),
    ):
        path.write_text("\n".join([*rows[:2], re.sub(pattern, instead, rows[2]), *rows[3:]]), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            read(path)
    path.write_text('{"a": 1}\n')
    other = tmp_path / "x.csv"
    other.write_text("a\n1\n")
    with pytest.raises(InputError, match="expected files of one kind, got jsonl, text"):
        read(path, other)


@pytest.mark.parametrize("policy", ["drop", "median"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_missing_values_are_treated_alike(tmp_path, monkeypatch, policy, kind):
    rows = [list(map(str, row)) for row in X.tolist()]
    rows[3][1], rows[7][2], rows[7][3] = "", "NA", "nan"
    if kind == "csv":
        path = tmp_path / "x.csv"
        path.write_text("\n".join(map(",".join, [list(SPLIT), *rows])) + "\n")
    elif kind == "jsonl":
        path = tmp_path / "x.jsonl"
        missing_as = {"": None, "NA": ..., "nan": np.nan}  # null, no key, NaN
        cells = [
            {name: missing_as.get(v) if v in missing_as else float(v) for name, v in zip(SPLIT, row)} for row in rows
        ]
        path.write_text("\n".join(json.dumps({k: v for k, v in row.items() if v is not ...}) for row in cells))
    else:
        path = tmp_path / "x.parquet"
        cells = [[None if v in ("", "NA", "nan") else float(v) for v in column] for column in zip(*rows)]
        pa.parquet.write_table(pa.table(dict(zip(SPLIT, cells))), path)
    with pytest.raises(InputError, match=r"expected a number, got (nothing|null)"):
        read(path)
    data, missing = treat_missing(read(path, missing=True), policy)
    gone = np.zeros(X.shape, bool)
    gone[[3, 7, 7], [1, 2, 3]] = True
    known = np.where(gone, np.nan, X).astype(np.float32)
    expected = known[~gone.any(axis=1)] if policy == "drop" else np.where(gone, np.nanmedian(known, axis=0), known)
    np.testing.assert_array_equal(data.X, expected)
    ae = fitted(data, missing)
    ae.export(tmp_path / "m.aeedge")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(AeedgeGroup.build(), ["encode", "m.aeedge", path.name, "-o", "z.npy"])
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(np.load("z.npy"), ae.run_.encode(expected), rtol=1e-4, atol=1e-4)
    said = (
        "2 rows with missing values were left out" if policy == "drop" else "3 missing values were filled with medians"
    )
    assert said in done.stderr
    done = CliRunner().invoke(
        AeedgeGroup.build(), ["encode", "m.aeedge", path.name, "-o", "n.npy", "--invalid", "propagate"]
    )
    assert done.exit_code == 0, done.output
    assert np.isnan(np.load("n.npy")).any(axis=1).nonzero()[0].tolist() == ([3, 7] if policy == "drop" else [])


def test_columns_of_lists_are_vectors(tmp_path):
    parts = pa.array(X[:, :3].tolist(), pa.list_(pa.float64(), 3)), pa.array(X[:, :3].tolist())
    for i, column in enumerate(parts):
        path = tmp_path / f"{i}.parquet"
        pa.parquet.write_table(pa.table({"spectrum": column, "t": X[:, 3], "site": ["x"] * 40}), path)
        data = read(path)
        assert data.features == ("spectrum[0]", "spectrum[1]", "spectrum[2]", "t")
        np.testing.assert_array_equal(data.X, X.astype(np.float32))
        np.testing.assert_array_equal(through_device(fitted(data).run_.input_spec, path), data.X)
    ragged = pa.table({"v": [[1.0, 2.0]] * 5 + [[1.0]]})
    pa.parquet.write_table(ragged, tmp_path / "ragged.parquet")
    with pytest.raises(InputError, match=r"row 5 \(counted from 0\), column 'v': expected 2 values .* got 1"):
        read(tmp_path / "ragged.parquet")


CELLS = st.one_of(
    st.floats(-1e6, 1e6).map(lambda v: repr(round(v, 3))),
    st.integers(-999, 999).map(str),
    st.sampled_from(
        ["", "NA", "nan", "True", "false", "-", "x", "1_0", "1e5", " 7 ", "inf", "a,b", 'q"t', "two\nlines"]
    ),
)


@settings(deadline=None, max_examples=300)
@given(
    rows=st.integers(1, 5).flatmap(lambda w: st.lists(st.lists(CELLS, min_size=w, max_size=w), min_size=1, max_size=8)),
    ragged=st.booleans(),
    header=st.sampled_from(["none", "text", "numbers"]),
    delimiter=st.sampled_from([",", ";", "\t", "|", " "]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n"]),
    blanks=st.lists(st.integers(0, 8), max_size=2),
    missing=st.booleans(),
)
def test_any_file_gives_the_same_rows_or_is_refused_by_both(
    tmp_path, rows, ragged, header, delimiter, quoting, end, blanks, missing
):
    names = {
        "none": [],
        "text": [[f"c{i}" for i in range(len(rows[0]))]],
        "numbers": [list(map(str, range(len(rows[0]))))],
    }
    table = names[header] + [list(row) for row in rows]
    if ragged:
        table[-1].append("9")
    for at in blanks:
        table.insert(min(at, len(table)), [])
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(table)
    path = tmp_path / "x.csv"
    path.write_text(stream.getvalue(), newline="")
    try:
        data = read(path, missing=missing)
    except InputError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert refused == printable(refused, None)
        assert str(path) in refused
        return
    wanted = Wanted(data.features, data.X.shape[1:], "float32", data.dialect)
    again = np.concatenate(list(open_all([path], wanted, missing=missing).blocks())).astype(np.float32)
    np.testing.assert_array_equal(again, data.X)


@settings(deadline=None, max_examples=100)
@given(
    data=st.binary(min_size=1, max_size=300)
    | st.text(alphabet=st.sampled_from('01,;\t"\n.-ea '), min_size=1).map(str.encode)
)
def test_any_bytes_end_in_rows_or_one_sentence(tmp_path, data):
    assume(not data.startswith(b"\x1f\x8b"))
    path = tmp_path / "x.csv"
    path.write_bytes(data)
    try:
        message = f"{np.isfinite(read(path).X).all()}"
    except InputError as refused:
        message = str(refused)
    assert message == printable(message, None)
    assert message != "False"


@pytest.mark.parametrize("kind", ["tables", "parquets", "images"])
def test_a_damaged_file_gives_rows_or_one_sentence(tmp_path, kind):
    rng = np.random.default_rng(1)
    for name, data in getattr(damage, kind)().items():
        path = tmp_path / name
        path.write_bytes(data)
        assert len(read(path).X)
        for _ in range(15):
            path.write_bytes(damage.damaged(data, rng))
            try:
                message = f"{len(read(path).X) > 0}"
            except InputError as refused:
                message = str(refused)
            assert message == printable(message, 1000)
            assert message != "False"


def test_labels_that_are_damaged_or_no_array_are_one_sentence(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", np.arange(len(X)))
    np.savez(tmp_path / "archive.npz", np.arange(len(X)))
    sound = (tmp_path / "y.npy").read_bytes()
    archive = (tmp_path / "archive.npz").read_bytes()
    for data in (
        archive,
        b"",
        sound[:9],
        sound[:60],
        sound.replace(b"'<i8'", b"'|O8'"),
        sound.replace(b"(40,)", b"((((("),
    ):
        (tmp_path / "y.npy").write_bytes(data)
        with pytest.raises(InputError, match=r"y\.npy"):
            read(tmp_path / "x.npy", labels=str(tmp_path / "y.npy"))
