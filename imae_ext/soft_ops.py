"""The operators of probabilities and smoothed labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import one_pass, soft
from .checks import REDUCTIONS
from .formulas import Formula, unpack
from .ops import needs_reference

# formula, weight, sample_weight, label_smoothing, ignore_index, reduction
Options = tuple[Formula, Tensor | None, Tensor | None, float, int, str]


def _reference(logits: Tensor, inputs: list[Any], reduction: str) -> Tensor:
    target, packed, weight, sample_weight, label_smoothing = inputs
    return soft.robust_loss(logits, target, unpack(packed), weight, sample_weight, label_smoothing, -100, reduction)


_KERNEL = one_pass.kernel_of("dense", _reference, constants=(1, 4))


def loss(logits: Tensor, target: Tensor, options: Options) -> Tensor:
    """Compute the loss, differentiable with respect to the logits: by a kernel of a device that has them.

    On meta tensors, which no kernel computes, and for derivatives that none makes, by the reference.
    """
    formula, weight, sample_weight, label_smoothing, ignore_index, reduction = options
    if not isinstance(logits, Tensor) or logits.is_meta or needs_reference(target, weight, sample_weight):
        return soft.robust_loss(logits, target, *options)
    if (
        logits.dim() == 2
        and soft.is_meant(logits, target)
        and type(ignore_index) is int
        and ignore_index < 0
        and type(label_smoothing) is float
        and (sample_weight is None or sample_weight.dim() == 1)
        and reduction in ("mean", "sum")
    ):
        try:  # the kernel refuses what else may be wrong, and then it can be said
            inputs = (target, formula.packed, weight, sample_weight, label_smoothing)
            return one_pass.loss(_KERNEL, logits, inputs, reduction)
        except (RuntimeError, TypeError, AttributeError):
            soft.check_call(logits, target, options)
            raise
    soft.check_call(logits, target, options)
    rows, inputs, of_mean = _rows(logits, target, options)
    if of_mean is None or reduction != "mean":
        value = one_pass.loss(_KERNEL, rows, inputs, reduction)
    else:
        value = one_pass.loss(_KERNEL, rows, inputs, "sum") / of_mean
    if reduction == "none":
        classes = min(1, logits.dim() - 1)
        value = value.reshape(logits.shape[:classes] + logits.shape[classes + 1 :])
    return value


def divisor(logits: Tensor, target: Tensor, options: Options) -> Tensor:
    """Return what `normalized` divides by; differentiable by the weights."""
    _, weight, sample_weight, *_ = options
    if logits.device.type not in ("cpu", "cuda") or needs_reference(target, weight, sample_weight):
        return soft.divisor(logits, target, options)
    rows, inputs, _ = _rows(logits.detach(), target, options)
    with torch.no_grad():
        return _KERNEL.forward(rows, *inputs, REDUCTIONS["normalized"])[1]


def _rows(logits: Tensor, target: Tensor, options: Options) -> tuple[Tensor, tuple[Any, ...], Tensor | None]:
    """Return logits and inputs as the kernel takes them, and what a mean divides by where the kernel does not know."""
    formula, weight, sample_weight, label_smoothing, ignore_index, _ = options
    classes = min(1, logits.dim() - 1)
    rows = logits if logits.dim() == 2 else logits.movedim(classes, -1).reshape(-1, logits.shape[classes])
    if soft.is_meant(logits, target):
        amounts = target if target.dim() == 2 else target.movedim(classes, -1).reshape(rows.shape)
        of_rows = None if sample_weight is None else sample_weight.reshape(-1)
        return rows, (amounts, formula.packed, weight, of_rows, float(label_smoothing)), None
    given = soft.amounts(logits, target, weight, sample_weight, label_smoothing, ignore_index)
    return rows, (given.of_class, formula.packed, None, given.sample_weight, 0.0), given.divisor.sum()
