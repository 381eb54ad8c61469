"""torch.func, higher derivatives and forward mode."""

from __future__ import annotations

import pytest
import torch
from calls import FORMULA, REDUCTIONS, batch, by_formula, by_reduction, gradient, plain_loss
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import imae_ext
from imae_ext import reference

EXACT = {"rtol": 1e-11, "atol": 1e-13}


def kernel_rows(logits, target, formula):
    """(N, C) each row's own gradient, from the kernel."""
    return imae_ext.value_and_grad(logits, target, formula, reduction="none")[1]


# --- torch.func -----------------------------------------------------------------------------------------------


@by_formula
def test_func_grad(spec):
    logits, target = batch(dtype=torch.float64)
    for reduction in REDUCTIONS if spec.margin else REDUCTIONS[:3]:

        def total(x, reduction=reduction):
            return imae_ext.robust_loss(x, target, spec.build(), reduction=reduction).sum()

        grad, value = torch.func.grad_and_value(total)(logits)
        wanted_value, wanted = gradient(imae_ext.robust_loss, logits, target, spec.build(), reduction=reduction)
        assert torch.allclose(grad, wanted, **EXACT) and torch.allclose(value, wanted_value.sum(), **EXACT)


@by_formula
def test_vmap(spec):
    """Over a leading dimension of batches, over the rows, and over logits alone."""
    logits, target = batch(N=12, C=5, dtype=torch.float64)

    def loss(x, y):
        return imae_ext.robust_loss(x, y, spec.build())

    groups = torch.func.vmap(loss)(logits.view(3, 4, 5), target.view(3, 4))
    wanted = torch.stack([loss(logits[i : i + 4], target[i : i + 4]) for i in (0, 4, 8)])
    assert torch.allclose(groups, wanted, **EXACT)
    by_row = imae_ext.robust_loss(logits, target, spec.build(), reduction="none")
    assert torch.allclose(torch.func.vmap(loss)(logits, target), by_row, **EXACT)
    same_target = torch.func.vmap(loss, in_dims=(0, None))(logits.view(3, 4, 5), target[:4])
    assert torch.allclose(same_target[0], groups[0], **EXACT) and not torch.allclose(same_target[1], groups[1])


@pytest.mark.parametrize("jacobian", (torch.func.jacrev, torch.func.jacfwd), ids=("reverse", "forward"))
@by_formula
def test_jacobian(spec, jacobian):
    """(N, N, C): each value depends on its own row alone, by the kernel's gradient."""
    logits, target = batch(N=4, dtype=torch.float64)
    got = jacobian(lambda x: imae_ext.robust_loss(x, target, spec.build(), reduction="none"))(logits)
    wanted = torch.zeros(4, 4, 5, dtype=torch.float64)
    wanted[range(4), range(4)] = kernel_rows(logits, target, spec.build())
    assert torch.allclose(got, wanted, **EXACT)


@by_formula
def test_hessian(spec):
    """Against differences of the kernel's own gradient."""
    logits, target = batch(N=3, C=4, dtype=torch.float64)
    formula, h = spec.build(), 1e-5
    got = torch.func.hessian(lambda x: imae_ext.robust_loss(x, target, formula, reduction="sum"))(logits)
    for row, j in ((0, 0), (1, 3), (2, 1)):
        step = torch.zeros_like(logits)
        step[row, j] = h
        difference = kernel_rows(logits + step, target, formula) - kernel_rows(logits - step, target, formula)
        assert torch.allclose(got[row, j], difference / (2 * h), rtol=1e-6, atol=1e-8)
    assert torch.allclose(got, got.permute(2, 3, 0, 1), atol=1e-12)


@by_reduction
def test_tensor_that_outlives_its_transform(reduction):
    """Afterwards it stands for what it was made of, which the gradient reaches."""
    logits, target = batch(dtype=torch.float64)
    leaf, kept = logits.clone().requires_grad_(), []

    def keep(x, y):
        kept.extend((x, y))
        return x.sum()

    torch.func.grad(keep)(leaf, target)
    torch.func.grad(lambda x, y: keep(y, x.long()))(target.double(), target)  # a target, too
    wanted = gradient(imae_ext.robust_loss, logits, target, FORMULA, reduction=reduction)[1]
    for x, y in ((kept[0], target), (kept[0], kept[3])):
        leaf.grad = None
        imae_ext.robust_loss(x, y, FORMULA, reduction=reduction).sum().backward()
        assert torch.equal(leaf.grad, wanted)


def hessian_times_gradient(logits, target):
    leaf = logits.detach().requires_grad_()
    (grad,) = torch.autograd.grad(imae_ext.robust_loss(leaf, target, FORMULA), leaf, create_graph=True)
    return torch.autograd.grad(grad.square().sum() / 2, leaf)[0]


@pytest.mark.parametrize("mode", ("real", "fake", "symbolic"))
def test_second_derivative_traced(mode):
    """By make_fx, where labels have no values to look at."""
    logits, target = batch(dtype=torch.float64)
    traced = make_fx(hessian_times_gradient, tracing_mode=mode)(logits, target)
    other = batch(dtype=torch.float64, seed=1)
    assert torch.allclose(traced(*other), hessian_times_gradient(*other), **EXACT)


def test_second_derivative_of_fake_tensors():
    with FakeTensorMode():
        got = hessian_times_gradient(torch.empty(8, 5), torch.zeros(8).long())
    assert type(got) is FakeTensor and got.shape == (8, 5)


