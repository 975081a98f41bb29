"""aeedge search: which network fits a device, for a file of rows."""

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
from aeedge.cli.types import BYTES, COUNT, DURATION, LATENCY, SAMPLE_RATE, SHARE, threads_option
from aeedge.cli.wording import reworded, say
from aeedge.errors import InputError
from aeedge.files.replacing import SEARCH, check_folder, folder_kind, input_errors, temporary
from aeedge_export.architecture_search.budget import Budget
from aeedge_export.architecture_search.judging import OBJECTIVES
from aeedge_export.architecture_search.measuring import DeviceError
from aeedge_export.architecture_search.search import METHODS
from aeedge_export.architecture_search.search import search as search_networks
from aeedge_export.architecture_search.state import locked
from aeedge_export.cli.search_text import ProgressLine, result_lines, table
from aeedge_export.cli.training_data import (
    data_options,
    input_options,
    label_file,
    reading_of,
    time_order,
    time_ordered_option,
)
from aeedge_export.cli.windows import summarize

SCHEMA = "aeedge-search/1"
_AS_GIVEN = (*("max_error_vs_best", "families", "latents", "variants", "objective", "method", "threads", "remote"),)
_PARAMS = ("goal", "scaling", "channels", "axes", "front_end", "front_end_options")  # of every candidate


def _names(ctx: click.Context, param: click.Parameter, value: str) -> Any:
    names = tuple(part.strip() for part in value.split(","))
    if "" in names:
        raise InputError(f"{param.opts[-1]}: expected names with a comma between them, got {value!r}")
    return "auto" if names == ("auto",) else names


def _numbers(ctx: click.Context, param: click.Parameter, value: str) -> Any:
    try:
        return value if value == "auto" else tuple(int(part) for part in value.split(","))
    except ValueError:
        raise InputError(f"{param.opts[-1]}: expected 'auto' or numbers such as 4,8,16, got {value!r}") from None


@click.command()
@click.argument("data", metavar="DATA...", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", metavar="SEARCH", required=True, type=click.Path(), help="Folder to write.")
@click.option("--latency", type=LATENCY, help="Longest time of a call with one sample, such as 20us or 1.5ms.")
@click.option("--rate", type=SAMPLE_RATE, help="Fewest samples per second in large calls, such as 50k/s.")
@click.option("--size", type=BYTES, help="Largest size of the bundle, such as 200kB.")
@click.option("--memory", type=BYTES, help="Largest memory that the bundle adds to a process, such as 8MB.")
@click.option("--macs", type=COUNT, help="Most multiply-adds of encoding a sample, such as 100k.")
@click.option("--at", type=click.IntRange(1), help="Samples per call [default: 1 for --latency, 1,024 for --rate].")
@click.option(
    "--max-error-vs-best",
    type=SHARE,
    help="Take the cheapest network whose error is at most so much above the least, such as 5% [default: the most "
    "accurate within the budget, without a budget 1%].",
)
@click.option("--latents", default="auto", callback=_numbers, help="Numbers of latents to try, such as 4,8,16.")
@click.option("--families", default="auto", callback=_names, help="To try: dense, conv1d, conv2d, pca or auto.")
@click.option("--variants", default="fp32,int8", show_default=True, callback=_names, help="To try: fp32, int8 or both.")
@click.option(
    "--objective",
    type=click.Choice(["auto", *OBJECTIVES]),
    default="auto",
    show_default=True,
    help="Error of reconstruction, AUC of anomaly scores, accuracy of a probe on latents; auto: as labels are.",
)
@click.option("--method", type=click.Choice(METHODS), default="encode", show_default=True, help="What is timed.")
@threads_option
@click.option("--time", type=DURATION, default="10m", show_default=True, help="How long to search, such as 10m.")
@click.option("--remote", metavar="COMMAND", help="Measure on a device, where this runs a command: 'ssh pi@gateway'.")
@click.option(
    "--measured",
    metavar="FILE",
    type=click.Path(),
    help="With --resume: take what 'aeedge bench --batch SEARCH/bundles --json' printed on a device.",
)
@click.option("--goal", help="Of a table: compress or detect [default: compress, for the objective auc detect].")
@input_options
@time_ordered_option
@click.option("--seed", default=0, show_default=True, help="Of the split of the rows, and of all trainings.")
@data_options(rate="--sample-rate", time="--time-column", labels="Classes, for --objective")
@click.option("--resume", is_flag=True, help="Go on with SEARCH: same DATA and settings, any budget and time.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON (docs/reference/json-outputs.md).")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.option("-f", "--force", is_flag=True, help="Replace SEARCH, if it is a search.")
@click.pass_context
def search(
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
    """Find networks for DATA that suit a device: train candidates, measure them, and keep those that nothing beats.

    Candidates of several families and widths are trained, the promising ones longer, exported, and measured through the
    device runtime, on this machine or with --remote on the device. SEARCH/best.aeedge is the network that the budget
    asks for, SEARCH/bundles has all others, SEARCH/report.html shows them. DATA is read as by 'aeedge train', but
    without weights or calibration rows of their own; rows that choose a network and rows that judge it are different.

    Exit code 1 when nothing meets the budget, the time ends before one candidate is done, or after Ctrl-C.

    \b
    Examples:
      aeedge search motor.csv -o found --latency 20us
      aeedge search motor.csv -o found --max-error-vs-best 5% --latents 2,4,8
      aeedge search motor.csv -o found --rate 50k/s --remote 'ssh pi@gateway'
      aeedge search motor.csv -o found --resume --time 20m --size 200kB
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
    with _place(target, resume=resume), _state_kept(target), ProgressLine(time, quiet=quiet) as progress:
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
