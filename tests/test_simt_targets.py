"""The emulated CUDA kernels of other targets: binary losses, amounts of every class, and two labels."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import FORMULAS
from emulated import DTYPES, NONE, ORDERS, REDUCTIONS, SUM, emulated, in_every_order
from expected import assert_within, expected
from test_soft import problem, wanted_of

from imae_ext import reference, soft, two_sweeps

pytestmark = pytest.mark.cuda

INF, NAN = float("inf"), float("nan")
AMOUNT_COUNTS = (2, 10, 33, 1100)  # the last by a block, the others by a warp


@pytest.fixture(scope="module")
def kernels():
    return emulated()


def loss_and_gradient(kernels, kernel, *inputs, upstream=None, **options):
    """Return loss, divisor and gradient, the last by a call of its own, in every order of threads."""

    def compute():
        made = kernel(*inputs, **options)
        above = torch.ones_like(made["loss"]) if upstream is None else upstream
        without = {name: value for name, value in options.items() if name != "reduction"}
        return made | kernel(*inputs, grad_output=above, divisor=made["divisor"], **without)

    return in_every_order(kernels, compute)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_binary(kernels, dtype, reduction):
    """Against the reference, for every type of target; the same bits in any order of threads."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    logits = (8 * torch.randn(41, 7)).to(dtype)
    soft = torch.rand(41, 7)
    soft[::2] = soft[::2].round()
    soft[3] = -100
    weights = {"weight": torch.linspace(0, 2, 7, dtype=wide), "pos_weight": torch.linspace(3, 1, 7, dtype=wide)}
    weights["sample_weight"] = torch.linspace(-0.5, 2, 41, dtype=wide)
    kinds = [soft.double(), soft, soft.round().long(), soft.round().int(), soft > 0.5, (soft > 0.5).byte()]
    for spec, target in itertools.product(FORMULAS[::3], kinds):
        if reduction == "normalized" and not spec.margin:
            continue
        packed = tuple(spec.build().packed)
        x = logits.to(wide).requires_grad_()
        wanted = reference.binary_robust_loss(x, target, spec.build(), reduction=reduction, **weights)
        upstream = torch.linspace(-1, 2, wanted.numel(), dtype=wide).view(wanted.shape) - 0.5
        (grad,) = torch.autograd.grad(wanted, x, upstream)
        options = {"reduction": REDUCTIONS[reduction], **weights}
        made = loss_and_gradient(kernels, kernels.binary, logits, target, packed, upstream=upstream, **options)
        near = {torch.float64: 1e-11, torch.float32: 2e-5}.get(dtype, 1e-2)
        torch.testing.assert_close(made["loss"], wanted.detach(), rtol=min(near, 2e-5), atol=1e-5 * near)
        torch.testing.assert_close(made["grad"].to(wide), grad, rtol=near, atol=near * 1e-2)
        assert (made["grad"][:, 0] == 0).all()


def test_binary_with_a_target_beyond_0_and_1(kernels):
    """Its own element is NaN: nothing waits for a device."""
    kernels.machine = ORDERS[2]
    logits, target = torch.randn(41, 7), torch.rand(41, 7)
    target[3, 2], target[40, 6] = 1.5, -0.5
    packed = tuple(FORMULAS[4].build().packed)
    values = kernels.binary(logits, target, packed, reduction=NONE)
    grad = kernels.binary(logits, target, packed, grad_output=torch.ones(()), divisor=values["divisor"])["grad"]
    wrong = (target < 0) | (target > 1)
    assert (values["loss"].isnan() == wrong).all() and (grad.isnan() == wrong).all()


