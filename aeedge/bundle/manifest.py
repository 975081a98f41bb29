"""The manifest of a bundle: what is parsed before anything is loaded. Specified in docs/bundle-format.md.

Parsed by hand, so that a device needs no schema library and every complaint names its place. Unknown keys are
ignored: a later aeedge may add some. What changes the meaning of a known key raises FORMAT_VERSION, and older readers
refuse.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bundle.json_node import Node, is_sha256, load_json
from aeedge.errors import CorruptBundleError, IncompatibleBundleError
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
_RATES = (1e-9, 1e12)  # Hz
HEALTH = ("low", "high", "longest_run", "at_extreme", "zeros", "missing")  # of each channel; see signals/health.py
SCORES = ("mse", "robust", "mahalanobis", "both")
SENTINELS = ("none", "first", "all")
OUTPUTS = ("features", "latent", "reconstruction", "score")
MOST_SCORES = 4096  # of a variant in calibration.npz
MOST_DRIFT_LATENTS = 48  # of a drift reference there
LARGEST_SCORE = (2 - 2**-23) * 2.0**127  # of float32

_SEAL = '"manifest_sha256": "'
_BLANK = "0" * 64
_MAX_VERSION = 40  # characters
_MAX_AXES = 16
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
    numbers of latents and of components of each variant that has a drift reference.
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


class Manifest(Record):
    """All that a reader needs to know of a bundle before it opens a graph.

    `latent_shape` is the shape of one sample's latents; `ordered` says that any prefix of them can be decoded. `parent`
    is the id of the bundle that this one was recalibrated from. `front_end` makes features of raw windows inside the
    graphs; None where the network takes the samples themselves. `codes` says how latents become whole numbers of a few
    bits; None where the bundle does not.
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
            "manifest_sha256": _BLANK,
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
            "training": dict(self.training),
        }
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        return text.replace(_BLANK, sha256_hex(text.encode()), 1)

    @classmethod
    def parse(cls, data: bytes, where: str = "manifest.json") -> Manifest:
        """Read a manifest.

        Args:
            data: the bytes of manifest.json.
            where: how messages name the file.

        Raises:
            IncompatibleBundleError: another format, or a newer format version.
            CorruptBundleError: not JSON, changed after it was written, or a key is missing or of a wrong type.
        """
        document = load_json(data, where)
        root = Node(document, "$", where)
        kind = document.get("format") if isinstance(document, dict) else None
        if kind != FORMAT:
            raise IncompatibleBundleError(
                f"{where}: expected format {FORMAT!r}, got {repr(kind)[:60]}; is this an aeedge bundle?"
            )
        version = root.get("format_version").integer(1)
        if version > FORMAT_VERSION:
            raise IncompatibleBundleError(
                f"{where}: its format version is {version}, this aeedge reads up to {FORMAT_VERSION}; "
                "upgrade it with: pip install -U aeedge"
            )
        _check_seal(data, where)
        return _manifest(root)


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


def _check_seal(data: bytes, where: str) -> None:
    text = data.decode("utf-8")
    before, seal, after = text.partition(_SEAL)
    found, after = after[: len(_BLANK)], after[len(_BLANK) :]
    if not is_sha256(found) or not after.startswith('"'):
        raise CorruptBundleError(f"{where}: $.manifest_sha256 is missing or no sha256; copy or export the bundle again")
    if sha256_hex((before + seal + _BLANK + after).encode()) != found:
        raise CorruptBundleError(
            f"{where}: its content does not match its own checksum, so it was changed after it was written; "
            "copy the bundle again or export it again"
        )


def _manifest(root: Node) -> Manifest:
    input_spec = _input(root.get("input"))
    latent_shape, ordered = _latent(root.get("latent"))
    front_end = root.get("front_end").optional(_front_end)
    score = _score(root.get("score"), input_spec.shape if front_end is None else front_end.shape)
    variants = {
        name: _variant(node, score, front_end)
        for name, node in root.get("variants").mapping().items()
        if name in VARIANTS
    }  # a variant of a later aeedge is passed over
    default = root.get("default_variant").text()
    if default not in variants:
        raise root.get("default_variant").wrong(f"one of the variants ({', '.join(variants) or 'none'})")
    if score.needs_scorer and not all(variant.scorer for variant in variants.values()):
        raise root.get("score").get("kind").wrong("'mse', for a variant has no scorer")
    return Manifest(
        id=root.get("id").sha256(),
        name=root.get("name").text(),
        family=root.get("family").text(),
        input=input_spec,
        latent_shape=latent_shape,
        variants=variants,
        default_variant=default,
        golden=_file(root.get("golden")),
        score=score,
        opset=root.get("opset").integer(1, 2**31 - 1),
        min_onnxruntime=_version(root.get("min_onnxruntime")),
        ordered=ordered,
        created=root.get("created").optional(Node.text),
        made_with={key: node.text() for key, node in root.get("made_with").mapping().items()},
        training=root.get("training").plain(),
        calibration=root.get("calibration").optional(_calibration),
        parent=root.get("parent").optional(Node.sha256),
        front_end=front_end,
        codes=root.get("codes").optional(lambda node: _codes(node, math.prod(latent_shape))),
    )


