"""What a binary or multi-label loss asks of its arguments, beyond checks.py."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from . import _torch, hints
from .checks import (
    FLOATS,
    INTEGERS,
    check_options,
    expect_dense,
    expect_device,
    expect_floating,
    expect_logits,
    expect_tensor,
    not_ignored,
)


def check_float(name: str, weight: object) -> None:
    """Check weights that broadcast, by themselves."""
    if weight is None:
        return
    expect_tensor(name, weight)
    assert isinstance(weight, Tensor)
    expect_dense(name, weight)
    expect_floating(name, weight)


def of_rows(sample_weight: Tensor | None, logits: Tensor) -> Tensor | None:
    """Return weights (N,) of the samples of a binary loss so that they broadcast to the logits."""
    if sample_weight is None or sample_weight.shape == logits.shape:
        return sample_weight
    return sample_weight.reshape(-1, *[1] * (logits.dim() - 1))


def check_binary(logits: object, target: object, options: tuple[Any, ...]) -> None:
    """Check what binary_robust_loss is given, all but the target's values."""
    formula, weight, pos_weight, sample_weight, ignore_index, reduction = options
    check_options(formula, reduction, ignore_index)
    for name, value in (("logits", logits), ("target", target)):
        expect_tensor(name, value)
        assert isinstance(value, Tensor)
        expect_dense(name, value)
    assert isinstance(logits, Tensor) and isinstance(target, Tensor)
    expect_logits(logits, target)
    if target.dtype not in (*FLOATS, *INTEGERS, torch.bool):
        raise TypeError(f"imae_ext: expected target of bool, integers or floats, got {target.dtype}")
    if target.shape != logits.shape:
        raise ValueError(
            f"imae_ext: expected target of the logits' shape {tuple(logits.shape)}, got {tuple(target.shape)}"
            f"{hints.binary_target_of_wrong_shape(logits, target)}"
        )
    if isinstance(sample_weight, Tensor) and sample_weight.shape not in (logits.shape, logits.shape[:1]):
        raise ValueError(
            f"imae_ext: expected sample_weight of shape {tuple(logits.shape[:1])} or {tuple(logits.shape)}, "
            f"got {tuple(sample_weight.shape)}"
        )
    for name, each in (("weight", weight), ("pos_weight", pos_weight), ("sample_weight", sample_weight)):
        check_float(name, each)
        if each is not None and name != "sample_weight" and not _broadcasts(each.shape, logits.shape):
            raise ValueError(
                f"imae_ext: expected {name} to broadcast to the logits' shape {tuple(logits.shape)}, "
                f"got {tuple(each.shape)}"
            )
    tensors = {"target": target, "weight": weight, "pos_weight": pos_weight, "sample_weight": sample_weight}
    for name, each in tensors.items():
        if each is not None:
            expect_device(name, each, logits)
    if target.device.type != "cpu" and os.environ.get("IMAE_EXT_DEBUG") == "1" and _torch.has_values(target):
        check_amounts(target, ignore_index)


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    if len(shape) > len(to):
        return False
    return all(a == 1 or a == b for a, b in zip(shape, to[len(to) - len(shape) :], strict=True))


def check_amounts(target: Tensor, ignore_index: int) -> None:
    """Check that every target of a binary loss is from 0 to 1 or ignored. Reads it, so on a GPU it waits for it."""
    if target.dtype is torch.bool:
        return
    t = target.reshape(-1)
    wrong = ~((t >= 0) & (t <= 1)) & not_ignored(t, ignore_index)
    if bool(wrong.any()):
        at = int(wrong.int().argmax())
        raise ValueError(
            f"imae_ext: expected targets from 0 to 1 or ignore_index={ignore_index}, "
            f"got {t[at].item()} at element {at} of target"
        )
