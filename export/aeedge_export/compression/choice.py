"""Decide how much smaller: the least work within the quality limits, or as much as was asked for.

Half of the calibration rows rank units and train, a sixth chooses among plans, and a third judges the result, which is
all that it has a say in (docs/decisions/0022-compression.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aeedge.detection.scores import Scoring
from aeedge.errors import InputError
from aeedge_export.compression.distilling import distil, mixed
from aeedge_export.compression.path import Path, Plan
from aeedge_export.compression.units import Pair, layers_of, outputs_of
from aeedge_export.quantization.quality_limits import LIMITS, Quality, compare

_MOST_FITTED, _MOST_JUDGED = 8192, 2000
_RANKED = 4096  # rows that units are ranked with, mixtures of two among them
_SECONDS = 180.0  # after which no further plan is trained
_TRIALS = 6  # plans of a path
_CLOSE = 0.03  # shares of the multiply-adds that are not told apart
_MARGIN = 0.9  # of what the limits allow, for choosing: the judging rows differ
_JUDGED = 3  # plans, at most
_OF_LATENTS = ("cosine", "neighbours")

Progress = Callable[[str], None]


class NotCompressibleError(Exception):
    """No smaller network is within the quality limits, or none as small as was asked for; the message says why."""


@dataclass(frozen=True)
class Compressed:
    """A smaller network.

    Attributes:
        encoder, decoder: raw rows in and out, as those that were given.
        quality: against the original on the judging rows.
        work: multiply-adds for one row, before and after.
        layers: what became of each layer: graph, layer, inputs and outputs before and after, and rank if it was split.
        rows: how many calibration rows there were, and how many of them judged.
    """

    encoder: nn.Module
    decoder: nn.Module | None
    quality: Quality
    work: tuple[int, int]
    layers: list[dict[str, Any]]
    rows: tuple[int, int]


def share_of(compress: str | float) -> float | None:
    """The share of the multiply-adds that may stay; None for "auto".

    Raises:
        InputError: neither.
    """
    if compress == "auto":
        return None
    try:
        share = float(compress) if isinstance(compress, str | float) else np.nan
    except ValueError:
        share = np.nan
    if not 0 < share < 1:
        raise InputError(
            "compress: expected 'auto', or the share of the multiply-adds that may stay, between 0 and 1 such as 0.5, "
            f"got {compress!r:.40}"
        )
    return share


def limits_of(max_error_ratio: float | None) -> Quality:
    """The quality limits, with another error ratio if there is one.

    Raises:
        InputError: not a number of 1 or more.
    """
    if max_error_ratio is None:
        return LIMITS
    number = isinstance(max_error_ratio, int | float) and not isinstance(max_error_ratio, bool)
    if not number or not 1 < max_error_ratio < np.inf:
        raise InputError(
            f"max_error_ratio: expected a number above 1 such as 1.05, for 5 % more error, got {max_error_ratio!r:.40}"
        )
    return replace(LIMITS, error_ratio=float(max_error_ratio))


def tightened(limits: Quality, part: float) -> Quality:
    """Limits that allow a part of what others do."""
    return Quality(**{name: 1 + (limit - 1) * part for name, limit in limits.numbers().items()})


def compressed(
    encoder: nn.Module,
    decoder: nn.Module | None,
    rows: NDArray[Any],
    scale: NDArray[np.float32],
    share: float | None = None,
    limits: Quality = LIMITS,
    scoring: Scoring | None = None,
    on_progress: Progress | None = None,
) -> Compressed:
    """A network that does with less work what another does.

    Args:
        encoder, decoder: raw rows in and out, frozen; left alone.
        rows: raw rows (n, *shape) to choose, train and judge with; they are shuffled before the split.
        scale: what reconstruction errors are divided by, in raw units.
        share: of the multiply-adds that may stay; None for as few as the limits allow.
        limits: of the result, against the original.
        scoring: how samples are scored; None for the mean squared reconstruction error.
        on_progress: called with a line before each plan is tried.

    Raises:
        NotCompressibleError: nothing can be removed, or not so much within the limits.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _Search(Pair(encoder, decoder), rows, scale, limits, scoring, on_progress).run(share)


