"""Order statistics of scores that are counted in parts: never too low, never further above than is said."""

import pickle

import numpy as np
import pytest
from helpers.strategies import some
from hypothesis import given
from hypothesis import strategies as st

import aeedge
from aeedge.archive.sketch import RELATIVE_ERROR, ScoreSketch
from aeedge.bundle.manifest import LARGEST_SCORE, MOST_SCORES
from aeedge.detection.calibration import Calibration, ThresholdRule, calibrate, raised

TINY = float(np.finfo(np.float32).smallest_subnormal)
numbers = st.one_of(
    st.floats(0, LARGEST_SCORE, width=32),
    st.floats(0, 2.0**-120, width=32),
    st.sampled_from([0.0, -0.0, TINY, 2 * TINY, 1.0, 1.0000001, 2.0, LARGEST_SCORE]),
)
parts = st.lists(st.lists(numbers, max_size=40), min_size=1, max_size=6)


def highest_first(scores):
    return np.sort(np.asarray(scores, np.float32))[::-1]


@some()
@given(st.lists(numbers, min_size=1, max_size=80))
def test_an_order_statistic_is_never_too_low_and_at_most_the_relative_error_too_high(scores):
    exact, sketch = highest_first(scores).astype(np.float64), ScoreSketch(scores)
    found = sketch.at_rank(np.arange(1, len(scores) + 1))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert (found >= exact).all()
    assert (found <= exact * (1 + RELATIVE_ERROR)).all()
    assert [sketch.at_rank(k + 1) for k in range(len(scores))] == found.tolist()


@some()
@given(st.lists(numbers, min_size=1, max_size=80), numbers)
def test_how_many_are_above_is_exact_at_an_edge_and_never_too_few(scores, other):
    exact, sketch = highest_first(scores), ScoreSketch(scores)
    for edge in sketch.at_rank(np.arange(1, len(scores) + 1)):
        assert sketch.above(edge) == (exact > edge).sum()
    assert (exact > np.float32(other)).sum() <= sketch.above(other) <= len(exact)


@some()
@given(parts, st.randoms())
def test_merging_is_exact_in_any_order_and_grouping(given_parts, random):
    whole = ScoreSketch([score for part in given_parts for score in part])
    sketches = [ScoreSketch(part) for part in given_parts]
    random.shuffle(sketches)
    while len(sketches) > 1:
        i = random.randrange(len(sketches) - 1)
        sketches[i : i + 2] = [sketches[i] + sketches[i + 1]]
    assert sketches[0] == whole
    assert pickle.dumps(sketches[0]) == pickle.dumps(whole)
    again = pickle.loads(pickle.dumps(whole))
    assert again == whole
    assert again.count == whole.count == sum(map(len, given_parts))


def test_adding_to_a_sum_leaves_its_parts_as_they_were():
    one, other = ScoreSketch([1.0]), ScoreSketch([2.0])
    total = one + other
    total.add([3.0])
    assert (one.count, other.count, total.count) == (1, 1, 3)
    assert one != other


def test_a_million_scores_take_little_room():
    sketch = ScoreSketch(np.random.default_rng(0).gamma(3, 1, 1_000_000))
    assert len(pickle.dumps(sketch)) < 2**18
    twice = sketch + sketch
    assert twice.count == 2_000_000
    assert len(pickle.dumps(twice)) < 2**18


def test_counts_beyond_32_bits_are_kept():
    sketch = ScoreSketch([0.5, 2.0, 2.0, 7.0])
    for _ in range(32):
        sketch.merge(sketch)
    assert sketch.count == 4 * 2**32
    assert sketch.above(2.5) == 2**32
    assert sketch.at_rank(2**32) > 6.9 > sketch.at_rank(2**32 + 1)
    assert pickle.loads(pickle.dumps(sketch)) == sketch


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1e-3, -TINY])
def test_what_is_no_score_is_refused_and_nothing_is_counted(bad):
    sketch = ScoreSketch([1.0])
    with pytest.raises(aeedge.InputError, match=r"expected finite scores from 0 on, got \S+ \(1 of 3 are not so\)"):
        sketch.add([1.0, bad, 2.0])
    assert sketch.count == 1


@pytest.mark.parametrize("rank", [0, -1, 4, np.array([1, 4]), np.array([0, 1])])
def test_a_rank_that_no_score_has_is_refused(rank):
    with pytest.raises(IndexError):
        ScoreSketch([1.0, 2.0, 3.0]).at_rank(rank)
    with pytest.raises(IndexError):
        ScoreSketch().at_rank(1)


# --- what a bundle keeps of a sketch


