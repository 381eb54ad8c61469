"""Every rule about the arguments of linear_robust_loss, with what to say when it is broken."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from . import checks, hints, two_labels
from .head import Head
from .head_targets import Inputs

_INTEGERS = (torch.int64, torch.int32)


def check(inputs: Inputs, options: Head) -> None:
    """Check all but the labels' values."""
    _check_head(inputs)
    _check_target(inputs.x, inputs.head, inputs.target, options.ignore_index)
    _check_two(inputs)
    C, rows = len(inputs.head), inputs.x[..., 0]
    checks.check_weight(inputs.weight, C, rows.shape)
    checks.check_sample_weight(inputs.sample_weight, rows)
    _check_devices(inputs)
    _check_numbers(options)


def _check_head(inputs: Inputs) -> None:
    """Check the three factors."""
    x, head, bias = inputs[:3]
    named = {"input": x, "linear_weight": head, "target": inputs.target}
    if bias is not None:
        named["linear_bias"] = bias
    for name, value in named.items():
        checks.expect_tensor(name, value)
        checks.expect_dense(name, value)
    if x.dtype not in checks.FLOATS:
        hint = "; the hidden states come first" if head.dtype in checks.FLOATS else ""
        raise TypeError(f"imae_ext: expected input of dtype float64, float32, float16 or bfloat16, got {x.dtype}{hint}")
    for name in ("linear_weight", "linear_bias"):
        if name in named and named[name].dtype != x.dtype:
            raise TypeError(
                f"imae_ext: expected {name} of dtype {x.dtype}, as the input, got {named[name].dtype}; "
                f"pass input.to({name}.dtype)"
            )
    if head.dim() != 2 or x.dim() == 0 or x.shape[-1] != head.shape[1]:
        turned = head.dim() == 2 and x.dim() > 0 and x.shape[-1] == len(head)
        raise ValueError(
            f"imae_ext: expected input of shape (..., D) and linear_weight of shape (C, D), got {tuple(x.shape)} and "
            f"{tuple(head.shape)}{'; pass linear_weight.t()' if turned else ''}"
        )
    if head.shape[1] == 0:
        raise ValueError(f"imae_ext: expected input of 1 or more features, got shape {tuple(x.shape)}")
    if bias is not None and bias.shape != head.shape[:1]:
        hint = "; pass linear_bias.flatten()" if bias.numel() == len(head) else ""
        raise ValueError(f"imae_ext: expected linear_bias of shape ({len(head)},), got {tuple(bias.shape)}{hint}")
    if not 0 < len(head) < 2**30:
        raise ValueError(f"imae_ext: expected 1 to 2**30 - 1 classes, got linear_weight of shape {tuple(head.shape)}")


def _check_target(x: Tensor, head: Tensor, target: Tensor, ignore_index: int) -> None:
    """Check kind and shape: class labels, or probabilities."""
    fits, soft = tuple(x.shape[:-1]), (*x.shape[:-1], len(head))
    if target.dtype in checks.FLOATS and tuple(target.shape) == soft:
        if len(head) < 2:
            raise ValueError(
                f"imae_ext: expected probabilities of 2 classes or more, got linear_weight of shape {tuple(head.shape)}"
            )
        if ignore_index >= 0:
            raise ValueError(
                f"imae_ext: expected no ignore_index with probabilities as target, got {ignore_index}; leave rows out "
                "by sample_weight="
            )
        return
    if target.dtype not in _INTEGERS:
        raise TypeError(
            f"imae_ext: expected target of dtype int64 or int32, or probabilities of shape {soft}, got {target.dtype} "
            f"of shape {tuple(target.shape)}{_other_target(target, fits, soft)}"
        )
    if tuple(target.shape) != fits:
        raise ValueError(
            f"imae_ext: expected target of shape {fits}, the input's without its last dimension, "
            f"got {tuple(target.shape)}{_other_target(target, fits, soft)}"
        )


def _other_target(target: Tensor, fits: tuple[int, ...], soft: tuple[int, ...]) -> str:
    """Say what to pass instead of a target of another dtype or shape; tests/test_linear.py follows each."""
    shape, long = tuple(target.shape), "" if target.dtype in _INTEGERS else ".long()"
    at_hand = hints.values_at_hand(target)
    if target.is_floating_point() and at_hand and not bool((target == target.trunc()).all()):
        return ""
    whole = "" if at_hand or not target.is_floating_point() else ", if it holds whole numbers"
    if shape == fits:
        return f"; if it holds classes, pass target{long}{whole}"
    if shape == (*fits, 1):
        return f"; pass target.squeeze(-1){long}{whole}"
    if shape == soft:
        if not at_hand:
            return "; if it is one-hot, every row with a single 1, pass target.argmax(-1)"
        one_hot = bool(((target == 0) | (target == 1)).all()) and bool((target.sum(-1) == 1).all())
        return f"; it {'looks one-hot: pass target.argmax(-1)' if one_hot else 'has to hold floats: target.float()'}"
    if target.numel() == math.prod(fits) and math.prod(fits) > 0 and (len(shape) == 1 or len(fits) == 1):
        return f"; pass target.reshape{fits}{long}{whole}"
    return ""


def _check_two(inputs: Inputs) -> None:
    """Check the second labels and both amounts."""
    target, other, lam, other_lam = inputs[3:7]
    if other is None and lam is None and other_lam is None:
        return
    if target.is_floating_point():
        raise ValueError("imae_ext: expected other and lam with class labels, got probabilities as target")
    if other is None or lam is None:
        raise ValueError("imae_ext: expected other, second labels, and lam, the amount of the first ones, together")
    two_labels.check_other(other, target)


def amount(name: str, value: object, x: Tensor, target: object) -> Tensor | None:
    """Return `lam` or `other_lam` as a tensor of the rows."""
    if value is None or not isinstance(target, Tensor) or not isinstance(x, Tensor):
        return None  # which check() refuses
    dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
    return two_labels.amount(name, value, target, dtype).expand(target.shape)


def _check_devices(inputs: Inputs) -> None:
    names = {"x": "input", "head": "linear_weight", "bias": "linear_bias"}
    for name, value in inputs._asdict().items():
        if value is not None and value.device != inputs.x.device:
            called = names.get(name, name)
            raise ValueError(
                f"imae_ext: expected {called} on {inputs.x.device}, where the input is, got {value.device}; "
                f"pass {called}.to(input.device)"
            )


def _check_numbers(options: Head) -> None:
    scale, cap, chunk = options[3:]

    def number(value: Any) -> bool:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)

    if not number(scale):
        raise ValueError(f"imae_ext: expected logit_scale to be a finite number, got {scale!r}")
    if cap is not None and not (number(cap) and cap > 0):
        raise ValueError(f"imae_ext: expected softcap to be None or a positive number, got {cap!r}")
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1):
        raise ValueError(f"imae_ext: expected chunk to be None or a number of rows, got {chunk!r}")
