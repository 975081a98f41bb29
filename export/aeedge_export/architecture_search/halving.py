"""Which candidates are trained further: successive halving with several objectives.

Candidates are sorted into fronts (non-dominated sorting), and within a front so that those kept first are far apart (an
epsilon-net): MO-ASHA, Schmucker et al. 2021, https://arxiv.org/abs/2106.12639, here in rungs that all finish before the
next begins. A front wants many candidates that differ, not one that is best.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SHARES = (1 / 9, 1 / 3, 1.0)  # of the epochs, by rung
_LEAST = 8  # candidates that are trained to the end where there are as many


def non_dominated(values: NDArray[np.float64], slack: Sequence[float] | None = None) -> NDArray[np.bool_]:
    """Which rows are on the Pareto front.

    Args:
        values: (n, objectives), lower is better.
        slack: by which share values of an objective must differ to count as different, (objectives,); None for 0.

    Returns:
        (n,): whether no other row is as good in all objectives and better in one.
    """
    slack_ = np.zeros(values.shape[1]) if slack is None else np.asarray(slack, np.float64)
    as_good = (values[:, None] <= values[None] * (1 + slack_)).all(axis=2)
    better = (values[:, None] < values[None] * (1 - slack_)).any(axis=2)
    return np.asarray(~(as_good & better).any(axis=0), np.bool_)


def ordered(values: NDArray[np.float64]) -> list[int]:
    """Indices of the rows, those to keep first: front by front, and in a front far from those before.

    Args:
        values: (n, objectives), above 0, lower is better; the first objective's best row comes first.
    """
    logs = np.log(np.maximum(values, 1e-30))
    spread = np.maximum(np.ptp(logs, axis=0), 1e-12) if len(logs) else 1.0
    places, left, found = logs / spread, list(range(len(values))), list[int]()
    while left:
        front = [left[i] for i in np.flatnonzero(non_dominated(values[left]))]
        left = [i for i in left if i not in front]
        while front:
            if found:
                distances = np.linalg.norm(places[front][:, None] - places[found][None], axis=2).min(axis=1)
                found.append(front.pop(int(np.argmax(distances))))
            else:
                found.append(front.pop(int(np.argmin(values[front, 0]))))
    return found


def kept(values: NDArray[np.float64]) -> list[int]:
    """Indices of the better half of the rows (n, objectives), in the order of `ordered`; `_LEAST` of few."""
    return ordered(values)[: _left(len(values))]


def planned(count: int, rung: int) -> list[int]:
    """How many of `count` candidates are trained in this rung and those after it."""
    found = [count]
    for _ in SHARES[rung + 1 :]:
        found.append(_left(found[-1]))
    return found


def _left(count: int) -> int:
    return min(count, max(_LEAST, -(-count // 2)))