@pytest.fixture(scope="module", params=[1, 2, 99, MOST_SCORES - 1, MOST_SCORES, MOST_SCORES + 1, 9_999, 50_000])
def scored(request):
    """Scores of so many normal rows, and their sketch."""
    scores = np.random.default_rng(request.param).gamma(2, 1, request.param).astype(np.float32)
    return scores, ScoreSketch(raised(scores))


@pytest.mark.parametrize("contamination", [0.0, 0.03, 0.5])
def test_thresholds_of_all_rates_that_a_reader_asks_for_are_those_of_all_scores(scored, contamination):
    scores, sketch = scored
    exact, _ = calibrate(scores, ThresholdRule(quantile=0.5, contamination=contamination))
    found, _ = calibrate(sketch, ThresholdRule(quantile=0.5, contamination=contamination))
    m = found.size
    assert m == min(exact.size, MOST_SCORES)
    assert found.count == exact.size
    reader = Calibration(found.scores)
    for k in {1, 2, m // 100, m // 3, m - 1, m} & set(range(1, m + 1)):
        limit, wanted = reader.threshold(k / (m + 1)), exact.threshold(k / (m + 1))
        assert wanted <= limit <= wanted * (1 + RELATIVE_ERROR)


def test_p_values_are_those_of_all_scores_rounded_up(scored):
    scores, sketch = scored
    exact = Calibration(raised(scores))
    found, _ = calibrate(sketch, ThresholdRule(quantile=0.5))
    new = np.concatenate([np.random.default_rng(0).gamma(2, 1.2, 2000), scores[:50], [0.0]])
    p, limit = found.p_value(new), exact.p_value(new)
    assert (p >= limit - 1e-12).all()
    lowered = exact.p_value(new / (1 + RELATIVE_ERROR))  # bins may count a score that is a little lower
    assert (p <= lowered + 1 / (found.size + 1) + 1e-12).all()


@pytest.mark.parametrize("contamination", [0.0, 0.1])
@pytest.mark.parametrize(
    "rule", [{"false_alarm_rate": 0.5}, {"quantile": 1e-9}, {"quantile": 0.5}, {"quantile": 0.999}, {}]
)
def test_the_threshold_and_its_rate_are_those_of_all_scores(scored, rule, contamination):
    scores, sketch = scored
    rule = rule or {"false_alarm_rate": 1 / (len(scores) - int(contamination * len(scores) + 1e-9) + 1)}
    rule = ThresholdRule(**rule, contamination=contamination)
    (exact, wanted), (found, threshold) = calibrate(scores, rule), calibrate(sketch, rule)
    assert wanted <= threshold <= wanted * (1 + RELATIVE_ERROR)
    kept = np.sort(raised(scores))[: exact.size]
    assert found.rate(threshold) == ((kept > threshold).sum() + 1) / (exact.size + 1) <= exact.rate(wanted)
    if rule.false_alarm_rate is not None:
        assert found.rate(threshold) <= rule.false_alarm_rate + 1e-12
        assert found.threshold(rule.false_alarm_rate) >= wanted


def test_a_rate_below_what_the_kept_scores_support_is_promised_by_all():
    scores = np.random.default_rng(5).exponential(size=200_000)
    found, threshold = calibrate(ScoreSketch(raised(scores)), ThresholdRule(false_alarm_rate=1e-4))
    assert found.size == MOST_SCORES
    assert found.rate(threshold) <= 1e-4 < found.smallest_rate
    assert found.threshold(1e-4) == found.threshold(2e-4) == threshold
    with pytest.raises(aeedge.InputError, match="false_alarm_rate: 5e-05 needs"):
        found.threshold(5e-5)
    new = np.random.default_rng(6).exponential(size=2_000_000)
    assert (new > threshold).mean() == pytest.approx(1e-4, rel=0.3)
    with pytest.raises(
        aeedge.InputError, match=r"1e-06 needs 999,999 cal\S+ samples, there are 200,000: 799,999 are"
    ) as e:
        calibrate(ScoreSketch(scores), ThresholdRule(false_alarm_rate=1e-6))
    assert "a bundle keeps" not in str(e.value)


def test_a_given_threshold_is_kept_and_its_rate_is_never_too_low(scored):
    scores, sketch = scored
    found, threshold = calibrate(sketch, ThresholdRule(threshold=2.5))
    assert threshold == 2.5
    assert found.rate(2.5) >= ((raised(scores) > 2.5).sum() + 1) / (len(scores) + 1) - 1e-12


def test_no_scores_calibrate_nothing():
    with pytest.raises(aeedge.InputError, match="expected finite scores of one or more normal samples, got none"):
        calibrate(ScoreSketch(), ThresholdRule(quantile=0.5))
