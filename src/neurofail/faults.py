"""Kinds of failure as values.

A fault says which places of a network can fail and what a failed place does. What it does is written in
the four operations that the kernel knows (`sites.Operation`); nothing downstream asks which fault it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
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
    """

    kind: ClassVar[str]
    place: ClassVar[Literal["neuron", "synapse"]]

    @property
    def blocking(self) -> bool:
        """Whether a failed neuron blocks the error that reaches it from upstream."""
        return self.place == "neuron"

    @property
    def equivocates(self) -> bool:
        """Whether a failed neuron may tell each receiver a value of its own."""
        return False

    @property
    def drawn(self) -> bool:
        """Whether a plan draws each failed place's value (`Operations.span` is then its width)."""
        return False

    @property
    def joint(self) -> bool:
        """Whether one variant holds for all the failed places of a configuration."""
        return False

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
        """The fault as plain JSON values; `from_dict` is the inverse."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"kind": self.kind, **{k: list(v) if isinstance(v, tuple) else v for k, v in own.items()}}


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
        object.__setattr__(self, "value", _real(self.value, "stuck-at value"))

    def operations(self, net: Network, layer: int) -> Operations:
        return _each_neuron(net, layer, Action.SET, [self.value])


Draw = Literal["extremes", "uniform", "guided"]
Capacity = float | tuple[float, float]


def _capacity(value: object, what: str, pair: bool) -> Capacity:
    """The capacity as a positive number C, or as (low, high) where a pair has a meaning."""
    if isinstance(value, (tuple, list)):
        if not pair:
            raise InputError(f"{what} capacity is {value!r}; deviations have one capacity C > 0, not a range")
        if len(value) != 2:
            raise InputError(f"{what} capacity is {value!r}; a range has two ends (low, high)")
        low, high = (_real(end, f"{what} capacity") for end in value)
        if low > high:
            raise InputError(f"{what} capacity ({low}, {high}) is upside down; low must not exceed high")
        return low, high
    number = magnitude(value, f"{what} capacity")
    if number == 0:
        raise InputError(f"{what} capacity is 0; it must be positive")
    return number


def _real(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InputError(f"{what} is {value!r}; it must be a number")
    if not np.isfinite(value):
        raise InputError(f"{what} is {value}; it must be finite")
    return float(value)


def _choice(value: object, known: Sequence[str], what: str) -> None:
    if value not in known:
        raise InputError(f"{what} is {value!r}; it must be one of {', '.join(known)}")


def _influence_signs(net: Network, layer: int) -> Array:
    """The sign of each neuron's influence on each output, (N_{L+1}, N_layer).

    It is the sign of the product of the signed weights downstream; K > 0 does not change it.
    """
    signed = np.eye(net.widths[-1])
    for weight in reversed(net.weights[layer:]):
        signed = signed @ weight
        signed /= max(float(np.max(np.abs(signed))), np.finfo(np.float64).tiny)
    return np.sign(signed)


@dataclass(frozen=True)
class _Capable(Fault):
    """What Byzantine neurons and synapses share: values from an interval, and how a campaign picks them."""

    capacity: Capacity

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest value (or deviation)."""
        c = self.capacity
        return c if isinstance(c, tuple) else (-c, c)

    @property
    def drawn(self) -> bool:
        return self._draw == "uniform"

    @property
    def joint(self) -> bool:
        return self._draw == "guided"

    @property
    def _draw(self) -> Draw:
        raise NotImplementedError

    def variants(self, net: Network) -> int:
        return {"extremes": 2, "uniform": 1, "guided": 2 * net.widths[-1]}[self._draw]

    def _span(self) -> float:
        """high - low, never so large that low + span rounds to above high."""
        low, high = self.ends
        span = high - low
        return span if low + span <= high else float(np.nextafter(span, 0.0))

    def _values(self, signs: Array) -> Array:
        """The value of every (place, variant), (places, variants); `signs` (N_{L+1}, places) guides."""
        low, high = self.ends
        if self._draw == "uniform":
            return np.full((signs.shape[1], 1), low)
        if self._draw == "extremes":
            return np.tile([low, high], (signs.shape[1], 1))
        # Variant 2 k pushes output k up, variant 2 k + 1 pushes it down.
        pushes = np.stack([signs, -signs], axis=1).reshape(-1, signs.shape[1]).T
        return np.where(pushes >= 0, high, low)


