"""One session of a search: trains, exports and measures until all is done or the time is up; the state is on disk."""

from __future__ import annotations

import contextlib
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aeedge.errors import AeedgeError, InputError
from aeedge_export.architecture_search.budget import Budget, Cost
from aeedge_export.architecture_search.halving import SHARES, kept, planned
from aeedge_export.architecture_search.judging import Judge
from aeedge_export.architecture_search.latent_curve import latent_curve
from aeedge_export.architecture_search.measuring import costs, failures, measure
from aeedge_export.architecture_search.space import Candidate
from aeedge_export.architecture_search.state import State, Trial
from aeedge_export.autoencoder import Autoencoder
from aeedge_export.networks.base import multiply_adds

Progress = Callable[[int, int, str, "float | None"], None]

RUNS, BUNDLES = "runs", "bundles"
_ENDS = (0.35, 0.6, 1.0)  # shares of the time limit by which rungs end, finished or not
_LAST = len(SHARES) - 1
_QUICK, _THOROUGH = 0.1, 0.5  # seconds of measuring for each bundle and number of samples: first rung, finished ones
_CHILD = 1.5  # seconds that a bundle takes beside
_INT8_GAIN = 4.0  # how much faster int8 may be than what was measured of fp32
_NEAREST = 3  # candidates that go on where none meets the budget
_INT8_ROWS = 3000


class _OutOfTimeError(Exception):
    """The time limit ended a training."""


