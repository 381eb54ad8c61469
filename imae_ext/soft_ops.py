"""The operators of probabilities and smoothed labels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from . import one_pass, soft
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
    classes = min(1, logits.dim() - 1)
    rows = logits if logits.dim() == 2 else logits.movedim(classes, -1).reshape(-1, logits.shape[classes])
    if soft.is_meant(logits, target):
        amounts = target if target.dim() == 2 else target.movedim(classes, -1).reshape(rows.shape)
        of_rows = None if sample_weight is None else sample_weight.reshape(-1)
        value = one_pass.loss(
            _KERNEL, rows, (amounts, formula.packed, weight, of_rows, float(label_smoothing)), reduction
        )
    else:
        given = soft.amounts(logits, target, weight, sample_weight, label_smoothing, ignore_index)
        inputs = (given.of_class, formula.packed, None, given.sample_weight, 0.0)
        value = one_pass.loss(_KERNEL, rows, inputs, "sum" if reduction == "mean" else reduction)
        value = value / given.divisor.sum() if reduction == "mean" else value
    if reduction == "none":
        value = value.reshape(logits.shape[:classes] + logits.shape[classes + 1 :])
    return value
