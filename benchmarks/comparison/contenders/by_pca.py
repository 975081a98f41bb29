"""scikit-learn's PCA with as many components as the network has latents: a linear model for comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Contender:
    """A PCA fitted on the training rows."""

    def __init__(self, folder: str, options: dict[str, Any], threads: int) -> None:
        import joblib

        self._pca = joblib.load(f"{folder}/pca.joblib")
        self.encode = self._pca.transform

    def prepare(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The rows, flat."""
        return rows.reshape(len(rows), -1)
