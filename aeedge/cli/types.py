"""Options that several commands share, and types of options: durations, rates, percentages, numbers of threads."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from aeedge.cli.command import section
from aeedge.errors import InputError
from aeedge.files.dialect import DELIMITERS
from aeedge.files.sniffing import DialectOptions

if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType  # generic from click 8.2 on


class Quantity(_Type):
    """A number with a unit, converted to the base unit; an InputError where it is something else.

    Args:
        name: of the type, for --help.
        expected: what a message says was expected.
        units: factors to the base unit; "" for a bare number.
        zero: whether 0 is allowed.
        most: the largest number in the base unit.
    """

    def __init__(
        self, name: str, expected: str, units: Mapping[str, float], *, zero: bool = False, most: float = math.inf
    ) -> None:
        self.name, self._expected, self._units, self._zero, self._most = name, expected, units, zero, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number in the base unit."""
        found = re.fullmatch(r"(\d+\.?\d*|\.\d+)(e-?\d+)?(.*)", value.strip())
        factor = self._units.get(found[3].replace(" ", "")) if found else None
        number = float(f"{float(found[1] + (found[2] or '')) * factor:.15g}") if found and factor else -1.0
        if (number > 0 or (self._zero and number == 0)) and math.isfinite(number) and number <= self._most:
            return number
        raise InputError(f"{param.opts[-1] if param else self.name}: expected {self._expected}, got {value!r}")


DURATION = Quantity(
    "duration",
    "a duration above 0 such as 20ms, 90s or 30m",
    {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0},
)
LATENCY = Quantity(  # in microseconds; a bare number could be of any unit
    "duration",
    "a duration above 0 with its unit such as 20us or 1.5ms",
    {"ns": 1e-3, "us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6},
)
RATE = Quantity("rate", "queries per second above 0 such as 200/s", {"/s": 1.0, "": 1.0, "/m": 1 / 60, "/h": 1 / 3600})
SAMPLE_RATE = Quantity(
    "rate", "samples per second above 0 such as 2000/s or 50k/s", {"/s": 1.0, "k/s": 1e3, "M/s": 1e6, "": 1.0}
)
BYTES = Quantity(
    "size",
    "a size above 0 such as 200kB, 8MB or 1MiB",
    {"": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "kiB": 2**10, "MiB": 2**20, "GiB": 2**30},
)
COUNT = Quantity("count", "a number above 0 such as 5000, 100k or 2M", {"": 1, "k": 1e3, "M": 1e6, "G": 1e9})
SHARE = Quantity("share", "a share from 0 to 1 such as 5% or 0.05", {"%": 0.01, "": 1.0}, zero=True, most=1.0)
PERCENT = Quantity("percent", "percent such as 5%", {"%": 0.01, "": 0.01}, zero=True)


class Scenario(_Type):
    """One of `names`, whatever the case or separators: "single-stream" is SingleStream."""

    name = "scenario"

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it is in `names`."""
        wanted = re.sub(r"[-_ ]", "", value).lower()
        for name in self._names:
            if name.lower() == wanted:
                return name
        raise InputError(f"scenario: expected {', '.join(self._names)}, got {value!r} (for a fixed rate: --rate 200/s)")


class Threads(_Type):
    """ "auto" or a whole number of at least 1."""

    name = "n|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """The number, or "auto"."""
        if value == "auto":
            return "auto"
        if not value.isdecimal() or int(value) < 1:
            raise InputError(f"--threads: expected 'auto' or a whole number of at least 1, got {value!r}")
        return int(value)


class _Delimiter(_Type):
    """One of the delimiters, as a character or by name."""

    name = "character"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The character."""
        by_name = {name: character for character, name in DELIMITERS.items()} | {"\\t": "\t", "space": " "}
        character: str = by_name.get(value, value)
        if character not in DELIMITERS:
            raise InputError(f"--delimiter: expected one of , ; | tab space, got {value!r}")
        return character


class Whole(_Type):
    """A whole number of at least `least`."""

    name = "n"

    def __init__(self, least: int) -> None:
        self._least, self.limits = least, f"at least {least}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        text = str(value).strip()
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text) or int(text) < self._least:
            name = param.opts[-1] if param else "number"
            raise InputError(f"{name}: expected a whole number of at least {self._least}, got {value!r}")
        return int(text)


