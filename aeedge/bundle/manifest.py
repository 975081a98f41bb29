"""The manifest of a bundle: what it holds, and how it is written. Specified in docs/reference/bundle-format.md."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.record import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.bundle.codes_spec import CodesSpec

FORMAT = "aeedge"
FORMAT_VERSION = 3  # of the newest bundles; a bundle has the oldest version that says all it needs
VARIANTS = ("fp32", "int8")
DTYPES = ("float32", "uint8", "int16")
MISSING = ("drop", "median")
CALENDAR = ("day", "week")
HEALTH = ("low", "high", "longest_run", "at_extreme", "zeros", "missing")  # of each channel; see signals/health.py
SCORES = ("mse", "robust", "mahalanobis", "both")
SENTINELS = ("none", "first", "all")
OUTPUTS = ("features", "latent", "reconstruction", "score")
MOST_SCORES = 4096  # of a variant in calibration.npz
MOST_DRIFT_LATENTS = 48  # of a drift reference there
LARGEST_SCORE = (2 - 2**-23) * 2.0**127  # of float32

BLANK_SEAL = "0" * 64  # what the checksum is computed with in its place
_LIGHT_BYTES = 2**22  # larger ones are worth loading OpenSSL for


class FileEntry(Record):
    """A file as it was written: `sha256` in hexadecimal, size in `bytes`."""

    sha256: str
    bytes: int


class Tolerance(Record):
    """A row agrees when its largest absolute error is at most `atol + rtol * max(abs(recorded row))`."""

    rtol: float
    atol: float


class Missing(Record):
    """Which values of float32 rows are missing, and what becomes of them.

    NaN is missing, and so are `codes`: numbers by the name of a value, or by its position in a row ("0", …). With
    `policy` "median" missing values are replaced by `fill`, a number for each value of a row. With "drop" rows that
    have one are left out where they are read from a file, and refused elsewhere.
    """

    policy: str
    codes: Mapping[str, tuple[float, ...]]
    fill: tuple[float, ...] | None = None

    def document(self) -> dict[str, Any]:
        """This as JSON."""
        fill = {} if self.fill is None else {"fill": list(self.fill)}
        return {"policy": self.policy, **fill, "codes": {name: list(codes) for name, codes in self.codes.items()}}


class SignalSpec(Record):
    """What a window is: consecutive samples of channels, (window, width), cut from a recording.

    `channels` names the measured channels, `units` theirs; `hop` is the number of samples from one window's start to
    the next in training; `rate` is in samples a second (Hz), None if unknown. `time` names the column with the time of
    each sample. For each of `calendar`, "day" and "week", two more channels follow the measured ones: sine and cosine
    of the time of day, and of the time since Monday. `longest_step` is how many seconds may pass from one sample to the
    next without a gap; None for one and a half periods. `reference` is what health checks compare windows with, as
    JSON.
    """

    channels: tuple[str, ...]
    window: int
    hop: int
    rate: float | None = None
    units: tuple[str, ...] | None = None
    time: str | None = None
    calendar: tuple[str, ...] = ()
    longest_step: float | None = None
    reference: Mapping[str, Any] = MappingProxyType({})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all channels of a window, those of the calendar last."""
        return self.channels + tuple(f"{period} {part}" for period in self.calendar for part in ("sin", "cos"))

    @property
    def width(self) -> int:
        """Number of channels of a window."""
        return len(self.channels) + 2 * len(self.calendar)

    @property
    def span(self) -> int:
        """Hops from a window to the next that shares no sample with it."""
        return -(-self.window // self.hop)

    def document(self) -> dict[str, Any]:
        """This as JSON."""
        return {
            "channels": list(self.channels),
            "window": self.window,
            "hop": self.hop,
            "rate": self.rate,
            "units": None if self.units is None else list(self.units),
            "time": self.time,
            "calendar": list(self.calendar),
            **({} if self.longest_step is None else {"longest_step": self.longest_step}),
            "reference": dict(self.reference),
        }


class InputSpec(Record):
    """One row of input. `features` and `units` name the elements of one-dimensional rows, if known.

    `missing`: how missing values are told and treated; None where there are none. `dialect`: of the text files that the
    model was trained with. `signal`: where rows are windows of a recording.
    """

    shape: tuple[int, ...]
    dtype: str
    features: tuple[str, ...] | None = None
    units: tuple[str, ...] | None = None
    missing: Missing | None = None
    dialect: Mapping[str, Any] | None = None
    signal: SignalSpec | None = None

    @property
    def size(self) -> int:
        """Number of values in one row."""
        return math.prod(self.shape)

    def positions(self, names: Iterable[str]) -> dict[str, int]:
        """Where values stand in a row that is flat, those that are there: by name, or by position ("0", …)."""
        named = {name: i for i, name in enumerate(self.features or ())}
        digits = {n: int(n) for n in names if n.isascii() and n.isdigit() and len(n) <= 10 and str(int(n)) == n}
        found = {name: named.get(name, digits.get(name, -1)) for name in names}
        return {name: i for name, i in found.items() if 0 <= i < self.size}


class FrontEndSpec(Record):
    """What a front end makes of a raw window: features, which the network then encodes, and reconstructs.

    `kind`: "spectrum", "log_mel", "envelope"; `shape`: of the features of one window; `names` of all of them, where
    those of one name are explained together; `file`: of features.onnx, from raw windows to features; `options`: for
    people.
    """

    kind: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    file: FileEntry
    options: Mapping[str, Any] = MappingProxyType({})

    def document(self) -> dict[str, Any]:
        """This as JSON."""
        return {
            "kind": self.kind,
            "shape": list(self.shape),
            "names": list(self.names),
            "features": self.file._asdict(),
            "options": dict(self.options),
        }


class Variant(Record):
    """One precision of the model: its files, golden tolerances by output, and quality measured against fp32.

    `scorer`: the graph from raw samples to scores, if the bundle has it.
    `nonfinite_sentinels`: which latents are not finite whenever the input is not, where ReLU keeps NaN: "none", "first"
    or "all" (one of them is; see runtime/nonfinite.py).
    `decisions` documents how a quantised variant came about, layer by layer; never read at run time.
    """

    encoder: FileEntry
    decoder: FileEntry | None
    tolerance: Mapping[str, Tolerance]
    scorer: FileEntry | None = None
    nonfinite_sentinels: str = "none"
    quality: Mapping[str, float] = MappingProxyType({})
    decisions: Mapping[str, Any] = MappingProxyType({})


class ScoreSpec(Record):
    """How rows are scored.

    `kind`: "mse", the mean over a row of ((x - reconstruction) / scale)², with the scale of the inputs; "robust", the
    same with the scale of each value's own residuals; "mahalanobis", the distance of the latents from those of
    normal rows, and "both", their sum: scorer.onnx alone computes these two.
    `scale` is a float32 array in raw units that broadcasts to the input's shape; with a front end, in units of its
    features and to their shape, for x is then the features of a window.
    """

    kind: str
    scale: NDArray[np.float32]

    @property
    def needs_scorer(self) -> bool:
        """Whether encoder, decoder and `scale` are not enough to compute the score."""
        return self.kind in ("mahalanobis", "both")


class CalibrationSpec(Record):
    """The scores of normal rows, which alarms are calibrated with, and the threshold of each variant.

    `file`: of calibration.npz; `rows`: how many scores of each variant it has; `false_alarm_rate`: of these thresholds;
    `rule`: how they were asked for; `time_ordered`: whether the rows are a stretch of time after the training rows;
    `drift`: what was found in a later stretch, and other facts for people; `spacing`: where the scores are kept in time
    order too, hops (`SignalSpec.hop`, or rows) from one to the next; None where they are not; `drift_references`: the
    numbers of latents and of components of each variant that has a drift reference; `calibrated`: how many normal rows
    stand behind the scores, where these are some of their order statistics; None where they are all of them;
    `relative_error`: how far such scores, and thresholds, are above the exact ones at most.
    """

    file: FileEntry
    rows: int
    false_alarm_rate: float
    thresholds: Mapping[str, float]
    rule: Mapping[str, Any] = MappingProxyType({})
    time_ordered: bool = False
    drift: Mapping[str, Any] = MappingProxyType({})
    spacing: float | None = None
    drift_references: Mapping[str, tuple[int, int]] = MappingProxyType({})
    calibrated: int | None = None
    relative_error: float = 0.0


class SmallerLayer(Record):
    """A layer that compression changed: `inputs` and `outputs` before and after; `rank` of two factors."""

    graph: str
    layer: str
    inputs: tuple[int, int]
    outputs: tuple[int, int]
    rank: int | None = None

    def document(self) -> dict[str, Any]:
        """This as JSON."""
        sizes = {"inputs": list(self.inputs), "outputs": list(self.outputs)}
        rank = {} if self.rank is None else {"rank": self.rank}
        return {"graph": self.graph, "layer": self.layer, **sizes, **rank}


class CompressionSpec(Record):
    """How the network was made smaller after training; nothing at run time depends on it.

    `asked`: the share of the multiply-adds that was to stay, None for as few as the quality limits allow;
    `max_error_ratio`: the limit of the error; `rows`: calibration rows, of which `held_out_rows` judged the result;
    `multiply_adds`: to encode and decode one sample, before and after; `layers`: those that changed; `quality`: of fp32
    against the network as it was trained, as `Variant.quality`.
    """

    asked: float | None
    max_error_ratio: float
    rows: int
    held_out_rows: int
    multiply_adds: tuple[int, int]
    layers: tuple[SmallerLayer, ...]
    quality: Mapping[str, float]

    def document(self) -> dict[str, Any]:
        """This as JSON."""
        return {
            "asked": "auto" if self.asked is None else self.asked,
            "max_error_ratio": self.max_error_ratio,
            "rows": self.rows,
            "held_out_rows": self.held_out_rows,
            "multiply_adds": list(self.multiply_adds),
            "layers": [layer.document() for layer in self.layers],
            "quality": dict(self.quality),
        }


class Manifest(Record):
    """All that a reader needs to know of a bundle before it opens a graph.

    `latent_shape` is the shape of one sample's latents; `ordered` says that any prefix of them can be decoded. `parent`
    is the id of the bundle that this one was recalibrated from. `front_end` makes features of raw windows inside the
    graphs; None where the network takes the samples themselves. `codes` says how latents become whole numbers of a few
    bits; None where the bundle does not. `compression` says how the network was made smaller after training; None where
    it was not.
    """

    id: str
    name: str
    family: str
    input: InputSpec
    latent_shape: tuple[int, ...]
    variants: Mapping[str, Variant]
    default_variant: str
    golden: FileEntry
    score: ScoreSpec
    opset: int
    min_onnxruntime: str
    ordered: bool = False
    created: str | None = None
    made_with: Mapping[str, str] = MappingProxyType({})
    training: Mapping[str, Any] = MappingProxyType({})
    calibration: CalibrationSpec | None = None
    parent: str | None = None
    front_end: FrontEndSpec | None = None
    codes: CodesSpec | None = None
    compression: CompressionSpec | None = None

    @property
    def reconstruction_shape(self) -> tuple[int, ...]:
        """Shape of what the decoder gives for one sample: that of the sample, or of the front end's features."""
        return self.input.shape if self.front_end is None else self.front_end.shape

    @property
    def latent(self) -> int:
        """Number of latents of one sample."""
        return math.prod(self.latent_shape)

    def dumps(self) -> str:
        """The text of manifest.json, sealed with its own checksum; the same manifest gives the same bytes."""
        document = {
            "format": FORMAT,
            "format_version": 3 if self.front_end is not None else 2 if self.score.needs_scorer else 1,
            "manifest_sha256": BLANK_SEAL,
            "id": self.id,
            **({} if self.parent is None else {"parent": self.parent}),
            "name": self.name,
            "created": self.created,
            "made_with": dict(self.made_with),
            "family": self.family,
            "input": {
                "shape": list(self.input.shape),
                "dtype": self.input.dtype,
                "features": None if self.input.features is None else list(self.input.features),
                "units": None if self.input.units is None else list(self.input.units),
                **({} if self.input.missing is None else {"missing": self.input.missing.document()}),
                **({} if self.input.dialect is None else {"dialect": dict(self.input.dialect)}),
                **({} if self.input.signal is None else {"signal": self.input.signal.document()}),
            },
            **({} if self.front_end is None else {"front_end": self.front_end.document()}),
            "latent": {
                "size": self.latent,
                **({} if len(self.latent_shape) == 1 else {"shape": list(self.latent_shape)}),
                **({"ordered": True} if self.ordered else {}),
            },
            "opset": self.opset,
            "min_onnxruntime": self.min_onnxruntime,
            "default_variant": self.default_variant,
            "variants": {name: _variant_document(variant) for name, variant in self.variants.items()},
            "golden": {"sha256": self.golden.sha256, "bytes": self.golden.bytes},
            "score": _score_document(self.score),
            **({} if self.calibration is None else {"calibration": _calibration_document(self.calibration)}),
            **({} if self.codes is None else {"codes": self.codes.document()}),
            **({} if self.compression is None else {"compression": self.compression.document()}),
            "training": dict(self.training),
        }
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        return text.replace(BLANK_SEAL, sha256_hex(text.encode()), 1)


def missing_fault(spec: InputSpec) -> str:
    """What is expected of `spec.missing` and not so; empty where it fits the rows."""
    missing = spec.missing
    if missing is None:
        return ""
    if spec.dtype != "float32":
        return f"nothing: values of {spec.dtype} cannot be missing"
    if missing.policy not in MISSING:
        return f"the policy {' or '.join(map(repr, MISSING))}"
    fill, at = missing.fill, spec.positions(missing.codes)
    if missing.policy == "drop" and fill is not None:
        return "no fill with the policy 'drop'"
    if missing.policy == "median" and (fill is None or len(fill) != spec.size or not all(map(math.isfinite, fill))):
        return f"a fill of {spec.size} finite numbers, one for each value of a row"
    for name, codes in missing.codes.items():
        if name not in at:
            return f"codes by name or position of a value, not {name!r}"
        if not codes or not all(map(math.isfinite, codes)):
            return f"one or more finite numbers as the codes of {name!r}"
        with np.errstate(over="ignore"):
            if fill is not None and np.float32(fill[at[name]]) in np.array(codes, np.float32):
                return f"a fill of {name!r} that is not one of its codes"
    return ""


def sha256_hex(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    digest = sha256(len(data))
    digest.update(data)
    found: str = digest.hexdigest()
    return found


def sha256(size: int) -> Any:
    """A SHA-256 to be fed with about so many bytes, an object as hashlib makes it.

    Python's own implementation, which is slower than OpenSSL's, but needs no 4 ms and 3 MB to be loaded.
    """
    if size <= _LIGHT_BYTES and "hashlib" not in sys.modules:
        for name in ("_sha2", "_sha256"):  # from Python 3.12 on, and before
            with suppress(ImportError):
                return import_module(name).sha256()
    import hashlib

    return hashlib.sha256()


def _variant_document(variant: Variant) -> dict[str, Any]:
    document: dict[str, Any] = {"encoder": variant.encoder._asdict()}
    if variant.decoder is not None:
        document["decoder"] = variant.decoder._asdict()
    if variant.scorer is not None:
        document["scorer"] = variant.scorer._asdict()
    document["tolerance"] = {name: variant.tolerance[name]._asdict() for name in OUTPUTS if name in variant.tolerance}
    if variant.nonfinite_sentinels != "none":
        document["nonfinite_sentinels"] = variant.nonfinite_sentinels
    document["quality"] = dict(variant.quality)
    if variant.decisions:
        document["decisions"] = dict(variant.decisions)
    return document


def _score_document(spec: ScoreSpec) -> dict[str, Any]:
    kind = {"kind": "mse", "scale_from": "residuals"} if spec.kind == "robust" else {"kind": spec.kind}
    return {**kind, "scale": _shortest(spec.scale)}


def _calibration_document(spec: CalibrationSpec) -> dict[str, Any]:
    return {
        **spec.file._asdict(),
        "rows": spec.rows,
        **({} if spec.calibrated is None else {"calibrated": spec.calibrated, "relative_error": spec.relative_error}),
        "false_alarm_rate": spec.false_alarm_rate,
        "thresholds": dict(spec.thresholds),
        "rule": dict(spec.rule),
        "time_ordered": spec.time_ordered,
        **({} if spec.spacing is None else {"spacing": spec.spacing}),
        **({} if not spec.drift_references else {"drift_references": _lists(spec.drift_references)}),
        **({"drift": dict(spec.drift)} if spec.drift else {}),
    }


def _lists(sizes: Mapping[str, tuple[int, int]]) -> dict[str, list[int]]:
    return {variant: list(both) for variant, both in sizes.items()}


def _shortest(scale: NDArray[np.float32]) -> Any:
    """float32 values as the shortest decimals that read back to the same float32."""

    def convert(value: Any) -> Any:
        return [convert(v) for v in value] if isinstance(value, np.ndarray) else float(str(value))

    return convert(np.asarray(scale, np.float32)[()])
