"""The operators torch.ops.imae_ext.* and their derivative.

mean and sum of float32, bfloat16 and float64 logits write the gradient in the forward pass; backward hands that buffer
over, scaled by grad_output if it is not 1. The other cases save four numbers a row, and backward reads the logits
again: grad_output differs from row to row (none), the divisor is known only at the end (normalized), or a loss scale
must be applied before rounding (float16).

Whatever the kernels cannot differentiate goes through the reference, which is right to any order: a gradient that is
itself differentiated, the transforms of torch.func, forward mode, and class weights that want a gradient.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from . import _torch, checks, reference
from .checks import REDUCTIONS
from .formulas import Loss, unpack

_op = torch.ops.imae_ext
_forward = _op.forward.default
_forward_backward = _op.forward_backward.default
_forward_backward_out = _op.forward_backward_out.default
_forward_save = _op.forward_save.default
_traced_forward_backward = _op.traced_forward_backward.default
_traced_forward_save = _op.traced_forward_save.default
_backward = _op.backward.default
_scale = _op.scale_.default
_row_stats = _op.row_stats.default

Pair = tuple[Tensor, Tensor]
Options = tuple[Loss, Tensor | None, int, str]  # formula, weight, ignore_index, reduction


def _one_pass(logits: Tensor, code: int) -> bool:
    return code in (REDUCTIONS["mean"], REDUCTIONS["sum"]) and logits.dtype is not torch.float16


def _reference(logits: Tensor, target: Tensor, options: Options) -> Tensor:
    formula, weight, ignore_index, reduction = options
    return reference.robust_loss(logits, target, formula, weight=weight, ignore_index=ignore_index, reduction=reduction)


def _differentiable_gradient(logits: Tensor, target: Tensor, options: Options, grad_output: Tensor) -> Tensor:
    (grad,) = torch.autograd.grad(_reference(logits, target, options), logits, grad_output, create_graph=True)
    return grad


def _scaled(grad: Tensor, grad_output: Tensor) -> Tensor:
    """Do what scale_ does, rounding once, but not in place."""
    return (grad.to(grad_output.dtype) * grad_output).to(grad.dtype)


class _Loss(torch.autograd.Function):
    """For eager mode: forward takes a context, the cheapest form of a Function.

    The gradient, ready before it is asked for, is no saved tensor: reading one reads all, and the logits may have
    changed meanwhile, which is no error. It passes the hooks by itself: checkpointing drops it, offloading moves it.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, options: Options) -> Tensor:
        formula, weight, ignore_index, reduction = options
        code = REDUCTIONS[reduction]
        ctx.options = options
        if _one_pass(logits, code):
            ctx.save_for_backward(logits, target, weight)
            loss, grad = _forward_backward(logits, target, weight, formula.packed, code, ignore_index)
            hooks = _torch.saving_hooks(False)
            ctx.grad, ctx.unpack = (hooks[0](grad), hooks[1]) if hooks else (grad, None)
            ctx.one_pass = True
        else:
            loss, rows, divisor = _forward_save(logits, target, weight, formula.packed, code, ignore_index)
            ctx.save_for_backward(logits, target, weight, rows, divisor)
            ctx.one_pass = False
        return loss  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, None, None]:
        formula, weight, ignore_index, reduction = ctx.options
        if torch.is_grad_enabled():  # create_graph
            logits, target, *_ = ctx.saved_tensors
            return _differentiable_gradient(logits, target, ctx.options, grad_output), None, None
        if not ctx.one_pass:
            logits, target, _, rows, divisor = ctx.saved_tensors
            try:
                return _backward(logits, target, rows, divisor, grad_output, ignore_index), None, None
            except RuntimeError:
                checks.check_labels(logits, target, ignore_index)
                _ask_for_memory(logits)
                raise
        grad, ctx.grad = ctx.grad, None
        if grad is None:  # a second backward through a retained graph; the first one gave the buffer away
            logits, target, weight = ctx.saved_tensors
            code = REDUCTIONS[reduction]
            _, grad = _forward_backward(logits, target, weight, formula.packed, code, ignore_index)
        elif ctx.unpack:
            return _scaled(ctx.unpack(grad), grad_output), None, None
        try:
            _scale(grad, grad_output)
        except RuntimeError:
            if not _torch.is_batch(grad_output):
                raise
            grad = _scaled(grad, grad_output)
        return grad, None, None


# Function.apply without what it does for torch.func's transforms, which never get here: a seventh of a small call.
_apply = _torch.apply_of(_Loss)


# --- for torch.compile and export: operators with a derivative of their own -----------------------------------------


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    logits, target, weight, ctx.packed, ctx.code, ctx.ignored = inputs
    ctx.save_for_backward(logits, target, weight, *output[1:])
    ctx.set_materialize_grads(False)


