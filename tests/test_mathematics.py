"""What the papers say of these losses, and how they relate to each other."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from calls import by_implementation, row_gradient, varied_rows
from cases import FORMULAS, RCE_A, Spec
from mpmath import mp, mpf
from torch import Tensor

import imae_ext
from imae_ext import quadrature

# --- weights --------------------------------------------------------------------------------------------------


def logits_at_every_p(n: int = 4000) -> tuple[Tensor, Tensor, Tensor]:
    """Two-class logits whose p_y runs through the midpoints of [0, 1]."""
    p = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return p, torch.stack([torch.log(p) - torch.log1p(-p), torch.zeros(n).double()], 1), torch.zeros(n).long()


PUBLISHED_VARIANCES = ((imae_ext.CCE(), 0.33), (imae_ext.MAE(), 0.09), (imae_ext.IMAE(T=8.0), 4.55))


@pytest.mark.parametrize(("formula", "variance"), PUBLISHED_VARIANCES, ids=lambda v: str(v))
def test_variance_of_the_weight_curve_is_the_published_one(formula, variance):
    p, logits, target = logits_at_every_p()
    p_y, w, *_ = imae_ext.row_stats(logits, target, formula)
    assert torch.allclose(p_y, p, rtol=1e-12, atol=0)
    assert round(w.var(correction=0).item(), 2) == variance


@by_implementation
@pytest.mark.parametrize(("formula", "variance"), PUBLISHED_VARIANCES, ids=lambda v: str(v))
def test_variance_of_the_gradient_norm_is_the_published_one(formula, variance, robust_loss):
    _, logits, target = logits_at_every_p()
    norm = row_gradient(robust_loss, logits, target, formula)[1].abs().sum(1)
    assert round(norm.var(correction=0).item(), 2) == variance


@pytest.mark.parametrize("T", (0.0, 4.0, 8.0, 16.0))
def test_imae_weight_is_the_published_exponential(T):
    p, logits, target = logits_at_every_p()
    w = imae_ext.row_stats(logits, target, imae_ext.IMAE(T=T)).example_weight
    assert torch.allclose(w, torch.exp(T * p * (1 - p)), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("beta", "lambd"), ((2.0, 0.0), (8.0, 0.5), (12.0, 1.0), (4.0, 3.0)))
def test_dm_weight_is_the_published_derivative_magnitude(beta, lambd):
    p, logits, target = logits_at_every_p()
    w = imae_ext.row_stats(logits, target, imae_ext.DM(beta=beta, lambd=lambd)).example_weight
    assert torch.allclose(w, torch.exp(beta * p**lambd * (1 - p)), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "spec", [s for s in FORMULAS if s.margin and not {"IMAE", "DM"} & {n for _, n, _ in s.terms}], ids=str
)
def test_weight_is_the_l1_norm_of_the_gradient(spec):
    logits, target = varied_rows()
    w = imae_ext.row_stats(logits, target, spec.build()).example_weight
    norm = row_gradient(imae_ext.robust_loss, logits, target, spec.build())[1].abs().sum(1)
    assert torch.allclose(w, norm, rtol=1e-12, atol=0)


# --- the authors' recipe --------------------------------------------------------------------------------------


def authors_recipe(logits: Tensor, target: Tensor, T: float) -> Tensor:
    """Their custom backward, in float64: derivative, its normalisation to weight 1, emphasis, mean of weights."""
    p = logits.double().softmax(1)
    onehot = F.one_hot(target, logits.shape[1])
    p_y = p.gather(1, target[:, None])
    w = torch.exp(T * p_y * (1 - p_y))
    return (p - onehot) / (2 * (1 - p_y) + 1e-8) * w / w.sum()


@by_implementation
@pytest.mark.parametrize("T", (0.0, 0.5, 2.0, 8.0, 16.0))
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32), ids=("float64", "float32"))
def test_normalized_gradient_is_the_authors_recipe(dtype, T, robust_loss):
    logits, target = varied_rows(dtype=dtype)
    logits, target = logits[:50], target[:50]  # margins to 20: beyond, the recipe itself loses 1 - p_y
    leaf = logits.clone().requires_grad_()
    robust_loss(leaf, target, imae_ext.IMAE(T=T), reduction="normalized").backward()
    recipe = authors_recipe(logits, target, T)
    largest = recipe.abs().amax(1, keepdim=True)
    tolerance = 1e-6 if dtype == torch.float64 else 5e-6  # the logits' own float32 margins, up to |u| = 30
    assert ((leaf.grad.double() - recipe).abs() <= tolerance * largest).all()


@by_implementation
def test_normalized_value_is_the_weighted_sum_over_the_weights(robust_loss):
    logits, target = varied_rows()
    weight = torch.linspace(0.5, 2, 7, dtype=torch.float64)
    formula = imae_ext.IMAE(T=8.0)
    each = robust_loss(logits, target, formula, reduction="none")
    w = imae_ext.row_stats(logits, target, formula).example_weight
    got = robust_loss(logits, target, formula, weight=weight, reduction="normalized")
    wanted = (weight[target] * each).sum() / (weight[target] * w).sum()
    assert torch.allclose(got, wanted, rtol=1e-12, atol=0)


# --- the family -----------------------------------------------------------------------------------------------


def _spec(name: str, **params: float) -> Spec:
    return Spec.of(name, **params)


IDENTITIES = {
    "Focal(0)=CCE": (_spec("Focal", gamma=0.0), _spec("CCE")),
    "LabelSmoothing(0)=CCE": (_spec("LabelSmoothing", eps=0.0), _spec("CCE")),
    "2GCE(1)=MAE": (2.0 * _spec("GCE", q=1.0), _spec("MAE")),
    "2TaylorCE(1)=MAE": (2.0 * _spec("TaylorCE", t=1), _spec("MAE")),
    "2AGCE(a,1)=MAE": (2.0 * _spec("AGCE", a=3.0, q=1.0), _spec("MAE")),
    "2AUL(a,1)=MAE": (2.0 * _spec("AUL", a=3.0, q=1.0), _spec("MAE")),
    "RCE(A)=A/2MAE": (_spec("RCE", A=RCE_A), RCE_A / 2 * _spec("MAE")),
    "2TaylorCE(2)=MAE+MSE": (2.0 * _spec("TaylorCE", t=2), _spec("MAE") + _spec("MSE")),
    "DM(0,lambd)=IMAE(0)": (_spec("DM", beta=0.0, lambd=0.3, eps=1e-8), _spec("IMAE", T=0.0, eps=1e-8)),
    **{
        f"DM({beta:g},1,{eps:g})=IMAE({beta:g},{eps:g})": (
            _spec("DM", beta=beta, lambd=1.0, eps=eps),
            _spec("IMAE", T=beta, eps=eps),
        )
        for beta, eps in product((0.5, 2.0, 8.0, 16.0), (1e-8, 1e-4, 0.0))
    },
}


def assert_same_loss(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    """1e-12 of each row: of the larger of value and gradient (a value may cross zero), of the largest gradient."""
    largest = theirs[1].abs().amax(1)
    assert ((ours[0] - theirs[0]).abs() <= 1e-12 * torch.maximum(theirs[0].abs(), largest)).all()
    assert ((ours[1] - theirs[1]).abs() <= 1e-12 * largest[:, None]).all()


@by_implementation
@pytest.mark.parametrize("pair", IDENTITIES)
def test_identity(pair, robust_loss):
    logits, target = varied_rows()
    left, right = (row_gradient(robust_loss, logits, target, s.build()) for s in IDENTITIES[pair])
    assert_same_loss(left, right)


COMBINATIONS = [s for s in FORMULAS if len(s.terms) > 1]


@by_implementation
@pytest.mark.parametrize("spec", COMBINATIONS, ids=str)
def test_combination_is_the_sum_of_its_parts(spec, robust_loss):
    logits, target = varied_rows()
    whole = row_gradient(robust_loss, logits, target, spec.build())
    parts = [row_gradient(robust_loss, logits, target, Spec(((1.0, n, p),)).build()) for _, n, p in spec.terms]
    factors = [c for c, _, _ in spec.terms]
    assert_same_loss(
        whole, tuple(sum(c * x for c, x in zip(factors, xs, strict=True)) for xs in zip(*parts, strict=True))
    )


def test_sce_is_the_published_combination():
    logits, target = varied_rows()
    ours = row_gradient(imae_ext.robust_loss, logits, target, imae_ext.SCE(alpha=0.3, beta=2.0))
    parts = 0.3 * Spec.of("CCE") + 2.0 * Spec.of("RCE", A=RCE_A)
    assert_same_loss(ours, row_gradient(imae_ext.robust_loss, logits, target, parts.build()))
    assert imae_ext.SCE() == 0.1 * imae_ext.CCE() + imae_ext.RCE()


@by_implementation
def test_gce_tends_to_cce(robust_loss):
    logits, target = varied_rows()
    near, limit = (row_gradient(robust_loss, logits, target, f) for f in (imae_ext.GCE(q=1e-9), imae_ext.CCE()))
    for ours, theirs in zip(near, limit, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-7, atol=0)


@by_implementation
def test_normalised_loss_sums_to_one_over_the_labels(robust_loss):
    logits = varied_rows()[0][:9]
    total = sum(robust_loss(logits, torch.full((9,), y), imae_ext.NCE(), reduction="none") for y in range(7))
    assert torch.allclose(total, torch.ones(9, dtype=torch.float64), rtol=1e-13, atol=0)


@by_implementation
def test_mae_is_symmetric_over_the_labels(robust_loss):
    """Ghosh et al.: the sum over labels is a constant, 2 (C - 1), which is what makes MAE robust."""
    logits = varied_rows()[0][:9]
    total = sum(robust_loss(logits, torch.full((9,), y), imae_ext.MAE(), reduction="none") for y in range(7))
    assert torch.allclose(total, torch.full((9,), 12.0, dtype=torch.float64), rtol=1e-13, atol=0)


@by_implementation
def test_imae_without_emphasis_or_eps_pulls_every_example_alike(robust_loss):
    logits, target = varied_rows()
    _, grad = row_gradient(robust_loss, logits, target, imae_ext.IMAE(T=0.0, eps=0.0))
    assert torch.allclose(grad.gather(1, target[:, None]), torch.tensor(-0.5, dtype=torch.float64), rtol=1e-14, atol=0)


@by_implementation
@pytest.mark.parametrize("spec", FORMULAS, ids=str)
def test_gradient_rows_sum_to_zero(spec, robust_loss):
    """Adding a constant to a row changes no probability."""
    logits, target = varied_rows()
    _, grad = row_gradient(robust_loss, logits, target, spec.build())
    assert (grad.sum(1).abs() <= 1e-14 * grad.abs().amax(1)).all()


NAMED = {
    "imae": (imae_ext.imae_loss, imae_ext.IMAELoss, {"T": 6.0, "eps": 1e-5}, imae_ext.IMAE(T=6.0, eps=1e-5)),
    "imae_default": (imae_ext.imae_loss, imae_ext.IMAELoss, {}, imae_ext.IMAE(T=8.0, eps=1e-8)),
    "cce": (imae_ext.cce_loss, imae_ext.CCELoss, {}, imae_ext.CCE()),
    "mae": (imae_ext.mae_loss, imae_ext.MAELoss, {}, imae_ext.MAE()),
    "gce": (imae_ext.gce_loss, imae_ext.GCELoss, {"q": 0.3}, imae_ext.GCE(q=0.3)),
    "gce_default": (imae_ext.gce_loss, imae_ext.GCELoss, {}, imae_ext.GCE(q=0.7)),
    "dm": (imae_ext.dm_loss, imae_ext.DMLoss, {"beta": 3.0, "lambd": 0.25, "eps": 1e-6}, imae_ext.DM(3.0, 0.25, 1e-6)),
    "dm_default": (imae_ext.dm_loss, imae_ext.DMLoss, {}, imae_ext.DM(beta=8.0, lambd=0.5, eps=1e-8)),
    "sce": (imae_ext.sce_loss, imae_ext.SCELoss, {"alpha": 0.5, "beta": 0.7}, imae_ext.SCE(0.5, 0.7)),
    "sce_default": (imae_ext.sce_loss, imae_ext.SCELoss, {}, imae_ext.SCE(alpha=0.1, beta=1.0)),
    "nce": (imae_ext.nce_loss, imae_ext.NCELoss, {}, imae_ext.NCE()),
    "focal": (imae_ext.focal_loss, imae_ext.FocalLoss, {"gamma": 1.5}, imae_ext.Focal(gamma=1.5)),
    "focal_default": (imae_ext.focal_loss, imae_ext.FocalLoss, {}, imae_ext.Focal(gamma=2.0)),
}


@pytest.mark.parametrize("options", ({}, {"reduction": "sum"}, {"reduction": "none", "ignore_index": 2}), ids=str)
@pytest.mark.parametrize("weighted", (False, True), ids=("plain", "weighted"))
@pytest.mark.parametrize("name", NAMED)
def test_named_functions_and_modules_are_robust_loss(name, weighted, options):
    function, module, params, formula = NAMED[name]
    logits, target = varied_rows()
    if weighted:
        options = {**options, "weight": torch.linspace(0.5, 2, 7, dtype=torch.float64)}
    wanted = imae_ext.robust_loss(logits, target, formula, **options)
    assert torch.equal(function(logits, target, **params, **options), wanted)
    assert torch.equal(module(**params, **options)(logits, target), wanted)
    assert torch.equal(imae_ext.RobustLoss(formula, **options)(logits, target), wanted)


@pytest.mark.parametrize("n", [8, 16, 32])
def test_rules_of_the_reference_are_the_gauss_legendre_rules(n):
    """Rounded: each node is a root of the Legendre polynomial P of degree n, its weight 2 / ((1 - t**2) P'(t)**2)."""
    nodes, weights = quadrature._RULES[n]
    assert len(set(nodes)) == len(weights) == n // 2
    with mp.workdps(40):
        for node, weight in zip(nodes, weights, strict=True):
            t = mp.findroot(lambda t: mp.legendre(n, t), mpf(node))
            slope = n * (mp.legendre(n - 1, t) - t * mp.legendre(n, t)) / (1 - t * t)
            assert (node, weight) == (float(t), float(2 / ((1 - t * t) * slope**2)))
    x, w = (np.array(a) for a in quadrature.rule(n, panels=6))
    assert np.dot(w, x ** (2 * n - 1)) == pytest.approx(
        1 / (2 * n), rel=1e-14
    )  # exact on every panel up to that degree
