"""aeedge encode, decode, denoise, score: file to file, with one block of rows in memory at a time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from aeedge.bundle.manifest import InputSpec
from aeedge.cli.group import DEVICE
from aeedge.cli.types import threads_option, variant_option
from aeedge.errors import InputError
from aeedge.files.replacing import check_file
from aeedge.files.rows import RowFile, open_rows, row_writer
from aeedge.loading import load
from aeedge.model import Model
from aeedge.runtime.prefetch import prefetch


def _command(name: str, example: str) -> click.Command:
    """One command; the four differ in the method that they call."""

    def run(
        bundle: str,
        source: str,
        output: str,
        variant: str,
        threads: int | str,
        invalid: str,
        array: str | None,
        force: bool,
    ) -> None:
        check_file(output, overwrite=force, inputs=[source])
        with load(bundle, variant=variant, threads=threads) as model:
            _transform(model, name, source, output, invalid, array, force)

    run.__doc__ = f"""{DEVICE[name]}

    IN is .npy, .npz or .csv, OUT is .npy or .csv. Files of any size are streamed; OUT appears when it is complete.

    \b
    Example:
      {example}
    """
    options: list[Callable[[Any], Any]] = [
        click.argument("bundle", type=click.Path()),
        click.argument("source", metavar="IN", type=click.Path()),
        click.option("-o", "--output", metavar="OUT", required=True, type=click.Path(), help="File to write."),
        variant_option,
        threads_option,
        click.option(
            "--invalid",
            type=click.Choice(["raise", "propagate"]),
            default="raise",
            show_default=True,
            help="For NaN or infinity: stop, or write NaN for those rows.",
        ),
        click.option("--array", help="Name of the array inside an .npz."),
        click.option("-f", "--force", is_flag=True, help="Overwrite OUT."),
    ]
    decorated: Any = run
    for option in reversed(options):
        decorated = option(decorated)
    made: click.Command = click.command(name=name)(decorated)
    return made


def _transform(model: Model, what: str, source: str, output: str, invalid: str, array: str | None, force: bool) -> None:
    spec = model.input
    rows = open_rows(source, None if what == "decode" else spec.features, array)
    if rows.note:
        click.echo(f"Note: {source}: {rows.note}", err=True)
    row, names = _result(what, model)
    blocks = _shaped(rows.blocks(), spec) if what != "decode" else rows.blocks()
    began = time.perf_counter()
    with row_writer(output, row, names, overwrite=force) as writer:
        # Three threads: this one writes, one computes, one reads.
        results = prefetch(model.map_iter(what, blocks, invalid=invalid, fresh=True))
        for block in _progress(results, rows, f"{what} {source}"):
            writer.write(block)
        if writer.count == 0:
            raise InputError(f"{source}: expected at least one row, but it has none")
    seconds = time.perf_counter() - began
    size = "×".join(map(str, (writer.count, *row)))
    click.echo(f"wrote {output}: {size} float32 in {seconds:.2f} s ({writer.count / max(seconds, 1e-9):,.0f} rows/s)")


def _result(what: str, model: Model) -> tuple[tuple[int, ...], Sequence[str]]:
    """Shape of a row of the result, and names of its values."""
    spec = model.input
    if what == "encode":
        return (model.latent_size,), [f"latent_{i}" for i in range(model.latent_size)]
    if what == "score":
        return (), ["score"]
    return spec.shape, spec.features or [f"x{i}" for i in range(spec.size)]


def _shaped(blocks: Iterable[NDArray[Any]], spec: InputSpec) -> Iterator[NDArray[Any]]:
    """Flat rows, as in a CSV file, in the model's shape; whole numbers as integers where the model takes integers."""
    for block in blocks:
        if block.ndim == 2 and len(spec.shape) > 1 and block.shape[1] == spec.size:
            block = block.reshape(len(block), *spec.shape)
        if spec.dtype != "float32" and block.dtype.kind == "f" and (block == np.trunc(block)).all():
            block = block.astype(np.int64)
        yield block


def _progress(blocks: Iterable[NDArray[Any]], rows: RowFile, label: str) -> Iterator[NDArray[Any]]:
    """Show a progress bar in a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():  # None where it was closed
        yield from blocks
        return
    with click.progressbar(length=rows.count or 0, label=label, file=sys.stderr, show_pos=True) as bar:
        for block in blocks:
            yield block
            bar.update(len(block))


encode = _command("encode", "aeedge encode motor.aeedge rows.npy -o latents.npy")
decode = _command("decode", "aeedge decode motor.aeedge latents.npy -o rows.npy")
denoise = _command("denoise", "aeedge denoise motor.aeedge rows.csv -o clean.csv")
score = _command("score", "aeedge score motor.aeedge rows.npy -o scores.npy")
