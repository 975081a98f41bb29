"""The graphs of a variant run as the device runs them, on one thread: outputs, quality against fp32, and time."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import onnx.numpy_helper
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto

from aeedge.bundle.manifest import ScoreSpec
from aeedge.detection.scores import Scoring
from aeedge.runtime.methods import methods, score
from aeedge.runtime.session import Session
from aeedge_export.quantization.quality_limits import Floats, Quality, compare

_ROUNDS, _SECONDS = 9, 0.01
_BLOCK = 256  # rows of a block, as aeedge cuts large batches
_DTYPES = {TensorProto.FLOAT: "float32", TensorProto.UINT8: "uint8", TensorProto.INT16: "int16"}
_METHODS = {"encoder": "encode", "decoder": "decode"}
_OUTPUTS = {"features": "features", "latent": "encode", "reconstruction": "denoise", "score": "score"}


class EncoderDecoder:
    """The device's methods for the graphs of one variant.

    Args:
        models: "encoder", and "decoder" if there is one, and "features" where a front end is inside the encoder.
        scale: what reconstruction errors are divided by, in raw units.
        scoring: how samples are scored; None for the mean squared reconstruction error.
    """

    def __init__(
        self, models: Mapping[str, ModelProto], scale: NDArray[np.float32], scoring: Scoring | None = None
    ) -> None:
        self._scoring, self._errors_as = scoring, ScoreSpec("mse", scale)
        given, code = models["encoder"].graph.input[0], models["encoder"].graph.output[0]
        shape, latent, dtype = _row(given), _row(code), _DTYPES[given.type.tensor_type.elem_type]
        encoder = Session(models["encoder"].SerializeToString(), "encoder", dtype, shape, latent)
        decoder = features = None
        back = shape
        if "features" in models:
            back = _row(models["features"].graph.output[0])
            graph = models["features"].SerializeToString()
            features = cache(partial(Session, graph, "features", dtype, shape, back))
        if "decoder" in models:
            graph = models["decoder"].SerializeToString()
            decoder = cache(partial(Session, graph, "decoder", "float32", latent, back))
        made = methods(latent, shape, dtype, self._errors_as, encoder, decoder, None, "none", features, back)
        self._methods = {name: make() for name, make in made.items()}

    def latents_and_errors(self, rows: NDArray[Any]) -> tuple[Floats, Floats | None]:
        """Latents (n, *latent_shape) and reconstruction errors (n,), None without a decoder; block by block."""
        blocks = [rows[i : i + _BLOCK] for i in range(0, len(rows), _BLOCK)]
        latents, errors = (
            np.concatenate([self._methods[name].run(block) for block in blocks]) if name in self._methods else None
            for name in ("encode", "score")
        )
        assert latents is not None
        return latents, errors

    def decoded_errors(self, rows: NDArray[Any], latents: Floats) -> Floats | None:
        """Reconstruction errors (n,) of rows that are decoded from these latents, flat or not; None without a decoder.

        The mean over a row of ((x - reconstruction) / scale)², where x is the front end's features if there is one.
        """
        decode, features = (self._methods.get(name) for name in ("decode", "features"))
        if decode is None:
            return None
        shaped, found = latents.reshape(-1, *decode.row_in), []
        for i in range(0, len(rows), _BLOCK):
            block = rows[i : i + _BLOCK]
            seen = block if features is None else features.run(block)
            found.append(score(seen, decode.run(shaped[i : i + _BLOCK]), self._errors_as))
        return np.concatenate(found)

    def outputs(self, rows: NDArray[Any]) -> dict[str, Floats]:
        """Latents, reconstructions and scores, as far as there are such, of all rows at once."""
        found = {what: self._methods[name].run(rows) for what, name in _OUTPUTS.items() if name in self._methods}
        if "features" in found and "decode" in self._methods:
            found["reconstruction"] = self._methods["decode"].run(found["latent"])
        if self._scoring is not None:
            seen = found.get("features", rows)
            found["score"] = self._scoring.scores(seen, found["latent"], found.get("reconstruction"))
        return found

    def scores(self, rows: NDArray[Any]) -> Floats | None:
        """Scores (n,), block by block; None where there are none."""
        blocks = [self.outputs(rows[i : i + _BLOCK]) for i in range(0, len(rows), _BLOCK)]
        return np.concatenate([block["score"] for block in blocks]) if "score" in blocks[0] else None

    def seconds(self, role: str, rows: NDArray[Any]) -> float:
        """Seconds per call of the "encoder" or "decoder", over about 10 ms."""
        run, count, began = self._methods[_METHODS[role]].run, 0, time.perf_counter()
        while (spent := time.perf_counter() - began) < _SECONDS:
            run(rows)
            count += 1
        return spent / count


def nudged(models: Mapping[str, ModelProto]) -> dict[str, ModelProto]:
    """Copies of graphs, each float weight moved up or down by its last digit: as far as other processors round."""
    rng, result = np.random.default_rng(0), copy.deepcopy(dict(models))
    for model in result.values():
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                values = onnx.numpy_helper.to_array(tensor)
                ends = rng.choice(np.array([-np.inf, np.inf], np.float32), values.shape)
                # whole numbers may be exponents: a negative number to the power of 3.0000002 is NaN
                moved = np.where(values == np.rint(values), values, np.nextafter(values, ends))
                tensor.CopyFrom(onnx.numpy_helper.from_array(moved, tensor.name))
    return result


def quality(fp32: EncoderDecoder, int8: EncoderDecoder, rows: NDArray[Any]) -> Quality:
    """int8 against fp32 on rows."""
    (exact, errors), (quantized, quantized_errors) = fp32.latents_and_errors(rows), int8.latents_and_errors(rows)
    scores, quantized_scores = fp32.scores(rows), int8.scores(rows)
    return compare((exact, quantized), _pair(errors, quantized_errors), _pair(scores, quantized_scores))


def _pair(one: Floats | None, other: Floats | None) -> tuple[Floats, Floats] | None:
    return None if one is None or other is None else (one, other)


def time_ratio(one: EncoderDecoder, other: EncoderDecoder, role: str, rows: NDArray[Any]) -> tuple[float, float]:
    """Median seconds of one graph, and the median ratio of its time to the other's; runs are interleaved."""
    for variant in (one, other):
        variant.seconds(role, rows)
    taken = [(one.seconds(role, rows), other.seconds(role, rows)) for _ in range(_ROUNDS)]
    return statistics.median(a for a, _ in taken), statistics.median(a / b for a, b in taken)


def _row(end: ValueInfoProto) -> tuple[int, ...]:
    """The shape of one row of an input or output."""
    return tuple(dim.dim_value for dim in end.type.tensor_type.shape.dim[1:])
