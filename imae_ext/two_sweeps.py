"""Two labels a row without a kernel of their own: the losses of both, added up."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import checks, reference
from .by_reference import Options
from .functional import robust_loss, row_stats


class TwoLabels(NamedTuple):
    """The labels of each row, and their amounts: of the target's shape, or of no dimension."""

    target: Tensor
    other: Tensor
    lam: Tensor
    other_lam: Tensor | None  # None: 1 - lam


def in_two_sweeps(logits: Tensor, labels: TwoLabels, options: Options) -> Tensor:
    """Compute the loss as the sum of those of both labels."""
    formula, weight, _, ignore_index, reduction = options
    both, samples = _parts(labels, options)
    by_row = "none" if reduction == "none" else "sum"
    parts = [
        robust_loss(
            logits,
            label,
            formula,
            weight=weight,
            sample_weight=amount * samples,
            ignore_index=ignore_index,
            reduction=by_row,
        )
        for label, amount in both
    ]
    total = parts[0] + parts[1]
    if reduction in ("none", "sum"):
        return total
    return total / divisor(logits, labels, options)


def divisor(logits: Tensor, labels: TwoLabels, options: Options) -> Tensor:
    """Return what `mean` and `normalized` divide by."""
    formula, weight, _, ignore_index, reduction = options
    both, samples = _parts(labels, options)
    if reduction == "mean":
        return torch.where(checks.not_ignored(labels.target, ignore_index), samples, 0.0).sum()
    total = torch.zeros_like(samples[..., :1].sum()).detach()
    for label, amount in both:
        of_label = reference.row_weights(label, weight, amount * samples, ignore_index, amount.dtype)
        example = row_stats(logits, label, formula, ignore_index=ignore_index).example_weight
        assert example is not None  # a formula was given
        total = total + torch.where(of_label == 0, 0.0, of_label * example).sum()
    return total.detach()


def _parts(labels: TwoLabels, options: Options) -> tuple[tuple[tuple[Tensor, Tensor], ...], Tensor]:
    """Return both labels with their amounts, each of the target's shape, and the weights of the rows."""
    _, _, sample_weight, ignore_index, _ = options
    target, other, first, second = labels
    second = 1 - first if second is None else second
    first, second = first.expand(target.shape), second.expand(target.shape)
    samples = torch.ones_like(first) if sample_weight is None else sample_weight.to(first.dtype)
    live = checks.not_ignored(target, ignore_index)
    other = torch.where(live, other.to(target.dtype), target)  # where target is ignored, so is this
    return ((target, first), (other, second)), samples
