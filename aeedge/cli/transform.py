"""aeedge encode, decode, denoise: file to file, with one block of rows in memory at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from aeedge.cli.group import DEVICE
from aeedge.cli.reading import open_samples, results, row_options
from aeedge.cli.streams import check_stdout
from aeedge.cli.types import dialect_options
from aeedge.errors import printable
from aeedge.files.replacing import check_file
from aeedge.files.writing import STDOUT, Layout, RowWriter, is_stream, row_writer
from aeedge.loading import load
from aeedge.model import Model

FORMATS = """IN is one or more of .npy, .npz, .csv (.tsv, .txt), .jsonl (.ndjson: on each line an object or an array of
    numbers), .parquet, also with .gz, folders of them or of images, or - for standard input. An array of the shape of
    one sample is one row, and gives one row. OUT is .npy, .csv, .jsonl (.ndjson) or .parquet, or - for standard output
    (CSV, or JSON lines with --format jsonl; UTF-8). Files of any size are streamed; OUT appears when it is whole."""


def _command(name: str, example: str) -> click.Command:
    """One command; the three differ in the method that they call."""

    def run(
        bundle: str,
        sources: tuple[str, ...],
        output: str,
        format: str | None,
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
        output = checked_output(output, sources, force)
        with load(bundle, variant=variant, threads=threads, allow_ops=allow_ops) as model:
            reading["dialect"] = dialect_options(header, delimiter, decimal)
            rows = open_samples(model, name, sources, invalid, reading)
            with written(output, _layout(name, model), force=force, format=format) as writer:
                for found in results(model, name, rows, sources, invalid):
                    writer.write(found.values)

    run.__doc__ = f"""{DEVICE[name]}

    {FORMATS}

    \b
    Example:
      {example}
    """
    made: click.Command = click.command(name=name)(row_options("File to write.")(run))
    return made


def checked_output(output: str, sources: Sequence[str], force: bool) -> str:
    """Where results go, "-" for standard output by any name.

    Raises:
        InputError: it must not be written there, or standard output is closed.
    """
    if output in (STDOUT, "/dev/stdout", "/dev/fd/1"):  # which may be a file, to append to
        check_stdout()
        return STDOUT
    if not is_stream(output):
        check_file(output, overwrite=force, inputs=sources)
    return output


@contextmanager
def written(output: str, layout: Layout, *, force: bool, format: str | None) -> Iterator[RowWriter]:
    """`row_writer`, and a sentence about what was written."""
    began = time.perf_counter()
    with row_writer(output, layout, overwrite=force, format=format) as writer:
        yield writer
    seconds = time.perf_counter() - began
    rate = f"{writer.count / max(seconds, 1e-9):,.0f} rows/s"
    name = "standard output" if output == STDOUT else printable(output, None)
    many = "1 row" if writer.count == 1 else f"{writer.count:,} rows"
    said = f"wrote {name}: {many}, {writer.describe()}, in {seconds:.2f} s ({rate})"
    click.echo(said, err=is_stream(output))


def _layout(what: str, model: Model) -> Layout:
    """What the rows of a result are."""
    if what == "encode":
        return Layout.of_array(model.latent_shape, [f"latent_{i}" for i in range(model.latent_size)])
    spec, front_end = model.input, model.manifest.front_end
    if front_end is not None:
        names = front_end.names  # of log-mels one for several frames
        unique = names if len(set(names)) == len(names) else [f"feature_{i}" for i in range(len(names))]
        return Layout.of_array(front_end.shape, unique)
    return Layout.of_array(spec.shape, spec.features or [f"x{i}" for i in range(spec.size)])


encode = _command("encode", "aeedge encode motor.aeedge rows.npy -o latents.npy")
decode = _command("decode", "aeedge decode motor.aeedge latents.npy -o rows.npy")
denoise = _command("denoise", "aeedge denoise motor.aeedge rows.csv -o clean.csv")
