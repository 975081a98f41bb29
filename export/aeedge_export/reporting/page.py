"""A run as one self-contained HTML page: no script, no link, light and dark, readable on a phone."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

from aeedge.bundle.manifest import Manifest
from aeedge_export.reporting import charts
from aeedge_export.versions import versions

if TYPE_CHECKING:
    from aeedge_export.autoencoder import Autoencoder

_SHOWN = 8
_TSNE_ROWS = 100  # fewer have no neighbourhoods worth showing

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #667; --page: #fff; --card: #f5f6f8; --line: #d5d8de;
  --a: #2463c4; --b: #d2691e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #9aa3ad; --page: #15171a; --card: #1f2226;
  --line: #3a3f46; --a: #7fb0ff; --b: #ffb070; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0.5rem 0 0; font-size: 1.6rem; } h2 { margin: 2rem 0 0.5rem; font-size: 1.15rem; }
p { margin: 0.3rem 0; } .soft { color: var(--soft); font-size: 0.9rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.95rem; }
th, td { padding: 0.3rem 0.8rem 0.3rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.long { white-space: normal; overflow-wrap: anywhere; text-align: left; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); gap: 0.6rem; }
figure { margin: 0; } figcaption { color: var(--soft); font-size: 0.8rem; }
.grid img { width: 100%; image-rendering: pixelated; display: block; background: var(--card); }
svg { width: 100%; height: auto; display: block; background: var(--card); border-radius: 6px; margin-bottom: 0.6rem; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
@media (max-width: 32rem) { svg text { font-size: 16px; } }

.best td { font-weight: 600; } .warn { border-left: 4px solid var(--b); padding-left: 0.7rem; }
"""


def render(ae: Autoencoder, manifest: Manifest | None = None) -> str:
    """The page of a fitted estimator; what compares it with PCA is there if the run was evaluated.

    Args:
        ae: fitted.
        manifest: of a bundle made of it, to show its int8 variant.
    """
    title = f"{ae.family}: {'×'.join(map(str, ae.input_shape_))} → {ae.design_.latent} latents"
    rows = ae.sample_
    latents = ae._encode(rows)
    back = ae._decode(latents)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{_sentence(ae)}</p>',
        *(f'<p class="warn">{escape(note)}</p>' for note in ae.notes_),
        *_losses(ae),
        *_reconstructions(ae, rows, back),
        *_map(latents, ae.labels_),
        *_referee(ae.evaluation_),
        *_health(ae.evaluation_),
        *(_integers(manifest) if manifest is not None else []),
        *_facts(ae),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _integers(manifest: Manifest) -> list[str]:
    """The int8 variant of a bundle: what it keeps of fp32, and which layers run on integers."""
    variant = manifest.variants.get("int8")
    if variant is None:
        return ["<h2>int8</h2>", "<p>The bundle has no int8 variant.</p>"]
    kept = ", ".join(f"{name} {value:.4f}" for name, value in variant.quality.items())
    head = ("graph", "layer", "runs in", "error alone", "µs with it int8", "µs with it fp32", "why")
    rows = [
        (
            one["graph"],
            one["layer"],
            one["choice"],
            f"{one['error']:+.2%}",
            *(f"{one[key]:,.0f}" if key in one else "" for key in ("us_int8", "us_fp32")),
            one.get("why", ""),
        )
        for one in variant.decisions.get("layers", ())
    ]
    titles = "".join(f"<th>{name}</th>" for name in head)
    cells = [f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows]
    return [
        "<h2>int8</h2>",
        f"<p>On rows that were held out, against fp32: {escape(kept)}.</p>",
        f'<div class="scroll"><table><tr>{titles}</tr>{"".join(cells)}</table></div>',
        '<p class="soft">Error alone: growth of the reconstruction error if this layer alone ran on integers. '
        "Times are of the whole graph, 1 024 rows, one thread, on the exporting machine.</p>",
    ]


def _sentence(ae: Autoencoder) -> str:
    state = ae.state_
    why = {
        "epochs": "all epochs done",
        "patience": "stopped when it no longer improved",
        "interrupted": "interrupted",
        "diverged": "stopped when the loss was no longer finite",
        "solved": "solved in closed form",
    }
    seconds = sum(epoch["seconds"] for epoch in state.history)
    return (
        f"{ae.rows_} rows, best epoch {state.best_epoch} of {state.epoch} ({why.get(state.stopped, state.stopped)}), "
        f"{seconds:.1f} s, {escape(ae.created_)}"
    )


def _losses(ae: Autoencoder) -> list[str]:
    history = ae.state_.history
    if len(history) < 2:
        return []
    epochs = [epoch["epoch"] for epoch in history]
    curves = {"training": [e["train_loss"] for e in history], "validation": [e["validation_loss"] for e in history]}
    return [
        "<h2>Loss</h2>",
        charts.lines(epochs, curves, mark=ae.state_.best_epoch, label="epoch"),
        f'<p class="soft">{escape(ae.design_.loss)} in scaled units, logarithmic; the dot marks the epoch kept.</p>',
    ]


