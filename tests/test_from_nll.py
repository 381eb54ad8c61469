"""robust_loss_from_nll: the formula step on log-probabilities, held against the losses on logits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from calls import batch
from cases import FORMULAS, Spec
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

import imae_ext
from imae_ext import CCE, DM, GCE, IMAE, MAE, NCE, Focal, reference, robust_loss_from_nll
from imae_ext.reference import VALUE, Row

OF_P = [spec for spec in FORMULAS if spec.margin]
MORE = (
    Spec.of("Focal", gamma=0.0),
    Spec.of("Focal", gamma=0.5),
    Spec.of("GCE", q=0.05),
    Spec.of("DM", beta=8.0, lambd=2.0, eps=1e-3),
    Spec.of("DM", beta=8.0, lambd=0.0, eps=1e-3),
    Spec.of("IMAE", T=8.0, eps=1e-3),
)
by_formula = pytest.mark.parametrize("spec", [*OF_P, *MORE], ids=str)
by_float32_formula = pytest.mark.parametrize(
    "spec",
    [s for s in (*OF_P, *MORE) if all(dict(p).get("eps", 1) >= 1e-3 for _, _, p in s.terms)],
    ids=str,
)


def by_margin(spec: Spec, nll: Tensor) -> tuple[Tensor, Tensor]:
    """Values, and s / r, with the derivative taken in the margin."""
    formula, x = spec.build(), nll.double()
    u = (-x - torch.log(-torch.expm1(-x))).requires_grad_()
    value = sum(c * VALUE[type(g)](Row(u, torch.zeros(()), 2), *g.packed[2:]) for c, g in formula.terms)
    (slope,) = torch.autograd.grad(value.sum(), u)
    return value.detach(), -slope / -torch.expm1(-x)


GRID = torch.cat([torch.logspace(-9, 1, 81, dtype=torch.float64), torch.linspace(11, 60, 20, dtype=torch.float64)])


def derivative(nll: Tensor, formula: imae_ext.Formula, **options) -> tuple[Tensor, Tensor]:
    leaf = nll.detach().clone().requires_grad_()
    loss = robust_loss_from_nll(leaf, formula, **options)
    loss.sum().backward()
    return loss.detach(), leaf.grad


@by_formula
def test_derivative_is_that_of_the_margin(spec):
    value, grad = derivative(GRID, spec.build(), reduction="none")
    wanted, slope = by_margin(spec, GRID)
    assert torch.allclose(value, wanted, rtol=1e-7, atol=1e-9)  # the margin near a perfect fit has lost more
    assert torch.allclose(grad, slope, rtol=1e-6, atol=1e-12)


@by_float32_formula
def test_float32_is_accurate_at_any_fit(spec):
    nll = GRID.float()
    value, grad = derivative(nll, spec.build(), reduction="none")
    wanted, slope = derivative(nll.double(), spec.build(), reduction="none")
    assert value.dtype == grad.dtype == torch.float32
    assert torch.allclose(value.double(), wanted, rtol=1e-5, atol=1e-12)
    assert torch.allclose(grad.double(), slope, rtol=2e-5, atol=1e-12)


@by_formula
def test_through_the_logits_as_the_loss_on_logits(spec):
    logits, target = batch(40, 7, torch.float64)
    target[::5] = -100
    for options in ({}, {"weight": torch.rand(7).double() + 0.5}, {"sample_weight": torch.rand(40).double()}):
        for reduction in ("none", "sum", "mean", "normalized"):
            ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
            nll = F.cross_entropy(ours, target, reduction="none")
            loss = robust_loss_from_nll(nll, spec.build(), target=target, reduction=reduction, **options)
            wanted = reference.robust_loss(theirs, target, spec.build(), reduction=reduction, **options)
            assert torch.allclose(loss, wanted, rtol=1e-9, atol=1e-10)
            loss.sum().backward()
            wanted.sum().backward()
            assert torch.allclose(ours.grad, theirs.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="torch 2.13 has the chunked head")
@pytest.mark.parametrize("formula", (GCE(0.7), MAE(), IMAE(8.0)), ids=repr)
def test_behind_the_chunked_head_of_torch(formula):
    torch.manual_seed(0)
    hidden, head = torch.randn(37, 16).double(), torch.randn(50, 16).double()
    target = torch.randint(50, (37,))
    target[3:9] = -100
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=8)
    leaves = [[x.clone().requires_grad_() for x in (hidden, head)] for _ in range(2)]
    nll = F.linear_cross_entropy(*leaves[0], target, reduction="none", options=options)
    loss = robust_loss_from_nll(nll, formula, target=target)
    wanted = reference.robust_loss(F.linear(*leaves[1]), target, formula)
    assert torch.allclose(loss, wanted, rtol=1e-10)
    loss.backward()
    wanted.backward()
    for ours, theirs in zip(*leaves, strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-7, atol=1e-10)


@by_formula
def test_a_perfect_fit_takes_the_limit(spec):
    value, grad = derivative(torch.zeros(2, dtype=torch.float64), spec.build(), reduction="none")
    at_infinity = [c * VALUE[type(g)](Row(torch.tensor([math.inf]).double(), torch.zeros(()), 2), *g.packed[2:])
                   for c, g in spec.build().terms]  # fmt: skip
    assert torch.equal(value, sum(at_infinity).expand(2))
    if any(dict(p).get("eps", 1) == 0 for _, _, p in spec.terms):
        assert (grad == 0).all()
    else:
        _, near = derivative(torch.full((2,), 1e-14, dtype=torch.float64), spec.build(), reduction="none")
        assert torch.allclose(grad, near, rtol=1e-4, atol=1e-6)


def test_rounding_below_0_is_0_and_more_is_refused():
    zero = derivative(torch.zeros(1), GCE(0.7))
    assert all(map(torch.equal, derivative(torch.tensor([-9e-4]), GCE(0.7)), zero))
    with pytest.raises(ValueError, match=r"got -2; pass -log_probs"):
        robust_loss_from_nll(torch.tensor([0.5, -2.0]), GCE(0.7))
    robust_loss_from_nll(torch.tensor([0.5, -2.0]), GCE(0.7), target=torch.tensor([0, -100]))  # not its row
    # where nobody may look, as on a GPU: NaN, in that row only
    grad = torch.func.grad(lambda x: robust_loss_from_nll(x, GCE(0.7), reduction="sum"))(torch.tensor([0.5, -2.0]))
    assert grad[0].isfinite() and grad[1].isnan()


@by_float32_formula
@pytest.mark.parametrize("upstream", (math.inf, math.nan))
def test_rows_that_do_not_count_stay_0(spec, upstream):
    nll = torch.tensor([1.0, math.nan, 2.0, -5.0], requires_grad=True)
    target = torch.tensor([0, -100, 1, -100])
    for options in ({}, {"weight": torch.tensor([1.0, 0.0])}, {"sample_weight": torch.tensor([1.0, 1.0, 0.0, 1.0])}):
        dead = [1, 3] if not options else [1, 2, 3]
        values = robust_loss_from_nll(nll, spec.build(), target=target, reduction="none", **options)
        assert (values[dead] == 0).all() and values[0] > 0
        (grad,) = torch.autograd.grad(values.sum() * upstream, nll)
        assert (grad[dead] == 0).all() and not grad[0].isfinite()
    nothing = torch.full((4,), -100)
    loss = robust_loss_from_nll(nll, spec.build(), target=nothing)
    assert loss.isnan() and (torch.autograd.grad(loss, nll)[0] == 0).all()


@pytest.mark.parametrize("weight", (None, torch.tensor([0.5, 2.0, 1.0])), ids=("plain", "weighted"))
def test_labels_of_32_bits(weight):
    nll, target = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([0, 2, -100])
    wanted = derivative(nll, GCE(0.7), target=target, weight=weight)
    got = derivative(nll, GCE(0.7), target=target.int(), weight=weight)
    assert wanted[0].isfinite() and all(map(torch.equal, got, wanted))


@by_formula
def test_gradcheck(spec):
    nll = torch.tensor([0.02, 0.4, 0.7, 2.0, 5.0], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, -100, 1, 0])
    w = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    for reduction in ("none", "sum", "mean"):

        def loss(x: Tensor, w: Tensor, reduction: str = reduction) -> Tensor:
            return robust_loss_from_nll(x, spec.build(), target=target, weight=w, reduction=reduction)

        assert gradcheck(loss, (nll, w), rtol=1e-4)
    assert gradgradcheck(lambda x: loss(x, w.detach()), nll, rtol=1e-3)


@pytest.mark.parametrize("formula", (GCE(0.7), 0.5 * IMAE(8.0, eps=1e-3) + Focal(2.0)), ids=repr)
def test_compiled(formula):
    nll, target = torch.rand(3, 5) * 4, torch.randint(3, (3, 5))
    nll[0, 0], target[1, 1] = 0, -100
    torch._dynamo.reset()
    compiled = torch.compile(robust_loss_from_nll, fullgraph=True, backend="aot_eager")
    leaf = nll.clone().requires_grad_()
    loss = compiled(leaf, formula, target=target)
    loss.backward()
    value, grad = derivative(nll, formula, target=target)
    assert torch.allclose(loss, value) and torch.allclose(leaf.grad, grad)


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16), ids=str)
def test_half_precision_is_computed_in_float32(dtype):
    nll = torch.linspace(0, 9, 30).to(dtype)
    value, grad = derivative(nll, GCE(0.7), reduction="none")
    wanted, slope = derivative(nll.float(), GCE(0.7), reduction="none")
    assert value.dtype == torch.float32 and torch.equal(value, wanted)
    assert grad.dtype == dtype and torch.equal(grad, slope.to(dtype))


def test_shapes_and_no_rows():
    assert robust_loss_from_nll(torch.tensor(0.5), CCE()) == 0.5
    assert robust_loss_from_nll(torch.rand(2, 3), CCE(), reduction="none").shape == (2, 3)
    assert robust_loss_from_nll(torch.zeros(0), CCE()).isnan() and robust_loss_from_nll(
        torch.zeros(0), CCE(), reduction="sum"
    ) == 0  # fmt: skip


NLL = torch.tensor([0.5, 1.0])


@pytest.mark.parametrize(
    ("error", "match", "call"),
    (
        (ValueError, r"linear_robust_loss", lambda: robust_loss_from_nll(NLL, NCE())),
        (ValueError, r"pass eps=1e-3.*linear_robust_loss", lambda: robust_loss_from_nll(NLL, IMAE(8.0))),
        (ValueError, r"pass eps=1e-3", lambda: robust_loss_from_nll(NLL, CCE() + DM(eps=0.0))),
        (TypeError, r"nll to be a Tensor of a floating dtype, got torch.int64", lambda: robust_loss_from_nll(
            torch.tensor([1, 2]), CCE())),
        (TypeError, r"nll to be a Tensor of a floating dtype, got list", lambda: robust_loss_from_nll([1.0], CCE())),
        (TypeError, r"pass nll.to_dense", lambda: robust_loss_from_nll(NLL.to_sparse(), CCE())),
        (TypeError, r"pass target.to_dense", lambda: robust_loss_from_nll(
            NLL, CCE(), target=torch.tensor([0, 1]).to_sparse())),
        (TypeError, r"pass sample_weight.to_dense", lambda: robust_loss_from_nll(
            NLL, CCE(), sample_weight=torch.ones(2).to_sparse())),
        (TypeError, r"expected a formula", lambda: robust_loss_from_nll(NLL, "CCE")),
        (TypeError, r"target to be a Tensor of dtype int64", lambda: robust_loss_from_nll(NLL, CCE(), target=NLL)),
        (ValueError, r"target of shape \(2,\)", lambda: robust_loss_from_nll(NLL, CCE(), target=torch.tensor([0]))),
        (ValueError, r"pass target=", lambda: robust_loss_from_nll(NLL, CCE(), weight=torch.ones(3))),
        (ValueError, r"sample_weight of shape \(2,\)", lambda: robust_loss_from_nll(
            NLL, CCE(), sample_weight=torch.ones(3))),
        (IndexError, r"labels in \[0, 3\) or ignore_index=-100, got 3", lambda: robust_loss_from_nll(
            NLL, CCE(), target=torch.tensor([0, 3]), weight=torch.ones(3))),
        (IndexError, r"labels 0 or more", lambda: robust_loss_from_nll(NLL, CCE(), target=torch.tensor([0, -1]))),
    ),
)  # fmt: skip
def test_refusals(error, match, call):
    with pytest.raises(error, match=match):
        call()


def test_small_eps_is_served_in_float64():
    robust_loss_from_nll(NLL.double(), IMAE(8.0))
    robust_loss_from_nll(NLL, IMAE(8.0, eps=1e-3))
