"""aeedge tune: what it chooses, where it keeps it, and what load makes of it."""

import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.tampering import change_golden

import aeedge
from aeedge import autotune
from aeedge.cli.group import AeedgeGroup
from aeedge.runtime import policy_store
from aeedge.runtime.policy import SERIAL, DispatchPolicy
from aeedge.system import conditions, limits

DATA = Path(__file__).parent.parent / "data"
INT8 = DATA / "bundle_v1_int8"


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """A folder for device state, and short measurements."""
    monkeypatch.setenv("AEEDGE_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(autotune, "_ROUNDS", 1)
    monkeypatch.setattr(autotune, "_TURN_SECONDS", 0.0005)
    monkeypatch.setattr(autotune, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(autotune, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(autotune, "_BULK_US", 2000.0)
    monkeypatch.setattr(autotune.conditions, "judge", lambda before, after: [])  # whatever else runs beside the tests
    return tmp_path / "state"


def record(**changes):
    policy = SERIAL._replace(block_us=123.0, max_rows=7)
    given = policy_store.TunedPolicy("latency", "fp32", 1, policy, {"encode": 1.5}, {"rejected": {}})
    return given._replace(**changes)


def policy(model):
    """How a model's calls are run."""
    return model._dispatcher.policy


def identity(path):
    with aeedge.load(path, variant="fp32", threads=1) as model:
        return model.manifest.id


def call(*arguments):
    return CliRunner().invoke(AeedgeGroup.build(), ["tune", *map(str, arguments)])


def test_what_is_kept_is_used(state):
    before = {path.name: path.read_bytes() for path in INT8.iterdir()}
    result = call(INT8, "--for", "throughput")
    assert result.exit_code == 0, result.output
    [kept] = (state / "tuned").iterdir()
    assert f"kept in {kept}" in result.output
    with aeedge.load(INT8) as model:
        found = policy_store.read(model.manifest.id)
        assert model.choices["variant"] == f"{found.variant}: tuned on this device for throughput"
        assert (model.variant, model.threads, policy(model)) == (found.variant, found.threads, found.policy)
        assert set(found.row_us) == set(model.methods)
    assert {path.name: path.read_bytes() for path in INT8.iterdir()} == before
    assert max(map(len, result.output.splitlines()[:-1])) <= 80


def test_memory_takes_the_smallest_variant_one_thread_and_small_blocks():
    found = autotune.autotune(str(INT8), "memory").tuned
    assert (found.variant, found.threads) == ("int8", 1)
    assert found.policy == SERIAL._replace(max_rows=64)


def test_what_is_asked_for_wins_over_what_was_tuned():
    policy_store.write(identity(INT8), record())
    with aeedge.load(INT8) as model:
        assert (model.variant, model.threads, policy(model).max_rows) == ("fp32", 1, 7)
    with aeedge.load(INT8, variant="fp32", threads=1) as model:
        assert policy(model).block_us == 123.0
    with aeedge.load(INT8, variant="int8") as model:
        assert (model.variant, policy(model)) == ("int8", DispatchPolicy())
    with aeedge.load(INT8, threads=2) as model:
        assert (model.variant, model.threads, policy(model)) == ("int8", 2, DispatchPolicy())
    with aeedge.load(INT8, memory_limit_mb=200) as model:
        assert "memory allow" in model.choices["threads"]


@pytest.mark.parametrize("what", ["processor", "cpu_count", "runtime_version"])
def test_it_is_not_used_on_another_machine(monkeypatch, what):
    policy_store.write(identity(INT8), record())
    answers = {"processor": ("Z80", set()), "cpu_count": 1 + os.cpu_count(), "runtime_version": "1.99.0"}
    if what == "cpu_count":
        monkeypatch.setattr(policy_store, "allowed_cpus", lambda: tuple(range(99)))
    monkeypatch.setattr(policy_store, what, lambda: answers[what])
    assert policy_store.read(identity(INT8)) is None


def test_records_of_other_machines_and_bundles_stay(monkeypatch, state):
    first, second = identity(INT8), identity(DATA / "bundle_v1")
    policy_store.write(first, record())
    policy_store.write(second, record())
    monkeypatch.setattr(policy_store, "processor", lambda: ("Z80", set()))
    policy_store.write(first, record(objective="memory"))
    assert policy_store.read(first).objective == "memory"
    monkeypatch.undo()
    monkeypatch.setenv("AEEDGE_STATE", str(state))
    assert policy_store.read(first) == policy_store.read(second) == record()


def test_results_do_not_depend_on_what_was_tuned():
    pixels = np.random.default_rng(0).integers(0, 256, (3000, 1, 16, 16), dtype=np.uint8)
    with aeedge.load(INT8, variant="int8") as model:
        expected = model.encode(pixels)
    for tuned in (
        DispatchPolicy(0.0, math.inf),
        DispatchPolicy(math.inf, 0.0, block_us=1.0),
        DispatchPolicy(math.inf, math.inf, max_rows=3),
        DispatchPolicy(single_on_pool=True),
    ):
        policy_store.write(identity(INT8), record(variant="int8", threads=2, policy=tuned))
        with aeedge.load(INT8) as model:
            assert policy(model) == tuned
            assert np.array_equal(model.encode(pixels), expected)
            assert np.array_equal(model.encode(pixels[0]), expected[0])
            assert np.array_equal(model.encode(pixels[:100]), expected[:100])


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-20],
        lambda text: text.replace('"threads": 1', '"threads": 0'),
        lambda text: text.replace('"threads": 1', '"threads": "many"'),
        lambda text: text.replace('"block_us": 123.0', '"block_us": -1'),
        lambda text: text.replace('"policy"', '"other"'),
        lambda text: text.replace('"objective": "latency"', '"objective": "beauty"'),
        lambda text: text.replace('"encode": 1.5', '"encode": 0'),
        lambda text: text.replace('"max_rows": 7', '"max_rows": null'),
        lambda text: text.replace('"max_rows": 7', '"max_rows": 1e300'),
        lambda text: text.replace('"max_rows": 7', '"max_rows": true'),
        lambda text: text.replace('"max_rows": 7', '"max_rows": "7"'),
        lambda text: text.replace('"max_rows": 7', '"most_rows": 7'),
        lambda text: text.replace('"encode": 1.5', '"encode": 1e-320'),
        lambda text: text.replace('"encode": 1.5', '"encode": NaN'),
        lambda text: text.replace('"encode": 1.5', '"encode": 1e999'),
        lambda text: text.replace('"encode": 1.5', '"encode": ' + "9" * 400),
        lambda text: text.replace('"encode": 1.5', '"encode": ' + "9" * 5000),
        lambda text: text.replace('"encode": 1.5', '"encode": null'),
        lambda text: text.replace('"encode": 1.5', '"encode": "1.5"'),
        lambda text: text.replace('"block_us": 123.0', '"block_us": 1e999'),
        lambda text: text.replace('"block_us": 123.0', '"block_us": [1]'),
        lambda text: text.replace('"block_us": 123.0', '"block_us": true'),
        lambda text: text.replace('"single_on_pool": false', '"single_on_pool": "no"'),
        lambda text: text.replace('"variant": "fp32"', '"variant": 5'),
        lambda text: text.replace('"threads": 1', '"threads": 1.5'),
        lambda text: text.replace('"threads": 1', '"threads": 1000000000'),
        lambda text: text.replace('"objective": "latency"', '"objective": ["latency"]'),
        lambda text: text.replace('"objective": "latency"', '"objective": "\\u001b[31m"'),
        lambda text: text.replace('"measurements": {', '"measurements": 5, "other": {'),
        lambda text: text.replace('"format": 2', '"format": 2, "x": ' + "[" * 10**5 + "]" * 10**5),
        lambda text: text.replace('"records"', '"others"'),
        lambda text: " " * 2**24 + text,
        lambda text: text.encode("utf-16").decode("latin-1"),
        lambda text: "[]",
    ],
)
def test_a_damaged_record_is_not_used_with_a_warning(damage):
    path = Path(policy_store.write(identity(INT8), record()))
    path.write_text(damage(path.read_text()))
    with pytest.warns(UserWarning, match="not a record that 'aeedge tune' wrote") as said, aeedge.load(INT8) as model:
        assert policy(model) == DispatchPolicy()
    assert [warning.filename for warning in said] == [__file__]


