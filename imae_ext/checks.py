"""Every rule about a call's arguments, once, with what to say when it is broken.

The kernels refuse bad input with a plain error at no cost; this module then finds the rule. The fallback and the fake
kernels of torch.compile check here as well.
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
    integers = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    scalar = isinstance(ignore_index, Tensor) and ignore_index.dim() == 0 and ignore_index.dtype in integers
    whole = isinstance(ignore_index, (Integral, torch.SymInt)) and not isinstance(ignore_index, bool)
    if not (scalar or whole):
        raise TypeError(f"imae_ext: expected ignore_index to be an int, got {ignore_index!r}")
    number = int(ignore_index)  # type: ignore[call-overload]
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"imae_ext: expected ignore_index to be an int of 64 bits, got {ignore_index}")
    return number  # type: ignore[no-any-return]


def not_ignored(target: Tensor, ignore_index: int) -> Tensor:
    """Whether each label is another than `ignore_index`, which int32 labels may not be able to hold."""
    if target.dtype is torch.int32 and not -(2**31) <= ignore_index < 2**31:
        return torch.ones_like(target, dtype=torch.bool)
    return target != ignore_index


def plain(options: tuple[Any, ...]) -> tuple[Any, ...]:
    """Make ignore_index a plain integer, or refuse it: the operators would cut 1.7 to 1."""
    if type(options[3]) is int:
        return options
    return *options[:3], as_label(options[3]), options[4]


def check_weight(weight: object, C: int | None = None, rows: torch.Size | None = None) -> None:
    """Check class weights, by themselves where the number of classes and the target's shape are not known."""
    if weight is None:
        return
    if not isinstance(weight, Tensor):
        hint = hints.not_a_tensor("weight", weight)
        raise TypeError(f"imae_ext: expected weight to be a Tensor, got {type(weight).__name__}{hint}")
    if weight.layout is not torch.strided:
        raise TypeError(f"imae_ext: expected weight to be dense, got {weight.layout}; pass weight.to_dense()")
    if weight.dim() != 1 or C not in (None, len(weight)):
        hint = hints.weight_of_wrong_shape(weight, C, rows)
        raise ValueError(f"imae_ext: expected weight of shape ({C or 'C'},), got {tuple(weight.shape)}{hint}")
    if weight.dtype not in FLOATS:
        hint = "; pass weight.float()"
        raise TypeError(f"imae_ext: expected weight of a floating dtype, got {weight.dtype}{hint}")


def check_sample_weight(sample_weight: object, target: Tensor) -> None:
    """Check the weights of the samples."""
    if sample_weight is None:
        return
    if not isinstance(sample_weight, Tensor):
        hint = hints.not_a_tensor("sample_weight", sample_weight)
        raise TypeError(f"imae_ext: expected sample_weight to be a Tensor, got {type(sample_weight).__name__}{hint}")
    if sample_weight.shape != target.shape:
        raise ValueError(
            f"imae_ext: expected sample_weight of shape {tuple(target.shape)}, a weight for each label, "
            f"got {tuple(sample_weight.shape)}"
        )
    if sample_weight.dtype not in FLOATS:
        hint = "; pass sample_weight.float()"
        raise TypeError(f"imae_ext: expected sample_weight of a floating dtype, got {sample_weight.dtype}{hint}")
    if sample_weight.device != target.device:
        raise ValueError(
            f"imae_ext: expected sample_weight on {target.device}, where the logits are, got {sample_weight.device}"
            f"{hints.elsewhere('sample_weight')}"
        )


