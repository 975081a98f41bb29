"""How does the runtime fail? Thousands of attacks on a checkout of aeedge, each try with a limit of time and memory.

    python benchmarks/robustness.py                              # this checkout; results/robustness-after.json
    python benchmarks/robustness.py --tree ../old --as before    # another one
    python benchmarks/robustness.py graph forgery                # some attacks; nothing is written
    python benchmarks/robustness.py --table                      # for docs/concepts/robustness.md, from the results

Takes some ten minutes on two CPUs. Seeds are fixed; when a signal arrives, and what memory holds, are not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from common import RESULTS, progress

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))  # the helpers of the tests write ONNX by hand

from attacks.outcomes import CRASH, HANG, LEFT, MISLEADING, OUTCOMES, RIGHT, TYPED, UNTYPED, WRONG
from attacks.registry import ATTACKS
from attacks.workers import outcomes

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "concepts" / "robustness.md"
BEGIN, END = "<!-- the table, written by benchmarks/robustness.py -->", "<!-- end of the table -->"
SHOWN = (TYPED, RIGHT, MISLEADING, UNTYPED, WRONG, LEFT, HANG, CRASH)
_EXAMPLES = 4


def attacked(tree: Path, name: str) -> dict[str, Any]:
    """All tries of one attack: how many had which outcome, and some examples of each."""
    attack, counts, words = ATTACKS[name], Counter[str](), dict[str, list[str]]()
    begin = time.monotonic()
    for index, found in outcomes(tree, name, range(attack.tries), attack.seconds):
        counts[found.name] += 1
        examples = words.setdefault(found.name, [])
        if found.name not in (RIGHT, TYPED) and len(examples) < _EXAMPLES:
            examples.append(f"{index}: {found.detail}")
    seconds = round(time.monotonic() - begin, 1)
    progress(f"{name}: {dict(counts)}, {seconds:.0f} s")
    told = {each: examples for each, examples in words.items() if examples}
    return {"title": attack.title, "tries": attack.tries, "seconds": seconds, "outcomes": counts, "examples": told}


def commit(tree: Path) -> str:
    """The commit of a checkout."""
    line = ["git", "-C", str(tree), "describe", "--always", "--dirty"]
    return subprocess.run(line, capture_output=True, text=True, check=False).stdout.strip()


def table(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Attacks in rows, outcomes in columns, before → after."""
    lines = [
        "| attack | tries | " + " | ".join(SHOWN) + " |",
        "|---|---|" + "---|" * len(SHOWN),
    ]
    for name, attack in ATTACKS.items():
        old, new = before["attacks"].get(name), after["attacks"].get(name)
        tries = (new or old or {"tries": attack.tries})["tries"]
        cells = [_cell(old, new, each) for each in SHOWN]
        lines.append(f"| {attack.title} | {tries} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(old: dict[str, Any] | None, new: dict[str, Any] | None, name: str) -> str:
    a, b = ("–" if run is None else run["outcomes"].get(name, 0) for run in (old, new))
    return "" if a == b == 0 else f"{a} → {b}"


def rewrite() -> None:
    """Put the table of the stored results into docs/concepts/robustness.md."""
    text = PAGE.read_text(encoding="utf-8")
    before, after = (json.loads((RESULTS / f"robustness-{name}.json").read_text()) for name in ("before", "after"))
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    PAGE.write_text(f"{head}{BEGIN}\n\n{table(before, after)}\n\n{END}{tail}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", choices=[*ATTACKS, []], help="some attacks; all by default")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout that is attacked")
    parser.add_argument("--as", dest="name", default="after", help="name of the result")
    parser.add_argument("--table", action="store_true", help="write the table of the stored results")
    given = parser.parse_args()
    if given.table:
        rewrite()
        return
    tree = given.tree.resolve()
    found = {name: attacked(tree, name) for name in given.attacks or ATTACKS}
    document = {"commit": commit(tree), "python": sys.version.split()[0], "meaning": OUTCOMES, "attacks": found}
    if given.attacks:
        print(json.dumps(found, indent=1))
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"robustness-{given.name}.json").write_text(json.dumps(document, indent=1) + "\n")
    progress(f"written to benchmarks/results/robustness-{given.name}.json")


if __name__ == "__main__":
    main()
