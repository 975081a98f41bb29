"""Is one version of aeedge as fast as another one? Two wheels, in one run, on the same bundles, numpy and onnxruntime.

Each wheel is unpacked into a folder of its own and runs in processes of its own (see comparison/processes.py): pinned,
one at a time, the others stopped, with untuned policies. Three of them take turns in shuffled order, many short turns
each: BEFORE, BEFORE again in a second process, and AFTER. All ratios are medians over the rounds of ratios within a
round; AFTER is compared with the geometric mean of both processes of BEFORE.

The ratio of the two processes of BEFORE shows by how much the same code differs in this run. The noise of a cell is
that difference, or where it is larger the 90th percentile of it over the cells of the same part and number of threads.
A cell whose ratio is above its limit by more than the noise is measured again, in new processes: "!" marks it where it
is so once more, "?" where it is not. "~" marks cells that other processes disturbed. The limit of AFTER over BEFORE is
1.02. Noise widens what is allowed, so a noisy run marks little and shows little: the last table has the noise of each
part, how many cells are above their limit without a mark, and in how many the noise is above 5 %.

    one       one thread, one sample: every method, dtype and way to call; some also with 64 samples. Ratios within
              AFTER, such as float64 over float32, are of turns that are interleaved too
    powers    encode: every power of two up to 65 536 samples, one thread and all; int8 on bytes
    few       1 to 64 samples, all threads: AFTER against the better of two bare sessions, with intra_op_num_threads=1
              and without options; the noise is that of two processes of AFTER
    startup   fresh processes: import, load, first latent

    python benchmarks/versions.py BEFORE.whl AFTER.whl [--parts one,powers,few,startup] [--quick] [--json FILE]

The bundles are exported once, by the code of this checkout. A reader from before `nonfinite_sentinels` knows the same
under another name, so BEFORE has a copy of each bundle whose manifest has both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import startup
from common import RESULTS, Table, fingerprint, kept_as, progress, publish_all
from comparison import field
from comparison.contenders import Entry
from comparison.contenders.by_version import ITEMS
from comparison.networks import NETWORKS
from comparison.processes import Worker, WorkerError, cpus
from comparison.watch import Watch
from runtime_speed import Subject, subjects

BEFORE, AGAIN, AFTER, AFTER_AGAIN = "before", "before again", "after", "after again"
BARE, SINGLE, DEFAULT = "bound onnxruntime", "run intra=1", "run, default"
MODULES = "comparison.contenders."
SLOWER = 1.02  # AFTER over BEFORE
FEW_LIMIT = 1.05  # AFTER over the better bare session
NOISY = 0.05  # a cell with more noise shows nothing about a limit of 1.02
SCORE_LIMIT, SCORE_NETS = 0.65, ("seed", "deep", "ad01", "conv")
BYTE_NETS = ("deep", "ad01")
WITHIN = (  # ways to call AFTER: numerator, denominator, limit
    (("encode, float64", 1), ("encode", 1), 1.35),
    (("encode, out=", 1), ("encode", 1), 1.2),
    (("encode, propagate", 1), ("encode", 1), 1.2),
    (("encode_iter, item", 1), ("encode", 1), 1.2),
    (("encode, int64", 1), ("encode, uint8", 1), 1.5),
    (("encode, float64", 64), ("encode", 64), 1.5),
)
BOUND_LIMIT = 3.3 / 2.65  # microseconds on `seed`, of aeedge's bound call and onnxruntime's
LEAST_ROUNDS = 5
OVERHEAD = 0.004  # seconds of a turn beside its calls: waking up a process, and stopping it
WARM_UP = {"one": 0.003, "all": 0.02}  # seconds; until the pool's threads are spread over the CPUs again
LONG_CALL = 0.05  # seconds; then no calls to warm up
TRIES = 5
Row = dict[str, Any]


class Plan(NamedTuple):
    """What to measure and how long: seconds of a turn, most rounds, seconds of a cell, rounds of startup."""

    nets: tuple[str, ...]
    powers: tuple[int, ...]
    bytes_powers: tuple[int, ...]
    few: tuple[int, ...]
    start_nets: tuple[str, ...]
    turn: float
    rounds: int
    cell_seconds: float
    few_seconds: float
    start_rounds: int


FULL = Plan(
    nets=tuple(NETWORKS),
    powers=tuple(1 << power for power in range(17)),
    bytes_powers=(1, 64, 1024, 16_384),
    few=tuple(1 << power for power in range(7)),
    start_nets=("deep", "conv"),
    turn=0.01,
    rounds=31,
    cell_seconds=1.7,
    few_seconds=3.0,
    start_rounds=21,
)
QUICK = FULL._replace(
    powers=(1, 64, 1024),
    bytes_powers=(1, 1024),
    few=(1, 8, 64),
    start_nets=("deep",),
    turn=0.003,
    rounds=3,
    cell_seconds=0.1,
    few_seconds=0.1,
    start_rounds=2,
)


class Call(NamedTuple):
    """A timed call: by which contender, what of by_version.py's, on how many samples."""

    who: str
    what: str
    rows: int