def _codes(node: Node, latents: int) -> CodesSpec:
    from aeedge.bundle.codes_spec import read_codes  # bundles without them need not wait for it

    return read_codes(node, latents)


def _front_end(node: Node) -> FrontEndSpec:
    shape = _shape(node.get("shape"))
    names = tuple(item.text() for item in node.get("names").items())
    if len(names) != math.prod(shape):
        raise node.get("names").wrong(f"a name for each of the {math.prod(shape)} features")
    return FrontEndSpec(
        kind=node.get("kind").text(),
        shape=shape,
        names=names,
        file=_file(node.get("features")),
        options=node.get("options").optional(Node.plain) or {},
    )


def _latent(node: Node) -> tuple[tuple[int, ...], bool]:
    """Shape of one sample's latents, and whether they are ordered."""
    size, ordered = node.get("size").integer(1, 2**31 - 1), bool(node.get("ordered").optional(Node.boolean))
    shape: tuple[int, ...] = node.get("shape").optional(_shape) or (size,)
    if math.prod(shape) != size or (ordered and len(shape) > 1):
        raise node.get("shape").wrong(f"[{size}]" if ordered else f"sizes whose product is {size}")
    return shape, ordered


def _shape(node: Node) -> tuple[int, ...]:
    shape = tuple(item.integer(1) for item in node.items())
    if not shape or len(shape) > _MAX_AXES or math.prod(shape) > 2**31 - 1:
        raise node.wrong("one to a few sizes, fewer than 2**31 values in all")
    return shape


def _version(node: Node) -> str:
    """A version such as "1.12.1"; anything may follow its numbers."""
    text = node.text()
    first = text.split(".")[0]
    if not (first.isascii() and first.isdigit()) or len(text) > _MAX_VERSION:
        raise node.wrong("a version such as '1.12.1'")
    return text


def _input(node: Node) -> InputSpec:
    shape = _shape(node.get("shape"))
    dtype = node.get("dtype").text()
    if dtype not in DTYPES:
        raise node.get("dtype").wrong(f"one of {', '.join(DTYPES)}")
    names: dict[str, tuple[str, ...] | None] = {}
    for key in ("features", "units"):
        names[key] = node.get(key).optional(lambda n: tuple(item.text() for item in n.items()))
        if names[key] is not None and (len(shape) != 1 or len(names[key] or ()) != shape[0]):
            raise node.get(key).wrong(f"null, or one name for each of the {math.prod(shape)} values of a row")
    missing, dialect = node.get("missing").optional(_missing), node.get("dialect").optional(Node.plain)
    signal = node.get("signal").optional(read_signal)
    if signal is not None and shape != (signal.window, signal.width):
        raise node.get("signal").wrong(f"a window and channels that make the shape {shape}")
    spec = InputSpec(shape, dtype, names["features"], names["units"], missing, dialect, signal)
    fault = missing_fault(spec)
    if fault:
        raise node.get("missing").wrong(fault)
    return spec


def read_signal(node: Node) -> SignalSpec:
    """A signal's entry, as `SignalSpec.document` gives it."""
    channels, calendar = (tuple(item.text() for item in node.get(key).items()) for key in ("channels", "calendar"))
    units = node.get("units").optional(lambda n: tuple(item.text() for item in n.items()))
    rate = node.get("rate").optional(lambda n: n.number(0.0))
    if not channels or len(set(channels)) < len(channels):
        raise node.get("channels").wrong("one or more names, all different")
    if units is not None and len(units) != len(channels):
        raise node.get("units").wrong(f"null, or one for each of the {len(channels)} channels")
    if rate is not None and not _RATES[0] <= rate <= _RATES[1]:
        raise node.get("rate").wrong("null, or samples a second, above 0")
    if len(set(calendar)) < len(calendar) or not set(calendar) <= set(CALENDAR):
        raise node.get("calendar").wrong("'day', 'week', both or none")
    return SignalSpec(
        channels=channels,
        window=node.get("window").integer(1, 2**31 - 1),
        hop=node.get("hop").integer(1, 2**31 - 1),
        rate=rate,
        units=units,
        time=node.get("time").optional(Node.text),
        calendar=calendar,
        longest_step=node.get("longest_step").optional(lambda n: n.number(0.0)),
        reference=node.get("reference").optional(lambda n: _reference(n, len(channels))) or {},
    )


