"""The exact worst case: the two questions that the search answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from neurofail.bounds import bounds_of
from neurofail.budget import Budget
from neurofail.configuration import Configuration
from neurofail.errors import InputError
from neurofail.faults import Fault
from neurofail.network import Network, magnitude, positive, whole
from neurofail.search.answer import WorstCase, WorstMargin, replay, witness
from neurofail.search.unfold import Unfolded, read_apart, unfold

if TYPE_CHECKING:
    from neurofail.search.problem import Problem
    from neurofail.search.rounds import Search, Snapshot

Array = npt.NDArray[np.float64]
Counts = Sequence[int]
Start = tuple[int, Configuration]
_MILLIONTH = 1e-6


def worst_case(
    net: Network,
    inputs: npt.ArrayLike,
    fault: Fault,
    failures: Counts | None = None,
    *,
    total: int | None = None,
    at_most: bool = False,
    threads: int | None = None,
    time_limit: float | None = None,
    gap: float = 0.0,
    incumbent: Start | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Callable[[Snapshot], object] | None = None,
) -> WorstCase:
    """The largest error over all configurations, inputs and outputs, without visiting them all.

    Branch and bound with linear relaxations; the relaxations' sums carry a proven margin for rounding.

    Parameters
    ----------
    net, inputs : the network, and (n, N_0) inputs in its domain
    fault : any one fault, of neurons or of synapses; at most 8,192 synapses (`unfold.WIDEST`) may enter a
        layer where some may fail. The `draw` of a Byzantine one does not matter here: every value within the
        capacity is considered
    failures, total, at_most : how many failures, as for `Exhaustive`
    threads : all cores by default; the answer does not depend on it
    time_limit : seconds after which the answer so far, with its certified upper limit, is returned
    gap : stop when the upper limit is within this fraction of the error; Byzantine values are a continuum, so
        there it is at least 1e-6
    incumbent : (input, configuration) to start from, such as a campaign's worst
    checkpoint : a file that keeps the search when it stops early (and about once a minute); where it exists,
        the search goes on from it
    progress : called with a `Snapshot` after every round

    Raises
    ------
    InputError : a mixture of faults, too many synapses, counts that do not fit, inputs outside the domain, a
        checkpoint of another question.

    An interrupt (Ctrl-C) ends the search like a time limit.

    >>> import neurofail as nf
    >>> net = nf.Network.dense([[[1.0], [2.0]], [[1.0, -1.0]]], None, ["relu", "identity"])
    >>> answer = worst_case(net, [[1.0]], nf.Crash(), failures=(1,))
    >>> answer.error, answer.exact, str(answer.configuration)
    (2.0, True, 'crash of layer 1 neuron 1')
    """
    budget = Budget.of(net, fault, failures, total=total, at_most=at_most)
    return answer_error(
        net,
        net.check_inputs(inputs),
        fault,
        budget,
        threads=threads,
        time_limit=time_limit,
        gap=gap,
        incumbent=incumbent,
        checkpoint=checkpoint,
        progress=progress,
    )


def answer_error(
    net: Network,
    inputs: Array,
    fault: Fault,
    budget: Budget,
    *,
    threads: int | None = 1,
    time_limit: float | None = None,
    gap: float = 0.0,
    incumbent: Start | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Callable[[Snapshot], object] | None = None,
) -> WorstCase:
    """`worst_case` for counts that are a `Budget` already, and inputs that are checked."""
    question = unfold(net, fault, budget)
    rows = np.vstack([question.net.weights[-1], -question.net.weights[-1]])
    shape = (len(inputs), len(rows))
    problem = question.problem(inputs, rows, np.zeros(shape), np.ones(shape, dtype=np.bool_))
    start = _start(incumbent, question)
    search = _searched(problem, threads, time_limit, gap, start, checkpoint, progress)
    assert search.best is not None
    found = question.outward(witness(problem, search.best))
    errors = np.abs(replay(net, inputs, found))
    output = int(np.argmax(errors))
    oracle = question.rounding(inputs)
    error, upper = float(errors[output]), search.upper + oracle
    rounding = 4.0 * search.slack + 2.0 * oracle
    exact = _meet(search, upper - error, rounding, error)
    if not exact:
        upper = min(upper, bounds_of(net, budget, inputs)["best"])
    return WorstCase(
        exact=exact,
        rounding=rounding,
        interrupted=search.interrupted,
        output=output,
        nodes=search.nodes,
        witness=found,
        budget=budget,
        error=error,
        upper=max(upper, error),
    )


def worst_margin(
    net: Network,
    inputs: npt.ArrayLike,
    fault: Fault,
    failures: Counts | None = None,
    *,
    total: int | None = None,
    at_most: bool = False,
    threads: int | None = None,
    time_limit: float | None = None,
    gap: float = 0.0,
    incumbent: Start | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Callable[[Snapshot], object] | None = None,
) -> WorstMargin:
    """The smallest classification margin over all configurations and inputs: does any prediction change?

    The class of an input is the golden run's largest output (the first of equals). Parameters as for
    `worst_case`; raises InputError as it does, and for a network of one output.

    >>> import neurofail as nf
    >>> net = nf.Network.dense([np.eye(2), [[3.0, 0.0], [0.0, 2.0]]], None, ["relu", "identity"])
    >>> answer = worst_margin(net, [[1.0, 1.0]], nf.Crash(), failures=(1,))
    >>> answer.margin, answer.changes, answer.output
    (-2.0, True, 1)
    """
    budget = Budget.of(net, fault, failures, total=total, at_most=at_most)
    question = unfold(net, fault, budget)
    given, classes = net.check_inputs(inputs), net.widths[-1]
    if classes < 2:
        raise InputError("a classification margin needs two outputs; this network has one")
    if fault.equivocates:
        question = read_apart(question)
    pairs = [(c, k) for c in range(classes) for k in range(classes) if c != k]
    own, other = (np.array(column) for column in zip(*pairs, strict=True))
    golden = net(given)
    label = np.argmax(golden, axis=1)
    rows = question.net.weights[-1][other] - question.net.weights[-1][own]
    offsets, asked = golden[:, other] - golden[:, own], label[:, None] == own
    problem = question.problem(given, rows, offsets, asked)
    start = _start(incumbent, question)
    search = _searched(problem, threads, time_limit, gap, start, checkpoint, progress)
    assert search.best is not None
    found = question.outward(witness(problem, search.best))
    outputs = golden[found.input] + replay(net, given, found)
    margins = outputs[label[found.input]] - outputs
    margins[label[found.input]] = np.inf
    output = int(np.argmin(margins))
    oracle = 2.0 * question.rounding(given)  # a margin is a difference of two outputs
    margin, lower = float(margins[output]), -search.upper - oracle
    rounding = 4.0 * search.slack + 2.0 * oracle
    exact = _meet(search, margin - lower, rounding, margin)
    if not exact:
        least = [
            float(np.min(margin_now)) - bounds_of(net, budget, given[label == c], margin=int(c))["best"]
            for c in np.unique(label)
            for margin_now in [-offsets[label == c][:, own == c]]
        ]
        lower = max(lower, float(np.nextafter(min(least), -np.inf)))
    return WorstMargin(
        exact=exact,
        rounding=rounding,
        interrupted=search.interrupted,
        output=output,
        nodes=search.nodes,
        witness=found,
        budget=budget,
        margin=margin,
        lower=min(lower, margin),
    )


def check_ends(gap: object, time_limit: object) -> None:
    """InputError for what cannot end a search: a fraction of the error, and seconds or None."""
    magnitude(gap, "gap")
    if time_limit is not None and time_limit != np.inf:
        magnitude(time_limit, "time_limit")


def _start(incumbent: object, question: Unfolded) -> Start | None:
    """An incumbent as one of the search's network; InputError for what cannot be one."""
    if incumbent is None:
        return None
    match incumbent:
        case (index, Configuration() as found):
            return whole(index, "the incumbent's input"), question.inward(found)
    raise InputError(f"incumbent is {incumbent!r}; it must be (input, Configuration)")


