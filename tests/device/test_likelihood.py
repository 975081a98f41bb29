"""The likelihood of scores: rarity among those that a stream had lately."""

import math

import numpy as np
import pytest
from helpers.signals import machine, signal_bundle

import aeedge
from aeedge import InputError, Stream
from aeedge.bundle.manifest import SignalSpec
from aeedge.signals.likelihood import Likelihood

RNG = np.random.default_rng(0)
TAILS = {
    "normal residuals, one value": RNG.normal(size=60_000) ** 2,
    "normal residuals, eight values": (RNG.normal(size=(60_000, 8)) ** 2).mean(axis=1),
    "residuals with an exponential tail": RNG.exponential(size=60_000) ** 2,
    "two scores": RNG.exponential(size=(60_000, 2)) ** 2,
}


def all_of(scores, memory=2000):
    scores = np.asarray(scores, float).reshape(len(scores), -1)
    likelihood = Likelihood(scores.shape[1], memory)
    return np.array([likelihood.update(row) for row in scores.tolist()])


@pytest.mark.parametrize("scores", TAILS.values(), ids=list(TAILS))
@pytest.mark.parametrize("rate", [0.01, 0.001])
def test_no_more_windows_are_rare_than_stated_while_nothing_changes(scores, rate):
    found = all_of(scores)[2000:]
    assert ((found > 1 - rate).mean()) <= rate
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_a_score_far_above_the_others_is_rare_at_any_scale(scale):
    scores = scale * RNG.chisquare(4, 3000)
    scores[2500] = scale * 400
    found = all_of(scores)
    assert found[2500] > 0.999
    assert int(np.argmax(found)) == 2500


def test_what_goes_on_is_not_news():
    scores = RNG.chisquare(4, 6000)
    scores[3000:] += 300  # for good
    found = all_of(scores)
    assert found[3000] > 0.999
    assert (found[3001:] > 0.999).sum() <= 3
    scores[5900] += 30_000
    assert all_of(scores)[5900] > 0.999, "the new level has become normal, and something else is rare again"


def test_signals_without_noise_and_first_windows_raise_nothing():
    assert not all_of(np.zeros(500)).any()
    assert not all_of(np.full(500, 7.0)).any()
    assert not all_of([1e6, *RNG.chisquare(4, 20)]).any()


def test_scores_that_are_not_finite_are_passed_over():
    with_gaps, without = Likelihood(), Likelihood()
    scores = RNG.chisquare(4, 500).tolist()
    for number, score in enumerate(scores):
        if number % 7 == 0:
            assert math.isnan(with_gaps.update([math.nan]))
            assert math.isnan(with_gaps.update([math.inf]))
        assert with_gaps.update([score]) == without.update([score])


def test_its_state_is_small_and_goes_on_to_the_bit():
    scores = RNG.chisquare(2, (4000, 2)).tolist()
    whole = Likelihood(2, 500)
    for score in scores[:2500]:
        whole.update(score)
    state = whole.state()
    assert sum(values.nbytes for values in state.values()) < 100
    restored = Likelihood(2, 500)
    restored.restore(state)
    assert [whole.update(s) for s in scores[2500:]] == [restored.update(s) for s in scores[2500:]]


@pytest.mark.parametrize(
    "state", [{}, {"values": np.zeros(3)}, {"values": np.array([1, 2, np.nan, 0])}, {"values": -np.ones(4)}]
)
def test_a_state_that_is_none_is_refused(state):
    with pytest.raises(InputError, match="likelihood"):
        Likelihood().restore(state)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A model of short windows of a channel."""
    signal = SignalSpec(("x",), window=8, hop=1, rate=1.0)
    path = signal_bundle(tmp_path_factory.mktemp("signal") / "x.aeedge", machine(3000, 1), signal, latents=3)
    with aeedge.load(path) as model:
        yield model


@pytest.fixture(scope="module")
def wandering():
    """A recording that leaves the range of the training for good, and has two odd moments."""
    samples = machine(6000, 1, seed=3)
    samples[1000:] += np.linspace(0, 30, 5000, dtype=np.float32)[:, np.newaxis]
    samples[3000] += 5
    samples[5000:5003] -= 5
    return samples


def test_a_stream_that_adapts_finds_odd_moments_of_a_signal_that_wanders(watched, wandering):
    events = Stream(watched, adapt=True).push(wandering)
    newest = {event.index + watched.input.shape[0] - 1 for event in events if event.raised}
    assert {3000, 5000} <= newest
    assert len(newest) <= 2 + 0.001 * len(wandering)
    fixed = Stream(watched).push(wandering)
    assert sum(event.exceeded for event in fixed) > 1000, "what does not adapt is in alarm"
    assert all(math.isnan(event.likelihood) for event in fixed)


def test_what_is_new_in_a_window_is_what_counts(watched, wandering):
    """The likelihood is that of residuals and changes of the newest samples, as many as a hop has."""
    hop, scale = 3, watched.manifest.score.scale
    likelihood = Likelihood(2)
    for event in Stream(watched, hop=hop, adapt=True).push(wandering):
        parts = watched.residual(event.samples)[-hop:], np.diff(event.samples, axis=0)[-hop:] / scale
        expected = likelihood.update([float(np.square(part).mean()) for part in parts])
        assert event.likelihood == pytest.approx(expected, abs=1e-3)


def test_chunks_and_restarts_are_no_matter(watched, wandering):
    whole = Stream(watched, adapt=True).push(wandering)
    stream, found = Stream(watched, adapt=True), []
    for start in range(0, len(wandering), 700):
        found += stream.push(wandering[start : start + 700])
        stream = Stream.restore(watched, stream.state())
    assert [event.raised for event in found] == [event.raised for event in whole]
    likelihoods = [[event.likelihood for event in events] for events in (found, whole)]
    np.testing.assert_allclose(*likelihoods, atol=1e-3)
    stream.reset()
    np.testing.assert_allclose([event.likelihood for event in stream.push(wandering)], likelihoods[1], atol=1e-3)


def test_the_threshold_is_a_likelihood(watched):
    assert Stream(watched, adapt=True).threshold == 0.999
    assert Stream(watched, adapt=True, false_alarm_rate=0.01).threshold == 0.99
    assert Stream(watched, adapt=True, threshold=0.9).expected_false_alarms_per_day == pytest.approx(0.1 * 86_400)
    for limit in (0.0, 1.0, 7.0, math.nan):
        with pytest.raises(InputError, match="likelihood between 0 and 1"):
            Stream(watched, adapt=True, threshold=limit)


def test_windows_with_faulty_sensors_have_no_likelihood(watched, wandering):
    samples = wandering.copy()
    samples[2000:2004] = np.nan
    events = Stream(watched, adapt=True).push(samples)
    assert {math.isnan(event.likelihood) for event in events[1993:2004]} == {True}
    assert not any(math.isnan(event.likelihood) for event in events[2004:])
