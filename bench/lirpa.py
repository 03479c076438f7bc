"""auto_LiRPA's CROWN on the two questions about W1 that it can be asked; `bench_box.py` sets it beside ours.

Its release 0.3 asks for a torch older than this project's, so it is installed without what it depends on:

    python -m pip install --no-deps auto_LiRPA==0.3 appdirs

and `_tool` puts back the few names that newer releases of torch and NumPy have dropped. All is in float64, on
one thread.
"""

from __future__ import annotations

import importlib
import sys
import time
import types
import warnings
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from peers import Missing

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def over_box(weights: list[Array], activation: str, failed: Mask) -> tuple[Array, float]:
    """CROWN's limit of |F_faulty - F| over inputs in [0, 1]^8 for each crash set (n, 24), and the seconds.

    The golden and the faulty run as one network of the input, the crashes as masks: the two share what they
    have in common.
    """
    torch, tool = _tool()
    sent = torch.tensor(1.0 - failed)
    first, second = sent[:, :12].contiguous(), sent[:, 12:].contiguous()

    def difference(layers: Any, phi: Any, x: Any, first: Any, second: Any) -> Any:
        y = phi(layers[0](x))
        return layers[2](phi(layers[1](y * first)) * second) - layers[2](phi(layers[1](y)))

    x = torch.full((len(failed), 8), 0.5, dtype=torch.float64)
    net = _bounded(difference, weights, activation, (x, first, second))
    box = tool.PerturbationLpNorm(norm=np.inf, x_L=x - 0.5, x_U=x + 0.5)
    return _limits(net, (tool.BoundedTensor(x, box), first, second))


def on_inputs(weights: list[Array], activation: str, inputs: Array, crashes: int) -> tuple[Array, float]:
    """CROWN's limit of |F_faulty - F| for at most so many crashes anywhere, for each input, and the seconds.

    The unknown is the mask of what still transmits: ones, of which at most so many may be anything in [0, 1].
    """
    torch, tool = _tool()
    choose = torch.eye(24, dtype=torch.float64)

    def difference(layers: Any, phi: Any, sent: Any, y: Any, golden: Any) -> Any:
        faulty = phi(layers[1](y * (sent @ choose[:, :12])))
        return layers[2](faulty * (sent @ choose[:, 12:])) - layers[2](golden)

    phi = _phi(activation)
    y = phi(torch.tensor(inputs) @ torch.tensor(weights[0]).T)
    golden = phi(y @ torch.tensor(weights[1]).T)
    sent = torch.ones(len(inputs), 24, dtype=torch.float64)
    net = _bounded(difference, weights, activation, (sent, y, golden))
    return _limits(net, (tool.BoundedTensor(sent, tool.perturbations.PerturbationL0Norm(crashes)), y, golden))


@cache
def _tool() -> tuple[Any, Any]:
    """(torch, auto_LiRPA); Missing with the reason where they do not run."""
    try:
        torch = importlib.import_module("torch")
        exporter = importlib.import_module("torch.onnx._internal.torchscript_exporter.utils")
        options = importlib.import_module("torch.onnx._internal.torchscript_exporter._globals").GLOBALS
        symbolic = importlib.import_module("torch.onnx.symbolic_helper")
        importlib.import_module("torch.onnx.utils")._optimize_graph = exporter._optimize_graph
        symbolic._set_opset_version = lambda version: setattr(options, "export_onnx_opset_version", version)
        torch._C.Node.__getitem__ = lambda node, key: getattr(node, node.kindOf(key))(key)
        sets = types.ModuleType("numpy.lib.arraysetops")
        sets.isin = np.isin
        sys.modules.setdefault(sets.__name__, sets)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tool = importlib.import_module("auto_LiRPA")
    except (AttributeError, ImportError) as why:
        raise Missing(f"auto_LiRPA does not run here: {why}") from None
    members = tool.BoundedModule._named_members

    def named(self: Any, get: Any, prefix: str = "", recurse: bool = True, **_: object) -> Any:
        return members(self, get, prefix, recurse)

    tool.BoundedModule._named_members = named
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # of its own tables too
    return torch, tool


def _phi(activation: str) -> Any:
    return getattr(_tool()[0], activation)


def _bounded(function: Any, weights: list[Array], activation: str, examples: tuple[Any, ...]) -> Any:
    """`function` of (linear layers, activation, inputs) as a network of auto_LiRPA's."""
    torch, tool = _tool()

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            shapes = [weight.shape[::-1] for weight in weights]
            self.layers = torch.nn.ModuleList(
                torch.nn.Linear(*shape, bias=False, dtype=torch.float64) for shape in shapes
            )
            for layer, weight in zip(self.layers, weights, strict=True):
                layer.weight.data = torch.tensor(weight)

        def forward(self, *inputs: Any) -> Any:
            return function(self.layers, _phi(activation), *inputs)

    return tool.BoundedModule(Module(), examples, device="cpu")


def _limits(net: Any, inputs: tuple[Any, ...]) -> tuple[Array, float]:
    """The larger of |lower| and |upper| of the one output, (n,), and the median of five runs' seconds."""
    torch, _ = _tool()
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        with torch.no_grad():
            lower, upper = net.compute_bounds(x=inputs, method="CROWN")
        seconds.append(time.perf_counter() - begun)
    return torch.maximum(-lower, upper).numpy()[:, 0], float(np.median(seconds))
