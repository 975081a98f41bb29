"""Split conformal calibration: p-values, thresholds and rates by their definitions, and the guarantee by simulation."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from helpers.strategies import some
from hypothesis import given
from hypothesis import strategies as st

import aeedge
from aeedge.bundle.manifest import MOST_SCORES
from aeedge.detection.calibration import Calibration, ThresholdRule, alarm_band, calibrate, chosen, rounded_up

distinct = st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=60, unique=True)
tied = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.0000001, 2.0]), min_size=1, max_size=60)
extreme = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=60)
any_scores = st.one_of(distinct, tied, extreme)
rates = st.floats(0, 1, exclude_min=True, exclude_max=True)


@st.composite
def scored(draw, scores=any_scores):
    """Calibration scores, and scores of other samples: some of them the same, some next to them."""
    known = draw(scores)
    with np.errstate(over="ignore"):
        near = [float(np.nextafter(np.float32(s), np.float32(way))) for s in known[:5] for way in (-np.inf, np.inf)]
    new = draw(st.lists(st.one_of(st.sampled_from([*known, *near]), st.floats(width=32, allow_nan=False)), min_size=1))
    return np.array(known, np.float32), np.array(new, np.float32)


@some()
@given(scored())
def test_p_values_are_those_of_a_plain_loop(found):
    known, new = found
    p = Calibration(known).p_value(new)
    assert p.dtype == np.float64
    assert p.tolist() == [(1 + sum(c >= s for c in known)) / (len(known) + 1) for s in new]


def test_p_values_have_the_shape_of_the_scores():
    calibration = Calibration([1, 2, 3])
    for shape in ((), (1,), (4,), (2, 3), (0,)):
        assert calibration.p_value(np.full(shape, 2.0)).shape == shape
    assert isinstance(calibration.p_value(2.0), np.float64)
    assert np.isnan(calibration.p_value([np.nan, 1.0])).tolist() == [True, False]
    assert calibration.p_value([np.inf, -np.inf]).tolist() == [0.25, 1.0]


@some()
@given(scored(), st.data())
def test_an_alarm_is_a_p_value_of_at_most_the_rate(found, data):
    """With ties, infinities and neighbours of float32, for all rates that the calibration supports, and others."""
    known, new = found
    n = len(known)
    k = data.draw(st.integers(1, n))
    calibration = Calibration(known)
    p, t = calibration.p_value(new), calibration.threshold(k / (n + 1))
    assert t == np.sort(known)[-k]
    assert ((new > t) == (p <= k / (n + 1))).all()
    between = data.draw(st.floats(k / (n + 1), (k + 1) / (n + 1), exclude_max=True))
    if between * (n + 1) < k + 1 - 1e-6:
        assert calibration.threshold(min(between, math.nextafter(1, 0))) == t


@some()
@given(distinct, rates)
def test_a_rate_is_never_exceeded_on_average(known, rate):
    """k of n + 1 exchangeable samples score above the k-th highest of the other n: k / (n + 1) is at most the rate."""
    n, calibration = len(known), Calibration(known)
    if rate * (n + 1) < 1 - 1e-6:
        with pytest.raises(aeedge.InputError, match=r"(is|are) missing"):
            calibration.threshold(rate)
    elif rate * (n + 1) > 1 + 1e-6:
        t = calibration.threshold(rate)
        assert calibration.rate(t) <= rate + 1e-9
        higher = [s for s in known if np.float32(s) > t]
        if higher:  # the next threshold below would exceed it
            assert rate < calibration.rate(t) + 1 / (n + 1) + 1e-9


def test_the_rate_next_to_1_has_the_lowest_score_as_its_threshold():
    for n in (1, 3, 999):
        assert Calibration(np.arange(n)).threshold(1 - 1e-12) == 0


def test_rates_that_no_float_holds_exactly_are_those_that_were_meant():
    """0.29 · 100 is 28.999999999999996."""
    for n in (9, 99, 999):
        calibration = Calibration(np.arange(n))
        for k in range(1, n + 1):
            assert calibration.threshold(k / (n + 1)) == n - k


@pytest.mark.parametrize(
    ("rate", "needed"),
    [(0.5, 1), (0.1, 9), (0.05, 19), (0.01, 99), (0.003, 333), (1e-3, 999), (5e-4, 1999), (2.5e-4, 3999)],
)
def test_a_rate_says_how_many_samples_are_missing(rate, needed):
    assert Calibration(np.arange(needed)).threshold(rate) == needed - 1
    have = needed // 2
    few = "1 is" if needed == 1 else f"{needed - have:,} are"
    message = f"{rate:g} needs {needed:,} calibration samples, there are {have:,}: {few} missing;"
    for n in (have, needed - 1):
        with pytest.raises(aeedge.InputError) as caught:
            Calibration(np.arange(n)).threshold(rate)
        assert (message in str(caught.value)) == (n == have)
        assert "a bundle keeps" not in str(caught.value)


@pytest.mark.parametrize("rate", [1e-4, 1e-9, 5e-324])
def test_a_rate_that_no_bundle_supports_is_told_so(rate):
    with pytest.raises(aeedge.InputError, match=r"are missing \(a bundle keeps 4,096, enough for 0\.000245\)"):
        Calibration(np.arange(MOST_SCORES)).threshold(rate)


def test_the_smallest_rate_that_a_message_names_is_accepted():
    for n in range(1, MOST_SCORES + 1):
        calibration = Calibration(np.arange(n))
        with pytest.raises(aeedge.InputError) as caught:
            calibration.threshold(0.99 / (n + 1))
        named = float(re.search(r"smallest rate here is (\S+)$", str(caught.value))[1])
        assert calibration.threshold(named) == n - 1
        with pytest.raises(aeedge.InputError, match=rf"needs {n:,} cal.*, there are {n - 1:,}: 1 is missing;"):
            Calibration(np.arange(n - 1)).threshold(1 / (n + 1))
        assert named == pytest.approx(1 / (n + 1), rel=0.011)


@given(rates)
def test_three_digits_of_a_rate_are_no_less_than_it(rate):
    if rate > 1e-290:
        assert rate * (1 - 1e-9) <= rounded_up(rate) <= rate * 1.011


BAD = {
    "true": True,
    "true of numpy": np.True_,
    "text": "0.1",
    "bytes": b"0.1",
    "list": [0.1],
    "array": np.array([[0.1], [0.2]]),
    "complex": 0.1j,
    "class": float,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "a number of 5000 digits": 10**5000,
    "below 0": -0.1,
    "0": 0,
    "1": 1,
}


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", ThresholdRule()._fields)
def test_a_rule_of_what_is_no_number_in_its_range(name, value):
    if (value in ("below 0", "0", "1") and name == "threshold") or (value == "0" and name == "contamination"):
        return  # the range is another
    with pytest.raises(aeedge.InputError, match=rf"^{name}: expected a .*, got ") as caught:
        ThresholdRule(**{name: BAD[value]}).checked()
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()


def test_numbers_of_every_kind_are_numbers():
    for value in (0.25, np.float32(0.25), np.float64(0.25), np.float16(0.25), Fraction(1, 4)):
        checked = ThresholdRule(false_alarm_rate=value, contamination=value).checked()
        assert checked == ThresholdRule(false_alarm_rate=0.25, contamination=0.25)
    assert ThresholdRule(threshold=np.int64(-3)).checked().threshold == -3.0


@pytest.mark.parametrize("value", [1e39, -1e39, 10**40, np.float64(3.5e38)])
def test_a_threshold_beyond_float32_is_refused(value):
    with pytest.raises(aeedge.InputError, match="threshold: expected a finite number within float32, got"):
        ThresholdRule(threshold=value).checked()


@pytest.mark.parametrize("share", [0.5000001, 0.51, 1, 2, -1e-9, None])
def test_contamination_above_a_half_is_refused(share):
    with pytest.raises(aeedge.InputError, match=r"contamination: expected a number from 0 to 0\.5, got"):
        ThresholdRule(false_alarm_rate=0.1, contamination=share).checked()
    assert ThresholdRule(contamination=0.5).checked().contamination == 0.5


def test_two_rules_or_none():
    three = {"false_alarm_rate": 0.1, "quantile": 0.9, "threshold": 1.0}
    for left_out in [*three, None]:
        with pytest.raises(
            aeedge.InputError, match=r"expected one rule for the threshold, got .* and .*; leave one out"
        ):
            ThresholdRule(**{name: value for name, value in three.items() if name != left_out}).checked()
    with pytest.raises(aeedge.InputError, match="expected a false_alarm_rate, a quantile or a threshold, got none"):
        calibrate([1, 2], ThresholdRule(contamination=0.1))
    with pytest.raises(aeedge.InputError, match="contamination: a threshold that is given does not depend"):
        ThresholdRule(threshold=1.0, contamination=0.1).checked()


def test_a_rule_as_json_is_what_was_given():
    assert ThresholdRule(false_alarm_rate=np.float32(0.5), contamination=0.1).checked().document() == {
        "false_alarm_rate": 0.5,
        "contamination": 0.1,
    }
    document = ThresholdRule(threshold=1).checked().document()
    assert document == {"threshold": 1.0}
    assert type(document["threshold"]) is float


@pytest.mark.parametrize("scores", [[], [np.nan], [1, np.inf], [1, np.nan, -np.inf], [3.4028e38], [1e300]])
def test_calibration_scores_that_are_none(scores):
    with pytest.raises(aeedge.InputError, match="calibration: expected finite scores of one or more normal samples"):
        calibrate(scores, ThresholdRule(quantile=0.5))


def raised(scores):
    """As `calibrate` keeps them."""
    return np.sort((np.asarray(scores, np.float64) * 1.00001 + 1e-9).astype(np.float32))


@some()
@given(distinct, st.integers(1, 99), st.integers(0, 50))
def test_contamination_leaves_out_the_highest_scores_first(known, percent, contamination):
    left_out = math.floor(Fraction(contamination, 100) * len(known))
    kept = raised(known)[: len(known) - left_out]
    rule = ThresholdRule(quantile=percent / 100, contamination=contamination / 100)
    found, threshold = calibrate(known, rule)
    np.testing.assert_array_equal(found.scores, kept)
    assert threshold == kept[math.ceil(Fraction(percent, 100) * len(kept)) - 1]
    k = math.floor(Fraction(percent, 100) * (len(kept) + 1))
    rule = ThresholdRule(false_alarm_rate=percent / 100, contamination=contamination / 100)
    if k:
        assert calibrate(known, rule)[1] == kept[-k]
    else:
        with pytest.raises(aeedge.InputError, match=r"(is|are) missing"):
            calibrate(known, rule)


def test_the_smallest_quantile_is_the_lowest_score():
    assert calibrate(np.arange(1, 4), ThresholdRule(quantile=1e-12))[1] == np.float32(1.00001 + 1e-9)
    assert calibrate(np.arange(1, 4), ThresholdRule(quantile=1 - 1e-12))[1] == np.float32(3 * 1.00001 + 1e-9)


def test_a_threshold_that_is_given_is_kept():
    found, threshold = calibrate([1, 2, 3, 4], ThresholdRule(threshold=2.5))
    assert threshold == 2.5
    assert found.rate(threshold) == 3 / 5
    assert (found.rate(0), found.rate(5)) == (1, 1 / 5)


def test_rounding_decides_on_no_alarm_of_samples_that_are_equal():
    """A machine that stands still gives the same sample again and again: 3 % of them, and a rate of 1 %."""
    rng = np.random.default_rng(0)
    scores = np.where(rng.random(999) < 0.03, 7.0, rng.random(999))
    found, threshold = calibrate(scores, ThresholdRule(false_alarm_rate=0.01))
    still = np.float32(7) * (1 + rng.uniform(-5e-6, 5e-6, 1000))
    assert (still > 7).sum() > 400
    assert not (still.astype(np.float32) > threshold).any()
    assert (found.p_value(still) > 0.01).all()


@pytest.mark.parametrize("ordered", [False, True])
def test_chosen_samples_are_so_many_and_each_once(ordered):
    for count in (1, 7, MOST_SCORES - 1, MOST_SCORES):
        assert chosen(count, time_ordered=ordered).tolist() == list(range(count))
    for count in (MOST_SCORES + 1, 5000, 100_003):
        found = chosen(count, time_ordered=ordered)
        assert len(found) == MOST_SCORES
        assert (np.diff(found) > 0).all()
        assert 0 <= found[0] <= found[-1] < count
        np.testing.assert_array_equal(found, chosen(count, time_ordered=ordered))
        if ordered:
            assert np.ptp(np.diff(found)) <= 1
            assert (found[0], found[-1]) == (0, count - 1)


def beta_binomial(k, n, count):
    """Exact probabilities of 0 … count alarms: new samples between the n calibration samples, all orders as likely."""
    ways = [math.comb(j + k - 1, j) * math.comb(count - j + n - k, count - j) for j in range(count + 1)]
    return [Fraction(w, math.comb(count + n, count)) for w in ways]


@pytest.mark.parametrize(("n", "k", "count"), [(9, 1, 10), (99, 1, 50), (99, 10, 200), (20, 20, 15), (1, 1, 30)])
@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.99])
def test_the_band_of_alarms_is_the_exact_central_one(n, k, count, coverage):
    law = beta_binomial(k, n, count)
    assert sum(law) == 1
    low, high = alarm_band(k / (n + 1), n, count, coverage)
    tail = Fraction(1 - coverage) / 2
    assert sum(law[:low]) <= tail + Fraction(1, 10**9)
    assert sum(law[high + 1 :]) <= tail + Fraction(1, 10**9)
    assert sum(law[: low + 1]) > tail - Fraction(1, 10**9)  # no narrower band will do
    assert sum(law[high:]) > tail - Fraction(1, 10**9)


def test_the_band_of_no_samples_is_no_alarm():
    assert alarm_band(0.1, 99, 0) == (0, 0)


def test_the_band_of_very_many_samples_is_that_of_the_rate():
    low, high = alarm_band(0.01, 999, 10**6)
    assert 0.003 < low / 10**6 < 0.005
    assert 0.016 < high / 10**6 < 0.021


def binomial_band(share, count, tail=1e-6):
    """Numbers of successes, all but a millionth on each side."""
    log = [
        math.lgamma(count + 1) - math.lgamma(j + 1) - math.lgamma(count - j + 1)
        + j * math.log(share) + (count - j) * math.log1p(-share)
        for j in range(count + 1)
    ]  # fmt: skip
    cdf = np.cumsum(np.exp(log))
    return int(np.searchsorted(cdf, tail)), int(np.searchsorted(cdf, 1 - tail))


@pytest.mark.parametrize(
    ("n", "rate", "k"), [(9, 0.1, 1), (99, 0.1, 10), (150, 0.1, 15), (99, 0.01, 1), (999, 1e-3, 1)]
)
def test_the_promised_rate_is_kept_on_average(n, rate, k):
    """One new sample for each calibration: alarms are independent, with the probability k / (n + 1) exactly."""
    rng, trials = np.random.default_rng(n), 20_000
    samples = rng.standard_cauchy((trials, n + 1)).astype(np.float32)  # far tails do not matter
    alarms = sum(row[-1] > Calibration(row[:-1]).threshold(rate) for row in samples)
    low, high = binomial_band(k / (n + 1), trials)
    assert low <= alarms <= high
    assert high < 1.5 * rate * trials + 30  # it says something


def test_ties_only_make_alarms_rarer():
    rng, trials, n = np.random.default_rng(1), 20_000, 99
    samples = rng.integers(0, 12, (trials, n + 1))
    alarms = sum(row[-1] > Calibration(row[:-1]).threshold(0.1) for row in samples)
    assert alarms <= binomial_band(0.1, trials)[1]


@pytest.mark.parametrize("calibrated", [10**8, 10**12, 2**63 - 1])
def test_with_very_many_calibration_samples_alarms_are_binomial(calibrated):
    assert alarm_band(1e-6, calibrated, 10**6) == (0, 4)  # Poisson with a mean of 1
    low, high = alarm_band(1e-3, calibrated, 10**6)
    assert low == pytest.approx(1000 - 2.576 * 1000**0.5, abs=3)
    assert high == pytest.approx(1000 + 2.576 * 1000**0.5, abs=3)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("rate", [0.1, 0.01, 0.001])
def test_what_is_promised_holds_with_the_scores_that_are_kept_of_many(rate, ordered):
    """Of 10 000 scores 4 096 are kept; alarms of 2 000 new samples are within the band of these."""
    rng, trials, new = np.random.default_rng(2), 300, 2000
    kept = chosen(10_000, time_ordered=ordered)
    k = math.floor(rate * (len(kept) + 1))
    low, high = alarm_band(k / (len(kept) + 1), len(kept), new)
    outside, alarms = 0, 0
    for _ in range(trials):
        found, threshold = calibrate(rng.exponential(size=10_000)[kept], ThresholdRule(false_alarm_rate=rate))
        assert found.size == MOST_SCORES
        count = int((rng.exponential(size=new) > threshold).sum())
        outside, alarms = outside + (not low <= count <= high), alarms + count
    assert outside <= binomial_band(0.01, trials)[1]
    assert alarms == pytest.approx(rate * trials * new, rel=0.1)
