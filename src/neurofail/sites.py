"""The site table: every place that can fail, as rows of the few operations that the kernel knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]


class Action(IntEnum):
    """What an operation does; y is a neuron's output, s a pre-activation (neurofail.h lists the same)."""

    SET = 0  # y <- value
    SHIFT = 1  # y <- golden y + value
    ADD = 2  # y <- y + value, on top of whatever error arrived from upstream
    SYNAPSE = 3  # s_neuron <- s_neuron + weight * y_source + value


@dataclass(frozen=True)
class Operation:
    """One operation at one place. `source` and `weight` matter to SYNAPSE alone.

    Layers count from 1 (the first hidden layer) as in the paper; neurons from 0.
    """

    action: Action
    layer: int
    neuron: int
    source: int
    weight: float
    value: float


@dataclass(frozen=True)
class Operations:
    """The operations of a block of rows, as columns; row r owns entries first[r] .. first[r + 1] - 1.

    The value that an operation uses is value + level * span, where the level (0 unless the plan draws
    values at random) lies in [0, 1).
    """

    first: Ints
    action: Ints
    layer: Ints
    neuron: Ints
    source: Ints
    weight: Array
    value: Array
    span: Array

    @classmethod
    def rows(
        cls,
        action: Action,
        layer: int,
        *,
        neuron: npt.ArrayLike,
        value: npt.ArrayLike = 0.0,
        source: npt.ArrayLike = -1,
        weight: npt.ArrayLike = 0.0,
        span: npt.ArrayLike = 0.0,
        width: int = 1,
    ) -> Operations:
        """Rows of `width` operations each, all of one action in one layer; columns broadcast."""
        neurons = np.asarray(neuron, dtype=np.int64).ravel()
        size = len(neurons)

        def column(values: npt.ArrayLike, kind: type) -> npt.NDArray[np.generic]:
            return np.array(np.broadcast_to(np.asarray(values, dtype=kind).ravel(), (size,)))

        return cls(
            first=np.arange(0, size + 1, width, dtype=np.int64),
            action=column(int(action), np.int64),  # type: ignore[arg-type]
            layer=column(layer, np.int64),  # type: ignore[arg-type]
            neuron=neurons,
            source=column(source, np.int64),  # type: ignore[arg-type]
            weight=column(weight, np.float64),  # type: ignore[arg-type]
            value=column(value, np.float64),  # type: ignore[arg-type]
            span=column(span, np.float64),  # type: ignore[arg-type]
        )

    @classmethod
    def stack(cls, blocks: Sequence[Operations]) -> Operations:
        """The rows of all blocks, in order."""
        starts = np.cumsum([0, *(len(b.action) for b in blocks)])
        firsts = [b.first[:-1] + s for b, s in zip(blocks, starts[:-1], strict=True)]
        columns = ("action", "layer", "neuron", "source", "weight", "value", "span")
        return cls(
            np.concatenate([*firsts, starts[-1:]]).astype(np.int64),
            *(np.concatenate([getattr(b, name) for b in blocks]) for name in columns),
        )

    def __len__(self) -> int:
        return len(self.first) - 1

    def row(self, index: int, level: float = 0.0) -> Iterator[Operation]:
        """The operations of one row, at one level of its value."""
        for k in range(int(self.first[index]), int(self.first[index + 1])):
            yield Operation(
                Action(int(self.action[k])),
                int(self.layer[k]),
                int(self.neuron[k]),
                int(self.source[k]),
                float(self.weight[k]),
                float(self.value[k] + level * self.span[k]),
            )

    def stages(self) -> npt.NDArray[np.int32]:
        """When each row acts: 2 l - 1 on the pre-activations of layer l, 2 l on its outputs."""
        heads = self.first[:-1]
        stages = 2 * self.layer[heads] - (self.action[heads] == Action.SYNAPSE)
        return np.asarray(stages, dtype=np.int32)
