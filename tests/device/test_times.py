"""Cells that tell the time: text of many forms, dates and numbers become the same seconds since 1970."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pytest

from aeedge.errors import InputError
from aeedge.files.times import TimeFormat, as_rate, find_format, moment, rate_text, to_seconds

UTC = datetime.timezone.utc
NOON = datetime.datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()
DAYS = [datetime.datetime(2026, 1, 1, 9) + datetime.timedelta(hours=7 * i) for i in range(60)]
SECONDS = np.array([day.replace(tzinfo=UTC).timestamp() for day in DAYS])


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31 12:00:00",
        "2026-01-31T12:00Z",
        "2026-01-31T13:00:00+01:00",
        "2026-01-31T06:30:00.000000000-0530",
        "2026-01-31T13+01",
        "2026-01-31T13:00+01:00[Europe/Berlin]",
        "2026-01-31 12:00:00 UTC",
        "20260131T120000Z",
        "20260131120000",
        "2026/1/31 12",
        "31.1.2026 12:00",
        "31/01/26 12:00",
        "31-Jan-2026 12:00:00",
        "31/Jan/2026:12:00:00 +0000",
        "January 31, 2026 12:00 PM",
        "Sat, 31 Jan 2026 12:00:00 GMT",
    ],
)
def test_forms_of_one_moment(text):
    assert moment(text) == NOON
    assert moment(f"  {text} ") == NOON


@pytest.mark.parametrize(
    "text", ["", "pump", "3.14", "1.2.3", "2026-02-30", "2026-13-01", "2026-01-31 25:00", "2026-01-31 12:00 CET", "12"]
)
def test_text_that_is_no_moment(text):
    assert moment(text) is None
    assert math.isnan(TimeFormat().seconds(text)) or text in ("3.14", "12")  # numbers are seconds in a column


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%dT%H:%M:%SZ",
        "%d.%m.%Y %H:%M",
        "%m/%d/%Y %I:%M %p",
        "%d/%m/%y %H:%M",
        "%d %b %Y %H:%M",
        "%Y%m%d%H%M%S",
        "%Y%m%dT%H%M%S",
    ],
)
def test_a_column_of_dates_of_any_form(form):
    cells = [day.strftime(form) for day in DAYS]
    found, how = to_seconds([*cells[:5], "", "n/a", "nonsense", *cells[5:]])
    assert np.isnan(found[5:8]).all()
    assert np.array_equal(np.delete(found, [5, 6, 7]), SECONDS)
    assert how.dated
    assert [how.seconds(cell) for cell in cells] == SECONDS.tolist()  # cell by cell, as a stream has them


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("form", [float, int, str, np.int64])
def test_numbers_since_1970_of_any_unit(unit, form):
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    cells = [form(int(second) * per_second) for second in SECONDS]
    found, how = to_seconds(cells)
    assert np.abs(found - SECONDS).max() < 1e-6
    assert "since 1970" in how.note
    assert math.isclose(find_format(cells[:1]).seconds(cells[-1]), SECONDS[-1])  # one cell is enough
    if form is not str:
        assert np.abs(to_seconds(np.array(cells))[0] - SECONDS).max() < 1e-6


def test_dates_that_are_objects():
    zone = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
    aware = [day.replace(tzinfo=UTC).astimezone(zone) for day in DAYS]
    for cells in (DAYS, aware, np.array(DAYS, "datetime64[ns]"), list(np.array(DAYS, "datetime64[s]"))):
        found, how = to_seconds(cells)
        assert np.array_equal(found, SECONDS)
        assert (how.note, how.dated) == ("", True)
    assert math.isnan(TimeFormat().seconds(np.datetime64("NaT")))
    assert TimeFormat().seconds(datetime.date(2026, 1, 31)) == NOON - 12 * 3600
    assert TimeFormat().seconds(datetime.time(9, 5, 1)) == 9 * 3600 + 301
    assert TimeFormat().seconds(datetime.timedelta(minutes=2)) == 120


@pytest.mark.parametrize(
    ("name", "unit"),
    [("t", 1), ("time_ms", 1e-3), ("t [µs]", 1e-6), ("time (ns)", 1e-9), ("timestamps", 1), ("elapsed min", 60)],
)
def test_numbers_since_a_start_are_seconds_or_what_the_name_says(name, unit):
    found, how = to_seconds([0, 5.5, None, math.nan, math.inf, True], name=name)
    assert np.array_equal(found[:2], np.array([0, 5.5]) * unit)
    assert np.isnan(found[2:]).all()
    assert not how.dated


def test_what_may_be_day_or_month_first_is_decided_by_the_column_and_said():
    days = [datetime.date(2026, 3, 1) + datetime.timedelta(days=i) for i in range(12)]
    for form, order in (("%d/%m/%Y", "day"), ("%m/%d/%Y", "month")):
        cells = [day.strftime(form) for day in days]
        found, how = to_seconds(cells)
        assert (np.diff(found) == 86400).all()
        assert f"are read {order} first" in how.note
    assert find_format(["01/02/2026"]).day_first
    certain = find_format(["1/31/2026", "2/1/2026"])
    assert (certain.day_first, certain.note) == (False, "")


@pytest.mark.parametrize("zone", ["", "Z", "+01:00", "-05:30"])
def test_a_column_is_read_as_its_cells(zone):
    cells = [f"{day.isoformat()}.25{zone}" for day in DAYS]
    for given in (cells, [*cells, ""], [*cells, "2026-01-31 25:00"], [cell.replace("T", " ") for cell in cells]):
        found, how = to_seconds(given)
        np.testing.assert_array_equal(found, [how.seconds(cell) for cell in given])
        assert found[0] == moment(cells[0])


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("50Hz", 50),
        ("8kHz", 8000),
        ("5min", 1 / 300),
        ("100/s", 100),
        (" 0.5 Hz", 0.5),
        ("20ms", 50),
        ("30/min", 0.5),
        ("1h", 1 / 3600),
        ("44.1kHz", 44100),
        ("2MHz", 2000000.0),
        ("2mHz", 0.002),
        ("50", 50),
        (50, 50),
        (0.1, 0.1),
        ("1e3", 1000),
    ],
)
def test_rates(text, rate):
    assert as_rate("rate", text) == pytest.approx(rate)
    assert as_rate("rate", rate_text(rate)) == pytest.approx(rate)


@pytest.mark.parametrize(
    "text", ["", "0", "-5Hz", "0min", "fast", "50 apples", math.nan, math.inf, True, None, "Hz", 0, -1]
)
def test_what_is_no_rate_is_one_sentence(text):
    with pytest.raises(InputError, match="rate: expected samples a second above 0, such as 50Hz"):
        as_rate("rate", text)


def test_decimal_commas_and_times_of_day():
    assert to_seconds(["0,5", "1,5"], decimal=",")[0].tolist() == [0.5, 1.5]
    found, how = to_seconds(["23:59:58.5", "23:59:59,5"])
    assert found.tolist() == [86398.5, 86399.5]
    assert not how.dated


def test_nothing_to_read_is_nan():
    for cells in ([], [None, ""], ["n/a"]):
        assert np.isnan(to_seconds(cells)[0]).all()
