"""What a sample proves: known answers, and coverage by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import neurofail as nf
from neurofail import statistics
from neurofail.errors import InputError


def net() -> nf.Network:
    rng = np.random.default_rng(3)
    return nf.Network.dense(
        [rng.normal(size=(6, 4)), rng.normal(size=(5, 6)), rng.normal(size=(3, 5))],
        None,
        ["sigmoid", "sigmoid", "identity"],
    )


INPUTS = np.random.default_rng(4).random((20, 4))


# R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17
# (1998), table I: methods 3 (score) and 5 (Clopper-Pearson), 95 %. The last score limit, at a single success,
# is 0.0061 there; ours is the exact one-sided one, 1 - 0.95^(1/29).
@pytest.mark.parametrize(
    ("k", "n", "score", "exact"),
    [
        (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
        (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
        (0, 20, (0.0, 0.1611), (0.0, 0.1684)),
        (1, 29, (1 - 0.95 ** (1 / 29), 0.1718), (0.0009, 0.1776)),
    ],
)
def test_intervals_published_by_newcombe(
    k: int, n: int, score: tuple[float, float], exact: tuple[float, float]
) -> None:
    for successes, mirror in ((k, lambda rate: rate), (n - k, lambda rate: 1 - rate)):
        wilson, pearson = statistics.wilson(successes, n), statistics.clopper_pearson(successes, n)
        assert sorted(map(mirror, (wilson.low, wilson.high))) == pytest.approx(score, abs=5e-5)
        assert sorted(map(mirror, (pearson.low, pearson.high))) == pytest.approx(exact, abs=5e-5)


def test_at_zero_and_at_all_the_exact_interval_has_a_closed_form() -> None:
    assert statistics.clopper_pearson(0, 50).high == pytest.approx(1 - 0.025 ** (1 / 50))
    assert statistics.clopper_pearson(50, 50).low == pytest.approx(0.025 ** (1 / 50))
    assert statistics.clopper_pearson(50, 50).high == 1.0
    assert statistics.wilson(0, 50).low == 0.0
    assert statistics.wilson(50, 50).high == 1.0


def test_the_rule_of_three() -> None:
    assert statistics.rule_of_three(1000) == pytest.approx(math.log(20) / 1000)
    assert statistics.rule_of_three(1000) == pytest.approx(3 / 1000, rel=2e-3)
    # The rule is what the exact one-sided limit 1 - a^(1/n) comes to; it is never below it.
    for n in (1, 5, 30, 10**6):
        assert statistics.rule_of_three(n) >= 1 - 0.05 ** (1 / n)
    assert statistics.rule_of_three(2) == 1.0


# n for a population so large that it does not matter: t^2 / (4 e^2). Leveugle et al. (DATE 2009) work with
# the rounded cut-off t = 1.96, for which 95 % and 1 % give 9,604; the exact 1.959964 gives 9,603.65.
@pytest.mark.parametrize(
    ("margin", "confidence", "size"),
    [(0.05, 0.95, 385), (0.01, 0.95, 9604), (0.01, 0.99, 16588), (0.01, 0.998, 23874)],
)
def test_sample_sizes_for_large_populations(margin: float, confidence: float, size: int) -> None:
    assert statistics.sample_size(margin, confidence) == size
    assert statistics.sample_size(margin, confidence, population=10**15) == size


def test_leveugle_formula_by_hand() -> None:
    # N = 10,000, e = 5 %, t = 1.959964: 10000 / (1 + 0.0025 * 9999 / (3.841459 * 0.25)) = 369.98.
    assert statistics.sample_size(0.05, population=10_000) == 370
    # N = 1,000: 1000 / (1 + 0.0025 * 999 / 0.960365) = 277.74.
    assert statistics.sample_size(0.05, population=1000) == 278
    assert statistics.sample_size(0.001, population=5) == 5
    # p = 0.1 instead of 0.5: 3.841459 * 0.09 / 0.0001 = 3457.3.
    assert statistics.sample_size(0.01, rate=0.1) == 3458


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.001, 0.0])
@pytest.mark.parametrize("width", [0.2, 0.02, 0.001])
def test_the_sample_for_a_width_is_the_smallest(rate: float, width: float) -> None:
    n = statistics.size_for_width(width, rate=rate)
    assert statistics.wilson(rate * n, n).width <= width
    assert n == 1 or statistics.wilson(rate * (n - 1), n - 1).width > width


def test_a_whole_population_leaves_nothing_to_estimate() -> None:
    whole = statistics.wilson(30, 100, population=100)
    assert (whole.low, whole.high) == (0.3, 0.3)
    widths = [statistics.wilson(30, 100, population=n).width for n in (101, 200, 10_000)]
    assert widths == sorted(widths)
    assert statistics.wilson(30, 100, population=10**12).width == pytest.approx(
        statistics.wilson(30, 100).width
    )


def simulated_coverage(rate: float, n: int, interval: str) -> float:
    """The share of 10,000 simulated campaigns whose 95 % interval holds the true rate."""
    successes = np.random.default_rng(7).binomial(n, rate, size=10_000)
    of = {k: getattr(statistics, interval)(int(k), n) for k in np.unique(successes)}
    return float(np.mean([of[k].low <= rate <= of[k].high for k in successes]))


@pytest.mark.parametrize("interval", ["wilson", "clopper_pearson"])
@pytest.mark.parametrize(
    ("rate", "n"),
    [(0.5, 10**3), (0.5, 10**5), (0.01, 10**2), (0.01, 10**3), (0.01, 10**5), (1e-4, 10**4), (1e-4, 10**5)],
)
def test_intervals_cover_the_truth_as_often_as_they_say(interval: str, rate: float, n: int) -> None:
    assert 0.94 <= simulated_coverage(rate, n, interval) <= 0.99


# Successes are whole numbers, so coverage moves in steps with n and the rate. What a few simulated sizes
# cannot show, sums over all outcomes do.


def coverage(interval: str, n: int, rate: float) -> float:
    """The exact probability that the 95 % interval holds the rate."""
    from scipy.stats import binom

    few, many = (int(binom.ppf(tail, n, rate)) for tail in (1e-9, 1 - 1e-9))
    seen = np.arange(few, many + 1)
    limits = [getattr(statistics, interval)(int(k), n) for k in seen]
    holds = [limit.low <= rate <= limit.high for limit in limits]
    return float(binom.pmf(seen[holds], n, rate).sum())


@pytest.mark.parametrize("rate", [0.5, 0.01, 1e-4])
def test_coverage_at_every_size_of_a_campaign(rate: float) -> None:
    for n in np.unique(np.geomspace(20, 30 / rate, 60).astype(int)):
        wilson, exact = (coverage(interval, int(n), rate) for interval in ("wilson", "clopper_pearson"))
        assert wilson >= (0.93 if n >= 150 else 0.91)
        assert exact >= 0.95
        # Below a success the interval of none holds the rate, and 99 % is exceeded: with 0.1 expected, any
        # interval covers 90 % or 99.5.
        assert n * rate < 1 or wilson <= 0.99
        assert n * rate < 4 or exact <= 0.99


@pytest.mark.parametrize(("n", "least"), [(6, 0.91), (13, 0.91), (50, 0.91), (150, 0.93), (500, 0.93)])
def test_coverage_at_the_rates_where_it_is_least(n: int, least: float) -> None:
    from scipy.stats import binom

    seen = np.arange(n + 1)
    limits = [statistics.wilson(int(k), n) for k in seen]
    low, high = np.array([i.low for i in limits]), np.array([i.high for i in limits])
    # Coverage falls only where an interval ends.
    rates = np.concatenate([low * (1 - 1e-9), high * (1 + 1e-9)])
    rates = rates[(rates > 0) & (rates < 1)]
    held = (low[:, None] <= rates) & (rates <= high[:, None])
    assert (binom.pmf(seen[:, None], n, rates) * held).sum(axis=0).min() >= least


@pytest.mark.parametrize(("population", "n"), [(20, 16), (1000, 50), (1000, 800), (1000, 990), (2000, 1000)])
def test_the_finite_population_correction_covers(population: int, n: int) -> None:
    from scipy.stats import hypergeom

    seen = np.arange(n + 1)
    limits = [statistics.wilson(int(k), n, population=population) for k in seen]
    low, high = (np.rint(population * np.array([getattr(i, e) for i in limits])) for e in ("low", "high"))
    for marked in {*range(min(population, 40)), population // 10, population // 3, population - 1}:
        held = (low <= marked) & (marked <= high)
        assert hypergeom.pmf(seen[held], population, marked, n).sum() >= 0.93
    # Without the correction the interval is wider than it need be.
    assert statistics.wilson(n // 10, n).width > statistics.wilson(n // 10, n, population=population).width


@pytest.mark.parametrize("rates", [(0.003, 0.003), (0.001, 0.0), (0.0003, 0.0003)])
def test_strata_that_hardly_ever_fail_are_covered(rates: tuple[float, ...]) -> None:
    rng = np.random.default_rng(10)
    weights, truth = (0.98, 0.02), 0.98 * rates[0] + 0.02 * rates[1]
    covered = 0
    for _ in range(1000):
        interval = statistics.stratified(weights, [(int(rng.binomial(500, p)), 500) for p in rates]).wilson
        assert interval is not None
        covered += interval.low <= truth <= interval.high
    assert covered >= 940


@pytest.mark.parametrize("rates", [(0.5, 0.1, 0.02), (0.01, 0.002, 0.03), (0.2, 0.0, 0.0)])
def test_the_stratified_interval_covers(rates: tuple[float, ...]) -> None:
    rng = np.random.default_rng(9)
    weights, sizes = (0.6, 0.3, 0.1), (500, 500, 500)
    truth = sum(w * p for w, p in zip(weights, rates, strict=True))
    covered = 0
    for _ in range(1000):
        samples = [(int(rng.binomial(n, p)), n) for n, p in zip(sizes, rates, strict=True)]
        interval = statistics.stratified(weights, samples).wilson
        assert interval is not None
        covered += interval.low <= truth <= interval.high
    assert covered >= 925


def test_stratified_by_hand() -> None:
    # 0.75 * 10/100 + 0.25 * 50/100 = 0.2; one stratum alone is the plain estimate, but for its shrinking.
    assert statistics.stratified([0.75, 0.25], [(10, 100), (50, 100)]).value == pytest.approx(0.2)
    one = statistics.stratified([1.0], [(10, 100)])
    assert one.wilson is not None
    assert one.wilson.low == pytest.approx(statistics.wilson(10, 100).low, abs=2e-3)


def test_the_strata_are_all_ways_to_spread_the_failures() -> None:
    parts = statistics.strata(net(), nf.Crash(), 3)
    assert sum(part.size for part in parts) == nf.Exhaustive(net(), nf.Crash(), total=3).count
    assert math.fsum(part.weight for part in parts) == pytest.approx(1.0)
    for part in parts:
        assert part.size == nf.Exhaustive(net(), nf.Crash(), failures=part.failures).count


def test_the_strata_together_estimate_the_whole() -> None:
    plan = nf.Exhaustive(net(), nf.Crash(), total=2)
    truth = nf.run(net(), INPUTS, plan, epsilon=0.4)
    parts = statistics.strata(net(), nf.Crash(), 2)
    tallies = [nf.run(net(), INPUTS, part.plan(4000), epsilon=0.4) for part in parts]
    rates = statistics.combine(tallies)
    assert rates["sdc"].value == pytest.approx(truth.sdc / truth.evaluations, abs=0.01)
    assert rates["exceeded"].value == pytest.approx(truth.exceeded / truth.count, abs=0.02)
    with pytest.raises(InputError, match=r"strata missing: \(0, 2\)"):
        statistics.combine([t for t in tallies if t.plan.budget.failures != ((0, 2),)])
    with pytest.raises(InputError, match="same stratum"):
        statistics.combine([*tallies, tallies[0]])


def test_what_a_campaign_may_say_of_its_maximum() -> None:
    sampled = nf.run(net(), INPUTS, nf.Sampled(net(), nf.Crash(), (2, 0), count=1000, seed=1))
    says = statistics.maximum(sampled)
    assert "worst case can be larger" in says
    assert f"{math.log(20) / 1000:.3g}" in says
    plan = nf.Exhaustive(net(), nf.Crash(), (2, 0))
    assert "this is the worst case" in statistics.maximum(nf.run(net(), INPUTS, plan))
    part = nf.run(net(), INPUTS, plan, stop=3)
    assert "can be larger" in statistics.maximum(part)
    assert statistics.rates(part)["sdc"].kind == "prefix"
    assert statistics.rates(part)["sdc"].wilson is None


def test_the_statement_on_the_maximum_is_true_often_enough() -> None:
    # Uniform errors: the share above the largest of n is 1 minus the largest.
    largest = np.random.default_rng(5).random((10_000, 50)).max(axis=1)
    true = np.mean(1 - largest <= statistics.rule_of_three(50))
    assert 0.95 <= true <= 0.96


def test_a_rate_over_inputs_counts_configurations_not_evaluations() -> None:
    tally = nf.run(net(), INPUTS, nf.Sampled(net(), nf.Crash(), (2, 1), count=500, seed=1))
    rate = statistics.rates(tally)["sdc"]
    assert rate.value == pytest.approx(tally.sdc / tally.evaluations)
    assert rate.wilson == statistics.wilson(tally.sdc / len(INPUTS), 500)


def test_newcombe_difference_published() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), interval estimation for the difference, table II, method 10.
    for old, new, low, high in (
        ((48, 80), (56, 70), 0.0524, 0.3339),
        ((0, 20), (10, 10), 0.6791, 1.0000),
    ):
        found = statistics.newcombe(old, new)
        assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)
    # With 3 and 1 in 10, where our intervals are the wider ones, so is that of the difference.
    found = statistics.newcombe((3, 10), (9, 10))
    assert 0.15 < found.low < 0.1705
    assert 0.8090 < found.high < 0.85


def test_where_a_campaign_looks_depends_on_nothing_but_its_size() -> None:
    stops = list(statistics.looks(10**6))
    assert stops[0] == 1024
    assert stops[-1] == 10**6
    assert all(1 < b / a <= 1.25 for a, b in itertools.pairwise(stops))
    assert list(statistics.looks(100)) == [100]


def test_stopping_early_keeps_the_coverage() -> None:
    # Looking again and again until the interval is narrow costs a little coverage; here is how much.
    rng = np.random.default_rng(11)
    stops = list(statistics.looks(20_000))
    for rate in (0.5, 0.05):
        covered = 0
        for _ in range(2000):
            seen = np.cumsum(rng.random(20_000) < rate)
            for n in stops:
                interval = statistics.wilson(int(seen[n - 1]), n)
                if interval.width <= 0.02:
                    break
            covered += interval.low <= rate <= interval.high
        assert covered / 2000 >= 0.93


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: statistics.wilson(3, 2), "3 successes of 2"),
        (lambda: statistics.wilson(0, 0), "at least one"),
        (lambda: statistics.wilson(1, 5, confidence=1.0), "confidence is 1.0"),
        (lambda: statistics.wilson(1, 5, population=4), "population of 4"),
        (lambda: statistics.sample_size(0), "margin is 0"),
        (lambda: statistics.sample_size(0.1, population=0), "nothing to sample"),
        (lambda: statistics.size_for_width(0.1, rate=2), "rate is 2"),
        (lambda: statistics.stratified([0.5], [(1, 2)]), "add up to 1"),
        (lambda: statistics.stratified([0.5, 0.5], [(1, 2)]), "2 weights and 1"),
        (lambda: statistics.strata(net(), nf.Crash(), 99), "only 11 places"),
        (
            lambda: statistics.rates(nf.run(net(), INPUTS, nf.Exhaustive(net(), nf.Crash(), (1, 0)), stop=0)),
            "nothing",
        ),
    ],
)
def test_what_cannot_be_is_refused(call: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call()  # type: ignore[operator]  # every one is a lambda