@dataclass(frozen=True)
class Byzantine(_Capable):
    """A Byzantine neuron transmits what it likes, within a capacity (bounds.md, section 2).

    Parameters
    ----------
    capacity : C > 0, or a range (low, high) for the semantics "value"
    semantics : "value": transmits any v in [-C, C] (or [low, high]); "nominal": its nominal output plus any
        |delta| <= C; "own": what it computes from its (faulty) inputs plus any |delta| <= C. Only "own" lets
        upstream error through.
    draw : how a campaign picks v or delta. "extremes": either end, each failed neuron on its own;
        "uniform": at random; "guided": 2 N_{L+1} joint variants, number 2 k (2 k + 1) takes for every failed
        neuron the end that pushes output k up (down), judged by the product of the signed weights downstream.
    equivocate : with "value" and "guided", each receiver gets an end of its own

    Raises
    ------
    InputError : a capacity, semantics, draw or combination that has no meaning.

    >>> Byzantine(1.0).describe()["semantics"]
    'value'
    >>> Byzantine((0.0, 1.0)).ends
    (0.0, 1.0)
    """

    semantics: Literal["value", "nominal", "own"] = "value"
    draw: Draw = "extremes"
    equivocate: bool = False
    kind: ClassVar[str] = "byzantine"
    place: ClassVar[Literal["neuron", "synapse"]] = "neuron"

    def __post_init__(self) -> None:
        _choice(self.semantics, ("value", "nominal", "own"), "byzantine semantics")
        _choice(self.draw, ("extremes", "uniform", "guided"), "byzantine draw")
        object.__setattr__(self, "capacity", _capacity(self.capacity, "byzantine", self.semantics == "value"))
        if self.equivocate and (self.semantics, self.draw) != ("value", "guided"):
            raise InputError(
                f"equivocation with semantics {self.semantics!r} and draw {self.draw!r}; it needs semantics "
                "'value' and draw 'guided'"
            )

    @property
    def blocking(self) -> bool:
        return self.semantics != "own"

    @property
    def equivocates(self) -> bool:
        return self.equivocate

    @property
    def _draw(self) -> Draw:
        return self.draw

    def operations(self, net: Network, layer: int) -> Operations:
        if self.equivocate:
            return self._to_each_receiver(net, layer)
        values = self._values(_influence_signs(net, layer))
        action = {"value": Action.SET, "nominal": Action.SHIFT, "own": Action.ADD}[self.semantics]
        return Operations.rows(
            action,
            layer,
            neuron=np.repeat(np.arange(len(values)), values.shape[1]),
            value=values,
            span=self._span() if self.drawn else 0.0,
        )

    def _to_each_receiver(self, net: Network, layer: int) -> Operations:
        """Instead of one output, a value on each outgoing synapse: W_ij v_i for W_ij y_j."""
        weight = net.weights[layer]  # (receivers, senders)
        receivers, senders = weight.shape
        # Value of sender j to receiver i in variant (k, sign), by the sign of that synapse's influence.
        signs = np.sign(weight) * _influence_signs(net, layer + 1)[:, :, None]
        values = self._values(signs.reshape(len(signs), -1)).reshape(receivers, senders, -1)
        variants = values.shape[2]
        by_row = np.broadcast_to(weight.T[:, None, :], (senders, variants, receivers))
        return Operations.rows(
            Action.SYNAPSE,
            layer + 1,
            neuron=np.tile(np.arange(receivers), senders * variants),
            source=np.repeat(np.arange(senders), variants * receivers),
            weight=-by_row,
            value=by_row * values.transpose(1, 2, 0),
            width=receivers,
        )


def _each_synapse(net: Network, layer: int, weight: Array, value: Array, span: Array | float) -> Operations:
    """One operation for every synapse into `layer` (receiver by receiver) and every variant.

    weight (N_l, N_{l-1}); value, span (N_l, N_{l-1}, variants)
    """
    receivers, senders = net.weights[layer - 1].shape
    variants = value.shape[2]
    return Operations.rows(
        Action.SYNAPSE,
        layer,
        neuron=np.repeat(np.arange(receivers), senders * variants),
        source=np.tile(np.repeat(np.arange(senders), variants), receivers),
        weight=np.repeat(weight.ravel(), variants),
        value=value,
        span=span,
    )


