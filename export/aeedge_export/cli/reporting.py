"""What `aeedge report` does: a run, or several beside each other, as one HTML page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource

from aeedge.bundle.manifest import Manifest
from aeedge.bundle.reader import Bundle
from aeedge.cli.types import dialect_options
from aeedge.cli.wording import say
from aeedge.errors import InputError, printable
from aeedge.files.atomic import atomic_file
from aeedge.files.replacing import check_page, is_same
from aeedge_export.autoencoder import Autoencoder
from aeedge_export.cli.windows import as_dataset, windows_as_trained
from aeedge_export.data.dataset import Dataset, Selection
from aeedge_export.data.files import read
from aeedge_export.data.missing import treat_as_trained
from aeedge_export.reporting import comparison
from aeedge_export.reporting.detection import described
from aeedge_export.reporting.page import render
from aeedge_export.run import Run


def write_report(
    ctx: click.Context,
    /,
    runs: tuple[str, ...],
    output: str | None,
    bundle: str | None,
    test: tuple[str, ...],
    labels: str | None,
    array: str | None,
    rate: float | None,
    time: str | None,
    resample: float | None,
    header: bool | None,
    delimiter: str | None,
    decimal: str | None,
    force: bool,
) -> None:
    """Write the page, and say where it is; the parameters are those of the command.

    Raises:
        InputError: runs, rows or options that do not fit.
    """
    if len(runs) > 1:
        _compare(ctx, runs, Path(output or "comparison.html"), overwrite=force)
        return
    (run,) = runs
    dialect = dialect_options(header, delimiter, decimal)
    if not test and (
        unused := _given({"labels", "array", "rate", "time", "resample", "header", "delimiter", "decimal"}, ctx)
    ):
        raise InputError(f"{unused}: expected --test DATA, the rows that it is of, got none")
    target = Path(output) if output else Path(run) / "report.html"
    if output:
        check_page(target, overwrite=force)
    ae = Autoencoder.load(run)
    if test:
        selection = Selection(labels=labels, array=array, dialect=dialect, time=time)
        if ae.run_.signal is not None:
            rows = as_dataset(windows_as_trained(test, selection, ae.run_.input_spec, rate, resample))
        elif (rate, time, resample) != (None, None, None):
            raise InputError("--rate, --time, --resample: RUN is of rows, not of recordings; leave them out")
        else:
            rows = _test_rows(test, selection, ae)
        ae.evaluate_detection(rows.X, rows.labels)
        for line in described(ae.run_):
            say(line)
    manifest = None if bundle is None else _bundle_of(ae.run_, bundle)
    _write(render(ae.run_, manifest), target, overwrite=force or not output)


def _compare(ctx: click.Context, runs: tuple[str, ...], target: Path, *, overwrite: bool) -> None:
    """Write the comparison of several runs.

    Raises:
        InputError: a run that is named twice or cannot be read, an option of a single run, or a page that exists.
    """
    single = _given({option.name or "" for option in ctx.command.params} - {"runs", "output", "force"}, ctx)
    if single:
        raise InputError(f"{single}: is of one RUN, and {len(runs)} are compared; leave it out")
    for i, run in enumerate(runs):
        if any(is_same(Path(run), Path(other)) for other in runs[:i]):
            raise InputError(f"{run}: is named twice; name each run once")
    check_page(target, overwrite=overwrite)
    names = runs if len({Path(run).name for run in runs}) < len(runs) else [Path(run).name for run in runs]
    found = {printable(name, None): Autoencoder.load(run).run_ for name, run in zip(names, runs)}
    _write(comparison.render(found), target, overwrite=overwrite)


def _given(names: set[str], ctx: click.Context) -> str | None:
    """The first option of these names that was given, None where none was."""
    given = (
        one for one in ctx.command.params if ctx.get_parameter_source(one.name or "") is ParameterSource.COMMANDLINE
    )
    return next((one.opts[0] for one in given if one.name in names), None)


def _bundle_of(run: Run, path: str) -> Manifest:
    """The manifest of a bundle that takes rows as this run does.

    Raises:
        InputError: it is of other rows.
    """
    manifest = Bundle(path).manifest
    if (manifest.input.shape, manifest.input.features) != (run.input_spec.shape, run.input_spec.features):
        raise InputError(f"--bundle: expected a bundle that was made from RUN, but {path} takes other inputs")
    return manifest


def _write(page: str, target: Path, *, overwrite: bool) -> None:
    with atomic_file(target, overwrite=overwrite) as part:
        part.write_text(page, encoding="utf-8")
    click.echo(f"wrote {printable(str(target), None)}: {len(page) / 1000:.0f} kB, self-contained")


def _test_rows(files: tuple[str, ...], selection: Selection, ae: Autoencoder) -> Dataset:
    """Rows with the columns of the training; those with missing values are filled as there, or left out."""
    wanted = replace(selection, columns=ae.run_.features or ())
    rows = treat_as_trained(read(*files, selection=wanted, missing=True), ae.run_.input_spec)
    for note in rows.notes:
        say(f"Read: {note}", err=True)
    return rows
