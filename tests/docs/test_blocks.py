"""What the runner of the pages' blocks accepts, and that no block escapes it."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import click
import docs_blocks
import pytest
from docs_blocks import check

from aeedge.cli import AeedgeGroup

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "examples", "benchmarks", "packaging")
PAGES = [
    path
    for path in [*ROOT.glob("*.md"), *(found for name in FOLDERS for found in ROOT.glob(f"{name}/**/*.md"))]
    if "node_modules" not in path.parts and path.name != "CHANGELOG.md"
]
LANGUAGES = {"sh", "console", "python", "text", "json", "toml", "yaml", "dockerfile", "js", "html", "cpp", "cmake"}


@pytest.mark.parametrize(
    "got",
    [
        "wrote a.aeedge: 840 kB, id 0123456789ab, outputs match torch\n3 rows/s in 9.1 s\n",
        "wrote a.aeedge: 1,100.5 kB, id ffff456789ab, outputs match torch\n\n99,999 rows/s in 120 µs\n",
    ],
)
def test_numbers_durations_and_ids_may_differ(got):
    assert check("wrote a.aeedge: 838 kB, id f7971df956de, outputs match torch\n88 rows/s in 2 s\n", got) == ""


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        ("outputs match torch", "outputs differ from torch"),
        ("3 alarms", "9 alarms"),
        ("score 0.66", "score -0.66"),
        ("one\ntwo", "one"),
        ("one", "one\ntwo"),
        ("one\n...\nfour", "one\ntwo\nthree"),
        ("[False,  True]", "[False, False]"),
        ("variants fp32, int8", "variants fp32, int4"),
        ("latent_1 0.5", "latent_2 0.5"),
    ],
)
def test_what_differs_otherwise_is_found(expected, got):
    assert check(expected, got)


@pytest.fixture
def block(tmp_path, monkeypatch):
    """Makes a block of a page in an empty folder, before which one command was run for all pages."""
    (tmp_path / "ready").mkdir()
    (tmp_path / "ready" / "a.csv").write_text("1\n")
    (tmp_path / "page").mkdir()
    monkeypatch.setattr(docs_blocks, "ready", lambda: tmp_path / "ready")
    monkeypatch.setattr(docs_blocks, "_MADE", {"aeedge sample a.csv": (["a.csv"], "wrote a.csv\n")})

    def made(text, before="", **namespace):
        document = SimpleNamespace(text=before + text)
        region = SimpleNamespace(start=len(before))
        names = {"_folder": tmp_path / "page", **namespace}
        return SimpleNamespace(parsed=text, namespace=names, document=document, region=region)

    return made


def test_what_was_made_once_is_copied_and_then_used(block):
    assert docs_blocks._commands(block("aeedge sample a.csv  # once\ngrep 1 a.csv")) is None
    assert "expected" in docs_blocks._session(block("$ aeedge sample a.csv\nwrote b.csv"))
    assert docs_blocks._session(block("$ aeedge sample a.csv\nwrote a.csv\n$ cat a.csv\n1")) is None


def test_a_command_that_fails_is_found_unless_the_page_shows_its_error(block):
    assert "ended with 1" in docs_blocks._commands(block("false\ntrue"))
    assert "ended with 3" in docs_blocks._session(block("$ exit 3\n..."))
    assert docs_blocks._session(block("$ echo Error: no; exit 2\nError: no")) is None
    assert docs_blocks._session(block("$ yes | head -n 1\ny")) is None


def test_text_after_prints_is_what_the_python_block_has_printed(block):
    assert docs_blocks._printed(block("3 rows", "It prints\n\n", _printed="3 rows\n")) is None
    assert "expected" in docs_blocks._printed(block("3 rows", "It prints:\n\n", _printed="3 columns\n"))
    assert "no Python block" in docs_blocks._printed(block("3 rows", "It prints\n\n"))
    assert docs_blocks._printed(block("3 rows", "For example\n\n")) is None


def test_three_dots_stand_for_any_lines():
    assert check("one\n...\nfour", "one\ntwo\nthree\nfour") == ""
    assert check("one\n...", "one\ntwo") == ""


def escaping(text):
    """Fences that are neither run nor checked: of tildes, of more backticks, behind a tab, a quote or a list's mark."""
    return re.findall(
        r"^[ \t]*(?:[-*+>]|\d+[.)])?[ \t]*(?:~~~|````).*$|^ *(?:\t|[-*+>]|\d+[.)])[ \t]*```.*$", text, re.M
    )


@pytest.mark.parametrize(
    "fence",
    ["~~~sh", "  ~~~ sh", "````sh", "> ```sh", "- ```sh", "1. ```sh", "\t```sh", "  * ```python", "> ~~~"],
)
def test_a_fence_that_the_runner_does_not_see_is_found(fence):
    assert escaping(f"text\n{fence}\ntrue\n")
    assert not escaping("text\n\n```sh\ntrue\n```\n- one\n\n  ```python\n  1\n  ```\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_fence_has_a_language_and_every_skip_a_reason(page):
    text = page.read_text(encoding="utf-8")
    opened = re.findall(r"^ *```(.*)$", text, re.MULTILINE)[::2]
    assert {language.strip() for language in opened} <= LANGUAGES
    assert not (found := escaping(text)), f"the runner does not see {found}: begin it with spaces and ```"
    for skip in re.findall(r"<!--+ *skip:(.*?)-->", text):
        assert re.fullmatch(r' (next|start)( if\(.+\)| ".{8,}")? *| end *', skip), skip
        assert '"' in skip or "end" in skip, f"a skip needs a reason: {skip}"
        for name in re.findall(r"\b(?:tests|tools)/[\w/]+\.py", skip):
            assert (ROOT / name).exists(), f"{name}, where a skipped block is said to run, is not there"


def test_commands_in_blocks_that_are_skipped_have_such_options():
    group, count = AeedgeGroup.build(), 0
    skipped = re.compile(r"^<!-- skip: next[^\n]*-->\n```(?:sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for line in "".join(skipped.findall(text)).splitlines():
        for name, arguments in re.findall(r"\baeedge ([a-z]+)((?:'[^']*'|[^'|&>#])*)", line):
            command = group.get_command(click.Context(group), name)
            if command is None:  # an image or a package of this name
                assert not line.startswith("aeedge"), f"there is no aeedge {name}"
                continue
            command.make_parser(click.Context(command)).parse_args(shlex.split(arguments))
            count += 1
    assert count > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{link} leads nowhere"
        if anchor and path.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {_slug(heading) for heading in headings}, f"{link}: no such heading"


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower().strip().replace("`", "")).replace(" ", "-")
