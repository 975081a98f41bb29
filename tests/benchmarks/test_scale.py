"""The simulation of archives on clusters agrees with closed forms where there are some."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "scale"))

from simulation import HOUR, Cluster, part_times, simulate


@pytest.mark.parametrize(("parts", "cores"), [(10, 1), (10, 3), (12, 4), (3, 8)])
def test_equal_parts_take_as_many_turns_as_are_needed(parts, cores):
    run = simulate(np.full(parts, 2.0), Cluster(1, cores))
    assert run.seconds == pytest.approx(2.0 * -(-parts // cores))
    assert run.ideal == pytest.approx(2.0 * parts / cores)
    assert (run.lost, run.retries, run.most_tries) == (0, 0, 1)


def test_one_core_takes_the_sum_of_all_times():
    times = part_times(500, 3.0, 0.8, 1)
    run = simulate(times, Cluster(1))
    assert run.seconds == pytest.approx(times.sum())
    assert run.excess == pytest.approx(0, abs=1e-9)


def test_part_times_have_the_mean_and_the_spread_that_are_asked_for():
    times = part_times(200_000, 3.0, 0.5, 0)
    assert times.mean() == pytest.approx(3.0, rel=0.01)
    assert np.log(times).std() == pytest.approx(0.5, rel=0.01)
    assert np.array_equal(times, part_times(200_000, 3.0, 0.5, 0))


def test_one_core_waits_for_the_driver_before_each_part():
    assert simulate(np.full(100, 2.0), Cluster(1, dispatch=0.5)).seconds == pytest.approx(100 * 2.5)


def test_a_driver_that_is_slower_than_the_cores_is_the_limit():
    run = simulate(np.full(1000, 2.0), Cluster(50, 2, dispatch=0.1))
    assert run.seconds == pytest.approx(1000 * 0.1 + 2.0)


def test_slow_nodes_do_their_share_of_the_work():
    cluster = Cluster(100, slow_share=0.2, slow_factor=4.0)
    run = simulate(np.full(100_000, 1.0), cluster)
    speed = (0.8 + 0.2 / 4) * 100  # parts a second
    assert run.seconds == pytest.approx(100_000 / speed, abs=4.0)


def test_a_last_part_on_a_slow_node_is_waited_for():
    assert simulate(np.full(10, 1.0), Cluster(10, slow_share=0.1, slow_factor=3.0)).seconds == pytest.approx(3.0)


def test_parts_that_are_done_again_after_failures_take_the_expected_time():
    seconds, failures = 100.0, 7.2
    run = simulate(np.full(20_000, seconds), Cluster(1, failures=failures, repair=0.0))
    rate = failures / HOUR
    assert run.seconds / 20_000 == pytest.approx(np.expm1(rate * seconds) / rate, rel=0.01)
    assert run.lost == pytest.approx(run.seconds - run.ideal)
    assert run.retries == pytest.approx(run.seconds * rate, rel=0.05)


def test_a_node_that_is_repaired_does_nothing_meanwhile():
    seconds, failures, repair = 1.0, 3.6, 250.0
    run = simulate(np.full(100_000, seconds), Cluster(1, failures=failures, repair=repair))
    rate = failures / HOUR
    expected = np.expm1(rate * seconds) / rate + np.expm1(rate * seconds) * repair
    assert run.seconds / 100_000 == pytest.approx(expected, rel=0.1)


def test_all_cores_of_a_node_fail_at_once():
    times = np.full(4000, 100.0)
    run = simulate(times, Cluster(1, 4, failures=3.6, repair=0.0), seed=3)
    assert run.retries > 0
    assert run.retries % 4 == 0


def test_a_run_repeats_by_its_seed():
    times = part_times(2000, 10.0, 0.5, 0)
    cluster = Cluster(8, 4, 0.25, 3.0, failures=5.0, dispatch=0.001)
    assert simulate(times, cluster, 1) == simulate(times, cluster, 1)
    assert simulate(times, cluster, 1) != simulate(times, cluster, 2)
