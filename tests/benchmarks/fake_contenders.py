"""Contenders that misbehave on request, for processes started by the tests with this folder on their path."""

import os
import time

from helpers import fake_clock


class Contender:
    def __init__(self, folder, options, threads):
        if "refuses" in options:
            raise ValueError(options["refuses"])
        print("runtimes chatter on standard output")
        self._options, self._sleep = options, time.sleep
        if options.get("clock") == "fake":
            fake_clock.install()
            self._sleep = fake_clock.sleep

    def prepare(self, rows):
        return rows

    def encode(self, rows):
        if len(rows) == self._options.get("dies_at"):
            os._exit(3)
        self._sleep(self._options.get("sleep", 0))
        return rows[:, :2] * self._options.get("factor", 1)
