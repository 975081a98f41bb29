"""Bare onnxruntime on the bundle's encoder, as in its documentation: a session, and `run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Contender:
    """A session; with one thread it has no pool, otherwise onnxruntime's default pool."""

    def __init__(self, folder: str, options: dict[str, Any], threads: int) -> None:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1 if threads == 1 else options.get("threads", 0)
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(f"{folder}/encoder.onnx", settings, providers=providers)

    def prepare(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The rows as they are."""
        return rows

    def encode(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Latents."""
        latents: NDArray[Any] = self._session.run(None, {"input": rows})[0]
        return latents
