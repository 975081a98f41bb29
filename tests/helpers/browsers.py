"""A headless browser with one page, driven through driver.mjs, a server of the examples, and the one for a browser."""

import csv
import http.server
import json
import subprocess
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from helpers.waiting import soon

_ROOT = Path(__file__).parent.parent.parent
DATA = _ROOT / "tests/data"
_DRIVER = Path(__file__).with_name("driver.mjs")


class Browser:
    """Chromium with one page at a time.

    Args:
        node: the program.
        node_modules: with puppeteer-core and axe-core.
        chromium: the program.
    """

    def __init__(self, node, node_modules, chromium):
        command = [node, str(_DRIVER), str(node_modules), chromium]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self._answer()

    def open(self, url, *, width=1280, height=900, dark=False):
        """Open a URL, or a file by its path, in a new page."""
        url = url.resolve().as_uri() if isinstance(url, Path) else url
        self._do("open", url=url, width=width, height=height, dark=dark)

    def upload(self, selector, *paths):
        """Choose files in an input."""
        self._do("upload", selector=selector, paths=[str(path) for path in paths])

    def drop(self, *paths):
        """Drop files and folders on the page."""
        self._do("drop", paths=[str(path) for path in paths])

    def wait(self, expression):
        """Wait until an expression is true."""
        self._do("wait", expression=expression)

    def evaluate(self, expression):
        """The value of an expression, or of a promise, as JSON has it."""
        return self._do("evaluate", expression=expression)

    def text(self, selector):
        """What is shown of an element."""
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")

    def download(self, selector, folder):
        """Click on a link whose file goes to a folder."""
        self._do("download", selector=selector, folder=str(folder))

    def axe(self, rules=None):
        """Violations that axe-core finds: {id, help, nodes}; of some rules, or all."""
        return self._do("axe", rules=rules)

    def screenshot(self, path, *, full_page=True):
        self._do("screenshot", path=str(path), fullPage=full_page)

    @property
    def errors(self):
        """Of the page's scripts."""
        return self._do("errors")

    @property
    def requests(self):
        """URLs that the page asked for."""
        return self._do("requests")

    def close(self):
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def _do(self, name, **options):
        self._process.stdin.write(json.dumps({"name": name, **options}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        assert line, f"the browser ended with {self._process.wait(60)}"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]


class _Handler(http.server.SimpleHTTPRequestHandler):
    """The folder examples, as `python -m http.server` serves it; its node_modules may be elsewhere."""

    def __init__(self, *args, node_modules, **options):
        self._node_modules = node_modules
        super().__init__(*args, directory=_ROOT / "examples", **options)

    def translate_path(self, path):
        prefix = "/node_modules/"
        if not path.startswith(prefix):
            return super().translate_path(path)
        return str(self._node_modules / path.removeprefix(prefix))

    def log_message(self, *_):
        pass


@contextmanager
def served(node_modules):
    """The URL at which the folder examples is served."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, node_modules=node_modules))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class ExamplePage:
    """What a visitor does and sees at examples/browser."""

    def __init__(self, browser):
        self.browser = browser

    def choose(self, selector, *paths):
        """Choose files; returns the sentence of the error, or None."""
        return self._result(lambda: self.browser.upload(selector, *paths))

    def drop(self, *paths):
        """Drop files and folders; returns as `choose`."""
        return self._result(lambda: self.browser.drop(*paths))

    def _result(self, act):
        self.browser.evaluate("document.body.dataset.state = 'waiting'")
        act()
        self.browser.wait("['ready', 'failed'].includes(document.body.dataset.state)")
        failed = self.browser.evaluate("document.body.dataset.state") == "failed"
        return self.browser.text("#error") if failed else None

    def bundle(self, folder):
        return self.choose("#files", *sorted(folder.iterdir()))

    def csv(self, path):
        return self.choose("#csv", path)

    def golden(self):
        """Cells of the table of reference outputs."""
        return self.browser.evaluate(
            "[...document.querySelectorAll('#golden tr')].map((row) => [...row.cells].map((cell) => cell.innerText))"
        )

    def variant(self, name):
        self.browser.evaluate(
            "document.body.dataset.state = 'waiting',"
            f"document.querySelector('#variant').value = '{name}',"
            "document.querySelector('#variant').dispatchEvent(new Event('change'))"
        )
        self.browser.wait("document.body.dataset.state === 'ready'")

    def result(self, folder):
        """Columns of the file that can be downloaded, by name."""
        folder.mkdir()
        self.browser.download("#download", folder)
        assert soon(lambda: (folder / "scores.csv").exists())
        with (folder / "scores.csv").open() as file:
            head, *rows = csv.reader(file)
        return dict(zip(head, np.array(rows, np.float64).T))


def samples(name, n=60):
    """Rows like the reference ones; and some far from them."""
    with np.load(DATA / name / "golden.npz") as golden:
        recorded = golden["input"].reshape(len(golden["input"]), -1)
    rng = np.random.default_rng(0)
    rows = rng.permuted(np.resize(recorded, (n, recorded.shape[1])), axis=0)
    calm = np.repeat(np.median(recorded, axis=0, keepdims=True), n // 4, axis=0)
    return np.concatenate([calm, rows]).astype(recorded.dtype)


def write(path, names, rows, delimiter=",", decimal="."):
    lines = [delimiter.join(names)] if names else []
    lines += [delimiter.join(f"{value:.9g}".replace(".", decimal) for value in row.tolist()) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path