@dataclass(frozen=True)
class SynapseCrash(Fault):
    """A crashed synapse j -> i contributes 0 in place of W_ij y_j.

    Place i N_{l-1} + j of layer l is the synapse from neuron j of layer l - 1 to neuron i.

    >>> SynapseCrash().describe()
    {'kind': 'synapse-crash'}
    """

    kind: ClassVar[str] = "synapse-crash"
    place: ClassVar[Literal["neuron", "synapse"]] = "synapse"

    def operations(self, net: Network, layer: int) -> Operations:
        weight = net.weights[layer - 1]
        return _each_synapse(net, layer, -weight, np.zeros((*weight.shape, 1)), 0.0)


@dataclass(frozen=True)
class SynapseByzantine(_Capable):
    """A Byzantine synapse j -> i carries or adds what it likes, within a capacity (bounds.md, section 2).

    Parameters
    ----------
    capacity : C > 0, or a range (low, high) for the semantics "value"
    semantics : "value": it carries any v in [-C, C] (or [low, high]); "additive": it adds any |delta| <= C
    weighted : True: v or delta comes before the weighting, so the receiver gets W_ij v, or W_ij delta more;
        False: after it, so the receiver gets v, or delta more
    draw : as for `Byzantine`

    Raises
    ------
    InputError : a capacity, semantics or draw that has no meaning.

    >>> SynapseByzantine(0.5, "additive", weighted=False).ends
    (-0.5, 0.5)
    """

    semantics: Literal["value", "additive"] = "value"
    weighted: bool = True
    draw: Draw = "extremes"
    kind: ClassVar[str] = "synapse-byzantine"
    place: ClassVar[Literal["neuron", "synapse"]] = "synapse"

    def __post_init__(self) -> None:
        _choice(self.semantics, ("value", "additive"), "synapse-byzantine semantics")
        _choice(self.draw, ("extremes", "uniform", "guided"), "synapse-byzantine draw")
        capacity = _capacity(self.capacity, "synapse-byzantine", self.semantics == "value")
        object.__setattr__(self, "capacity", capacity)

    @property
    def _draw(self) -> Draw:
        return self.draw

    def operations(self, net: Network, layer: int) -> Operations:
        weight = net.weights[layer - 1]
        scale = weight if self.weighted else np.ones_like(weight)
        signs = (np.sign(scale) * _influence_signs(net, layer)[:, :, None]).reshape(net.widths[-1], -1)
        values = scale[:, :, None] * self._values(signs).reshape(*weight.shape, -1)
        span = scale[:, :, None] * self._span() if self.drawn else 0.0
        replaced = -weight if self.semantics == "value" else np.zeros_like(weight)
        return _each_synapse(net, layer, replaced, values, span)


_FAULTS: Mapping[str, type[Fault]] = {
    f.kind: f for f in (Crash, StuckAt, Byzantine, SynapseCrash, SynapseByzantine)
}
KINDS = tuple(_FAULTS)


def fault_from(kind: str, **options: object) -> Fault:
    """The fault of that kind with those options, as the command line and manifests write it.

    Raises InputError for an unknown kind, and for options that it lacks or does not take.

    >>> fault_from("stuck-at", value=0.5)
    StuckAt(value=0.5)
    """
    if kind not in _FAULTS:
        raise InputError(f"fault {kind!r} is unknown; known are {', '.join(KINDS)}")
    signature = inspect.signature(_FAULTS[kind])
    try:
        signature.bind(**options)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "no options"
        raise InputError(f"fault {kind!r}: {error}; it takes {takes}") from None
    return _FAULTS[kind](**options)


def from_dict(record: Mapping[str, object]) -> Fault:
    """The fault that `describe` described; InputError for anything else.

    >>> from_dict(Byzantine((-1.0, 2.0)).describe()) == Byzantine((-1.0, 2.0))
    True
    """
    if not isinstance(record, Mapping) or not isinstance(record.get("kind"), str):
        raise InputError(f"fault {record!r} must be an object with a kind")
    options = {str(key): value for key, value in record.items() if key != "kind"}
    return fault_from(str(record["kind"]), **options)
