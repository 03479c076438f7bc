"""How many failures, where: the counts that a plan enumerates and a bound promises for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from neurofail.errors import InputError
from neurofail.faults import Fault
from neurofail.network import Network, whole


@dataclass(frozen=True)
class Budget:
    """Failure counts for one fault or for several at once.

    Attributes
    ----------
    faults : the kinds of failure, each with its own counts
    failures : per fault, one count for each of its layers (`Fault.layers`); None when `totals` is given
    totals : per fault, the number of failures anywhere; None when `failures` is given
    at_most : whether the counts are upper limits (every smaller count is then included, 0 too)
    """

    faults: tuple[Fault, ...]
    failures: tuple[tuple[int, ...], ...] | None
    totals: tuple[int, ...] | None
    at_most: bool

    @classmethod
    def of(
        cls,
        net: Network,
        fault: Fault | Sequence[Fault],
        failures: Sequence[int] | Sequence[Sequence[int]] | None = None,
        *,
        total: int | Sequence[int] | None = None,
        at_most: bool = False,
    ) -> Budget:
        """The budget in the forms that users write it.

        `fault` is one fault with `failures=(2, 0)` or `total=3`, or a list of faults with one such tuple
        or number for each. Raises InputError for counts that do not fit the network.
        """
        single = isinstance(fault, Fault)
        listed = tuple(fault) if isinstance(fault, Sequence) else ()
        faults = (fault,) if isinstance(fault, Fault) else listed
        if not faults or not all(isinstance(f, Fault) for f in faults):
            raise InputError(f"fault is {fault!r}; it must be a fault such as Crash(), or a list of them")
        if (failures is None) == (total is None):
            raise InputError("give either failures (counts per layer) or total (anywhere), not both or none")
        if total is not None:
            given = [total] if single else _listed(total, "total", len(faults))
            totals = tuple(whole(n, "total") for n in given)
            for f, n in zip(faults, totals, strict=True):
                _fits(n, sum(f.places(net, layer) for layer in f.layers(net)), f, "the network")
            return cls(faults, None, totals, at_most)
        rows = [failures] if single else _listed(failures, "failures", len(faults))
        return cls(
            faults,
            tuple(_per_layer(net, f, row) for f, row in zip(faults, rows, strict=True)),
            None,
            at_most,
        )

    def count(self, fault: int, layer: int) -> int:
        """The failures of fault number `fault` in `layer` (0 where it has none); per-layer budgets only."""
        if self.failures is None:
            raise InputError("this budget counts failures anywhere, not per layer")
        row = self.failures[fault]
        return row[layer - 1] if 1 <= layer <= len(row) else 0

    def describe(self) -> dict[str, object]:
        """The budget as plain JSON values."""
        return {
            "faults": [f.describe() for f in self.faults],
            "failures": None if self.failures is None else [list(row) for row in self.failures],
            "totals": None if self.totals is None else list(self.totals),
            "at_most": self.at_most,
        }


def _listed(value: object, what: str, size: int) -> Sequence[object]:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != size:
        raise InputError(f"{what} is {value!r}; with {size} faults it must be a list of {size}, one each")
    return value


def _per_layer(net: Network, fault: Fault, row: object) -> tuple[int, ...]:
    layers = fault.layers(net)
    values: tuple[object, ...] = tuple(row) if isinstance(row, Iterable) else (row,)
    if len(values) != len(layers):
        raise InputError(
            f"failures {values} has {len(values)} count(s); {fault.kind} can strike {len(layers)} layer(s) "
            "of this network, so give one count for each"
        )
    checked = tuple(whole(n, "failures") for n in values)
    for layer, n in zip(layers, checked, strict=True):
        _fits(n, fault.places(net, layer), fault, f"layer {layer}")
    return checked


def _fits(wanted: int, places: int, fault: Fault, where: str) -> None:
    if wanted > places:
        raise InputError(
            f"{wanted} {fault.place} failures asked for, but {where} has only {places} {fault.place}s"
        )
