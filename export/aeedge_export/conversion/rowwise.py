"""Whether what a module makes of a row depends on that row alone: not on chance, earlier calls, or the other rows.

A graph computes every row by itself, the same each time. A module that does not is refused in torch, before anything is
converted, and the message names the first layer that gives something else.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.module import register_module_forward_hook

from aeedge.bundle.manifest import Tolerance
from aeedge.errors import InputError
from aeedge_export.conversion.graph import RawDecoder, RawEncoder
from aeedge_export.conversion.messages import first_line, own_name

_RESULTS = {"encoder": "latents", "decoder": "reconstruction"}
_ROUNDING = 1e-5  # relative: threads may sum in another order from call to call
_ALIKE = 1e-3  # relative: layers are told apart from rounding only to name the first that differs


def check_repeatable(role: str, module: nn.Module, fresh: nn.Module, rows: Tensor, others: Tensor) -> None:
    """The same rows must give the same when they are asked for again, also after other rows.

    Args:
        role: "encoder" or "decoder".
        module: in evaluation mode; called before.
        fresh: a copy that was not called yet.
        rows, others: inputs (n, ...).

    Raises:
        InputError: they do not: random numbers are drawn, or something of earlier calls is kept.
    """
    first = _output(role, module, rows)
    allowed = Tolerance(rtol=_ROUNDING, atol=_ROUNDING * _rms(first))
    for one, between in ((module, rows[:0]), (module, others), (fresh, others)):
        before = _state(one)
        for _ in range(3 * min(1, len(between))):
            _output(role, one, between)
        if found := _difference(first, _output(role, one, rows), allowed):
            when = "after other rows" if len(between) else "from one call to the next"
            raise InputError(
                f"{role}: expected the same {_RESULTS[role]} for the same rows, but row {found.row} differs by "
                f"{found.error:.2g} {when}: {_why_changed(role, one, rows, before)}"
            )


def _why_changed(role: str, module: nn.Module, rows: Tensor, before: dict[tuple[str, str], Any]) -> str:
    """Why a module gives something else when it is asked again, and what to do."""
    state = _what_changed(module, before)
    drawn = _draws(lambda: _output(role, module, rows))
    if state and not drawn:
        return f"forward changes {state}; let it do so only while training (if self.training)"
    layer = _first_different(_layers(role, module, [rows]), _layers(role, module, [rows]), len(rows))
    where = "" if layer is None else f" in {label(module, layer)}"
    if not drawn:
        return f"something of earlier calls is kept, or random numbers are drawn{where}; only the row itself may count"
    if layer is not None and layer not in set(module.modules()):
        return (
            f"random numbers are drawn{where}, which eval() does not reach; make it an attribute or use nn.ModuleList"
        )
    return (
        f"random numbers are drawn{where}, also in evaluation mode; return the mean instead of a sample, drop only "
        "while training (functional.dropout(x, p, self.training))"
    )


def check_independent(role: str, module: nn.Module, rows: Tensor, others: Tensor, allowed: Tolerance) -> None:
    """A row must give the same whatever the other rows of its batch are, and by itself.

    Args:
        role: "encoder" or "decoder".
        module: in evaluation mode.
        rows: inputs (n, ...).
        others: what they share a batch with.
        allowed: how much rounding may change.

    Raises:
        InputError: it does not, or fails on a single row.
    """
    batch, what = torch.cat([rows, others]), _RESULTS[role]
    whole = _shaped(role, module, batch, None)
    for size in (len(rows), 1):
        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        found = torch.cat([_shaped(role, module, part, whole.shape[1:]) for part in parts])
        if different := _difference(whole[: len(rows)], found, allowed):
            layer = _first_different(_layers(role, module, [batch]), _layers(role, module, parts), len(rows))
            where = "" if layer is None else f", first in {label(module, layer)}"
            advice = "no mean, softmax, sort or branch may go over the batch (axis 0)"
            if isinstance(layer, _NormBase):
                advice = "give it running statistics (track_running_stats=True)"
            raise InputError(
                f"{role}: expected each row's {what} to depend on that row alone, but row {different.row} changes by "
                f"{different.error:.2g} with the other rows of its batch{where}; {advice}"
            )


def _shaped(role: str, module: nn.Module, rows: Tensor, row: tuple[int, ...] | None) -> Tensor:
    """The output, if it is one result for each row, of a known shape or of any."""
    output = _output(role, module, rows)
    shape = (len(rows), *(output.shape[1:] if row is None else row))
    if output.shape != shape:
        count = "one row" if len(rows) == 1 else f"{len(rows)} rows"
        advice = "no row may be left out"
        if len(rows) == 1:
            advice = "squeeze() without an axis drops that of the batch: use flatten(1)"
        raise InputError(
            f"{role}: expected {_RESULTS[role]} of shape {shape} for {count}, got {tuple(output.shape)}; {advice}"
        )
    return output


class _Difference(NamedTuple):
    row: int
    error: float


def label(root: nn.Module, layer: nn.Module) -> str:
    """How messages call a layer: its name in the caller's module and its class."""
    kind = type(layer).__name__
    for name, found in root.named_modules():
        if found is layer:
            inner = own_name(name) if isinstance(root, (RawEncoder, RawDecoder)) else name
            return f"layer {inner} ({kind})" if inner else f"{kind}.forward"
    return f"a layer {kind}"


