"""The operators of probabilities and smoothed labels, and their derivative: backward reads the logits again."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from . import soft
from .checks import REDUCTIONS
from .formulas import Formula, unpack
from .ops import needs_reference

_forward = torch.ops.imae_ext.dense_forward.default
_backward = torch.ops.imae_ext.dense_backward.default

# formula, weight, sample_weight, label_smoothing, ignore_index, reduction
Options = tuple[Formula, Tensor | None, Tensor | None, float, int, str]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, target, ctx.packed, weight, sample_weight, ctx.smoothing, ctx.code = inputs
    ctx.save_for_backward(logits, target, weight, sample_weight, output[1])
    ctx.set_materialize_grads(False)


def _derivative(ctx: Any, grad_output: Tensor | None, divisor: Tensor | None) -> tuple[Tensor | None, ...]:
    grad = None
    if grad_output is not None:
        logits, target, *weights, divisor = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph
            options = (unpack(ctx.packed), *weights, ctx.smoothing, -100, list(REDUCTIONS)[ctx.code])
            value = soft.robust_loss(logits, target, *options)
            (grad,) = torch.autograd.grad(value, logits, grad_output, create_graph=True)
        else:
            grad = _backward(logits, target, ctx.packed, *weights, ctx.smoothing, divisor, grad_output)
    return grad, None, None, None, None, None, None


torch.library.register_autograd("imae_ext::dense_forward", _derivative, setup_context=_save)


def loss(logits: Tensor, target: Tensor, options: Options) -> Tensor:
    """Compute the loss, differentiable with respect to the logits: by a kernel, or by the reference."""
    formula, weight, sample_weight, label_smoothing, ignore_index, reduction = options
    by_kernel = isinstance(logits, Tensor) and logits.device.type in ("cpu", "cuda")
    if not by_kernel or needs_reference(target, weight, sample_weight):
        return soft.robust_loss(logits, target, *options)
    soft.check_call(logits, target, options)
    classes = min(1, logits.dim() - 1)
    rows = logits.movedim(classes, -1).reshape(-1, logits.shape[classes])
    if soft.is_meant(logits, target):
        amounts = target.movedim(classes, -1).reshape(rows.shape)
        of_rows = None if sample_weight is None else sample_weight.reshape(-1)
        arguments = (amounts, formula.packed, weight, of_rows, float(label_smoothing))
        value, _ = _forward(rows, *arguments, REDUCTIONS[reduction])
    else:
        given = soft.amounts(logits, target, weight, sample_weight, label_smoothing, ignore_index)
        arguments = (given.of_class, formula.packed, None, given.sample_weight, 0.0)
        value, _ = _forward(rows, *arguments, REDUCTIONS["sum" if reduction == "mean" else reduction])
        value = value / given.divisor.sum() if reduction == "mean" else value
    if reduction == "none":
        value = value.reshape(logits.shape[:classes] + logits.shape[classes + 1 :])
    return cast(Tensor, value)
