"""CCE and LabelSmoothing against F.cross_entropy, over every option they share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from calls import IMPLEMENTATIONS, by_dtype, by_implementation, row_gradient, varied_rows
from cases import Spec
from expected import expected, rows
from torch import Tensor

import imae_ext

SHAPES = {"vector": (9,), "rows": (8, 9), "segments": (3, 9, 4, 5)}
IGNORED = {"none_ignored": -100, "some_ignored": -1, "a_class_ignored": 4}


def upstream_of(loss: Tensor) -> np.ndarray:
    """A grad_output that differs from row to row."""
    return np.linspace(-1, 2, loss.numel()) if loss.ndim else np.float64(-0.75)


def no_further(mine: Tensor, torchs: Tensor, exact: np.ndarray, eps: float) -> bool:
    answer = torch.from_numpy(np.asarray(exact, np.float64))
    mine, torchs = (rows(x).double() if exact.ndim == 2 else x.double().view(answer.shape) for x in (mine, torchs))
    scale = answer.abs().amax(-1, keepdim=True) if exact.ndim == 2 else answer.abs()
    distance = (torchs - answer).abs()
    assert (distance.nan_to_num() <= 32 * eps * (scale.nan_to_num() + 0.1)).all(), "torch means something else"
    close = (mine - answer).abs() <= distance + 8 * eps * scale
    return bool((close | (mine.isnan() & torchs.isnan())).all())


def through(loss_function, logits: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    loss = loss_function(leaf)
    upstream = torch.as_tensor(upstream_of(loss), dtype=loss.dtype).view_as(loss)
    return loss.detach(), torch.autograd.grad(loss, leaf, upstream)[0]


@pytest.mark.parametrize("weighted", (False, True), ids=("unweighted", "weighted"))
@pytest.mark.parametrize("ignore", IGNORED)
@pytest.mark.parametrize("reduction", ("none", "sum", "mean"))
@pytest.mark.parametrize("shape", SHAPES)
@by_dtype
def test_cce_is_cross_entropy(dtype, shape, reduction, ignore, weighted):
    """No further from the exact answer than F.cross_entropy in the same dtype, but for a few roundings."""
    generator = torch.Generator().manual_seed(1)
    size = SHAPES[shape]
    logits = (3 * torch.randn(size, generator=generator)).to(dtype)
    target = torch.randint(9, size[:1] + size[2:] if len(size) > 1 else (), generator=generator)
    if ignore == "some_ignored" and target.ndim:
        target.view(-1)[::3] = -1
    weight = torch.rand(9, generator=generator).add(0.5).to(dtype) if weighted else None
    options = {"weight": weight, "ignore_index": IGNORED[ignore], "reduction": reduction}
    theirs = through(lambda x: F.cross_entropy(x, target, **options), logits)
    right = expected(Spec.of("CCE"), logits, target, **options, grad_output=upstream_of(theirs[0]))
    for robust_loss in IMPLEMENTATIONS:
        ours = through(lambda x, f=robust_loss: f(x, target, imae_ext.CCE(), **options), logits)
        assert ours[0].shape == theirs[0].shape and ours[1].shape == logits.shape
        for mine, torchs, exact in zip(ours, theirs, (right.loss, right.grad), strict=True):
            assert no_further(mine, torchs, exact, torch.finfo(dtype).eps), robust_loss


@by_implementation
@pytest.mark.parametrize("eps", (0.0, 0.1, 0.5, 1.0))
@pytest.mark.parametrize("reduction", ("none", "sum", "mean"))
@pytest.mark.parametrize("ignore_index", (-100, 2))
def test_label_smoothing_is_cross_entropys(ignore_index, reduction, eps, robust_loss):
    logits, target = varied_rows()
    options = {"ignore_index": ignore_index, "reduction": reduction}
    got = row_gradient(robust_loss, logits, target, imae_ext.LabelSmoothing(eps=eps), **options)
    theirs = row_gradient(
        lambda x, y, _, **o: F.cross_entropy(x, y, label_smoothing=eps, **o), logits, target, None, **options
    )
    assert torch.allclose(got[0], theirs[0], rtol=1e-12, atol=1e-13)
    assert torch.allclose(got[1], theirs[1], rtol=1e-12, atol=1e-14)
