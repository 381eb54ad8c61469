"""The losses in plain PyTorch: the oracle that the kernels are held against, and what runs without them.

Written from the margin ``u = z_y - logsumexp of the other logits``, ``p = sigmoid(u)`` and ``r = sigmoid(-u)``, so
that it is exact at any confidence. Any float dtype, any device, differentiable to any order.

>>> import torch
>>> from imae_ext import IMAE
>>> logits, target = torch.tensor([[2.0, 0.0, 0.0]], requires_grad=True), torch.tensor([0])
>>> robust_loss(logits, target, IMAE(T=8.0)).backward()
>>> logits.grad
tensor([[-1.9116,  0.9558,  0.9558]])
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from . import _torch
from . import formulas as f
from .binary_checks import check_amounts, check_binary, of_rows
from .checks import as_label, check, not_ignored
from .quadrature import bounded, integrated
from .stats import RowStats


class Row(NamedTuple):
    """What a formula sees of the rows; every tensor has shape (N,)."""

    u: Tensor  # margin, the log-odds of the labelled class
    rest: Tensor  # sum over the other classes of -log p_j; 0 where no formula needs all logits
    C: int

    @property
    def p(self) -> Tensor:
        """Probability of the labelled class."""
        return torch.exp(logsigmoid(self.u))  # not sigmoid, whose derivative takes p from r

    @property
    def r(self) -> Tensor:
        """1 - p."""
        return torch.exp(logsigmoid(-self.u))

    @property
    def nlp(self) -> Tensor:
        """-log p."""
        return -logsigmoid(self.u)


def _dm(row: Row, beta: float, lambd: float, eps: float) -> Tensor:
    rest = bounded(row.u, beta, lambd)
    if eps == 0:
        return (rest - integrated(row.u.new_zeros(()), beta, lambd) - row.u) / 2
    d = eps / 2
    return ((torch.log1p(row.r / d) + row.nlp) / (1 + d) + rest) / 2


def _saturating(x: Tensor, q: float) -> Tensor:
    """Return (1 - exp(-q x)) / q of x >= 0, which is x where q x is small."""
    if q < torch.finfo(x.dtype).tiny:
        return x
    y = q * x
    rising = torch.where(y < 0.5, -torch.expm1(-y), 1 - torch.exp(-y))  # expm1's derivative takes exp from expm1
    return torch.where(y < 1e-16, x, rising / q)


def _focal(row: Row, gamma: float) -> Tensor:
    infinite = row.u == -torch.inf
    focus = torch.exp(gamma * logsigmoid(-row.u)) if gamma > 0 else torch.ones_like(row.u)
    return torch.where(infinite, row.nlp, focus * torch.where(infinite, 0.0, row.nlp))


def _label_smoothing(row: Row, eps: float) -> Tensor:
    limits = torch.finfo(row.u.dtype)
    if eps <= limits.tiny * limits.eps / 2:  # 0 in this dtype; and the sum is infinite where a class is masked
        return row.nlp
    smoothed = eps * (row.nlp + row.rest) / row.C
    return (1 - eps) * row.nlp + smoothed


def _nce(row: Row) -> Tensor:
    n, d = row.nlp, row.nlp + row.rest
    if row.C == 1:
        return torch.ones_like(n) + 0 * n
    infinite = d == torch.inf  # some logit is: the limit is constant
    rest, d = torch.where(infinite, 0.0, row.rest), torch.where(infinite, 1.0, d)
    finite_n = torch.where(infinite, 0.0, n)
    ratio = torch.where(n < rest, finite_n / d, 1 - rest / d)  # the smaller term: its derivative has no cancellation
    return torch.where(infinite, torch.where(n == torch.inf, 1.0, 0.0).to(n.dtype), ratio)


# one line for each formula, as in csrc/formulas.h
VALUE: dict[type[f.SingleFormula], Callable[..., Tensor]] = {
    f.CCE: lambda row: row.nlp,
    f.MAE: lambda row: 2 * row.r,
    f.MSE: lambda row: row.r**2,
    f.GCE: lambda row, q: _saturating(row.nlp, q),
    f.IMAE: lambda row, T, eps: _dm(row, T, 1.0, eps),
    f.DM: _dm,
    f.RCE: lambda row, A: A * row.r,
    f.Focal: _focal,
    f.TaylorCE: lambda row, t: sum((row.r**k / k for k in range(2, int(t) + 1)), row.r),
    f.AGCE: lambda row, a, q: (a + 1) ** q * _saturating(torch.log1p(row.r / (a + row.p)), q),
    f.AUL: lambda row, a, q: (a - 1 + row.r) ** q * _saturating(torch.log1p(row.r / (a - 1)), q),
    f.AEL: lambda row, a: torch.exp(-row.p / a),
    f.LabelSmoothing: _label_smoothing,
    f.NCE: _nce,
}


def _value(loss: f.Formula, row: Row) -> Tensor:
    parts = (c * VALUE[type(g)](row, *g.packed[2:]) for c, g in loss.terms)
    return functools.reduce(torch.add, parts)


def _example_weight(loss: f.Formula, row: Row) -> Tensor:
    """Weights of `normalized` and row_stats: exp(beta p^lambd r) for IMAE and DM, else the gradient's L1 norm."""
    total = torch.zeros_like(row.u)
    for c, g in loss.terms:
        if isinstance(g, (f.IMAE, f.DM)):
            beta, lambd = (g.T, 1.0) if isinstance(g, f.IMAE) else (g.beta, g.lambd)
            total = total + c * torch.exp(beta * torch.exp(-lambd * row.nlp) * row.r)
        else:
            slope = torch.func.grad(lambda u, g=g: -VALUE[type(g)](row._replace(u=u), *g.packed[2:]).sum())(row.u)
            total = total + c * 2 * slope
    return total


