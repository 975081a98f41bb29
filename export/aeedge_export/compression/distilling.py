"""A short training of the smaller network with the original as its teacher."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from aeedge_export.compression.units import EncoderAndDecoder, layers_of, outputs_of
from aeedge_export.quantization.finetuning import follow

_BATCH, _RATE, _STEPS, _MOST_EPOCHS = 64, 1e-3, 2000, 60
_SECONDS = 30.0  # of a training
_LATENT = 20.0  # weight of the latents: their limits are that much tighter than that of the reconstruction error


def gap(student: list[Tensor], teacher: list[Tensor], scale: Tensor, level: Tensor) -> Tensor:
    """How far latents and reconstructions are from the teacher's: latents relative to their variance, reconstructions
    to the teacher's own mean squared error `level`, both in the proportion of the quality limits.
    """
    parts = [_LATENT * nn.functional.mse_loss(student[0], teacher[0]) / teacher[0].var().clamp(min=1e-12)]
    if len(student) > 1:
        parts.append(nn.functional.mse_loss(student[1] / scale, teacher[1] / scale) / level)
    return torch.stack(parts).sum()


@torch.no_grad()
def level_of(teacher: EncoderAndDecoder, rows: Tensor, scale: Tensor) -> Tensor:
    """The teacher's mean squared reconstruction error in scaled units; 1 without a decoder."""
    if teacher.decoder is None:
        return torch.ones(())
    level: Tensor = ((outputs_of(teacher, rows)[1] - rows) / scale).square().mean().clamp(min=1e-12)
    return level


def mixed(rows: Tensor) -> Tensor:
    """Each row mixed with another one, of which it has the smaller share."""
    share = 0.5 * torch.rand(len(rows), *[1] * (rows.ndim - 1))
    return rows + share * (rows[torch.randperm(len(rows))] - rows)


def distil(
    student: EncoderAndDecoder, teacher: EncoderAndDecoder, rows: Tensor, held_out: Tensor, scale: Tensor
) -> None:
    """Train a student, in place, to do what its teacher does, on rows and on mixtures of two of them.

    Mixtures (Zhang et al. 2017, https://arxiv.org/abs/1710.09412) cost nothing, for the teacher says what is right.

    Args:
        student, teacher: in evaluation mode.
        rows: float32 inputs (n, *shape) to train with.
        held_out: other ones, by which the best weights are kept.
        scale: what reconstruction errors are divided by, in raw units.
    """
    weights = list(chain.from_iterable(layer.parameters() for layer in layers_of(student).values()))
    level = level_of(teacher, rows, scale)
    wanted = outputs_of(teacher, held_out)

    def batches() -> Iterator[Tensor]:
        for part in torch.split(torch.randperm(len(rows)), _BATCH):
            x = mixed(rows[part])
            with torch.no_grad():
                target = teacher(x)
            yield gap(student(x), target, scale, level)

    def whole() -> float:
        return float(gap(outputs_of(student, held_out), wanted, scale, level))

    for weight in weights:
        weight.requires_grad_(True)
    steps = min(_STEPS, int(_SECONDS / min(_seconds(batches) for _ in range(3))) + 1)
    rows = rows[: steps * _BATCH]
    epochs = min(max(steps * _BATCH // len(rows), 1), _MOST_EPOCHS)
    follow(weights, batches, whole, epochs=epochs, rate=_RATE)
    for weight in weights:
        weight.requires_grad_(False)


def _seconds(batches: Callable[[], Iterator[Tensor]]) -> float:
    """How long a step takes."""
    began = time.perf_counter()
    next(batches()).backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - began
