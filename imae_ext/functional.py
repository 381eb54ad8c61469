"""Any loss of the family as a function: differentiable, with its gradient at once, or as example statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import checks, devices, out_checks, plain, soft
from ._extension import compiled
from ._signature import explained
from .distributed import dtensor, rows
from .distribution import Asked, statistics
from .formulas import CCE, Formula
from .stats import RowStats

if compiled:
    from ._operators import ops, soft_ops, stats_ops

if TYPE_CHECKING:
    from .distributed.groups import Group


_int64 = torch.int64  # a name of torch is looked up in a tenth of the time here


def _soft(
    logits: Tensor, target: Tensor, options: tuple[Formula, Tensor | None, Tensor | None, float, int, str]
) -> Tensor:
    """Compute the loss for amounts of every class: probabilities, or class labels that are smoothed."""
    if devices.has_kernels(logits):
        return soft_ops.loss(logits, target, options)
    return soft.robust_loss(logits, target, *options)


@explained
def robust_loss(
    logits: Tensor,
    target: Tensor,
    formula: Formula,
    *,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    reduction: str = "mean",
    group: Group = None,
) -> Tensor:
    """Compute any loss of the family, and its gradient, in one pass over the logits.

    Args:
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, float64, float32, float16 or bfloat16, any strides. Half
        precision is read as it is and computed in float32.
      target: class indices of the logits' shape without ``C``, int64 or int32, in ``[0, C)`` or ``ignore_index``; or
        probabilities, floats of the logits' shape: the loss is ``sum_k t_k L_k``, ``L_k`` that of label ``k``, as in
        F.cross_entropy. They may have any sum and sign; a class without any does not count, nor does a row of zeros.
      formula: what to compute: ``IMAE(8.0)``, ``2.0 * NCE() + MAE()``, ...
      weight: ``(C,)``; each row's loss and gradient are multiplied by the weight of its label. A row of weight 0 is
        treated as an ignored one. A weight that requires a gradient is served by the reference, many times slower.
      sample_weight: of the target's shape; each row's loss and gradient are multiplied by its own, beside that of its
        label. Of any sign; a row of weight 0 is treated as an ignored one. One that requires a gradient is served by
        the reference, too.
      label_smoothing: ``e`` in ``[0, 1]`` makes ``(1 - e) t + e / C`` of the target, as F.cross_entropy does.
      ignore_index: rows with this label have value 0 and gradient 0, whatever their logits hold and whatever gradient
        comes from above: a sum divided by a count of 0 leaves them 0, not NaN.
      reduction: ``"none"``; ``"sum"``; ``"mean"``, over the rows that are not ignored, or over their weights;
        ``"normalized"``, the sum divided by the sum of the example weights (times the rows' weights), the divisor
        held constant: the derivative normalisation of the IMAE authors. Formulas of p_y alone only. NaN where all
        weights are 0, as MAE's of perfect fits are; where they sum to less than 1e-31 (float64: 1e-292), as those of
        a steep formula may, there are no digits left: NaN, infinite or inexact. With probabilities a mean is over all
        rows, or over their sample weights, and the example weight of a row is that of its labels, each by its amount.
      group: the processes that a mean is taken over: None, this one alone; a ProcessGroup of torch.distributed, or
        ``"world"``, all of them. Then ``"mean"`` and ``"normalized"`` give the group's value on every process, and a
        gradient that becomes the whole group's when it is averaged over it, as DDP and FSDP do; ``"none"`` and
        ``"sum"`` do not communicate. Every process of the group has to make the call.

    Returns:
      The loss: a scalar, or for ``"none"`` of the target's shape. float64 for float64 logits, else float32.

    Raises:
      TypeError: an argument of another type or dtype.
      ValueError: shapes or devices that do not fit; an unknown reduction; ``"normalized"`` for LabelSmoothing or NCE;
        an ``ignore_index`` of 0 or more with probabilities, which have no label to ignore.
      IndexError: a label out of range. (On a GPU its loss and gradient are NaN instead: nothing waits for the device.)

    Example:
      >>> from imae_ext import MAE, NCE
      >>> logits = torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0]], requires_grad=True)
      >>> loss = robust_loss(logits, torch.tensor([0, 0]), 2.0 * NCE() + MAE())
      >>> loss.backward()
      >>> logits.grad.sum(dim=1).abs() < 1e-6
      tensor([True, True])

    Differs from F.cross_entropy: NaN in an ignored row stays out of the gradient, so does NaN or an infinity in a row
    whose class has weight 0 (there F.cross_entropy's loss is NaN, too), and half-precision logits give a float32 loss.
    """
    is_plain = type(logits) is Tensor
    if not is_plain and dtensor.is_dtensor(logits):
        dtensor.refuse_group(group)
        given = (formula, weight, sample_weight, label_smoothing, ignore_index, reduction)
        return dtensor.loss(robust_loss, logits, target, given)
    if group is not None:
        given = (formula, weight, sample_weight, label_smoothing, ignore_index, reduction)
        return rows.loss(robust_loss, logits, target, given, group)
    are_labels = type(target) is Tensor and target.dtype is _int64  # as nearly all are, which spares a look at shapes
    if label_smoothing != 0 or (not are_labels and soft.is_meant(logits, target)):
        return _soft(logits, target, (formula, weight, sample_weight, label_smoothing, ignore_index, reduction))
    options = (formula, weight, sample_weight, ignore_index, reduction)
    if (is_plain and devices.serves_cpu and logits.is_cpu) or devices.has_kernels(logits):
        return ops.loss(logits, target, options)
    return plain.loss(logits, target, options)


@explained
def value_and_grad(
    logits: Tensor,
    target: Tensor,
    formula: Formula,
    *,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    reduction: str = "mean",
    group: Group = None,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the loss and its gradient at once, outside autograd: go on with ``logits.backward(grad)``.

    A float16 gradient of a mean over many rows underflows, and there is no loss scale here: use :func:`robust_loss`
    and a GradScaler.

    Args:
      logits: as in :func:`robust_loss`.
      target: as in :func:`robust_loss`.
      formula: as in :func:`robust_loss`.
      weight: as in :func:`robust_loss`.
      sample_weight: as in :func:`robust_loss`.
      label_smoothing: as in :func:`robust_loss`.
      ignore_index: as in :func:`robust_loss`.
      reduction: as in :func:`robust_loss`; for ``"none"``, each row's own gradient.
      group: as in :func:`robust_loss`.
      out: like the logits; where to write the gradient. Reusing one saves a large allocation in every step, but for
        probabilities, smoothed labels and groups, whose gradient is copied there. It shares no memory with the logits,
        which compiled code cannot check, and requires no gradient.

    Returns:
      The loss, as :func:`robust_loss` gives it, and the gradient, of the logits' shape and dtype (``out`` if given).

    Raises:
      TypeError: as in :func:`robust_loss`.
      ValueError: as in :func:`robust_loss`, or an ``out`` that is not like the logits.
      IndexError: as in :func:`robust_loss`.

    Example:
      >>> from imae_ext import CCE
      >>> logits = torch.tensor([[2.0, 0.0]])
      >>> loss, grad = value_and_grad(logits, torch.tensor([0]), CCE())
      >>> grad
      tensor([[-0.1192,  0.1192]])
    """
    options = (formula, weight, sample_weight, ignore_index, reduction)
    spread = type(logits) is not Tensor and dtensor.is_dtensor(logits)
    if spread and out is not None:
        raise ValueError("imae_ext: expected no out for DTensor logits, whose gradient is a DTensor, too; leave it out")
    amounts = soft.is_meant(logits, target)
    if group is None and not spread and label_smoothing == 0 and not amounts:
        if devices.has_kernels(logits):
            return ops.value_and_grad(logits, target, options, out)
        return plain.value_and_grad(logits, target, options, out)
    if not spread and not amounts:
        checks.check(logits, target, *options)
    if out is not None:
        out_checks.check_out(logits, out)
    with torch.inference_mode(False), torch.enable_grad():
        z, y = logits.detach().clone().requires_grad_(), target.clone()
        of_classes, of_rows = (None if w is None else w.detach().clone() for w in (weight, sample_weight))
        loss = robust_loss(
            z,
            y,
            formula,
            weight=of_classes,
            sample_weight=of_rows,
            label_smoothing=label_smoothing,
            ignore_index=ignore_index,
            reduction=reduction,
            group=group,
        )
        (grad,) = torch.autograd.grad(loss.sum(), z)
    if out is None:
        return loss.detach(), grad
    return loss.detach(), out.copy_(grad)


@explained
def row_stats(
    logits: Tensor,
    target: Tensor,
    formula: Formula | None = None,
    *,
    log_p: bool = False,
    entropy: bool = False,
    sum_p2: bool = False,
    is_top: bool = False,
    ignore_index: int = -100,
) -> RowStats:
    """Compute each example's ``p_y`` and weight: a low ``p_y`` late in training marks a suspect label.

    Those two are outside autograd. The four that are asked for by name come from the same sweep of the kernels, in
    float32 or better and without cancellation. What is not asked for costs nothing, but for entropy and sum_p2 of few
    or strided classes, and on a GPU of all, whose sums are made together. On devices without kernels, and for the
    derivatives, they are computed in plain PyTorch, with a few tensors of the logits' size.

    Args:
      logits: as in :func:`robust_loss`.
      target: as in :func:`robust_loss`.
      formula: of p_y alone: not LabelSmoothing or NCE. Without one there is no example weight.
      log_p: whether to give ``log p_y``, differentiable.
      entropy: whether to give the entropy of the softmax in nats, differentiable.
      sum_p2: whether to give the sum of the squares of all probabilities.
      is_top: whether to give whether no other class has a larger logit; a tie counts.
      ignore_index: as in :func:`robust_loss`.

    Returns:
      A named tuple of tensors of the target's shape; 0 for ignored rows, None where not asked for: ``p``, which is
      ``p_y``; ``example_weight``; ``log_p``, ``entropy``, ``sum_p2`` and ``is_top``. The weight is ``exp(T p r)`` for
      IMAE, ``exp(beta p**lambd r)`` for DM, and the L1 norm of the logit gradient for the others; for a combination,
      the sum of theirs by its coefficients.

    Raises:
      TypeError: as in :func:`robust_loss`.
      ValueError: as in :func:`robust_loss`, or a formula without example weights.
      IndexError: as in :func:`robust_loss`.

    Example:
      >>> from imae_ext import IMAE
      >>> stats = row_stats(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 0]), IMAE(T=8.0), entropy=True)
      >>> stats.example_weight
      tensor([7.3891, 1.0010])
      >>> stats.entropy
      tensor([0.6931, 0.0012])
    """
    used = CCE() if formula is None else formula
    asked = Asked(log_p, entropy, sum_p2, is_top)
    if devices.has_kernels(logits):
        stats = stats_ops.row_stats(logits, target, used, checks.as_label(ignore_index), asked)
    else:
        known = plain.row_stats(logits, target, used, ignore_index)
        stats = RowStats(*known, *statistics(logits, target, int(ignore_index), asked))
    return stats if formula is not None else stats._replace(example_weight=None)
