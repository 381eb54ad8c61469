"""Losses behind a linear head whose logits never exist all at once: function and module; head.py has the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from . import _torch, checks, devices, head_checks, head_ops
from ._signature import explained
from .distributed import head_of_group
from .formulas import Formula
from .head import Call, Head
from .head_targets import Inputs

if TYPE_CHECKING:
    from .distributed.groups import Group


@explained
def linear_robust_loss(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    formula: Formula,
    *,
    linear_bias: Tensor | None = None,
    other: Tensor | None = None,
    lam: float | Tensor | None = None,
    other_lam: float | Tensor | None = None,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    group: Group = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Compute ``robust_loss(F.linear(input, linear_weight, linear_bias), target, formula)`` in chunks of rows.

    The logits of a language model are the largest tensor of its training step; here they never exist all at once. The
    gradients of input and head are made in the forward pass, and backward multiplies them once. A second derivative,
    torch.func and weights that require a gradient are served with all logits, in plain PyTorch. Half precision is
    multiplied in half precision on a GPU, and bfloat16 on a CPU that has such products, and the head's gradient added
    up in float32; other CPUs compute it in float32, with a copy of the head.

    Args:
      input: ``(..., D)``, the hidden states, float64, float32, float16 or bfloat16.
      linear_weight: ``(C, D)``, the head's weight, of the same dtype.
      target: of the input's shape without ``D``, int64 or int32, in ``[0, C)`` or ``ignore_index``; or probabilities,
        floats of shape ``(..., C)``, as in :func:`robust_loss`, of which a chunk at a time is read.
      formula: any, LabelSmoothing, NCE and combinations too.
      linear_bias: ``(C,)``.
      other: a second label of each row, of the target's shape, as in :func:`mixed_loss`; the chunk is held twice then.
      lam: the amount of the first label, a number or of the target's shape; needed with ``other``.
      other_lam: that of the second one; ``1 - lam`` if not given.
      weight: as in :func:`robust_loss`.
      sample_weight: of the target's shape; each row is multiplied by it. A row of weight 0 is treated as ignored.
      ignore_index: as in :func:`robust_loss`; such rows are left out of the products, for which the call waits once
        for a GPU, unless a CUDA graph is recorded: then they are multiplied by 0.
      reduction: as in :func:`robust_loss`. For ``"none"`` backward makes the logits again, and leaves out the rows
        whose upstream gradient is 0, as it does ignored ones.
      group: as in :func:`robust_loss`; ``"normalized"`` of a group is not compiled.
      logit_scale: what the logits are multiplied by, as some models do.
      softcap: logits become ``softcap * tanh(logits / softcap)``, after the scale.
      chunk: rows to take at a time; by default chosen from the sizes.

    Returns:
      The loss: a scalar, or for ``"none"`` of the target's shape. float64 for float64 inputs, else float32.

    Raises:
      TypeError: an argument of another type or dtype.
      ValueError: shapes or devices that do not fit, options out of range.
      IndexError: as in :func:`robust_loss`.

    Example:
      >>> from imae_ext import GCE
      >>> hidden, head = torch.randn(4, 8, requires_grad=True), torch.randn(100, 8, requires_grad=True)
      >>> linear_robust_loss(hidden, head, torch.tensor([3, 1, 4, -100]), GCE(0.7)).backward()
      >>> hidden.grad[3].abs().sum()
      tensor(0.)

    References:
      Wijmans et al., Cut your losses in large-vocabulary language models, ICLR 2025; Hsu et al., Liger kernel, 2024.
    """
    checks.check_options(formula, reduction, ignore_index)
    first = head_checks.amount("lam", lam, input, target)
    second = head_checks.amount("other_lam", other_lam, input, target)
    if second is None and first is not None:
        second = 1 - first
    inputs = Inputs(input, linear_weight, linear_bias, target, other, first, second, weight, sample_weight)
    options = Head(formula.packed, checks.as_label(ignore_index), reduction, logit_scale, softcap, chunk)
    head_checks.check(inputs, options)
    if input.device.type == "cpu" and _torch.has_values(target):
        head_ops.check_labels(inputs, options.ignore_index)
    if group is not None:
        return head_of_group.loss(_of_inputs, inputs, options, group)
    return _of_inputs(inputs, options)


