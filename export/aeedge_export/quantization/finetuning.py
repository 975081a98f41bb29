"""Quantisation-aware fine-tuning: the last resort, a few epochs with rounding in the forward pass.

Weights and inputs of every dense and convolutional layer are rounded in the forward pass and left alone in the
backward pass (straight-through estimator: Jacob et al. 2018, https://arxiv.org/abs/1712.05877). The loss is
the difference of latents and reconstructions from fp32; the weights with the smallest loss are kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from aeedge_export.quantization.affine import quantized_weight

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_EPOCHS, _BATCH, _RATE = 40, 64, 1e-3


class _RoundedWeight(nn.Module):
    """s8, symmetric, a scale for each output channel, as the exported graph will have them."""

    def forward(self, weight: Tensor) -> Tensor:
        scale = torch.from_numpy(quantized_weight(weight.detach().numpy(), 0)[1])
        zero = torch.zeros_like(scale, dtype=torch.int32)
        rounded: Tensor = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)
        return rounded


def finetuned(
    encoder: nn.Module, decoder: nn.Module | None, rows: NDArray[Any], scale: NDArray[np.float32]
) -> tuple[nn.Module, nn.Module | None]:
    """Copies of encoder and decoder (raw rows in and out) whose weights lose less by rounding.

    Args:
        encoder, decoder: fp32, in evaluation mode; left alone.
        rows: raw rows (n, *shape).
        scale: what reconstruction errors are divided by, in raw units.
    """
    torch.manual_seed(0)
    teachers = [encoder] + ([decoder] if decoder is not None else [])
    students = [copy.deepcopy(teacher) for teacher in teachers]
    x, per = torch.from_numpy(np.ascontiguousarray(rows)), torch.from_numpy(np.asarray(scale, np.float32))
    with torch.inference_mode():
        targets = _outputs(teachers, x)
    weights = [w for student in students for w in _layer_weights(student)]
    if not weights:
        return students[0], students[1] if decoder is not None else None
    targets = [target.clone() for target in targets]  # no longer inference tensors

    def batches() -> Iterator[Tensor]:
        for part in torch.split(torch.randperm(len(x)), _BATCH):
            yield _loss(_outputs(students, x[part]), [target[part] for target in targets], per)

    with _rounding(students, x):
        follow(weights, batches, lambda: _whole_loss(students, x, targets, per), epochs=_EPOCHS, rate=_RATE)
    return students[0].eval(), students[1].eval() if decoder is not None else None


def follow(
    weights: list[nn.Parameter],
    batches: Callable[[], Iterator[Tensor]],
    whole: Callable[[], float],
    *,
    epochs: int,
    rate: float,
) -> None:
    """Train weights by Adam with a falling rate, and keep those with the smallest loss after an epoch.

    Args:
        weights: changed in place.
        batches: gives the losses of the batches of an epoch.
        whole: the loss by which weights are kept.
        epochs: number of epochs.
        rate: learning rate at the start.
    """
    optimizer = torch.optim.Adam(weights, lr=rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    best, kept = whole(), [w.detach().clone() for w in weights]
    for _ in range(epochs):
        for loss in batches():
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        decay.step()
        if (now := whole()) < best:
            best, kept = now, [w.detach().clone() for w in weights]
    with torch.no_grad():
        for weight, value in zip(weights, kept):
            weight.copy_(value)


def _whole_loss(students: list[nn.Module], x: Tensor, targets: list[Tensor], scale: Tensor) -> float:
    with torch.no_grad():
        return float(_loss(_outputs(students, x), targets, scale))


def _outputs(modules: list[nn.Module], x: Tensor) -> list[Tensor]:
    """Latents, and with a decoder reconstructions."""
    latent = modules[0](x)
    return [latent, *(decoder(latent) for decoder in modules[1:])]


def _loss(got: list[Tensor], wanted: list[Tensor], scale: Tensor) -> Tensor:
    """Relative error of latents, and with a decoder the reconstruction error in scaled units."""
    latent = nn.functional.mse_loss(got[0], wanted[0]) / wanted[0].var().clamp(min=1e-12)
    if len(got) == 1:
        return latent
    return latent + nn.functional.mse_loss(got[1] / scale, wanted[1] / scale)


def _layers(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, LAYERS)]


def _layer_weights(module: nn.Module) -> Iterator[nn.Parameter]:
    for layer in _layers(module):
        for parameter in layer.parameters():
            parameter.requires_grad_(True)
            yield parameter


@contextmanager
def _rounding(students: list[nn.Module], x: Tensor) -> Iterator[None]:
    """Round weights and inputs of all layers; input ranges are those of the unrounded network on all rows."""
    layers = [layer for student in students for layer in _layers(student)]
    reach: dict[int, tuple[float, float]] = {}

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        reach[id(layer)] = min(float(inputs[0].min()), 0.0), max(float(inputs[0].max()), 0.0)

    watching = [layer.register_forward_pre_hook(look) for layer in layers]
    with torch.inference_mode():
        _outputs(students, x)
    for handle in watching:
        handle.remove()

    def rounded(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        low, high = reach[id(layer)]
        step = max((high - low) / 255, 1e-30)
        zero = int(np.clip(round(-low / step), 0, 255))
        return (torch.fake_quantize_per_tensor_affine(inputs[0], step, zero, 0, 255), *inputs[1:])

    hooks = [layer.register_forward_pre_hook(rounded) for layer in layers]
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", _RoundedWeight())
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()
        for layer in layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
