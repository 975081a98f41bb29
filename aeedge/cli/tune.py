"""aeedge tune: find the fastest way to run a bundle on this machine, and keep it."""

from __future__ import annotations

import math
import os
import sys
from typing import Any

import click

from aeedge.autotune import Outcome, autotune, route
from aeedge.bundle.reader import Bundle
from aeedge.cli.command import Command
from aeedge.cli.streams import show, show_json
from aeedge.cli.types import Threads, json_option
from aeedge.cli.wording import say_before
from aeedge.errors import InputError
from aeedge.runtime import policy_store
from aeedge.runtime.policy_store import TunedPolicy
from aeedge.system import conditions
from aeedge.system.clock import Clock
from aeedge.system.limits import record_path
from aeedge.system.progress import ProgressLine
from aeedge.table import columns, pairs

SCHEMA = "aeedge-tune/1"


@click.command(cls=Command)
@click.argument("bundle", type=click.Path())
@click.option(
    "--for", "objective", type=click.Choice(policy_store.OBJECTIVES), default="latency", help="What to optimise."
)
@click.option(
    "--variant", metavar="fp32|int8|auto", default="auto", help="Try one alone; auto: all that the bundle has."
)
@click.option(
    "--threads", type=Threads(), default="auto", help="Maximum number of threads; auto: what measures fastest."
)
@click.option("--forget", is_flag=True, help="Remove what was kept for this bundle, and measure nothing.")
@json_option
@click.pass_context
def tune(
    ctx: click.Context, bundle: str, objective: str, variant: str, threads: int | str, forget: bool, as_json: bool
) -> None:
    """Find the fastest way to run a bundle on this machine, and keep it.

    Measures the bundle's variants, threads and block sizes for some seconds, among what reproduces its reference
    outputs. aeedge.load and all commands use the result from then on, for the same bundle, processor, CPUs and
    onnxruntime, where variant and threads are not given. The bundle is not changed. A result that was measured while
    other processes were busy is shown, not kept, and the exit code is 1.

    \b
    Examples:
      aeedge tune motor.aeedge
      aeedge tune motor.aeedge --for throughput
    """
    identity = Bundle(bundle).manifest.id
    if forget:
        _forget(identity)
        return
    if record_path(identity) is None:  # reported now, not after measuring
        raise InputError("expected HOME, XDG_STATE_HOME or AEEDGE_STATE to name a place for the result; set one")
    if sys.stderr.isatty():  # some seconds later the result says the same
        say_before(conditions.at_start(Clock()))
    line = ProgressLine()
    try:
        outcome = autotune(bundle, objective, variant=variant, threads=threads, progress=lambda text: line.show([text]))
    finally:
        line.end()
    path = policy_store.write(identity, outcome.tuned) if outcome.valid else None
    if as_json:
        show_json(_document(outcome, path))
    else:
        show(_text(outcome))
        why = "not kept, INVALID: see above; stop what disturbed it and tune again"
        click.echo(f"\nkept in {path}" if path else f"\n{why}")
    ctx.exit(0 if outcome.valid else 1)


def _forget(identity: str) -> None:
    path = record_path(identity)
    if path is None or not os.path.exists(path):
        click.echo("nothing was kept for this bundle")
        return
    os.remove(path)
    click.echo(f"removed {path}")


def _document(outcome: Outcome, path: str | None) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "status": "kept" if outcome.valid else "invalid",
        "path": path,
        "machine": policy_store.machine_key(),
        **policy_store.as_document(outcome.tuned),
        "findings": [finding._asdict() for finding in outcome.findings],
    }


def _text(outcome: Outcome) -> str:
    found, policy = outcome.tuned, outcome.tuned.policy
    workers = "not used" if policy.workers_from_us == math.inf else f"from {_rows(found, policy.workers_from_us)} rows"
    rows = [
        ("objective", found.objective),
        ("variant", found.variant),
        ("threads", str(found.threads)),
        ("intra-op pool", _pool(found)),
        ("worker threads", f"{workers}, in blocks of {_block_rows(found):,}"),
    ]
    rows += [(f"not used: {name}", why) for name, why in found.measurements["rejected"].items()]
    rows += [(finding.grade, finding.message) for finding in outcome.findings]
    parts = [pairs(rows, 80)]
    if singles := found.measurements.get("single_us"):
        parts.append(_table("variant, one sample, µs", singles))
    if many := found.measurements.get("bulk_us"):
        parts.append(_table(f"variant, {found.measurements['bulk_rows']:,} rows, µs", many))
    if any(found.measurements.get("route_us", {}).values()):
        parts.append(_routes(found))
    if sizes := found.measurements.get("bytes"):
        parts.append(_table("bytes", sizes))
    return "\n\n".join(parts)


def _pool(found: TunedPolicy) -> str:
    """Which numbers of rows go to the pool."""
    policy = found.policy
    single = "one row" if policy.single_on_pool else ""
    several = ""
    if policy.pool_from_us < policy.workers_from_us:
        end = "" if policy.workers_from_us == math.inf else f" to {_rows(found, policy.workers_from_us, -1)}"
        several = f"from {_rows(found, policy.pool_from_us)}{end} rows"
    return " and ".join(filter(None, (single, several))) or "not used"


def _rows(found: TunedPolicy, us: float, more: int = 0) -> str:
    """The number of rows of encode from which on there is this much work."""
    return f"{max(2, math.ceil(us / found.row_us['encode'])) + more:,}"


def _routes(found: TunedPolicy) -> str:
    """What decided between the routes: microseconds by number of rows, and the route that is taken."""
    policy, table = found.policy, []
    for rows, times in found.measurements["route_us"].items():
        taken = route(int(rows) * found.row_us["encode"], policy.pool_from_us, policy.workers_from_us, list(times))
        taken = ("pool" if policy.single_on_pool else "serial") if rows == "1" else taken
        cells = [f"{times[name]:,.1f}" if name in times else "" for name in ("serial", "pool", "workers")]
        table.append([f"{int(rows):,}", *cells, taken])
    return columns([f"{found.variant}, rows", "serial, µs", "pool, µs", "workers, µs", "taken"], table)


def _block_rows(found: TunedPolicy) -> int:
    wanted = int(min(found.policy.block_us / found.row_us["encode"], found.policy.max_rows))
    return 1 << max(0, wanted.bit_length() - 1)


def _table(head: str, values: dict[str, Any]) -> str:
    return columns([head, ""], [[name, f"{value:,}"] for name, value in values.items()])
