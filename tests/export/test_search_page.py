"""The page and the picture of a search."""

import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aeedge_export.architecture_search import pictures
from aeedge_export.architecture_search.page import front_svg, render, verdict
from aeedge_export.reporting.axes import Axis, Box, Labels, shortened_name, text_width

SVG = "{http://www.w3.org/2000/svg}"


def point(name, loss, latency_us, **other):
    """A point as `Search.summary` has it."""
    known = {"trial": name, "family": "dense", "hidden": [64], "latent": 8, "variant": "fp32", "judged": loss}
    costs = {"rate": 5e6 / latency_us, "size": round(1e4 * latency_us), "memory": round(2e5 * latency_us), "macs": 9000}
    return (
        {"name": name, "loss": loss, "latency_us": latency_us, "on_front": False, "meets": True} | known | costs | other
    )


def summary(points, **other):
    """What `Search.summary` returns, of these points."""
    return {
        "objective": "error",
        "budget": dict.fromkeys(("latency_us", "rate", "size", "memory", "macs", "at")),
        "max_error_vs_best": None,
        "best": None,
        "nearest": None,
        "reference": None,
        "points": points,
        "curve": [],
        "smallest_latent": None,
        "stopped": "done",
        "notes": [],
        "rows": {"training": 800, "selection": 100, "judging": 150, "anomalous": [0, 0], "what": "rows"},
        "measured": {
            "where": "this machine",
            "machine": {"processor": "A53", "cpus": 4, "system": "Linux", "versions": {"onnxruntime": "1.20.0"}},
            "status": "valid",
            "method": "encode",
            "threads": "auto",
            "latency_at": 1,
            "rate_at": 1024,
            "noise": 0.02,
            "rank_agreement": None,
        },
        "trials": [
            {"name": p["trial"], "rung": 2, "loss": p["loss"], "seconds": 3.0, "fate": "trained"} for p in points
        ],
        "data": {"shape": [1050, 64], "dtype": "float32", "sha256": "ab" * 32},
        "random_state": 0,
        "variants": ["fp32", "int8"],
        "seconds": 61.0,
        "time_limit": 600.0,
        "versions": {"aeedge": "0.1.0"},
    } | other


def many(count, seed=0, **other):
    """A search of `count` points, some of them on the front, and PCA."""
    rng = np.random.default_rng(seed)
    points = []
    for i in range(count):
        latency = float(np.exp(rng.uniform(1, 4)))
        variant = ("fp32", "int8")[i % 2]
        name = f"{rng.choice(['dense', 'conv1d'])}-{i}-{'x' * rng.integers(1, 30)}-k8" + ("-int8" if i % 2 else "")
        points.append(point(name, float((1 + 3 / latency) * rng.uniform(1, 1.3)), latency, variant=variant))
    for one in points:
        better = [o for o in points if o["loss"] < one["loss"] and o["latency_us"] < one["latency_us"]]
        one["on_front"] = not better
    reference = point("pca-k8", 3.0, 2.5, family="pca")
    limits = dict.fromkeys(("latency_us", "rate", "size", "memory", "macs", "at")) | {"latency_us": 20.0}
    for one in points:
        one["meets"] = one["latency_us"] <= 20
    meeting = sorted((one for one in points if one["meets"]), key=lambda one: one["loss"])
    found = {
        "budget": limits,
        "max_error_vs_best": 0.05,
        "best": meeting[0]["name"] if meeting else None,
        "nearest": None if meeting else "no network meets the budget; the nearest is a",
        "reference": reference,
        "curve": [{"latent": k, "error": 1 / k, "probe": 1 - 0.5 / k} for k in (2, 4, 8, 16)],
        "smallest_latent": 16,
    }
    return summary([*points, reference], **found | other)


