"""Classes spread over a plain process group, as Megatron's vocabulary-parallel heads have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import checks
from .._signature import explained
from ..formulas import Formula
from . import groups, signature
from .spread import Spread
from .spread import loss as spread_loss

if TYPE_CHECKING:
    from .groups import Group


@explained
def vocab_parallel_robust_loss(
    local_logits: Tensor,
    target: Tensor,
    formula: Formula,
    *,
    first_class: int,
    num_classes: int,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    group: Group,
) -> Tensor:
    """Compute :func:`robust_loss` of logits whose classes are spread over the processes of a group.

    Every process sweeps over its own classes, and three numbers a row are reduced (four for LabelSmoothing and NCE);
    none sees the others' logits. The processes have the same rows, and together each class once.

    Args:
      local_logits: ``(N, C_local)``, ``(C_local,)`` or ``(N, C_local, d1, ...)``: the classes from ``first_class`` on.
        There may be none.
      target: class indices of the whole range, ``[0, num_classes)`` or ``ignore_index``, the same on every process.
      formula: any, LabelSmoothing, NCE and combinations too.
      first_class: of those that are here, in the whole range.
      num_classes: of all processes together.
      weight: ``(num_classes,)``, of all classes, the same on every process.
      sample_weight: of the target's shape, likewise.
      ignore_index: as in :func:`robust_loss`.
      reduction: as in :func:`robust_loss`, over the rows, which are all here.
      group: that holds the classes: a ProcessGroup, or ``"world"``.

    Returns:
      The loss, the same on every process. Its gradient is that of the local logits, and no factor for averaging is in
      it.

    Raises:
      TypeError: an argument of another type or dtype.
      ValueError: shapes or devices that do not fit, classes beyond ``num_classes``; an unknown reduction.
      IndexError: a label out of range. (On a GPU its loss and gradient are NaN instead: nothing waits for the device.)
      RuntimeError: in backward, if the gradient itself is to be differentiated.

    Example:
      >>> from imae_ext import IMAE
      >>> import torch.distributed as dist
      >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
      >>> logits, target = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0])
      >>> vocab_parallel_robust_loss(logits, target, IMAE(8.0), first_class=0, num_classes=3, group="world")
      tensor(10.1963)
      >>> dist.destroy_process_group()

    References:
      Shoeybi et al., Megatron-LM, 2019, of whose cross entropy this is the layout.
    """
    if group is None:
        raise TypeError("imae_ext: expected group to be 'world' or a ProcessGroup, that of the classes, got None")
    found = groups.resolve(group)
    size = _check(local_logits, target, (formula, weight, sample_weight, ignore_index, reduction), num_classes)
    _check_classes(first_class, size, num_classes)
    ignore_index = checks.as_label(ignore_index)
    said = signature.Said(
        "vocab_parallel_robust_loss",
        formula,
        local_logits.dtype,
        reduction,
        ignore_index,
        N=target.numel(),
        C=num_classes,
        weight=weight is not None,
        sample_weight=sample_weight is not None,
        first_class=first_class,
        classes=size,
    )
    signature.agree(found, said)
    options = (formula, weight, sample_weight, ignore_index, reduction)
    return spread_loss(local_logits, target, options, Spread(first_class, num_classes, (found,), ()))


def _check(logits: Tensor, target: Tensor, options: tuple[Any, ...], num_classes: int) -> int:
    """Check a call as if it had the whole rows; return how many classes are here."""
    if type(num_classes) is not int or num_classes < 1:
        raise ValueError(f"imae_ext: expected num_classes to be a number of classes, got {num_classes!r}")
    if type(logits).__name__ == "DTensor":
        raise TypeError(
            "imae_ext: expected local_logits to be a plain Tensor, got a DTensor; pass it to robust_loss, which knows "
            "its placements"
        )
    checks.expect_tensor("local_logits", logits)
    if logits.dim() == 0:
        raise ValueError("imae_ext: expected local_logits of shape (N, C_local), (C_local,) or more, got a scalar")
    dim = min(1, logits.dim() - 1)
    whole = list(logits.shape)
    whole[dim] = num_classes
    like = torch.empty((), dtype=logits.dtype, device=logits.device).expand(whole)
    checks.check(like, target, *options)
    return logits.shape[dim]


def _check_classes(first_class: object, size: int, num_classes: int) -> None:
    if type(first_class) is not int or first_class < 0 or first_class + size > num_classes:
        raise ValueError(
            f"imae_ext: expected first_class from 0 to {num_classes - size}, for {size} of {num_classes} classes, "
            f"got {first_class!r}"
        )
