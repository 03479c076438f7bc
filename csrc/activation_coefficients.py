"""Print the coefficients of activation.inc, and the relative error each one leaves.

Polynomials are Chebyshev interpolants (within a fraction of a bit of minimax here). Rational
functions are least-squares fits, reweighted (Lawson) until the largest relative errors level out.
Run it with mpmath installed: python csrc/activation_coefficients.py
"""

import mpmath as mp

mp.mp.dps = 60


def report(name, error, **coefficients):
    print(f"\n{name}: relative error {mp.nstr(error, 2)}")
    for part, values in coefficients.items():
        print(f"  {part}: " + ", ".join(mp.nstr(value, 20) for value in values))


def polynomial(name, function, interval, terms, weight):
    """`weight` turns the error of this function into the relative error of what is built on it."""
    coefficients, error = mp.chebyfit(function, interval, terms, error=True)
    report(name, error * weight, lowest_first=coefficients[::-1])


def rational(name, function, high, centre, top, bottom, rounds, monic=False):
    """P/Q on [0, high]; the sample points crowd where x is below `centre`.

    Q(0) = 1, or the leading coefficient of Q is 1, which saves a multiplication.
    """
    count = 6 * (top + bottom + 2)
    end = (high - centre) / (high + centre)
    points = []
    for k in range(count):
        c = (end - 1) / 2 - (end + 1) / 2 * mp.cos(mp.pi * (k + mp.mpf(1) / 2) / count)
        points.append(centre * (1 + c) / (1 - c))
    values = [function(x) for x in points]
    weights, below = [mp.mpf(1)] * count, [mp.mpf(1)] * count
    best = (mp.inf,)
    for _ in range(rounds):
        rows, right = mp.matrix(count, top + bottom + 1), mp.matrix(count, 1)
        for i, (x, f) in enumerate(zip(points, values, strict=True)):
            scale = mp.sqrt(weights[i]) / (below[i] * f)
            for j in range(top + 1):
                rows[i, j] = scale * x**j
            for j in range(1, bottom + 1):
                rows[i, top + j] = -scale * f * x**j
            right[i] = scale * f
        solution = list(mp.lu_solve(rows, right))
        p, q = solution[: top + 1], [mp.mpf(1), *solution[top + 1 :]]
        below = [mp.polyval(q[::-1], x) for x in points]
        fits = zip(points, below, values, strict=True)
        errors = [abs(mp.polyval(p[::-1], x) / b / f - 1) for x, b, f in fits]
        best = min(best, (max(errors), p, q), key=lambda fit: fit[0])
        weights = [w * (e / max(errors) + mp.mpf("1e-3")) for w, e in zip(weights, errors, strict=True)]
        weights = [w / max(weights) for w in weights]
    error, p, q = best
    unit = q[-1] if monic else 1
    report(name, error, P=[c / unit for c in p], Q=[c / unit for c in q])


def near_zero(limit, function):
    """The removable singularity at zero: `limit` below 1e-20."""
    return lambda x: limit(x) if abs(x) < mp.mpf("1e-20") else function(x)


half = mp.log(2) / 2 * mp.mpf("1.001")
symmetric = near_zero(
    lambda u: mp.mpf(1) / 6 - u / 360,
    lambda u: (mp.sqrt(u) * mp.coth(mp.sqrt(u) / 2) - 2) / u,
)
remainder = near_zero(lambda r: mp.mpf(1) / 2 + r / 6, lambda r: (mp.expm1(r) - r) / r**2)
logarithm = near_zero(
    lambda w: mp.mpf(1) / 3 + w / 5,
    lambda w: (mp.atanh(mp.sqrt(w)) / mp.sqrt(w) - 1) / w,
)
hyperbolic = near_zero(lambda u: 1 - u / 3, lambda u: mp.tanh(mp.sqrt(u)) / mp.sqrt(u))


def mills(a):
    return mp.exp(a * a / 2) * mp.erfc(a / mp.sqrt(2)) / 2


if __name__ == "__main__":
    print("ln 2 in two parts, the first short enough for an exact product with an exponent")
    for bits, exponent in ((16, 24), (41, 53)):
        high = mp.floor(mp.log(2) * 2**bits) / 2**bits
        print(f"  {exponent} bits: {mp.nstr(high, 25)} {mp.nstr(mp.log(2) - high, 20)}")
    for bits, terms in ((32, (2, 5, 5)), (64, (5, 11, 10))):
        polynomial(f"g{bits}", symmetric, [0, half**2], terms[0], half**3 / 4)
        polynomial(f"expm1_{bits}", remainder, [-half, half], terms[1], half)
        polynomial(f"log1p_{bits}", logarithm, [0, mp.mpf(1) / 9], terms[2], mp.mpf(1) / 9)
    rational("tanh32", hyperbolic, mp.mpf(64), mp.mpf(2), 4, 4, rounds=40, monic=True)
    rational("mills32", mills, mp.mpf("13.3"), mp.mpf(2), 4, 5, rounds=12)
    rational("mills64", mills, mp.mpf("37.7"), mp.mpf(2), 9, 10, rounds=8)
