"""Every rule about a call's arguments, once, with what to say when it is broken.

The kernels refuse bad input with a plain error at no cost; this module then finds the rule. The fallback and the fake
kernels of torch.compile check here as well. What only the binary losses ask is in binary_checks.py, and what is asked
of a buffer for the gradient in out_checks.py.
"""

from __future__ import annotations

import os
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from . import _torch, hints
from .formulas import Formula

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2, "normalized": 3}
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_options(formula: object, reduction: object, ignore_index: object = -100) -> None:
    """Check the arguments that are not tensors."""
    if not isinstance(formula, Formula):
        raise TypeError(f"imae_ext: expected a formula such as imae_ext.IMAE(8.0), {hints.not_a_formula(formula)}")
    as_label(ignore_index)
    if not isinstance(reduction, str) or reduction not in REDUCTIONS:
        raise ValueError(f"imae_ext: expected reduction to be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if reduction == "normalized" and formula.needs_all_logits:
        raise ValueError(
            f"imae_ext: example weights (reduction 'normalized', row_stats) need formulas of p_y alone, got {formula!r}"
        )


def as_label(ignore_index: object) -> int:
    """Return ignore_index as an int: of an integer of any kind, also of a tensor that holds one, but of no other."""
    scalar = isinstance(ignore_index, Tensor) and ignore_index.dim() == 0 and ignore_index.dtype in INTEGERS
    whole = isinstance(ignore_index, (Integral, torch.SymInt)) and not isinstance(ignore_index, bool)
    if not (scalar or whole):
        raise TypeError(f"imae_ext: expected ignore_index to be an int, got {ignore_index!r}")
    number = int(ignore_index)  # type: ignore[call-overload]
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"imae_ext: expected ignore_index to be an int of 64 bits, got {ignore_index}")
    return number  # type: ignore[no-any-return]


def not_ignored(target: Tensor, ignore_index: int) -> Tensor:
    """Whether each label is another than `ignore_index`, which its integers may not be able to hold."""
    if target.dtype in INTEGERS:
        holds = torch.iinfo(target.dtype)
        if not holds.min <= ignore_index <= holds.max:
            return torch.ones_like(target, dtype=torch.bool)
    return target != ignore_index


def plain(options: tuple[Any, ...]) -> tuple[Any, ...]:
    """Make ignore_index a plain integer, or refuse it: the operators would cut 1.7 to 1."""
    if type(options[3]) is int:
        return options
    return *options[:3], as_label(options[3]), options[4]


def expect_tensor(name: str, value: object) -> None:
    """Refuse what is not a Tensor."""
    if not isinstance(value, Tensor):
        hint = hints.not_a_tensor(name, value)
        raise TypeError(f"imae_ext: expected {name} to be a Tensor, got {type(value).__name__}{hint}")
    if type(value).__name__ == "DTensor":
        raise TypeError(
            f"imae_ext: expected {name} to be a plain Tensor, got a DTensor, which robust_loss and mixed_loss take "
            f"where the logits are one; pass {name}.full_tensor()"
        )


def expect_dense(name: str, value: Tensor) -> None:
    """Refuse a sparse tensor."""
    if value.layout is not torch.strided:
        raise TypeError(f"imae_ext: expected {name} to be dense, got {value.layout}; pass {name}.to_dense()")


def expect_floating(name: str, value: Tensor) -> None:
    """Refuse weights of integers or of a dtype that no kernel reads."""
    if value.dtype not in FLOATS:
        hint = f"; pass {name}.float()"
        raise TypeError(f"imae_ext: expected {name} of a floating dtype, got {value.dtype}{hint}")


def expect_device(name: str, value: Tensor, logits: Tensor) -> None:
    """Refuse a tensor on another device than the logits."""
    if value.device != logits.device:
        raise ValueError(
            f"imae_ext: expected {name} on {logits.device}, where the logits are, got {value.device}"
            f"{hints.elsewhere(name)}"
        )


def expect_logits(logits: Tensor, target: Tensor) -> None:
    """Refuse logits of a dtype that no kernel reads."""
    if logits.dtype not in FLOATS:
        raise TypeError(
            f"imae_ext: expected logits of dtype float64, float32, float16 or bfloat16, got {logits.dtype}"
            f"{hints.logits_of_wrong_dtype(logits, target)}"
        )


def check_weight(weight: object, C: int | None = None, rows: torch.Size | None = None) -> None:
    """Check class weights, by themselves where the number of classes and the target's shape are not known."""
    if weight is None:
        return
    expect_tensor("weight", weight)
    assert isinstance(weight, Tensor)
    expect_dense("weight", weight)
    if weight.dim() != 1 or C not in (None, len(weight)):
        hint = hints.weight_of_wrong_shape(weight, C, rows)
        raise ValueError(f"imae_ext: expected weight of shape ({C or 'C'},), got {tuple(weight.shape)}{hint}")
    expect_floating("weight", weight)


