"""Every backend against the reference, configuration by configuration, at awkward sizes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import chain

import numpy as np
import pytest
from machine import COMPILED
from networks import ACTIVATIONS, DRAWN, ENUMERABLE, random_inputs, random_network

import neurofail as nf
from neurofail import _reference
from neurofail.bounds.arithmetic import rounding_budget
from neurofail.faults import Byzantine, Crash, Fault, StuckAt, SynapseByzantine, SynapseCrash
from neurofail.kernel import open_session
from neurofail.network import Array, Network
from neurofail.plans import Exhaustive, Plan, Sampled
from neurofail.records import Records

INPUTS = (1, 15, 16, 17, 251)


def evaluated(backend: str, plan: Plan, x: Array, dtype: str, count: int, each: bool = False) -> Records:
    """The records of the first configurations of a plan, on all inputs."""
    session = open_session(backend, plan, x, dtype)
    session.golden(0, session.blocks)
    rows, levels = session.rows(0, count)
    return session.evaluate(rows, levels, 0, session.blocks, session.desk(), each)


def reference(plan: Plan, x: Array, count: int) -> tuple[Array, Array]:
    """Deviations (configurations, inputs, outputs) and the golden outputs, by the oracle."""
    moved = [_reference.deviations(plan.net, x, plan.operations(i)) for i in range(count)]
    return np.array(moved), plan.net(x)


def held_to_reference(
    plan: Plan, x: Array, dtypes: Sequence[str] = ("float32", "float64"), most: int = 150
) -> None:
    """Every backend's worst errors, each error and SDC counts, within its stated rounding budget."""
    count = min(plan.count, most)
    moved, golden = reference(plan, x, count)
    errors = np.abs(moved).max(axis=2)
    own = rounding_budget(plan.net, "float64", plan.budget, x)
    for dtype in dtypes:
        # The reference rounds too, by no more than its own budget. The budgets are of the worst case and
        # grow with depth; a discrepancy beyond a few thousand roundings is none of theirs to excuse.
        stated = own + rounding_budget(plan.net, dtype, plan.budget, x)
        unit = 2.0**-24 if dtype == "float32" else 2.0**-53
        slack = min(stated, 2000 * unit * (1 + np.abs(golden).max() + errors.max()))
        sure, possible = changed_classes(moved, golden, slack)
        for backend in COMPILED:
            records = evaluated(backend, plan, x, dtype, count, each=True)
            assert records.each is not None
            said = f"{backend} in {dtype}"
            np.testing.assert_allclose(records.each, errors, rtol=0, atol=slack, err_msg=said)
            plain = evaluated(backend, plan, x, dtype, count)
            # Asking for every error changes none.
            assert plain.errors.tobytes() == records.errors.tobytes(), said
            assert plain.errors.tobytes() == records.each.max(axis=1).tobytes(), said
            assert plain.due.tolist() == records.due.tolist() == [0] * count, said
            assert plain.sdc.tolist() == records.sdc.tolist(), said
            assert np.all(sure <= plain.sdc), said
            assert np.all(plain.sdc <= possible), said


def changed_classes(moved: Array, golden: Array, slack: float) -> tuple[Array, Array]:
    """Per configuration, inputs whose class changes for sure, and those where rounding may decide."""
    faulty = golden + moved
    before, after = golden.argmax(axis=1), faulty.argmax(axis=2)
    ranked, again = np.sort(golden, axis=1), np.sort(faulty, axis=2)
    if golden.shape[1] == 1:
        return np.zeros(len(moved)), np.zeros(len(moved))
    close = (ranked[:, -1] - ranked[:, -2] <= 4 * slack) | (again[:, :, -1] - again[:, :, -2] <= 4 * slack)
    changed = after != before
    return (changed & ~close).sum(axis=1), (changed | close).sum(axis=1)


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("width", [1, 3, 16, 127])
def test_awkward_numbers_of_inputs_and_neurons(inputs: int, width: int) -> None:
    net = random_network((3, width, width, 2), "sigmoid", seed=inputs + width)
    x = random_inputs(net, inputs)
    held_to_reference(Exhaustive(net, Crash(), total=min(2, width)), x, most=30)


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6])
def test_every_depth(depth: int, inputs: int) -> None:
    net = random_network((2, *(5 - i % 3 for i in range(depth)), 3), "tanh", seed=depth)
    x = random_inputs(net, inputs)
    for plan in (
        Exhaustive(net, Crash(), total=2),
        Exhaustive(net, Byzantine(0.5, "own"), failures=[1] * depth, at_most=True),
        Sampled(net, Crash(), failures=[2] * depth, count=40, seed=depth),
    ):
        held_to_reference(plan, x, most=40)


