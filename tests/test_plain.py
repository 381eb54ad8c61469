"""The losses without kernels: what autograd, transforms, compilation, layouts and other devices make of plain torch."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from calls import FORMULA, REDUCTIONS, batch, by_dtype, by_formula, by_reduction, gradient, plain_loss
from cases import FORMULAS
from torch.autograd import gradcheck
from torch.utils.checkpoint import checkpoint

import imae_ext
from imae_ext import plain, reference

ROOT = Path(__file__).parents[1]
EXACT = {"rtol": 1e-11, "atol": 1e-13}


def reductions_of(spec) -> tuple[str, ...]:
    return REDUCTIONS if spec.margin else REDUCTIONS[:3]


@pytest.mark.parametrize("reduction", REDUCTIONS[:3])
@by_formula
def test_gradcheck(spec, reduction):
    logits, target = batch(N=5, C=4, dtype=torch.float64)
    target[2] = -100
    weight = torch.tensor([0.5, 2.0, 0.0, 0.75], dtype=torch.float64)
    formula, leaf = spec.build(), logits.requires_grad_()
    assert gradcheck(lambda x: plain_loss(x, target, formula, weight=weight, reduction=reduction), leaf)


@by_formula
def test_with_classes_in_the_middle(spec):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    target = torch.randint(5, (2, 3, 4), generator=generator)
    for logits in (image, image.to(memory_format=torch.channels_last), image.transpose(2, 3).transpose(2, 3)):
        for reduction in reductions_of(spec):
            ours, wanted = (
                gradient(f, logits, target, spec.build(), reduction=reduction)
                for f in (plain_loss, imae_ext.robust_loss)
            )
            assert torch.allclose(ours[0], wanted[0], **EXACT) and torch.allclose(ours[1], wanted[1], **EXACT)


UPSTREAM = (math.inf, -math.inf, math.nan)


@pytest.mark.parametrize("robust_loss", (plain_loss, reference.robust_loss), ids=("plain", "reference"))
@pytest.mark.parametrize("upstream", UPSTREAM, ids=str)
@by_formula
def test_rows_that_do_not_count_are_zero_whatever_comes_from_above(spec, upstream, robust_loss):
    """Ignored ones and those of weight 0, whose logits may be anything; live rows have their gradient times that."""
    weight = torch.tensor([0.5, 2.0, 0.0, 0.75])
    for reduction in reductions_of(spec):
        logits, target = batch(N=6, C=4)
        target[:] = torch.tensor([0, 1, 2, -100, 3, 2])
        logits[2], logits[3], logits[5] = math.nan, math.inf, -math.inf
        leaf = logits.clone().requires_grad_()
        loss = robust_loss(leaf, target, spec.build(), weight=weight, reduction=reduction)
        assert loss.isfinite().all()
        (grad,) = torch.autograd.grad(loss, leaf, torch.full_like(loss, upstream))
        dead = torch.tensor([False, False, True, True, False, True])
        assert grad[dead].eq(0).all() and not grad[~dead].isfinite().any()
        if robust_loss is plain_loss and not math.isnan(upstream):
            by_one = gradient(robust_loss, logits, target, spec.build(), weight=weight, reduction=reduction)[1]
            assert torch.equal(grad[~dead].nan_to_num(nan=5), (by_one[~dead] * upstream).nan_to_num(nan=5))


@by_dtype
@by_reduction
def test_half_precision_is_computed_in_float32(reduction, dtype):
    logits, target = batch(N=11, C=37, dtype=dtype)
    loss, grad = gradient(plain_loss, logits, target, FORMULA, reduction=reduction)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    wanted, wanted_grad = gradient(plain_loss, logits.to(wide), target, FORMULA, reduction=reduction)
    assert loss.dtype == wide and grad.dtype == dtype
    assert torch.equal(loss, wanted) and torch.equal(grad, wanted_grad.to(dtype))


@by_reduction
def test_backward_twice_and_checkpointing(reduction):
    """The buffer serves one backward; the second, and one through hooks of saved tensors, makes it again."""
    logits, target = batch()
    leaf = logits.clone().requires_grad_()
    loss = plain_loss(leaf, target, FORMULA, reduction=reduction).sum()
    first = torch.autograd.grad(loss, leaf, retain_graph=True)[0]
    kept = first.clone()
    second = torch.autograd.grad(3 * loss, leaf)[0]
    assert torch.equal(first, kept) and torch.allclose(second, 3 * kept, rtol=1e-6)
    calls, recomputed = [], logits.clone().requires_grad_()

    def call(x):
        calls.append(x)
        return plain_loss(x, target, FORMULA, reduction=reduction).sum()

    checkpoint(call, recomputed, use_reentrant=False).backward()
    assert torch.equal(recomputed.grad, kept) and len(calls) == 2  # the buffer was not kept meanwhile


@by_formula
def test_derivatives_of_derivatives_and_transforms(spec):
    """By the reference: the same numbers."""
    logits, target = batch(dtype=torch.float64)
    for reduction in reductions_of(spec):
        penalties = []
        for f in (plain_loss, reference.robust_loss):
            leaf = logits.clone().requires_grad_()
            (grad,) = torch.autograd.grad(
                f(leaf, target, spec.build(), reduction=reduction).sum(), leaf, create_graph=True
            )
            grad.square().sum().backward()
            penalties.append(leaf.grad)
        assert torch.allclose(*penalties, **EXACT)
    total = lambda x: plain_loss(x, target, spec.build())  # noqa: E731
    wanted = gradient(plain_loss, logits, target, spec.build())[1]
    assert torch.allclose(torch.func.grad(total)(logits), wanted, **EXACT)
    assert torch.allclose(torch.func.jvp(total, (logits,), (logits.cos(),))[1], (wanted * logits.cos()).sum(), **EXACT)


@pytest.mark.parametrize(
    ("formula", "dynamic"),
    ((imae_ext.IMAE(8.0), False), (imae_ext.DM(), True), (2.0 * imae_ext.NCE() + imae_ext.MAE(), True)),
    ids=("static", "DM", "NCE+MAE"),
)
def test_compiled_it_is_a_part_of_the_graph(formula, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(plain_loss, backend="aot_eager", fullgraph=True, dynamic=dynamic)

    @torch.compile(backend="aot_eager", fullgraph=True, dynamic=dynamic)
    def outside(logits, target):
        return plain.value_and_grad(logits, target, (formula, None, None, -100, "mean"), None)

    for N in (8, 5):
        logits, target = batch(N=N, dtype=torch.float64)
        target[1] = -100
        wanted = gradient(plain_loss, logits, target, formula)
        for got in (gradient(compiled, logits, target, formula), outside(logits, target)):
            assert all(torch.allclose(a, b, **EXACT) for a, b in zip(got, wanted, strict=True))


def test_out_is_where_the_gradient_goes():
    for dtype in (torch.float32, torch.bfloat16):
        logits, target = batch(dtype=dtype)
        out, version = torch.empty_like(logits), 0
        _, grad = plain.value_and_grad(logits, target, (FORMULA, None, None, -100, "mean"), out)
        assert grad is out and out._version > version
        assert torch.equal(out, plain.value_and_grad(logits, target, (FORMULA, None, None, -100, "mean"), None)[1])
    with pytest.raises(ValueError, match="share no memory"):
        plain.value_and_grad(logits, target, (FORMULA, None, None, -100, "mean"), logits)


def test_memory_is_one_gradient_and_a_few_numbers_a_row():
    """Counted by the profiler: the largest sum of what is allocated at a time."""
    N, C = 64, 20000
    logits, target = torch.randn(N, C), torch.randint(C, (N,))
    plain.value_and_grad(logits, target, (FORMULA, None, None, -100, "mean"), None)
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        plain.value_and_grad(logits, target, (FORMULA, None, None, -100, "mean"), None)
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    assert N * C * 4 <= most <= 1.1 * N * C * 4


def test_statistics_of_classes_in_two_parts():
    """Two halves of the classes, put together as processes would, make the whole's gradient."""
    logits, target = batch(N=9, C=10, dtype=torch.float64)
    for formula in (imae_ext.IMAE(), imae_ext.NCE()):
        parts, general = [], formula.needs_all_logits
        for first in (0, 5):
            buffer, here = logits[:, first : first + 5].clone(), (target >= first) & (target < first + 5)
            label = (target - first).clamp(0, 4)
            parts.append((buffer, label, here, plain.statistics(buffer, label, 1, general, here)))
        most = torch.maximum(*(found.shift for *_, found in parts))
        sums = sum(found.sum_exp * (found.shift - most).exp() for *_, found in parts)
        counts = [5 - here.double() for _, _, here, _ in parts]
        total = sum(f.sum + n * (f.shift - most) for (*_, f), n in zip(parts, counts, strict=True)) if general else None
        whole = plain.Statistics(most, sums, total, sum(found.z_y for *_, found in parts))
        value, by, _ = plain.formula(whole, formula, 10)
        grads = []
        for buffer, label, here, found in parts:
            own = plain.Coefficients(by.a * (found.shift - most).exp(), by.b, by.g_y)
            grads.append(plain.gradient(buffer, label, 1, own, here))
        wanted = gradient(plain_loss, logits, target, formula, reduction="none")
        assert torch.allclose(value, wanted[0], **EXACT) and torch.allclose(torch.cat(grads, 1), wanted[1], **EXACT)


def test_shapes_on_meta():
    for spec in FORMULAS:
        logits, target = torch.empty(6, 5, device="meta", requires_grad=True), torch.empty(6, device="meta").long()
        for reduction in reductions_of(spec):
            loss = plain_loss(logits, target, spec.build(), reduction=reduction)
            (grad,) = torch.autograd.grad(loss.sum(), logits)
            assert grad.shape == logits.shape and loss.shape == (target.shape if reduction == "none" else ())
