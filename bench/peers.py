"""What else could run these campaigns: another tool, what an engineer or an expert would write.

Each peer takes a case and configurations as `Crashes`, and gives the worst output error of every
configuration over all inputs, in float32. The setting-up of a peer (weights packed, golden run made,
functions compiled, failures as index arrays) is not timed.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from workloads import Case

from neurofail.plans import Plan

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# Configurations that a batched peer may take at once, the fastest of which it finds by trying.
CHUNKS = (4, 16, 64, 256, 1024)
_MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class Crashes:
    """Which neurons crash: for each hidden layer 1..L, (configurations, most failures there) neuron numbers.

    A number that is the layer's width stands for no failure.
    """

    layers: tuple[Ints, ...]

    @classmethod
    def of(cls, plan: Plan, indices: Iterable[int]) -> Crashes:
        """These configurations of a plan of crashes."""
        found = []
        chosen = [plan[i] for i in indices]
        for layer in range(1, plan.net.depth + 1):
            sets = [[f.neuron for f in configuration if f.layer == layer] for configuration in chosen]
            numbers = np.full((len(sets), max(map(len, sets))), plan.net.widths[layer], np.int64)
            for row, neurons in zip(numbers, sets, strict=True):
                row[: len(neurons)] = neurons
            found.append(numbers)
        return cls(tuple(found))

    def __len__(self) -> int:
        return len(self.layers[0])

    def part(self, start: int, stop: int) -> Crashes:
        """Some of the configurations."""
        return Crashes(tuple(numbers[start:stop] for numbers in self.layers))

    @property
    def first(self) -> int:
        """The first hidden layer that any of them strikes, from 0."""
        return next(i for i, numbers in enumerate(self.layers) if numbers.shape[1])


def steady_allocator() -> None:
    """Has glibc keep freed memory: else every large temporary of a peer is mapped and zeroed afresh."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD


class Missing(Exception):
    """A peer's library is not installed."""


class Peer(ABC):
    """One implementation, set up for a case.

    Class attributes
    ----------------
    name : as the table says it
    batched : whether it takes many configurations at once, in chunks whose size is tuned
    """

    name: ClassVar[str]
    batched: ClassVar[bool] = False

    def __init__(self, of: Case, threads: int) -> None:
        self.weights = [w.astype(np.float32) for w in of.net.weights]
        self.inputs = of.inputs.astype(np.float32)
        self.activation = of.activation
        self.threads = threads
        self.chunk = 1
        self.set_up()

    @abstractmethod
    def set_up(self) -> None:
        """Whatever need be done only once."""

    @abstractmethod
    def evaluate(self, crashes: Crashes) -> Floats:
        """The worst error of each configuration, for no more than `chunk` of them if `batched`."""

    def run(self, crashes: Crashes) -> Floats:
        """The worst error of each configuration."""
        step = self.chunk if self.batched else len(crashes)
        return np.concatenate(
            [self.evaluate(crashes.part(at, at + step)) for at in range(0, len(crashes), step)]
        )

    def chunks(self) -> list[int]:
        """The chunk sizes worth trying: what they hold of the widest layer must fit in memory."""
        each = len(self.inputs) * max(max(w.shape) for w in self.weights) * 4
        return [c for c in CHUNKS if c * each <= _MOST_BYTES] or [CHUNKS[0]]


# ---- PyTorch ----


class _Torch(Peer):
    """A torch.nn.Sequential, and its golden run."""

    def set_up(self) -> None:
        try:
            import torch
        except ImportError:
            raise Missing("torch is not installed (the bench extra has it)") from None
        self.torch = torch
        torch.set_num_threads(self.threads)
        torch.set_grad_enabled(False)
        self.phi = {"relu": torch.relu, "sigmoid": torch.sigmoid}[self.activation]
        self.kind = {"relu": torch.nn.ReLU, "sigmoid": torch.nn.Sigmoid}[self.activation]
        layers: list[Any] = []
        for weight in self.weights:
            linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            linear.weight.copy_(torch.from_numpy(weight))
            layers += [linear, self.kind()]
        self.model = torch.nn.Sequential(*layers[:-1]).eval()
        self.x = torch.from_numpy(self.inputs)
        self.w = [torch.from_numpy(weight) for weight in self.weights]
        self.s, self.y = [], []
        at = self.x
        for weight in self.w:
            self.s.append(at @ weight.T)
            at = self.phi(self.s[-1])
            self.y.append(at)
        self.golden = self.s[-1]


