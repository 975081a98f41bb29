"""The commands' reference as Markdown, from click: what `--help` says, with its headings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from aeedge.cli.group import DEVICE, AeedgeGroup


class _Recorder(click.HelpFormatter):
    """Keeps what a command writes as its help, by heading."""

    def __init__(self) -> None:
        super().__init__()
        self.sections: dict[str, list[tuple[str, str]]] = {}
        self._title = ""

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        self._title = name
        yield

    def write_dl(self, rows: Any, *args: Any, **options: Any) -> None:
        self.sections.setdefault(self._title, []).extend(rows)


def text() -> str:
    """All commands, those of the device first."""
    group = AeedgeGroup.build()
    context = click.Context(group, info_name="aeedge")
    names = sorted(group.list_commands(context), key=lambda name: name not in DEVICE)
    commands = {name: group.get_command(context, name) for name in names}
    rows = [f"| [`aeedge {name}`](#aeedge-{name}) | {_first_sentence(command)} |" for name, command in commands.items()]
    parts = ["\n".join(["| command | what it does |", "|---|---|", *rows])]
    parts += [_command(name, command, context) for name, command in commands.items() if command]
    return "\n\n".join(parts)


def _first_sentence(command: click.Command | None) -> str:
    return _escaped(command.get_short_help_str(limit=200)) if command else ""


def _command(name: str, command: click.Command, parent: click.Context) -> str:
    context = command.make_context(name, [], parent, resilient_parsing=True)
    usage = " ".join([f"aeedge {name}", *command.collect_usage_pieces(context)])
    parts = [f"## aeedge {name}", f"```text\n{usage}\n```", *_paragraphs(command.help or "")]
    recorder = _Recorder()
    command.format_options(context, recorder)
    for title, rows in recorder.sections.items():
        table = [f"| {title.lower()} | |", "|---|---|", *(_row(*row) for row in rows)]
        parts.append("\n".join(table))
    return "\n\n".join(parts)


def _paragraphs(help_text: str) -> Iterator[str]:
    """The paragraphs of a help text; what click must not wrap becomes a block of code."""
    for part in re.split(r"\n\s*\n", inspect.cleandoc(help_text)):
        if not part.startswith("\b"):
            yield _escaped(re.sub(r"\s+", " ", part))
            continue
        title, _, rest = part.removeprefix("\b").strip("\n").partition("\n")
        lines = [line.removeprefix("  ") for line in rest.splitlines()]
        yield f"{title}\n\n```text\n" + "\n".join(lines) + "\n```"


def _row(names: str, described: str) -> str:
    described = _escaped(re.sub(r"\s+", " ", described.replace("\xa0", " ")))
    return f"| `{names}` | {described} |"


def _escaped(words: str) -> str:
    """Plain text as Markdown; pages that it names become links."""
    return re.sub(r"docs/(\S+?\.md)", r"[\1](../\1)", re.sub(r"([*_<>|\[\]`])", r"\\\1", words))
