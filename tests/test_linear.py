"""The fused linear head: held against the reference behind F.linear, in every way that it can be called."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from cases import FORMULAS
from torch import Tensor
from torch.autograd import gradcheck
from torch.utils.checkpoint import checkpoint

from imae_ext import GCE, IMAE, NCE, LinearRobustLoss, linear_robust_loss, reference

by_formula = pytest.mark.parametrize("spec", FORMULAS, ids=str)
by_reduction = pytest.mark.parametrize("reduction", ("mean", "sum", "none"))
FORMULA = 0.5 * IMAE(8.0) + NCE()


def tensors(N: int = 37, D: int = 16, C: int = 50, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor]:
    """Input, head and bias, and a target with ignored rows."""
    generator = torch.Generator().manual_seed(3)
    made = [torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((N, D), (C, D), (C,))]
    target = torch.randint(C, (N,), generator=generator)
    target[N // 3 : N // 3 + 5] = -100
    return [(0.7 * x).to(dtype) for x in made], target


def plain(
    x: Tensor, head: Tensor, target: Tensor, formula, *, linear_bias=None, logit_scale=1.0, softcap=None, **options
):
    logits = logit_scale * F.linear(x, head, linear_bias)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    return reference.robust_loss(logits.movedim(-1, min(1, logits.dim() - 1)), target, formula, **options)


def results(function, inputs: list[Tensor], target: Tensor, formula, upstream=None, **options) -> list[Tensor]:
    """The loss and the gradients of input, head and, if there is one, bias."""
    x, head, *bias = leaves = [t.detach().clone().requires_grad_() for t in inputs]
    loss = function(x, head, target, formula, linear_bias=bias[0] if bias else None, **options)
    loss.backward(torch.ones_like(loss) if upstream is None else upstream)
    return [loss.detach(), *(leaf.grad for leaf in leaves)]


def assert_alike(ours: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    for a, b in zip(ours, wanted, strict=True):
        assert (a.double() - b.double()).abs().max() <= tolerance * b.double().abs().max()


@by_reduction
@by_formula
def test_value_and_gradients(spec, reduction):
    inputs, target = tensors()
    upstream = torch.linspace(-1, 2, 37).double() if reduction == "none" else torch.tensor(0.3).double()
    options = {"reduction": reduction, "upstream": upstream}
    wanted = results(plain, inputs, target, spec.build(), **options)
    for chunk in (None, 1, 8, 32, 37, 99):
        assert_alike(results(linear_robust_loss, inputs, target, spec.build(), chunk=chunk, **options), wanted, 1e-11)
    ours = results(linear_robust_loss, inputs[:2], target, spec.build(), chunk=8, **options)
    assert_alike(ours, results(plain, inputs[:2], target, spec.build(), **options), 1e-11)


@pytest.mark.parametrize("spec", [s for s in FORMULAS if s.margin], ids=str)
def test_normalized(spec):
    inputs, target = tensors()
    weights = {"weight": torch.rand(50).double(), "sample_weight": torch.rand(37).double()}
    for options in ({}, weights):
        ours = results(linear_robust_loss, inputs, target, spec.build(), reduction="normalized", chunk=8, **options)
        assert_alike(ours, results(plain, inputs, target, spec.build(), reduction="normalized", **options), 1e-9)


@by_reduction
@pytest.mark.parametrize(
    "options", ({"logit_scale": 0.25}, {"softcap": 3.0}, {"logit_scale": 2.0, "softcap": 1.5}), ids=str
)
def test_scale_and_softcap(options, reduction):
    inputs, target = tensors()
    target = target.int()
    for chosen in (inputs, inputs[:2]):
        ours = results(linear_robust_loss, chosen, target, FORMULA, reduction=reduction, chunk=10, **options)
        assert_alike(ours, results(plain, chosen, target, FORMULA, reduction=reduction, **options), 1e-11)


@by_reduction
def test_weights_that_leave_rows_out(reduction):
    inputs, target = tensors()
    inputs[0][0] = math.nan  # weighs nothing
    inputs[0][12] = math.nan  # ignored
    assert target[12] == -100
    weights = {"weight": torch.rand(50).double(), "sample_weight": torch.rand(37).double()}
    weights["sample_weight"][0] = 0
    ours = results(linear_robust_loss, inputs, target, FORMULA, reduction=reduction, chunk=7, **weights)
    assert all(t.isfinite().all() for t in ours)
    inputs[0][[0, 12]] = 0
    assert_alike(ours, results(plain, inputs, target, FORMULA, reduction=reduction, **weights), 1e-11)


@pytest.mark.parametrize("upstream", (math.inf, -math.inf, math.nan))
@by_reduction
def test_rows_that_do_not_count_stay_0_whatever_comes_from_above(reduction, upstream):
    inputs, target = tensors()
    dead = target == -100
    above = torch.full((37,) if reduction == "none" else (), upstream).double()
    _, dx, dw, _ = results(linear_robust_loss, inputs, target, GCE(0.7), upstream=above, reduction=reduction, chunk=7)
    assert (dx[dead] == 0).all() and not dx[~dead].isfinite().any() and not dw.isfinite().all()
    target[:] = -100
    loss, *grads = results(linear_robust_loss, inputs, target, GCE(0.7), upstream=above, reduction=reduction, chunk=7)
    assert all((g == 0).all() for g in grads) and (loss.isnan() if reduction == "mean" else (loss == 0)).all()


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16), ids=str)
@by_reduction
def test_lower_precision(monkeypatch, dtype, reduction):
    monkeypatch.setattr("imae_ext._torch.multiplies_bfloat16", lambda: False)
    inputs, target = tensors(dtype=dtype)
    ours = results(linear_robust_loss, inputs, target, GCE(0.7), reduction=reduction, chunk=8)
    wanted = results(plain, [t.double() for t in inputs], target, GCE(0.7), reduction=reduction)
    assert [t.dtype for t in ours] == [torch.float32, dtype, dtype, dtype]
    rounding = {torch.float32: 1e-6, torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype]
    assert_alike(ours[:1], wanted[:1], 2e-6)
    assert_alike(ours[1:], wanted[1:], rounding)  # rounded once, whatever the number of chunks


@pytest.mark.parametrize("options", ({}, {"logit_scale": 0.5}), ids=str)
@by_reduction
def test_products_of_bfloat16(monkeypatch, reduction, options):
    """As accurate as F.linear and a loss of bfloat16 logits, and the head's gradient does not lose by many chunks."""
    monkeypatch.setattr("imae_ext._torch.multiplies_bfloat16", lambda: True)
    monkeypatch.setattr("imae_ext.head.PART_BYTES", 1)  # parts of 64 classes
    inputs, target = tensors(400, 16, 150, torch.bfloat16)
    wanted = results(plain, [t.double() for t in inputs], target, GCE(0.7), reduction=reduction, **options)
    unfused = results(plain, inputs, target, GCE(0.7), reduction=reduction, **options)
    for chunk in (5, 400):
        ours = results(linear_robust_loss, inputs, target, GCE(0.7), reduction=reduction, chunk=chunk, **options)
        for a, b, c in zip(ours, unfused, wanted, strict=True):
            scale = c.abs().max()
            assert (a - c).abs().max() <= 1.5 * (b - c).abs().max() + 2**-8 * scale
            assert (a - c).square().mean().sqrt() <= 1.1 * (b - c).square().mean().sqrt() + 1e-3 * scale