class Bench(NamedTuple):
    """A network, and where the versions find their files: folders of bundles, and of unpacked wheels."""

    subject: Subject
    folders: Mapping[str, Path]
    wheels: Mapping[str, Path]

    def entry(self, who: str) -> Entry:
        """The contender of a name."""
        if who not in self.wheels:
            module, options = {
                BARE: ("by_onnxruntime_bound", {}),
                SINGLE: ("by_onnxruntime", {"threads": 1}),
                DEFAULT: ("by_onnxruntime", {}),
            }[who]
            return Entry(who, MODULES + module, options, ("onnxruntime",))
        options = {"wheel": str(self.wheels[who]), "bytes": "bytes.aeedge", "scaler": self.subject.scaler}
        return Entry(who, MODULES + "by_version", options, ("aeedge",))


# --- ratios


def median_ratio(found: Mapping[Call, Sequence[float]], ours: Sequence[Call], theirs: Sequence[Call]) -> float:
    """Median over the rounds of the ratio within a round, of geometric means where there are several."""

    def logs(calls: Sequence[Call]) -> Any:
        return np.mean([np.log(found[call]) for call in calls], axis=0)

    return float(np.exp(np.median(logs(ours) - logs(theirs))))


def compared(found: Mapping[Call, Sequence[float]], what: str, rows: int, limit: float = SLOWER) -> Row:
    """AFTER over BEFORE, and BEFORE again over BEFORE."""
    before, again, after = (Call(who, what, rows) for who in (BEFORE, AGAIN, AFTER))
    return {
        "what": what,
        "rows": rows,
        "seconds": {call.who: statistics.median(found[call]) for call in (before, again, after)},
        "ratio": median_ratio(found, [after], [before, again]),
        "control": median_ratio(found, [again], [before]),
        "limit": limit,
    }


def against_the_better(found: Mapping[Call, Sequence[float]], rows: int) -> Row:
    """AFTER over the better of both bare sessions."""
    seconds = {call.who: statistics.median(values) for call, values in found.items()}
    peer = min((SINGLE, DEFAULT), key=lambda who: seconds[who])
    ours = [Call(who, "encode", rows) for who in (AFTER, AFTER_AGAIN)]
    return {
        "what": "encode",
        "rows": rows,
        "peer": peer,
        "seconds": seconds,
        "ratio": median_ratio(found, ours, [Call(peer, "encode", rows)]),
        "control": median_ratio(found, ours[1:], ours[:1]),
        "limit": FEW_LIMIT,
    }


def within(found: Mapping[Call, Sequence[float]]) -> list[Row]:
    """Ways to call AFTER against its plain call, beside the same ratio of BEFORE, where both were measured."""
    pairs = [
        (f"{ours[0]} / {theirs[0]}", Call(AFTER, *ours), Call(AFTER, *theirs), limit) for ours, theirs, limit in WITHIN
    ]
    pairs.append((f"bind, encode / {BARE}", Call(AFTER, "bind, encode", 1), Call(BARE, "encode", 1), BOUND_LIMIT))
    lines = []
    for title, ours, theirs, limit in pairs:
        if ours in found and theirs in found:
            old = [call._replace(who=BEFORE) for call in (ours, theirs)]
            before = median_ratio(found, old[:1], old[1:]) if old[0] in found else None
            line = {"what": title, "rows": ours.rows, "ratio": median_ratio(found, [ours], [theirs]), "before": before}
            lines.append(line | {"limit": limit, "control": None})
    return lines