class PyTorchFI(_Torch):
    """PyTorchFI itself (github.com/pytorchfi/pytorchfi, version 0.6.0), by its neuron injection.

    Every layer is hooked, for the tool asks a layer of a named kind for its weight, which an activation has
    none of. Its list of hook handles, which it never clears, is cleared after each configuration: else each
    costs as much more as there were before.
    """

    name = "PyTorchFI"

    def set_up(self) -> None:
        super().set_up()
        try:
            from pytorchfi.core import fault_injection
        except ImportError:
            raise Missing("pytorchfi is not installed (the bench extra has it)") from None
        self.injector = fault_injection(
            self.model, len(self.inputs), input_shape=[self.inputs.shape[1]], layer_types=["all"]
        )

    def evaluate(self, crashes: Crashes) -> Floats:
        return np.array([self._inject(crashes.part(c, c + 1)) for c in range(len(crashes))], np.float32)

    def _inject(self, crash: Crashes) -> float:
        struck = [
            (2 * number + 1, int(neuron))  # an activation follows each layer's sums
            for number, numbers in enumerate(crash.layers)
            for neuron in numbers[0]
            if neuron < len(self.weights[number])
        ]
        batch = len(self.inputs)
        faults = len(struck) * batch
        faulty = self.injector.declare_neuron_fi(
            layer_num=[layer for layer, _ in struck for _ in range(batch)],
            batch=list(range(batch)) * len(struck),
            dim1=[neuron for _, neuron in struck for _ in range(batch)],
            dim2=[None] * faults,
            dim3=[None] * faults,
            value=[0.0] * faults,
        )(self.x)
        self.injector.fi_reset()
        self.injector.handles.clear()
        return float((faulty - self.golden).abs().max())


class Hooked(_Torch):
    """One hooked forward pass a configuration, as an engineer would write it."""

    name = "PyTorch, a hooked forward pass each"

    def set_up(self) -> None:
        super().set_up()
        self.struck: dict[int, Any] = {}
        for number, module in enumerate(m for m in self.model if isinstance(m, self.kind)):
            module.register_forward_hook(partial(self._hook, number))

    def _hook(self, number: int, module: Any, given: Any, output: Any) -> None:
        if number in self.struck:
            output[:, self.struck[number]] = 0.0

    def evaluate(self, crashes: Crashes) -> Floats:
        worst = np.empty(len(crashes), np.float32)
        for c in range(len(crashes)):
            self.struck = {}
            for number, numbers in enumerate(crashes.layers):
                here = numbers[c][numbers[c] < len(self.weights[number])]
                if len(here):
                    self.struck[number] = self.torch.from_numpy(here)
            worst[c] = float((self.model(self.x) - self.golden).abs().max())
        return worst


class Masked(_Torch):
    """Masks batched over configurations, the whole network for each: what an engineer writes."""

    name = "PyTorch, masks batched"
    batched = True

    def evaluate(self, crashes: Crashes) -> Floats:
        return self._behind(0, self.x.expand(len(crashes), -1, -1) @ self.w[0].T, crashes)

    def _behind(self, first: int, s: Any, crashes: Crashes) -> Floats:
        """The worst errors, from the sums of hidden layer `first` (from 0) on."""
        torch = self.torch
        for number in range(first, len(crashes.layers)):
            y = self.phi(s)
            numbers = torch.from_numpy(crashes.layers[number])
            if numbers.shape[1]:
                mask = torch.ones(len(crashes), len(self.weights[number]) + 1).scatter_(1, numbers, 0.0)
                y = torch.mul(y, mask[:, None, :-1], out=y if y.ndim == 3 else None)
            s = y @ self.w[number + 1].T
        return (s - self.golden).abs_().amax(dim=(1, 2)).numpy()


