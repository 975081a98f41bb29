"""aeedge doctor: what this machine is, how a bundle would run on it, and what is wrong."""

from __future__ import annotations

from textwrap import indent
from typing import Any

import click

from aeedge.cli.command import Command
from aeedge.cli.streams import show, show_json
from aeedge.cli.types import json_option
from aeedge.doctor import examine
from aeedge.system.ort_probe import STAGES, words
from aeedge.table import pairs, percent_of

_WIDTH = 80
_INT8_SUMS = {
    "dot_product": "integer sums are exact and fast (dot-product instructions)",
    "exact": "integer sums are exact, without dot-product instructions",
    "may_saturate": "integer sums may saturate (no VNNI); checked when int8 is loaded",
    None: "unknown; checked when int8 is loaded",
}
_TELEMETRY = {
    ("unsupported", "version"): "this version has none",
    ("off", "environment"): "off: ORT_DISABLE_TELEMETRY={environment} is set",
    ("off", "aeedge"): "off, switched off by aeedge",
    ("on", "environment"): "on: ORT_DISABLE_TELEMETRY={environment} is set; set it to 1 to switch it off",
}
_THREADS = {
    "cpu_quota": "limited by the CPU quota",
    "affinity_mask": "the CPUs in the affinity mask",
    "all_cpus": "all CPUs of this machine",
}
_VARIANT = {
    "bundle_default": "the bundle's default",
    "fallback": "the default does not work on this machine, see below",
}
_ARITHMETIC = {
    "float": "float32",
    "integer": "8-bit integers",
    "exact_integer": "8-bit integers with exact sums, since sums saturate on this processor; up to twice the time",
}
_NONFINITE = {
    "latents": "NaN and infinity are detected in the latents",
    "inputs": "NaN and infinity are searched for in the inputs",
    "none": "not needed, inputs are integers",
}


@click.command(cls=Command)
@click.argument("bundle", type=click.Path(), required=False)
@json_option
@click.pass_context
def doctor(ctx: click.Context, bundle: str | None, as_json: bool) -> None:
    """Report on this machine, its packages, and how a bundle runs here.

    onnxruntime is first run in a child process, so that a crash on import is reported, too. Exit code 0 without errors,
    1 otherwise.

    \b
    Examples:
      aeedge doctor
      aeedge doctor motor.aeedge
    """
    document = examine(bundle)
    show_json(document) if as_json else show(text(document))
    ctx.exit(0 if document["ok"] else 1)


def text(document: dict[str, Any]) -> str:
    """The document in sections of 80 columns."""
    runtime, bundle = document["onnxruntime"], document["bundle"]
    parts = [
        _section("machine", _machine(document["machine"], document["threads"])),
        _section("onnxruntime", [("works", _works(runtime)), ("telemetry", _telemetry(runtime["telemetry"]))]),
    ]
    if bundle is not None:
        parts.append(_section("bundle", _bundle(bundle)))
    rows = [(finding["grade"], finding["message"]) for finding in document["findings"]]
    parts.append(_section("findings" if rows else "no findings: all is well", rows))
    return "\n\n".join(parts)


def _section(title: str, rows: list[tuple[str, str]]) -> str:
    return "\n".join([title, indent(pairs(rows, _WIDTH - 2), "  ")]) if rows else title


def _machine(m: dict[str, Any], threads: dict[str, Any]) -> list[tuple[str, str]]:
    """What is known, a line each."""
    quota = "no quota" if m["cpu_quota"] is None else f"a quota of {m['cpu_quota']:g} CPUs"
    memory = "" if m["memory_mb"] is None else f"{m['memory_mb']:,} MB"
    free = "" if m["memory_free_mb"] is None else f"{m['memory_free_mb']:,} MB free"
    versions = [f"{name} {version or 'not installed'}" for name, version in m["versions"].items()]
    rows = [
        ("processor", m["processor"] + (" (virtual machine)" if m["virtual"] else "")),
        ("features", " ".join(m["vector"]) or "unknown"),
        ("int8", _INT8_SUMS[m["int8_sums"]]),
        ("CPUs", f"{m['cpus_in_affinity_mask']} of {m['cpus_of_machine'] or '?'}, {quota}"),
        ("threads", f"{threads['value']}: {_THREADS[threads['source']]}"),
        ("governor", m["governor"] or ""),
        ("temperature", "" if m["celsius"] is None else f"{m['celsius']:.0f} °C"),
        ("memory", ", ".join(filter(None, (memory, free)))),
        ("system", f"{m['system']}, Python {m['python']}"),
        ("versions", ", ".join(versions)),
    ]
    return [(name, value) for name, value in rows if value]


def _works(runtime: dict[str, Any]) -> str:
    if runtime["works"]:
        return f"yes: imported, opened a graph and ran it, in {runtime['seconds']:.1f} s"
    if runtime["exit"] == "not_started":
        return "not probed"
    return f"no: {words(runtime['exit'])} {STAGES[runtime['failed_stage']]}"


def _telemetry(telemetry: dict[str, str]) -> str:
    return _TELEMETRY[telemetry["state"], telemetry["source"]].format(**telemetry)


def _bundle(b: dict[str, Any]) -> list[tuple[str, str]]:
    """How the bundle runs here."""
    if b["status"] == "not_opened":
        return [("path", b["path"]), ("status", "not opened, because onnxruntime does not work")]
    if b["status"] == "unusable":
        return [("path", b["path"]), ("status", "cannot be used, see below")]
    variant, count, policy = b["variant"], b["threads"], b["dispatch_policy"]
    tuned = "tuned on this device" + (f" for {policy['objective']}" if policy["objective"] else "")
    default = "default; 'aeedge tune' measures which is fastest here"
    return [
        ("path", b["path"]),
        ("variant", f"{variant['value']}: {_VARIANT.get(variant['source'], tuned)}"),
        ("threads", f"{count['value']}: {_THREADS.get(count['source'], tuned)}"),
        ("dispatch policy", tuned if policy["objective"] else default),
        ("arithmetic", _ARITHMETIC[b["arithmetic"]]),
        ("non-finite check", _NONFINITE[b["nonfinite_check"]]),
        ("self-check", _self_check(b)),
    ]


def _self_check(b: dict[str, Any]) -> str:
    if b["status"] == "check_failed":
        return "failed: the reference outputs are not reproduced, see below"
    if not any(output["error"] for output in b["outputs"]):
        return "reference outputs reproduced bit for bit"
    worst = max(b["outputs"], key=lambda output: output["error"] / (output["tolerance"] or 1))
    used = percent_of(worst["error"], worst["tolerance"])
    return f"reference outputs reproduced; the largest error is {used} of its tolerance"
