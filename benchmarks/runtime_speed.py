"""Is aeedge as fast as carefully used bare onnxruntime, from 1 sample to 65 536? In one process, interleaved.

The peer is `session.run(None, {"input": rows})[0]` on the same encoder.onnx, with intra_op_num_threads=1 ("run
intra=1") or without any options ("run, default"). Rounds are in shuffled order, and each turn begins with a pause and
calls that are not timed (see `common.turns`). A ratio is the median, over the rounds, of the peer's time over aeedge's
in the same round: above 1 aeedge is faster. Where all threads may be used, `aeedge tune` has run before, for the same
variant. Before anything is timed, all fp32 outputs are compared.

    one      one sample: encode on one thread, tuned for latency on all, int8; score against two sessions and numpy
    bulk     16 384 samples, all threads, fp32, against the default session
    powers   every power of two up to 65 536 samples, all threads, fp32, against the better of both sessions
    int8     16 384 samples of raw bytes in int8, against the default session's fp32 on rows already scaled

    python benchmarks/runtime_speed.py [--part one ...] [--quick]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import (
    PAUSE,
    SIGNAL,
    WARM_UP,
    Call,
    Table,
    apart,
    fingerprint,
    kept_as,
    progress,
    publish_all,
    raw,
    speedups,
    turns,
)
from comparison import workloads
from comparison.networks import NETWORKS
from comparison.processes import cpus
from comparison.watch import Watch
from numpy.typing import NDArray

import aeedge  # before onnxruntime: it turns telemetry off

import onnxruntime  # isort: skip

from aeedge import autotune  # isort: skip
from aeedge.runtime import policy_store  # isort: skip

SUBJECTS = ("seed", "deep", "ad01", "conv")
ONE_ROW = 1 / 0.80  # times as fast as run intra=1: 0.80 of its time
BULK_ROWS = 16_384
BULK = {"deep": 1.2, "ad01": 1.3, "conv": 1.5, "seed": 1.1}
BYTES = {"deep": 4.0, "ad01": 4.0, "seed": 3.5}
CHECKED_ROWS = (1, 7, 600, 4097)
AGREE = 1e-4, 1e-6  # of a value, and of the largest one: sums in another order differ by that
LEAST_SECONDS, LEAST_ROUNDS, MOST_ROUNDS = 0.02, 5, 25
Row = dict[str, Any]
Rows = NDArray[Any]


class Plan(NamedTuple):
    """How long to measure: seconds per turn and rounds of one and bulk; most rows and seconds per cell of powers."""

    one: tuple[float, int]
    bulk: tuple[float, int]
    most_rows: int
    cell_seconds: float


FULL = Plan((0.05, 31), (0.4, 15), 65_536, 3.6)
QUICK = Plan((0.01, 5), (0.05, 3), 256, 0.5)


class Subject(NamedTuple):
    """A network, the folder of its files, and its bundle with uint8 input, with the scaler of the bytes."""

    name: str
    folder: Path
    of_bytes: Path
    scaler: tuple[float, float]

    @property
    def bundle(self) -> Path:
        """The bundle that takes float32."""
        return self.folder / "float32.aeedge"

    def rows(self, count: int) -> Rows:
        """Test rows, repeated."""
        with np.load(self.folder / "rows.npz") as stored:
            test: Rows = stored["test"]
        return np.resize(test, (count, *test.shape[1:]))


def subjects(names: Sequence[str], with_bytes: Collection[str], scratch: Path) -> list[Subject]:
    """Networks. Signals have no uint8 bundle in the runtime comparison: one is exported for those in `with_bytes`."""
    found = []
    for name, folder in apart(workloads.prepare, names, progress).items():
        if NETWORKS[name].pixels:
            found.append(Subject(name, folder, folder / "uint8.aeedge", (0.0, 255.0)))
        else:
            found.append(Subject(name, folder, scratch / f"{name}.aeedge", SIGNAL))
            if name in with_bytes:
                progress(f"{name}: exporting with uint8 input")
                apart(export_for_bytes, found[-1])
    return found


def export_for_bytes(subject: Subject) -> None:
    from aeedge_export import export_bundle

    down, up = workloads.autoencoder(subject.name, subject.folder / "weights.pt")
    with np.load(subject.folder / "rows.npz") as stored:
        known = raw(stored["calibration"], subject.scaler)
    export_bundle(encoder=down, decoder=up, path=subject.of_bytes, example=known, scaler=subject.scaler, variants="all")


def prepared(path: Path, objective: str, *, variant: str, threads: int | str = "auto") -> aeedge.Model:
    """An opened bundle; if it may use all threads, tuned on this machine for the objective beforehand."""
    if threads == "auto":
        found = autotune.autotune(str(path), objective, variant=variant).tuned
        policy_store.write(aeedge.load(path, variant=variant, threads=1).manifest.id, found)
    model = aeedge.load(path, variant=variant, threads=threads)
    if model.variant != variant:
        raise SystemExit(f"{path}: {model.variant} runs instead of {variant}, so {variant} cannot be measured")
    return model


def session(path: Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """The peer's session: with `threads` threads, or without any options."""
    if threads is None:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_of(peer: onnxruntime.InferenceSession, rows: Rows) -> Call:
    name = peer.get_inputs()[0].name
    return lambda: peer.run(None, {name: rows})[0]


