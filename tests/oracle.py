"""The exact answer for one row, in 50 digits, from the published definitions alone.

The softmax is taken whole in mpmath, at a working precision wide enough for `1 - p_y` to keep 50 digits at
any margin, so every loss below is its textbook expression with no rearrangement. Two losses (IMAE and DM) are
published as a weight, the L1 norm of their logit gradient; their value is the numerical integral of that slope.
Nothing here is taken from the package: a formula that is wrong in both would have to be wrong in the paper.

`oracle` answers for one row; `oracle64.py` answers for whole tables and is itself checked against this file.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from mpmath import mp, mpf
from numpy.typing import NDArray

DIGITS = 50
Params = dict[str, float]
Term = tuple[float, str, tuple[tuple[str, float], ...]]  # coefficient, formula's name, its sorted parameters


class Exact(NamedTuple):
    value: mpf
    grad: list[mpf]  # (C,) derivative of the value by each logit
    p_y: mpf
    weight: mpf | None  # None where the loss is no function of p_y alone


class Row(NamedTuple):
    """Softmax of one row, and the Jacobian of p_y, at the precision the row's margin asks for."""

    dps: int
    p: tuple[mpf, ...]  # (C,) softmax
    jacobian: tuple[mpf, ...]  # (C,) dp_y/dz_j = p_y (delta_jy - p_j), rounded to DIGITS
    y: int
    margin: mpf  # log(p_y / (1 - p_y))


@lru_cache(maxsize=4096)
def softmax_row(logits: tuple[float, ...], y: int) -> Row:
    spread = max(logits) - min(logits)
    dps = DIGITS + 15 + int(float(spread) / 2.302)  # 1 - p_y may be as small as exp(-spread)
    with mp.workdps(dps):
        powers = [mp.exp(mpf(z)) for z in logits]
        total = mp.fsum(powers)
        p = tuple(e / total for e in powers)
        exact_jacobian = [p[y] * ((1 if j == y else 0) - p_j) for j, p_j in enumerate(p)]
        margin = mp.log(p[y] / (1 - p[y])) if len(p) > 1 else mp.inf
    with mp.workdps(DIGITS):
        return Row(dps, p, tuple(+g for g in exact_jacobian), y, margin)


# Value L(p_y) and derivative dL/dp_y of the losses that depend on p_y alone, as published.


def _taylor(p: mpf, t: float) -> tuple[mpf, mpf]:
    powers = range(1, int(t) + 1)
    return mp.fsum((1 - p) ** k / mpf(k) for k in powers), -mp.fsum((1 - p) ** (k - 1) for k in powers)


def _focal(p: mpf, gamma: float) -> tuple[mpf, mpf]:
    g, rest = mpf(gamma), 1 - p
    slope_of_power = g * rest ** (g - 1) if gamma else mpf(0)
    return -(rest**g) * mp.log(p), slope_of_power * mp.log(p) - rest**g / p


def _gce(p: mpf, q: float) -> tuple[mpf, mpf]:
    return (1 - p ** mpf(q)) / mpf(q), -(p ** (mpf(q) - 1))


def _agce(p: mpf, a: float, q: float) -> tuple[mpf, mpf]:
    a, q = mpf(a), mpf(q)
    return ((a + 1) ** q - (a + p) ** q) / q, -((a + p) ** (q - 1))


def _aul(p: mpf, a: float, q: float) -> tuple[mpf, mpf]:
    a, q = mpf(a), mpf(q)
    return ((a - p) ** q - (a - 1) ** q) / q, -((a - p) ** (q - 1))


PROBABILITY_LOSSES = {
    "CCE": lambda p: (-mp.log(p), -1 / p),
    "MAE": lambda p: (2 * (1 - p), mpf(-2)),  # sum_j |p_j - [j = y]|
    "MSE": lambda p: ((1 - p) ** 2, -2 * (1 - p)),
    "GCE": _gce,
    "RCE": lambda p, A: (mpf(A) * (1 - p), -mpf(A)),  # -sum_k p_k log [k = y] with log 0 := -A
    "Focal": _focal,
    "TaylorCE": _taylor,
    "AGCE": _agce,
    "AUL": _aul,
    "AEL": lambda p, a: (mp.exp(-p / mpf(a)), -mp.exp(-p / mpf(a)) / mpf(a)),
}


# IMAE and DM: the weight is given, the value is the integral of the slope w/2 over the margin.