def judged(rows: Sequence[Row]) -> list[Row]:
    """Rows with "noise", from the controls of all with the same number of threads, and whether they are "outside"."""
    found = []
    for row in rows:
        alike = [off_one(other["control"]) for other in rows if other["threads"] == row["threads"] and other["control"]]
        noise = max(off_one(row["control"]), float(np.quantile(alike, 0.9))) if row["control"] else 0.0
        found.append(row | {"noise": noise, "outside": row["ratio"] > row["limit"] * (1 + noise)})
    return found


def confirmed(row: Row, others: Sequence[Row]) -> Row:
    """A row that is outside, unless it is not so when measured later."""
    (later,) = (other for other in others if all(other[key] == row[key] for key in ("threads", "what", "rows")))
    noise = max(row["noise"], off_one(later["control"] or 1.0))
    return row | {
        "noise": noise,
        "later": later,
        "outside": min(row["ratio"], later["ratio"]) > row["limit"] * (1 + noise),
    }


def off_one(ratio: float) -> float:
    """How far a ratio is from 1, the same for its inverse."""
    return max(ratio, 1 / ratio) - 1


# --- turns


def interleaved(
    workers: Mapping[str, Worker], calls: Sequence[Call], plan: Plan, threads: str, budget: float | None = None
) -> tuple[dict[Call, list[float]], Row]:
    """Seconds per call, one value per round, and what else the rounds were: their number, the load of others.

    Args:
        workers: the processes, by the contender's name.
        calls: which take turns in each round.
        plan: how long.
        threads: "one" or "all".
        budget: seconds for all rounds; without it there are `plan.rounds`.
    """
    number, pace = {}, {}
    for call in calls:
        keep = any(other.who == call.who for other in number)
        order = {"batch": call.rows, "seconds": plan.turn, "what": call.what, "keep": keep}
        answer = _asked(workers[call.who], "ready", order)
        number[call], pace[call] = answer["call"], answer["seconds"]
    cost = {call: OVERHEAD + WARM_UP[threads] + max(plan.turn, 1.2 * seconds) for call, seconds in pace.items()}
    rounds = plan.rounds if budget is None else int(budget / sum(cost.values()))
    rounds = min(max(rounds, min(LEAST_ROUNDS, plan.rounds)), plan.rounds)
    found: dict[Call, list[float]] = {call: [] for call in calls}
    turns, dice, used, watch = list(calls), random.Random(0), 0.0, Watch(cpus("all"))
    for _ in range(rounds):
        dice.shuffle(turns)
        for call in turns:
            warm_up = 0.0 if pace[call] > LONG_CALL else WARM_UP[threads]
            order = {"seconds": plan.turn, "call": number[call], "warm_up": warm_up}
            answer = _asked(workers[call.who], "time", order)
            found[call].append(answer["seconds"] / (ITEMS if call.what == "encode_iter, item" else 1))
            used += answer["cpu"]
    load = watch.stop(used)
    return found, {"rounds": rounds, "disturbed": load.describe() if load.disturbed else None}


