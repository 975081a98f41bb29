"""The evaluation of a run, and its report."""

import math
import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.datasets import load_digits

from aeedge.cli.group import AeedgeGroup
from aeedge.errors import InputError
from aeedge_export import Autoencoder
from aeedge_export.networks.base import multiply_adds
from aeedge_export.reporting import charts, comparison, palette
from aeedge_export.reporting.axes import text_width
from aeedge_export.reporting.detection import anomalous_class
from aeedge_export.reporting.evaluation import against_pca, health
from aeedge_export.reporting.figure import Plain
from aeedge_export.reporting.page import render
from aeedge_export.reporting.verdict import tiles, verdict
from aeedge_export.reporting.wording import date, duration, number, percent

LABELS = load_digits().target


@pytest.fixture(scope="module")
def evaluated(digits):
    ae = Autoencoder(latent=8, epochs=10, random_state=0).fit(digits)
    ae.evaluate(digits, LABELS)
    return ae


def test_the_evaluation_compares_with_pca(evaluated, digits):
    ours, pca = evaluated.evaluation_["baseline"]
    assert ours["error"] < pca["error"]
    assert 0.5 < pca["probe"] <= 1
    assert -0.1 < ours["kmeans"] <= 1
    assert evaluated.evaluation_["data"]["shape"] == [1797, 64]
    alone = Autoencoder(family="pca", latent=8, random_state=0).fit(digits)
    ours, pca = alone.evaluate(digits)["baseline"]
    assert ours["error"] == pytest.approx(pca["error"], rel=1e-3)  # family pca is PCA
    assert (ours["multiply_adds"], ours["parameters"]) == (pca["multiply_adds"], 2 * 8 * 64 + 64 + 8)


def test_multiply_adds_count_every_layer():
    X = np.random.default_rng(0).random((80, 1, 8, 8)).astype(np.float32)
    ae = Autoencoder(family="conv2d", latent=4, hidden=(3,), linear_path=False, epochs=1, random_state=0).fit(X)
    down, head, tail, up = 3 * 9 * 16, 48 * 4, 4 * 48, 3 * 16 * 16
    assert multiply_adds(ae.network_) == down + head + tail + up


def test_health_detects_collapse():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(500, 4))
    assert health(latents)["dead"] == 0
    assert health(latents)["effective_rank"] == pytest.approx(4, rel=0.02)
    latents[:, 2] = 7.0
    assert health(latents)["dead"] == 1
    same = np.repeat(rng.normal(size=(500, 1)), 4, axis=1)
    assert health(same)["effective_rank"] == pytest.approx(1, abs=0.01)


def test_labels_of_another_length(evaluated, digits):
    with pytest.raises(InputError, match="labels: expected one label for each of the 1797 rows"):
        evaluated.evaluate(digits, LABELS[:5])


class Strict(HTMLParser):
    """Fails on tags that are not closed, and collects what a page would load."""

    VOID = frozenset({"meta", "img", "wbr", "circle", "rect", "line", "polyline"})

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.tags = [], [], set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.loads += [v for k, v in attributes if k in ("src", "href", "xlink:href")]
        if tag not in self.VOID and tag not in ("tr", "td", "th", "p", "html", "body"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)
        self.loads += [v for k, v in attributes if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in self.VOID and tag not in ("tr", "td", "th", "p", "html", "body"):
            assert self.open.pop() == tag


class Readable(HTMLParser):
    """What a screen reader needs: headings in order, tables with headers, pictures with a text, regions that scroll."""

    def __init__(self):
        super().__init__()
        self.levels, self.tags = [], {}

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.tags[tag] = self.tags.get(tag, 0) + 1
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "html":
            assert known["lang"] == "en"
        if tag == "th":
            assert known["scope"] in ("col", "row")
        if tag == "img":
            assert known["alt"]
        if tag == "svg":
            assert known.get("aria-hidden") == "true" or (known["role"] == "img" and known["aria-label"])
        if "scroll" in known.get("class", "").split():
            assert (known["tabindex"], known["role"]) == ("0", "region")
            assert known["aria-label"]

    def check(self):
        assert self.tags["main"] == self.levels.count(1) == 1
        assert all(later <= earlier + 1 for earlier, later in zip(self.levels, self.levels[1:]))


def check_page(page):
    parser, reader = Strict(), Readable()
    parser.feed(page)
    reader.feed(page)
    reader.check()
    assert not parser.open
    assert "<th></th>" not in page
    for picture in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        check_picture(picture)
    assert "script" not in parser.tags
    assert all(load.startswith("data:image/png;base64,") for load in parser.loads)
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page).lower().replace("finance", "")
    return page


