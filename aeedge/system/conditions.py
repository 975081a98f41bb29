"""What can invalidate a measurement: the state of the machine is read before and after, and compared.

What a system does not report is left out; nothing here fails. A finding is "invalid" where a disturbance dominates the
numbers, "warning" where they may be off, "note" where a reader should know about it.
"""

from __future__ import annotations

import os
import time
from glob import glob
from typing import NamedTuple

from aeedge.system.clock import Clock, disagreement
from aeedge.system.limits import cgroup_folders, cpu_count, cpu_quota, read_text

_BUSY = (0.10, 0.04)  # invalid, warning: share of the allowed CPUs that other processes used
_STEAL = (0.05, 0.01)  # ... share of them that the hypervisor gave to other machines
_THROTTLED = (0.25, 0.01)  # ... share of the run that the CPU quota made this process wait
_SWAPPED_PAGES = 64
_HOT_CELSIUS = 80.0
_FREQUENCY_CHANGE = 0.10
_FIELDS = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"]
_PI_FLAGS = {0: "under_voltage", 1: "frequency_capped", 2: "throttled", 3: "temperature_limit"}  # raspberrypi.com docs


class Finding(NamedTuple):
    """Something that a reader should know.

    Attributes:
        grade: how serious it is: "invalid" (of a measurement) or "error" (of an installation), "warning" or "note".
        code: what it is about, for programs, such as "other_load".
        message: a sentence for people.
    """

    grade: str
    code: str
    message: str


class Reading(NamedTuple):
    """The machine at one moment; None for what it does not report. Times in seconds unless named otherwise."""

    now_ns: int
    reference_ns: int
    own_cpu: float
    busy: float | None
    steal: float | None
    quota_wait: float | None
    swapped: int | None
    throttles: int | None
    pi_flags: int | None
    frequency: float | None
    celsius: float | None


def read(clock: Clock, root: str = "/") -> Reading:
    """Take a reading; `root` is where /proc and /sys are found."""
    times = os.times()
    busy, steal = _cpu_time(root)
    return Reading(
        clock.now(),
        clock.reference(),
        times.user + times.system + times.children_user + times.children_system,
        busy,
        steal,
        _quota_wait(),
        _swapped(root),
        _sum(root, "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"),
        pi_flags(root),
        frequency(root),
        celsius(root),
    )


def judge(before: Reading, after: Reading, cpus: int | None = None) -> list[Finding]:
    """The findings from what changed between two readings, the worst first."""
    cpus = cpus or cpu_count()
    spent = (after.now_ns - before.now_ns) / 1e9
    capacity = max(spent, 1e-9) * cpus
    found: list[Finding | None] = []
    if problem := disagreement(after.now_ns - before.now_ns, after.reference_ns - before.reference_ns):
        found.append(Finding("invalid", "clock", f"{problem}; run again"))
    if (busy := _growth(before.busy, after.busy)) is not None:
        share = (busy - (after.own_cpu - before.own_cpu)) / capacity
        text = f"other processes used {share:.0%} of the CPU time; stop them and run again"
        found.append(_graded("other_load", share, _BUSY, text))
    if (steal := _growth(before.steal, after.steal)) is not None:
        text = f"the hypervisor gave {steal / capacity:.1%} of the CPU time to other machines (steal)"
        found.append(_graded("steal", steal / capacity, _STEAL, text))
    if (wait := _growth(before.quota_wait, after.quota_wait)) is not None:
        text = f"the CPU quota kept this process waiting for {wait:.2f} s of {spent:.1f} s"
        found.append(_graded("quota", wait / max(spent, 1e-9), _THROTTLED, text))
    found += _memory_and_heat(before, after)
    order = ("invalid", "warning", "note")
    return sorted((f for f in found if f is not None), key=lambda f: order.index(f.grade))


