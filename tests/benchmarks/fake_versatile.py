"""A contender with calls of two kinds, for processes started by the tests with this folder on their path."""

from helpers import fake_clock


class Contender:
    def __init__(self, folder, options, threads):
        fake_clock.install()

    def call(self, what, rows):
        return lambda: fake_clock.sleep(0.01 if what == "slow" else 1e-5)
