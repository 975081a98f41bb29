"""aeedge verify: does a bundle still produce the outputs that were recorded when it was made?"""

from __future__ import annotations

import warnings
from textwrap import fill
from typing import Any

import click

from aeedge.bundle.reader import CALIBRATION, FEATURES, GOLDEN, Bundle, file_name
from aeedge.cli.command import Command
from aeedge.cli.streams import check_stdout, show, show_json
from aeedge.cli.types import allow_ops_option, json_option
from aeedge.cli.wording import reworded
from aeedge.doctor import outputs
from aeedge.errors import AeedgeError, BundleError
from aeedge.loading import load
from aeedge.runtime.session import runtime_version
from aeedge.table import columns, percent_of

SCHEMA = "aeedge-verify/1"


@click.command(cls=Command)
@click.argument("bundle", type=click.Path())
@allow_ops_option
@json_option
@click.pass_context
def verify(ctx: click.Context, bundle: str, allow_ops: tuple[str, ...], as_json: bool) -> None:
    """Check a bundle's files against their checksums, and its outputs against the recorded ones.

    Runs the reference inputs of each variant on this machine and compares with the reference outputs, which were stored
    in the bundle when it was made. Exit code 0 when all agree, 1 when a check failed.

    \b
    Example:
      aeedge verify motor.aeedge
    """
    check_stdout()
    manifest = Bundle(bundle).manifest
    results = [_check(bundle, variant, allow_ops) for variant in manifest.variants]
    ok = all(result["ok"] for result in results)
    if as_json:
        document = {"schema": SCHEMA, "ok": ok, "path": bundle, "id": manifest.id, "onnxruntime": runtime_version()}
        show_json(document | {"variants": results})
        ctx.exit(0 if ok else 1)
    rows = [
        [
            f"{result['variant']} ({result['arithmetic'].replace('_', ' ')})",
            output["output"],
            percent_of(output["error"], output["tolerance"]),
            "ok",
        ]
        for result in results
        for output in result["outputs"]
    ]
    if rows:
        show(columns(["variant", "output", "of the allowed difference", ""], rows))
    for result in results:
        if not result["ok"]:
            click.echo(f"Error: {reworded(result['message'], ctx.command)}", err=True)
    if ok:
        files = ", ".join(dict.fromkeys(file for result in results for file in result["files"]))
        text = f"Checksums of {files} and {GOLDEN} match; reference outputs are reproduced with onnxruntime "
        show(fill(f"{text}{runtime_version()}.", 80, break_on_hyphens=False))
    ctx.exit(0 if ok else 1)


def _check(bundle: str, variant: str, allow_ops: tuple[str, ...]) -> dict[str, Any]:
    """Load one variant and run its self-check."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = load(bundle, variant=variant, threads=1, allow_ops=allow_ops)
        with model:
            if model.variant != variant:  # another one is used instead
                return _failed(variant, str(caught[-1].message))
            found = outputs(model.self_check())
    except AeedgeError as error:
        if type(error) is BundleError:
            raise
        return _failed(variant, str(error))
    arithmetic, entries = model.arithmetic.replace(" ", "_"), model.manifest.variants[variant]
    files = [file_name(role, variant) for role in ("encoder", "decoder", "scorer") if getattr(entries, role)]
    files += [file_name(FEATURES, variant)] if model.manifest.front_end is not None else []
    files += [CALIBRATION] if model.calibration_size else []
    result = {"variant": variant, "ok": True, "arithmetic": arithmetic, "files": files}
    return result | {"outputs": found, "message": None}


def _failed(variant: str, message: str) -> dict[str, Any]:
    return {"variant": variant, "ok": False, "arithmetic": None, "files": [], "outputs": [], "message": message}