def _memory_and_heat(before: Reading, after: Reading) -> list[Finding | None]:
    found: list[Finding | None] = []
    pages = _growth(before.swapped, after.swapped)
    if pages is not None and pages > _SWAPPED_PAGES:
        found.append(Finding("invalid", "swap", f"the machine swapped {pages:.0f} pages; free memory and run again"))
    if throttles := _growth(before.throttles, after.throttles):
        found.append(Finding("invalid", "throttling", f"the processor throttled {throttles:.0f} times; cool it"))
    if now := board_flags(after.pi_flags):
        found.append(
            Finding(
                "invalid",
                "throttling",
                f"the board reports {', '.join(now).replace('_', '-')}; check its power supply and cooling",
            )
        )
    if before.frequency and after.frequency:
        change = after.frequency / before.frequency - 1
        if abs(change) > _FREQUENCY_CHANGE:
            text = f"the clock frequency went from {before.frequency:.0f} to {after.frequency:.0f} MHz"
            found.append(Finding("warning", "frequency", text))
    if after.celsius is not None and after.celsius > _HOT_CELSIUS:
        found.append(Finding("warning", "temperature", f"{after.celsius:.0f} °C: it may throttle when run longer"))
    return found


def standing(root: str = "/") -> list[Finding]:
    """Findings on the machine's settings, before anything runs."""
    found = []
    governors = {
        read_text(path).strip() for path in _glob(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    }
    if slow := sorted(governors - {"performance", ""}):
        text = f"frequency governor {', '.join(slow)}: the clock may be slower in short runs"
        found.append(Finding("note", "governor", text))
    if (quota := cpu_quota()) is not None:
        found.append(Finding("note", "quota", f"the CPU quota of this process is {quota:g} CPUs"))
    return found


def at_start(clock: Clock, seconds: float = 0.4) -> list[Finding]:
    """Findings before anything runs: what other processes do for a moment, and the machine's settings."""
    before = read(clock)
    time.sleep(seconds)
    return [*judge(before, read(clock)), *standing()]


def frequency(root: str = "/") -> float | None:
    """MHz of the fastest CPU at the moment."""
    found = [read_text(path) for path in _glob(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")]
    return max((int(text) / 1000 for text in found if text.strip().isdigit()), default=None)


def celsius(root: str = "/") -> float | None:
    """Temperature of the hottest zone."""
    found = [read_text(path).strip() for path in _glob(root, "sys/class/thermal/thermal_zone*/temp")]
    return max((int(text) / 1000 for text in found if text.lstrip("-").isdigit()), default=None)


def pi_flags(root: str = "/") -> int | None:
    """The throttling flags of a Raspberry Pi's firmware."""
    text = read_text(os.path.join(root, "sys/devices/platform/soc/soc:firmware/get_throttled")).strip()
    try:
        return int(text, 16)
    except ValueError:
        return None


def board_flags(flags: int | None) -> list[str]:
    """The names of the throttling flags that are set at this moment, such as "under_voltage"."""
    return [text for bit, text in _PI_FLAGS.items() if flags is not None and flags >> bit & 1]


def _graded(code: str, share: float, limits: tuple[float, float], text: str) -> Finding | None:
    if share > limits[0]:
        return Finding("invalid", code, text)
    return Finding("warning", code, text) if share > limits[1] else None


def _growth(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _cpu_time(root: str) -> tuple[float | None, float | None]:
    """Seconds that all CPUs together were busy since boot, and that the hypervisor took away."""
    try:
        values = dict(zip(_FIELDS, map(int, read_text(os.path.join(root, "proc/stat")).split("\n")[0].split()[1:9])))
        tick = os.sysconf("SC_CLK_TCK")
        busy = sum(values[name] for name in ("user", "nice", "system", "irq", "softirq"))
        return busy / tick, values["steal"] / tick
    except (ValueError, KeyError, AttributeError):
        return None, None


def _quota_wait() -> float | None:
    """Seconds that cgroup quotas kept this process's groups waiting."""
    for folder in reversed(cgroup_folders()):
        for line in read_text(os.path.join(folder, "cpu.stat")).splitlines():
            name, _, value = line.partition(" ")
            if name in ("throttled_usec", "throttled_time"):
                return int(value) / (1e6 if name == "throttled_usec" else 1e9)
    return None


def _swapped(root: str) -> int | None:
    lines = [line.split() for line in read_text(os.path.join(root, "proc/vmstat")).splitlines()]
    counts = [int(line[1]) for line in lines if line and line[0] in ("pswpin", "pswpout")]
    return sum(counts) if counts else None


def _sum(root: str, pattern: str) -> int | None:
    found = [read_text(path).strip() for path in _glob(root, pattern)]
    return sum(int(text) for text in found if text.isdigit()) if found else None


def _glob(root: str, pattern: str) -> list[str]:
    return sorted(glob(os.path.join(root, pattern)))