def _reconstructions(ae: Autoencoder, rows: NDArray[Any], back: NDArray[np.float32]) -> list[str]:
    """Images as images, signals as lines, tables as the error of each feature."""
    shape = _image_shape(ae.input_shape_)
    head = "<h2>Reconstructions of held-out rows</h2>"
    if shape is not None:
        low, high = float(rows.min()), float(rows.max())
        figures = []
        for i in np.linspace(0, len(rows) - 1, min(_SHOWN, len(rows))).astype(int):
            pair = np.concatenate([rows[i].reshape(shape), back[i].reshape(shape)], axis=1)
            figures.append(f'<figure><img alt="row {i}" src="{_png(pair, low, high)}"></figure>')
        return [head, f'<div class="grid">{"".join(figures)}</div>', '<p class="soft">Input above, output below.</p>']
    if len(ae.input_shape_) == 2:
        drawn = []
        for i in range(min(3, len(rows))):
            curves = {"input": rows[i][0].tolist(), "output": back[i][0].tolist()}
            drawn.append(charts.lines(list(range(len(rows[i][0]))), curves, log=False, label="sample, first channel"))
        return [head, *drawn]
    error = np.square((rows - back) / ae.scaler_.scale).mean(axis=0)
    names = ae._features() or tuple(f"x{i}" for i in range(len(error)))
    order = np.argsort(-error)[:30]
    return [
        "<h2>Reconstruction error of each feature</h2>",
        charts.bars([names[i] for i in order], error[order].tolist()),
        f'<p class="soft">Mean squared error of held-out rows in scaled units{_first(len(error))}.</p>',
    ]


def _first(count: int) -> str:
    return f", the largest 30 of {count}" if count > 30 else ""


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """(channels, height, width) of rows that can be shown as images; flat rows of 64, 784 … values count as square."""
    if len(shape) == 3 and shape[0] in (1, 3):
        return shape
    side = round(shape[0] ** 0.5) if len(shape) == 1 else 0
    return (1, side, side) if side >= 8 and side * side == shape[0] else None


def _png(pixels: NDArray[Any], low: float, high: float) -> str:
    grey = np.clip((pixels - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)
    image = Image.fromarray(grey[0] if grey.shape[0] == 1 else grey.transpose(1, 2, 0))
    data = io.BytesIO()
    image.save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def _map(latents: NDArray[np.float32], labels: NDArray[Any] | None) -> list[str]:
    if latents.shape[1] < 2 or len(latents) < 3:
        return []
    if len(latents) >= _TSNE_ROWS:
        flat, how = TSNE(init="pca", random_state=0).fit_transform(StandardScaler().fit_transform(latents)), "t-SNE"
    else:
        flat, how = PCA(2).fit_transform(latents), "Two main directions"
    what = "coloured by label" if labels is not None else "without labels"
    return [
        "<h2>Map of the latents</h2>",
        charts.scatter(flat, labels),
        f'<p class="soft">{how} of the latents of held-out rows, {what}.</p>',
    ]


def _referee(evaluation: dict[str, Any]) -> list[str]:
    if not evaluation:
        return []
    rows = evaluation["referee"]
    columns = [("error", "error", ".5g"), ("probe", "linear probe", ".1%"), ("kmeans", "k-means agreement", ".3f")]
    columns += [("parameters", "weights", ",d"), ("multiply_adds", "multiply-adds", ",d")]
    shown = [column for column in columns if any(column[0] in row for row in rows)]
    ratio = rows[0]["error"] / max(rows[1]["error"], 1e-300)
    body = "".join(
        f"<tr><td>{escape(row['name'])}</td>"
        + "".join(f"<td>{_cell(row.get(k), f)}</td>" for k, _, f in shown)
        + "</tr>"
        for row in rows
    )
    return [
        "<h2>Against PCA with as many latents</h2>",
        '<div class="scroll"><table><tr><th></th>'
        + "".join(f"<th>{h}</th>" for _, h, _ in shown)
        + f"</tr>{body}</table></div>",
        f'<p class="soft">Mean squared error of {evaluation["rows_compared"]} held-out rows in scaled units: '
        f"{ratio:.2f}× that of PCA. "
        "Multiply-adds: encoding and decoding one row.</p>",
    ]


def _cell(value: Any, form: str) -> str:
    return "–" if value is None else format(value, form)


def _health(evaluation: dict[str, Any]) -> list[str]:
    if not evaluation:
        return []
    found = evaluation["health"]
    variance = found["variance"]
    names = [f"z{i}" for i in range(len(variance))][:64]
    warn = f'<p class="warn">{found["dead"]} latents carry nothing: use fewer.</p>' if found["dead"] else ""
    return [
        "<h2>Health of the latents</h2>",
        f"<p>{found['dead']} dead of {len(variance)}, effective rank {found['effective_rank']:.1f}, "
        f"{found['active']:.0%} of values active.</p>",
        warn,
        charts.bars(names, variance[:64], upright=True),
        '<p class="soft">Variance of each latent.</p>',
    ]


def _facts(ae: Autoencoder) -> list[str]:
    facts: dict[str, Any] = {
        "hidden": "-".join(map(str, ae.design_.hidden)) or "none",
        "activation": ae.activation,
        "output, loss": f"{ae.design_.output}, {ae.design_.loss}",
        "scaling": ae.scaler_.kind,
        "noise": ", ".join(f"{name} {strength:g}" for name, strength in ae.noise_) or "none",
        "normalisation, linear path": f"{ae.design_.normalization}, {'yes' if ae.design_.linear_path else 'no'}",
        "seed": ae.seed_,
    }
    if ae.evaluation_:
        data = ae.evaluation_["data"]
        facts["data"] = f"{'×'.join(map(str, data['shape']))} {data['dtype']}, sha256 {data['sha256']}"
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in versions().items())
    rows = "".join(f'<tr><td>{escape(k)}</td><td class="long">{escape(str(v))}</td></tr>' for k, v in facts.items())
    return ["<h2>How it was made</h2>", f'<div class="scroll"><table>{rows}</table></div>']
