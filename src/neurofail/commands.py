"""What the commands about campaigns do; `cli` parses, and calls these."""

from __future__ import annotations

import argparse
import math
import signal
import threading
from collections.abc import Sequence

from neurofail import campaign, dyadic, report, statistics
from neurofail.compare import Ladder, compare
from neurofail.diff import diff_folders
from neurofail.errors import InputError
from neurofail.executors import Dask, Executor, Threads
from neurofail.faults import Fault
from neurofail.folder import Folder
from neurofail.kernel import Progress
from neurofail.network import Network
from neurofail.plans import Exhaustive, Plan
from neurofail.search import WorstCase
from neurofail.tally import Array, Tally

Pair = tuple[str, str]

_ENUMERATE = "running every configuration costs no more, and leaves nothing to estimate"


def shard(text: str) -> tuple[int, int]:
    """I/N of an array job, I from 1.

    >>> shard("3/10")
    (3, 10)
    """
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} must be I/N with I from 1 to N, such as 3/10")
    return int(number), int(of)


def run(
    args: argparse.Namespace,
    net: Network,
    inputs: Array,
    plan: Plan,
    progress: Progress,
    notice: campaign.Notice,
) -> Tally:
    """Runs or resumes the campaign in `args.out`."""
    executor: Executor = Threads(args.threads)
    if args.scheduler is not None:
        executor = Dask(args.scheduler)
    if threading.current_thread() is threading.main_thread():
        # A queue that takes the machine back says so with SIGTERM; that is as good as Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    return campaign.run(
        net,
        inputs,
        plan,
        args.out,
        backend=args.backend,
        dtype=args.dtype,
        epsilon=math.inf if args.epsilon is None else args.epsilon,
        executor=executor,
        shard=args.shard or (1, 1),
        width=args.until,
        records=args.records,
        progress=progress,
        notice=notice,
    )


def state(folder: Folder, tally: Tally) -> list[Pair]:
    """Where a campaign stands: shards, machines, and what is left to run."""
    shards, machines, seconds = 0, set(), 0.0
    for one in folder.shards():
        shards += 1
        machines.add(one.machine)
        seconds += one.seconds
    missing = dyadic.gaps(tally.ranges, 0, folder.count)
    rows = [
        ("campaign", f"{folder.path}, by neurofail {folder.version}"),
        (
            "",
            f"{shards:,} shards in {seconds:,.1f} worker seconds by {', '.join(sorted(machines)) or 'none'}",
        ),
    ]
    if missing:
        share = report.percent(tally.count / folder.count)
        first = ", ".join(f"{a} to {b - 1}" for a, b in missing[:3]) + (", ..." if len(missing) > 3 else "")
        rows.append(("", f"{share} done; still to run: configurations {first}"))
    return rows


def show(folder: Folder, as_json: bool, command: str, exact: WorstCase | None = None) -> Ladder | None:
    """Prints what a folder holds; the ladder, or None where nothing has been run."""
    tally, damaged = folder.load()
    epsilon = None if math.isinf(folder.setup.epsilon) else folder.setup.epsilon
    ladder = compare(tally, epsilon, exact=exact) if tally.count else None
    if as_json:
        report.print_json(
            command,
            {
                "campaign": {
                    "path": str(folder.path),
                    "complete": tally.complete,
                    "missing": [list(gap) for gap in dyadic.gaps(tally.ranges, 0, folder.count)],
                    "damaged": damaged,
                },
                **({} if ladder is None else ladder.to_dict()),
            },
        )
        return ladder
    print(report.lines([*state(folder, tally), *(("damaged", line) for line in damaged)]))
    if ladder is not None:
        print(ladder)
    return ladder


def code(ladder: Ladder | None, tally_complete: bool) -> int:
    """0 done and holds, 1 epsilon exceeded, 3 where something is left to run."""
    if ladder is not None and not ladder.holds:
        return 1
    return 0 if tally_complete else 3


