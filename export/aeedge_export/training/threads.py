"""torch's number of threads while training on the CPU, chosen by measurement.

torch's threads wait for each other at the end of every parallel operation. Beside another busy process one of them
often has no CPU, and all wait for its next turn: milliseconds each time, which makes small networks 20 to 80 times
slower than with one thread. On an idle machine, more threads take 0.6 to 1.1 times as long as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter

import torch
from threadpoolctl import threadpool_limits

from aeedge.system.limits import cpu_count

Trial = Callable[[], AbstractContextManager[Callable[[], object]]]

_SMALL = 1_000_000  # multiply-adds of a step (forward); below, threads cost as much as they gain
_FEWEST_STEPS = 20  # fewer do not repay the measurement
_FASTER = 0.95  # more threads must take less than this share of the time of one
_CLEAR = (0.88, 1.05)  # a ratio outside is not measured again
_HOPELESS, _FIRST = 10.0, 0.02  # of the time of one; seconds that the first step with more threads may take longer
_GRAIN = 32_768  # elements that torch gives to a thread at least, in elementwise operations
_CHECK_SECONDS, _STALL = 1e-3, 1e-3  # such an operation takes microseconds, a turn of another process milliseconds
_SLOW = 2.5  # of the usual time of a step
_PAUSE, _LONGEST_PAUSE, _COST = 2.0, 30.0, 0.01  # seconds, seconds, and the share of time that looking again may take
_BUSY = "measured: another process is busy"


class ThreadChoice:
    """One thread or all, measured at the start of training and now and then during it.

    Kept between the calls of `partial_fit`, so that what was measured counts for the next one.

    Attributes:
        number: of threads.
        reason: why, in a few words.
    """

    def __init__(self) -> None:
        self.number, self.reason = 0, ""
        self._changes = 0
        self._most = 1
        self._trial: Trial | None = None
        self._steps = 0
        self._usual, self._slow = math.inf, 0
        self._pause, self._next_look = _PAUSE, -math.inf

    def __str__(self) -> str:
        changes = f", changed {self._changes} times" if self._changes > 1 else ", changed once" if self._changes else ""
        return f"{self.number} ({self.reason}{changes})"

    def __reduce__(self) -> tuple[type[ThreadChoice], tuple[()]]:
        return ThreadChoice, ()  # what was measured holds here and now

    @contextmanager
    def during(
        self,
        asked: int | None,
        device: torch.device,
        trial: Trial | None,
        work: float,
        steps: int,
        processes: int = 1,
    ) -> Iterator[None]:
        """Set torch's number of threads while training, and restore the caller's afterwards.

        Args:
            asked: a fixed number, None to choose.
            device: that trains.
            trial: a context that gives a function to time, one step; it restores what the step changed. None where
                there are no steps: then all threads are used while the CPUs are free.
            work: multiply-adds of a step (forward), infinity if unknown.
            steps: of the training, at most.
            processes: on this machine that train together; several share the CPUs evenly, and do not measure.
        """
        before = torch.get_num_threads()
        self._most, self._trial = min(before, cpu_count()), trial
        self._steps += steps
        try:
            if asked is not None:
                self._fix(asked, "as set")
            elif device.type != "cpu":
                self._fix(before, f"training is on {device.type}")
            elif self._most == 1:
                self._fix(1, "no more may be used")
            elif work < _SMALL:
                self._fix(1, "too little work to share")
            elif processes > 1:
                self._fix(max(1, cpu_count() // processes), f"{processes} processes share the CPUs")
            elif trial is not None and self._steps < _FEWEST_STEPS:
                self._set(1, "too few steps to measure")
            else:
                self._begin()
            yield
        finally:
            torch.set_num_threads(before)
            self._trial = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """The number that was chosen last, if any, also for numpy and scikit-learn; for work beside training."""
        before = torch.get_num_threads()
        with threadpool_limits(self.number or None):
            torch.set_num_threads(self.number or before)
            try:
                yield
            finally:
                torch.set_num_threads(before)

    def after_step(self, seconds: float) -> None:
        """Look again where it is time, or where the step took several times as long as usual."""
        if self._most == 1:
            return
        if self.number == 1:
            if self._steps >= _FEWEST_STEPS and perf_counter() >= self._next_look:
                self._look()
        elif seconds < _SLOW * self._usual or seconds - self._usual < _STALL:
            self._usual, self._slow = min(self._usual, seconds), 0
        else:
            self._slow += 1
            if self._slow > 1 or contended(self._most):
                self._wait(_BUSY, 0.0)

    def _fix(self, number: int, reason: str) -> None:
        self._most = 1  # nothing to choose
        self._set(number, reason)

    def _set(self, number: int, reason: str) -> None:
        self._changes += self.number not in (0, number)
        self.number, self.reason = number, reason
        torch.set_num_threads(number)

    def _begin(self) -> None:
        """What was chosen in an earlier call stays, unless it is time to look or the CPUs are no longer free."""
        self._usual, self._slow = math.inf, 0
        if self.number == self._most:
            if contended(self._most):
                self._wait(_BUSY, 0.0)
        elif self.number != 1 or perf_counter() >= self._next_look:
            self._look()
        torch.set_num_threads(self.number)

    def _look(self) -> None:
        began = perf_counter()
        if contended(self._most):
            self._wait(_BUSY, perf_counter() - began)
            return
        if self._trial is None:
            self._set(self._most, "measured: the CPUs are free")
            return
        one, more = self._times()
        reason = f"measured: {self._most} threads take {more / one:.2f} of the time of one"
        if more < _FASTER * one:
            self._set(self._most, reason)
            self._usual, self._slow = 3 * more, 0  # the optimiser comes on top of a trial
        else:
            self._wait(_BUSY if more > _HOPELESS * one else reason, perf_counter() - began)

    def _wait(self, reason: str, cost: float) -> None:
        """One thread, and another look after a pause that grows."""
        self._set(1, reason)
        self._next_look = perf_counter() + max(self._pause, cost / _COST)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _times(self) -> tuple[float, float]:
        """Seconds of a step with one thread and with all, the best of a few; the first of each turn only warms up."""
        assert self._trial is not None
        best = {1: math.inf, self._most: math.inf}
        with self._trial() as step:
            for _ in range(max(1, min(3, self._steps // 100))):
                for number in best:
                    if number > 1 and contended(number):  # again: one look may come between two turns of the other
                        return best[1], math.inf
                    torch.set_num_threads(number)
                    warm_up = _seconds(step)
                    if number > 1 and warm_up > _HOPELESS * best[1] + _FIRST:
                        return best[1], warm_up
                    best[number] = min(best[number], _seconds(step))
                if not _CLEAR[0] < best[self._most] / best[1] < _CLEAR[1]:
                    break
        return best[1], best[self._most]


def contended(threads: int) -> bool:
    """Whether another process keeps one of so many threads waiting, tried in about a millisecond.

    Leaves torch's number of threads at `threads`.
    """
    torch.set_num_threads(threads)
    values = torch.zeros(threads * _GRAIN, device="cpu")
    stalls, end = 0, perf_counter() + _CHECK_SECONDS
    while perf_counter() < end:
        if _seconds(lambda: values.add_(1)) > _STALL:
            stalls += 1
            if stalls > 1:  # one may be chance, or the start of the threads
                return True
            end = perf_counter() + _CHECK_SECONDS
    return False


def _seconds(function: Callable[[], object]) -> float:
    began = perf_counter()
    function()
    return perf_counter() - began
