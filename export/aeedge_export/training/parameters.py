"""The estimator's parameters, checked one by one before anything is computed.

What depends on the data (more latents than values, a loss that needs values from 0 to 1) is found in `defaults`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from aeedge.bundle.manifest import SCORES
from aeedge.errors import InputError
from aeedge_export.data.axes import AXES, CHANNELS
from aeedge_export.data.corruption import parse_noise
from aeedge_export.data.rows import CROSS
from aeedge_export.data.scaling import SCALINGS
from aeedge_export.networks import CUSTOM, FAMILIES
from aeedge_export.networks.dense import parse_sparsity
from aeedge_export.networks.front_ends import KINDS as FRONT_ENDS
from aeedge_export.networks.layers import ACTIVATIONS
from aeedge_export.networks.losses import LOSSES
from aeedge_export.training.devices import pick_device
from aeedge_export.training.loop import PRECISIONS, SCHEDULES

GOALS = ("detect", "compress")
_CHOICES: dict[str, Sequence[str]] = {
    "family": (*FAMILIES, CUSTOM),
    "activation": tuple(ACTIVATIONS),
    "latent_activation": tuple(ACTIVATIONS),
    "channels": CHANNELS,
    "front_end": FRONT_ENDS,
    "goal": GOALS,
    "scaling": SCALINGS,
    "precision": PRECISIONS,
    "schedule": SCHEDULES,
    "score_kind": ("auto", *SCORES),
}
_OR_AUTO = {"output": ("linear", "sigmoid"), "normalization": ("batch", "none"), "loss": tuple(LOSSES)}
_WHOLE = ("latent", "epochs", "batch_size", "patience", "threads")  # from 1, or "auto"
_SHARES = {"kl_warmup": 1.0, "validation": 0.9}  # from 0 to this
_MOST_CALIBRATION = 0.5  # share of the rows
_WEIGHTS = ("contraction", "beta", "free_bits")
_OWNERS: dict[str, tuple[str, ...]] = {"sparsity": ("sparse",), "contraction": ("contractive",)}  # families by name
_OWNERS |= dict.fromkeys(("beta", "free_bits", "kl_warmup"), ("vae",))
_OWNERS |= dict.fromkeys(("encoder", "decoder"), (CUSTOM,))
_OWNERS |= dict.fromkeys(("strides", "separable"), ("conv1d", "conv2d"))
_UNUSED = {  # by families whose networks are given
    "pca": (
        *("hidden", "activation", "latent_activation", "output", "loss", "noise", "normalization", "linear_path"),
        *("precision", "compile"),
    ),
    CUSTOM: ("latent", "hidden", "activation", "latent_activation", "normalization", "linear_path"),
}
_NOTHING = {"hidden": (), "noise": "none", "normalization": "none", "linear_path": False, "output": "linear"}
_NOTHING |= {"activation": "linear", "loss": "mse"}
_MOST_SEED = 2**32 - 1
_MOST_THREADS = 1024  # the system may refuse more, which ends the process


def check_parameters(params: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Check types and ranges, and that no parameter would be ignored.

    Args:
        params: the estimator's parameters, by name.
        defaults: their default values.

    Raises:
        InputError: the message begins with the parameter's name, and says what is expected.
    """
    for name, allowed in _CHOICES.items():
        if not isinstance(params[name], str) or params[name] not in allowed:
            raise InputError(f"{name}: expected {', '.join(allowed)}, got {params[name]!r}")
    for name, allowed in _OR_AUTO.items():
        if params[name] not in ("auto", *allowed):
            raise InputError(f"{name}: expected {' or '.join(map(repr, allowed))}, got {params[name]!r}")
    for name in _WHOLE:
        _check_whole(name, params[name], optional=name == "patience")
    if not _is_auto(params["threads"]) and params["threads"] > _MOST_THREADS:
        raise InputError(
            f"threads: expected 'auto' or at most {_MOST_THREADS}, got {params['threads']}; one for each CPU"
        )
    for name, most in _SHARES.items():
        if not _is_number(params[name]) or not 0 <= params[name] <= most:
            raise InputError(f"{name}: expected a share from 0 to {most:g}, got {params[name]!r}")
    for name in _WEIGHTS:
        if not _is_number(params[name]) or params[name] < 0:
            raise InputError(f"{name}: expected a number of at least 0, got {params[name]!r}")
    options = params["front_end_options"]
    if not (options is None or isinstance(options, Mapping)) or (options and params["front_end"] == "none"):
        wanted = "None without a front end" if isinstance(options, Mapping) else "None, or a dict of options by name"
        raise InputError(f"front_end_options: expected {wanted}, got {options!r:.80}")
    _check_split(params)
    _check_rates(params)
    check_widths(params["hidden"])
    check_widths(params["strides"], "strides")
    parse_noise(params["noise"] if params["noise"] != "auto" else None)
    parse_sparsity(params["sparsity"])
    if params["axes"] is not None and str(params["axes"]).lower() not in AXES:
        raise InputError(f"axes: expected {', '.join(AXES)}, got {params['axes']!r}")
    if params["linear_path"] not in ("auto", True, False):
        raise InputError(f"linear_path: expected 'auto', True or False, got {params['linear_path']!r}")
    for name in ("ordered", "separable", "compile", *([] if _is_auto(params["time_ordered"]) else ["time_ordered"])):
        if not isinstance(params[name], (bool, np.bool_)):
            raise InputError(f"{name}: expected True or False, got {params[name]!r}")
    if params["compile"] and params["family"] == "contractive":
        raise InputError(
            "compile: torch.compile cannot differentiate the penalty of family 'contractive'; leave it out"
        )
    _check_seed(params["random_state"])
    pick_device(params["device"])
    _check_ignored(params, defaults)


