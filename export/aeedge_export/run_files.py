"""A trained run on disk: run.json, weights.safetensors, checkpoint.safetensors, history.jsonl, sample.npy,
and calibration.npy, later.npy, reference.npy where there are such rows. No pickle.

weights.safetensors holds the best weights and the scaler, enough for transform and export; checkpoint.safetensors holds
the last weights and the optimiser's state, for resuming. run.json holds the sha256 of all files, its own computed with
the digits of that hash set to zero (docs/reference/run-format.md).
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import nn

from aeedge.bundle.json_node import Node
from aeedge.bundle.manifest import DTYPES, SCORES, Missing
from aeedge.bundle.manifest_reading import read_signal
from aeedge.detection.calibration import ThresholdRule
from aeedge.detection.scores import Scoring
from aeedge.errors import InputError
from aeedge.files.atomic import atomic_directory
from aeedge_export.data.scaling import Scaler
from aeedge_export.networks import CUSTOM, build
from aeedge_export.networks.base import Design
from aeedge_export.networks.front_ends import from_document
from aeedge_export.run import STOPPED, Alarm, Run
from aeedge_export.training.loop import State, difference
from aeedge_export.versions import versions

FORMAT, VERSION = "aeedge-run", 3  # version 1 had no sums, 2 no rows for calibration
_DATA = ("weights.safetensors", "checkpoint.safetensors", "history.jsonl", "sample.npy")
_OPTIONAL = ("calibration.npy", "later.npy", "reference.npy")
_BEFORE: dict[str, Any] = {
    "calibration": 0.0,
    "time_ordered": False,
    "gap": 1,
    "score_kind": "mse",
    "front_end": "none",
    "front_end_options": None,
    "separable": False,
    "strides": "auto",
    "precision": "fp32",
    "compile": False,
}  # parameters of former runs
_BLANK = "0" * 64  # in place of run.json's own sha256 while that is computed
_STATE = ("epoch", "best_loss", "best_epoch", "stopped", "plateau_scale", "plateau_epoch", "threads")


def save(run: Run, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Write a run directory, completely or not at all.

    Raises:
        InputError: it exists and `overwrite` is False, holds files that are no part of a run, or cannot be written.
    """
    state = run.state
    weights = {f"net.{name}": tensor for name, tensor in state.best_weights.items()}
    weights |= {"scaler.mean": torch.from_numpy(run.scaler.mean), "scaler.scale": torch.from_numpy(run.scaler.scale)}
    if run.scoring is not None:
        parts = {"scale": run.scoring.scale, "mean": run.scoring.mean, "whitening": run.scoring.whitening}
        weights |= {f"score.{name}": torch.from_numpy(part) for name, part in parts.items() if part is not None}
    checkpoint = {f"last.{name}": tensor for name, tensor in state.last_weights.items()}
    checkpoint |= {f"adam.{name}": tensor for name, tensor in state.optimizer.items()}
    if run.sample_weight is not None:
        checkpoint["sample_weight"] = torch.from_numpy(run.sample_weight)
    files = {
        "weights.safetensors": to_bytes(weights),
        "checkpoint.safetensors": to_bytes(checkpoint),
        "history.jsonl": "".join(json.dumps(epoch) + "\n" for epoch in state.history).encode(),
        "sample.npy": _npy(run.sample),
    }
    files |= {
        name: _npy(rows)
        for name, rows in zip(_OPTIONAL, (run.calibration, run.later, run.reference))
        if rows is not None
    }
    sums = {"run.json": _BLANK} | {name: _sha256(data) for name, data in files.items()}
    text = json.dumps(
        {"format": FORMAT, "version": VERSION, "sha256": sums} | _document(run), indent=1, ensure_ascii=False
    )
    text += "\n"
    files["run.json"] = text.replace(_BLANK, _sha256(text.encode()), 1).encode()
    with atomic_directory(path, overwrite=overwrite) as part:
        for name, data in files.items():
            (part / name).write_bytes(data)


def _npy(rows: NDArray[Any]) -> bytes:
    written = io.BytesIO()
    np.save(written, rows, allow_pickle=False)
    return written.getvalue()


