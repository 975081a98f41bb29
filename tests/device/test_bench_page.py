"""The page of `aeedge bench --html`: what it says, whether it can be read, and its charts."""

import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers.contrast import contrast

from aeedge.bench import page as pages
from aeedge.bench import svg
from aeedge.bench.page import page
from aeedge.bench.scenarios import Run
from aeedge.bench.summary import summarise
from aeedge.bench.text import human_time, text, time_unit

NS = 1000  # of a microsecond


def run(us, count=50_000, rows=1, seed=0):
    """Latencies around a median in microseconds, with one stall."""
    values = np.random.default_rng(seed).lognormal(np.log(us), 0.1, count)
    values[-1] = 1e3 * us
    return Run((values * NS).astype(np.int64), rows, values.sum() / 1e6)


def document(us=50.0, status="valid", findings=(), **parts):
    scenarios = {
        "SingleStream": summarise("SingleStream", [run(us)]),
        "MultiStream": summarise("MultiStream", [run(3 * us, rows=8, seed=1)]),
        "Offline": summarise("Offline", [run(2000 * us, 5, rows=24_576, seed=2)]),
    }
    about = {"path": "a.aeedge", "name": "a <b>", "id": "0" * 64, "family": "dense", "variant": "fp32"}
    about |= {"input_shape": [12], "input_dtype": "float32", "latent_size": 3, "latent_shape": [3]}
    versions = {"aeedge": "1.0", "numpy": "2.4", "onnxruntime": "1.32"}
    machine = {
        "processor": "Cortex-A72",
        "cpus": 4,
        "system": "Linux 6 aarch64",
        "python": "3.11",
        "versions": versions,
    }
    return {
        "status": status,
        "interrupted": status == "interrupted",
        "started_at": "2026-01-01T00:00:00Z",
        "bundle": about,
        "method": "encode",
        "threads": 2,
        "machine": machine,
        "findings": list(findings),
        "scenarios": scenarios,
    } | parts


def window(at, us=50.0, memory=80.0):
    found = {"at_s": at, "p50_us": us, "p99_us": 1.2 * us, "max_us": 90 * us, "rows_per_second": 1e6 / us}
    return found | {"celsius": None, "mhz": None, "memory_mb": memory}


BUSY = {"part": "Offline", "grade": "invalid", "code": "other_load", "message": "other processes used 90% of the CPU"}
RATIO = {"estimate": 1.02, "low": 0.99, "high": 1.04}
COMPARISON = [
    {"rows": 1, "ratio": RATIO, "this_us": 51.0, "other_us": 50.0, "verdict": "no_difference"},
    {"rows": 1024, "ratio": RATIO, "this_us": 6400.0, "other_us": 6300.0, "verdict": "slower"},
]
OTHER = {"path": "other.aeedge", "id": "1" * 64, "variant": "int8"}
RATE = {"rate_requested": 500.0, "rate_achieved": 500.0, "deadline_us": 2000.0, "start_delay_p50_us": 1.0}
RATE |= {"queries_due": 1500, "unserved": 0, "deadline_misses": 30}
FIXED = document()["scenarios"] | {"FixedRate": summarise("FixedRate", [run(60, 1500)._replace(due=1500)]) | RATE}
BATCHES = [{"rows": n, "us": 50 + 2.0 * n, "rows_per_second": n / (50 + 2.0 * n) * 1e6} for n in (1, 8, 64, 512, 4096)]
SOAK = {"seconds": 600.0, "drift": 1.01, "windows": [window(10.0 * i, memory=80 + i / 100) for i in range(60)]}
MEMORY = {"imported": 40.0, "loaded": 50.0, "steady": 55.0, "peak": 60.0}
PHASES = dict.fromkeys(
    ("start_ms", "import_numpy_ms", "import_aeedge_ms", "load_ms", "first_call_ms", "start_to_first_result_ms"), 12.0
)
PHASES |= {"processes": 3, "warm_up_calls": 7, "warm_up_ms": 0.2, "steady_us": 50.0, "steady_calls": 900}
PHASES |= {"idle_cpu_percent": 0.004, "memory_slope_bytes_per_1000_calls": 0.0, "memory_mb": MEMORY}
OPERATORS = [{"rows": n, "graph": "encoder", "name": "Gemm_0", "op_type": "Gemm", "us": 30.0 * n} for n in (1, 1024)]
TOTALS = [{"rows": n, "operators_us": 30.0 * n, "run_us": 40.0 * n, "call_us": 38.0 * n} for n in (1, 1024)]

