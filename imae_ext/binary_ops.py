"""The operators of binary losses and their derivative: backward reads the logits again, nothing else is kept."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from . import binary_checks, reference
from .checks import REDUCTIONS
from .formulas import Formula, unpack
from .ops import needs_reference

_forward = torch.ops.imae_ext.binary_forward.default
_backward = torch.ops.imae_ext.binary_backward.default

Weights = Tensor | None
# formula, weight, pos_weight, sample_weight, ignore_index, reduction
Options = tuple[Formula, Weights, Weights, Weights, int, str]


def _reference(logits: Tensor, target: Tensor, options: Options) -> Tensor:
    formula, weight, pos_weight, sample_weight, ignore_index, reduction = options
    return reference.binary_robust_loss(
        logits,
        target,
        formula,
        weight=weight,
        pos_weight=pos_weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, target, ctx.packed, *weights, ctx.ignored, ctx.code = inputs
    ctx.save_for_backward(logits, target, *weights, output[1])
    ctx.set_materialize_grads(False)


def _derivative(ctx: Any, grad_output: Tensor | None, divisor: Tensor | None) -> tuple[Tensor | None, ...]:
    grad = None
    if grad_output is not None:
        logits, target, *weights, divisor = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph
            weights = [each if each is None else each.expand(logits.shape) for each in weights]
            options = cast(Options, (unpack(ctx.packed), *weights, ctx.ignored, list(REDUCTIONS)[ctx.code]))
            value = _reference(logits, target, options)
            (grad,) = torch.autograd.grad(value, logits, grad_output, create_graph=True)
        else:
            grad = _backward(logits, target, ctx.packed, *weights, ctx.ignored, divisor, grad_output)
    return grad, None, None, None, None, None, None, None


torch.library.register_autograd("imae_ext::binary_forward", _derivative, setup_context=_save)


def _spread(weight: Weights, shape: torch.Size) -> Weights:
    """Return a weight as the kernels walk over it: ones may lead and trail in its shape, between them all is whole."""
    if weight is None:
        return None
    pairs = list(zip(weight.shape, shape[len(shape) - weight.dim() :], strict=True))
    while pairs and pairs[-1][0] == 1:
        pairs.pop()
    while pairs and pairs[0][0] == 1:
        pairs.pop(0)
    return weight if all(size == whole for size, whole in pairs) else weight.expand(shape).contiguous()


def loss(logits: Tensor, target: Tensor, options: Options) -> Tensor:
    """Compute the loss, differentiable with respect to the logits."""
    formula, weight, pos_weight, sample_weight, ignore_index, reduction = options
    binary_checks.check_binary(logits, target, options)
    if needs_reference(target, weight, pos_weight, sample_weight):
        return _reference(logits, target, options)
    if target.dtype in (torch.int8, torch.int16):
        target = target.int()
    of_rows = binary_checks.of_rows(sample_weight, logits)
    weights = [_spread(each, logits.shape) for each in (weight, pos_weight, of_rows)]
    try:
        value, _ = _forward(logits, target, formula.packed, *weights, ignore_index, REDUCTIONS[reduction])
        return cast(Tensor, value)
    except RuntimeError:
        binary_checks.check_amounts(target, ignore_index)
        raise
