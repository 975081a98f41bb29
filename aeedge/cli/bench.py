"""aeedge bench: how fast is a bundle here, and may one believe it?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from aeedge.bench import plan as planning
from aeedge.bench.baseline import against, read_baseline
from aeedge.bench.measuring import Measurement
from aeedge.bench.page import page
from aeedge.bench.plan import METHODS, Plan
from aeedge.bench.text import text
from aeedge.bundle.reader import Bundle
from aeedge.errors import InputError
from aeedge.files.atomic import atomic_file
from aeedge.files.rows import open_rows

_MOST_ROWS = 4096  # of a file of rows; they are repeated to the number that a scenario needs


@click.command()
@click.argument("bundle", type=click.Path())
@click.option("--scenario", "wanted", multiple=True, help="SingleStream, MultiStream or Offline [default: all three].")
@click.option("--seconds", default=5.0, show_default=True, type=click.FloatRange(0.05), help="Length of each scenario.")
@click.option("--rate", help="Also queries at a fixed rate, such as 200/s, timed from the moment they are due.")
@click.option(
    "--deadline", help="How long an answer at that rate may take, such as 5ms [default: the time between two]."
)
@click.option("--soak", help="Also a long run, such as 30m: drift, temperature, memory.")
@click.option("--method", type=click.Choice(METHODS), default="encode", show_default=True, help="What is called.")
@click.option("--variant", default="auto", show_default=True, help="fp32, int8 or auto.")
@click.option("--threads", type=click.IntRange(1), help="Threads to use [default: all CPUs allowed].")
@click.option("--data", type=click.Path(), help="File of rows to use instead of the bundle's golden rows.")
@click.option("--quick", is_flag=True, help="Leave out the fresh processes and the batch sizes.")
@click.option("--profile", is_flag=True, help="Also time by operator of the graph.")
@click.option("--compare", "other", type=click.Path(), help="Another bundle: interleaved, which is faster?")
@click.option("--baseline", type=click.Path(), help="A kept --json result: faster or slower than then?")
@click.option("--fail-if-slower", "limit", help="With one of these: exit code 1 when slower by more, such as 5%.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON (docs/bench-result.md).")
@click.option("--html", type=click.Path(), help="Also write the result as one HTML page.")
@click.option("-f", "--force", is_flag=True, help="Overwrite the page.")
@click.pass_context
def bench(ctx: click.Context, /, bundle: str, **options: Any) -> None:
    """Measure latency and throughput of a bundle on this machine.

    Single samples, small batches, many rows; a fresh process phase by phase; memory. What may make the numbers
    worthless is measured too. Exit code 0 when they may be used; 1 when they are INVALID, when Ctrl-C ended the run, or
    when slower than --fail-if-slower allows.

    \b
    Examples:
      aeedge bench motor.aeedge
      aeedge bench motor.aeedge --rate 200/s --deadline 2ms
      aeedge bench motor.aeedge --compare smaller.aeedge
      aeedge bench motor.aeedge --json > kept.json
      aeedge bench motor.aeedge --baseline kept.json --fail-if-slower 5%
    """
    plan, limit = _plan(bundle, options), _limit(options)
    baseline = read_baseline(options["baseline"]) if options["baseline"] else None
    _check_page(options)
    rows = _rows(bundle, plan.method, options["data"])
    say = _say(quiet=sys.stderr is None or not sys.stderr.isatty())
    measurement = Measurement(plan, rows, say)
    other = options["other"]
    document = measurement.compare(plan._replace(path=other)) if other else measurement.run()
    say("")
    if baseline is not None:
        against(document, baseline, options["baseline"])
    click.echo(json.dumps(document, indent=1) if options["as_json"] else text(document))
    if options["html"]:
        with atomic_file(options["html"], overwrite=options["force"]) as part:
            part.write_text(page(document), encoding="utf-8")
        click.echo(f"wrote {options['html']}", err=True)
    ctx.exit(_exit_code(document, limit))


def _plan(bundle: str, options: dict[str, Any]) -> Plan:
    if options["other"] and options["baseline"]:
        raise InputError("expected --compare or --baseline, got both; choose one")
    if options["deadline"] and not options["rate"]:
        raise InputError("--deadline: expected --rate with it, which says when an answer is due")
    return Plan(
        path=bundle,
        variant=options["variant"],
        threads=options["threads"] or "auto",
        method=options["method"],
        scenarios=tuple(dict.fromkeys(map(planning.scenario, options["wanted"]))) or planning.SCENARIOS,
        seconds=options["seconds"],
        rate=planning.rate(options["rate"]) if options["rate"] else None,
        deadline=planning.duration(options["deadline"], "--deadline") if options["deadline"] else None,
        soak=planning.duration(options["soak"], "--soak") if options["soak"] else None,
        quick=options["quick"] or bool(options["baseline"]),
        profile=options["profile"],
    )


def _limit(options: dict[str, Any]) -> float | None:
    if options["limit"] is None:
        return None
    if not (options["other"] or options["baseline"]):
        raise InputError("--fail-if-slower: expected --compare or --baseline with it, which says slower than what")
    return planning.percent(options["limit"], "--fail-if-slower")


def _check_page(options: dict[str, Any]) -> None:
    """Refuse before measuring what could not be written afterwards."""
    if options["html"]:
        target = Path(options["html"])
        if target.exists() and not options["force"]:
            raise InputError(f"{target}: already exists; choose another name, or overwrite it (--force)")
        if not target.absolute().parent.is_dir():
            raise InputError(f"{target}: expected the folder {target.parent} to exist; create it first")


def _rows(bundle: str, method: str, data: str | None) -> NDArray[Any] | None:
    """The first rows of a file, in the shape that the method takes."""
    if data is None:
        return None
    manifest = Bundle(bundle).manifest
    shape = (manifest.latent,) if method == "decode" else manifest.input.shape
    found: list[NDArray[Any]] = []
    for block in open_rows(data, None if method == "decode" else manifest.input.features, None).blocks():
        found.append(block)
        if sum(map(len, found)) >= _MOST_ROWS:
            break
    if not found:
        raise InputError(f"{data}: expected at least one row, but it has none")
    rows = np.concatenate(found)[:_MOST_ROWS]
    if rows.shape[1:] != shape and rows[0].size != int(np.prod(shape)):
        raise InputError(f"{data}: expected rows of shape {shape}, got {rows.shape[1:]}")
    return rows.reshape(len(rows), *shape)


def _say(*, quiet: bool) -> Any:
    """Progress on one line of the terminal."""

    def say(message: str) -> None:
        if not quiet:
            click.echo(f"\r\x1b[K{message}", nl=False, err=True)

    return say


def _exit_code(document: dict[str, Any], limit: float | None) -> int:
    slower = [
        c
        for c in document.get("comparison", [])
        if c["verdict"] == "slower" and c["ratio"]["estimate"] > 1 + (limit or 0)
    ]
    if limit is not None:
        for c in slower:
            part = f"{c['rows']} rows a call" if "rows" in c else c["part"]
            click.echo(f"slower by {c['ratio']['estimate'] - 1:.1%} ({part}), allowed are {limit:.1%}", err=True)
    return 1 if document["status"] != "valid" or (limit is not None and slower) else 0