def _of_inputs(inputs: Inputs, options: Head) -> Tensor:
    """Take the dtype that autocast asks for."""
    input, linear_weight, linear_bias = inputs[:3]
    kind = input.device.type
    known = torch.amp.is_autocast_available(kind)  # not of tensors without values, on "meta"
    if known and torch.is_autocast_enabled(kind) and input.dtype is not torch.float64:
        to = torch.get_autocast_dtype(kind)
        inputs = inputs._replace(
            x=input.to(to),
            head=linear_weight.to(to),
            bias=None if linear_bias is None else linear_bias.to(to),
        )
        with torch.autocast(kind, enabled=False):
            return _loss(inputs, options)
    return _loss(inputs, options)


def _loss(inputs: Inputs, options: Head) -> Tensor:
    """Choose the path of a checked call."""
    x, head, bias, *rest = inputs
    kind = x.device.type
    others = any(t is not None and t.requires_grad for t in rest)
    transformed = _torch.transformed()
    if others or transformed or kind == "meta" or not devices.has_kernels(x):
        return head_ops.reference_loss(inputs, options)
    wanted = [torch.is_grad_enabled() and t is not None and t.requires_grad for t in (x, head, bias)]
    if torch.compiler.is_compiling():
        return head_ops.compiled(inputs, options, wanted)
    if any(wanted):
        return head_ops.apply(inputs, options)
    call = Call(inputs, options)
    values, divisor, _ = call.run((False,) * 3)
    return values.reshape(x.shape[:-1]) if options.reduction == "none" else call.reduce(values, divisor)[0]


class LinearRobustLoss(nn.Module):
    """:func:`linear_robust_loss` as a module that owns the head, as ``nn.LinearCrossEntropyLoss``.

    Args:
      in_features: of the hidden states, ``D``.
      num_classes: ``C``.
      formula: what to compute, such as ``IMAE(8.0)``.
      bias: whether the head has one.
      weight: ``(C,)``, of the classes; a buffer, so that it moves with the module.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``.
      group: of processes, as :func:`robust_loss` has it.
      logit_scale: what the logits are multiplied by.
      softcap: of the logits, after the scale.
      chunk: rows to take at a time.
      device: of the head.
      dtype: of the head.

    Example:
      >>> from imae_ext import GCE
      >>> criterion = LinearRobustLoss(8, 100, GCE(0.7))
      >>> criterion(torch.randn(4, 8), torch.tensor([3, 1, 4, -100])).backward()
      >>> criterion.linear.weight.grad.shape
      torch.Size([100, 8])
    """

    weight: Tensor | None

    @explained
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        formula: Formula,
        *,
        bias: bool = False,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        group: Group = None,
        logit_scale: float = 1.0,
        softcap: float | None = None,
        chunk: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        checks.check_options(formula, reduction, ignore_index)
        checks.check_weight(weight, num_classes)
        self.linear = nn.Linear(in_features, num_classes, bias=bias, device=device, dtype=dtype)
        self.formula = formula
        self.register_buffer("weight", weight)
        self.ignore_index, self.reduction, self.group = int(ignore_index), reduction, group
        self.logit_scale, self.softcap, self.chunk = logit_scale, softcap, chunk

    @explained
    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        other: Tensor | None = None,
        lam: float | Tensor | None = None,
        other_lam: float | Tensor | None = None,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss."""
        return linear_robust_loss(
            input,
            self.linear.weight,
            target,
            self.formula,
            linear_bias=self.linear.bias,
            other=other,
            lam=lam,
            other_lam=other_lam,
            weight=self.weight,
            sample_weight=sample_weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            group=self.group,
            logit_scale=self.logit_scale,
            softcap=self.softcap,
            chunk=self.chunk,
        )

    def extra_repr(self) -> str:
        """Show the formula and the reduction."""
        return f"{self.formula!r}, ignore_index={self.ignore_index}, reduction={self.reduction!r}"
