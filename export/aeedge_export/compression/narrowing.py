"""Remove hidden units: which, and what the layers that read them get instead.

The units that stay are chosen by a pivoted QR factorisation of the activations on calibration rows, each weighted with
the weights that read it; what the others contributed is added, as a combination of those that stay, to the weights of
the reading layers (interpolative decomposition: Chee et al. 2022, https://arxiv.org/abs/2108.00065). Units that are
dead, constant, copies or sums of others go without any error, which ranking units one by one cannot see.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aeedge_export.compression.units import (
    EncoderAndDecoder,
    Group,
    Indices,
    groups_of,
    inputs_of,
    layers_of,
    mixes,
    output_axis,
)

Doubles = NDArray[np.float64]

_SAMPLES = 4096  # of activations, that units are chosen by
_RIDGE = 1e-7  # of the mean square of activations
_TOLERANCE = 1e-3  # between a network without units and one where nothing reads them, relative to its outputs


@dataclass
class Ranking:
    """The units of a group, the most important first, and activations to replace the others by them.

    Attributes:
        group: of units.
        order: of units (units,).
        left: what of the group's weighted activations is not reproduced by so many units: (units,), relative, falling.
        products: by reading layer, inner products of activations (units, units).
        means: by reading layer, mean activations (units,); none where a mean cannot go into its bias.
    """

    group: Group
    order: Indices
    left: Doubles
    products: dict[str, Doubles]
    means: dict[str, Doubles]


@torch.no_grad()
def rankings(network: EncoderAndDecoder, rows: Tensor) -> list[Ranking]:
    """Rank the units of each group that can be narrowed.

    Args:
        network: in evaluation mode; left alone.
        rows: inputs (n, *shape) whose activations are to be kept.
    """
    groups = [group for group in groups_of(network, rows[:2]) if _removable(network, group, rows[:8])]
    wanted = {name: layer for name, layer in layers_of(network).items() if any(name in one.reads for one in groups)}
    inputs = inputs_of(network, wanted, rows[:_SAMPLES])
    return [_ranking(wanted, group, inputs) for group in groups]


def _ranking(layers: Mapping[str, nn.Module], group: Group, inputs: Mapping[str, Tensor]) -> Ranking:
    rng, products, means, stacked = np.random.default_rng(0), {}, {}, []
    strength = np.zeros(group.size)
    for name, reads in group.reads.items():
        values = inputs[name].flatten(0, -2).numpy()
        picked = rng.permutation(len(values))[: max(1, _SAMPLES // reads.shape[1])]
        read = np.moveaxis(values[picked][:, reads].astype(np.float64), 1, 2).reshape(-1, group.size)
        if _takes_mean(layers[name], reads):
            means[name] = read.mean(axis=0)
            read = read - means[name]
        products[name] = read.T @ read / len(read)
        weight = _by_input(layers[name])[:, reads].astype(np.float64)
        strength += np.square(weight).sum(axis=(0, *range(2, weight.ndim)))
        stacked.append(read)
    every = np.concatenate(stacked) * np.sqrt(strength)
    _, triangle, order = scipy.linalg.qr(every, mode="economic", pivoting=True)
    size = np.square(np.diag(triangle))
    size = np.concatenate([size, np.zeros(group.size - len(size))])
    left = 1 - np.cumsum(size) / max(size.sum(), 1e-300)
    return Ranking(group, order, left, products, means)


def _takes_mean(layer: nn.Module, reads: Indices) -> bool:
    """Whether a constant in place of an input is the same as another bias: not where zeros are added at borders."""
    if layer.bias is None:
        return False
    return isinstance(layer, nn.Linear)


def _by_input(layer: nn.Module) -> NDArray[Any]:
    """A mixing layer's weight as (outputs, inputs, ...)."""
    weight: NDArray[Any] = layer.weight.detach().numpy()  # type: ignore[operator]
    return weight.swapaxes(0, output_axis(layer))


@torch.no_grad()
def narrowed(network: EncoderAndDecoder, widths: Sequence[tuple[Ranking, int]]) -> EncoderAndDecoder:
    """A copy that keeps the first units of each ranking."""
    kept = [(one, np.sort(one.order[:width]), np.sort(one.order[width:])) for one, width in widths]
    made = copy.deepcopy(network)
    layers = layers_of(made)
    for one, stays, goes in kept:
        for name, reads in one.group.reads.items():
            _take_over(layers[name], reads[stays], reads[goes], *_combination(one, name, stays, goes))
    return _without(made, [(one.group, stays) for one, stays, _ in kept])


