"""Results in words: the ladder, and one configuration layer by layer."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np

from neurofail import _reference, statistics
from neurofail.bounds import Bounds
from neurofail.budget import Budget
from neurofail.compare import Ladder
from neurofail.faults import Fault
from neurofail.network import Network
from neurofail.plans import Exhaustive, Plan, Sampled
from neurofail.search import WorstCase
from neurofail.tally import Array, Tally, replay

SCHEMA = 1


def print_json(command: str, body: dict[str, object]) -> None:
    """A command's result on standard output, in the form that the README documents."""
    print(json.dumps({"schema": SCHEMA, "command": command, **body}, indent=2, allow_nan=False))


def number(value: float) -> str:
    """A figure for people: six significant digits."""
    return f"{value:.6g}"


def lines(rows: Iterable[tuple[str, str]]) -> str:
    """Labels in one column, what they say in another."""
    return "\n".join(f"{label:<11}{text}" for label, text in rows)


def fault(kind: Fault) -> str:
    """A fault with its settings, such as `byzantine (capacity 1.0, semantics value)`."""
    settings = {k: v for k, v in kind.describe().items() if k != "kind"}
    says = ", ".join(f"{k} {v}" for k, v in settings.items())
    return f"{kind.kind} ({says})" if says else kind.kind


def injected(budget: Budget) -> str:
    """What fails, how often and where: `crash: exactly 2, 0 in layers 1, 2`."""
    how = "at most" if budget.at_most else "exactly"
    parts = []
    for k, kind in enumerate(budget.faults):
        if budget.totals is not None:
            parts.append(f"{fault(kind)}: {how} {budget.totals[k]} anywhere")
        elif budget.failures is not None:
            counts = ", ".join(map(str, budget.failures[k]))
            where = ", ".join(str(i + 1) for i in range(len(budget.failures[k])))
            parts.append(f"{fault(kind)}: {how} {counts} in layers {where}")
    return "; ".join(parts)


def size(tally: Tally) -> str:
    """How much was run: configurations, inputs, evaluations, and how they were chosen."""
    plan = tally.plan
    of = "" if tally.complete else f" of {plan.count:,}"
    how = f"sampled with seed {plan.seed}" if isinstance(plan, Sampled) else "enumerated"
    return (
        f"{tally.count:,}{of} configurations ({how}) x {tally.inputs:,} inputs = "
        f"{tally.evaluations:,} evaluations"
    )


def rate(count: int, of: int) -> str:
    """A share in percent with its counts."""
    return f"{percent(count / of if of else 0.0)} ({count:,} of {of:,} evaluations)"


def observed(tally: Tally) -> list[tuple[str, str]]:
    """The worst evaluation with its witness, and the outcomes."""
    worst = tally.worst
    if worst is None:
        return [("observed", "nothing was run")]
    known = isinstance(tally.plan, Exhaustive) and tally.complete
    rows = [
        (
            "observed",
            f"{'worst' if known else 'largest'} error {number(worst.error)}, "
            "replayed by the float64 reference",
        ),
        ("", f"configuration {worst.index}: {worst.configuration}"),
        ("", f"input {worst.input}, output {worst.output}"),
        ("", statistics.maximum(tally)),
    ]
    rates = statistics.rates(tally)
    if tally.plan.net.widths[-1] > 1:
        rows.append(("SDC", f"top-1 class changed in {rate(tally.sdc, tally.evaluations)}"))
        rows += intervals(rates["sdc"])
    if tally.due:
        rows.append(("DUE", f"NaN or infinite output in {rate(tally.due, tally.evaluations)}"))
        rows += intervals(rates["due"])
    if "exceeded" in rates:
        share = f"{percent(rates['exceeded'].value)} ({tally.exceeded:,} of {tally.count:,} configurations)"
        rows.append(("exceeded", f"an error above {number(tally.setup.epsilon)} in {share}"))
        rows += intervals(rates["exceeded"])
        if not tally.exceeded and rates["exceeded"].kind == "sample":
            most = percent(statistics.rule_of_three(tally.count))
            rows.append(("", f"none seen: with confidence 0.95 at most {most} (rule of three)"))
    return rows


