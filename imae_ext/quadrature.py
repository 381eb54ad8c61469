"""The bounded part of IMAE's and DM's value, an integral over the margin: what csrc/prepare.cpp fits series to."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from . import _torch

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
    total = 0.0
    for x, w in zip(*rule(32), strict=True):
        odds = 0.5 * x * (1 - 0.5 * x)
        total += 0.5 * w * math.expm1(beta * odds) / odds
    return total


_kept_to_one_half = lru_cache(maxsize=64)(_to_one_half)  # in float64: no number depends on whether it was kept


def integrated(u: Tensor, beta: float, lambd: float) -> Tensor:
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
        near = _integral(per_r, torch.sigmoid(-u.abs()), least, fewer=fewer)
        half = _to_one_half(beta) if torch.compiler.is_compiling() else _kept_to_one_half(beta)
        return torch.where(fitted, near, 2 * half - near)
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
        return integrated(u, beta, lambd)

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
        return bounded(u, beta, lambd), in_dims[0]  # it works number by number


class _BoundedForwardMode(_Bounded):
    """The same with the derivative of forward mode, which torch.compile does not read yet."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return tangent * _slope(ctx)


def _slope(ctx: Any) -> Tensor:
    (u,) = ctx.saved_tensors
    if ctx.lambd == 1:  # a product of both, so that neither one's derivative cancels
        return -torch.expm1(ctx.beta * (torch.sigmoid(u) * torch.sigmoid(-u)))
    exponent = ctx.beta * torch.exp(logsigmoid(-u))
    return -torch.expm1(exponent * torch.exp(ctx.lambd * logsigmoid(u)) if ctx.lambd > 0 else exponent)


def bounded(u: Tensor, beta: float, lambd: float) -> Tensor:
    """B(u), with its derivative in closed form."""
    if not torch.compiler.is_compiling():
        return _BoundedForwardMode.apply(u, beta, lambd)  # type: ignore[no-any-return,no-untyped-call]
    if _torch.transforming():  # which torch.compile cannot combine with a Function
        return integrated(u, beta, lambd)
    return _Bounded.apply(u, beta, lambd)  # type: ignore[no-any-return,no-untyped-call]
