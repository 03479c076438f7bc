"""Notices when a workload has become slower, on this machine or on another of its kind.

    python bench/regress.py               # compare with bench/baseline.json; 1 if anything fell
    python bench/regress.py --update      # write that file
    python bench/regress.py --backend c/avx512 --processes 9

What is kept is no time but a ratio: a workload's rate over that of the plain trial kernel of machine.c, which
runs the same mix of instructions in code that never changes. Both are timed in CPU time on one thread, in
turns (trial, workload, trial, ...), in several fresh processes, for a process's memory layout alone can move
a figure. What else runs on the machine only ever slows a round down, so a process's figure is its best
round of the one over its best of the other; the result is the median over processes.

A workload has fallen when its ratio is below the baseline's by more than ALLOWED beyond the noise: the
combined standard errors of both medians, times CONFIDENCE. What fell is measured once more, and only what
fell again, both measurements together, is reported and makes the exit status 1.

A ratio is that of machines with the same ports, caches and vector units: the baseline holds one for each kind
of processor it was written on. On another kind nothing is compared, and the exit status is 2.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import cpuinfo
import limits
from drive import Drive
from workloads import ACTIVATIONS, WORKLOADS, case, verify

from neurofail.kernel import backends

BASELINE = Path(__file__).with_name("baseline.json")
NAMES = tuple(f"{name}/{activation}" for name in WORKLOADS for activation in ACTIVATIONS)
ALLOWED = 0.06
CONFIDENCE = 2.0
_PROCESSES = 5
_SWEEPS = 7
_ROUND_SECONDS = 0.03


@dataclass(frozen=True)
class Figure:
    """A ratio and its standard error, from several processes."""

    ratio: float
    error: float

    @classmethod
    def of(cls, ratios: Iterable[float]) -> Figure:
        """The median, and its error by the median absolute deviation (1.2533: median against mean)."""
        values = list(ratios)
        middle = statistics.median(values)
        deviation = 1.4826 * statistics.median(abs(v - middle) for v in values)
        return cls(middle, 1.2533 * deviation / len(values) ** 0.5)

    @property
    def relative(self) -> float:
        """The error as a share of the ratio."""
        return self.error / self.ratio


def kind() -> str:
    """The kind of processor: its architecture, and its maker, family and model as far as they are told."""
    found = cpuinfo.get_cpu_info()
    parts = (found.get(part) for part in ("arch", "vendor_id_raw", "family", "model"))
    return " ".join(str(part) for part in parts if part is not None)


def floor(base: Figure, now: Figure) -> float:
    """The lowest ratio that is no alarm."""
    noise = CONFIDENCE * (base.relative**2 + now.relative**2) ** 0.5
    return base.ratio * (1 - ALLOWED - noise)


def child(backend: str, names: list[str]) -> None:
    """One process's ratios, as JSON: every case against the trial kernel, in turns."""
    isa = backend.removeprefix("c/")
    yardsticks = {activation: limits.trial(isa, activation) for activation in ACTIVATIONS}
    drives = {name: Drive(case(*name.split("/")), backend, threads=1) for name in names}
    rounds = {name: drive.round(_ROUND_SECONDS) for name, drive in drives.items()}
    rates = dict.fromkeys(names, 0.0)
    trials = dict.fromkeys(yardsticks, 0.0)
    for _ in range(_SWEEPS):
        for name, drive in drives.items():
            activation = name.split("/")[1]
            trials[activation] = max(trials[activation], yardsticks[activation].rate())
            began = time.thread_time()
            drive.run(rounds[name])
            rates[name] = max(rates[name], drive.evaluations(rounds[name]) / (time.thread_time() - began))
    print(json.dumps({name: rate / trials[name.split("/")[1]] for name, rate in rates.items()}))


def measure(backend: str, names: Iterable[str], processes: int) -> dict[str, list[float]]:
    """The ratios of so many fresh processes, by case."""
    found: dict[str, list[float]] = {name: [] for name in names}
    command = [sys.executable, str(Path(__file__)), "--child", backend, *found]
    for _ in range(processes):
        done = subprocess.run(
            command,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        for name, ratio in json.loads(done.stdout).items():
            found[name].append(ratio)
    return found


def compare(backend: str, base: dict[str, Figure], processes: int) -> list[str]:
    """The names of what fell; prints every case."""
    found = measure(backend, NAMES, processes)

    def fallen() -> list[str]:
        return [
            n for n in NAMES if n in base and Figure.of(found[n]).ratio < floor(base[n], Figure.of(found[n]))
        ]

    suspects = fallen()
    if suspects:
        print(f"{backend}: measured again: {', '.join(suspects)}")
        for name, more in measure(backend, suspects, processes).items():
            found[name] += more
    fell = [name for name in fallen() if name in suspects]
    for name in NAMES:
        now = Figure.of(found[name])
        line = f"{name:20} {backend:10} {now.ratio:10.5g} of the trial kernel's rate, +- {now.relative:5.1%}"
        if name in base:
            line += f"  baseline {base[name].ratio:10.5g} +- {base[name].relative:5.1%}"
            line += f"  {now.ratio / base[name].ratio - 1:+7.1%}" + ("  FELL" if name in fell else "")
        print(line, flush=True)
    return fell


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help=f"write {BASELINE.name}")
    parser.add_argument(
        "--backend", action="append", help="such as c/avx2, repeatable (default: every C one)"
    )
    parser.add_argument("--processes", type=int, default=_PROCESSES, help=f"default {_PROCESSES}")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child[0], asked.child[1:])
        return 0
    chosen = asked.backend or [name for name in backends() if name.startswith("c/")]
    written = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    here, fell, strange = kind(), list[str](), list[str]()
    kept = written.setdefault(here, {})
    for backend in chosen:
        if not asked.update and backend not in kept:
            strange.append(backend)
            continue
        for name in NAMES:
            verify(*name.split("/"), backend)
        if asked.update:
            found = measure(backend, NAMES, 2 * asked.processes)
            kept[backend] = {name: asdict(Figure.of(each)) for name, each in found.items()}
            BASELINE.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
            print(f"{backend}: {len(found)} ratios written for {here}")
        else:
            base = {name: Figure(**figure) for name, figure in kept[backend].items()}
            fell += compare(backend, base, asked.processes)
    if strange:
        print(
            f"{', '.join(strange)} not compared: {BASELINE.name} has no ratios for this kind of machine, "
            f"{here}; from the revision to compare with, run python bench/regress.py --update"
        )
    if not asked.update and len(strange) < len(chosen):
        print(
            f"{len(fell)} fell by more than {ALLOWED:.0%} beyond noise"
            + "".join(f"; {name}" for name in fell)
        )
    return 1 if fell else 2 if strange else 0


if __name__ == "__main__":
    sys.exit(main())
