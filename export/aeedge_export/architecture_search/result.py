"""What a search found: points, their front, the best one, and everything that a page shows of it."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from aeedge.bundle.manifest import Manifest
from aeedge.bundle.reader import Bundle
from aeedge.errors import InputError
from aeedge.files.atomic import atomic_directory, atomic_file
from aeedge.files.replacing import BUNDLE
from aeedge_export.architecture_search.budget import Budget, Cost, human_time
from aeedge_export.architecture_search.halving import non_dominated
from aeedge_export.architecture_search.measuring import failures
from aeedge_export.architecture_search.page import front_svg, render
from aeedge_export.architecture_search.session import Session
from aeedge_export.architecture_search.space import Candidate
from aeedge_export.autoencoder import Autoencoder
from aeedge_export.quantization.quality_limits import rank_correlation
from aeedge_export.versions import versions

BEST = "best.aeedge"
_NOISE = (0.0, 0.03, 0.0, 0.05)  # of loss, latency, size and memory: smaller differences do not make a front
_WITHOUT_BUDGET = 0.01  # how much worse than the best loss the cheapest network may be, where nothing was asked


@dataclass(frozen=True)
class Point:
    """A finished network in one variant.

    Attributes:
        name: of its bundle.
        trial: of its candidate, whose run it is.
        family, hidden, latent: of the network.
        variant: "fp32" or "int8".
        loss: on the selecting rows: mean squared error in scaled units, 1 - ROC AUC, or 1 - accuracy.
        judged: the same on the judging rows.
        latency_us, rate, size, memory, macs: see `Cost`.
        on_front: whether no other point has as little of loss, latency, size and memory, and less of one.
        meets: whether it meets the budget.
    """

    name: str
    trial: str
    family: str
    hidden: tuple[int, ...]
    latent: int
    variant: str
    loss: float
    judged: float
    latency_us: float
    rate: float
    size: int
    memory: int | None
    macs: int
    on_front: bool = False
    meets: bool = True

    @property
    def cost(self) -> Cost:
        """What it costs."""
        return Cost(self.latency_us, self.rate, self.size, self.memory, self.macs)


@dataclass(frozen=True)
class Search:
    """A finished search, or as much of one as the time allowed.

    Attributes:
        directory: with `runs`, `bundles`, the best bundle and the state.
        objective: "error", "auc" or "probe".
        budget: what a network may cost.
        max_error_vs_best: how much worse than the best loss the best point may be; None for as good as possible.
        points: the finished networks in their variants, by latency.
        best: the point that was asked for; None where there is none.
        nearest: where there is no best point, a sentence that says why, and which point comes nearest; else empty.
        curve: dicts with "latent", "error" and "probe" (None without labels), from one network with ordered latents;
            empty for one number of latents, or where the time was too short.
        stopped: "done", or "time" or "interrupted" where candidates are left.
        notes: findings about the data, the candidates and the measurement, in sentences.
    """

    directory: Path
    objective: str
    budget: Budget
    max_error_vs_best: float | None
    points: list[Point]
    best: Point | None
    nearest: str
    curve: list[dict[str, Any]]
    stopped: str
    notes: list[str]
    details: dict[str, Any] = field(repr=False)
    temporary: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, session: Session, max_error_vs_best: float | None, temporary: tempfile.TemporaryDirectory[str] | None
    ) -> Search:
        """The result of a session."""
        points = _points(session)
        objective, budget = session.judge.parts.objective, session.budget
        tolerance = max_error_vs_best
        if tolerance is None and budget.unlimited:
            tolerance = _WITHOUT_BUDGET
        best, nearest = _choose(points, budget, tolerance, objective, session)
        return cls(
            session.directory,
            objective,
            budget,
            tolerance,
            points,
            best,
            nearest,
            session.state.curve,
            session.stopped,
            list(dict.fromkeys(session.notes)),
            _details(session),
            temporary,
        )

    @property
    def front(self) -> list[Point]:
        """The points that no other one beats, by latency."""
        return [point for point in self.points if point.on_front]

    @property
    def smallest_latent(self) -> int | None:
        """The smallest number of latents whose error in `curve` is within the tolerance (5 % without one)."""
        if not self.curve:
            return None
        tolerance = 0.05 if self.max_error_vs_best is None else self.max_error_vs_best
        within = within_tolerance("error", [one["error"] for one in self.curve], tolerance)
        return int(min(one["latent"] for one, good in zip(self.curve, within) if good))

    def point(self, name: str) -> Point:
        """The point of a name.

        Raises:
            InputError: there is none.
        """
        found = next((point for point in self.points if point.name == name), None)
        if found is None:
            raise InputError(
                f"name: expected one of {', '.join(p.name for p in self.points) or 'no points'}, got {name!r}"
            )
        return found

    def estimator(self, point: Point) -> Autoencoder:
        """The trained estimator of a point."""
        return Autoencoder.load(self.directory / "runs" / point.trial)

    def export(self, point: Point, path: str | Path, *, overwrite: bool = False) -> Manifest:
        """Copy the bundle of a point, as it was measured and judged.

        Raises:
            InputError: `path` exists, or cannot be written.
        """
        with atomic_directory(path, overwrite=overwrite, kinds=[BUNDLE]) as part:
            shutil.copytree(self.directory / "bundles" / f"{point.name}.aeedge", part, dirs_exist_ok=True)
        return Bundle(str(path)).manifest

    def write(self) -> None:
        """Write page, picture and `best.aeedge`; remove that of an earlier session where there is no best point."""
        summary = self.summary()
        for name, text in (("report.html", render(summary)), ("front.svg", front_svg(summary))):
            with atomic_file(self.directory / name, overwrite=True) as part:
                part.write_text(text, encoding="utf-8")
        target = self.directory / BEST
        if self.best is not None:
            self.export(self.best, target, overwrite=True)
        elif target.exists():
            shutil.rmtree(target)

    def summary(self) -> dict[str, Any]:
        """Everything as JSON: what `aeedge search --json` prints and the page shows."""
        pca = [point for point in self.points if point.family == "pca" and point.variant == "fp32"]
        reference = max(pca, key=lambda point: point.latent, default=None)
        return {
            "objective": self.objective,
            "budget": asdict(self.budget),
            "max_error_vs_best": self.max_error_vs_best,
            "best": None if self.best is None else self.best.name,
            "nearest": self.nearest or None,
            "reference": None if reference is None else asdict(reference),
            "points": [asdict(point) for point in self.points],
            "curve": self.curve,
            "smallest_latent": self.smallest_latent,
            "stopped": self.stopped,
            "notes": self.notes,
            **self.details,
        }


def within_tolerance(objective: str, losses: list[float], tolerance: float) -> list[bool]:
    """Which losses are near enough to the least: an error by a share, others by a difference."""
    least = min(losses)
    limit = least * (1 + tolerance) if objective == "error" else least + tolerance
    return [loss <= limit for loss in losses]


def _points(session: Session) -> list[Point]:
    found, measured = [], session.finished_costs()
    for candidate, variant in session.finished():
        name = session.bundle(candidate.name, variant).stem
        if name not in measured:
            continue
        cost, known = measured[name], session.trial(candidate).bundles[variant]
        found.append(_point(candidate, name, variant, known, cost, not session.budget.excesses(cost)))
    if not found:
        return []
    values = np.array([[p.loss, p.latency_us, float(p.size), float(p.memory or 0)] for p in found])
    front = non_dominated(values, _NOISE)
    return sorted(
        (replace(point, on_front=bool(on)) for point, on in zip(found, front)), key=lambda point: point.latency_us
    )


def _point(candidate: Candidate, name: str, variant: str, known: dict[str, Any], cost: Cost, meets: bool) -> Point:
    about = (name, candidate.name, candidate.family, candidate.hidden, candidate.latent, variant)
    return Point(*about, known["loss"], known["judged"], **asdict(cost), meets=meets)


def _choose(
    points: list[Point], budget: Budget, tolerance: float | None, objective: str, session: Session
) -> tuple[Point | None, str]:
    """The point that was asked for, or why there is none."""
    if not points and (faults := failures(session.state.measured)):
        name, fault = next(iter(faults.items()))
        return None, f"none of the {len(faults)} bundles could be measured: {name}: {fault}"
    if not points:
        why = "the time ran out" if session.stopped == "time" else "it was interrupted"
        return None, f"{why} before one candidate was trained to the end; go on with more time (resume)"
    meeting = [point for point in points if point.meets]
    if not meeting:
        nearest = min(points, key=lambda point: max(budget.excesses(point.cost).values()))
        return None, (
            f"no network meets the budget; the nearest is {nearest.name} with {budget.excess_described(nearest.cost)}"
        )
    if tolerance is None:
        return min(meeting, key=lambda point: (point.loss, budget.pressing(point.cost))), ""
    within = within_tolerance(objective, [point.loss for point in points], tolerance)
    good = [point for point, near in zip(points, within) if near and point.meets]
    if good:
        return min(good, key=lambda point: budget.pressing(point.cost)), ""
    nearest = min(meeting, key=lambda point: point.loss)
    least = min(points, key=lambda point: point.loss)
    return None, (
        f"no network meets the budget ({budget.described()}) and is within {tolerance:g} of the best loss "
        f"({least.loss:.4g}, {least.name}, {human_time(least.latency_us)}); the nearest within the budget is "
        f"{nearest.name} with {nearest.loss:.4g}"
    )


def _details(session: Session) -> dict[str, Any]:
    """What is to know of how it was done."""
    parts, state = session.judge.parts, session.state
    document = state.measured
    noises = [value for one in document.get("bundles", ()) for value in one.get("noise", {}).values()]
    noise = [value for value in noises if value is not None]  # None after a single round
    trials = []
    for candidate in session.candidates:
        trial = session.trial(candidate)
        trials.append(
            {
                "name": trial.name,
                "rung": max(trial.losses, default=None),
                "loss": trial.losses[max(trial.losses)] if trial.losses else None,
                "seconds": round(trial.seconds, 2),
                "fate": _fate(session, candidate),
            }
        )
    held = state.selecting
    return {
        "rows": {
            "training": len(parts.fitted) - held,
            "selection": held,
            "judging": len(parts.judging),
            "anomalous": [len(part) for part in parts.anomalous],
            "what": "rows" if session.known.get("signal") is None else "windows",
        },
        "measured": {
            "where": document.get("where"),
            "machine": document.get("machine"),
            "status": document.get("status"),
            "method": session.method,
            "threads": session.threads,
            "latency_at": session.budget.latency_at,
            "rate_at": session.budget.rate_at,
            "noise": float(np.median(noise)) if noise else None,
            "rank_agreement": _rank_agreement(session),
        },
        "trials": trials,
        "data": state.settings["data"],
        "random_state": state.settings["random_state"],
        "variants": list(session.variants),
        "seconds": round(state.seconds, 1),
        "time_limit": session.time_limit,
        "versions": versions(),
    }


def _rank_agreement(session: Session) -> float | None:
    """Spearman's correlation of the latencies of a given measurement with those of the search; None without."""
    if session.measured is None:
        return None
    here = {c.name: cost for c, _ in session.finished() if (cost := session.trial(c).cost) is not None}
    there = session.finished_costs()
    pairs = [(there[name].latency_us, cost.latency_us) for name, cost in here.items() if name in there]
    return rank_correlation(*zip(*pairs)) if len(pairs) > 2 else None


def _fate(session: Session, candidate: Candidate) -> str:
    """What became of a candidate."""
    trial = session.trial(candidate)
    if trial.fault:
        return f"failed: {trial.fault}"
    if trial.bundles:
        return "trained"
    if candidate.name in session.over_budget:
        return f"over budget: {session.over_budget[candidate.name]}"
    if not trial.losses:
        return "not reached"
    return "dropped"
