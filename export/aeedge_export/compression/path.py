"""In which order to narrow and factor: from the whole network on, the step of least harm for the work saved.

Each width and each rank is tried once, alone and without fine-tuning; harms are taken to add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf, prod

import numpy as np
import torch
from torch import Tensor, nn

from aeedge_export.compression.distilling import gap, level_of
from aeedge_export.compression.factors import Basis, bases, factored, largest_that_pays
from aeedge_export.compression.narrowing import Ranking, narrowed, rankings
from aeedge_export.compression.units import NORMS, EncoderAndDecoder, hooked, layers_of, mixes, output_axis

_STEPS, _STEP = 16, 8  # widths of a group, and ranks of a layer, that are tried; multiples of what where there are many
_WIDE, _MANY = 64, 16  # units and channels from which on widths are multiples of 8, which onnxruntime computes best
_LEAST_WEIGHTS = 2**14  # of a layer that is worth an operator more
_NOTHING = 1e-10  # of the activations' squares: units beyond are reproduced by the others
_ROWS, _BASIS_ROWS = 512, 4096  # that harms are measured, and factors found with


@dataclass(frozen=True)
class Plan:
    """A smaller network: `widths` of groups by their position, `ranks` of layers by name."""

    widths: tuple[int, ...]
    ranks: Mapping[str, int] = field(default_factory=dict)


class Path:
    """The possible steps of a network and what they cost.

    Args:
        network: in evaluation mode; left alone.
        rows: float32 inputs (n, *shape) that units are ranked with.
        held_out: other ones, that harms are measured with.
        scale: what reconstruction errors are divided by.

    Attributes:
        rankings: of each group of units that can be narrowed.
        layers: multiply-adds of each linear and convolutional layer for one row, by name.
        whole: the plan that removes nothing.
    """

    def __init__(self, network: EncoderAndDecoder, rows: Tensor, held_out: Tensor, scale: Tensor) -> None:
        self.network, self.rows, self._held_out, self._scale = network, rows, held_out[:_ROWS], scale
        self._layers = layers_of(network)
        self.rankings: list[Ranking] = rankings(network, rows)
        self.layers = _work(network, rows)
        self.whole = Plan(tuple(one.group.size for one in self.rankings))

    @property
    def work(self) -> int:
        """Multiply-adds of the whole network for one row."""
        return sum(self.layers.values())

    def build(self, plan: Plan) -> EncoderAndDecoder:
        """The network of a plan, before it is trained."""
        made = narrowed(self.network, list(zip(self.rankings, plan.widths)))
        ranks = self.ranks(plan)
        if not ranks:
            return made
        found = self._bases if plan.widths == self.whole.widths else bases(made, ranks, self.rows[:_BASIS_ROWS])
        return factored(made, ranks, found)

    def ranks(self, plan: Plan) -> dict[str, int]:
        """The ranks of a plan whose factors are less work than the layer is, which is still worth an operator more."""
        found = {}
        for name, rank in plan.ranks.items():
            inputs, outputs = self.sizes(name, plan)
            if rank * (inputs + outputs) < inputs * outputs >= _LEAST_WEIGHTS:
                found[name] = rank
        return found

    def share(self, plan: Plan) -> float:
        """The share of the multiply-adds that stay."""
        left, ranks = 0.0, self.ranks(plan)
        for name, work in self.layers.items():
            before, after = self.sizes(name, self.whole), self.sizes(name, plan)
            left += work * (ranks[name] * sum(after) if name in ranks else prod(after)) / prod(before)
        return left / max(self.work, 1)

    def sizes(self, name: str, plan: Plan) -> tuple[int, int]:
        """Inputs and outputs of a layer; 1 input for one that mixes no channels."""
        layer = self._layers[name]
        weight: Tensor = layer.weight  # type: ignore[assignment]
        counts = [1, len(weight)]
        if mixes(layer):
            counts = [weight.shape[1 - output_axis(layer)], weight.shape[output_axis(layer)]]
        for one, width in zip(self.rankings, plan.widths):
            gone = one.group.size - width
            for at, sides in ((0, (one.group.reads,)), (1, (one.group.makes, one.group.between))):
                counts[at] -= sum(gone * side[name].shape[1] for side in sides if name in side)
        return counts[0], counts[1]

    def plans(self, start: Plan, *, encoder: bool = True, decoder: bool = True) -> list[Plan]:
        """Plans from `start` on, each smaller than the one before; only of encoder or decoder, if so wanted."""
        plans, sides = [start], ["encoder"] * encoder + ["decoder"] * decoder
        while True:
            harm, share, rates = self._harm(plans[-1]), self.share(plans[-1]), []
            for plan in self._next(plans[-1], sides):
                more, saved = self._harm(plan) - harm, share - self.share(plan)
                if saved > 0 and more < inf:
                    rates.append((more / saved, plan))
            if not rates:
                return plans
            plans.append(min(rates, key=lambda one: one[0])[1])

    def _next(self, plan: Plan, sides: list[str]) -> list[Plan]:
        found = []
        for i, (one, width) in enumerate(zip(self.rankings, plan.widths)):
            smaller = [w for w in self._harms_of_widths[i] if w < width]
            if smaller and one.group.name.split(".")[0] in sides:
                found.append(replace(plan, widths=(*plan.widths[:i], max(smaller), *plan.widths[i + 1 :])))
        for name, harms in self._harms_of_ranks.items():
            inputs, outputs = self.sizes(name, plan)
            most = plan.ranks.get(name, self._paying[name] * inputs * outputs / (inputs + outputs))
            smaller = [rank for rank in harms if rank < most or (rank == most and name not in plan.ranks)]
            if smaller and name.split(".")[0] in sides:
                found.append(replace(plan, ranks={**plan.ranks, name: max(smaller)}))
        return found

    def _harm(self, plan: Plan) -> float:
        narrow = sum(harms[width] for harms, width in zip(self._harms_of_widths, plan.widths))
        return narrow + sum(self._harms_of_ranks[name][rank] for name, rank in plan.ranks.items())

    @cached_property
    def _harms_of_widths(self) -> list[dict[int, float]]:
        """For each group the harm of each width alone, the widest first."""
        found = []
        for i, one in enumerate(self.rankings):
            exact, step = int((one.left > _NOTHING).sum()) + 1, self._step(one)
            exact = min(-(-exact // step) * step, one.group.size)
            widths = sorted({*_sizes(one.group.size, step), exact}, reverse=True)
            plans = [
                replace(self.whole, widths=(*self.whole.widths[:i], w, *self.whole.widths[i + 1 :])) for w in widths
            ]
            found.append(dict(zip(widths, self._rising(plans))))
        return found

    def _step(self, ranking: Ranking) -> int:
        """What widths are multiples of; convolutions of other numbers of channels are slower than of more."""
        dense = all(isinstance(self._layers[name], nn.Linear) for name in (*ranking.group.makes, *ranking.group.reads))
        return _STEP if ranking.group.size >= (_WIDE if dense else _MANY) else 1

    @cached_property
    def _harms_of_ranks(self) -> dict[str, dict[int, float]]:
        """For each linear layer that two factors may replace, the harm of each rank alone, the largest first."""
        found = {}
        for name, part in self._paying.items():
            inputs, outputs = self.sizes(name, self.whole)
            ranks = [rank for rank in _ranks(inputs, outputs) if rank <= part * inputs * outputs / (inputs + outputs)]
            plans = [replace(self.whole, ranks={name: rank}) for rank in reversed(ranks)]
            found[name] = dict(zip(reversed(ranks), self._rising(plans)))
        return found

    @cached_property
    def _paying(self) -> dict[str, float]:
        """Linear layers that two factors do faster, and with which part of the multiply-adds at most, as measured."""
        found = {}
        for name, layer in self._layers.items():
            if isinstance(layer, nn.Linear) and name in self.layers:
                inputs, outputs = layer.in_features, layer.out_features
                worth = inputs * outputs >= _LEAST_WEIGHTS
                rank = largest_that_pays(inputs, outputs, _ranks(inputs, outputs)) if worth else 0
                if rank:
                    found[name] = rank * (inputs + outputs) / (inputs * outputs)
        return found

    @cached_property
    def _bases(self) -> dict[str, Basis]:
        return bases(self.network, self._paying, self.rows[:_BASIS_ROWS])

    def _rising(self, plans: list[Plan]) -> list[float]:
        return [float(harm) for harm in np.maximum.accumulate([self._alone(plan) for plan in plans])]

    @torch.no_grad()
    def _alone(self, plan: Plan) -> float:
        rows = self._held_out
        try:
            made = self.build(plan)(rows)
        except Exception:  # code of a module that uses the weights of a layer that is now two
            return inf
        return float(gap(made, self.network(rows), self._scale, level_of(self.network, rows, self._scale)))


def _sizes(most: int, step: int) -> list[int]:
    """Widths or ranks to try, the largest first."""
    return sorted(
        {max(step, round(most * i / _STEPS / step) * step) for i in range(1, _STEPS + 1)} | {most}, reverse=True
    )


def _ranks(inputs: int, outputs: int) -> list[int]:
    """Ranks to try, rising, each with less work than the whole matrix."""
    most = inputs * outputs // (inputs + outputs)
    return sorted(
        rank for rank in _sizes(most, _STEP if most >= _WIDE else 1) if rank * (inputs + outputs) < inputs * outputs
    )


@torch.no_grad()
def _work(network: EncoderAndDecoder, rows: Tensor) -> dict[str, int]:
    """Multiply-adds of each linear and convolutional layer for one row."""
    found: dict[str, int] = {}

    def count(name: str, x: Tensor, y: Tensor) -> None:
        layer = layers[name]
        weight: Tensor = layer.weight  # type: ignore[assignment]
        each = x if mixes(layer) and output_axis(layer) == 1 else y  # an element of it takes a row of weights
        found[name] = found.get(name, 0) + each.numel() * weight[0].numel()

    layers = {name: layer for name, layer in layers_of(network).items() if not isinstance(layer, (*NORMS, nn.PReLU))}
    with hooked(layers, count):
        network(rows[:1])
    return found