def check_picture(picture):
    """It is XML, its texts are inside it and do not cover each other, and no coordinate is missing."""
    root = ElementTree.fromstring(picture)
    width, height = (float(value) for value in root.get("viewBox").split()[2:])
    size, boxes = float(root.get("font-size", 13)), []
    assert not re.search(r'"[^"]*\b(nan|inf)\b', re.sub(r"<title>.*?</title>", "", picture))
    for one in root.iter("text"):
        wide, x, y = text_width(one.text, size), float(one.get("x")), float(one.get("y"))
        left = x - wide * {"start": 0, "middle": 0.5, "end": 1}[one.get("text-anchor")]
        boxes.append((one.text, left, y - 0.75 * size, left + wide, y))
        assert left >= -1, one.text
        assert left + wide <= width + 1, one.text
        assert 0 <= y - 0.75 * size <= y <= height, one.text
    for i, (text, left, top, right, bottom) in enumerate(boxes):
        for other, its_left, its_top, its_right, its_bottom in boxes[:i]:
            assert left >= its_right or its_left >= right or top >= its_bottom or its_top >= bottom, (text, other)
    return boxes


def test_the_page_is_whole_and_loads_nothing(evaluated):
    page = check_page(render(evaluated.run_))
    for heading in (
        "Reconstructions",
        "Against PCA",
        "Anomaly detection",
        "Latents",
        "Map of the latents",
        "Training",
        "How it was made",
    ):
        assert heading in page
    assert page.count("<img") == 8 + 10  # reconstructions, and the residuals of the highest scores
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_tables_show_features_and_signals_show_lines(rows):
    ae = Autoencoder(latent=2, epochs=3, random_state=0).fit_rows(rows, features=["<b>", "b", "c", "d", "e", "f"])
    page = check_page(render(ae.run_))
    assert "&lt;b&gt;" in page  # names are escaped
    assert "Error of each feature" in page
    signals = np.random.default_rng(0).normal(size=(80, 1, 64)).astype(np.float32)
    assert "reconstruction of row" in check_page(
        render(Autoencoder(family="conv1d", latent=4, epochs=2).fit(signals).run_)
    )


@pytest.mark.filterwarnings("ignore:.*columns never change")
@pytest.mark.parametrize("family", ["dense", "vae", "pca"])
def test_where_pca_is_exact_there_is_no_ratio(family):
    rng = np.random.default_rng(0)
    tables = {
        "one column": rng.normal(size=(150, 1)),
        "one that varies": np.c_[rng.normal(size=150), np.full(150, 5.0), np.zeros(150)],
        "one row that differs": np.r_[np.zeros((150, 3)), np.ones((1, 3))],
        "two kinds of rows": np.repeat(rng.normal(size=(2, 5)), 80, axis=0),
        "rank two": rng.normal(size=(150, 2)) @ rng.normal(size=(2, 6)),
        "equal columns": np.repeat(rng.normal(size=(150, 1)), 4, axis=1),
    }
    for X in tables.values():
        ae = Autoencoder(family, epochs=2, random_state=0).fit(X)
        found = ae.evaluate(X)
        assert found["baseline"][1]["error"] == 0
        assert against_pca(ae.run_).endswith("; PCA is exact here")
        page = check_page(render(ae.run_))
        assert "PCA is exact here" in page
        assert "× that of PCA" not in page


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 32)])
def test_two_images_or_signals_again_and_again(shape):
    X = np.repeat(np.random.default_rng(0).random((2, *shape)), 60, axis=0)
    ae = Autoencoder("conv2d" if len(shape) == 3 else "conv1d", epochs=1, random_state=0).fit(X)
    ae.evaluate(X)
    assert against_pca(ae.run_).endswith("; PCA is exact here")
    check_page(render(ae.run_))


