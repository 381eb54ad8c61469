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
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from . import _torch
from . import formulas as f
from .binary_checks import check_amounts, check_binary, of_rows
from .checks import as_label, check, not_ignored
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


# The positive halves of Gauss-Legendre rules: literals cost no import time and can be traced. The 32 nodes are for
# float64; of float32, 16 give the integrals below to 1e-9 over all of the parameters' ranges, and 8 to 4e-9 up to
# beta = 24 where lambd = 1.
_32_NODES = (
    *(0.04830766568773832, 0.1444719615827965, 0.23928736225213706, 0.33186860228212767),
    *(0.42135127613063533, 0.5068999089322294, 0.5877157572407623, 0.6630442669302152),
    *(0.7321821187402897, 0.7944837959679424, 0.84936761373257, 0.8963211557660521),
    *(0.9349060759377397, 0.9647622555875064, 0.9856115115452684, 0.9972638618494816),
)
_32_WEIGHTS = (
    *(0.0965400885147278, 0.09563872007927486, 0.09384439908080457, 0.09117387869576389),
    *(0.08765209300440381, 0.08331192422694675, 0.07819389578707031, 0.0723457941088485),
    *(0.06582222277636185, 0.058684093478535544, 0.050998059262376175, 0.04283589802222668),
    *(0.03427386291302143, 0.02539206530926206, 0.01627439473090567, 0.007018610009470096),
)

_16_NODES = (
    *(0.09501250983763744, 0.2816035507792589, 0.45801677765722737, 0.6178762444026438),
    *(0.755404408355003, 0.8656312023878318, 0.9445750230732326, 0.9894009349916499),
)
_16_WEIGHTS = (
    *(0.1894506104550685, 0.18260341504492358, 0.16915651939500254, 0.14959598881657674),
    *(0.12462897125553388, 0.09515851168249279, 0.062253523938647894, 0.027152459411754096),
)
_8_NODES = (0.1834346424956498, 0.525532409916329, 0.7966664774136267, 0.9602898564975363)
_8_WEIGHTS = (0.36268378337836199, 0.31370664587788727, 0.22238103445337448, 0.10122853629037626)
_RULES = {32: (_32_NODES, _32_WEIGHTS), 16: (_16_NODES, _16_WEIGHTS), 8: (_8_NODES, _8_WEIGHTS)}


def rule(count: int, panels: int = 1) -> tuple[list[float], list[float]]:
    """Return nodes and weights on [0, 1]: the rule of so many nodes on each of so many equal panels."""
    nodes, weights = _RULES[count]
    x = [(i + 0.5 + 0.5 * node) / panels for i in range(panels) for t in nodes for node in (-t, t)]
    return x, [w / 2 / panels for w in weights for _ in range(2)] * panels


# Up to so many numbers at a time a batch of nodes costs little more than a single one.
_BATCH = 1 << 16


