"""The reliability contract: infinities, NaN and huge logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from calls import batch, by_dtype, by_formula, by_implementation, gradient, plain_loss
from cases import Spec
from expected import assert_within, expected
from oracle64 import oracle64
from torch import Tensor

import imae_ext
from imae_ext import reference

# A CPU's ways: short rows transposed, long ones along the classes and, from 16 rows on, classes apart across rows.
# In plain PyTorch and in the reference there is one.
WAYS = {
    "C5-kernel": (5, lambda x: x, imae_ext.robust_loss),
    "C40-kernel": (40, lambda x: x, imae_ext.robust_loss),
    "C5-apart-kernel": (5, lambda x: x.t().contiguous().t(), imae_ext.robust_loss),
    "C40-plain": (40, lambda x: x, plain_loss),
    "C5-reference": (5, lambda x: x, reference.robust_loss),
}
by_way = pytest.mark.parametrize(("C", "lay", "robust_loss"), WAYS.values(), ids=WAYS)


def at_the_limit(spec: Spec, logits: Tensor, target: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The oracle with -inf stood in for by -1e30: values beyond 1e20 are infinite, gradients are at their limit."""
    stood_in = logits.double().nan_to_num(neginf=-1e30).numpy()
    table = oracle64(spec.terms, stood_in, target.numpy())
    return np.where(np.abs(table.value) > 1e20, np.copysign(np.inf, table.value), table.value), table.grad


def check_limit(robust_loss, spec: Spec, logits: Tensor, target: Tensor) -> None:
    value, grad = at_the_limit(spec, logits, target)
    ours = gradient(robust_loss, logits, target, spec.build(), reduction="none")
    tolerance = 1e-5 if logits.dtype.itemsize >= 4 else 2 * torch.finfo(logits.dtype).eps
    assert_within(ours[0], value, 1e-5 * np.abs(value) + 1e-7, "loss")
    assert_within(ours[1], grad, tolerance * np.abs(grad).max(axis=1, keepdims=True) + 1e-7, "gradient")


@by_way
@by_dtype
@by_formula
def test_minus_inf_at_another_class(spec, dtype, C, lay, robust_loss):
    """A masked class: probability 0, gradient at its limit."""
    logits, target = batch(N=21, C=C, dtype=dtype)
    masked = torch.arange(C) == (target[:, None] + 1) % C
    masked[4:] |= torch.arange(C) == (target[4:, None] + 2) % C
    check_limit(robust_loss, spec, lay(logits.masked_fill(masked, -math.inf)), target)


@by_way
@by_dtype
@by_formula
def test_minus_inf_at_every_other_class(spec, dtype, C, lay, robust_loss):
    """The target is all there is: as fitted as can be, and no NaN from (-inf) - (-inf)."""
    logits, target = batch(N=21, C=C, dtype=dtype)
    alone = lay(logits.masked_fill(torch.arange(C) != target[:, None], -math.inf))
    ours = gradient(robust_loss, alone, target, spec.build(), reduction="none")
    value, grad = at_the_limit(spec, alone, target)
    if str(spec) == "IMAE(T=8,eps=0)":
        # Published to the letter, a fitted example still pulls with weight 1: its value falls without end, and
        # which classes it pulls apart is lost when they are all at -inf.
        assert (ours[0] == -math.inf).all()
        return
    tolerance = 1e-5 if dtype.itemsize >= 4 else 2 * torch.finfo(dtype).eps
    assert_within(ours[0], value, 1e-5 * np.abs(value) + 1e-7, "loss")
    if spec.margin:
        assert torch.equal(ours[1], torch.zeros_like(alone))
    else:
        assert_within(ours[1], grad, tolerance * np.abs(grad).max(axis=1, keepdims=True) + 1e-7, "gradient")


@by_way
@by_dtype
@by_formula
def test_minus_inf_at_the_target(spec, dtype, C, lay, robust_loss):
    """The value's limit (+inf where the loss is unbounded) and the gradient's, where torch has no NaN either."""
    logits, target = batch(N=21, C=C, dtype=dtype)
    check_limit(robust_loss, spec, lay(logits.scatter(1, target[:, None], -math.inf)), target)


