"""Losses behind a linear head whose logits never exist all at once: function and module; head.py has the work."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from . import _torch, checks, devices
from . import head as head_ops
from ._signature import explained
from .formulas import Formula


def _check(
    x: Tensor,
    head: Tensor,
    bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    logit_scale: float,
    softcap: float | None,
    chunk: int | None,
) -> None:
    named = {"input": x, "linear_weight": head, "target": target} | ({} if bias is None else {"linear_bias": bias})
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"imae_ext: expected {name} to be a Tensor, got {type(value).__name__}")
        if value.device != x.device:
            raise ValueError(f"imae_ext: expected {name} on {x.device}, where the input is, got {value.device}")
    if x.dtype not in checks.FLOATS:
        raise TypeError(f"imae_ext: expected input of dtype float64, float32, float16 or bfloat16, got {x.dtype}")
    for name in ("linear_weight", "linear_bias"):
        if name in named and named[name].dtype != x.dtype:
            raise TypeError(
                f"imae_ext: expected {name} of dtype {x.dtype}, as the input, got {named[name].dtype}; "
                f"pass input.to({name}.dtype)"
            )
    if head.dim() != 2 or x.dim() == 0 or x.shape[-1] != head.shape[1]:
        raise ValueError(
            f"imae_ext: expected input of shape (..., D) and linear_weight of shape (C, D), "
            f"got {tuple(x.shape)} and {tuple(head.shape)}"
        )
    if bias is not None and bias.shape != head.shape[:1]:
        raise ValueError(f"imae_ext: expected linear_bias of shape ({len(head)},), got {tuple(bias.shape)}")
    if not 0 < len(head) < 2**30:
        raise ValueError(f"imae_ext: expected 1 to 2**30 - 1 classes, got linear_weight of shape {tuple(head.shape)}")
    if target.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"imae_ext: expected target of dtype int64 or int32, got {target.dtype}")
    if target.shape != x.shape[:-1]:
        raise ValueError(
            f"imae_ext: expected target of shape {tuple(x.shape[:-1])}, the input's without its last dimension, "
            f"got {tuple(target.shape)}"
        )
    checks.check_weight(weight, len(head))
    if weight is not None and weight.device != x.device:
        raise ValueError(f"imae_ext: expected weight on {x.device}, where the input is, got {weight.device}")
    checks.check_sample_weight(sample_weight, target)
    if not math.isfinite(logit_scale):
        raise ValueError(f"imae_ext: expected a finite logit_scale, got {logit_scale!r}")
    if softcap is not None and not (math.isfinite(softcap) and softcap > 0):
        raise ValueError(f"imae_ext: expected softcap to be None or a positive number, got {softcap!r}")
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1):
        raise ValueError(f"imae_ext: expected chunk to be None or a number of rows, got {chunk!r}")


@explained
def linear_robust_loss(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    formula: Formula,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    logit_scale: float = 1.0,
    softcap: float | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Compute ``robust_loss(F.linear(input, linear_weight, linear_bias), target, formula)`` in chunks of rows.

    The logits of a language model are the largest tensor of its training step; here they never exist all at once. The
    gradients of input and head are made in the forward pass, and backward multiplies them once. A second derivative,
    torch.func and weights that require a gradient are served with all logits, in plain PyTorch. Half precision is
    computed in float32 on a CPU (with a copy of the head), and on a GPU by its own products, added up in float32.

    Args:
      input: ``(..., D)``, the hidden states, float64, float32, float16 or bfloat16.
      linear_weight: ``(C, D)``, the head's weight, of the same dtype.
      target: of the input's shape without ``D``, int64 or int32, in ``[0, C)`` or ``ignore_index``.
      formula: any, LabelSmoothing, NCE and combinations too.
      linear_bias: ``(C,)``.
      weight: as in :func:`robust_loss`.
      sample_weight: of the target's shape; each row is multiplied by it. A row of weight 0 is treated as ignored.
      ignore_index: as in :func:`robust_loss`; such rows are left out of the products.
      reduction: as in :func:`robust_loss`. For ``"none"`` backward makes the logits again, and leaves out the rows
        whose upstream gradient is 0, as it does ignored ones.
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
    _check(input, linear_weight, linear_bias, target, weight, sample_weight, logit_scale, softcap, chunk)
    kind = input.device.type
    if torch.is_autocast_enabled(kind) and input.dtype is not torch.float64:
        to = torch.get_autocast_dtype(kind)
        input, linear_weight = input.to(to), linear_weight.to(to)
        linear_bias = None if linear_bias is None else linear_bias.to(to)
        with torch.autocast(kind, enabled=False):
            return linear_robust_loss(
                input,
                linear_weight,
                target,
                formula,
                linear_bias=linear_bias,
                weight=weight,
                sample_weight=sample_weight,
                ignore_index=ignore_index,
                reduction=reduction,
                logit_scale=logit_scale,
                softcap=softcap,
                chunk=chunk,
            )
    if kind == "cpu" and _torch.has_values(target):
        checks.check_labels(head_ops.like_logits(input, linear_weight), target, ignore_index)
    options = head_ops.Head(formula.packed, int(ignore_index), reduction, float(logit_scale), softcap, chunk)
    head = input, linear_weight, linear_bias
    rest = target, weight, sample_weight
    weighs = any(w is not None and w.requires_grad for w in (weight, sample_weight))
    transformed = _torch.transforming() or _torch.in_forward_mode()
    if weighs or transformed or kind == "meta" or not devices.has_kernels(input):
        return head_ops.reference_loss(*head, *rest, options)
    wanted = [torch.is_grad_enabled() and t is not None and t.requires_grad for t in head]
    if torch.compiler.is_compiling():
        code = checks.REDUCTIONS[reduction]
        numbers = options.formula, options.ignore_index, code, options.logit_scale, float(softcap or 0), chunk or 0
        return head_ops.linear_loss(*head, *rest, *numbers, wanted)[0]  # type: ignore[no-any-return]
    if any(wanted):
        return head_ops.apply(*head, *rest, options)  # type: ignore[no-any-return,no-untyped-call]
    call = head_ops.Call(*head, *rest, options)
    values, example, _ = call.run((False,) * 3)
    return values.reshape(target.shape) if reduction == "none" else call.reduce(values, example)[0]


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
        self.ignore_index, self.reduction = int(ignore_index), reduction
        self.logit_scale, self.softcap, self.chunk = logit_scale, softcap, chunk

    @explained
    def forward(self, input: Tensor, target: Tensor, *, sample_weight: Tensor | None = None) -> Tensor:
        """Compute the loss."""
        return linear_robust_loss(
            input,
            self.linear.weight,
            target,
            self.formula,
            linear_bias=self.linear.bias,
            weight=self.weight,
            sample_weight=sample_weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            logit_scale=self.logit_scale,
            softcap=self.softcap,
            chunk=self.chunk,
        )

    def extra_repr(self) -> str:
        """Show the formula and the reduction."""
        return f"{self.formula!r}, ignore_index={self.ignore_index}, reduction={self.reduction!r}"
