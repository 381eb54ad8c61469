"""The reliability contract: grad_output, retained graphs, second losses, second derivatives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from calls import FORMULA, batch, by_dtype, by_formula, by_reduction, gradient, same_bits
from cases import Spec
from expected import assert_within, expected, rows

import imae_ext
from imae_ext import reference


@by_dtype
@by_reduction
def test_requires_grad_false_gives_values_only(reduction, dtype):
    """The same values with and without autograd, and no graph where none is wanted. Liger 507: the loss was 0."""
    logits, target = batch(dtype=dtype)
    leaf = logits.clone().requires_grad_()
    loss = imae_ext.robust_loss(logits, target, FORMULA, reduction=reduction)
    with torch.no_grad():
        under_no_grad = imae_ext.robust_loss(leaf, target, FORMULA, reduction=reduction)
    with_graph = imae_ext.robust_loss(leaf, target, FORMULA, reduction=reduction)
    assert not loss.requires_grad and not under_no_grad.requires_grad and with_graph.requires_grad
    assert torch.equal(loss, under_no_grad) and torch.equal(loss, with_graph.detach())
    assert (loss > 0).all()
    with torch.inference_mode():
        assert torch.equal(imae_ext.robust_loss(leaf, target, FORMULA, reduction=reduction), loss)


UPSTREAM = {
    "zero": lambda loss: torch.zeros_like(loss),
    "negative": lambda loss: torch.full_like(loss, -1.0),
    "half": lambda loss: torch.full_like(loss, 0.5),
    "almost_one": lambda loss: torch.full_like(loss, 1 + 2**-10),
    "not_quite_one": lambda loss: torch.full_like(loss, 1 - 2**-10),
    "huge": lambda loss: torch.full_like(loss, 65536.0),
    "uneven": lambda loss: torch.linspace(-2, 3, max(loss.numel(), 1)).to(loss.dtype).view_as(loss),
    "one_row": lambda loss: (torch.arange(loss.numel()) == 5).to(loss.dtype).view_as(loss),
    "expanded": lambda loss: loss.new_tensor(-1.25).expand_as(loss),
    "strided": lambda loss: torch.linspace(-2, 3, 2 * max(loss.numel(), 1)).to(loss.dtype)[::2].view_as(loss),
}


@by_dtype
@by_reduction
@pytest.mark.parametrize("upstream", UPSTREAM)
def test_grad_output(upstream, reduction, dtype):
    """Liger 968: none used the first row's for all. ROCm TransformerEngine 623: expanded ones taken for contiguous.
    TransformerEngine 2139: a shortcut for 1 was wrong for any other."""
    spec = Spec.of("IMAE", T=8.0, eps=1e-8)
    logits, target = batch(N=11, C=37, dtype=dtype)
    target[4] = -100
    leaf = logits.clone().requires_grad_()
    loss = imae_ext.robust_loss(leaf, target, spec.build(), reduction=reduction)
    grad_output = UPSTREAM[upstream](loss.detach())
    before = grad_output.clone()
    (grad,) = torch.autograd.grad(loss, leaf, grad_output)
    wanted = expected(spec, logits, target, reduction=reduction, grad_output=grad_output.double().numpy())
    reach = torch.finfo(dtype).max
    reached = np.where(np.abs(wanted.grad) > reach, np.copysign(np.inf, wanted.grad), wanted.grad)
    assert_within(grad, reached, wanted.grad_allowed, "gradient")
    assert torch.equal(grad_output, before)
    assert same_bits(leaf.detach(), logits)


def test_grad_output_transposed_over_positions():
    """A per-row grad_output in another layout than the loss."""
    spec = Spec.of("IMAE", T=8.0, eps=1e-8)
    generator = torch.Generator().manual_seed(2)
    logits, target = torch.randn(3, 9, 4, generator=generator), torch.randint(9, (3, 4), generator=generator)
    grad_output = torch.randn(4, 3, generator=generator).t()
    leaf = logits.clone().requires_grad_()
    loss = imae_ext.robust_loss(leaf, target, spec.build(), reduction="none")
    (grad,) = torch.autograd.grad(loss, leaf, grad_output)
    wanted = expected(spec, logits, target, reduction="none", grad_output=grad_output.double().numpy().reshape(-1))
    assert_within(rows(grad), wanted.grad, wanted.grad_allowed, "gradient")


@by_dtype
@by_reduction
def test_retain_graph_twice(reduction, dtype):
    """Three backwards through one graph with different grad_outputs, accumulated and apart."""
    logits, target = batch(dtype=dtype)
    leaf = logits.clone().requires_grad_()
    loss = imae_ext.robust_loss(leaf, target, FORMULA, reduction=reduction)
    grads = [torch.autograd.grad(loss, leaf, torch.full_like(loss, f), retain_graph=True)[0] for f in (1.0, 3.0, 1.0)]
    assert torch.equal(grads[0], grads[2])
    eps = torch.finfo(dtype).eps
    step = 1e-7 if dtype == torch.float16 else 0
    assert torch.allclose(grads[1].double(), 3 * grads[0].double(), rtol=2 * eps, atol=step)
    loss.sum().backward(retain_graph=True)
    loss.sum().backward()
    assert torch.allclose(leaf.grad.double(), 2 * grads[0].double(), rtol=2 * eps, atol=0)
    with pytest.raises(RuntimeError, match="second time"):
        loss.sum().backward()


def test_first_gradient_survives_the_second_backward():
    """What one backward returned is the caller's: a later one must not write into it."""
    logits, target = batch()
    leaf = logits.clone().requires_grad_()
    loss = imae_ext.robust_loss(leaf, target, FORMULA)
    first = torch.autograd.grad(loss, leaf, retain_graph=True)[0]
    kept = first.clone()
    second = torch.autograd.grad(loss, leaf, torch.tensor(-7.0), retain_graph=True)[0]
    assert torch.equal(first, kept)
    first.zero_()
    assert torch.allclose(second, -7 * kept, rtol=1e-6, atol=0)
    third = torch.autograd.grad(loss, leaf)[0]
    assert torch.equal(third, kept)


