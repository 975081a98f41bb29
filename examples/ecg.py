"""An electrocardiogram, from recording to alarms: windows, training, export, stream, events, picture.

    python examples/ecg.py [FOLDER]

FOLDER has ecg.npz, record 100 of the MIT-BIH Arrhythmia Database (`signal`, `rate_hz`, `gain_per_mv`, `baseline`,
`beat_sample`, `beat_symbol`); without it a signal is simulated. The network learns from the first minutes without an
ectopic beat; what it has not seen there raises an alarm: a ventricular beat (V), and now and then an atrial one (A),
which looks like a normal beat but comes too early. Leaves the bundle and a picture in demo-out/.
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from style import ALARM, EXPECTED, INK

import aeedge
import aeedge_export
from aeedge_export import Autoencoder
from aeedge_export.samples.ecg import Recording, simulate

OUT = Path("demo-out")
LEADS = ("MLII", "V5")
WINDOW, HOP = 360, 90  # samples: a second, which holds a beat and more, and a quarter of it
LEAST = 120  # seconds to train on


def main() -> None:
    """Run the demo."""
    began = time.perf_counter()
    recording = read(Path(sys.argv[1])) if len(sys.argv) > 1 else simulate(12 * 60, np.random.default_rng(0))
    OUT.mkdir(exist_ok=True)
    found, events = measured(recording, OUT)
    for name, value in found.items():
        print(f"{name:32} {value}")
    picture(recording, events, found["threshold"], OUT / "ecg.png")
    print(f"left in {OUT}/: ecg.aeedge (the bundle), ecg.png")
    print(f"done in {time.perf_counter() - began:.0f} s")


def measured(recording: Recording, folder: Path) -> tuple[dict[str, Any], list[aeedge.Event]]:
    """What a stream of the rest of a recording finds when it was trained on the first minutes without ectopic beats."""
    first, last = quiet_stretch(recording)
    windows = aeedge_export.window(
        recording.signal[first:last], window=WINDOW, hop=HOP, rate=recording.rate, channels=LEADS, units=("mV", "mV")
    )
    ae = Autoencoder(calibration="cross", epochs=20, random_state=0).fit_rows(windows.X, signal=windows.signal)
    ae.export(folder / "ecg.aeedge", overwrite=True)

    model = aeedge.load(folder / "ecg.aeedge")  # numpy and onnxruntime alone
    stream = aeedge.Stream(model, patience="2 of 2", cooldown=5)  # a beat is in four windows
    events = []
    for start in range(last, len(recording.signal), recording.rate):  # a second at a time, as a sensor gives them
        chunk = recording.signal[start : start + recording.rate]
        events += stream.push(chunk, time=start / recording.rate)
    return {
        "trained on": f"{first / recording.rate:.0f} s to {last / recording.rate:.0f} s",
        **counted(recording, events),
        "threshold": round(float(model.threshold), 4),
    }, events


def counted(recording: Recording, events: list[aeedge.Event]) -> dict[str, Any]:
    """Which ectopic beats are in a window with an alarm, and how often an alarm begins where there are none."""
    times, began = recording.beats / recording.rate, events[0].start
    found: dict[str, Any] = {}
    for symbol in ("V", "A"):
        beats = [beat for beat in times[recording.symbols == symbol] if beat > began]
        seen = sum(any(e.alarm and e.start <= beat <= e.end for e in events) for beat in beats)
        found[f"{symbol} beats found"] = f"{seen} of {len(beats)}"
    ectopic = times[np.isin(recording.symbols, ("A", "V"))]
    # A pause follows an early beat.
    false = sum(e.raised and not ((ectopic > e.start - 1.5) & (ectopic < e.end + 0.5)).any() for e in events)
    hours = (events[-1].end - began) / 3600
    return {**found, "hours streamed": round(hours, 2), "false alarms an hour": round(false / hours, 1)}


def quiet_stretch(recording: Recording) -> tuple[int, int]:
    """First and last sample of the first two minutes or more without an ectopic beat."""
    ectopic = recording.beats[np.isin(recording.symbols, ("A", "V"))]
    edges = np.concatenate([[0], ectopic, [len(recording.signal)]])
    for first, last in pairwise(edges):
        if last - first > (LEAST + 4) * recording.rate:
            return int(first) + 2 * recording.rate, int(last) - 2 * recording.rate
    raise SystemExit(f"expected {LEAST} seconds without an ectopic beat, got none")


def read(folder: Path) -> Recording:
    """The recording in `folder`."""
    data = np.load(folder / "ecg.npz")
    signal = (data["signal"] - data["baseline"]) / data["gain_per_mv"]
    return Recording(
        signal.astype(np.float32), int(data["rate_hz"]), data["beat_sample"], data["beat_symbol"].astype(str)
    )


def picture(recording: Recording, events: list[aeedge.Event], threshold: float, path: Path) -> None:
    """The signal around a ventricular beat with its alarm, and the score of all windows."""
    times, began = recording.beats / recording.rate, events[0].start
    shown = next(beat for beat in times[recording.symbols == "V"] if beat > began)
    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 5.6), layout="constrained")
    part = slice(round((shown - 4) * recording.rate), round((shown + 4) * recording.rate))
    above.plot(np.arange(part.start, part.stop) / recording.rate, recording.signal[part, 0], color=INK, lw=1)
    near = [event for event in events if event.alarm and abs(event.start - shown) < 4]
    above.axvspan(near[0].start, near[-1].end, color=ALARM, alpha=0.15, lw=0) if near else None
    above.annotate("V", (shown, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", color=ALARM)
    above.set(ylabel="mV", xlabel="seconds", xlim=(shown - 4, shown + 4))

    minutes, scores = (np.array([getattr(event, name) for event in events]) for name in ("end", "score"))
    below.semilogy(minutes / 60, scores, color=INK, lw=0.5)
    below.axhline(threshold, color=EXPECTED, ls="--", lw=1.2, label="threshold")
    for symbol, colour, height in (("V", ALARM, 0.98), ("A", EXPECTED, 0.90)):
        beats = times[(recording.symbols == symbol) & (times > began)] / 60
        label = {"V": "ventricular beat (V)", "A": "atrial beat (A)"}[symbol]
        below.plot(
            beats,
            np.full(len(beats), height),
            "v",
            color=colour,
            ms=6,
            transform=below.get_xaxis_transform(),
            label=label,
            clip_on=False,
        )
    below.set(
        ylabel="score", xlabel="minutes", xlim=(minutes[0] / 60, minutes[-1] / 60), ylim=(None, scores.max() * 20)
    )
    below.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False)
    figure.suptitle("A ventricular beat scores far above anything that the network has learned", fontsize=13)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
