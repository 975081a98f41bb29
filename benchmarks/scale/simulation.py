"""Does the plan survive slow nodes, nodes that fail, and a driver that is busy? A simulation of parts on a cluster.

Each core takes the next part when it is free, as the engines do. The driver hands out one part at a time. Some nodes
are slower throughout. A node fails at random; what its cores were doing is lost and done again by others, and the node
comes back after a while. Nothing is speculated: no part runs twice at once.

The times of parts are log-normal with the mean and the spread that plan.py measured (`results/plan.json`). Excess is
the time of the job beyond the plan's ideal, in which all cores work at full speed from the first second to the last.

    python benchmarks/scale/simulation.py [--seed N] [--quick] [--table]
"""

from __future__ import annotations

import argparse
import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from shared import duration, progress, publish, show, stored

HOUR = 3600.0
NODE_CORES = 16
SLOW_SHARE, SLOW_FACTOR = 0.02, 3.0  # assumed: two nodes of a hundred take three times as long
FAILURES, SPOT_FAILURES = (
    0.001,
    0.05,
)  # assumed, for each node and hour: one in six weeks; machines that may be taken away
REPAIR = 300.0  # assumed: seconds until another node is there
TRIES = 4  # of a part, before an engine gives up
REMOTE = 0.35  # assumed: a log-normal spread where parts are read from an object store; at least what was measured
ROWS_PER_PART = (10**5, 2**20, 10**7)
JOBS = {10**9: (16, 128, 1024), 10**12: (1024, 10_240)}
MOST_PARTS = 1_100_000  # that are simulated: a second for 200 000
SEEDS = 3  # of which the median is shown


@dataclass(frozen=True)
class Cluster:
    """What parts run on.

    Attributes:
        nodes, cores: how many nodes, and how many cores each.
        slow_share, slow_factor: share of nodes that take so many times as long.
        failures: of a node in an hour.
        repair: seconds until a node is back.
        dispatch: seconds of the driver for each part, one part at a time.
    """

    nodes: int
    cores: int = 1
    slow_share: float = 0.0
    slow_factor: float = 1.0
    failures: float = 0.0
    repair: float = REPAIR
    dispatch: float = 0.0


class Run(NamedTuple):
    """What became of a job.

    Attributes:
        seconds: from begin to end.
        ideal: seconds, if all cores worked at full speed throughout.
        lost: seconds of cores whose work was lost.
        retries: parts that were begun again, each time counted.
        most_tries: of one part.
    """

    seconds: float
    ideal: float
    lost: float
    retries: int
    most_tries: int

    @property
    def excess(self) -> float:
        """Time beyond the ideal, as a share of it."""
        return self.seconds / self.ideal - 1


class Failures:
    """When nodes fail: after times that are exponentially distributed, from when they are back."""

    def __init__(self, cluster: Cluster, rng: np.random.Generator) -> None:
        self._mean = HOUR / cluster.failures if cluster.failures else np.inf
        self._repair, self._rng = cluster.repair, rng
        self._times: list[list[float]] = [[] for _ in range(cluster.nodes)]

    def after(self, node: int, time: float) -> tuple[float, float]:
        """From when a node that is wanted at a time is up, and when it fails then."""
        if self._mean == np.inf:
            return time, np.inf
        times = self._times[node]
        while not times or times[-1] <= time:
            times.append((times[-1] + self._repair if times else 0.0) + self._rng.exponential(self._mean))
        at = bisect_right(times, time)
        return max(time, times[at - 1] + self._repair) if at else time, times[at]


def simulate(seconds: NDArray[np.float64], cluster: Cluster, seed: int = 0) -> Run:
    """Run parts that take these seconds on a core of usual speed, in this order.

    Args:
        seconds: of each part (n,), positive.
        cluster: where.
        seed: of the failures, and of which nodes are slow.
    """
    rng = np.random.default_rng(seed)
    slots, times = cluster.nodes * cluster.cores, seconds.tolist()
    slow = rng.permutation(cluster.nodes) < round(cluster.slow_share * cluster.nodes)
    factors = np.where(slow, cluster.slow_factor, 1.0).tolist()
    failures, waiting, idle = Failures(cluster, rng), deque(range(len(times))), list[int]()
    tries = [0] * len(times)
    # (when, core, part that is done or -1, part that is lost or -1); cores of different nodes in turn
    events = [(0.0, slot, -1, -1) for slot in range(slots)]
    driver = now = lost = 0.0
    left = len(times)
    while left:
        now, slot, done, failed = heapq.heappop(events)
        if failed >= 0:
            waiting.append(failed)
            heapq.heappush(events, (now + cluster.repair, slot, -1, -1))
            if not idle:
                continue
            slot = idle.pop()
        left -= done >= 0
        if not waiting:
            idle.append(slot)
            continue
        part, node = waiting.popleft(), slot % cluster.nodes
        driver = max(driver, now) + cluster.dispatch
        begin, failure = failures.after(node, driver)
        end = begin + times[part] * factors[node]
        tries[part] += 1
        if end <= failure:
            heapq.heappush(events, (end, slot, part, -1))
        else:
            lost += failure - begin
            heapq.heappush(events, (failure, slot, -1, part))
    return Run(now, sum(times) / slots, lost, sum(tries) - len(tries), max(tries))


