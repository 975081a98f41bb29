"""The evaluation of a run, and its report."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.datasets import load_digits

from aeedge.cli.group import AeedgeGroup
from aeedge.errors import InputError
from aeedge_export import Autoencoder
from aeedge_export.networks.base import multiply_adds
from aeedge_export.reporting.detection import anomalous_class
from aeedge_export.reporting.evaluation import against_pca, health
from aeedge_export.reporting.page import render

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


def check_page(page):
    parser = Strict()
    parser.feed(page)
    assert not parser.open
    assert "script" not in parser.tags
    assert all(load.startswith("data:image/png;base64,") for load in parser.loads)
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page).lower().replace("finance", "")
    return page


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
