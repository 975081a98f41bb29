"""torch, eager or compiled (inductor, dynamic batch; the compiler's work is done before the first timed call)."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


class Contender:
    """The trained module itself."""

    def __init__(self, folder: str, options: dict[str, Any], threads: int) -> None:
        if options.get("compiled") and not shutil.which(os.environ.get("CXX", "g++")):
            raise RuntimeError("torch.compile needs a C++ compiler, and there is no g++")
        import torch

        from comparison.networks import NETWORKS, encoder

        torch.set_num_threads(threads)
        module = encoder(NETWORKS[json.loads(Path(folder, "workload.json").read_text())["workload"]])
        module.load_state_dict(torch.load(f"{folder}/weights.pt", weights_only=True)["encoder"])
        module.eval()
        self._torch = torch
        self._call = torch.compile(module, dynamic=True) if options.get("compiled") else module

    def prepare(self, rows: NDArray[Any]) -> torch.Tensor:
        """The rows as a tensor over the same memory."""
        return self._torch.from_numpy(rows)

    def encode(self, rows: torch.Tensor) -> NDArray[Any]:
        """Latents."""
        with self._torch.inference_mode():
            latents: NDArray[Any] = self._call(rows).numpy()
            return latents