def _document(run: Run) -> dict[str, Any]:
    return {
        "created": run.created,
        "launch": run.launch,
        "versions": versions(),
        "params": json.loads(json.dumps(run.params, default=_plain)),
        "design": asdict(run.design),
        "dtype": run.dtype,
        "features": run.features,
        "units": run.units,
        "missing": None if run.missing is None else run.missing.document(),
        "dialect": None if run.dialect is None else dict(run.dialect),
        "signal": None if run.signal is None else run.signal.document(),
        "front_end": None if run.front_end is None else run.front_end.document(),
        "scaling": run.scaler.kind,
        "seed": run.seed,
        "drawn_seed": run.drawn_seed,
        "rows": run.rows,
        "left_out": run.left_out.tolist(),
        "fingerprint": run.fingerprint,
        "notes": run.notes,
        "noise": run.noise,
        "sample_rows": run.sample_rows.tolist(),
        "score_kind": None if run.scoring is None else run.scoring.kind,
        "score_part": run.score_part,
        "calibration_given": run.calibration_given,
        "calibration_left_out": run.calibration_left_out,
        "calibration_spacing": run.calibration_spacing,
        "calibration_inflation": dict(run.calibration_inflation),
        "rule": None if run.rule is None else run.rule.document(),
        "alarm": None if run.alarm is None else asdict(run.alarm),
        "labels": None if run.labels is None else run.labels.tolist(),
        "evaluation": run.evaluation,
        "state": {name: getattr(run.state, name) for name in _STATE},
    }


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else list(value)


def load(path: str | os.PathLike[str], encoder: nn.Module | None = None, decoder: nn.Module | None = None) -> Run:
    """Read a run directory.

    Args:
        path: the directory.
        encoder, decoder: modules of family "custom"; copies of them get the run's weights.

    Raises:
        InputError: no run, a damaged one, or one of a newer version.
    """
    place = Path(path)
    if not (place / "run.json").is_file():
        raise InputError(f"{place}: expected a run (a directory with run.json); 'aeedge train' makes runs")
    try:
        files = _read(place)
        document = json.loads(files["run.json"])
        if document["format"] != FORMAT or document["version"] > VERSION:
            raise InputError(
                f"{place}: expected a run of version {VERSION}, got {document['format']} {document['version']}; "
                "upgrade it with: pip install -U 'aeedge[export]'"
            )
        _check_sums(files, document)
        run = _assemble(files, document, (encoder, decoder))
        if (fault := next(_faults(run), None)) is not None:
            raise ValueError(fault)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes the readers raise
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise InputError(f"{place}: this run is damaged: {reason}; restore a copy, or train it again") from error
    return run


def _read(place: Path) -> dict[str, bytes]:
    """The files of a run; again where it was replaced in between."""
    while True:
        files = {name: (place / name).read_bytes() for name in ("run.json", *_DATA)}
        for name in _OPTIONAL:
            with suppress(FileNotFoundError):
                files[name] = (place / name).read_bytes()
        if (place / "run.json").read_bytes() == files["run.json"]:
            return files


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_sums(files: Mapping[str, bytes], document: Mapping[str, Any]) -> None:
    """Compare the files with the sums in run.json; runs of version 1 have none."""
    if document["version"] == 1 and "sha256" not in document:
        return
    sums = document["sha256"]
    own = sums["run.json"].encode()
    blank = files["run.json"].replace(own, _BLANK.encode(), 1)
    files = {**files, "run.json": blank}
    for name in {**sums, **files}:
        if name not in files or name not in sums:
            raise ValueError(f"{name} is {'missing' if name in sums else 'no part of it'}")
        if _sha256(files[name]) != sums[name]:
            raise ValueError(f"{name} is not what was saved, its sha256 differs from the one in run.json")


