"""Counts the instructions of the kernel's inner loops: a second opinion without noise.

    python bench/callgrind.py             # compare with bench/instructions.json; 1 if anything grew by 3 %
    python bench/callgrind.py --update    # write that file

Runs a slice of every workload under `valgrind --tool=callgrind` and counts what happens inside nf_evaluate,
per evaluation. Counts belong to a compiler: with another than the file's, nothing is compared and it says so.
valgrind knows no AVX-512, so this is the AVX2 code (NEUROFAIL_BACKEND=c/portable for the other), from the
same source.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from workloads import ACTIVATIONS, case, opened

COUNTS = Path(__file__).with_name("instructions.json")
ALLOWED = 0.03
# How much of each workload: configurations, and inputs at most.
SLICES = {
    "W1": (2324, 32),
    "W2a": (300, 64),
    "W2b": (1000, 64),
    "W3": (20, 64),
    "D": (6, 32),
    "one-input": (500, 1),
    "many-inputs": (10, 512),
    "three-wide": (500, 128),
}
NAMES = [f"{name}/{activation}" for name in SLICES for activation in ACTIVATIONS]


def count_one(name: str, activation: str, backend: str) -> int:
    """Evaluates the slice, then tallies it, at which callgrind dumps; returns the evaluations made."""
    of = case(name, activation)
    configurations, inputs = SLICES[name]
    of = replace(of, inputs=of.inputs[:inputs])
    session = opened(of, backend)
    rows, levels = session.rows(of.start, min(configurations, of.configurations))
    records = session.evaluate(rows, levels, 0, session.blocks, session.desk())
    session.tally(records, float("inf"))
    return len(rows) * len(of.inputs)


def child(backend: str) -> None:
    """What runs under valgrind."""
    print(json.dumps([count_one(*name.split("/"), backend) for name in NAMES]))


def measure(backend: str) -> dict[str, float]:
    """Instructions per evaluation, by case."""
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                f"--callgrind-out-file={scratch}/out",
                "--collect-atstart=no",
                "--toggle-collect=nf_evaluate",
                "--dump-after=nf_tally",
                sys.executable,
                str(Path(__file__)),
                "--child",
                backend,
            ],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"valgrind failed:\n{done.stderr[-2000:]}")
        evaluations = json.loads(done.stdout)
        counts = []
        for part in range(1, len(NAMES) + 1):
            text = Path(f"{scratch}/out.{part}").read_text()
            found = re.search(r"^(?:summary|totals): (\d+)", text, re.MULTILINE)
            assert found is not None, "a callgrind dump without a total"
            counts.append(int(found[1]))
    return {
        name: round(count / made, 3) for name, count, made in zip(NAMES, counts, evaluations, strict=True)
    }


def compiler() -> str:
    """The compiler that built the extension, as it wrote itself into it."""
    from neurofail import _kernel

    found = re.search(rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+", Path(_kernel.__file__).read_bytes())
    return f"{found[0].decode() if found else 'unknown'}, {platform.machine()}"


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="instructions per evaluation of the kernel's inner loops")
    parser.add_argument("--update", action="store_true", help=f"write {COUNTS.name}")
    parser.add_argument("--child", metavar="BACKEND", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child)
        return 0
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed")
    backend = os.environ.get("NEUROFAIL_BACKEND", "c/avx2")
    now = measure(backend)
    kept = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    if asked.update:
        kept[backend] = {"compiler": compiler(), "instructions": now}
        COUNTS.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
    base = kept.get(backend, {"compiler": "nothing", "instructions": {}})
    comparable = base["compiler"] == compiler()
    if not comparable:
        print(f"counted with {compiler()}, the file's counts with {base['compiler']}: not compared")
    grown = 0
    for name, count in now.items():
        before = base["instructions"].get(name) if comparable else None
        line = f"{name:20} {backend} {count:12.3f} instructions per evaluation"
        if before:
            change = count / before - 1
            grown += change > ALLOWED
            line += f"  {change:+7.2%}" + ("  GREW" if change > ALLOWED else "")
        print(line)
    print(f"{grown} of {len(now)} grew by more than {ALLOWED:.0%}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
