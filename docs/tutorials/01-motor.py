# %% [markdown]
# # Alarms on a motor
#
# A motor drives a pump, and nine sensors watch both. A network learns from 30 hours without a fault what belongs
# together; on the device it raises an alarm when something no longer does, and names the sensor. The recordings are
# simulated, and so is the truth about the faults that is compared with at the end.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import aeedge
from aeedge_export import Autoencoder
from aeedge_export.samples import motor

print(motor.write_normal(Path("motor.csv")))
print(motor.write_faulty(Path("motor-new.csv")))

# %% [markdown]
# `aeedge sample motor.csv motor-new.csv` writes the same files. A row is taken every 5 seconds:

# %%
print(Path("motor.csv").read_text()[:230])

# %%
sensors = list(motor.SENSORS)
columns = range(1, 1 + len(sensors))
normal = np.loadtxt(
    "motor.csv", delimiter=",", skiprows=1, usecols=columns, dtype=np.float32
)
new = np.loadtxt(
    "motor-new.csv",
    delimiter=",",
    skiprows=1,
    usecols=columns,
    dtype=np.float32,
)
normal.shape, new.shape

# %% [markdown]
# ## Train
#
# Four latents: as many quantities vary by themselves here (the demand, the level of the tank, the mains, the warmth of
# the motor), and all nine sensors follow from them. The rows are in time order, so the last ones are held out: they
# have no say in the training, and their scores set the threshold.

# %%
ae = Autoencoder(
    latent=4,
    hidden=(128, 128),
    noise="none",
    epochs=20,
    time_ordered=True,
    calibration=0.2,
    gap=120,  # rows, ten minutes: after that the pump has forgotten
    random_state=0,
    threads=1,
)
ae.fit_rows(normal, features=sensors, units=list(motor.SENSORS.values()))
ae.calibrate(false_alarm_rate=0.001)
manifest = ae.export("motor.aeedge")
print(f"bundle {manifest.id[:12]}, variants: {', '.join(manifest.variants)}")

# %% [markdown]
# The export is refused unless the device runtime reproduces what torch computed. `motor.aeedge` is all that the device
# needs, with numpy and onnxruntime.
#
# ## Detect

# %%
model = aeedge.load("motor.aeedge")
scores = model.score(new)
alarms = model.detect(new)
print(f"{alarms.sum()} alarms in {len(new)} samples")
print(f"threshold {model.threshold:.2f}")

# %% alt="The score of each sample over two hours: below the threshold in normal operation, far above it in faults"
names = np.loadtxt(
    "motor-new.csv",
    delimiter=",",
    skiprows=1,
    usecols=1 + len(sensors),
    dtype=str,
)
minutes = np.arange(len(new)) * 5 / 60
figure, axis = plt.subplots(figsize=(6.2, 3.2))
for name in np.unique(names[names != "normal"]):
    during = minutes[names == name]
    axis.axvspan(during[0], during[-1], color="C4", alpha=0.2, lw=0)
axis.semilogy(minutes, scores, color="C5", lw=0.7, label="score")
axis.semilogy(
    minutes[alarms], scores[alarms], ".", color="C7", ms=3, label="alarm"
)
axis.axhline(model.threshold, color="C0", lw=1, label="threshold")
axis.set(
    xlabel="minutes",
    ylabel="score",
    xlim=(0, minutes[-1]),
    title="Shaded: a fault",
)
axis.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, -0.45))
plt.show()

# %% [markdown]
# ## Which sensor?
#
# `explain` shares the score among the sensors. For each fault: how many of its samples raise an alarm, and which sensor
# most of these alarms name.

# %%
causes = dict(zip(np.flatnonzero(alarms), model.explain(new[alarms], top=1)))
for name in dict.fromkeys(names):
    rows = np.flatnonzero(names == name)
    blamed = [causes[row][0].name for row in rows if row in causes]
    most = max(set(blamed), key=blamed.count) if blamed else "-"
    print(f"{name:22} {len(blamed):4} of {len(rows):4} samples   {most}")

# %% [markdown]
# The line "normal" is what false alarms cost: 0.1 % were promised, of samples like those that calibrated. Samples right
# after a fault can still be unlike them, while the pump settles.
#
# The bundle knows what the sensor should have read, too:

# %% alt="Flow over time: what the sensor read, and what the network expected of it from the other sensors"
flow = sensors.index("flow")
shown = (minutes > 20) & (minutes < 36)  # the sensor is stuck from 24 to 32
expected = model.reconstruct(new)[:, flow]
plt.plot(minutes[shown], new[shown, flow], color="C5", lw=1, label="read")
plt.plot(minutes[shown], expected[shown], color="C1", lw=1, label="expected")
plt.xlabel("minutes")
plt.ylabel("flow in m³/h")
plt.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
plt.show()

# %% [markdown]
# ## Next
#
# - [What is promised of false alarms, and when it does not hold](../how-to/anomaly-detection.md)
# - [The same for a live signal](02-ecg.md)
# - [On the device](../how-to/device-guide.md)