@pytest.mark.parametrize("outputs", [1, 2, 11, 12, 13, 14, 15, 29, 64])
def test_every_way_to_hold_the_outputs(outputs: int) -> None:
    """The outputs stay in registers up to a number, and go through memory beyond it."""
    net = random_network((4, 9, 7, outputs), "relu", seed=outputs)
    x = random_inputs(net, 37)
    held_to_reference(Exhaustive(net, Crash(), failures=(1, 1)), x)
    held_to_reference(Exhaustive(net, Crash(), failures=(0, 2), at_most=True), x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [3, 4, 12])
@pytest.mark.parametrize(
    ("fault", "counts"),
    [
        (Crash(), (0, 2)),
        (Crash(), (0, 3)),
        (Crash(), (1, 2)),
        (StuckAt(0.75), (0, 2)),
        (Byzantine(0.5, "own", draw="guided"), (0, 2)),
        # Of the largest numbers no sum can be bounded beforehand: some are infinite, and are counted as such.
        (StuckAt(3e38), (0, 2)),
    ],
    ids=str,
)
def test_what_bounds_spare_changes_nothing(
    compiled: str, fault: Fault, counts: tuple[int, int], outputs: int, dtype: str
) -> None:
    """Runs along a wide last hidden layer leave out what cannot matter; asked for every error, none does.

    Weights and inputs are multiples of 1/8, so that errors tie, and outputs tie with the golden class.
    """
    rng = np.random.default_rng(outputs)
    shapes = [(6, 3), (70, 6), (outputs, 70)]
    net = Network.dense(
        [rng.integers(-8, 9, shape) / 8 for shape in shapes], None, ["relu", "relu", "identity"], (0.0, 1.0)
    )
    x = rng.integers(0, 3, (300, 3)) / 2
    plan = Exhaustive(net, fault, failures=counts)
    spared = evaluated(compiled, plan, x, dtype, min(plan.count, 1500))
    every = evaluated(compiled, plan, x, dtype, min(plan.count, 1500), each=True)
    assert spared.errors.tobytes() == every.errors.tobytes()
    assert spared.sdc.tolist() == every.sdc.tolist()
    assert spared.due.tolist() == every.due.tolist()
    assert spared.sdc.any() or outputs < 12
    assert spared.due.any() == (fault == StuckAt(3e38) and dtype == "float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("large", [4.0, 1e30])
def test_bounds_spare_nothing_where_failures_grow(compiled: str, large: float, dtype: str) -> None:
    """Large failures come between small ones of other neurons, whose tables are of another scale."""
    net = random_network((6, 5, 60, 6), "relu", seed=3)
    plan = Exhaustive(net, [StuckAt(large), StuckAt(0.5)], failures=[(0, 2), (0, 2)], at_most=True)
    session = open_session(compiled, plan, random_inputs(net, 200), dtype)
    session.golden(0, session.blocks)
    block = plan.blocks[0]
    small, big = (session.rows(block.ends[block.sizes.index(s) - 1], 1770)[0] for s in ((0, 2), (2, 0)))
    here, there = small[small[:, 1] < small[0, 0] + 30], big[big[:, 0] >= big[0, 0] + 30]
    # The second time, all that fail last are in the tables.
    rows = np.concatenate([here, there, here[here[:, 0] > small[0, 0]], small, big])
    spared, every = (
        session.evaluate(rows, None, 0, session.blocks, session.desk(), each) for each in (False, True)
    )
    assert spared.errors.tobytes() == every.errors.tobytes()
    assert spared.sdc.tolist() == every.sdc.tolist()
    assert spared.sdc.any()


@pytest.mark.parametrize("large", [1.0, 2e38])
def test_a_silent_neuron_with_huge_weights_hides_no_class_change(compiled: str, large: float) -> None:
    """Its gain, nothing times more than there is, once made the gains of others be forgotten."""
    outputs, neurons, silent = 6, 300, 258
    last = np.zeros((outputs, neurons))
    last[:2] = [[-1e-5], [1e-5]]
    last[:2, [1, 10, 18]] = [[0.4], [-0.4]]
    last[:2, silent] = -large, large
    bias = np.full(neurons, 0.5)
    bias[silent] = -1.0  # its y is 0
    golden = np.where(np.arange(neurons) == silent, 0.0, 0.5)
    margin = np.array([0.7, 0, -9, -9, -9, -9])
    net = Network.dense(
        [np.zeros((5, 2)), np.zeros((neurons, 5)), last],
        [np.zeros(5), bias, margin - last @ golden],
        ["relu", "relu", "identity"],
    )
    plan = Exhaustive(net, Crash(), failures=(0, 2))
    session = open_session(compiled, plan, random_inputs(net, 40), "float32")
    session.golden(0, session.blocks)
    # Two of the three neurons that hold class 0 up: three pairs, on every input.
    assert session.totals(0, plan.count, 1.0, session.desk()).sdc == 3 * 40


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_classes_that_were_safe_at_first_are_judged_later(compiled: str, dtype: str) -> None:
    """What neurons gain is tabulated when first asked for, of all that had their reach tabulated by then."""
    weight, departure = 0.1, 0.25
    signs = np.where(np.random.default_rng(0).random((6, 60)) < 0.5, -1.0, 1.0)
    signs[:, 0] = -1, 1, -1, -1, -1, -1
    # Every y is 1/2, every output 0 but the class's, at 7.5 weights times departures.
    margin = np.array([7.5 * weight * departure, 0, 0, 0, 0, 0])
    last = weight * signs
    net = Network.dense(
        [np.zeros((5, 2)), np.zeros((60, 5)), last],
        [np.zeros(5), np.zeros(60), margin - last.sum(axis=1) / 2],
        ["sigmoid", "sigmoid", "identity"],
    )
    plan = Exhaustive(
        net,
        [StuckAt(0.5 + departure), StuckAt(0.5 + 3.9 * departure)],
        failures=[(0, 2), (0, 2)],
        at_most=True,
    )
    session = open_session(compiled, plan, random_inputs(net, 40), dtype)
    session.golden(0, session.blocks)
    late = np.flatnonzero(plan.sites.stages() == 4)
    row = {(plan.sites.neuron[r], plan.sites.value[r] > 1): r for r in late}

    def run(shared: tuple[int, bool], neurons: range) -> list[list[int]]:
        return [[row[shared], row[n, False], -1, -1] for n in neurons]

    early = [run((shared, False), half) for half in (range(2, 30), range(30, 60)) for shared in (0, 1)]
    rows = np.array(list(chain(*early, run((0, True), range(2, 60)))), np.int32)
    spared, every = (
        session.evaluate(rows, None, 0, session.blocks, session.desk(), each) for each in (False, True)
    )
    assert spared.sdc.tolist() == every.sdc.tolist()
    assert not every.sdc[:-58].any()
    assert 0 < (every.sdc[-58:] > 0).sum() < 58


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_output_that_goes_further_than_words_do_is_computed(compiled: str, dtype: str) -> None:
    """Neuron 0 alone goes nearly twice as far as those whose reaches words are made for."""
    rng = np.random.default_rng(5)
    last = rng.uniform(0.3, 0.5, (5, 50))
    last[np.arange(50) % 5, np.arange(50)] = 1.0
    last[:, 0] = 1.85
    net = Network.dense(
        [np.eye(4), rng.uniform(-1, 1, (50, 4)), last],
        [np.zeros(4), np.full(50, 2.5), np.zeros(5)],
        ["relu", "sigmoid", "identity"],
    )
    plan = Exhaustive(net, Crash(), failures=(0, 2))
    session = open_session(compiled, plan, random_inputs(net, 251), dtype)
    session.golden(0, session.blocks)
    late = np.flatnonzero(plan.sites.stages() == 4)
    # Not until a run's rows come a second time are they tabulated.
    runs = [[[late[shared], late[n]] for n in range(shared + 1, 50)] for shared in (0, 1, 0, 1, 0)]
    rows = np.array(list(chain(*runs)), np.int32)
    spared, every = (
        session.evaluate(rows, None, 0, session.blocks, session.desk(), each) for each in (False, True)
    )
    assert spared.errors.tobytes() == every.errors.tobytes()


@pytest.mark.parametrize("phi", ACTIVATIONS, ids=str)
def test_every_activation(phi: nf.Activation) -> None:
    net = random_network((3, 6, 5, 4, 2), phi, seed=zlib.crc32(str(phi).encode()))
    x = random_inputs(net, 33)
    held_to_reference(Exhaustive(net, StuckAt(-0.75), total=2), x, most=60)
    # Synapse failures act where the steepness has been folded in.
    held_to_reference(Exhaustive(net, SynapseByzantine(0.5), failures=(1, 0, 1, 1)), x, most=60)


@pytest.mark.parametrize("fault", ENUMERABLE, ids=str)
@pytest.mark.parametrize("shape", [(3, 4, 2), (3, 4, 5, 2), (2, 3, 4, 3, 1)], ids=str)
def test_every_fault(fault: Fault, shape: tuple[int, ...]) -> None:
    net = random_network(shape, ["sigmoid", "relu", "tanh"][: len(shape) - 2], seed=len(shape))
    x = random_inputs(net, 19)
    layers = len(fault.layers(net))
    for counts in ([1] * layers, [2] + [0] * (layers - 1), [0] * (layers - 1) + [2]):
        held_to_reference(Exhaustive(net, fault, failures=counts), x)
    held_to_reference(Exhaustive(net, fault, failures=[2] * layers, at_most=True), x, most=150)
    held_to_reference(Sampled(net, fault, total=3, count=100, seed=1), x)


@pytest.mark.parametrize("fault", DRAWN, ids=str)
def test_every_drawn_fault(fault: Fault) -> None:
    net = random_network((3, 4, 5, 2), ["gelu", "softplus"], seed=8)
    x = random_inputs(net, 19)
    held_to_reference(Sampled(net, fault, total=4, at_most=True, count=150, seed=1), x)


@pytest.mark.parametrize(
    "faults",
    [
        [Crash(), StuckAt(1.0)],
        [Byzantine(1.0), Byzantine(0.25, "own")],
        [Crash(), SynapseCrash()],
        [Byzantine(0.5, "own"), SynapseByzantine(0.5, "additive")],
        [SynapseCrash(), SynapseByzantine(0.5, weighted=False)],
        [Byzantine(1.0, draw="guided", equivocate=True), Crash(), SynapseCrash()],
        [Byzantine(1.0, draw="guided"), Byzantine(0.5, "own", draw="guided"), StuckAt(0.5)],
    ],
    ids=str,
)
def test_mixtures(faults: list[Fault]) -> None:
    net = random_network((3, 4, 4, 3, 2), ["sigmoid", "relu", "tanh"], seed=4)
    x = random_inputs(net, 21)
    ones = [[1] * len(f.layers(net)) for f in faults]
    held_to_reference(Exhaustive(net, faults, ones, at_most=True), x, most=150)
    held_to_reference(Sampled(net, faults, ones, count=100, seed=2), x)
    held_to_reference(Sampled(net, faults, total=[2] * len(faults), count=100, seed=3), x)


@pytest.mark.parametrize(
    "seed", [*range(15), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(15, 300))]
)
def test_random_campaigns(seed: int) -> None:
    """Whatever the shape, the mixture and the counts; many failures a layer, and shared by neighbours."""
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(1, 5))
    widths = [int(n) for n in rng.integers(1, 12, size=depth + 2)]
    phis = [ACTIVATIONS[i] for i in rng.integers(len(ACTIVATIONS), size=depth)]
    net = random_network(widths, phis, seed)
    x = random_inputs(net, int(rng.integers(1, 150)))
    one = [f for f in ENUMERABLE if not f.joint]
    faults = [one[i] for i in rng.choice(len(one), size=int(rng.integers(1, 3)), replace=False)]
    counts = [[int(rng.integers(0, min(n, 5) // len(faults) + 1)) for n in _places(net, f)] for f in faults]
    at_most = bool(rng.integers(2))
    exhaustive = Exhaustive(net, faults, counts, at_most=at_most)
    held_to_reference(exhaustive, x, most=120)
    drawn = Sampled(net, faults, counts, at_most=at_most, count=60, seed=seed)
    held_to_reference(drawn, x, most=60)


def _places(net: Network, fault: Fault) -> list[int]:
    return [fault.places(net, layer) for layer in fault.layers(net)]


def test_many_failures_in_one_configuration() -> None:
    """More columns than an update takes at once, and more partial updates than a chain keeps."""
    net = random_network((4, 70, 40, 3), "relu", seed=6)
    x = random_inputs(net, 18)
    for counts in ([9, 0], [0, 17], [40, 20], [70, 40], [69, 39]):
        held_to_reference(Exhaustive(net, Crash(), counts), x, most=25)
        held_to_reference(Sampled(net, Crash(), counts, count=25), x)
    # More operations on pre-activations than are treated one by one.
    held_to_reference(Sampled(net, SynapseCrash(), [100, 150, 30], count=12), x)
    held_to_reference(Sampled(net, SynapseByzantine(0.1), total=200, count=12), x)


def test_a_wide_first_layer_and_many_tiles() -> None:
    net = random_network((40, 200, 30, 10), "tanh", seed=7)
    x = random_inputs(net, 500)
    held_to_reference(Exhaustive(net, Crash(), [1, 1]), x, most=10)
    held_to_reference(Exhaustive(net, Crash(), [2, 0]), x, ["float32"], most=10)


def test_no_failure_at_all_is_no_error_at_all(backend: str) -> None:
    net = random_network((3, 5, 4, 2), "gelu")
    x = random_inputs(net, 20)
    for plan in (Exhaustive(net, Crash(), (0, 0)), Exhaustive(net, Crash(), (2, 0), at_most=True)):
        records = evaluated(backend, plan, x, "float64", 1)
        assert (records.errors[0], records.sdc[0], records.due[0]) == (0.0, 0, 0)


def test_a_known_site_has_exactly_the_known_effect(backend: str) -> None:
    """A failure without effect downstream is exactly 0, and one with effect exactly its effect.

    2-3-2 with identity: y = (x0, x1, x0 + x1), F = (y0 + 4 y2, 2 y1). On x = (0.5, 0.25):
    y = (0.5, 0.25, 0.75). Crash of neuron 0 moves F0 by -0.5; of 1, F1 by -0.5; of 2,
    F0 by -3. Only ever one output moves.
    """
    net = Network.dense(
        [[[1, 0], [0, 1], [1, 1]], [[1, 0, 4], [0, 2, 0]]], None, ["identity", "identity"], (-1.0, 1.0)
    )
    x = np.array([[0.5, 0.25]])
    for dtype in ("float32", "float64"):
        records = evaluated(backend, Exhaustive(net, Crash(), (1,)), x, dtype, 3)
        assert records.errors.tolist() == [0.5, 0.5, 3.0]
        # F = (3.5, 0.5): only the crash of neuron 2 leaves F0 = 0.5, a tie, and ties keep the first class.
        assert records.sdc.tolist() == [0, 0, 0]
        dead = Exhaustive(net, SynapseCrash(), (1, 0))
        # Synapses receiver by receiver: 0->0, 1->0, 0->1, 1->1, 0->2, 1->2; weights (1, 0, 0, 1, 1, 1).
        found = evaluated(backend, dead, x, dtype, 6)
        assert found.errors.tolist() == [0.5, 0.0, 0.0, 0.5, 2.0, 1.0]


def test_silent_corruptions_are_counted_input_by_input(backend: str) -> None:
    """F = (y0, y1) with y = x: crashing neuron 0 leaves (0, x1), so the class turns to 1 where x1 > 0."""
    net = Network.dense([np.eye(2), np.eye(2)], None, ["identity", "identity"], (-1.0, 1.0))
    x = np.array([[0.5, 0.25], [0.5, -0.25], [0.25, 0.5], [0.5, 0.0], [0.0, 0.0]])
    records = evaluated(backend, Exhaustive(net, Crash(), (1,)), x, "float32", 2)
    # Crash of 0: inputs 0 -> (0, 0.25) class 1, changed; 1 -> (0, -0.25) same; 2 was class 1 and stays; 3 and
    # 4 tie at 0 and keep class 0. Crash of 1: 2 -> (0.25, 0) class 0, changed; nothing else.
    assert records.sdc.tolist() == [1, 1]


@pytest.mark.parametrize("outputs", [1, 3, 20])
def test_overflow_is_a_detected_error(backend: str, outputs: int) -> None:
    """A stuck value that overflows downstream: infinite outputs count as DUE, and never as SDC."""
    weights = [np.eye(2), np.full((2, 2), 1e300), np.full((outputs, 2), 1e10)]
    net = Network.dense(weights, None, ["identity", "identity", "identity"], (0.0, 0.0))
    plan = Exhaustive(net, [StuckAt(1e10), Crash()], failures=[(1, 0), (1, 0)])
    x = np.zeros((5, 2))
    records = evaluated(backend, plan, x, "float64", 2)
    assert records.errors.tolist() == [np.inf, np.inf]
    assert records.due.tolist() == [5, 5]
    assert records.sdc.tolist() == [0, 0]


@pytest.mark.parametrize("outputs", [1, 3, 20])
def test_nan_is_a_detected_error(backend: str, outputs: int) -> None:
    """Infinity less infinity downstream: the NaN must not be lost in a maximum."""
    weights = [np.eye(2), np.full((2, 2), 1e300), np.array([[1e10, -1e10]] * outputs)]
    net = Network.dense(weights, None, ["identity", "identity", "identity"], (0.0, 0.0))
    records = evaluated(backend, Exhaustive(net, StuckAt(1e10), (1, 0)), np.zeros((3, 2)), "float64", 2)
    assert records.errors.tolist() == [np.inf, np.inf]
    assert records.due.tolist() == [3, 3]


def test_overflow_on_some_inputs_only(backend: str) -> None:
    """1e200 (x - x) is 0; without either x it is infinite once weighted by 1e200, but on the input 0."""
    net = Network.dense([[[1.0], [1.0]], [[1e200, -1e200]], [[1e200]]], None, ["identity"] * 3, (0.0, 1.0))
    x = np.array([[0.0], *([[1.0]] * 17)])
    records = evaluated(backend, Exhaustive(net, Crash(), (1, 0)), x, "float64", 2, each=True)
    assert records.due.tolist() == [17, 17]
    assert records.errors.tolist() == [np.inf, np.inf]
    assert records.each is not None
    assert records.each.tolist() == [[0.0, *[np.inf] * 17]] * 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 16, 3), (8, 33, 20, 10), (5, 9, 17, 8, 4)], ids=str)
def test_fused_instruction_sets_give_the_same_bytes(dtype: str, shape: tuple[int, ...]) -> None:
    """AVX2 and AVX-512 differ in width and nothing else: lanes never meet."""
    if not {"c/avx2", "c/avx512"} <= set(nf.backends()):
        pytest.skip("needs both AVX2 and AVX-512")
    for phi in ACTIVATIONS:
        net = random_network(shape, phi, seed=len(shape))
        x = random_inputs(net, 77)
        plan = Exhaustive(net, Byzantine(0.5, "own"), total=2)
        a, b = (evaluated(isa, plan, x, dtype, 100, each=True) for isa in ("c/avx2", "c/avx512"))
        assert a.errors.tobytes() == b.errors.tobytes()
        assert a.each is not None
        assert b.each is not None
        assert a.each.tobytes() == b.each.tobytes()
        assert a.sdc.tolist() == b.sdc.tolist()


def test_neighbours_change_no_bit(compiled: str) -> None:
    """A configuration alone, and in the middle of others: the shared prefix is bookkeeping only."""
    net = random_network((5, 9, 8, 7, 3), "silu", seed=3)
    x = random_inputs(net, 60)
    for plan in (
        Exhaustive(net, Crash(), total=4),
        Exhaustive(net, [Byzantine(1.0), SynapseCrash()], [(1, 1, 1), (1, 1, 0, 0)]),
    ):
        session = open_session(compiled, plan, x, "float32")
        session.golden(0, session.blocks)
        start, count = plan.count // 3, 200
        rows, levels = session.rows(start, count)
        together = session.evaluate(rows, levels, 0, session.blocks, session.desk())
        desk = session.desk()
        for i in range(0, count, 7):
            one, level = session.rows(start + i, 1)
            alone = session.evaluate(one, level, 0, session.blocks, desk)
            assert alone.errors[0] == together.errors[i]
            assert alone.sdc[0] == together.sdc[i]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_a_desk_remembers_changes_no_bit(compiled: str, dtype: str) -> None:
    """One desk through calls that differ in rows, inputs and size of failures, against a new one for each."""
    net = random_network((6, 5, 60, 6), "relu", seed=3)
    plan = Exhaustive(net, [StuckAt(2e4), StuckAt(0.5)], failures=[(1, 2), (1, 2)], at_most=True)
    session = open_session(compiled, plan, random_inputs(net, 300), dtype)
    session.golden(0, session.blocks)
    rng = np.random.default_rng(1)
    used = session.desk()
    lost = 0
    for call in range(12):
        start = int(rng.integers(plan.count - 1000))
        first = int(rng.integers(session.blocks)) if call % 3 == 2 else 0
        rows, levels = session.rows(start, int(rng.integers(100, 1000)))
        each = call % 4 == 3
        new = session.evaluate(rows, levels, first, session.blocks, session.desk(), each)
        old = session.evaluate(rows, levels, first, session.blocks, used, each)
        assert old.errors.tobytes() == new.errors.tobytes()
        assert old.sdc.tolist() == new.sdc.tolist()
        lost += int(new.sdc.sum())
    assert lost


def test_blocks_of_inputs_add_up_to_the_whole(compiled: str) -> None:
    net = random_network((5, 9, 8, 3), "elu", seed=5)
    x = random_inputs(net, 251)
    plan = Exhaustive(net, Crash(), (2, 1))
    session = open_session(compiled, plan, x, "float32")
    session.golden(0, session.blocks)
    rows, levels = session.rows(0, 100)
    desk = session.desk()
    whole = session.evaluate(rows, levels, 0, session.blocks, desk)
    for cut in {1, session.blocks // 2, session.blocks - 1}:
        if 0 < cut < session.blocks:
            parts = session.evaluate(rows, levels, 0, cut, desk).joined(
                session.evaluate(rows, levels, cut, session.blocks, desk)
            )
            assert parts.errors.tobytes() == whole.errors.tobytes()
            assert parts.sdc.tolist() == whole.sdc.tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_input_keeps_its_error_in_whatever_order_and_ranges_the_golden_run_is_made(
    compiled: str, dtype: str
) -> None:
    # More inputs than a kernel arranges together, and no whole number of blocks.
    net = random_network((2, 5, 4, 3), "relu", seed=6)
    x = random_inputs(net, 2117)
    plan = Exhaustive(net, Crash(), (1, 1))
    shuffled = np.random.default_rng(0).permutation(len(x))
    whole = evaluated(compiled, plan, x, dtype, plan.count, each=True)
    other = evaluated(compiled, plan, x[shuffled], dtype, plan.count, each=True)
    session = open_session(compiled, plan, x, dtype)
    for first in range(0, session.blocks, 7):
        session.golden(first, min(first + 7, session.blocks))
    rows, levels = session.rows(0, plan.count)
    pieces = session.evaluate(rows, levels, 0, session.blocks, session.desk(), each=True)
    assert whole.each is not None
    assert other.each is not None
    assert pieces.each is not None
    assert len(np.unique(whole.each, axis=1).T) > 1000
    assert other.each.tobytes() == whole.each[:, shuffled].tobytes()
    assert pieces.each.tobytes() == whole.each.tobytes()
    for found in (other, pieces):
        assert found.errors.tobytes() == whole.errors.tobytes()
        assert found.sdc.tolist() == whole.sdc.tolist()
        assert found.due.tolist() == whole.due.tolist()


def test_weights_beyond_float32_are_refused_there_and_served_in_float64(compiled: str) -> None:
    net = Network.dense([[[1e39]], [[1.0]]], None, ["identity", "identity"], (0.0, 1.0))
    plan = Exhaustive(net, Crash(), (1,))
    with pytest.raises(nf.InputError, match="too large for float32"):
        nf.run(net, [[1.0]], plan, compiled, "float32")
    worst = nf.run(net, [[1.0]], plan, compiled, "float64").worst
    assert worst is not None
    assert worst.error == 1e39
