"""aeedge info: what a bundle contains, from its manifest alone."""

from __future__ import annotations

import json

import click

from aeedge.bundle.manifest import Manifest
from aeedge.bundle.reader import Bundle
from aeedge.table import human_bytes, pairs


@click.command()
@click.argument("bundle", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON (docs/bundle-format.md).")
def info(bundle: str, as_json: bool) -> None:
    """Show what a bundle is.

    \b
    Example:
      aeedge info motor.aeedge
    """
    manifest = Bundle(bundle).manifest
    click.echo(manifest.dumps().rstrip() if as_json else pairs(_rows(manifest)))


def _rows(m: Manifest) -> list[tuple[str, str]]:
    shape = "×".join(map(str, m.input.shape))
    rows = [
        ("name", m.name),
        ("id", m.id),
        ("family", m.family),
        ("input", f"{shape} {m.input.dtype}"),
        ("latent", str(m.latent)),
        ("needs", f"onnxruntime {m.min_onnxruntime} or newer (opset {m.opset})"),
        ("created", m.created or "not recorded"),
        ("made with", ", ".join(f"{k} {v}" for k, v in m.made_with.items()) or "not recorded"),
    ]
    if m.input.features:
        shown = ", ".join(m.input.features[:6])
        more = len(m.input.features) - 6
        rows.insert(4, ("features", shown + (f" and {more} more" if more > 0 else "")))
    for name, variant in m.variants.items():
        size = human_bytes(variant.encoder.bytes)
        decoder = "no decoder" if variant.decoder is None else f"decoder {human_bytes(variant.decoder.bytes)}"
        default = " (default)" if name == m.default_variant else ""
        rows.append((f"variant {name}", f"encoder {size}, {decoder}{default}"))
        if variant.quality:
            kept = ", ".join(f"{what} {value:.4f}" for what, value in variant.quality.items())
            rows.append((f"{name} against fp32", kept))
        for layer in variant.decisions.get("layers", ()):
            why = f" ({layer['why']})" if "why" in layer else ""
            rows.append((f"{name}: {layer['graph']} {layer['layer']}", f"{layer['choice']}{why}"))
    rows += [(f"training: {k}", v if isinstance(v, str) else json.dumps(v)) for k, v in m.training.items()]
    return rows
