"""Encoder and decoder of a variant, opened as the device opens them: what they compute, and how long they take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from aeedge.bundle.manifest import ScoreSpec
from aeedge.runtime.methods import Method, methods
from aeedge.runtime.session import Session
from aeedge_export.quantization.quality_limits import Floats, Quality, compare

_ROUNDS, _SECONDS = 9, 0.01
_BLOCK = 256  # rows of a block, as aeedge cuts large batches


class EncoderDecoder:
    """The methods of one variant's graphs, on one thread.

    Args:
        models: "encoder", and "decoder" if there is one.
        scale: what reconstruction errors are divided by, in raw units.
    """

    def __init__(self, models: Mapping[str, ModelProto], scale: NDArray[np.float32]) -> None:
        self._sessions = {role: _opened(models[role], role) for role in ("encoder", "decoder") if role in models}
        shape, dtype, latent = _input(models["encoder"])
        decoder = self._sessions.get("decoder")
        makers = methods(
            latent,
            shape,
            dtype,
            ScoreSpec("mse", scale),
            self._sessions["encoder"],
            None if decoder is None else lambda: decoder,
            None,
            "none",
        )
        self._methods = {name: make() for name, make in makers.items()}

    def compute(self, rows: NDArray[Any]) -> tuple[Floats, Floats | None]:
        """Latents (n, k) and scores (n,), None without a decoder, a block at a time."""
        latents = _in_blocks(self._methods["encode"], rows)
        return latents, _in_blocks(self._methods["score"], rows) if "score" in self._methods else None

    def outputs(self, rows: NDArray[Any]) -> dict[str, Floats]:
        """Latents, and with a decoder reconstructions and scores, of all rows at once."""
        names = {"latent": "encode", "reconstruction": "denoise", "score": "score"}
        return {what: self._methods[name].run(rows) for what, name in names.items() if name in self._methods}

    def seconds(self, role: str, rows: NDArray[Any]) -> float:
        """Seconds a call of one graph, over about 10 ms."""
        run, count, began = self._sessions[role].run, 0, time.perf_counter()
        while (spent := time.perf_counter() - began) < _SECONDS:
            run(rows)
            count += 1
        return spent / count


def quality(fp32: EncoderDecoder, int8: EncoderDecoder, rows: NDArray[Any]) -> Quality:
    """int8 against fp32 on rows."""
    (exact, errors), (ours, our_errors) = fp32.compute(rows), int8.compute(rows)
    both = None if errors is None or our_errors is None else (errors, our_errors)
    return compare((exact, ours), both)


def time_ratio(one: EncoderDecoder, other: EncoderDecoder, role: str, rows: NDArray[Any]) -> tuple[float, float]:
    """Median seconds of one graph, and the median ratio of its time to the other's; taking turns."""
    for variant in (one, other):
        variant.seconds(role, rows)
    taken = [(one.seconds(role, rows), other.seconds(role, rows)) for _ in range(_ROUNDS)]
    return statistics.median(a for a, _ in taken), statistics.median(a / b for a, b in taken)


def _in_blocks(method: Method, rows: NDArray[Any]) -> Floats:
    return np.concatenate([method.run(rows[start : start + _BLOCK]) for start in range(0, len(rows), _BLOCK)])


def _input(encoder: ModelProto) -> tuple[tuple[int, ...], str, int]:
    """Shape and dtype of a sample, and the latent size."""
    given, latent = (end.type.tensor_type for end in (encoder.graph.input[0], encoder.graph.output[0]))
    dtype = {1: "float32", 2: "uint8", 5: "int16"}[given.elem_type]
    return tuple(dim.dim_value for dim in given.shape.dim[1:]), dtype, latent.shape.dim[1].dim_value


def _opened(model: ModelProto, role: str) -> Session:
    shape, dtype, _ = _input(model)
    row_out = tuple(dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim[1:])
    return Session(model.SerializeToString(), role, dtype, shape, row_out)
