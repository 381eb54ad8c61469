"""The losses in plain torch operations, for every device that has no kernels: three steps, as in a kernel.

    statistics   a sweep over the row:   shift, sum_exp (and sum) of the other classes, z_y
    formula      per row:                the value by reference.VALUE, and by its derivatives a, b and g_y
    gradient     a sweep over the row:   dL/dz_j = a exp(z_j - shift) + b,  dL/dz_y = g_y

One buffer of the logits' size holds first the logits, then their exponentials, then the gradient; all else has one
number a row. What belongs to a row has the target's shape, so that no layout of the logits needs to be rearranged.

>>> import torch
>>> from imae_ext import IMAE
>>> logits, target = torch.tensor([[2.0, 0.0, 0.0]], requires_grad=True), torch.tensor([0])
>>> loss(logits, target, (IMAE(T=8.0), None, None, -100, "mean")).backward()
>>> logits.grad
tensor([[-1.9116,  0.9558,  0.9558]])
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from . import _torch, by_reference, checks, out_checks, reference
from .by_reference import Options
from .formulas import Formula
from .reference import Row

Pair = tuple[Tensor, Tensor]


class Statistics(NamedTuple):
    """What the sweep found of a row's other classes; each of the target's shape."""

    shift: Tensor  # the others' maximum; 0 where they have no mass
    sum_exp: Tensor  # of exp(z_j - shift)
    sum: Tensor | None  # of z_j - shift; only where a formula needs all logits
    z_y: Tensor  # the label's logit; 0 if the label is not among these classes


class Coefficients(NamedTuple):
    """The gradient dL/dz_j = a exp(z_j - shift) + b, dL/dz_y = g_y, each of the target's shape."""

    a: Tensor
    b: Tensor | None  # None: 0, as for the formulas of p_y alone
    g_y: Tensor


# --- the three steps ----------------------------------------------------------------------------------------------


def statistics(buffer: Tensor, label: Tensor, dim: int, all_logits: bool, here: Tensor | None = None) -> Statistics:
    """Sweep over the logits in `buffer`, and leave exp(z_j - shift) there, with 0 at the label.

    Args:
      buffer: logits in the dtype of computation, classes in `dim`; written to.
      label: each row's class among these, of the target's shape.
      dim: where the classes are.
      all_logits: whether the sum of the logits is wanted.
      here: whether a row's label is among these classes, where they are only a part; None: always.
    """
    index = label.unsqueeze(dim)
    z_y = buffer.gather(dim, index)
    own = None if here is None else here.unsqueeze(dim)

    def put(value: float) -> None:
        at_label = torch.full_like(z_y, value)
        buffer.scatter_(dim, index, at_label if own is None else at_label.where(own, buffer.gather(dim, index)))

    put(-torch.inf)
    largest = buffer.amax(dim, keepdim=True)
    largest = largest.masked_fill(largest == -torch.inf, 0.0)
    buffer.sub_(largest)
    total = None
    if all_logits:
        put(0.0)
        total = buffer.sum(dim)
        put(-torch.inf)
    sum_exp = _exp_(buffer).sum(dim)
    z_y = z_y if own is None else z_y.masked_fill(~own, 0.0)
    return Statistics(largest.squeeze(dim), sum_exp, total, z_y.squeeze(dim))


def _exp_(x: Tensor) -> Tensor:
    """Write e to the power of x over x; on a CPU by exp2, for which torch needs a third of exp's time."""
    return x.mul_(1 / math.log(2)).exp2_() if x.device.type == "cpu" else x.exp_()


def rows(found: Statistics, C: int) -> Row:
    """See the rows as a formula does: from the margin u = z_y - logsumexp of the others, rounded once."""
    log_sum = found.sum_exp.log()
    u = (found.z_y - found.shift) - log_sum
    u = u.masked_fill(found.z_y == torch.inf, torch.nan)  # as softmax has it
    if found.sum is None:
        return Row(u, torch.zeros_like(u), C)
    rest = (C - 1) * (log_sum - logsigmoid(-u)) - found.sum
    return Row(u, rest.masked_fill(found.sum_exp == 0, 0.0 if C == 1 else torch.inf), C)


