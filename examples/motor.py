"""Draw the alarms of the quickstart: two sensors and the score over the first 70 minutes, with four faults.

python examples/motor.py [FOLDER]     after examples/quickstart.sh; FOLDER is where its files are, demo-out
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from style import ALARM, EXPECTED, FAULT, INK

import aeedge

MINUTES = 70
SHOWN = {"flow": "flow\nm³/h", "temp_motor": "motor\n°C"}


def main() -> None:
    """Score motor-new.csv and draw it."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-out")
    with (folder / "motor-new.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    model = aeedge.load(folder / "motor.aeedge")
    names = list(model.manifest.input.features or ())
    x = np.array([[float(row[name]) for name in names] for row in rows], np.float32)
    picture(model, x, names, [row["fault"] for row in rows], folder / "motor.png")
    print(f"wrote {folder / 'motor.png'}")


def picture(model: aeedge.Model, x: np.ndarray, names: list[str], faults: list[str], path: Path) -> None:
    """Each alarm is drawn on the sensor that it names, beside what that sensor should have read."""
    scores, alarms = model.score(x), np.flatnonzero(model.detect(x))
    causes = [found[0] for found in model.explain(x[alarms], top=1)]
    minutes = np.arange(len(x)) * 5 / 60
    figure, axes = plt.subplots(3, 1, figsize=(6.4, 5), sharex=True, layout="constrained")
    for axis, (name, label) in zip(axes, SHOWN.items()):
        values, blamed = x[:, names.index(name)], [cause.name == name for cause in causes]
        expected = [cause.expected for cause in causes if cause.name == name]
        axis.plot(minutes, values, color=INK, lw=0.8)
        axis.plot(minutes[alarms[blamed]], expected, ".", color=EXPECTED, ms=4)
        axis.plot(minutes[alarms[blamed]], values[alarms[blamed]], ".", color=ALARM, ms=5)
        axis.set_ylabel(label)
    axes[-1].semilogy(minutes, scores, color=INK, lw=0.8)
    axes[-1].semilogy(
        minutes[alarms], scores[alarms], ".", color=ALARM, ms=5, label="alarm, on the sensor that it names"
    )
    axes[-1].plot([], [], ".", color=EXPECTED, label="what the sensor should read")
    axes[-1].axhline(model.threshold, color=EXPECTED, lw=1.2, ls="--", label="threshold")
    axes[-1].set(ylabel="anomaly\nscore", xlabel="minutes", xlim=(0, MINUTES))
    for fault in dict.fromkeys(faults):
        found = minutes[[name == fault for name in faults]]
        if fault != "normal" and found[0] < MINUTES:
            _shade(axes, fault, found[0], found[-1])
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.align_ylabels(axes)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _shade(axes: np.ndarray, fault: str, first: float, last: float) -> None:
    for axis in axes:
        axis.axvspan(first, last, color=FAULT, alpha=0.18, lw=0)
    axes[0].annotate(
        fault.replace(" ", "\n", 1),
        ((first + last) / 2, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=11,
    )


if __name__ == "__main__":
    main()
