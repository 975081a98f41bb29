"""A trained run on disk: run.json, weights.safetensors, checkpoint.safetensors, history.jsonl, sample.npy. No pickle.

weights.safetensors holds the best weights and the scaler, enough for transform and export; checkpoint.safetensors holds
the last weights and the optimiser's state, for resuming.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from aeedge.bundle.manifest import Missing
from aeedge.errors import InputError
from aeedge.files.atomic import atomic_directory
from aeedge_export.data.scaling import Scaler
from aeedge_export.networks import build
from aeedge_export.networks.base import Design
from aeedge_export.run import Run
from aeedge_export.training.loop import State
from aeedge_export.versions import versions

FORMAT, VERSION = "aeedge-run", 1
_STATE = ("epoch", "best_loss", "best_epoch", "stopped", "plateau_scale", "plateau_epoch", "threads")


def save(run: Run, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Write a run directory, completely or not at all.

    Raises:
        InputError: it exists and `overwrite` is False, holds files that are no part of a run, or cannot be written.
    """
    state = run.state
    weights = {f"net.{name}": tensor for name, tensor in state.best_weights.items()}
    weights |= {"scaler.mean": torch.from_numpy(run.scaler.mean), "scaler.scale": torch.from_numpy(run.scaler.scale)}
    checkpoint = {f"last.{name}": tensor for name, tensor in state.last_weights.items()}
    checkpoint |= {f"adam.{name}": tensor for name, tensor in state.optimizer.items()}
    if run.sample_weight is not None:
        checkpoint["sample_weight"] = torch.from_numpy(run.sample_weight)
    sample = io.BytesIO()
    np.save(sample, run.sample, allow_pickle=False)
    files = {
        "run.json": (json.dumps(_document(run), indent=1, ensure_ascii=False) + "\n").encode(),
        "weights.safetensors": to_bytes(weights),
        "checkpoint.safetensors": to_bytes(checkpoint),
        "history.jsonl": "".join(json.dumps(epoch) + "\n" for epoch in state.history).encode(),
        "sample.npy": sample.getvalue(),
    }
    with atomic_directory(path, overwrite=overwrite) as part:
        for name, data in files.items():
            (part / name).write_bytes(data)


def _document(run: Run) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "created": run.created,
        "versions": versions(),
        "params": json.loads(json.dumps(run.params, default=_plain)),
        "design": asdict(run.design),
        "dtype": run.dtype,
        "features": run.features,
        "units": run.units,
        "missing": None if run.missing is None else run.missing.document(),
        "dialect": None if run.dialect is None else dict(run.dialect),
        "scaling": run.scaler.kind,
        "seed": run.seed,
        "drawn_seed": run.drawn_seed,
        "rows": run.rows,
        "left_out": run.left_out.tolist(),
        "fingerprint": run.fingerprint,
        "notes": run.notes,
        "noise": run.noise,
        "sample_rows": run.sample_rows.tolist(),
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
        document = json.loads((place / "run.json").read_text(encoding="utf-8"))
        if document["format"] != FORMAT or document["version"] > VERSION:
            raise InputError(
                f"{place}: expected a run of version {VERSION}, got {document['format']} {document['version']}; "
                "upgrade it with: pip install -U 'aeedge[export]'"
            )
        return _assemble(place, document, (encoder, decoder))
    except (ValueError, KeyError, TypeError, OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{place}: this run is damaged ({type(error).__name__}: {error}); train it again") from None


def _assemble(place: Path, document: dict[str, Any], modules: tuple[nn.Module | None, nn.Module | None]) -> Run:
    weights = load_file(place / "weights.safetensors")
    checkpoint = load_file(place / "checkpoint.safetensors")
    params, design = _tuples(document["params"]), Design(**_tuples(document["design"]))
    state = State(
        **document["state"],
        best_weights=_part(weights, "net."),
        last_weights=_part(checkpoint, "last."),
        optimizer=_part(checkpoint, "adam."),
        history=[json.loads(line) for line in (place / "history.jsonl").read_text().splitlines()],
    )
    drawn = document.get("drawn_seed", document["seed"])  # older runs have one seed, the drawn one
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
        sample=np.load(place / "sample.npy", allow_pickle=False),
        left_out=np.array(document.get("left_out", ()), np.intp),  # not in runs of former versions
        fingerprint=document.get("fingerprint"),
        sample_weight=checkpoint["sample_weight"].numpy() if "sample_weight" in checkpoint else None,
        notes=document["notes"],
        state=state,
        created=document["created"],
        labels=None if labels is None else np.array(labels),
        evaluation=evaluation,
        units=None if document.get("units") is None else tuple(document["units"]),
        missing=_missing(document.get("missing")),
        dialect=document.get("dialect"),
    )


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
