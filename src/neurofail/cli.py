"""The command line: arguments in, calls of the library, words or JSON out, and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn, TextIO, get_args

from neurofail import __version__
from neurofail.bounds.frontier import By
from neurofail.errors import CampaignError, InputError, NeurofailError, UnsoundError
from neurofail.faults import KINDS, Fault, fault_from
from neurofail.network import Network, magnitude, positive
from neurofail.plans import Exhaustive, Plan, Sampled
from neurofail.tally import Array

if TYPE_CHECKING:
    from neurofail.search import WorstCase, WorstMargin

HOLDS, EXCEEDED, UNUSABLE, INTERRUPTED = 0, 1, 2, 3


class _Parser(argparse.ArgumentParser):
    """Usage errors in one line and with the project's exit code."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be whole numbers such as 2,0") from None


def _capacity(text: str) -> float | tuple[float, ...]:
    try:
        parts = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be C or LOW,HIGH") from None
    return parts[0] if len(parts) == 1 else parts


def _add_fault(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    group = parser.add_argument_group("what fails")
    group.add_argument("--fault", required=required, choices=KINDS, help="the kind of failure")
    group.add_argument("--value", type=float, help="stuck-at: the value transmitted")
    group.add_argument("--capacity", type=_capacity, help="byzantine: C, or LOW,HIGH")
    group.add_argument(
        "--semantics", help="byzantine: value, nominal, own; synapse-byzantine: value, additive"
    )
    group.add_argument("--draw", help="byzantine: extremes, uniform or guided values")
    group.add_argument(
        "--equivocate", action="store_true", default=None, help="byzantine: a value per receiver"
    )
    group.add_argument(
        "--unweighted", dest="weighted", action="store_false", default=None, help="synapses: after weighting"
    )


def _add_counts(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how many")
    group.add_argument("--failures", type=_counts, metavar="F1,F2,..", help="how many in each layer")
    group.add_argument("--total", type=int, help="how many anywhere")
    group.add_argument("--at-most", action="store_true", help="every smaller number too")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="neurofail", description="How many neurons can this network lose?")
    parser.add_argument("--version", action="version", version=f"neurofail {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="the main job on two embedded digit classifiers")
    demo.add_argument("--epsilon", type=float, help="the largest error to survive (a default is chosen)")
    demo.add_argument("--quiet", action="store_true", help="no progress bar")
    demo.set_defaults(run=_demo)

    bound = commands.add_parser("bound", help="every sound bound, from the weights alone")
    bound.add_argument("model", metavar="MODEL", help="a network file (.npz)")
    bound.add_argument("--inputs", metavar="X.npy", help="certify these inputs alone")
    _add_fault(bound)
    _add_counts(bound)
    bound.add_argument("--json", action="store_true", help="JSON on standard output")
    bound.set_defaults(run=_bound)

    run = commands.add_parser("run", help="run a campaign and hold it against the bounds")
    run.add_argument("model", metavar="MODEL", help="a network file (.npz)")
    run.add_argument("--inputs", metavar="X.npy", required=True, help="(n, N_0) inputs: .npy, or .npz")
    _add_fault(run)
    _add_counts(run)
    run.add_argument("--sample", type=int, metavar="N", help="draw N configurations instead of all")
    run.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    run.add_argument("--epsilon", type=float, help="the largest error to survive; exit code 1 if exceeded")
    run.add_argument("--exact", action="store_true", help="search the exact worst case too")
    run.add_argument("--replay", type=int, metavar="INDEX", help="print one configuration layer by layer")
    run.add_argument("--backend", default="auto", help="auto, c, c/avx512, c/avx2, c/portable, numba, numpy")
    run.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    run.add_argument("--threads", type=int, help="all cores by default")
    run.add_argument("--quiet", action="store_true", help="no progress bar")
    run.add_argument("--json", action="store_true", help="JSON on standard output")
    _add_folder(run)
    run.set_defaults(run=_run)

    worst = commands.add_parser("worst", help="the exact worst case, without enumerating")
    worst.add_argument("model", metavar="MODEL", help="a network file (.npz)")
    worst.add_argument("--inputs", metavar="X.npy", required=True, help="(n, N_0) inputs: .npy, or .npz")
    _add_fault(worst)
    _add_counts(worst)
    worst.add_argument("--epsilon", type=float, help="the largest error to survive; exit code 1 if exceeded")
    worst.add_argument("--margin", action="store_true", help="can any prediction change? exit code 1 if so")
    worst.add_argument("--time-limit", type=float, metavar="S", help="stop after so many seconds")
    worst.add_argument("--checkpoint", metavar="FILE", help="keep a search that stops early; resume it there")
    worst.add_argument("--threads", type=int, help="all cores by default")
    worst.add_argument("--quiet", action="store_true", help="no progress line")
    worst.add_argument("--json", action="store_true", help="JSON on standard output")
    worst.set_defaults(run=_worst)

    tolerate = commands.add_parser("tolerate", help="the failure counts that a demand is promised to survive")
    tolerate.add_argument("model", metavar="MODEL", help="a network file (.npz)")
    tolerate.add_argument("--inputs", metavar="X.npy", help="promise for these inputs alone")
    _add_fault(tolerate)
    tolerate.add_argument("--epsilon", type=float, required=True, help="the error that failures may add")
    tolerate.add_argument("--by", choices=get_args(By), help="one bound (all that are sound by default)")
    tolerate.add_argument("--most", type=int, default=5, help="frontier vectors to print for each bound (5)")
    tolerate.add_argument("--json", action="store_true", help="JSON on standard output")
    tolerate.set_defaults(run=_tolerate)
    _add_campaigns(commands)
    return parser


def _add_folder(run: argparse.ArgumentParser) -> None:
    group = run.add_argument_group("a campaign in a folder, which the same command resumes")
    group.add_argument("--out", type=_named, metavar="DIR", help="keep finished shards there")
    group.add_argument("--shard", type=_shard, metavar="I/N", help="only part I of N, from 1 (array jobs)")
    group.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="run on this Dask cluster")
    group.add_argument("--records", action="store_true", help="keep every configuration's record (Parquet)")
    group.add_argument(
        "--until", type=float, metavar="WIDTH", help="stop when the rates' 95 %% intervals are this narrow"
    )


def _named(folder: str) -> str:
    # What an unset variable leaves in a script would mean the current folder.
    if not folder:
        raise argparse.ArgumentTypeError("no folder is named")
    return folder


def _shard(text: str) -> tuple[int, int]:
    from neurofail import commands

    return commands.shard(text)


def _add_campaigns(commands: argparse._SubParsersAction[_Parser]) -> None:
    merge = commands.add_parser("merge", help="join folders of one campaign, run in different places")
    merge.add_argument("folders", nargs="+", metavar="DIR")
    merge.add_argument(
        "--out", type=_named, metavar="DIR", help="a new folder; the first one named by default"
    )
    merge.set_defaults(run=_merge)

    report = commands.add_parser("report", help="what a campaign's folder holds, against the bounds")
    report.add_argument("folders", nargs="+", metavar="DIR", help="several: the strata of one question")
    report.set_defaults(run=_report)

    diff = commands.add_parser("diff", help="is the new network more fragile? exit code 1 if so")
    diff.add_argument("old", metavar="OLD", help="a campaign's folder")
    diff.add_argument("new", metavar="NEW", help="the same campaign's on the new network")
    diff.set_defaults(run=_diff)

    plan = commands.add_parser("plan", help="how many configurations to draw")
    plan.add_argument("model", metavar="MODEL", nargs="?", help="a network file, to count its configurations")
    plan.add_argument("--population", type=int, metavar="N", help="how many configurations there are")
    plan.add_argument("--margin", type=float, default=0.01, help="half the interval's width (0.01)")
    plan.add_argument("--width", type=float, help="the whole width of a Wilson interval instead")
    plan.add_argument("--rate", type=float, default=0.5, help="the rate expected (0.5, the worst case)")
    _add_fault(plan, required=False)
    _add_counts(plan)
    plan.set_defaults(run=_plan_size)

    for command in (merge, report, diff, plan):
        command.add_argument("--json", action="store_true", help="JSON on standard output")
    for command in (diff, plan):
        command.add_argument("--confidence", type=float, default=0.95, help="of the intervals (0.95)")


def _fault(args: argparse.Namespace) -> Fault:
    names = ("value", "capacity", "semantics", "draw", "equivocate", "weighted")
    options = {name: getattr(args, name) for name in names}
    return fault_from(args.fault, **{k: v for k, v in options.items() if v is not None})


def _asked(args: argparse.Namespace) -> dict[str, object]:
    return {"failures": args.failures, "total": args.total, "at_most": args.at_most}


def _plan(args: argparse.Namespace, net: Network) -> Plan:
    asked = _asked(args)
    if args.sample is None:
        return Exhaustive(net, _fault(args), **asked)  # type: ignore[arg-type]  # argparse gave the types
    return Sampled(net, _fault(args), count=args.sample, seed=args.seed, **asked)  # type: ignore[arg-type]  # same


def _inputs(path: str, net: Network) -> Array:
    from neurofail.formats.arrays import read_inputs

    return net.check_inputs(read_inputs(path))


def _demo(args: argparse.Namespace) -> int:
    from neurofail import demo

    return HOLDS if demo.main(args.epsilon, quiet=args.quiet) else EXCEEDED


def _bound(args: argparse.Namespace) -> int:
    from neurofail import report
    from neurofail.bounds import bounds
    from neurofail.formats import load

    net = load(args.model)
    inputs = None if args.inputs is None else _inputs(args.inputs, net)
    found = bounds(net, _fault(args), inputs=inputs, **_asked(args))  # type: ignore[arg-type]  # argparse's
    if args.json:
        report.print_json("bound", {"network": net.describe(), "bounds": found.to_dict()})
    else:
        print(report.lines([("network", repr(net)), ("fault", report.fault(_fault(args)))]))
        print("\n".join(report.bounds(found, None)))
    return HOLDS


def _run(args: argparse.Namespace) -> int:
    from neurofail import report
    from neurofail.compare import compare
    from neurofail.formats import load
    from neurofail.kernel import run
    from neurofail.progress import bar

    net = load(args.model)
    plan = _plan(args, net)
    inputs = _inputs(args.inputs, net)
    if args.replay is not None:
        print(report.configuration(net, plan, inputs, args.replay))
        return HOLDS
    for option in ("shard", "scheduler", "records", "until"):
        if getattr(args, option) and args.out is None:
            raise InputError(f"--{option} needs a folder to keep its shards in: add --out DIR")
    if args.out is not None:
        return _run_in_folder(args, net, inputs, plan)
    with bar(plan.count, "configurations", quiet=args.quiet) as progress:
        tally = run(
            net,
            inputs,
            plan,
            args.backend,
            args.dtype,
            args.threads,
            epsilon=float("inf") if args.epsilon is None else args.epsilon,
            progress=progress,
        )
    ladder = compare(tally, args.epsilon, exact=_exact(args, net, inputs))
    if args.json:
        report.print_json("run", ladder.to_dict())
    else:
        print(ladder)
    return HOLDS if ladder.holds else EXCEEDED


def _exact(args: argparse.Namespace, net: Network, inputs: Array) -> WorstCase | None:
    """The exact worst case, where it was asked for."""
    from neurofail.search import worst_case

    return worst_case(net, inputs, _fault(args), **_asked(args)) if args.exact else None  # type: ignore[arg-type]  # argparse's


def _worst(args: argparse.Namespace) -> int:
    from neurofail import report
    from neurofail.formats import load
    from neurofail.progress import closing
    from neurofail.search import worst_case, worst_margin

    net = load(args.model)
    inputs = _inputs(args.inputs, net)
    if args.epsilon is not None:
        magnitude(args.epsilon, "epsilon")
        if args.margin:
            raise InputError(
                "--epsilon limits errors; with --margin, exit code 1 says that predictions change"
            )
    with closing(quiet=args.quiet) as progress:
        found = (worst_margin if args.margin else worst_case)(
            net,
            inputs,
            _fault(args),
            threads=args.threads,
            time_limit=args.time_limit,
            checkpoint=args.checkpoint,
            progress=progress,
            **_asked(args),  # type: ignore[arg-type]  # argparse gave the types
        )
    if args.json:
        report.print_json("worst", found.to_dict())
    else:
        print(found)
    exceeded = _exceeded(found, args.epsilon)
    if found.interrupted and not exceeded:
        return INTERRUPTED
    # Out of time, and neither shown: who asked must not take it for a promise.
    return HOLDS if exceeded is False else EXCEEDED


def _exceeded(found: WorstCase | WorstMargin, epsilon: float | None) -> bool | None:
    """Whether the answer is beyond what is allowed; None where that is not settled."""
    from neurofail.search import WorstMargin

    if isinstance(found, WorstMargin):
        return found.changes
    if epsilon is None or found.upper <= epsilon:
        return False
    return True if found.error > epsilon else False if found.exact else None


def _tolerate(args: argparse.Namespace) -> int:
    from itertools import islice

    from neurofail import report
    from neurofail.bounds import tolerance
    from neurofail.formats import load

    net, fault = load(args.model), _fault(args)
    inputs = None if args.inputs is None else _inputs(args.inputs, net)
    magnitude(args.epsilon, "epsilon")
    positive(args.most, "--most")
    frontiers: dict[str, object] = {}
    if not args.json:
        print(f"at most so many {fault.kind} failures a layer are promised to cost at most {args.epsilon:g}:")
    for by in get_args(By) if args.by is None else (args.by,):
        try:
            found = tolerance(net, fault, args.epsilon, by=by, inputs=inputs)
            vectors = [list(f) for f in islice(found, args.most + 1)]
            frontiers[by] = vectors
            said = "  ".join(",".join(map(str, f)) for f in vectors[: args.most]) or "none"
            said += "  and more" if len(vectors) > args.most else ""
        except UnsoundError as error:
            if args.by is not None:
                raise
            frontiers[by] = str(error)
            said = f"refused: {error}"
        if not args.json:
            # Line by line: the row-wise bounds of wide networks take their time.
            print(f"{by:<11} {said}", flush=True)
    if args.json:
        report.print_json("tolerate", {"epsilon": args.epsilon, "frontiers": frontiers})
    return HOLDS


def _say(line: str) -> None:
    print(f"neurofail: {line}", file=sys.stderr)


def _run_in_folder(args: argparse.Namespace, net: Network, inputs: Array, plan: Plan) -> int:
    from neurofail import commands
    from neurofail.folder import Folder
    from neurofail.progress import bar

    with bar(plan.count, "configurations", quiet=args.quiet) as progress:
        commands.run(args, net, inputs, plan, progress, _say)
    ladder = commands.show(Folder.open(args.out), args.json, "run", _exact(args, net, inputs))
    # What was asked is done, be it a part: whether the whole is, `report` says.
    return commands.code(ladder, True)


def _merge(args: argparse.Namespace) -> int:
    from neurofail import commands

    return commands.merge(args, _say)


def _report(args: argparse.Namespace) -> int:
    from neurofail import commands

    return commands.show_folders(args)


def _diff(args: argparse.Namespace) -> int:
    from neurofail import commands

    return commands.diff(args)


def _plan_size(args: argparse.Namespace) -> int:
    from neurofail import commands
    from neurofail.formats import load

    if args.model is None:
        return commands.plan(args, None, None)
    if args.fault is None:
        raise InputError("with a MODEL, name the --fault and its counts")
    return commands.plan(args, load(args.model), _fault(args))


def _note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as people at a terminal want it: one line, without the place in the code."""
    print(f"neurofail: note: {message}", file=sys.stderr)


def _forget_stdout() -> None:
    """Leaves nothing for Python to flush, and to complain about, at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0 holds, 1 epsilon exceeded, 2 unusable, 3 interrupted."""
    said = sys.argv[1:] if arguments is None else arguments
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # until the process ends
    warnings.showwarning = _note
    try:
        args = _parser().parse_args(said)
        command: Callable[[argparse.Namespace], int] = args.run
        code = command(args)
        sys.stdout.flush()
        return code
    except CampaignError as error:
        print(f"neurofail: {error}", file=sys.stderr)
        return INTERRUPTED
    except NeurofailError as error:
        print(f"neurofail: {error}", file=sys.stderr)
        return UNUSABLE
    except BrokenPipeError:
        # The reader has left; what it wanted it has.
        _forget_stdout()
        return HOLDS
    except OSError as error:
        _forget_stdout()
        print(f"neurofail: {error.filename or 'standard output'}: {error.strerror}", file=sys.stderr)
        return UNUSABLE
    except MemoryError:
        print("neurofail: not enough memory for this; run fewer inputs at a time", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        kept = "; every finished shard is kept, the same command resumes" if "--out" in said else ""
        print(f"neurofail: interrupted{kept}", file=sys.stderr)
        return INTERRUPTED
