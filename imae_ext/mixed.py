"""Two labels a row, each by its amount: mixup and CutMix that keep the labels apart, peer loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import checks, devices, hints, two_labels
from ._extension import compiled
from ._signature import explained
from .by_reference import Options
from .distributed import dtensor, groups
from .distributed.signature import Said
from .formulas import Formula
from .two_sweeps import TwoLabels, divisor, in_two_sweeps

if compiled:
    from . import mixed_ops

if TYPE_CHECKING:
    from .distributed.groups import Group


@explained
def mixed_loss(
    logits: Tensor,
    target: Tensor,
    other: Tensor,
    lam: float | Tensor,
    formula: Formula,
    *,
    other_lam: float | Tensor | None = None,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    group: Group = None,
) -> Tensor:
    """Compute ``lam L_target + other_lam L_other`` of each row, ``L_k`` the formula's loss for label ``k``.

    Args:
      logits: as in :func:`robust_loss`.
      target: class indices, as in :func:`robust_loss`.
      other: the other labels, of the target's shape. Where they are ``ignore_index``, their part is 0.
      lam: a number, or a tensor of the target's shape; of any sign.
      formula: what to compute: ``IMAE(8.0)``, ``2.0 * NCE() + MAE()``, ...
      other_lam: likewise; ``1 - lam`` if not given. ``lam=1, other_lam=-alpha`` with labels of other rows is peer loss.
      weight: ``(C,)``; each label's part is multiplied by the weight of its class.
      sample_weight: of the target's shape; each row is multiplied by it, and it is what a mean divides by.
      ignore_index: rows whose ``target`` is this do not count, whatever ``other`` is.
      reduction: ``"none"``; ``"sum"``; ``"mean"``, over the rows that count, or over their sample weights;
        ``"normalized"``, the sum divided by that of the labels' example weights, each by its amount and weights, the
        divisor held constant.
      group: as in :func:`robust_loss`.

    Returns:
      The loss: a scalar, or for ``"none"`` of the target's shape. float64 for float64 logits, else float32.

    Raises:
      TypeError: an argument of another type or dtype.
      ValueError: shapes or devices that do not fit; an unknown reduction.
      IndexError: a label out of range. (On a GPU its loss and gradient are NaN instead: nothing waits for the device.)

    Example:
      >>> import torch
      >>> from imae_ext import CCE
      >>> logits, a, b = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]), torch.tensor([1])
      >>> mixed_loss(logits, a, b, 0.75, CCE())
      tensor(0.7395)

    It is the loss of probabilities that hold both amounts, without their memory, and by a kernel in one sweep; on a
    device without kernels the rows are swept once for each label.

    References:
      Zhang et al. 2018, mixup; Liu & Guo 2020, Peer Loss Functions.
    """
    if type(logits) is not Tensor and dtensor.is_dtensor(logits):
        dtensor.refuse_group(group)
        given = (formula, weight, sample_weight, ignore_index, reduction)
        return dtensor.mixed(mixed_loss, _divisor, logits, (target, other, lam, other_lam), given)
    checks.check_options(formula, reduction, ignore_index)
    checks.check_tensors(logits, target, weight, sample_weight)
    two_labels.check_other(other, target)
    if type(ignore_index) is not int:
        ignore_index = checks.as_label(ignore_index)
    labels = _labels(logits, target, other, lam, other_lam)

    def call(weight: Tensor | None, reduction: str) -> Tensor:
        options = (formula, weight, sample_weight, ignore_index, reduction)
        return (mixed_ops.loss if devices.has_kernels(logits) else in_two_sweeps)(logits, labels, options)

    if group is None:
        return call(weight, reduction)
    if hints.values_at_hand(target):  # before other processes wait for this one
        two_labels.check_values(logits, target, other, ignore_index)
    C = logits.shape[min(1, logits.dim() - 1)]
    weights = weight is not None, sample_weight is not None
    said = Said("mixed_loss", formula, logits.dtype, reduction, ignore_index, -1, C, 0.0, *weights)
    options = (formula, weight, sample_weight, ignore_index, reduction)
    return groups.loss(group, reduction, said, lambda: divisor(logits, labels, options), weight, (C,), call)


def _divisor(logits: Tensor, given: tuple[Any, ...], options: Options) -> Tensor:
    """Return what `mean` and `normalized` divide by, for labels and amounts as the caller gave them."""
    return divisor(logits, _labels(logits, *given), options)


def _labels(logits: Tensor, target: Tensor, other: Tensor, lam: Any, other_lam: Any) -> TwoLabels:
    """Make tensors of the amounts that are numbers."""
    dtype = torch.float64 if logits.dtype is torch.float64 else torch.float32
    second = None if other_lam is None else two_labels.amount("other_lam", other_lam, target, dtype)
    return TwoLabels(target, other, two_labels.amount("lam", lam, target, dtype), second)
