"""Sections 1 to 4 of bounds.md in exact rational arithmetic, for failures that block, of small networks.

Written from the formulas alone, one loop a sum, so that it shares nothing with the vectorised code.
"""

from __future__ import annotations

from fractions import Fraction as Q
from itertools import product

from neurofail.network import Network

SHAPES = {"identity": (None, None), "relu": (Q(0), None), "relu6": (Q(0), Q(6)), "clip": (Q(0), Q(1))}


class Exact:
    """w, K = 1, D, R of a network with piecewise-linear activations, over its whole domain."""

    def __init__(self, net: Network, low: Q, high: Q) -> None:
        """Failed neurons transmit any v in [low, high]."""
        self.weights = [[[Q(float(w)) for w in row] for row in matrix] for matrix in net.weights]
        self.widths = net.widths
        self.depth = net.depth
        a = [Q(float(v)) for v in net.low]
        b = [Q(float(v)) for v in net.high]
        self.deviation: list[list[Q]] = [[]]
        self.reach: list[list[Q] | None] = [[]]  # None: no limit
        for matrix, bias, phi in zip(self.weights[:-1], net.biases, net.activations, strict=False):
            floor, ceiling = SHAPES[phi.name]
            ends = []
            for row, offset in zip(matrix, bias, strict=True):
                least = Q(float(offset)) + sum(min(w * x, w * y) for w, x, y in zip(row, a, b, strict=True))
                most = Q(float(offset)) + sum(max(w * x, w * y) for w, x, y in zip(row, a, b, strict=True))
                ends.append([self._clip(v, floor, ceiling) for v in (least, most)])
            a, b = [e[0] for e in ends], [e[1] for e in ends]
            self.deviation.append([max(high - x, y - low) for x, y in ends])
            if floor is None or ceiling is None:
                self.reach.append(None)
            else:
                self.reach.append([max(ceiling - x, y - floor) for x, y in ends])

    @staticmethod
    def _clip(value: Q, floor: Q | None, ceiling: Q | None) -> Q:
        value = value if floor is None else max(value, floor)
        return value if ceiling is None else min(value, ceiling)

    def size(self, layer: int, i: int, j: int) -> Q:
        return abs(self.weights[layer - 1][i][j])

    def fep(self, failures: tuple[int, ...], at_most: bool = False, capped: bool = False) -> Q:
        e = Q(0)
        for layer in range(1, self.depth + 1):
            d, n, f = max(self.deviation[layer]), self.widths[layer], failures[layer - 1]
            total = f * (max(d, e) if at_most else d) + (n - f) * e
            w = max(abs(x) for row in self.weights[layer] for x in row)
            e = w * total
            reach = self.reach[layer + 1] if capped and layer < self.depth else None
            e = e if reach is None else min(e, max(reach))
        return e

    def influence(self) -> list[list[list[Q]]]:
        """r[l][k][j], l = 1..L."""
        rows = [[abs(w) for w in row] for row in self.weights[-1]]
        found = [rows]
        for layer in range(self.depth, 1, -1):
            rows = [
                [
                    sum((r[i] * self.size(layer, i, j) for i in range(self.widths[layer])), Q(0))
                    for j in range(self.widths[layer - 1])
                ]
                for r in rows
            ]
            found.append(rows)
        return [[], *reversed(found)]

    def one(self, failures: tuple[int, ...]) -> Q:
        r = self.influence()
        totals = [Q(0)] * self.widths[-1]
        for layer in range(1, self.depth + 1):
            for k, row in enumerate(r[layer]):
                terms = [x * d for x, d in zip(row, self.deviation[layer], strict=True)]
                totals[k] += _top(terms, failures[layer - 1])
        return max(totals)

    def rows(self, failures: tuple[int, ...]) -> list[list[Q]]:
        """u^1 .. u^{L+1}, capped."""
        us = [[Q(0)] * self.widths[1]]
        for layer in range(1, self.depth + 1):
            u, d, f = us[-1], self.deviation[layer], failures[layer - 1]
            nxt = []
            for i in range(self.widths[layer + 1]):
                w = [self.size(layer + 1, i, j) for j in range(len(u))]
                value = sum(x * y for x, y in zip(w, u, strict=True)) + _top(
                    [x * max(y - z, Q(0)) for x, y, z in zip(w, d, u, strict=True)], f
                )
                reach = self.reach[layer + 1] if layer < self.depth else None
                nxt.append(value if reach is None else min(value, reach[i]))
            us.append(nxt)
        return us

    def three(self, failures: tuple[int, ...]) -> Q:
        r, us = self.influence(), self.rows(failures)
        best = []
        for k in range(self.widths[-1]):
            choices = [us[-1][k]]
            for cut in range(1, self.depth + 1):
                rk, u = r[cut][k], us[cut - 1]
                value = sum(x * y for x, y in zip(rk, u, strict=True))
                value += _top(
                    [x * max(d - y, Q(0)) for x, d, y in zip(rk, self.deviation[cut], u, strict=True)],
                    failures[cut - 1],
                )
                for layer in range(cut + 1, self.depth + 1):
                    value += _top(
                        [x * d for x, d in zip(r[layer][k], self.deviation[layer], strict=True)],
                        failures[layer - 1],
                    )
                choices.append(value)
            best.append(min(choices))
        return max(best)

    def smaller(self, failures: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Every f' <= f."""
        return list(product(*(range(f + 1) for f in failures)))


def _top(values: list[Q], count: int) -> Q:
    return sum(sorted(values, reverse=True)[:count], Q(0))