class Number(_Type):
    """A number within limits.

    Args:
        limits: for --help and messages, such as "at least 0.05".
        fits: whether a number is within them.
    """

    name = "number"

    def __init__(self, limits: str, fits: Callable[[float], bool]) -> None:
        self.limits, self._fits = limits, fits

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not self._fits(number):
            name = param.opts[-1] if param else "number"
            raise InputError(f"{name}: expected a number, {self.limits}, got {str(value)!r}")
        return number


table_options = section(
    "Data",
    click.option(
        "--header/--no-header",
        default=None,
        show_default="found out",
        help="Whether the first row of a text file holds names.",
    ),
    click.option(
        "--delimiter", type=_Delimiter(), show_default="found out", help="Of a text file: , ; | tab or space."
    ),
    click.option(
        "--decimal", type=click.Choice([".", ","]), show_default="found out", help="Decimal mark of a text file."
    ),
)


def rule_options(default: str, title: str = "Alarms") -> Callable[[Any], Any]:
    """Adds options that say how a threshold follows from calibration scores; `default`: the rate, for people."""
    return section(
        title,
        click.option(
            "--false-alarm-rate",
            type=float,
            metavar="RATE",
            show_default=default,
            help="Largest share of normal rows that may raise an alarm, such as 0.001.",
        ),
        click.option(
            "--quantile",
            type=float,
            metavar="Q",
            show_default="none",
            help="Quantile of the calibration scores that is the threshold, in place of a rate.",
        ),
        click.option(
            "--threshold",
            type=float,
            metavar="SCORE",
            show_default="none",
            help="A score (of fp32) that is the threshold, in place of a rate.",
        ),
        click.option(
            "--contamination",
            type=float,
            default=0.0,
            metavar="SHARE",
            help="Share of the calibration rows that may be anomalous: as many of the highest scores are left out.",
        ),
    )


def dialect_options(header: bool | None, delimiter: str | None, decimal: str | None) -> DialectOptions | None:
    """What `table_options` gave; None where that is nothing."""
    given = DialectOptions(header, delimiter, decimal)
    return None if given == DialectOptions() else given


class _Size(_Type):
    """Height and width in pixels, such as 64x48."""

    name = "HEIGHTxWIDTH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """(height, width)."""
        found = re.fullmatch(r"([1-9]\d{0,4})[x×]([1-9]\d{0,4})", value.strip().lower())
        if found is None:
            raise InputError(f"--resize: expected height and width in pixels such as 64x48, got {value!r}")
        return int(found[1]), int(found[2])


array_option = click.option(
    "--array", metavar="NAME", show_default="the only one, or X", help="Name of the array inside an .npz."
)
resize_option = click.option(
    "--resize", type=_Size(), show_default="images of one size", help="Of images: scale all of them to this size."
)
skip_bad_option = click.option(
    "--skip-bad", is_flag=True, help="Of images: leave out files that cannot be read or are of another shape."
)
image_options = section("Data", resize_option, skip_bad_option)
allow_ops_option = section(
    "Runtime",
    click.option(
        "--allow-ops",
        metavar="NAMES",
        callback=lambda ctx, param, value: tuple(filter(None, value.split(","))) if value else (),
        show_default="none",
        help="Operators that graphs may have beside those of feed-forward networks, such as If; for bundles you trust.",
    ),
)
variant_option = section(
    "Runtime",
    click.option(
        "--variant",
        metavar="fp32|int8|auto",
        default="auto",
        help="Which graphs to run; auto: what 'aeedge tune' chose here, else the bundle's default.",
    ),
)
threads_option = section(
    "Runtime",
    click.option(
        "--threads",
        type=Threads(),
        default="auto",
        help="Maximum number of threads; auto: what 'aeedge tune' chose here, else one for each CPU.",
    ),
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON (docs/reference/json-outputs.md)."
)
