"""The likelihood of scores: rarity among those that a stream had lately."""

import math

import numpy as np
import pytest

from aeedge.errors import InputError
from aeedge.signals.likelihood import Likelihood

RNG = np.random.default_rng(0)
TAILS = {
    "normal residuals, one value": RNG.normal(size=60_000) ** 2,
    "normal residuals, eight values": (RNG.normal(size=(60_000, 8)) ** 2).mean(axis=1),
    "residuals with an exponential tail": RNG.exponential(size=60_000) ** 2,
}


def all_of(scores, memory=2000):
    likelihood = Likelihood(memory)
    return np.array([likelihood.update(float(score)) for score in scores])


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
            assert math.isnan(with_gaps.update(math.nan))
            assert math.isnan(with_gaps.update(math.inf))
        assert with_gaps.update(score) == without.update(score)


def test_its_state_is_small_and_goes_on_to_the_bit():
    scores = RNG.chisquare(2, 4000).tolist()
    whole = Likelihood(500)
    for score in scores[:2500]:
        whole.update(score)
    state = whole.state()
    assert sum(values.nbytes for values in state.values()) < 100
    restored = Likelihood(500)
    restored.restore(state)
    assert [whole.update(s) for s in scores[2500:]] == [restored.update(s) for s in scores[2500:]]


@pytest.mark.parametrize(
    "state", [{}, {"values": np.zeros(3)}, {"values": np.array([1, 2, np.nan, 0])}, {"values": -np.ones(4)}]
)
def test_a_state_that_is_none_is_refused(state):
    with pytest.raises(InputError, match="likelihood"):
        Likelihood().restore(state)
