"""Checkpointing, autocast, loss scaling, inference mode, hooks, and arguments that change."""

from __future__ import annotations

import weakref
from functools import partial

import pytest
import torch
from calls import FORMULA, batch, by_reduction, gradient, same_bits
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

import imae_ext
from imae_ext import reference


@pytest.mark.parametrize("reentrant", (False, True), ids=("saved", "reentrant"))
@by_reduction
def test_activation_checkpointing(reduction, reentrant):
    logits, target = batch()
    wanted = gradient(imae_ext.robust_loss, logits, target, FORMULA, reduction=reduction)[1]
    leaf = logits.clone().requires_grad_()
    calls = []

    def segment(x):
        calls.append(1)
        return imae_ext.robust_loss(x.exp().log(), target, FORMULA, reduction=reduction).sum()

    checkpoint(segment, 1 * leaf, use_reentrant=reentrant).backward()
    assert len(calls) == 2 and torch.allclose(leaf.grad, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", (CheckpointPolicy.MUST_SAVE, CheckpointPolicy.PREFER_RECOMPUTE))
@by_reduction
def test_selective_checkpointing(reduction, policy):
    """Torch ends the recomputation with an exception, which is not ours to explain: no operation may follow it."""
    logits, target = batch()
    wanted = gradient(imae_ext.robust_loss, logits, target, FORMULA, reduction=reduction)[1]
    leaf = logits.clone().requires_grad_()
    contexts = partial(create_selective_checkpoint_contexts, lambda *_, **__: policy)

    def segment(x):
        return imae_ext.robust_loss(1 * x, target, FORMULA, reduction=reduction)

    checkpoint(segment, leaf, use_reentrant=False, context_fn=contexts).sum().backward()
    assert torch.equal(leaf.grad, wanted)


@by_reduction
def test_autocast_bfloat16(reduction):
    """Inside autocast the bits are those of the same logits outside it; float32 logits are not cut down."""
    for dtype in (torch.bfloat16, torch.float32):
        logits, target = batch(N=16, C=12, dtype=dtype)
        wanted = gradient(imae_ext.robust_loss, logits, target, FORMULA, reduction=reduction)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = gradient(imae_ext.robust_loss, logits, target, FORMULA, reduction=reduction)
        assert same_bits(got[0], wanted[0]) and same_bits(got[1], wanted[1]) and got[0].dtype == torch.float32


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=("bfloat16", "float16"))
@pytest.mark.parametrize("formula", (FORMULA, imae_ext.DM(16.0, 0.01)), ids=repr)
def test_autocast_leaves_the_reference_alone(formula, dtype):
    """Its integrals are sums of products, which as matrix products would be rounded, and overflow."""
    logits, target = batch()
    wanted = gradient(reference.robust_loss, logits, target, formula)
    with torch.autocast("cpu", dtype=dtype):
        got = gradient(reference.robust_loss, logits, target, formula)
    assert same_bits(got[0], wanted[0]) and same_bits(got[1], wanted[1])


def test_loss_scaling_keeps_float16_gradients():
    """With torch's own GradScaler: entries of p/N far below float16's smallest number arrive, as float64 has them."""
    N, scaler = 2**14, torch.amp.GradScaler("cpu", init_scale=2.0**16)
    logits, target = batch(N=N, C=10, dtype=torch.float16)
    leaf = logits.clone().requires_grad_()
    scaler.scale(imae_ext.cce_loss(leaf, target)).backward()
    exact = torch.nn.functional.cross_entropy
    wanted = gradient(lambda x, y, _: exact(x, y), logits.double(), target, None)[1]
    lost = wanted.half() == 0
    assert lost.float().mean() > 0.1, "the case would not underflow"
    got = leaf.grad.double() / scaler.get_scale()
    step = 2.0**-25 / scaler.get_scale()
    assert ((got - wanted).abs() <= 2**-11 * 1.01 * wanted.abs() + 1.01 * step).all()
    assert (got[lost] != 0).float().mean() > 0.9


@by_reduction
def test_inference_mode_and_no_grad(reduction):
    logits, target = batch()
    wanted = imae_ext.robust_loss(logits, target, FORMULA, reduction=reduction)
    with torch.inference_mode():
        inside, label = 1.0 * logits, target.clone()
        loss = imae_ext.robust_loss(inside, label, FORMULA, reduction=reduction)
        assert loss.is_inference() and torch.equal(loss, wanted)
        value, grad = imae_ext.value_and_grad(inside, label, FORMULA, reduction=reduction)
    assert torch.equal(value, wanted)
    assert torch.equal(grad, imae_ext.value_and_grad(logits, target, FORMULA, reduction=reduction)[1])
    leaf = logits.clone().requires_grad_()
    for context in (torch.no_grad(), torch.set_grad_enabled(False)):
        with context:
            loss = imae_ext.robust_loss(leaf, target, FORMULA, reduction=reduction)
            assert torch.equal(loss, wanted) and not loss.requires_grad and (loss != 0).all()
            with torch.enable_grad():
                assert imae_ext.robust_loss(leaf, target, FORMULA, reduction=reduction).requires_grad


