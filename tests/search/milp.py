"""The worst crash of a ReLU network as a mixed-integer program, solved by HiGHS: an independent judge."""

from __future__ import annotations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

import neurofail as nf


def worst(net: nf.Network, x: np.ndarray, failures: tuple[int, ...]) -> float:
    """The largest |F_faulty - F| over outputs for exactly these crashes on one input, by 2 N_{L+1} programs.

    Variables for each hidden layer: z (crashed), a (the ReLU is open), h = relu(s), u = h (1 - z), where s is
    linear in the u of the layer before. M bounds |s| and h from above and below, by intervals.
    """
    widths = net.widths[1:-1]
    size = 4 * sum(widths)
    starts = np.cumsum([0, *(4 * n for n in widths)])
    rows, lows, highs = [], [], []
    upper, integer = np.full(size, np.inf), np.zeros(size)
    lower = np.zeros(size)

    def need(entries: list[tuple[int, float]], low: float, high: float) -> None:
        row = np.zeros(size)
        for column, coefficient in entries:
            row[column] += coefficient
        rows.append(row)
        lows.append(low)
        highs.append(high)

    below, above = np.asarray(x), np.asarray(x)
    inputs: list[int] | None = None
    for layer, n in enumerate(widths):
        weight, bias = net.weights[layer], net.biases[layer]
        least = np.minimum(weight * below, weight * above).sum(1) + bias
        most = np.maximum(weight * below, weight * above).sum(1) + bias
        z, a, h, u = (range(starts[layer] + k * n, starts[layer] + (k + 1) * n) for k in range(4))
        for j in range(n):
            m_low, m_high = min(least[j], 0.0), max(most[j], 0.0)
            integer[[z[j], a[j]]] = 1
            upper[[z[j], a[j]]] = 1
            upper[[h[j], u[j]]] = m_high
            s = [] if inputs is None else [(inputs[i], -weight[j, i]) for i in range(len(inputs))]
            constant = bias[j] + (weight[j] @ x if inputs is None else 0.0)
            need([(h[j], 1.0), *s], constant, np.inf)  # h >= s
            need([(h[j], 1.0), (a[j], -m_low), *s], -np.inf, constant - m_low)  # h <= s - m_low (1 - a)
            need([(h[j], 1.0), (a[j], -m_high)], -np.inf, 0.0)  # h <= m_high a
            need([(u[j], 1.0), (h[j], -1.0)], -np.inf, 0.0)  # u <= h
            need([(u[j], 1.0), (z[j], m_high)], -np.inf, m_high)  # u <= m_high (1 - z)
            need([(u[j], 1.0), (h[j], -1.0), (z[j], m_high)], 0.0, np.inf)  # u >= h - m_high z
        need([(column, 1.0) for column in z], failures[layer], failures[layer])
        inputs = list(u)
        below, above = np.zeros(n), np.maximum(most, 0.0)
    assert inputs is not None
    golden = net(x[None])[0]
    best = 0.0
    for output, row in enumerate(net.weights[-1]):
        for sign in (1.0, -1.0):
            objective = np.zeros(size)
            objective[inputs] = -sign * row
            solved = milp(
                objective,
                integrality=integer,
                bounds=Bounds(lower, upper),
                constraints=LinearConstraint(np.array(rows), lows, highs),
                options={"mip_rel_gap": 0.0},
            )
            assert solved.success, solved.message
            best = max(best, -solved.fun + sign * (net.biases[-1][output] - golden[output]))
    return best