def part_times(count: int, mean: float, spread: float, seed: int) -> NDArray[np.float64]:
    """Log-normal times (count,) of this mean; `spread` is the standard deviation of their logarithms."""
    rng = np.random.default_rng([seed, count])
    return mean * np.exp(spread * rng.standard_normal(count) - spread**2 / 2)


def situations(cluster: Cluster, spread: float) -> Iterator[tuple[str, Cluster, float]]:
    """What is wrong, one thing at a time, and all together: a name, the cluster, the spread of times."""
    slow = {"slow_share": SLOW_SHARE, "slow_factor": SLOW_FACTOR}
    yield "nothing", replace(cluster, dispatch=0.0), 0.0
    yield "driver", cluster, 0.0
    yield "spread", cluster, spread
    yield "slow nodes", replace(cluster, **slow), 0.0
    yield "failures", replace(cluster, failures=FAILURES), 0.0
    yield "all", replace(cluster, failures=FAILURES, **slow), spread
    yield "all, spot", replace(cluster, failures=SPOT_FAILURES, **slow), spread


def scenarios(costs: dict[str, Any], seeds: Sequence[int], most_parts: int) -> Iterator[dict[str, Any]]:
    """Every job on every cluster with parts of every size, in every situation."""
    spread = max(REMOTE, costs["spread"])
    for rows, sizes in JOBS.items():
        for cores in sizes:
            cluster = Cluster(cores // NODE_CORES, NODE_CORES, dispatch=costs["dispatch_seconds"])
            for part_rows in ROWS_PER_PART:
                parts = -(-rows // part_rows)
                if parts > most_parts:
                    continue
                progress(f"{rows:.0e} rows on {cores:,} cores, {parts:,} parts of {part_rows:,}")
                mean = costs["part_seconds"] + rows / parts * costs["row_seconds"]
                found = {
                    name: middle([simulate(part_times(parts, mean, wide, seed), where, seed) for seed in seeds])
                    for name, where, wide in situations(cluster, spread)
                }
                job = {"rows": rows, "cores": cores, "part_rows": part_rows, "parts": parts, "part_seconds": mean}
                yield job | found


def middle(runs: Sequence[Run]) -> dict[str, Any]:
    """The run whose excess is the median one, and all excesses."""
    ordered = sorted(runs, key=lambda run: run.excess)
    run = ordered[len(ordered) // 2]
    return run._asdict() | {"excess": run.excess, "excesses": [each.excess for each in ordered]}


def tables(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Excess over the ideal by job and situation, and what failures cost."""
    names = [name for name in found[0] if isinstance(found[0][name], dict)]
    head = ["rows", "cores", "rows a part", "parts", "a part takes", "ideal", *names]
    rows = [
        [
            f"10^{len(str(each['rows'])) - 1}",
            f"{each['cores']:,}",
            f"{each['part_rows']:,}",
            f"{each['parts']:,}",
            f"{each['part_seconds']:.1f} s",
            duration(each["nothing"]["ideal"]),
            *(f"{each[name]['excess']:+.1%}" for name in names),
        ]
        for each in found
    ]
    retried = [
        [
            *row[:4],
            f"{each['all, spot']['retries']:,}",
            f"{each['all, spot']['most_tries']}",
            f"{each['all, spot']['lost'] / (each['nothing']['ideal'] * each['cores']):.2%}",
        ]
        for row, each in zip(rows, found)
    ]
    return {
        "Time beyond the ideal, by what is wrong": (head, rows),
        f"Spot nodes ({SPOT_FAILURES:.0%} fail in an hour)": (
            [*head[:4], "retries", "most tries", "work lost"],
            retried,
        ),
    }


def main() -> None:
    """Run the simulation, or print the last one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="jobs of at most 20,000 parts alone")
    parser.add_argument("--table", action="store_true", help="print the tables of the last run")
    options = parser.parse_args()
    name = "simulation-quick" if options.quick else "simulation"
    if options.table:
        return show(name)
    costs = stored("plan")["simulation"]
    seeds = range(options.seed, options.seed + (1 if options.quick else SEEDS))
    found = list(scenarios(costs, seeds, 20_000 if options.quick else MOST_PARTS))
    assumed = {
        "node_cores": NODE_CORES,
        "slow_share": SLOW_SHARE,
        "slow_factor": SLOW_FACTOR,
        "failures_per_node_hour": [FAILURES, SPOT_FAILURES],
        "repair_seconds": REPAIR,
        "spread": max(REMOTE, costs["spread"]),
    }
    measured = {"measured": costs, "assumed": assumed, "seeds": [*seeds], "tries": TRIES}
    publish(name, {**measured, "scenarios": found}, tables(found))
    return None


if __name__ == "__main__":
    main()