def _integral(g: Callable[[Tensor], Tensor], end: Tensor, least: float = 0, panels: int = 1, fewer: int = 16) -> Tensor:
    """Integral of g from 0 to each end, exact to rounding for the smooth g below: a few nodes at a time, in O(N)."""
    nodes = rule(32, panels) if end.dtype is torch.float64 else rule(fewer, (panels + 1) // 2)
    x, w = (torch.tensor(a, dtype=end.dtype).to(end.device) for a in nodes)
    x, w = (each.reshape(-1, *(1,) * end.dim()) for each in (x, w))
    z = end.clamp(min=least)
    if torch.compiler.is_compiling():  # which never stores what it only sums
        return end * (g(z * x) * w).sum(0)
    step = max(1, _BATCH // max(1, end.numel()))
    total = torch.zeros_like(end)
    for i in range(0, len(x), step):
        total = total + (g(z * x[i : i + step]) * w[i : i + step]).sum(0)
    return end * total


def _to_one_half(beta: float) -> float:
    """Return the integral of expm1(beta r (1 - r)) / (r (1 - r)) over r from 0 to 1/2."""
    odds = ((0.5 * x * (1 - 0.5 * x), 0.5 * w) for x, w in zip(*rule(32), strict=True))
    return math.fsum(w * math.expm1(beta * o) / o for o, w in odds)


def _integrated(u: Tensor, beta: float, lambd: float) -> Tensor:
    """B(u) by quadrature: down to p = 1/2 an integral over r; below that over z = -log(2 p), in s = log1p(z).

    The latter suits every lambd. For lambd = 1 the integrand is even in u.
    """

    def per_r(t: Tensor) -> Tensor:
        odds = torch.addcmul(t, t, t, value=-1)  # t (1 - t)
        return torch.expm1(beta * (odds if lambd == 1 else (1 - t) ** lambd * t)) / odds

    def per_s(s: Tensor) -> Tensor:
        nlp = math.log(2) + torch.expm1(s)
        r = -torch.expm1(-nlp)
        return torch.exp(s) * torch.expm1(beta * torch.exp(-lambd * nlp) * r) / r

    fitted, least = u >= 0, 1e-300 if u.dtype is torch.float64 else 1e-30  # below it the integrand is its limit
    if lambd == 1:
        fewer = 8 if abs(beta) <= 24 else 16
        near = _integral(per_r, torch.exp(logsigmoid(-u.abs())), least, fewer=fewer)
        return torch.where(fitted, near, 2 * _to_one_half(beta) - near)
    above = _integral(per_r, torch.where(fitted, torch.exp(logsigmoid(-u)), 0.5), least)
    z = torch.where(fitted, 0.0, -logsigmoid(u) - math.log(2))
    z_max = 40 / min(lambd, 1.0) if lambd > 0 else 40.0  # where p^lambd no longer matters
    below = _integral(per_s, torch.log1p(z.clamp(max=z_max)), panels=6)
    if lambd == 0:
        below = below + math.expm1(beta) * (z - z_max).clamp(min=0)
    return above + below


class _Bounded(torch.autograd.Function):
    """B(u), the integral over margins from u to infinity of expm1(beta p^lambd r): the integrand is its derivative.

    In plain torch, so that it is right to any order.
    """

    @staticmethod
    def forward(u: Tensor, beta: float, lambd: float) -> Tensor:
        return _integrated(u, beta, lambd)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        u, ctx.beta, ctx.lambd = inputs
        ctx.save_for_backward(u)
        ctx.save_for_forward(u)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        return grad_output * _slope(ctx), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], u: Tensor, beta: float, lambd: float) -> tuple[Tensor, Any]:
        return _bounded(u, beta, lambd), in_dims[0]  # it works number by number


class _BoundedForwardMode(_Bounded):
    """The same with the derivative of forward mode, which torch.compile does not read yet."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return tangent * _slope(ctx)


def _slope(ctx: Any) -> Tensor:
    (u,) = ctx.saved_tensors
    exponent = ctx.beta * torch.exp(logsigmoid(-u))
    return -torch.expm1(exponent * torch.exp(ctx.lambd * logsigmoid(u)) if ctx.lambd > 0 else exponent)


def _bounded(u: Tensor, beta: float, lambd: float) -> Tensor:
    if not torch.compiler.is_compiling():
        return _BoundedForwardMode.apply(u, beta, lambd)  # type: ignore[no-any-return,no-untyped-call]
    if _torch.transforming():  # which torch.compile cannot combine with a Function
        return _integrated(u, beta, lambd)
    return _Bounded.apply(u, beta, lambd)  # type: ignore[no-any-return,no-untyped-call]


def _dm(row: Row, beta: float, lambd: float, eps: float) -> Tensor:
    bounded = _bounded(row.u, beta, lambd)
    if eps == 0:
        return (bounded - _integrated(row.u.new_zeros(()), beta, lambd) - row.u) / 2
    d = eps / 2
    return ((torch.log1p(row.r / d) + row.nlp) / (1 + d) + bounded) / 2


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
    check_binary(logits, target, (formula, weight, pos_weight, sample_weight, ignore_index, reduction))
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

    values = torch.where(live, both(functools.partial(_value, formula), x), 0.0)
    if reduction == "none":
        return values
    if reduction == "sum":
        return values.sum()
    if reduction == "mean":
        return values.sum() / samples.sum()
    return values.sum() / both(functools.partial(_example_weight, formula), x.detach()).sum()


def row_stats(logits: Tensor, target: Tensor, formula: f.Formula, *, ignore_index: int = -100) -> RowStats:
    """Compute what :func:`imae_ext.row_stats` computes, in plain PyTorch; see there."""
    ignore_index = as_label(ignore_index)
    check(logits, target, formula, None, None, ignore_index, "normalized")
    row, live, _ = rows(logits.detach(), target, ignore_index, needs_all_logits=False)
    p, w = (torch.where(live, x, 0.0).reshape(target.shape) for x in (row.p, _example_weight(formula, row)))
    return RowStats(p, w)
