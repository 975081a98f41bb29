"""OpenVINO on the bundle's encoder: dynamic batch, fp32, the LATENCY hint (one request with all its threads)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Contender:
    """One infer request; input is shared and the result copied out, since the next call overwrites it."""

    def __init__(self, folder: str, options: dict[str, Any], threads: int) -> None:
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",  # on some processors the default is bfloat16, with other outputs
        }
        compiled = openvino.Core().compile_model(f"{folder}/encoder.onnx", "CPU", settings)
        self._request = compiled.create_infer_request()

    def prepare(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The rows as they are."""
        return rows

    def encode(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Latents."""
        latents: NDArray[Any] = self._request.infer([rows], share_inputs=True, share_outputs=True)[0].copy()
        return latents