def _meet(search: Search, apart: float, rounding: float, found: float) -> bool:
    """Whether number and limit meet. In networks that amplify rounding to the size of the answer, none do."""
    size = max(abs(found), float(np.abs(search.problem.golden[1][-1]).max()))
    return not search.open and apart <= rounding <= _MILLIONTH * size


def _searched(
    problem: Problem,
    threads: int | None,
    time_limit: float | None,
    gap: float,
    incumbent: Start | None,
    checkpoint: str | os.PathLike[str] | None,
    progress: Callable[[Snapshot], object] | None,
) -> Search:
    """The search, run to its end or its limit."""
    check_ends(gap, time_limit)
    if threads is not None:
        positive(threads, "threads")
    fraction = max(float(gap), 1e-6) if problem.effect.low < problem.effect.high else float(gap)
    from neurofail.search import checkpoint as kept
    from neurofail.search.rounds import Search

    search = Search(problem, fraction, threads or os.cpu_count() or 1)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None:
        kept.prepare(path)
        if path.exists():
            kept.load(search, path)
    if incumbent is not None:
        search.start_from(*incumbent)
    search.run(time_limit, progress, lambda: None if path is None else kept.keep(search, path))
    if path is not None and not search.open:
        path.unlink(missing_ok=True)
    return search
