"""Pictures of a run: time per sample over batch size, one file per network, one thread left and all threads right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aeedge.files.atomic import atomic_file
from comparison.networks import NETWORKS
from comparison.records import Records

# Okabe and Ito's colours, which are distinct to the colour-blind; aeedge is the strong blue.
_STYLES = {
    "aeedge": ("#0072B2", 2.6),
    "onnxruntime": ("#000000", 1.4),
    "OpenVINO": ("#CC79A7", 1.4),
    "LiteRT": ("#009E73", 1.4),
    "torch": ("#D55E00", 1.4),
    "numpy": ("#8C8C8C", 1.4),
    "sklearn": ("#E69F00", 1.4),
}
_LINES = ("-", "--", ":", "-.")


def styles(contenders: list[str]) -> dict[str, dict[str, Any]]:
    """A colour for each runtime, and a line style for each of its variants."""
    found, seen = {}, dict.fromkeys(_STYLES, 0)
    for name in contenders:
        runtime = next((key for key in _STYLES if name.startswith(key)), "numpy")
        colour, width = _STYLES[runtime]
        found[name] = {"color": colour, "linewidth": width, "linestyle": _LINES[seen[runtime] % len(_LINES)]}
        seen[runtime] += 1
    return found


def write(records: Records, folder: Path, name: str) -> None:
    """NAME-WORKLOAD.svg for each workload of the run."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    look = styles(records.names("contender"))
    settings: Any = {"svg.hashsalt": "aeedge", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif"}
    with mpl.rc_context(settings):
        for workload in records.names("workload"):
            figure = Figure(figsize=(9, 4.2), layout="constrained")
            axes = figure.subplots(1, 2, sharey=True)
            for axis, threads in zip(axes, ("one", "all")):
                _panel(axis, records, workload, threads, look)
            axes[0].set_ylabel("µs per sample")
            figure.suptitle(f"{workload}: {NETWORKS[workload].title}", x=0.01, ha="left", fontweight="bold")
            _legend(figure, axes, records, workload)
            with atomic_file(folder / f"{name}-{workload}.svg", overwrite=True) as part:
                figure.savefig(part, format="svg", metadata={"Date": None})


def _panel(axis: Any, records: Records, workload: str, threads: str, look: dict[str, dict[str, Any]]) -> None:
    for contender, style in look.items():
        cells = records.of("speed", workload=workload, threads=threads, contender=contender)
        if cells:
            batches = [cell["batch"] for cell in cells]
            microseconds = [cell["seconds"] / cell["batch"] * 1e6 for cell in cells]
            front = 3 if contender.startswith("aeedge") else 2
            axis.plot(batches, microseconds, marker="o", markersize=3, label=contender, zorder=front, **style)
    batches = records.names("batch")
    axis.set(
        xscale="log", yscale="log", xlabel="samples per call", title="one thread" if threads == "one" else "all threads"
    )
    axis.set_xticks(batches, [f"{batch:,}" for batch in batches])
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _legend(figure: Any, axes: Any, records: Records, workload: str) -> None:
    """Names in the order of the lines' right ends."""
    handles: dict[str, Any] = {}
    for axis in axes:
        handles |= dict(zip(*axis.get_legend_handles_labels()[::-1]))
    last = {
        cell["contender"]: cell["seconds"]
        for cell in records.of("speed", workload=workload, threads="all", batch=max(records.names("batch")))
    }
    order = sorted(handles, key=lambda name: -last.get(name, 0))
    figure.legend([handles[name] for name in order], order, loc="outside right center", frameon=False)
