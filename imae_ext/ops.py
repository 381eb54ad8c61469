"""The operators torch.ops.imae_ext.* and their derivative.

mean and sum of float32, bfloat16 and float64 logits write the gradient in the forward pass; backward hands that buffer
over, scaled by grad_output if it is not 1. The other cases save four numbers a row, and backward reads the logits
again: grad_output differs from row to row (none), the divisor is known only at the end (normalized), or a loss scale
must be applied before rounding (float16).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from . import checks, reference
from .formulas import Loss

_op = torch.ops.imae_ext
_forward = _op.forward.default
_forward_backward = _op.forward_backward.default
_forward_backward_out = _op.forward_backward_out.default
_forward_save = _op.forward_save.default
_backward = _op.backward.default
_scale = _op.scale_.default
_row_stats = _op.row_stats.default

_ONE_PASS = (1, 2)  # mean, sum
Pair = tuple[Tensor, Tensor]
Options = tuple[Loss, Tensor | None, int, str]  # formula, weight, ignore_index, reduction


def _explain(error: Exception, logits: Tensor, target: Tensor, options: Options) -> None:
    """Raise the error that tells what is wrong with the arguments, or return if nothing is."""
    formula, weight, ignore_index, reduction = options
    checks.check(logits, target, formula, weight, ignore_index, reduction)


class _Loss(torch.autograd.Function):
    """Eager mode: forward with a context, the cheapest form of a Function."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, options: Options) -> Tensor:
        formula, weight, ignore_index, reduction = options
        code = checks.REDUCTIONS[reduction]
        ctx.options = options
        ctx.save_for_backward(logits, target)
        if code in _ONE_PASS and logits.dtype is not torch.float16:
            loss, ctx.grad = _forward_backward(logits, target, weight, formula.packed, code, ignore_index)
            ctx.rows = None
        else:
            loss, *ctx.rows = _forward_save(logits, target, weight, formula.packed, code, ignore_index)
            ctx.grad = None
        return cast(Tensor, loss)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, None, None]:
        formula, weight, ignore_index, reduction = ctx.options
        if torch.is_grad_enabled():  # create_graph: the gradient must be differentiable in its turn
            logits, target = ctx.saved_tensors
            return _differentiable_gradient(logits, target, ctx.options, grad_output), None, None
        if ctx.rows is not None:
            logits, target = ctx.saved_tensors
            return _backward(logits, target, *ctx.rows, grad_output, ignore_index), None, None
        grad = ctx.grad
        if grad is None:  # a second backward through a retained graph; the first one gave the buffer away
            logits, target = ctx.saved_tensors
            code = checks.REDUCTIONS[reduction]
            _, grad = _forward_backward(logits, target, weight, formula.packed, code, ignore_index)
        ctx.grad = None
        _scale(grad, grad_output)
        return grad, None, None


def _differentiable_gradient(logits: Tensor, target: Tensor, options: Options, grad_output: Tensor) -> Tensor:
    formula, weight, ignore_index, reduction = options
    loss = reference.robust_loss(logits, target, formula, weight=weight, ignore_index=ignore_index, reduction=reduction)
    (grad,) = torch.autograd.grad(loss, logits, grad_output, create_graph=True)
    return grad


def loss(logits: Tensor, target: Tensor, options: Options) -> Tensor:
    """Compute the loss, differentiable with respect to the logits."""
    formula, weight, ignore_index, reduction = options
    try:
        if logits.requires_grad and torch.is_grad_enabled():
            return cast(Tensor, _Loss.apply(logits, target, options))  # type: ignore[no-untyped-call]
        code = checks.REDUCTIONS[reduction]
        return cast(Tensor, _forward(logits, target, weight, formula.packed, code, ignore_index))
    except Exception as error:
        _explain(error, logits, target, options)
        raise


def value_and_grad(logits: Tensor, target: Tensor, options: Options, out: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute the loss and its gradient, into `out` if given, outside autograd."""
    formula, weight, ignore_index, reduction = options
    try:
        code = checks.REDUCTIONS[reduction]
        if reduction == "normalized":
            value, *rows = _forward_save(logits, target, weight, formula.packed, code, ignore_index)
            grad = _backward(logits, target, *rows, torch.ones_like(value), ignore_index)
            return value, grad if out is None else out.copy_(grad)
        if out is None:
            return cast(Pair, _forward_backward(logits, target, weight, formula.packed, code, ignore_index))
        return _forward_backward_out(logits, target, weight, formula.packed, code, ignore_index, out), out
    except Exception as error:
        _explain(error, logits, target, options)
        if out is not None:
            checks.check_out(logits, out)
        raise


def row_stats(logits: Tensor, target: Tensor, formula: Loss, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Compute p_y and the example weight of each row."""
    try:
        return cast(Pair, _row_stats(logits, target, formula.packed, ignore_index))
    except Exception as error:
        _explain(error, logits, target, (formula, None, ignore_index, "normalized"))
        raise
