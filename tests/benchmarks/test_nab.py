"""NAB's scores, against what its paper's formulas give by hand; and the made-up series they are tried on."""

import json
import math

import numpy as np
import pytest
import synthetic_streams
from nab import DETECTORS, read, write_results
from nab_scoring import Scored, best_outcome, outcome, probationary
from synthetic_streams import laid_windows

FIRST, LAST = 50, 59  # of the window


def scored(*raised, rows=100, windows=((FIRST, LAST),)):
    scores = np.zeros(rows)
    scores[list(raised)] = 1.0
    return Scored("x", scores, list(windows), probationary(rows), 300.0 * np.arange(rows))


def sigmoid(position):
    return 2 / (1 + math.exp(5 * position)) - 1


@pytest.mark.parametrize(
    ("raised", "total"),
    [
        ([], -1),
        ([FIRST], 1),
        ([FIRST, FIRST + 3, LAST], 1),  # only the best counts
        ([FIRST + 5], sigmoid(-0.5) / sigmoid(-1)),
        ([LAST], sigmoid(-0.1) / sigmoid(-1)),
        ([20], -1 - 0.11),  # before all windows
        ([FIRST, 20, 21], 1 - 0.22),
        ([FIRST, LAST + 9], 1 + 0.11 * sigmoid(9 / 9)),
        ([FIRST, LAST + 40], 1 - 0.11),  # more than three windows behind
        ([FIRST, 3], 1),  # in probation
    ],
)
def test_what_alarms_are_worth(raised, total):
    assert outcome([scored(*raised)], 0.5).score == pytest.approx(100 * (total + 1) / 2)


def test_one_threshold_for_all_files():
    good, noisy = scored(FIRST), scored(FIRST)
    noisy.scores[:] = np.where(np.arange(100) % 2, 0.4, 0.0)
    noisy.scores[FIRST + 1] = 0.6
    best = best_outcome([good, noisy])
    assert (best.threshold, best.found, best.windows, best.false_alarms) == (0.6, 2, 2, 0)
    assert best.score == pytest.approx(100 * (3 + sigmoid(-0.9) / sigmoid(-1)) / 4)
    assert best.score > max(outcome([good, noisy], threshold).score for threshold in (0.4, 1.0))


def test_nothing_found_and_everything_found():
    assert best_outcome([scored()]).score == 0
    assert best_outcome([scored(FIRST)]).score == 100
    assert best_outcome([scored(20)]).score == 0, "no alarm at all is better"
    assert probationary(4_032) == 604
    assert probationary(22_695) == 750


def test_windows_are_a_tenth_of_the_rows():
    assert laid_windows(4_000, [1_000, 3_000]) == [(900, 1_100), (2_900, 3_100)]
    assert laid_windows(4_000, [1_000, 1_100]) == [(900, 1_200)], "those that meet are joined"
    assert laid_windows(4_000, []) == []


def test_made_up_series_are_the_same_every_time_and_differ_between_splits(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic_streams, "KINDS", synthetic_streams.KINDS[:4])
    for name, split in (("first", "development"), ("second", "test"), ("again", "test")):
        synthetic_streams.write(tmp_path / name, split)
    first, second, again = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("first", "second", "again")
    )
    assert second == again
    assert len(first) == 4 * synthetic_streams.COPIES + 1
    assert not set(first.values()) & set(second.values())


@pytest.mark.parametrize("labels", ["windows.json", "labels/combined_windows.json"])
def test_files_are_found_by_the_names_of_the_labels(tmp_path, labels):
    name = "x.csv" if labels == "windows.json" else "realTraffic/x.csv"
    path = tmp_path / ("" if labels == "windows.json" else "data") / name
    for folder in (path.parent, (tmp_path / labels).parent):
        folder.mkdir(parents=True, exist_ok=True)
    path.write_text("timestamp,value\n" + "".join(f"2014-01-01 00:{minute:02d}:00,{minute}\n" for minute in range(60)))
    window = [["2014-01-01 00:50:00.000000", "2014-01-01 00:55:00.000000"]]
    (tmp_path / labels).write_text(json.dumps({name: window}))
    ((found, (stamps, seconds, values, windows)),) = read(tmp_path).items()
    assert (found, windows, len(stamps)) == (name, [(50, 55)], 60)
    assert values.tolist() == list(range(60))
    file = Scored(name, np.linspace(0, 1, 60), windows, 9, seconds - seconds[0])
    write_results(tmp_path / "out", "aeedge", name, stamps, values, file)
    lines = next((tmp_path / "out").rglob("aeedge_x.csv")).read_text().splitlines()
    assert lines[0] == "timestamp,value,anomaly_score,label"
    assert lines[51].split(",")[0::3] == ["2014-01-01 00:50:00", "1"]
    assert lines[50].endswith(",0")


@pytest.mark.parametrize("name", ["change", "zscore", "gaussian"])
def test_baselines_find_what_nobody_overlooks(name):
    values = np.random.default_rng(0).normal(50, 1, 2_000)
    values[1_500] = 90
    scores = DETECTORS[name](values, 300)
    assert int(np.argmax(scores[300:])) == 1_200
    assert ((scores >= 0) & (scores <= 1)).all()
