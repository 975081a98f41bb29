"""LiteRT (TensorFlow Lite) with XNNPACK. Rows come channels last, and quantised for the int8 network.

The interpreter's input is resized in `prepare`, when the batch changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Contender:
    """An interpreter for one .tflite file."""

    def __init__(self, folder: str, options: dict[str, Any], threads: int) -> None:
        import numpy as np
        from ai_edge_litert.interpreter import Interpreter

        self._np = np
        self._interpreter = Interpreter(model_path=f"{folder}/{options['file']}", num_threads=threads)
        self._input, self._output = self._interpreter.get_input_details()[0], self._interpreter.get_output_details()[0]
        self._in, self._out = self._input["index"], self._output["index"]
        self._quantised = self._input["dtype"] == np.int8
        self._scale, self._zero = (np.float32(value) for value in self._output["quantization"])

    def prepare(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows channels last, int8 for the int8 network; the interpreter is resized for their number."""
        np = self._np
        rows = np.ascontiguousarray(np.moveaxis(rows, 1, -1)) if rows.ndim > 2 else rows
        if self._quantised:
            scale, zero = self._input["quantization"]
            rows = np.clip(np.rint(rows / np.float32(scale)) + zero, -128, 127).astype(np.int8)
        self._interpreter.resize_tensor_input(self._in, rows.shape)
        self._interpreter.allocate_tensors()
        return rows

    def encode(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Latents, dequantised where the network returns int8."""
        self._interpreter.set_tensor(self._in, rows)
        self._interpreter.invoke()
        latents: NDArray[Any] = self._interpreter.get_tensor(self._out)
        return (latents - self._zero) * self._scale if self._quantised else latents
