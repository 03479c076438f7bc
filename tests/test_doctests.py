"""Every example in a docstring of the installed package runs, and gives what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import neurofail

MODULES = [
    m.name for m in pkgutil.walk_packages(neurofail.__path__, "neurofail.") if "__main__" not in m.name
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} needs an extra or the compiled kernel: {error}")
    outcome = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert outcome.failed == 0


def test_there_are_examples() -> None:
    found = doctest.DocTestFinder().find(importlib.import_module("neurofail.plans"))
    assert any(test.examples for test in found)