class MaskedBehindPrefix(Masked):
    """The same, where what lies before the first failure is computed once."""

    name = "PyTorch, masks behind the prefix"

    def evaluate(self, crashes: Crashes) -> Floats:
        return self._behind(crashes.first, self.s[crashes.first], crashes)


class TorchRankF(Masked):
    """Golden prefix and rank-f update by hand: neurofail's algorithm in a framework."""

    name = "PyTorch, prefix and rank-f by hand"

    def set_up(self) -> None:
        super().set_up()
        torch = self.torch
        # One neuron more, which is always 0, for the numbers that stand for no failure.
        self.padded_y = [torch.nn.functional.pad(y, (0, 1)).T.contiguous() for y in self.y[:-1]]
        self.columns = [torch.nn.functional.pad(w, (0, 1)).T.contiguous() for w in self.w]

    def evaluate(self, crashes: Crashes) -> Floats:
        torch = self.torch
        first = crashes.first
        numbers = torch.from_numpy(crashes.layers[first])
        lost = self.padded_y[first][numbers].transpose(1, 2)  # (configurations, inputs, failures)
        columns = self.columns[first + 1][numbers]  # (configurations, failures, neurons)
        s = torch.baddbmm(self.s[first + 1].expand(len(crashes), -1, -1), lost, columns, alpha=-1)
        return self._behind(first + 1, s, crashes)


# ---- JAX ----


class Jax(Peer):
    """The same algorithm for one configuration, vectorised and compiled by JAX."""

    name = "JAX, jit and vmap of the same"
    batched = True

    def set_up(self) -> None:
        try:
            import jax
            import jax.numpy as jnp
        except ImportError:
            raise Missing("jax is not installed (the bench extra has it)") from None
        phi = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}[self.activation]
        w = [jnp.asarray(weight) for weight in self.weights]
        s, y = [], [jnp.asarray(self.inputs)]
        for weight in w:
            s.append(y[-1] @ weight.T)
            y.append(phi(s[-1]))
        columns = [jnp.pad(weight, ((0, 0), (0, 1))).T for weight in w]
        lost = [jnp.pad(out, ((0, 0), (0, 1))).T for out in y[1:]]

        def worst(first: int, numbers: list[Any]) -> Any:
            at = s[first + 1] - lost[first][numbers[first]].T @ columns[first + 1][numbers[first]]
            for number in range(first + 1, len(numbers)):
                out = phi(at)
                if numbers[number].shape[0]:
                    out = out.at[:, numbers[number]].set(0.0, mode="drop")
                at = out @ w[number + 1].T
            return jnp.abs(at - s[-1]).max()

        self.compiled: Callable[..., Any] = jax.jit(jax.vmap(worst, in_axes=(None, 0)), static_argnums=0)

    def evaluate(self, crashes: Crashes) -> Floats:
        count = len(crashes)
        layers = crashes.layers
        if count < self.chunk:  # a chunk of another size would be compiled anew
            layers = tuple(np.resize(numbers, (self.chunk, numbers.shape[1])) for numbers in layers)
        numbers = [n.astype(np.int32) for n in layers]
        return np.asarray(self.compiled(crashes.first, numbers))[:count]


# ---- NumPy and Numba ----


