"""Every rule about a call's arguments, once, with what to say when it is broken.

The kernels refuse bad input with a plain error at no cost; this module then finds the rule. The fallback and the fake
kernels of torch.compile check here as well.
"""

from __future__ import annotations

import os
from numbers import Integral

import torch
from torch import Tensor

from . import _torch
from .formulas import Formula, Loss

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2, "normalized": 3}
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_options(formula: object, reduction: object, ignore_index: object = -100) -> None:
    """Check the arguments that are not tensors."""
    if not isinstance(formula, Loss):
        hint = f"; write {formula.__name__}()" if isinstance(formula, type) and issubclass(formula, Formula) else ""
        raise TypeError(f"imae_ext: expected a formula such as imae_ext.IMAE(8.0), got {formula!r}{hint}")
    if not isinstance(ignore_index, Integral) or isinstance(ignore_index, bool):
        raise TypeError(f"imae_ext: expected ignore_index to be an int, got {ignore_index!r}")
    if not -(2**63) <= int(ignore_index) < 2**63:
        raise ValueError(f"imae_ext: expected ignore_index to be an int of 64 bits, got {ignore_index}")
    if not isinstance(reduction, str) or reduction not in REDUCTIONS:
        raise ValueError(f"imae_ext: expected reduction to be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if reduction == "normalized" and not formula.margin:
        raise ValueError(
            f"imae_ext: example weights (reduction 'normalized', row_stats) need formulas of p_y alone, got {formula!r}"
        )


def check_weight(weight: object, C: int | None = None) -> None:
    """Check class weights, by themselves where the number of classes is not known."""
    if weight is None:
        return
    if not isinstance(weight, Tensor):
        raise TypeError(f"imae_ext: expected weight to be a Tensor, got {type(weight).__name__}")
    if weight.dim() != 1 or C not in (None, len(weight)):
        raise ValueError(f"imae_ext: expected weight of shape ({C or 'C'},), got {tuple(weight.shape)}")
    if weight.dtype not in FLOATS:
        raise TypeError(f"imae_ext: expected weight of a floating dtype, got {weight.dtype}")


def check_tensors(logits: object, target: object, weight: object) -> None:
    """Check types, dtypes, shapes and devices."""
    for name, value in (("logits", logits), ("target", target)):
        if not isinstance(value, Tensor):
            raise TypeError(f"imae_ext: expected {name} to be a Tensor, got {type(value).__name__}")
    assert isinstance(logits, Tensor) and isinstance(target, Tensor)
    if logits.dtype not in FLOATS:
        hint = "; the logits come first, then the target" if target.dtype in FLOATS else ""
        raise TypeError(
            f"imae_ext: expected logits of dtype float64, float32, float16 or bfloat16, got {logits.dtype}{hint}"
        )
    classes = min(1, logits.dim() - 1)
    if target.dtype not in (torch.int64, torch.int32):
        probabilities = target.is_floating_point() and target.shape == logits.shape
        hint = "class probabilities are not supported" if probabilities else "if it holds classes, pass target.long()"
        raise TypeError(f"imae_ext: expected target of dtype int64 or int32, got {target.dtype}; {hint}")
    if logits.dim() == 0:
        raise ValueError("imae_ext: expected logits of shape (N, C), (C,) or (N, C, d1, ...), got a scalar")
    shape = (*logits.shape[:1], *logits.shape[2:]) if logits.dim() > 1 else ()
    if tuple(target.shape) != tuple(shape):
        hint = ""
        if target.shape == logits.shape:
            hint = f"; if it is one-hot, pass target.argmax({classes})"
        elif target.shape == logits.shape[:-1]:
            hint = "; if the classes are last, pass logits.movedim(-1, 1)"
        elif target.dim() == logits.dim() and tuple(target.squeeze(classes).shape) == tuple(shape):
            hint = f"; pass target.squeeze({classes})"
        raise ValueError(
            f"imae_ext: expected target of shape {tuple(shape)}, got {tuple(target.shape)} "
            f"(logits have shape {tuple(logits.shape)}, classes in dimension {classes}){hint}"
        )
    C = logits.shape[classes]
    if not 0 < C < 2**30:
        raise ValueError(f"imae_ext: expected 1 to 2**30 - 1 classes, got logits of shape {tuple(logits.shape)}")
    if target.device != logits.device:
        raise ValueError(f"imae_ext: expected target on {logits.device}, where the logits are, got {target.device}")
    check_weight(weight, C)
    if isinstance(weight, Tensor) and weight.device != logits.device:
        raise ValueError(f"imae_ext: expected weight on {logits.device}, where the logits are, got {weight.device}")


def check_labels(logits: Tensor, target: Tensor, ignore_index: int) -> None:
    """Check that every label is a class or ignored. Reads the target, so on a GPU it waits for it."""
    C = logits.shape[min(1, logits.dim() - 1)]
    labels = target.reshape(-1)
    wrong = ((labels < 0) | (labels >= C)) & (labels != ignore_index)
    if bool(wrong.any()):
        row = int(wrong.int().argmax())
        raise IndexError(
            f"imae_ext: expected labels in [0, {C}) or ignore_index={ignore_index}, "
            f"got {int(labels[row])} at row {row} of target"
        )


def check(
    logits: Tensor, target: Tensor, formula: Loss, weight: Tensor | None, ignore_index: int, reduction: str
) -> None:
    """Check everything that can be checked without waiting for a device, and with IMAE_EXT_DEBUG=1 the rest."""
    check_options(formula, reduction, ignore_index)
    check_tensors(logits, target, weight)
    at_hand = target.device.type == "cpu" or os.environ.get("IMAE_EXT_DEBUG") == "1"
    if at_hand and _torch.has_values(target):
        check_labels(logits, target, ignore_index)


def check_like(logits: Tensor, out: object) -> None:
    """Check dtype, device and shape of a buffer for the gradient."""
    if not isinstance(out, Tensor):
        raise TypeError(f"imae_ext: expected out to be a Tensor, got {type(out).__name__}")
    if (out.dtype, out.device, out.shape) != (logits.dtype, logits.device, logits.shape):
        raise ValueError(
            f"imae_ext: expected out like the logits, {logits.dtype} of shape {tuple(logits.shape)} "
            f"on {logits.device}, got {out.dtype} of shape {tuple(out.shape)} on {out.device}"
        )


def check_out(logits: Tensor, out: Tensor) -> None:
    """Check the buffer that value_and_grad is to write the gradient to."""
    check_like(logits, out)
    if out.requires_grad:
        raise ValueError("imae_ext: expected an out that does not require a gradient; detach() it")
    begin, end = _extent(logits)
    out_begin, out_end = _extent(out)
    if max(begin, out_begin) < min(end, out_end):
        raise ValueError("imae_ext: expected out to share no memory with the logits")
    if _overlaps_itself(out):
        raise ValueError(f"imae_ext: expected out to have a place for each number, got strides {out.stride()}")


def _extent(x: Tensor) -> tuple[int, int]:
    """Return the addresses of the first byte and of that behind the last."""
    if x.numel() == 0:
        return 0, 0
    last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.data_ptr(), x.data_ptr() + (last + 1) * x.element_size()


def _overlaps_itself(x: Tensor) -> bool:
    reach = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size != 1):
        if stride < reach:
            return x.numel() > 0
        reach += (size - 1) * stride
    return False