@pytest.mark.parametrize("C", AMOUNT_COUNTS)
@pytest.mark.parametrize("spec", FORMULAS, ids=str)
def test_amounts(kernels, spec, C):
    """Against the oracle, as test_soft has it: margins to 200, ties, amounts of any sign, rows of zeros."""
    dtype = DTYPES[(FORMULAS.index(spec) + AMOUNT_COUNTS.index(C)) % 4]  # each formula in every dtype
    z, t = problem(C, dtype, N=7 if C > 100 else 28)
    value, grad, _, value_off, grad_off = wanted_of(spec, z, t)
    made = loss_and_gradient(kernels, kernels.dense, z, t, tuple(spec.build().packed), reduction=NONE)
    eps = {torch.bfloat16: 2**-8, torch.float16: 2**-11}.get(dtype, 0)
    near = 1e-12 if dtype is torch.float64 else 4e-6
    assert_within(made["loss"], value, value_off + near * abs(value), "loss")
    rounding = 1.01 * eps * abs(grad) + (2**-25 if dtype is torch.float16 else 0)
    assert_within(made["grad"], grad, grad_off[:, None] + rounding, "gradient")


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("C", [7, 1030])
def test_amounts_with_weights_and_smoothing(kernels, C, reduction):
    z, t = problem(C, N=14)
    z = z.clamp(max=30)
    weight, samples = torch.linspace(0.5, 2, C).double(), torch.linspace(-0.5, 2, 14).double()
    samples[4] = 0
    for spec in FORMULAS[::3]:
        if reduction == "normalized" and not spec.margin:
            continue
        leaf = z.clone().requires_grad_()
        wanted = soft.robust_loss(leaf, t, spec.build(), weight, samples, 0.1, -100, reduction)
        upstream = torch.linspace(-1, 2, wanted.numel()).double().view(wanted.shape) + 0.3
        (grad,) = torch.autograd.grad(wanted, leaf, upstream)
        inputs = z.clone()
        inputs[4] = float("nan")  # a row of weight 0 is not looked at
        options = {"weight": weight, "sample_weight": samples, "smoothing": 0.1, "reduction": REDUCTIONS[reduction]}
        packed = tuple(spec.build().packed)
        made = loss_and_gradient(kernels, kernels.dense, inputs, t, packed, upstream=upstream, **options)
        torch.testing.assert_close(made["loss"], wanted.detach(), rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(made["grad"], grad, rtol=1e-9, atol=1e-12)
        assert (made["grad"][4] == 0).all()


@pytest.mark.parametrize("C", [5, 1100])
def test_amounts_of_rows_that_are_not_numbers(kernels, C):
    """Each stays alone; without any amount nothing is looked at, and a class without one may be at -infinity."""
    z, t = torch.randn(9, C), torch.rand(9, C)
    z[1, 2], z[2, 0], z[3], z[5, 1], z[6] = NAN, INF, -INF, -INF, NAN
    t[5, 1], t[6], z[8, 1:] = 0, 0, -INF  # the last: a perfect fit
    t[8] = 0
    t[8, 0] = 1
    for spec in (FORMULAS[0], FORMULAS[4], FORMULAS[14]):
        made = loss_and_gradient(kernels, kernels.dense, z, t, tuple(spec.build().packed), reduction=NONE)
        assert made["loss"].isnan().nonzero().flatten().tolist() == [1, 2, 3], spec
        assert made["grad"].isnan().any(1).nonzero().flatten().tolist() == [1, 2, 3], spec
        assert made["loss"][6] == 0 and (made["grad"][6] == 0).all()
        assert (made["grad"][8] == 0).all() and made["grad"][5, 1] == 0


def test_amounts_of_no_rows(kernels):
    none = torch.empty(0, 5), torch.empty(0, 5)
    packed = tuple(FORMULAS[0].build().packed)
    assert kernels.dense(*none, packed)["loss"].isnan() and kernels.dense(*none, packed, reduction=SUM)["loss"] == 0


def two_labels(C, dtype=torch.float64, N=28):
    """Logits with margins to 200 on either label, and labels that are often the same one; amounts of both signs."""
    z = (3 * torch.randn(N, C)).to(dtype)
    a, b, rows = torch.randint(C, (N,)), torch.randint(C, (N,)), torch.arange(N)
    b[::5] = a[::5]
    z[rows[1::2], torch.where(rows % 3 == 0, b, a)[1::2]] += torch.linspace(-200, 200, N)[1::2].to(dtype)
    return z, a, b, torch.linspace(-0.5, 1.5, N)


@pytest.mark.parametrize("C", AMOUNT_COUNTS)
@pytest.mark.parametrize("spec", FORMULAS, ids=str)
def test_two_labels(kernels, spec, C):
    """Against the oracle of each label's own loss."""
    dtype = DTYPES[(FORMULAS.index(spec) + C) % 4]
    z, a, b, lam = two_labels(C, dtype, N=7 if C > 100 else 28)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    lam = lam.to(wide)
    made = loss_and_gradient(kernels, kernels.mixed, z, a, b, lam, tuple(spec.build().packed), reduction=NONE)
    parts = [
        expected(spec, z, label, sample_weight=amount, reduction="none") for label, amount in ((a, lam), (b, 1 - lam))
    ]
    assert_within(made["loss"], sum(p.loss for p in parts), sum(p.loss_allowed for p in parts), "loss")
    assert_within(made["grad"], sum(p.grad for p in parts), sum(p.grad_allowed for p in parts), "gradient")


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("C", [7, 1030])
def test_two_labels_with_weights(kernels, C, reduction):
    """Of classes and rows, 0 among both; labels that are ignored, and amounts that are one number for all."""
    z, a, b, lam = two_labels(C, N=14)
    z = z.clamp(-30, 30)
    a[3], b[5], a[6], b[6] = -100, -100, -100, -100
    weight, samples = torch.linspace(0.5, 2, C).double(), torch.linspace(-0.5, 2, 14).double()
    samples[4], weight[a[8]], b[8] = 0, 0, a[8]
    for spec in FORMULAS[::3]:
        if reduction == "normalized" and not spec.margin:
            continue
        for first, second in ((lam.double(), None), (torch.tensor(0.3).double(), torch.tensor(-0.25).double())):
            leaf = z.clone().requires_grad_()
            chosen = (spec.build(), weight, samples, -100, reduction)
            wanted = two_sweeps.in_two_sweeps(leaf, two_sweeps.TwoLabels(a, b, first, second), chosen)
            upstream = torch.linspace(-1, 2, wanted.numel()).double().view(wanted.shape) + 0.3
            (grad,) = torch.autograd.grad(wanted, leaf, upstream)
            inputs = z.clone()
            inputs[[3, 4, 6, 8]] = NAN  # rows that do not count are not looked at
            options = {"other_lam": second, "weight": weight, "sample_weight": samples}
            packed = tuple(spec.build().packed)
            options |= {"upstream": upstream, "reduction": REDUCTIONS[reduction]}
            made = loss_and_gradient(kernels, kernels.mixed, inputs, a, b, first, packed, **options)
            torch.testing.assert_close(made["loss"], wanted.detach(), rtol=1e-11, atol=1e-13)
            torch.testing.assert_close(made["grad"], grad, rtol=1e-9, atol=1e-12)
            assert (made["grad"][[3, 4, 6, 8]] == 0).all()


@pytest.mark.parametrize("C", [5, 1100])
def test_two_labels_of_rows_that_are_not_numbers(kernels, C):
    """Each stays alone, as does a label out of range unless it has no amount; a class may be at -infinity."""
    z, a, b = torch.randn(10, C), torch.arange(10) % 4, (torch.arange(10) + 1) % 4
    lam = torch.full((10,), 0.25)
    z[1, 4], z[2, b[2]], z[3], z[5, 4], z[6, b[6]] = NAN, INF, -INF, -INF, -INF
    a[7], b[8], b[9], lam[9] = C, -1, C, 1
    for spec in (FORMULAS[0], FORMULAS[4]):
        made = loss_and_gradient(kernels, kernels.mixed, z, a, b, lam, tuple(spec.build().packed), reduction=NONE)
        assert made["loss"].isnan().nonzero().flatten().tolist() == [1, 2, 3, 7, 8], spec
        assert made["grad"].isnan().any(1).nonzero().flatten().tolist() == [1, 2, 3, 7, 8], spec
        assert made["grad"][5, 4] == 0


def test_two_labels_of_one_class_and_of_no_rows(kernels):
    one = torch.randn(3, 1), *torch.zeros(2, 3).long(), torch.rand(3), tuple(FORMULAS[4].build().packed)
    made = loss_and_gradient(kernels, kernels.mixed, *one, reduction=NONE)
    assert (made["loss"] == 0).all() and (made["grad"] == 0).all()
    none = torch.empty(0, 5), *torch.empty(2, 0).long(), torch.empty(0), tuple(FORMULAS[0].build().packed)
    assert kernels.mixed(*none)["loss"].isnan() and kernels.mixed(*none, reduction=SUM)["loss"] == 0
