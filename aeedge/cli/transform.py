"""aeedge encode, decode, denoise, score: file to file, with one block of rows in memory at a time."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from aeedge.bundle.manifest import InputSpec
from aeedge.cli.group import DEVICE
from aeedge.cli.streams import check_stdout, show
from aeedge.cli.types import (
    allow_ops_option,
    dialect_options,
    resize_option,
    skip_bad_option,
    table_options,
    threads_option,
    variant_option,
)
from aeedge.cli.wording import say
from aeedge.errors import InputError, printable, shortened
from aeedge.files.replacing import check_file
from aeedge.files.rows import RowFile, Wanted, open_all
from aeedge.files.writing import STDOUT, is_stream, row_writer
from aeedge.loading import load
from aeedge.model import Model
from aeedge.runtime.missing import fill_missing, missing_rows
from aeedge.runtime.prefetch import prefetch
from aeedge.table import columns

_LISTED = 20  # scores in a table on the terminal


def _command(name: str, example: str) -> click.Command:
    """One command; the four differ in the method that they call."""

    def run(
        bundle: str,
        sources: tuple[str, ...],
        output: str | None,
        variant: str,
        threads: int | str,
        allow_ops: tuple[str, ...],
        invalid: str,
        force: bool,
        header: bool | None,
        delimiter: str | None,
        decimal: str | None,
        **reading: Any,
    ) -> None:
        if output in ("/dev/stdout", "/dev/fd/1"):  # which may be a file, to append to
            output = STDOUT
        if output is None or output == STDOUT:
            check_stdout()
        elif not is_stream(output):
            check_file(output, overwrite=force, inputs=sources)
        with load(bundle, variant=variant, threads=threads, allow_ops=allow_ops) as model:
            reading["dialect"] = dialect_options(header, delimiter, decimal)
            rows = _open(model, name, sources, invalid, reading)
            if output is None:
                _show_scores(model, rows, sources, invalid)
            else:
                _write(model, name, rows, sources, output, invalid, force)

    run.__doc__ = f"""{DEVICE[name]}

    IN is one or more of .npy, .npz, .csv (.tsv, .txt), .parquet, also with .gz, folders of them or of images, or - for
    standard input. An array of the shape of one sample is one row, and gives one row. OUT is .npy or .csv, or - for
    standard output (CSV in UTF-8). Files of any size are streamed; OUT appears when it is complete.

    \b
    Example:
      {example}
    """
    optional = " [default: a table]" if name == "score" else ""
    options: list[Callable[[Any], Any]] = [
        click.argument("bundle", type=click.Path()),
        click.argument("sources", metavar="IN...", nargs=-1, required=True, type=click.Path()),
        click.option(
            "-o", "--output", metavar="OUT", required=not optional, type=click.Path(), help=f"File to write{optional}."
        ),
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
    decorated: Any = run
    for option in reversed(options):
        decorated = option(decorated)
    made: click.Command = click.command(name=name)(decorated)
    return made


def _open(model: Model, what: str, sources: Sequence[str], invalid: str, reading: Mapping[str, Any]) -> RowFile:
    spec, propagate = model.input, invalid == "propagate"
    if what == "decode":
        latents = open_all(sources, Wanted(shape=model.latent_shape), missing=propagate, **reading)
        return replace(latents, blocks=lambda: _shaped(latents.blocks(), model.latent_shape, "float32"))
    treated = spec.missing is not None
    wanted = Wanted(spec.features, spec.shape, spec.dtype, spec.dialect)
    rows = open_all(sources, wanted, missing=treated or propagate, **reading)
    treat = _Treatment(spec, drop=invalid == "raise")

    def blocks() -> Iterator[NDArray[Any]]:
        shaped = _shaped(rows.blocks(), spec.shape, spec.dtype)
        return treat.blocks(shaped, rows.notes) if treated else shaped

    return replace(rows, blocks=blocks)


class _Treatment:
    """Missing values, treated as they were for training, and counted."""

    def __init__(self, spec: InputSpec, *, drop: bool) -> None:
        self._spec, self._drop = spec, drop and spec.missing is not None and spec.missing.policy == "drop"

    def blocks(self, blocks: Iterable[NDArray[Any]], notes: list[str]) -> Iterator[NDArray[Any]]:
        """Blocks without the rows that have missing values, or with those filled; a note at the end."""
        count = 0
        for block in blocks:
            if self._drop:
                rows = missing_rows(block, self._spec)
                count += int(rows.sum())
                if rows.all():
                    continue
                block = block[~rows]
            else:
                block, filled = fill_missing(block, self._spec)
                count += filled
            yield block
        if count:
            fill = self._spec.missing and self._spec.missing.fill
            done = "were filled with medians" if fill else "are NaN in the results"
            notes.append(
                f"{count} rows with missing values were left out" if self._drop else f"{count} missing values {done}"
            )


def _results(
    model: Model, what: str, rows: RowFile, sources: Sequence[str], invalid: str
) -> Iterator[NDArray[np.float32]]:
    """Results block by block: this thread uses them, one computes, one reads."""
    label = f"{what} {sources[0]}" + (" …" if len(sources) > 1 else "")
    shown, count = _print_notes(rows, sources, 0), 0
    for block in _progress(prefetch(model.map_iter(what, rows.blocks(), invalid=invalid, fresh=True)), rows, label):
        count += len(block)
        yield block
    _print_notes(rows, sources, shown)
    if not count:
        raise InputError(f"{shortened(sources)}: expected at least one row, got none")


def _print_notes(rows: RowFile, sources: Sequence[str], shown: int) -> int:
    """Print notes that were not shown yet; returns how many are shown now."""
    for note in rows.notes[shown:]:
        say(f"Note: {sources[0]}{' …' if len(sources) > 1 else ''}: {note}", err=True)
    return len(rows.notes)


def _write(
    model: Model, what: str, rows: RowFile, sources: Sequence[str], output: str, invalid: str, force: bool
) -> None:
    row, names = _result(what, model)
    began = time.perf_counter()
    with row_writer(output, row, names, overwrite=force) as writer:
        for block in _results(model, what, rows, sources, invalid):
            writer.write(block)
    seconds = time.perf_counter() - began
    size = "×".join(map(str, (writer.count, *writer.row)))
    flat = "" if writer.row == row else f", {'×'.join(map(str, row))} flattened in C order"
    rate = f"{writer.count / max(seconds, 1e-9):,.0f} rows/s"
    name = "standard output" if output == STDOUT else printable(output, None)
    many = "1 row" if writer.count == 1 else f"{writer.count:,} rows"
    click.echo(f"wrote {name}: {many}, {size} float32{flat}, in {seconds:.2f} s ({rate})", err=is_stream(output))


def _show_scores(model: Model, rows: RowFile, sources: Sequence[str], invalid: str) -> None:
    """A table on the terminal: all scores of a few rows, otherwise the highest ones."""
    scores = np.concatenate(list(_results(model, "score", rows, sources, invalid)))
    order = np.argsort(-scores, kind="stable") if len(scores) > _LISTED else np.arange(len(scores))
    listed = [[str(i), f"{scores[i]:.6g}"] for i in order[:_LISTED]]
    show(columns(["row (from 0)", "score"], listed))
    if len(scores) > _LISTED:
        finite = scores[np.isfinite(scores)]
        quantiles = np.quantile(finite, [0.5, 0.9, 0.99]) if len(finite) else [np.nan] * 3
        click.echo(
            f"the {_LISTED} highest of {len(scores)} scores; median {quantiles[0]:.4g}, 90 % {quantiles[1]:.4g}, "
            f"99 % {quantiles[2]:.4g}; all of them: -o scores.csv"
        )


def _result(what: str, model: Model) -> tuple[tuple[int, ...], Sequence[str]]:
    """Shape of a row of the result, and names of its values."""
    spec = model.input
    if what == "encode":
        return model.latent_shape, [f"latent_{i}" for i in range(model.latent_size)]
    if what == "score":
        return (), ["score"]
    return spec.shape, spec.features or [f"x{i}" for i in range(spec.size)]


def _shaped(blocks: Iterable[NDArray[Any]], shape: tuple[int, ...], dtype: str) -> Iterator[NDArray[Any]]:
    """Flat rows, as in a CSV file, in the model's shape; whole numbers as integers where the model takes integers."""
    for block in blocks:
        if block.ndim == 2 and len(shape) > 1 and block.shape[1] == math.prod(shape):
            block = block.reshape(len(block), *shape)
        if dtype != "float32" and block.dtype.kind == "f" and (block == np.trunc(block)).all():
            block = block.astype(np.int64)
        yield block


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


encode = _command("encode", "aeedge encode motor.aeedge rows.npy -o latents.npy")
decode = _command("decode", "aeedge decode motor.aeedge latents.npy -o rows.npy")
denoise = _command("denoise", "aeedge denoise motor.aeedge rows.csv -o clean.csv")
score = _command("score", "aeedge score motor.aeedge rows.npy -o scores.npy")
