"""JSON lines: what is written reads back, rows are those of a CSV file, and every fault is named with its line."""

import gzip
import io
import json
import math
import sys
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aeedge.errors import InputError
from aeedge.files import jsonlines
from aeedge.files.rows import Wanted, open_all, open_rows
from aeedge.files.source import Source
from aeedge.files.writing import Layout, row_writer


def read(path, wanted=None, **options):
    return np.concatenate(list(open_rows(path, wanted or Wanted(), **options).blocks()))


def lines(path, *rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(jsonlines, "BLOCK_BYTES", 200)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.JSONL", "x.jsonl.gz"])
def test_objects_by_name_and_arrays_in_order(tmp_path, name):
    x = np.random.default_rng(0).normal(size=(50, 3)).tolist()
    objects = [{"c": row[2], "a": row[0], "more": [1], "b": row[1]} for row in x]
    for rows, columns in ((objects, ["a", "b", "c"]), (x, None), (x, ["a", "b", "c"])):
        data = "\n".join(map(json.dumps, rows)).encode()  # without a line end at the end
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        np.testing.assert_array_equal(read(tmp_path / name, Wanted(columns)), x)


def test_keys_in_any_order_blank_lines_and_a_byte_order_mark(tmp_path):
    (tmp_path / "x.jsonl").write_text('\ufeff{"a":1,"b":2}\r\n\r\n  {"b": 4.0, "a": 3e0}  \r\n', encoding="utf-8")
    np.testing.assert_array_equal(read(tmp_path / "x.jsonl"), [[1, 2], [3, 4]])


values = st.one_of(
    st.integers(-(2**63), 2**63),
    st.floats(-(2.0**100), 2.0**100),
)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(values, values), min_size=1, max_size=5), st.text(min_size=1, max_size=5))
def test_any_names_and_numbers(tmp_path, rows, name):
    path = lines(tmp_path / "x.jsonl", *({name: a, f"{name}'": b} for a, b in rows))
    wanted = np.array([[float(b), float(a)] for a, b in rows])
    np.testing.assert_array_equal(read(path, Wanted([f"{name}'", name])), wanted)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:01.eE-+ntfN\n\\u', max_size=40).map(str.encode))
def test_whatever_a_file_holds_is_rows_or_one_sentence(tmp_path, data):
    (tmp_path / "x.jsonl").write_bytes(data)
    with suppress(InputError):  # anything else is a fault
        found = read(tmp_path / "x.jsonl")
        assert found.ndim == 2
        assert np.isfinite(found).all()


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), min_size=1, max_size=5),
    names=st.lists(st.text(min_size=1, max_size=4), min_size=2, max_size=2, unique=True),
)
def test_what_is_written_reads_back_and_is_json_to_others(tmp_path, rows, names):
    x = np.float32(rows)
    with row_writer(tmp_path / "x.jsonl", Layout.of_array((2,), names), overwrite=True) as writer:
        writer.write(x[:2])
        writer.write(x[2:])

    def refused(text):
        raise AssertionError(text)  # NaN and Infinity are no JSON

    x[~np.isfinite(x)] = np.nan
    text = (tmp_path / "x.jsonl").read_text(encoding="utf-8")
    found = [json.loads(line, parse_constant=refused) for line in text.split("\n")[:-1]]
    strict = [[np.nan if row[name] is None else row[name] for name in names] for row in found]
    np.testing.assert_array_equal(np.float32(strict), x)
    np.testing.assert_array_equal(np.float32(read(tmp_path / "x.jsonl", Wanted(names), missing=True)), x)


