"""What holds for every loss, at drawn formulas, dtypes, shapes and values."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from calls import same_bits, same_by_threads
from cases import FORMULAS, PARAMETER_SWEEP, Spec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import imae_ext

CLASS_COUNTS = (1, 2, 3, 5, 8, 10, 15, 16, 17, 31, 33, 64, 65, 100, 130)
WIDE = (torch.float64, torch.float32)
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Call:
    spec: Spec
    dtype: torch.dtype
    N: int
    C: int
    scale: float
    weighted: bool
    ignored: bool
    seed: int

    @functools.cached_property
    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    @functools.cached_property
    def formula(self) -> imae_ext.Formula:
        return built(self.spec)

    def draw(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits in steps of 1/64, so that they are exact in float32 and a shift of them is exact as well."""
        z = self.scale * torch.randn(self.N, self.C, generator=self.generator, dtype=torch.float64)
        logits = (z * 64).round().div(64).to(self.dtype)
        target = torch.randint(self.C, (self.N,), generator=self.generator)
        if self.ignored:
            target[self.seed % self.N] = -100
        dtype = self.dtype if self.dtype.itemsize >= 4 else torch.float32
        weight = torch.rand(self.C, generator=self.generator).add(0.5).to(dtype) if self.weighted else None
        return logits, target, weight

    def rows(self, logits: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Each row's value and gradient."""
        return imae_ext.value_and_grad(logits, target, self.formula, weight=weight, reduction="none")

    def close(self, got: Tensor, wanted: Tensor, scale: Tensor) -> bool:
        """Up to the rounding of the arithmetic, relative to `scale`, and of the dtype."""
        eps = 1e-12 if self.dtype == torch.float64 else 1e-5
        stored = torch.finfo(got.dtype).eps
        least = 2.0**-24 if got.dtype == torch.float16 else 1e-30
        allowed = (eps * scale.double() + stored * wanted.double().abs() + least).expand_as(wanted)
        error = (got.double() - wanted.double()).abs()
        return bool(((error <= allowed) | (got == wanted)).all())

    def size(self, grad: Tensor) -> Tensor:
        """(N, 1) largest entry of each row, in double; NCE's and LabelSmoothing's entries are differences of more."""
        return grad.double().abs().amax(1, keepdim=True) + (0.0 if self.spec.margin else 0.1)


@functools.cache
def built(spec: Spec) -> imae_ext.Formula:
    return spec.build()


def calls(
    dtypes=WIDE + HALF, specs=FORMULAS + PARAMETER_SWEEP, counts=CLASS_COUNTS, rows=9, scales=(0.0, 1.0, 4.0, 20.0)
):
    return st.builds(
        Call,
        spec=st.sampled_from(specs),
        dtype=st.sampled_from(dtypes),
        N=st.integers(1, rows),
        C=st.sampled_from(counts),
        scale=st.sampled_from(scales),
        weighted=st.booleans(),
        ignored=st.booleans(),
        seed=st.integers(0, 2**32 - 1),
    )


def holds(strategy) -> Callable:
    """A test that the check passes for 480 drawn calls, the same ones in every run."""
    drawn = settings(
        max_examples=480, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    return lambda check: drawn(given(strategy)(check))


def value_scale(call: Call, values: Tensor, grad: Tensor) -> Tensor:
    return torch.maximum(values.double().abs(), call.size(grad)[:, 0])


@holds(calls(dtypes=WIDE))
def test_shift_invariance(call):
    """A constant added to a row changes nothing, to the bit where the sum is exact."""
    logits, target, weight = call.draw()
    shift = torch.randint(-1000, 1000, (call.N, 1), generator=call.generator).to(call.dtype)
    assert torch.equal((logits + shift) - shift, logits)
    before, after = call.rows(logits, target, weight), call.rows(logits + shift, target, weight)
    assert same_bits(before[0], after[0]) and same_bits(before[1], after[1])


@holds(calls())
def test_class_permutation(call):
    """Classes renamed, gradient columns renamed."""
    logits, target, weight = call.draw()
    order = torch.randperm(call.C, generator=call.generator)
    renamed = order.argsort()[target.clamp(min=0)].where(target >= 0, target)
    values, grad = call.rows(logits, target, weight)
    got_values, got_grad = call.rows(logits[:, order], renamed, None if weight is None else weight[order])
    assert call.close(got_values, values, value_scale(call, values, grad))
    assert call.close(got_grad, grad[:, order], call.size(grad))


@holds(calls())
def test_row_permutation(call):
    """Rows in another order give the same bits in that order; their sum the same up to rounding."""
    logits, target, weight = call.draw()
    order = torch.randperm(call.N, generator=call.generator)
    values, grad = call.rows(logits, target, weight)
    got_values, got_grad = call.rows(logits[order], target[order], weight)
    assert same_bits(got_values, values[order]) and same_bits(got_grad, grad[order])
    totals = [
        imae_ext.robust_loss(x, y, call.formula, weight=weight, reduction="sum")
        for x, y in ((logits, target), (logits[order], target[order]))
    ]
    assert call.close(totals[1], totals[0], values.double().abs().sum())


@holds(calls(rows=20))
def test_row_independence(call):
    """Another row, even of NaN or inf, leaves the others' bits alone."""
    logits, target, weight = call.draw()
    row = call.seed % call.N
    other = logits.clone()
    choices = (logits[row] + 3, logits[row] * math.nan, logits[row] * 0 + math.inf, logits[row] * 0 - math.inf)
    other[row] = choices[call.seed // 7 % 4]
    keep = torch.arange(call.N) != row
    before, after = call.rows(logits, target, weight), call.rows(other, target, weight)
    assert same_bits(before[0][keep], after[0][keep]) and same_bits(before[1][keep], after[1][keep])


def through_autograd(call: Call, logits, target, weight, reduction, upstream) -> Tensor:
    leaf = logits.clone().requires_grad_()
    loss = imae_ext.robust_loss(leaf, target, call.formula, weight=weight, reduction=reduction)
    return torch.autograd.grad(loss, leaf, upstream(loss).to(loss.dtype))[0]


@holds(calls(dtypes=(torch.float64,)))
def test_linear_in_grad_output(call):
    """grad(3 g + h) = 3 grad(g) + grad(h), for each row's own g and for one of the whole batch."""
    logits, target, weight = call.draw()
    for reduction, size in (("none", (call.N,)), ("sum", ())):
        g, h = torch.randn(2, *size, generator=call.generator, dtype=torch.float64)
        of_g, of_h, of_both = (
            through_autograd(call, logits, target, weight, reduction, lambda loss, u=u: u) for u in (g, h, 3 * g + h)
        )
        assert call.close(of_both, 3 * of_g + of_h, 3 * call.size(of_g) + call.size(of_h))


@holds(calls(dtypes=(torch.float64, torch.float32, torch.bfloat16)))
def test_a_power_of_two_in_grad_output_is_exact(call):
    logits, target, weight = call.draw()
    factor = 2.0 ** (call.seed % 9 - 4)
    if torch.isin(target, -100).all():
        return
    for reduction in ("none", "mean", "sum"):
        once, scaled = (
            through_autograd(call, logits, target, weight, reduction, lambda loss, f=f: torch.full_like(loss, f))
            for f in (1.0, factor)
        )
        normal = once.abs() > 1e-30
        assert same_bits((once * factor).where(normal, 0), scaled.where(normal, 0))


@holds(calls())
def test_inputs_are_unchanged(call):
    """Logits (with NaN and inf among them), target, weight and grad_output, to the bit."""
    logits, target, weight = call.draw()
    logits[0, call.seed % call.C] = (math.nan, math.inf, -math.inf)[call.seed % 3]
    copies = [None if t is None else t.clone() for t in (logits, target, weight)]
    for reduction in ("none", "mean", "normalized") if call.spec.margin else ("none", "mean"):
        upstream = []

        def keep(loss, upstream=upstream):
            upstream += [torch.linspace(-1, 2, loss.numel()).view_as(loss).to(loss.dtype)] * 2
            upstream[1] = upstream[0].clone()
            return upstream[0]

        leaf = logits.requires_grad_()
        loss = imae_ext.robust_loss(leaf, target, call.formula, weight=weight, reduction=reduction)
        torch.autograd.grad(loss, leaf, keep(loss))
        logits.requires_grad_(False)
        assert same_bits(*upstream)
    for now, before in zip((logits, target, weight), copies, strict=True):
        assert now is None or same_bits(now, before)


@holds(calls(dtypes=WIDE))
def test_gradient_rows_sum_to_zero(call):
    logits, target, weight = call.draw()
    _, grad = call.rows(logits, target, weight)
    assert call.close(grad.double().sum(1), torch.zeros(call.N), call.size(grad)[:, 0] * math.sqrt(call.C))


@holds(calls(specs=tuple(s for s in FORMULAS + PARAMETER_SWEEP if s.margin)))
def test_margin_losses_pull_the_label_up_and_the_others_down(call):
    """The gradient's signs; its L1 norm, spread over the others as their softmax."""
    logits, target, weight = call.draw()
    _, grad = call.rows(logits, target, weight)
    kept = target >= 0
    own = torch.zeros_like(grad, dtype=torch.bool).scatter(1, target.clamp(min=0)[:, None], kept[:, None])
    assert (grad[own] <= 0).all() and (grad[~own] >= 0).all() and (grad[~kept] == 0).all()
    others = logits.double().masked_fill(own, -math.inf)
    share = -grad.double().masked_fill(~own, 0).sum(1, keepdim=True)
    if call.C > 1:
        wanted = torch.where(own, grad.double(), share * others.softmax(1)).where(kept[:, None], 0)
        least = 1e-30 if call.dtype != torch.float16 else 2.0**-23
        assert call.close(grad, wanted, call.size(grad) * (1 if call.dtype in WIDE else 1e3) + least)


@holds(calls(rows=600, counts=(7, 64, 100, 130, 300), scales=(1.0, 20.0)))
def test_thread_count(call):
    """The same bits from one thread and from several."""
    logits, target, weight = call.draw()

    def computed() -> tuple[Tensor, ...]:
        each = through_autograd(call, logits, target, weight, "none", lambda x: torch.linspace(-1, 1, x.numel()))
        return *imae_ext.value_and_grad(logits, target, call.formula, weight=weight), each

    assert same_by_threads(computed, (1, 2 + call.seed % 3))


@holds(calls())
def test_layout(call):
    """The same bits at any storage offset and row stride; up to rounding where classes are strided."""
    logits, target, weight = call.draw()
    values, grad = call.rows(logits, target, weight)
    offset = 1 + call.seed % 7
    store = torch.full((call.N * (call.C + 9) + offset,), math.nan, dtype=call.dtype)
    shifted = store[offset : offset + logits.numel()].view_as(logits).copy_(logits)
    got_values, got_grad = call.rows(shifted, target, weight)
    assert same_bits(got_values, values) and same_bits(got_grad, grad)
    padded = store[offset:].view(call.N, call.C + 9)[:, 2:-7].copy_(logits)
    assert padded.shape == logits.shape
    strided = logits.t().contiguous().t()
    spaced = torch.full((2 * call.N, 3 * call.C), math.nan, dtype=call.dtype)[::2, ::3].copy_(logits)
    for other in (padded, strided, spaced):
        got_values, got_grad = call.rows(other, target, weight)
        assert call.close(got_values, values, value_scale(call, values, grad)) and call.close(
            got_grad, grad, call.size(grad)
        )
    assert store[:offset].isnan().all()
