"""Decide what runs on integers: calibrate by measured error; layers fall back to fp32 until the limits are met.

A third of the calibration rows sets the ranges, a third chooses methods and the order in which layers fall back, the
last third judges. The judging rows decide how many layers fall back, so the recorded quality is slightly optimistic
(docs/decisions/0009-int8.md has the alternatives that were tried).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from aeedge.detection.scores import Scoring
from aeedge.runtime.session import as_run
from aeedge_export.quantization.calibration import METHODS, activations, corrected_biases, ranges
from aeedge_export.quantization.encoder_decoder import EncoderDecoder, quality, time_ratio
from aeedge_export.quantization.forms import formed, prepared
from aeedge_export.quantization.qdq import MOVES, layers_of, quantize
from aeedge_export.quantization.quality_limits import LIMITS, Quality

Finetune = Callable[[NDArray[Any]], Mapping[str, ModelProto]]

LEAST_ROWS = 192
_MIN_GAIN = 5e-4  # what another method than plain minmax must gain in the error ratio
_FASTER = 1.10  # the ratio of times from which a difference counts: timing is noisy
_TIMED_ROWS = 1024
_INTEGER = ("QGemm", "QLinearConv", "QLinearMatMul")
_SINGLE = ("Cast", "Sub", "Add", "Mul", "Div", "Max", "Min", "Clip", "Relu", "LeakyRelu")  # one rounding a value
_PLACES = (*MOVES, "Concat", "Slice", "Split", "Gather", "MaxPool")
_EXACT = frozenset((*_INTEGER, *_SINGLE, *_PLACES, "QuantizeLinear", "DequantizeLinear"))  # same bits in any batch


class NotQuantizableError(Exception):
    """No int8 variant is within the quality limits and faster than fp32; the message gives the reason."""


@dataclass(frozen=True)
class Int8:
    """The chosen int8 variant.

    Attributes:
        models: QDQ graphs by role.
        quality: against fp32 on the judging rows.
        record: how it was decided, for the manifest: method, forms, per layer error, time and choice.
        exact: whether no float layer takes part in the latents, so that they are equal to the bit at any batch size.
    """

    models: dict[str, ModelProto]
    quality: Quality
    record: dict[str, Any]
    exact: bool

    @property
    def harmed(self) -> list[str]:
        """Layers that the quality limits keep in fp32."""
        return [one["layer"] for one in self.record["layers"] if "allowed" in one.get("why", "")]


@dataclass
class _Settings:
    """The parameters of a candidate; `layers` run on integers, by role."""

    layers: dict[str, list[str]]
    forms: dict[str, str]
    method: str = "minmax"
    corrected: bool = False


def choose(
    models: Mapping[str, ModelProto],
    rows: NDArray[Any],
    scale: NDArray[np.float32],
    limits: Quality = LIMITS,
    finetune: Finetune | None = None,
    scoring: Scoring | None = None,
    original: Mapping[str, ModelProto] | None = None,
) -> Int8:
    """The int8 form of canonical fp32 graphs.

    Args:
        models: "encoder", and "decoder" if there is one.
        rows: raw rows to calibrate, choose and judge with: LEAST_ROWS or more; they are shuffled before the split.
        scale: what reconstruction errors are divided by, in raw units.
        limits: the quality limits of the result.
        finetune: the last resort, called with rows when the limits keep layers in fp32; returns canonical graphs whose
            weights lose less by rounding, used where more layers run on integers then.
        scoring: how samples are scored; None for the mean squared reconstruction error.
        original: fp32 graphs that quality is measured against, where `models` are a smaller network made from them.

    Raises:
        NotQuantizableError: no layer can run on integers, or no set of layers is within the limits.
    """
    search = _Search(models, rows, scale, limits, scoring, original)
    try:
        found, reason = search.run(), None
    except NotQuantizableError as error:
        found, reason = None, error
    if finetune is not None and (found is None or found.harmed):
        tuned = finetune(np.concatenate([search.calibrating, search.choosing]))
        try:
            second = _Search(models, rows, scale, limits, scoring, original, tuned).run()
        except NotQuantizableError as error:
            reason = reason or error
        else:
            if found is None or len(second.harmed) < len(found.harmed):
                second.record["calibration"]["finetuned"] = True
                return second
    if found is None:
        assert reason is not None
        raise reason
    return found


@dataclass
class _Search:
    source: Mapping[str, ModelProto]
    rows: NDArray[Any]
    scale: NDArray[np.float32]
    limits: Quality
    scoring: Scoring | None = None
    original: Mapping[str, ModelProto] | None = None
    tuned: Mapping[str, ModelProto] | None = None
    notes: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        order = np.random.default_rng(0).permutation(len(self.rows))
        self.calibrating, self.choosing, self.judging = (self.rows[np.sort(part)] for part in np.array_split(order, 3))
        self.plain = {role: prepared(model) for role, model in (self.tuned or self.source).items()}
        self.fp32 = EncoderDecoder(self.source, self.scale, self.scoring)
        self.standard = self.fp32 if self.original is None else EncoderDecoder(self.original, self.scale, self.scoring)
        self.latents = self.fp32.latents_and_errors(self.calibrating)[0]
        self.cache: dict[tuple[str, str, tuple[str, ...]], tuple[ModelProto, Any]] = {}

    def run(self) -> Int8:
        layers = {role: layers_of(model) for role, model in self.plain.items()}
        if not any(layers.values()):
            kinds = sorted({node.op_type for model in self.source.values() for node in model.graph.node})
            raise NotQuantizableError(
                f"expected Gemm or Conv layers with constant weights, the graphs have {', '.join(kinds)}"
            )
        settings = _Settings(layers, dict.fromkeys(layers, "engine"))
        self._choose_method(settings)
        self._note_harm(settings)
        self._fall_back_harmful(settings)
        self._fall_back_slow(settings)
        return self._result(settings)

    def _candidate(self, settings: _Settings) -> dict[str, ModelProto]:
        """QDQ graphs by role."""
        result = {}
        for role, plain in self.plain.items():
            wanted = settings.layers[role]
            key = (role, settings.forms[role], tuple(wanted))
            if key not in self.cache:
                model = formed(plain, settings.forms[role], wanted)
                self.cache[key] = model, activations(model, self.calibrating if role == "encoder" else self.latents)
            model, values = self.cache[key]
            found = ranges(values, METHODS[settings.method])
            biases = corrected_biases(model, values, found) if settings.corrected else None
            result[role] = quantize(model, found, wanted, biases=biases) if wanted else self.source[role]
        return result

    def _loss(self, settings: _Settings, rows: NDArray[Any]) -> float:
        """Growth of the reconstruction error plus the relative error of latents; the latter alone without a decoder."""
        int8 = EncoderDecoder(self._candidate(settings), self.scale)
        (exact, errors), (quantized, quantized_errors) = (
            self.fp32.latents_and_errors(rows),
            int8.latents_and_errors(rows),
        )
        latent = float(np.square(quantized - exact, dtype=np.float64).sum() / max(np.square(exact).sum(), 1e-30))
        if errors is None or quantized_errors is None:
            return latent
        return float(quantized_errors.mean() / max(errors.mean(), 1e-30)) - 1 + latent

    def _choose_method(self, settings: _Settings) -> None:
        best = self._loss(settings, self.choosing)
        for method in METHODS:
            for corrected in (False, True):
                trial = _Settings(settings.layers, settings.forms, method, corrected)
                loss = self._loss(trial, self.choosing)
                if loss < best - _MIN_GAIN:
                    best, settings.method, settings.corrected = loss, method, corrected

    def _note_harm(self, settings: _Settings) -> None:
        """Record the loss with each layer alone on integers."""
        for role, layers in settings.layers.items():
            for layer in layers:
                alone = {other: [layer] if other == role else [] for other in settings.layers}
                trial = _Settings(alone, dict.fromkeys(settings.forms, "plain"), settings.method, settings.corrected)
                loss = self._loss(trial, self.choosing)
                self.notes[role, layer] = {"graph": role, "layer": layer, "choice": "int8", "error": round(loss, 6)}

    def _fall_back_harmful(self, settings: _Settings) -> None:
        """Let layers fall back to fp32, the most harmful first, until the judging rows are within the limits."""
        while failures := self._quality(settings).failures(self.limits):
            left = [(role, layer) for role, layers in settings.layers.items() for layer in layers]
            if len(left) <= 1:
                raise NotQuantizableError(f"no set of layers is within the quality limits: {'; '.join(failures)}")
            without = [self._without(settings, *one) for one in left]
            losses = [self._loss(trial, self.choosing) for trial in without]
            best = int(np.argmin(losses))
            role, layer = left[best]
            self.notes[role, layer] |= {"choice": "fp32", "why": failures[0]}
            settings.layers = without[best].layers

    def _fall_back_slow(self, settings: _Settings) -> None:
        """Let forms and layers that integers make slower on this machine fall back."""
        block = np.resize(self.rows, (_TIMED_ROWS, *self.rows.shape[1:]))
        given = {"encoder": block, "decoder": np.resize(self.latents, (_TIMED_ROWS, *self.latents.shape[1:]))}
        for role in settings.layers:
            plainly = _Settings(settings.layers, settings.forms | {role: "plain"}, settings.method, settings.corrected)
            if settings.layers[role] and self._ratio(settings, plainly, role, given[role])[1] > _FASTER:
                settings.forms = plainly.forms
            for layer in list(settings.layers[role]):
                trial = self._without(settings, role, layer)
                taken, ratio = self._ratio(settings, trial, role, given[role])
                note = self.notes[role, layer]
                note |= {"us_int8": round(taken * 1e6, 1), "us_fp32": round(taken / ratio * 1e6, 1)}
                if ratio > _FASTER:
                    note |= {"choice": "fp32", "why": "slower on integers on the exporting machine"}
                    settings.layers = trial.layers
        if not any(settings.layers.values()):
            raise NotQuantizableError("every layer is slower on integers than in fp32 on this machine")

    def _ratio(self, one: _Settings, other: _Settings, role: str, rows: NDArray[Any]) -> tuple[float, float]:
        variants = [EncoderDecoder(self._candidate(settings), self.scale) for settings in (one, other)]
        return time_ratio(variants[0], variants[1], role, rows)

    def _without(self, settings: _Settings, role: str, layer: str) -> _Settings:
        fewer = settings.layers | {role: [name for name in settings.layers[role] if name != layer]}
        return _Settings(fewer, settings.forms, settings.method, settings.corrected)

    def _quality(self, settings: _Settings) -> Quality:
        return quality(self.standard, EncoderDecoder(self._candidate(settings), self.scale, self.scoring), self.judging)

    def _result(self, settings: _Settings) -> Int8:
        models, measured = self._candidate(settings), self._quality(settings)
        if failures := measured.failures(self.limits):
            raise NotQuantizableError(f"no set of layers is within the quality limits: {'; '.join(failures)}")
        kinds = {role: _kinds_as_run(model) for role, model in models.items()}
        for role, layers in settings.layers.items():
            _check_integer(kinds[role], role, len(layers))
        calibration = {
            "rows": len(self.calibrating),
            "held_out_rows": len(self.judging),
            "method": settings.method,
            "bias_correction": settings.corrected,
        }
        record = {"calibration": calibration, "forms": dict(settings.forms), "layers": list(self.notes.values())}
        return Int8(models, measured, record, exact=_EXACT.issuperset(kinds["encoder"]))


def _kinds_as_run(model: ModelProto) -> list[str]:
    """Operators of a graph as onnxruntime optimises it."""
    return [node.op_type for node in onnx.load_from_string(as_run(model.SerializeToString())).graph.node]


def _check_integer(kinds: list[str], role: str, integer_layers: int) -> None:
    """onnxruntime must run exactly the chosen layers on integers: it may leave one float, or quantise another.

    Raises:
        NotQuantizableError: it does not.
    """
    integer = sum(kind in _INTEGER for kind in kinds)
    if integer != integer_layers:
        raise NotQuantizableError(
            f"{role}: expected {integer_layers} integer layers, onnxruntime runs {integer} ({', '.join(kinds)})"
        )