def test_linearize():
    logits, target = batch(dtype=torch.float64)
    loss, along = torch.func.linearize(lambda x: imae_ext.robust_loss(x, target, FORMULA), logits)
    wanted, grad = gradient(imae_ext.robust_loss, logits, target, FORMULA)
    direction = logits.sin()
    assert torch.allclose(loss, wanted, **EXACT) and torch.allclose(along(direction), (grad * direction).sum(), **EXACT)


def test_per_sample_gradients_of_a_model():
    """vmap over grad of a functional call, as differential privacy uses it, is one backward for each example."""
    model, criterion = torch.nn.Linear(6, 5).double(), imae_ext.IMAELoss(T=4.0)
    features, target = torch.randn(9, 6, dtype=torch.float64), torch.arange(9) % 5
    parameters = dict(model.named_parameters())

    def loss(parameters, x, y):
        return criterion(torch.func.functional_call(model, parameters, x[None]), y[None])

    got = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, features, target)
    for i in range(9):
        wanted = torch.autograd.grad(criterion(model(features[i : i + 1]), target[i : i + 1]), list(model.parameters()))
        for name, grad in zip(parameters, wanted, strict=True):
            assert torch.allclose(got[name][i], grad, **EXACT)


@pytest.mark.parametrize("robust_loss", (imae_ext.robust_loss, plain_loss), ids=("kernel", "plain"))
def test_batched_grad_outputs(robust_loss):
    """autograd.grad(is_grads_batched=True), which vectorised Jacobians use."""
    logits, target = batch(dtype=torch.float64)
    factors = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    for reduction in REDUCTIONS:
        leaf = logits.clone().requires_grad_()
        loss = robust_loss(leaf, target, FORMULA, reduction=reduction)
        (wanted,) = torch.autograd.grad(loss.sum(), leaf, retain_graph=True)
        upstream = torch.stack([torch.full_like(loss, float(f)) for f in factors])
        (got,) = torch.autograd.grad(loss, leaf, upstream, is_grads_batched=True)
        assert torch.allclose(got, factors.view(3, 1, 1) * wanted, **EXACT)


# --- derivatives of derivatives, and forward mode ---------------------------------------------------------------


def penalised_training(robust_loss, formula, reduction):
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    features, target = torch.randn(10, 4, dtype=torch.float64), torch.arange(10) % 5
    weight = torch.linspace(0.5, 1.5, 5, dtype=torch.float64)
    for _ in range(3):
        features.requires_grad_()
        loss = robust_loss(model(features), target, formula, weight=weight, reduction=reduction).sum()
        (grad,) = torch.autograd.grad(loss, features, create_graph=True)
        optimizer.zero_grad()
        (loss + grad.square().sum()).backward()
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@by_formula
def test_gradient_penalty_training(spec):
    """The parameters after three steps are the reference's, to 1e-12."""
    for reduction in REDUCTIONS if spec.margin else REDUCTIONS[:3]:
        ours, theirs = (
            penalised_training(f, spec.build(), reduction) for f in (imae_ext.robust_loss, reference.robust_loss)
        )
        assert ours.isfinite().all() and (ours - theirs).abs().max() <= 1e-12 * theirs.abs().max()


def test_gradient_penalty_counts():
    """The penalty reaches the parameters: without it they end elsewhere."""
    logits, target = batch(dtype=torch.float64)
    leaf = logits.clone().requires_grad_()
    loss = imae_ext.imae_loss(leaf, target)
    (grad,) = torch.autograd.grad(loss, leaf, create_graph=True)
    assert grad.requires_grad
    (second,) = torch.autograd.grad(grad.square().sum(), leaf)
    assert second.abs().max() > 1e-3


@by_formula
def test_forward_mode(spec):
    """The tangent is the kernel's gradient times the direction, by dual numbers and by jvp."""
    logits, target = batch(dtype=torch.float64)
    tangent = logits.cos()
    for reduction in REDUCTIONS if spec.margin else REDUCTIONS[:3]:

        def total(x, reduction=reduction):
            return imae_ext.robust_loss(x, target, spec.build(), reduction=reduction).sum()

        _, grad = gradient(imae_ext.robust_loss, logits, target, spec.build(), reduction=reduction)
        wanted = (grad * tangent).sum()
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(logits, tangent)
            got = torch.autograd.forward_ad.unpack_dual(total(dual)).tangent
        assert got is not None and torch.allclose(got, wanted, rtol=1e-10, atol=1e-12)
        assert torch.allclose(torch.func.jvp(total, (logits,), (tangent,))[1], wanted, rtol=1e-10, atol=1e-12)


def test_forward_mode_is_never_silently_dropped_by_the_others():
    """value_and_grad and row_stats stay outside autograd: no tangent, or an error, but the right values."""
    logits, target = batch(dtype=torch.float64)
    wanted = imae_ext.value_and_grad(logits, target, FORMULA)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(logits, logits.cos())
        loss, grad = imae_ext.value_and_grad(dual, target, FORMULA)
        p = imae_ext.row_stats(dual, target, FORMULA).p
    assert torch.equal(loss, wanted[0]) and torch.equal(grad, wanted[1])
    assert torch.equal(p, imae_ext.row_stats(logits, target, FORMULA)[0])


def test_class_weights_that_want_a_gradient():
    """F.cross_entropy refuses them."""
    logits, target = batch(dtype=torch.float64)
    for wants in (False, True):
        weight = torch.linspace(0.5, 1.5, 5, dtype=torch.float64).requires_grad_()
        imae_ext.robust_loss(logits.clone().requires_grad_(wants), target, FORMULA, weight=weight).backward()
        (wanted,) = torch.autograd.grad(reference.robust_loss(logits, target, FORMULA, weight=weight), weight)
        assert weight.grad is not None and torch.allclose(weight.grad, wanted, **EXACT)
