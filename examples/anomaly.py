"""From a recording to alarms with a reason, on a simulated pump (aeedge_export/samples/motor.py).

Trains on normal time, exports, and raises alarms with the device runtime: is the promised false-alarm rate kept,
are faults found, and is the right sensor named? Leaves the bundle and a picture in demo-out/.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from style import ALARM, EXPECTED, FAULT, INK

import aeedge
from aeedge.detection.calibration import alarm_band
from aeedge.detection.explain import Cause
from aeedge.table import columns
from aeedge_export import Autoencoder
from aeedge_export.samples.motor import SENSORS, Fault, recording

OUT = Path("demo-out")
HOUR = 3600
RATE = 0.001  # of false alarms: with a sample a second, three or four an hour


def main() -> None:
    """Run the demo."""
    began = time.perf_counter()
    normal, watched, faults = recording(48 * HOUR, np.random.default_rng(0))
    known, later = normal[: 36 * HOUR], normal[36 * HOUR :]
    OUT.mkdir(exist_ok=True)

    print(f"training on {len(known) / HOUR:.0f} hours of a pump, {len(SENSORS)} sensors once a second")
    ae = Autoencoder(
        latent=4,  # as many quantities vary by themselves: demand, level of the tank, voltage, temperature
        hidden=(128, 128),
        noise="none",
        epochs=10,
        calibration=0.25,  # the last hours set the threshold
        time_ordered=True,
        gap=600,  # seconds, after which the pump has forgotten
        random_state=0,
        verbose=True,
    ).fit_rows(known, features=list(SENSORS), units=list(SENSORS.values()))
    ae.calibrate(false_alarm_rate=RATE)
    print("exporting in float32 and in 8-bit integers")
    path = OUT / "pump.aeedge"
    manifest = ae.export(path, variants=("fp32", "int8"), calibration=known[::20], overwrite=True)

    models = [aeedge.load(path, variant=variant) for variant in manifest.variants]  # numpy and onnxruntime alone
    alarms = [explained_alarms(model, watched) for model in models]
    print()
    print(f"false alarms in the {len(later) / HOUR:.0f} hours after that, of every third sample")
    print(false_alarms(models, later[::3]))  # neighbours in time are alike
    print()
    print(
        f"faults in the {len(watched) / HOUR:.0f} hours after that, at a promised false-alarm rate of {100 * RATE:g} %"
    )
    print(detections([model.variant for model in models], alarms, faults))
    picture(watched, alarms[0], models[0].score(watched), models[0].threshold, faults, OUT / "anomaly.png")
    print()
    print(f"left in {OUT}/: pump.aeedge (the bundle), anomaly.png")
    print(f"done in {time.perf_counter() - began:.0f} s")


def explained_alarms(model: aeedge.Model, x: np.ndarray) -> dict[int, Cause]:
    """The rows that raise an alarm, each with its main cause."""
    rows = np.flatnonzero(model.detect(x))
    return {row: causes[0] for row, causes in zip(rows.tolist(), model.explain(x[rows], top=1))}


def false_alarms(models: list[aeedge.Model], normal: np.ndarray) -> str:
    """A table of promised and realised false-alarm rates, with the band that chance explains."""
    rows = []
    for model in models:
        for rate in (0.01, RATE):
            count = int(model.detect(normal, false_alarm_rate=rate).sum())
            low, high = alarm_band(rate, model.calibration_size, len(normal), coverage=0.99)
            share, least, most = (f"{100 * number / len(normal):.2f}" for number in (count, low, high))
            verdict = "yes" if low <= count <= high else "no"
            rows.append([model.variant, f"{100 * rate:g} %", f"{share} %", f"{least} to {most} %", verdict])
    return columns(["", "promised", "realised", "99 % band", "kept"], rows)


def detections(variants: list[str], alarms: list[dict[int, Cause]], faults: list[Fault]) -> str:
    """A table of the share of each fault's samples that raise an alarm, and of alarms that name a right sensor."""
    rows = []
    for fault in faults:
        blamed = [[causes[row].name for row in fault.rows if row in causes] for causes in alarms]
        found = [f"{100 * len(names) / len(fault.rows):.0f} %" for names in blamed]
        right = [f"{100 * np.mean(np.isin(names, fault.sensors)):.0f} %" if names else "-" for names in blamed]
        rows.append([fault.name, *found, *right])
    return columns(["fault", *(f"{v} {what}" for what in ("found", "named") for v in variants)], rows)


def picture(
    x: np.ndarray, causes: dict[int, Cause], scores: np.ndarray, threshold: float, faults: list[Fault], path: Path
) -> None:
    """Sensors over time, with each alarm drawn on the sensor that it names; below, the score with the threshold."""
    shown = {
        "flow": "flow",
        "pressure": "pressure",
        "current": "current",
        "vib_drive": "vibration",
        "temp_motor": "motor",
    }
    minutes = np.arange(len(x)) / 60
    figure, axes = plt.subplots(
        len(shown) + 1, 1, figsize=(8, 9.6), sharex=True, layout="constrained", height_ratios=[1] * len(shown) + [1.7]
    )
    for axis, (name, label) in zip(axes, shown.items()):
        rows = np.array([row for row, cause in causes.items() if cause.name == name], int)
        values = x[:, list(SENSORS).index(name)]
        axis.plot(minutes, values, color=INK, lw=0.7)
        axis.plot(minutes[rows], [causes[row].expected for row in rows], ".", color=EXPECTED, ms=2)
        axis.plot(minutes[rows], values[rows], ".", color=ALARM, ms=3)
        axis.set_ylabel(f"{label}\n{SENSORS[name]}")
    over = np.array(list(causes), int)
    axes[-1].semilogy(minutes, scores, color=INK, lw=0.5)
    axes[-1].semilogy(minutes[over], scores[over], ".", color=ALARM, ms=3)
    axes[-1].axhline(threshold, color=EXPECTED, ls="--", lw=1.2)
    axes[-1].set(ylabel="score", xlabel="minutes", xlim=(0, minutes[-1]), ylim=(None, scores.max() * 100))
    for fault in faults:
        first, last = minutes[fault.rows[[0, -1]]]
        for axis in axes:
            axis.axvspan(first, last, color=FAULT, alpha=0.18, lw=0, zorder=0)
        middle = {"xy": ((first + last) / 2, 1), "xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axes[0].annotate(fault.name.replace(" ", "\n", 1), **middle, xytext=(0, 4), ha="center", va="bottom")
        named = Counter(causes[row].name for row in fault.rows if row in causes)
        often = "\n".join(name for name, count in named.most_common(2) if count > named.total() / 4)
        axes[-1].annotate(often, **middle, xytext=(0, -2), ha="center", va="top", color=ALARM, fontsize=10)
    keys = {
        "alarm": {"marker": "o", "ls": "", "color": ALARM},
        "what the sensor should read": {"marker": "o", "ls": "", "color": EXPECTED},
        "threshold": {"color": EXPECTED, "ls": "--", "lw": 1.2},
    }
    handles = [Line2D([], [], label=label, markersize=5, **style) for label, style in keys.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.align_ylabels(axes)
    figure.suptitle("Seven faults of a pump: each alarm names a sensor", fontsize=13)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