FIRST = '{"a": 1, "b": 2}'
FAULTS = {
    "a missing key": ('{"a": 1}', "line 2, key 'b': expected a number, but the key is not there; fill it in"),
    "null": ('{"a": 1, "b": null}', r"line 2, key 'b': expected a number, got null \(a missing value\)"),
    "a NaN": ('{"a": 1, "b": NaN}', r"line 2, key 'b': expected a number, got NaN \(a missing value\)"),
    "an infinity": (
        '{"a": 1, "b": -Infinity}',
        "line 2, key 'b': expected a finite number that fits float32, got -Inf",
    ),
    "text": ('{"a": 1, "b": "3.5"}', "line 2, key 'b': expected a number, got the text \"3.5\"; correct it"),
    "a truth value": ('{"a": true, "b": 1}', "line 2, key 'a': expected a number, got true"),
    "an array in an object": ('{"a": [1, 2], "b": 1}', "line 2, key 'a': expected a number, got an array"),
    "an object in an object": ('{"a": {"x": 1}, "b": 1}', "line 2, key 'a': expected a number, got an object"),
    "a key twice": ('{"a": 1, "b": 2, "a": 3}', "line 2: expected each key once, got 'a' twice; rename one"),
    "a number beyond float32": ('{"a": 1, "b": 1e39}', "line 2, key 'b': expected a finite number that fits float32"),
    "a whole number beyond float64": (f'{{"a": 1, "b": 1{"0" * 400}}}', "line 2, key 'b': expected a finite number"),
    "a whole number of 9 000 digits": (f'{{"a": 1, "b": {"9" * 9000}}}', "line 2.*number"),
    "a line that is cut off": ('{"a": 1, "b"', r"line 2: expected a JSON object or array.*\(.*character 13\)"),
    "two objects on a line": (FIRST + FIRST, r"line 2: expected a JSON object.*Extra data.*on each line"),
    "no JSON": ("1,2", "line 2: expected a JSON object or array"),
    "a number alone": ("3.5", "line 2: expected an object or an array of numbers, got 3.5; write one object"),
    "text alone": ('"a"', 'line 2: expected an object or an array of numbers, got the text "a"'),
    "an empty object": ("{}", "line 2: expected an object or an array of numbers, got an empty object"),
    "an array among objects": ("[1, 2]", "line 2: expected an object, as in the first row, got an array"),
    "deeply nested": ('{"a": ' + "[" * 100_000, "line 2: expected"),
    "not UTF-8": (b'{"a": 1, "\xe9": 2}', "line 2: expected JSON in UTF-8, got other bytes; save it as UTF-8"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", ["the second line", "after many lines"])
def test_faults_of_json_lines_are_named(tmp_path, fault, place):
    text, message = FAULTS[fault]
    before = 1 if place == "the second line" else 300
    content = (FIRST + "\n") * before
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "x.jsonl").write_bytes(content.encode() + data + b"\n" + FIRST.encode() + b"\n")
    message = message.replace("line 2", f"line {before + 1}")
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path / "x.jsonl", Wanted(["a", "b"]))
    assert str(caught.value).isprintable()
    assert str(caught.value).count("x.jsonl") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("\n\n", "expected rows of numbers, but it has none"),
        ("[1, 2]\n[1, 2, 3]\n", "line 2: expected 2 values, as in the first row, got 3"),
        ("[1, [2]]\n", "line 1, value 2: expected a number, got an array"),
        ("[]\n", "line 1: expected an object or an array of numbers, got an empty array"),
        ('[\n {"a": 1},\n {"a": 2}\n]\n', "line 1: expected a JSON object or array.*write one object such as"),
        ('[{"a": 1}, {"a": 2}]\n', "line 1, value 1: expected a number, got an object"),
        ('{"a": 1, "b"', "is the file cut off"),
        ("a,b\n1,2\n", "line 1: expected a JSON object or array"),
    ],
)
def test_faults_of_the_first_line(tmp_path, text, message):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "x.jsonl")


def test_one_line_without_an_end_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("aeedge.files.source._MOST_HEAD_BYTES", 2**18)
    (tmp_path / "x.jsonl").write_text("[" + "1, " * 2**18)
    with pytest.raises(InputError, match="expected JSON lines, but the first one has more than 262,144 bytes"):
        open_rows(tmp_path / "x.jsonl")


def test_what_is_missing_becomes_nan_where_it_may(tmp_path):
    path = lines(tmp_path / "x.jsonl", FIRST, '{"a": null, "b": NaN}', '{"b": 3}')
    found = read(path, Wanted(["a", "b"]), missing=True)
    np.testing.assert_array_equal(found, [[1, 2], [np.nan, np.nan], [np.nan, 3]])
    with pytest.raises(InputError, match="line 2, key 'a': expected a number, got true"):
        read(lines(path, FIRST, '{"a": true, "b": 1}'), Wanted(["a", "b"]), missing=True)


