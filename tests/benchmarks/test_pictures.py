"""Pictures of results are what the results give, and can be read on white, on black and on a phone."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pictures
import pytest
from comparison import drawing
from comparison import pictures as runtime_pictures
from comparison.records import Records
from helpers.contrast import contrast

from aeedge_export.reporting.axes import Box, text_width

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SVG = "{http://www.w3.org/2000/svg}"
PHONE = 390 - 2 * 16  # pixels of text on a phone


def committed():
    """Text of each committed picture, and of what the results give, by name."""
    records = Records.read(RESULTS / "runtimes.jsonl")
    found = {name: (ROOT / "docs" / "images" / name, text) for name, text in pictures.drawn().items()}
    for network in records.names("workload"):
        name = f"runtimes-{network}.svg"
        found[name] = (RESULTS / name, runtime_pictures.of_network(records, network))
    return found


COMMITTED = committed()


@pytest.mark.parametrize("name", COMMITTED)
def test_the_committed_picture_is_what_the_results_give(name):
    path, fresh = COMMITTED[name]
    assert path.read_text(encoding="utf-8") == fresh, (
        f"{name} is stale; run: python benchmarks/pictures.py && python benchmarks/runtimes.py --tables"
    )


def boxes(root):
    """Every text with the rectangle that it covers."""
    for one in root.iter(SVG + "text"):
        wide = text_width(one.text, drawing.SIZE) * 0.93  # a little wide: estimated with room to spare
        x, y = float(one.get("x")), float(one.get("y"))
        left = x - wide * {"start": 0, "middle": 0.5, "end": 1}[one.get("text-anchor")]
        yield one.text, Box(left, y - 0.75 * drawing.SIZE, left + wide, y + 0.2 * drawing.SIZE)


@pytest.mark.parametrize("name", COMMITTED)
def test_texts_are_inside_overlap_nothing_and_are_11_pixels_high_on_a_phone(name):
    root = ElementTree.fromstring(COMMITTED[name][1])
    width, height = float(root.get("width")), float(root.get("height"))
    assert root.get("viewBox") == f"0 0 {width:g} {height:g}"
    assert float(root.get("font-size")) * min(1, PHONE / width) >= 11
    texts = list(boxes(root))
    assert len(texts) > 15
    for i, (text, box) in enumerate(texts):
        assert box.inside(Box(-1, 0, width + 1, height)), text
        assert not [other for other, its in texts[:i] if box.overlaps(its)], text


@pytest.mark.parametrize("name", COMMITTED)
def test_a_picture_is_transparent_and_has_colours_for_light_and_dark(name):
    root = ElementTree.fromstring(COMMITTED[name][1])
    assert not list(root.iter(SVG + "rect"))
    assert "background" not in COMMITTED[name][1]
    (style,) = root.iter(SVG + "style")
    light, dark = style.text.split("@media (prefers-color-scheme: dark)")
    for side, part in enumerate((light, dark)):
        assert set(re.findall(r"#\w{6}", part)) == {pair[side] for pair in drawing.COLOURS.values()}
    assert root.get("aria-label")


def test_colours_can_be_read_on_their_ground_and_on_the_other():
    """Not every browser asks the page, rather than the system, whether it is dark."""
    grounds = ("#ffffff", "#0d1117")
    for name, pair in drawing.COLOURS.items():
        for side, colour in enumerate(pair):
            assert contrast(colour, grounds[side]) >= 4.5, name
            assert contrast(colour, grounds[not side]) >= 3, name


@pytest.mark.parametrize(("low", "high"), [(0.42, 7.2), (1.0, 1.0), (0.98, 1.02), (0.01, 0.5), (1.2, 3000.0)])
def test_ticks_are_powers_of_two_around_all_values_and_1(low, high):
    ticks = drawing.octaves(low, high)
    assert ticks[0] <= min(low, 1)
    assert ticks[-1] >= max(high, 1)
    assert 1 in ticks
    assert 2 <= len(ticks) <= 8
    assert np.allclose(np.log2(ticks), np.round(np.log2(ticks)))


def test_the_title_follows_from_the_numbers(records):
    rows = runtime_pictures.over_networks(records, "one", 1)
    assert [(row.name, row.value) for row in rows] == [("aeedge fp32", 0.5), ("onnxruntime", 1.0)], "PCA is left out"
    assert runtime_pictures.message(rows, 1, "one") == (
        "1 sample a call, one thread: aeedge fp32 is the fastest, 0.50 of onnxruntime's time"
    )
    records.of("speed", contender="aeedge fp32", threads="one", batch=1)[0]["seconds"] = 3e-5
    rows = runtime_pictures.over_networks(records, "one", 1)
    assert runtime_pictures.message(rows, 1, "one") == (
        "1 sample a call, one thread: aeedge fp32 takes 1.50 of onnxruntime's time; "
        "onnxruntime is the fastest with 1.00"
    )
    assert runtime_pictures.message(rows[:1], 64, "all").endswith(
        "onnxruntime is the fastest, 1.00 of onnxruntime's time"
    )


def test_who_does_not_run_all_networks_is_not_in_the_mean(records):
    cell = records.of("speed", contender="onnxruntime", threads="one", batch=1)[0]
    records.lines.insert(3, cell | {"workload": "seed"})
    assert [row.name for row in runtime_pictures.over_networks(records, "one", 1)] == ["onnxruntime"]


def test_bars_are_quartiles_of_the_rounds_and_rings_other_outputs(records):
    cell = records.of("speed", contender="aeedge fp32", threads="one", batch=1)[0]
    cell["quartiles"] = [0.8e-5, 1.6e-5]
    (row, peer) = runtime_pictures.of_rounds(records, "deep", "one", 1)
    assert (row.low, row.value, row.high) == pytest.approx((0.4, 0.5, 0.8))
    assert not row.hollow
    assert "Ring" not in runtime_pictures.of_network(records, "deep")
    records.of("check", contender="aeedge fp32")[0]["error"] = 0.02
    assert runtime_pictures.of_rounds(records, "deep", "one", 1)[0].hollow
    assert "by up to 2%" in runtime_pictures.of_network(records, "deep")
    assert (peer.strong, peer.hollow) == (False, False)


def test_the_title_of_the_search_names_the_fastest_within_five_percent():
    point = {"hidden": [8], "variant": "fp32"}
    front = [
        point | {"latency_us": 1.0, "loss": 2.0},
        point | {"hidden": [16], "variant": "int8", "latency_us": 2.0, "loss": 1.04},
        point | {"hidden": [], "latency_us": 4.0, "loss": 1.0},
    ]
    drawn = pictures.search(front)
    assert ElementTree.fromstring(drawn).get("aria-label") == (
        "MNIST: the network 16 int8 takes 0.50 of the time of linear, the most accurate, with 4.0% more error"
    )
    assert len(re.findall("<circle", drawn)) == 3
