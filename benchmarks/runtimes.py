"""The runtime comparison: which runtime encodes fastest, with the same outputs? One process each, interleaved.

Five networks, batches of 1 to 16 384 samples, one thread and all; beside time: quality, cold start, memory, installed
size, and the share of the machine's roofline. The full run writes benchmarks/results/runtimes.jsonl, from which
runtimes.md and the pictures (also those in docs/images) are generated; `--tables` repeats that without measuring.

    python benchmarks/runtimes.py [--quick] [--workload deep ...] [--contender aeedge ...] [--out FOLDER] [--tables]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from common import RESULTS, fingerprint
from comparison import pictures, run, tables
from comparison.field import WrongAnswerError
from comparison.records import Records

IMAGES = Path(__file__).parent.parent / "docs" / "images"
PACKAGES = ("torch", "openvino", "ai-edge-litert", "scikit-learn")
NAME = "runtimes"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer networks, batches and rounds; under two minutes")
    parser.add_argument("--workload", nargs="+", choices=run.ALL, default=[], help="only these networks")
    parser.add_argument("--contender", nargs="+", default=[], help="only contenders whose names begin with this")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for results")
    parser.add_argument(
        "--tables", action="store_true", help="measure nothing; rewrite tables and pictures of the full run"
    )
    return parser.parse_args()


def report(records: Records, out: Path, name: str) -> None:
    """Tables and pictures; those of the full run also for the README."""
    tables.write(records, out / f"{name}.md")
    pictures.write(records, out, name)
    if name == NAME and out == RESULTS:
        pictures.write_headlines(records, IMAGES)


def measure(asked: argparse.Namespace) -> None:
    began = time.monotonic()

    def log(step: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {step}", file=sys.stderr, flush=True)

    settings = run.QUICK if asked.quick else run.FULL
    settings = settings._replace(wanted=tuple(asked.contender))
    if asked.workload:
        settings = settings._replace(workloads=tuple(asked.workload))
    whole = settings == run.FULL
    name = NAME if whole else f"{NAME}-quick" if asked.quick else f"{NAME}-partial"
    kept = asked.out / f"{NAME}-partial.jsonl"  # results so far; only a finished full run gets the full name
    records = Records()
    records.add("machine", **fingerprint(*PACKAGES))
    records.add("settings", quick=asked.quick, workloads=settings.workloads, **settings.plan._asdict())
    try:
        run.compare(settings, records, log, lambda: records.write(kept))
    except KeyboardInterrupt:
        records.add("interrupted")
        records.write(kept)
        sys.exit(f"\ninterrupted; what was measured is in {kept}")
    except WrongAnswerError as error:
        sys.exit(str(error))
    kept.unlink(missing_ok=True)
    records.write(asked.out / f"{name}.jsonl")
    report(records, asked.out, name)
    log(f"done: {asked.out / name}.md")
    print(tables.headline(records))


def main() -> None:
    asked = arguments()
    if asked.tables:
        report(Records.read(asked.out / f"{NAME}.jsonl"), asked.out, NAME)
    else:
        measure(asked)


if __name__ == "__main__":
    main()
