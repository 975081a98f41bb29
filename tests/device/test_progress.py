"""Progress: one line of a terminal of any width, a line for each tenth elsewhere; a time left that does not jump."""

import io
import sys

import numpy as np
import pytest

from aeedge.system import progress
from aeedge.system.progress import Pace, ProgressLine, fitted, time_left
from aeedge.table import human_duration

PARTS = ["epoch 123456/200000", "validation 1.23e+05", "best 1.23e+05", "loss 6.54e+06", "2 min 10 s left"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def a_terminal(monkeypatch):
    found = Terminal()
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.delenv("TERM", raising=False)
    return found


@pytest.mark.parametrize("columns", [10, 20, 40, 60, 79, 80, 200])
@pytest.mark.parametrize("name", ["train", "a" * 300, "電車" * 40, "x\x1b[2Jy\n"])
def test_words_fit_any_width(columns, name):
    for parts in (PARTS, [name], [name, "3 s left"], [name, "1,000 rows", "12 s left"]):
        text = fitted(parts, columns)
        assert progress._width(text) <= columns
        assert text.isprintable()
        if columns >= 40:
            assert text.endswith("left") or len(parts) == 1
    assert fitted(PARTS, 200) == ", ".join(PARTS)
    assert fitted(PARTS, 40) == "epoch 123456/200000, 2 min 10 s left"


@pytest.mark.parametrize("columns", [80, 40])
def test_a_terminal_has_one_line_that_is_written_over(monkeypatch, columns):
    terminal = a_terminal(monkeypatch)
    monkeypatch.setattr(progress, "_columns", lambda: columns)
    line = ProgressLine()
    for i in range(50):
        line.show([f"epoch {i}/50", *PARTS[1:]], i / 50)
    written = terminal.getvalue().split("\r")[1:]
    assert len(written) == 50
    assert max(map(len, written)) < columns
    assert "\n" not in terminal.getvalue()
    line.end()
    assert terminal.getvalue().endswith("\r")
    assert terminal.getvalue().split("\r")[-2].strip() == ""


def test_a_terminal_that_became_narrower_keeps_no_rest_of_the_line(monkeypatch):
    terminal = a_terminal(monkeypatch)
    widths = iter([80, 80, 40, 40, 40, 40, 40, 40])
    monkeypatch.setattr(progress, "_columns", lambda: next(widths))
    line = ProgressLine()
    line.show(PARTS)
    before = len(terminal.getvalue())
    line.show(PARTS)
    assert terminal.getvalue()[before:].startswith("\x1b[1A\r\x1b[J")
    before = len(terminal.getvalue())
    line.show(PARTS)
    assert terminal.getvalue()[before:].startswith("\repoch")


@pytest.mark.parametrize("term", ["dumb", None])
@pytest.mark.parametrize("steps", [1, 3, 10, 1000])
def test_elsewhere_a_line_for_each_tenth(monkeypatch, term, steps):
    stream = io.StringIO() if term is None else Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", term or "xterm")
    line = ProgressLine()
    for i in range(1, steps + 1):
        line.show([f"epoch {i}/{steps}"], i / steps)
    line.end()
    lines = stream.getvalue().splitlines()
    assert len(lines) == min(steps, 11 if steps > 10 else steps)
    assert lines[0] == f"epoch 1/{steps}"
    assert lines[-1] == f"epoch {steps}/{steps}"
    assert "\r" not in stream.getvalue()


def test_the_time_left_does_not_jump(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    pace, rng, left = Pace(), np.random.default_rng(0), []
    for done in range(1, 200):
        now[0] += float(rng.uniform(0.5, 1.5)) * (10 if done % 17 == 0 else 1)
        assert pace.left(done, 200).endswith("left") or pace.left(done, 200) == "nearly done"
        left.append(pace._seconds * (200 - done))
    steps = np.abs(np.diff(left[20:]))
    assert steps.max() < 0.6 * left[20]
    assert pace.left(200, 200) == ""
    assert Pace(5).left(5, 10) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0.4 s"), (9.96, "10.0 s"), (42, "42 s"), (59.7, "1 min"), (60, "1 min"), (130, "2 min 10 s"),
        (3599.6, "1 h"), (12_000, "3 h 20 min"), (216_000, "2.5 days"),
    ],
)  # fmt: skip
def test_times_are_those_of_people(seconds, text):
    assert human_duration(seconds) == text


def test_the_time_left_is_rounded():
    said = [time_left(seconds) for seconds in (0.2, 42.4, 131, 1234, 12_000)]
    assert said == ["nearly done", "42 s left", "2 min 10 s left", "21 min left", "3 h 20 min left"]
