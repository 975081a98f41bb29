"""aeedge tune: find the fastest way to run a bundle on this machine, and keep it."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from aeedge import autotune
from aeedge.bundle.reader import Bundle
from aeedge.errors import InputError
from aeedge.runtime import policy_store
from aeedge.system.limits import record_path
from aeedge.table import columns, pairs


@click.command()
@click.argument("bundle", type=click.Path())
@click.option(
    "--for", "aim", type=click.Choice(policy_store.AIMS), default="latency", show_default=True, help="What counts."
)
@click.option("--variant", default="auto", show_default=True, help="fp32 or int8: try this one alone.")
@click.option("--threads", type=click.IntRange(1), help="The most to use [default: all CPUs allowed].")
@click.option("--forget", is_flag=True, help="Remove what was kept for this bundle, and measure nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def tune(bundle: str, aim: str, variant: str, threads: int | None, forget: bool, as_json: bool) -> None:
    """Find the fastest way to run a bundle on this machine, and keep it.

    Measures the bundle's variants, threads and block sizes for some seconds, among what reproduces its golden rows.
    aeedge.load and all commands use the result from then on, for the same bundle, processor, CPUs and onnxruntime,
    where variant and threads are not given. The bundle is not changed.

    \b
    Examples:
      aeedge tune motor.aeedge
      aeedge tune motor.aeedge --for throughput
    """
    identity = Bundle(bundle).manifest.id
    if forget:
        _forget(identity)
        return
    path = record_path(identity)
    if path is None:  # said now, not after measuring
        raise InputError("expected HOME, XDG_STATE_HOME or AEEDGE_STATE to say where to keep the result; set one")
    quiet = sys.stderr is None or not sys.stderr.isatty()

    def say(text: str) -> None:
        if not quiet:
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)

    found = autotune.tune(bundle, aim, variant=variant, threads=threads or "auto", say=say)
    say("")
    path = policy_store.write(identity, found)
    if as_json:
        click.echo(
            json.dumps(
                {"kept": path, "machine": policy_store.machine_key()} | policy_store.as_document(found), indent=1
            )
        )
    else:
        click.echo(_text(found))
        click.echo(f"\nkept in {path}")


def _forget(identity: str) -> None:
    path = record_path(identity)
    if path is None or not os.path.exists(path):
        click.echo("nothing was kept for this bundle")
        return
    os.remove(path)
    click.echo(f"removed {path}")


def _text(found: policy_store.Tuned) -> str:
    schedule = found.schedule
    rows = [
        ("for", found.aim),
        ("variant", found.variant),
        ("threads", str(found.threads)),
        ("single rows", "on onnxruntime's pool" if schedule.single_on_pool else "on the calling thread"),
        ("onnxruntime's pool", _range(found, schedule.pool_from, schedule.lanes_from)),
        ("own threads", _range(found, schedule.lanes_from, float("inf"))),
        ("rows of a block", f"{_block_rows(found):,}"),
    ]
    rows += [(f"not used: {name}", why) for name, why in found.seen["rejected"].items()]
    rows += [("disturbed", text) for text in found.seen["disturbed"]]
    parts = [pairs(rows, 80)]
    if singles := found.seen.get("single_us"):
        parts.append(_table("a single row, µs", singles))
    if many := found.seen.get("bulk_us"):
        parts.append(_table(f"{found.seen['bulk_rows']:,} rows, µs", many))
    if sizes := found.seen.get("bytes"):
        parts.append(_table("bytes", sizes))
    return "\n\n".join(parts)


def _range(found: policy_store.Tuned, begin: float, end: float) -> str:
    """Numbers of rows of encode between two borders of work."""
    us = found.row_us["encode"]
    first = max(2, -(-begin // us))
    if begin >= end or begin == float("inf"):
        return "not used"
    return f"from {first:,.0f} rows" + ("" if end == float("inf") else f" to {end // us:,.0f}")


def _block_rows(found: policy_store.Tuned) -> int:
    wanted = int(min(found.schedule.block / found.row_us["encode"], found.schedule.most_rows))
    return 1 << max(0, wanted.bit_length() - 1)


def _table(head: str, values: dict[str, Any]) -> str:
    return columns([head, ""], [[name, f"{value:,}"] for name, value in values.items()])
