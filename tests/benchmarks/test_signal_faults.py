"""The faults that are injected into recordings are what the benchmark says they are."""

import numpy as np
import pytest
import signal_faults
from signal_faults import BAD_INPUT, FAULTS, SYNTHETIC, Recording, by_fault, counted, injected, judged, right_verdicts


def recording(kind):
    samples = SYNTHETIC[kind](np.random.default_rng(1), 8000)
    samples = samples if samples.dtype == np.int16 else samples.astype(np.float32)
    return Recording(kind, (samples[:4000],), samples[4000:])


@pytest.mark.parametrize("name", SYNTHETIC)
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_in_its_channel_and_after_its_start(name, kind):
    of, rng = recording(name), np.random.default_rng(0)
    for channel in range(3):
        episode = injected(kind, of, 500, channel, rng)
        whole = of.samples[500 : 500 + len(episode.samples)]
        start = episode.start
        assert start == signal_faults.BEFORE * of.window
        np.testing.assert_array_equal(episode.samples[:start], whole[:start])
        others = [i for i in range(4) if i != channel]
        if kind != "regime":
            np.testing.assert_array_equal(episode.samples[start:, others], whole[start:, others])
        same = np.array_equal(episode.samples[start:], whole[start:])
        assert same == (kind in ("missing", "clock"))
        assert bool(episode.lost) == (kind == "missing")
        assert (np.diff(episode.times).min() != 1) or (np.diff(episode.times).max() != 1) or kind != "clock"
        assert np.isnan(episode.samples).any() == (kind == "dropout to NaN")


class Event:
    def __init__(self, verdict):
        self.verdict, self.health = verdict, ()

    def explain(self, top):
        return [type("Cause", (), {"name": "sensor 1"})]


def test_the_first_verdict_counts():
    of = recording("sines")
    episode = injected("offset", of, 0, 1, np.random.default_rng(0))
    late = judged("offset", of, episode, [Event("ok"), Event("ok"), Event("anomaly"), Event("bad input")])
    assert (late["right"], late["delay"], late["culprit"]) == (True, 2, True)
    assert judged("offset", of, episode, [Event("ok")]) == {"verdict": "ok", "right": False}
    wrong = judged("stuck", of, episode, [Event("anomaly"), Event("bad input")])
    assert not wrong["right"]
    found = counted([late, late, wrong])
    assert (found["faults"], found["right"], found["delays"], found["channels"], found["named"]) == (
        3,
        2,
        {"2": 2},
        2,
        2,
    )
    row = {"1 of 1": {"faults": dict.fromkeys(FAULTS, found)}}
    assert by_fault([row], "1 of 1")[0] == ["stuck", "3", "66.7%", "2", "2", "100.0%"]


def test_only_what_is_far_out_of_the_range_may_be_called_bad_input():
    of = recording("sines")
    episode = injected("offset", of, 0, 1, np.random.default_rng(0))
    usual = of.usual[:, 1]
    for far, verdicts in ((0.9, ("anomaly",)), (1.1, ("anomaly", "bad input"))):
        episode.samples[:] = 0
        episode.samples[-1, 1] = usual.max() + far * np.ptp(usual)
        assert right_verdicts("offset", of, episode) == verdicts
    assert all(right_verdicts(kind, of, episode) == ("bad input",) for kind in BAD_INPUT)
