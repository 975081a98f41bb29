"""What the runner of the pages' blocks accepts, and that no block escapes it."""

import re
import shlex
from pathlib import Path

import click
import pytest
from docs_blocks import check

from aeedge.cli import AeedgeGroup

ROOT = Path(__file__).parents[2]
PAGES = [
    path
    for path in [
        *(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/**/*.md"),
        *ROOT.glob("benchmarks/*.md"),
        *ROOT.glob("packaging/**/*.md"),
    ]
    if "node_modules" not in path.parts
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


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_blocks_that_are_skipped_have_such_options(page):
    group = AeedgeGroup.build()
    blocks = re.findall(
        r"^<!-- skip: next.*-->\n```(?:sh|console)\n(.*?)^```",
        page.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    for line in "".join(blocks).splitlines():
        for found in re.findall(r"\baeedge ((?:'[^']*'|[^'|&>#])*)", line):
            name, *arguments = shlex.split(found)
            command = group.get_command(click.Context(group), name)
            assert command is not None, f"there is no aeedge {name}"
            command.make_parser(click.Context(command)).parse_args(arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        path = (page.parent / target).resolve() if target else page
        executed = path.parent.name == "tutorials" and path.with_suffix(".py").exists()
        assert path.exists() or executed, f"{link} leads nowhere"
        if anchor and path.suffix == ".md" and path.exists():
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {_slug(heading) for heading in headings}, f"{link}: no such heading"


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower().strip().replace("`", "")).replace(" ", "-")