@by_reduction
def test_gradcheck(reduction):
    (x, head, bias), target = tensors(9, 3, 5)
    leaves = [t.requires_grad_() for t in (x, head, bias)]
    for options in ({}, {"softcap": 2.0, "logit_scale": 0.5}):

        def loss(x: Tensor, head: Tensor, bias: Tensor, options: dict = options) -> Tensor:
            kinds = {"reduction": reduction, "chunk": 4, "linear_bias": bias}
            return linear_robust_loss(x, head, target, 0.5 * GCE(0.7) + NCE(), **kinds, **options)

        assert gradcheck(loss, leaves)


@pytest.mark.parametrize("wanted", ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)), ids=str)
@by_reduction
def test_only_the_gradients_that_are_wanted(wanted, reduction):
    inputs, target = tensors()
    leaves = [t.clone().requires_grad_(bool(wish)) for t, wish in zip(inputs, wanted, strict=True)]
    loss = linear_robust_loss(*leaves[:2], target, FORMULA, linear_bias=leaves[2], reduction=reduction, chunk=8)
    loss.sum().backward()
    _, *grads = results(plain, inputs, target, FORMULA, reduction=reduction)
    for leaf, wish, grad in zip(leaves, wanted, grads, strict=True):
        assert (leaf.grad is not None) == bool(wish)
        if wish:
            assert torch.allclose(leaf.grad, grad, rtol=1e-10, atol=1e-13)
    with torch.no_grad():
        value = linear_robust_loss(*leaves[:2], target, FORMULA, linear_bias=leaves[2], reduction=reduction, chunk=8)
    assert torch.allclose(value, loss, rtol=1e-12) and not value.requires_grad


