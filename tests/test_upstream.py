"""What the gradient is multiplied by: rows that are left out are exactly 0 whatever comes from above.

A row is left out if its label is ignored or its class has weight 0. A sum divided by a count of 0 has an upstream
gradient of inf; were it to reach such a row as 0 * inf, one batch without labels would turn a model into NaN.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from calls import REDUCTIONS, by_dtype, by_reduction
from cases import DTYPES
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import imae_ext
from imae_ext import AGCE, CCE, DM, GCE, IMAE, MAE, NCE, RCE, Focal, LabelSmoothing, reference

INF, NAN = float("inf"), float("nan")
TWO_AND_ONE = 0x400000003F800000  # the bits of a double a little above 2; the lower half are those of a float of 1
FORMULAS = (CCE(), MAE(), GCE(0.7), IMAE(8.0), DM(), RCE(), Focal(2.0), AGCE(), 0.1 * CCE() + RCE())
GENERAL = LabelSmoothing(0.1), NCE(), 2.0 * NCE() + MAE()
BEYOND = INF, -INF, NAN  # upstream values that are no numbers to multiply with
WEIGHT = torch.tensor([1.5, 0.5, 2.0, 0.0, 1.0, 0.25])


def problem(dtype=torch.float32, shape=(9, 6), weighted=True, layout="plain", seed=0):
    """Logits, labels and weights, and which rows are left out; their logits are not finite."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    rows = (*shape[:1], *shape[2:])
    target = torch.randint(shape[1], rows, generator=generator)
    target.view(-1)[::3] = -100
    target.view(-1)[1] = 3
    out = (target == -100) | ((target == 3) & weighted)
    filler = torch.tensor([INF, NAN, -INF], dtype=dtype)[torch.randint(3, shape, generator=generator)]
    logits = torch.where(out.unsqueeze(1), filler, logits)
    if layout == "last":
        logits = logits.movedim(1, -1).contiguous().movedim(-1, 1)
    elif layout == "sliced":
        wide = torch.zeros(*shape[:1], shape[1] + 3, *shape[2:], dtype=dtype)
        wide[:, 2 : shape[1] + 2] = logits
        logits = wide[:, 2 : shape[1] + 2]
    return logits, target, WEIGHT if weighted else None, out


def rows_of(grad):
    return grad.movedim(1, -1).reshape(-1, grad.shape[1])


def eager(call, logits, upstream):
    loss = call(logits)
    return torch.autograd.grad(loss, logits, upstream(loss))[0]


def retained(call, logits, upstream):
    loss = call(logits)
    torch.autograd.grad(loss, logits, torch.ones_like(loss), retain_graph=True)
    return torch.autograd.grad(loss, logits, upstream(loss))[0]


def offloaded(call, logits, upstream):
    with torch.autograd.graph.save_on_cpu():
        loss = call(logits)
    return torch.autograd.grad(loss, logits, upstream(loss))[0]


def checkpointed(call, logits, upstream):
    loss = torch.utils.checkpoint.checkpoint(call, logits, use_reentrant=False)
    return torch.autograd.grad(loss, logits, upstream(loss))[0]


def batched(call, logits, upstream):
    loss = call(logits)
    several = torch.stack([torch.ones_like(loss), upstream(loss)])
    return torch.autograd.grad(loss, logits, several, is_grads_batched=True)[0][1]


def functional(call, logits, upstream):
    loss, pull = torch.func.vjp(call, logits.detach())
    return pull(upstream(loss))[0]


def mapped(call, logits, upstream):
    loss, pull = torch.func.vjp(call, logits.detach())
    return torch.func.vmap(pull)(torch.stack([torch.ones_like(loss), upstream(loss)]))[0][1]


def penalised(call, logits, upstream):
    loss = call(logits)
    return torch.autograd.grad(loss, logits, upstream(loss), create_graph=True)[0].detach()


OURS = eager, retained, offloaded, checkpointed, batched
THROUGH_THE_REFERENCE = functional, mapped, penalised


