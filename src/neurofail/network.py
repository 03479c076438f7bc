"""The network under test: dense layers, their activations, and the domain of its inputs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from neurofail.activations import Activation
from neurofail.errors import InputError

Array = npt.NDArray[np.float64]
Range = tuple[npt.ArrayLike, npt.ArrayLike]


def _frozen(values: npt.ArrayLike, what: str, dimensions: int) -> Array:
    """A private, read-only, C-contiguous float64 copy of finite real numbers."""
    try:
        source = np.asarray(values)
        if source.dtype.kind not in "fiub":
            raise TypeError
        with np.errstate(over="ignore"):  # what overflows is refused below
            array = np.array(source, dtype=np.float64, order="C")
    except (TypeError, ValueError):
        raise InputError(f"{what} must be an array of real numbers") from None
    if array.ndim != dimensions:
        raise InputError(f"{what} has shape {array.shape}; it must have {dimensions} dimension(s)")
    bad = np.argwhere(~np.isfinite(array))
    if bad.size:
        where = tuple(int(i) for i in bad[0])
        raise InputError(f"{what} holds {array[where]} at {where}; every number must be finite")
    array.setflags(write=False)
    return array


class Network:
    """A feed-forward network: hidden layers 1..L with activations, and a linear output layer L+1.

    y^0 = x, s^l = W_l y^{l-1} + b_l, y^l = phi_l(s^l), F = W_{L+1} y^L + b_{L+1} (bounds.md, section 1).
    Immutable. Build it with `Network.dense` or `neurofail.load`.

    Attributes
    ----------
    weights : one (N_l, N_{l-1}) float64 array for l = 1..L+1
    biases : one (N_l,) float64 array for l = 1..L+1
    activations : one Activation for l = 1..L+1, the last the identity
    low, high : the input domain, (N_0,) float64 each
    """

    def __init__(
        self,
        weights: tuple[Array, ...],
        biases: tuple[Array, ...],
        activations: tuple[Activation, ...],
        low: Array,
        high: Array,
    ) -> None:
        self.weights = weights
        self.biases = biases
        self.activations = activations
        self.low = low
        self.high = high

    @classmethod
    def dense(
        cls,
        weights: Sequence[npt.ArrayLike],
        biases: Sequence[npt.ArrayLike | None] | None,
        activations: Sequence[str | Activation],
        input_range: Range = (0.0, 1.0),
    ) -> Network:
        """A network of dense layers.

        Parameters
        ----------
        weights : weights[l] of shape (N_{l+1}, N_l), l = 0..L; at least two layers (one hidden).
        biases : biases[l] of shape (N_{l+1},), or None for zeros (one layer's, or all).
        activations : one name or Activation a layer, the last "identity".
        input_range : (low, high), each a number or one number per input, low <= high, finite.

        Raises
        ------
        InputError : shapes that do not chain, numbers that are not finite, an unknown activation.

        >>> net = Network.dense([[[1.0, 2.0]], [[3.0]]], [[0.5], None], ["relu", "identity"])
        >>> net.widths, net.depth
        ((2, 1, 1), 1)
        >>> float(net([[1.0, 1.0]])[0, 0])
        10.5
        """
        if isinstance(activations, str) or not isinstance(activations, Iterable):
            raise InputError("activations must be a list: one name or Activation a layer")
        for given, what in ((weights, "weights"), (biases, "biases")):
            if given is not None and not isinstance(given, (Sequence, np.ndarray)):
                raise InputError(f"{what} must be a list: one array a layer")
        if len(weights) < 2:
            raise InputError(
                f"a network needs a hidden and an output layer; {len(weights)} weight matrix(es) given"
            )
        if biases is None:
            biases = [None] * len(weights)
        if not len(weights) == len(biases) == len(activations):
            raise InputError(
                f"{len(weights)} weight matrices, {len(biases)} biases and {len(activations)} "
                "activations given; there must be one of each a layer"
            )
        matrices = tuple(_frozen(w, f"weights[{i}]", 2) for i, w in enumerate(weights))
        for i, matrix in enumerate(matrices):
            if 0 in matrix.shape:
                raise InputError(f"weights[{i}] has shape {matrix.shape}; no layer may be empty")
            if i and matrix.shape[1] != matrices[i - 1].shape[0]:
                raise InputError(
                    f"weights[{i}] has shape {matrix.shape} but layer {i} has "
                    f"{matrices[i - 1].shape[0]} neurons; it must have {matrices[i - 1].shape[0]} columns"
                )
        offsets = []
        for i, (bias, matrix) in enumerate(zip(biases, matrices, strict=True)):
            vector = _frozen(np.zeros(len(matrix)) if bias is None else bias, f"biases[{i}]", 1)
            if len(vector) != len(matrix):
                raise InputError(f"biases[{i}] has {len(vector)} entries; weights[{i}] needs {len(matrix)}")
            offsets.append(vector)
        phis = tuple(Activation.of(a) for a in activations)
        if phis[-1] != Activation("identity"):
            raise InputError(f"the last activation is {phis[-1].name!r}; the output layer must be 'identity'")
        low, high = _domain(input_range, matrices[0].shape[1])
        return cls(matrices, tuple(offsets), phis, low, high)

    @property
    def depth(self) -> int:
        """L, the number of hidden layers."""
        return len(self.weights) - 1

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """N_0 (inputs), N_1 .. N_L (hidden neurons), N_{L+1} (outputs)."""
        return (self.weights[0].shape[1], *(len(w) for w in self.weights))

    def __call__(self, inputs: npt.ArrayLike) -> Array:
        """The golden run in float64: (n, N_0) inputs to (n, N_{L+1}) outputs."""
        y = np.asarray(inputs, dtype=np.float64)
        for weight, bias, phi in zip(self.weights, self.biases, self.activations, strict=True):
            y = phi(y @ weight.T + bias)
        return y

    def check_inputs(self, inputs: npt.ArrayLike) -> Array:
        """The inputs as a (n, N_0) float64 array, n >= 1, finite and inside the declared domain.

        Raises InputError otherwise, naming the first offender.
        """
        array = _frozen(inputs, "inputs", 2)
        if array.shape[1] != self.widths[0]:
            raise InputError(f"inputs have shape {array.shape}; this network needs (n, {self.widths[0]})")
        if not len(array):
            raise InputError("inputs are empty; at least one row is needed")
        outside = np.argwhere((array < self.low) | (array > self.high))
        if outside.size:
            row, column = (int(i) for i in outside[0])
            raise InputError(
                f"inputs[{row}, {column}] is {array[row, column]}, outside the network's input_range "
                f"[{self.low[column]}, {self.high[column]}]"
            )
        return array

    def describe(self) -> dict[str, object]:
        """What the network is besides its numbers, as plain JSON values."""
        return {
            "widths": list(self.widths),
            "activations": [phi.to_dict() for phi in self.activations],
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of `describe` and the little-endian float64 numbers."""
        sha = hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode())
        for array in (*self.weights, *self.biases, self.low, self.high):
            sha.update(array.astype("<f8").tobytes())
        return sha.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the network as an npz that `neurofail.load` reads back exactly."""
        from neurofail.formats import npz

        npz.save(self, path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        names = [phi.name for phi in self.activations[:-1]]
        return f"Network({'-'.join(map(str, self.widths))}, {' '.join(names)})"


def _domain(input_range: Range, width: int) -> tuple[Array, Array]:
    """The two ends of the input domain, each of shape (width,)."""
    try:
        low, high = input_range
    except (TypeError, ValueError):
        raise InputError(f"input_range is {input_range!r}; it must be (low, high)") from None
    ends = []
    for end, name in ((low, "low"), (high, "high")):
        try:
            array = np.array(np.broadcast_to(np.asarray(end, dtype=np.float64), (width,)))
        except (TypeError, ValueError):
            raise InputError(
                f"input_range: {name} must be a number or {width} numbers, one per input"
            ) from None
        ends.append(_frozen(array, f"input_range {name}", 1))
    if np.any(ends[0] > ends[1]):
        i = int(np.argmax(ends[0] > ends[1]))
        raise InputError(f"input_range: low {ends[0][i]} exceeds high {ends[1][i]} at input {i}")
    return ends[0], ends[1]


def whole(value: object, what: str) -> int:
    """A non-negative whole number, or an InputError that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise InputError(f"{what} is {value!r}; it must be a whole number, 0 or more")
    return int(value)


def positive(value: object, what: str) -> int:
    """A whole number that is not 0, or an InputError that names it."""
    number = whole(value, what)
    if not number:
        raise InputError(f"{what} is 0; at least one is needed")
    return number


def magnitude(value: object, what: str) -> float:
    """A finite number that is not negative, or an InputError that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InputError(f"{what} is {value!r}; it must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0:
        raise InputError(f"{what} is {number}; it must be finite and not negative")
    return number
