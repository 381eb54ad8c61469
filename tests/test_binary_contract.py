"""Binary losses as other code meets them: derivatives, compiled code, bad arguments, threads."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from calls import by_reduction, by_reduction_or_dtype, gradient, same_by_threads
from test_binary import problem

import imae_ext
from imae_ext import CCE, GCE, IMAE, Focal, binary_robust_loss

INF, NAN = math.inf, math.nan


def test_nothing_counts():
    x, t = problem(torch.float32)
    for reduction, value in (("mean", NAN), ("sum", 0.0), ("none", 0.0)):
        loss, grad = gradient(binary_robust_loss, x, torch.full_like(t, -100), IMAE(), reduction=reduction)
        assert torch.equal(loss.nan_to_num(nan=7.0), torch.full_like(loss, value).nan_to_num(nan=7.0))
        assert (grad == 0).all()


def test_torchvision_s_focal_loss():
    """Its alpha and gamma, for hard targets."""

    def sigmoid_focal_loss(x, t, alpha, gamma):  # as torchvision.ops has it
        p = torch.sigmoid(x)
        ce = F.binary_cross_entropy_with_logits(x, t, reduction="none")
        p_t = p * t + (1 - p) * (1 - t)
        return (alpha * t + (1 - alpha) * (1 - t)) * ce * (1 - p_t) ** gamma

    x, t = problem()
    t = t.round()
    for alpha, gamma in ((0.25, 2.0), (0.6, 1.5)):
        weights = {"weight": torch.tensor(1 - alpha).double(), "pos_weight": torch.tensor(alpha / (1 - alpha)).double()}
        ours = binary_robust_loss(x, t, Focal(gamma), reduction="none", **weights)
        assert torch.allclose(ours, sigmoid_focal_loss(x, t, alpha, gamma), rtol=1e-6, atol=1e-10)


@by_reduction
def test_derivatives(reduction):
    """Second ones, by soft targets and by every weight; and torch.func."""
    x, t = problem(shape=(4, 3))
    x = x / 4
    t[0, 0] = -100
    rest = [w.double() for w in (torch.rand(3) + 0.5, torch.rand(3) + 0.5, torch.rand(4) + 0.5)]

    def value(x, t, weight, pos_weight, sample_weight):
        weights = {"weight": weight, "pos_weight": pos_weight, "sample_weight": sample_weight}
        return binary_robust_loss(x, t, IMAE(4.0) + GCE(0.5), **weights, reduction=reduction)

    x.requires_grad_()
    if reduction != "normalized":  # whose divisor is held constant
        assert torch.autograd.gradcheck(lambda x: value(x, t, *rest), x)
        soft = torch.where(t == -100, t, t.clamp(0.1, 0.9)).requires_grad_()
        live = [w.clone().requires_grad_() for w in rest]
        mask = torch.ones_like(x).bool()
        mask[0, 0] = False
        assert torch.autograd.gradcheck(
            lambda s, *w: value(x.detach(), torch.where(mask, s, -100.0), *w), (soft, *live)
        )
        assert torch.autograd.gradgradcheck(lambda x: value(x, t, *rest), x)
    (grad,) = torch.autograd.grad(value(x, t, *rest).sum(), x)
    again = torch.func.grad(lambda x: value(x, t, *rest).sum())(x.detach())
    assert torch.allclose(grad, again, rtol=1e-10, atol=1e-14)


@by_reduction_or_dtype
def test_compiled_and_checked_by_torch(reduction, dtype):
    x, t = problem(dtype)
    t[1, 1] = -100
    module = imae_ext.BinaryRobustLoss(IMAE(4.0), pos_weight=torch.linspace(1, 2, 7), reduction=reduction)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    w = torch.linspace(0.5, 1.5, 23)
    for N in (23, 11):
        results = []
        for call in (module, compiled):
            leaf = x[:N].clone().requires_grad_()
            loss = call(leaf, t[:N], sample_weight=w[:N])
            loss.sum().backward()
            results.append((loss.detach(), leaf.grad))
        assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    torch._dynamo.reset()
    arguments = (x[:3].clone().requires_grad_(), t[:3], IMAE(4.0).packed, None, torch.ones(7), None, -100)
    code = list(imae_ext.checks.REDUCTIONS).index(reduction)
    torch.library.opcheck(torch.ops.imae_ext.binary_forward, (*arguments, code))
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    one = torch.ones((), dtype=wide)
    torch.library.opcheck(torch.ops.imae_ext.binary_backward, (x[:3], *arguments[1:], one, one))
    if reduction != "normalized":
        torch.library.opcheck(torch.ops.imae_ext.binary_forward_backward, (x[:3], *arguments[1:], code))


def test_bad_arguments_are_refused():
    x, t = problem()
    for options, says in (
        ({"weight": torch.ones(5)}, "weight to broadcast"),
        ({"pos_weight": torch.ones(2, 23, 7)}, "pos_weight to broadcast"),
        ({"sample_weight": torch.ones(7)}, "sample_weight of shape"),
        ({"reduction": "batchmean"}, "reduction to be one of"),
    ):
        with pytest.raises(ValueError, match=f"imae_ext: expected {says}"):
            binary_robust_loss(x, t, CCE(), **options)
    with pytest.raises(ValueError, match="need formulas of p_y alone"):
        binary_robust_loss(x, t, imae_ext.NCE(), reduction="normalized")
    with pytest.raises(TypeError, match="target of bool, integers or floats"):
        binary_robust_loss(x, t.to(torch.complex64), CCE())
    with pytest.raises(TypeError, match="logits of dtype"):
        binary_robust_loss(x.long(), t.long(), CCE())
    given = {"logits": x, "target": t, "weight": torch.ones(7), "sample_weight": torch.ones(23)}
    for name, each in given.items():
        with pytest.raises(TypeError, match=rf"{name} to be dense, .*; pass {name}\.to_dense\(\)"):
            binary_robust_loss(formula=CCE(), **{**given, name: each.to_sparse()})


def test_module_and_numbers_of_threads_give_the_same():
    """Bit for bit with any number of threads, and through the module, whose buffers move."""
    x, t = problem(torch.float32, (3000, 7))
    module = imae_ext.BinaryRobustLoss(IMAE(4.0), weight=torch.rand(7), pos_weight=torch.rand(7))
    assert set(module.state_dict()) == {"weight", "pos_weight"} and "IMAE" in repr(module)
    assert same_by_threads(lambda: gradient(lambda x, t, _: module(x, t), x, t, None), (1, 2, 3))
