"""The operators of binary losses."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from . import binary_checks, by_reference, one_pass, reference
from .by_reference import BinaryOptions
from .checks import REDUCTIONS
from .formulas import unpack
from .ops import needs_reference

Weights = Tensor | None


def _reference(logits: Tensor, inputs: list[Any], reduction: str) -> Tensor:
    target, packed, *weights, ignore_index = inputs
    weights = [each if each is None else each.expand(logits.shape) for each in weights]
    return by_reference.binary(logits, target, cast(BinaryOptions, (unpack(packed), *weights, ignore_index, reduction)))


_KERNEL = one_pass.kernel_of("binary", _reference, constants=(1, 5))


def _spread(weight: Weights, shape: torch.Size) -> Weights:
    """Return a weight as the kernels walk over it: ones may lead and trail in its shape, between them all is whole."""
    if weight is None:
        return None
    pairs = list(zip(weight.shape, shape[len(shape) - weight.dim() :], strict=True))
    while pairs and pairs[-1][0] == 1:
        pairs.pop()
    while pairs and pairs[0][0] == 1:
        pairs.pop(0)
    return weight if all(size == whole for size, whole in pairs) else weight.expand(shape).contiguous()


def loss(logits: Tensor, target: Tensor, options: BinaryOptions) -> Tensor:
    """Compute the loss, differentiable with respect to the logits."""
    *_, reduction = options
    binary_checks.check_binary(logits, target, options)
    if needs_reference(target, *options[1:4]):
        return by_reference.binary(logits, target, options)
    target, *inputs = _inputs(logits, target, options)
    try:
        return one_pass.loss(_KERNEL, logits, (target, *inputs), reduction)
    except RuntimeError:
        binary_checks.check_amounts(target, options[4])
        raise


def divisor(logits: Tensor, target: Tensor, options: BinaryOptions) -> Tensor:
    """Return what `mean` or `normalized` divides by; differentiable by the weights."""
    if needs_reference(target, *options[1:4]):
        return reference.binary_divisor(logits, target, options)
    with torch.no_grad():
        return _KERNEL.forward(logits.detach(), *_inputs(logits, target, options), REDUCTIONS[options[-1]])[1]


def _inputs(logits: Tensor, target: Tensor, options: BinaryOptions) -> tuple[Any, ...]:
    """Return what the operators take after the logits."""
    formula, weight, pos_weight, sample_weight, ignore_index, _ = options
    if target.dtype in (torch.int8, torch.int16):
        target = target.int()
    of_rows = binary_checks.of_rows(sample_weight, logits)
    weights = [_spread(each, logits.shape) for each in (weight, pos_weight, of_rows)]
    return target, formula.packed, *weights, ignore_index
