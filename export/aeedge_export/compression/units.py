"""Which hidden units and channels of any network can be removed: each is moved, and it is seen what follows.

A unit is all that must go together: outputs of the layers that make it, inputs of the layers that read it, and its
entries in normalisation and depthwise convolutions between them. One channel is moved at a time while every layer
that mixes channels repeats what it gave before, so that only what reads the channel directly is seen to change.
Additions, concatenations, reshapes and gates need no case of their own, and units that an operation between mixes
(attention, LayerNorm, recurrence) come out as one, which cannot be narrowed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

Indices = NDArray[np.intp]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_ROWS = 256  # of a batch, also of that in which each row moves another channel
_VALUES, _LEAST_ROWS = 2**26, 64  # of the inputs of layers that are kept, and of rows that they are of
_SAME = 1e-6  # what rounding changes in a batch of another size
_FAR = 10.0  # how far a channel is moved, as a multiple of the largest output: past the zeros of ReLU


class EncoderAndDecoder(nn.Module):
    """Encoder and decoder as one module: rows to latents and reconstructions (none without a decoder)."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module | None) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, *shape) -> latents, and with a decoder rows (n, *shape)."""
        latent: Tensor = self.encoder(x)
        return [latent] if self.decoder is None else [latent, self.decoder(latent)]


@dataclass
class Group:
    """Units that are alike: removing any of them removes as much of each layer.

    Attributes:
        makes, reads, between: by a layer's name, its outputs, inputs or channels of each unit: (units, each).
    """

    makes: dict[str, Indices] = field(default_factory=dict)
    reads: dict[str, Indices] = field(default_factory=dict)
    between: dict[str, Indices] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of units."""
        return len(next(iter(self.makes.values())))

    @property
    def name(self) -> str:
        """The layers that make the units."""
        return " + ".join(self.makes)


def mixes(layer: nn.Module) -> bool:
    """Whether each output of a layer is a weighted sum of all inputs, with weights that can be sliced."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, (*_CONVOLUTIONS, *_TRANSPOSED)) and layer.groups == 1)


def by_channel(layer: nn.Module) -> bool:
    """Whether a layer has parameters of each channel, and mixes none."""
    if isinstance(layer, (*_CONVOLUTIONS, *_TRANSPOSED)):
        return 1 < layer.groups == layer.in_channels == layer.out_channels
    return isinstance(layer, NORMS) or (isinstance(layer, nn.PReLU) and layer.num_parameters > 1)


def output_axis(layer: nn.Module) -> int:
    """The axis of a mixing layer's weight that belongs to its outputs; the other of the first two is of its inputs."""
    return 1 if isinstance(layer, _TRANSPOSED) else 0


def channels_last(layer: nn.Module, values: Tensor) -> Tensor:
    """An input or output of a layer with its channels as the last axis."""
    return values if isinstance(layer, nn.Linear) else values.movedim(1, -1)


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    """Layers with weights of their own, by name; those that share weights are left out."""
    found = {name: one for name, one in network.named_modules() if mixes(one) or by_channel(one)}
    owners = defaultdict(list)
    for name, one in network.named_modules(remove_duplicate=False):
        for weight in one.parameters(recurse=False):
            owners[id(weight)].append(name)
    shared = {name for names in owners.values() if len(names) > 1 for name in names}
    return {name: one for name, one in found.items() if name not in shared}


