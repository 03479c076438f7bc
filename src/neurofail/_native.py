"""The C kernel through cffi: the only file that touches ffi."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from neurofail import lowering
from neurofail.activations import Activation
from neurofail.errors import BackendError, InputError
from neurofail.plans import Plan
from neurofail.records import Records, Totals
from neurofail.session import Rows
from neurofail.session import Session as AnySession

try:
    import neurofail._kernel as _kernel
except ImportError as error:
    raise ImportError(
        "the C kernel is not part of this installation (no C compiler when it was installed); install one "
        "and reinstall neurofail, or use the Numba backend"
    ) from error

ffi: Any = _kernel.ffi
lib: Any = _kernel.lib

# The best first.
ISAS = {"avx512": 2, "avx2": 1, "portable": 0}

Floats = npt.NDArray[np.floating[Any]]
State = npt.NDArray[np.int32]


def supported() -> list[str]:
    """The instruction sets that this machine can run, the best first."""
    return [name for name, code in ISAS.items() if lib.nf_supported(code)]


def _check(status: int, doing: str) -> None:
    if status == lib.NF_NO_ISA:
        raise BackendError(f"{doing}: this machine cannot run the instruction set asked for")
    if status != lib.NF_OK:
        raise BackendError(f"{doing}: the C kernel refused its arguments; this is a bug in neurofail")


def _aligned(size: int) -> npt.NDArray[np.uint8]:
    """Uninitialised bytes that start on a cache line."""
    raw = np.empty(size + 64, np.uint8)
    shift = -raw.ctypes.data % 64
    return raw[shift : shift + size]


def _pointer(kind: str, array: npt.NDArray[Any]) -> Any:
    return ffi.cast(f"{kind} *", ffi.from_buffer(array, require_writable=False))


def activate(isa: str, dtype: npt.DTypeLike, name: str, parameters: tuple[float, ...], x: Floats) -> Floats:
    """An activation of fixed steepness as the kernel computes it, elementwise; for its accuracy tests."""
    values = np.ascontiguousarray(x, dtype=dtype)
    out = np.empty_like(values)
    two = ffi.new("double[2]", (*parameters, 0.0, 0.0)[:2])
    bits = values.dtype.itemsize * 8
    code = Activation(name).code
    status = lib.nf_activate(
        ISAS[isa], bits, code, two, values.size, _pointer("void", values), _pointer("void", out)
    )
    _check(status, "activate")
    return out


class Desk:
    """One thread's working memory: the kernel's own, a plan's state, totals, and records, which grow."""

    def __init__(self, size: int, table: lowering.PlanTable) -> None:
        self._memory = _aligned(size)
        self.pointer = _pointer("void", self._memory)
        self.room = table.room()
        self.totals = ffi.new("nf_totals *")
        self.histogram = np.frombuffer(ffi.buffer(self.totals.histogram), np.int64)
        self._slots = table.slots
        self._drawn = table.drawn
        self._count = -1

    def records(self, count: int) -> Any:
        """Room for the records of `count` configurations, as C sees it."""
        if count > self._count:
            rows = np.empty((count, self._slots), np.int32)
            levels = np.empty((count, self._slots)) if self._drawn else None
            some = Records.empty(count)
            lent = ffi.new("nf_records *")
            lent.rows = _pointer("int32_t", rows)
            lent.levels = ffi.NULL if levels is None else _pointer("double", levels)
            lent.errors = _pointer("double", some.errors)
            lent.sdc = _pointer("int64_t", some.sdc)
            lent.due = _pointer("int64_t", some.due)
            # The arrays live as long as the pointers.
            self._count, self._records, self._held = count, lent, (rows, levels, some)
        return self._records


