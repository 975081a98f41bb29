"""aeedge encode, decode, denoise: file to file, with one block of rows in memory at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from aeedge.cli.archive import ARCHIVES, EXAMPLE, Wish, archive_options, refuse
from aeedge.cli.archive import run as run_archive
from aeedge.cli.command import Command, section
from aeedge.cli.group import DEVICE
from aeedge.cli.reading import denoised, keep_option, latent_names, open_samples, results, row_options
from aeedge.cli.streams import check_stdout
from aeedge.cli.types import dialect_options
from aeedge.errors import InputError, printable
from aeedge.files.replacing import check_file
from aeedge.files.wav import wav_format
from aeedge.files.writing import STDOUT, Layout, RowWriter, is_stream, output_format, row_writer
from aeedge.loading import load
from aeedge.model import Model
from aeedge.signals.recording import Recordings

FORMATS = """IN is one or more of .npy, .npz, .csv (.tsv, .txt), .jsonl (.ndjson: on each line an object or an array of
    numbers), .parquet, .wav, also with .gz, folders of them or of images, or - for standard input. An array of the
    shape of one sample is one row, and gives one row. OUT is .npy, .csv, .jsonl (.ndjson) or .parquet, or - for
    standard output (CSV, or JSON lines with --format jsonl; UTF-8). Files of any size are streamed; OUT appears when it
    is whole."""
OF_SIGNALS = """Of a bundle of a signal, IN is recordings with a row for each sample. They are cut into windows as for
    training, none across files or gaps in time. Each gives a row, with the number of its first sample (from 0) as its
    start, and its start_time where that is known (in an .npy, seconds from the file's first sample). An array (n,
    window, channels) is windows as they are."""
_OF_ENCODE = " An .npy has no starts."
_OF_DENOISE = """Of a bundle of a signal, IN is recordings with a row for each sample, and OUT, which may be .wav,
    has as many: windows that overlap are denoised, and fade into each other. An array (n, window, channels) is windows
    as they are."""


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
        bits: str | None = None,
        keep: tuple[str, ...] = (),
        **reading: Any,
    ) -> None:
        wish, keep = Wish.taken(reading), tuple(dict.fromkeys(keep))
        if name == "encode" and wish.is_archive(sources, output, format):
            dialect = {"header": header is not None, "delimiter": delimiter, "decimal": decimal}
            refuse({"format": format, "bits": bits, **dialect, **reading}, threads)
            settings: dict[str, Any] = {"keep": keep, "variant": variant, "invalid": invalid, "overwrite": force}
            run_archive(name, bundle, sources, output, wish, allow_ops=allow_ops, **settings)
            return
        output = checked_output(output, sources, force)
        with load(bundle, variant=variant, threads=threads, allow_ops=allow_ops) as model:
            reading["dialect"] = dialect_options(header, delimiter, decimal)
            of_codes = None if bits is None else int(bits)
            kind = output_format(output, format)
            layout, blocks = _computed(name, model, sources, invalid, reading, kind, of_codes, keep)
            with written(output, layout, force=force, format=format) as writer:
                for block in blocks:
                    writer.write(block)

    more = {"encode": f"\n    {OF_SIGNALS}{_OF_ENCODE}\n", "denoise": f"\n    {_OF_DENOISE}\n"}.get(name, "")
    of_archives = name == "encode"
    help = f"""{DEVICE[name]}

    {FORMATS}
{more}
    {ARCHIVES if of_archives else ""}

    \b
    Example{"s" * of_archives}:
      {example}
      {EXAMPLE.format(name=name) if of_archives else ""}
    """
    codes = {
        "encode": "Write codes of so many bits a latent, bytes, in place of latents.",
        "decode": "IN is codes of so many bits a latent, as encode --bits writes them.",
    }
    options = [keep_option] if of_archives else []
    if name in codes:
        options += [
            click.option("--bits", type=click.Choice(["8", "4"]), show_default="latents, float32", help=codes[name])
        ]
    output = "File to write; of an archive a folder." if of_archives else "File to write."
    decorated = row_options(output, section("Output", *options))(archive_options(run) if of_archives else run)
    return click.command(name=name, cls=Command, help=help.rstrip())(decorated)


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


def _computed(
    what: str,
    model: Model,
    sources: Sequence[str],
    invalid: str,
    reading: Mapping[str, Any],
    format: str,
    bits: int | None,
    keep: Sequence[str] = (),
) -> tuple[Layout, Iterator[Any]]:
    """What the rows of a result are, and the rows, block by block."""
    if keep and format == "npy":
        raise InputError("keep: an .npy of latents has no columns for other values; write .csv, .jsonl or .parquet")
    samples = open_samples(model, what, sources, invalid, reading, keep, bits=bits)
    if what == "denoise" and samples.recordings is not None:
        return _denoised(model, samples.recordings, sources, invalid, format)
    row, names = _row(what, model, bits)
    twice = next((name for name in keep if name in names), None)
    if twice is not None:
        raise InputError(f"keep: a column of the result is called '{twice}', too; rename the input's")
    kind = "|u1" if what == "encode" and bits is not None else "<f4"
    found = results(model, what, samples.rows, sources, invalid, bits)
    if not samples.kept or format == "npy":
        return Layout.of_array(row, names, kind), (part.values for part in found)
    layout = Layout([*samples.kept, *names], [*samples.kept.values(), *[kind] * len(names)])
    return layout, ([*part.kept, *part.values.reshape(len(part.values), -1).T] for part in found)


def _row(what: str, model: Model, bits: int | None) -> tuple[tuple[int, ...], list[str]]:
    """Shape of a row of a result, and names of its values."""
    if what == "encode":
        names = latent_names(model, bits)
        return model.latent_shape if bits is None else (len(names),), names
    spec, front_end = model.input, model.manifest.front_end
    if front_end is not None:
        names = list(front_end.names)  # of log-mels one for several frames
        return front_end.shape, names if len(set(names)) == len(names) else [f"feature_{i}" for i in range(len(names))]
    return spec.shape, list(spec.features or [f"x{i}" for i in range(spec.size)])


def _denoised(
    model: Model, recordings: Recordings, sources: Sequence[str], invalid: str, format: str
) -> tuple[Layout, Iterator[Any]]:
    """A recording as long as that of the input, its column of time kept where the format can hold it."""
    signal, wav = recordings.signal, recordings.wav
    parts, width = denoised(model, recordings, sources, invalid), len(signal.channels)
    if recordings.time == "any" and format not in ("npy", "wav"):
        layout = Layout([recordings.time_name, *signal.channels], ["any", *["<f4"] * width])
        return layout, ([cells, *samples.T] for samples, cells in parts)
    layout = Layout.of_array((width,), signal.channels)
    if format == "wav":
        encoding = wav.encoding if wav else "pcm16" if model.input.dtype == "int16" else "float32"
        layout = layout._replace(wav=wav_format(wav.rate if wav else signal.rate, width, encoding))
    return layout, (samples for samples, _ in parts)


encode = _command("encode", "aeedge encode motor.aeedge rows.npy -o latents.npy")
decode = _command("decode", "aeedge decode motor.aeedge latents.npy -o rows.npy")
denoise = _command("denoise", "aeedge denoise motor.aeedge long.wav -o clean.wav")