def check_tensors(logits: object, target: object, weight: object, sample_weight: object = None) -> None:
    """Check types, dtypes, shapes and devices."""
    for name, value in (("logits", logits), ("target", target)):
        if not isinstance(value, Tensor):
            hint = hints.not_a_tensor(name, value)
            raise TypeError(f"imae_ext: expected {name} to be a Tensor, got {type(value).__name__}{hint}")
        if value.layout is not torch.strided:
            raise TypeError(f"imae_ext: expected {name} to be dense, got {value.layout}; pass {name}.to_dense()")
    assert isinstance(logits, Tensor) and isinstance(target, Tensor)
    if logits.dtype not in FLOATS:
        raise TypeError(
            f"imae_ext: expected logits of dtype float64, float32, float16 or bfloat16, got {logits.dtype}"
            f"{hints.logits_of_wrong_dtype(logits, target)}"
        )
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
    if target.device != logits.device:
        raise ValueError(
            f"imae_ext: expected target on {logits.device}, where the logits are, got {target.device}"
            f"{hints.elsewhere('target')}"
        )
    check_weight(weight, C, target.shape)
    if isinstance(weight, Tensor) and weight.device != logits.device:
        raise ValueError(
            f"imae_ext: expected weight on {logits.device}, where the logits are, got {weight.device}"
            f"{hints.elsewhere('weight')}"
        )
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


def check_labels(logits: Tensor, target: Tensor, ignore_index: int) -> None:
    """Check that every label is a class or ignored. Reads the target, so on a GPU it waits for it."""
    C = logits.shape[min(1, logits.dim() - 1)]
    labels = target.reshape(-1)
    wrong = ((labels < 0) | (labels >= C)) & not_ignored(labels, ignore_index)
    if bool(wrong.any()):
        row = int(wrong.int().argmax())
        raise IndexError(
            f"imae_ext: expected labels in [0, {C}) or ignore_index={ignore_index}, "
            f"got {int(labels[row])} at row {row} of target{hints.label_out_of_range(logits)}"
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
    at_hand = target.device.type == "cpu" or os.environ.get("IMAE_EXT_DEBUG") == "1"
    if at_hand and _torch.has_values(target):
        check_labels(logits, target, ignore_index)


def check_float(name: str, weight: object) -> None:
    """Check weights that broadcast, by themselves."""
    if weight is None:
        return
    if not isinstance(weight, Tensor):
        hint = hints.not_a_tensor(name, weight)
        raise TypeError(f"imae_ext: expected {name} to be a Tensor, got {type(weight).__name__}{hint}")
    if weight.dtype not in FLOATS:
        hint = f"; pass {name}.float()"
        raise TypeError(f"imae_ext: expected {name} of a floating dtype, got {weight.dtype}{hint}")


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
        if not isinstance(value, Tensor):
            hint = hints.not_a_tensor(name, value)
            raise TypeError(f"imae_ext: expected {name} to be a Tensor, got {type(value).__name__}{hint}")
    assert isinstance(logits, Tensor) and isinstance(target, Tensor)
    if logits.dtype not in FLOATS:
        raise TypeError(
            f"imae_ext: expected logits of dtype float64, float32, float16 or bfloat16, got {logits.dtype}"
            f"{hints.logits_of_wrong_dtype(logits, target)}"
        )
    if target.dtype not in (*FLOATS, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
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
    for name, each in (("target", target), ("weight", weight), ("pos_weight", pos_weight)):
        _check_device(name, each, logits)
    _check_device("sample_weight", sample_weight, logits)
    if target.device.type != "cpu" and os.environ.get("IMAE_EXT_DEBUG") == "1" and _torch.has_values(target):
        check_amounts(target, ignore_index)


def _check_device(name: str, tensor: Tensor | None, logits: Tensor) -> None:
    if tensor is not None and tensor.device != logits.device:
        raise ValueError(
            f"imae_ext: expected {name} on {logits.device}, where the logits are, got {tensor.device}"
            f"{hints.elsewhere(name)}"
        )


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    if len(shape) > len(to):
        return False
    return all(a == 1 or a == b for a, b in zip(shape, to[len(to) - len(shape) :], strict=True))


def check_amounts(target: Tensor, ignore_index: int) -> None:
    """Check that every target of a binary loss is from 0 to 1 or ignored. Reads it, so on a GPU it waits for it."""
    if target.dtype is torch.bool:
        return
    t = target.reshape(-1)
    wrong = ~((t >= 0) & (t <= 1)) & (t != ignore_index)
    if bool(wrong.any()):
        at = int(wrong.int().argmax())
        raise ValueError(
            f"imae_ext: expected targets from 0 to 1 or ignore_index={ignore_index}, "
            f"got {t[at].item()} at element {at} of target"
        )


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
