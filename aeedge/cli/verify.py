"""aeedge verify: does the bundle still say here what it said when it was made?"""

from __future__ import annotations

import json
import warnings
from typing import Any

import click

from aeedge.bundle.reader import Bundle
from aeedge.errors import AeedgeError, BundleError
from aeedge.loading import load
from aeedge.runtime.session import runtime_version
from aeedge.table import columns


@click.command()
@click.argument("bundle", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def verify(ctx: click.Context, bundle: str, as_json: bool) -> None:
    """Check every file against its hash and run the golden rows of every variant on this machine.

    Exit code 0 when all agree, 1 when something differs.

    \b
    Example:
      aeedge verify motor.aeedge
    """
    results = [_check(bundle, variant) for variant in Bundle(bundle).manifest.variants]
    ok = all(result["ok"] for result in results)
    if as_json:
        click.echo(json.dumps({"ok": ok, "onnxruntime": runtime_version(), "variants": results}, indent=1))
    else:
        rows = [
            [
                f"{result['variant']} ({result['arithmetic']})",
                output["what"],
                f"{output['error']:.2g}",
                f"{output['allowed']:.2g}",
                "ok",
            ]
            for result in results
            for output in result["outputs"]
        ]
        if rows:
            click.echo(columns(["variant", "output", "worst error", "allowed", ""], rows))
        for result in results:
            if not result["ok"]:
                click.echo(f"Error: {result['problem']}", err=True)
        if ok:
            click.echo(f"{bundle}: hashes match and golden rows are reproduced with onnxruntime {runtime_version()}")
    ctx.exit(0 if ok else 1)


def _check(bundle: str, variant: str) -> dict[str, Any]:
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model = load(bundle, variant=variant, threads=1)
        with model:
            if model.variant != variant:
                return _failed(variant, str(said[-1].message))
            outputs = [{**d._asdict(), "ok": d.ok} for d in model.self_check()]
    except AeedgeError as error:
        if type(error) is BundleError:
            raise
        return _failed(variant, str(error))
    return {"variant": variant, "arithmetic": model.arithmetic, "ok": True, "outputs": outputs}


def _failed(variant: str, problem: str) -> dict[str, Any]:
    return {"variant": variant, "arithmetic": None, "ok": False, "outputs": [], "problem": problem}
