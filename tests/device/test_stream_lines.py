"""Lines, messages and raw numbers become samples, however they come."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aeedge.bundle.manifest import SignalSpec
from aeedge.errors import InputError
from aeedge.files.dialect import Dialect
from aeedge.files.sniffing import DialectOptions
from aeedge.signals.lines import Fields
from aeedge.signals.sources import RAW, parser_of

X = np.array([[1.5, -2], [3, 4.25], [0.1, 1e-3]])
XY = Fields(("x", "y"))
TIMED = Fields(("x", "y"), "t")


def pieces(data, size):
    return [data[i : i + size] for i in range(0, len(data), size)]


def parsed(data, fields=XY, format=None, size=None):
    """All samples, times, missing samples in their place as None, and faults."""
    parser = parser_of(format, fields, "pipe")
    chunks = [chunk for piece in pieces(data, size or len(data) or 1) for chunk in parser.feed(piece)]
    chunks += parser.close()
    return flat(chunks)


def flat(chunks):
    rows, times, faults = [], [], []
    for chunk in chunks:
        faults += [chunk.fault] if chunk.fault else []
        rows += [None] * chunk.missing if chunk.samples is None else chunk.samples.tolist()
        if chunk.times is not None:
            times += np.atleast_1d(chunk.times).tolist()
    return rows, times, faults


def table(rows, delimiter=",", decimal="."):
    return "".join(delimiter.join(str(v).replace(".", decimal) for v in row) + "\n" for row in rows).encode()


@pytest.mark.parametrize("size", [1, 3, 7, None])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (b"x,y\n" + table(X), XY),
        (b"\xef\xbb\xbfx,y\n" + table(X), XY),
        (table(X), XY),
        (b"sep=;\nx;y\n" + table(X, ";", ","), XY),
        (b"x;y\nmm;degC\n" + table(X, ";", ","), XY),
        (table(X, ";", ","), XY),
        (table(X, "\t"), XY),
        (table(X, "   "), XY),
        (b"# x y\n" + table(X, " "), XY),
        (b"# a sensor\n\n" + table(X, "|") + b"\n# the end\n", XY),
        (b'"x","y"\n"1.5","-2.0"\n"3.0","4.25"\n0.1,0.001\n', XY),
        (b"y,other,x\n-2,a,1.5\n4.25,b,3\n1e-3,c,0.1\n", XY),
        (b"x,y,\n1.5,-2.0,\n3.0,4.25,\n0.1,0.001,\n", XY),
        (b"x,y\n1.5,-2\n3,4.25\nx,y\n0.1,1e-3\n", XY),  # the sender began again
        (b"a,b\n" + table(X), Fields(("0", "1"))),
        (b"".join(json.dumps({"y": y, "n": 1, "x": x}).encode() + b"\n" for x, y in X.tolist()), XY),
        (b"".join(json.dumps(row).encode() + b"\n" for row in X.tolist()), XY),
        (b"[[1.5, -2], [3, 4.25]]\n" + b"[0.1, 1e-3]", XY),
        (b'[{"x": 1.5, "y": -2}, {"x": 3, "y": 4.25}]\n{"x": [0.1], "y": [0.001]}', XY),
    ],
)
def test_text_is_the_samples_whatever_its_pieces_dialect_and_line_ends(text, fields, end, size):
    rows, times, faults = parsed(text.replace(b"\n", end), fields, size=size)
    assert rows == X.tolist()
    assert not times
    assert not faults


@pytest.mark.parametrize("fields", [Fields(("x", "y"), dialect=Dialect(";", ",")), XY])
def test_the_bundles_dialect_is_tried_first_and_given_options_decide(fields):
    one = fields._replace(channels=("x",))
    assert parsed(b"1,5\n", one)[0] == [[1.5]]
    point = DialectOptions(decimal=".", delimiter=";")
    assert parsed(b"1.5;2\n", fields._replace(options=point))[0] == [[1.5, 2.0]]


@pytest.mark.parametrize(
    "text",
    [
        b"t,x,y\n10,1.5,-2\n11,3,4.25\n12,.1,1e-3\n",
        b"x,t,y\n1.5,10,-2\n3,11,4.25\n.1,12,1e-3\n",
        b"10,1.5,-2\n11,3,4.25\n12,.1,1e-3\n",
        b"1970-01-01 00:00:10;1,5;-2\n1970-01-01 00:00:11;3;4,25\n1970-01-01 00:00:12;0,1;0,001\n",
        b'{"t": 10, "x": 1.5, "y": -2}\n{"x": 3, "y": 4.25, "t": "1970-01-01T00:00:11Z"}\n[12, 0.1, 0.001]\n',
        b'{"time": 10, "x": 1.5, "y": -2}\n{"t": [11, 12], "x": [3, 0.1], "y": [4.25, 0.001]}\n',
        b'[{"t": 10, "x": 1.5, "y": -2}, {"t": 11, "x": 3, "y": 4.25}]\n[12, 0.1, 0.001]\n',
    ],
)
@pytest.mark.parametrize("size", [1, None])
def test_times_come_with_their_samples(text, size):
    rows, times, faults = parsed(text, TIMED, size=size)
    assert (rows, times, faults) == (X.tolist(), [10, 11, 12], [])


def test_a_column_of_the_time_can_be_named_where_columns_have_no_names():
    assert parsed(b"1,2,30\n3,4,31\n", TIMED._replace(time="2", time_given=True))[:2] == ([[1, 2], [3, 4]], [30, 31])


def test_a_column_of_the_time_can_be_named_by_its_place_beside_names():
    fields = TIMED._replace(time="1", time_given=True)
    assert parsed(b"x,when,y\n1,30,2\n3,31,4\n", fields)[:2] == ([[1, 2], [3, 4]], [30, 31])
    with pytest.raises(InputError, match="expected a column '7' with the time"):
        parsed(b"x,when,y\n1,30,2\n", fields._replace(time="7"))


@pytest.mark.parametrize(
    "text",
    [
        b"x,day,y,hour\n1,2026-01-31,2,10:00:01\n3,2026-01-31,4,10:00:02\n",
        b'{"x": 1, "y": 2, "day": "31.1.2026", "hour": "10:00:01"}\n'
        b'{"hour": "10:00:02", "day": "31.1.2026", "x": 3, "y": 4}\n',
    ],
)
def test_a_day_and_an_hour_are_a_time(text):
    start = 1_769_853_600
    assert parsed(text, TIMED._replace(time="day hour"))[:2] == ([[1, 2], [3, 4]], [start + 1, start + 2])


def test_columns_without_names_stand_where_they_were_in_training():
    recorded = {"delimiter": ",", "decimal": ".", "header": "none", "quote": '"', "comment": "#", "width": 4}
    spec = SignalSpec(("x1", "x3"), 8, 2, time="x0")
    fields = Fields.of(spec, None, recorded | {"columns": [1, 3]}, None)
    assert parsed(b"7,1,n,2\n8,3,n,4\n", fields)[:2] == ([[1, 2], [3, 4]], [7, 8])
    assert parsed(b"7,1,2\n8,3,4\n", fields)[:2] == ([[1, 2], [3, 4]], [7, 8])
    assert parsed(b"1,2\n3,4\n", fields)[:2] == ([[1, 2], [3, 4]], [])
    for wrong in ([1, 4], [1], "x", [1, -1]):
        assert Fields.of(spec, None, recorded | {"columns": wrong}, None).places == ()


def test_a_block_has_the_time_of_its_first_sample():
    parser = parser_of("jsonl", XY, "pipe")
    (chunk,) = parser.feed(b'{"time": 5, "x": [1, 2], "y": [3, null]}\n')
    assert chunk.times == 5
    np.testing.assert_array_equal(chunk.samples, [[1, 3], [2, np.nan]])


@pytest.mark.parametrize(
    "text", [b"x,y\n1,\n,NA\n", b"1,\n,-\n", b'{"x": 1}\n{"x": null, "y": NaN}\n', b"[1, null]\n[null, NaN]\n"]
)
def test_values_that_are_missing_are_nan(text):
    rows, _, faults = parsed(text)
    np.testing.assert_array_equal(rows, [[1, np.nan], [np.nan, np.nan]])
    assert not faults


GARBAGE = [b"abc", b"1", b"1,2,3", b"1,two", b'{"x": 1', b"\xff\x00\xfe", b'"', b"[1, 2", b"y" * 2_000_000]
JSON_GARBAGE = [
    b"abc", b"null", b"[1]", b'"x"', b"{}", b'{"z": 1}', b'{"x": "1", "y": 2}', b"[[1], [2]]",
    b'{"x": [1, 2], "y": [1]}', b'{"x": 1, "y": 2', b"[" * 100_000, b"\xff", b"1" * 5000, b'{"x": [], "y": []}',
    b'{"x": {}, "y": {"a": 1}}', b'{"x": 1, "y": 2, "time": "yesterday"}', b"[[[1, 2]], [3, 4]]",
]  # fmt: skip


@pytest.mark.parametrize("size", [5, 2**16])
@pytest.mark.parametrize(
    ("first", "line", "format"),
    [(b"1,2", line, "csv") for line in GARBAGE] + [(b"[1, 2]", line, "jsonl") for line in JSON_GARBAGE],
)
def test_a_line_that_is_no_sample_is_one_missing_sample_named_by_its_line(first, line, format, size):
    if len(line) > 10_000 and size < 100:
        size = 4096
    text = b"\n".join([first, line, first])
    rows, _, (fault,) = parsed(text, format=format, size=size)
    assert rows == [[1, 2], None, [1, 2]]
    assert fault.startswith("pipe, line 2: ")
    assert "expected" in fault
    assert len(fault) < 300


@pytest.mark.parametrize("line", [b"# x is the first axis", b"x axis ready", b"# y", b"the x, and more"])
def test_words_at_the_start_are_no_names(line):
    assert parsed(line + b"\n1,2\n")[0] == [[1, 2]]


def test_a_row_of_numbers_is_no_row_of_names():
    fields = Fields(("0", "1"))
    assert parsed(b"0,1\n2,3\n", fields)[0] == [[0, 1], [2, 3]]
    named = fields._replace(dialect=Dialect(header="row"))
    assert parsed(b"0,1\n2,3\n", named)[0] == [[2, 3]]
    assert parsed(b"0,1\n2,3\n", named._replace(options=DialectOptions(header=False)))[0] == [[0, 1], [2, 3]]


def test_a_line_that_was_cut_before_the_first_one_is_no_sample_at_all():
    rows, _, (fault,) = parsed(b"25\n1,2\n3,4\n")
    assert rows == [[1, 2], [3, 4]]
    assert fault.startswith("pipe, line 1: expected 2 numbers (x, y), got ")


def test_what_a_device_says_at_its_start_is_passed_over():
    assert parsed(b"ESP-ROM: 32\nrst: 0x1 (POWERON)\nhello\n1,2\n")[0] == [[1, 2]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"1,2,3\n4,5,6\n", "expected 2 numbers (x, y), got 3; name the column of the time (--time 0)"),
        (b"1\n2\n", "expected 2 numbers (x, y), got 1"),
        (b"1\n", "expected 2 numbers (x, y), got 1"),
        (b"1,2,3,4\n4,5,6,7\n", "got 4"),
        (b"x,z\n1,2\n", "expected the columns x, y, got x, z; y not among them"),
        (b"[1, 2, 3]\n[1, 2, 3]\n", "expected 2 numbers, got 3 values"),
        (b'{"a": 1}\n{"a": 2}\n', "expected the keys x, y, got a"),
        (b"noise\n" * 30, "got 'noise'"),
        (b"\x00\x01\x00\x02" * 100, "format='s16le'"),
        (b"x,y,x\n1,2,3\n", "'x' twice"),
    ],
)
def test_a_stream_of_something_else_is_refused(text, words):
    with pytest.raises(InputError) as raised:
        parsed(text)
    assert words in str(raised.value)
    assert str(raised.value).startswith("pipe")


def test_a_time_that_was_asked_for_must_be_there():
    asked = Fields(("x", "y"), "t", time_given=True)
    with pytest.raises(InputError, match="expected a column 't' with the time, got x, y"):
        parsed(b"x,y\n1,2\n", asked)
    with pytest.raises(InputError, match="expected the key 't' with the time"):
        parsed(b'{"x": 1, "y": 2}\n' * 20, asked)


@pytest.mark.parametrize("format", list(RAW))
@given(size=st.integers(1, 40), seed=st.integers(0, 1000))
def test_raw_samples_are_the_numbers_as_they_are(format, size, seed):
    rng = np.random.default_rng(seed)
    dtype = np.dtype(RAW[format])
    if dtype.kind == "f":
        values = rng.normal(size=(9, 2)).astype(dtype)
        data = values.tobytes()
    elif format == "s24le":
        values = rng.integers(-(2**23), 2**23, (9, 2))
        data = b"".join(int(v).to_bytes(3, "little", signed=True) for v in values.ravel())
    else:
        limits = np.iinfo(dtype)
        values = rng.integers(limits.min, limits.max, (9, 2), np.int64, endpoint=True).astype(dtype)
        data = values.tobytes()
    rows, times, faults = parsed(data, format=format, size=size)
    assert rows == values.tolist()
    assert not times
    assert not faults


def test_raw_data_that_ends_within_a_sample_is_refused_behind_the_whole_ones():
    parser = parser_of("S16_LE", XY, "pipe")
    (chunk,) = parser.feed(b"\1\0\2\0\3\0\4")
    assert chunk.samples.tolist() == [[1, 2]]
    with pytest.raises(InputError, match=r"expected whole samples of 4 bytes \(2 channels of 2\), got 3 bytes more"):
        list(parser.close())


def test_a_header_of_a_wav_file_is_no_sample():
    with pytest.raises(InputError, match="arecord -t raw"):
        list(parser_of("s16le", XY, "pipe").feed(b"RIFF\0\0\0\0WAVE"))


def test_an_unknown_format_is_refused():
    with pytest.raises(InputError, match="format: expected one of csv, jsonl, u8"):
        parser_of("mp3", XY, "pipe")


@pytest.mark.parametrize(
    ("format", "good", "rows"),
    [
        (None, b'{"x": 1, "y": 2}', [[1, 2]]),
        (None, b'{\n "x": 1,\n "y": 2\n}', [[1, 2]]),
        (None, b"[[1, 2], [3, 4], [5, 6]]", [[1, 2], [3, 4], [5, 6]]),
        (None, b'{"x": 1, "y": 2}\n{"x": 3, "y": 4}\n', [[1, 2], [3, 4]]),
        ("csv", b"1,2", [[1, 2]]),
        ("s16le", b"\1\0\2\0\3\0\4\0", [[1, 2], [3, 4]]),
    ],
)
@pytest.mark.parametrize("bad", [b"rubbish", b"", b"\xff\0\xfe", b"{", b"[1]", b"[" * 100_001, b"1,2,3"])
def test_a_message_is_whole_samples_and_one_that_is_none_is_missing_as_many(format, good, rows, bad):
    parser = parser_of(format, XY, "topic")
    found = flat([chunk for message in (good, bad, good) for chunk in parser.message(message)])
    if bad == b"" and format != "s16le":
        assert found[0] == rows + rows  # nothing was said
        return
    assert found[0] == rows + [None] * len(rows) + rows
    (fault,) = found[2]
    assert fault.startswith("topic")


def test_messages_are_never_refused():
    parser = parser_of(None, XY, "topic")
    faults = [chunk for _ in range(50) for chunk in parser.message(b"[1, 2, 3]")]
    assert [chunk.missing for chunk in faults] == [0] * 50  # nothing was right before
    assert flat(parser.message(b"[1, 2]"))[0] == [[1, 2]]


def test_numbers_of_one_channel_need_no_array():
    one = Fields(("level",))
    assert parsed(b"21.5\n22\n", one)[0] == parsed(b"21.5\n22\n", one, "jsonl")[0] == [[21.5], [22]]
    assert math.isinf(parsed(b"1e999\n", one)[0][0][0])


def _taken(parser, pieces, how="message"):
    chunks = [chunk for piece in pieces for chunk in getattr(parser, how)(piece)]
    return np.concatenate([chunk.samples for chunk in chunks if chunk.samples is not None]).tolist()


@pytest.mark.parametrize("how", ["message", "feed"])
def test_what_a_device_says_when_it_starts_does_not_decide_between_text_and_json(how):
    """Garbage first, in any form, then samples in either."""
    for garbage in (b"Booting...\n", b"{broken\n", b"\xef\xbb\xbf\n", b"\xff\xfe\n", b"[]\n"):
        for good in (b'{"x": 1, "y": 2}\n', b"[1, 2]\n", b"1,2\n", b"1;2\n"):
            parser = parser_of(None, Fields(("x", "y")), "source")
            assert _taken(parser, [garbage, good, good], how) == [[1.0, 2.0]] * 2


def test_each_message_may_begin_with_a_byte_order_mark():
    for kind, good in ((None, b'{"x": 1, "y": 2}'), ("jsonl", b"[1, 2]"), ("csv", b"1,2"), (None, b"1,2")):
        parser = parser_of(kind, Fields(("x", "y")), "topic")
        assert _taken(parser, [b"\xef\xbb\xbf" + good] * 3) == [[1.0, 2.0]] * 3


def test_a_time_of_hundreds_of_digits_is_no_time():
    parser = parser_of("jsonl", Fields(("x", "y"), "t"), "source")
    line = b'{"x": 1, "y": 2, "t": %s}\n'
    chunks = [*parser.feed(line % b"5"), *parser.feed(line % (b"9" * 400)), *parser.feed(line % (b"9" * 5000))]
    assert [chunk.missing for chunk in chunks] == [0, 1, 1]
    assert all("expected a time, got 'inf'" in chunk.fault for chunk in chunks[1:])