def test_a_record_of_a_newer_format_is_left_alone():
    path = Path(policy_store.write(identity(INT8), record()))
    path.write_text(
        path.read_text().replace(f'"format": {policy_store.FORMAT}', f'"format": {policy_store.FORMAT + 1}')
    )
    assert policy_store.read(identity(INT8)) is None


def test_a_variant_that_is_wrong_here_is_not_chosen(tmp_path):
    import shutil

    path = Path(shutil.copytree(INT8, tmp_path / "cam.aeedge"))
    change_golden(path, "int8.latent", (3, 0), 1000.0)
    found = autotune.autotune(str(path), "memory").tuned
    assert found.variant == "fp32"
    assert "int8 is not right on this machine" in found.measurements["rejected"]["int8"]


def test_a_tuned_variant_that_became_wrong_falls_back_as_ever(tmp_path):
    import shutil

    path = Path(shutil.copytree(INT8, tmp_path / "cam.aeedge"))
    policy_store.write(identity(path), record(variant="int8"))
    change_golden(path, "int8.latent", (3, 0), 1000.0)
    with pytest.warns(UserWarning, match="fp32 is used instead"), aeedge.load(path) as model:
        assert (model.variant, policy(model)) == ("fp32", model._dispatcher.default_policy)


def test_without_a_clear_winner_the_default_stays():
    times = {"fp32": 1.0, "int8": 0.95}
    assert autotune._clear_winner(times, "fp32") == "fp32"
    assert autotune._clear_winner({"fp32": 1.0, "int8": 0.80}, "fp32") == "int8"


