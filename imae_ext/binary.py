"""Losses of one logit for each yes or no: binary and multi-label classification."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from . import _torch, binary_checks, by_reference, checks, devices, reference
from ._extension import compiled
from ._signature import explained
from .distributed import groups
from .distributed.signature import Said
from .formulas import Formula

if compiled:
    from ._operators import binary_ops

if TYPE_CHECKING:
    from .distributed.groups import Group


@explained
def binary_robust_loss(
    logits: Tensor,
    target: Tensor,
    formula: Formula,
    *,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    group: Group = None,
) -> Tensor:
    """Compute any loss of the family for single logits: ``pos_weight t L(x) + (1 - t) L(-x)``.

    ``L`` is the formula as a function of the margin, which is the logit ``x`` itself: the softmax over ``(0, x)`` is
    the sigmoid of ``x``, and every formula means what it means for these two classes. With :class:`imae_ext.CCE` it is
    F.binary_cross_entropy_with_logits. torchvision's sigmoid_focal_loss of hard targets is ``Focal(gamma)`` with
    ``pos_weight = alpha / (1 - alpha)`` and ``weight = 1 - alpha``.

    Args:
      logits: of any shape, float64, float32, float16 or bfloat16; one for each yes or no.
      target: of the logits' shape: bool, or integers 0 and 1, or floats from 0 to 1; or ``ignore_index``.
      formula: what to compute: ``IMAE(8.0)``, ``2.0 * NCE() + MAE()``, ...
      weight: broadcasts to the logits; each element's loss and gradient are multiplied by it.
      pos_weight: broadcasts to the logits, most often ``(C,)``; multiplies the part of ``t`` alone.
      sample_weight: ``(N,)`` or of the logits' shape; multiplies each element, and is what a mean divides by.
      ignore_index: elements with this target do not count: value 0 and gradient 0, whatever their logits hold and
        whatever comes from above; so do those of weight 0. A target of bool has none.
      reduction: ``"none"``; ``"sum"``; ``"mean"``, over the elements that count, or over their sample weights (not
        over ``weight``, as in torch); ``"normalized"``, the sum divided by that of the example weights times all
        weights, the divisor held constant. Formulas of p_y alone only.
      group: as in :func:`robust_loss`.

    Returns:
      The loss: a scalar, or for ``"none"`` of the logits' shape. float64 for float64 logits, else float32.

    Raises:
      TypeError: an argument of another type or dtype.
      ValueError: shapes or devices that do not fit; an unknown reduction; on a CPU, a target that is neither from 0 to
        1 nor ``ignore_index``. (On a GPU its loss and gradient are NaN instead: nothing waits for the device.)

    Example:
      >>> import torch
      >>> from imae_ext import IMAE
      >>> logits, target = torch.tensor([[2.0, -1.0, 0.0]]), torch.tensor([[True, False, True]])
      >>> binary_robust_loss(logits, target, IMAE(T=4.0), reduction="none")
      tensor([[ 8.8242,  9.7396, 11.0022]])

    Whatever the kernels do not differentiate, weights, soft targets and higher orders, the reference does. Differs from
    F.binary_cross_entropy_with_logits: an infinite logit has the loss's limit there, and half-precision logits give a
    float32 loss.

    References:
      Lin et al. 2017, Focal Loss for Dense Object Detection: the weights of torchvision's loss.
    """
    options = (formula, weight, pos_weight, sample_weight, ignore_index, reduction)
    if group is not None:
        return _of_group(logits, target, options, group)
    if devices.has_kernels(logits):
        return binary_ops.loss(logits, target, options)
    return by_reference.binary(logits, target, options)


def _of_group(logits: Tensor, target: Tensor, options: tuple[Any, ...], group: Any) -> Tensor:
    """Compute the loss of the elements of several processes."""
    formula, weight, pos_weight, sample_weight, ignore_index, reduction = options
    binary_checks.check_binary(logits, target, options)
    if target.device.type == "cpu" and _torch.has_values(target):
        binary_checks.check_amounts(target, ignore_index)
    weights = weight is not None, sample_weight is not None
    said = Said("binary_robust_loss", formula, logits.dtype, reduction, int(ignore_index), -1, -1, 0.0, *weights)

    more = {"pos_weight": pos_weight, "sample_weight": sample_weight, "ignore_index": ignore_index}
    call = partial(binary_robust_loss, logits, target, formula, **more)

    def divisor() -> Tensor:
        served = devices.has_kernels(logits)
        return (binary_ops.divisor if served else reference.binary_divisor)(logits, target, options)

    return groups.loss(group, reduction, said, divisor, weight, (), call)


class BinaryRobustLoss(nn.Module):
    """:func:`imae_ext.binary_robust_loss` as a module, drop-in for torch.nn.BCEWithLogitsLoss.

    Args:
      formula: what to compute, such as ``IMAE(8.0)``.
      weight: broadcasts to the logits; a buffer, so that it moves with the module.
      pos_weight: likewise, most often ``(C,)``.
      ignore_index: the target of elements that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``.
      group: of processes, as :func:`robust_loss` has it.

    Example:
      >>> import torch
      >>> from imae_ext import CCE
      >>> BinaryRobustLoss(CCE())(torch.zeros(2, 4), torch.ones(2, 4))
      tensor(0.6931)
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    @explained
    def __init__(
        self,
        formula: Formula,
        *,
        weight: Tensor | None = None,
        pos_weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        group: Group = None,
    ) -> None:
        super().__init__()
        checks.check_options(formula, reduction, ignore_index)
        for name, value in (("weight", weight), ("pos_weight", pos_weight)):
            binary_checks.check_float(name, value)
            self.register_buffer(name, value)
        self.formula = formula
        self.ignore_index = int(ignore_index)
        self.reduction = reduction
        self.group = group

    @explained
    def forward(self, logits: Tensor, target: Tensor, *, sample_weight: Tensor | None = None) -> Tensor:
        """Compute the loss."""
        return binary_robust_loss(
            logits,
            target,
            self.formula,
            weight=self.weight,
            pos_weight=self.pos_weight,
            sample_weight=sample_weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            group=self.group,
        )

    def extra_repr(self) -> str:
        """Show the formula and the reduction."""
        weights = "".join(f"{name}, " for name in ("weight", "pos_weight") if getattr(self, name) is not None)
        return f"{self.formula!r}, {weights}ignore_index={self.ignore_index}, reduction={self.reduction!r}"
