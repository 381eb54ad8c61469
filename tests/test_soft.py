"""Probabilities as target, and smoothed labels: against the oracle, torch's own, and the contract of bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from calls import FORMULA, by_dtype, by_formula, by_reduction, gradient
from expected import assert_within, exact, row_allowances
from oracle64 import oracle64
from torch import Tensor

import imae_ext
from imae_ext import CCE, NCE, reference

INF, NAN = math.inf, math.nan
by_implementation = pytest.mark.parametrize(
    "robust_loss", (imae_ext.robust_loss, reference.robust_loss), ids=("kernel", "reference")
)


def problem(C: int, dtype=torch.float64, N: int = 28) -> tuple[Tensor, Tensor]:
    """Rows with margins to 200; dense, two-label, one-hot, tied, negative and zero targets, in turn."""
    generator = torch.Generator().manual_seed(C)
    z = torch.randn(N, C, generator=generator, dtype=torch.float64)
    rows, top = torch.arange(N), torch.randint(C, (N,), generator=generator)
    z[rows, top] += torch.linspace(-20, 200, N, dtype=torch.float64)
    z[5::7] = z[5::7].round()  # ties
    z[5::7, -1] = z[5::7].amax(1)
    t = torch.softmax(2 * torch.randn(N, C, generator=generator, dtype=torch.float64), 1)
    t[::2] = t[::2] * (torch.rand(t[::2].shape, generator=generator) < 3 / C)  # sparse, most of them
    a, b = (F.one_hot(torch.randint(C, (N,), generator=generator), C).double() for _ in range(2))
    if C > 100:
        t = 0.25 * a + 0.5 * F.one_hot(top, C)
    t[1::7] = (0.3 * a + 0.7 * b)[1::7]
    t[2::7] = F.one_hot(top, C).double()[2::7]
    t[3::7] = b[3::7]
    t[4::7] = (1.5 * a - 0.75 * b)[4::7]  # of any sign
    t[6::14] = 0
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    return z.to(dtype), t.to(wide)


def wanted_of(spec, z: Tensor, t: Tensor) -> list[np.ndarray]:
    """Values, gradients and example weights by the oracle, and what the former two may be off."""
    N, C = z.shape
    amounts, logits = exact(t), exact(z)
    total = [np.zeros(N), np.zeros((N, C)), np.zeros(N), np.zeros(N), np.zeros(N)]
    total = [x.astype(np.longdouble) for x in total]
    for k in range(C):
        has = np.flatnonzero(amounts[:, k])
        if not len(has):
            continue
        table = oracle64(spec.terms, logits[has], np.full(len(has), k))
        with np.errstate(all="ignore"):
            value_off, grad_off = row_allowances(spec, table, z.dtype)
        t_k = amounts[has, k]
        total[0][has] += t_k * table.value
        total[1][has] += t_k[:, None] * table.grad
        total[2][has] += t_k * table.weight
        total[3][has] += abs(t_k) * value_off
        total[4][has] += abs(t_k) * np.maximum(grad_off.max(axis=1), 1e-37)
    return total


@by_implementation
@pytest.mark.parametrize("C", (2, 3, 10, 1000))
@by_dtype
@by_formula
def test_against_the_oracle(spec, dtype, C, robust_loss):
    z, t = problem(C, dtype, N=14 if C == 1000 else 28)
    value, grad, _, value_off, grad_off = wanted_of(spec, z, t)
    got = gradient(robust_loss, z, t, spec.build(), reduction="none")
    eps = {torch.bfloat16: 2**-8, torch.float16: 2**-11}.get(dtype, 0)
    near = 1e-12 if dtype is torch.float64 else 4e-6
    assert_within(got[0], value, value_off + near * np.abs(value), "loss")
    rounding = 1.01 * eps * np.abs(grad) + (2**-25 if dtype is torch.float16 else 0)
    assert_within(got[1], grad, grad_off[:, None] + rounding, "gradient")


@by_implementation
@by_reduction
@by_formula
def test_reductions(spec, reduction, robust_loss):
    """With weights of classes and rows, and smoothing."""
    if reduction == "normalized" and not spec.margin:
        pytest.skip("no example weight")
    z, t = problem(7)
    z = z.clamp(max=30)
    weight, samples = torch.linspace(0.5, 2, 7).double(), torch.linspace(-0.5, 2, 28).double()
    smoothed = (0.9 * t + 0.1 / 7) * weight
    value, grad, example, value_off, grad_off = (
        torch.from_numpy(a.astype(np.float64)) for a in wanted_of(spec, z, smoothed)
    )
    divisor = {"mean": samples.sum(), "normalized": (samples * example).sum() if spec.margin else 1}.get(reduction, 1)
    options = {"weight": weight, "sample_weight": samples, "label_smoothing": 0.1, "reduction": reduction}
    got = gradient(robust_loss, z, t, spec.build(), **options)
    loss = value * samples / divisor
    off = (value_off + 1e-12 * value.abs()) * (samples / divisor).abs() + 1e-300
    loss, off = (loss, off) if reduction == "none" else (loss.sum(), off.sum())
    assert ((got[0] - loss).abs() <= off).all()
    wanted = grad * (samples / divisor)[:, None]
    assert ((got[1] - wanted).abs() <= (3 * grad_off * (samples / divisor).abs() + 1e-300)[:, None]).all()


@pytest.mark.parametrize("shape", ((9, 5), (5,), (3, 5, 4), (2, 5, 3, 2)), ids=str)
@pytest.mark.parametrize("reduction", ("none", "sum", "mean"))
@pytest.mark.parametrize("smoothing", (0.0, 0.2, 1.0))
@pytest.mark.parametrize("weighted", (False, True))
def test_cross_entropy_is_torch_s(shape, reduction, smoothing, weighted):
    """With probabilities: every option that they share, in every layout."""
    z = torch.randn(shape, dtype=torch.float64)
    classes = min(1, len(shape) - 1)
    t = torch.rand(shape, dtype=torch.float64).softmax(classes)
    options = {"reduction": reduction, "label_smoothing": smoothing}
    options["weight"] = torch.linspace(0.5, 2, 5).double() if weighted else None
    ours = gradient(lambda *a, **o: -1.5 * imae_ext.robust_loss(*a, **o), z, t, CCE(), **options)
    torchs = gradient(lambda x, t, _, **o: -1.5 * F.cross_entropy(x, t, **o), z, t, None, **options)
    torch.testing.assert_close(ours, torchs)
    if not weighted or reduction != "mean":  # there torch divides the two parts alike, and so do we
        y = t.argmax(classes)
        ours = gradient(imae_ext.robust_loss, z, y, CCE(), **options)
        torchs = gradient(lambda x, t, _, **o: F.cross_entropy(x, t, **o), z, y, None, **options)
        torch.testing.assert_close(ours, torchs)


@by_implementation
@by_formula
def test_amounts_that_cancel(spec, robust_loss):
    """A row of which they add up to nothing counts."""
    z, t = torch.randn(3, 6, dtype=torch.float64), torch.zeros(3, 6, dtype=torch.float64)
    z[:, 0] += 4
    t[:, 1], t[:, 4] = 1, -1
    got = gradient(robust_loss, z, t, spec.build(), reduction="none")
    one, other = (gradient(robust_loss, z, torch.full((3,), k), spec.build(), reduction="none") for k in (1, 4))
    torch.testing.assert_close(got[0], one[0] - other[0])
    torch.testing.assert_close(got[1], one[1] - other[1])


@by_reduction
@by_formula
def test_one_hot_is_the_label(spec, reduction):
    if reduction == "normalized" and not spec.margin:
        pytest.skip("no example weight")
    for C in (2, 3, 10):
        z = 4 * torch.randn(40, C, dtype=torch.float64)
        y = torch.randint(C, (40,))
        ours = gradient(imae_ext.robust_loss, z, F.one_hot(y, C).double(), spec.build(), reduction=reduction)
        label = gradient(imae_ext.robust_loss, z, y, spec.build(), reduction=reduction)
        torch.testing.assert_close(ours, label, rtol=1e-10, atol=1e-12)


@by_implementation
@by_reduction
def test_smoothed_labels(reduction, robust_loss):
    """Class labels with ignored rows are the same as their amounts, but for mean's divisor, which has their weights."""
    z = torch.randn(30, 6, dtype=torch.float64)
    y = torch.randint(6, (30,))
    y[::4] = -100
    weight = torch.linspace(0.5, 2, 6).double()
    z[y == -100] = NAN
    options = {"weight": weight, "label_smoothing": 0.3}
    got = gradient(robust_loss, z, y, FORMULA, reduction=reduction, **options)
    live = y != -100
    assert (got[1][~live] == 0).all()
    t = F.one_hot(y[live], 6).double()
    by_amount = "sum" if reduction == "mean" else reduction
    wanted = gradient(robust_loss, z[live], t, FORMULA, reduction=by_amount, **options)
    divisor = weight[y[live]].sum() if reduction == "mean" else 1
    loss = got[0][live] if reduction == "none" else got[0]
    torch.testing.assert_close((loss, got[1][live]), (wanted[0] / divisor, wanted[1] / divisor))


