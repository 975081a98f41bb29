"""Hooks of mkdocs: what the site has beside the pages in docs/.

- Pages that live elsewhere (changelog, benchmarks, examples) are included; links between all of them are rewritten, and
  a link to a file that the site does not have becomes its path.
- "folder/*.md" in the navigation stands for the pages of a folder that it does not name itself.
- `<!-- commands -->` and `<!-- decisions -->` are replaced by what they say.
- Tutorials are executed.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import cli_reference
import tutorials
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
_INCLUDED = {  # pages outside docs/, by their address in the site; * is the same in both
    "CHANGELOG.md": "reference/changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "README.md": "readme.md",
    "benchmarks/README.md": "reference/benchmarks.md",
    "benchmarks/results/*.md": "reference/benchmarks/*.md",
    "examples/*/README.md": "examples/*.md",
    "packaging/*/README.md": "packaging/*.md",
}
_FENCE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2`*\n?", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)|`[^`]*`")
# A list that follows a paragraph at once: one on GitHub, none to Python-Markdown
_LIST = re.compile(r"^(?![ \t]|[-*+] |\d+\. |[|#>])(.+)\n(?=[-*] |1\. )", re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill in the navigation."""
    docs = Path(config.docs_dir)
    pages = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    pages += sorted({*_included().values(), *(f"tutorials/{path.stem}.md" for path in tutorials.sources())})
    config.nav = _filled(config.nav, pages, set(_named(config.nav)))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/, and the tutorials."""
    for source, address in _included().items():
        files.append(File.generated(config, address, abs_src_path=str(ROOT / source)))
    for address, content in tutorials.pages():
        if existing := files.get_file_from_path(address):
            files.remove(existing)
        files.append(File.generated(config, address, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Insert what is generated, resolve links, and leave comments out."""
    markdown = markdown.replace("<!-- commands -->", cli_reference.text())
    markdown = markdown.replace("<!-- decisions -->", _decisions())
    here, sources = page.file.src_uri, {address: source for source, address in _included().items()}
    source = sources.get(here, f"docs/{here}")

    def rewrite(text: str) -> str:
        text = _LIST.sub(r"\1\n\n", _COMMENT.sub("", text))
        return _LINK.sub(lambda match: _link(match, source, here, files), text)

    markdown = _outside_fences(markdown, rewrite)
    heading = markdown.lstrip("# ").split("\n", 1)[0]
    page.meta.setdefault("description", _description(markdown) or f"{heading}. {config.site_description}")
    return markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Link the pages that docstrings name."""
    if not page.file.src_uri.startswith("reference/api/"):
        return html
    return re.sub(r"\bdocs/([\w/-]+)\.md", r'<a href="../../\1.html">\1</a>', html)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """What the theme leaves out for a screen reader."""
    for without, with_it in (
        ('<div class="md-search"', '<div class="md-search" aria-label="Search"'),
        ("<th></th>", "<td></td>"),
    ):
        output = output.replace(without, with_it)
    return output


def _included() -> dict[str, str]:
    """Address in the site by path in the project."""
    found = {}
    for pattern, address in _INCLUDED.items():
        for path in sorted(ROOT.glob(pattern)):
            source = path.relative_to(ROOT).as_posix()
            star = next((part for part, of in zip(source.split("/"), pattern.split("/")) if "*" in of), "")
            found[source] = address.replace("*", star.removesuffix(".md"))
    found.pop("README.md", None)  # the home page says it
    return found


def _named(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for inner in nav.values() if isinstance(nav, dict) else nav:
            yield from _named(inner)


def _filled(nav: Any, pages: list[str], named: set[str]) -> Any:
    if isinstance(nav, dict):
        return {title: _filled(inner, pages, named) for title, inner in nav.items()}
    if isinstance(nav, str):
        return nav
    filled: list[Any] = []
    for entry in nav:
        if isinstance(entry, str) and "*" in entry:
            depth = entry.count("/")
            filled += [
                page for page in pages if fnmatch(page, entry) and page.count("/") == depth and page not in named
            ]
        else:
            filled.append(_filled(entry, pages, named))
    return [entry for entry in filled if not (isinstance(entry, dict) and [] in entry.values())]


def _outside_fences(markdown: str, change: Any) -> str:
    parts, at = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [change(markdown[at : fence.start()]), fence.group()]
        at = fence.end()
    return "".join([*parts, change(markdown[at:])])


def _link(match: re.Match[str], source: str, here: str, files: Files) -> str:
    """A link of the page `source` in the project as one of the page `here` in the site."""
    image, text, target = match.groups()
    if target is None or re.match(r"\w+:", target) or target.startswith("#"):
        return match.group()
    path, _, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    address = _address(path)
    if files.get_file_from_path(address):
        relative = posixpath.relpath(address, posixpath.dirname(here) or ".")
        return f"{image}[{text}]({relative}{'#' if anchor else ''}{anchor})"
    if not (ROOT / path).exists():
        return match.group()  # mkdocs will say so
    plain = text.replace("`", "")
    return f"`{path}`" if path.rstrip("/").endswith(plain.rstrip("/")) else f"{text} (`{path}`)"


def _address(path: str) -> str:
    """Where a file or folder of the project is in the site, if it is there."""
    if path in ("README.md", "."):
        return "index.md"
    if (ROOT / path).is_dir():
        return next(
            (_address(f"{path}/{name}") for name in ("README.md", "index.md") if (ROOT / path / name).exists()), ""
        )
    if path.startswith("docs/tutorials/"):
        return path.removeprefix("docs/").replace(".py", ".md")
    return _included().get(path) or path.removeprefix("docs/")


def _decisions() -> str:
    """A list of the records of decisions."""
    lines = []
    for path in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        title = path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines)


def _description(markdown: str) -> str:
    """The first paragraph that says something, as plain text, up to 160 characters."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", _FENCE.sub("", markdown))
    paragraphs = (re.sub(r"\s+", " ", part).strip() for part in re.split(r"\n\s*\n", text))
    plain = next((part for part in paragraphs if len(part) > 40 and part[0] not in "#|<!-:{>" and part[-1] != ":"), "")
    short = plain if len(plain) <= 160 else plain[:157].rsplit(" ", 1)[0].rstrip(",;:") + " …"
    return short.replace('"', "&quot;")
