"""The backend of last resort: the oracle itself, one configuration at a time, in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from neurofail import _reference
from neurofail.plans import Plan
from neurofail.records import Records, Totals
from neurofail.session import Rows
from neurofail.session import Session as AnySession

Array = npt.NDArray[np.float64]


class Session(AnySession):
    """A plan on its inputs, run by the reference."""

    def __init__(self, plan: Plan, inputs: Array) -> None:
        self._plan = plan
        self._inputs = inputs
        self.inputs = len(inputs)
        self.blocks = len(inputs)
        self._golden = plan.net(inputs)

    def golden(self, first: int, last: int) -> None:
        """Nothing: the golden run is made at the start."""

    def rows(self, start: int, count: int) -> tuple[Rows, Array | None]:
        """The site rows (count, slots) of successive configurations, and their levels."""
        rows = np.full((count, self._plan.slots), -1, np.int32)
        levels = np.zeros((count, self._plan.slots))
        for i in range(count):
            for slot, (row, level) in enumerate(self._plan.rows(start + i)):
                rows[i, slot], levels[i, slot] = row, level
        return rows, levels

    def desk(self) -> None:
        """No working memory is needed."""

    def evaluate(
        self, rows: Rows, levels: Array | None, first: int, last: int, desk: object, each: bool = False
    ) -> Records:
        """The worst error and the outcomes of each configuration on inputs first .. last - 1."""
        records = Records.empty(len(rows), self.inputs if each else None)
        x, golden = self._inputs[first:last], self._golden[first:last]
        category = golden.argmax(axis=1)
        for i, row in enumerate(rows):
            operations = [
                op
                for slot, r in enumerate(row)
                if r >= 0
                for op in self._plan.sites.row(int(r), 0.0 if levels is None else float(levels[i, slot]))
            ]
            with np.errstate(all="ignore"):
                faulty = _reference.trace(self._plan.net, x, operations)[1][-1]
                errors = np.abs(faulty - golden).max(axis=1)
            due = ~np.isfinite(errors)
            records.errors[i] = np.inf if due.any() else errors.max()
            records.due[i] = due.sum()
            own = faulty[np.arange(len(faulty)), category]
            records.sdc[i] = (~due & (faulty.max(axis=1) > own)).sum()
            if records.each is not None:
                records.each[i, first:last] = errors
        return records

    def tally(self, records: Records, epsilon: float) -> Totals:
        """The totals of evaluated configurations."""
        return Totals.of(records, epsilon)
