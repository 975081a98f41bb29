"""Rows of files for the commands that compute something of each row: opened, treated as for training, computed."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import compress, groupby
from operator import attrgetter
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from aeedge.bundle.codes_spec import code_bytes
from aeedge.bundle.manifest import InputSpec
from aeedge.bundle.reader import Bundle
from aeedge.cli.command import section
from aeedge.cli.types import (
    allow_ops_option,
    array_option,
    image_options,
    table_options,
    threads_option,
    variant_option,
)
from aeedge.cli.wording import say
from aeedge.errors import InputError, printable, shortened
from aeedge.files.rows import Part, RowFile, Wanted, open_all
from aeedge.files.source import STDIN
from aeedge.model import Model
from aeedge.runtime.missing import fill_missing, missing_rows
from aeedge.runtime.prefetch import prefetch
from aeedge.signals.crossfade import Crossfade
from aeedge.signals.recording import Piece, Recordings
from aeedge.system.progress import Pace, ProgressLine


class Result(NamedTuple):
    """What was computed of some rows.

    Attributes:
        values: the results, (m, ...).
        samples: the rows, (m, *input_shape).
        kept: values of the columns that are kept beside them, m of each.
        numbers: of the rows in the input, counted from 0, (m,); those with missing values may have been left out.
    """

    values: NDArray[Any]
    samples: NDArray[Any]
    kept: list[list[Any]]
    numbers: NDArray[np.int64]


class Samples(NamedTuple):
    """What a method of a model is called with.

    Attributes:
        rows: in the model's shape; what is kept beside them, and last the numbers of the rows.
        kept: names of the columns that are kept, the numbers apart, and their kinds as in `writing.Layout`. Of windows
            that were cut from a recording the first ones are "start", the number of the first sample, and where that is
            known its "start_time"; the others have their values at the last sample.
        recordings: what these windows are cut from; None for other samples.
    """

    rows: RowFile
    kept: dict[str, str]
    recordings: Recordings | None = None


keep_option = click.option(
    "--keep",
    multiple=True,
    metavar="NAME",
    show_default="none",
    help="Pass this column of the input through (repeatable); of images: file.",
)


def row_options(output: str, *more: Callable[[Any], Any], without: str | None = None) -> Callable[[Any], Any]:
    """The arguments and options of a command from rows to rows.

    Args:
        output: what OUT is for.
        more: options of its own.
        without: what is done without OUT; None where it is required.
    """
    options: list[Callable[[Any], Any]] = [
        click.argument("bundle", type=click.Path()),
        click.argument("sources", metavar="IN...", nargs=-1, required=True, type=click.Path()),
        section(
            "Output",
            click.option(
                "-o",
                "--output",
                metavar="OUT",
                required=without is None,
                type=click.Path(),
                show_default=without,
                help=output,
            ),
            click.option(
                "--format",
                type=click.Choice(["csv", "jsonl"]),
                show_default="by OUT's suffix, or csv",
                help="Of standard output, a pipe, or an OUT without a suffix.",
            ),
            click.option("-f", "--force", is_flag=True, help="Overwrite OUT."),
        ),
        *more,
        section(
            "Data",
            click.option(
                "--invalid",
                type=click.Choice(["raise", "propagate"]),
                default="raise",
                help="For missing values, NaN or infinity: stop, or write NaN for those rows.",
            ),
            array_option,
            table_options,
            image_options,
        ),
        variant_option,
        threads_option,
        allow_ops_option,
    ]

    def decorated(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def open_samples(
    model: Model,
    what: str,
    sources: Sequence[str],
    invalid: str,
    reading: Mapping[str, Any],
    keep: Sequence[str] = (),
    *,
    numbers: bool = False,
    bits: int | None = None,
) -> Samples:
    """Samples for a method of a model, in its shape, missing values treated; of recordings windows.

    `keep`: names of columns. `numbers`: whether the time of windows is to be a number, not what stands in a file.
    `bits`: of the codes that "decode" takes; None for latents.
    """
    spec, propagate = model.input, invalid == "propagate"
    kept, cut = dict.fromkeys(keep, "any"), None
    treated = what != "decode" and spec.missing is not None
    if what != "decode" and spec.signal is not None:
        recordings = open_recordings(model, sources, reading, missing=treated or propagate, keep=keep, numbers=numbers)
        rows, wanted = RowFile(recordings.windows, None, recordings.notes), Wanted(shape=spec.shape, dtype=spec.dtype)
        if recordings.are_windows and keep:
            raise InputError(f"{sources[0]}: expected a table with a column '{printable(keep[0])}', got an array")
        if not recordings.are_windows:
            cut, time = recordings, {} if recordings.time is None else {"start_time": recordings.time}
            twice = next((name for name in keep if name in ("start", *time)), None)
            if twice is not None:
                raise InputError(f"keep: a column of the result is called '{twice}', too; rename the input's")
            kept = {"start": "<i8", **time, **kept}
    else:
        wanted = Wanted(spec.features, spec.shape, spec.dtype, spec.dialect, keep)
        if what == "decode":
            row, names = model.latent_shape, latent_names(model, bits)
            if bits is not None:
                row = (len(names),)
            wanted = Wanted(names if spec.signal and not model.manifest.ordered else None, row)
        rows = open_all(sources, wanted, missing=treated or propagate, infinite=propagate, **reading)
        if what == "decode" and bits is not None and f"code_{len(names)}" in (rows.names or ()):
            raise InputError(f"{sources[0]}: expected {len(names)} columns of codes for bits={bits}, got more")

    def parts() -> Iterator[Part]:
        numbered = _shaped(rows.parts(), wanted)
        if what == "decode" and bits is not None:
            numbered = _codes(numbered)
        return _treated(numbered, spec, rows.notes, drop=not propagate) if treated else numbered

    return Samples(replace(rows, parts=parts), kept, cut)


def latent_names(model: Model, bits: int | None = None) -> list[str]:
    """Names of the columns with a sample's latents, or with its codes of so many bits."""
    if bits is None:
        return [f"latent_{i}" for i in range(model.latent_size)]
    return [f"code_{i}" for i in range(code_bytes(model.latent_size, bits))]