class NumPyRankF(Peer):
    """The same algorithm in NumPy."""

    name = "NumPy, prefix and rank-f"
    batched = True

    def set_up(self) -> None:
        self.s, self.y = [], []
        at = self.inputs
        for weight in self.weights:
            self.s.append(at @ weight.T)
            at = self.phi(self.s[-1].copy())
            self.y.append(at)
        self.lost = [np.pad(y, ((0, 0), (0, 1))).T.copy() for y in self.y[:-1]]
        self.columns = [np.pad(w, ((0, 0), (0, 1))).T.copy() for w in self.weights]

    def phi(self, s: Floats) -> Floats:
        """The activation, in place."""
        if self.activation == "relu":
            return np.maximum(s, 0, out=s)
        np.negative(s, out=s)
        np.exp(s, out=s)
        s += 1
        return np.reciprocal(s, out=s)

    def evaluate(self, crashes: Crashes) -> Floats:
        first = crashes.first
        numbers = crashes.layers[first]
        s = np.matmul(self.lost[first][numbers].transpose(0, 2, 1), self.columns[first + 1][numbers])
        np.subtract(self.s[first + 1], s, out=s)
        for number in range(first + 1, len(crashes.layers)):
            y = self.phi(s)
            numbers = crashes.layers[number]
            if numbers.shape[1]:
                mask = np.ones((len(crashes), y.shape[2] + 1), np.float32)
                np.put_along_axis(mask, numbers, 0, axis=1)
                y *= mask[:, None, :-1]
            s = (y.reshape(-1, y.shape[2]) @ self.weights[number + 1].T).reshape(*y.shape[:2], -1)
        s -= self.s[-1]
        return np.abs(s, out=s).max(axis=(1, 2))


class NumbaDense(Peer):
    """A plain loop nest over everything, compiled by Numba: no prefix, no update."""

    name = "Numba, plain dense loops"

    def set_up(self) -> None:
        import numba

        numba.set_num_threads(self.threads)
        sigmoid = self.activation == "sigmoid"

        @numba.njit(fastmath=True)
        def dot(row, a):
            total = np.float32(0)
            for i in range(len(row)):
                total += row[i] * a[i]
            return total

        @numba.njit(fastmath=True)
        def forward(x, weights, sizes, masks, base, a, b):
            a[: len(x)] = x
            at = mask = 0
            for layer in range(len(sizes) - 1):
                inputs, neurons = sizes[layer], sizes[layer + 1]
                for j in range(neurons):
                    total = dot(weights[at + j * inputs : at + (j + 1) * inputs], a)
                    if layer + 2 < len(sizes):
                        if sigmoid:
                            total = np.float32(1) / (np.float32(1) + np.exp(-total))
                        else:
                            total = max(total, np.float32(0))
                        total *= masks[mask + j]
                    b[j] = total
                at += inputs * neurons
                mask += neurons
                a, b = b, a
            worst = np.float32(0)
            for k in range(sizes[-1]):
                worst = max(worst, abs(a[k] - base[k]))
            return worst

        @numba.njit(parallel=True, fastmath=True)
        def campaign(x, weights, sizes, masks, golden):
            worst = np.zeros(len(masks), np.float32)
            for c in numba.prange(len(masks)):
                a, b = np.empty(sizes.max(), np.float32), np.empty(sizes.max(), np.float32)
                for n in range(len(x)):
                    worst[c] = max(worst[c], forward(x[n], weights, sizes, masks[c], golden[n], a, b))
            return worst

        self.campaign = campaign
        self.flat = np.concatenate([w.ravel() for w in self.weights])
        self.sizes = np.array([self.inputs.shape[1], *(len(w) for w in self.weights)])
        at = self.inputs
        for weight in self.weights[:-1]:
            s = at @ weight.T
            at = 1 / (1 + np.exp(-s)) if sigmoid else np.maximum(s, 0)
        self.golden = at @ self.weights[-1].T

    def evaluate(self, crashes: Crashes) -> Floats:
        masks = []
        for numbers, weight in zip(crashes.layers, self.weights, strict=False):
            mask = np.ones((len(crashes), len(weight) + 1), np.float32)
            np.put_along_axis(mask, numbers, 0, axis=1)
            masks.append(mask[:, :-1])
        return self.campaign(self.inputs, self.flat, self.sizes, np.concatenate(masks, axis=1), self.golden)


PEERS: tuple[type[Peer], ...] = (
    PyTorchFI,
    Hooked,
    Masked,
    MaskedBehindPrefix,
    TorchRankF,
    Jax,
    NumPyRankF,
    NumbaDense,
)
