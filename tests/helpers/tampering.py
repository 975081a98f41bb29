"""Change a bundle and make it consistent again, as only somebody who means it could."""

import hashlib
import io
import json

import numpy as np

from aeedge.bundle.codes_spec import CodeScale, CodesSpec
from aeedge.bundle.manifest import CalibrationSpec, FileEntry
from aeedge.bundle.reader import Bundle
from aeedge.detection.calibration import ThresholdRule, calibrate


def reseal(path, change):
    """Change a manifest and make it consistent again, as a later exporter could have written it."""
    document = json.loads((path / "manifest.json").read_text())
    change(document)
    _seal(path, document, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def reseal_text(path, old, new):
    """The same with a part of the text, which need not be JSON afterwards."""
    text = (path / "manifest.json").read_text()
    assert old in text
    _seal(path, json.loads(text), text.replace(old, new, 1))


def _seal(path, document, text):
    text = text.replace(document["manifest_sha256"], "0" * 64, 1)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (path / "manifest.json").write_text(text.replace("0" * 64, digest, 1))


def replace_graph(path, name, data, variant="fp32"):
    (path / name).write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    reseal(path, lambda d: d["variants"][variant].__setitem__(name.split(".")[0], entry))


def change_golden(path, name, place, difference):
    """Let a recorded number differ from what the graph says."""
    with np.load(path / "golden.npz") as golden:
        arrays = {key: values.copy() for key, values in golden.items()}
    arrays[name][place] += difference
    replace_golden(path, arrays)


def replace_golden(path, arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    replace_golden_bytes(path, buffer.getvalue())


def replace_golden_bytes(path, data):
    (path / "golden.npz").write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    reseal(path, lambda d: d.__setitem__("golden", entry))


def replace_calibration(path, **arrays):
    """Calibration scores by variant."""
    buffer = io.BytesIO()
    np.savez(buffer, **{f"{variant}.score": scores for variant, scores in arrays.items()})
    replace_calibration_bytes(path, buffer.getvalue())


def replace_calibration_bytes(path, data):
    (path / "calibration.npz").write_bytes(data)
    reseal(path, lambda d: d["calibration"].update(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)))


def add_calibration(path, scores, **rule):
    """Calibrate a bundle's fp32 with scores, as an exporter could have done it."""
    rule = rule or {"false_alarm_rate": 0.05}
    found, threshold = calibrate(scores, ThresholdRule(**rule))
    buffer = io.BytesIO()
    np.savez(buffer, **{"fp32.score": found.scores})
    data = buffer.getvalue()
    (path / "calibration.npz").write_bytes(data)
    entry = FileEntry(hashlib.sha256(data).hexdigest(), len(data))
    spec = CalibrationSpec(entry, found.size, found.rate(threshold), {"fp32": threshold}, rule)
    manifest = Bundle(path).manifest._replace(calibration=spec)
    (path / "manifest.json").write_text(manifest.dumps(), encoding="utf-8")


def add_codes(path, common=False):
    """Give a bundle codes, over the middle of the range of its reference latents; with `common` one step for all."""
    manifest = Bundle(path).manifest
    with np.load(path / "golden.npz") as golden:
        latents = golden["fp32.latent"].reshape(len(golden["fp32.latent"]), -1)
    latents = latents.reshape(-1, 1) if common else latents
    low, high = np.quantile(latents, [0.25, 0.75], axis=0).astype(np.float32)
    steps = {bits: ((high - low) / np.float32(2**bits - 1)).tolist() for bits in (8, 4)}
    ratios = {"fp32": 1.25} if manifest.variants["fp32"].decoder else {}
    scales = {bits: CodeScale(tuple(low.tolist()), tuple(step), 0.01, ratios) for bits, step in steps.items()}
    (path / "manifest.json").write_text(manifest._replace(codes=CodesSpec(30, scales)).dumps(), encoding="utf-8")
    return path
