"""Every formula against 50 digits: value and each gradient entry, kernel and reference alike.

Margins u from -200 to 200 and C in {2, 10, 1000}. The logits are rounded first and the oracle is given the
rounded ones, so nothing is lost in the comparison. Allowances are those of expected.py: 1e-12 in float64, of
each entry for losses of p_y alone and of the row's largest for the rest; 4e-6 of the row's scale in float32.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import oracle
import pytest
import torch
from cases import FORMULAS, PARAMETER_SWEEP, Spec
from expected import ACCURACY, assert_within, exact, row_allowances, stats_allowances
from mpmath import mp, mpf
from oracle64 import Table, oracle64
from torch import Tensor

import imae_ext
from imae_ext import reference

# 19 is where IMAE's pull fades for eps = 1e-8; 69 is p_y = 1 - 1e-30; 100 underflows float32, 200 by far.
MARGINS = (-200, -100, -40, -15, -5, -2, -1, 0, 1, 2, 5, 10, 19, 40, 69, 100, 200)
CLASSES = (2, 10, 1000)
ALL = tuple(dict.fromkeys(FORMULAS + PARAMETER_SWEEP))

by_formula = pytest.mark.parametrize("spec", ALL, ids=str)
by_dtype = pytest.mark.parametrize("dtype", (torch.float64, torch.float32), ids=lambda d: str(d)[6:])
by_classes = pytest.mark.parametrize("C", CLASSES, ids=lambda C: f"C{C}")


def kernel(logits: Tensor, target: Tensor, spec: Spec) -> tuple[Tensor, Tensor]:
    return imae_ext.value_and_grad(logits, target, spec.build(), reduction="none")


def plain(logits: Tensor, target: Tensor, spec: Spec) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    loss = reference.robust_loss(logits, target, spec.build(), reduction="none")
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    return loss.detach(), grad


by_implementation = pytest.mark.parametrize("implementation", (kernel, plain), ids=("kernel", "reference"))


@cache
def rows_at_margins(C: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(len(MARGINS), C) logits whose margins are MARGINS but for rounding, targets anywhere in the row."""
    generator = torch.Generator().manual_seed(C)
    logits = torch.randn(len(MARGINS), C, generator=generator, dtype=torch.float64)
    target = torch.randint(C, (len(MARGINS),), generator=generator)
    index = torch.arange(len(MARGINS))
    logits[index, target] = -math.inf
    logits[index, target] = torch.tensor(MARGINS, dtype=torch.float64) + logits.logsumexp(1)
    return logits.to(dtype), target


@cache
def exact_table(spec: Spec, C: int, dtype: torch.dtype) -> Table:
    logits, target = rows_at_margins(C, dtype)
    rows = [tuple(row) for row in logits.tolist()]
    answers = [oracle.oracle_array(spec.terms, row, y) for row, y in zip(rows, target.tolist(), strict=True)]
    value, grad, p_y, weight, u = (np.array(column) for column in zip(*answers, strict=True))
    return Table(value, grad, p_y, weight, u)


@by_dtype
@by_classes
@by_formula
def test_value_gradient_and_statistics(spec, C, dtype):
    """All that is held against the same answers, which take long to compute."""
    logits, target = rows_at_margins(C, dtype)
    table = exact_table(spec, C, dtype)
    value_allowed, grad_allowed = row_allowances(spec, table, dtype)
    for implementation in (kernel, plain):
        value, grad = implementation(logits, target, spec)
        assert value.dtype == grad.dtype == dtype
        assert_within(value, table.value, value_allowed, f"{implementation.__name__}: value")
        assert_within(grad, table.grad, grad_allowed, f"{implementation.__name__}: gradient")
    if spec.margin:
        p, w, *_ = imae_ext.row_stats(logits, target, spec.build())
        p_allowed, w_allowed = stats_allowances(spec, table, dtype)
        assert_within(p, table.p_y, p_allowed, "p_y")
        assert_within(w, table.weight, w_allowed, "weight")


# --- the row at p_y = 1 - 1e-30 -------------------------------------------------------------------------------


