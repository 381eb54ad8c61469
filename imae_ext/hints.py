"""What to do instead: the part of an error message behind what was expected and what came.

Each function returns one, or nothing where there is none to give. tests/test_hints.py follows every one of them to a
call that works and is right: a hint must never lead to a call that runs and computes something else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import _torch

# One logit x for the choice between two classes: the softmax over (0, x) is the sigmoid of x.
TWO_COLUMNS = "torch.cat([torch.zeros_like(logits), logits], dim=1)"
TWO_COLUMNS_OF_VECTOR = "torch.stack([torch.zeros_like(logits), logits], dim=-1)"
YES_OR_NO = "torch.stack([torch.zeros_like(logits), logits], dim=1)"


def values_at_hand(x: Tensor) -> bool:
    """Whether a look at the values is possible, and waits for no device."""
    return x.device.type == "cpu" and _torch.has_values(x)


def not_a_tensor(name: str, value: object) -> str:
    """For a list or an array in the place of logits, target or weight."""
    if isinstance(value, (list, tuple)) or type(value).__module__ == "numpy":
        return f"; pass torch.as_tensor({name})"
    return ""


def logits_of_wrong_dtype(logits: Tensor, target: Tensor) -> str:
    """For integer logits, most often the target in their place."""
    if target.is_floating_point():
        return "; the logits come first, then the target"
    if logits.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        return "; pass logits.float()"
    return ""


def target_of_wrong_kind(logits: Tensor, target: Tensor, fits: tuple[int, ...]) -> str:
    """For a target of another dtype or shape than class indices for these logits, whose shape would be `fits`."""
    classes = min(1, logits.dim() - 1)
    long = "" if target.dtype in (torch.int64, torch.int32) else ".long()"
    if target.is_floating_point() and values_at_hand(target) and not bool((target == target.trunc()).all()):
        return (
            "; class probabilities are not supported: for labels a and b mixed by lam, add lam * the loss for a and "
            "(1 - lam) * the loss for b"
        )
    whole = "" if not target.is_floating_point() or values_at_hand(target) else ", if the target holds whole numbers"
    if logits.dim() == 1 and target.shape == logits.shape and len(logits) > 1:
        return (
            f"; logits of shape ({len(logits)},) are one row of {len(logits)} classes: if they are {len(logits)} rows "
            f"of one logit for two classes, pass {TWO_COLUMNS_OF_VECTOR} and target{long}{whole}"
        )
    if logits.dim() > 1 and logits.shape[1] == 1 and target.shape in (logits.shape, torch.Size(fits)):
        squeeze = ".squeeze(1)" if target.shape == logits.shape else ""
        return f"; for one logit and two classes pass {TWO_COLUMNS} and target{squeeze}{long}{whole}"
    if target.shape == fits:
        return f"; if it holds classes, pass target{long}"
    if target.dim() == logits.dim() and tuple(target.squeeze(classes).shape) == fits:
        return f"; pass target.squeeze({classes}){long}{whole}"
    if target.shape == logits.shape or target.shape == logits.movedim(classes, -1).shape:
        return _one_hot_or_several(logits, target, classes, long)
    if target.shape == logits.shape[:-1]:
        return f"; if the classes are last, pass logits.movedim(-1, 1){f' and target{long}' if long else ''}{whole}"
    return ""


def _one_hot_or_several(logits: Tensor, target: Tensor, classes: int, long: str) -> str:
    """For a target that has the classes as a dimension, too: one-hot, or several labels a row."""
    dims = [d for d, like in ((classes, logits), (-1, logits.movedim(classes, -1))) if target.shape == like.shape]
    if not values_at_hand(target):
        return f"; if it is one-hot, every row with a single 1, pass target.argmax({dims[0]})"
    binary = bool(((target == 0) | (target == 1)).all())
    for d in dims if binary else ():
        if bool((target.sum(d) == 1).all()):
            return f"; it looks one-hot: pass target.argmax({d})"
    if binary and target.shape == logits.shape:
        return f"; it has not one label a row: for a yes or no to each class pass {YES_OR_NO} and target{long}"
    return ""


def label_out_of_range(logits: Tensor) -> str:
    """For a label that is no class, where there is only one."""
    if logits.dim() > 1 and logits.shape[1] == 1:
        return f"; for one logit and two classes pass {TWO_COLUMNS}"
    return ""


def elsewhere(name: str) -> str:
    """For a tensor on another device than the logits."""
    return f"; pass {name}.to(logits.device)"


def weight_of_wrong_shape(weight: Tensor, C: int | None) -> str:
    """For class weights with a dimension too many."""
    flat = weight.dim() > 1 and weight.numel() == max(weight.shape) and C in (None, weight.numel())
    return "; pass weight.flatten()" if flat else ""


def not_a_formula(value: object) -> str:
    """Say what came in the place of a formula, and for what is nearly one, what to write."""
    got = f"got {value!r}"
    if isinstance(value, type) and hasattr(value, "number"):
        return f"{got}; write {value.__name__}()"
    if hasattr(value, "formula"):
        return f"got a {type(value).__name__}; write its formula, {value.formula!r}"
    if isinstance(value, (int, float)):
        return f"{got}; a constant has no gradient: add it to the loss"
    if isinstance(value, Tensor):
        return f"got a Tensor of shape {tuple(value.shape)}; class weights go to weight="
    return got


def not_a_coefficient(value: object) -> str:
    """Say what came in the place of a number, and what to write."""
    if isinstance(value, Tensor):
        if value.numel() == 1:
            return "got a Tensor; a coefficient is a number: write .item(), or multiply the loss"
        return f"got a Tensor of shape {tuple(value.shape)}; class weights go to weight="
    return f"got {value!r}"


def not_a_number(value: object) -> str:
    """Say what came in the place of a formula's parameter, and what to write."""
    shape = tuple(getattr(value, "shape", ()))
    if shape:
        return f"a {type(value).__name__} of shape {shape}; class weights go to weight="
    return f"{value!r}; write .item()" if isinstance(value, Tensor) else repr(value)


def unknown_keyword(name: str, known: tuple[str, ...]) -> str:
    """For a keyword that is torch's, or one letter from one that there is."""
    renamed = {
        "input": "the first argument is called logits",
        "label": "the second argument is called target",
        "labels": "the second argument is called target",
        "size_average": 'pass reduction="mean" or "sum"',
        "reduce": 'pass reduction="none"',
        "label_smoothing": "take the formula imae_ext.LabelSmoothing(eps), or label_smoothing_loss, LabelSmoothingLoss",
    }
    if name in renamed:
        return f"; {renamed[name]}"
    alike = [each for each in known if each.lower() == name.lower()]
    return f"; there is {alike[0]}" if alike else ""
