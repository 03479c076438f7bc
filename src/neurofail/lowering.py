"""From the project's nouns to the flat tables that every backend reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from neurofail.activations import Activation
from neurofail.errors import InputError
from neurofail.network import Network
from neurofail.plans import Plan, Sampled, Selection

Reals = npt.NDArray[np.floating[Any]]

_ROWS = 1 << 31
# What makes slopes worth their while (measured): configurations for each neuron of the layer before the last
# hidden one, inputs, and multiply-adds of an evaluation after its rank-f update.
_SLOPES_COUNT = 4
_SLOPES_INPUTS = 64
_SLOPES_WORK = 64
# And where the activation has a kink: configurations for each of those neurons, multiply-adds, failures up to
# which sifting leaves few evaluations; up to which a look costs less than a run; and how many more outputs.
_KINKS_COUNT = 16
_KINKS_WORK = 1400
_SIFTED_MOST = 4
_LOOKED_MOST = 8
_LOOKED_OUTPUTS = 2
# Activations that are linear but for a kink at 0.
KINKED = ("relu", "leaky_relu")
# What the tables may take: a gigabyte of float64.
_SLOPES_REALS = 1 << 27


def fold(phi: Activation) -> float:
    """The factor that goes into a layer's weights, so that backends know one steepness of each activation."""
    return phi.lipschitz if phi.name == "hard_sigmoid" else phi.gain


@dataclass(frozen=True)
class Layer:
    """A dense layer in a backend's number format, its activation's steepness folded in."""

    weights: Reals
    biases: Reals
    activation: int
    parameters: tuple[float, float]


def layers(net: Network, dtype: np.dtype[np.floating[Any]]) -> list[Layer]:
    """The layers of `net`, rounded to `dtype` once."""
    lowered = []
    for weight, bias, phi in zip(net.weights, net.biases, net.activations, strict=True):
        a, b = (*phi.parameters, 0.0, 0.0)[:2]
        with np.errstate(over="ignore"):
            layer = Layer(
                (fold(phi) * weight).astype(dtype),
                (fold(phi) * bias).astype(dtype),
                phi.code,
                (a, b),
            )
        if not (np.isfinite(layer.weights).all() and np.isfinite(layer.biases).all()):
            raise InputError(f"a weight or bias is too large for {dtype}; run with dtype='float64'")
        lowered.append(layer)
    return lowered


@dataclass(frozen=True)
class SiteTable:
    """`sites.Operations` as backends read it: int32 columns, and SYNAPSE scaled like the weights."""

    first: npt.NDArray[np.int64]
    stage: npt.NDArray[np.int32]
    action: npt.NDArray[np.int32]
    neuron: npt.NDArray[np.int32]
    source: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float64]
    value: npt.NDArray[np.float64]
    span: npt.NDArray[np.float64]

    @classmethod
    def of(cls, plan: Plan) -> SiteTable:
        """The table of a plan's failures."""
        sites = plan.sites
        if len(sites) >= _ROWS:
            raise InputError(f"this plan has {len(sites)} ways for a place to fail; the limit is {_ROWS - 1}")
        stages = sites.stages()
        folds = np.array([1.0, *(fold(phi) for phi in plan.net.activations)])
        odd = np.repeat(stages % 2 == 1, np.diff(sites.first))
        scale = np.where(odd, folds[sites.layer], 1.0)
        return cls(
            sites.first,
            stages,
            sites.action.astype(np.int32),
            sites.neuron.astype(np.int32),
            sites.source.astype(np.int32),
            sites.weight * scale,
            sites.value * scale,
            sites.span * scale,
        )


