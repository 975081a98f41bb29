"""Reads manifest.json, before anything is loaded. Specified in docs/reference/bundle-format.md.

By hand, so that a device needs no schema library and every complaint names its place. Unknown keys are ignored: a later
aeedge may add some. What changes the meaning of a known key raises FORMAT_VERSION, and older readers refuse.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bundle.json_node import Node, is_sha256, load_json
from aeedge.bundle.manifest import (
    BLANK_SEAL,
    CALENDAR,
    DTYPES,
    FORMAT,
    FORMAT_VERSION,
    HEALTH,
    LARGEST_SCORE,
    MOST_DRIFT_LATENTS,
    MOST_SCORES,
    OUTPUTS,
    SCORES,
    SENTINELS,
    VARIANTS,
    CalibrationSpec,
    CompressionSpec,
    FileEntry,
    FrontEndSpec,
    InputSpec,
    Manifest,
    Missing,
    ScoreSpec,
    SignalSpec,
    SmallerLayer,
    Tolerance,
    Variant,
    missing_fault,
    sha256_hex,
)
from aeedge.errors import CorruptBundleError, IncompatibleBundleError

if TYPE_CHECKING:
    from aeedge.bundle.codes_spec import CodesSpec

_SEAL = '"manifest_sha256": "'
_MAX_VERSION = 40  # characters
_MAX_AXES = 16
_RATES = (1e-9, 1e12)  # Hz


def read_manifest(data: bytes, where: str = "manifest.json") -> Manifest:
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


def _check_seal(data: bytes, where: str) -> None:
    text = data.decode("utf-8")
    before, seal, after = text.partition(_SEAL)
    found, after = after[: len(BLANK_SEAL)], after[len(BLANK_SEAL) :]
    if not is_sha256(found) or not after.startswith('"'):
        raise CorruptBundleError(f"{where}: $.manifest_sha256 is missing or no sha256; copy or export the bundle again")
    if sha256_hex((before + seal + BLANK_SEAL + after).encode()) != found:
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
        compression=root.get("compression").optional(_compression),
    )


def _codes(node: Node, latents: int) -> CodesSpec:
    from aeedge.bundle.codes_spec import read_codes  # bundles without them need not wait for it

    return read_codes(node, latents)


def _compression(node: Node) -> CompressionSpec:
    asked, layers = node.get("asked"), node.get("layers").items()
    before, after = _two(node.get("multiply_adds"))
    if after > before:
        raise node.get("multiply_adds").wrong("two whole numbers, the second not above the first")
    return CompressionSpec(
        asked=None if asked.value == "auto" else asked.number(0.0, 1.0),
        max_error_ratio=node.get("max_error_ratio").number(1.0),
        rows=node.get("rows").integer(1),
        held_out_rows=node.get("held_out_rows").integer(1),
        multiply_adds=(before, after),
        layers=tuple(_smaller_layer(item) for item in layers),
        quality={name: item.number() for name, item in node.get("quality").mapping().items()},
    )


def _smaller_layer(node: Node) -> SmallerLayer:
    return SmallerLayer(
        graph=node.get("graph").text(),
        layer=node.get("layer").text(),
        inputs=_two(node.get("inputs")),
        outputs=_two(node.get("outputs")),
        rank=node.get("rank").optional(lambda n: n.integer(1)),
    )


def _two(node: Node) -> tuple[int, int]:
    """Whole numbers before and after."""
    found = node.items()
    if len(found) != 2:
        raise node.wrong("two whole numbers, before and after")
    return found[0].integer(1), found[1].integer(1)


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
    thresholds, rows = node.get("thresholds").mapping(), node.get("rows").integer(1, MOST_SCORES)
    return CalibrationSpec(
        file=_file(node),
        rows=rows,
        false_alarm_rate=node.get("false_alarm_rate").number(0.0, 1.0),
        thresholds={
            name: item.number(-LARGEST_SCORE, LARGEST_SCORE) for name, item in thresholds.items() if name in VARIANTS
        },
        rule=node.get("rule").plain(),
        time_ordered=node.get("time_ordered").boolean(),
        spacing=node.get("spacing").optional(lambda n: n.number(1.0)),
        drift_references=node.get("drift_references").optional(_drift_references) or {},
        drift=node.get("drift").optional(Node.plain) or {},
        calibrated=node.get("calibrated").optional(lambda n: n.integer(rows)),
        relative_error=node.get("relative_error").optional(lambda n: n.number(0.0, 1.0)) or 0.0,
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