def _assemble(
    files: Mapping[str, bytes], document: dict[str, Any], modules: tuple[nn.Module | None, nn.Module | None]
) -> Run:
    weights, checkpoint = from_bytes(files["weights.safetensors"]), from_bytes(files["checkpoint.safetensors"])
    params, design = _BEFORE | _tuples(document["params"]), Design(**_tuples(document["design"]))
    state = State(
        **document["state"],
        best_weights=_part(weights, "net."),
        last_weights=_part(checkpoint, "last."),
        optimizer=_part(checkpoint, "adam."),
        history=[json.loads(line) for line in files["history.jsonl"].decode().splitlines()],
    )
    drawn = document.get("drawn_seed", document["seed"])  # older runs have one seed, the drawn one
    with torch.device("meta"):  # a network of another size than the weights may not fit into memory
        expected = build(params["family"], design, drawn, modules).state_dict()
    for found, prefix in ((state.best_weights, "net."), (state.last_weights, "last.")):
        if fault := difference(found, expected, prefix):
            custom = "; or encoder= and decoder= are not the modules that were trained"
            raise ValueError(fault + (custom if params["family"] == CUSTOM else ""))
    network = build(params["family"], design, drawn, modules)
    network.load_state_dict(state.best_weights)
    labels, features, evaluation = document["labels"], document["features"], document["evaluation"]
    if "referee" in evaluation:  # the key's former name
        evaluation["baseline"] = evaluation.pop("referee")
    return Run(
        params=params,
        design=design,
        network=network.eval(),
        scaler=Scaler(document["scaling"], weights["scaler.mean"].numpy(), weights["scaler.scale"].numpy()),
        seed=document["seed"],
        drawn_seed=drawn,
        dtype=document["dtype"],
        features=None if features is None else tuple(features),
        rows=document["rows"],
        noise=tuple((name, strength) for name, strength in document["noise"]),
        sample_rows=np.array(document["sample_rows"]),
        sample=_rows(files["sample.npy"]),
        calibration=_rows(files["calibration.npy"]) if "calibration.npy" in files else None,
        later=_rows(files["later.npy"]) if "later.npy" in files else None,
        reference=_rows(files["reference.npy"]) if "reference.npy" in files else None,
        left_out=np.array(document.get("left_out", ()), np.intp),  # not in runs of former versions
        fingerprint=document.get("fingerprint"),
        sample_weight=checkpoint["sample_weight"].numpy() if "sample_weight" in checkpoint else None,
        notes=document["notes"],
        state=state,
        created=document["created"],
        launch=str(document.get("launch", "")),
        labels=None if labels is None else np.array(labels),
        evaluation=evaluation,
        units=None if document.get("units") is None else tuple(document["units"]),
        missing=_missing(document.get("missing")),
        dialect=document.get("dialect"),
        signal=Node(document, "run", "run.json").get("signal").optional(read_signal),
        front_end=None if document.get("front_end") is None else from_document(document["front_end"]),
        scoring=_scoring(document.get("score_kind"), _part(weights, "score.")),
        score_part=document.get("score_part"),
        calibration_given=bool(document.get("calibration_given")),
        calibration_left_out=document.get("calibration_left_out", 0),
        calibration_spacing=document.get("calibration_spacing", 1.0),
        calibration_inflation=document.get("calibration_inflation", {}),
        rule=None if document.get("rule") is None else ThresholdRule(**document["rule"]).checked(),
        alarm=None if document.get("alarm") is None else Alarm(**document["alarm"]),
    )


def _rows(data: bytes) -> NDArray[Any]:
    found: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return found


def _scoring(kind: str | None, parts: Mapping[str, torch.Tensor]) -> Scoring | None:
    found = {name: tensor.numpy() for name, tensor in parts.items()}
    return None if kind is None else Scoring(kind, found["scale"], found.get("mean"), found.get("whitening"))


