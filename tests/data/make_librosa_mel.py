"""How librosa_mel.npz was made, with librosa 0.11.0, which the tests do not need.

python tests/data/make_librosa_mel.py FOLDER
"""

import sys
from pathlib import Path

import librosa
import numpy as np

SETTINGS = {  # by name: rate, n_fft, hop, mels, lowest and highest frequency
    "ad01": (16000, 1024, 512, 128, 0, 8000),
    "narrow": (8000, 512, 200, 40, 50, 3500),
}

rng, time = np.random.default_rng(0), np.arange(3072) / 16000
tones = 0.3 * np.sin(2 * np.pi * 440 * time) + 0.1 * np.sin(2 * np.pi * (1000 + 40000 * time) * time)
found = {"x": (tones + 0.02 * rng.normal(size=3072)).astype(np.float32)}
for name, (rate, n_fft, hop, mels, low, high) in SETTINGS.items():
    options = {"sr": rate, "n_fft": n_fft, "n_mels": mels, "fmin": low, "fmax": high}
    mel = librosa.feature.melspectrogram(y=found["x"], hop_length=hop, power=2.0, center=False, **options)
    found[name] = mel.astype(np.float32)
    found[f"{name}_db"] = librosa.power_to_db(mel).astype(np.float32)
    found[f"{name}_filters"] = librosa.filters.mel(**options)
np.savez_compressed(Path(sys.argv[1]) / "librosa_mel.npz", **found)
