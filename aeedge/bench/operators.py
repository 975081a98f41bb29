"""Profile: time per operator of the graphs, of the whole run, and of the whole call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from aeedge.bench import scenarios
from aeedge.bench.plan import Plan
from aeedge.bundle.reader import Bundle
from aeedge.loading import load
from aeedge.runtime.session import profile
from aeedge.system.clock import Clock

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROLES = {"encode": ["encoder"], "decode": ["decoder"]}
_CALLS = {1: 500, 1024: 30}  # rows per run: number of runs that are profiled
_SECONDS = 0.2


def by_operator(plan: Plan, rows: NDArray[Any], clock: Clock) -> dict[str, Any]:
    """Profile the graphs that the plan's method runs, at one row and at many; `rows` are what the method takes."""
    bundle = Bundle(plan.path)
    operators, totals = [], []
    with load(plan.path, variant=plan.variant, threads=1, check="size") as model:
        latents = rows if plan.method == "decode" else model.encode(rows[: max(_CALLS)])
        for count, calls in _CALLS.items():
            queries = list(rows[:256]) if count == 1 else [rows[:count]]
            called = scenarios.back_to_back(getattr(model, plan.method), queries, count, _SECONDS, clock)
            if called.interrupted:
                raise KeyboardInterrupt
            total = {"rows": count, "operators_us": 0.0, "run_us": 0.0}
            for role in _ROLES.get(plan.method, ["encoder", "decoder"]):
                given = rows if role == "encoder" else latents
                found, whole = profile(bundle.graph(role, plan.variant), given[:count], calls)
                operators += [
                    {"rows": count, "graph": role, "name": name, "op_type": op_type, "us": us}
                    for name, op_type, us in found
                ]
                total["operators_us"] += sum(us for _, _, us in found)
                total["run_us"] += whole
            totals.append(total | {"call_us": float(np.median(called.latencies)) / 1e3})
    return {"operators": operators, "totals": totals}
