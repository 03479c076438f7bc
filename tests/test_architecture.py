"""Imports point one way, bounds never meet a simulation, and `import neurofail` stays light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import neurofail

ROOT = Path(neurofail.__file__).parent
MODULES = {
    ".".join(("neurofail", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
# What design.md says, room by room; a package stands for all its modules.
SIMULATION = {
    "kernel",
    "tally",
    "records",
    "session",
    "lowering",
    "_native",
    "_numba",
    "_numpy",
    "_reference",
    "campaign",
}
EDGES = {"cli", "demo", "report", "compare", "__main__"}


def imports(path: Path, module: str, anywhere: bool) -> Iterator[str]:
    """The project's modules that a file imports: when it is loaded, or anywhere in it."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if anywhere else _loaded(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("neurofail"))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("neurofail"):
            assert node.level == 0, f"{module}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def _loaded(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: functions' bodies and `if TYPE_CHECKING` are left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _loaded(child)


LOADED = {m: set(imports(path, m, False)) - {m} for m, path in MODULES.items()}
ALL = {m: set(imports(path, m, True)) - {m} for m, path in MODULES.items()}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 30
    assert "neurofail.network" in LOADED["neurofail.plans"]
    assert "neurofail.kernel" in LOADED["neurofail"]


def test_no_module_is_imported_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for other in sorted(LOADED.get(module, ())):
                visit(other, (*above, module))
            done.add(module)

    # A package's own __init__ gathers its modules and is loaded before them: it is no part of a circle.
    packages = {m for m, path in MODULES.items() if path.name == "__init__.py"}
    for module in LOADED:
        LOADED[module] -= packages
    for module in LOADED:
        visit(module, ())


@pytest.mark.parametrize(
    ("rooms", "never"),
    [
        ({"bounds"}, SIMULATION | EDGES | {"plans", "search"}),
        ({"search"}, (SIMULATION - {"_reference"}) | EDGES | {"plans"}),
        ({"errors", "activations"}, {"network", "faults", "plans", "bounds"} | SIMULATION | EDGES),
        ({"network", "sites"}, {"faults", "budget", "plans", "bounds", "search"} | SIMULATION | EDGES),
        ({"faults", "budget"}, {"plans", "bounds", "search", "formats"} | SIMULATION | EDGES),
        ({"plans", "combinations", "philox", "configuration"}, {"bounds", "search"} | SIMULATION | EDGES),
        ({"_reference"}, {"plans", "bounds", "search", "kernel", "tally", "lowering"} | EDGES),
        (
            {"kernel", "tally", "records", "session", "lowering", "_native", "_numba", "_numpy"},
            {"bounds", "search"} | EDGES,
        ),
        ({"compare"}, {"cli", "demo"}),
        ({"report"}, {"cli", "demo"}),
        ({"formats", "data"}, {"faults", "plans", "bounds", "search"} | SIMULATION | EDGES),
    ],
    ids=lambda names: "+".join(sorted(names)) if len(names) < 4 else "..",
)
def test_imports_point_one_way(rooms: set[str], never: set[str]) -> None:
    """Anywhere in the file: a function's import is an import too."""
    for module, others in ALL.items():
        if room(module) in rooms:
            found = {room(other) for other in others} & never
            assert not found, f"{module} imports {sorted(found)}"


def test_one_module_touches_ffi() -> None:
    for module, path in MODULES.items():
        if module != "neurofail._native":
            assert "_kernel" not in {name for name in _names(path) if name == "_kernel"}, module
            assert "cffi" not in _roots(path), module


def _names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


def _roots(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


HEAVY = {"numba", "scipy", "tqdm", "dask", "distributed", "torch", "matplotlib", "onnx", "sklearn", "cffi"}


def python(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout


def test_importing_pulls_in_nothing_heavy() -> None:
    loaded = python(
        "import sys, neurofail; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    ).split()
    assert "numpy" in loaded
    assert not HEAVY & set(loaded)


def test_importing_is_quick() -> None:
    """Under 0.3 s of processor time in all, NumPy included; where NumPy alone takes long, 2.5 times that."""

    def seconds(package: str) -> float:
        code = f"import time; t = time.process_time(); import {package}; print(time.process_time() - t)"
        return min(float(python(code)) for _ in range(5))

    assert seconds("neurofail") < max(0.3, 2.5 * seconds("numpy"))


def test_every_public_name_is_there_and_documented() -> None:
    for name in neurofail.__all__:
        assert getattr(neurofail, name).__doc__, name
    assert neurofail.__all__ == sorted(neurofail.__all__)
