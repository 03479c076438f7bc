"""`neurofail demo`: every crash of up to two neurons a layer, on two trained digit classifiers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import product
from threading import Thread

import numpy as np

from neurofail import report
from neurofail.bounds import bounds, fep
from neurofail.compare import Ladder, compare
from neurofail.data import Name, digits, digits_test
from neurofail.errors import InputError, InversionError
from neurofail.faults import Crash
from neurofail.kernel import run
from neurofail.network import Network
from neurofail.plans import Exhaustive
from neurofail.progress import bar
from neurofail.search import WorstCase, worst_case
from neurofail.tally import Array, Sum, Tally

MOST = 2  # crashes a layer
BEYOND = (8, 0)  # what the exact search settles where enumeration cannot
# What each network is asked to survive: about the distance between its two largest outputs, so that an
# error above it can change the class of a typical digit.
EPSILONS: dict[Name, float] = {"sigmoid": 5.0, "relu": 20.0}


@dataclass(frozen=True)
class Case:
    """One vector of crash counts: what was tried, and what at most these counts are promised."""

    failures: tuple[int, ...]
    ladder: Ladder
    promised: float


def main(epsilon: float | None = None, *, quiet: bool = False) -> bool:
    """Prints both networks' ladders; returns whether nothing seen exceeds a demanded epsilon."""
    if epsilon is not None and not epsilon >= 0:
        raise InputError(f"epsilon is {epsilon}; it must be a number, 0 or more")
    inputs, labels = digits_test()
    observed: dict[Name, float] = {}
    # The exact search is compiled when it is first used; that takes seconds, once, so it starts right away.
    compiling = Thread(target=_compile, args=(inputs[:1],), daemon=True)
    compiling.start()
    for name, default in EPSILONS.items():
        net = digits(name)
        demanded = default if epsilon is None else epsilon
        cases, seconds = _campaign(net, name, inputs, quiet)
        print(_text(net, name, inputs, labels, cases, demanded, seconds), flush=True)
        observed[name] = _worst(cases).ladder.observed
    compiling.join()
    for name, seen in observed.items():
        print(_exact(digits(name), name, inputs, seen), flush=True)
    return epsilon is None or max(observed.values()) <= epsilon


def _compile(inputs: Array) -> None:
    """Ask for what `_exact` will need compiled: many failures among ReLUs have code of their own."""
    for failures in ((1, 0), BEYOND):
        worst_case(digits("relu"), inputs, Crash(), failures)


def _campaign(net: Network, name: str, inputs: Array, quiet: bool) -> tuple[list[Case], float]:
    counts = [f for f in product(range(MOST + 1), repeat=net.depth) if any(f)]
    plans = [Exhaustive(net, Crash(), failures=f) for f in counts]
    began = time.perf_counter()
    tallies: list[Tally] = []
    with bar(sum(plan.count for plan in plans), "configurations", name, quiet=quiet) as progress:
        finished = 0
        for plan in plans:

            def update(done: int, total: Sum, before: int = finished) -> None:
                progress(before + done, total)

            tallies.append(run(net, inputs, plan, progress=update))
            finished += plan.count
    seconds = time.perf_counter() - began
    cases = []
    for f, tally in zip(counts, tallies, strict=True):
        promised = bounds(net, Crash(), failures=f, at_most=True, inputs=inputs)["best"]
        cases.append(Case(f, compare(tally), promised))
    return cases, seconds


def _worst(cases: list[Case]) -> Case:
    return max(cases, key=lambda case: case.ladder.observed)


