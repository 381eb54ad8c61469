"""What is asked of a buffer that a gradient is to be written to."""

from __future__ import annotations

import torch
from torch import Tensor


def check_like(logits: Tensor, out: object) -> None:
    """Check dtype, device and shape of a buffer for the gradient."""
    if not isinstance(out, Tensor):
        raise TypeError(f"imae_ext: expected out to be a Tensor, got {type(out).__name__}")
    if out.layout is not torch.strided:
        raise TypeError(f"imae_ext: expected out to be dense, got {out.layout}")
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
    if _share_memory(logits, out):
        raise ValueError("imae_ext: expected out to share no memory with the logits")
    if not torch.compiler.is_compiling() and out.is_neg():  # which a graph cannot be told
        raise ValueError("imae_ext: expected an out whose negative bit is not set; pass out.resolve_neg()")
    if _overlaps_itself(out):
        raise ValueError(f"imae_ext: expected out to have a place for each number, got strides {out.stride()}")


def _share_memory(x: Tensor, y: Tensor) -> bool:
    if torch.compiler.is_compiling():  # a traced tensor has no address
        return False
    begin, end = _extent(x)
    other_begin, other_end = _extent(y)
    return max(begin, other_begin) < min(end, other_end)


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
