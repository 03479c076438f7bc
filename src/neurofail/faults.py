"""Kinds of failure as values.

A fault says which places of a network can fail and what a failed place does. What it does is written in
the four operations that the kernel knows (`sites.Operation`); nothing downstream asks which fault it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from neurofail.errors import InputError
from neurofail.network import Network, magnitude
from neurofail.sites import Action, Operations

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fault:
    """Base of all faults.

    Class attributes
    ----------------
    kind : the name in reports and on the command line
    place : "neuron" (hidden layers 1..L fail) or "synapse" (synapses into layers 1..L+1 fail)
    blocking : whether a failed neuron blocks the error that reaches it from upstream
    """

    kind: ClassVar[str]
    place: ClassVar[Literal["neuron", "synapse"]]
    blocking: ClassVar[bool] = True

    def layers(self, net: Network) -> range:
        """The layers in which places can fail."""
        return range(1, net.depth + 1 if self.place == "neuron" else net.depth + 2)

    def places(self, net: Network, layer: int) -> int:
        """How many places can fail in `layer`."""
        width = net.widths[layer]
        return width if self.place == "neuron" else width * net.widths[layer - 1]

    def variants(self, net: Network) -> int:
        """In how many ways one place can fail (1 unless the fault has a choice)."""
        return 1

    def operations(self, net: Network, layer: int) -> Operations:
        """What each (place, variant) of `layer` does, place by place, variants together."""
        raise NotImplementedError

    def describe(self) -> dict[str, object]:
        """The fault as plain JSON values."""
        return {"kind": self.kind, **{key: getattr(self, key) for key in self.__dataclass_fields__}}


def _each_neuron(net: Network, layer: int, action: Action, values: Sequence[float]) -> Operations:
    """One operation for every neuron of `layer` and every value, neuron by neuron."""
    width = net.widths[layer]
    return Operations.rows(
        action,
        layer,
        neuron=np.repeat(np.arange(width), len(values)),
        value=np.tile(np.asarray(values, dtype=np.float64), width),
    )


@dataclass(frozen=True)
class Crash(Fault):
    """A crashed neuron transmits 0.

    >>> Crash().describe()
    {'kind': 'crash'}
    """

    kind: ClassVar[str] = "crash"
    place: ClassVar[Literal["neuron", "synapse"]] = "neuron"

    def operations(self, net: Network, layer: int) -> Operations:
        return _each_neuron(net, layer, Action.SET, [0.0])


@dataclass(frozen=True)
class StuckAt(Fault):
    """A stuck neuron transmits `value` whatever it receives.

    Raises InputError if `value` is not finite.

    >>> StuckAt(1.0).describe()
    {'kind': 'stuck-at', 'value': 1.0}
    """

    value: float
    kind: ClassVar[str] = "stuck-at"
    place: ClassVar[Literal["neuron", "synapse"]] = "neuron"

    def __post_init__(self) -> None:
        if isinstance(self.value, str) or not np.isfinite(self.value):
            raise InputError(f"stuck-at value is {self.value!r}; it must be a finite number")
        object.__setattr__(self, "value", float(self.value))

    def operations(self, net: Network, layer: int) -> Operations:
        return _each_neuron(net, layer, Action.SET, [self.value])