def _codes(parts: Iterable[Part]) -> Iterator[Part]:
    """Codes as bytes, where they were read as numbers, as those of a text file are."""
    for block, kept in parts:
        if block.dtype.kind == "f":
            fits = (block >= 0) & (block <= 255) & (block == np.rint(block))  # False for NaN
            if not fits.all():
                row, column = (int(i) for i in np.argwhere(~fits.reshape(len(fits), -1))[0])
                raise InputError(
                    f"decode: expected codes, whole numbers from 0 to 255, got {block[row].flat[column]:.9g} in row "
                    f"{kept[-1][row]}, column {column}; latents are decoded without --bits"
                )
            block = block.astype(np.uint8)
        yield block, kept


def open_recordings(
    model: Model | Bundle, sources: Sequence[str], reading: Mapping[str, Any], **options: Any
) -> Recordings:
    """Recordings for a model of a signal.

    Raises:
        InputError: options for images, and what `Recordings` raises.
    """
    if reading["resize"] or reading["skip_bad"]:
        raise InputError(f"{sources[0]}: only images can be resized or skipped; leave --resize and --skip-bad out")
    return Recordings(model, sources, array=reading["array"], dialect=reading["dialect"], **options)


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
            if block.dtype.kind == "f" and not (finite := np.isfinite(block).reshape(len(block), -1).all(axis=1)).all():
                raise InputError(
                    f"expected finite numbers, got others in row {kept[-1][np.argmin(finite)]}; correct it"
                )
        else:
            block, filled = fill_missing(block, spec)
            count += filled
        yield block, kept
    if count:
        done = "were filled with medians" if spec.missing and spec.missing.fill else "are NaN in the results"
        notes.append(f"{count} rows with missing values were left out" if drop else f"{count} missing values {done}")