@contextmanager
def hooked(layers: dict[str, nn.Module], hook: Callable[[str, Tensor, Tensor], Tensor | None]) -> Iterator[None]:
    """Call `hook(name, input, output)` for each layer; a tensor that it returns takes the place of the output."""

    def called(name: str) -> Callable[..., Any]:
        return lambda layer, inputs, output: hook(name, inputs[0], output)

    handles = [layer.register_forward_hook(called(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def outputs_of(network: nn.Module, rows: Tensor) -> list[Tensor]:
    """What a network of several outputs gives for rows, block by block."""
    return [torch.cat(parts) for parts in zip(*(network(part) for part in torch.split(rows, _ROWS)))]


@torch.no_grad()
def inputs_of(network: nn.Module, layers: dict[str, nn.Module], rows: Tensor) -> dict[str, Tensor]:
    """What layers are given for the first of the rows, as many as there is room for: (n, ..., channels)."""
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    with hooked(layers, lambda name, x, y: found[name].append(channels_last(layers[name], x))):
        network(rows[:1])
        room = _VALUES // max(1, sum(part[0].numel() for part in found.values() if part))
        for part in torch.split(rows[1 : max(room, _LEAST_ROWS)], _ROWS):
            network(part)
    return {name: torch.cat(parts) for name, parts in found.items()}


@torch.no_grad()
def groups_of(network: EncoderAndDecoder, rows: Tensor) -> list[Group]:
    """Groups of hidden units that can be narrowed, in the order of the network.

    Args:
        network: in evaluation mode; left alone.
        rows: two or more inputs (n, *shape).
    """
    layers = layers_of(network)
    clean: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    with hooked(layers, lambda name, x, y: clean[name].append((x.clone(), y.clone()))):
        outputs = [one.clone() for one in network(rows[:1])]
    layers = {name: layer for name, layer in layers.items() if len(clean[name]) == 1}  # the others are called again
    nodes: dict[tuple[str, str, int], int] = {}
    edges: list[tuple[int, int]] = []

    def node(side: str, name: str, index: int) -> int:
        return nodes.setdefault((side, name, index), len(nodes))

    ends = node("output", "", 0)
    for name, layer in layers.items():
        if mixes(layer):
            for index, changed in _moved(network, layers, name, clean, outputs, rows[:1]):
                here = node("makes", name, index)
                edges += [(here, ends if side == "output" else node(side, *place)) for side, *place in changed]
    return _alike(nodes, edges, ends)


def _moved(
    network: EncoderAndDecoder,
    layers: dict[str, nn.Module],
    moved: str,
    clean: dict[str, list[tuple[Tensor, Tensor]]],
    outputs: list[Tensor],
    row: Tensor,
) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    """For each output of a layer, what changes when it is moved: ("reads" or "between", layer, channel), outputs."""
    output = clean[moved][0][1]
    channels = channels_last(layers[moved], output).shape[-1]
    reach = _FAR * float(output.abs().max() + 1)
    for start in range(0, channels, _ROWS):
        part = range(start, min(start + _ROWS, channels))
        watch = _Watch(layers, clean, moved, part)
        for watch.step in (reach, -reach):
            with hooked(layers, watch):
                results = network(row.repeat(len(part), *[1] * (row.ndim - 1)))
            for before, after in zip(outputs, results):
                watch.note("output", "", before.flatten(1), after.flatten(1))
        yield from zip(part, map(list, watch.found))


@dataclass
class _Watch:
    """A hook that moves another output of a layer in each row, and notes what changes in `found`, a set for each row.

    Layers that mix channels give what they gave before.
    """

    layers: dict[str, nn.Module]
    clean: dict[str, list[tuple[Tensor, Tensor]]]
    moved: str
    part: range
    step: float = 0.0

    def __post_init__(self) -> None:
        self.found: list[set[tuple[Any, ...]]] = [set() for _ in self.part]

    def __call__(self, name: str, x: Tensor, y: Tensor) -> Tensor | None:
        layer, (given, gave) = self.layers[name], self.clean[name][0]
        if name != self.moved:
            self.note(
                "reads" if mixes(layer) else "between", name, channels_last(layer, given), channels_last(layer, x)
            )
            return gave.expand(len(x), *gave.shape[1:]).clone() if mixes(layer) else None
        y = gave.repeat(len(self.part), *[1] * (gave.ndim - 1))
        at = torch.arange(len(self.part))
        channels_last(layer, y)[at, ..., at + self.part.start] += self.step
        return y

    def note(self, side: str, name: str, before: Tensor, after: Tensor) -> None:
        axes = tuple(range(1, after.ndim - 1))
        differs = ~((after - before).abs() <= _SAME * (1 + before.abs().max()))  # also where it is NaN
        differs = differs.any(dim=axes) if axes else differs
        for row, channel in differs.nonzero().tolist():
            self.found[row].add((side, name, channel))


def _alike(nodes: dict[tuple[str, str, int], int], edges: list[tuple[int, int]], ends: int) -> list[Group]:
    """Connected parts as units, those of the same layers as a group; without what reaches an output."""
    size = len(nodes)
    start, end = np.array(edges, np.intp).reshape(-1, 2).T
    part_of = connected_components(coo_matrix((np.ones(len(edges)), (start, end)), (size, size)), directed=False)[1]
    units: dict[int, dict[tuple[str, str], list[int]]] = defaultdict(lambda: defaultdict(list))
    for (side, name, index), number in nodes.items():
        if part_of[number] != part_of[ends]:
            units[part_of[number]][side, name].append(index)
    groups: dict[Any, list[dict[tuple[str, str], list[int]]]] = defaultdict(list)
    for unit in units.values():
        groups[tuple(sorted((*key, len(indices)) for key, indices in unit.items()))].append(unit)
    found = []
    for alike in groups.values():
        sides = {side for side, _ in alike[0]}
        if len(alike) > 1 and {"makes", "reads"} <= sides:
            group = Group()
            for side, name in alike[0]:
                getattr(group, side)[name] = np.array([sorted(unit[side, name]) for unit in alike])
            found.append(group)
    return found