def show_folders(args: argparse.Namespace) -> int:
    """`neurofail report DIR`; of several folders, the strata's common estimate."""
    folders = [Folder.open(path) for path in args.folders]
    ladders = [show(folder, args.json, "report") for folder in folders]
    if len(folders) > 1:
        tallies = [ladder.tally for ladder in ladders if ladder is not None]
        if len(tallies) < len(folders):
            raise InputError("a stratum has not been run yet; run it first")
        estimate = statistics.combine(tallies)
        if args.json:
            report.print_json("report", {"strata": {name: rate.to_dict() for name, rate in estimate.items()}})
        for name, rate in {} if args.json else estimate.items():
            value = f"{report.percent(rate.value)} of all, weighted over {len(tallies)} strata"
            print(report.lines([(name, value), *report.intervals(rate)]))
    complete = all(ladder is not None and ladder.tally.complete for ladder in ladders)
    return max(code(ladder, complete) for ladder in ladders)


def merge(args: argparse.Namespace, notice: campaign.Notice) -> int:
    """`neurofail merge DIR...`: joins folders into --out, or into the first."""
    folder = campaign.merge(args.folders, args.out, notice=notice)
    ladder = show(folder, args.json, "merge")
    return code(ladder, ladder is not None and ladder.tally.complete)


def diff(args: argparse.Namespace) -> int:
    """`neurofail diff OLD NEW`: 1 where the new network is more fragile."""
    found = diff_folders(args.old, args.new, args.confidence)
    if args.json:
        report.print_json("diff", found.to_dict())
    else:
        print(found)
    return 1 if found.worse else 0


def plan(args: argparse.Namespace, net: Network | None, fault: Fault | None) -> int:
    """`neurofail plan`: how many configurations to draw."""
    population = args.population
    parts: Sequence[statistics.Stratum] = []
    if net is not None and fault is not None:
        asked = {"failures": args.failures, "total": args.total, "at_most": args.at_most}
        population = statistics.population(Exhaustive(net, fault, **asked))
        if args.total is not None and not args.at_most:
            parts = statistics.strata(net, fault, args.total)
    size = (
        statistics.sample_size(args.margin, args.confidence, rate=args.rate)
        if args.width is None
        else statistics.size_for_width(args.width, args.confidence, args.rate)
    )
    # Without replacement fewer would do, but samples are drawn with replacement: any range is then a sample.
    fewer = None
    if args.width is None and population is not None:
        fewer = statistics.sample_size(args.margin, args.confidence, population, args.rate)
    unseen = statistics.rule_of_three(size, args.confidence)
    shares = [(part, max(2, round(size * part.weight))) for part in parts]
    if args.json:
        strata = [{"failures": part.failures, "weight": part.weight, "sample": n} for part, n in shares]
        sizes = {"sample": size, "without_replacement": fewer, "population": population}
        report.print_json("plan", {**sizes, "unseen": unseen, "strata": strata})
        return 0
    goal = f"+- {args.margin:g}" if args.width is None else f"an interval {args.width:g} wide"
    print(
        report.lines(
            [
                ("sample", f"{size:,} configurations, drawn with replacement as --sample draws them,"),
                ("", f"for {goal} at confidence {args.confidence:g}, for a rate near {args.rate:g}"),
                *(
                    []
                    if fewer is None
                    else [("", f"without replacement, {fewer:,} of {population:,} would do")]
                ),
                *([] if population is None or size < population else [("", _ENUMERATE)]),
                ("maximum", f"at most {unseen:.3g} of configurations will exceed the largest error seen"),
                *(
                    ("stratum", f"--failures {_joined(part)} --sample {n} (weight {part.weight:.4g})")
                    for part, n in shares
                ),
            ]
        )
    )
    return 0


def _joined(part: statistics.Stratum) -> str:
    return ",".join(map(str, part.failures))