def score_by_hand(encoder: onnxruntime.InferenceSession, decoder: onnxruntime.InferenceSession, rows: Rows) -> Call:
    """Scores with two sessions and numpy, as a user would write it."""
    name, latent, axes = encoder.get_inputs()[0].name, decoder.get_inputs()[0].name, tuple(range(1, rows.ndim))

    def score() -> object:
        latents = encoder.run(None, {name: rows})[0]
        difference = rows - decoder.run(None, {latent: latents})[0]
        return np.mean(difference * difference, axis=axes)

    return score


def one_row(subject: Subject) -> Callable[[Rows], dict[str, Call]]:
    """Contenders on one thread, and the policy of `aeedge tune --for latency`, which may use more."""
    chosen = prepared(subject.bundle, "latency", variant="fp32")
    model = prepared(subject.bundle, "latency", variant="fp32", threads=1)
    integers = prepared(subject.bundle, "latency", variant="int8", threads=1)
    encoder, decoder = (session(subject.bundle / f"{role}.onnx", 1) for role in ("encoder", "decoder"))
    peer = session(subject.folder / "encoder.onnx", 1)
    return lambda rows: {
        "encode": lambda: model.encode(rows),
        "encode, tuned": lambda: chosen.encode(rows),
        "encode, int8": lambda: integers.encode(rows),
        "score": lambda: model.score(rows),
        "run intra=1": run_of(peer, rows),
        "score by hand": score_by_hand(encoder, decoder, rows),
    }


def many_rows(subject: Subject, objective: str = "throughput") -> Callable[[Rows], dict[str, Call]]:
    """Contenders that may use all threads, and the peer that uses one."""
    model = prepared(subject.bundle, objective, variant="fp32")
    single, default = (session(subject.folder / "encoder.onnx", threads) for threads in (1, None))
    return lambda rows: {
        "encode": lambda: model.encode(rows),
        "run intra=1": run_of(single, rows),
        "run, default": run_of(default, rows),
    }


def of_bytes(subject: Subject) -> Callable[[Rows], dict[str, Call]]:
    """int8 on bytes, and the peer on the same rows in float32, scaled beforehand."""
    model = prepared(subject.of_bytes, "throughput", variant="int8")
    default = session(subject.folder / "encoder.onnx")

    def calls(rows: Rows) -> dict[str, Call]:
        measured, (mean, scale) = raw(rows, subject.scaler), subject.scaler
        scaled = (measured.astype(np.float32) - np.float32(mean)) / np.float32(scale)
        return {"encode, int8 on bytes": lambda: model.encode(measured), "run, default": run_of(default, scaled)}

    return calls


def off(got: Any, true: Any) -> float:
    """Largest difference, relative to the largest value."""
    return float(np.abs(np.subtract(got, true)).max() / np.abs(true).max())


def agree(got: Rows, true: Rows) -> bool:
    relative, least = AGREE
    return np.allclose(got, true, rtol=relative, atol=least * float(np.abs(true).max()))


def check(subject: Subject) -> None:
    """End the run unless all fp32 outputs agree: the time of a wrong result means nothing."""
    single, many = one_row(subject), many_rows(subject)
    for count in CHECKED_ROWS:
        rows = subject.rows(count)
        answers = {name: np.asarray(call()) for name, call in single(rows).items() if "int8" not in name}
        answers |= {f"{name}, all threads": np.asarray(call()) for name, call in many(rows).items()}
        for name, got in answers.items():
            true = answers["score by hand" if name.startswith("score") else "run intra=1"]
            if got.shape != true.shape or not agree(got, true):
                raise SystemExit(
                    f"{subject.name}, {count} rows: {name} gives other outputs than the peer; nothing is measured"
                )


def measured(calls: Mapping[str, Call], seconds: float, rounds: int) -> tuple[dict[str, list[float]], Row]:
    """Turns of all contenders, and the load of other processes meanwhile."""
    watch = Watch(cpus("all"))
    found = turns(calls, seconds, rounds)
    load = watch.stop(0.0)
    return found, {"rounds": rounds, "disturbed": load.describe() if load.disturbed else None}


def verdict(found: Mapping[str, Sequence[float]], what: str, peers: Sequence[str], target: float | None = None) -> Row:
    """One contender against the better of its peers."""
    medians = {name: statistics.median(found[name]) for name in (what, *peers)}
    peer = min(peers, key=lambda name: medians[name])
    low, ratio, high = statistics.quantiles(speedups(found, what, peer), n=4)
    return {"what": what, "peer": peer, "seconds": medians, "ratio": ratio, "quartiles": [low, high], "target": target}


def one(networks: Sequence[Subject], plan: Plan) -> list[Row]:
    result = []
    for subject in networks:
        calls = one_row(subject)(subject.rows(1))
        found, state = measured(calls, *plan.one)
        for what, peer, target in (
            ("encode", "run intra=1", ONE_ROW),
            ("encode, tuned", "run intra=1", ONE_ROW),
            ("encode, int8", "run intra=1", None),
            ("score", "score by hand", None),
        ):
            error = off(calls[what](), calls[peer]())
            result.append({"net": subject.name, "off": error, **verdict(found, what, [peer], target), **state})
    return result


