"""Plans: a number in, a configuration out.

A plan is a product of blocks; a block picks places from one pool (a layer, or the whole network) for one or
several kinds of failure. Within a block, each possible vector of counts is a stratum. An exhaustive plan
numbers every configuration in mixed radix: first block slowest; in a block, strata in order; in a stratum,
kind by kind, the combination (lexicographic) before the variants of its places. A sampled plan draws each
configuration from a generator keyed by (seed, index), uniformly over what the exhaustive plan numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, product
from math import comb, prod

from neurofail import combinations
from neurofail.budget import Budget
from neurofail.configuration import Configuration, Failure
from neurofail.errors import InputError
from neurofail.faults import Fault
from neurofail.network import Network, whole
from neurofail.philox import Stream
from neurofail.sites import Operation, Operations

# A stratum count beyond this would make a plan's own table the burden; ask for totals instead.
_MOST_STRATA = 1 << 20
LARGEST_SAMPLE = (1 << 63) - 1


@dataclass(frozen=True)
class Choice:
    """One kind of failure within a block: its rows start at `first_row`, `variants` rows a place."""

    fault: int
    first_row: int
    variants: int
    joint: bool
    drawn: bool


@dataclass(frozen=True)
class Block:
    """A pool of places and the kinds that draw from it, disjointly.

    `sizes[s]` are the counts of stratum s, one per kind; `ends` the cumulative numbers of configurations.
    """

    places: int
    choices: tuple[Choice, ...]
    sizes: tuple[tuple[int, ...], ...]

    def radices(self, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Per kind of one stratum: the number of combinations, and of variant patterns."""
        left = self.places
        for choice, size in zip(self.choices, sizes, strict=True):
            yield comb(left, size), 1 if choice.joint else choice.variants**size
            left -= size

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Cumulative numbers of configurations, stratum by stratum."""
        return tuple(accumulate(prod(c * v for c, v in self.radices(s)) for s in self.sizes))

    @property
    def count(self) -> int:
        """How many ways the block has to fail."""
        return self.ends[-1]

    @property
    def slots(self) -> int:
        """The most failures that the block can have."""
        return max(map(sum, self.sizes))


@dataclass(frozen=True)
class Selection:
    """What a block chose: per kind, the positions of its places among those still free, and variants."""

    stratum: int
    positions: tuple[tuple[int, ...], ...]
    variants: tuple[tuple[int, ...], ...]


def _free(position: int, taken: Sequence[int]) -> int:
    """The place at `position` among those not in `taken` (ascending)."""
    for place in taken:
        if place <= position:
            position += 1
    return position


class Plan(ABC):
    """An indexed set of configurations; see `Exhaustive` and `Sampled`.

    Attributes
    ----------
    net : the network whose places fail
    budget : how many failures of which kind, where
    count : the number of configurations, an exact integer
    """

    net: Network
    budget: Budget
    count: int

    def __init__(self, net: Network, budget: Budget) -> None:
        self.net = net
        self.budget = budget

    @cached_property
    def sites(self) -> Operations:
        """The site table: fault by fault, layer by layer, place by place, variants together."""
        return Operations.stack(
            [
                fault.operations(self.net, layer)
                for fault in self.budget.faults
                for layer in fault.layers(self.net)
            ]
        )

    @cached_property
    def _starts(self) -> list[dict[int, int]]:
        """Per fault, the first row of each of its layers."""
        starts: list[dict[int, int]] = []
        row = 0
        for fault in self.budget.faults:
            starts.append({})
            for layer in fault.layers(self.net):
                starts[-1][layer] = row
                row += fault.places(self.net, layer) * fault.variants(self.net)
        return starts

    @cached_property
    def targets(self) -> int:
        """The choices that all the failed places of a configuration share (1 where there are none)."""
        joint = {f.variants(self.net) for f in self.budget.faults if f.joint}
        if len(joint) > 1:
            raise InputError("faults whose choices are joint must agree on how many there are")
        return joint.pop() if joint else 1

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The product that the plan runs over, in the order in which the failures act."""
        faults, budget = self.budget.faults, self.budget
        blocks = []
        layers = range(1, self.net.depth + 2)
        pools: list[tuple[str, tuple[int, ...]]] = [
            (place, (layer,)) for layer in layers for place in ("synapse", "neuron")
        ]
        if budget.totals is not None:
            pools = [(place, tuple(layers)) for place in ("synapse", "neuron")]
        for place, where in pools:
            kinds = [k for k, f in enumerate(faults) if f.place == place]
            inside = {k: [layer for layer in where if layer in faults[k].layers(self.net)] for k in kinds}
            kinds = [k for k in kinds if inside[k]]
            if budget.totals is not None:
                asked = [budget.totals[k] for k in kinds]
            else:
                asked = [budget.count(k, where[0]) for k in kinds]
            kinds = [k for k, n in zip(kinds, asked, strict=True) if n]
            asked = [n for n in asked if n]
            if kinds:
                blocks.append(self._block(kinds, asked, inside[kinds[0]]))
        return tuple(blocks)

    def _block(self, kinds: list[int], asked: list[int], layers: list[int]) -> Block:
        faults = self.budget.faults
        places = sum(faults[kinds[0]].places(self.net, layer) for layer in layers)
        ranges = [range(n + 1) if self.budget.at_most else range(n, n + 1) for n in asked]
        if prod(map(len, ranges)) > _MOST_STRATA:
            raise InputError(
                f"at most {asked} failures of {len(kinds)} kinds: too many combinations of counts"
            )
        sizes = tuple(s for s in product(*ranges) if sum(s) <= places)
        if not sizes:
            raise InputError(f"{sum(asked)} failures asked for, but only {places} places can fail there")
        choices = tuple(
            Choice(
                k,
                self._starts[k][layers[0]],
                faults[k].variants(self.net),
                faults[k].joint,
                faults[k].drawn,
            )
            for k in kinds
        )
        return Block(places, choices, sizes)

    @property
    def slots(self) -> int:
        """The most failures that one configuration can have."""
        return sum(block.slots for block in self.blocks)

    @property
    def drawn(self) -> bool:
        """Whether configurations carry values drawn at random."""
        return any(choice.drawn for block in self.blocks for choice in block.choices)

    @abstractmethod
    def select(self, index: int) -> tuple[int, list[Selection], Stream | None]:
        """The joint choice, what each block chose, and the stream that the values come from."""

    @abstractmethod
    def index(self, configuration: Configuration) -> int:
        """The number of a configuration; InputError if the plan does not hold it."""

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """The plan as plain JSON values; with the network, they determine every configuration."""

    def rows(self, index: int) -> list[tuple[int, float]]:
        """The rows of the site table (with the level of each) that configuration `index` sets off."""
        index = self._checked(index)
        target, selections, stream = self.select(index)
        rows: list[tuple[int, float]] = []
        for block, selection in zip(self.blocks, selections, strict=True):
            taken: list[int] = []
            for choice, positions, variants in zip(
                block.choices, selection.positions, selection.variants, strict=True
            ):
                places = [_free(p, taken) for p in positions]
                for place, variant in zip(places, variants, strict=True):
                    level = stream.unit() if choice.drawn and stream is not None else 0.0
                    chosen = target if choice.joint else variant
                    rows.append((choice.first_row + place * choice.variants + chosen, level))
                taken = sorted(taken + places)
        stages = self._stages
        return sorted(rows, key=lambda row: (stages[row[0]], row[0]))

    @cached_property
    def _stages(self) -> Sequence[int]:
        return self.sites.stages()  # type: ignore[return-value]  # an int32 array indexes like a sequence

    def operations(self, index: int) -> list[Operation]:
        """What configuration `index` does, operation by operation."""
        return [op for row, level in self.rows(index) for op in self.sites.row(row, level)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Configuration:
        """The configuration with this number; InputError outside 0..count-1."""
        return Configuration(tuple(self._failure(row, level) for row, level in self.rows(index)))

    def _failure(self, row: int, level: float) -> Failure:
        fault, layer, offset = self._locate(row)
        kind = self.budget.faults[fault]
        place, variant = divmod(offset, kind.variants(self.net))
        neuron, source = place, None
        if kind.place == "synapse":
            neuron, source = divmod(place, self.net.widths[layer - 1])
        return Failure(layer, neuron, source, kind.kind, variant, level)

    def _locate(self, row: int) -> tuple[int, int, int]:
        """The fault and layer that a row belongs to, and its offset there."""
        flat = [(start, k, layer) for k, starts in enumerate(self._starts) for layer, start in starts.items()]
        start, fault, layer = flat[bisect_right(flat, (row, len(flat), 0)) - 1]
        return fault, layer, row - start

    def _row(self, failure: Failure) -> tuple[int, int]:
        """The fault and the site row of a failure; InputError if no fault of the plan has it."""
        for k, fault in enumerate(self.budget.faults):
            if fault.kind != failure.kind or failure.layer not in fault.layers(self.net):
                continue
            place = failure.neuron
            if fault.place == "synapse":
                place = failure.neuron * self.net.widths[failure.layer - 1] + (failure.source or 0)
            variants = fault.variants(self.net)
            if 0 <= place < fault.places(self.net, failure.layer) and 0 <= failure.variant < variants:
                return k, self._starts[k][failure.layer] + place * variants + failure.variant
        raise InputError(f"{failure} is no failure of this plan")

    def _checked(self, index: int) -> int:
        position = whole(index, "configuration index")
        if position >= self.count:
            raise InputError(f"configuration index is {position}; this plan has {self.count}, from 0")
        return position


class Exhaustive(Plan):
    """Every configuration of a budget, numbered.

    Parameters
    ----------
    net, fault : the network, and a fault or a list of faults (each then with its own counts)
    failures : how many fail in each layer, or
    total : how many fail anywhere
    at_most : whether every smaller number is included too (none at all among them)

    Raises InputError for counts that do not fit the network, or a fault whose values are drawn at random.

    >>> from neurofail.faults import Crash
    >>> net = Network.dense([[[1.0]] * 5, [[1.0] * 5]], None, ["relu", "identity"])
    >>> plan = Exhaustive(net, Crash(), failures=(2,))
    >>> plan.count
    10
    >>> print(plan[9])
    crash of layer 1 neuron 3; crash of layer 1 neuron 4
    >>> plan.index(plan[9])
    9
    """

    def __init__(
        self,
        net: Network,
        fault: Fault | Sequence[Fault],
        failures: Sequence[int] | Sequence[Sequence[int]] | None = None,
        *,
        total: int | Sequence[int] | None = None,
        at_most: bool = False,
    ) -> None:
        super().__init__(net, Budget.of(net, fault, failures, total=total, at_most=at_most))
        for f in self.budget.faults:
            if f.drawn:
                raise InputError(f"{f.kind} draws values at random, which cannot be enumerated; use Sampled")
        self.count = self.targets * prod(block.count for block in self.blocks)

    def select(self, index: int) -> tuple[int, list[Selection], Stream | None]:
        selections: list[Selection] = []
        for block in reversed(self.blocks):
            index, digit = divmod(index, block.count)
            stratum = bisect_right(block.ends, digit)
            digit -= block.ends[stratum - 1] if stratum else 0
            sizes = block.sizes[stratum]
            positions: list[tuple[int, ...]] = []
            variants: list[tuple[int, ...]] = []
            left = block.places - sum(sizes)
            radices = list(block.radices(sizes))
            for choice, size, (combinations_, patterns) in reversed(
                list(zip(block.choices, sizes, radices, strict=True))
            ):
                left += size
                digit, pattern = divmod(digit, patterns)
                digit, number = divmod(digit, combinations_)
                positions.append(combinations.unrank(number, left, size))
                digits = []
                for _ in range(size):
                    pattern, variant = (pattern, 0) if choice.joint else divmod(pattern, choice.variants)
                    digits.append(variant)
                variants.append(tuple(reversed(digits)))
            selections.append(Selection(stratum, tuple(reversed(positions)), tuple(reversed(variants))))
        return index, selections[::-1], None

    def index(self, configuration: Configuration) -> int:
        """The number of `configuration`: the inverse of `plan[i]`."""
        rows = [self._row(failure) for failure in configuration]
        faults = self.budget.faults
        targets = {
            failure.variant for (k, _), failure in zip(rows, configuration, strict=True) if faults[k].joint
        }
        number = targets.pop() if targets else 0
        used = 0
        for block in self.blocks:
            taken: list[int] = []
            chosen: list[tuple[list[int], list[int]]] = []
            for choice in block.choices:
                places, variants = [], []
                last = choice.first_row + block.places * choice.variants
                for k, row in sorted(rows):
                    if k == choice.fault and choice.first_row <= row < last:
                        place, variant = divmod(row - choice.first_row, choice.variants)
                        places.append(place)
                        variants.append(variant)
                if len(set(places) | set(taken)) != len(places) + len(taken):
                    raise InputError(f"{configuration}: a place fails twice")
                chosen.append(([p - sum(t < p for t in taken) for p in places], variants))
                taken = sorted(taken + places)
                used += len(places)
            sizes = tuple(len(positions) for positions, _ in chosen)
            if sizes not in block.sizes:
                raise InputError(f"{configuration}: not the number of failures that this plan runs")
            stratum = block.sizes.index(sizes)
            digit = 0
            left = block.places
            for choice, (positions, variants), (combinations_, patterns) in zip(
                block.choices, chosen, block.radices(sizes), strict=True
            ):
                pattern = 0
                if not choice.joint:
                    for variant in variants:
                        pattern = pattern * choice.variants + variant
                number_ = combinations.rank(positions, left)
                digit = (digit * combinations_ + number_) * patterns + pattern
                left -= len(positions)
            number = number * block.count + (block.ends[stratum - 1] if stratum else 0) + digit
        if used != len(configuration):
            raise InputError(f"{configuration}: not the number of failures that this plan runs")
        return number

    def describe(self) -> dict[str, object]:
        return {"plan": "exhaustive", **self.budget.describe()}


class Sampled(Plan):
    """`count` configurations drawn uniformly, with replacement, from those of a budget.

    Each is a pure function of (seed, index): any range can be run anywhere, in any order.

    Parameters
    ----------
    net, fault, failures, total, at_most : as for `Exhaustive`
    count : how many to draw, 1 to 2^63 - 1
    seed : 0 to 2^64 - 1

    >>> from neurofail.faults import Crash
    >>> net = Network.dense([[[1.0]] * 5, [[1.0] * 5]], None, ["relu", "identity"])
    >>> plan = Sampled(net, Crash(), failures=(2,), count=1000, seed=7)
    >>> plan[12] == Sampled(net, Crash(), failures=(2,), count=13, seed=7)[12]
    True
    """

    def __init__(
        self,
        net: Network,
        fault: Fault | Sequence[Fault],
        failures: Sequence[int] | Sequence[Sequence[int]] | None = None,
        *,
        count: int,
        seed: int = 0,
        total: int | Sequence[int] | None = None,
        at_most: bool = False,
    ) -> None:
        super().__init__(net, Budget.of(net, fault, failures, total=total, at_most=at_most))
        self.count = whole(count, "count")
        self.seed = whole(seed, "seed")
        if not 1 <= self.count <= LARGEST_SAMPLE:
            raise InputError(f"count is {count}; a sampled plan draws between 1 and 2^63 - 1 configurations")
        if self.seed >= 1 << 64:
            raise InputError(f"seed is {seed}; it must be below 2^64")

    @cached_property
    def thresholds(self) -> tuple[tuple[int, ...], ...]:
        """Per block, the strata's cumulative shares of 2^128, rounded down: a bias below 2^-120."""
        return tuple(tuple((end << 128) // block.count for end in block.ends) for block in self.blocks)

    def select(self, index: int) -> tuple[int, list[Selection], Stream | None]:
        stream = Stream(self.seed, index)
        target = stream.below(self.targets) if self.targets > 1 else 0
        selections = []
        for block, thresholds in zip(self.blocks, self.thresholds, strict=True):
            stratum = bisect_right(thresholds, stream.wide()) if len(block.sizes) > 1 else 0
            positions, variants = [], []
            left = block.places
            for choice, size in zip(block.choices, block.sizes[stratum], strict=True):
                positions.append(_floyd(stream, left, size))
                free = choice.variants > 1 and not choice.joint
                variants.append(tuple(stream.below(choice.variants) if free else 0 for _ in range(size)))
                left -= size
            selections.append(Selection(stratum, tuple(positions), tuple(variants)))
        return target, selections, stream

    def index(self, configuration: Configuration) -> int:
        """The first index that draws `configuration`, found by running through the sample."""
        for i in range(self.count):
            if self[i] == configuration:
                return i
        raise InputError(f"{configuration}: not among the {self.count} configurations of this sample")

    def describe(self) -> dict[str, object]:
        return {"plan": "sampled", **self.budget.describe(), "count": self.count, "seed": self.seed}


def _floyd(stream: Stream, n: int, k: int) -> tuple[int, ...]:
    """A k-subset of {0..n-1}, ascending, every one equally likely.

    R. W. Floyd's algorithm (J. Bentley, "Programming pearls", CACM 30(9), 1987): k draws, no rejection.
    """
    members: set[int] = set()
    for j in range(n - k, n):
        drawn = stream.below(j + 1)
        members.add(j if drawn in members else drawn)
    return tuple(sorted(members))
