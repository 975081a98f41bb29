"""From a recording to alarms with a reason, on a simulated pump (plant.py).

Trains on a day without fault, exports, and raises alarms with the device runtime: is the promised false-alarm rate kept,
are faults found, and is the right sensor named? Leaves the bundle and a picture in demo-out/.
"""

from __future__ import annotations

import time
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from plant import SENSORS, Fault, recording

import aeedge
from aeedge.detection.calibration import alarm_band
from aeedge.table import columns
from aeedge_export import Autoencoder

OUT = Path("demo-out")
HOUR = 3600
RATE = 0.001  # of false alarms: with a sample a second, three or four an hour


def main() -> None:
    """Run the demo."""
    began = time.perf_counter()
    normal, watched, faults = recording(24 * HOUR, np.random.default_rng(0))
    known, later = normal[: 20 * HOUR], normal[20 * HOUR :]
    OUT.mkdir(exist_ok=True)

    print(f"training on 20 hours of a pump, {len(SENSORS)} sensors once a second")
    ae = Autoencoder(
        latent=4,  # as many quantities vary by themselves: demand, level of the tank, voltage, temperature
        hidden=(128, 128),
        noise="none",
        epochs=15,
        score_kind="robust",
        calibration=0.2,  # the last hours set the threshold
        time_ordered=True,
        gap=300,  # seconds, after which the pump has forgotten
        random_state=0,
        verbose=True,
    ).fit_rows(known, features=list(SENSORS), units=list(SENSORS.values()))
    print("exporting in float32 and in 8-bit integers")
    path = OUT / "pump.aeedge"
    manifest = ae.export(path, variants=("fp32", "int8"), calibration=known[::20], overwrite=True)

    models = [aeedge.load(path, variant=variant) for variant in manifest.variants]  # numpy and onnxruntime alone
    named = [culprits(model, watched) for model in models]
    print()
    print(f"false alarms in the 4 hours after that, {len(later):,} samples")
    print(false_alarms(models, later))
    print()
    print(f"faults in the {len(watched) / HOUR:.1f} hours after that, at a promised false-alarm rate of {RATE:.1%}")
    print(detections([model.variant for model in models], named, faults))
    picture(models[0].score(watched), models[0].calibration.threshold(RATE), watched, named[0], faults)
    print()
    print(f"left in {OUT}/: pump.aeedge (the bundle), anomaly.png")
    print(f"done in {time.perf_counter() - began:.0f} s")


def culprits(model: aeedge.Model, x: np.ndarray) -> np.ndarray:
    """The sensor that each alarm is blamed on, "" for a sample without alarm: (n,) str."""
    alarms = model.detect(x, false_alarm_rate=RATE)
    named = np.full(len(x), "", dtype="U16")
    named[alarms] = [causes[0].name for causes in model.explain(x[alarms], top=1)]
    return named


def false_alarms(models: list[aeedge.Model], normal: np.ndarray) -> str:
    """A table of promised and realised false-alarm rates, with the band that chance explains."""
    rows = []
    for model in models:
        for rate in (0.01, RATE):
            count = int(model.detect(normal, false_alarm_rate=rate).sum())
            low, high = alarm_band(rate, model.calibration_size, len(normal), coverage=0.99)
            share, least, most = (f"{100 * number / len(normal):.2f}" for number in (count, low, high))
            verdict = "yes" if low <= count <= high else "no"
            rows.append([model.variant, f"{rate:.1%}", f"{share} %", f"{least} to {most} %", verdict])
    return columns(["", "promised", "realised", "99 % of the time", "kept"], rows)


def detections(variants: list[str], named: list[np.ndarray], faults: list[Fault]) -> str:
    """A table of the share of each fault's samples with an alarm, and of alarms that name a sensor at fault."""
    rows = []
    for fault in faults:
        names = [one[fault.rows] for one in named]
        found = [f"{(one != '').mean():.0%}" for one in names]
        right = [f"{np.isin(one[one != ''], fault.sensors).mean():.0%}" if (one != "").any() else "-" for one in names]
        rows.append([f"{fault.name}: {', '.join(fault.sensors)}", *found, *right])
    head = ["fault, sensors"] + [f"found {v}" for v in variants] + [f"named {v}" for v in variants]
    return columns(head, rows)


def picture(scores: np.ndarray, threshold: float, x: np.ndarray, named: np.ndarray, faults: list[Fault]) -> None:
    """Sensors over time, with alarms drawn on the sensor that they name; below, the score with the threshold."""
    shown = ["flow", "pressure", "current", "vib_drive", "temp_motor"]
    minutes = np.arange(len(x)) / 60
    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(
            len(shown) + 1, 1, figsize=(7.6, 8.4), sharex=True, layout="constrained", height_ratios=[1] * 5 + [1.4]
        )
        for axis, name in zip(axes, shown):
            values, blamed = x[:, list(SENSORS).index(name)], named == name
            axis.plot(minutes, values, color="#5b6b7b", lw=0.6)
            axis.plot(minutes[blamed], values[blamed], ".", color="#c8102e", ms=3)
            axis.set_ylabel(f"{name}\n{SENSORS[name]}")
        axes[-1].semilogy(minutes, scores, color="#5b6b7b", lw=0.6)
        over = scores > threshold
        axes[-1].plot(minutes[over], scores[over], ".", color="#c8102e", ms=3)
        axes[-1].axhline(threshold, color="black", lw=1, ls="--")
        axes[-1].set(ylabel="score", xlabel="minutes", xlim=(0, minutes[-1]))
        for fault in faults:
            for axis in axes:
                axis.axvspan(fault.span.start / 60, fault.span.stop / 60, color="#f2d492", alpha=0.45, lw=0, zorder=0)
            middle = (fault.span.start + fault.span.stop) / 120
            axes[0].annotate(
                fault.name.replace(" ", "\n"), (middle, 1.02), xycoords=("data", "axes fraction"), ha="center"
            )
        figure.align_ylabels(axes)
        figure.savefig(OUT / "anomaly.png", dpi=130)
        plt.close(figure)


if __name__ == "__main__":
    main()
