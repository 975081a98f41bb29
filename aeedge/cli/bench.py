"""aeedge bench: how fast is a bundle on this machine, and is the measurement valid?"""

from __future__ import annotations

import math
import sys
from contextlib import ExitStack
from typing import Any

import click
import numpy as np
from click.core import ParameterSource
from numpy.typing import NDArray

from aeedge.bench.baseline import against, read_baseline
from aeedge.bench.measuring import Measurement
from aeedge.bench.page import page
from aeedge.bench.plan import METHODS, SCENARIOS, Plan
from aeedge.bench.text import batch_text, text
from aeedge.bundle.reader import Bundle
from aeedge.cli.command import Command, section
from aeedge.cli.streams import check_stdout, show, show_json
from aeedge.cli.types import (
    DURATION,
    PERCENT,
    RATE,
    Number,
    Scenario,
    Whole,
    array_option,
    json_option,
    threads_option,
    variant_option,
)
from aeedge.cli.wording import say_before
from aeedge.errors import InputError, printable
from aeedge.files.atomic import atomic_file
from aeedge.files.replacing import check_page
from aeedge.files.rows import Wanted, open_all
from aeedge.files.source import STDIN, standard_input
from aeedge.system import conditions
from aeedge.system.clock import Clock
from aeedge.system.progress import ProgressLine

_MOST_ROWS = 4096  # read from a file; they are repeated to the number that a scenario needs


@click.command(cls=Command)
@click.argument("bundle", type=click.Path(), required=False)
@section(
    "What is measured",
    click.option(
        "--scenario",
        "scenarios",
        multiple=True,
        type=Scenario(SCENARIOS),
        show_default="all three",
        help="SingleStream, MultiStream or Offline (repeatable).",
    ),
    click.option("--method", type=click.Choice(METHODS), default="encode", help="The method to measure."),
    click.option(
        "--seconds",
        type=Number("at least 0.05", lambda seconds: 0.05 <= seconds < math.inf),
        default=5.0,
        show_default="5, with --batch 0.5",
        help="Length of each scenario; with --batch of each bundle and --at.",
    ),
    click.option(
        "--rate", type=RATE, show_default="no fixed rate", help="Also send queries at a fixed rate, such as 200/s."
    ),
    click.option(
        "--deadline",
        type=DURATION,
        show_default="the time between two queries",
        help="With --rate: the time within which a query has to be answered, such as 5ms.",
    ),
    click.option(
        "--soak",
        type=DURATION,
        show_default="no long run",
        help="Also a long run, such as 30m: drift, temperature, memory.",
    ),
    click.option("--quick", is_flag=True, help="Skip the fresh processes and the batch sizes."),
    click.option("--profile", is_flag=True, help="Also measure the time per operator of the graph."),
)
@section(
    "Data",
    click.option(
        "--data", type=click.Path(), show_default="the bundle's reference inputs", help="File of rows to measure with."
    ),
    array_option,
)
@section(
    "Many bundles",
    click.option(
        "--batch",
        type=click.Path(allow_dash=True),
        metavar="FOLDER",
        show_default="BUNDLE alone",
        help="Measure all bundles of a folder, NAME.aeedge, beside each other; - for a tar of them on standard input.",
    ),
    click.option(
        "--at",
        multiple=True,
        type=Whole(1),
        show_default="1 and 1024",
        help="With --batch: number of samples of a call (repeatable).",
    ),
)
@section(
    "Comparison",
    click.option(
        "--compare",
        "other",
        metavar="BUNDLE",
        type=click.Path(),
        show_default="none",
        help="Compare with another bundle, interleaved.",
    ),
    click.option("--baseline", type=click.Path(), show_default="none", help="Compare with an earlier --json result."),
    click.option(
        "--fail-if-slower",
        "limit",
        type=PERCENT,
        show_default="no limit",
        help="With --compare or --baseline: exit code 1 when slower by more, such as 5%.",
    ),
)
@variant_option
@threads_option
@section(
    "Output",
    json_option,
    click.option("--html", type=click.Path(), show_default="no page", help="Also write the result as an HTML page."),
    click.option("-f", "--force", is_flag=True, help="Overwrite the page."),
)
@click.pass_context
def bench(ctx: click.Context, /, bundle: str | None, batch: str | None, at: tuple[int, ...], **options: Any) -> None:
    """Measure latency and throughput of a bundle, or of many, on this machine.

    Measures single samples, small batches, many rows, the phases of a fresh process, memory, and disturbances that
    invalidate the numbers, such as other load. Exit code 0 when the result is valid; 1 when it is INVALID, when Ctrl-C
    ended the run, or when slower than --fail-if-slower allows.

    \b
    Examples:
      aeedge bench motor.aeedge
      aeedge bench motor.aeedge --rate 200/s --deadline 2ms
      aeedge bench motor.aeedge --compare smaller.aeedge
      aeedge bench motor.aeedge --json > kept.json
      aeedge bench motor.aeedge --baseline kept.json --fail-if-slower 5%
      aeedge bench --batch candidates/ --at 1 --at 64
    """
    check_stdout()
    if batch is not None:
        ctx.exit(_batch(ctx, batch, at or (1, 1024), options))
    if bundle is None:
        raise click.MissingParameter(ctx=ctx, param_hint="'BUNDLE'", param_type="argument")
    if at:
        raise InputError("--at: expected --batch with it, which measures calls of so many samples")
    other, limit = options["other"], options["limit"]
    _check_combination(options)
    plan = Plan(
        path=bundle,
        scenarios=tuple(dict.fromkeys(options["scenarios"])) or SCENARIOS,
        quick=options["quick"] or bool(options["baseline"]),
        **{name: options[name] for name in _AS_GIVEN},
    )
    baseline = read_baseline(options["baseline"]) if options["baseline"] else None
    if options["html"]:  # before anything is measured
        check_page(options["html"], overwrite=options["force"], inputs=[options["data"], options["baseline"]])
    rows = _rows(bundle, plan.method, options["data"], options["array"])
    say_before(conditions.at_start(Clock()))
    line = ProgressLine()
    try:
        measurement = Measurement(plan, rows, lambda text: line.show([text]))
        document = measurement.compare(plan._replace(path=other)) if other else measurement.run()
    finally:
        line.end()
    if baseline is not None:
        against(document, baseline, options["baseline"])
    show_json(document) if options["as_json"] else show(text(document))
    if options["html"]:
        with atomic_file(options["html"], overwrite=options["force"]) as part:
            part.write_text(page(document), encoding="utf-8")
        click.echo(f"wrote {printable(options['html'], None)}", err=True)
    ctx.exit(_exit_code(document, limit))


