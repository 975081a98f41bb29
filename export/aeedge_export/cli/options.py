"""The workstation's commands: messages of the library, which name Python's parameters, in the words of the options."""

from __future__ import annotations

import re
from typing import Any

import click

from aeedge.errors import AeedgeError

_OPTIONS = {"output": "--output-activation", "random_state": "--seed", "sample_weight": "--weights"}
_PHRASES = {"--force, overwrite=True": "--force", "--epochs, resume(X, epochs=...)": "--epochs"}
_VALUES = {
    "linear_path=True": "--linear-path yes",
    "linear_path=False": "--linear-path no",
    "overwrite=True": "--force",
}
_ASSIGNMENT = re.compile(r"(?<![\w-])([a-z_]+)=('[^']*'|\.\.\.|[\w.:-]*\w)")
_OPENING = re.compile(r"^([a-z_]+)(?=:| '[^']*' (?:needs|expects))")


class WorkstationCommand(click.Command):
    """A command whose errors speak of options: "--beta: expected ...", not "beta: expected ..."."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except AeedgeError as error:
            raise type(error)(reworded(str(error), self)) from error


def reworded(text: str, command: click.Command) -> str:
    """A message of the library with a command's options in the place of parameters: latent=8 becomes --latent 8."""
    known = {flag for parameter in command.params for flag in parameter.opts}

    def option(name: str) -> str | None:
        flag = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
        return flag if flag in known else None

    def assigned(match: re.Match[str]) -> str:
        if match[0] in _VALUES:
            return _VALUES[match[0]]
        flag = option(match[1])
        return match[0] if flag is None else f"{flag} {match[2].strip(chr(39))}"

    text = re.sub(r"\bNone\b", "none", re.sub(r"^X:", "DATA:", text))
    for phrase, words in _PHRASES.items():
        text = text.replace(phrase, words)
    return _OPENING.sub(lambda match: option(match[1]) or match[1], _ASSIGNMENT.sub(assigned, text))
