"""Rows whose classes are spread over processes: each sweeps its own, and three or four numbers a row are reduced.

    statistics   of the classes that are here; then a maximum over the processes, and a sum of two or three numbers
    formula      the same everywhere, from the whole row's statistics
    gradient     of the classes that are here

No process sees the others' logits. The first sweep is plain.py's, a part of the rows at a time; the second one is a
kernel's on a CPU, else plain.py's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from .. import _torch, devices, plain
from ..by_reference import Options
from ..plain import Coefficients, Statistics
from . import groups


class Spread(NamedTuple):
    """Where the rest of the rows is."""

    first_class: int  # of those that are here
    num_classes: int  # of the whole row
    classes: groups.Groups  # the groups that share a row's classes
    rows: groups.Groups  # the groups that have other rows, of which a mean is taken


CHUNK_BYTES = 2 << 20  # of the dtype of computation: a part stays in a core's cache
NO_LABEL = -1  # for the kernel: every row's label counts, and coefficients say whether the row does


class _Call(plain._Call):
    """The rows of a call, of which the statistics come from all processes."""

    def __init__(self, logits: Tensor, target: Tensor, options: Options, spread: Spread) -> None:
        self.spread = spread
        self.logits = logits
        self.formula, *_, self.reduction = options
        self.dim = min(1, logits.dim() - 1)
        self.dtype, self.C = logits.dtype, spread.num_classes
        self.compute = torch.float64 if logits.dtype is torch.float64 else torch.float32
        known = self._count(target, options, self.compute)
        local, size = self.label - spread.first_class, logits.shape[self.dim]
        self.here = (local >= 0) & (local < size)
        self.local = local.clamp(0, max(size - 1, 0))
        found = self._reduced(self._statistics())
        self.found = found._replace(z_y=found.z_y.masked_fill(~known, torch.nan))

    def _statistics(self) -> Statistics:
        """Sweep over the classes that are here."""
        shape, all_logits = self.live.shape, self.formula.needs_all_logits
        if self.logits.shape[self.dim] == 0:
            nothing = torch.zeros(shape, dtype=self.compute, device=self.logits.device)
            return Statistics(nothing, nothing, nothing if all_logits else None, nothing)
        parts = [self._of_rows(at, all_logits) for at in self._chunks()]
        if len(parts) == 1:
            return parts[0]
        return Statistics(*(None if x[0] is None else torch.cat(x) for x in zip(*parts, strict=True)))  # type: ignore[arg-type]

    def _chunks(self) -> list[slice]:
        """Divide the rows so that a CPU sweeps several times over a part while that is in its cache."""
        N, size = len(self.logits), self.logits.numel()
        if self.dim == 0 or N == 0 or self.logits.device.type != "cpu" or torch.compiler.is_compiling():
            return [slice(None)]
        step = max(1, CHUNK_BYTES * N // (size * self.compute.itemsize))
        return [slice(begin, begin + step) for begin in range(0, N, step)]

    def _of_rows(self, at: slice, all_logits: bool) -> Statistics:
        """Sweep over some rows."""
        one = self.dim == 0  # row, which cannot be divided
        logits, live, local, here = (x if one else x[at] for x in (self.logits, self.live, self.local, self.here))
        buffer = logits.to(self.compute, copy=True).masked_fill_(~live.unsqueeze(self.dim), 0.0)
        return plain.statistics(buffer, local, self.dim, all_logits, here)

    def _reduced(self, own: Statistics) -> Statistics:
        """Put the processes' statistics together: a maximum, then sums relative to it."""
        size = self.logits.shape[self.dim]
        others = (size - self.here.long()).to(self.compute)
        # NaN would not survive a maximum; it does survive the sums
        empty = (own.sum_exp == 0) | ~torch.isfinite(own.shift)
        largest = own.shift.masked_fill(empty, -torch.inf)
        for group in self.spread.classes:
            dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
        largest = largest.masked_fill(largest == -torch.inf, 0.0)
        off = torch.where(empty, 0.0, own.shift - largest)
        sums = [own.sum_exp * off.exp(), own.z_y]
        if own.sum is not None:
            by = torch.where(empty, own.shift - largest, off)
            sums.append(own.sum + torch.where(others == 0, 0.0, others * by))
        both = torch.stack(sums)
        for group in self.spread.classes:
            dist.all_reduce(both, group=group)
        return Statistics(largest, both[0], both[2] if own.sum is not None else None, both[1])

    def _total(self, x: Tensor) -> Tensor:
        return groups.total(x.sum(), self.spread.rows).to(self.compute) if self.spread.rows else x.sum()

    def saved(self) -> tuple[Tensor, Tensor]:
        """Return the rows' coefficients, (N, 4), an infinite shift where a row does not count, and the divisor."""
        a, b, g_y = self.coefficients
        by = torch.ones_like(a) if self.weight is None else self.weight
        b = torch.zeros_like(a) if b is None else b * by
        shift = self.found.shift.masked_fill(~torch.isfinite(self.found.shift), 0.0)
        shift = shift.masked_fill(~self.live, torch.inf)
        divisor = torch.ones_like(a[..., :1].sum()) if self.divisor is None else self.divisor
        return torch.stack((shift, a * by, b, g_y * by), -1).reshape(-1, 4), divisor