def cutoffs(monkeypatch, times, row_us):
    """What is chosen where a route takes this long for a number of rows."""
    monkeypatch.setattr(autotune, "_run_as", lambda subject, policy, row_us, rows: None)
    monkeypatch.setattr(autotune, "_measured", lambda calls: {(size, name): times[name](size) for size, name in calls})
    subject = SimpleNamespace(
        model=SimpleNamespace(threads=2), dispatcher=SimpleNamespace(default_policy=DispatchPolicy())
    )
    return autotune._cutoffs(subject, np.zeros((1024, 1)), {"encode": row_us}, 1.0)


def test_cutoffs_follow_the_times(monkeypatch):
    """The pool wins from 8 rows on, worker threads from 64 rows on; a single row is measured, and has no cutoff."""
    times = {"serial": lambda n: n, "pool": lambda n: 4 + n / 2, "workers": lambda n: 20 + n / 4}
    found, by_rows = cutoffs(monkeypatch, times, 100.0)
    assert 8 * 100 / 1.5 < found.pool_from_us < 16 * 100
    assert 64 * 100 / 1.5 < found.workers_from_us < 128 * 100
    assert by_rows["64"].keys() == {"serial", "pool", "workers"}
    assert by_rows["1"] == {"serial": 1e6, "pool": 4.5e6}


def test_worker_threads_are_not_chosen_for_fewer_rows_than_were_tried(monkeypatch):
    """With blocks of 1 µs nobody tries them with 2 rows."""
    times = {"serial": lambda n: n, "pool": lambda n: n / 2, "workers": lambda n: n / 4}
    found, by_rows = cutoffs(monkeypatch, times, 0.7)
    assert "workers" not in by_rows["2"]
    assert "workers" in by_rows["4"]
    assert 2 * 0.7 < found.workers_from_us < 4 * 0.7


@pytest.mark.parametrize(("slower", "kept"), [(1.05, True), (1.3, False)])
def test_the_default_cutoffs_go_if_they_are_clearly_slower_at_one_size(monkeypatch, slower, kept):
    default = DispatchPolicy()

    def pool(n):  # alike with the calling thread, but at one size that the default gives to the pool
        return n * slower if n == 4 else n

    found, _ = cutoffs(monkeypatch, {"serial": lambda n: n, "pool": pool, "workers": lambda n: n}, 10.0)
    assert default.pool_from_us < 4 * 10.0
    same = (found.pool_from_us, found.workers_from_us) == (default.pool_from_us, default.workers_from_us)
    assert same == kept


@pytest.mark.parametrize(
    ("share", "objective", "pooled"), [(0.5, "latency", True), (0.97, "latency", False), (0.5, "memory", False)]
)
def test_a_single_row_goes_to_the_pool_where_that_is_clearly_faster(monkeypatch, share, objective, pooled):
    def measured(calls):
        return {name: share if name == (1, "pool") else 1.0 for name in calls}

    monkeypatch.setattr(autotune, "_measured", measured)
    found = autotune.autotune(str(DATA / "bundle_v1"), objective, threads=2).tuned
    assert found.policy.single_on_pool == pooled
    single = found.measurements.get("route_us", {}).get("1", {})
    assert single.get("pool") == (None if objective == "memory" else share * 1e6)


def test_the_route_of_a_single_row_changes_with_the_policy(monkeypatch, four_cpus):
    """Contenders share a model."""
    with aeedge.load(DATA / "bundle_v1", threads=2) as model:
        rows, sessions, used = model.golden_rows(), model._dispatcher._sessions, []
        subject = autotune._Subject(model, model._dispatcher)
        for policy in (autotune._POOL, SERIAL, autotune._POOL):
            run, given = autotune._run_as(subject, policy, {}, rows[:1])
            run(given)  # makes the fast path, where there is none yet
            idle = [sessions.method("encode", pooled=pooled).arrays.idle[1] for pooled in (False, True)]
            for sets in idle:
                sets.clear()
            run(given)
            used.append([bool(sets) for sets in idle])
        assert used == [[False, True], [True, False], [False, True]]


def busy_machine(monkeypatch):
    finding = conditions.Finding("invalid", "other_load", "other processes used 77% of the CPU time")
    monkeypatch.setattr(autotune.conditions, "judge", lambda before, after: [finding])


