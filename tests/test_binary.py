"""Binary and multi-label losses: against the oracle of two classes, torch's own, and the contract of bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from calls import by_dtype, by_formula, by_reduction, gradient
from cases import DTYPES
from expected import assert_within, exact, row_allowances
from layouts import RELAID
from oracle64 import oracle64
from torch import Tensor

from imae_ext import CCE, IMAE, binary_robust_loss, reference

INF, NAN = math.inf, math.nan
by_implementation = pytest.mark.parametrize(
    "loss_of", (binary_robust_loss, reference.binary_robust_loss), ids=("kernel", "reference")
)


def problem(dtype=torch.float64, shape=(23, 7), seed=0) -> tuple[Tensor, Tensor]:
    """Logits to 30 and beyond, targets of 0, 1 and between."""
    generator = torch.Generator().manual_seed(seed)
    x = (12 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
    t = torch.rand(shape, generator=generator, dtype=torch.float64)
    t = torch.where(t < 0.3, 0.0, torch.where(t > 0.6, 1.0, t))
    return x, t.to(torch.float64 if dtype is torch.float64 else torch.float32)


def wanted_of(spec, x, t, pos=None):
    """Values, slopes and example weights by the oracle of two classes, and what they may be off."""
    z = exact(x).reshape(-1)
    two, amounts = np.stack([0 * z, z], 1), exact(t).reshape(-1)
    pos = np.ones_like(amounts) if pos is None else exact(pos.expand(x.shape)).reshape(-1)
    total = [np.zeros_like(z) for _ in range(5)]
    for amount, y in ((pos * amounts, 1), (1 - amounts, 0)):
        table = oracle64(spec.terms, two, np.full(len(z), y))
        allowed = row_allowances(spec, table, x.dtype)
        with np.errstate(invalid="ignore"):
            parts = (table.value, table.grad[:, 1], table.weight, allowed[0], allowed[1].max(axis=1))
        for k, part in enumerate(parts):
            total[k] += np.where(amount == 0, 0, amount * part)
    return total


@by_implementation
@by_dtype
@by_formula
def test_against_the_oracle_of_two_classes(spec, dtype, loss_of):
    x, t = problem(dtype)
    pos = torch.linspace(0.5, 3, 7, dtype=t.dtype)
    value, slope, _, value_off, slope_off = wanted_of(spec, x, t, pos)
    got = gradient(loss_of, x, t, spec.build(), pos_weight=pos, reduction="none")
    eps = torch.finfo(t.dtype).eps
    assert_within(got[0].reshape(-1), value, value_off + 2 * eps * np.abs(value), "loss")
    rounding = 2 * torch.finfo(dtype).eps * np.abs(slope) + (2**-24 if dtype is torch.float16 else 0)
    assert_within(got[1].reshape(-1), slope, slope_off + rounding, "gradient")


@by_implementation
@by_reduction
@by_formula
def test_reductions(spec, reduction, loss_of):
    """With every weight there is, and elements that are left out."""
    if reduction == "normalized" and not spec.margin:
        pytest.skip("no example weight")
    x, t = problem()
    t[::3, 2] = -100
    weight, pos = torch.linspace(0.5, 2, 7).double(), torch.linspace(3, 1, 7).double()
    samples = torch.linspace(-0.5, 2, 23).double()
    live = t != -100
    value, slope, example_weight, value_off, slope_off = (
        torch.from_numpy(a.astype(np.float64)).view(x.shape) for a in wanted_of(spec, x, t.clamp(min=0), pos)
    )
    w = torch.where(live, weight * samples[:, None], 0)
    divisor = {
        "mean": torch.where(live, samples[:, None], 0).sum(),
        "normalized": (w * example_weight).sum() if spec.margin else 1,
    }.get(reduction, 1)
    options = {"weight": weight, "pos_weight": pos, "sample_weight": samples, "reduction": reduction}
    got = gradient(lambda *a, **o: -1.5 * loss_of(*a, **o), x, t, spec.build(), **options)
    loss = -1.5 * value * w / divisor
    loss = loss if reduction == "none" else loss.sum()
    allowed = (value_off * w.abs()).sum() / abs(divisor) + 1e-12 * (value * w).abs().sum() / abs(divisor)
    assert (got[0] - loss).abs().max() <= 1.5 * allowed
    allowed = (slope_off + 1e-12 * slope.abs()) * (w / divisor).abs() * 1.5 + 1e-30
    assert ((got[1] + 1.5 * slope * w / divisor).abs() <= allowed).all()


@pytest.mark.parametrize("shape", ((6,), (5, 3), (2, 3, 4), (), (0, 3), (3000, 5)), ids=str)
@pytest.mark.parametrize("reduction", ("none", "sum", "mean"))
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32), ids=lambda d: str(d)[6:])
def test_cross_entropy_is_torch_s(shape, reduction, dtype):
    """For every option that they share, in every shape to which weights broadcast."""
    x, t = problem(dtype, shape)
    shapes = {shape, (), (1,), shape[-1:], (*shape[:-1], 1), (*shape[:1], *(1 for _ in shape[1:]))}
    for of in shapes:
        for name in ("weight", "pos_weight"):
            w = torch.rand(of, dtype=dtype) + 0.5
            if len(of) > len(shape):
                continue
            options = {name: w, "reduction": reduction}
            ours = gradient(binary_robust_loss, x, t, CCE(), **options)
            torchs = gradient(lambda x, t, _, **o: F.binary_cross_entropy_with_logits(x, t, **o), x, t, None, **options)
            torch.testing.assert_close(ours, torchs, equal_nan=True)


@pytest.mark.parametrize("lay", RELAID.values(), ids=RELAID)
@by_dtype
def test_layouts(dtype, lay):
    x, t = problem(dtype, (4, 6, 5, 3))
    z, y = lay(x), lay(t)
    wanted = gradient(binary_robust_loss, z.contiguous(), y.contiguous(), IMAE(4.0), reduction="none")
    for pair in ((z, y), (z, y.contiguous()), (z.contiguous(), y)):
        got = gradient(binary_robust_loss, *pair, IMAE(4.0), reduction="none")
        assert torch.equal(got[0], wanted[0]) and torch.equal(got[1], wanted[1])


@by_implementation
@pytest.mark.parametrize(
    "kind", (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, *DTYPES), ids=str
)
def test_targets_of_every_type(kind, loss_of):
    x, t = problem(torch.float32)
    hard = (t > 0.5).to(kind)
    ignored = 255 if kind is torch.uint8 else -100
    wanted = gradient(loss_of, x, hard.float(), IMAE(4.0))
    assert torch.equal(gradient(loss_of, x, hard, IMAE(4.0), ignore_index=ignored)[1], wanted[1])
    if kind is torch.bool:  # 1 as an index to ignore is no target of a bool
        assert torch.equal(gradient(loss_of, x, hard, IMAE(4.0), ignore_index=1)[1], wanted[1])
        return
    if not kind.is_floating_point and kind is not torch.int64:  # cut to the target's bits, it would be 1
        too_far = 1 + 2 ** torch.iinfo(kind).bits
        assert torch.equal(gradient(loss_of, x, hard, IMAE(4.0), ignore_index=too_far)[1], wanted[1])
    hard[3, 2] = ignored
    grad = gradient(loss_of, x, hard, IMAE(4.0), ignore_index=ignored)[1]
    assert grad[3, 2] == 0 and torch.allclose(grad * 160 / 161, torch.where(grad == 0, 0, wanted[1]), atol=1e-7)


@pytest.mark.parametrize("wrong", (2, -1, 1.5, -0.25, NAN, INF, -100.5, 156))
def test_targets_beyond_0_and_1_are_refused(wrong):
    x, t = problem()
    kinds = (torch.float32, torch.float64) if isinstance(wrong, float) else (torch.float32, torch.int64, torch.int8)
    if wrong == 156:  # -100 in 8 bits
        kinds = (torch.uint8,)
    for kind in kinds:
        bad = (t > 0.5).to(kind)
        bad[2, 3] = wrong
        for loss_of in (binary_robust_loss, reference.binary_robust_loss):
            with pytest.raises(ValueError, match=r"imae_ext: expected targets from 0 to 1 .* at element 17 of target"):
                loss_of(x, bad, CCE())


@by_implementation
@by_formula
def test_infinite_logits_have_their_limits(spec, loss_of):
    """A fitted element is 0 and does not pull, one that is all wrong is what a margin of -1e4 tends to."""
    if "eps=0" in str(spec):
        pytest.skip("published to the letter: its value falls without end")
    x, t = torch.tensor([INF, -INF, 1.0], dtype=torch.float64), torch.tensor([1.0, 0.0, 1.0]).double()
    fitted = gradient(loss_of, x, t, spec.build(), reduction="none")
    if spec.margin:
        far = gradient(loss_of, x.clamp(-3000, 3000), t, spec.build(), reduction="none")
        torch.testing.assert_close(fitted, far)
    wrong = gradient(loss_of, x, 1 - t, spec.build(), reduction="none")
    far = gradient(loss_of, x.clamp(-1e30, 1e30), 1 - t, spec.build(), reduction="none")
    finite = far[0] < 1e20
    assert not wrong[0].isnan().any() and (wrong[0][~finite] == INF).all()
    if spec.margin:
        torch.testing.assert_close((wrong[0][finite], wrong[1]), (far[0][finite], far[1]))


@by_implementation
@by_reduction
def test_elements_left_out_are_0_whatever_they_hold(reduction, loss_of):
    x, t = problem(torch.float32)
    t[4], t[5, 0] = -100, -100
    weight = torch.ones(7)
    weight[2] = 0
    out = (t == -100) | (weight == 0)
    wanted = gradient(loss_of, x, t, IMAE(4.0), weight=weight, reduction=reduction)
    poison = torch.tensor([NAN, INF, -INF]).repeat(54)[: x.numel()].view(x.shape)
    for upstream in (1.0, INF, NAN):
        leaf = torch.where(out, poison, x).requires_grad_()
        loss = loss_of(leaf, t, IMAE(4.0), weight=weight, reduction=reduction)
        assert torch.equal(loss, wanted[0])
        (loss * upstream).sum().backward()
        if loss_of is binary_robust_loss or upstream == 1:
            assert (leaf.grad[out] == 0).all()
        assert (leaf.grad[~out].isfinite() == (upstream == 1)).all()


@by_implementation
def test_nan_stays_in_its_element(loss_of):
    x, t = problem(torch.float32)
    wanted = gradient(loss_of, x, t, IMAE(4.0), reduction="none")
    x[3, 4] = NAN
    got = gradient(loss_of, x, t, IMAE(4.0), reduction="none")
    own = torch.zeros_like(x, dtype=torch.bool)
    own[3, 4] = True
    for a, b in zip(got, wanted, strict=True):
        assert (a.isnan() == own).all() and torch.equal(a[~own], b[~own])