def formula(found: Statistics, loss: Formula, C: int) -> tuple[Tensor, Coefficients, Row]:
    """Evaluate a loss: each row's value, the coefficients of its gradient, and the row as the formulas see it."""
    row = rows(found, C)
    value, by_u, by_rest = _derivatives(loss, row)
    none = found.sum_exp == 0  # C = 1, or no other class has any mass
    g_y = by_u.masked_fill(none, 0.0) if by_rest is None else by_u + by_rest * ((C - 1) * row.p)
    a, b = -g_y, None
    if by_rest is not None and C != 2:  # with one other class nothing cancels in a alone
        a, b = by_rest * ((C - 1) * row.r) - by_u, -by_rest
    a = (a / found.sum_exp).masked_fill(none, 0.0)
    unknown = row.u.isnan()
    a, g_y, value = (x.masked_fill(unknown, torch.nan) for x in (a, g_y, value))
    return value, Coefficients(a, None if b is None else b.masked_fill(unknown, torch.nan), g_y), row


def gradient(buffer: Tensor, label: Tensor, dim: int, by: Coefficients, here: Tensor | None = None) -> Tensor:
    """Sweep over what `statistics` left, and leave the gradient there."""
    buffer.mul_(by.a.unsqueeze(dim))
    if by.b is not None:
        buffer.add_(by.b.unsqueeze(dim))
    index, g_y = label.unsqueeze(dim), by.g_y.unsqueeze(dim)
    return buffer.scatter_(
        dim, index, g_y if here is None else g_y.where(here.unsqueeze(dim), buffer.gather(dim, index))
    )


def _derivatives(loss: Formula, row: Row) -> tuple[Tensor, Tensor, Tensor | None]:
    """Value, dL/du, and dL/drest where a formula needs all logits, of each row."""
    variables: tuple[Tensor, ...] = (row.u, row.rest) if loss.needs_all_logits else (row.u,)

    def value_of(u: Tensor, rest: Tensor = row.rest) -> Tensor:
        return reference._value(loss, Row(u, rest, row.C))

    if torch.compiler.is_compiling():
        value, pull, *_ = torch.func.vjp(value_of, *variables)
        slopes = pull(torch.ones_like(value))
    else:
        # The slopes' own graph ends here: the hooks of checkpointing would make the whole forward pass again for it.
        unhooked = torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x)
        with torch.inference_mode(False), torch.enable_grad(), unhooked:
            variables = tuple((x.clone() if x.is_inference() else x.detach()).requires_grad_() for x in variables)
            value = value_of(*variables)
            slopes = torch.autograd.grad(value, variables, torch.ones_like(value), materialize_grads=True)
    return value.detach(), slopes[0], slopes[1] if len(slopes) > 1 else None


# --- a call -------------------------------------------------------------------------------------------------------


class _Call:
    """The rows of a call between the steps. The buffer serves one gradient."""

    coefficients: Coefficients
    divisor: Tensor | None = None
    all_live = False  # True: every row counts, and that is known without waiting for a device

    def __init__(self, logits: Tensor, target: Tensor, options: Options, out: Tensor | None = None) -> None:
        self.formula, *_, self.reduction = options
        self.dim = min(1, logits.dim() - 1)
        self.dtype, self.C = logits.dtype, logits.shape[self.dim]
        compute = torch.float32 if logits.dtype.itemsize < 4 else logits.dtype
        known = self._count(target, options, compute)
        self.buffer = logits.to(compute, copy=True) if out is None or out.dtype != compute else out.copy_(logits)
        look = target.device.type == "cpu" and _torch.has_values(target)  # cheap there; and a bad label was refused
        self.all_live = look and bool(self.live.all())
        if not self.all_live:
            self.buffer.masked_fill_(~self.live.unsqueeze(self.dim), 0.0)
        found = statistics(self.buffer, self.label, self.dim, all_logits=self.formula.needs_all_logits)
        self.found = found if look else found._replace(z_y=found.z_y.masked_fill(~known, torch.nan))

    def _count(self, target: Tensor, options: Options, compute: torch.dtype) -> Tensor:
        """Find which rows count, with what weight; return whether each label is a class."""
        _, weight, sample_weight, ignore_index, _ = options
        self.live = checks.not_ignored(target, ignore_index)
        wanted = target.where(self.live, 0).long()
        self.label = wanted.clamp(0, self.C - 1)
        known = self.label == wanted  # others are NaN, where nobody may look at the labels
        self.weight = None if weight is None else weight.to(compute)[self.label]
        if sample_weight is not None:
            self.weight = sample_weight.to(compute) * (1 if self.weight is None else self.weight)
        if self.weight is not None:
            self.live = self.live & ((self.weight != 0) | ~known)
        return known

    def _total(self, x: Tensor) -> Tensor:
        """Add up what the rows have."""
        return x.sum()

    def loss(self, with_gradient: bool) -> Tensor:
        """Reduce the rows' values, and remember by what."""
        if with_gradient:
            value, self.coefficients, row = formula(self.found, self.formula, self.C)
        else:
            row = rows(self.found, self.C)
            value = reference._value(self.formula, row)
        weight = torch.ones_like(value) if self.weight is None else self.weight
        values = self._counted(value if self.weight is None else value * weight)
        if self.reduction == "none":
            return values
        if self.reduction == "mean":
            self.divisor = self._total(self._counted(weight))
        elif self.reduction == "normalized":
            self.divisor = self._total(self._counted(weight * reference._example_weight(self.formula, row)))
        return self._total(values) / (1 if self.divisor is None else self.divisor)

    def gradient(self, grad_output: Tensor) -> Tensor:
        """Turn the buffer into the gradient; a batch of grad_outputs may not be written into it."""
        by = grad_output if self.divisor is None else grad_output / self.divisor
        by = self._counted(by if self.weight is None else by * self.weight)
        batch = not torch.compiler.is_compiling() and _torch.is_batch(grad_output)
        a, b, g_y = (None if x is None else self._counted(x) for x in self.coefficients)
        assert a is not None and g_y is not None
        if b is None and not batch:
            return gradient(self.buffer, self.label, self.dim, Coefficients(a * by, None, g_y * by)).to(self.dtype)
        grad = gradient(self.buffer, self.label, self.dim, Coefficients(a, b, g_y))
        by = by.expand(self.label.shape).unsqueeze(self.dim)
        return (grad * by if batch else grad.mul_(by)).to(self.dtype)

    def _counted(self, x: Tensor) -> Tensor:
        """0 in the rows that do not count, whatever is there."""
        return x if self.all_live else torch.where(self.live, x, 0.0)


