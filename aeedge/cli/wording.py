"""Messages of the library, which name Python's parameters, in the words of a command's options."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from shutil import get_terminal_size
from textwrap import fill
from typing import TYPE_CHECKING

import click

from aeedge.errors import printable

if TYPE_CHECKING:
    from aeedge.system.conditions import Finding

_OPTIONS = {  # of parameters that are called otherwise; where a command has no such option, the one of the same name
    "output": "--output-activation",
    "random_state": "--seed",
    "sample_weight": "--weights",
    "normal_rows": "normal",
    "overwrite": "--force",
    "front_end_options": "--front-end-option",
    "calibration": "--calibration-share",
    "calibration_rows": "--calibration",
    # of search, where --rate and --time are those of the search itself
    "rate": "--sample-rate",
    "time": "--time-column",
    "latency_us": "--latency",
    "time_limit": "--time",
    "directory": "--output",
}
_PHRASES = {
    "(resume)": "(--resume)",
    "(--epochs, resume(X, epochs=...))": "(--epochs)",
    "give bad_rows to": "give --bad-rows to",
    "drop or fill such rows first": "leave such rows out (--missing drop), or fill them (--missing median)",
    "'auto', 'cross' or a share": "'auto' or a share",
    "names: give each by itself": "names: repeat the option for each",
    "in allow_ops": "with --allow-ops",
    "resize=(height, width)": "--resize HEIGHTxWIDTH",
}
_ASSIGNMENT = re.compile(  # hop=5, missing='drop', hidden=(8, 4), rate=...; not a folder of that name
    r"(?<![\w/-])([a-z_]+)=('[^']*'|\.\.\.|\([\d, ]+\)|[\w.:-]*\w|(?=[ ,;.)]|$))(?![\w/])"
)
_OPENING = re.compile(r"^([a-z_]+)(?=(?:, [a-z_]+)*:| '[^']*' (?:needs|expects))")
_ASIDE = re.compile(r"(?<=\()([a-z]+(?:_[a-z]+)+)(?=\))")  # "(max_error_ratio)"
_WITHIN = re.compile(r"(?<=: )(keep|column)(?=: )")  # behind the name of a file
_OTHERS = re.compile(r"(?<=with other )[a-z_]+(?:, [a-z_]+)*(?=[,)])")  # settings of an archive
_EXPECTED = re.compile(r"expected (?:one of )?((?:[^;(]|\([^)]*\))+?), got '([^']+)'|'([^']+)' is not one of ([^;]*)\.")
_ROW = re.compile(r"\brow (\d+)\b(?! \(counted)")


def reworded(text: str, command: click.Command) -> str:
    """A message with a command's options in the place of parameters, safe to print: "beta: …" becomes "--beta: …".

    Rows are counted from 0, as in numpy; that is said, because lines of a file are counted from 1.
    """
    known = {flag: parameter for parameter in command.params for flag in parameter.opts}

    def option(name: str) -> str | None:
        flags = (_OPTIONS.get(name), f"--{name.replace('_', '-')}")
        return next((flag for flag in flags if flag in known), None)

    def assigned(match: re.Match[str]) -> str:
        flag, value = option(match[1]), match[2].strip("'()").rstrip(",").replace(", ", ",")
        if flag is None:
            return match[0]
        parameter = known[flag]
        if value in ("True", "False"):
            if not getattr(parameter, "is_flag", False):
                return f"{flag} {'yes' if value == 'True' else 'no'}"
            return flag if value == "True" else (parameter.secondary_opts or [f"no {flag}"])[0]
        return flag if value in ("", "...") else f"{flag} {value}"

    if "--invalid" not in known:
        text = re.sub(r", or pass invalid='propagate' [^;]*", "", text)
    for phrase, words in _PHRASES.items():
        text = text.replace(phrase, words)
    for pattern in (_OPENING, _WITHIN, _ASIDE):
        text = pattern.sub(lambda match: option(match[1]) or re.sub("^normal$", "NORMAL", match[1]), text)
    text = _ASSIGNMENT.sub(assigned, text)
    text = _OTHERS.sub(lambda match: ", ".join(option(name) or name for name in match[0].split(", ")), text)
    if known.keys() & {"--latent", "--latents"}:  # a command with all parameters of the estimator
        text = re.sub(r"\bNone\b", "none", re.sub(r"^(X: |(?=expected finite numbers))", "DATA: ", text))
    return printable(suggested(_ROW.sub(r"row \1 (counted from 0)", text)), None)


def suggested(text: str) -> str:
    """A message with what a word that was mistyped may be: "expected relu, tanh, got 'tahn'; did you mean 'tanh'?"."""
    found = _EXPECTED.search(text)
    if found is None or "did you mean" in text:
        return text
    from difflib import get_close_matches

    given = found[2] or found[3]
    listed = [word.strip() for word in re.split(r" or | and |[,;()] ?", found[1] or found[4])]
    bare = [word for word in listed if re.fullmatch(r"[\w.:-]+", word)]
    words = [word.strip("'") for word in listed if re.fullmatch(r"'[\w.:-]+'", word)] + bare * (len(bare) > 1)
    parts = [part for part in re.split("[,:]", given) if part not in words]
    near = [word for part in parts for word in get_close_matches(part, words, 1)]
    near = near or [word for word in words if len(given) > 2 and word.lower().startswith(given.lower())]
    return f"{text.rstrip('.')}; did you mean {near[0]!r}?" if parts and near else text


def say_before(findings: Iterable[Finding]) -> None:
    """Print what may spoil a measurement before it is made, on standard error."""
    found = list(findings)
    for finding in found:
        say(f"{'Note' if finding.grade == 'note' else 'Before the run'}: {finding.message}", err=True)
    if any(finding.grade == "invalid" for finding in found):
        say("If this goes on, the result will be INVALID.", err=True)


def say(text: str, *, err: bool = False) -> None:
    """Print a sentence; in a terminal, wrapped between words."""
    click.echo(wrapped(printable(text, None), err=err), err=err)


def wrapped(text: str, *, err: bool = False) -> str:
    """A sentence as a terminal shows it, with breaks between words alone; elsewhere it stays one line."""
    if (sys.stderr if err else sys.stdout).isatty():
        return fill(text, get_terminal_size().columns, break_long_words=False, break_on_hyphens=False)
    return text
