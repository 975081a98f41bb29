"""The attacks: what each outcome is told by, and that the page about them is up to date."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import robustness
from attacks import forgeries, graphs, workers
from attacks.outcomes import CRASH, HANG, MISLEADING, OUTCOMES, RIGHT, TYPED, UNTYPED, WRONG, outcome
from attacks.registry import ATTACKS

import aeedge

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "concepts" / "robustness.md").read_text(encoding="utf-8")


def raising(error):
    raise error


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: 1, RIGHT),
        (lambda: 2, WRONG),
        (lambda: raising(aeedge.InputError("a sentence")), TYPED),
        (lambda: raising(MemoryError()), TYPED),
        (lambda: raising(aeedge.BundleError("upgrade onnxruntime")), MISLEADING),
        (lambda: raising(KeyError("x")), UNTYPED),
        (lambda: raising(KeyboardInterrupt()), UNTYPED),
    ],
)
def test_what_an_outcome_is_called(call, expected):
    assert outcome(call, lambda found: found == 1, ["upgrade"]).name == expected


ATTACK = """
import os, time
from attacks import registry
from attacks.outcomes import Outcome
def attempt(index, folder):
    (folder / "file").touch()
    if index == 1: os.abort()
    if index == 2: time.sleep(600)
    return Outcome("right", str(folder / "file"))
registry.ATTACKS["fake"] = registry.Attack("", attempt, 4)
from attacks.workers import main
main()
"""


def test_a_process_that_crashes_or_hangs_is_followed_by_another(monkeypatch):
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda line, **named: real([sys.executable, "-c", ATTACK], **named))
    attempt = workers.Worker.attempt  # only the one that hangs has little time, however slow the machine is
    limits = {2: 0.5}
    monkeypatch.setattr(
        workers.Worker, "attempt", lambda self, name, index, seconds: attempt(self, name, index, limits.get(index, 60))
    )
    found = dict(workers.outcomes(ROOT, "fake", range(4), 60))
    assert [found[index].name for index in range(4)] == [RIGHT, CRASH, HANG, RIGHT]
    assert found[0].detail == "file"


SHARES = {  # every which try is made here; the others take a process each, or depend on how much memory there is
    **{"flipped": 40, "forgery": 1, "graph": 7, "manifest": 25, "record": 20, "replaced": 40, "call": 40, "load": 40},
    **{"damaged": 40, "file": 5, "array": 1, "race": 10},
}


@pytest.mark.skipif(sys.platform != "linux", reason="limits and signals of Linux")
@pytest.mark.parametrize(("name", "every"), SHARES.items())
def test_a_share_of_the_attacks_ends_in_a_right_result_or_one_sentence(name, every):
    tries = range(0, ATTACKS[name].tries, every)
    found = dict(workers.outcomes(ROOT, name, tries, 60.0))
    assert len(found) == len(tries)
    assert not {index: end for index, end in found.items() if end.name not in (RIGHT, TYPED)}


def test_there_are_as_many_as_were_promised():
    assert len(forgeries.TRICKS) >= 40
    assert len(graphs.GRAPHS) >= 100
    assert len({name for name, _ in forgeries.TRICKS}) == len(forgeries.TRICKS)
    assert len({made() for _, made in graphs.GRAPHS}) > 0.95 * len(graphs.GRAPHS)


def test_the_committed_results_are_of_all_attacks_and_the_table_is_up_to_date():
    runs = [json.loads((robustness.RESULTS / f"robustness-{name}.json").read_text()) for name in ("before", "after")]
    for run in runs:
        assert list(run["attacks"]) == list(ATTACKS)
        for attack in run["attacks"].values():
            assert sum(attack["outcomes"].values()) == attack["tries"]
            assert set(attack["outcomes"]) <= set(OUTCOMES)
    assert robustness.table(*runs) in PAGE, (
        "docs/concepts/robustness.md is stale; run: python benchmarks/robustness.py --table"
    )


def test_each_test_that_the_page_names_exists():
    named = set(re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE))
    assert len(named) > 40
    for file, test in named:
        assert re.search(rf"^def {test}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.M), (file, test)