def row_weights(
    target: Tensor, weight: Tensor | None, sample_weight: Tensor | None, ignore_index: int, dtype: torch.dtype
) -> Tensor:
    """Return what each row is multiplied by, of the target's shape: 0 where its label is ignored."""
    live = not_ignored(target, ignore_index)
    w = torch.ones_like(target, dtype=dtype)
    if weight is not None:
        w = weight.to(dtype)[torch.where(live, target, 0).clamp(0, len(weight) - 1)]
    if sample_weight is not None:
        w = w * sample_weight.to(dtype)
    return torch.where(live, w, 0.0)


def rows(
    logits: Tensor, target: Tensor, ignore_index: int, needs_all_logits: bool, w: Tensor | None = None
) -> tuple[Row, Tensor, Tensor]:
    """Return the rows, whether each is not ignored, and its label (0 where it is), each of shape (N,)."""
    C = logits.shape[min(1, logits.dim() - 1)]
    z = logits.movedim(min(1, logits.dim() - 1), -1).reshape(-1, C)
    z = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
    live = not_ignored(target.reshape(-1), ignore_index)
    label = torch.where(live, target.reshape(-1), 0).long()
    y = label.clamp(0, C - 1)  # a label out of range gives NaN below, not an access out of bounds
    z = torch.where(live.unsqueeze(-1), z, 0.0)  # so that a NaN in an ignored row stays there
    if w is not None:  # nor does one leave a row of weight 0, which the derivative by the weight still sees
        z = torch.where((w.reshape(-1) != 0).unsqueeze(-1), z, z.detach())
    own = y.unsqueeze(-1) == torch.arange(C, device=y.device)
    shift = torch.where(own, -torch.inf, z.detach()).logsumexp(-1, keepdim=True)
    z = z - torch.where(torch.isfinite(shift), shift, 0.0)  # then lse below is nearly 0, and u rounded nearly once
    z_y = z.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    alone = ((z == -torch.inf) | own).all(-1) & (z_y != -torch.inf)  # no other class has any mass
    others = torch.where(own, -torch.inf, z)
    lse = torch.where(alone.unsqueeze(-1), 0.0, others).logsumexp(-1)
    u = torch.where(alone, z_y - z_y + torch.inf, z_y - lse)
    u = u * torch.where((z_y != torch.inf) & (lse != torch.inf) & (y == label), 1.0, torch.nan).to(u.dtype)
    if not needs_all_logits:
        return Row(u, torch.zeros_like(u), C), live, y
    # lse of all classes less each logit: from that of the others, the margin's softplus further
    to_all = torch.where(alone, z_y, -logsigmoid(-torch.where(alone, 0.0, u)))
    to_each = lse.unsqueeze(-1) - z
    if C == 2:  # the other's lse is its logit
        to_each = torch.where(alone.unsqueeze(-1), to_each, 0.0)
    rest = torch.where(own, 0.0, to_all.unsqueeze(-1) + to_each).sum(-1)
    return Row(u, rest, C), live, y