class Session(AnySession):
    """A network, its inputs and a plan, packed for one instruction set."""

    def __init__(self, isa: str, plan: Plan, inputs: npt.NDArray[np.float64], dtype: str) -> None:
        kind = np.dtype(dtype)
        self._plan = plan
        self._keep: list[Any] = []  # what C structures point into
        layers = lowering.layers(plan.net, kind)
        x = self._held(np.ascontiguousarray(inputs, dtype=kind))
        shapes = ffi.new("nf_layer[]", len(layers))
        for shape, layer in zip(shapes, layers, strict=True):
            shape.neurons, shape.inputs = layer.weights.shape
            shape.activation = layer.activation
            shape.parameters = layer.parameters
            shape.weights = _pointer("void", self._held(layer.weights))
            shape.biases = _pointer("void", self._held(layer.biases))
        self._sites = self._site_table()
        bounded = (
            (self._sites, lowering.most_before(plan), lowering.fail_alone(plan))
            if lowering.slopes_pay(plan, len(inputs))
            else (ffi.NULL, 0, False)
        )
        what = (ISAS[isa], kind.itemsize * 8, len(layers), shapes, len(inputs), *bounded)
        size = lib.nf_model_bytes(*what)
        if not size:
            raise BackendError(f"this machine cannot run the C kernel for {isa}")
        self._memory = _aligned(size)
        self._model = _pointer("void", self._memory)
        _check(lib.nf_model_init(*what, _pointer("void", x), self._model), "packing the network")
        self.blocks: int = lib.nf_model_blocks(self._model)
        self.inputs = len(inputs)
        _check(lib.nf_sites_check(self._model, self._sites), "checking the site table")
        self._table = lowering.PlanTable.of(plan)
        # Enumeration then runs along the last hidden layer, where blocks of like inputs are soon done.
        self._arranged = self._table.seed is None and bool((self._stage == 2 * (len(layers) - 1)).any())
        self._c_plan = self._plan_table()
        self._desk_size: int = lib.nf_workspace_bytes(self._model, self._table.slots)

    def _held(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self._keep.append(array)
        return array

    def _site_table(self) -> Any:
        table = lowering.SiteTable.of(self._plan)
        sites = ffi.new("nf_sites *")
        sites.rows = len(table.stage)
        for name, kind in (("first", "int64_t"), ("stage", "int32_t"), ("action", "int32_t")):
            setattr(sites, name, _pointer(kind, self._held(getattr(table, name))))
        for name, kind in (("neuron", "int32_t"), ("source", "int32_t"), ("weight", "double")):
            setattr(sites, name, _pointer(kind, self._held(getattr(table, name))))
        for name in ("value", "span"):
            setattr(sites, name, _pointer("double", self._held(getattr(table, name))))
        self._stage = table.stage
        return sites

    def _plan_table(self) -> Any:
        table = self._table
        plan = ffi.new("nf_plan *")
        plan.sampled, plan.seed = table.seed is not None, table.seed or 0
        plan.slots, plan.targets, plan.blocks = table.slots, table.targets, len(table.most)
        plan.block = _pointer("int64_t", self._held(table.block))
        plan.choice = _pointer("int64_t", self._held(table.choice))
        plan.size = _pointer("int32_t", self._held(table.size))
        plan.end = ffi.NULL if table.end is None else _pointer("int64_t", self._held(table.end))
        plan.threshold = _pointer("uint64_t", self._held(table.threshold))
        plan.stage = _pointer("int32_t", self._held(self._stage))
        return plan

    def golden(self, first: int, last: int) -> None:
        """The golden run of input blocks first .. last - 1."""
        _check(lib.nf_model_golden(self._model, first, last, self._arranged), "the golden run")

    def rows(self, start: int, count: int) -> tuple[Rows, Floats | None]:
        """The site rows (count, slots) of successive configurations, and their levels where drawn."""
        table = self._table
        rows = np.empty((count, table.slots), np.int32)
        levels = np.empty((count, table.slots)) if table.drawn else None
        state, first = self._place(start, table.room())
        status = lib.nf_rows(
            self._c_plan,
            _pointer("int32_t", state),
            first,
            count,
            _pointer("int32_t", rows),
            ffi.NULL if levels is None else _pointer("double", levels),
        )
        _check(status, "making configurations")
        return rows, levels

    def _place(self, start: int, room: State) -> tuple[State, int]:
        """Where configuration `start` is: room and its number, or the state where C cannot number it."""
        if self._table.seed is not None or self._table.end is not None:
            return room, start
        target, selections, _ = self._plan.select(start)
        return self._table.state(target, selections), 0

    def desk(self) -> Desk:
        """One thread's working memory."""
        desk = Desk(self._desk_size, self._table)
        status = lib.nf_workspace_init(self._model, self._sites, self._table.slots, desk.pointer)
        _check(status, "laying out the working memory")
        return desk

    def evaluate(
        self, rows: Rows, levels: Floats | None, first: int, last: int, desk: Desk, each: bool = False
    ) -> Records:
        """The worst error and the outcomes of each configuration on input blocks first .. last - 1."""
        records = Records.empty(len(rows), self.inputs if each else None)
        status = lib.nf_evaluate(
            desk.pointer,
            len(rows),
            _pointer("int32_t", rows),
            ffi.NULL if levels is None else _pointer("double", levels),
            self._table.seed is None,
            first,
            last,
            _pointer("double", records.errors),
            _pointer("int64_t", records.sdc),
            _pointer("int64_t", records.due),
            ffi.NULL if records.each is None else _pointer("double", records.each),
        )
        _check(status, "evaluating")
        return records

    def tally(self, records: Records, epsilon: float) -> Totals:
        """The totals of evaluated configurations; `worst` counts from the first of them."""
        totals = ffi.new("nf_totals *")
        status = lib.nf_tally(
            len(records.errors),
            _pointer("double", records.errors),
            _pointer("int64_t", records.sdc),
            _pointer("int64_t", records.due),
            epsilon,
            totals,
        )
        _check(status, "tallying")
        return _totals(totals, np.frombuffer(ffi.buffer(totals.histogram), np.int64))

    def totals(self, start: int, count: int, epsilon: float, desk: Desk) -> Totals:
        """All of this in one call, for between calls threads wait for Python's lock."""
        state, first = self._place(start, desk.room)
        status = lib.nf_campaign(
            desk.pointer,
            self._c_plan,
            _pointer("int32_t", state),
            first,
            count,
            desk.records(count),
            epsilon,
            desk.totals,
        )
        _check(status, "running a unit")
        return _totals(desk.totals, desk.histogram)


def _totals(of: Any, histogram: npt.NDArray[np.int64]) -> Totals:
    return Totals(of.worst, of.error, of.sdc, of.due, of.exceeded, histogram.copy())


def open_session(isa: str, plan: Plan, inputs: npt.NDArray[np.float64], dtype: str) -> Session:
    """A session on the given instruction set; InputError where memory does not suffice."""
    try:
        return Session(isa, plan, inputs, dtype)
    except MemoryError:
        raise InputError(
            f"{len(inputs)} inputs of this network do not fit in memory; run fewer at a time"
        ) from None