class Page(HTMLParser):
    """Refuses wrongly nested elements and scripts; collects text and what would be loaded."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.loads = [], [], []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "iframe")
        self.loads += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def text_of(html):
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    assert page.loads == []
    text = " ".join(" ".join(page.text).split())
    assert not re.search(r"\b(nan|inf|None)\b", text.partition("@media")[0] + text.rpartition("}")[2])
    for picture in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ElementTree.fromstring(picture)
        assert not re.search(r'="[^"]*\b(nan|inf)\b', re.sub(r"<title>.*?</title>|aria-label", "", picture))
    return text


def drawn(svg):
    """Boxes of the texts of a picture, by text, and its width and height."""
    root = ElementTree.fromstring(svg)
    width, height = (float(value) for value in root.get("viewBox").split()[2:])
    size, found = float(root.get("font-size")), []
    for one in root.iter():
        if one.tag.removeprefix(SVG) == "text":
            wide = text_width(one.text, size) * (1.1 if one.get("font-weight") else 1)
            x, y = float(one.get("x")), float(one.get("y"))
            left = x - wide * {"start": 0, "middle": 0.5, "end": 1}[one.get("text-anchor")]
            found.append((one.text, Box(left, y - 0.8 * size, left + wide, y + 0.1 * size)))
    return found, width, height


@pytest.mark.parametrize("count", [1, 2, 5, 12, 40])
@pytest.mark.parametrize("width", [pictures.WIDE, pictures.NARROW])
def test_texts_of_a_picture_overlap_nothing_and_are_inside(count, width):
    named = 0
    for seed in range(4):
        found = many(count, seed)
        svg = pictures.as_file(pictures.front(found, pictures.time_of(found), width))
        texts, right, bottom = drawn(svg)
        for i, (text, box) in enumerate(texts):
            assert box.left >= -1, text
            assert box.right <= right + 1, text
            assert 0 <= box.top < box.bottom <= bottom, text
            for other, its in texts[:i]:
                assert not box.overlaps(its), (text, other)
        shown = {text for text, _ in texts}
        if found["best"]:
            assert any(shortened_name(found["best"], most) in shown for most in (30, 20, 14))
        front = [one["name"] for one in found["points"] if one["on_front"]]
        named += sum(any(shortened_name(name, most) in shown for most in (30, 20, 14)) for name in front) / len(front)
    assert named / 4 > (0.95 if width == pictures.WIDE else 0.7)


@pytest.mark.parametrize("count", [1, 5, 40])
def test_the_file_is_xml_with_colours_of_its_own_that_names_every_point(count):
    found = many(count)
    svg = front_svg(found)
    root = ElementTree.fromstring(svg)
    assert root.tag == SVG + "svg"
    assert "var(" not in svg
    assert "prefers-color-scheme: dark" in svg
    titles = [one.text for one in root.iter(SVG + "title")]
    assert len(titles) == count + 1
    for one in found["points"]:
        assert sum(title.startswith(one["name"] + ": ") for title in titles) == 1


def test_no_title_or_name_lies_on_a_mark_of_the_front():
    found = many(12)
    root = ElementTree.fromstring(front_svg(found))
    texts, _, _ = drawn(front_svg(found))
    circles = [one for one in root.iter(SVG + "circle") if float(one.get("r")) >= 5 and float(one.get("cy")) < 400]
    legend = min(box.top for text, box in texts if text == "fp32")
    marks = [Box.of_point(float(one.get("cx")), float(one.get("cy")), float(one.get("r")) - 1) for one in circles]
    marks = [mark for mark in marks if mark.bottom < legend - 10]
    assert marks
    assert not [text for text, box in texts for mark in marks if box.overlaps(mark)]


@pytest.mark.parametrize("objective", ["error", "auc", "probe"])
@pytest.mark.parametrize("loss", [0.0, 0.25])
def test_equal_losses_and_costs(objective, loss):
    points = [point(f"dense-{i}-k4", loss, 5.0, on_front=True) for i in range(6)]
    found = summary(points, objective=objective, best="dense-0-k4", max_error_vs_best=0.0)
    text = text_of(render(found))
    assert text.count("dense-5-k4") >= 1
    drawn(front_svg(found))


def test_values_that_are_missing_or_no_numbers():
    points = [
        point("a", 0.5, 5.0, memory=None, on_front=True),
        point("b", math.inf, 6.0, judged=math.nan, memory=None),
        point("c", 1e-9, 1e7, memory=None, on_front=True),
    ]
    found = summary(points, best="a")
    found["trials"] += [
        {"name": "d", "rung": None, "loss": None, "seconds": 0.0, "fate": "not reached"},
        {"name": "e", "rung": 0, "loss": math.inf, "seconds": 1.0, "fate": "failed: <no>"},
    ]
    found["measured"] |= {"where": None, "machine": None, "status": None, "noise": None}
    text = text_of(render(found))
    assert "2 of 5 candidates: 1 not reached, 1 failed" in text
    assert "10 s" in text
    assert "failed: <no>" in text


@pytest.mark.parametrize("stopped", ["done", "time", "interrupted"])
def test_a_search_that_found_nothing(stopped):
    found = summary([], stopped=stopped, nearest="the time ran out before one candidate was trained to the end")
    text = text_of(render(found))
    assert "The time ran out before one candidate was trained to the end." in text
    assert ("--resume" in text) == (stopped != "done")
    assert [text for text, _ in drawn(front_svg(found))[0]] == [verdict(found)]


def test_names_are_escaped():
    hostile = "<b>&\"'</b>]]>"
    found = many(3, best=hostile, notes=["<script>"])
    found["points"][0] |= {"name": hostile, "trial": "$(rm) x", "on_front": True}
    html = render(found)
    assert "<b>" not in html
    assert hostile in text_of(html)
    assert "SEARCH/runs/'$(rm) x'" in text_of(html)
    assert any(hostile in text for text, _ in drawn(front_svg(found))[0])


def test_long_names_keep_both_ends():
    assert shortened_name("dense-128-k32-int8", 30) == "dense-128-k32-int8"
    short = shortened_name("conv1d-" + "64-" * 40 + "k32-int8", 20)
    assert len(short) == 20
    assert short.startswith("conv1d-")
    assert short.endswith("k32-int8")


def test_the_verdict_says_what_was_asked_and_what_it_costs():
    limits = summary([])["budget"]
    points = [point("a", 1.0, 30.0), point("b", 1.03, 5.4, rate=123_400.0)]
    found = summary(points, best="b", budget=limits | {"latency_us": 20.0, "size": 200_000}, max_error_vs_best=0.05)
    assert verdict(found) == (
        "b: 5.4 µs a sample, error 1.03 times the best; meets the budget of 20 µs, 200 kB, within 5 % of the best."
    )
    found = summary(points, best="b", budget=limits | {"rate": 50_000.0})
    assert verdict(found) == (
        "b: 123k samples/s in calls of 1,024, error 1.03 times the best; meets the budget of 50k samples/s."
    )
    points = [point("a", 0.02, 2500.0)]
    found = summary(points, best="a", objective="auc", max_error_vs_best=0.01)
    found["measured"]["latency_at"] = 256
    assert verdict(found) == "a: 2.5 ms a call of 256 samples, ROC AUC 0.9800; the fastest within 0.01 of the best."
    found = summary(points, nearest="no network meets the budget; the nearest is a")
    assert verdict(found) == "No network meets the budget; the nearest is a."


@pytest.mark.parametrize(
    ("limit", "shown"), [(20.0, "budget 20 µs"), (1e7, "budget 10 s →"), (1e-3, "← budget 0.001 µs")]
)
def test_a_budget_far_away_is_named_at_the_edge(limit, shown):
    found = many(8)
    found["budget"]["latency_us"] = limit
    texts = [text for text, _ in drawn(front_svg(found))[0]]
    assert shown in texts


def test_the_rate_that_is_asked_for_is_on_the_axis():
    found = many(8)
    found["budget"] |= {"latency_us": None, "rate": 400_000.0}
    texts = [text for text, _ in drawn(front_svg(found))[0]]
    assert "budget 400k/s" in texts
    assert "time of a sample in calls of 1,024, logarithmic" in texts


def test_a_disturbed_or_foreign_measurement_is_told():
    found = many(3)
    assert "not valid" not in text_of(render(found))
    assert "Spearman" not in text_of(render(found))
    found["measured"] |= {"status": "invalid", "where": "'ssh pi@gateway'", "rank_agreement": 0.934}
    text = text_of(render(found))
    assert "The times are not valid" in text
    assert "'ssh pi@gateway'" in text
    assert "Spearman's correlation 0.93" in text


def test_int8_and_fp32_differ_in_shape():
    found = summary([point("a", 1.0, 5.0, on_front=True), point("b", 1.1, 3.0, on_front=True, variant="int8")])
    groups = {g.find(SVG + "title").text[0]: g for g in ElementTree.fromstring(front_svg(found)).iter(SVG + "g")}
    assert groups["a"].find(SVG + "circle") is not None
    assert groups["b"].find(SVG + "circle") is None
    assert groups["b"].find(SVG + "path") is not None


def test_the_smallest_number_of_latents_is_marked():
    texts = [text for text, _ in drawn(str(pictures.by_latents(many(3)["curve"], "error", 16, 0.05)))[0]]
    assert "16 latents" in texts
    assert not pictures.by_latents([{"latent": 4, "error": 0.5, "probe": None}], "probe", 4, 0.05)


@given(
    st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=20),
    st.booleans(),
    st.integers(5, 9),
)
def test_ticks_are_round_few_and_on_the_axis(values, log, most):
    axis = Axis.around(values, 0, 500, log=log)
    ticks = axis.ticks(most)
    assert 2 <= len(ticks) <= most + 1
    assert ticks == sorted(set(ticks))
    for tick in ticks:
        assert -1e-6 <= axis.at(tick) <= 500 + 1e-6
        assert float(f"{tick:.4g}") == pytest.approx(tick, rel=1e-9)
    for value in values:
        assert 0 < axis.at(value) < 500


def test_labels_give_up_where_nothing_is_free():
    labels = Labels(Box(0, 0, 60, 20), 12)
    assert labels.place(30, 10, "a name that is far too long") is None
    assert labels.taken == []


def test_widths_of_texts_are_rather_over_than_under():
    font = pytest.importorskip("PIL.ImageFont").load_default(size=12)
    for text in (
        "dense-128-k32-int8",
        "conv1d-16-32-s4-2-sep-k8",
        "5 % above the best",
        "budget 20 µs",
        "WWW mmm 100 kB",
    ):
        assert text_width(text, 12) >= font.getlength(text)