def _flat(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.reshape(-1)


def _weighted(x: Tensor, w: Tensor) -> Tensor:
    """Return x times w, 0 where w is 0 even if x is infinite or NaN."""
    return torch.where((w == 0) & ~torch.isfinite(x), 0.0, x) * w


def robust_loss(
    logits: Tensor,
    target: Tensor,
    formula: f.Formula,
    *,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Compute what :func:`imae_ext.robust_loss` computes, in plain PyTorch; see there."""
    from . import soft  # built on what is in this module

    if label_smoothing != 0 or soft.is_meant(logits, target):
        options = (formula, weight, sample_weight, label_smoothing, ignore_index, reduction)
        return soft.robust_loss(logits, target, *options)
    ignore_index = as_label(ignore_index)
    check(logits, target, formula, weight, sample_weight, ignore_index, reduction)
    dtype = torch.float64 if logits.dtype is torch.float64 else torch.float32
    w = row_weights(target.reshape(-1), weight, _flat(sample_weight), ignore_index, dtype)
    weighed = weight is not None or sample_weight is not None
    row, live, _ = rows(logits, target, ignore_index, formula.needs_all_logits, w if weighed else None)
    values = torch.where(live, _weighted(_value(formula, row), w), 0.0)
    if reduction == "none":
        return values.reshape(target.shape)
    if reduction == "sum":
        return values.sum()
    if reduction == "mean":
        return values.sum() / w.sum()
    example = _example_weight(formula, Row(row.u.detach(), row.rest, row.C))
    return values.sum() / torch.where(live, _weighted(example, w), 0.0).sum()


def binary_robust_loss(
    logits: Tensor,
    target: Tensor,
    formula: f.Formula,
    *,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Compute what :func:`imae_ext.binary_robust_loss` computes, in plain PyTorch; see there.

    The softmax over (0, x): each side is a row of two classes, whose margin is x or -x.
    """
    options = (formula, weight, pos_weight, sample_weight, ignore_index, reduction)
    values, divisor = binary_parts(logits, target, options)
    if reduction == "none":
        return values
    return values.sum() if reduction == "sum" else values.sum() / divisor()


def binary_divisor(logits: Tensor, target: Tensor, options: tuple[Any, ...]) -> Tensor:
    """Return what ``mean`` or ``normalized`` divides by; differentiable by the weights."""
    return binary_parts(logits, target, options)[1]()


def binary_parts(logits: Tensor, target: Tensor, options: tuple[Any, ...]) -> tuple[Tensor, Callable[[], Tensor]]:
    """Return each element's value, and what computes the divisor of ``mean`` or ``normalized``."""
    formula, weight, pos_weight, sample_weight, ignore_index, reduction = options
    check_binary(logits, target, options)
    if target.device.type == "cpu" and _torch.has_values(target):
        check_amounts(target, ignore_index)
    dtype = torch.float64 if logits.dtype is torch.float64 else torch.float32
    is_bool = target.dtype is torch.bool
    live = torch.ones_like(target) if is_bool else not_ignored(target, ignore_index)
    t = torch.where(live, target.to(dtype), 0.0)
    t = torch.where((t >= 0) & (t <= 1), t, torch.nan)
    samples = torch.ones_like(t) if sample_weight is None else of_rows(sample_weight, logits).to(dtype)  # type: ignore[union-attr]
    samples = torch.where(live, samples, 0.0)
    w = samples if weight is None else samples * weight.to(dtype)
    x = torch.where(live, logits.to(dtype), 0.0)
    x = torch.where(w != 0, x, x.detach())  # so that a NaN in an element of weight 0 stays there

    def both(of: Callable[[Row], Tensor], x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for amount, u in ((t if pos_weight is None else pos_weight.to(dtype) * t, x), (1 - t, -x)):
            u = torch.where((amount == 0) & ~torch.isfinite(u), 0.0, u)  # a side that does not count
            total = total + _weighted(of(Row(u, -logsigmoid(-u), 2)), amount)
        return _weighted(total, w)

    def divisor() -> Tensor:
        return (samples if reduction == "mean" else both(functools.partial(_example_weight, formula), x.detach())).sum()

    return torch.where(live, both(functools.partial(_value, formula), x), 0.0), divisor


def row_stats(logits: Tensor, target: Tensor, formula: f.Formula, *, ignore_index: int = -100) -> RowStats:
    """Compute what :func:`imae_ext.row_stats` computes, in plain PyTorch; see there."""
    ignore_index = as_label(ignore_index)
    check(logits, target, formula, None, None, ignore_index, "normalized")
    row, live, _ = rows(logits.detach(), target, ignore_index, needs_all_logits=False)
    p, w = (torch.where(live, x, 0.0).reshape(target.shape) for x in (row.p, _example_weight(formula, row)))
    return RowStats(p, w)