class _Loss(torch.autograd.Function):
    """For eager mode. The call's buffer is no saved tensor: backward may need it alone, and the logits may change.

    The hooks of checkpointing and offloading do not see it, so that none is kept where there are any.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, options: Options) -> Tensor:
        call = _Call(logits, target, options)
        loss = call.loss(with_gradient=True)
        ctx.save_for_backward(logits, target, *options[1:3])
        ctx.options, ctx.call = options, None if _torch.saving_hooks(False) else call
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        call, ctx.call = ctx.call, None
        formula, _, _, ignore_index, reduction = ctx.options
        if torch.is_grad_enabled():  # create_graph
            logits, target, *weights = ctx.saved_tensors
            options = (formula, *weights, ignore_index, reduction)
            return by_reference.gradient(logits, target, options, grad_output), None, None
        if call is None:  # a second backward through a retained graph; the first one used it up
            logits, target, *weights = ctx.saved_tensors
            call = _Call(logits, target, (formula, *weights, ignore_index, reduction))
            call.loss(with_gradient=True)
        return call.gradient(grad_output), None, None


def loss(logits: Tensor, target: Tensor, options: Options) -> Tensor:
    """Compute the loss, differentiable with respect to the logits.

    torch.compile gets the reference, which it fuses: what is derived from that is the caller's graph to the last step.
    """
    options = checks.plain(options)
    trained_weight = any(getattr(weight, "requires_grad", False) for weight in options[1:3])
    if torch.compiler.is_compiling() or trained_weight or _torch.transformed():
        return by_reference.loss(logits, target, options)
    checks.check(logits, target, *options)
    if logits.requires_grad and torch.is_grad_enabled():
        return _Loss.apply(logits, target, options)  # type: ignore[no-any-return,no-untyped-call]
    with torch.no_grad():
        return _Call(logits, target, options).loss(with_gradient=False)


def value_and_grad(logits: Tensor, target: Tensor, options: Options, out: Tensor | None) -> Pair:
    """Compute the loss and its gradient, into `out` if given, outside autograd."""
    options = checks.plain(options)
    checks.check(logits, target, *options)
    if out is not None:
        out_checks.check_like(logits, out) if torch.compiler.is_compiling() else out_checks.check_out(logits, out)
    with torch.no_grad():
        call = _Call(logits.detach(), target, options, out)
        loss = call.loss(with_gradient=True)
        grad = call.gradient(torch.ones_like(loss))
        return loss, grad if out is None or grad is out else out.copy_(grad)


def row_stats(logits: Tensor, target: Tensor, formula: Formula, ignore_index: int) -> Pair:
    """Compute p_y and the example weight of each row."""
    options = checks.plain((formula, None, None, ignore_index, "normalized"))
    checks.check(logits, target, *options)
    with torch.no_grad():
        call = _Call(logits.detach(), target, options)
        row = rows(call.found, call.C)
        return call._counted(row.p), call._counted(reference._example_weight(formula, row))