def fitted_row(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    logits = torch.linspace(-1, 1, 10, dtype=torch.float64)
    logits[3] = -math.inf
    logits[3] = logits.logsumexp(0) + math.log(1e30)
    return logits.to(dtype)[None], torch.tensor([3])


@by_implementation
@by_dtype
@by_formula
def test_gradient_of_a_fitted_row_sums_to_zero(spec, dtype, implementation):
    grad = implementation(*fitted_row(dtype), spec)[1][0].double()
    assert abs(math.fsum(grad.tolist())) <= 8 * torch.finfo(dtype).eps * grad.abs().max().item() + ACCURACY[dtype].tiny


WITHOUT_EPS = [
    s for s in ALL if len(s.terms) == 1 and s.terms[0][1] in ("IMAE", "DM") and ("eps", 0.0) in s.terms[0][2]
]


@by_implementation
@by_dtype
@pytest.mark.parametrize("spec", WITHOUT_EPS, ids=str)
def test_fitted_row_still_pulls_with_weight_one_when_eps_is_zero(spec, dtype, implementation):
    logits, target = fitted_row(dtype)
    grad = implementation(logits, target, spec)[1][0].double()
    assert abs(math.fsum(grad.abs().tolist()) - 1) <= 8 * torch.finfo(dtype).eps
    assert abs(grad[3].item() + 0.5) <= 4 * torch.finfo(dtype).eps


# --- IMAE's value ---------------------------------------------------------------------------------------------


@by_implementation
@by_dtype
@pytest.mark.parametrize("eps", (1e-8, 1e-4))
@pytest.mark.parametrize("T", (0.0, 0.5, 2.0, 8.0, 16.0, 30.0))
def test_imae_value_is_never_negative_and_falls_to_zero(T, eps, dtype, implementation):
    u = torch.linspace(-200, 200, 1601, dtype=dtype)
    logits = torch.stack([u, torch.zeros_like(u)], dim=1)
    value = implementation(logits, torch.zeros(len(u), dtype=torch.long), Spec.of("IMAE", T=T, eps=eps))[0].double()
    assert (value >= 0).all()
    slack = 16 * torch.finfo(dtype).eps
    assert (value[1:] <= value[:-1] * (1 + slack)).all(), "rises with the margin"
    # Beyond the fade, L -> (T + 2/eps)/2 * exp(-u).
    far = (u >= math.log(2 / eps) + 20) & (u <= 80)
    limit = (T + 2 / eps) / 2 * torch.exp(-u.double())
    assert far.any()
    assert torch.allclose(value[far], limit[far], rtol=3e-5, atol=0)
    assert value[-1] <= 1e-78 / eps


# --- the oracles themselves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("C", (2, 10), ids=lambda C: f"C{C}")
@by_formula
def test_fast_oracle_agrees_with_fifty_digits(spec, C):
    logits, target = rows_at_margins(C, torch.float64)
    slow, fast = exact_table(spec, C, torch.float64), oracle64(spec.terms, exact(logits), target.numpy())
    value_scale = np.maximum(np.abs(slow.value), np.abs(slow.grad).max(axis=1))
    grad_scale = np.abs(slow.grad) if spec.margin else np.abs(slow.grad).max(axis=1, keepdims=True)
    assert (np.abs(fast.value - slow.value) <= 1e-14 * value_scale + 1e-307).all()
    assert (np.abs(fast.grad - slow.grad) <= 1e-14 * grad_scale + 1e-307).all()
    assert (np.abs(fast.p_y - slow.p_y) <= 1e-14 * slow.p_y).all()
    assert (
        np.isnan(fast.weight).all()
        if not spec.margin
        else (np.abs(fast.weight - slow.weight) <= 1e-14 * slow.weight + 1e-307).all()
    )


@pytest.mark.parametrize("margin", (-9, 0, 3, 21))
@by_formula
def test_oracle_gradient_is_the_derivative_of_its_value(spec, margin):
    with mp.workdps(oracle.DIGITS):
        others = (mpf("0.3"), mpf("-1.1"))
        row = [others[0], margin + mp.log(mp.exp(others[0]) + mp.exp(others[1])), others[1]]
        answer = oracle.oracle_terms(spec.terms, row, 1)
        step = mpf(10) ** -14
        for j in range(3):
            moved = [[z + sign * step * (k == j) for k, z in enumerate(row)] for sign in (1, -1)]
            up, down = (oracle.oracle_terms(spec.terms, r, 1).value for r in moved)
            slope = (up - down) / (2 * step)
            assert abs(slope - answer.grad[j]) <= mpf(10) ** -18 * max(map(abs, answer.grad))


@pytest.mark.parametrize("eps", (1.0, 1e-4, 1e-8))
@pytest.mark.parametrize("u", (-150.0, -3.5, 0.0, 7.25, 18.0, 41.0, 150.0))
def test_quadrature_of_the_oracle_where_the_integral_is_known(u, eps):
    """T = 0 leaves r/(r + d)/2 = 1/(2 (1 + d + d e^u)), whose integral is log(1 + (1 + d)/d e^-u) / (2 (1 + d))."""
    with mp.workdps(oracle.DIGITS):
        d = mpf(eps) / 2
        known = mp.log1p((1 + d) / d * mp.exp(-mpf(u))) / (2 * (1 + d))
        assert abs(oracle.integrated_value(mpf(u), 0.0, 1.0, eps) - known) <= mpf(10) ** -30 * known
