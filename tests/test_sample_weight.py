"""Weights of the rows: in every function, reduction and layout, beside those of the classes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from calls import FORMULA, IMPLEMENTATIONS, REDUCTIONS, batch, by_implementation, by_reduction, gradient
from cases import FORMULAS, Case
from expected import assert_within, expected, rows

import imae_ext
from imae_ext import devices, reference

LAYOUTS = ("contiguous", "transposed", "padded", "sequence", "spatial", "channels_last", "vector")
INF, NAN = math.inf, math.nan


def cases():
    """Every formula, layout, dtype and reduction, with and without class weights and ignored rows."""
    turns = itertools.product(FORMULAS, (5, 40), REDUCTIONS)
    dtypes = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    for k, (formula, C, reduction) in enumerate(turns):
        layout = LAYOUTS[k % len(LAYOUTS)]
        if reduction != "normalized" or formula.margin:
            left_out = k % 2 == 0 and layout != "vector"
            yield Case(formula, C, dtypes[k % 4], layout, "unit", reduction, ignored=left_out, weighted=k % 3 == 0)


def weights_for(target, dtype=torch.float32):
    """Between 1/4 and 2, one of them negative, and one 0."""
    w = torch.linspace(0.25, 2, target.numel(), dtype=dtype)
    if w.numel() > 3:
        w[1], w[2] = -0.5, 0
    return w.view(target.shape)


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_against_the_oracle(case):
    logits, target, weight = case.inputs()
    sample_weight = weights_for(target, torch.float64 if case.dtype is torch.float64 else torch.float32)
    options = {"weight": weight, "sample_weight": sample_weight, "reduction": case.reduction}
    wanted = expected(case.formula, logits, target, **options)
    for robust_loss in IMPLEMENTATIONS:
        loss, grad = gradient(robust_loss, logits, target, case.formula.build(), **options)
        got = loss.reshape(-1) if case.reduction == "none" else loss
        assert_within(got, wanted.loss, wanted.loss_allowed, f"{robust_loss.__module__}: loss")
        assert_within(rows(grad), wanted.grad, wanted.grad_allowed, f"{robust_loss.__module__}: gradient")


@by_implementation
@by_reduction
@pytest.mark.parametrize("C", (5, 40))
def test_a_row_of_weight_0_is_left_out_whatever_it_holds(C, reduction, robust_loss):
    """And whatever comes from above."""
    logits, target = batch(N=20, C=C)
    sample_weight = weights_for(target)
    sample_weight[[4, 9, 19]] = 0
    out = sample_weight == 0
    options = {"sample_weight": sample_weight, "reduction": reduction}
    wanted = gradient(robust_loss, logits, target, FORMULA, **options)
    logits[out] = torch.tensor([NAN, INF, -INF, 1e30, 0.0]).repeat(C // 5)
    loss, grad = gradient(robust_loss, logits, target, FORMULA, **options)
    assert torch.equal(loss, wanted[0]) and torch.equal(grad, wanted[1])
    assert (grad[out] == 0).all() and grad[~out].abs().amin(1).gt(0).all()
    for upstream in (INF, -INF, NAN):
        leaf = logits.clone().requires_grad_()
        robust_loss(leaf, target, FORMULA, **options).sum().mul(upstream).backward()
        if robust_loss is imae_ext.robust_loss:
            assert (leaf.grad[out] == 0).all()
        assert not leaf.grad[~out].isfinite().any()


@by_implementation
@by_reduction
def test_a_weight_that_is_no_number(reduction, robust_loss):
    """Its own row for none and sum; all rows where it is part of the divisor."""
    logits, target = batch(N=20, C=5)
    sample_weight = torch.ones(20)
    sample_weight[7] = NAN
    loss, grad = gradient(robust_loss, logits, target, FORMULA, sample_weight=sample_weight, reduction=reduction)
    own = torch.arange(20) == 7
    if reduction in ("mean", "normalized"):
        assert loss.isnan() and grad.isnan().all()
    else:
        assert (loss.isnan() == own).all() if reduction == "none" else loss.isnan()
        assert (grad.isnan().all(1) == own).all() and (grad.isnan().any(1) == own).all()


@by_reduction
def test_negative_weights_turn_a_row_around(reduction):
    logits, target = batch()
    plain = gradient(imae_ext.robust_loss, logits, target, FORMULA, reduction=reduction)
    turned = gradient(imae_ext.robust_loss, logits, target, FORMULA, sample_weight=-torch.ones(8), reduction=reduction)
    sign = -1 if reduction in ("none", "sum") else 1  # a mean's divisor turns, too
    torch.testing.assert_close(turned, (sign * plain[0], sign * plain[1]))


@by_reduction
def test_the_derivative_by_the_weights(reduction):
    """By the reference: none's is each row's value."""
    logits, target = batch(dtype=torch.float64)
    values = imae_ext.robust_loss(logits, target, FORMULA, reduction="none")
    w = weights_for(target, torch.float64).requires_grad_()
    imae_ext.robust_loss(logits, target, FORMULA, sample_weight=w, reduction=reduction).sum().backward()
    if reduction in ("none", "sum"):
        assert torch.allclose(w.grad, values)
    elif reduction == "mean":
        total = w.detach().sum()
        assert torch.allclose(w.grad, values / total - (values * w.detach()).sum() / total**2)
    else:
        assert w.grad.isfinite().all()
    x = logits.clone().requires_grad_()
    with torch.no_grad():
        w[2] = 0.75
    imae_ext.robust_loss(x, target, FORMULA, sample_weight=w, reduction=reduction).sum().backward()
    wanted = gradient(imae_ext.robust_loss, logits, target, FORMULA, sample_weight=w.detach(), reduction=reduction)
    assert torch.allclose(x.grad, wanted[1], rtol=1e-11)


@by_reduction
def test_every_way_to_call_gives_the_same(reduction, monkeypatch):
    logits, target = batch(N=12, dtype=torch.float64)
    weight, sample_weight = torch.linspace(0.5, 2, 5), weights_for(target)
    options = {"weight": weight, "reduction": reduction}
    wanted = gradient(imae_ext.robust_loss, logits, target, FORMULA, sample_weight=sample_weight, **options)
    plain = gradient(imae_ext.robust_loss, logits, target, FORMULA, **options)
    assert not torch.allclose(plain[0], wanted[0]) and not torch.allclose(plain[1], wanted[1])
    module = imae_ext.RobustLoss(FORMULA, **options)
    double = sample_weight.double()

    def by_func(x):
        return imae_ext.robust_loss(x, target, FORMULA, sample_weight=double, **options)

    ways = {
        "function": imae_ext.imae_loss(logits, target, T=8.0, sample_weight=sample_weight, **options),
        "module": module(logits, target, sample_weight=sample_weight),
        "half": imae_ext.robust_loss(logits, target, FORMULA, sample_weight=sample_weight.bfloat16(), **options),
        "func": by_func(logits),
        "value_and_grad": imae_ext.value_and_grad(logits, target, FORMULA, sample_weight=sample_weight, **options)[0],
    }
    for name, loss in ways.items():
        assert torch.allclose(loss, wanted[0], rtol=1e-2 if name == "half" else 1e-11), name
    for grad in (
        torch.func.grad(lambda x: by_func(x).sum())(logits),
        imae_ext.value_and_grad(logits, target, FORMULA, sample_weight=sample_weight, **options)[1],
    ):
        assert torch.allclose(grad, wanted[1], rtol=1e-11, atol=1e-14)
    smoothed = {"sample_weight": sample_weight, "label_smoothing": 0.1, **options}
    through_autograd = gradient(imae_ext.robust_loss, logits, target, FORMULA, **smoothed)
    loss, grad = imae_ext.value_and_grad(logits, target, FORMULA, **smoothed)
    assert torch.allclose(loss, through_autograd[0]) and torch.allclose(grad, through_autograd[1])
    monkeypatch.setattr(devices, "_SERVED", frozenset())  # without kernels
    assert devices.path_of("cpu") == devices.PLAIN
    loss, grad = imae_ext.value_and_grad(logits, target, FORMULA, sample_weight=sample_weight, **options)
    assert torch.allclose(loss, wanted[0]) and torch.allclose(grad, wanted[1])
    assert torch.allclose(module(logits, target, sample_weight=sample_weight), wanted[0])


def test_weights_of_a_batch_of_batches():
    """vmap over weights alone, as for draws of a bootstrap."""
    logits, target = batch(dtype=torch.float64)
    draws = torch.rand(3, 8, dtype=torch.float64)
    got = torch.func.vmap(lambda w: imae_ext.robust_loss(logits, target, FORMULA, sample_weight=w))(draws)
    wanted = [imae_ext.robust_loss(logits, target, FORMULA, sample_weight=w) for w in draws]
    assert torch.allclose(got, torch.stack(wanted), rtol=1e-12)


@by_reduction
def test_compiled(reduction):
    logits, target = batch(N=12)
    module = imae_ext.IMAELoss(reduction=reduction)
    compiled = torch.compile(
        lambda x, y, w: module(x, y, sample_weight=w), backend="aot_eager", fullgraph=True, dynamic=True
    )
    for N in (12, 7):
        x, w = logits[:N].clone().requires_grad_(), weights_for(target[:N])
        loss = compiled(x, target[:N], w)
        loss.sum().backward()
        wanted = gradient(imae_ext.robust_loss, logits[:N], target[:N], FORMULA, sample_weight=w, reduction=reduction)
        assert torch.equal(loss.detach(), wanted[0]) and torch.allclose(x.grad, wanted[1], rtol=1e-6, atol=0)
    torch._dynamo.reset()


def test_second_derivative():
    logits, target = batch(dtype=torch.float64)
    w = weights_for(target, torch.float64)

    def value(x):
        return imae_ext.robust_loss(x, target, FORMULA, sample_weight=w, reduction="none")

    assert torch.autograd.gradgradcheck(value, logits.clone().requires_grad_())
    x = logits.clone().requires_grad_()
    (grad,) = torch.autograd.grad(value(x).sum(), x, create_graph=True)
    wanted = torch.autograd.grad(reference.robust_loss(x, target, FORMULA, sample_weight=w, reduction="sum"), x)
    assert torch.allclose(grad, wanted[0], rtol=1e-11)


def test_weights_of_another_shape_are_refused():
    logits, target = batch()
    for wrong in (torch.ones(5), torch.ones(8, 1), torch.ones(())):
        with pytest.raises(ValueError, match=r"imae_ext: expected sample_weight of shape \(8,\)"):
            imae_ext.robust_loss(logits, target, FORMULA, sample_weight=wrong)
