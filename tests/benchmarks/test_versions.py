"""Two versions in one run: ratios stay within a round, and noise is no slowdown."""

import hashlib
import json

import pytest
import versions
from comparison.contenders import Entry
from comparison.processes import Worker
from versions import AFTER, AGAIN, BARE, BEFORE, DEFAULT, SINGLE, Call


def cell(ratio, control=1.0, limit=1.02, **about):
    """A row as a part returns it."""
    row = {"net": "deep", "threads": "one", "what": "encode", "rows": 1, "ratio": ratio, "control": control}
    return row | {"limit": limit, "disturbed": None, "seconds": {BEFORE: 1e-5, AFTER: ratio * 1e-5}} | about


def test_a_ratio_is_of_the_same_round_and_of_both_processes_before():
    found = {Call(BEFORE, "encode", 1): [1.0, 10.0, 1.0], Call(AGAIN, "encode", 1): [4.0, 40.0, 4.0]}
    found[Call(AFTER, "encode", 1)] = [1.0, 20.0, 2.0]
    row = versions.compared(found, "encode", 1)
    assert row["ratio"] == pytest.approx(1.0)  # 2, 20 and 2 are the geometric means before
    assert row["control"] == pytest.approx(4.0)
    assert row["seconds"] == {BEFORE: 1.0, AGAIN: 4.0, AFTER: 2.0}


def test_few_samples_are_compared_with_the_better_bare_session():
    seconds = {AFTER: 1.0, versions.AFTER_AGAIN: 1.0, SINGLE: 2.0, DEFAULT: 0.5}
    row = versions.against_the_better({Call(who, "encode", 8): [value] * 3 for who, value in seconds.items()}, 8)
    assert (row["peer"], row["ratio"], row["limit"]) == (DEFAULT, pytest.approx(2.0), 1.05)


def test_ways_to_call_are_compared_with_the_plain_call():
    seconds = {
        (BEFORE, "encode"): 1.0,
        (AFTER, "encode"): 2.0,
        (BEFORE, "encode, float64"): 3.0,
        (AFTER, "encode, float64"): 2.5,
        (AFTER, "bind, encode"): 1.2,
        (BARE, "encode"): 1.0,
    }
    rows = versions.within({Call(*key, 1): [value] * 3 for key, value in seconds.items()})
    assert [(row["what"], row["ratio"], row["before"], row["limit"]) for row in rows] == [
        ("encode, float64 / encode", pytest.approx(1.25), pytest.approx(3.0), 1.35),
        ("bind, encode / bound onnxruntime", pytest.approx(1.2), None, pytest.approx(3.3 / 2.65)),
    ]


def test_a_cell_is_outside_where_it_is_above_its_limit_by_more_than_the_noise():
    rows = [cell(1.03), cell(1.019), cell(1.5, limit=1.6), cell(0.9, limit=0.65), cell(1.05, control=1 / 1.04)]
    assert [row["outside"] for row in versions.judged(rows[:4])] == [True, False, False, True]
    alone = versions.judged(rows[4:])[0]
    assert alone["noise"] == pytest.approx(0.04)
    assert not alone["outside"]


def test_noise_is_that_of_most_cells_with_as_many_threads():
    quiet, loud = [cell(1.03) for _ in range(3)], [cell(1.03, 1.1, threads="all") for _ in range(3)]
    found = versions.judged([*quiet, *loud, cell(1.03, threads="all")])
    assert [row["outside"] for row in found] == [True] * 3 + [False] * 4
    assert found[-1]["noise"] == pytest.approx(0.1)  # although its own control is 1
    ratio = versions.judged([*loud, cell(1.3, None, 1.2, threads="all")])[-1]
    assert (ratio["noise"], ratio["outside"]) == (0.0, True)


