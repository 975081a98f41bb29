"""The search for a network: budget, halving, front, what selects and what judges, going on, and bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.devices import by_size
from numpy.typing import NDArray

import aeedge
from aeedge.bundle.reader import Bundle
from aeedge.errors import InputError
from aeedge_export import Budget, Search, search
from aeedge_export.architecture_search import measuring, session, space, state
from aeedge_export.architecture_search.budget import Cost
from aeedge_export.architecture_search.halving import kept, non_dominated, ordered, planned
from aeedge_export.architecture_search.judging import parts_of
from aeedge_export.architecture_search.measuring import DeviceError
from aeedge_export.architecture_search.space import candidates
from aeedge_export.architecture_search.state import State

QUICK: dict[str, Any] = {
    "families": ("dense",),
    "variants": ("fp32",),
    "params": {"epochs": 9, "threads": 1, "validation": 0.2},
}


@pytest.fixture(scope="module", autouse=True)
def few_widths() -> Iterator[None]:
    """Three candidates for each number of latents: tests need no more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(space, "_WIDTHS", (16, 64))
        yield


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "measure", by_size)


def rows_of(count: int = 300, seed: int = 0) -> NDArray[np.float32]:
    """A curved surface of three dimensions in twelve."""
    rng = np.random.default_rng(seed)
    place, turn = rng.normal(size=(count, 3)), rng.normal(size=(3, 12))
    return (np.tanh(place @ turn) + 0.05 * rng.normal(size=(count, 12))).astype(np.float32)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Search:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "measure", by_size)
        return search(rows_of(), latents=(2, 3), directory=tmp_path_factory.mktemp("search") / "s", **QUICK)


def test_every_point_is_a_bundle_that_runs_and_a_run_that_can_be_exported(found: Search, tmp_path: Path) -> None:
    assert len(found.points) == 6
    for point in found.points:
        with aeedge.load(found.directory / "bundles" / f"{point.name}.aeedge") as model:
            assert model.latent_size == point.latent
    point = found.front[0]
    assert found.estimator(point).design_.hidden == point.hidden
    found.export(point, tmp_path / "copy.aeedge")
    with aeedge.load(tmp_path / "copy.aeedge") as model:
        model.self_check()


def test_losses_are_those_of_the_rows_that_select_and_judge(found: Search) -> None:
    X = rows_of()
    parts = parts_of(X, None, "auto", seed=0, span=None, time_ordered="auto")
    for point in found.points[:3]:
        run = found.estimator(point).run_
        selecting = parts.fitted[run.split(len(parts.fitted)).validation]
        assert not set(selecting) & set(parts.judging)
        assert not set(parts.fitted) & set(parts.judging)
        for rows, loss in ((selecting, point.loss), (parts.judging, point.judged)):
            np.testing.assert_allclose(run.reconstruction_error(X[rows]).mean(), loss, rtol=1e-3)


def test_the_front_is_what_no_other_point_beats(found: Search) -> None:
    front = found.front
    assert front
    assert [point.latency_us for point in front] == sorted(point.latency_us for point in front)
    for point in front:
        better = [p for p in front if p.loss < point.loss and p.latency_us < point.latency_us and p.size < point.size]
        assert not better


def test_without_a_budget_the_cheapest_within_a_hundredth_of_the_best_is_chosen(found: Search) -> None:
    least = min(point.loss for point in found.points)
    near = [point for point in found.points if point.loss <= 1.01 * least]
    assert found.best is not None
    assert found.best.latency_us == min(point.latency_us for point in near)


def test_the_best_bundle_is_that_of_the_best_point(found: Search) -> None:
    assert found.best is not None
    best = Bundle(str(found.directory / "best.aeedge")).manifest.id
    assert best == Bundle(str(found.directory / "bundles" / f"{found.best.name}.aeedge")).manifest.id


def test_the_curve_falls_with_the_number_of_latents(found: Search) -> None:
    assert [one["latent"] for one in found.curve] == [2, 3]
    assert found.curve[0]["error"] > found.curve[1]["error"]
    assert found.smallest_latent == 3


def test_the_summary_is_json(found: Search) -> None:
    document = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert document["best"] in [point["name"] for point in document["points"]]
    assert document["rows"] == {"training": 204, "selection": 51, "judging": 45, "anomalous": [0, 0], "what": "rows"}