def check(way, dtype, reduction, formula, value, *, shape=(9, 6), weighted=True, layout="plain", seed=0):
    logits, target, weight, out = problem(dtype, shape, weighted, layout, seed)

    def call(logits):
        return imae_ext.robust_loss(logits, target, formula, weight=weight, reduction=reduction)

    logits.requires_grad_()
    got = rows_of(way(call, logits, lambda loss: torch.full_like(loss, value)))
    out = out.reshape(-1)
    assert (got[out] == 0).all(), "a row that is left out"
    once = rows_of(eager(call, logits, torch.ones_like))
    assert once[~out].isfinite().all()
    if way in OURS and value not in (0, 1):
        rounding = 2 * torch.finfo(dtype).eps
        shown = ~out.unsqueeze(1).expand_as(once)
        if value - value == 0:  # times what is finite, a subnormal gradient shows the digits that it has lost
            shown = shown & (once.abs() >= torch.finfo(dtype).smallest_normal)
        torch.testing.assert_close(got[shown], (once * value)[shown], rtol=rounding, atol=1e-6, equal_nan=True)
    elif value - value == 0:
        torch.testing.assert_close(got[~out], (once * value)[~out], rtol=2e-2, atol=1e-5)
    else:
        assert not got[~out].isfinite().any()


@pytest.mark.parametrize("way", [*OURS, *THROUGH_THE_REFERENCE], ids=lambda way: way.__name__)
@by_reduction
@by_dtype
def test_rows_left_out_stay_0(dtype, reduction, way):
    for formula, value in itertools.product((CCE(), IMAE(8.0)), (INF, -INF, NAN, 0.0, 1.0, -2.5)):
        check(way, dtype, reduction, formula, value)


@pytest.mark.parametrize("formula", [*FORMULAS, *GENERAL], ids=repr)
def test_of_every_formula(formula):
    for reduction in REDUCTIONS if not formula.needs_all_logits else REDUCTIONS[:3]:
        for dtype, value in itertools.product(DTYPES, BEYOND):
            check(eager, dtype, reduction, formula, value)


@settings(max_examples=400, deadline=None)
@given(
    dtype=st.sampled_from(list(DTYPES)),
    reduction=st.sampled_from(REDUCTIONS),
    formula=st.sampled_from(FORMULAS),
    value=st.sampled_from([*BEYOND, 0.0, -0.0, 1.0, 0.5, 1e30, -3.0]),
    shape=st.one_of(
        st.tuples(st.integers(3, 40), st.just(6)),
        st.tuples(st.integers(2, 5), st.just(6), st.integers(2, 30)),
        st.tuples(st.integers(2, 3), st.just(6), st.integers(1, 5), st.integers(1, 5)),
        st.tuples(st.integers(2, 3), st.just(6), st.integers(2, 3), st.integers(2, 3), st.integers(2, 3)),
    ),
    weighted=st.booleans(),
    layout=st.sampled_from(["plain", "last", "sliced"]),
    way=st.sampled_from(OURS),
    seed=st.integers(0, 99),
)
def test_at_any_shape(dtype, reduction, formula, value, shape, weighted, layout, way, seed):
    if abs(value) == 1e30 and dtype is torch.float16:
        value = 1e3
    check(way, dtype, reduction, formula, value, shape=shape, weighted=weighted, layout=layout, seed=seed)


@pytest.mark.parametrize("shape", [(9, 6), (3, 6, 4, 5)], ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS[:3])
@pytest.mark.parametrize("value", [INF, -INF, NAN, 0.0, 1.0, -2.5])
def test_as_cross_entropy(value, reduction, shape):
    """At ignored rows always (of finite logits, where torch has no NaN of its own), elsewhere at finite values."""
    logits, target, weight, _ = problem(torch.float64, shape, seed=1)
    weight = (weight + 0.5).double()
    logits = torch.where(torch.isfinite(logits), logits, 0.25).requires_grad_()
    ours = imae_ext.cce_loss(logits, target, weight=weight, reduction=reduction)
    theirs = cross_entropy(logits, target, weight=weight, reduction=reduction)
    ours, theirs = (torch.autograd.grad(x, logits, torch.full_like(x, value))[0] for x in (ours, theirs))
    ignored = (target == -100).unsqueeze(1).expand_as(logits)
    assert (ours[ignored] == 0).all() and (theirs[ignored] == 0).all()
    if value - value == 0:
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@by_dtype
def test_a_batch_without_labels_divided_by_its_count(dtype, reduction):
    logits = torch.zeros(2, 3, dtype=dtype, requires_grad=True)
    target = torch.full((2,), -100)
    (imae_ext.cce_loss(logits, target, reduction=reduction) / (target != -100).sum()).backward()
    assert (logits.grad == 0).all()