@by_reduction
def test_a_retained_graph_and_a_second_derivative(reduction):
    (x, head, _), target = tensors()
    leaves = [x.requires_grad_(), head.requires_grad_()]
    loss = linear_robust_loss(x, head, target, GCE(0.7), reduction=reduction, chunk=8).sum()
    first = torch.autograd.grad(loss, leaves, torch.tensor(2.0).double(), retain_graph=True)
    second = torch.autograd.grad(loss, leaves, torch.tensor(2.0).double(), retain_graph=True)
    assert all(map(torch.allclose, first, second))
    graph = torch.autograd.grad(loss, leaves, create_graph=True)
    penalty = torch.autograd.grad(sum((g**2).sum() for g in graph), leaves)
    wanted = torch.autograd.grad(plain(x, head, target, GCE(0.7), reduction=reduction).sum(), leaves, create_graph=True)
    wanted = torch.autograd.grad(sum((g**2).sum() for g in wanted), leaves)
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-14) for a, b in zip(penalty, wanted, strict=True))


def test_transforms_and_weights_that_want_a_gradient():
    (x, head, _), target = tensors()
    grad = torch.func.grad(lambda w: linear_robust_loss(x, w, target, GCE(0.7)))(head)
    weight = torch.rand(50).double().requires_grad_()
    loss = linear_robust_loss(x, head, target, GCE(0.7), weight=weight)
    (by_weight,) = torch.autograd.grad(loss, weight)
    assert torch.allclose(grad, results(plain, [x, head], target, GCE(0.7))[2], rtol=1e-10, atol=1e-14)
    assert torch.equal(by_weight, torch.autograd.grad(plain(x, head, target, GCE(0.7), weight=weight), weight)[0])


@by_reduction
def test_compiled(reduction):
    inputs, target = tensors()
    torch._dynamo.reset()
    compiled = torch.compile(linear_robust_loss, fullgraph=True, backend="aot_eager")
    options = {"reduction": reduction, "chunk": 8, "softcap": 4.0, "sample_weight": torch.rand(37).double()}
    ours = results(compiled, inputs, target, FORMULA, **options)
    assert_alike(ours, results(linear_robust_loss, inputs, target, FORMULA, **options), 1e-12)
    ours = results(compiled, inputs[:2], target, FORMULA, **options)
    assert_alike(ours, results(linear_robust_loss, inputs[:2], target, FORMULA, **options), 1e-12)
    upstream = torch.full((37,) if reduction == "none" else (), math.inf).double()
    _, dx, *_ = results(compiled, inputs, target, FORMULA, upstream=upstream, reduction=reduction)
    assert (dx[target == -100] == 0).all()


