"""Change a bundle and make it consistent again, as only somebody who means it could."""

import hashlib
import io
import json

import numpy as np

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
