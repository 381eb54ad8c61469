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
    target, packed, *options = inputs
    return soft.robust_loss(logits, target, unpack(packed), *options, -100, reduction)


_KERNEL = one_pass.kernel_of("dense", _reference)


def loss(logits: Tensor, target: Tensor, options: Options) -> Tensor:
    """Compute the loss, differentiable with respect to the logits: by a kernel on a CPU, else by the reference."""
    formula, weight, sample_weight, label_smoothing, ignore_index, reduction = options
    on_cpu = isinstance(logits, Tensor) and logits.device.type == "cpu"
    if not on_cpu or needs_reference(target, weight, sample_weight):
        return soft.robust_loss(logits, target, *options)
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
