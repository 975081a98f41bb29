"""One run from beginning to end: a plan in, a result document out (docs/reference/json-outputs.md)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bench import scenarios
from aeedge.bench.baseline import SCHEMA
from aeedge.bench.compare import PRECISE, compare, half_width
from aeedge.bench.findings import Findings
from aeedge.bench.operators import by_operator
from aeedge.bench.phases import phases
from aeedge.bench.plan import Plan
from aeedge.bench.soak import soak
from aeedge.bench.summary import summarise, too_few, trend
from aeedge.bundle.reader import Bundle
from aeedge.errors import InputError
from aeedge.loading import load
from aeedge.model import Model
from aeedge.system.clock import Clock, reading_cost
from aeedge.system.conditions import Finding
from aeedge.system.fingerprint import fingerprint
from aeedge.system.timing import repeat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aeedge.bench.scenarios import Call, Run

    Rows = NDArray[Any]

LOADS = 5  # a scenario's time is divided among this many loads of the bundle
_PROCESSES, _PROCESS_SECONDS = 3, 1.0
_CURVE = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_CURVE_SECONDS = 0.15
SINGLES = 256  # distinct single samples, used in rotation
LARGEST = 2**26  # values of input that are kept in memory: 256 MiB of float32


class Measurement:
    """A run in progress: its document grows part by part, so that Ctrl-C keeps what was measured.

    Args:
        plan: what to measure.
        rows: raw rows to use, shape (n, *row); None for the bundle's reference inputs.
        progress: called with a few words on what comes next.
        clock: what times are read from; tests pass a simulated one.

    Raises:
        BundleError: the bundle cannot be used here, or lacks what the plan needs.
        VerificationError: it does not reproduce its reference outputs, so it is not measured.
        InputError: an argument that does not fit.
    """

    def __init__(
        self,
        plan: Plan,
        rows: Rows | None = None,
        progress: Callable[[str], None] = lambda text: None,
        clock: Clock | None = None,
    ) -> None:
        self.plan, self._progress, self._clock = plan, progress, clock or Clock()
        progress("checking the bundle")
        with load(plan.path, variant=plan.variant, threads=plan.threads, check="golden") as model:
            self._variant, self._threads = model.variant, model.threads
            self._rows = _rows(model, plan, rows)
            getattr(model, plan.method)(self._rows[:1])  # a bundle without decoder is refused here
            self.document = _opening(plan, model, self._clock)
        self._findings = Findings(self._clock)
        self._settle()

    def run(self) -> dict[str, Any]:
        """Measure everything in the plan; after Ctrl-C the status is "interrupted"."""
        try:
            if not self.plan.quick:
                self._progress(f"phases, in {_PROCESSES} fresh processes")
                with self._findings.watched("phases"):
                    self.document["phases"] = self._phases()
            for name in self.plan.scenarios:
                self._scenario(name)
            if self.plan.rate is not None:
                self._fixed_rate(self.plan.rate)
            if not self.plan.quick:
                self._progress("batch sizes")
                with self._findings.watched("batches"):
                    self._curve()
            if self.plan.profile:
                self._progress("profile")
                plan = self.plan._replace(variant=self._variant)
                self.document["profile"] = by_operator(plan, self._rows, self._clock)
            if self.plan.soak is not None:
                self._soak(self.plan.soak)
        except KeyboardInterrupt:
            self.document["interrupted"] = True
        return self._settle()

    def compare(self, other: Plan) -> dict[str, Any]:
        """Compare with another bundle, call by call in turn: single samples, and up to 1 024 rows per call.

        Raises:
            BundleError, VerificationError, InputError: the other cannot be used, or takes other rows.
        """
        self._progress(f"checking {other.path}")
        with load(other.path, variant=other.variant, threads=other.threads, check="golden") as model:
            given = model.latent_shape if self.plan.method == "decode" else model.input.shape
            if given != self._rows.shape[1:] or model.input.dtype != self.document["bundle"]["input_dtype"]:
                raise InputError(
                    f"{other.path}: expected a bundle that takes {self._rows.shape[1:]} "
                    f"{self.document['bundle']['input_dtype']} as {self.plan.path} does, "
                    f"got {given} {model.input.dtype}; such bundles cannot be compared"
                )
            about = {"path": other.path, "id": model.manifest.id, "variant": model.variant}
        self.document["compared_with"] = about
        self.document["comparison"] = []
        try:
            for rows in (1, min(1024, len(self._rows))):
                self._progress(f"comparing, {rows} row{'s' * (rows > 1)} per call")
                queries = self._singles() if rows == 1 else [self._rows[:rows]]
                with self._findings.watched("comparison"):
                    found = compare(
                        lambda: self._opened(self.plan),
                        lambda: self._opened(other),
                        queries,
                        rows,
                        self.plan.seconds,
                        self._clock,
                    )
                self.document["comparison"].append(found._asdict() | {"ratio": found.ratio._asdict()})
                if (width := half_width(found.ratio)) > PRECISE:
                    text = f"differences below {width:.0%} are not found at {rows} rows per call"
                    self._findings.add("comparison", Finding("warning", "noise", text))
        except KeyboardInterrupt:
            self.document["interrupted"] = True
        return self._settle()

    def _phases(self) -> dict[str, Any]:
        return phases(self.plan.path, self._variant, self._threads, self.plan.method, _PROCESSES, _PROCESS_SECONDS)

    @contextmanager
    def _opened(self, plan: Plan) -> Iterator[Call]:
        with load(plan.path, variant=plan.variant, threads=plan.threads, check="size") as model:
            yield getattr(model, plan.method)

    def _scenario(self, name: str) -> None:
        self._progress(f"{name}, {self.plan.seconds:g} s")
        runs: list[Run] = []
        reference = []
        with self._findings.watched(name), suppress(KeyboardInterrupt):
            while len(runs) < LOADS:
                reference.append(reference_workload(self._clock))
                with self._opened(self.plan) as call:
                    runs.append(self._one(name, call, self.plan.seconds / LOADS))
                if runs[-1].interrupted:
                    break
        self._keep(name, runs, {"reference_us": reference}, interrupted=len(runs) < LOADS or runs[-1].interrupted)

    def _one(self, name: str, call: Call, seconds: float) -> Run:
        if name == "Offline":
            call(self._rows)
            return scenarios.offline(call, self._rows, seconds, self._clock)
        rows = 1 if name == "SingleStream" else scenarios.MULTISTREAM_ROWS
        queries = self._singles() if rows == 1 else [self._rows[i : i + rows] for i in range(0, SINGLES, rows)]
        self._warm_up(call, queries, min(0.1, seconds / 10))
        return scenarios.back_to_back(call, queries, rows, seconds, self._clock)

    def _fixed_rate(self, rate: float) -> None:
        self._progress(f"{rate:g} queries per second, {self.plan.seconds:g} s")
        deadline = self.plan.deadline or 1 / rate
        with self._opened(self.plan) as call, self._findings.watched("FixedRate"):
            self._warm_up(call, self._singles(), 0.1)
            run = scenarios.fixed_rate(call, self._singles(), rate, self.plan.seconds, self._clock)
        late = int((run.latencies > deadline * 1e9).sum())
        extra = {
            "rate_requested": rate,
            "rate_achieved": len(run.latencies) / max(run.seconds, 1e-9),
            "deadline_us": deadline * 1e6,
            "start_delay_p50_us": float(np.median(run.delays)) / 1e3 if len(run.delays) else None,
            "queries_due": run.due,
            "unserved": run.unserved,
            "deadline_misses": late + run.unserved,
        }
        if run.unserved > 0.01 * run.due:
            text = (
                f"the rate of {rate:g}/s was not reached: {extra['rate_achieved']:.0f}/s were served, and "
                f"{run.unserved} of {run.due} queries were not answered at the end; use a lower --rate"
            )
            self._findings.add("FixedRate", Finding("invalid", "rate", text))
        self._keep("FixedRate", [run], extra, run.interrupted)

    def _warm_up(self, call: Call, queries: list[Rows], seconds: float) -> None:
        if scenarios.back_to_back(call, queries, 1, seconds, self._clock).interrupted:
            raise KeyboardInterrupt

    def _keep(self, name: str, runs: list[Run], extra: dict[str, Any], interrupted: bool) -> None:
        """Put a scenario into the document, with the findings on its numbers."""
        if not any(len(run.latencies) for run in runs):
            raise KeyboardInterrupt  # stopped before the first answer
        latencies = np.concatenate([run.latencies for run in runs])
        if (latencies < 0).any():
            self._findings.add(name, Finding("invalid", "clock", "the clock was set back during the run; run again"))
        self.document["scenarios"][name] = summarise(name, runs) | extra
        problems = [trend(name, latencies)] + ([] if interrupted else [too_few(name, len(latencies))])
        for problem in filter(None, problems):
            self._findings.add(name, problem)
        if interrupted:
            raise KeyboardInterrupt

    def _curve(self) -> None:
        sizes = [size for size in _CURVE if size <= len(self._rows)]
        self.document["batches"] = []
        with self._opened(self.plan) as call:
            for size in sizes:
                call(self._rows[:size])
                run = scenarios.back_to_back(call, [self._rows[:size]], size, _CURVE_SECONDS, self._clock)
                us = float(np.median(run.latencies)) / 1e3
                self.document["batches"].append({"rows": size, "us": us, "rows_per_second": size / us * 1e6})
                if run.interrupted:
                    raise KeyboardInterrupt

    def _soak(self, seconds: float) -> None:
        self._progress(f"soak, {seconds:g} s (Ctrl-C keeps what was measured)")
        with self._opened(self.plan) as call, self._findings.watched("soak"):
            found, interrupted = soak(call, self._singles(), seconds, self._clock, self._progress)
        self.document["soak"] = found
        if (drift := found["drift"]) is not None and abs(drift - 1) > 0.05:
            text = f"the median latency at the end was {drift:.2f} times that at the start"
            self._findings.add("soak", Finding("warning", "drift", text))
        if interrupted:
            raise KeyboardInterrupt

    def _singles(self) -> list[Rows]:
        return list(self._rows[:SINGLES])

    def _settle(self) -> dict[str, Any]:
        """Bring findings and status up to date."""
        self.document["findings"] = self._findings.document()
        if self._findings.is_invalid():
            self.document["status"] = "invalid"
        else:
            self.document["status"] = "interrupted" if self.document["interrupted"] else "valid"
        return self.document


def reference_workload(clock: Clock) -> float:
    """Microseconds of a fixed amount of numpy and Python work: the speed of the machine at this moment."""
    square = np.full((64, 64), 1 / 64, np.float32)

    def work(square: Rows) -> None:
        for _ in range(8):
            np.tanh(square @ square)

    return float(np.median(repeat(work, [square], least_calls=60, clock=clock))) / 1e3


def _opening(plan: Plan, model: Model, clock: Clock) -> dict[str, Any]:
    m = model.manifest
    bundle = {
        "path": plan.path,
        "name": m.name,
        "id": m.id,
        "family": m.family,
        "variant": model.variant,
        "input_shape": list(m.input.shape),
        "input_dtype": m.input.dtype,
        "latent_size": m.latent,
        "latent_shape": list(m.latent_shape),
    }
    return {
        "schema": SCHEMA,
        "status": "interrupted",
        "interrupted": False,
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "bundle": bundle,
        "method": plan.method,
        "threads": model.threads,
        "machine": fingerprint(),
        "clock_cost_ns": reading_cost(clock),
        "findings": [],
        "scenarios": {},
    }


def _rows(model: Model, plan: Plan, given: Rows | None) -> Rows:
    """Enough rows for Offline: the given rows or the reference inputs, repeated."""
    rows = inputs(model, plan.path, plan.method, given)
    count = max(SINGLES, min(scenarios.OFFLINE_ROWS, LARGEST // max(rows[0].size, 1)))
    return np.resize(rows, (count, *rows.shape[1:]))


def inputs(model: Model, path: str, method: str, given: Rows | None = None) -> Rows:
    """What a method takes, C-contiguous, of the graph's dtype: the given rows or the bundle's reference inputs."""
    if given is None:
        bundle = Bundle(path)
        given = bundle.golden(model.variant)[f"{model.variant}.latent" if method == "decode" else "input"]
        bundle.close()
    return np.ascontiguousarray(given, "float32" if method == "decode" else model.input.dtype)