def _faults(run: Run) -> Iterator[str]:
    """What does not fit together in a run that was read, in words."""
    state, scaler, shape = run.state, run.scaler, run.input_shape
    for name in ("epoch", "best_epoch", "plateau_epoch"):
        if not _is_whole(getattr(state, name), 0, len(state.history)):
            yield f"state.{name} is {getattr(state, name)!r}, expected 0 to {len(state.history)}, the epochs of history"
    if state.epoch != len(state.history):
        yield f"state.epoch is {state.epoch}, but history.jsonl has {len(state.history)} epochs"
    if not (_is_number(state.plateau_scale) and 0 < state.plateau_scale <= 1):
        yield f"state.plateau_scale is {state.plateau_scale!r}, expected a number above 0, at most 1"
    if not _is_number(state.best_loss) or math.isnan(state.best_loss):
        yield f"state.best_loss is {state.best_loss!r}, expected a number"
    if state.stopped not in ("running", *STOPPED):
        yield f"state.stopped is {state.stopped!r}, expected one of running, {', '.join(STOPPED)}"
    for entry in state.history:
        for name in ("epoch", "train_loss", "validation_loss"):
            if not _is_number(entry[name]):
                yield f"history.jsonl: {name} is {entry[name]!r}, expected a number"
    for name, values in (("mean", scaler.mean), ("scale", scaler.scale)):
        np.broadcast_to(values, run.design.input_shape)
        if values.dtype != np.float32 or not np.isfinite(values).all() or (name == "scale" and (values <= 0).any()):
            yield f"scaler.{name} is not finite, not above 0, or no float32"
    if not _is_whole(run.rows, 2):
        yield f"rows is {run.rows!r}, expected a whole number from 2"
    for name in ("sample", "calibration", "later", "reference"):
        rows = getattr(run, name)
        if rows is not None and (run.dtype not in DTYPES or rows.dtype.name != run.dtype or rows.shape[1:] != shape):
            yield f"{name}.npy holds rows {rows.shape[1:]} {rows.dtype}, expected {shape} {run.dtype}"
    if run.sample_rows.dtype.kind != "i" or not ((run.sample_rows >= 0) & (run.sample_rows < run.rows)).all():
        yield f"sample_rows are not all whole numbers from 0 to {run.rows - 1}"
    if not len(run.sample) == len(run.sample_rows) == len(run.sample_rows if run.labels is None else run.labels):
        yield "sample.npy, sample_rows and labels differ in length"
    if run.sample_weight is not None and not (
        run.sample_weight.shape == (run.rows,) and (run.sample_weight >= 0).all() and run.sample_weight.max() < math.inf
    ):
        yield f"checkpoint.safetensors: sample_weight is not finite numbers from 0 for {run.rows} rows"
    if run.signal is not None and shape != (run.signal.window, run.signal.width):
        yield f"signal has windows of shape {(run.signal.window, run.signal.width)}, expected {shape}"
    yield from _faults_of_scoring(run)
    if run.front_end is not None and run.design.input_shape != (len(run.front_end.names),):
        yield f"front_end has {len(run.front_end.names)} features, expected {run.design.input_shape}"
    for name in ("features", "units"):
        names = getattr(run, name)
        if names is not None and len(names) != run.design.size:
            yield f"{name} has {len(names)} names, expected {run.design.size}"


def _faults_of_scoring(run: Run) -> Iterator[str]:
    """What does not fit in the score and the threshold."""
    scoring, alarm, k = run.scoring, run.alarm, run.design.latent
    if scoring is not None:
        uses_latents = scoring.kind in ("mahalanobis", "both")
        if scoring.kind not in SCORES or uses_latents != (scoring.mean is not None and scoring.whitening is not None):
            yield f"score_kind is {scoring.kind!r}, which does not fit the parts of the score"
        np.broadcast_to(scoring.scale, run.design.input_shape)
        if not (np.isfinite(scoring.scale).all() and (scoring.scale > 0).all()):
            yield "score.scale is not finite and above 0"
        for name, part, shape in (("mean", scoring.mean, (k,)), ("whitening", scoring.whitening, (k, k))):
            if part is not None and (part.shape != shape or not np.isfinite(part).all()):
                yield f"score.{name} is not {shape} finite numbers"
    if run.score_part not in (None, *SCORES) or not _is_whole(run.calibration_left_out, 0):
        yield "score_part or calibration_left_out is none"
    if not (_is_number(run.calibration_spacing) and 1 <= run.calibration_spacing < math.inf):
        yield f"calibration_spacing is {run.calibration_spacing!r}, expected a number from 1"
    if not all(_is_number(factor) and 1 <= factor < math.inf for factor in run.calibration_inflation.values()):
        yield f"calibration_inflation is {run.calibration_inflation!r}, expected numbers from 1"
    if alarm is not None and not (_is_number(alarm.threshold) and math.isfinite(alarm.threshold)):
        yield f"alarm.threshold is {alarm.threshold!r}, expected a finite number"


def _is_whole(value: Any, low: int, high: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _missing(document: dict[str, Any] | None) -> Missing | None:
    if document is None:
        return None
    fill = document.get("fill")
    return Missing(document["policy"], _tuples(document["codes"]), None if fill is None else tuple(fill))


def _tuples(document: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in document.items()}


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
