# %% [markdown]
# # An electrocardiogram as a stream
#
# A recording of two leads becomes windows of one second, a network learns from two minutes of normal beats, and a
# stream on the device looks at the rest as it comes in: a ventricular beat (V) and an early atrial one (A) are unlike
# what it has learned. The signal is simulated; `examples/ecg.py` does the same with a record of the MIT-BIH Arrhythmia
# Database.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import aeedge
import aeedge_export
from aeedge_export.samples import ecg

print(ecg.write(Path("ecg.npz")))  # as aeedge sample ecg.npz does
data = np.load("ecg.npz")
signal, rate = data["signal"], int(data["rate_hz"])
beats, symbols = data["beat_sample"] / rate, data["beat_symbol"]

# %% alt="Six seconds of the first lead in millivolts, with regular beats"
shown = slice(0, 6 * rate)
plt.plot(np.arange(6 * rate) / rate, signal[shown, 0], color="C0", lw=1)
plt.xlabel("seconds")
plt.ylabel("mV")
plt.show()

# %% [markdown]
# ## Windows
#
# A window of a second holds a beat and more; with a hop of a quarter of a second each beat is in four windows,
# somewhere else in each. The first two and a half minutes have no ectopic beat.

# %%
quiet = 150 * rate
windows = aeedge_export.window(
    signal[:quiet],
    window=rate,
    hop=rate // 4,
    rate=rate,
    channels=["MLII", "V5"],
    units=["mV", "mV"],
)
windows.X.shape

# %% [markdown]
# ## Train and export
#
# So short a recording cannot spare a stretch to set the threshold by. With `calibration="cross"` all windows are
# trained on, and four more trainings, each without a stretch, tell how much higher the scores of such a stretch are.

# %%
ae = aeedge_export.Autoencoder(
    calibration="cross", epochs=20, random_state=0, threads=1
)
ae.fit_rows(windows.X, signal=windows.signal)
ae.export("ecg.aeedge")
model = aeedge.load("ecg.aeedge")
rate_of_alarms = 100 * model.false_alarm_rate
print(f"threshold {model.threshold:.3f}, false alarms {rate_of_alarms:.1f} %")

# %% [markdown]
# ## Stream
#
# One alarming window is not an alarm yet: with `patience="2 of 2"` two in a row have to be above the threshold, and
# after an alarm begins there is none for five seconds. Samples go in as they come, here a second at a time; the events
# do not depend on how many it are.

# %%
stream = aeedge.Stream(model, patience="2 of 2", cooldown=5)
print(
    f"to expect: {stream.expected_false_alarms_per_day:.0f} false alarms a day"
)
events = []
for start in range(quiet, len(signal), rate):
    events += stream.push(signal[start : start + rate], time=start / rate)
print(f"{len(events)} windows, {sum(event.raised for event in events)} alarms")

# %%
for symbol in ("V", "A"):
    times = beats[(symbols == symbol) & (beats > events[0].start)]
    seen = sum(
        any(
            event.alarm and event.start <= beat <= event.end for event in events
        )
        for beat in times
    )
    print(
        f"{symbol}: {seen} of {len(times)} beats are in a window with an alarm"
    )

# %% [markdown]
# A ventricular beat looks unlike any normal one. An atrial one looks normal and comes too early, which a window of a
# second does not show. As for false alarms: two and a half minutes promise no more than this. A monitor is calibrated
# with hours, and the number falls with them.

# %% alt="Above: eight seconds around a ventricular beat, where the alarm is on. Below: the scores of all windows"
beat = beats[(symbols == "V") & (beats > events[0].start)][0]
figure, (above, below) = plt.subplots(2, 1, figsize=(6.2, 4.4))
part = np.arange(int((beat - 4) * rate), int((beat + 4) * rate))
above.plot(part / rate, signal[part, 0], color="C0", lw=1)
for event in events:
    if event.alarm and abs(event.start - beat) < 3:
        above.axvspan(event.start, event.end, color="C1", alpha=0.15, lw=0)
above.annotate(
    "V",
    (beat, 1),
    xycoords=("data", "axes fraction"),
    ha="center",
    va="bottom",
    color="C1",
)
above.set(xlabel="seconds", ylabel="mV", xlim=(beat - 4, beat + 4))
ends, scores = (
    np.array([getattr(event, name) for event in events])
    for name in ("end", "score")
)
below.semilogy(ends / 60, scores, color="C5", lw=0.6, label="score")
below.axhline(model.threshold, color="C0", lw=1, label="threshold")
for symbol, colour in (("V", "C1"), ("A", "C3")):
    times = beats[(symbols == symbol) & (beats > events[0].start)]
    below.plot(
        times / 60,
        np.full(len(times), scores.max() * 3),
        "v",
        color=colour,
        ms=5,
        label=f"beat {symbol}",
    )
below.set(xlabel="minutes", ylabel="score", xlim=(ends[0] / 60, ends[-1] / 60))
below.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.35))
plt.show()

# %% [markdown]
# On a gateway no Python is needed for this: `sensor | aeedge stream ecg.aeedge --patience '2 of 2' --cooldown 5` prints
# a line of JSON for each window.
#
# ## Next
#
# - [What a stream finds besides: broken sensors, gaps, drift](../how-to/streams.md)
# - [The command, and MQTT](../how-to/stream-command.md)
# - [Spectra instead of samples](../how-to/front-ends.md)
