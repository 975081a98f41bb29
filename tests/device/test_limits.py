"""How many CPUs this process may use; comparing versions."""

import os

import pytest

import aeedge.system.limits
from aeedge.errors import InputError
from aeedge.system.limits import cpu_count, thread_count
from aeedge.system.versions import release


@pytest.fixture
def eight_cpus(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(aeedge.system.limits, "_CGROUP", str(tmp_path))
    return tmp_path


def test_without_a_quota_the_affinity_mask_counts(eight_cpus):
    assert cpu_count() == 8


@pytest.mark.parametrize(
    ("text", "count"), [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("5 100", 1)]
)
def test_cgroup_v2(eight_cpus, text, count):
    (eight_cpus / "cpu.max").write_text(text + "\n")
    assert cpu_count() == count


@pytest.mark.parametrize(("quota", "count"), [("-1", 8), ("300000", 3)])
def test_cgroup_v1(eight_cpus, quota, count):
    (eight_cpus / "cpu").mkdir()
    (eight_cpus / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (eight_cpus / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_count() == count


@pytest.mark.parametrize("broken", ["", "x y", "1", "1 0"])
def test_what_cannot_be_read_is_no_quota(eight_cpus, broken):
    (eight_cpus / "cpu.max").write_text(broken)
    assert cpu_count() == 8


def test_threads():
    assert thread_count("auto") == cpu_count()
    assert thread_count(3) == 3
    for wrong in (0, -1, 1.5, True, "3", None):
        with pytest.raises(InputError, match="threads: expected 'auto' or a whole number"):
            thread_count(wrong)


@pytest.mark.parametrize(
    ("version", "numbers"), [("1.32.0", (1, 32, 0)), ("1.20rc1", (1, 20, 1)), ("2", (2, 0, 0)), ("", ()), (None, ())]
)
def test_release(version, numbers):
    assert release(version) == numbers
