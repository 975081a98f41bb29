"""Encoder and decoder at work: what graphs say of rows, and how long they take. One thread, as aeedge runs them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from aeedge.bundle.manifest import ScoreSpec
from aeedge.runtime.methods import score
from aeedge.runtime.session import Session
from aeedge_export.quantization.contract import Floats, Quality, compare

_ROUNDS, _SECONDS = 9, 0.01
_BLOCK = 256  # rows of a block, as aeedge cuts large batches


class Pair:
    """The graphs of one variant, opened.

    Args:
        models: "encoder", and "decoder" if there is one.
        scale: what reconstruction errors are divided by, in raw units.
    """

    def __init__(self, models: Mapping[str, ModelProto], scale: NDArray[np.float32]) -> None:
        self._sessions = {role: _opened(model, role) for role, model in models.items()}
        self._score = ScoreSpec("mse", scale)

    def answers(self, rows: NDArray[Any]) -> tuple[Floats, Floats | None]:
        """Latents (n, k) and reconstruction errors (n,), None without a decoder."""
        latents = self._blocks("encoder", rows)
        if "decoder" not in self._sessions:
            return latents, None
        return latents, score(rows, self._blocks("decoder", latents), self._score)

    def outputs(self, rows: NDArray[Any]) -> dict[str, Floats]:
        """Latents, and with a decoder reconstructions and scores, of all rows at once."""
        found = {"latent": self._run("encoder", rows)}
        if "decoder" in self._sessions:
            found["reconstruction"] = self._run("decoder", found["latent"])
            found["score"] = score(rows, found["reconstruction"], self._score)
        return found

    def _blocks(self, role: str, rows: NDArray[Any]) -> Floats:
        return np.concatenate([self._run(role, rows[i : i + _BLOCK]) for i in range(0, len(rows), _BLOCK)])

    def _run(self, role: str, rows: NDArray[Any]) -> Floats:
        return self._sessions[role].run(rows)

    def seconds(self, role: str, rows: NDArray[Any]) -> float:
        """Seconds a call of one round of about 10 ms."""
        run, count, began = self._sessions[role].run, 0, time.perf_counter()
        while (spent := time.perf_counter() - began) < _SECONDS:
            run(rows)
            count += 1
        return spent / count


def quality(fp32: Pair, int8: Pair, rows: NDArray[Any]) -> Quality:
    """int8 against fp32 on rows."""
    (exact, errors), (ours, our_errors) = fp32.answers(rows), int8.answers(rows)
    pairs = None if errors is None or our_errors is None else (errors, our_errors)
    return compare((exact, ours), pairs)


def time_ratio(one: Pair, other: Pair, role: str, rows: NDArray[Any]) -> tuple[float, float]:
    """Median seconds of one graph, and the median ratio of its time to the other's; taking turns."""
    for pair in (one, other):
        pair.seconds(role, rows)
    taken = [(one.seconds(role, rows), other.seconds(role, rows)) for _ in range(_ROUNDS)]
    return statistics.median(a for a, _ in taken), statistics.median(a / b for a, b in taken)


def _opened(model: ModelProto, role: str) -> Session:
    ends = [[dim.dim_value for dim in end.type.tensor_type.shape.dim][1:] for end in _ends(model)]
    kind = {1: "float32", 2: "uint8", 5: "int16"}[model.graph.input[0].type.tensor_type.elem_type]
    return Session(model.SerializeToString(), role, kind, tuple(ends[0]), tuple(ends[1]))


def _ends(model: ModelProto) -> tuple[Any, Any]:
    return model.graph.input[0], model.graph.output[0]
