"""The oracle for whole tables: the same definitions in numpy's extended precision, vectorised over rows.

`np.longdouble` has 64 bits of mantissa and 15 of exponent on x86, so that float64 inputs leave room to spare;
where it is no wider than float64, results hold to about 1e-14. test_oracle.py checks every formula against
the 50-digit oracle; the case table and the properties use this file because it is a thousand times faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from oracle import Term

Array = NDArray[np.longdouble]


class Table(NamedTuple):
    value: Array  # (N,)
    grad: Array  # (N, C)
    p_y: Array  # (N,)
    weight: Array  # (N,), NaN where the loss is no function of p_y alone
    u: Array  # (N,) the margin


class Rows(NamedTuple):
    """Statistics of each row; `others` is the softmax over the classes that are not the target."""

    logits: Array  # (N, C)
    target: NDArray[np.int64]  # (N,)
    u: Array  # (N,) log odds of the target
    p: Array  # (N,)
    r: Array  # (N,) 1 - p, without the subtraction
    minus_log_p: Array  # (N,)
    minus_log_r: Array  # (N,)
    others: Array  # (N, C), 0 at the target
    minus_log_others: Array  # (N, C), 0 at the target


def rows_of(logits: ArrayLike, target: ArrayLike) -> Rows:
    z = np.asarray(logits, dtype=np.longdouble)
    y = np.asarray(target, dtype=np.int64)
    index = np.arange(len(y))
    rest = z.copy()
    rest[index, y] = -np.inf
    top = rest.max(axis=1, keepdims=True)
    powers = np.exp(rest - np.where(np.isinf(top), 0, top))
    total = powers.sum(axis=1)
    u = z[index, y] - top[:, 0] - np.log(total)
    odds_against = np.exp(-np.abs(u))  # the smaller of p/r and r/p: never overflows
    small, large = odds_against / (1 + odds_against), 1 / (1 + odds_against)
    p, r = np.where(u >= 0, large, small), np.where(u >= 0, small, large)
    minus_log_p, minus_log_r = (np.log1p(odds_against) + np.maximum(v, 0) for v in (-u, u))
    others = powers / np.where(total == 0, 1, total)[:, None]
    minus_log_others = np.log(total)[:, None] + (top - rest)
    minus_log_others[index, y] = 0
    return Rows(z, y, u, p, r, minus_log_p, minus_log_r, others, minus_log_others)


# The value of IMAE and DM: composite Gauss-Legendre over the margin, in x = 1 - p where the margin is large.

_NODES, _WEIGHTS = (np.asarray(a, np.longdouble) for a in np.polynomial.legendre.leggauss(64))
_KNOTS = np.array(
    [-(2.0**k) for k in range(15, 8, -1)]
    + [16.0 * k for k in range(-16, 0)]
    + [-8.0, -4.0, -2.0]
    + [4.0 * k for k in range(0, 65)]
    + [2.0**k for k in range(9, 16)],
    np.longdouble,
)


def _quadrature(f: Callable[[Array], Array], a: Array, b: Array) -> Array:
    half = (b - a)[:, None] / 2
    return (f(a[:, None] + half * (1 + _NODES)) * _WEIGHTS * half).sum(axis=1)


def _slope(u: Array, beta: float, lambd: float, eps: float) -> Array:
    p, r, d = 1 / (1 + np.exp(-u)), 1 / (1 + np.exp(u)), np.longdouble(eps) / 2
    return (np.expm1(beta * p ** np.longdouble(lambd) * r) + (r / (r + d) if eps else 1)) / 2


@cache
def _value_at_knots(beta: float, lambd: float, eps: float, known: float) -> Array:
    """L at every split point; NaN above `known`, which is where the tail takes over (or 0 for eps = 0)."""
    pieces = _quadrature(lambda t: _slope(t, beta, lambd, eps), _KNOTS[:-1], _KNOTS[1:])
    start = int(np.searchsorted(_KNOTS, known))
    below = np.append(np.cumsum(pieces[:start][::-1])[::-1], np.longdouble(0))
    if eps == 0:
        return np.concatenate([below, -np.cumsum(pieces[start:])])
    above = np.full(len(_KNOTS) - start - 1, np.nan, np.longdouble)
    return np.concatenate([below + _tail(_KNOTS[start : start + 1], beta, lambd, eps), above])


def _tail(u: Array, beta: float, lambd: float, eps: float) -> Array:
    d = np.longdouble(eps) / 2

    def density(x: Array) -> Array:
        magnitude = np.expm1(beta * (1 - x) ** np.longdouble(lambd) * x) / x + 1 / (x + d)
        return magnitude / (2 * (1 - x))

    end = 1 / (1 + np.exp(u))
    return np.where(end == 0, 0, _quadrature(density, np.zeros_like(end), np.where(end == 0, 1e-300, end)))


def integrated_value(u: Array, beta: float, lambd: float, eps: float) -> Array:
    """L(u): the integral of the slope from u to infinity, or from u to 0 when eps = 0."""
    known = 0.0 if eps == 0 else max(40.0, 4.0 * (np.log(2 / eps) // 4 + 6))
    finite = np.clip(u, _KNOTS[0], _KNOTS[-1])
    knots = _value_at_knots(beta, lambd, eps, known)
    knot = np.searchsorted(_KNOTS, finite if eps == 0 else np.minimum(finite, known))
    value = knots[knot] + _quadrature(lambda t: _slope(t, beta, lambd, eps), finite, _KNOTS[knot])
    if eps > 0:
        value = np.where(u >= known, _tail(np.maximum(finite, known), beta, lambd, eps), value)
    beyond, slope = finite - u, _slope(finite, beta, lambd, eps)  # past the last split point the slope is constant
    return value + np.where((beyond == 0) | (slope == 0), 0, beyond * slope)


def _dm(x: Rows, beta: float, lambd: float, eps: float) -> tuple[Array, Array, Array]:
    value = integrated_value(x.u, beta, lambd, eps)
    power = beta * x.p ** np.longdouble(lambd) * x.r
    d = np.longdouble(eps) / 2
    fading = x.r / (x.r + d) if eps else 1.0
    return value, (np.expm1(power) + fading) / 2, np.exp(power)


def _focal(x: Rows, gamma: float) -> tuple[Array, Array]:
    power = x.r ** np.longdouble(gamma)
    return power * x.minus_log_p, power * (x.r + gamma * x.p * x.minus_log_p)


def _taylor(x: Rows, t: float) -> tuple[Array, Array]:
    powers = [x.r**k for k in range(1, int(t) + 1)]
    value = sum(power / k for k, power in enumerate(powers, 1))
    return value, x.p * sum(powers)  # p (r + ... + r^t)


def _gce(x: Rows, q: float) -> tuple[Array, Array]:
    return -np.expm1(-q * x.minus_log_p) / q, np.exp(-q * x.minus_log_p) * x.r


def _agce(x: Rows, a: float, q: float) -> tuple[Array, Array]:
    base, q = np.longdouble(a) + 1, np.longdouble(q)
    value = -(base**q) * np.expm1(q * np.log1p(-x.r / base)) / q
    return value, x.p * x.r * (a + x.p) ** (q - 1)


def _aul(x: Rows, a: float, q: float) -> tuple[Array, Array]:
    base, q = np.longdouble(a) - 1, np.longdouble(q)
    return base**q * np.expm1(q * np.log1p(x.r / base)) / q, x.p * x.r * (base + x.r) ** (q - 1)


def _ael(x: Rows, a: float) -> tuple[Array, Array]:
    value = np.exp(-x.p / np.longdouble(a))
    return value, x.p * x.r * value / a


# Value and slope -dL/du of the losses that depend on p_y alone (dp/du = p r turns dL/dp into these).
MARGIN_LOSSES: dict[str, Callable[..., tuple[Array, ...]]] = {
    "CCE": lambda x: (x.minus_log_p, x.r),
    "MAE": lambda x: (2 * x.r, 2 * x.p * x.r),
    "MSE": lambda x: (x.r**2, 2 * x.p * x.r**2),
    "GCE": _gce,
    "IMAE": lambda x, T, eps: _dm(x, T, 1.0, eps),
    "DM": _dm,
    "RCE": lambda x, A: (np.longdouble(A) * x.r, np.longdouble(A) * x.p * x.r),
    "Focal": _focal,
    "TaylorCE": _taylor,
    "AGCE": _agce,
    "AUL": _aul,
    "AEL": _ael,
}


def _whole_row(x: Rows, name: str, eps: float = 0.0) -> tuple[Array, Array]:
    """NCE and LabelSmoothing, which see every class; d = -sum_j log p_j = n + m, m over the other classes."""
    C = x.logits.shape[1]
    at_target = (np.arange(len(x.u)), x.target)
    n, m = x.minus_log_p, x.minus_log_others.sum(axis=1) + (C - 1) * x.minus_log_r
    d, p, r = n + m, x.p[:, None], x.r[:, None]
    if name == "LabelSmoothing":
        eps = np.longdouble(eps)
        grad = r * x.others - eps / C
        grad[at_target] = eps * (1 - np.longdouble(1) / C) - x.r
        return (1 - eps) * n + eps / C * d, grad
    # (n/d)' with d' = C p_j - 1, terms gathered so that nothing cancels at C = 2, where the row is one number.
    grad = (r * x.others * m[:, None] + n[:, None] * (p + r * (1 - (C - 1) * x.others))) / d[:, None] ** 2
    grad[at_target] = -(x.r * m + (C - 1) * x.p * n) / d**2
    return n / d, grad


def oracle64(terms: Sequence[Term], logits: ArrayLike, target: ArrayLike) -> Table:
    """Values, gradients, p_y and weights of a combination on (N, C) logits and (N,) targets, none ignored."""
    with np.errstate(all="ignore"):
        x = rows_of(logits, target)
        value, grad, weight = np.zeros_like(x.u), np.zeros_like(x.logits), np.zeros_like(x.u)
        for coefficient, name, params in terms:
            if name in ("NCE", "LabelSmoothing"):
                v, g = _whole_row(x, name, **dict(params))
                w = np.full_like(x.u, np.nan)
            else:
                v, s, *given = MARGIN_LOSSES[name](x, **dict(params))
                g = s[:, None] * x.others
                g[np.arange(len(s)), x.target] = -s
                w = given[0] if given else 2 * s
            value, grad, weight = value + coefficient * v, grad + coefficient * g, weight + coefficient * w
        if x.logits.shape[1] == 1:
            grad[:] = 0  # the softmax of one class is constant
        return Table(value, grad, x.p, weight, x.u)
