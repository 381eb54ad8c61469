"""Probabilities as target, as other code meets them: derivatives, compiled code, bad arguments, layouts, threads."""

from __future__ import annotations

import math

import pytest
import torch
from calls import FORMULA, by_reduction, by_reduction_or_dtype, gradient, same_by_threads
from layouts import RELAID

import imae_ext
from imae_ext import CCE, IMAE, NCE, reference

NAN = math.nan


@by_reduction
def test_derivatives(reduction):
    """By logits, target and weights, to the second order; through torch.func; and batched."""
    z, t = torch.randn(4, 3, dtype=torch.float64), torch.rand(4, 3, dtype=torch.float64)
    weight, samples = torch.rand(3, dtype=torch.float64) + 0.5, torch.rand(4, dtype=torch.float64) + 0.5
    formula = IMAE(4.0) + (0.5 * NCE() if reduction != "normalized" else imae_ext.MAE())

    def value(z, t, weight, samples):
        return imae_ext.robust_loss(z, t, formula, weight=weight, sample_weight=samples, reduction=reduction)

    if reduction != "normalized":  # whose divisor is held constant
        inputs = tuple(x.clone().requires_grad_() for x in (z, t, weight, samples))
        assert torch.autograd.gradcheck(value, inputs)
        assert torch.autograd.gradgradcheck(lambda z: value(z, t, weight, samples), inputs[0])
    wanted = gradient(lambda z, t, _: value(z, t, weight, samples), z, t, None)
    by_func = torch.func.grad(lambda z: value(z, t, weight, samples).sum())(z)
    assert torch.allclose(by_func, wanted[1], rtol=1e-10, atol=1e-14)
    batched = torch.func.vmap(lambda z, t: value(z, t, weight, samples))(torch.stack([z, 2 * z]), torch.stack([t, t]))
    assert torch.allclose(batched[0], wanted[0], rtol=1e-12)


@by_reduction
def test_every_way_to_call(reduction):
    z, t = torch.randn(9, 5), torch.rand(9, 5).softmax(1)
    wanted = gradient(imae_ext.robust_loss, z, t, FORMULA, label_smoothing=0.1, reduction=reduction)
    module = imae_ext.IMAELoss(label_smoothing=0.1, reduction=reduction)
    assert torch.equal(module(z, t), wanted[0]) and "label_smoothing=0.1" in repr(module)
    assert torch.equal(imae_ext.imae_loss(z, t, label_smoothing=0.1, reduction=reduction), wanted[0])
    out = torch.empty_like(z)
    loss, grad = imae_ext.value_and_grad(z, t, FORMULA, label_smoothing=0.1, reduction=reduction, out=out)
    assert grad is out and torch.equal(loss, wanted[0]) and torch.equal(grad, wanted[1])
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    leaf = z.clone().requires_grad_()
    loss = compiled(leaf, t)
    loss.sum().backward()
    torch.testing.assert_close((loss.detach(), leaf.grad), wanted)
    torch._dynamo.reset()


def test_bad_arguments_are_refused():
    z, t = torch.randn(6, 4), torch.rand(6, 4)
    for options, error, says in (
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing from 0 to 1"),
        ({"label_smoothing": NAN}, ValueError, "label_smoothing from 0 to 1"),
        ({"label_smoothing": "0.1"}, TypeError, "label_smoothing to be a number"),
        ({"ignore_index": 2}, ValueError, "no ignore_index with probabilities"),
        ({"sample_weight": torch.ones(4)}, ValueError, "sample_weight of shape"),
        ({"weight": torch.ones(6)}, ValueError, "weight of shape"),
        ({"reduction": "sum-of-all"}, ValueError, "reduction to be one of"),
    ):
        for call in (imae_ext.robust_loss, imae_ext.value_and_grad, reference.robust_loss):
            with pytest.raises(error, match=f"imae_ext: expected {says}"):
                call(z, t, CCE(), **options)
    with pytest.raises(ValueError, match="label_smoothing from 0 to 1"):
        imae_ext.CCELoss(label_smoothing=-0.1)
    with pytest.raises(ValueError, match=r"expected target of shape \(6,\), got \(6, 4\)"):
        imae_ext.robust_loss(z, torch.ones(6, 4).int(), CCE(), label_smoothing=0.1)
    with pytest.raises(IndexError, match="expected labels in"):
        imae_ext.robust_loss(z, torch.full((6,), 4), CCE(), label_smoothing=0.1)


@by_reduction_or_dtype
def test_the_operators_keep_torch_s_contract(dtype, reduction):
    z, t = torch.randn(6, 5).to(dtype), torch.rand(6, 5)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    code = imae_ext.checks.REDUCTIONS[reduction]
    arguments = (t.to(wide), FORMULA.packed, torch.rand(5), torch.rand(6), 0.1)
    torch.library.opcheck(torch.ops.imae_ext.dense_forward, (z.clone().requires_grad_(), *arguments, code))
    upstream = torch.ones(6 if reduction == "none" else (), dtype=wide)
    if reduction != "normalized":
        torch.library.opcheck(torch.ops.imae_ext.dense_forward_backward, (z, *arguments, code))
    torch.library.opcheck(torch.ops.imae_ext.dense_backward, (z, *arguments, torch.ones((), dtype=wide), upstream))


def test_the_same_bits_with_any_number_of_threads():
    z, t = torch.randn(3000, 37), torch.rand(3000, 37)
    assert same_by_threads(lambda: gradient(imae_ext.robust_loss, z, t, FORMULA), (1, 2, 3))


@pytest.mark.parametrize("lay", RELAID.values(), ids=RELAID)
def test_layouts(lay):
    z, t = torch.randn(4, 6, 5, 3, dtype=torch.float64), torch.rand(4, 6, 5, 3, dtype=torch.float64)
    wanted = gradient(imae_ext.robust_loss, lay(z).contiguous(), lay(t).contiguous(), FORMULA, reduction="none")
    got = gradient(imae_ext.robust_loss, lay(z), lay(t), FORMULA, reduction="none")
    assert torch.equal(got[0], wanted[0]) and torch.equal(got[1], wanted[1])


def test_long_sums():
    """Many classes of about the same amount: no sum loses digits by its length."""
    z, t = torch.randn(3, 50000), torch.full((3, 50000), 1 / 50000)
    exact = gradient(imae_ext.robust_loss, z.double(), t.double(), CCE() + FORMULA, reduction="none")
    got = gradient(imae_ext.robust_loss, z, t, CCE() + FORMULA, reduction="none")
    torch.testing.assert_close(got[0].double(), exact[0], rtol=2e-6, atol=0)
    torch.testing.assert_close(got[1].double(), exact[1], rtol=1e-4, atol=1e-9)
