"""The ladder: observed <= exact <= bounds, held against each other and against a demand.

This is the one room where simulations and bounds meet. A rung out of order is a bug in the project or a
hole in a theorem, so it is never hidden: it raises, with a witness that anyone can replay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from neurofail._reference import deviations
from neurofail.bounds import Bounds, bounds_of
from neurofail.bounds.arithmetic import rounding_budget
from neurofail.errors import InputError, InversionError
from neurofail.plain import plain
from neurofail.search import WorstCase
from neurofail.tally import Tally

Outcome = Literal["promised", "proven", "not exceeded", "exceeded"]


@dataclass(frozen=True)
class Verdict:
    """What an epsilon comes to.

    Attributes
    ----------
    epsilon : the largest error demanded
    outcome : "promised" by a bound; "proven" by the exact search; "not exceeded" by anything tried, though
        nothing promises it; or "exceeded"
    by : the bound or the search that promises, or in words what was tried
    """

    epsilon: float
    outcome: Outcome
    by: str

    def __str__(self) -> str:
        says = {
            "promised": f"promised by {self.by}",
            "proven": f"proven by {self.by}",
            "not exceeded": f"not promised, but not exceeded either: {self.by}",
            "exceeded": f"EXCEEDED: {self.by}",
        }
        return f"epsilon {self.epsilon:.6g} is {says[self.outcome]}"


@dataclass(frozen=True)
class Ladder:
    """What was observed, what was proven and what is promised, in order.

    Attributes
    ----------
    tally : the campaign
    domain : the bounds over the network's whole input range
    inputs : the bounds for the campaign's inputs alone (certificates)
    exact : the exact search's answer to the same question, where there is one
    arithmetic : what the oracle's own float64 rounding may have added to the observed error
    verdict : what epsilon comes to, where one was demanded
    """

    tally: Tally
    domain: Bounds
    inputs: Bounds
    exact: WorstCase | None
    arithmetic: float
    verdict: Verdict | None

    @property
    def observed(self) -> float:
        """The worst observed error, replayed by the reference (0 where nothing was run)."""
        return self.tally.worst.error if self.tally.worst else 0.0

    @property
    def holds(self) -> bool:
        """Whether nothing seen exceeds the demanded epsilon (True where none was demanded)."""
        return self.verdict is None or self.verdict.outcome != "exceeded"

    def ratio(self, bound: float) -> float:
        """How many times the observed error a bound allows; infinite where nothing was observed."""
        return bound / self.observed if self.observed else math.inf

    def to_dict(self) -> dict[str, object]:
        """The ladder as plain JSON values."""
        return {
            "tally": self.tally.to_dict(),
            "observed": plain(self.observed),
            "exact": None if self.exact is None else self.exact.to_dict(),
            "bounds": {
                "inputs": _bounds(self.inputs, self.observed),
                "domain": _bounds(self.domain, self.observed),
            },
            "arithmetic": plain(self.arithmetic),
            "verdict": None
            if self.verdict is None
            else {
                "epsilon": plain(self.verdict.epsilon),
                "outcome": self.verdict.outcome,
                "by": self.verdict.by,
            },
            "holds": self.holds,
        }

    def __str__(self) -> str:
        from neurofail import report

        return report.ladder(self)


def _bounds(found: Bounds, observed: float) -> Mapping[str, object]:
    return {
        "values": {name: plain(value) for name, value in found.items()},
        "ratios": {name: plain(value / observed) if observed else None for name, value in found.items()},
        "best_name": found.best_name,
        "why": dict(found.why),
        "refused": dict(found.refused),
    }


def compare(tally: Tally, epsilon: float | None = None, *, exact: WorstCase | None = None) -> Ladder:
    """Holds a campaign against every bound that is sound for it.

    Parameters
    ----------
    tally : the outcome of `neurofail.run`
    epsilon : the largest error that the user can live with; the ladder then carries a verdict
    exact : the answer of `neurofail.worst_case` to the same question, as the rung between

    Raises
    ------
    InputError : an epsilon that is not a number, 0 or more; an exact answer to another question.
    InversionError : an observed or exact error above a bound, with the witness.

    >>> import neurofail as nf
    >>> net = nf.Network.dense([[[1.0], [2.0]], [[1.0, -3.0]]], None, ["relu", "identity"])
    >>> tally = nf.run(net, [[0.5], [1.0]], nf.Exhaustive(net, nf.Crash(), failures=(1,)))
    >>> found = nf.compare(tally, epsilon=6.5)
    >>> found.observed, found.inputs.best_name, found.holds
    (6.0, 'influence', True)
    """
    if epsilon is not None and not (isinstance(epsilon, (int, float)) and epsilon >= 0):
        raise InputError(f"epsilon is {epsilon!r}; it must be a number, 0 or more")
    net, budget = tally.plan.net, tally.plan.budget
    domain = bounds_of(net, budget)
    inputs = bounds_of(net, budget, inputs=tally.setup.inputs)
    if exact is not None:
        _same_question(tally, exact)
    arithmetic = rounding_budget(net, "float64", budget, tally.setup.inputs)
    found = Ladder(tally, domain, inputs, exact, arithmetic, None)
    _in_order(found)
    return found if epsilon is None else replace(found, verdict=_verdict(found, float(epsilon)))


def _same_question(tally: Tally, exact: WorstCase) -> None:
    """Raises InputError unless `exact` is about the tally's network, inputs and failures."""
    if exact.budget != tally.plan.budget:
        raise InputError("the exact answer is about other failures than the tally; ask for the same ones")
    row = tally.setup.inputs[exact.input : exact.input + 1]
    if len(row):
        replayed = np.abs(deviations(tally.plan.net, row, exact.operations())[0, exact.output])
    if not len(row) or replayed != exact.error:
        raise InputError("the exact answer is about another network or other inputs than the tally")


