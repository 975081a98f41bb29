"""The site in a browser, from a server and from the file system: search finds pages, nothing is asked of others."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def address(request, site):
    """URL of the home page, served or as a file."""
    if request.param == "file":
        yield (site / "index.html").as_uri()
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=site))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("address", ["served", "file"], indirect=True)
def test_search_finds_pages(browser, address):
    browser.open(f"{address}?q=recalibrate")
    browser.wait("document.querySelectorAll('.md-search-result__item a').length > 0")
    found = browser.evaluate("[...document.querySelectorAll('.md-search-result__item a')].map((one) => one.href)")
    assert any("reference/cli.html" in url for url in found)
    hosts = {urlsplit(url).netloc for url in browser.requests}
    assert hosts <= {urlsplit(address).netloc, ""}  # "": files, and what a page made itself
    assert browser.errors == []