def _derivative(ctx: Any, grad_output: Tensor | None, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    if any(other is not None for other in others):
        raise RuntimeError("imae_ext: the traced operators have a derivative of the loss alone")
    grad = None
    if grad_output is not None:
        logits, target, weight, *found = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph
            options = unpack(ctx.packed), weight, ctx.ignored, list(REDUCTIONS)[ctx.code]
            grad = _differentiable_gradient(logits, target, options, grad_output)
        elif len(found) == 1:
            grad = _scaled(found[0], grad_output)
        else:
            grad = _backward(logits, target, *found, grad_output, ctx.ignored)
    return grad, None, None, None, None, None


for _name in ("traced_forward_backward", "traced_forward_save"):
    torch.library.register_autograd(f"imae_ext::{_name}", _derivative, setup_context=_save)


# What a compiled graph reads in backward tells torch < 2.13 whether that may be differentiated again. It must be logits
# then, which are read twice: with the gradient alone, a penalty would silently be left out.
_MAY_KEEP_GRADIENT = torch.__version__ >= "2.13"


def _traced(logits: Tensor, target: Tensor, options: Options) -> Tensor:
    formula, weight, ignore_index, reduction = options
    checks.check_options(formula, reduction, ignore_index)
    checks.check_tensors(logits, target, weight)
    arguments = (logits, target, weight, formula.packed, REDUCTIONS[reduction], ignore_index)
    if not torch.is_grad_enabled():
        return cast(Tensor, _forward(*arguments))
    one_pass = _MAY_KEEP_GRADIENT and _one_pass(logits, REDUCTIONS[reduction])
    return cast(Tensor, (_traced_forward_backward if one_pass else _traced_forward_save)(*arguments)[0])


def _ask_for_memory(logits: Tensor) -> None:
    """Raise torch's own error if there is none for the gradient: the operators only tell which call failed."""
    torch.empty_like(logits)


# What wrong arguments may raise before checks.py has looked at them. Not Exception: checkpointing ends a recomputation
# with one of its own.
_REFUSALS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


def loss(logits: Tensor, target: Tensor, options: Options) -> Tensor:
    """Compute the loss, differentiable with respect to the logits."""
    formula, weight, ignore_index, reduction = options
    trained_weight = weight is not None and getattr(weight, "requires_grad", False)
    if trained_weight or _torch.transforming() or _torch.in_forward_mode():
        return _reference(logits, target, options)
    if torch.compiler.is_compiling():
        return _traced(logits, target, options)
    try:
        if logits.requires_grad and torch.is_grad_enabled():
            return _apply(_torch.unwrap(logits), target, options)  # type: ignore[no-any-return]
        value: Tensor = _forward(logits, target, weight, formula.packed, REDUCTIONS[reduction], ignore_index)
        return value
    except _REFUSALS:
        checks.check(logits, target, *options)
        if logits.requires_grad and torch.is_grad_enabled():
            _ask_for_memory(logits)
        raise


def value_and_grad(logits: Tensor, target: Tensor, options: Options, out: Tensor | None) -> Pair:
    """Compute the loss and its gradient, into `out` if given, outside autograd."""
    formula, weight, ignore_index, reduction = options
    try:
        logits = logits.detach()
        code = REDUCTIONS[reduction]
        if reduction == "normalized":
            if out is not None and not torch.compiler.is_compiling():
                checks.check_out(logits, out)
            value, *rows = _forward_save(logits, target, weight, formula.packed, code, ignore_index)
            grad = _backward(logits, target, *rows, torch.ones_like(value), ignore_index)
            return value, grad if out is None else out.copy_(grad)
        if out is None:
            return cast(Pair, _forward_backward(logits, target, weight, formula.packed, code, ignore_index))
        if out.requires_grad:
            checks.check_out(logits, out)
        value = _forward_backward_out(logits, target, weight, formula.packed, code, ignore_index, out)
        if not torch.compiler.is_compiling():
            increment_version(out)  # so that autograd notices if it had saved the buffer
        return value, out
    except _REFUSALS:
        checks.check(logits, target, *options)
        if out is None:
            _ask_for_memory(logits)
        else:
            checks.check_out(logits, out)
        raise


def row_stats(logits: Tensor, target: Tensor, formula: Loss, ignore_index: int) -> Pair:
    """Compute p_y and the example weight of each row."""
    try:
        return cast(Pair, _row_stats(logits.detach(), target, formula.packed, ignore_index))
    except _REFUSALS:
        checks.check(logits, target, formula, None, ignore_index, "normalized")
        raise
