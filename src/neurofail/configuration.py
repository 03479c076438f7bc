"""One configuration: a set of failures, in words that a person and a file can keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Failure:
    """One failed place.

    Attributes
    ----------
    layer : the layer of the neuron, or the layer that the synapse enters; the first hidden layer is 1
    neuron : the neuron (of that layer), from 0
    source : for a synapse, the neuron of the layer before (or the input) it comes from; None for a neuron
    kind : the fault's name
    variant : which of the fault's choices was taken (0 unless it has a choice)
    level : where in its range a value drawn at random lies, in [0, 1)
    """

    layer: int
    neuron: int
    source: int | None
    kind: str
    variant: int = 0
    level: float = 0.0

    def __str__(self) -> str:
        where = f"neuron {self.neuron}" if self.source is None else f"synapse {self.source}->{self.neuron}"
        choice = f" (choice {self.variant})" if self.variant else ""
        drawn = f" (level {self.level:.6g})" if self.level else ""
        return f"{self.kind} of layer {self.layer} {where}{choice}{drawn}"

    def to_dict(self) -> dict[str, object]:
        """The failure as plain JSON values."""
        return {
            "kind": self.kind,
            "layer": self.layer,
            "neuron": self.neuron,
            "source": self.source,
            "variant": self.variant,
            "level": self.level,
        }


@dataclass(frozen=True)
class Configuration:
    """A set of failures that happen together, in the order in which they act.

    >>> print(Configuration((Failure(1, 3, None, "crash"),)))
    crash of layer 1 neuron 3
    """

    failures: tuple[Failure, ...]

    def __len__(self) -> int:
        return len(self.failures)

    def __iter__(self) -> Iterator[Failure]:
        return iter(self.failures)

    def __str__(self) -> str:
        return "; ".join(map(str, self.failures)) or "no failure"

    def to_dict(self) -> list[dict[str, object]]:
        """The failures as plain JSON values."""
        return [failure.to_dict() for failure in self.failures]
