"""What do alarms cost beyond the score: `detect` and `p_value`, one sample and many, and calibration scores at load?

In one process; rounds are in shuffled order, and each turn begins with a pause and calls that are not timed (see
`common.turns`). A ratio is the median over the rounds of a call's time over that of `score` in the same round; `score
again` is the same call a second time, and shows what differences are chance. Loads are timed in turn, with a
calibration and without; what the calibration module takes of an import is measured in fresh processes. Alarms are
compared with scores before anything is timed.

Weights are random, for speed does not depend on them; but for `sensors`, a frozen bundle of eight of them: the smaller
the network, the more an alarm costs beside it.

    python benchmarks/detection_speed.py [--quick]
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import Call, apart, fingerprint, kept_as, progress, publish_all, turns
from comparison.networks import NETWORKS
from numpy.typing import NDArray
from startup import environment

import aeedge

SENSORS = Path(__file__).resolve().parents[1] / "tests" / "data" / "bundle_v2_both"
NAMES = ("ad01", "deep")
CALIBRATED = 999  # samples: enough for a rate of 0.001
MANY, FEW = 16_384, 1
MOST = {("detect", FEW): 1.15, ("detect", MANY): 1.05}
IMPORT = """
import sys, time
import aeedge
del sys.modules["aeedge.detection.calibration"]
began = time.perf_counter()
import aeedge.detection.calibration
print(time.perf_counter() - began)
"""
Rows = NDArray[np.float32]


class Plan(NamedTuple):
    """Seconds per turn and rounds; rounds of loads, and of imports."""

    seconds: float
    rounds: int
    loads: int
    imports: int


FULL, QUICK = Plan(0.1, 31, 101, 21), Plan(0.02, 5, 5, 3)


def prepared(folder: Path) -> None:
    """Bundles of networks that were not trained, with a calibration; runs in a process of its own."""
    import torch
    from comparison.networks import decoder, encoder

    from aeedge_export import export_bundle

    for name in NAMES:
        torch.manual_seed(0)
        net, rng = NETWORKS[name], np.random.default_rng(0)
        rows = rng.random((512 + CALIBRATED, *net.shape), np.float32)
        down, up = encoder(net).eval(), decoder(net).eval()
        export_bundle(encoder=down, decoder=up, path=folder / name, example=rows[:512], normal=rows[512:])


def without_calibration(path: Path, target: Path) -> Path:
    """A copy of a bundle that has none."""
    from aeedge.bundle.reader import CALIBRATION, MANIFEST, Bundle

    shutil.copytree(path, target)
    (target / CALIBRATION).unlink()
    text = Bundle(path).manifest._replace(calibration=None).dumps()
    (target / MANIFEST).write_text(text, encoding="utf-8")
    return target


def check(model: aeedge.Model, rows: Rows) -> None:
    """End the run unless alarms and p-values are those of the scores."""
    for count in (1, 7, 600):
        scores, known = model.score(rows[:count]), model.calibration.scores
        p = [(1 + int((known >= score).sum())) / (len(known) + 1) for score in scores]
        right = np.array_equal(model.detect(rows[:count]), scores > model.threshold)
        if not right or model.p_value(rows[:count]).tolist() != p:
            raise SystemExit(f"{model.path}: alarms of {count} samples are not those of their scores")


def calls_of(model: aeedge.Model, rows: Rows) -> dict[str, Call]:
    rate, threshold = model.false_alarm_rate * 2, model.threshold * 1.1
    return {
        "score": lambda: model.score(rows),
        "score again": lambda: model.score(rows),
        "detect": lambda: model.detect(rows),
        "detect at a rate": lambda: model.detect(rows, false_alarm_rate=rate),
        "detect with a threshold": lambda: model.detect(rows, threshold=threshold),
        "p_value": lambda: model.p_value(rows),
    }


def ratios(found: Mapping[str, Sequence[float]], name: str, peer: str) -> list[float]:
    """Quartiles of the ratio within a round."""
    return statistics.quantiles([ours / theirs for ours, theirs in zip(found[name], found[peer])], n=4)


def called(name: str, path: Path, plan: Plan) -> list[dict[str, Any]]:
    """Times of calls; of many samples by all threads, where the score takes the least time."""
    result = []
    for count, threads in ((FEW, 1), (MANY, "auto")):
        with aeedge.load(path, threads=threads) as model:
            rows = np.resize(model.golden_rows(), (count, *model.input.shape))
            check(model, rows if count > 600 else np.resize(rows, (600, *model.input.shape)))
            found = turns(calls_of(model, rows), plan.seconds, plan.rounds)
        for what, times in found.items():
            low, ratio, high = ratios(found, what, "score")
            result.append(
                {
                    "network": name,
                    "samples": count,
                    "call": what,
                    "seconds": statistics.median(times),
                    "ratio": ratio,
                    "quartiles": [low, high],
                    "most": MOST.get((what, count)),
                }
            )
    return result


def loads(path: Path, plain: Path) -> dict[str, Callable[[], None]]:
    def opened(place: Path, first: Callable[[aeedge.Model, Any], object] | None = None) -> Callable[[], None]:
        with aeedge.load(place) as model:
            row = model.golden_rows()[:1]

        def load() -> None:
            with aeedge.load(place, threads=1) as model:
                if first is not None:
                    first(model, row)

        return load

    return {
        "load without calibration": opened(plain),
        "load": opened(path),
        "load and first score": opened(path, lambda model, row: model.score(row)),
        "load and first detect": opened(path, lambda model, row: model.detect(row)),
        "load and first p_value": opened(path, lambda model, row: model.p_value(row)),
    }


def loaded(name: str, path: Path, plain: Path, rounds: int) -> list[dict[str, Any]]:
    """Times of single loads, in shuffled order."""
    made, dice = loads(path, plain), random.Random(0)
    order, found = list(made), {what: [] for what in made}  # type: dict[str, list[float]]
    for _ in range(rounds):
        dice.shuffle(order)
        for what in order:
            began = time.perf_counter()
            made[what]()
            found[what].append(time.perf_counter() - began)
    result = []
    for what, times in found.items():
        peer = "load without calibration" if what == "load" else "load and first score" if "first" in what else what
        low, beyond, high = statistics.quantiles([a - b for a, b in zip(times, found[peer])], n=4)
        result.append(
            {
                "network": name,
                "what": what,
                "seconds": statistics.median(times),
                "peer": peer,
                "beyond": beyond,
                "quartiles": [low, high],
            }
        )
    return result


def imported(rounds: int) -> float:
    """Median seconds that the calibration module takes of `import aeedge`."""
    line = [sys.executable, "-c", IMPORT]
    runs = [
        subprocess.run(line, capture_output=True, text=True, check=True, env=environment()).stdout
        for _ in range(rounds + 1)
    ]
    return statistics.median(map(float, runs[1:]))  # the first writes bytecode


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: does everything work?")
    quick = parser.parse_args().quick
    plan = QUICK if quick else FULL
    calls: list[dict[str, Any]] = []
    opened: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        progress("exporting")
        apart(prepared, Path(scratch))
        for name, path in {"sensors": SENSORS, **{name: Path(scratch) / name for name in NAMES}}.items():
            progress(f"{name}: measuring")
            calls += called(name, path, plan)
            opened += loaded(name, path, without_calibration(path, Path(scratch) / f"{name}-plain"), plan.loads)
    seconds = imported(plan.imports)
    call_rows = [
        [
            one["network"],
            f"{one['samples']:,}",
            one["call"],
            f"{one['seconds'] * 1e6:,.1f}",
            f"{one['ratio']:.3f}",
            "{:.3f}-{:.3f}".format(*one["quartiles"]),
            "" if one["most"] is None else f"{one['most']:.2f}",
        ]
        for one in calls
    ]
    load_rows = [
        [one["network"], one["what"], f"{one['seconds'] * 1e3:.2f}", "" if one["peer"] == one["what"] else one["peer"],
         "" if one["peer"] == one["what"] else f"{one['beyond'] * 1e3:+.2f}"]
        for one in opened
    ]  # fmt: skip
    publish_all(
        kept_as("detection_speed", quick),
        {"machine": fingerprint(), "plan": plan._asdict(), "calls": calls, "loads": opened, "import": seconds},
        {
            "Calls": (["network", "samples", "call", "µs", "of score's", "quartiles", "at most"], call_rows),
            f"Loads (the calibration module takes {seconds * 1e3:.2f} ms of an import)": (
                ["network", "what", "ms", "beyond", "ms"],
                load_rows,
            ),
        },
    )


if __name__ == "__main__":
    main()