@by_implementation
@by_reduction
def test_what_does_not_count_stays_out(reduction, robust_loss):
    """Rows of zeros, rows of weight 0 and their NaN; -infinity where there is no amount."""
    z, t = torch.randn(12, 5, dtype=torch.float64), torch.rand(12, 5, dtype=torch.float64)
    samples = torch.ones(12).double()
    t[2], samples[3] = 0, 0
    z[5, 1], t[5, 1] = -INF, 0
    options = {"sample_weight": samples, "reduction": reduction}
    wanted = gradient(robust_loss, z, t, FORMULA, **options)
    assert (wanted[1][[2, 3]] == 0).all() and wanted[1].isfinite().all() and wanted[1][5, 1] == 0
    if reduction == "mean":  # over all rows, of zeros too
        summed = gradient(robust_loss, z, t, FORMULA, sample_weight=samples, reduction="sum")
        torch.testing.assert_close(wanted, (summed[0] / samples.sum(), summed[1] / samples.sum()))
    z[2], z[3] = NAN, torch.tensor([INF, -INF, NAN, 0, 0])
    got = gradient(robust_loss, z, t, FORMULA, **options)
    assert torch.equal(got[0], wanted[0]) and torch.equal(got[1], wanted[1])
    leaf = z.clone().requires_grad_()
    (robust_loss(leaf, t, FORMULA, **options).sum() / 0).backward()  # infinite from above
    assert (leaf.grad[[2, 3]] == 0).all() and not leaf.grad[0].isfinite().any()