def check_sample_weight(sample_weight: object, target: Tensor) -> None:
    """Check the weights of the samples."""
    if sample_weight is None:
        return
    expect_tensor("sample_weight", sample_weight)
    assert isinstance(sample_weight, Tensor)
    expect_dense("sample_weight", sample_weight)
    if sample_weight.shape != target.shape:
        raise ValueError(
            f"imae_ext: expected sample_weight of shape {tuple(target.shape)}, a weight for each label, "
            f"got {tuple(sample_weight.shape)}"
        )
    expect_floating("sample_weight", sample_weight)
    expect_device("sample_weight", sample_weight, target)


def check_tensors(logits: object, target: object, weight: object, sample_weight: object = None) -> None:
    """Check types, dtypes, shapes and devices."""
    for name, value in (("logits", logits), ("target", target)):
        expect_tensor(name, value)
        assert isinstance(value, Tensor)
        expect_dense(name, value)
    assert isinstance(logits, Tensor) and isinstance(target, Tensor)
    expect_logits(logits, target)
    if logits.dim() == 0:
        raise ValueError("imae_ext: expected logits of shape (N, C), (C,) or (N, C, d1, ...), got a scalar")
    classes = min(1, logits.dim() - 1)
    shape = (*logits.shape[:1], *logits.shape[2:]) if logits.dim() > 1 else ()
    if target.dtype not in (torch.int64, torch.int32):
        hint = hints.target_of_wrong_kind(logits, target, shape)
        raise TypeError(f"imae_ext: expected target of dtype int64 or int32, got {target.dtype}{hint}")
    if tuple(target.shape) != tuple(shape):
        raise ValueError(
            f"imae_ext: expected target of shape {tuple(shape)}, got {tuple(target.shape)} "
            f"(logits have shape {tuple(logits.shape)}, classes in dimension {classes})"
            f"{hints.target_of_wrong_kind(logits, target, shape)}"
        )
    C = logits.shape[classes]
    if not 0 < C < 2**30:
        raise ValueError(f"imae_ext: expected 1 to 2**30 - 1 classes, got logits of shape {tuple(logits.shape)}")
    expect_device("target", target, logits)
    check_weight(weight, C, target.shape)
    if isinstance(weight, Tensor):
        expect_device("weight", weight, logits)
    check_sample_weight(sample_weight, target)


def check_smoothing(label_smoothing: object) -> None:
    """Check the keyword, a number."""
    if not isinstance(label_smoothing, Real) or isinstance(label_smoothing, bool):
        raise TypeError(f"imae_ext: expected label_smoothing to be a number, got {label_smoothing!r}")
    if not 0 <= float(label_smoothing) <= 1:
        raise ValueError(f"imae_ext: expected label_smoothing from 0 to 1, got {label_smoothing!r}")


def check_soft(
    logits: Tensor,
    target: Tensor,
    formula: Formula,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    ignore_index: int,
    reduction: str,
) -> None:
    """Check a call whose target is probabilities: what a call with class labels is checked for, of the first class."""
    check_options(formula, reduction, ignore_index)
    if target.dtype not in FLOATS:
        raise TypeError(
            f"imae_ext: expected probabilities as float64, float32, float16 or bfloat16, got {target.dtype}"
        )
    if ignore_index >= 0:
        raise ValueError(
            f"imae_ext: expected no ignore_index with probabilities as target, got {ignore_index}; leave rows out by "
            "sample_weight="
        )
    classes = min(1, logits.dim() - 1)
    if logits.dim() > 0 and logits.shape[classes] == 1:
        raise ValueError(
            f"imae_ext: expected probabilities of 2 classes or more, got logits of shape {tuple(logits.shape)}; "
            f"for one logit and two classes use {hints.BINARY}"
        )
    labels = target.detach().select(classes, 0).long() if logits.dim() > 0 and logits.shape[classes] > 0 else target
    check_tensors(logits, labels, weight, sample_weight)


def check_labels(logits: Tensor, target: Tensor, ignore_index: int, name: str = "target") -> None:
    """Check that every label is a class or ignored. Reads the target, so on a GPU it waits for it."""
    C = logits.shape[min(1, logits.dim() - 1)]
    labels = target.reshape(-1)
    wrong = ((labels < 0) | (labels >= C)) & not_ignored(labels, ignore_index)
    if bool(wrong.any()):
        row = int(wrong.int().argmax())
        raise IndexError(
            f"imae_ext: expected labels in [0, {C}) or ignore_index={ignore_index}, "
            f"got {int(labels[row])} at row {row} of {name}{hints.label_out_of_range(logits)}"
        )


def check(
    logits: Tensor,
    target: Tensor,
    formula: Formula,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    ignore_index: int,
    reduction: str,
) -> None:
    """Check everything that can be checked without waiting for a device, and with IMAE_EXT_DEBUG=1 the rest."""
    check_options(formula, reduction, ignore_index)
    check_tensors(logits, target, weight, sample_weight)
    if may_look_at(target):
        check_labels(logits, target, ignore_index)


def may_look_at(target: Tensor) -> bool:
    """Whether labels have values, and nobody would wait for them unasked."""
    at_hand = target.device.type == "cpu" or os.environ.get("IMAE_EXT_DEBUG") == "1"
    return at_hand and _torch.has_values(target)
