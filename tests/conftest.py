"""Fixtures that run one test on every backend that this machine has."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings
from machine import EVERY, present

# A shell starts background jobs with Ctrl-C ignored, and the processes that tests interrupt inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The machine's load is not what these tests judge, and a law that fails must fail again.
settings.register_profile(
    "neurofail", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("neurofail")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the long checks out unless -m says what is wanted."""
    if not config.option.markexpr:
        long = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def _each(names: tuple[str, ...]) -> list[object]:
    return [
        pytest.param(
            name, marks=pytest.mark.skipif(not present(name), reason=f"backend {name} is not available here")
        )
        for name in names
    ]


@pytest.fixture(params=_each(EVERY))
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend, the oracle's own among them."""
    return str(request.param)


@pytest.fixture(params=_each(EVERY[:-1]))
def compiled(request: pytest.FixtureRequest) -> str:
    """Every backend that is held to the oracle."""
    return str(request.param)


@pytest.fixture(params=_each(EVERY[:3]))
def native(request: pytest.FixtureRequest) -> str:
    """Every instruction set of the C kernel."""
    return str(request.param)


@pytest.fixture(autouse=True)
def _no_forced_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller's shell forces must not decide what a test runs on."""
    if "NEUROFAIL_BACKEND" in os.environ:
        monkeypatch.delenv("NEUROFAIL_BACKEND")