@by_dtype
@pytest.mark.parametrize("call", [imae_ext.robust_loss, reference.robust_loss], ids=["kernels", "reference"])
def test_weight_0_is_a_row_left_out(dtype, call):
    """Its value is 0 even where F.cross_entropy's is NaN, and the others are as if it were not there."""
    logits, target, weight, out = problem(dtype, seed=3)
    for formula in (CCE(), IMAE(8.0)):
        values = call(logits, target, formula, weight=weight, reduction="none")
        assert (values[out] == 0).all() and values[~out].isfinite().all()
        for reduction in ("mean", "sum", "normalized"):
            wanted = call(logits[~out], target[~out], formula, weight=weight, reduction=reduction)
            torch.testing.assert_close(call(logits, target, formula, weight=weight, reduction=reduction), wanted)


def test_the_derivative_by_a_weight_of_0_is_the_loss_of_its_rows():
    logits, target = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 1, 0])
    weight = torch.tensor([0.0, 1.0, 2.0, 0.0], dtype=torch.float64, requires_grad=True)
    logits.requires_grad_()
    values = imae_ext.robust_loss(logits.detach(), target, IMAE(8.0), reduction="none")
    loss = imae_ext.robust_loss(logits, target, IMAE(8.0), weight=weight, reduction="sum")
    by_logits, by_weight = torch.autograd.grad(loss, (logits, weight))
    torch.testing.assert_close(by_weight, torch.zeros(4, dtype=torch.float64).index_add(0, target, values))
    assert (by_logits[weight.detach()[target] == 0] == 0).all() and (by_logits[1] != 0).all()


def check_compiled(dtype, reduction, formula, weighted, backend, values):
    logits, target, weight, out = problem(dtype, weighted=weighted)

    def call(logits, upstream):
        loss = imae_ext.robust_loss(logits, target, formula, weight=weight, reduction=reduction)
        return (loss * upstream).sum()

    torch.compiler.reset()
    compiled = torch.compile(call, fullgraph=True, backend=backend)
    for value in values:
        leaf = logits.clone().requires_grad_()
        compiled(leaf, torch.tensor(value, dtype=torch.float64 if dtype == torch.float64 else torch.float32)).backward()
        assert (leaf.grad[out] == 0).all()
        assert (leaf.grad[~out].isfinite() == (value - value == 0)).all()


@by_dtype
@by_reduction
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_compiled(dtype, reduction, weighted):
    check_compiled(dtype, reduction, IMAE(8.0), weighted, "aot_eager", (*BEYOND, 0.0, 1.0, -2.5))


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_compiled_by_inductor(weighted):
    for dtype in (torch.float32, torch.bfloat16):
        check_compiled(dtype, "mean", CCE(), weighted, "inductor", (INF, NAN, -2.5))


@by_dtype
@pytest.mark.parametrize(
    ("upstream", "factor"),
    (
        (lambda dtype: torch._neg_view(torch.ones((), dtype=dtype)), -1.0),  # as of an imaginary part
        (lambda dtype: torch._neg_view(-torch.ones((), dtype=dtype)), 1.0),
        (lambda dtype: torch._efficientzerotensor((), dtype=dtype), 0.0),
        (lambda dtype: torch.tensor([2.0, 1.0], dtype=dtype)[1], 1.0),
        (lambda dtype: torch.tensor(0.5, dtype=dtype), 0.5),
        (lambda dtype: torch.tensor(TWO_AND_ONE).view(torch.float64).to(dtype), 2.0),
    ),
    ids=("1 to be negated", "-1 to be negated", "no memory", "one of two", "half", "2 and a little"),
)
def test_an_upstream_gradient_may_lie_in_memory_as_it_likes(upstream, factor, dtype):
    """Whether it is 1 is read there, if that is its value."""
    logits, target, weight, _ = problem(dtype)
    logits.requires_grad_()
    first, second = (imae_ext.robust_loss(logits, target, IMAE(), weight=weight) for _ in range(2))
    (wanted,) = torch.autograd.grad(first, logits)
    (got,) = torch.autograd.grad(second, logits, upstream(second.dtype))
    assert wanted.any() and torch.allclose(got, factor * wanted, rtol=1e-2 if dtype.itemsize == 2 else 1e-6)