def _combination(ranking: Ranking, name: str, stays: Indices, goes: Indices) -> tuple[Doubles, Doubles]:
    """The units that go as combinations (stay, go) of those that stay, and what is left of their means (go,)."""
    products = ranking.products[name]
    inner = products[np.ix_(stays, stays)]
    ridge = _RIDGE * max(float(np.trace(inner)) / len(stays), 1e-300) * np.eye(len(stays))
    mix = scipy.linalg.solve(inner + ridge, products[np.ix_(stays, goes)], assume_a="pos")
    means = ranking.means.get(name, np.zeros(len(products)))
    return mix, means[goes] - means[stays] @ mix


def _take_over(layer: nn.Module, stays: Indices, goes: Indices, mix: Doubles, offset: Doubles) -> None:
    """Let the inputs that stay do what those that go did, on average."""
    weight = _by_input(layer)
    lost = weight[:, goes].astype(np.float64)  # (outputs, go, each, ...)
    weight[:, stays] += np.einsum("og...,sg->os...", lost, mix).astype(np.float32)
    if layer.bias is not None and offset.any():
        layer.bias += torch.from_numpy(np.einsum("oge,g->o", lost, offset).astype(np.float32))  # type: ignore[operator]


@torch.no_grad()
def _without(network: EncoderAndDecoder, kept: Sequence[tuple[Group, Indices]]) -> EncoderAndDecoder:
    """Slice the weights of a network, which is changed, so that units other than the kept ones are gone."""
    layers = layers_of(network)
    outputs: dict[str, list[tuple[Indices, Indices]]] = {}
    inputs: dict[str, list[tuple[Indices, Indices]]] = {}
    for group, stays in kept:
        for side, found in ((group.makes, outputs), (group.between, outputs), (group.reads, inputs)):
            for name, indices in side.items():
                found.setdefault(name, []).append((indices, indices[stays]))
    for name, parts in outputs.items():
        _slice(layers[name], _left(layers[name], parts, outputs=True), outputs=True)
    for name, parts in inputs.items():
        _slice(layers[name], _left(layers[name], parts, outputs=False), outputs=False)
    for part in network.modules():
        if isinstance(part, nn.Unflatten) and isinstance(part.unflattened_size, tuple | list):
            part.unflattened_size = (-1, *part.unflattened_size[1:])
    return network


def _left(layer: nn.Module, parts: Sequence[tuple[Indices, Indices]], *, outputs: bool) -> Tensor:
    """Channels of a layer that stay."""
    stays = np.ones(_count(layer, outputs=outputs), bool)
    for every, kept in parts:
        stays[every] = False
        stays[kept] = True
    return torch.from_numpy(np.flatnonzero(stays))


def _count(layer: nn.Module, *, outputs: bool) -> int:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    if not mixes(layer):
        return len(layer.running_mean) if hasattr(layer, "running_mean") else len(weight)  # type: ignore[arg-type]
    return weight.shape[output_axis(layer) if outputs else 1 - output_axis(layer)]


def _slice(layer: nn.Module, stays: Tensor, *, outputs: bool) -> None:
    """Keep some outputs (or channels), or some inputs of a layer."""
    tensors = dict(layer.named_parameters(recurse=False)) | dict(layer.named_buffers(recurse=False))
    for name, tensor in tensors.items():
        if not tensor.ndim or not (outputs or name == "weight"):
            continue
        axis = (output_axis(layer) if outputs else 1 - output_axis(layer)) if mixes(layer) and name == "weight" else 0
        part = tensor.index_select(axis, stays).clone()
        if name in layer._parameters:
            part = nn.Parameter(part, requires_grad=False)
        setattr(layer, name, part)
    kinds = ["out_features", "out_channels", "num_features", "num_parameters"] if outputs else []
    kinds += ["in_features", "in_channels"] if not outputs else [] if mixes(layer) else ["in_channels", "groups"]
    for kind in kinds:
        if hasattr(layer, kind):
            setattr(layer, kind, len(stays))


def _removable(network: EncoderAndDecoder, group: Group, rows: Tensor) -> bool:
    """Whether the network without some units does what it does when nothing reads them, whichever they are."""
    some = np.random.default_rng(0).permutation(group.size)[: -(-group.size // 2)]
    return all(_same_without(network, group, np.sort(stays), rows) for stays in (some, np.arange(1, group.size)))


def _same_without(network: EncoderAndDecoder, group: Group, stays: Indices, rows: Tensor) -> bool:
    blind = copy.deepcopy(network)
    for name, reads in group.reads.items():
        layer = layers_of(blind)[name]
        _by_input(layer)[:, np.delete(reads, stays, axis=0)] = 0.0
    try:
        wanted, got = blind(rows), _without(copy.deepcopy(network), [(group, stays)])(rows)
    except Exception:  # whatever a module raises whose code holds the number of units
        return False
    return all(
        a.shape == b.shape and float((a - b).abs().max()) <= _TOLERANCE * float(a.abs().max() + 1e-30)
        for a, b in zip(wanted, got)
    )