def derivative_magnitude(p: mpf, r: mpf, beta: float, lambd: float, eps: float) -> mpf:
    """L1 norm of the gradient: exp(beta p^lambd (1 - p)), fading as p_y -> 1 by d/(r + d) with d = eps/2."""
    d = mpf(eps) / 2
    if not d:
        return mp.exp(mpf(beta) * p ** mpf(lambd) * r)
    return mp.expm1(mpf(beta) * p ** mpf(lambd) * r) + r / (r + d)


# Where integrals are split: the integrand has poles at u = i pi and u = log(2/eps) + i pi, is smooth elsewhere.
_NEGATIVE = [-float(2**k) for k in range(14, 8, -1)] + [float(-16 * k) for k in range(16, 0, -1)] + [-8.0, -4.0, -2.0]
_POSITIVE = [float(4 * k) for k in range(0, 65)] + [float(2**k) for k in range(9, 15)]
_BREAKS = _NEGATIVE + _POSITIVE


def _slope(u: mpf, beta: float, lambd: float, eps: float) -> mpf:
    p, r = 1 / (1 + mp.exp(-u)), 1 / (1 + mp.exp(u))
    return derivative_magnitude(p, r, beta, lambd, eps) / 2


def _integrate(f, a: mpf, b: mpf) -> mpf:
    """Gauss-Legendre on one smooth piece; scaled to order 1 because mp.quad's tolerance is absolute."""
    scale = f((a + b) / 2)
    result, error = mp.quad(lambda t: f(t) / scale, [a, b], method="gauss-legendre", maxdegree=8, error=True)
    assert error <= mpf(10) ** -35 * abs(result), f"quadrature failed on [{a}, {b}]: {error}"
    return scale * result


def _tail(u: mpf, beta: float, lambd: float, eps: float) -> mpf:
    """Integral from u to infinity, in x = 1 - p (du = -dx / (x (1 - x))): smooth and finite at x = 0."""

    def integrand(x: mpf) -> mpf:
        return derivative_magnitude(1 - x, x, beta, lambd, eps) / (2 * x * (1 - x))

    return _integrate(integrand, mpf(0), 1 / (1 + mp.exp(u)))


