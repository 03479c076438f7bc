"""What a sample proves about a rate or about a maximum, and how large it must be.

The unit that is drawn is a configuration; every configuration meets the same inputs. Evaluations of one
configuration are therefore not independent draws, and an interval that counted each as one would be too
narrow by up to the square root of the number of inputs. All rates here are means over configurations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import comb, prod

from neurofail.errors import InputError
from neurofail.faults import Fault
from neurofail.network import Network, whole
from neurofail.plans import LARGEST_SAMPLE, Plan, Sampled
from neurofail.tally import Tally

_MOST_STRATA = 10_000
# The first look of a campaign that stops by itself, and the least step between two looks.
_FIRST_LOOK = 1024


@dataclass(frozen=True)
class Interval:
    """Limits of a rate at a stated confidence."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """high - low."""
        return self.high - self.low


@dataclass(frozen=True)
class Rate:
    """A rate over configurations, and what is known of it.

    Attributes
    ----------
    value : the rate seen
    wilson, exact : its Wilson and Clopper-Pearson intervals; None where there is nothing to estimate
        (`kind` "census") or nothing that allows it (`kind` "prefix")
    kind : "sample", "census" (every configuration was run: the value is the rate) or "prefix" (the first
        configurations of an enumeration, which are no random sample of the rest)
    """

    value: float
    wilson: Interval | None
    exact: Interval | None
    kind: str

    def to_dict(self) -> dict[str, object]:
        """The rate as plain JSON values."""
        return {
            "value": self.value,
            "wilson": None if self.wilson is None else [self.wilson.low, self.wilson.high],
            "clopper_pearson": None if self.exact is None else [self.exact.low, self.exact.high],
            "kind": self.kind,
        }


def quantile(confidence: float) -> float:
    """The two-sided normal quantile: 1.96 at 0.95.

    >>> round(quantile(0.95), 3)
    1.96
    """
    from statistics import NormalDist

    return NormalDist().inv_cdf((1 + _fraction(confidence, "confidence")) / 2)


def wilson(
    successes: float, trials: float, confidence: float = 0.95, population: int | None = None
) -> Interval:
    """The score interval of a rate (E. B. Wilson, JASA 22, 1927), widened near 0 and 1.

    As it stands, the score interval covers 84 % instead of 95 where a fifth of a success is expected: its
    lower limit is too high for few successes. After L. D. Brown, T. T. Cai and A. DasGupta ("Interval
    estimation for a binomial proportion", Statistical Science 16(2), 2001, 4.1.1) a limit is never inside the
    exact one-sided limit of the same confidence. (Theirs is the Poisson distribution's, for up to three
    successes; this is the binomial's, wherever it is the wider one, which is up to nine or so.) At every rate
    the interval at 95 % then covers at least 93 % from 150 trials on, and 91 % of fewer.

    `population`: the number of configurations there are, when the trials were drawn from them without
    replacement; the interval then closes as the sample nears the whole (the finite-population correction:
    n counts as n (N - 1) / (N - n)), and ends at whole configurations. `Sampled` draws with replacement, to
    which no correction applies. Raises InputError for counts that cannot be.

    >>> interval = wilson(10, 100)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.0552, 0.1744)
    """
    z = quantile(confidence)
    rate = _share(successes, trials)
    n = float(trials)
    if population is not None:
        if not trials <= population:
            raise InputError(f"{trials} trials cannot come from a population of {population}")
        if trials == population:
            return Interval(rate, rate)
        n *= (population - 1) / (population - trials)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    widest = _exact(rate * n, n, 1 - confidence)
    low, high = min(centre - half, widest.low), max(centre + half, widest.high)
    if population is not None:
        low = math.floor(Fraction(low) * population) / population
        high = math.ceil(Fraction(high) * population) / population
    # At 0 and 1 the score interval ends there, but for its last rounding.
    return Interval(0.0 if rate == 0 else max(0.0, low), 1.0 if rate == 1 else min(1.0, high))


def clopper_pearson(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """The interval that is never too narrow (C. J. Clopper and E. S. Pearson, Biometrika 26, 1934).

    At zero successes its upper end is 1 - (a/2)^(1/n).

    >>> interval = clopper_pearson(10, 100)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.049, 0.1762)
    """
    _share(successes, trials)
    return _exact(successes, trials, (1 - _fraction(confidence, "confidence")) / 2)


def _exact(successes: float, trials: float, tail: float) -> Interval:
    """The limits beyond which so few, or so many, successes have at most the probability `tail`."""
    from scipy.stats import beta

    low = float(beta.ppf(tail, successes, trials - successes + 1)) if successes > 0 else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, trials - successes)) if successes < trials else 1.0
    return Interval(low, high)


def rule_of_three(trials: int, confidence: float = 0.95) -> float:
    """With no success in n trials, the rate is at most ln(1/a) / n: 3/n at 95 %.

    Exactly, at most 1 - a^(1/n), which is less (J. A. Hanley and A. Lippman-Hand, JAMA 249, 1983).

    >>> round(rule_of_three(3000), 6)
    0.000999
    """
    _share(0, trials)
    return min(1.0, -math.log1p(-_fraction(confidence, "confidence")) / trials)


def rates(tally: Tally, confidence: float = 0.95) -> dict[str, Rate]:
    """The rates of a tally: `sdc`, `due` (mean share of inputs) and, of an epsilon, `exceeded`.

    A configuration's share of inputs lies in [0, 1], so its variance is at most that of a yes or no with
    the same mean: the intervals of `sdc` and `due` count each configuration as one draw, which is safe
    however alike the inputs are.
    """
    if not tally.count:
        raise InputError("nothing has been run yet, so there is no rate")
    return {name: _rate(tally, successes, confidence) for name, successes in successes(tally).items()}


def successes(tally: Tally) -> dict[str, float]:
    """What is counted, in configurations; exceedance only where an epsilon was given."""
    counts = {"sdc": tally.sdc / tally.inputs, "due": tally.due / tally.inputs}
    if not math.isinf(tally.setup.epsilon):
        counts["exceeded"] = float(tally.exceeded)
    return counts


def _rate(tally: Tally, successes: float, confidence: float) -> Rate:
    n = tally.count
    if not isinstance(tally.plan, Sampled):
        return Rate(successes / n, None, None, "census" if tally.complete else "prefix")
    return Rate(
        successes / n,
        wilson(successes, n, confidence),
        clopper_pearson(successes, n, confidence),
        "sample",
    )


def maximum(tally: Tally, confidence: float = 0.95) -> str:
    """What the largest error seen says about the largest there is.

    A sampled maximum is never the worst case. If a share q of all configurations exceeded it, a sample of
    n would have missed them all with probability (1 - q)^n; so with confidence 1 - a, q <= ln(1/a) / n.
    """
    if not isinstance(tally.plan, Sampled):
        if tally.complete:
            return "every configuration was run: this is the worst case for these inputs"
        return "not every configuration has been run: the worst case can be larger"
    share = rule_of_three(tally.count, confidence)
    return (
        f"sampled: the worst case can be larger; with confidence {confidence:g}, at most {share:.3g} of "
        f"configurations exceed it (ln(1/a)/n, n = {tally.count:,})"
    )


def sample_size(
    margin: float, confidence: float = 0.95, population: int | None = None, rate: float = 0.5
) -> int:
    """How many faults to inject so that the rate is known to +- margin.

    n = N / (1 + e^2 (N - 1) / (t^2 p (1 - p))), rounded up, for a population of N, a margin e, and the
    normal quantile t; p = 0.5 is the worst case. R. Leveugle, A. Calvez, P. Maistri and P. Vanhauwaert,
    "Statistical fault injection: quantified error and confidence", DATE 2009, eq. 4.

    >>> sample_size(0.01), sample_size(0.05), sample_size(0.05, population=1000)
    (9604, 385, 278)
    """
    t = Fraction(quantile(confidence))
    p = Fraction(_fraction(rate, "rate"))
    needed = t * t * p * (1 - p) / Fraction(_fraction(margin, "margin")) ** 2
    if population is None:
        return _drawable(_up(needed), f"margin is {margin}")
    size = whole(population, "population")
    if not size:
        raise InputError("population is 0; there is nothing to sample")
    return min(size, _up(size / (1 + (size - 1) / needed)))


def _up(n: Fraction) -> int:
    """The next whole number, forgiving a last rounding of one that is whole."""
    return max(1, math.ceil(n * Fraction(1 - 1e-12)))


def _drawable(size: int, what: str) -> int:
    if size > LARGEST_SAMPLE:
        raise InputError(f"{what}; that takes more than 2^63 - 1 configurations, the most that can be drawn")
    return size


def size_for_width(width: float, confidence: float = 0.95, rate: float = 0.5) -> int:
    """The smallest sample whose Wilson interval, at this rate, is no wider than `width`.

    >>> size_for_width(0.02)
    9600
    >>> wilson(0.5 * 9600, 9600).width <= 0.02 < wilson(0.5 * 9599, 9599).width
    True
    """
    _fraction(width, "width")
    if not 0 <= rate <= 1:
        raise InputError(f"rate is {rate}; it must lie between 0 and 1")
    enough, few = 1, 0
    while wilson(rate * enough, enough, confidence).width > width:
        few, enough = enough, 2 * enough
        _drawable(few, f"width is {width}")
    while enough - few > 1:
        middle = (few + enough) // 2
        if wilson(rate * middle, middle, confidence).width > width:
            few = middle
        else:
            enough = middle
    return enough


def looks(count: int) -> Iterator[int]:
    """Where a campaign that may stop early looks at its interval: 1024, and on in steps of a quarter.

    Fixed beforehand, so that the place where it stops does not depend on who ran what when.

    >>> list(looks(2000))
    [1024, 1280, 1600, 2000]
    """
    at = _FIRST_LOOK
    while at < count:
        yield at
        at += at // 4
    yield count


def narrow(tally: Tally, width: float, confidence: float = 0.95) -> bool:
    """Whether every rate of a sampled campaign is known this closely, by its Wilson interval."""
    counts = successes(tally)
    return all(wilson(k, tally.count, confidence).width <= width for k in counts.values())


@dataclass(frozen=True)
class Stratum:
    """A part of "so many failures anywhere": how many fall into each layer.

    `weight` is its share of all configurations, `plan(count, seed)` samples it.
    """

    net: Network
    fault: Fault
    failures: tuple[int, ...]
    size: int
    weight: float

    def plan(self, count: int, seed: int = 0) -> Sampled:
        """`count` configurations drawn from this stratum."""
        return Sampled(self.net, self.fault, self.failures, count=count, seed=seed)


def strata(net: Network, fault: Fault, total: int) -> list[Stratum]:
    """All ways in which `total` failures spread over the layers, with their exact shares.

    >>> net = Network.dense([[[1.0]] * 3, [[1.0] * 3] * 2, [[1.0] * 2]], None, ["relu", "relu", "identity"])
    >>> from neurofail.faults import Crash
    >>> [(s.failures, s.size) for s in strata(net, Crash(), 1)]
    [((0, 1), 2), ((1, 0), 3)]
    """
    wanted = whole(total, "total")
    places = [fault.places(net, layer) for layer in fault.layers(net)]
    if wanted > sum(places):
        raise InputError(f"{wanted} failures asked for, but only {sum(places)} places can fail")
    if math.comb(wanted + len(places) - 1, wanted) > _MOST_STRATA:
        raise InputError(f"{wanted} failures over {len(places)} layers make more than {_MOST_STRATA} strata")
    found = []
    for first in product(*(range(min(n, wanted) + 1) for n in places[:-1])):
        spread = (*first, wanted - sum(first))
        if 0 <= spread[-1] <= places[-1]:
            found.append((spread, prod(map(comb, places, spread))))
    whole_ = sum(size for _, size in found)
    return [Stratum(net, fault, spread, size, size / whole_) for spread, size in found]


def stratified(
    weights: Sequence[float], samples: Sequence[tuple[float, int]], confidence: float = 0.95
) -> Rate:
    """The rate of the whole from samples (successes, trials) of its strata: sum of weight times rate.

    The intervals take the effective sample size p (1 - p) / variance (E. L. Korn and B. I. Graubard, Survey
    Methodology 24, 1998), with the strata's rates shrunk by half a success and half a failure in the
    variance, so that a stratum without success does not count as known for certain. They cover what they say
    where strata are sampled in proportion to their weights; with 50 draws of one half and 5,000 of the other,
    some 88 %.

    >>> stratified([0.75, 0.25], [(10, 100), (50, 100)]).value
    0.2
    """
    if len(weights) != len(samples) or not samples:
        raise InputError(f"{len(weights)} weights and {len(samples)} samples given; each stratum needs both")
    if min(weights) < 0 or not math.isclose(sum(weights), 1.0, rel_tol=1e-9):
        raise InputError(f"the strata's weights {list(weights)} must be 0 or more and add up to 1")
    value = math.fsum(w * _share(k, n) for w, (k, n) in zip(weights, samples, strict=True))
    variance = smooth = 0.0
    for weight, (k, n) in zip(weights, samples, strict=True):
        p = (k + 0.5) / (n + 1)
        smooth += weight * p
        variance += weight * weight * p * (1 - p) / n
    effective = smooth * (1 - smooth) / variance
    value = min(1.0, value)
    return Rate(
        value,
        wilson(value * effective, effective, confidence),
        clopper_pearson(value * effective, effective, confidence),
        "sample",
    )


def combine(tallies: Sequence[Tally], confidence: float = 0.95) -> dict[str, Rate]:
    """The rates of "so many failures anywhere" from a sample of each of its `strata`.

    Raises InputError unless the tallies are the strata of one question, each once and none missing.
    """
    spread = {_spread(tally): tally for tally in tallies}
    if len(spread) != len(tallies):
        raise InputError("two of these campaigns sample the same stratum; give each stratum once")
    first = tallies[0]
    net, fault = first.plan.net, first.plan.budget.faults[0]
    parts = strata(net, fault, sum(_spread(first)))
    missing = [str(part.failures) for part in parts if part.failures not in spread]
    if missing or len(parts) != len(spread):
        raise InputError(
            f"strata missing: {', '.join(missing) or 'none, but others are too many'}; "
            f"all of {sum(_spread(first))} failures anywhere are needed"
        )
    for tally in tallies:
        for name in ("network", "inputs", "dtype", "epsilon", "faults"):
            if tally.setup.describe()[name] != first.setup.describe()[name]:
                raise InputError(f"these strata belong to different campaigns: {name} differs")
    weights = [part.weight for part in parts]
    ordered = [spread[part.failures] for part in parts]
    return {
        name: stratified(weights, [(successes(t)[name], t.count) for t in ordered], confidence)
        for name in successes(first)
    }


def _spread(tally: Tally) -> tuple[int, ...]:
    """How a stratum's failures spread over the layers."""
    budget = tally.plan.budget
    if not isinstance(tally.plan, Sampled) or budget.at_most or budget.failures is None:
        raise InputError("a stratum is a sample of exact counts in each layer")
    if len(budget.faults) != 1:
        raise InputError("a stratum has one kind of failure")
    return budget.failures[0]


def newcombe(old: tuple[float, int], new: tuple[float, int], confidence: float = 0.95) -> Interval:
    """The interval of new rate - old rate (R. G. Newcombe, Statistics in Medicine 17, 1998, method 10).

    >>> interval = newcombe((48, 80), (56, 70))  # Newcombe's table II (a): 0.2000, 0.0524 to 0.3339
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.0524, 0.3339)
    """
    p, q = _share(*old), _share(*new)
    a, b = wilson(*old, confidence), wilson(*new, confidence)
    low = (q - p) - math.hypot(q - b.low, a.high - p)
    return Interval(low, (q - p) + math.hypot(b.high - q, p - a.low))


def _share(successes: float, trials: float) -> float:
    if not trials > 0:
        raise InputError(f"trials is {trials}; a rate needs at least one")
    if not 0 <= successes <= trials:
        raise InputError(f"{successes} successes of {trials} trials cannot be")
    return successes / trials


def _fraction(value: float, what: str) -> float:
    if not 0 < value < 1:
        raise InputError(f"{what} is {value}; it must lie between 0 and 1")
    return value


def population(plan: Plan) -> int:
    """How many configurations there are to draw from: the count of the enumeration."""
    return plan.targets * prod(block.count for block in plan.blocks)
