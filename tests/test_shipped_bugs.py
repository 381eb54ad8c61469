"""A test for each bug that other loss libraries shipped, as far as a CPU can show it and no rule of the contract does.

test_contract_autograd.py has Liger 507 and 968, ROCm TransformerEngine 623 and TransformerEngine 2139;
test_contract_shapes.py has pytorch 11551.

The rest needs a device: a bad label that goes unnoticed on a GPU (pytorch 49882), the default stream instead of the
current one (pytorch 157363), and the current device instead of the tensor's (extension-cpp 18).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from calls import FORMULA, batch, by_dtype, by_reduction, gradient, same_bits
from cases import Spec
from expected import assert_within, expected

import imae_ext

CCE = Spec.of("CCE")
IMAE = Spec.of("IMAE", T=8.0, eps=1e-8)


def check(spec: Spec, logits, target, grad_output=1.0, **options) -> None:
    """Value and gradient through autograd against the oracle."""
    leaf = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    loss = imae_ext.robust_loss(leaf, target, spec.build(), **options)
    upstream = torch.as_tensor(grad_output, dtype=loss.dtype).broadcast_to(loss.shape)
    (grad,) = torch.autograd.grad(loss, leaf, upstream)
    wanted = expected(spec, logits, target, grad_output=upstream.double().numpy(), **options)
    assert_within(loss.detach(), wanted.loss, wanted.loss_allowed, "loss")
    assert_within(grad, wanted.grad, wanted.grad_allowed, "gradient")


@pytest.mark.parametrize(
    ("size", "stride", "dtype"),
    (
        ((4, 5), (2**31 + 7, 1), torch.bfloat16),
        ((2, 4), (2**31 + 5, 1), torch.float32),
        ((4, 40), (2**30 + 5, 1), torch.bfloat16),  # long enough for vectors along the classes
        ((3, 2), (1, 2**31 + 9), torch.bfloat16),
        ((4, 3), (1, 2**30 + 3), torch.float32),
        ((32, 3), (1, 2**30 + 3), torch.bfloat16),  # and for vectors across the rows
    ),
    ids=str,
)
def test_int32_offsets(size, stride, dtype):
    """pytorch 85786, 111484, 190139; TransformerEngine 60: wrong rows beyond 2^31 elements. Few pages are touched."""
    store = torch.empty(sum((n - 1) * s for n, s in zip(size, stride, strict=True)) + 1, dtype=dtype)
    logits = store.as_strided(size, stride)
    logits.copy_(batch(*size)[0])
    target = torch.arange(size[0]) % size[1]
    dense = logits.clone(memory_format=torch.contiguous_format)
    for reduction in ("none", "mean"):
        got = imae_ext.value_and_grad(logits, target, FORMULA, reduction=reduction)
        wanted = imae_ext.value_and_grad(dense, target, FORMULA, reduction=reduction)
        assert torch.allclose(got[0], wanted[0], rtol=1e-5) and torch.allclose(got[1], wanted[1], rtol=2**-7, atol=0)


def test_more_than_two_to_the_31_logits():
    """The same with that many rows of one logit's worth of memory: every row is the first, so each value is known."""
    N, C = 2**24 + 1, 128
    logits = torch.linspace(-1, 1, C).bfloat16().expand(N, C)
    target = torch.tensor(7, dtype=torch.int32).expand(N)
    values = imae_ext.robust_loss(logits, target, imae_ext.CCE(), reduction="none")
    one = imae_ext.robust_loss(logits[:1], target[:1], imae_ext.CCE())
    assert values.shape == (N,) and (values == one).all()


@pytest.mark.parametrize("C", (5, 40), ids=lambda C: f"C{C}")
@by_dtype
def test_noncontiguous_logits_are_not_taken_for_contiguous(dtype, C):
    """pytorch 67167; TransformerEngine 2734; unsloth 10713."""
    logits, target = batch(N=C, C=C, dtype=dtype)
    for strided in (logits.t(), logits.repeat(2, 2)[::2, ::2], logits.flip(0)[:, 1:], logits[:1].expand(C, C)):
        for reduction in ("mean", "none"):
            check(IMAE, strided, target.clamp(max=strided.shape[1] - 1), 0.5, reduction=reduction)


