"""What tests share: small batches, gradients through autograd, and the usual parametrisations."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from cases import DTYPES, FORMULAS
from torch import Tensor

import imae_ext
from imae_ext import plain, reference


def plain_loss(logits, target, formula, *, weight=None, sample_weight=None, ignore_index=-100, reduction="mean"):
    """robust_loss as it is computed on devices without kernels."""
    return plain.loss(logits, target, (formula, weight, sample_weight, ignore_index, reduction))


by_formula = pytest.mark.parametrize("spec", FORMULAS, ids=str)
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
REDUCTIONS = ("none", "mean", "sum", "normalized")
by_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)
# For tests whose cases are dear: every reduction, and every dtype once.
by_reduction_or_dtype = pytest.mark.parametrize(
    ("reduction", "dtype"),
    (
        *((reduction, torch.float32) for reduction in REDUCTIONS),
        *(("mean", dtype) for dtype in DTYPES if dtype != torch.float32),
    ),
    ids=str,
)
IMPLEMENTATIONS = imae_ext.robust_loss, reference.robust_loss, plain_loss
by_implementation = pytest.mark.parametrize("robust_loss", IMPLEMENTATIONS, ids=("kernel", "reference", "plain"))
FORMULA = imae_ext.IMAE(T=8.0)


def batch(N: int = 8, C: int = 5, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(N, C, generator=generator)).to(dtype), torch.randint(C, (N,), generator=generator)


def gradient(robust_loss, logits: Tensor, target: Tensor, formula, **options) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().clone().requires_grad_()
    loss = robust_loss(leaf, target, formula, **options)
    loss.sum().backward()
    return loss.detach(), leaf.grad


def same_bits(a: Tensor, b: Tensor) -> bool:
    as_integers = {8: torch.int64, 4: torch.int32, 2: torch.int16}[a.dtype.itemsize]
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(as_integers), b.contiguous().view(as_integers))


def same_by_threads(computed: Callable[[], tuple[Tensor, ...]], counts: tuple[int, ...]) -> bool:
    """Whether what is computed has the same bits with each number of threads."""
    before, results = torch.get_num_threads(), []
    try:
        for threads in counts:
            torch.set_num_threads(threads)
            results.append(computed())
    finally:
        torch.set_num_threads(before)
    return all(same_bits(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def varied_rows(C: int = 7, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """(60, C) logits with margins spread over -30 to 30."""
    generator = torch.Generator().manual_seed(C)
    logits = torch.randn(60, C, generator=generator, dtype=torch.float64)
    target = torch.randint(C, (60,), generator=generator)
    rows = torch.arange(60)
    logits[rows, target] = -math.inf
    logits[rows, target] = logits.logsumexp(1) + torch.linspace(-30, 30, 60, dtype=torch.float64)
    return logits.to(dtype), target


def row_gradient(robust_loss, logits: Tensor, target: Tensor, formula, **options) -> tuple[Tensor, Tensor]:
    """Per-row values (unless said otherwise) and the gradient of their sum."""
    return gradient(robust_loss, logits, target, formula, **{"reduction": "none", **options})