@pytest.mark.parametrize("reduction", ("none", "mean"))
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32), ids=("float64", "float32"))
def test_logits_used_by_a_second_loss(dtype, reduction):
    logits, target = batch(dtype=dtype)
    formulas = (imae_ext.IMAE(T=8.0), 2.0 * imae_ext.NCE() + imae_ext.MAE())
    leaf = logits.clone().requires_grad_()
    hidden = 1.0 * leaf
    losses = [imae_ext.robust_loss(hidden, target, f, reduction=reduction).sum() for f in formulas]
    (2 * losses[0] - losses[1] + hidden.square().sum()).backward()
    apart = [gradient(imae_ext.robust_loss, logits, target, f, reduction=reduction)[1] for f in formulas]
    assert torch.allclose(leaf.grad, 2 * apart[0] - apart[1] + 2 * logits, rtol=1e-5, atol=1e-6)
    assert same_bits(hidden.detach(), logits)


def test_logits_changed_in_place_before_backward_are_noticed():
    """Whatever backward reads again must be what forward saw; nothing is refused for what it does not read."""
    for reduction in ("none", "sum", "mean", "normalized"):
        logits, target = batch()
        leaf = logits.clone().requires_grad_()
        hidden = 1.0 * leaf
        loss = imae_ext.robust_loss(hidden, target, FORMULA, reduction=reduction).sum()
        with torch.no_grad():
            hidden.mul_(3)
        wanted = gradient(imae_ext.robust_loss, logits, target, FORMULA, reduction=reduction)[1]
        if reduction in ("sum", "mean"):  # the gradient was ready before
            loss.backward()
            assert torch.equal(leaf.grad, wanted)
        else:
            with pytest.raises(RuntimeError, match="inplace"):
                loss.backward()


@by_reduction
def test_a_graph_that_saved_out_notices_when_it_is_reused(reduction):
    (logits, target), out = batch(), torch.empty(8, 5)
    imae_ext.value_and_grad(logits, target, FORMULA, reduction=reduction, out=out)
    penalty = (out * torch.ones(8, 5, requires_grad=True)).sum()
    imae_ext.value_and_grad(-logits, target, FORMULA, reduction=reduction, out=out)
    with pytest.raises(RuntimeError, match="inplace"):
        penalty.backward()


@pytest.mark.parametrize("bad", (-7, 1000, 2**40))
@pytest.mark.parametrize("C", (5, 40, 1000))
@pytest.mark.parametrize("reduction", ("none", "normalized"))
def test_labels_changed_where_autograd_cannot_see_it(reduction, C, bad):
    """Backward looks again before it writes by them."""
    logits, _ = batch(C=C)
    labels = np.zeros(8, dtype=np.int64)
    leaf = logits.requires_grad_()
    loss = imae_ext.robust_loss(leaf, torch.from_numpy(labels), FORMULA, reduction=reduction).sum()
    labels[1] = bad
    with pytest.raises(IndexError, match=rf"got {bad} at row 1 of target"):
        loss.backward()


@by_dtype
@by_formula
def test_logits_target_and_weight_are_bitwise_unchanged(spec, dtype):
    """By every entry point, forward and backward, with values that would show any write."""
    logits, target = batch(N=13, C=33, dtype=dtype)
    logits[3], target[3] = math.nan, -100
    logits[5, 2], logits[6] = -math.inf, 0
    weight = torch.linspace(0.5, 1.5, 33).to(dtype if dtype.itemsize >= 4 else torch.float32)
    leaf = logits.clone().requires_grad_()
    y, w = target.clone(), weight.clone()
    for reduction in ("none", "sum", "mean", "normalized") if spec.margin else ("none", "sum", "mean"):
        loss = imae_ext.robust_loss(leaf, y, spec.build(), weight=w, reduction=reduction)
        torch.autograd.grad(loss, leaf, torch.full_like(loss, 0.5), retain_graph=True)
        torch.autograd.grad(loss, leaf, torch.ones_like(loss))
        imae_ext.value_and_grad(leaf.detach(), y, spec.build(), weight=w, reduction=reduction)
        reference.robust_loss(leaf, y, spec.build(), weight=w, reduction=reduction).sum().backward()
    if spec.margin:
        imae_ext.row_stats(leaf.detach(), y, spec.build())
    assert same_bits(leaf.detach(), logits) and torch.equal(y, target) and same_bits(w, weight)


def test_value_and_grad_stays_outside_autograd():
    logits, target = batch()
    loss, grad = imae_ext.value_and_grad(logits.requires_grad_(), target, FORMULA)
    assert not loss.requires_grad and not grad.requires_grad
    logits.backward(grad)
    assert torch.equal(logits.grad, grad)


@pytest.mark.parametrize("reduction", ("none", "sum", "mean"))
@by_formula
def test_create_graph(spec, reduction):
    """A gradient penalty, as the reference has it."""
    logits, target = batch(dtype=torch.float64)
    penalties = []
    for robust_loss in (imae_ext.robust_loss, reference.robust_loss):
        leaf = logits.clone().requires_grad_()
        loss = robust_loss(leaf, target, spec.build(), reduction=reduction)
        (grad,) = torch.autograd.grad(loss.sum(), leaf, create_graph=True)
        (loss.sum() + grad.square().sum()).backward()
        penalties.append(leaf.grad)
    assert torch.allclose(*penalties, rtol=1e-10, atol=1e-12)
