"""What a call asks of second labels and of their amounts, beyond checks.py."""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor

from . import checks


def check_other(other: object, target: Tensor) -> None:
    """Check dtype and shape of the second labels."""
    if not isinstance(other, Tensor) or other.dtype not in (torch.int64, torch.int32):
        got = other.dtype if isinstance(other, Tensor) else type(other).__name__
        raise TypeError(f"imae_ext: expected other to be class labels of int64 or int32, got {got}")
    if other.shape != target.shape:
        raise ValueError(f"imae_ext: expected other of shape {tuple(target.shape)}, got {tuple(other.shape)}")


def check_values(logits: Tensor, target: Tensor, other: Tensor, ignore_index: int) -> None:
    """Check that both labels of every row that counts are classes or ignored; waits for the device."""
    checks.check_labels(logits, target, ignore_index)
    counts = checks.not_ignored(target, ignore_index)
    checks.check_labels(logits, torch.where(counts, other.to(target.dtype), target), ignore_index, "other")


def amount(name: str, value: object, target: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a number as a tensor of no dimension, and a tensor of the rows or of no dimension as it is."""
    if type(value) is float or (isinstance(value, Real) and not isinstance(value, bool)):
        return torch.full((), float(value), dtype=dtype, device=target.device)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"imae_ext: expected {name} to be a number or a floating Tensor, got {got}")
    if value.dim() > 0 and value.shape != target.shape:
        raise ValueError(f"imae_ext: expected {name} of shape {tuple(target.shape)}, got {tuple(value.shape)}")
    return value.to(dtype)