@cache
def _anchor(u: float, beta: float, lambd: float, eps: float) -> mpf:
    """L at a margin that many rows share, built from the next split point nearer to where L is known."""
    known = 0.0 if eps == 0 else float(max(40, 4 * (int(mp.log(2 / mpf(eps))) // 4 + 6)))
    if eps == 0 and u == known:
        return mpf(0)
    if eps > 0 and u >= known:
        return _tail(mpf(u), beta, lambd, eps)
    nearer = _BREAKS[bisect_left(_BREAKS, u) - 1] if u > known else min(_BREAKS[bisect_right(_BREAKS, u)], known)
    step = _integrate(lambda t: _slope(t, beta, lambd, eps), mpf(u), mpf(nearer))
    return _anchor(nearer, beta, lambd, eps) + step


@cache
def integrated_value(u: mpf, beta: float, lambd: float, eps: float) -> mpf:
    """L(u): the integral of the slope from u to infinity, or from u to 0 when eps = 0."""
    nearest = float(mp.nint(u))
    step = mpf(0) if u == nearest else _integrate(lambda t: _slope(t, beta, lambd, eps), u, mpf(nearest))
    return _anchor(nearest, beta, lambd, eps) + step


def _integral_loss(row: Row, beta: float, lambd: float, eps: float) -> tuple[mpf, mpf, mpf]:
    p = row.p[row.y]
    with mp.workdps(row.dps):
        magnitude = derivative_magnitude(p, 1 - p, beta, lambd, eps)
        derivative = -magnitude / (2 * p * (1 - p))
        weight = mp.exp(mpf(beta) * p ** mpf(lambd) * (1 - p))  # the published weight, whatever eps
    with mp.workdps(DIGITS):
        return integrated_value(row.margin, beta, lambd, eps), derivative, weight


# Losses that see the whole row.

WHOLE_ROW = ("LabelSmoothing", "NCE")


@lru_cache(maxsize=64)
def _minus_logs(row: Row) -> list[mpf]:
    with mp.workdps(row.dps):
        return [-mp.log(p_j) for p_j in row.p]


def _label_smoothing(row: Row, eps: float) -> tuple[mpf, list[mpf]]:
    """Cross entropy to t = (1 - eps) onehot + eps/C; d log p_j / d z_k = delta_jk - p_k, and t sums to 1."""
    C, eps = len(row.p), mpf(eps)
    t = [(1 - eps) * (j == row.y) + eps / C for j in range(C)]
    value = mp.fsum(t_j * minus_log for t_j, minus_log in zip(t, _minus_logs(row), strict=True))
    return value, [p_k - t_k for t_k, p_k in zip(t, row.p, strict=True)]


def _nce(row: Row) -> tuple[mpf, list[mpf]]:
    """n/d with n = -log p_y, d = -sum_j log p_j; the quotient rule written out."""
    C, minus_logs = len(row.p), _minus_logs(row)
    n, d = minus_logs[row.y], mp.fsum(minus_logs)
    n_k = [p_k - (k == row.y) for k, p_k in enumerate(row.p)]
    d_k = [C * p_k - 1 for p_k in row.p]
    return n / d, [(a * d - n * b) / d**2 for a, b in zip(n_k, d_k, strict=True)]


def _margin_loss(row: Row, name: str, params: Params) -> tuple[mpf, mpf, mpf]:
    """Value, dL/dp_y and weight of a loss of p_y alone."""
    if name in ("IMAE", "DM"):
        beta = params["T"] if name == "IMAE" else params["beta"]
        return _integral_loss(row, beta, params.get("lambd", 1.0), params["eps"])
    with mp.workdps(row.dps):
        value, derivative = PROBABILITY_LOSSES[name](row.p[row.y], **params)
        return value, derivative, abs(derivative) * mp.fsum(map(abs, row.jacobian))


def _whole_row_loss(row: Row, name: str, params: Params) -> tuple[mpf, list[mpf]]:
    with mp.workdps(row.dps):
        return _label_smoothing(row, **params) if name == "LabelSmoothing" else _nce(row)


def oracle(formula_name: str, params: Params, logits_row: Sequence[float], y: int) -> Exact:
    """Value, gradient, p_y and weight of one formula on one row of exactly given finite logits, C >= 2."""
    row = softmax_row(tuple(logits_row), y)
    if formula_name in WHOLE_ROW:
        value, grad = _whole_row_loss(row, formula_name, params)
        return Exact(value, grad, row.p[y], None)
    value, derivative, weight = _margin_loss(row, formula_name, params)
    with mp.workdps(DIGITS):
        return Exact(value, [derivative * j for j in row.jacobian], row.p[y], weight)


def oracle_terms(terms: Sequence[Term], logits_row: Sequence[float], y: int) -> Exact:
    """The same for a linear combination of formulas."""
    parts = [(mpf(c), oracle(name, dict(params), logits_row, y)) for c, name, params in terms]
    with mp.workdps(DIGITS):
        value = mp.fsum(c * e.value for c, e in parts)
        columns = zip(*(e.grad for _, e in parts), strict=True)
        grad = [mp.fsum(c * g for (c, _), g in zip(parts, column, strict=True)) for column in columns]
        weights = [e.weight for _, e in parts]
        weight = None if None in weights else mp.fsum(c * e.weight for c, e in parts)
        return Exact(value, grad, parts[0][1].p_y, weight)


# Long rows: the same numbers rounded to 64 bits before they meet C entries.


def _extended(x: mpf) -> np.longdouble:
    high = float(x)
    with mp.workdps(DIGITS):
        return np.longdouble(high) + np.longdouble(float(x - high)) if np.isfinite(high) else np.longdouble(high)


@lru_cache(maxsize=256)
def _extended_jacobian(logits: tuple[float, ...], y: int) -> NDArray[np.longdouble]:
    return np.array([_extended(g) for g in softmax_row(logits, y).jacobian])


@lru_cache(maxsize=256)
def _extended_whole_row(
    logits: tuple[float, ...], y: int, name: str, params: tuple[tuple[str, float], ...]
) -> tuple[np.longdouble, NDArray[np.longdouble]]:
    value, grad = _whole_row_loss(softmax_row(logits, y), name, dict(params))
    return _extended(value), np.array([_extended(g) for g in grad])


def oracle_array(terms: Sequence[Term], logits_row: Sequence[float], y: int):
    """As `oracle_terms`, in extended precision: (value, grad (C,), p_y, weight or NaN, margin)."""
    logits = tuple(logits_row)
    row = softmax_row(logits, y)
    value, grad, weight = np.longdouble(0), np.zeros(len(logits), np.longdouble), np.longdouble(0)
    for c, name, params in terms:
        if name in WHOLE_ROW:
            v, g = _extended_whole_row(logits, y, name, params)
            w = np.longdouble("nan")
        else:
            v, derivative, w = map(_extended, _margin_loss(row, name, dict(params)))
            g = derivative * _extended_jacobian(logits, y)
        value, grad, weight = value + c * v, grad + c * g, weight + c * w
    return value, grad, _extended(row.p[y]), weight, _extended(row.margin)
