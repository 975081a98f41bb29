"""numpy alone: matrix products, and convolutions as matrix products over unfolded windows, 256 rows at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comparison.networks import Layer, Network

_BLOCK = 256  # unfolded windows are many times larger than the rows


class Contender:
    """The forward pass by hand; the BLAS library takes its threads from the environment."""

    def __init__(self, folder: str, options: dict[str, Any], threads: int) -> None:
        import numpy as np

        from comparison.networks import NETWORKS, shapes

        self._np = np
        self._net: Network = NETWORKS[json.loads(Path(folder, "workload.json").read_text())["workload"]]
        with np.load(f"{folder}/weights.npz") as stored:
            self._weights = [
                (self._matrix(stored[f"{i}.weight"], layer, before), stored[f"{i}.bias"])
                for i, (layer, before) in enumerate(zip(self._net.layers, shapes(self._net)))
            ]

    def _matrix(self, weight: NDArray[Any], layer: Layer, before: tuple[int, ...]) -> NDArray[Any]:
        """(values in, values out); behind a convolution values come channels last."""
        if layer.kind == "dense" and len(before) > 1:
            weight = self._np.moveaxis(weight.reshape(layer.out, *before), 1, -1)
        return self._np.ascontiguousarray(weight.reshape(layer.out, -1).T)

    def prepare(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The rows, channels last."""
        return self._np.ascontiguousarray(self._np.moveaxis(rows, 1, -1)) if rows.ndim > 2 else rows

    def encode(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Latents."""
        if rows.ndim == 2 or len(rows) <= _BLOCK:
            return self._forward(rows)
        return self._np.concatenate([self._forward(rows[i : i + _BLOCK]) for i in range(0, len(rows), _BLOCK)])

    def _forward(self, x: NDArray[Any]) -> NDArray[Any]:
        for layer, (weight, bias) in zip(self._net.layers, self._weights):
            x = (x.reshape(len(x), -1) if layer.kind == "dense" else self._windows(x, layer)) @ weight
            x += bias
            if layer.relu:
                self._np.maximum(x, 0, out=x)
        return x

    def _windows(self, x: NDArray[Any], layer: Layer) -> NDArray[Any]:
        """(n, *places, channels * kernel): the receptive field of each output position."""
        axes, half = tuple(range(1, x.ndim - 1)), layer.kernel // 2
        padded = self._np.pad(x, [(0, 0), *[(half, half)] * len(axes), (0, 0)])
        view = self._np.lib.stride_tricks.sliding_window_view(padded, (layer.kernel,) * len(axes), axes)
        strided = view[(slice(None), *[slice(None, None, layer.stride)] * len(axes))]
        return strided.reshape(*strided.shape[: 1 + len(axes)], -1)
