"""Decide what runs on integers: calibrate by measured error; layers fall back to fp32 until the quality is good enough.

A third of the calibration rows find ranges, a third choose the method and which layer falls back next, and the last
third decides how many do: until these rows are within the limits. They had no say in ranges or method, but the quality
that is reported is measured on them too, so it is a little optimistic where layers fell back. Separate rows for that
decision were tried: then a set of layers that is just within the limits on one third misses them on the other, and int8
is lost as a whole (docs/decisions/0009-int8.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from aeedge.runtime.session import as_run
from aeedge_export.quantization.calibration import METHODS, activations, corrected_biases, ranges
from aeedge_export.quantization.encoder_decoder import EncoderDecoder, quality, time_ratio
from aeedge_export.quantization.forms import formed, prepared
from aeedge_export.quantization.qdq import layers_of, quantize
from aeedge_export.quantization.quality_limits import LIMITS, Quality

Finetune = Callable[[NDArray[Any]], Mapping[str, ModelProto]]

MIN_ROWS = 192
_WORTH = 5e-4  # what another method than plain minmax must gain in the error ratio
_FASTER = 1.10  # what a slower-looking choice must be ahead by: timing is noisy
_TIMED_ROWS = 1024


class NotQuantizableError(Exception):
    """No int8 variant is within the limits and worth having; the message gives the reason."""


@dataclass(frozen=True)
class Int8:
    """The chosen int8 variant.

    Attributes:
        models: QDQ graphs by role.
        quality: against fp32 on the rows that decided how many layers fall back.
        record: how it was decided, for the manifest: method, forms, per layer error, time and choice.
    """

    models: dict[str, ModelProto]
    quality: Quality
    record: dict[str, Any]

    @property
    def fallen_back(self) -> list[str]:
        """Layers that the limits keep in fp32."""
        return [one["layer"] for one in self.record["layers"] if "allowed" in one.get("why", "")]


@dataclass
class _Settings:
    """What a candidate is made of; `layers` run on integers, by role."""

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
) -> Int8:
    """The int8 form of canonical fp32 graphs.

    Args:
        models: "encoder", and "decoder" if there is one.
        rows: raw rows for calibration, choice and judgement: MIN_ROWS or more, in any order.
        scale: what reconstruction errors are divided by, in raw units.
        limits: what int8 must be within.
        finetune: the last resort, called with rows where layers fall back: canonical graphs whose weights are less
            sensitive to rounding. Kept where more layers run on integers then.

    Raises:
        NotQuantizableError: there is no layer that can be, or none that passes.
    """
    search = _Search(models, rows, scale, limits)
    try:
        found, reason = search.run(), None
    except NotQuantizableError as error:
        found, reason = None, error
    if finetune is not None and (found is None or found.fallen_back):
        tuned = finetune(np.concatenate([search.fit, search.choosing]))
        try:
            second = _Search(models, rows, scale, limits, tuned).run()
        except NotQuantizableError as error:
            reason = reason or error
        else:
            if found is None or len(second.fallen_back) < len(found.fallen_back):
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
    tuned: Mapping[str, ModelProto] | None = None
    notes: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        order = np.random.default_rng(0).permutation(len(self.rows))
        self.fit, self.choosing, self.judging = (self.rows[np.sort(part)] for part in np.array_split(order, 3))
        self.plain = {role: prepared(model) for role, model in (self.tuned or self.source).items()}
        self.fp32 = EncoderDecoder(self.source, self.scale)
        self.latents = self.fp32.compute(self.fit)[0]
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
                self.cache[key] = model, activations(model, self.fit if role == "encoder" else self.latents)
            model, values = self.cache[key]
            found = ranges(values, METHODS[settings.method])
            biases = corrected_biases(model, values, found) if settings.corrected else None
            result[role] = quantize(model, found, wanted, biases=biases) if wanted else self.source[role]
        return result

    def _loss(self, settings: _Settings, rows: NDArray[Any]) -> float:
        """What integers cost: growth of the reconstruction error, or without decoder the relative error of latents."""
        int8 = EncoderDecoder(self._candidate(settings), self.scale)
        (exact, errors), (ours, our_errors) = self.fp32.compute(rows), int8.compute(rows)
        latent = float(np.square(ours - exact, dtype=np.float64).sum() / max(np.square(exact).sum(), 1e-30))
        if errors is None or our_errors is None:
            return latent
        return float(our_errors.mean() / max(errors.mean(), 1e-30)) - 1 + latent

    def _choose_method(self, settings: _Settings) -> None:
        best = self._loss(settings, self.choosing)
        for method in METHODS:
            for corrected in (False, True):
                trial = _Settings(settings.layers, settings.forms, method, corrected)
                loss = self._loss(trial, self.choosing)
                if loss < best - _WORTH:
                    best, settings.method, settings.corrected = loss, method, corrected

    def _note_harm(self, settings: _Settings) -> None:
        """Record what each layer costs alone."""
        for role, layers in settings.layers.items():
            for layer in layers:
                alone = {other: [layer] if other == role else [] for other in settings.layers}
                trial = _Settings(alone, dict.fromkeys(settings.forms, "plain"), settings.method, settings.corrected)
                loss = self._loss(trial, self.choosing)
                self.notes[role, layer] = {"graph": role, "layer": layer, "choice": "int8", "error": round(loss, 6)}

    def _fall_back_harmful(self, settings: _Settings) -> None:
        """Let layers fall back to fp32, the most harmful first, until the quality is within the limits."""
        while failures := self._quality(settings).failures(self.limits):
            left = [(role, layer) for role, layers in settings.layers.items() for layer in layers]
            if len(left) <= 1:
                raise NotQuantizableError(f"no set of layers is within the limits: {'; '.join(failures)}")
            without = [self._without(settings, *one) for one in left]
            losses = [self._loss(trial, self.choosing) for trial in without]
            best = int(np.argmin(losses))
            role, layer = left[best]
            self.notes[role, layer] |= {"choice": "fp32", "why": failures[0]}
            settings.layers = without[best].layers

    def _fall_back_slow(self, settings: _Settings) -> None:
        """Let forms and layers fall back that integers make slower on this machine."""
        block = np.resize(self.rows, (_TIMED_ROWS, *self.rows.shape[1:]))
        given = {"encoder": block, "decoder": np.resize(self.latents, (_TIMED_ROWS, self.latents.shape[1]))}
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
        both = [EncoderDecoder(self._candidate(settings), self.scale) for settings in (one, other)]
        return time_ratio(both[0], both[1], role, rows)

    def _without(self, settings: _Settings, role: str, layer: str) -> _Settings:
        fewer = settings.layers | {role: [name for name in settings.layers[role] if name != layer]}
        return _Settings(fewer, settings.forms, settings.method, settings.corrected)

    def _quality(self, settings: _Settings) -> Quality:
        return quality(self.fp32, EncoderDecoder(self._candidate(settings), self.scale), self.judging)

    def _result(self, settings: _Settings) -> Int8:
        models, kept = self._candidate(settings), self._quality(settings)
        if failures := kept.failures(self.limits):
            raise NotQuantizableError(f"no set of layers is within the limits: {'; '.join(failures)}")
        for role, model in models.items():
            _check_integer(model, role, len(settings.layers[role]))
        calibration = {
            "rows": len(self.fit),
            "held_out_rows": len(self.judging),
            "method": settings.method,
            "bias_correction": settings.corrected,
        }
        record = {"calibration": calibration, "forms": dict(settings.forms), "layers": list(self.notes.values())}
        return Int8(models, kept, record)


def _check_integer(model: ModelProto, role: str, integer_layers: int) -> None:
    """Check that onnxruntime runs exactly the chosen layers on integers: it may leave one float, or quantise another.

    Raises:
        NotQuantizableError: it does not.
    """
    graph = onnx.load_from_string(as_run(model.SerializeToString())).graph
    kinds = [node.op_type for node in graph.node]
    integer = sum(kind in ("QGemm", "QLinearConv", "QLinearMatMul") for kind in kinds)
    if integer != integer_layers:
        raise NotQuantizableError(
            f"{role}: expected {integer_layers} integer layers, onnxruntime runs {integer} ({', '.join(kinds)})"
        )