@dataclass
class _Trial:
    plan: Plan
    share: float
    network: Pair
    failures: list[str]


@dataclass
class _Search:
    original: Pair
    raw: NDArray[Any]
    scale: NDArray[np.float32]
    limits: Quality
    scoring: Scoring | None
    on_progress: Progress | None
    trials: list[_Trial] = field(default_factory=list)

    def __post_init__(self) -> None:
        order = np.random.default_rng(0).permutation(len(self.raw))
        *others, judged = np.array_split(order, 3)  # int8 judges by the same rows
        fitted, chosen = np.split(np.concatenate(others), [len(order) // 2])
        parts = fitted[:_MOST_FITTED], chosen[:_MOST_JUDGED], judged[:_MOST_JUDGED]
        self.fitting, self.choosing, self.judging = (torch.from_numpy(self.raw[p].astype(np.float32)) for p in parts)
        self.per = torch.from_numpy(np.asarray(self.scale, np.float32))
        self.strict = tightened(self.limits, _MARGIN)
        self.deadline = time.monotonic() + _SECONDS
        self._say("looking for hidden units that can go")
        more = [mixed(self.fitting) for _ in range(_RANKED // len(self.fitting))]
        self.path = Path(self.original, torch.cat([self.fitting, *more]), self.choosing, self.per)

    def run(self, share: float | None) -> Compressed:
        plans = self.path.plans(self.path.whole)
        if len(plans) == 1:
            kinds = sorted({type(layer).__name__ for layer in layers_of(self.original).values()})
            raise NotCompressibleError(
                f"there are no hidden units that could be removed (layers with weights: {', '.join(kinds) or 'none'}); "
                "what can be narrowed are outputs of linear and convolutional layers that only such layers read"
            )
        if share is None:
            return self._judged(self._furthest(plans))
        return self._as_small_as(share, plans)

    def _as_small_as(self, share: float, plans: Sequence[Plan]) -> Compressed:
        found = next((plan for plan in plans if self.path.share(plan) <= share), None)
        if found is None:
            raise NotCompressibleError(
                f"{share:g} of the multiply-adds was asked for, what can be removed leaves "
                f"{self.path.share(plans[-1]):.2f}"
            )
        trial = self._trial(found)
        failures = self._quality(trial.network, self.judging).failures(self.limits)
        if not failures:
            return self._result(trial)
        try:
            before, after = self._judged(self._furthest(plans)).work
            allowed = f"within the limits is {after / before:.2f}"
        except NotCompressibleError:
            allowed = "no smaller network is within the limits"
        raise NotCompressibleError(
            f"{share:g} of the multiply-adds was asked for, and with that {'; '.join(failures)}; "
            f"{allowed}{self._advice(failures)}"
        )

    def _furthest(self, plans: Sequence[Plan]) -> list[_Trial]:
        """Trials within the limits on the choosing rows, the smallest network first."""
        best, broken = self._bisected(plans)
        start = self.path.whole if best is None else best.plan
        if broken is not None and self.original.decoder is not None:  # one side may go further than the other
            of_latents = [one.startswith(_OF_LATENTS) for one in broken.failures]
            if all(of_latents) or not any(of_latents):
                self._bisected(self.path.plans(start, encoder=not any(of_latents), decoder=any(of_latents)))
        return sorted((one for one in self.trials if not one.failures), key=lambda one: one.share)

    def _bisected(self, plans: Sequence[Plan]) -> tuple[_Trial | None, _Trial | None]:
        """The smallest trial within the limits, and the largest that is not."""
        shares = [self.path.share(plan) for plan in plans]
        low, high = 0, len(plans)  # the plan at `low` is within the limits
        best = broken = None
        for _ in range(_TRIALS):
            between = range(low + 1, high)
            if not between or time.monotonic() > self.deadline:
                break
            end = shares[high] if high < len(plans) else shares[-1]
            if broken is not None and shares[low] - end < _CLOSE:
                break
            middle = min(between, key=lambda i: abs(shares[i] - (shares[low] + end) / 2))
            trial = self._trial(plans[middle])
            if trial.failures:
                high, broken = middle, trial
            else:
                low, best = middle, trial
        return best, broken

    def _trial(self, plan: Plan) -> _Trial:
        share, network = self.path.share(plan), self.path.build(plan)
        failures = self._quality(network, self.choosing).failures(self.strict)
        if failures:
            distil(network, self.original, self.fitting, self.choosing, self.per)
            failures = self._quality(network, self.choosing).failures(self.strict)
        self._say(f"{share:.0%} of the multiply-adds: {'; '.join(failures) or 'within the limits'}")
        trial = _Trial(plan, share, network, failures)
        self.trials.append(trial)
        return trial

    def _judged(self, trials: Sequence[_Trial]) -> Compressed:
        """The first of a few trials that is within the limits on rows that had no say in it."""
        failures: list[str] = []
        for trial in trials[:_JUDGED]:
            failures = self._quality(trial.network, self.judging).failures(self.limits)
            if not failures:
                return self._result(trial)
        if not failures:
            nearest = max(self.trials, key=lambda one: one.share)
            trial, failures = nearest, nearest.failures
        raise NotCompressibleError(
            f"no smaller network is within the quality limits: with {trial.share:.2f} of the multiply-adds "
            f"{'; '.join(failures)}{self._advice(failures)}"
        )

    def _advice(self, failures: Sequence[str]) -> str:
        if any(one.startswith(_OF_LATENTS) for one in failures):
            return (
                "; latents must stay as they are whatever error ratio is allowed (max_error_ratio): where they need "
                "not, train a narrower network"
            )
        return (
            "; allow more error (max_error_ratio), calibrate with rows that the training did not see, on which errors "
            "are as on a device, or train a narrower network"
        )

    @torch.no_grad()
    def _outputs(self, network: Pair, rows: Tensor) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]:
        """Latents, reconstruction errors and scores."""
        found = outputs_of(network, rows)
        latent, back = found[0].numpy(), found[1].numpy() if len(found) > 1 else None
        errors = None
        if back is not None:
            errors = np.square((back - rows.numpy()) / self.scale).reshape(len(rows), -1).mean(axis=1)
        scores = None if self.scoring is None else self.scoring.scores(rows.numpy(), latent, back)
        return latent, errors, scores

    def _quality(self, network: Pair, rows: Tensor) -> Quality:
        pairs = list(zip(self._outputs(self.original, rows), self._outputs(network, rows)))
        latents, *others = (None if one is None or other is None else (one, other) for one, other in pairs)
        assert latents is not None
        return compare(latents, *others)

    def _result(self, trial: _Trial) -> Compressed:
        path, layers = self.path, []
        for name in path.layers:
            before, after = path.sizes(name, path.whole), path.sizes(name, trial.plan)
            rank = path.ranks(trial.plan).get(name)
            if before != after or rank is not None:
                graph, _, layer = name.partition(".")
                layer = layer.removeprefix(f"{graph}.")
                note = {
                    "graph": graph,
                    "layer": layer,
                    "inputs": [before[0], after[0]],
                    "outputs": [before[1], after[1]],
                }
                layers.append(note | ({} if rank is None else {"rank": rank}))
        return Compressed(
            encoder=trial.network.encoder,
            decoder=trial.network.decoder,
            quality=self._quality(trial.network, self.judging),
            work=(path.work, round(trial.share * path.work)),
            layers=layers,
            rows=(len(self.raw), len(self.judging)),
        )

    def _say(self, line: str) -> None:
        if self.on_progress is not None:
            self.on_progress(line)
