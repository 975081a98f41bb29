"""The site of docs/: builds without a warning, its links lead somewhere, and it needs nothing from elsewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

import aeedge
import aeedge_export

ROOT = Path(__file__).parents[2]


class Parsed(HTMLParser):
    """What a page links to, loads and is called."""

    def __init__(self, html):
        super().__init__()
        self.ids, self.links, self.loaded, self.title, self.description = set(), [], [], "", ""
        self._in_title = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids |= {attributes.get("id"), attributes.get("name") if tag == "a" else None} - {None}
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if tag == "meta" and attributes.get("name") == "description":
            self.description = attributes["content"]
        self._in_title = tag == "title" and not self.title
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.loaded.append(attributes.get("src") or "")
        if tag == "link" and attributes.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(attributes["href"])

    def handle_data(self, data):
        if self._in_title:
            self.title, self._in_title = data, False


@pytest.fixture(scope="module")
def pages(site):
    """What each page has, by its path in the site."""
    files = [path for path in site.rglob("*.html") if path.name != "404.html"]
    found = {path.relative_to(site).as_posix(): Parsed(path.read_text(encoding="utf-8")) for path in files}
    assert len(found) > 50
    return found


def test_links_and_anchors_lead_somewhere(site, pages):
    lost = []
    for name, page in pages.items():
        for link in page.links + page.loaded:
            target = urlsplit(urljoin(f"http://here/{name}", link))
            if target.netloc != "here":
                continue
            path = unquote(target.path).lstrip("/") or "index.html"
            anchor = unquote(target.fragment)
            if not (site / path).is_file() or (anchor and path in pages and anchor not in pages[path].ids):
                lost.append(f"{name}: {link}")
    assert not lost


def test_every_page_has_a_title_and_a_description_of_its_own(pages):
    assert not [name for name, page in pages.items() if not page.title.strip() or len(page.description) < 15]
    for what in ("title", "description"):
        texts = [getattr(page, what) for page in pages.values()]
        assert not {text for text in texts if texts.count(text) > 1}, f"more than one page with this {what}"


def test_nothing_is_loaded_from_elsewhere(site, pages):
    assert not [f"{name}: {link}" for name, page in pages.items() for link in page.loaded if urlsplit(link).netloc]
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_search_knows_every_page(site, pages):
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert not [name for name in pages if f'"location":"{name}' not in index.replace('": "', '":"')]


def test_lists_are_lists(site, pages):
    """A list that Markdown takes for the end of a paragraph is none."""
    for name in pages:
        article = re.search(r"<article.*?</article>", (site / name).read_text(encoding="utf-8"), re.DOTALL)
        text = re.sub(r"<(pre|table|svg).*?</\1>", "", article.group(), flags=re.DOTALL)
        assert not re.findall(r"\w[^<>]*\n *(?:- |\* |\d\. |\|)[^<]*", text), name


def test_the_home_page_leads_to_every_part(pages):
    assert {"quickstart.html", "how-to/device-guide.html"} <= set(pages["index.html"].links)


@pytest.mark.parametrize("package", [aeedge, aeedge_export])
def test_everything_public_is_in_the_reference(package, pages):
    ids = pages[f"reference/api/{package.__name__}.html"].ids
    missing = [name for name in package.__all__ if not {f"{package.__name__}.{name}", name} & ids]
    assert missing == (["__version__"] if package is aeedge else [])


@pytest.mark.parametrize("name", ["Autoencoder", "Model", "Stream"])
def test_every_public_member_of_a_class_is_in_the_reference(name, pages):
    package = aeedge if hasattr(aeedge, name) else aeedge_export
    bases = [base for base in getattr(package, name).__mro__ if base.__module__.startswith("aeedge")]
    members = {member for base in bases for member in vars(base) if not member.startswith("_")}
    members -= {f"set_{method}_request" for method in members}  # scikit-learn's
    assert members
    ids = pages[f"reference/api/{package.__name__}.html"].ids
    assert {member for member in members if f"{package.__name__}.{name}.{member}" not in ids} == set()


def test_every_command_and_option_is_in_the_reference(site, pages):
    from aeedge.cli.group import DEVICE, WORKSTATION, AeedgeGroup

    text = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    parts = dict(re.findall(r'<h2 id="aeedge-(\w+)">(.*?)(?=<h2 id=|</article>)', text, re.DOTALL))
    assert parts.keys() == {*DEVICE, *WORKSTATION}
    group = AeedgeGroup.build()
    for name, part in parts.items():
        options = [option for each in group.get_command(None, name).params for option in each.opts if "-" in option]
        assert options
        assert not [option for option in options if option not in part], name
