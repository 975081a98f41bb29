"""What `aeedge search` does: which network fits a device, for a file of rows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from aeedge.cli.streams import check_stdout, show, show_json
from aeedge.cli.wording import reworded, say
from aeedge.errors import InputError
from aeedge.files.replacing import SEARCH, check_folder, folder_kind, input_errors, temporary
from aeedge_export.architecture_search.budget import Budget
from aeedge_export.architecture_search.measuring import DeviceError
from aeedge_export.architecture_search.search import search as search_networks
from aeedge_export.architecture_search.state import locked
from aeedge_export.cli.search_text import SearchProgress, result_lines, table
from aeedge_export.cli.training_data import label_file, reading_of, time_order
from aeedge_export.cli.windows import summarize

SCHEMA = "aeedge-search/1"
_AS_GIVEN = (*("max_error_vs_best", "families", "latents", "variants", "objective", "method", "threads", "remote"),)
_PARAMS = ("goal", "scaling", "channels", "axes", "front_end", "front_end_options")  # of every candidate


def run(
    ctx: click.Context,
    /,
    data: tuple[str, ...],
    output: str,
    latency: float | None,
    rate: float | None,
    size: float | None,
    memory: float | None,
    macs: float | None,
    at: int | None,
    time: float,
    measured: str | None,
    seed: int,
    time_ordered: bool | None,
    sample_rate: float | None,
    time_column: str | None,
    resume: bool,
    as_json: bool,
    quiet: bool,
    force: bool,
    **params: Any,
) -> None:
    """Search, and say what was found; the parameters are those of the command.

    Raises:
        InputError: data or options that do not fit.
        DeviceError: the device of --remote fails.
    """
    check_stdout()
    target = Path(output)
    if latency is not None and rate is not None:
        raise InputError("--latency, --rate: both limit the time of a sample; give one of them")
    if measured is not None and params["remote"] is not None:
        raise InputError("--measured, --remote: both say how a device is measured; give one of them")
    if measured is not None and not resume:
        raise InputError("--measured: expected --resume with it: the bundles of an earlier search were measured")
    _check_target(target, [*data, label_file(params["labels"]), measured], resume=resume, force=force)
    budget = Budget(latency, rate, _whole(size), _whole(memory), _whole(macs), at)
    params |= {"rate": sample_rate, "time": time_column}  # as they are called where DATA is read
    reading = reading_of(params)
    training = reading.read(data, times=time_ordered is not False)
    fixed = {name: params[name] for name in _PARAMS if _is_given(ctx, name) and params[name] != "auto"}
    ordered = time_order(training.rows, time_ordered)
    fixed |= {} if ordered == "auto" else {"time_ordered": ordered}
    with _place(target, resume=resume), _state_kept(target), SearchProgress(time, quiet=quiet) as progress:
        found = search_networks(
            training.rows.X,
            training.rows.labels,
            budget=budget,
            **{name: params[name] for name in _AS_GIVEN},
            time_limit=time,
            directory=target,
            resume=resume,
            measured=measured,
            params=fixed,
            random_state=seed,
            on_progress=progress,
            **training.known,
        )
    for note in found.notes:
        say(f"Note: {reworded(note, ctx.command)}", err=True)
    nearest = reworded(found.nearest, ctx.command)
    if as_json:
        document = {"schema": SCHEMA, "path": output, **found.summary(), "nearest": nearest or None}
        measured_how = dict(document["measured"])
        document |= {"machine": measured_how.pop("machine"), "measured": measured_how}
        show_json(document)
    else:
        if found.points:
            show(table(found))
        if training.windows is not None:
            summarize(training.windows)
        for line in result_lines(found, output):
            say(line)
    if nearest:
        say(nearest, err=True)
    ctx.exit(1 if found.best is None or found.stopped == "interrupted" else 0)


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _check_target(target: Path, inputs: Sequence[str | None], *, resume: bool, force: bool) -> None:
    """Refuse a folder that must not be written.

    Raises:
        InputError: it is there without --resume or --force, or is no search.
    """
    if resume and force:
        raise InputError("--resume, --force: a search is either gone on with or replaced; give one of them")
    if resume:
        if folder_kind(target) is not SEARCH:
            raise InputError(f"{target}: expected a folder that 'aeedge search' made, to go on with it (--resume)")
        return
    check_folder(target, overwrite=True, kinds=[SEARCH], inputs=inputs)
    if target.exists() and not force:
        raise InputError(
            f"{target}: already exists; choose another name, replace it (--force) or go on with it (--resume)"
        )


@contextmanager
def _place(target: Path, *, resume: bool) -> Iterator[None]:
    """Move aside what will be replaced; it comes back, and nothing new stays, where the search does not begin."""
    real = Path(os.path.realpath(target))
    aside = temporary(real, ".old") if real.exists() and not resume else None
    with input_errors(target):
        if aside is not None:
            with locked(real):
                os.rename(real, aside)
    try:
        yield
    except InputError:
        if not resume and not (real / "runs").exists():
            shutil.rmtree(real, ignore_errors=True)
        raise
    finally:
        if aside is not None and real.exists():
            shutil.rmtree(aside, ignore_errors=True)
        elif aside is not None:
            os.rename(aside, real)


@contextmanager
def _state_kept(target: Path) -> Iterator[None]:
    """Say how to go on where a device failed or Ctrl-C came."""
    try:
        yield
    except DeviceError as error:
        raise DeviceError(f"{error}; what was trained is kept; go on with --resume") from error
    except KeyboardInterrupt:
        if folder_kind(target) is not SEARCH:
            raise
        raise click.ClickException(f"interrupted; what was trained is kept in {target}: go on with --resume") from None
