"""A trained run on disk: run.json, weights.safetensors, checkpoint.safetensors, history.jsonl, sample.npy. No pickle.

weights.safetensors holds the best weights and the scaler, which is all that transform and export need;
checkpoint.safetensors holds the last weights and the optimiser's state, which only resuming needs.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from aeedge.errors import InputError
from aeedge.files.atomic import atomic_directory
from aeedge_export import fitting
from aeedge_export.data.scaling import Scaler
from aeedge_export.networks import build
from aeedge_export.networks.base import Design
from aeedge_export.training.loop import State
from aeedge_export.versions import versions

if TYPE_CHECKING:
    from aeedge_export.autoencoder import Autoencoder

FORMAT, VERSION = "aeedge-run", 1
_PRIVATE = ("random_state", "verbose", "encoder", "decoder")
_STATE = ("epoch", "best_loss", "best_epoch", "stopped", "plateau_scale", "plateau_epoch")


def save(ae: Autoencoder, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Write a run directory, whole or not at all.

    Raises:
        InputError: it exists and `overwrite` is False, or cannot be written.
    """
    state = ae.state_
    weights = {f"net.{name}": tensor for name, tensor in state.best_weights.items()}
    weights |= {"scaler.mean": torch.from_numpy(ae.scaler_.mean), "scaler.scale": torch.from_numpy(ae.scaler_.scale)}
    checkpoint = {f"last.{name}": tensor for name, tensor in state.last_weights.items()}
    checkpoint |= {f"adam.{name}": tensor for name, tensor in state.optimizer.items()}
    sample = io.BytesIO()
    np.save(sample, ae.sample_, allow_pickle=False)
    files = {
        "run.json": (json.dumps(_document(ae), indent=1, ensure_ascii=False) + "\n").encode(),
        "weights.safetensors": to_bytes(weights),
        "checkpoint.safetensors": to_bytes(checkpoint),
        "history.jsonl": "".join(json.dumps(epoch) + "\n" for epoch in state.history).encode(),
        "sample.npy": sample.getvalue(),
    }
    with atomic_directory(path, overwrite=overwrite) as part:
        for name, data in files.items():
            (part / name).write_bytes(data)


def _document(ae: Autoencoder) -> dict[str, Any]:
    params = {name: value for name, value in ae.get_params(deep=False).items() if name not in _PRIVATE}
    return {
        "format": FORMAT,
        "version": VERSION,
        "created": ae.created_,
        "versions": versions(),
        "params": json.loads(json.dumps(params, default=_plain)),
        "design": asdict(ae.design_),
        "dtype": ae.input_dtype_,
        "features": list(map(str, ae.feature_names_in_)) if hasattr(ae, "feature_names_in_") else None,
        "scaling": ae.scaler_.kind,
        "seed": ae.seed_,
        "rows": ae.rows_,
        "notes": ae.notes_,
        "noise": [list(part) for part in ae.noise_],
        "sample_rows": ae.sample_rows_.tolist(),
        "labels": None if ae.labels_ is None else ae.labels_.tolist(),
        "evaluation": ae.evaluation_,
        "state": {name: getattr(ae.state_, name) for name in _STATE},
    }


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else list(value)


def summary(ae: Autoencoder) -> dict[str, Any]:
    """What a bundle tells of its training."""
    state = ae.state_
    return {
        "rows": ae.rows_,
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "validation_loss": state.best_loss,
        "stopped": state.stopped,
        "loss": ae.design_.loss,
        "hidden": list(ae.design_.hidden),
        "activation": ae.activation,
        "normalization": ae.design_.normalization,
        "linear_path": ae.design_.linear_path,
        "scaling": ae.scaler_.kind,
        "seed": ae.seed_,
    }


def load(
    cls: type[Autoencoder],
    path: str | os.PathLike[str],
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
) -> Autoencoder:
    """Read a run directory into a fitted estimator.

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
        return _assemble(cls, place, document, encoder, decoder)
    except (ValueError, KeyError, TypeError, OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{place}: this run is damaged ({type(error).__name__}: {error}); train it again") from None


def _assemble(
    cls: type[Autoencoder],
    place: Path,
    document: dict[str, Any],
    encoder: nn.Module | None,
    decoder: nn.Module | None,
) -> Autoencoder:
    weights = load_file(place / "weights.safetensors")
    checkpoint = load_file(place / "checkpoint.safetensors")
    ae = cls(**_tuples(document["params"]), encoder=encoder, decoder=decoder)
    ae.design_ = Design(**_tuples(document["design"]))
    ae.seed_, ae.rows_, ae.notes_, ae.created_ = (document[k] for k in ("seed", "rows", "notes", "created"))
    ae.noise_ = tuple((name, strength) for name, strength in document["noise"])
    ae.sample_rows_, ae.evaluation_ = np.array(document["sample_rows"]), document["evaluation"]
    ae.labels_ = None if document["labels"] is None else np.array(document["labels"])
    ae.input_shape_, ae.input_dtype_ = ae.design_.input_shape, document["dtype"]
    ae.n_features_in_ = ae.input_shape_[0]
    if document["features"] is not None:
        ae.feature_names_in_ = np.array(document["features"], dtype=object)
    ae.scaler_ = Scaler(document["scaling"], weights["scaler.mean"].numpy(), weights["scaler.scale"].numpy())
    ae.sample_ = np.load(place / "sample.npy", allow_pickle=False)
    ae.state_ = State(
        **document["state"],
        best_weights=_part(weights, "net."),
        last_weights=_part(checkpoint, "last."),
        optimizer=_part(checkpoint, "adam."),
        history=[json.loads(line) for line in (place / "history.jsonl").read_text().splitlines()],
    )
    ae.network_ = build(ae.family, ae.design_, ae.seed_, (encoder, decoder))
    ae.network_.load_state_dict(ae.state_.best_weights)
    ae.network_.eval()
    fitting.publish(ae)
    return ae


def _tuples(document: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in document.items()}


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
