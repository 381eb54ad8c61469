"""The gradients against finite differences in float64, to second order for the reference.

`normalized` holds its divisor constant, which finite differences do not: its gradient is held against the
reference's, and against per-row gradients divided by hand.
"""

from __future__ import annotations

import pytest
import torch
from cases import FORMULAS, Spec
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import imae_ext
from imae_ext import reference

EDGES = (
    Spec.of("IMAE", T=0.0, eps=1e-4),
    Spec.of("IMAE", T=30.0, eps=1.0),
    Spec.of("DM", beta=2.0, lambd=0.0, eps=1e-8),
    Spec.of("DM", beta=4.0, lambd=2.0, eps=0.0),
    Spec.of("GCE", q=0.05),
    Spec.of("Focal", gamma=0.0),
    Spec.of("TaylorCE", t=5),
    Spec.of("AGCE", a=0.5, q=0.5),
    Spec.of("AEL", a=0.5),
    Spec.of("LabelSmoothing", eps=1.0),
)
by_formula = pytest.mark.parametrize("spec", FORMULAS + EDGES, ids=str)
by_reduction = pytest.mark.parametrize("reduction", ("none", "sum", "mean"))

WEIGHT = torch.tensor([0.5, 2.0, 1.25, 0.75], dtype=torch.float64)
OPTIONS = {
    "plain": {},
    "weighted_ignored": {"weight": WEIGHT, "ignore_index": 2},
}
by_options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def rows(*size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(size, generator=generator, dtype=torch.float64)
    target = torch.randint(size[1], size[:1] + size[2:], generator=generator)
    target.view(-1)[:3] = torch.tensor([2, 0, 3])  # one that ignore_index = 2 leaves out, two that it does not
    return logits.requires_grad_(), target


@by_options
@by_reduction
@by_formula
def test_kernel(spec, reduction, options):
    logits, target = rows(5, 4)
    formula = spec.build()
    assert gradcheck(lambda x: imae_ext.robust_loss(x, target, formula, reduction=reduction, **options), logits)


@by_reduction
@by_formula
def test_kernel_with_classes_in_the_middle(spec, reduction):
    logits, target = rows(2, 4, 2)
    assert gradcheck(lambda x: imae_ext.robust_loss(x, target, spec.build(), reduction=reduction), logits)


@by_reduction
@by_formula
def test_reference(spec, reduction):
    logits, target = rows(5, 4)
    assert gradcheck(lambda x: reference.robust_loss(x, target, spec.build(), reduction=reduction), logits)


@by_reduction
@by_formula
def test_reference_to_second_order(spec, reduction):
    logits, target = rows(3, 4)
    formula, options = spec.build(), OPTIONS["weighted_ignored"]
    assert gradgradcheck(lambda x: reference.robust_loss(x, target, formula, reduction=reduction, **options), logits)


NORMALIZABLE = [s for s in FORMULAS + EDGES if s.margin]


@by_options
@pytest.mark.parametrize("spec", NORMALIZABLE, ids=str)
def test_normalized_gradient_holds_its_divisor_constant(spec, options):
    logits, target = rows(6, 4)
    formula = spec.build()
    weight, ignore_index = options.get("weight", torch.ones(4).double()), options.get("ignore_index", -100)
    example = imae_ext.row_stats(logits.detach(), target, formula, ignore_index=ignore_index)[1]
    divisor = (weight[target] * example).sum()
    by_hand = reference.robust_loss(logits, target, formula, reduction="sum", **options) / divisor
    (wanted,) = torch.autograd.grad(by_hand, logits)
    for implementation in (imae_ext.robust_loss, reference.robust_loss):
        loss = implementation(logits, target, formula, reduction="normalized", **options)
        (grad,) = torch.autograd.grad(loss, logits)
        assert torch.allclose(loss, by_hand, rtol=1e-11, atol=1e-13)
        assert torch.allclose(grad, wanted, rtol=1e-11, atol=1e-13)