DOCUMENTS = {
    "valid": document(),
    "everything": document(
        scenarios=FIXED,
        batches=BATCHES,
        soak=SOAK,
        phases=PHASES,
        profile={"operators": OPERATORS, "totals": TOTALS},
    ),
    "slow": document(us=6339.0),
    "invalid": document(status="invalid", findings=[BUSY]),
    "interrupted": document(status="interrupted", scenarios={"SingleStream": summarise("SingleStream", [run(5, 3)])}),
    "clock set back": document(
        status="invalid",
        scenarios={"SingleStream": summarise("SingleStream", [run(5)._replace(latencies=np.arange(-9_000, 3_000))])},
        batches=[{"rows": 1, "us": -5.0, "rows_per_second": -2e5}, *BATCHES],
    ),
    "one query": document(scenarios={"Offline": summarise("Offline", [run(5, 1)])}),
    "nothing": document(status="interrupted", scenarios={}),
    "compared": document(scenarios={}, comparison=COMPARISON, compared_with=OTHER),
    "baseline": document(
        comparison=[{"scenario": "Offline"} | {k: v for k, v in COMPARISON[0].items() if k != "rows"}],
        compared_with=OTHER | {"started_at": "2026-01-01T00:00:00Z"},
    ),
    "short soak": document(scenarios={}, soak={"seconds": 0.5, "drift": None, "windows": [window(0.0)]}),
}