@by_reduction
def test_saved_tensors_hooks(reduction):
    """All that is kept passes them, the gradient of mean and sum too, and gives the same gradient as other tensors."""
    logits, target = batch()
    wanted = gradient(imae_ext.robust_loss, logits, target, FORMULA, reduction=reduction)[1]
    leaf, shapes = logits.clone().requires_grad_(), []

    def pack(x):
        shapes.append(x.shape)
        return partial(torch.clone, x.clone())

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed()):
        loss = imae_ext.robust_loss(leaf, target, FORMULA, reduction=reduction)
    assert shapes.count(logits.shape) == (2 if reduction in ("mean", "sum") else 1)
    assert not any(isinstance(kept, torch.Tensor) for kept in tree_leaves(vars(loss.grad_fn)))
    (first,) = torch.autograd.grad(loss.sum(), leaf, retain_graph=True)
    loss.sum().backward()
    assert torch.equal(first, wanted) and torch.equal(leaf.grad, wanted)


@by_reduction
def test_what_was_given_is_let_go(reduction):
    """A loss that is kept, to be printed later, keeps no logits once its graph is gone; a retained graph does."""
    logits, target = batch()
    hidden = 1.0 * logits.clone().requires_grad_()
    seen = weakref.ref(hidden)
    loss = imae_ext.robust_loss(hidden, target, FORMULA, reduction=reduction).sum()
    del hidden
    loss.backward(retain_graph=True)
    loss.backward()
    assert seen() is None
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("given", ("target", "weight", "sample_weight"))
def test_tensors_of_inference_mode_are_refused(given):
    """Nothing counts what is written to them, and another backward may read them."""
    logits, target = batch()
    tensors = {"target": target, "weight": torch.ones(logits.shape[1]), "sample_weight": torch.ones(len(target))}
    with torch.inference_mode():
        tensors[given] = tensors[given].clone()
    with pytest.raises(RuntimeError, match=r"not made in inference mode.*clone"):
        imae_ext.robust_loss(logits.requires_grad_(), tensors.pop("target"), FORMULA, **tensors)


@by_reduction
def test_hooks_on_the_logits(reduction):
    """A hook that replaces the gradient, and one that overwrites it: the next backward is not harmed."""
    logits, target = batch()
    wanted = gradient(imae_ext.robust_loss, logits, target, FORMULA, reduction=reduction)[1]
    leaf = logits.clone().requires_grad_()
    hidden = 1.0 * leaf
    loss = imae_ext.robust_loss(hidden, target, FORMULA, reduction=reduction).sum()
    for hook, factor in ((lambda g: -3 * g, -3.0), (lambda g: g.zero_(), 0.0), (lambda g: None, 1.0)):
        handle = hidden.register_hook(hook)
        (got,) = torch.autograd.grad(loss, leaf, retain_graph=True)
        handle.remove()
        assert torch.equal(got, factor * wanted)


@pytest.mark.parametrize("what", ("logits", "target", "weight"))
@by_reduction
def test_arguments_changed_after_forward(reduction, what):
    """A gradient that was ready is that of what forward saw; whatever reads the arguments again refuses."""
    logits, target = batch(dtype=torch.float64)
    weight = torch.linspace(0.5, 1.5, 5, dtype=torch.float64)
    options = {"weight": weight, "reduction": reduction}
    wanted = gradient(imae_ext.robust_loss, logits, target, FORMULA, **options)[1]
    leaf = logits.clone().requires_grad_()
    given = {"logits": 1.0 * leaf, "target": target.clone(), "weight": weight.clone()}
    loss = imae_ext.robust_loss(
        given["logits"], given["target"], FORMULA, weight=given["weight"], reduction=reduction
    ).sum()
    with torch.no_grad():
        given[what].copy_(given[what].flip(-1))
    if reduction in ("mean", "sum"):
        (got,) = torch.autograd.grad(loss, leaf, retain_graph=True)
        assert torch.allclose(got, wanted, rtol=1e-11, atol=1e-13)
    for create_graph in (False, True):
        with pytest.raises(RuntimeError, match="inplace"):
            torch.autograd.grad(loss, leaf, retain_graph=True, create_graph=create_graph)
