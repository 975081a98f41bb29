"""aeedge doctor: what this machine is, what will be used, and what is wrong."""

from __future__ import annotations

import json
from textwrap import indent
from typing import Any

import click

from aeedge.doctor import examine
from aeedge.system.ort_probe import WHILE
from aeedge.table import pairs

_WIDTH = 80


@click.command()
@click.argument("bundle", type=click.Path(), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def doctor(ctx: click.Context, bundle: str | None, as_json: bool) -> None:
    """Say what this machine is, what will be used and what is wrong.

    onnxruntime is tried in a process of its own first, so that a death in there is named. Exit code 0 when nothing is
    an error, 1 otherwise.

    \b
    Examples:
      aeedge doctor
      aeedge doctor motor.aeedge
    """
    document = examine(bundle)
    click.echo(json.dumps(document, indent=1) if as_json else text(document))
    ctx.exit(0 if document["ok"] else 1)


def text(document: dict[str, Any]) -> str:
    """The document in sections of 80 columns."""
    runtime = document["onnxruntime"]
    parts = [
        _section("machine", _machine(document["machine"])),
        _section("onnxruntime", [("works", _works(runtime)), ("telemetry", runtime["telemetry"]["meaning"])]),
        _section("will be used", list(document["use"].items())),
    ]
    rows = [(problem["grade"], problem["message"]) for problem in document["problems"]]
    wrong = any(grade != "note" for grade, _ in rows)
    parts.append(_section("wrong" if wrong else "nothing is wrong", rows))
    return "\n\n".join(parts)


def _section(title: str, rows: list[tuple[str, str]]) -> str:
    return "\n".join([title, indent(pairs(rows, _WIDTH - 2), "  ")]) if rows else title


def _machine(m: dict[str, Any]) -> list[tuple[str, str]]:
    """What is known, a line each."""
    cpus = f"{m['cpus_in_mask'] or m['cpus']} of {m['cpus_of_machine'] or '?'}"
    quota = "no quota" if m["cpu_quota"] is None else f"a quota of {m['cpu_quota']:g} CPUs"
    memory = "" if m["memory_mb"] is None else f"{m['memory_mb']:,} MB"
    free = "" if m["memory_free_mb"] is None else f"{m['memory_free_mb']:,} MB free"
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    rows = [
        ("processor", m["processor"] + (" (a virtual machine)" if m["virtual"] else "")),
        ("features", " ".join(m["vector"]) or "unknown"),
        ("int8", m["integers"] or "unknown; golden rows decide when int8 is loaded"),
        ("CPUs", f"{cpus}, {quota}"),
        ("governor", m["governor"] or ""),
        ("temperature", "" if m["celsius"] is None else f"{m['celsius']:.0f} °C"),
        ("memory", ", ".join(filter(None, (memory, free)))),
        ("system", f"{m['system']}, Python {m['python']}"),
        ("versions", versions),
    ]
    return [(name, value) for name, value in rows if value]


def _works(runtime: dict[str, Any]) -> str:
    if runtime["works"]:
        return f"yes: imported, opened a graph and ran it, in {runtime['seconds']:.1f} s"
    if runtime["how"] == "no process":
        return "not tried"
    return f"no: {runtime['how']} {WHILE[runtime['failed_in']]}"
