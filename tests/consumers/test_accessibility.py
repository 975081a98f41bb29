"""Pages that people see: contrast, labels, headings and sizes, light and dark, on a desk and on a phone."""

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.accessible import violations
from helpers.browsers import DATA, ExamplePage, samples, write
from helpers.devices import by_size
from sklearn.datasets import load_digits

from aeedge.cli.group import AeedgeGroup
from aeedge_export.architecture_search import session

PAGES = ("report of images", "report of a table", "bench", "search", "browser", "browser with data")


def call(*args, codes=(0,)):
    result = CliRunner().invoke(AeedgeGroup.build(), [str(arg) for arg in args])
    assert result.exit_code in codes, result.output


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Eight sensors and a label; in the last fifth one sensor is off."""
    rng = np.random.default_rng(0)
    rows = np.tanh(rng.normal(size=(600, 3))) @ rng.normal(size=(3, 8)) + 0.05 * rng.normal(size=(600, 8))
    fault = (np.arange(600) >= 480).astype(int)
    rows[:, 2] += 3 * fault
    path = tmp_path_factory.mktemp("table") / "rows.csv"
    names = ["temperature_of_the_bearing_at_the_drive_end", *[f"s{i}" for i in range(1, 8)], "fault"]
    np.savetxt(path, np.column_stack([rows, fault]), delimiter=",", header=",".join(names), comments="")
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory, table):
    """written(page): the file that aeedge writes, made on first use."""
    folder = tmp_path_factory.mktemp("pages")

    def images():
        digits = load_digits()
        np.savez(folder / "digits.npz", X=digits.images[:400].astype(np.float32)[:, None], y=digits.target[:400])
        call("train", folder / "digits.npz", "-o", folder / "images", "--labels", "y", "--epochs", "3", "-q")
        return folder / "images/report.html"

    def of_table():
        run = folder / "table"
        chosen = ("--select", "fault == 0", "--labels", "fault", "--latent", "3")
        call("train", table, "-o", run, *chosen, "--epochs", "10", "-q")
        return run / "report.html"

    def bench():
        options = ("--seconds", "0.3", "--quick", "--html", folder / "bench.html", "--force")
        call("bench", DATA / "bundle_v1", *options, codes=(0, 1))  # 1: the machine is busy, and the page says so
        return folder / "bench.html"

    def search():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session, "measure", by_size)
            options = ("--families", "pca,dense", "--latents", "2,4", "--time", "60s", "-q")
            call("search", table, "-o", folder / "found", *options)
        return folder / "found/report.html"

    makers = {"report of images": images, "report of a table": of_table, "bench": bench, "search": search}
    made = {}

    def get(page):
        if page not in made:
            made[page] = makers[page]()
        return made[page]

    return get


@pytest.fixture
def filled(browser, tmp_path):
    """Fills the page of examples/browser with a bundle and a CSV."""

    def fill():
        page = ExamplePage(browser)
        path = write(tmp_path / "rows.csv", [f"s{i}" for i in range(8)], samples("bundle_v1_robust_int8"))
        assert page.bundle(DATA / "bundle_v1_robust_int8") is None
        assert page.csv(path) is None

    return fill


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_read(browser, examples, written, filled, page, width, dark):
    url = f"{examples}/browser/" if page.startswith("browser") else written(page)
    prepare = filled if page == "browser with data" else None
    found = violations(browser, url, width=width, dark=dark, prepare=prepare)
    assert not found, "\n".join(found)


def test_what_keeps_people_from_reading_is_found(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(
        "<!DOCTYPE html><html><head><title>x</title></head><body><main><h1>A</h1><h3>B</h3>"
        "<img src='data:,'><input><p style='color:#bbb;background:#fff'>pale</p>"
        "<div style='width:2000px'>wide</div><svg width='100' height='50'>"
        "<text x='90' y='20' style='font-size:8px;fill:#bbb'>a long name</text></svg></main></body></html>"
    )
    found = {sentence.split(":")[0] for sentence in violations(browser, path)}
    expected = {
        "overflow",
        "small",
        "clipped",
        "color-contrast",
        "heading-order",
        "html-has-lang",
        "image-alt",
        "label",
    }
    assert expected <= found
    path.write_text(
        "<!DOCTYPE html><html lang='en'><head><title>x</title><meta name='viewport' content='width=device-width'>"
        "</head><body><main><h1>A</h1><p>text</p></main></body></html>"
    )
    assert violations(browser, path) == []