def _in_order(found: Ladder) -> None:
    """Raises InversionError where a rung is out of order, rounding of the oracle aside."""
    promised = [
        *((f"bound {name} on these inputs", value) for name, value in found.inputs.items()),
        *((f"bound {name} over the domain", value) for name, value in found.domain.items()),
    ]
    proven = [] if found.exact is None else [("the exact search's upper limit", found.exact.upper)]
    _below(found, "observed", found.observed, [*proven, *promised], found.tally.worst)
    if found.exact is not None:
        _below(found, "exact", found.exact.error, promised, found.exact)


def _below(found: Ladder, what: str, error: float, rungs: list[tuple[str, float]], witness: object) -> None:
    for name, value in rungs:
        if error - found.arithmetic > value:
            raise InversionError(
                f"the {what} error {error!r} exceeds {name}, {value!r}; this is a bug in neurofail or a "
                "hole in a theorem, please report it with the witness",
                witness,
            )


def _verdict(found: Ladder, epsilon: float) -> Verdict:
    tried = f"{found.tally.count:,} configurations on {found.tally.inputs:,} inputs were tried"
    worst = found.tally.worst
    if worst is not None and worst.error > epsilon:
        return Verdict(
            epsilon, "exceeded", f"configuration {worst.index} on input {worst.input} gives {worst.error:.6g}"
        )
    if found.exact is not None and found.exact.error > epsilon:
        return Verdict(epsilon, "exceeded", f"the exact search found {found.exact.error:.6g}")
    if found.domain["best"] <= epsilon:
        return Verdict(epsilon, "promised", f"{found.domain.best_name} over the whole input range")
    if found.inputs["best"] <= epsilon:
        return Verdict(epsilon, "promised", f"{found.inputs.best_name} on these inputs")
    if found.exact is not None and found.exact.upper <= epsilon:
        return Verdict(epsilon, "proven", "the exact search on these inputs")
    return Verdict(epsilon, "not exceeded", tried)