def test_columns_that_a_model_lacks_or_does_not_use(tmp_path):
    path = lines(tmp_path / "x.jsonl", {"b": 1, "a": 2, "t": "x"})
    assert open_rows(path, Wanted(["a", "b"])).notes == ["columns that the model does not use: t"]
    with pytest.raises(InputError, match="expected a column 'c', got b, a, t"):
        open_rows(path, Wanted(["a", "c"]))
    with pytest.raises(InputError, match=r"header.*leave them out"):
        open_rows(path, dialect=object())


def test_keys_have_no_order_to_fall_back_to(tmp_path):
    path = lines(tmp_path / "x.jsonl", {"p": 1, "q": 2})
    with pytest.raises(InputError, match=r"expected objects with the keys a, b, got p, q; rename .*arrays"):
        open_rows(path, Wanted(["a", "b"]))
    np.testing.assert_array_equal(read(path), [[1, 2]])


def test_a_key_that_comes_late_is_noted(tmp_path):
    path = lines(tmp_path / "x.jsonl", *[FIRST] * 150, '{"a": 1, "b": 2, "c": 3}', '{"a": 1, "b": 2, "c": 3}')
    rows = open_all([path, path])
    assert np.concatenate(list(rows.blocks())).shape == (304, 2)
    assert rows.notes == ["keys that the first rows lack were left out: c (line 151)"]


KINDS = {
    "objects": ('{"a": 1, "b": 2}\n', "read as JSON lines, objects"),
    "arrays": ("[1, 2]\n", "read as JSON lines, arrays"),
    "a blank line first": ('\n {"a": 1, "b": 2}\n', "read as JSON lines, objects"),
    "a byte order mark": ('\ufeff{"a": 1, "b": 2}\n', "read as JSON lines, objects"),
    "CSV": ("a,b\n1,2\n", "read as CSV: comma, header"),
    "CSV with a bracket": ("[a],[b]\n1,2\n", "read as CSV: comma, header"),
    "CSV without names": ("1;2\n3;4\n", "read as CSV: semicolon, no header"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_standard_input_is_told_by_its_first_bytes(monkeypatch, kind):
    text, note = KINDS[kind]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    rows = open_rows("-")
    np.testing.assert_array_equal(next(rows.blocks())[0], [1, 2])
    assert rows.notes[0] == note


def test_a_json_document_on_standard_input_is_one_sentence(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'[\n  {"a": 1}\n]\n')))
    with pytest.raises(InputError, match=r"standard input, line 1: expected a JSON object or array.*on each line"):
        open_rows("-")


def test_standard_input_is_named_once():
    with pytest.raises(InputError, match="standard input: can be read only once"):
        open_all(["-", "-"])


def test_json_by_the_name_of_csv(tmp_path):
    with pytest.raises(InputError, match=r"x\.csv: expected cells with a delimiter, got JSON; name it \.jsonl"):
        open_rows(lines(tmp_path / "x.csv", FIRST))


def test_a_file_without_a_suffix(tmp_path):
    assert Source(lines(tmp_path / "x", FIRST)).kind == "jsonl"
    np.testing.assert_array_equal(read(tmp_path / "x"), [[1, 2]])


def test_kept_columns_are_what_they_were(tmp_path):
    late = 1_700_000_000_123_456_789  # more digits than a float64 has
    path = lines(
        tmp_path / "x.jsonl", {"a": 1, "t": late, "n": "é,"}, {"a": 2, "t": None}, {"a": 3, "t": True, "n": 2.5}
    )
    (_, kept), *rest = open_rows(path, Wanted(["a"], keep=["t", "n"])).parts()
    assert not rest
    assert kept == [[late, None, True], ["é,", None, 2.5]]
    with pytest.raises(InputError, match="line 2, key 'a': expected text or a number, got an array"):
        list(open_rows(lines(path, FIRST, '{"a": [1], "b": 1}'), Wanted(["b"], keep=["a"])).parts())


def test_many_rows_are_read_block_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonlines, "BLOCK_BYTES", 2**12)
    path = lines(tmp_path / "x.jsonl", *([i, -i] for i in range(2000)))
    blocks = list(open_rows(path).blocks())
    assert max(map(len, blocks)) <= 2**12 // 16
    assert math.isclose(np.concatenate(blocks).sum(), 0)
