"""Commands: options under headings, each with what holds without it; functions that are imported when called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click
from click.formatting import join_options

from aeedge.errors import InputError

OTHERS = "Other options"
_METAVARS = {"integer": "N", "float": "NUMBER", "path": "FILE", "n|auto": "N|auto", "HEIGHTxWIDTH": "HEIGHTxWIDTH"}
_JOINED = str.maketrans("-", "\u2011")  # to a hyphen at which no line is broken
_SPLIT = str.maketrans("\u2011\xa0", "- ")


def section(title: str, *options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Adds options to a command, which its help shows under a heading; those of an inner `section` keep their own."""

    def decorated(command: Any) -> Any:
        parameters = command.__dict__.setdefault("__click_params__", [])
        before = len(parameters)
        for option in reversed(options):
            command = option(command)
        for parameter in parameters[before:]:
            if not hasattr(parameter, "section"):
                parameter.section = title
        return command

    return decorated


class Formatter(click.HelpFormatter):
    """Breaks lines between words alone, so that options and paths can be copied."""

    def write_text(self, text: str) -> None:
        """Write a paragraph."""
        super().write_text(text.translate(_JOINED))

    def write_dl(self, rows: Any, col_max: int = 26, col_spacing: int = 2) -> None:
        """Write names and what they are."""
        super().write_dl([(name, text.translate(_JOINED)) for name, text in rows], col_max, col_spacing)

    def getvalue(self) -> str:
        """What was written."""
        return super().getvalue().translate(_SPLIT)


class Context(click.Context):
    """The context of a command."""

    formatter_class = Formatter


class Command(click.Command):
    """A command whose help shows its options under the headings of `section`."""

    context_class = Context

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, heading by heading."""
        found: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and not parameter.hidden:
                title = getattr(parameter, "section", OTHERS)
                found.setdefault(title, []).append((_names(parameter), _described(parameter, ctx)))
        others = found.pop(OTHERS, [])
        for title, records in [*found.items(), (OTHERS if found else "Options", others)]:
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _names(option: click.Option) -> str:
    """What is typed: "-o, --output RUN"."""
    names = join_options(option.opts)[0]
    if option.secondary_opts:
        return f"{names} / {join_options(option.secondary_opts)[0]}"
    if option.is_flag:
        return names
    kind = option.type
    if isinstance(kind, click.Choice):
        metavar = f"[{'|'.join(map(str, kind.choices))}]"
    else:
        metavar = _METAVARS.get(kind.name, kind.name.upper())
    return f"{names} {option.metavar or metavar}"


def _described(option: click.Option, ctx: click.Context) -> str:
    """Its help, and what holds where it is not given."""
    without = default_text(option, ctx)
    said = "; ".join(filter(None, (without.replace(": ", ":\xa0"), getattr(option.type, "limits", ""))))
    return f"{option.help or ''}{f'  [{said}]' if said else ''}"


def default_text(option: click.Option, ctx: click.Context) -> str:
    """What holds where an option is not given: "default: 3", "required", or "" for a flag that is off."""
    if option.required:
        return "required"
    if isinstance(option.show_default, str):
        return f"default: {option.show_default}"
    value = option.get_default(ctx, call=False)
    if option.is_flag or value is None or isinstance(value, (tuple, list)) or not isinstance(value, (str, int, float)):
        return ""
    return f"default: {value:g}" if isinstance(value, float) else f"default: {value}"


def imported(module: str, name: str, command: str) -> Any:
    """A function of a module that needs the packages of the extra "export"; see `on_workstation`."""
    with on_workstation(command):
        return getattr(import_module(module), name)


@contextmanager
def on_workstation(command: str) -> Iterator[None]:
    """Import what a command needs.

    Raises:
        InputError: a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(
            f"'aeedge {command}' runs on the workstation and needs more packages ({error.name} is missing); "
            "install them with: pip install 'aeedge[export]'"
        ) from error
