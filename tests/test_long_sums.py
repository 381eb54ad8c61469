"""Sums over many classes whose roundings err the same way: all but a few logits of a row are alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cases import FORMULAS, PARAMETER_SWEEP, Spec
from expected import assert_within, exact, row_allowances, steepness
from oracle64 import oracle64
from torch import Tensor

import imae_ext

C = 1000
MARGINS = torch.tensor([-40.0, -15, -5, -2, -1, 0, 1, 2, 5, 10, 19, 40], dtype=torch.float64)
# Without Focal(gamma=5) and GCE(q=2.5): they go by r^6 and p^2.5, which makes as many times of a sum's error, and are
# allowed no more than others.
STEEP = Spec.of("GCE", q=2.5)
SPECS = [spec for spec in dict.fromkeys(FORMULAS + PARAMETER_SWEEP) if steepness(spec) <= 3 and spec != STEEP]
OTHERS = {
    "alike": lambda z: z,
    "halves": lambda z: z.index_fill(1, torch.arange(C // 2, C), -3.0),
    "lone": lambda z: (z - 12).index_fill(1, torch.tensor([5]), 0.0),
}


def rows(others: str) -> tuple[Tensor, Tensor]:
    """(len(MARGINS), C) logits whose margins are MARGINS but for rounding."""
    target, index = 7 * torch.arange(len(MARGINS)), torch.arange(len(MARGINS))
    logits = OTHERS[others](torch.zeros(len(MARGINS), C, dtype=torch.float64))
    logits[index, target] = -math.inf
    logits[index, target] = MARGINS + logits.logsumexp(1)
    return logits.float(), target


@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_thousand_classes(spec, others):
    logits, target = rows(others)
    table = oracle64(spec.terms, exact(logits), target.numpy())
    value_allowed, grad_allowed = row_allowances(spec, table, torch.float32)
    # 16 rows and more, so that vectors run across them
    transposed = torch.cat([logits, logits]).t().contiguous().t(), torch.cat([target, target])
    for name, z, y in (("contiguous", logits, target), ("transposed", *transposed)):
        value, grad = imae_ext.value_and_grad(z, y, spec.build(), reduction="none")
        for at in range(0, len(y), len(MARGINS)):
            assert_within(value[at : at + len(MARGINS)], table.value, value_allowed, f"{name}: value")
            assert_within(grad[at : at + len(MARGINS)], table.grad, grad_allowed, f"{name}: gradient")


@pytest.mark.parametrize("depth", (10, 11, 12, 13, 14, 15, 16))
@pytest.mark.parametrize("shape", ((1, 1_000_003), (32, 50_000)), ids=("contiguous", "transposed"))
def test_a_million_classes(shape, depth):
    """One class at 0, the label's at -3, all others alike: each addition rounds off as much, the same way."""
    N, C = shape
    logits = torch.full((C, N), -float(depth)).t()  # of one row, its classes lie next to one another
    logits[:, 5], logits[:, 7], target = 0, -3, torch.full((N,), 7)
    value, grad = imae_ext.value_and_grad(logits, target, imae_ext.CCE(), reduction="none")
    total = 1 + math.exp(-3) + (C - 2) * math.exp(-depth)
    p = np.exp(np.array([0.0, -depth])) / total
    np.testing.assert_allclose(value.double(), 3 + math.log(total), rtol=3e-7)
    np.testing.assert_allclose(grad[:, [5, 6]].double(), np.broadcast_to(p, (N, 2)), rtol=1e-6)
