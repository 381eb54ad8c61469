"""Transforms inside compiled functions, and derivatives through compiled losses: right or refused, never left out."""

from __future__ import annotations

import pytest
import torch
from calls import FORMULA, batch

import imae_ext
from imae_ext import reference

pytestmark = pytest.mark.usefixtures("fresh_compiler")

TRANSFORMS = {
    "grad": lambda loss, x, y: torch.func.grad(loss)(x, y),
    "vmap": lambda loss, x, y: torch.func.vmap(loss)(x, y),
    "per_sample": lambda loss, x, y: torch.func.vmap(torch.func.grad(loss))(x, y),
    "jvp": lambda loss, x, y: torch.func.jvp(lambda z: loss(z, y), (x,), (x.sin(),))[1],
    "jacrev": lambda loss, x, y: torch.func.jacrev(loss)(x, y),
}


@pytest.mark.parametrize(
    ("name", "formula"),
    [(name, imae_ext.NCE() if name in ("vmap", "per_sample") else imae_ext.IMAE(8.0)) for name in TRANSFORMS],
    ids=str,
)
def test_transform_inside_a_compiled_function(name, formula):
    """Right or refused; pytorch 193279 was a custom backward silently dropped here."""
    logits, target = batch(dtype=torch.float64)
    transform = TRANSFORMS[name]
    wanted = transform(lambda x, y: reference.robust_loss(x, y, formula), logits, target)
    compiled = torch.compile(
        lambda x, y: transform(lambda x, y: imae_ext.robust_loss(x, y, formula), x, y), backend="aot_eager"
    )
    got = compiled(logits, target)
    assert torch.allclose(got, wanted, rtol=1e-10, atol=1e-12) and (got != 0).any()


def test_forward_mode_through_a_compiled_function():
    logits, target = batch(dtype=torch.float64)
    tangent = logits.cos()
    compiled = torch.compile(imae_ext.robust_loss, backend="aot_eager")
    _, grad = imae_ext.value_and_grad(logits, target, FORMULA)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(logits, tangent)
        got = torch.autograd.forward_ad.unpack_dual(compiled(dual, target, FORMULA)).tangent
    assert got is not None and torch.allclose(got, (grad * tangent).sum(), rtol=1e-10)


def test_gradient_penalty_through_a_compiled_loss_is_refused():
    """As torch refuses it for its own losses: never a penalty that is silently left out."""
    logits, target = batch(dtype=torch.float64)
    leaf = logits.clone().requires_grad_()
    loss = torch.compile(imae_ext.robust_loss, backend="aot_eager")(leaf, target, FORMULA)
    (grad,) = torch.autograd.grad(loss, leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        (loss + grad.square().sum()).backward()


@pytest.mark.parametrize("formula", (imae_ext.IMAE(4.0), 2.0 * imae_ext.GCE(0.3) + imae_ext.MAE()), ids=repr)
@pytest.mark.parametrize("reduction", ("none", "mean", "sum", "normalized"))
def test_gradient_penalty_through_a_graph_that_runs_eagerly(reduction, formula):
    """The graph is torch's own backward's to differentiate again, and nothing of it is left out."""
    features, target = batch(dtype=torch.float64)
    penalised = []
    for compile_ in (lambda f: f, lambda f: torch.compile(f, backend="eager", fullgraph=True)):
        leaf = features.clone().requires_grad_()
        loss = compile_(lambda x: imae_ext.robust_loss(x.sin(), target, formula, reduction=reduction).sum())(leaf)
        (grad,) = torch.autograd.grad(loss, leaf, create_graph=True)
        (loss + grad.square().sum()).backward()
        penalised.append(leaf.grad)
    assert torch.allclose(*penalised, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(penalised[0], grad.detach(), rtol=1e-2)
