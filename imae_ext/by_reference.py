"""What neither the kernels nor the steps in plain torch differentiate: the reference, with a call's options."""

from __future__ import annotations

import torch
from torch import Tensor

from . import reference
from .formulas import Formula

# formula, weight, sample_weight, ignore_index, reduction: the order that they have everywhere
Options = tuple[Formula, Tensor | None, Tensor | None, int, str]
# formula, weight, pos_weight, sample_weight, ignore_index, reduction
BinaryOptions = tuple[Formula, Tensor | None, Tensor | None, Tensor | None, int, str]


def loss(logits: Tensor, target: Tensor, options: Options) -> Tensor:
    """Compute the loss by what is right to any order, and under every transform."""
    formula, weight, sample_weight, ignore_index, reduction = options
    return reference.robust_loss(
        logits,
        target,
        formula,
        weight=weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def binary(logits: Tensor, target: Tensor, options: BinaryOptions) -> Tensor:
    """Compute a binary loss likewise."""
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


def gradient(logits: Tensor, target: Tensor, options: Options, grad_output: Tensor) -> Tensor:
    """Return a gradient that can be differentiated."""
    (grad,) = torch.autograd.grad(loss(logits, target, options), logits, grad_output, create_graph=True)
    return grad