def test_train_says_that_pca_is_exact(tmp_path):
    np.savetxt(tmp_path / "x.csv", np.random.default_rng(0).normal(size=(60, 1)), header="temp", comments="")
    args = ["train", tmp_path / "x.csv", "-o", tmp_path / "run", "--epochs", "2", "-q"]
    result = CliRunner().invoke(AeedgeGroup.build(), [str(a) for a in args])
    assert result.exit_code == 0, result.output
    assert "; PCA is exact here; report in" in result.output


def test_runs_without_epochs_or_map_have_a_page_too(rows):
    check_page(render(Autoencoder(family="pca", latent=1).fit(rows).run_))


def test_train_writes_the_report_and_the_command_writes_it_again(tmp_path, digits):
    np.savez(tmp_path / "digits.npz", X=digits[:300], y=LABELS[:300])
    args = ["train", tmp_path / "digits.npz", "-o", tmp_path / "run", "--labels", "y", "--epochs", "3", "-q"]
    result = CliRunner().invoke(AeedgeGroup.build(), [str(a) for a in args])
    assert result.exit_code == 0, result.output
    assert "× that of PCA; report in" in result.output
    page = (tmp_path / "run" / "report.html").read_text()
    assert "linear probe" in page
    result = CliRunner().invoke(AeedgeGroup.build(), ["report", str(tmp_path / "run"), "-o", str(tmp_path / "r.html")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "r.html").read_text() == page


def test_with_a_bundle_the_page_shows_the_layers_of_int8(tmp_path, evaluated, digits, time_has_no_say):
    evaluated.save(tmp_path / "run")
    variant = evaluated.export(tmp_path / "m.aeedge", variants=("fp32", "int8"), calibration=digits).variants["int8"]
    args = ["report", tmp_path / "run", "--bundle", tmp_path / "m.aeedge"]
    result = CliRunner().invoke(AeedgeGroup.build(), [str(a) for a in args])
    assert result.exit_code == 0, result.output
    page = check_page((tmp_path / "run" / "report.html").read_text())
    assert "Quality on held-out rows, compared with fp32: " in page
    for layer in variant.decisions["layers"]:
        assert f"<td>{layer['graph']}</td><td>{layer['layer']}</td><td>{layer['choice']}</td>" in page


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A table of eight sensors and a label; in the last fifth one sensor is off."""
    rng = np.random.default_rng(0)
    X = np.tanh(rng.normal(size=(1500, 3))) @ rng.normal(size=(3, 8)) + 0.05 * rng.normal(size=(1500, 8))
    fault = (np.arange(1500) >= 1200).astype(int)
    X[:, 2] += 3 * fault
    place = tmp_path_factory.mktemp("labelled") / "rows.csv"
    names = [f"s{i}" for i in range(8)]
    np.savetxt(place, np.column_stack([X, fault]), delimiter=",", header=",".join([*names, "fault"]), comments="")
    return place


def test_the_report_of_a_labelled_file_says_what_is_found(labelled, tmp_path):
    run = str(tmp_path / "run")
    arguments = [str(labelled), "-o", run, "--select", "fault == 0", "--labels", "fault", "--epochs", "20", "-q"]
    done = CliRunner().invoke(AeedgeGroup.build(), ["train", *arguments, "--latent", "3"])
    assert done.exit_code == 0, done.output
    assert re.search(
        r"score both, threshold \S+: a false-alarm rate of 0\.\d+ %, from 120 calibration rows", done.output
    )
    auc = float(re.search(r"class '1(?:\.0)?' counts as anomalous; ROC AUC ([\d.]+)", done.output)[1])
    assert auc > 0.95
    found = Autoencoder.load(run).evaluation_["detection"]
    assert [one["rows"] for one in found["labels"]["classes"]] == [
        120,
        300,
    ]  # held-out ones, also those that were not selected
    assert found["labels"]["classes"][1]["alarms"] > 200
    assert {one["causes"][0]["name"] for one in found["worst"]} == {"s2"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "ROC AUC" in page
    assert "threshold" in page
    Strict().feed(page)
    again = CliRunner().invoke(
        AeedgeGroup.build(),
        ["report", run, "-o", str(tmp_path / "x.html"), "--test", str(labelled), "--labels", "fault"],
    )
    assert again.exit_code == 0, again.output
    assert f"ROC AUC {auc:.3f}" in again.output
    alone = CliRunner().invoke(
        AeedgeGroup.build(), ["report", run, "-o", str(tmp_path / "y.html"), "--labels", "fault"]
    )
    assert alone.exit_code == 2
    assert "--labels: expected --test DATA" in alone.output


@pytest.mark.parametrize(
    ("classes", "counts", "anomalous"),
    [
        (["0", "1"], [1, 99], "1"),
        (["-1", "1"], [99, 1], "-1"),
        (["normal", "v"], [1, 99], "v"),
        (["a", "b"], [99, 1], "b"),
        (["False", "True"], [1, 9], "True"),
        (["a", "b", "c"], [9, 1, 1], None),
        (["a"], [3], None),
    ],
)
def test_which_class_counts_as_anomalous(classes, counts, anomalous):
    assert anomalous_class(classes, counts) == anomalous


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["ink", "soft", *(f"c{i}" for i in range(1, palette.SERIES + 1))])
def test_colours_have_the_contrast_of_text_on_page_and_card(name, dark):
    for background in ("page", "card"):
        lights = sorted(luminance(palette.COLOURS[one][dark]) for one in (name, background))
        assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5


def test_no_two_classes_share_colour_and_shape():
    points = np.random.default_rng(0).normal(size=(200, 2))
    for count in (2, 8, charts.MOST_CLASSES):
        _, legend = charts.scatter(points, np.arange(200) % count, Plain("x"), Plain("y"), "points")
        looks = {re.sub(r"[\d.]+(?=[,\" ])", "", str(mark)) + str(len(str(mark))) for mark, _ in legend}
        assert len(legend) == count
        assert len(looks) == count
    _, legend = charts.scatter(points, np.arange(200) % 40, Plain("x"), Plain("y"), "points")
    assert legend == []
    _, legend = charts.scatter(points, np.arange(200) % 12, Plain("x"), Plain("y"), "points")
    assert [name for _, name in legend] == [str(i) for i in range(12)]  # numbers in their order


@pytest.mark.parametrize("seed", range(6))
def test_texts_of_charts_are_inside_apart_and_ticks_round(seed):
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.integers(-8, 8)
    epochs = list(range(1, int(rng.integers(1, 80)) + 2))
    names = [f"run{i}" * int(rng.integers(1, 4)) for i in range(int(rng.integers(1, 9)))]
    curves = {name: (epochs, (scale * (1 + rng.random(len(epochs)) / np.array(epochs))).tolist()) for name in names}
    curves[names[0]][1][-1] = math.nan
    boxes = check_picture(charts.lines(curves, Plain("epoch"), Plain("loss"), "losses", whole=True, log=True))
    assert set(names[1:]) <= {text for text, *_ in boxes}
    edges = np.geomspace(scale, 20 * scale, 30)
    counts = rng.integers(0, 9000, 29).tolist()
    check_picture(
        charts.histogram(edges, counts, limit=float(scale * rng.uniform(0.5, 90)), x=Plain("score"), y=Plain("rows"))
    )
    check_picture(charts.columns((scale * rng.random(40)).tolist(), [False] * 40, Plain("latent"), Plain("variance")))
    ticks = [text for text, *_ in boxes if re.fullmatch(r"[\d.,−]+", text)]
    assert len(ticks) >= 4
    assert all(len(re.sub(r"\D", "", text).strip("0")) <= 3 for text in ticks)


def test_times_dates_and_numbers_are_for_people():
    shown = {0.034: "0.034 s", 1.23: "1.2 s", 9.97: "10 s", 59.7: "1 min", 80: "1 min 20 s", 7500: "2 h 5 min"}
    assert {seconds: duration(seconds) for seconds in shown} == shown
    assert duration(3 * 86400 + 4 * 3600 + 5) == "3 d 4 h"
    assert date("2026-11-27T08:27:38+00:00") == "27 November 2026, 08:27 UTC"
    assert date("yesterday") == "yesterday"
    numbers = {0.0: "0", 12400.0: "12,400", -2e-6: "−2×10⁻⁶", 1e9: "10⁹", 0.25: "0.25", 1234567.0: "1.23457×10⁶"}
    assert {value: number(value) for value in numbers} == numbers
    shares = {0.0055: "0.55 %", 0.437: "44 %", 0.9961: "99.6 %", 1.0: "100 %", 0.061: "6.1 %", 0.0: "0 %"}
    assert {share: percent(share).replace("\xa0", " ") for share in shares} == shares


def changed(run, *, errors=None, dead=0, params=None, **other):
    """A run with other findings."""
    evaluation = dict(run.evaluation)
    if errors is not None:
        evaluation["baseline"] = [one | {"error": error} for one, error in zip(evaluation["baseline"], errors)]
    evaluation["health"] = evaluation["health"] | {"dead": dead}
    evaluation |= other.pop("evaluation", {})
    state = replace(run.state, **other.pop("state", {}))
    return replace(run, evaluation=evaluation, params=run.params | (params or {}), state=state, **other)


DETECTED = {
    "detection": {
        "labels": {
            "classes": [{"name": "ok", "rows": 100, "alarms": 1}, {"name": "fault", "rows": 20, "alarms": 15}],
            "anomalous": "fault",
            "roc_auc": 0.97,
        }
    }
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"errors": (0.36, 1.0)}, "^64 % less error than PCA with 8 latents; 0.55 % false alarms at threshold "),
        ({"errors": (1.021, 1.0)}, "^2.1 % more error than PCA with 8 latents: use --family pca"),
        ({"errors": (5.9, 1.0)}, "^5.9 times the error of PCA with 8 latents: use --family pca"),
        ({"errors": (1.5, 1.0), "noise": (("gaussian", 0.1),)}, "which this recipe trades for anomaly scores"),
        ({"errors": (1.01, 1.0)}, "^As much error as PCA with 8 latents: use --family pca, which has fewer"),
        ({"errors": (0.1, 0.0)}, "PCA is exact here with 8 latents: use --family pca"),
        ({"dead": 2}, "2 of 8 latents are dead: try --latent 6"),
        ({"dead": 1}, "1 of 8 latents is dead: try --latent 7"),
        ({"dead": 8}, "all latents are constant"),
        ({"alarm": None}, "no alarm threshold, for no rows were held out"),
        ({"evaluation": DETECTED}, r"^Finds 75 % of 'fault' at 0.55 % false alarms \(ROC AUC 0.970\); "),
        ({"state": {"stopped": "diverged"}}, "^The training diverged in epoch 10: try a lower --learning-rate"),
        ({"state": {"stopped": "interrupted"}}, "^The training was interrupted after 10 epochs: continue it"),
        ({"errors": (1.5, 1.0), "params": {"family": "vae"}}, "use --family pca or lower --beta"),
        ({"evaluation": {"held_out": False}}, "on rows that it was trained on"),
    ],
)
def test_the_verdict_is_decided_by_the_numbers(evaluated, changes, said):
    run = changed(evaluated.run_, **changes)
    found = verdict(run).replace("\xa0", " ")
    assert re.search(said, found)
    assert found.endswith(".")
    assert "  " not in found


def test_the_verdict_of_compression_has_no_word_on_alarms(evaluated):
    run = changed(evaluated.run_, alarm=None, calibration=None, params={"goal": "compress"})
    assert "alarm" not in verdict(run)
    assert "false alarms" not in {tile.name for tile in tiles(run)}


def test_what_should_be_mended_is_marked(evaluated):
    def bad(**changes):
        return {tile.name for tile in tiles(changed(evaluated.run_, **changes)) if tile.bad}

    assert bad(errors=(0.5, 1.0)) == set()
    assert bad(errors=(1.5, 1.0), dead=3) == {"error, PCA = 1", "latents"}
    drift = {"drift": True, "alarms": 9, "rows": 50, "low": 0, "high": 3}
    assert bad(errors=(0.5, 1.0), alarm=replace(evaluated.run_.alarm, drift=drift)) == {"false alarms"}


def test_runs_that_were_not_evaluated_have_a_verdict_too(evaluated, digits):
    for evaluation in ({}, {"detection": evaluated.evaluation_["detection"]}):
        page = check_page(render(replace(evaluated.run_, evaluation=evaluation)))
        assert "not compared with PCA" in page


def test_a_training_that_diverged_has_a_page(evaluated):
    history = [dict(epoch) for epoch in evaluated.run_.state.history]
    for epoch in history[3:]:
        epoch["train_loss"] = epoch["validation_loss"] = math.nan
    check_page(render(changed(evaluated.run_, state={"history": history, "stopped": "diverged"})))


def test_errors_of_features_are_those_of_the_whole(rows):
    ae = Autoencoder(latent=2, epochs=3, random_state=0).fit_rows(rows, features=list("abcdef"))
    found = ae.evaluate(rows)
    for i, key in enumerate(("error", "pca")):
        assert np.mean([one[key] for one in found["features"]]) == pytest.approx(
            found["baseline"][i]["error"], rel=1e-3
        )
    assert check_page(render(ae.run_)).count('var(--c2)"></span></td>') == 6
    windows = np.random.default_rng(0).normal(size=(80, 2, 30)).astype(np.float32) * [[[1], [3]]]
    found = Autoencoder("pca", latent=2, channels="first").fit(windows).evaluate(windows)["features"]
    assert {one["index"] for one in found} == {0, 1}


@pytest.mark.parametrize(("name", "images"), [("温度/sensor_long_name_of_a_column_{}", 0), ("pixel_{}", 18)])
def test_named_columns_are_a_table_unless_they_are_pixels(digits, name, images):
    ae = Autoencoder("pca", latent=3).fit_rows(digits[:200], features=[name.format(i) for i in range(64)])
    ae.evaluate(digits[:200])
    page = check_page(render(ae.run_))
    assert page.count("<img") == images
    assert ("the largest 30 of 64" in page) == (not images)


@pytest.fixture(scope="module")
def several(tmp_path_factory, digits):
    """Runs of the same data: two alike, one of other held-out rows, one scaled otherwise; and one of other data."""
    place = tmp_path_factory.mktemp("several")
    options = {"latent": 4, "epochs": 3, "random_state": 0}
    for name, changes, X in (
        ("a", {}, digits[:600]),
        ("b", {"latent": 8}, digits[:600]),
        ("seed", {"random_state": 1}, digits[:600]),
        ("scaled", {"scaling": "standard"}, digits[:600]),
        ("other", {}, digits[600:]),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pixels that are always dark
            ae = Autoencoder(**options | changes).fit(X)
        ae.evaluate(X)
        ae.save(place / name)
    return place


@pytest.mark.parametrize(
    ("names", "said", "best"),
    [
        ("a b", "Comparable: the same data, the same held-out rows, errors in the same units.", "b is the best: "),
        (
            "a seed",
            "The same data, but different held-out rows (seed, split or goal differ)",
            "that no run was trained on",
        ),
        ("a scaled", "The same data, but different units", "errors are compared on 60 rows that no run was trained on"),
        ("a b other", "Not comparable: other had other data than a", "The errors of these runs cannot be compared"),
    ],
)
def test_a_comparison_says_whether_it_can_be_made(several, tmp_path, monkeypatch, names, said, best):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(AeedgeGroup.build(), ["report", *(str(several / name) for name in names.split())])
    assert result.exit_code == 0, result.output
    page = check_page((tmp_path / "comparison.html").read_text())
    assert said in page
    assert best in page
    for name in names.split():
        assert f'<th scope="col">{name}</th>' in page
    settings = page.partition("Settings that differ")[2]
    assert ('<th scope="row">latent</th>' in settings) == ("b" in names.split())
    assert ('<th scope="row">scaling</th>' in settings) == ("scaled" in names)
    assert '<th scope="row">activation</th>' not in settings


def test_a_common_error_is_in_one_unit(several, digits):
    runs = {name: Autoencoder.load(several / name).run_ for name in ("a", "scaled")}
    errors, rows = comparison._errors(runs, comparison.in_common(list(runs.values())))
    own = [run.evaluation["baseline"][0]["error"] for run in runs.values()]
    assert rows == 60
    assert errors[0] == pytest.approx(own[0], rel=1e-4)
    assert not 0.5 < errors[1] / own[1] < 2  # of standardized pixels it would be another number


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("a a", "is named twice"),
        ("a b/../a", "is named twice"),
        ("a nothing", "expected a run"),
        ("a b --labels y", "--labels: is of one RUN, and 2 are compared"),
        ("a b --bundle m.aeedge", "--bundle: is of one RUN"),
        ("a b -o a/run.json", "would damage the run"),
        ("a b -o page.txt", "expected a name that ends in .html"),
        ("a b -o there.html", "already exists"),
    ],
)
def test_what_cannot_be_compared_is_refused(several, monkeypatch, arguments, message):
    monkeypatch.chdir(several)
    (several / "there.html").write_text("mine")
    result = CliRunner().invoke(AeedgeGroup.build(), ["report", *arguments.split()])
    assert result.exit_code == 2
    assert message in result.output
    assert (several / "there.html").read_text() == "mine"
    assert not (several / "comparison.html").exists()


@pytest.mark.parametrize("option", ["--array X", "--rate 2Hz", "--labels y", "--no-header", "--delimiter ;"])
def test_options_of_test_rows_are_not_ignored_without_them(tmp_path, evaluated, option):
    evaluated.save(tmp_path / "run")
    result = CliRunner().invoke(AeedgeGroup.build(), ["report", str(tmp_path / "run"), *option.split()])
    assert result.exit_code == 2
    assert f"{option.split()[0]}: expected --test DATA" in result.output.replace("--header:", "--no-header:")


def test_a_bundle_of_another_run_is_refused(tmp_path, evaluated):
    evaluated.save(tmp_path / "run")
    other = Autoencoder(family="pca", latent=2).fit(np.random.default_rng(0).normal(size=(50, 5)))
    other.export(tmp_path / "m.aeedge")
    args = ["report", str(tmp_path / "run"), "--bundle", str(tmp_path / "m.aeedge")]
    result = CliRunner().invoke(AeedgeGroup.build(), args)
    assert result.exit_code == 2
    assert "--bundle: expected a bundle that was made from RUN" in result.output
    args = ["export", str(tmp_path / "run"), "-o", str(tmp_path / "n.aeedge"), "--array", "X"]
    result = CliRunner().invoke(AeedgeGroup.build(), args)
    assert result.exit_code == 2
    assert "--array: expected --calibration DATA" in result.output