@pytest.mark.parametrize(("later", "outside"), [(1.2, True), (1.0, False)])
def test_a_cell_stays_outside_if_it_is_so_again(later, outside):
    (row,) = versions.judged([cell(1.1)])
    found = versions.confirmed(row, [cell(5.0, rows=64), cell(later)])
    assert found["outside"] is outside
    assert found["later"]["ratio"] == later
    assert versions.mark(found) == f"1.100{'!' if outside else '?'}"
    assert versions.outside([found]) == ["deep, encode, 1 samples, threads: one: 1.100"] * outside


def test_only_cells_in_doubt_are_measured_again():
    plan = versions.narrowed(versions.FULL, [cell(1.1, rows=64), cell(1.1, what="encode, int8", rows=1024)])
    assert (plan.powers, plan.bytes_powers, plan.few) == ((64,), (1024,), (64,))


def test_tables_show_ratio_control_and_marks():
    rows = versions.judged([cell(1.1), cell(1.0, rows=64, disturbed="other processes used 90% of a CPU")])
    found = versions.tables({"powers": rows})
    head, lines = found["encode, threads: one; after / before (again / before)"]
    assert (head, lines) == (["samples", "deep"], [["1", "1.100! (1.000)"], ["64", "~1.000 (1.000)"]])
    assert found["Above the limit by more than the noise, twice"][1] == [
        ["deep, encode, 1 samples, threads: one: 1.100"]
    ]
    ratio = cell(1.5, None, 1.2, before=2.0, alone={"after: bind, encode": 3e-6})
    found = versions.tables({"one": versions.judged([*rows, ratio])})
    assert found["One thread"][1][0] == ["deep", "encode", "1", "10.00", "11.00", "1.100!", "1.000", "1.02 + 0.0%"]
    assert found["Ways to call, one thread"][1] == [["deep", "encode", "1", "1.500!", "1.200", "2.000"]]
    assert found["Bound arrays, one sample, one thread"][1] == [["deep", "3.00"]]


def test_a_noisy_run_shows_how_little_it_proves():
    quiet = versions.judged([cell(1.0), cell(1.03, 1.02)])
    noisy = versions.judged([cell(1.4, 2.0, threads="all"), cell(1.3, None, 1.2, threads="all", before=None, alone={})])
    head, lines = versions.table_of_noise({"powers": quiet, "one": noisy})
    assert head[-2:] == ["above the limit, not marked !", "noise above 5%"]
    assert [line[:3] + line[4:] for line in lines] == [["powers", "one", "2", "1", "0"], ["one", "all", "1", "1", "1"]]
    assert lines[1][3] == "100.0%"
    assert versions.tables({"one": noisy})["Noise"][1] == [lines[1]]


def test_the_older_key_is_added_and_the_manifest_signed(tmp_path):
    path = tmp_path / "manifest.json"
    variants = {"a": {"nonfinite_sentinels": "first"}, "b": {"nonfinite_sentinels": "all"}, "c": {}}
    path.write_text(json.dumps({"manifest_sha256": "", "latent": {"size": 32}, "variants": variants}))
    versions.older(path)
    text = path.read_text()
    document = json.loads(text)
    assert [variant.get("telling_latents") for variant in document["variants"].values()] == [1, 32, None]
    found = document["manifest_sha256"]
    assert found == hashlib.sha256(text.replace(found, "0" * 64).encode()).hexdigest()


def test_calls_of_one_process_take_turns(folder):
    entry = Entry("versatile", "fake_versatile", {}, ("numpy",))
    plan = versions.QUICK._replace(rounds=2, turn=0.02)
    fast, slow = Call("versatile", "fast", 4), Call("versatile", "slow", 4)
    with Worker(entry, folder, "one") as worker:
        found, state = versions.interleaved({"versatile": worker}, [fast, slow], plan, "one")
    assert state["rounds"] == 2
    assert found[slow] == pytest.approx([0.01] * 2, rel=0.1)
    assert found[fast] == pytest.approx([1e-5] * 2, rel=0.1)
