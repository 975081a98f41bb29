"""Copies of a caller's modules, which may hold what Python cannot copy."""

from __future__ import annotations

import copy
import traceback
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from aeedge.errors import InputError


def copied(module: nn.Module, name: str = "") -> nn.Module:
    """A deep copy. Tensors that were computed become constants; locks, files and the like are shared.

    Args:
        module: is not changed.
        name: of the module in messages, ahead of the names of its weights.

    Raises:
        InputError: weights that have no values or are not finite, or a module that cannot be copied.
    """
    _check_weights(module, name)
    shared: dict[int, Any] = {}
    while True:
        try:
            with _ComputedAsConstants():
                return copy.deepcopy(module, dict(shared))
        except Exception as error:  # whatever the attributes of a module raise
            part = _uncopyable(error)
            if isinstance(part, (nn.Module, nn.Parameter)) or isinstance(error, (RecursionError, MemoryError)):
                kind = type(part).__name__
                raise InputError(
                    f"{name or 'module'}: expected a module that can be copied, but {kind} raises "
                    f"{type(error).__name__}: {error}"
                ) from error
            shared[id(part)] = part


class _ComputedAsConstants(TorchFunctionMode):
    """Lets results of a computation be copied, which torch refuses."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))


def _uncopyable(error: Exception) -> Any:
    """What deepcopy was at when it failed."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [frame.f_locals["x"] for frame in frames if frame.f_code is copy.deepcopy.__code__][-1]


def _check_weights(module: nn.Module, name: str) -> None:
    parameters, buffers = dict(module.named_parameters(prefix=name)), dict(module.named_buffers(prefix=name))
    for place, weight in (parameters | buffers).items():
        if is_lazy(weight):
            raise InputError(f"{place}: expected initialised weights, got a lazy layer; call the module once with rows")
        if weight.is_meta:
            raise InputError(f"{place}: expected weights with values, got the device 'meta'; load the weights first")
        values = weight.detach()
        bad = ~torch.isfinite(values) if place in parameters else torch.isnan(values)  # a mask may hold infinity
        if bad.any():
            raise InputError(
                f"{place}: expected finite weights, got {float(values[bad][0])} in {int(bad.sum())} of {bad.numel()} "
                "values; the training diverged: repeat it with a lower learning rate, or use an earlier checkpoint"
            )