@dataclass(frozen=True)
class PlanTable:
    """A plan as backends read it; the fields are those of nf_plan in neurofail.h."""

    slots: int
    targets: int
    block: npt.NDArray[np.int64]
    choice: npt.NDArray[np.int64]
    size: npt.NDArray[np.int32]
    end: npt.NDArray[np.int64] | None
    threshold: npt.NDArray[np.uint64]
    seed: int | None
    drawn: bool
    most: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, plan: Plan) -> PlanTable:
        """The table of a plan."""
        most = tuple(tuple(map(max, zip(*block.sizes, strict=True))) for block in plan.blocks)
        half = (1 << 64) - 1
        shares = (
            [min(t, (1 << 128) - 1) for block in plan.thresholds for t in block]
            if isinstance(plan, Sampled)
            else []
        )
        numbered = not isinstance(plan, Sampled) and plan.count < 1 << 63
        ends = [end for block in plan.blocks for end in block.ends] if numbered else None
        return cls(
            plan.slots,
            plan.targets,
            np.array([[b.places, len(b.choices), len(b.sizes)] for b in plan.blocks], np.int64).reshape(-1),
            np.array(
                [
                    [c.first_row, c.variants, c.joint, c.drawn, m]
                    for block, sizes in zip(plan.blocks, most, strict=True)
                    for c, m in zip(block.choices, sizes, strict=True)
                ],
                np.int64,
            ).reshape(-1),
            np.array([n for block in plan.blocks for sizes in block.sizes for n in sizes], np.int32),
            None if ends is None else np.array(ends, np.int64),
            np.array([[t >> 64, t & half] for t in shares], np.uint64).reshape(-1),
            plan.seed if isinstance(plan, Sampled) else None,
            plan.drawn,
            most,
        )

    def room(self) -> npt.NDArray[np.int32]:
        """An empty state: where a generator stands, and `slots` numbers of room."""
        size = 1 + sum(1 + 2 * sum(block) for block in self.most) + self.slots
        return np.zeros(size, np.int32)

    def state(self, target: int, selections: list[Selection]) -> npt.NDArray[np.int32]:
        """The state in which an enumeration stands at the given selection."""
        state = self.room()
        state[0] = target
        at = 1
        for most, chosen in zip(self.most, selections, strict=True):
            state[at] = chosen.stratum
            at += 1
            for size, positions, variants in zip(most, chosen.positions, chosen.variants, strict=True):
                state[at : at + len(positions)] = positions
                state[at + size : at + size + len(variants)] = variants
                at += 2 * size
        return state


def _failing_at(plan: Plan, stage: int, which: Callable[[npt.NDArray[np.bool_]], Any]) -> list[list[int]]:
    """By block and stratum: how many neurons fail in each configuration of the choices of which any, or all,
    are of a stage.
    """
    stages = plan.sites.stages()
    return [
        [
            sum(
                count
                for count, choice in zip(counts, block.choices, strict=True)
                if which(stages[choice.first_row :][: block.places * choice.variants] == stage)
            )
            for counts in block.sizes
        ]
        for block in plan.blocks
    ]


def _most_at(plan: Plan, stage: int) -> int:
    """The most neurons that fail at a stage in any configuration, or somewhat more."""
    return sum(max(counts, default=0) for counts in _failing_at(plan, stage, np.any))


def most_before(plan: Plan) -> int:
    """The most neurons of the layer before the last hidden one that fail in any configuration, or somewhat
    more.
    """
    return _most_at(plan, 2 * (len(plan.net.widths) - 3))


def fail_alone(plan: Plan) -> bool:
    """Whether there are configurations in which no neuron of the last hidden layer fails."""
    late = _failing_at(plan, 2 * (len(plan.net.widths) - 2), np.all)
    return all(min(counts, default=0) == 0 for counts in late)


def sifts(plan: Plan) -> bool:
    """Whether few neurons fail in each configuration, and in some none of the last hidden layer."""
    return fail_alone(plan) and most_before(plan) <= _SIFTED_MOST


def slopes_pay(plan: Plan, inputs: int) -> bool:
    """Whether it is worth tabulating slopes, with which most evaluations need not be run.

    For each input that costs as many multiply-adds as there are weights in the last hidden layer, for each
    output; it takes many configurations that slopes bound, inputs among which to leave some out but not more
    than memory has room for, and an evaluation that costs more than its bound. Kinks are tabulated by
    failure, where nothing fails but in the two last hidden layers, and no level is drawn.
    """
    widths = plan.net.widths
    hidden = len(widths) - 2
    if hidden < 2 or inputs < _SLOPES_INPUTS or widths[-2] * (widths[-1] + 1) < _SLOPES_WORK:
        return False
    if plan.count < _SLOPES_COUNT * widths[-3] or inputs * widths[-3] * widths[-1] > _SLOPES_REALS:
        return False
    # Enumerated, failures of the last hidden layer are shared between neighbours.
    if plan.slots == 0 or not (isinstance(plan, Sampled) or fail_alone(plan)):
        return False
    most = most_before(plan)
    if plan.net.activations[hidden - 1].name not in KINKED:
        return most > 0
    if widths[-2] * (widths[-1] + 1) < _KINKS_WORK or not 0 < most <= _LOOKED_MOST:
        return False
    if not sifts(plan) and widths[-1] < most + _LOOKED_OUTPUTS:
        return False
    late = _most_at(plan, 2 * hidden) if isinstance(plan, Sampled) else 0
    if plan.count < _KINKS_COUNT * widths[-3] or plan.slots > most + late or plan.drawn:
        return False
    records = int((plan.sites.stages() == 2 * hidden - 2).sum())
    return inputs * records * (4 * widths[-1] + 16) <= _SLOPES_REALS