class Seen(HTMLParser):
    """Tags in order, with their attributes, and whether each is closed where it was opened."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_kind_of_result_has_a_page_that_can_be_read_aloud(name):
    html = page(DOCUMENTS[name])
    seen = Seen(html)
    assert not seen.open
    assert seen.of("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in seen.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in seen.of("svg"))
    assert all(cell["scope"] in ("row", "col") for cell in seen.of("th"))
    scrolled = [region for region in seen.of("div", "pre") if region.get("role") == "region"]
    assert len(scrolled) == html.count("<table") + 1
    assert all(region["tabindex"] == "0" and region["aria-label"] for region in scrolled)
    assert "nan" not in html.lower().replace("finance", "")
    assert not re.search(r"(src|href)=|<b>", html)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("valid", "VALID: no disturbance was found"),
        ("invalid", "INVALID: do not use these numbers"),
        ("interrupted", "INTERRUPTED: these are the numbers until then"),
    ],
)
def test_the_page_opens_with_its_verdict_and_why(name, words):
    html = page(DOCUMENTS[name])
    assert html.index("</h1>") < html.index(words) < html.index('class="tiles"') < html.index("<h2>")
    why = html.index(BUSY["message"]) if name == "invalid" else html.index(words)
    assert why < html.index('class="tiles"')


def tiles(html):
    return dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", html))


def test_tiles_say_the_median_the_p99_the_throughput_threads_and_machine():
    found = tiles(page(DOCUMENTS["valid"]))
    values = np.array(run(50.0).latencies) / NS
    assert found["Median, one sample"] == human_time(np.median(values))
    assert found["p99, one sample"] == human_time(np.percentile(values, 99))
    assert found["Threads"] == "2"
    assert found["Machine"] == "Cortex-A72"
    assert found["Throughput, at most"].endswith("/s")
    assert tiles(page(DOCUMENTS["interrupted"]))["p99, one sample"] == "–"
    assert tiles(page(DOCUMENTS["compared"]))["1,024 samples a call: slower"] == "1.020"


def test_long_times_are_milliseconds_in_tiles_tables_and_charts_and_on_the_terminal():
    html = page(DOCUMENTS["slow"])
    assert tiles(html)["Median, one sample"] == "6.34 ms"
    assert '<th scope="col">SingleStream, ms</th>' in html
    assert ">latency of a query, ms</text>" in html
    assert ">latency, ms</text>" in html
    shown = text(DOCUMENTS["slow"])
    assert "SingleStream, ms" in shown
    assert "6,339" not in shown
    assert '<th scope="col">SingleStream, µs</th>' in page(DOCUMENTS["valid"])


@pytest.mark.parametrize(
    ("microseconds", "unit"),
    [
        ([6339.0], "ms"),
        ([999.0], "µs"),
        ([3.5, 22_000.0], "µs"),
        ([552.0, 12_584.0], "ms"),
        ([2e6, None], "s"),
        ([], "µs"),
    ],
)
def test_times_that_stand_together_have_one_unit(microseconds, unit):
    assert time_unit(microseconds)[0] == unit


def test_the_page_says_what_lies_above_the_histogram():
    html = page(DOCUMENTS["valid"])
    assert "49 above, up to 50.0 ms." in html  # of 50 000, above the 49 951st; one stall among them
    assert "All queries by latency." in html  # of Offline


def test_equal_latencies_have_all_their_percentiles():
    same = run(5)._replace(latencies=np.full(7_000, 123_456_789))  # the histogram's first edge is rounded above it
    html = page(document(scenarios={"SingleStream": summarise("SingleStream", [same])}))
    assert re.findall(r">(p[\d.]+)</text><text [^>]+>([\d.]+)<", html) == [
        (name, "123.5") for name in ("p50", "p90", "p99", "p99.9")
    ]


def test_p99_is_drawn_beside_the_median_and_the_largest_where_parts_are_too_short():
    html = page(DOCUMENTS["everything"])
    names = re.findall(r'class="name" x="[\d.]+" y="16.0" text-anchor="start">([^<]+)<', html)
    assert names == ["median", "p99", "median", "p99", "median", "largest", "median", "p99"]


# --- what can be seen ------------------------------------------------------------------------------------------------


def palettes():
    """Colours by name, of the light and the dark page."""
    return [dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in pages._STYLE.split("@media (prefers")[:2]]


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_a_contrast_of_4_5_and_marks_of_3(dark):
    colours = palettes()[dark]
    assert {"ink", "soft", "paper", "card", "c1", "c2", "c3", "c8"} <= colours.keys()
    for ground in ("paper", "card"):
        assert min(contrast(colours[name], colours[ground]) for name in ("ink", "soft")) >= 4.5
        assert min(contrast(colours[name], colours[ground]) for name in ("c1", "c2", "c3", "c8")) >= 3


def test_text_of_charts_is_11_pixels_high_on_a_phone():
    (size,) = map(float, re.findall(r"svg text \{ font-size: ([\d.]+)px", pages._STYLE))
    assert size * (390 - 2 * 16) / svg._WIDTH >= 11


def ticks(drawn):
    """Texts of the axes by their place: below, and at the left."""
    texts = re.findall(r'<text class="axis" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">([^<]+)</text>', drawn)
    below = [(float(x), word) for x, y, anchor, word in texts if anchor == "middle" and float(y) < svg._BOTTOM + 20]
    left = [(float(y), word) for x, y, anchor, word in texts if anchor == "end"]
    return below, left


def number(word):
    return float(word.replace(",", "").replace(" k", "e3").replace(" M", "e6"))


def is_round(value):
    return f"{value:.6e}".split("e")[0].rstrip("0").rstrip(".") in {"0", "1", "2", "5"} or value == 0


CURVES = [
    [(0.0, 3.5), (1.0, 3.7), (2.0, 160.0)],
    [(0.0, 0.012), (2.9, 0.011)],
    [(0.0, 552.0), (300.0, 12_584.0)],
    [(0.0, 7.0)],
    [(1.0, 3e5), (4096.0, 4.2e7)],
    [(0.5, 99.9), (17.0, 100.1), (59.0, 100.3)],
]


@pytest.mark.parametrize("points", CURVES)
@pytest.mark.parametrize("options", [{}, {"from_zero": False}, {"log": True}])
def test_the_baseline_and_the_top_of_a_chart_have_round_labels_and_hold_all_points(points, options):
    points = [(max(x, 0.1), y) for x, y in points] if "log" in options else points
    drawn = svg.lines([svg.Line("a", "c1", points)], ("time, s", "latency, µs"), **options)
    below, left = ticks(drawn)
    values = [number(word) for _, word in left]
    assert len(left) >= 2
    assert len(set(values)) == len(values)
    assert left[0][0] == pytest.approx(svg._BOTTOM + 4.5)
    assert values[0] <= min(y for _, y in points) * 1.0001
    assert values[-1] >= max(y for _, y in points) * 0.9999
    steps = np.diff(values)
    assert all(map(is_round, values)) or (is_round(float(f"{steps[0]:.6g}")) and np.ptp(steps) < 1e-6 * steps[0] + 1e-9)
    gaps = np.abs(np.diff([y for y, _ in left]))
    assert gaps.min() >= 13, "labels overlap"
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)" r="2"', drawn)]
    assert all(0 <= y <= svg._BOTTOM for y in heights)
    widths = [svg._CHARACTER * len(word) for _, word in below]
    assert all(b - a >= (v + w) / 2 for (a, _), (b, _), v, w in zip(below, below[1:], widths, widths[1:]))


@pytest.mark.parametrize("counts", [[1], [4, 0, 3], [40, 7], [492_169, 20, 1], [10**9, 1]])
def test_gridlines_of_a_histogram_are_whole_numbers_from_0(counts):
    edges = [float(10**k) for k in range(len(counts) + 1)]
    _, left = ticks(svg.bars(edges, counts, [], ("latency, µs", "queries")))
    values = [number(word) for _, word in left]
    assert values[0] == 0
    assert all(value.is_integer() and is_round(value) for value in values)
    assert values == sorted(set(values))
    assert 0.2 * max(counts) <= values[-1] <= max(counts)


@pytest.mark.parametrize("seed", range(20))
def test_labels_of_percentiles_do_not_overlap_and_stay_inside(seed):
    random = np.random.default_rng(seed)
    values = np.sort(3 * 10 ** (random.random(4) * random.choice([0.01, 0.3, 4])))
    marks = [(name, value, f"{value:,.2f}") for name, value in zip(("p50", "p90", "p99", "p99.9"), values)]
    drawn = svg.bars([2.9, 5, 40_000], [3, 9], marks, ("latency, µs", "queries"))
    placed = re.findall(r'class="name" x="([\d.]+)" y="(?:12|27).0" text-anchor="middle">([^<]+)<', drawn)
    assert len(placed) == 8
    for row in (placed[::2], placed[1::2]):
        ends = [(float(x) - 3.7 * len(word), float(x) + 3.7 * len(word)) for x, word in row]
        assert all(a < b for (_, a), (b, _) in itertools.pairwise(ends))
        assert ends[0][0] >= 0
        assert ends[-1][1] <= svg._WIDTH
    lines = re.findall(r'class="mark" d="M[\d.]+,31L([\d.]+),', drawn)
    x = svg.log_axis(2.9, 40_000, svg._LEFT, svg._RIGHT)
    assert [float(at) for at in lines] == pytest.approx([x.at(value) for value in values], abs=0.06)