_AS_GIVEN = ("variant", "threads", "method", "seconds", "rate", "deadline", "soak", "profile")


_OF_BATCH = ("batch", "at", "method", "threads", "seconds", "as_json")


def _batch(ctx: click.Context, place: str, at: tuple[int, ...], options: dict[str, Any]) -> int:
    """Measure all bundles of a folder, or of a tar on standard input; the exit code."""
    given = [p for p in ctx.command.params if ctx.get_parameter_source(p.name or "") is ParameterSource.COMMANDLINE]
    for parameter in given:
        if parameter.name not in _OF_BATCH:
            what = "BUNDLE" if parameter.name == "bundle" else parameter.opts[-1]
            raise InputError(
                f"--batch: goes with --at, --method, --threads, --seconds and --json alone, got {what}; leave it out"
            )
    seconds = options["seconds"] if any(parameter.name == "seconds" for parameter in given) else 0.5
    from aeedge.bench.batch import folder_of_bundles, measure  # here, and below: what a single bundle does not need

    with ExitStack() as stack:
        if place == STDIN:
            from aeedge.files.unpacking import unpacked

            place = str(stack.enter_context(unpacked(_archive(), "--batch -")))
        paths = folder_of_bundles(place)
        say_before(conditions.at_start(Clock()))
        line = ProgressLine()
        stack.callback(line.end)
        document = measure(
            paths,
            at=at,
            method=options["method"],
            threads=options["threads"],
            seconds=seconds,
            progress=lambda text: line.show([text]),
        )
        line.end()
    show_json(document) if options["as_json"] else show(batch_text(document))
    return 1 if document["status"] != "valid" or any("error" in entry for entry in document["bundles"]) else 0


def _archive() -> Any:
    """Standard input, where somebody sends something."""
    if sys.stdin.isatty():
        raise InputError("--batch -: expected a tar archive on standard input, got a terminal; pipe one to it")
    return standard_input()


def _check_combination(options: dict[str, Any]) -> None:
    """Refuse options that exclude or need each other."""
    if options["other"] and options["baseline"]:
        raise InputError("expected --compare or --baseline, got both; choose one")
    if options["deadline"] and not options["rate"]:
        raise InputError("--deadline: expected --rate with it, which sets when an answer is due")
    if options["limit"] is not None and not (options["other"] or options["baseline"]):
        raise InputError("--fail-if-slower: expected --compare or --baseline with it, to compare with")


def _rows(bundle: str, method: str, data: str | None, array: str | None) -> NDArray[Any] | None:
    """The first rows of a file, in the shape that the method takes."""
    if data is None:
        if array is not None:
            raise InputError("--array: expected --data with it, the .npz that it is in")
        return None
    manifest = Bundle(bundle).manifest
    spec = manifest.input
    shape = manifest.latent_shape if method == "decode" else spec.shape
    wanted = Wanted(shape=shape) if method == "decode" else Wanted(spec.features, spec.shape, spec.dtype, spec.dialect)
    found: list[NDArray[Any]] = []
    for block in open_all([data], wanted, array=array).blocks():
        found.append(block)
        if sum(map(len, found)) >= _MOST_ROWS:
            break
    if not found:
        raise InputError(f"{data}: expected at least one row, but it has none")
    rows = np.concatenate(found)[:_MOST_ROWS]
    if rows.shape[1:] != shape and rows[0].size != int(np.prod(shape)):
        raise InputError(f"{data}: expected rows of shape {shape}, got {rows.shape[1:]}")
    if rows.dtype.kind == "f" and not (finite := np.isfinite(rows).reshape(len(rows), -1).all(axis=1)).all():
        raise InputError(
            f"{data}: expected finite numbers, got others in row {int(np.argmin(finite))}; leave such rows out"
        )
    return rows.reshape(len(rows), *shape)


def _exit_code(document: dict[str, Any], limit: float | None) -> int:
    slower = [
        c
        for c in document.get("comparison", [])
        if c["verdict"] == "slower" and c["ratio"]["estimate"] > 1 + (limit or 0)
    ]
    if limit is not None:
        for c in slower:
            what = f"{c['rows']} rows per call" if "rows" in c else c["scenario"]
            click.echo(f"slower by {c['ratio']['estimate'] - 1:.1%} ({what}), expected at most {limit:.1%}", err=True)
    return 1 if document["status"] != "valid" or (limit is not None and slower) else 0