def test_autocast_and_checkpointing():
    inputs, target = tensors(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours = results(linear_robust_loss, inputs, target, GCE(0.7))
    rounded = [t.bfloat16() for t in inputs]
    wanted = results(linear_robust_loss, rounded, target, GCE(0.7))
    assert ours[0].dtype == torch.float32 and torch.equal(ours[0], wanted[0])
    assert [t.dtype for t in ours[1:]] == [torch.float32] * 3
    assert_alike(ours, wanted, 1e-6)
    kept = results(
        lambda *a, **k: checkpoint(linear_robust_loss, *a, **k, use_reentrant=False), inputs, target, GCE(0.7)
    )
    assert_alike(kept, results(linear_robust_loss, inputs, target, GCE(0.7)), 1e-6)


def test_shapes():
    (x, head, bias), target = tensors(36)
    whole = linear_robust_loss(x, head, target, GCE(0.7), reduction="none")
    batch = linear_robust_loss(x.view(4, 9, 16), head, target.view(4, 9), GCE(0.7), reduction="none")
    assert torch.equal(batch, whole.view(4, 9))
    spread = x.t().contiguous().t(), head.t().contiguous().t()
    assert torch.allclose(linear_robust_loss(*spread, target, GCE(0.7), reduction="none"), whole)
    one = linear_robust_loss(x[0], head, target[0], GCE(0.7), reduction="none")
    assert one.shape == () and torch.allclose(one, whole[0])
    for reduction, value in (("sum", 0.0), ("mean", math.nan)):
        loss, *grads = results(linear_robust_loss, [x[:0], head, bias], target[:0], GCE(0.7), reduction=reduction)
        assert torch.equal(loss.nan_to_num(-1), torch.tensor(value).double().nan_to_num(-1))
        assert all((g == 0).all() for g in grads) and grads[1].shape == head.shape


def test_deterministic_and_its_inputs_are_not_touched():
    inputs, target = tensors(200, 24, 333, torch.float32)
    before = [t.clone() for t in inputs]
    first = results(linear_robust_loss, inputs, target, FORMULA, chunk=64)
    assert all(map(torch.equal, first, results(linear_robust_loss, inputs, target, FORMULA, chunk=64)))
    assert all(map(torch.equal, inputs, before))


def test_module():
    inputs, target = tensors(dtype=torch.float32)
    criterion = LinearRobustLoss(16, 50, GCE(0.7), bias=True, weight=torch.rand(50), softcap=5.0, chunk=8)
    w = torch.rand(37)
    loss = criterion(inputs[0], target, sample_weight=w)
    head = criterion.linear
    options = {"linear_bias": head.bias, "weight": criterion.weight, "softcap": 5.0, "sample_weight": w}
    assert torch.allclose(loss, plain(inputs[0], head.weight, target, GCE(0.7), **options))
    assert set(criterion.state_dict()) == {"linear.weight", "linear.bias", "weight"}
    assert "GCE(q=0.7)" in repr(criterion)


X, W, Y = torch.zeros(4, 3), torch.zeros(5, 3), torch.tensor([0, 1, 2, -100])


@pytest.mark.parametrize(
    ("error", "match", "arguments", "options"),
    (
        (TypeError, r"input to be a Tensor, got list", ([1.0], W, Y, GCE()), {}),
        (TypeError, r"linear_weight of dtype torch.float32.*got torch.float64", (X, W.double(), Y, GCE()), {}),
        (TypeError, r"input of dtype", (X.long(), W, Y, GCE()), {}),
        (TypeError, r"target of dtype int64", (X, W, Y.float(), GCE()), {}),
        (TypeError, r"expected a formula", (X, W, Y, "GCE"), {}),
        (ValueError, r"linear_weight of shape \(C, D\), got \(4, 3\) and \(3, 5\)", (X, W.t(), Y, GCE()), {}),
        (ValueError, r"target of shape \(4,\)", (X, W, Y[:3], GCE()), {}),
        (ValueError, r"linear_bias of shape \(5,\)", (X, W, Y, GCE()), {"linear_bias": torch.zeros(3)}),
        (ValueError, r"weight of shape \(5,\)", (X, W, Y, GCE()), {"weight": torch.ones(3)}),
        (ValueError, r"sample_weight of shape \(4,\)", (X, W, Y, GCE()), {"sample_weight": torch.ones(3)}),
        (ValueError, r"softcap", (X, W, Y, GCE()), {"softcap": 0.0}),
        (ValueError, r"logit_scale", (X, W, Y, GCE()), {"logit_scale": math.inf}),
        (ValueError, r"chunk", (X, W, Y, GCE()), {"chunk": 0}),
        (ValueError, r"'normalized'", (X, W, Y, NCE()), {"reduction": "normalized"}),
        (IndexError, r"labels in \[0, 5\) or ignore_index=-100, got 6 at row 0", (X, W, Y + 6, GCE()), {}),
        (TypeError, r"no argument bias", (X, W, Y, GCE()), {"bias": None}),
    ),
)
def test_refusals(error, match, arguments, options):
    with pytest.raises(error, match=match):
        linear_robust_loss(*arguments, **options)


def test_without_kernels_the_reference_serves(monkeypatch):
    inputs, target = tensors()
    monkeypatch.setattr("imae_ext.devices.has_kernels", lambda _: False)
    options = {"softcap": 3.0, "logit_scale": 0.5}
    assert_alike(
        results(linear_robust_loss, inputs, target, FORMULA, **options),
        results(plain, inputs, target, FORMULA, **options),
        1e-12,
    )
