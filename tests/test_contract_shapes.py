"""The reliability contract: shapes with nothing in them, ignored rows, and distances beyond 32 bits."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F
from calls import FORMULA, batch, by_dtype, by_formula, by_implementation, gradient
from cases import FORMULAS
from expected import assert_within, expected, rows

import imae_ext


@by_implementation
@by_dtype
@by_formula
def test_no_rows(spec, dtype, robust_loss):
    """Mean NaN, sum 0, none []: as F.cross_entropy."""
    logits, target = torch.zeros(0, 5, dtype=dtype), torch.zeros(0, dtype=torch.long)
    for reduction in ("none", "sum", "mean"):
        loss, grad = gradient(robust_loss, logits, target, spec.build(), reduction=reduction)
        theirs = F.cross_entropy(logits.float(), target, reduction=reduction)
        assert loss.shape == theirs.shape and torch.equal(loss.isnan(), theirs.isnan())
        assert loss.nansum() == 0 and grad.shape == (0, 5)
    loss, grad = imae_ext.value_and_grad(logits, target, spec.build())
    assert loss.isnan() and grad.shape == (0, 5) and grad.dtype == dtype


@by_implementation
def test_no_positions(robust_loss):
    """(N, C, 0) has no rows either."""
    loss, grad = gradient(robust_loss, torch.zeros(2, 5, 0), torch.zeros(2, 0).long(), FORMULA, reduction="sum")
    assert loss == 0 and grad.shape == (2, 5, 0)


@by_implementation
@pytest.mark.parametrize("shape", ((4, 0), (0, 0), (0,), (2, 0, 3)), ids=str)
def test_no_classes(shape, robust_loss):
    target = torch.zeros(shape[:1] + shape[2:] if len(shape) > 1 else ()).long()
    with pytest.raises(ValueError, match=rf"^imae_ext: expected .*class.* got .*{re.escape(str(shape))}"):
        robust_loss(torch.zeros(shape), target, FORMULA)


@by_implementation
@by_dtype
@by_formula
def test_one_class(spec, dtype, robust_loss):
    """The only probability is 1: nothing to learn, gradient exactly 0."""
    logits = torch.tensor([[3.0], [-2.0], [0.0]], dtype=dtype)
    for reduction in ("none", "sum", "mean"):
        loss, grad = gradient(robust_loss, logits, torch.zeros(3).long(), spec.build(), reduction=reduction)
        assert torch.equal(grad, torch.zeros_like(logits))
        if str(spec) in ("CCE", "MAE", "MSE", "IMAE(T=8,eps=1e-08)", "LabelSmoothing(eps=0.1)"):
            assert torch.equal(loss, torch.zeros_like(loss))
    _, grad = imae_ext.value_and_grad(logits, torch.zeros(3).long(), spec.build())
    assert torch.equal(grad, torch.zeros_like(logits))


@pytest.mark.parametrize("positions", (20, 29, 64))
def test_a_map_is_the_rows_of_its_positions(positions):
    """Groups of positions that fill a vector, one that overlaps the one before, and labels far ahead of the others."""
    generator = torch.Generator().manual_seed(5)
    for dtype, classes in ((torch.float32, 19), (torch.float64, 19), (torch.float32, 70)):
        logits = torch.randn(3, classes, positions, generator=generator, dtype=dtype)
        target = torch.randint(classes, (3, positions), generator=generator)
        logits[1].scatter_(0, target[1].unsqueeze(0), 200.0)
        target[2, ::3] = -100
        rows_of_it = logits.movedim(1, -1).reshape(-1, classes)
        loss, grad = imae_ext.value_and_grad(logits, target, FORMULA, reduction="sum")
        one, by_rows = imae_ext.value_and_grad(rows_of_it, target.reshape(-1), FORMULA, reduction="sum")
        torch.testing.assert_close(loss, one)
        torch.testing.assert_close(grad.movedim(1, -1).reshape(-1, classes), by_rows)


@by_implementation
@by_formula
def test_shapes(spec, robust_loss):
    """(C,), (N, C), (N, C, d1) and (N, C, d1, d2) give what their rows give one by one."""
    generator = torch.Generator().manual_seed(3)
    for shape in ((6,), (4, 6), (3, 6, 5), (2, 6, 3, 4)):
        logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
        target = torch.randint(6, shape[:1] + shape[2:] if len(shape) > 1 else (), generator=generator)
        loss, grad = gradient(robust_loss, logits, target, spec.build(), reduction="none")
        assert loss.shape == target.shape and grad.shape == logits.shape
        wanted = expected(spec, logits, target, reduction="none")
        assert_within(loss.reshape(-1), wanted.loss, wanted.loss_allowed, "loss")
        assert_within(rows(grad), wanted.grad, wanted.grad_allowed, "gradient")


@by_implementation
@by_dtype
@by_formula
def test_all_rows_ignored(spec, dtype, robust_loss):
    """Means NaN, sum 0, gradient exactly 0."""
    logits, _ = batch(dtype=dtype)
    ignore_index = (-100, 2, -1, 255)[FORMULAS.index(spec) % 4]
    target = torch.full((8,), ignore_index)
    for reduction in ("none", "sum", "mean", "normalized") if spec.margin else ("none", "sum", "mean"):
        loss, grad = gradient(robust_loss, logits, target, spec.build(), reduction=reduction, ignore_index=ignore_index)
        assert loss.isnan() if reduction in ("mean", "normalized") else (loss == 0).all()
        assert torch.equal(grad, torch.zeros_like(logits))
        value, grad = imae_ext.value_and_grad(
            logits, target, spec.build(), reduction=reduction, ignore_index=ignore_index
        )
        assert torch.equal(value.isnan(), loss.isnan()) and torch.equal(grad, torch.zeros_like(logits))


@by_implementation
@by_dtype
@by_formula
def test_nan_or_inf_in_an_ignored_row(spec, dtype, robust_loss):
    """Value 0 and gradient exactly 0 there (pytorch 11551: 0 times NaN); the other rows as if it were not there."""
    logits, target = batch(dtype=dtype)
    clean = torch.tensor([0, 3, 4, 6])
    poisoned = logits.clone()
    poisoned[1, 2], poisoned[5], poisoned[2], poisoned[7, 0] = math.nan, math.nan, math.inf, -math.inf
    ignored = [1, 2, 5, 7]
    target[ignored] = -100
    for reduction in ("none", "sum", "mean", "normalized") if spec.margin else ("none", "sum", "mean"):
        loss, grad = gradient(robust_loss, poisoned, target, spec.build(), reduction=reduction)
        without = gradient(robust_loss, logits[clean], target[clean], spec.build(), reduction=reduction)
        assert torch.equal(grad[ignored], torch.zeros(4, 5, dtype=dtype))
        assert torch.allclose(grad[clean].double(), without[1].double(), rtol=1e-6 + torch.finfo(dtype).eps, atol=0)
        if reduction == "none":
            assert (loss[ignored] == 0).all()
            loss = loss[clean]
        assert torch.allclose(loss, without[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("poison", (math.nan, math.inf))
def test_ignored_rows_in_row_stats_are_zero(poison):
    logits, target = batch()
    logits[3], target[3] = poison, -100
    p, w, *_ = imae_ext.row_stats(logits, target, FORMULA)
    assert p[3] == w[3] == 0 and (p[:3] > 0).all() and (w[4:] > 0).all()


@pytest.mark.parametrize("reduction", ("none", "sum", "mean"))
def test_poisoned_ignored_row_among_several_positions(reduction):
    """The same where classes are strided, as in segmentation."""
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    logits[1, :, 3] = math.nan
    target = torch.ones(2, 7).long()
    target[1, 3] = -100
    loss, grad = gradient(imae_ext.robust_loss, logits, target, FORMULA, reduction=reduction)
    assert not loss.isnan().any() and not grad.isnan().any()
    assert (grad[1, :, 3] == 0).all() and (grad[0] != 0).all()


@pytest.mark.parametrize(
    "shape",
    ((3, 19, 12, 14), (2, 300, 40, 40), (2, 3000, 5, 6), (2, 3000, 4, 3), (2, 5, 6, 7, 8), (2, 1, 7, 9)),
    ids=str,
)
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=("float32", "bfloat16"))
def test_positions_that_no_two_strides_reach(shape, dtype):
    """Crops, and their axes in another order; into buffers of the same and of other layouts."""
    whole = (3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(dtype)
    crop = whole[(slice(None), slice(None), *(slice(1, -1) for _ in shape[2:]))]
    for logits in (crop, crop.transpose(2, 3), whole.transpose(2, 3)):
        target = torch.arange(logits[:, 0].numel()).reshape(logits[:, 0].shape) % shape[1]
        target[0, 0] = -100
        wanted = imae_ext.value_and_grad(logits.contiguous(), target, FORMULA)
        like_whole = torch.full_like(whole, 7)
        inside = like_whole[tuple(slice(0, size) for size in logits.shape)] if logits.shape == crop.shape else None
        for out in (None, torch.empty(logits.shape, dtype=dtype), torch.empty_like(logits), inside):
            value, grad = imae_ext.value_and_grad(logits, target, FORMULA, out=out)
            assert torch.allclose(value, wanted[0], rtol=1e-6)
            assert torch.allclose(grad, wanted[1], rtol=2e-6 if dtype == torch.float32 else 2**-7, atol=1e-9)
        per_row = gradient(imae_ext.robust_loss, logits, target, FORMULA, reduction="none")[1]
        dense = gradient(imae_ext.robust_loss, logits.contiguous(), target, FORMULA, reduction="none")[1]
        assert torch.allclose(per_row, dense, rtol=2e-6 if dtype == torch.float32 else 2**-7, atol=1e-9)


def test_more_dimensions_than_anyone_has():
    shape = (2, 3, *[1] * 70)
    logits, target = torch.randn(shape), torch.zeros(shape[:1] + shape[2:]).long()
    for reduction in ("none", "mean"):
        loss, grad = gradient(imae_ext.robust_loss, logits, target, FORMULA, reduction=reduction)
        flat = gradient(imae_ext.robust_loss, logits.reshape(2, 3), target.reshape(2), FORMULA, reduction=reduction)
        assert torch.equal(loss.flatten(), flat[0].flatten()) and torch.equal(grad.reshape(2, 3), flat[1])
    assert imae_ext.row_stats(logits, target, FORMULA)[0].shape == target.shape


@by_formula
def test_out_is_filled_in_place_whatever_its_strides(spec):
    logits, target = batch(N=9, C=70)
    loss, grad = imae_ext.value_and_grad(logits, target, spec.build())
    wide = torch.full((9, 140), 7.0)
    for out in (torch.empty_like(logits), torch.empty(70, 9).t(), torch.empty(9, 80)[:, 3:73], wide[:, ::2]):
        value, given = imae_ext.value_and_grad(logits, target, spec.build(), out=out)
        assert given is out and torch.equal(value, loss)
        assert torch.allclose(out, grad, rtol=1e-6, atol=1e-12)
    assert (wide[:, 1::2] == 7).all(), "wrote between the elements of out"
