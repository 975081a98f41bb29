"""A machine of which only the clock is simulated, so that a busy one measures the same."""

from aeedge.system.clock import Clock


class Simulated:
    """Time passes only in calls, in sleeps and when the clock is read.

    Args:
        latencies: nanoseconds of each call.
        tick: nanoseconds of each reading of the clock.
    """

    def __init__(self, latencies=(), tick=10):
        self.time = self.true = 0
        self.latencies, self.tick = iter(latencies), tick
        self.clock = Clock(self.now, lambda: self.true, self.sleep)

    def now(self):
        self.pass_by(self.tick)
        return self.time

    def sleep(self, seconds):
        self.pass_by(int(seconds * 1e9) + 50_000)

    def pass_by(self, nanoseconds):
        self.time += nanoseconds
        self.true += nanoseconds

    def call(self, rows):
        self.pass_by(next(self.latencies))
