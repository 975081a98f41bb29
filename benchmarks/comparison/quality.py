"""Quality of latents: reconstruction error, and detection of anomalous samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comparison.contenders import Entry
from comparison.workloads import autoencoder

Floats = NDArray[np.float32]


class Evaluator:
    """Decodes all contenders' latents with the same fp32 decoder in torch; PCA's with its inverse."""

    def __init__(self, workload: str, folder: Path) -> None:
        import joblib

        self._decoder = autoencoder(workload, folder / "weights.pt")[1]
        self._pca = joblib.load(folder / "pca.joblib")
        with np.load(folder / "rows.npz") as rows:
            self._rows = {part: rows[part] for part in ("test", "anomalous")}

    def evaluate(self, entry: Entry, answers: Path) -> dict[str, Any]:
        """Mean squared error of test samples, and the area under the ROC curve of anomalous samples by that error."""
        from sklearn.metrics import roc_auc_score

        with np.load(answers) as latents:
            errors = {part: self._errors(entry, rows, latents[part]) for part, rows in self._rows.items()}
        labels = np.repeat([0, 1], [len(errors["test"]), len(errors["anomalous"])])
        area = float(roc_auc_score(labels, np.concatenate([errors["test"], errors["anomalous"]])))
        return {"mse": float(errors["test"].mean()), "auc": area}

    def _errors(self, entry: Entry, rows: Floats, latents: Floats) -> Floats:
        import torch

        if entry.module.endswith("by_pca"):
            back = self._pca.inverse_transform(latents).reshape(rows.shape)
        else:
            with torch.inference_mode():
                back = self._decoder(torch.from_numpy(latents.astype(np.float32))).numpy()
        errors: Floats = np.square(rows - back).reshape(len(rows), -1).mean(axis=1)
        return errors