def against_default(
    networks: Sequence[Subject],
    plan: Plan,
    opened: Callable[[Subject], Callable[[Rows], dict[str, Call]]],
    targets: Mapping[str, float],
) -> list[Row]:
    """Many rows, all threads, against a session with default options."""
    result, peer = [], "run, default"
    for subject in networks:
        calls = opened(subject)(subject.rows(BULK_ROWS))
        what = next(iter(calls))
        found, state = measured({name: calls[name] for name in (what, peer)}, *plan.bulk)
        row = verdict(found, what, [peer], targets.get(subject.name))
        result.append({"net": subject.name, "off": off(calls[what](), calls[peer]()), **row, **state})
    return result


def bulk(networks: Sequence[Subject], plan: Plan) -> list[Row]:
    return against_default(networks, plan, many_rows, BULK)


def int8(networks: Sequence[Subject], plan: Plan) -> list[Row]:
    return against_default(networks, plan, of_bytes, BYTES)


def powers(networks: Sequence[Subject], plan: Plan) -> list[Row]:
    result = []
    for subject in networks:
        contenders, rows = many_rows(subject, "latency"), subject.rows(plan.most_rows)
        for power in range(plan.most_rows.bit_length()):
            calls = contenders(rows[: 1 << power])
            found, state = measured(calls, *rhythm(calls.values(), plan.cell_seconds))
            row = verdict(found, "encode", ["run intra=1", "run, default"])
            result.append({"net": subject.name, "rows": 1 << power, **row, **state})
        progress(f"powers: {subject.name} done")
    return result


def rhythm(calls: Collection[Call], cell_seconds: float) -> tuple[float, int]:
    """Seconds per turn, so that each has two calls or more, and as many rounds as there is time for."""
    slowest = 0.0
    for call in calls:
        call()
        began = time.perf_counter()
        call()
        slowest = max(slowest, time.perf_counter() - began)
    seconds = max(LEAST_SECONDS, 1.2 * slowest)
    rounds = int(cell_seconds / (len(calls) * (PAUSE + WARM_UP + seconds)))
    return seconds, min(max(rounds, LEAST_ROUNDS), MOST_ROUNDS)


def factor(row: Row) -> str:
    return f"{'~' if row['disturbed'] else ''}{row['ratio']:.2f}"


def table(rows: Sequence[Row]) -> Table:
    head = ["network", "what", "µs", "peer", "its µs", "speedup", "target", "largest error"]
    lines = []
    for row in rows:
        ours, theirs = (f"{row['seconds'][row[side]] * 1e6:,.1f}" for side in ("what", "peer"))
        target = "" if row["target"] is None else f"{row['target']:.2f}"
        lines.append([row["net"], row["what"], ours, row["peer"], theirs, factor(row), target, f"{row['off']:.0e}"])
    return head, lines


def table_of_powers(rows: Sequence[Row]) -> Table:
    """One line per power of two, one column per network, and the minimum of each column."""
    networks = list(dict.fromkeys(row["net"] for row in rows))
    cells = {(row["rows"], row["net"]): row for row in rows}
    counts = sorted({row["rows"] for row in rows})
    lines = [[f"{count:,}", *(factor(cells[count, net]) for net in networks)] for count in counts]
    lines.append(
        ["minimum", *(factor(min((cells[c, net] for c in counts), key=lambda row: row["ratio"])) for net in networks)]
    )
    return ["samples; better peer's time / aeedge's", *networks], lines


PARTS: dict[str, tuple[Callable[[Sequence[Subject], Plan], list[Row]], Callable[[Sequence[Row]], Table], str]] = {
    "one": (one, table, "One sample"),
    "bulk": (bulk, table, f"{BULK_ROWS:,} samples, all threads, fp32"),
    "powers": (powers, table_of_powers, "Powers of two, all threads, fp32"),
    "int8": (int8, table, f"{BULK_ROWS:,} samples, all threads, int8 on raw bytes against fp32 on scaled float32"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="this part only; may be given several times")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and samples: does everything work?")
    asked = parser.parse_args()
    parts = [part for part in PARTS if part in (asked.part or PARTS)]
    plan = QUICK if asked.quick else FULL
    result: dict[str, Any] = {"machine": fingerprint(), "plan": plan._asdict(), "quick": asked.quick}
    tables = {}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["AEEDGE_STATE"] = scratch  # the user's policy store stays untouched
        networks = subjects(SUBJECTS, SUBJECTS if "int8" in parts else (), Path(scratch))
        for subject in networks:
            check(subject)
        for part in parts:
            measure, shown, title = PARTS[part]
            progress(f"{part}: measuring")
            result[part] = measure(networks, plan)
            tables[title] = shown(result[part])
    publish_all(kept_as("runtime_speed", asked.quick, parts if len(parts) < len(PARTS) else ()), result, tables)


if __name__ == "__main__":
    main()
