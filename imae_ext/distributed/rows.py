"""robust_loss of rows that lie on several processes: each computes its own, and two numbers are added up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import checks, devices, plain, reference, soft
from .._extension import compiled
from ..formulas import Formula
from . import groups
from .signature import Said

if compiled:
    from .._operators import ops, soft_ops

# formula, weight, sample_weight, label_smoothing, ignore_index, reduction
Options = tuple[Formula, Tensor | None, Tensor | None, float, int, str]


def loss(robust_loss: Callable[..., Tensor], logits: Tensor, target: Tensor, options: Options, group: Any) -> Tensor:
    """Compute :func:`imae_ext.robust_loss`, which is passed, of the rows of a group."""
    formula, weight, sample_weight, label_smoothing, ignore_index, reduction = options
    check(logits, target, options)
    C = logits.shape[min(1, logits.dim() - 1)]
    weights = weight is not None, sample_weight is not None
    said = Said("robust_loss", formula, logits.dtype, reduction, ignore_index, -1, C, label_smoothing, *weights)

    of_these = with_options(robust_loss, logits, target, options)
    return groups.loss(group, reduction, said, lambda: divisor(logits, target, options), weight, (C,), of_these)


def with_options(
    robust_loss: Callable[..., Tensor], logits: Tensor, target: Tensor, options: Options
) -> Callable[..., Tensor]:
    """Return a call that lacks only what sums over processes change: the weight and the reduction."""
    formula, _, sample_weight, label_smoothing, ignore_index, _ = options
    more = {"sample_weight": sample_weight, "label_smoothing": label_smoothing, "ignore_index": ignore_index}
    return partial(robust_loss, logits, target, formula, **more)


def check(logits: Tensor, target: Tensor, options: Options) -> None:
    """Refuse wrong arguments before other processes wait for this one."""
    formula, weight, sample_weight, label_smoothing, ignore_index, reduction = options
    if label_smoothing != 0 or soft.is_meant(logits, target):
        soft.check_call(logits, target, options)
    else:
        checks.check(logits, target, formula, weight, sample_weight, ignore_index, reduction)


def divisor(logits: Tensor, target: Tensor, options: Options) -> Tensor:
    """Return what `mean` or `normalized` divides these rows by; differentiable by the weights."""
    formula, weight, sample_weight, label_smoothing, ignore_index, reduction = options
    ignore_index = checks.as_label(ignore_index)
    dtype = torch.float64 if logits.dtype is torch.float64 else torch.float32
    samples = None if sample_weight is None else sample_weight.reshape(-1)
    is_soft = label_smoothing != 0 or soft.is_meant(logits, target)
    if is_soft and reduction == "normalized":
        of_amounts = soft_ops.divisor if devices.has_kernels(logits) else soft.divisor
        return of_amounts(logits, target, options)
    if soft.is_meant(logits, target):
        rows = target.select(min(1, target.dim() - 1), 0)
        return torch.full((), rows.numel(), dtype=dtype, device=target.device) if samples is None else samples.sum()
    by = reference.row_weights(target.reshape(-1), weight, samples, ignore_index, dtype)
    if reduction == "mean":
        return by.sum()
    path = ops if devices.has_kernels(logits) else plain
    _, example = path.row_stats(logits.detach(), target, formula, ignore_index)
    return reference._weighted(example.reshape(-1), by).sum()
