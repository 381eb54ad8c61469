"""The operators of two labels a row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import checks, one_pass, two_labels
from .by_reference import Options
from .formulas import unpack
from .ops import needs_reference
from .two_sweeps import TwoLabels, in_two_sweeps


def _reference(logits: Tensor, inputs: list[Any], reduction: str) -> Tensor:
    labels, packed, rest = TwoLabels(*inputs[:4]), inputs[4], inputs[5:]
    return in_two_sweeps(logits, labels, (unpack(packed), *rest, reduction))


_KERNEL = one_pass.kernel_of("mixed", _reference, constants=(4, 7))


def loss(logits: Tensor, labels: TwoLabels, options: Options) -> Tensor:
    """Compute the loss, differentiable with respect to the logits: by a kernel of a device that has them.

    On meta tensors, which no kernel computes, and for derivatives that none makes, in two sweeps.
    """
    formula, weight, sample_weight, ignore_index, reduction = options
    target, other, *amounts = labels
    if logits.is_meta or needs_reference(*amounts, weight, sample_weight):
        return in_two_sweeps(logits, labels, options)
    if not logits.is_cpu and checks.may_look_at(target):  # on a CPU, the kernel looks
        two_labels.check_values(logits, target, other, ignore_index)
    inputs: tuple[Any, ...] = (*labels, formula.packed, weight, sample_weight, ignore_index)
    rows = logits
    if logits.dim() != 2:
        classes = min(1, logits.dim() - 1)
        rows = logits.movedim(classes, -1).reshape(-1, logits.shape[classes])
        flat = (x if not isinstance(x, Tensor) or x.dim() == 0 else x.reshape(-1) for x in inputs[:4])
        of_rows = None if sample_weight is None else sample_weight.reshape(-1)
        inputs = (*flat, formula.packed, weight, of_rows, ignore_index)
        if target.dim() == 0:  # one row
            inputs = (target.reshape(1), other.reshape(1), *inputs[2:])
    try:
        value = one_pass.loss(_KERNEL, rows, inputs, reduction)
    except RuntimeError:
        two_labels.check_values(logits, target, other, ignore_index)
        torch.empty_like(logits)  # torch's own error if there is no memory for the gradient
        raise
    return value.reshape(target.shape) if reduction == "none" else value