def test_a_result_of_a_busy_machine_is_shown_and_not_kept(monkeypatch, state):
    busy_machine(monkeypatch)
    result = call(DATA / "bundle_v1", "--for", "memory")
    assert result.exit_code == 1
    assert "other processes used 77% of the CPU time" in result.output
    assert "not kept, INVALID" in result.output
    document = json.loads(call(DATA / "bundle_v1", "--for", "memory", "--json").output)
    assert (document["status"], document["path"], document["findings"][0]["code"]) == ("invalid", None, "other_load")
    assert not state.exists()


def test_the_table_shows_what_decided_and_the_route_that_is_taken(monkeypatch):
    times = {"serial": lambda n: 10.0 * n, "pool": lambda n: 6.0 * n, "workers": lambda n: 9.0 * n}

    def measured(calls):
        return {name: times[name[1]](name[0]) * 1e-6 if isinstance(name, tuple) else 1e-5 for name in calls}

    monkeypatch.setattr(autotune, "_measured", measured)
    monkeypatch.setattr(autotune, "_row_us", lambda subject: dict.fromkeys(subject.model.methods, 10.0))
    lines = call(DATA / "bundle_v1", "--threads", "2").output.splitlines()
    assert any("intra-op pool" in line and "one row and from 2" in line for line in lines)
    table = [line.split() for line in lines[lines.index("") :] if line[:1].isdigit()]
    assert table[0] == ["1", "10.0", "6.0", "pool"]
    assert all(row[-1] == "pool" for row in table)


def test_variants_are_compared_as_they_are_loaded(monkeypatch):
    """The time of a row is measured on one thread before: that must not stay for one of them."""
    seen = {}

    def measured(calls):
        for name, (call, rows) in calls.items():
            if name in ("fp32", "int8"):
                call(rows)
                seen.setdefault(name, set()).add(subjects[name].dispatcher.policy)
        return dict.fromkeys(calls, 1.0)

    subjects, _ = autotune._usable(str(INT8), "auto", 2, lambda text: None)
    monkeypatch.setattr(autotune, "_measured", measured)
    autotune._fastest(subjects, "throughput", lambda text: None)
    assert seen == {name: {subject.dispatcher.default_policy} for name, subject in subjects.items()}
    for subject in subjects.values():
        subject.model.close()


def test_one_variant_alone():
    found = autotune.autotune(str(INT8), "latency", variant="fp32").tuned
    assert (found.variant, set(found.measurements["bulk_us"])) == ("fp32", {"fp32"})
    result = call(DATA / "bundle_v1", "--variant", "int8")
    assert result.exit_code == 1
    assert "expected variant 'int8', but it holds fp32" in result.output


def test_json_holds_what_decided():
    document = json.loads(call(INT8, "--json").output)
    assert (document["schema"], document["status"]) == ("aeedge-tune/1", "kept")
    assert document["objective"] == "latency"
    assert {"fp32", "int8"} <= set(document["measurements"]["single_us"])
    assert Path(document["path"]).is_file()


def test_forget(state):
    assert "nothing was kept" in call(INT8, "--forget").output
    policy_store.write(identity(INT8), record())
    assert "removed" in call(INT8, "--forget").output
    assert policy_store.read(identity(INT8)) is None


def test_where_it_is_kept(monkeypatch, tmp_path):
    monkeypatch.delenv("AEEDGE_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "x"))
    assert limits.state_folder() == str(tmp_path / "x" / "aeedge")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # the specification says to ignore it
    monkeypatch.setenv("HOME", str(tmp_path))
    assert limits.state_folder() == str(tmp_path / ".local" / "state" / "aeedge")
    monkeypatch.delenv("HOME")
    assert limits.state_folder() is None
    result = call(INT8)
    assert result.exit_code == 2
    assert "set one" in result.output
    with aeedge.load(INT8) as model:  # which needs no home
        assert model.choices["calls"].startswith("not tuned")


def test_a_folder_that_cannot_be_written(state):
    state.write_text("a file")
    result = call(INT8, "--for", "memory")
    assert result.exit_code == 2
    assert "set AEEDGE_STATE to a folder you may write to" in result.output
    with aeedge.load(INT8) as model:
        assert model.choices["calls"].startswith("not tuned")


def test_the_file_can_be_read_by_other_users(state):
    policy_store.write(identity(INT8), record())
    [path] = (state / "tuned").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_another_objective_is_refused():
    with pytest.raises(aeedge.InputError, match="objective: expected latency, throughput, memory, got 'beauty'"):
        autotune.autotune(str(INT8), "beauty")
    assert call(INT8, "--for", "beauty").exit_code == 2


def test_loading_does_not_import_autotune():
    code = f"import sys, aeedge; aeedge.load({str(INT8)!r}); print('aeedge.autotune' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