def _reference(node: Node, channels: int) -> dict[str, Any]:
    """What health checks compare with: numbers for each channel, and anything of a later aeedge."""
    found = node.plain()
    for key in HEALTH:
        numbers = node.get(key).optional(_numbers)
        least = -LARGEST_SCORE if key in ("low", "high") else 0.0
        if numbers is not None and (len(numbers) != channels or not all(least <= n <= LARGEST_SCORE for n in numbers)):
            raise node.get(key).wrong(f"{channels} numbers from {least:g} to {LARGEST_SCORE:g}, one for each channel")
    if any(low > high for low, high in zip(found.get("low") or (), found.get("high") or ())):
        raise node.get("high").wrong("numbers that are not below those of 'low'")
    return found


def _missing(node: Node) -> Missing:
    return Missing(
        policy=node.get("policy").text(),
        fill=node.get("fill").optional(_numbers),
        codes={name: _numbers(item) for name, item in (node.get("codes").optional(Node.mapping) or {}).items()},
    )


def _numbers(node: Node) -> tuple[float, ...]:
    return tuple(item.number() for item in node.items())


def _variant(node: Node, score: ScoreSpec, front_end: FrontEndSpec | None) -> Variant:
    decoder = node.get("decoder").optional(_file)
    scorer = node.get("scorer").optional(_file) if decoder is not None or score.needs_scorer else None
    made = (front_end is not None, True, decoder is not None, decoder is not None or scorer is not None)
    limits = {name: node.get("tolerance").get(name) for name, there in zip(OUTPUTS, made) if there}
    return Variant(
        encoder=_file(node.get("encoder")),
        decoder=decoder,
        tolerance={
            name: Tolerance(rtol=item.get("rtol").number(0.0), atol=item.get("atol").number(0.0))
            for name, item in limits.items()
        },
        scorer=scorer,
        nonfinite_sentinels=node.get("nonfinite_sentinels").optional(_sentinels) or "none",
        quality={name: item.number() for name, item in node.get("quality").mapping().items()},
        decisions=node.get("decisions").optional(Node.plain) or {},
    )


def _sentinels(node: Node) -> str:
    if node.value not in SENTINELS:
        raise node.wrong(f"one of {', '.join(SENTINELS)}")
    return node.text()


def _file(node: Node) -> FileEntry:
    return FileEntry(sha256=node.get("sha256").sha256(), bytes=node.get("bytes").integer(1))


def _calibration(node: Node) -> CalibrationSpec:
    thresholds = node.get("thresholds").mapping()
    return CalibrationSpec(
        file=_file(node),
        rows=node.get("rows").integer(1, MOST_SCORES),
        false_alarm_rate=node.get("false_alarm_rate").number(0.0, 1.0),
        thresholds={
            name: item.number(-LARGEST_SCORE, LARGEST_SCORE) for name, item in thresholds.items() if name in VARIANTS
        },
        rule=node.get("rule").plain(),
        time_ordered=node.get("time_ordered").boolean(),
        spacing=node.get("spacing").optional(lambda n: n.number(1.0)),
        drift_references=node.get("drift_references").optional(_drift_references) or {},
        drift=node.get("drift").optional(Node.plain) or {},
    )


def _drift_references(node: Node) -> dict[str, tuple[int, int]]:
    found = {}
    for variant, item in node.mapping().items():
        sizes = item.items()
        if len(sizes) != 2:
            raise item.wrong("the numbers of latents and of components")
        latents = sizes[0].integer(1, MOST_DRIFT_LATENTS)
        if variant in VARIANTS:
            found[variant] = (latents, sizes[1].integer(1, latents))
    return found


def _score(node: Node, shape: tuple[int, ...]) -> ScoreSpec:
    kind, of_residuals = node.get("kind").text(), node.get("scale_from").optional(Node.text) == "residuals"
    if kind not in SCORES or kind == "robust":
        raise node.get("kind").wrong("'mse', 'mahalanobis' or 'both'")
    kind = "robust" if kind == "mse" and of_residuals else kind
    scale_node = node.get("scale")
    try:
        with warnings.catch_warnings(), np.errstate(over="ignore"):
            warnings.simplefilter("error")  # older numpy only warns of lists of unequal length
            given = np.array(scale_node.value)
            if given.dtype.kind not in "iuf":
                raise TypeError
            scale = given.astype(np.float32)
            np.broadcast_to(scale, shape)
    except (ValueError, TypeError, Warning):
        raise scale_node.wrong(f"numbers that broadcast to the shape {shape}") from None
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise scale_node.wrong("finite numbers above 0")
    return ScoreSpec(kind, scale)
