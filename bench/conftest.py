"""What the benchmarks share: the options, the machine as measured in this run, and the table at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import limits
import pytest

from neurofail.kernel import backends, choose


@dataclass
class Ledger:
    """What the run found out, printed when it ends: lines by heading."""

    lines: dict[str, list[str]] = field(default_factory=dict)

    def note(self, heading: str, line: str) -> None:
        """Adds a line under a heading."""
        under = self.lines.setdefault(heading, [])
        if line not in under:
            under.append(line)


_LEDGER = pytest.StashKey[Ledger]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("neurofail benchmarks")
    group.addoption("--backend", action="append", help="which to time, repeatable; 'all' for every one here")
    group.addoption("--seconds", type=float, default=0.2, help="of each round (default 0.2)")
    group.addoption("--rounds", type=int, default=7, help="of each benchmark (default 7)")
    group.addoption("--threads", type=int, default=2, help="beside the peers (default 2)")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LEDGER] = Ledger()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--backend") or [os.environ.get("NEUROFAIL_BACKEND") or "auto"]
        names = (
            [b for b in backends() if b != "numpy"] if asked == ["all"] else [choose(name) for name in asked]
        )
        metafunc.parametrize("backend", names, scope="session")


@pytest.fixture(scope="session")
def ledger(request: pytest.FixtureRequest) -> Ledger:
    return request.config.stash[_LEDGER]


@pytest.fixture(scope="session")
def machine(backend: str, ledger: Ledger) -> Iterator[limits.Machine | None]:
    """The machine's rates for this backend's instruction set (Numba: the best there is); None unmeasured."""
    isa = next((b for b in (backend, *backends()) if b.startswith("c/")), "c/portable").removeprefix("c/")
    try:
        found = limits.Machine.measured(isa)
        ledger.note("The machine", str(found))
        yield found
    except limits.NoCompiler as why:
        ledger.note("The machine", f"not measured: {why}")
        yield None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for heading, lines in config.stash[_LEDGER].lines.items():
        terminalreporter.section(heading)
        for line in lines:
            terminalreporter.write_line(line)