def resumed(found: Search, tmp_path: Path, **options: Any) -> Search:
    """The same search, gone on with in a copy."""
    import shutil

    shutil.copytree(found.directory, tmp_path / "s")
    return search(rows_of(), latents=(2, 3), directory=tmp_path / "s", resume=True, **QUICK, **options)


def test_a_finished_search_goes_on_without_training(
    found: Search, tmp_path: Path, measured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session.Session, "_train", lambda *_: pytest.fail("trained again"))
    again = resumed(found, tmp_path)
    assert again.points == found.points
    assert again.best == found.best


def test_the_most_accurate_network_within_a_latency_is_chosen(found: Search, tmp_path: Path, measured: None) -> None:
    times = sorted(point.latency_us for point in found.points)
    again = resumed(found, tmp_path, budget=Budget(latency_us=times[len(times) // 2]))
    assert again.best is not None
    meeting = [point for point in again.points if point.latency_us <= times[len(times) // 2]]
    assert 0 < len(meeting) < len(again.points)
    assert again.best.loss == min(point.loss for point in meeting)
    assert [point.meets for point in again.points] == [point in meeting for point in again.points]


def test_a_budget_that_nothing_meets_names_the_nearest(found: Search, tmp_path: Path, measured: None) -> None:
    again = resumed(found, tmp_path, budget=Budget(latency_us=0.001))
    fastest = min(again.points, key=lambda point: point.latency_us)
    assert again.best is None
    assert f"no network meets the budget; the nearest is {fastest.name}" in again.nearest
    assert not (again.directory / "best.aeedge").exists()


def test_a_budget_and_a_tolerance_that_exclude_each_other_name_both(
    found: Search, tmp_path: Path, measured: None
) -> None:
    fastest = found.points[0]
    again = resumed(found, tmp_path, budget=Budget(latency_us=fastest.latency_us), max_error_vs_best=0.0)
    assert again.best is None
    assert fastest.name in again.nearest
    assert min(found.points, key=lambda point: point.loss).name in again.nearest


def test_what_a_device_measured_replaces_what_was_measured_here(found: Search, tmp_path: Path, measured: None) -> None:
    document = by_size(sorted((found.directory / "bundles").iterdir()), found.budget)
    slowest = max(document["bundles"], key=lambda one: one["latency_us"]["1"])
    slowest["latency_us"] = {"1": 0.01, "1024": 10.0}
    (tmp_path / "device.json").write_text(json.dumps(document))
    again = resumed(found, tmp_path, measured=tmp_path / "device.json")
    assert again.points[0].name == slowest["name"]
    assert again.points[0].latency_us == 0.01


@pytest.mark.parametrize("change", ["missing", "other id", "other calls"])
def test_results_of_other_bundles_are_refused(found: Search, tmp_path: Path, measured: None, change: str) -> None:
    document = by_size(sorted((found.directory / "bundles").iterdir()), found.budget)
    if change == "missing":
        del document["bundles"][0]
    elif change == "other id":
        document["bundles"][0]["id"] = "0" * 64
    else:
        document["bundles"][0]["latency_us"] = {"1": 2.0}
    (tmp_path / "device.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"measured: expected (results of this search's bundles|times of calls)"):
        resumed(found, tmp_path, measured=tmp_path / "device.json")


def test_other_data_or_settings_do_not_go_on(found: Search, tmp_path: Path, measured: None) -> None:
    with pytest.raises(InputError, match="X: expected the rows that the search began with"):
        search(rows_of(seed=1), latents=(2, 3), directory=found.directory, resume=True, **QUICK)
    with pytest.raises(InputError, match=r"(latents|families): expected what the search began with"):
        search(rows_of(), latents=(2, 4), directory=found.directory, resume=True, **QUICK)
    with pytest.raises(InputError, match="a folder that 'aeedge search' made"):
        search(rows_of(), directory=tmp_path, resume=True, **QUICK)


def test_time_that_runs_out_before_one_candidate_is_done_says_so(
    tmp_path: Path, measured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(np.arange(0, 10**6, 0.5))
    monkeypatch.setattr(session.time, "monotonic", lambda: float(next(ticks)))
    none = search(rows_of(), latents=(3,), directory=tmp_path / "s", time_limit=4.0, **QUICK)
    assert none.points == []
    assert none.stopped == "time"
    assert "ran out before one candidate was trained to the end" in none.nearest
    monkeypatch.undo()
    monkeypatch.setattr(session, "measure", by_size)
    more = search(rows_of(), latents=(3,), directory=tmp_path / "s", resume=True, **QUICK)
    assert more.stopped == "done"
    assert more.best is not None


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path, measured: None, monkeypatch: pytest.MonkeyPatch) -> None:
    train, trained = session.Session._train, []

    def interrupted(self: session.Session, candidate: Any, rung: int) -> None:
        if rung == 2 and len(trained) == 1:
            raise KeyboardInterrupt
        trained.extend([candidate.name] if rung == 2 else [])
        train(self, candidate, rung)

    monkeypatch.setattr(session.Session, "_train", interrupted)
    part = search(rows_of(), latents=(3,), directory=tmp_path / "s", **QUICK)
    assert part.stopped == "interrupted"
    assert sorted(point.trial for point in part.points) == sorted(trained)
    assert part.best is not None
    monkeypatch.setattr(session.Session, "_train", train)
    whole = search(rows_of(), latents=(3,), directory=tmp_path / "s", resume=True, **QUICK)
    assert whole.stopped == "done"
    assert len(whole.points) == 3


def test_a_candidate_that_costs_too_much_is_not_trained_to_the_end(tmp_path: Path, measured: None) -> None:
    with_budget = search(rows_of(), latents=(3,), directory=tmp_path / "s", budget=Budget(latency_us=4.0), **QUICK)
    fates = {trial["name"]: trial["fate"] for trial in with_budget.summary()["trials"]}
    assert fates["dense-64-k3"].startswith("over budget: ")
    assert all(point.meets for point in with_budget.points)


def test_objective_auc_trains_on_normal_rows_and_ranks_by_anomaly_scores(tmp_path: Path, measured: None) -> None:
    X, labels = rows_of(), np.zeros(340, int)
    strange = np.random.default_rng(1).normal(0, 2, (40, 12)).astype(np.float32)
    labels[300:] = 1
    found = search(np.concatenate([X, strange]), labels, latents=(3,), directory=tmp_path / "s", **QUICK)
    assert found.objective == "auc"
    assert found.summary()["rows"]["anomalous"] == [20, 20]
    assert found.best is not None
    assert found.best.judged < 0.2
    run = found.estimator(found.best).run_
    assert run.rows == 255


def test_objective_probe_measures_a_classifier_on_latents(tmp_path: Path, measured: None) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    X = (rng.normal(size=(300, 12)) * 0.3 + np.eye(12)[labels] * 3).astype(np.float32)
    found = search(X, labels, latents=(1, 3), directory=tmp_path / "s", **QUICK)
    assert found.objective == "probe"
    assert found.best is not None
    assert found.best.judged < 0.1
    assert [one["probe"] > 0.3 for one in found.curve] == [True, True]


def test_windows_in_time_order_are_judged_on_the_last_ones() -> None:
    signal = np.random.default_rng(0).normal(size=1000)
    X = np.lib.stride_tricks.sliding_window_view(signal, 16)[::4].astype(np.float32)
    parts = parts_of(X, None, "auto", seed=0, span=None, time_ordered="auto")
    assert parts.judging.min() == len(X) - len(parts.judging)
    assert parts.fitted.max() + 4 <= parts.judging.min()  # four windows on, they share no sample


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": ("dense", "forest")}, "families: expected some of dense, conv1d, conv2d, pca, got forest"),
        ({"families": ("conv1d",)}, "families: 'conv1d' takes signals"),
        ({"latents": (3, 40)}, "latents: expected numbers from 1 to 12, the values in a row, got 40"),
        ({"variants": ("int4",)}, "variants: expected fp32, int8 or both in a sequence, got int4"),
        ({"variants": "int8"}, "variants: expected"),
        ({"method": "train"}, "method: expected encode"),
        ({"time_limit": 0}, "time_limit: expected seconds above 0"),
        ({"objective": "auc"}, "objective: 'auc' needs labels"),
        ({"max_error_vs_best": -1}, "max_error_vs_best: expected a share from 0"),
        ({"measured": "x.json"}, "measured: expected resume=True"),
        ({"resume": True, "directory": None}, "resume: expected the directory"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        search(rows_of(), **{"directory": tmp_path / "s", **QUICK, **options})
    assert not (tmp_path / "s").exists()


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(InputError, match="X: expected 140 rows or more"):
        search(rows_of(100), **QUICK)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"latency_us": 0}, "latency_us: expected a number above 0"),
        ({"size": -5}, "size: expected a number above 0"),
        ({"memory": float("nan")}, "memory: expected a number above 0"),
        ({"latency_us": 20, "rate": 1000}, "latency_us, rate: both limit the time of a sample"),
        ({"at": 1.5}, "at: expected a whole number"),
        ({"macs": "many"}, "macs: expected a number above 0"),
    ],
)
def test_budgets_that_are_none_are_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Budget(**limits)


COST = Cost(latency_us=10.0, rate=5e4, size=2000, memory=None, macs=500)


@pytest.mark.parametrize(
    ("budget", "excesses"),
    [
        (Budget(latency_us=10), {}),
        (Budget(latency_us=5), {"latency_us": 2.0}),
        (Budget(rate=1e5), {"rate": 2.0}),
        (Budget(rate=5e4, size=1000), {"size": 2.0}),
        (Budget(memory=1), {}),  # which this device cannot tell
        (Budget(macs=100), {"macs": 5.0}),
    ],
)
def test_excesses_are_multiples_of_the_limits(budget: Budget, excesses: dict[str, float]) -> None:
    assert budget.excesses(COST) == excesses


def test_non_dominated_rows_are_those_that_no_other_beats() -> None:
    values = np.random.default_rng(0).random((60, 3))
    front = non_dominated(values)
    for i, value in enumerate(values):
        others = np.delete(values, i, axis=0)
        beaten = ((others <= value).all(axis=1) & (others < value).any(axis=1)).any()
        assert front[i] == (not beaten)


def test_differences_within_the_slack_do_not_make_a_front() -> None:
    values = np.array([[1.0, 10.0], [1.2, 9.9], [0.5, 20.0]])
    assert non_dominated(values).tolist() == [True, True, True]
    assert non_dominated(values, (0.0, 0.03)).tolist() == [True, False, True]


def test_the_front_is_kept_before_what_it_beats_and_spread_out() -> None:
    times = np.geomspace(1, 100, 20)
    front = np.stack([1 / times, times], axis=1)
    beaten = 1.5 * front
    order = ordered(np.concatenate([beaten, front]))
    assert set(order[:20]) == set(range(20, 40))
    assert order[:2] == [39, 20]  # the most accurate, and what is farthest from it
    assert len(kept(np.concatenate([beaten, front]))) == 20
    assert len(kept(front[:3])) == 3


@pytest.mark.parametrize(
    ("count", "trainings"), [(3, [3, 0, 3]), (13, [13, 0, 8]), (26, [26, 13, 8]), (40, [40, 20, 10])]
)
def test_a_rung_that_drops_no_candidate_is_left_out(count: int, trainings: list[int]) -> None:
    assert planned(count, 0) == trainings


@pytest.mark.parametrize("shape", [(1,), (5,), (784,), (3, 40), (40, 3), (1, 28, 28), (28, 28, 3), (2, 2), (1, 3, 3)])
def test_candidates_fit_rows_of_any_shape(shape: tuple[int, ...]) -> None:
    found = candidates(shape, "auto", (1,))
    assert len({candidate.name for candidate in found}) == len(found) >= 4
    assert {candidate.family for candidate in found} >= {"dense", "pca"}


@pytest.mark.parametrize(
    ("remote", "message"),
    [
        ("/does/not/exist", "cannot be run"),
        ("sh -c 'echo no route to host >&2; exit 255'", "exit code 255 and 'no route to host'"),
        ("sh -c 'echo {}'", "expected what 'aeedge bench --batch --json' prints"),
        ("sh -c 'echo []'", "expected what 'aeedge bench --batch --json' prints"),
        ("sh -c 'exec sleep 60'", "no answer within"),
    ],
)
def test_a_device_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: str, message: str
) -> None:
    monkeypatch.setattr(measuring, "_PATIENCE", 1.0)
    monkeypatch.setattr(measuring, "_PER_BUNDLE", 0.0)
    with pytest.raises(DeviceError, match=message):
        measuring.measure([], Budget(), "encode", 1, 0.0, remote)


def test_the_state_survives_and_a_damaged_one_is_named(found: Search, tmp_path: Path) -> None:
    state = State.load(found.directory)
    state.save(tmp_path)
    assert State.load(tmp_path) == state
    (tmp_path / "search.json").write_text("{")
    with pytest.raises(InputError, match=r"search\.json: is damaged"):
        State.load(tmp_path)


def test_a_deleted_or_damaged_bundle_or_run_is_trained_again(found: Search, tmp_path: Path, measured: None) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(found.directory, copy)
    one, two, three = (copy / "bundles" / f"{point.name}.aeedge" for point in found.points[:3])
    shutil.rmtree(one)
    (two / "manifest.json").write_text("{")
    shutil.rmtree(copy / "runs" / three.stem)
    again = search(rows_of(), latents=(2, 3), directory=copy, resume=True, **QUICK)
    assert {point.name for point in again.points} == {point.name for point in found.points}
    for point in again.points:
        aeedge.load(copy / "bundles" / f"{point.name}.aeedge").close()
        assert again.estimator(point).design_.hidden == point.hidden


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latency_us", {"1": float("nan"), "1024": 2.0}),
        ("latency_us", {"1": float("inf"), "1024": 2.0}),
        ("latency_us", {"1": True, "1024": 2.0}),
        ("latency_us", {"1": "3", "1024": 2.0}),
        ("size_bytes", -5),
        ("memory_bytes", "8 MB"),
        ("noise", {"1": "none"}),
        ("noise", 0.1),
    ],
)
def test_measurements_that_are_no_numbers_are_refused(
    found: Search, tmp_path: Path, measured: None, name: str, value: Any
) -> None:
    document = by_size(sorted((found.directory / "bundles").iterdir()), found.budget)
    document["bundles"][0][name] = value
    (tmp_path / "device.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="measured: expected what 'aeedge bench --batch --json' prints"):
        resumed(found, tmp_path, measured=tmp_path / "device.json")


def test_measurements_of_another_method_are_refused(found: Search, tmp_path: Path, measured: None) -> None:
    document = by_size(sorted((found.directory / "bundles").iterdir()), found.budget) | {"method": "score"}
    (tmp_path / "device.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="measured: expected times of encode, got those of score"):
        resumed(found, tmp_path, measured=tmp_path / "device.json")


def test_a_device_on_which_no_bundle_runs_is_not_called_an_interruption(
    found: Search, tmp_path: Path, measured: None
) -> None:
    document = by_size(sorted((found.directory / "bundles").iterdir()), found.budget)
    document["bundles"] = [{"name": one["name"], "error": "needs opset 21"} for one in document["bundles"]]
    (tmp_path / "device.json").write_text(json.dumps(document))
    again = resumed(found, tmp_path, measured=tmp_path / "device.json")
    assert again.best is None
    assert "none of the 6 bundles could be measured" in again.nearest
    assert "needs opset 21" in again.nearest


def test_a_file_of_measurements_trains_nothing_and_one_of_others_changes_nothing(
    found: Search, tmp_path: Path, measured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(found.directory, copy)
    name = found.points[0].name
    shutil.rmtree(copy / "bundles" / f"{name}.aeedge")  # as where the time was up before it was trained
    document = by_size(sorted((copy / "bundles").iterdir()), found.budget)
    monkeypatch.setattr(session.Session, "_train", lambda *_: pytest.fail("trained"))
    file = tmp_path / "device.json"
    file.write_text(json.dumps(document))
    options = {"latents": (2, 3), "directory": copy, "resume": True, "measured": file, **QUICK}
    again = search(rows_of(), **options)
    assert again.stopped == "time"
    assert {point.name for point in again.points} == {point.name for point in found.points} - {name}
    before = (copy / "search.json").read_bytes()
    file.write_text(json.dumps(document | {"bundles": document["bundles"][1:]}))
    with pytest.raises(InputError, match="measured: expected results of this search's bundles"):
        search(rows_of(), **options)
    assert (copy / "search.json").read_bytes() == before


def test_two_searches_in_one_folder_are_refused(found: Search, tmp_path: Path, measured: None) -> None:
    with state.locked(found.directory), pytest.raises(InputError, match="another search is writing there"):
        search(rows_of(), latents=(2, 3), directory=found.directory, resume=True, **QUICK)


def test_a_new_search_does_not_replace_what_is_in_its_folder(found: Search, tmp_path: Path, measured: None) -> None:
    with pytest.raises(InputError, match="holds a search; choose another name, or go on with it"):
        search(rows_of(), directory=found.directory, **QUICK)
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match=r"letter\.txt"):
        search(rows_of(), directory=tmp_path, **QUICK)
    with pytest.raises(InputError, match="nowhere"):
        search(rows_of(), directory=tmp_path / "nowhere" / "s", **QUICK)