@by_implementation
@pytest.mark.parametrize("where", ("target", "other"))
@pytest.mark.parametrize("formula", (imae_ext.CCE(), imae_ext.LabelSmoothing(0.0)), ids=repr)
@by_dtype
def test_minus_inf_as_cross_entropy(dtype, formula, where, robust_loss):
    logits, target = batch(dtype=dtype)
    logits = logits.scatter(1, (target[:, None] + (where == "other")) % 5, -math.inf)
    loss, grad = gradient(robust_loss, logits, target, formula, reduction="none")
    leaf = logits.double().requires_grad_()
    theirs = F.cross_entropy(leaf, target, reduction="none")
    theirs.sum().backward()
    assert torch.allclose(loss.double(), theirs.detach(), rtol=1e-5, atol=0)
    assert torch.allclose(grad.double(), leaf.grad, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("C", (10, 40), ids=lambda C: f"C{C}")
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16), ids=lambda d: str(d)[6:])
@by_implementation
def test_any_nan_among_the_weights_stays_nan(dtype, C, robust_loss):
    """Also one of all ones, which rounding to bfloat16 would carry over to -0."""
    logits, target = batch(N=21, C=C, dtype=dtype)
    for bits in (0x7FFFFFFF, -1, 0x7FC00000):
        weight = torch.ones(C)
        weight[target[11]] = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
        loss, grad = gradient(robust_loss, logits, target, imae_ext.CCE(), weight=weight, reduction="none")
        assert torch.equal(loss.isnan(), target == target[11])
        assert robust_loss(logits, target, imae_ext.CCE(), weight=weight).isnan()
        assert torch.equal(grad.isnan().all(1), target == target[11])
        assert torch.equal(grad.isnan().any(1), target == target[11])


POISONS = {
    "all_minus_inf": lambda row, y: torch.full_like(row, -math.inf),
    "inf_at_target": lambda row, y: row.index_fill(0, torch.tensor([y]), math.inf),
    "inf_elsewhere": lambda row, y: row.index_fill(0, torch.tensor([(y + 1) % len(row)]), math.inf),
    "nan_at_target": lambda row, y: row.index_fill(0, torch.tensor([y]), math.nan),
    "nan_elsewhere": lambda row, y: row.index_fill(0, torch.tensor([(y + 2) % len(row)]), math.nan),
    "inf_and_minus_inf": lambda row, y: torch.cat([row[:1] * 0 - math.inf, row[1:] * 0 + math.inf]),
}


@by_implementation
@pytest.mark.parametrize("C", (3, 5, 40, 300), ids=lambda C: f"C{C}")
@by_formula
def test_nan_stays_in_its_row(spec, C, robust_loss):
    """All -inf, +inf or NaN: NaN in that row's value and gradient, and no other row notices."""
    logits, target = batch(N=21, C=C)
    clean_loss, clean_grad = gradient(robust_loss, logits, target, spec.build(), reduction="none")
    others = torch.arange(21) != 11
    for name, poison in POISONS.items():
        wrong = logits.clone()
        wrong[11] = poison(logits[11], int(target[11]))
        loss, grad = gradient(robust_loss, wrong, target, spec.build(), reduction="none")
        assert loss[11].isnan() and grad[11].isnan().all(), name
        assert torch.equal(loss[others], clean_loss[others]) and torch.equal(grad[others], clean_grad[others]), name


@by_implementation
@pytest.mark.parametrize(
    "dtype", (torch.float64, torch.float32, torch.bfloat16), ids=("float64", "float32", "bfloat16")
)
@by_formula
def test_huge_logits_are_finite_where_the_mathematics_is(spec, dtype, robust_loss):
    """1e4, -1e30 and 65504, at the target and elsewhere; every value and gradient entry as the oracle has it."""
    scale = torch.tensor([0.0, 0.5, -1.0, 0.25, 0.75])
    logits, target = [], []
    for huge in (1e4, -1e4, -1e30, 65504.0, -65504.0):
        for at in (0, 2, 4):
            logits.append(torch.where(torch.arange(5) == at, huge, scale))
            target.append(2)
    logits, target = torch.stack(logits).to(dtype), torch.tensor(target)
    loss, grad = gradient(robust_loss, logits, target, spec.build(), reduction="none")
    wanted = expected(spec, logits, target, reduction="none")
    assert_within(loss, wanted.loss, wanted.loss_allowed, "loss")
    assert_within(grad, wanted.grad, wanted.grad_allowed, "gradient")
