"""Rows of files for the commands that compute something of each row: opened, treated as for training, computed."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from aeedge.bundle.manifest import InputSpec
from aeedge.cli.types import (
    allow_ops_option,
    resize_option,
    skip_bad_option,
    table_options,
    threads_option,
    variant_option,
)
from aeedge.cli.wording import say
from aeedge.errors import InputError, shortened
from aeedge.files.rows import Part, RowFile, Wanted, open_all
from aeedge.files.source import STDIN
from aeedge.model import Model
from aeedge.runtime.missing import fill_missing, missing_rows
from aeedge.runtime.prefetch import prefetch


class Result(NamedTuple):
    """What was computed of some rows.

    Attributes:
        values: the results, (m, ...).
        samples: the rows, (m, *input_shape).
        kept: values of the columns that are kept beside them, m of each.
        numbers: of the rows in the input, counted from 0, (m,); those with missing values may have been left out.
    """

    values: NDArray[np.float32]
    samples: NDArray[Any]
    kept: list[list[Any]]
    numbers: NDArray[np.int64]


def row_options(output: str, *more: Callable[[Any], Any], required: bool = True) -> Callable[[Any], Any]:
    """The arguments and options of a command from rows to rows; `output` says what OUT is for, `more` are its own."""
    options: list[Callable[[Any], Any]] = [
        click.argument("bundle", type=click.Path()),
        click.argument("sources", metavar="IN...", nargs=-1, required=True, type=click.Path()),
        click.option("-o", "--output", metavar="OUT", required=required, type=click.Path(), help=output),
        click.option(
            "--format",
            type=click.Choice(["csv", "jsonl"]),
            help="Of standard output, a pipe, or an OUT without a suffix [default: by OUT's suffix, or csv].",
        ),
        *more,
        variant_option,
        threads_option,
        allow_ops_option,
        click.option(
            "--invalid",
            type=click.Choice(["raise", "propagate"]),
            default="raise",
            show_default=True,
            help="For missing values, NaN or infinity: stop, or write NaN for those rows.",
        ),
        click.option("--array", help="Name of the array inside an .npz."),
        table_options,
        resize_option,
        skip_bad_option,
        click.option("-f", "--force", is_flag=True, help="Overwrite OUT."),
    ]

    def decorated(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def open_samples(
    model: Model, what: str, sources: Sequence[str], invalid: str, reading: Mapping[str, Any], keep: Sequence[str] = ()
) -> RowFile:
    """Rows for a method of a model, in its shape, missing values treated; row numbers are the last kept column."""
    spec, propagate = model.input, invalid == "propagate"
    if what == "decode":
        wanted, treated = Wanted(shape=model.latent_shape), False
    else:
        wanted, treated = Wanted(spec.features, spec.shape, spec.dtype, spec.dialect, keep), spec.missing is not None
    rows = open_all(sources, wanted, missing=treated or propagate, **reading)

    def parts() -> Iterator[Part]:
        numbered = _shaped(rows.parts(), wanted)
        return _treated(numbered, spec, rows.notes, drop=not propagate) if treated else numbered

    return replace(rows, parts=parts)


def _shaped(parts: Iterable[Part], wanted: Wanted) -> Iterator[Part]:
    """Rows in the model's shape; their numbers are the last kept column."""
    first = 0
    for block, kept in parts:
        yield shaped(block, wanted), [*kept, list(range(first, first + len(block)))]
        first += len(block)


def shaped(block: NDArray[Any], wanted: Wanted) -> NDArray[Any]:
    """Flat rows, as in a CSV file, in the model's shape; whole numbers as integers where the model takes integers."""
    shape = wanted.shape or ()
    if block.ndim == 2 and len(shape) > 1 and block.shape[1] == math.prod(shape):
        block = block.reshape(len(block), *shape)
    if wanted.dtype != "float32" and block.dtype.kind == "f" and (block == np.trunc(block)).all():
        block = block.astype(np.int64)
    return block


def _treated(parts: Iterable[Part], spec: InputSpec, notes: list[str], *, drop: bool) -> Iterator[Part]:
    """Rows without those that have missing values, or with those filled, as for training; a note at the end."""
    drop = drop and spec.missing is not None and spec.missing.policy == "drop"
    count = 0
    for block, kept in parts:
        if drop:
            present = ~missing_rows(block, spec)
            count += int((~present).sum())
            if not present.any():
                continue
            if not present.all():
                block, kept = block[present], [list(compress(column, present)) for column in kept]
        else:
            block, filled = fill_missing(block, spec)
            count += filled
        yield block, kept
    if count:
        done = "were filled with medians" if spec.missing and spec.missing.fill else "are NaN in the results"
        notes.append(f"{count} rows with missing values were left out" if drop else f"{count} missing values {done}")


def results(model: Model, what: str, rows: RowFile, sources: Sequence[str], invalid: str) -> Iterator[Result]:
    """Results block by block: this thread uses them, one computes, one reads.

    Raises:
        InputError: what reading and computing raise, or no rows at all.
    """
    name = named(sources)
    waiting: deque[Part] = deque()

    def blocks() -> Iterator[NDArray[Any]]:
        for part in rows.parts():
            waiting.append(part)
            yield part[0]

    def say_notes(shown: int) -> int:
        for note in rows.notes[shown:]:
            say(f"Note: {name}: {note}", err=True)
        return len(rows.notes)

    shown, count = say_notes(0), 0
    computed = prefetch(model.map_iter(what, blocks(), invalid=invalid, fresh=True))
    for values in _progress(computed, rows, f"{what} {name}"):
        samples, (*kept, numbers) = waiting.popleft()
        count += len(values)
        yield Result(values, samples, kept, np.asarray(numbers))
    say_notes(shown)
    if not count:
        raise InputError(f"{shortened(sources)}: expected at least one row, got none")


def named(sources: Sequence[str]) -> str:
    """The first of the inputs, and whether there are more, for messages."""
    return ("standard input" if sources[0] == STDIN else sources[0]) + (" …" if len(sources) > 1 else "")


def _progress(blocks: Iterable[NDArray[Any]], rows: RowFile, label: str) -> Iterator[NDArray[Any]]:
    """Show a progress bar in a terminal."""
    if not sys.stderr.isatty():
        yield from blocks
        return
    if rows.count is None:
        done = 0
        for block in blocks:
            yield block
            done += len(block)
            click.echo(f"\r{label}: {done:,} rows", nl=False, err=True)
        click.echo(err=True)
        return
    with click.progressbar(length=rows.count, label=label, file=sys.stderr, show_pos=True) as bar:
        for block in blocks:
            yield block
            bar.update(len(block))
