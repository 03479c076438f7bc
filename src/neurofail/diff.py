"""Two campaigns side by side: is the new network more fragile than the old one?

Rates are compared with their statistics, the worst case only where both campaigns know it. The largest error
of a sample is no worst case: of two equal networks, either has the larger one half of the time. Samples are
compared by how many of the new one exceed everything in the old one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurofail import statistics
from neurofail.errors import InputError
from neurofail.folder import Folder
from neurofail.plain import plain
from neurofail.plans import Sampled
from neurofail.records import edges
from neurofail.tally import Tally

# What two campaigns must share to be comparable; the network is what changes, a sample may be another one.
_SHARED = ("inputs", "dtype", "epsilon", "plan", "faults", "failures", "totals", "at_most")


@dataclass(frozen=True)
class Finding:
    """One thing compared: what was found, in words, and whether it speaks against the new network."""

    name: str
    old: float
    new: float
    worse: bool
    says: str


@dataclass(frozen=True)
class Difference:
    """Everything compared between an old and a new campaign."""

    findings: tuple[Finding, ...]

    @property
    def worse(self) -> bool:
        """Whether the new network is more fragile."""
        return any(finding.worse for finding in self.findings)

    def to_dict(self) -> dict[str, object]:
        """The comparison as plain JSON values."""
        return {
            "worse": self.worse,
            "findings": [
                {"name": f.name, "old": plain(f.old), "new": plain(f.new), "worse": f.worse, "says": f.says}
                for f in self.findings
            ],
        }

    def __str__(self) -> str:
        rows = [f"{'WORSE' if f.worse else 'ok':<6}{f.name:<12}{f.says}" for f in self.findings]
        verdict = "the new network is more fragile" if self.worse else "the new network is no more fragile"
        return "\n".join([*rows, verdict])


def diff(old: Tally, new: Tally, confidence: float = 0.95) -> Difference:
    """Compares two campaigns that asked the same of two networks.

    Rates of samples count as worse when the interval of their difference (Newcombe) lies above 0, rates over
    all configurations when they are larger at all; so does the worst case of two complete enumerations.
    Raises InputError for campaigns that asked different questions, or have not run.
    """
    _comparable(old, new)
    findings = [_rate(name, old, new, confidence) for name in statistics.successes(old)]
    return Difference((*findings, _worst(old, new, confidence)))


def diff_folders(old: str | Path, new: str | Path, confidence: float = 0.95) -> Difference:
    """`diff` of two campaign folders; InputError names shards that cannot be trusted."""
    tallies = []
    for path in (old, new):
        tally, damaged = Folder.open(path).load()
        if damaged:
            raise InputError(f"{damaged[0]}; run the campaign again to mend it")
        tallies.append(tally)
    return diff(tallies[0], tallies[1], confidence)


def _comparable(old: Tally, new: Tally) -> None:
    a, b = old.setup.describe(), new.setup.describe()
    names = [name for name in _SHARED if json.dumps(a[name]) != json.dumps(b[name])]
    if names:
        said = "; ".join(
            f"{name} is {_short(a, name)} in the old and {_short(b, name)} in the new" for name in names
        )
        raise InputError(f"these campaigns asked different questions: {said}")
    for which, tally in (("old", old), ("new", new)):
        if not tally.count:
            raise InputError(f"the {which} campaign has not run anything yet")
        if not isinstance(tally.plan, Sampled) and not tally.complete:
            raise InputError(
                f"the {which} campaign has run {tally.count:,} of {tally.plan.count:,} configurations; "
                "finish it first, for the first ones of an enumeration say nothing about the rest"
            )


def _short(record: Mapping[str, object], name: str) -> str:
    text = json.dumps(record[name])
    return text if len(text) <= 40 else f"{text[:37]}..."


def _rate(name: str, old: Tally, new: Tally, confidence: float) -> Finding:
    a, b = (statistics.successes(old)[name], old.count), (statistics.successes(new)[name], new.count)
    p, q = a[0] / a[1], b[0] / b[1]
    moved = f"{p:.4%} -> {q:.4%}"
    if not isinstance(old.plan, Sampled):
        return Finding(name, p, q, q > p, f"{moved} of all")
    apart = statistics.newcombe(a, b, confidence)
    worse = apart.low > 0
    says = "beyond" if worse or apart.high < 0 else "within"
    return Finding(
        name,
        p,
        q,
        worse,
        f"{moved}; the difference lies in [{apart.low:+.4%}, {apart.high:+.4%}] "
        f"with confidence {confidence:g}: {says} chance",
    )


def _worst(old: Tally, new: Tally, confidence: float) -> Finding:
    assert old.worst is not None  # both have run something
    assert new.worst is not None  # likewise
    a, b = old.worst.error, new.worst.error
    moved = f"{a:.6g} -> {b:.6g}"
    if not isinstance(old.plan, Sampled):
        where = f"; configuration {new.worst.index} on input {new.worst.input}" if b > a else ""
        return Finding("worst case", a, b, b > a, f"{moved}{where}")
    above = _above(new, old.worst.measured)
    # Were both samples of one distribution, the k largest of all would be in the new one with
    # probability below (n_new / (n_old + n_new))^k.
    chance = (new.count / (old.count + new.count)) ** above
    worse = chance <= 1 - confidence
    return Finding(
        "largest",
        a,
        b,
        worse,
        f"{moved} sampled (neither is the worst case); at least {above:,} of the new {new.count:,} exceed "
        f"all of the old {old.count:,}: {'beyond' if worse else 'within'} chance",
    )


def _above(tally: Tally, error: float) -> int:
    """Configurations that are certainly above `error`: those in histogram entries that lie above it."""
    # Entry i + 1 starts at edges()[i]; what is in an entry that starts at `error` may be equal to it.
    first = int(np.searchsorted(edges(), error, side="right")) + 1
    return int(tally.histogram[first:].sum())
