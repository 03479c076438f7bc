"""What this machine can do, measured now; and from it the limit of each workload.

    python bench/limits.py

A workload's limit is its multiply-adds at the machine's peak plus its activations at their peak rate, one
after the other, per core; `workloads.Cost` does the counting. The microbenchmarks are machine.c; they need a
C compiler (`CC`, by default cc).
"""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from workloads import ACTIVATIONS, WORKLOADS, Workload

HERE = Path(__file__).parent
FLAGS = {
    "avx512": ["-DBYTES=64", "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma"],
    "avx2": ["-DBYTES=32", "-mavx2", "-mfma"],
    "portable": ["-DBYTES=16"],
}
_ROUNDS = 7
_ROUND_SECONDS = 0.01


class NoCompiler(Exception):
    """The microbenchmarks cannot be built here."""


@cache
def library(isa: str) -> ctypes.CDLL:
    """machine.c built for an instruction set; NoCompiler where that fails."""
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch) / f"machine-{isa}.so"
        command = [os.environ.get("CC", "cc"), "-O3", "-std=gnu17", "-ffp-contract=fast", "-shared", "-fPIC"]
        try:
            subprocess.run(
                [*command, *FLAGS[isa], str(HERE / "machine.c"), "-o", str(built)],
                check=True,
                capture_output=True,
                text=True,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise NoCompiler(f"machine.c: {getattr(error, 'stderr', None) or error}") from None
        return ctypes.CDLL(str(built))  # stays mapped after the file is gone


class Gauge:
    """One microbenchmark of one instruction set: work done per second of CPU time."""

    def __init__(self, isa: str, name: str, work: float, *arguments: Any) -> None:
        self._function = getattr(library(isa), name)
        self._function.restype = ctypes.c_double
        self._arguments = arguments
        self._work = work
        self._repeats = 1
        while (seconds := self._call()) < _ROUND_SECONDS / 2:
            self._repeats = max(2 * self._repeats, int(self._repeats * _ROUND_SECONDS / max(seconds, 1e-6)))

    def _call(self) -> float:
        return float(self._function(ctypes.c_long(self._repeats), *self._arguments))

    def rate(self) -> float:
        """Work per second, once."""
        return self._work * self._repeats / self._call()

    def by_wall(self, cores: int, seconds: float) -> float:
        """Work per second of the wall clock, so many cores at it at once for about so long."""
        calls = max(1, round(seconds / _ROUND_SECONDS))

        def work() -> None:
            for _ in range(calls):
                self._call()

        threads = [threading.Thread(target=work) for _ in range(cores)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return cores * calls * self._work * self._repeats / (time.perf_counter() - began)

    def best(self, cores: int = 1) -> float:
        """Work per second of so many cores at once: the best of several rounds, for this is a limit."""
        if cores == 1:
            return max(self.rate() for _ in range(_ROUNDS))
        with ThreadPoolExecutor(cores) as pool:
            return max(
                sum(future.result() for future in [pool.submit(self.rate) for _ in range(cores)])
                for _ in range(_ROUNDS)
            )


def _count(isa: str, name: str) -> int:
    function = getattr(library(isa), name)
    function.restype = ctypes.c_long
    return int(function())


def peak(isa: str, real: str = "float32") -> Gauge:
    """Multiply-adds without memory, in flop."""
    return Gauge(isa, f"peak_{real}", _count(isa, f"peak_{real}_flops"))


def activation(isa: str, name: str) -> Gauge:
    """Activations of a cached array."""
    return Gauge(isa, f"activate_{name}", _count(isa, "activate_count"))


def reduction(isa: str) -> Gauge:
    """Multiply-add, magnitude and maximum, as failures of the last hidden layer need."""
    return Gauge(isa, "reduce", _count(isa, "activate_count"))


def trial(isa: str, name: str) -> Gauge:
    """Evaluations of a plain, untuned kernel of W2a's shape: the regression check's yardstick."""
    return Gauge(isa, f"trial_{name}", _count(isa, "trial_evaluations"))


def bandwidth(isa: str, size: int) -> float:
    """Triad over arrays of `size` bytes together, in bytes a second of one core."""
    n = size // 12 // 64 * 64
    arrays = []
    for _ in range(3):
        raw = np.ones(n + 16, np.float32)
        shift = -raw.ctypes.data % 64 // 4
        arrays.append(raw[shift : shift + n])
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in arrays]
    return Gauge(isa, "triad", 12.0 * n, *pointers, ctypes.c_long(n)).best()


@dataclass(frozen=True)
class Machine:
    """The rates of one and of all cores used: index 0 is one thread, index 1 two.

    flops32, flops64 in flop/s; sigmoid, relu, reduce in numbers a second.
    """

    isa: str
    flops32: tuple[float, float]
    flops64: tuple[float, float]
    sigmoid: tuple[float, float]
    relu: tuple[float, float]
    reduce: tuple[float, float]

    @classmethod
    def measured(cls, isa: str) -> Machine:
        """What the machine does now; takes a second or two."""
        gauges = [
            peak(isa),
            peak(isa, "float64"),
            activation(isa, "sigmoid"),
            activation(isa, "relu"),
            reduction(isa),
        ]
        return cls(isa, *((gauge.best(1), gauge.best(2)) for gauge in gauges))

    def limit(self, workload: Workload, name: str, threads: int) -> float:
        """The most evaluations a second that the counting rule allows."""
        i = threads - 1
        cost = workload.cost
        rate = {"sigmoid": self.sigmoid, "relu": self.relu}[name][i]
        return 1 / (
            2 * cost.multiplies / self.flops32[i] + cost.activations / rate + cost.reductions / self.reduce[i]
        )

    def __str__(self) -> str:
        def both(pair: tuple[float, float]) -> str:
            return f"{pair[0] / 1e9:.1f} / {pair[1] / 1e9:.1f}"

        return (
            f"{self.isa}, one core / two: multiply-add {both(self.flops32)} GFLOP/s in float32, "
            f"{both(self.flops64)} in float64; billions a second: sigmoid {both(self.sigmoid)}, "
            f"ReLU {both(self.relu)}, reduction {both(self.reduce)}"
        )


# Runs in a process of its own, since OpenBLAS reads its settings once.
_PRODUCT = """
import json, sys, time
import numpy as np
threads, columns = int(sys.argv[1]), [int(n) for n in sys.argv[2:]]
clock = time.process_time if threads == 1 else time.perf_counter
kernel = "unknown (threadpoolctl is not installed)"
try:
    from threadpoolctl import threadpool_info
    kernel = ", ".join(f"{i['internal_api']} {i['version']} {i.get('architecture', '')}"
                       for i in threadpool_info() if i["user_api"] == "blas")
except ImportError:
    pass
w = np.random.default_rng(0).random((512, 512), dtype=np.float32)
best = {}
for n in columns:
    x, out = np.random.default_rng(1).random((512, n), dtype=np.float32), np.empty((512, n), np.float32)
    rates = []
    np.matmul(w, x, out=out)
    while len(rates) < 5 or (len(rates) < 15 and time.perf_counter() - began < 0.3):
        if not rates:
            began = time.perf_counter()
        start = clock()
        for _ in range(max(1, 16384 // n)):
            np.matmul(w, x, out=out)
        rates.append(2 * 512 * 512 * n * max(1, 16384 // n) / (clock() - start))
    best[n] = max(rates)
print(json.dumps({"kernel": kernel, "rate": max(best.values()), "columns": max(best, key=best.get)}))
"""


@dataclass(frozen=True)
class Product:
    """The best single-precision matrix product at the shapes of D: (512, 512) times (512, columns)."""

    rate: float
    core: str  # OPENBLAS_CORETYPE, empty for the default
    kernel: str
    columns: int

    def __str__(self) -> str:
        shape = f"(512, 512) x (512, {self.columns})"
        setting = f"OPENBLAS_CORETYPE={self.core}" if self.core else "default setting"
        return f"{self.rate / 1e9:.0f} GFLOP/s at {shape}, {setting}, {self.kernel}"


@cache
def product(threads: int) -> Product:
    """The best that NumPy's BLAS does at D's shapes, over its settings and batch widths."""
    found = []
    for setting in ("", "SkylakeX", "Zen", "Haswell"):
        environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
        environment["OPENBLAS_NUM_THREADS"] = str(threads)
        if setting:
            environment["OPENBLAS_CORETYPE"] = setting
        done = subprocess.run(
            [sys.executable, "-c", _PRODUCT, str(threads), "256", "2048", "8192"],
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            continue  # a core type that this processor cannot run
        answer = json.loads(done.stdout)
        found.append(Product(answer["rate"], setting, answer["kernel"], answer["columns"]))
    return max(found, key=lambda p: p.rate)


def main() -> None:
    """Print the machine and the limit of each workload."""
    from neurofail.kernel import backends

    isas = [b.removeprefix("c/") for b in backends() if b.startswith("c/")] or ["portable"]
    for isa in isas:
        machine = Machine.measured(isa)
        print(machine)
        for workload in WORKLOADS.values():
            rates = ", ".join(
                f"{name} {machine.limit(workload, name, 1) / 1e6:.4g} / "
                f"{machine.limit(workload, name, 2) / 1e6:.4g}"
                for name in ACTIVATIONS
            )
            print(f"  {workload.name:12} {rates} million a second")
        plain = ", ".join(
            f"{n} {statistics.median(trial(isa, n).rate() for _ in range(5)) / 1e6:.1f}" for n in ACTIVATIONS
        )
        print(f"  the plain trial kernel of W2a's shape, one core: {plain} million a second")
    for what, size in (("L1", 24 << 10), ("L2", 512 << 10), ("L3", 8 << 20), ("memory", 192 << 20)):
        print(f"triad, {what}: {bandwidth(isas[0], size) / 1e9:.0f} GB/s on one core")
    for threads in (1, 2):
        print(f"matrix product, {threads} thread(s): {product(threads)}")


if __name__ == "__main__":
    main()