def _output(role: str, module: nn.Module, rows: Tensor) -> Tensor:
    try:
        with torch.inference_mode():
            output: Tensor = module(rows.clone())
    except Exception as error:  # whatever the caller's module raises
        count = f"{len(rows)} rows, the example's and some far beyond its range"
        if len(rows) == 1:
            count = "one row, where squeeze() without an axis drops that of the batch"
        raise InputError(f"{role}: failed on {count} ({type(error).__name__}: {first_line(error)})") from error
    return output.clone()


def _difference(expected: Tensor, got: Tensor, allowed: Tolerance) -> _Difference | None:
    """The row that differs most, if any differs by more than is allowed."""
    one, other = (np.asarray(value.double()).reshape(len(value), -1) for value in (expected, got))
    with np.errstate(invalid="ignore"):
        error = np.where((one == other) | (np.isnan(one) & np.isnan(other)), 0.0, np.abs(one - other)).max(axis=1)
    error = np.where(np.isnan(error), np.inf, error)
    magnitude = np.abs(np.where(np.isfinite(one), one, 0.0)).max(axis=1)
    excess = error - allowed.atol - allowed.rtol * magnitude
    row = int(np.argmax(excess))
    return _Difference(row, float(error[row])) if excess[row] > 0 else None


def _rms(values: Tensor) -> float:
    finite = values[torch.isfinite(values)].double()
    return float(finite.square().mean().sqrt()) if len(finite) else 0.0


def _draws(call: Callable[[], Any]) -> bool:
    """Whether a call draws from torch's, numpy's or Python's random numbers."""

    def states() -> tuple[bytes, str, Any]:
        return bytes(torch.get_rng_state()), repr(np.random.get_state()), random.getstate()  # noqa: NPY002

    before = states()
    call()
    return states() != before


def _layers(role: str, module: nn.Module, batches: list[Tensor]) -> list[list[tuple[nn.Module, Tensor]]]:
    """For each batch the layers in the order in which they end, and their outputs."""
    found: list[list[tuple[nn.Module, Tensor]]] = []

    def keep(layer: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            found[-1].append((layer, output.detach().clone()))

    handle = register_module_forward_hook(keep)
    try:
        for batch in batches:
            found.append([])
            _output(role, module, batch)
    finally:
        handle.remove()
    return found


def _first_different(
    whole: list[list[tuple[nn.Module, Tensor]]], parts: list[list[tuple[nn.Module, Tensor]]], rows: int
) -> nn.Module | None:
    """The first layer that gives something else for the rows in one batch than in parts; None where none is seen to."""
    layer: nn.Module
    for (layer, output), *others in zip(whole[0], *parts):
        if any(other is not layer for other, _ in others):
            return None
        values = [value for _, value in others]
        if not output.ndim or any(not value.ndim or value.shape[1:] != output.shape[1:] for value in values):
            continue
        joined = torch.cat(values)
        if len(joined) == rows and len(output) >= rows and not output.is_complex():
            expected = output[:rows]
            if _difference(expected, joined, Tolerance(rtol=_ALIKE, atol=_ALIKE * _rms(expected.double()))):
                return layer
    return None


def _state(module: nn.Module) -> dict[tuple[str, str], Any]:
    """Tensors, numbers and lengths that the layers hold, by layer and name."""
    found: dict[tuple[str, str], Any] = {}
    for layer, one in module.named_modules():
        held = {**one.__dict__, **one._buffers, **one._parameters}
        for name, value in held.items():
            if isinstance(value, Tensor) and not value.is_meta:
                found[layer, name] = value.detach().clone()
            elif isinstance(value, (bool, int, float, str)) or value is None:
                found[layer, name] = value
            elif isinstance(value, (list, dict, set)) and not name.startswith("_"):
                found[layer, name] = len(value)
    return found


def _what_changed(module: nn.Module, before: dict[tuple[str, str], Any]) -> str | None:
    """The first thing that the layers hold which is not what it was."""
    for key, value in _state(module).items():
        old = before.get(key)
        same = (
            torch.equal(value, old)
            if isinstance(value, Tensor) and isinstance(old, Tensor)
            else value is old or (type(value) is type(old) and not isinstance(value, Tensor) and value == old)
        )
        if not same:
            layer = dict(module.named_modules())[key[0]]
            return f"{key[1]!r} of {label(module, layer).removesuffix('.forward')}"
    return None