@pytest.mark.parametrize("C", (3, 7, 9, 15, 17, 19, 31, 33, 63, 65, 127, 129, 1001), ids=lambda C: f"C{C}")
def test_odd_and_unaligned_class_counts(C):
    """pytorch 38534; verl 2899: the vectorised path's tail. Each label in turn, so that it meets every lane."""
    for dtype in (torch.float32, torch.bfloat16):
        labels = torch.arange(C) if C < 100 else torch.tensor([0, 1, C // 2, C - 17, C - 16, C - 2, C - 1])
        logits = batch(N=len(labels), C=C, dtype=dtype)[0]
        store = torch.full((logits.numel() + 3,), math.nan, dtype=dtype)
        check(IMAE, logits, labels)
        check(IMAE, store[3:].view_as(logits).copy_(logits), labels)


@pytest.mark.parametrize("C", (6, 40, 5000, 9000), ids=lambda C: f"C{C}")
def test_minus_infinity_less_minus_infinity(C):
    """flash-attention 1930: merging partial maxima of which one or both are -inf."""
    logits, target = batch(N=6, C=C)
    logits[0, : C // 2] = -math.inf
    logits[1, C // 2 :] = -math.inf
    logits[2, ::2] = -math.inf
    logits[3, : C - 2] = -math.inf
    logits[4, 2:] = -math.inf
    target[:5] = torch.tensor([C - 1, 0, 1, C - 1, 0])
    for spec in (IMAE, Spec.of("LabelSmoothing", eps=0.0)):
        loss, grad = gradient(imae_ext.robust_loss, logits, target, spec.build(), reduction="none")
        assert loss.isfinite().all() and grad.isfinite().all()
    loss, grad = gradient(imae_ext.robust_loss, logits, target, imae_ext.CCE(), reduction="none")
    theirs = gradient(lambda x, y, _: F.cross_entropy(x, y, reduction="none"), logits.double(), target, None)
    assert torch.allclose(loss.double(), theirs[0], rtol=1e-5) and torch.allclose(grad.double(), theirs[1], atol=1e-6)


@pytest.mark.parametrize("offset", (1e4, -1e4, 1e6))
def test_large_common_offset(offset):
    """pytorch 195829: (m + log s) - z_y loses the loss in the offset's rounding."""
    logits = torch.tensor([[9.0, 0.0, -1.0], [0.0, 5.0, 5.5]])
    target = torch.tensor([0, 1])
    check(CCE, logits + offset, target, reduction="none")
    near = imae_ext.robust_loss(logits, target, imae_ext.CCE(), reduction="none")
    assert torch.allclose(imae_ext.cce_loss(logits + offset, target, reduction="none"), near, rtol=1e-6)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("C", (3, 17, 64, 100, 1000, 8193), ids=lambda C: f"C{C}")
def test_wrong_maximum(C, dtype):
    """pytorch 156379: a wrong maximum cancels unless exp over- or underflows. So the largest is put everywhere."""
    places = sorted({*range(min(C, 40)), C // 2, C - 2, C - 1, *range(0, C, max(1, C // 40))})
    rows, target = torch.arange(len(places)), (torch.tensor(places) + 1) % C
    logits = torch.zeros(len(places), C, dtype=dtype)
    logits[rows, torch.tensor(places)] = 300.0
    for reduction in ("none", "mean"):
        check(CCE, logits, target, reduction=reduction)
    logits[rows, target] = 302.0  # and where the label's own logit is the largest of all
    check(CCE, logits, target, reduction="none")
    check(Spec.of("NCE"), logits, target, reduction="none")
    logits = torch.zeros_like(logits).scatter(1, target[:, None], 128.0)  # so that it is not the others' maximum
    check(Spec.of("IMAE", T=8.0, eps=0.0), logits, target, reduction="none")


@by_dtype
@by_reduction
def test_inputs_and_saved_tensors_are_not_written_to(reduction, dtype):
    """Liger 272; unsloth 5002; quack 209: the gradient in the logits' place breaks whoever reads them next."""
    logits, target = batch(dtype=dtype)
    weight = torch.linspace(0.5, 1.5, 5, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    leaf = logits.clone().requires_grad_()
    hidden = leaf.exp()  # exp saves its result: written to, its own backward would be wrong
    before = hidden.detach().clone()
    loss = imae_ext.robust_loss(hidden, target, FORMULA, weight=weight, reduction=reduction)
    loss.sum().backward()
    assert same_bits(hidden.detach(), before) and same_bits(leaf.detach(), logits)
    inner = gradient(imae_ext.robust_loss, before, target, FORMULA, weight=weight, reduction=reduction)[1]
    assert torch.equal(leaf.grad, inner * before)


@pytest.mark.parametrize("C", (5, 40, 5000), ids=lambda C: f"C{C}")
def test_loss_and_gradient_of_ignored_rows_are_initialised(C):
    """Liger 1338: left as they were allocated. Memory first held garbage: a 0 is no accident."""
    logits, target = batch(N=40, C=C)
    target[::2] = -100
    for _ in range(20):
        garbage = [torch.full(shape, 1e30) for shape in ((40,), (40, C), (40, 4))]
        del garbage
        loss, grad = gradient(imae_ext.robust_loss, logits, target, FORMULA, reduction="none")
        out = torch.full((40, C), 1e30)
        imae_ext.value_and_grad(logits, target, FORMULA, out=out)
        p, w, *_ = imae_ext.row_stats(logits, target, FORMULA)
        for t in (loss, grad, out, p, w):
            assert (t[::2] == 0).all() and (t[1::2] != 0).any()


def test_bad_label_is_never_silent():
    """pytorch 49882, where a CPU can show it: through every entry, in any position, with and without a gradient."""
    logits, target = batch(N=100, C=5)
    for position in (0, 50, 99):
        for bad in (5, -1, 2**32 + 1, 2**40, -(2**40)):  # one of them is 1 when it is cut to 32 bits
            wrong = target.clone()
            wrong[position] = bad
            for call in (
                lambda t: imae_ext.robust_loss(logits, t, FORMULA),
                lambda t: imae_ext.robust_loss(logits.clone().requires_grad_(), t, FORMULA, reduction="none"),
                lambda t: imae_ext.value_and_grad(logits, t, FORMULA),
                lambda t: imae_ext.row_stats(logits, t, FORMULA),
            ):
                with pytest.raises(IndexError, match=rf"got {bad} at row {position}\b"):
                    call(wrong)


@pytest.mark.parametrize("transform", ("grad", "jvp"))
def test_custom_backward_is_not_dropped_under_compile(transform):
    """pytorch 193279: torch.func.grad inside a compiled function gave zeros."""
    logits, target = batch(dtype=torch.float64)
    tangent = logits.sin()
    transforms = {
        "grad": lambda x: torch.func.grad(lambda z: imae_ext.robust_loss(z, target, FORMULA))(x),
        "jvp": lambda x: torch.func.jvp(lambda z: imae_ext.robust_loss(z, target, FORMULA), (x,), (tangent,))[1],
    }
    torch._dynamo.reset()
    got = torch.compile(transforms[transform], backend="aot_eager")(logits)
    _, grad = imae_ext.value_and_grad(logits, target, FORMULA)
    wanted = grad if transform == "grad" else (grad * tangent).sum()
    assert torch.allclose(got, wanted, rtol=1e-10, atol=1e-12)


def test_these_tests_can_fail():
    """Suites that assert nothing: the comparison used above notices the smallest planted error of each kind."""
    logits, target = batch()
    wanted = expected(IMAE, logits, target)
    loss, grad = imae_ext.value_and_grad(logits, target, FORMULA)
    assert_within(grad, wanted.grad, wanted.grad_allowed, "gradient")
    for wrong in (grad * (1 + 1e-4), grad.roll(1, 0), -grad, torch.zeros_like(grad), grad * math.nan):
        with pytest.raises(AssertionError, match="gradient"):
            assert_within(wrong, wanted.grad, wanted.grad_allowed, "gradient")
    with pytest.raises(AssertionError, match="loss"):
        assert_within(loss + 1e-3, wanted.loss, wanted.loss_allowed, "loss")
    with pytest.raises(AssertionError, match="shape"):
        assert_within(grad[:4], wanted.grad, wanted.grad_allowed, "gradient")
    assert np.isfinite(wanted.grad).all() and (wanted.grad_allowed < 1e-2).all()