@dataclass
class Session:
    """Everything that a session works on.

    Attributes:
        judge: rows and what they are for.
        state: progress, changed in place and saved after each training.
        candidates: what is tried.
        directory: for runs, bundles and state.
        params: of every Autoencoder.
        known: what else is known of the rows, as in `Autoencoder.fit_rows`.
        budget, time_limit, remote, threads: see `search`.
        measured: a document of `aeedge bench --batch` that replaces measuring; None to measure.
        on_progress: see `search`.
        stopped: why it ended: "done", "time" or "interrupted".
        over_budget: candidates that were dropped because they cost too much, and what they cost.
        notes: findings about the data and the candidates, in sentences.
    """

    judge: Judge
    state: State
    candidates: Sequence[Candidate]
    directory: Path
    params: Mapping[str, Any]
    known: Mapping[str, Any]
    budget: Budget
    time_limit: float
    remote: str | None = None
    threads: int | str = "auto"
    measured: dict[str, Any] | None = None
    on_progress: Progress | None = None
    stopped: str = "done"
    over_budget: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._began, self._before = time.monotonic(), self.state.seconds
        parts = self.judge.parts
        self._X = self.judge.X[parts.fitted]
        self._work, self._worked = 0.0, 0.0  # in trainings to the end
        self._trainings, self._planned = 0, 0
        self._per_bundle = _CHILD  # seconds that measuring a bundle takes beside its calls
        self._ids: dict[str, str] = {}
        for candidate in self.candidates:
            trial = self.state.trials.setdefault(candidate.name, Trial(candidate.name))
            if trial.cost is None:  # what is measured is gone
                trial.losses.clear()

    @property
    def method(self) -> str:
        """What is timed."""
        return str(self.state.settings["method"])

    @property
    def variants(self) -> tuple[str, ...]:
        """What is exported."""
        return tuple(self.state.settings["variants"])

    def trial(self, candidate: Candidate) -> Trial:
        """What is known of a candidate."""
        return self.state.trials[candidate.name]

    def run(self) -> None:
        """Train and measure; sets `stopped`. Ctrl-C ends it as the time limit does."""
        try:
            self._search()
        except _OutOfTimeError:
            self.stopped = "time"
        except KeyboardInterrupt:
            self.stopped = "interrupted"
        finally:
            self._save()
            shutil.rmtree(self.directory / "unfinished", ignore_errors=True)
        if self.measured is not None:
            self.state.measured = self.measured
        elif self._unmeasured():
            self._measure_finished()
        self._save()

    def _search(self) -> None:
        going = [self.candidates[i] for i in np.random.default_rng(0).permutation(len(self.candidates))]
        for rung in range(len(SHARES)):  # in any order, so that what is reached in time is a sample
            left = planned(len(going), rung)
            self._work = self._worked + sum(share * count for share, count in zip(SHARES[rung:], left))
            self._planned = self._trainings + sum(left)
            done = self._rung(going, rung)
            if rung == 0:
                self._measure_first(done)
                done = self._affordable(done)
            faults = [fault for trial in map(self.trial, going) if (fault := trial.fault)]
            if len(faults) == len(going):
                raise InputError(f"no candidate can be trained: {faults[0]}")
            if not done:
                return
            if rung < _LAST:
                going = [done[i] for i in kept(self._values(done, rung))]
        if len({candidate.latent for candidate in self.candidates}) > 1 and not self.state.curve:
            self._say("error against the number of latents")
            with self._quietly():
                self.state.curve = latent_curve(
                    self.judge, self._X, self.candidates, self.params, self.known, lambda _: self._check_time(1.0)
                )

    def _rung(self, going: Sequence[Candidate], rung: int) -> list[Candidate]:
        """Train candidates for this rung's share of the epochs; those that were reached in time."""
        done = []
        try:
            for candidate in going:
                trial = self.trial(candidate)
                if not trial.fault and not self._is_done(trial, rung):
                    self._check_time(_ENDS[rung])
                    self._say(f"training {candidate.name}, stage {rung + 1} of {len(SHARES)}")
                    self._train(candidate, rung)
                self._worked += SHARES[rung]
                self._trainings += 1
                if not trial.fault:
                    done.append(candidate)
        except _OutOfTimeError:
            self.stopped = "time"
        return done

    def _is_done(self, trial: Trial, rung: int) -> bool:
        return bool(trial.bundles) if rung == _LAST else rung in trial.losses

    def _train(self, candidate: Candidate, rung: int) -> None:
        trial, began = self.trial(candidate), time.monotonic()
        ae = Autoencoder(**self.params, **candidate.params)
        try:
            with self._quietly():
                known, ends = dict(self.known), _ENDS[rung]
                ae.fit_rows(self._X, **known, share_of_epochs=SHARES[rung], on_epoch=lambda _: self._check_time(ends))
                if ae.stopped_ == "interrupted":
                    raise KeyboardInterrupt
                self._export(ae, trial, rung)
        except AeedgeError as error:
            trial.fault = str(error)
        self.notes.extend(note for note in getattr(ae, "notes_", ()) if note not in self.notes)
        trial.seconds += time.monotonic() - began
        self._save()

    def _export(self, ae: Autoencoder, trial: Trial, rung: int) -> None:
        """Export and judge; of the last rung run and bundles are kept."""
        run = ae.run_
        trial.macs = multiply_adds(run.network, decode=self.method != "encode")
        self.state.selecting = len(self.judge.selection(run))
        if not self.state.selecting:
            raise InputError(
                "X: expected rows of which some can be held out, got too few; give more, or validation=0.1"
            )
        if rung < _LAST:
            bundle = self.directory / "unfinished" / f"{trial.name}.aeedge"
            bundle.parent.mkdir(exist_ok=True)
            self._ids[trial.name] = ae.export(bundle, overwrite=True).id
            trial.losses[rung] = self.judge.losses(bundle, run)[0]
            return
        found: dict[str, dict[str, Any]] = {}
        for variant in self.variants:
            bundle = self.bundle(trial.name, variant)
            bundle.parent.mkdir(exist_ok=True)
            wanted = ("fp32",) if variant == "fp32" else ("int8", "fp32")
            try:
                manifest = ae.export(bundle, variants=wanted, calibration=self._int8_rows(ae, variant), overwrite=True)
            except InputError as error:
                if variant == "fp32":
                    raise
                self.notes.append(f"{trial.name}: no int8: {error}")
                continue
            if variant not in manifest.variants:
                shutil.rmtree(bundle)
                continue
            loss, judged = self.judge.losses(bundle, run)
            found[variant] = {"id": manifest.id, "loss": loss, "judged": judged}
        ae.save(self.run_folder(trial.name), overwrite=True)
        trial.bundles = found
        trial.losses[rung] = min((one["loss"] for one in found.values()), default=np.inf)

    def bundle(self, name: str, variant: str) -> Path:
        """The folder of a finished candidate's bundle."""
        return self.directory / BUNDLES / f"{name}{'' if variant == 'fp32' else '-' + variant}.aeedge"

    def run_folder(self, name: str) -> Path:
        """The folder of a finished candidate's run."""
        folder = self.directory / RUNS
        folder.mkdir(exist_ok=True)
        return folder / name

    def _int8_rows(self, ae: Autoencoder, variant: str) -> NDArray[Any] | None:
        if variant == "fp32":
            return None
        fitted = np.unique(ae.run_.split(len(self._X)).train)
        chosen = np.sort(np.random.default_rng(0).permutation(fitted)[:_INT8_ROWS])
        rows: NDArray[Any] = self._X[chosen]
        return rows

    def _measure_first(self, done: Sequence[Candidate]) -> None:
        """Costs of fp32, which training does not change."""
        new = {trial.name: trial for trial in map(self.trial, done) if trial.cost is None}
        if not new:
            return
        self._say(f"measuring {len(new)} candidates")
        bundles = [self.directory / "unfinished" / f"{name}.aeedge" for name in new]
        began = time.monotonic()
        document = measure(bundles, self.budget, self.method, self.threads, _QUICK, self.remote)
        self._per_bundle = (time.monotonic() - began) / len(bundles)
        macs = {name: trial.macs for name, trial in new.items()}
        found = costs(document, self.budget, macs, {name: self._ids[name] for name in new})
        faults = failures(document)
        for name, trial in new.items():
            trial.cost = found.get(name)
            trial.fault = faults.get(name, "")
        self._save()

    def _affordable(self, done: Sequence[Candidate]) -> list[Candidate]:
        """Candidates that may meet the budget, or the nearest where none does."""
        excess = {}
        for candidate in done:
            cost = self.trial(candidate).cost
            if cost is None:
                continue
            gain = {"latency_us": _INT8_GAIN, "rate": _INT8_GAIN} if "int8" in self.variants else {}
            ratios = [ratio / gain.get(name, 1) for name, ratio in self.budget.excesses(cost).items()]
            excess[candidate.name] = max([ratio for ratio in ratios if ratio > 1], default=0.0)
        least = sorted(excess.values())[:_NEAREST]
        limit = 0.0 if not least or least[0] == 0 else least[-1]
        going = []
        for candidate in done:
            trial = self.trial(candidate)
            if trial.cost is None:
                continue
            if excess[candidate.name] <= limit:
                going.append(candidate)
            else:
                self.over_budget[candidate.name] = self.budget.excess_described(trial.cost)
        return going

    def _values(self, done: Sequence[Candidate], rung: int) -> NDArray[np.float64]:
        """Loss, latency and size of candidates."""
        found = []
        for trial in map(self.trial, done):
            assert trial.cost is not None
            found.append([trial.losses[rung], trial.cost.latency_us, float(trial.cost.size)])
        return np.array(found, np.float64)

    def finished(self) -> list[tuple[Candidate, str]]:
        """Candidates that were trained to the end, and their variants."""
        return [(candidate, variant) for candidate in self.candidates for variant in self.trial(candidate).bundles]

    def finished_costs(self) -> dict[str, Cost]:
        """What was measured of finished bundles, by name."""
        ids, macs = self._finished_ids()
        measured = self.state.measured
        return costs(measured, self.budget, macs, ids) if measured else {}

    def _finished_ids(self) -> tuple[dict[str, str], dict[str, int]]:
        found = [(self.bundle(c.name, variant).stem, self.trial(c), variant) for c, variant in self.finished()]
        return (
            {name: trial.bundles[variant]["id"] for name, trial, variant in found},
            {name: trial.macs for name, trial, _ in found},
        )

    def _unmeasured(self) -> bool:
        """Whether the finished bundles were not all measured, or not as they are to be."""
        ids, _ = self._finished_ids()
        document = self.state.measured
        known = {one["name"]: one["id"] for one in document.get("bundles", ())}
        ats = {self.budget.latency_at, self.budget.rate_at}
        same = document.get("where") == self.where and ats <= set(document.get("at", ()))
        return bool(ids) and not (same and ids.items() <= known.items())

    @property
    def where(self) -> str:
        """Where times are measured, for people."""
        return "this machine" if self.remote is None else f"'{self.remote}'"

    def _measure_finished(self) -> None:
        bundles = [self.bundle(candidate.name, variant) for candidate, variant in self.finished()]
        self._say(f"measuring {len(bundles)} bundles")
        document = measure(bundles, self.budget, self.method, self.threads, _THOROUGH, self.remote)
        self.state.measured = document | {"where": self.where}
        faults = failures(document)
        self.notes.extend(f"{name}: {fault}" for name, fault in faults.items())

    def _check_time(self, share: float) -> None:
        """End what goes on where this share of the time is over, without what measuring takes in the end."""
        count = len(self.finished()) + len(self.variants)
        reserve = min(0.3 * self.time_limit, count * (2 * _THOROUGH + self._per_bundle))
        if time.monotonic() - self._began > share * (self.time_limit - reserve):
            raise _OutOfTimeError

    def _say(self, text: str) -> None:
        if self.on_progress is None:
            return
        spent = time.monotonic() - self._began
        left = self.time_limit - spent
        if self._worked:
            left = min(left, spent / self._worked * (self._work - self._worked))
        self.on_progress(self._trainings, self._planned, text, max(left, 0.0))

    def _save(self) -> None:
        self.state.seconds = self._before + time.monotonic() - self._began
        self.state.save(self.directory)

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        """Findings are kept as notes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