def percent(share: float) -> str:
    """A share in percent, four significant digits."""
    return f"{100 * share:.4g} %"


def intervals(found: statistics.Rate) -> list[tuple[str, str]]:
    """What a sample says of a rate; nothing where every configuration was run."""
    if found.kind == "prefix":
        return [("", "of those run so far, which are no random sample of the others")]
    if found.wilson is None or found.exact is None:
        return []
    wilson, exact = (f"{percent(i.low)} to {percent(i.high)}" for i in (found.wilson, found.exact))
    return [("", f"95 % interval {wilson} (Wilson), {exact} (Clopper-Pearson), by configurations")]


def bounds(found: Bounds, observed_error: float | None) -> list[str]:
    """A line for each bound: value, ratio to what was observed, why it applies; then the refusals."""
    rows = []
    for name, value in found.items():
        if name == "best":
            continue
        ratio = f"{value / observed_error:8.3g} x observed  " if observed_error else ""
        best = "*" if name == found.best_name else " "
        rows.append(f"{best} {name:<11}{number(value):>12}  {ratio}{found.why[name]}")
    rows += [f"  {name:<11}{'refused':>12}  {reason}" for name, reason in found.refused.items()]
    return rows


def exact(found: WorstCase, observed_error: float) -> str:
    """The exact search's answer, and how close to it the campaign came."""
    says = "proven" if found.exact else f"not settled, at most {number(found.upper)}"
    ratio = f", {found.error / observed_error:.4g} x observed" if observed_error else ""
    return f"worst error {number(found.error)} ({says}; {found.nodes:,} nodes){ratio}"


def ladder(found: Ladder) -> str:
    """The ladder of one campaign in words."""
    tally = found.tally
    rows = [
        ("network", repr(tally.plan.net)),
        ("injected", injected(tally.plan.budget)),
        ("", size(tally)),
        ("backend", f"{tally.backend}, {tally.setup.dtype}"),
        *observed(tally),
    ]
    if found.exact is not None:
        rows.append(("exact", exact(found.exact, found.observed)))
    text = [lines(rows), "bounds for these inputs (* the smallest)"]
    text += bounds(found.inputs, found.observed)
    text.append("bounds over the whole input range")
    text += bounds(found.domain, found.observed)
    if found.verdict is not None:
        text.append(lines([("verdict", str(found.verdict))]))
    return "\n".join(text)


def configuration(net: Network, plan: Plan, inputs: Array, index: int) -> str:
    """One configuration on its worst input: golden and faulty values of every neuron that changed."""
    operations = plan.operations(index)
    deviation = np.abs(_reference.deviations(net, inputs, operations)).max(axis=1)
    row = int(np.where(np.isnan(deviation), np.inf, deviation).argmax())
    worst = replay(plan, inputs, index, row, float(deviation[row]))
    x = inputs[row : row + 1]
    golden, faulty = _reference.trace(net, x)[1], _reference.trace(net, x, operations)[1]
    text = [
        f"configuration {index}: {worst.configuration}",
        f"on input {row}, its worst of {len(inputs)}: error {number(worst.error)} at output {worst.output}",
    ]
    for layer in range(1, net.depth + 2):
        name = f"layer {layer}" if layer <= net.depth else "outputs"
        before, after = golden[layer][0], faulty[layer][0]
        changed = np.flatnonzero(~(before == after))
        text.append(f"{name}: {len(changed)} of {len(before)} changed")
        text += [
            f"  {j:>5}  golden {before[j]: .9g}  faulty {after[j]: .9g}  by {after[j] - before[j]: .3g}"
            for j in changed
        ]
    return "\n".join(text)