def _text(
    net: Network,
    name: str,
    inputs: Array,
    labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    cases: list[Case],
    epsilon: float,
    seconds: float,
) -> str:
    accuracy = float(np.mean(net(inputs).argmax(axis=1) == labels))
    tallies = [case.ladder.tally for case in cases]
    configurations, evaluations = (sum(t.count for t in tallies), sum(t.evaluations for t in tallies))
    worst = _worst(cases)
    witness = worst.ladder.tally.worst
    assert witness is not None  # every case ran at least one configuration
    most = (MOST,) * net.depth
    topology = fep(net, Crash(), failures=most, at_most=True)
    refined = bounds(net, Crash(), failures=most, at_most=True, inputs=inputs)
    seen = worst.ladder.observed
    rows = [
        ("network", f"{net!r}, UCI digits, {100 * accuracy:.1f} % of {len(labels)} held-out images right"),
        ("injected", f"crash: every set of up to {MOST} neurons in each hidden layer"),
        ("", f"{configurations:,} configurations x {len(inputs)} images = {evaluations:,} evaluations"),
        (
            "",
            f"in {seconds:.2f} s on {tallies[0].backend}: {evaluations / seconds / 1e6:,.0f} million/s",
        ),
        ("observed", f"worst error {report.number(seen)}, replayed by the float64 reference"),
        ("", f"{witness.configuration}"),
        (
            "",
            f"image {witness.input}, output {witness.output}; number {witness.index} of {worst.failures}",
        ),
        ("SDC", report.rate(sum(t.sdc for t in tallies), evaluations) + " change the digit"),
        ("promised", f"Fep {report.number(topology)}, {topology / seen:.1f} x the worst observed"),
        (
            "",
            f"best bound on these images {report.number(refined['best'])} ({refined.best_name}), "
            f"{refined['best'] / seen:.2f} x",
        ),
    ]
    return "\n".join(
        ["", f"== {name} ==", report.lines(rows), "", _table(cases, epsilon), _survival(cases, epsilon)]
    )


def _exact(net: Network, name: str, inputs: Array, seen: float) -> str:
    """The exact search's answers: to the campaign's own question, and where enumeration cannot go."""
    began = time.perf_counter()
    same = worst_case(net, inputs, Crash(), failures=(MOST,) * net.depth, at_most=True)
    beyond = worst_case(net, inputs, Crash(), failures=BEYOND)
    seconds = time.perf_counter() - began
    if not seen <= same.upper:
        raise InversionError(f"the observed error {seen!r} exceeds the proven limit {same.upper!r}", same)
    sets = Exhaustive(net, Crash(), failures=BEYOND).count
    rows = [
        ("exact", f"{_proven(same)}: the same question, without enumerating"),
        ("", f"{_proven(beyond)}: {BEYOND} crashes, {sets:,} sets an image"),
        ("", f"both in {seconds:.2f} s"),
    ]
    return "\n".join(["", f"== {name}, exact ==", report.lines(rows)])


def _proven(found: WorstCase) -> str:
    says = "proven" if found.exact else f"at most {report.number(found.upper)}"
    return f"worst error {report.number(found.error)}, {says} in {found.nodes:,} nodes"


def _table(cases: list[Case], epsilon: float) -> str:
    head = (
        f"{'crashes':>9} {'configurations':>15} {'observed':>9} {'best bound':>11} {'Fep':>9} {'Fep/obs':>8}"
    )
    text = [f"{head}   within epsilon {report.number(epsilon)}?"]
    for case in cases:
        found = case.ladder
        says = "promised" if case.promised <= epsilon else "not promised"
        tried = "survived" if found.observed <= epsilon else "exceeded"
        text.append(
            f"{', '.join(map(str, case.failures)):>9} {found.tally.count:>15,} {found.observed:>9.4g} "
            f"{found.inputs['best']:>11.4g} {found.domain['fep']:>9.4g} "
            f"{found.ratio(found.domain['fep']):>8.3g}   {says}, {tried} when tried"
        )
    return "\n".join(text)


def _survival(cases: list[Case], epsilon: float) -> str:
    """The most crashes anywhere that are promised to be survived, and that were survived when tried."""
    promised, tried = (
        _most(cases, [case.promised <= epsilon for case in cases]),
        _most(cases, [case.ladder.observed <= epsilon for case in cases]),
    )
    return (
        f"epsilon {report.number(epsilon)}: any {promised} crash(es) promised to be survived, any {tried} "
        f"survived when tried (counting up to {MOST} anywhere, all of them tried)"
    )


def _most(cases: list[Case], good: list[bool]) -> int:
    """The largest n <= MOST such that every case of up to n crashes in all is good."""
    bad = [sum(case.failures) for case, fine in zip(cases, good, strict=True) if not fine]
    return min([MOST + 1, *bad]) - 1
