"""What a call must return, and how far it may be off: the oracle's rows, reduced as the package documents.

How far: 1e-12 (float64) or 4e-6 (float32 arithmetic) of the row's scale, and the rounding of the result to its
own dtype. Two things are not the arithmetic's to avoid and are allowed on top: the margin u is rounded once, by
|u| 2^-24 in float32, which changes a slope that goes as r^n by n times as much relatively (above 4e-6 from
|u| = 34, for n = 1); and 1 - p_y below the smallest normal number may be flushed to zero.
The scale of a gradient row is its largest entry; of a value, the larger of it and the row's largest gradient
entry (they differ in kind only where IMAE and DM with eps = 0 cross zero).
In float64 the margin losses are held to each entry on its own; NCE and LabelSmoothing, whose entries are
differences, to the row's largest. bfloat16's gradient of mean and sum is stored before grad_output is known, and
so rounded twice when that is not 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from cases import Spec
from oracle64 import Array, Table, oracle64
from torch import Tensor


class Accuracy(NamedTuple):
    relative: float  # of the row's scale
    margin: float  # relative error for each unit of |u|
    rounding: float  # of each gradient entry, on being stored
    step: float  # half a step of the stored gradient's subnormal numbers
    tiny: float  # smallest normal number of the arithmetic


ACCURACY: dict[torch.dtype, Accuracy] = {
    torch.float64: Accuracy(1e-12, 2**-52, 0.0, 0.0, 2.3e-308),
    torch.float32: Accuracy(4e-6, 2**-23, 0.0, 0.0, 1.2e-38),
    torch.bfloat16: Accuracy(4e-6, 2**-23, 2**-8 * 1.001, 0.0, 1.2e-38),
    torch.float16: Accuracy(4e-6, 2**-23, 2**-11 * 1.001, 2**-25 * 1.001, 1.2e-38),
}


def floor(spec: Spec, dtype: torch.dtype) -> float:
    """Absolute error of a p_y or 1 - p_y flushed to 0, times a formula's constants."""

    def constant(name: str, eps: float = 0, a: float = 0, q: float = 0, A: float = 0, **_: float) -> float:
        if name in ("IMAE", "DM"):
            return 2 / eps if eps else 0
        return {"RCE": A, "AGCE": max(1 / (a or 1), (a + 1) ** q), "AUL": max(1 / (a - 1 or 1), a**q)}.get(name, 0)

    return ACCURACY[dtype].tiny * max([100.0] + [constant(name, **dict(params)) for _, name, params in spec.terms])


def steepness(spec: Spec) -> float:
    """The power of r that the slope goes by, near p_y = 1."""
    return 1 + max({"MSE": 1.0, "Focal": dict(params).get("gamma", 0.0)}.get(n, 0.0) for _, n, params in spec.terms)


class Expected(NamedTuple):
    loss: Array  # (N,) for "none", else ()
    grad: Array  # (N, C)
    loss_allowed: Array
    grad_allowed: Array
    table: Table  # of the rows that are not ignored, unreduced


def rows(logits: Tensor) -> Tensor:
    """(N, C) view or copy of logits (C,), (N, C) or (N, C, d1, ...), rows in the order of the target."""
    return logits[None] if logits.ndim == 1 else logits.movedim(1, -1).reshape(-1, logits.shape[1])


def exact(x: Tensor) -> Array:
    """A float tensor as extended precision, without rounding."""
    return x.detach().double().numpy().astype(np.longdouble)


def row_allowances(spec: Spec, table: Table, dtype: torch.dtype) -> tuple[Array, Array]:
    """How far each row's value (N,) and gradient (N, C) may be off before reduction and storing."""
    accuracy = ACCURACY[dtype]
    size = np.abs(table.grad)
    largest = size.max(axis=1)
    u = np.where(np.isfinite(table.u), np.abs(table.u), 0)
    relative = np.maximum(accuracy.relative, accuracy.margin * steepness(spec) * u)
    scale = size if dtype == torch.float64 and spec.margin else largest[:, None]
    least = floor(spec, dtype)
    return relative * np.maximum(np.abs(table.value), largest) + least, relative[:, None] * scale + least


def stats_allowances(spec: Spec, table: Table, dtype: torch.dtype) -> tuple[Array, Array]:
    """How far p_y (N,) and the weight (N,) of `row_stats` may be off."""
    accuracy = ACCURACY[dtype]
    margin = accuracy.margin * np.where(np.isfinite(table.u), np.abs(table.u), 0)
    p_relative, w_relative = (np.maximum(accuracy.relative, margin * n) for n in (1.0, steepness(spec)))
    return p_relative * table.p_y + accuracy.tiny, w_relative * table.weight + floor(spec, dtype)


def expected(
    spec: Spec,
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    grad_output: Array | float = 1.0,  # (N,) for "none", else a scalar
) -> Expected:
    dtype = logits.dtype
    z, y = exact(rows(logits)), target.reshape(-1).numpy().astype(np.int64)
    kept = y != ignore_index
    table = oracle64(spec.terms, z[kept], y[kept])
    with np.errstate(all="ignore"):
        value_allowed, grad_allowed = row_allowances(spec, table, dtype)
    factor = np.ones(kept.sum(), np.longdouble) if weight is None else exact(weight)[y[kept]]
    if sample_weight is not None:
        factor = factor * exact(sample_weight.reshape(-1))[kept]
    if reduction == "mean":
        divisor = factor.sum()
    else:
        divisor = (factor * table.weight).sum() if reduction == "normalized" else np.longdouble(1)
    scale = factor / divisor

    def spread(x: Array) -> Array:
        out = np.zeros((len(y), *x.shape[1:]), np.longdouble)
        out[kept] = x
        return out

    upstream = np.broadcast_to(np.asarray(grad_output, np.longdouble), y.shape)[kept] * scale
    grad = table.grad * upstream[:, None]
    accuracy = ACCURACY[dtype]
    twice = dtype == torch.bfloat16 and reduction in ("mean", "sum") and np.any(np.asarray(grad_output) != 1)
    rounding = accuracy.rounding * (2 if twice else 1)
    stored = grad_allowed * np.abs(upstream)[:, None] + rounding * np.abs(grad) + accuracy.step + floor(spec, dtype)
    loss, loss_allowed = spread(table.value * scale), spread(np.abs(scale) * value_allowed)
    if reduction != "none":
        loss, loss_allowed = loss.sum(), loss_allowed.sum()
    return Expected(loss, spread(grad), loss_allowed + floor(spec, dtype), spread(stored), table)


def assert_within(got: Tensor, wanted: Array, allowed: Array, what: str) -> None:
    """Every entry within its allowance; infinities equal, NaN where NaN is wanted."""
    ours = exact(got)
    assert ours.shape == np.shape(wanted), f"{what}: shape {ours.shape}, expected {np.shape(wanted)}"
    assert (np.isfinite(allowed) | ~np.isfinite(wanted)).all(), f"{what}: no limit on the error"
    with np.errstate(all="ignore"):
        fine = (np.abs(ours - wanted) <= allowed) | (ours == wanted) | (np.isnan(ours) & np.isnan(wanted))
        error = np.where(fine, 0, np.nan_to_num(np.abs(ours - wanted) / allowed, nan=np.inf))
    if not fine.all():
        at = np.unravel_index(np.argmax(error), error.shape)
        raise AssertionError(
            f"{what}: {np.sum(~fine)} of {fine.size} entries off; worst at {tuple(map(int, at))}: "
            f"got {ours[at]!r}, expected {np.asarray(wanted)[at]!r}, {error[at]:.3g} times the allowance"
        )