def _gradient(ctx: Any, grad_output: Tensor) -> Tensor:
    """Sweep over the classes that are here again, and write their gradient."""
    logits, local, here, coefficients, divisor = ctx.saved_tensors
    dim = min(1, logits.dim() - 1)
    if logits.shape[dim] == 0 or logits.numel() == 0:
        return torch.zeros_like(logits)
    shift, a, b, g_y = (x.reshape(local.shape) for x in coefficients.unbind(-1))
    compute = a.dtype
    if logits.device.type == "cpu" and devices.has_kernels(logits) and not torch.compiler.is_compiling():
        # the kernel writes g_y at a label; where that is elsewhere, the first class takes its place
        first = a * torch.exp(logits.select(dim, 0).to(compute) - shift) + b
        written = torch.stack((shift, a, b, torch.where(here, g_y, first)), -1).reshape(-1, 4)
        by = grad_output.reshape(-1) if grad_output.dim() else grad_output
        label = local.masked_fill(~here, 0)
        return torch.ops.imae_ext.backward(logits, label, written, divisor, by, NO_LABEL)  # type: ignore[no-any-return]
    live = torch.isfinite(shift)
    at = shift.masked_fill(~live, 0.0)
    buffer = logits.to(compute, copy=True).masked_fill_(~live.unsqueeze(dim), 0.0).sub_(at.unsqueeze(dim)).exp_()
    by = grad_output / divisor
    a, b, g_y = (torch.where(live, x, 0.0) for x in (a, b, g_y))
    grad = plain.gradient(buffer, local, dim, Coefficients(a, b, g_y), here)
    return grad.mul_(torch.where(live, by, 0.0).unsqueeze(dim)).to(logits.dtype)


class _Loss(torch.autograd.Function):
    """Every process gets the value, and the gradient of its own logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, options: Options, spread: Spread) -> Tensor:
        call = _Call(logits, target, options, spread)
        value = call.loss(with_gradient=True)
        ctx.save_for_backward(logits, call.local, call.here, *call.saved())
        return value

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "imae_ext: a loss whose classes are spread over processes has no second derivative "
                "(create_graph=True); gather the logits, or shard rows instead of classes"
            )
        return _gradient(ctx, grad_output), None, None, None


def loss(logits: Tensor, target: Tensor, options: Options, spread: Spread) -> Tensor:
    """Compute the loss of a checked call, differentiable with respect to the logits that are here."""
    trained = any(w is not None and w.requires_grad for w in options[1:3])
    if trained or _torch.transformed():
        raise RuntimeError(
            "imae_ext: a loss whose classes are spread over processes has a derivative by the logits alone, and none "
            "inside torch.func or forward mode; gather the logits, or shard rows instead of classes"
        )
    if logits.requires_grad and torch.is_grad_enabled():
        return _Loss.apply(logits, target, options, spread)  # type: ignore[no-any-return,no-untyped-call]
    with torch.no_grad():
        return _Call(logits, target, options, spread).loss(with_gradient=False)