def check_widths(value: Any, name: str = "hidden") -> None:
    """Check `hidden` or `strides`: "auto", one whole number, or several.

    Raises:
        InputError: something else.
    """
    if isinstance(value, str):
        right = value == "auto"
    else:
        widths = np.atleast_1d(value).tolist() if isinstance(value, np.ndarray) else value
        widths = widths if isinstance(widths, Sequence) else (widths,)
        right = all(_is_whole(width) and width > 0 for width in widths)
    if not right:
        raise InputError(f"{name}: expected 'auto' or whole numbers above 0, got {value!r}")


def _check_whole(name: str, value: Any, *, optional: bool) -> None:
    if (optional and value is None) or (isinstance(value, str) and value == "auto"):
        return
    if not _is_whole(value) or value < 1:
        none = ", None" if optional else ""
        raise InputError(f"{name}: expected 'auto'{none} or a whole number of at least 1, got {value!r}")


def _check_split(params: Mapping[str, Any]) -> None:
    share, gap = params["calibration"], params["gap"]
    words = isinstance(share, str) and share in ("auto", CROSS)
    if not words and not (_is_number(share) and 0 <= share <= _MOST_CALIBRATION):
        raise InputError(
            f"calibration: expected 'auto', {CROSS!r} or a share from 0 to {_MOST_CALIBRATION:g}, got {share!r}"
        )
    if not _is_auto(gap) and (not _is_whole(gap) or gap < 0):
        raise InputError(f"gap: expected 'auto' or a whole number of rows from 0, got {gap!r}")


def _check_rates(params: Mapping[str, Any]) -> None:
    rate, decay, clip = params["learning_rate"], params["weight_decay"], params["gradient_clip"]
    if not _is_auto(rate) and not (_is_number(rate) and rate > 0):
        raise InputError(f"learning_rate: expected a number above 0, got {rate!r}")
    if not _is_auto(decay) and not (_is_number(decay) and decay >= 0):
        raise InputError(f"weight_decay: expected a number of at least 0, got {decay!r}")
    if clip is not None and not (_is_number(clip) and clip > 0):
        raise InputError(f"gradient_clip: expected a number above 0, or none, got {clip!r}")


def _check_seed(value: Any) -> None:
    if value is None or value is np.random or isinstance(value, np.random.RandomState):
        return
    if not _is_whole(value) or not 0 <= value <= _MOST_SEED:
        raise InputError(f"random_state: expected a whole number from 0 to {_MOST_SEED}, got {value!r}")


def _check_ignored(params: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """No parameter may be set that the family does not use."""
    family = params["family"]
    for name, owners in _OWNERS.items():
        if family not in owners and not _same(params[name], defaults[name]):
            those = " or ".join(map(repr, owners))
            raise InputError(f"{name}: only family {those} uses it, this is {family!r}; pass family={those}")
    for name in _UNUSED.get(family, ()):
        if not (_same(params[name], defaults[name]) or _same(params[name], _NOTHING.get(name))):
            raise InputError(f"{name}: family {family!r} does not use it, got {params[name]!r}; leave it out")
    for name in ("encoder", "decoder") if family == CUSTOM else ():
        if params[name] is not None and not isinstance(params[name], nn.Module):
            raise InputError(f"{name}: expected a torch module, got {type(params[name]).__name__}")


def _same(value: Any, other: Any) -> bool:
    if value is None or other is None or isinstance(value, nn.Module):
        return value is other
    return bool(np.array_equal(value, other))


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """A finite real number."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return number and math.isfinite(value)