def _asked(worker: Worker, do: str, order: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to a command, which is repeated while the clocks disagree."""
    for _ in range(TRIES):
        answer = worker.ask(do, **order)
        if "void" not in answer:
            return answer
    raise SystemExit(f"{worker.entry.name}: {answer['void']}, {TRIES} times; nothing can be measured here")


def opened(bench: Bench, whose: Iterable[str], threads: str, stack: ExitStack) -> dict[str, Worker]:
    """Processes of contenders, whose latents were compared with torch's."""
    workers = {}
    with tempfile.TemporaryDirectory() as scratch:
        for who in whose:
            folder = bench.folders.get(who, bench.folders[AFTER])
            workers[who] = stack.enter_context(Worker(bench.entry(who), folder, threads))
            field.check(workers[who], folder, Path(scratch) / "answers.npz")
    return workers


# --- parts


def one(bench: Bench, plan: Plan) -> list[Row]:
    """Every way to call, one thread; and the ratios within AFTER."""
    name = bench.subject.name
    ways = [(what, 1) for what in ("encode", "encode, float64", "encode, out=", "encode, propagate")]
    ways += [(what, 1) for what in ("encode_iter, item", "score", "residual", "decode", "denoise")]
    ways += [(what, 64) for what in ("encode", "encode, float64")]
    ways += [(what, 1) for what in ("encode, uint8", "encode, int64") if name == "deep"]
    calls = [Call(who, *way) for way in ways for who in (BEFORE, AGAIN, AFTER)]
    bound = [Call(AFTER, what, 1) for what in ("bind, encode", "bind, encode alone", "bind, score")]
    bound.append(Call(BARE, "encode", 1))
    with ExitStack() as stack:
        workers = opened(bench, (BEFORE, AGAIN, AFTER, BARE), "one", stack)
        found, state = interleaved(workers, [*calls, *bound], plan, "one")
    limits = {("score", 1): SCORE_LIMIT} if name in SCORE_NETS else {}
    about = {"net": name, "threads": "one", **state}
    rows = [about | compared(found, *way, limits.get(way, SLOWER)) for way in ways]
    alone = {f"{call.who}: {call.what}": statistics.median(found[call]) for call in bound}
    return rows + [about | line | {"alone": alone} for line in within(found)]


def powers(bench: Bench, plan: Plan) -> list[Row]:
    """Powers of two, one thread and all, and int8 on bytes."""
    name, whose = bench.subject.name, (BEFORE, AGAIN, AFTER)
    cells = [("encode", rows) for rows in plan.powers]
    cells += [("encode, int8", rows) for rows in plan.bytes_powers if name in BYTE_NETS]
    lines = []
    for threads in ("one", "all"):
        with ExitStack() as stack:
            workers = opened(bench, whose, threads, stack)
            for what, rows in cells:
                calls = [Call(who, what, rows) for who in whose]
                found, state = interleaved(workers, calls, plan, threads, plan.cell_seconds)
                lines.append({"net": name, "threads": threads, **state, **compared(found, what, rows)})
    return lines


def few(bench: Bench, plan: Plan) -> list[Row]:
    """A few samples, all threads, against bare sessions."""
    lines, whose = [], (AFTER, AFTER_AGAIN, SINGLE, DEFAULT)
    with ExitStack() as stack:
        workers = opened(bench, whose, "all", stack)
        for rows in plan.few:
            calls = [Call(who, "encode", rows) for who in whose]
            found, state = interleaved(workers, calls, plan, "all", plan.few_seconds)
            lines.append({"net": bench.subject.name, "threads": "all", **state, **against_the_better(found, rows)})
    return lines


START = {
    "import": "import aeedge",
    "load": 'import aeedge\nmodel = aeedge.load(f"{folder}/float32.aeedge", variant="fp32")',
    "first latent": startup.FIRST_LATENT["aeedge"],
}


def starts(bench: Bench, plan: Plan) -> list[Row]:
    """Seconds and peak memory of fresh processes."""
    whose = (BEFORE, AGAIN, AFTER)
    asked = []
    for title, script in START.items():
        scripts = {
            who: f"sys.path.insert(0, {str(bench.wheels[who])!r})\nfolder = {str(bench.folders[who])!r}\n{script}"
            for who in whose
        }
        asked.append(startup.Question(title, scripts, bench.folders[AFTER], 0, None))
    lines = []
    for title, seen in startup.ask(asked, plan.start_rounds).items():
        found = {Call(who, title, 1): [one.seconds for one in seen[who]] for who in whose}
        memory = {who: statistics.median(one.peak_bytes for one in seen[who]) for who in whose}
        about = {"net": bench.subject.name, "threads": "all", "rounds": plan.start_rounds, "disturbed": None}
        lines.append(about | compared(found, title, 1) | {"peak_bytes": memory})
    return lines


# --- tables


def mark(row: Row) -> str:
    """The ratio, as the module's docstring says."""
    twice = "!" if row["outside"] else "?" if "later" in row else ""
    return ("~" if row["disturbed"] else "") + f"{row['ratio']:.3f}" + twice


def table(rows: Sequence[Row], unit: float = 1e-6, name: str = "µs") -> Table:
    """One line per cell."""
    head = ["network", "what", "samples", f"before, {name}", f"after, {name}", "after / before", "again / before"]
    lines = []
    for row in rows:
        seconds = [f"{row['seconds'][who] / unit:,.2f}" for who in (BEFORE, AFTER)]
        allowed = f"{row['limit']:.2f} + {row['noise']:.1%}"
        about = [row["net"], row["what"], f"{row['rows']:,}"]
        lines.append([*about, *seconds, mark(row), f"{row['control']:.3f}", allowed])
    return [*head, "allowed"], lines


def table_within(rows: Sequence[Row]) -> Table:
    """Ratios of ways to call."""
    lines = []
    for row in rows:
        before = "" if row["before"] is None else f"{row['before']:.3f}"
        lines.append([row["net"], row["what"], f"{row['rows']:,}", mark(row), f"{row['limit']:.3f}", before])
    return ["network", "ratio of times", "samples", "after", "allowed", "before"], lines


def table_bound(rows: Sequence[Row]) -> Table:
    """Microseconds of bound calls, one line per network; a sample is written first, but where it says "alone"."""
    alone = {row["net"]: row["alone"] for row in rows}
    names = list(dict.fromkeys(name for calls in alone.values() for name in calls))
    return ["network; µs", *names], [
        [net, *(f"{calls[name] * 1e6:.2f}" for name in names)] for net, calls in alone.items()
    ]


def table_of_sizes(rows: Sequence[Row]) -> Table:
    """One line per number of samples, and one column per network: the ratio, and in brackets the control."""
    nets = list(dict.fromkeys(row["net"] for row in rows))
    cells = {(row["rows"], row["net"]): f"{mark(row)} ({row['control']:.3f})" for row in rows}
    counts = sorted({row["rows"] for row in rows})
    return ["samples", *nets], [[f"{count:,}", *(cells.get((count, net), "") for net in nets)] for count in counts]


def outside(rows: Iterable[Row]) -> list[str]:
    """The marked cells, in words."""
    return [
        f"{row['net']}, {row['what']}, {row['rows']:,} samples, threads: {row['threads']}: {row['ratio']:.3f}"
        for row in rows
        if row["outside"]
    ]


def table_of_noise(result: Mapping[str, Sequence[Row]]) -> Table:
    """What the lack of a mark is worth: one line per part and number of threads; ratios without a control left out."""
    lines = []
    for part, rows in result.items():
        for threads in dict.fromkeys(row["threads"] for row in rows):
            cells = [row for row in rows if row["threads"] == threads and row["control"] is not None]
            noise = statistics.median(row["noise"] for row in cells)
            unmarked = sum(row["ratio"] > row["limit"] and not row["outside"] for row in cells)
            noisy = sum(row["noise"] > NOISY for row in cells)
            lines.append([part, threads, f"{len(cells)}", f"{noise:.1%}", f"{unmarked}", f"{noisy}"])
    return ["part", "threads", "cells", "noise", "above the limit, not marked !", f"noise above {NOISY:.0%}"], lines


def tables(result: Mapping[str, Sequence[Row]]) -> dict[str, Table]:
    """All tables of the parts that were measured."""
    found: dict[str, Table] = {}
    if "one" in result:
        ratios = [row for row in result["one"] if row["control"] is None]
        found["One thread"] = table([row for row in result["one"] if row["control"] is not None])
        found["Ways to call, one thread"] = table_within(ratios)
        found["Bound arrays, one sample, one thread"] = table_bound(ratios)
    for threads in ("one", "all"):
        for what in ("encode", "encode, int8"):
            if cells := [row for row in result.get("powers", ()) if (row["threads"], row["what"]) == (threads, what)]:
                found[f"{what}, threads: {threads}; after / before (again / before)"] = table_of_sizes(cells)
    if "few" in result:
        found["Few samples, threads: all; after / better bare session (again / after)"] = table_of_sizes(result["few"])
    if "startup" in result:
        found["Fresh processes"] = table(result["startup"], 1e-3, "ms")
    marked = [[text] for rows in result.values() for text in outside(rows)]
    found["Above the limit by more than the noise, twice"] = ["cell"], marked or [["none"]]
    found["Noise"] = table_of_noise(result)
    return found


# --- files


def unpacked(wheel: Path, folder: Path) -> Path:
    """The folder, with the wheel installed in it, without what it needs."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*pip, "--target", str(folder), str(wheel)], check=True)
    return folder


def prepared(subject: Subject, before: bool, folder: Path) -> Path:
    """The folder, with what by_version.py reads; for BEFORE with manifests that it understands as well."""
    folder.mkdir(parents=True)
    for name in ("rows.npz", "truth.npz", "encoder.onnx", "first.npy"):
        shutil.copyfile(subject.folder / name, folder / name)
    shutil.copytree(subject.bundle, folder / "float32.aeedge")
    if subject.of_bytes.exists():
        shutil.copytree(subject.of_bytes, folder / "bytes.aeedge")
    if before:
        for bundle in folder.glob("*.aeedge"):
            older(bundle / "manifest.json")
    return folder


def older(manifest: Path) -> None:
    """Add the key that `nonfinite_sentinels` was called before, a number of latents, and sign the manifest again."""
    document = json.loads(manifest.read_text(encoding="utf-8"))
    for variant in document["variants"].values():
        number = {"first": 1, "all": document["latent"]["size"]}.get(variant.get("nonfinite_sentinels", "none"))
        if number is not None:
            variant["telling_latents"] = number
    document["manifest_sha256"] = "0" * 64
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    manifest.write_text(text.replace("0" * 64, digest, 1), encoding="utf-8")


PARTS: dict[str, Callable[[Bench, Plan], list[Row]]] = {"one": one, "powers": powers, "few": few, "startup": starts}


def measured(benches: Sequence[Bench], parts: Sequence[str], plan: Plan) -> dict[str, list[Row]]:
    """Rows by part."""
    result = {}
    for part in parts:
        lines = []
        for bench in benches:
            if part != "startup" or bench.subject.name in plan.start_nets:
                progress(f"{part}: {bench.subject.name}")
                lines += PARTS[part](bench, plan)
        rows = judged(lines)
        for bench in benches:
            doubtful = [row for row in rows if row["outside"] and row["net"] == bench.subject.name]
            if doubtful:
                progress(f"{part}: {bench.subject.name}, {len(doubtful)} cells again")
                later = PARTS[part](bench, narrowed(plan, doubtful))
                rows = [confirmed(row, later) if row in doubtful else row for row in rows]
        result[part] = rows
    return result


def narrowed(plan: Plan, rows: Sequence[Row]) -> Plan:
    """The plan with the numbers of samples of these rows alone."""
    floats, of_bytes = (
        {row["rows"] for row in rows if (row["what"] == "encode, int8") == int8} for int8 in (False, True)
    )
    return plan._replace(
        powers=tuple(count for count in plan.powers if count in floats),
        bytes_powers=tuple(count for count in plan.bytes_powers if count in of_bytes),
        few=tuple(count for count in plan.few if count in floats),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path, help="a wheel")
    parser.add_argument("after", type=Path, help="another wheel")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of them, with commas between")
    parser.add_argument("--quick", action="store_true", help="few rounds and sizes: does everything work?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the numbers go besides results/")
    asked = parser.parse_args()
    wanted = asked.parts.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"--parts: expected some of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    if missing := [str(path) for path in (asked.before, asked.after) if not path.is_file()]:
        parser.error(
            f"expected two wheels, there is no {' and no '.join(missing)}; make one with: pip wheel --no-deps ."
        )
    parts, plan = [part for part in PARTS if part in wanted], QUICK if asked.quick else FULL
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "state").mkdir()
        os.environ["AEEDGE_STATE"] = str(scratch / "state")  # no tuned policies
        wheels = {BEFORE: unpacked(asked.before, scratch / "old"), AFTER: unpacked(asked.after, scratch / "new")}
        wheels |= {AGAIN: wheels[BEFORE], AFTER_AGAIN: wheels[AFTER]}
        with_bytes = BYTE_NETS if {"one", "powers"} & set(parts) else ()
        benches = []
        for subject in subjects(plan.nets, with_bytes, scratch):
            folders = {who: prepared(subject, who == BEFORE, scratch / who / subject.name) for who in (BEFORE, AFTER)}
            folders |= {AGAIN: folders[BEFORE], AFTER_AGAIN: folders[AFTER]}
            benches.append(Bench(subject, folders, wheels))
        try:
            result = measured(benches, parts, plan)
        except (WorkerError, field.WrongAnswerError) as error:
            raise SystemExit(f"a version cannot be measured: {error}") from None
    sources = {who: {"wheel": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
               for who, path in ((BEFORE, asked.before), (AFTER, asked.after))}  # fmt: skip
    kept = kept_as("versions", asked.quick, parts if len(parts) < len(PARTS) else ())
    publish_all(kept, {"machine": fingerprint(), "plan": plan._asdict(), **sources, **result}, tables(result))
    if asked.json:
        shutil.copyfile(RESULTS / f"{kept}.json", asked.json)


if __name__ == "__main__":
    main()