def results(
    model: Model, what: str, rows: RowFile, sources: Sequence[str], invalid: str, bits: int | None = None
) -> Iterator[Result]:
    """Results block by block: this thread uses them, one computes, one reads.

    `bits`: of the codes that "encode" gives and "decode" takes; None for latents.

    Raises:
        InputError: what reading and computing raise, or no rows at all.
    """
    name, waiting = named(sources), deque[Part]()

    def blocks() -> Iterator[NDArray[Any]]:
        for part in rows.parts():
            if what == "decode" and bits is None and part[0].dtype == np.uint8 and model.manifest.codes is not None:
                raise InputError(
                    f"{name}: expected latents, got uint8, as 'aeedge encode --bits' writes codes; add --bits 8 or 4, "
                    "or save latents that are whole numbers as float32"
                )
            waiting.append(part)
            yield part[0]

    shown, count = _say_notes(rows.notes, 0, name), 0
    computed = prefetch(model.map_iter(what, blocks(), bits=bits, invalid=invalid, fresh=True))
    with of_files(sources, what):
        for values in _progress(computed, rows, f"{what} {name}"):
            samples, (*kept, numbers) = waiting.popleft()
            count += len(values)
            yield Result(values, samples, kept, np.asarray(numbers))
    _say_notes(rows.notes, shown, name)
    if not count:
        raise InputError(f"{shortened(sources)}: expected at least one row, got none")


def denoised(
    model: Model, recordings: Recordings, sources: Sequence[str], invalid: str
) -> Iterator[tuple[NDArray[np.float32], list[Any]]]:
    """Denoised samples of recordings, (m, channels), and what there is to say of the time of each.

    Raises:
        InputError: what reading and computing raise.
    """
    name, missing, lost = named(sources), model.input.missing, 0
    are_dropped = missing is not None and missing.policy == "drop"
    crossfade = Crossfade(model, what=name, invalid="propagate" if are_dropped else invalid)
    shown = _say_notes(recordings.notes, 0, name)
    for _, stretch in groupby(prefetch(recordings.pieces()), key=attrgetter("stretch")):
        cells: list[Any] = []
        for samples in crossfade(_with_cells(stretch, cells)):
            lost += int(np.isnan(samples).any(axis=1).sum())
            yield samples, cells[: len(samples)]
            del cells[: len(samples)]
    recordings.notes.append(f"denoised in windows of {crossfade.layout.window} samples, hop {crossfade.hop}")
    if lost:
        recordings.notes.append(f"{lost:,} samples are NaN, for no window without missing values covers them")
    _say_notes(recordings.notes, shown, name)


def _with_cells(pieces: Iterable[Piece], cells: list[Any]) -> Iterator[NDArray[Any]]:
    """The samples of pieces; what is kept first beside them is appended to `cells`."""
    for piece in pieces:
        cells += piece.kept[0] if piece.kept else []
        yield piece.samples


def _say_notes(notes: Sequence[str], shown: int, name: str) -> int:
    """Print the notes of an input that were not shown yet; gives how many are."""
    for note in notes[shown:]:
        say(f"Note: {name}: {note}", err=True)
    return len(notes)


def named(sources: Sequence[str]) -> str:
    """The first of the inputs, and whether there are more, for messages."""
    return ("standard input" if sources[0] == STDIN else sources[0]) + (" …" if len(sources) > 1 else "")


@contextmanager
def of_files(sources: Sequence[str], what: str) -> Iterator[None]:
    """Name the files in the place of a method or parameter, `what`, in what is said of their rows.

    Raises:
        InputError: which was raised within.
    """
    try:
        yield
    except InputError as error:
        found = re.match(rf"(?:{what}: )?(expected .* in row \d+.*)", str(error))
        if found is None:
            raise
        raise InputError(f"{named(sources)}: {found[1]}") from error


def _progress(blocks: Iterable[NDArray[Any]], rows: RowFile, label: str) -> Iterator[NDArray[Any]]:
    """Show in a terminal how far it is."""
    line, pace, done = ProgressLine(), Pace(), 0
    try:
        for block in blocks:
            yield block
            done += len(block)
            if not line.is_terminal:
                continue
            if rows.count is None:
                line.show([label, f"{done:,} rows"])
            else:
                line.show([label, pace.left(done, rows.count), f"{done:,} of {rows.count:,} rows"])
    finally:
        line.end()