@by_implementation
@pytest.mark.parametrize("of", ("logits", "target"))
def test_nan_stays_in_its_row(of, robust_loss):
    z, t = torch.randn(12, 5), torch.rand(12, 5)
    wanted = gradient(robust_loss, z, t, FORMULA, reduction="none")
    (z if of == "logits" else t)[7, 2] = NAN
    got = gradient(robust_loss, z, t, FORMULA, reduction="none")
    own = torch.arange(12) == 7
    assert (got[0].isnan() == own).all() and torch.equal(got[0][~own], wanted[0][~own])
    assert torch.equal(got[1][~own], wanted[1][~own]) and got[1][7].isnan().any()


@pytest.mark.parametrize("formula", (CCE(), FORMULA, imae_ext.GCE(0.7), NCE(), imae_ext.LabelSmoothing(0.1)), ids=repr)
def test_infinite_logits(formula):
    """As the labels of the same amounts have them: a masked class that is wanted, one that is all there is."""
    z = torch.tensor([[0.0, -INF, 1.0, 0.5], [2.0, -INF, -INF, -INF]], dtype=torch.float64)
    for label in range(4):
        t = F.one_hot(torch.tensor([label, label]), 4).double()
        ours = gradient(imae_ext.robust_loss, z, t, formula, reduction="none")
        wanted = gradient(imae_ext.robust_loss, z, torch.tensor([label, label]), formula, reduction="none")
        rows = slice(1) if "LabelSmoothing" in repr(formula) else slice(2)  # two masked classes: infinite either way
        torch.testing.assert_close([x[rows] for x in ours], [x[rows] for x in wanted], equal_nan=True)
