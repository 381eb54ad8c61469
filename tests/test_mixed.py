"""Two labels a row: the same as probabilities that hold both amounts."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from calls import FORMULA, by_formula, by_reduction, gradient

import imae_ext
from imae_ext import CCE, NCE, mixed_loss, two_sweeps


def problem(C=6, N=20):
    z = 3 * torch.randn(N, C, dtype=torch.float64)
    a, b = torch.randint(C, (N,)), torch.randint(C, (N,))
    b[::5] = a[::5]  # both the same label
    return z, a, b


def soft(C, *parts):
    return sum(amount.unsqueeze(-1) * F.one_hot(label, C) for label, amount in parts)


@by_reduction
@by_formula
def test_against_probabilities(spec, reduction):
    """Numbers and tensors as amounts, of any sign; weights of classes and rows."""
    if reduction == "normalized" and not spec.margin:
        pytest.skip("no example weight")
    z, a, b = problem()
    lam, other = torch.linspace(-0.5, 1.5, 20).double(), torch.linspace(1, -0.25, 20).double()
    options = {
        "weight": torch.linspace(0.5, 2, 6).double(),
        "sample_weight": torch.linspace(0.25, 2, 20).double(),
        "reduction": reduction,
    }
    for first, second in ((0.3, None), (lam, None), (lam, other), (1, -0.5), (torch.tensor(0.3), 0.2)):
        t_a = torch.as_tensor(first, dtype=torch.float64).expand(20)
        t_b = 1 - t_a if second is None else torch.as_tensor(second, dtype=torch.float64).expand(20)
        wanted = gradient(imae_ext.robust_loss, z, soft(6, (a, t_a), (b, t_b)), spec.build(), **options)

        def mixed(z, a, formula, first=first, second=second):
            return -1.5 * mixed_loss(z, a, b, first, formula, other_lam=second, **options)

        got = gradient(mixed, z, a, spec.build())
        torch.testing.assert_close(got, tuple(-1.5 * each for each in wanted), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("C", (2, 3, 10, 40, 1100))
@pytest.mark.parametrize("formula", (CCE(), FORMULA, NCE() + 0.5 * CCE()), ids=repr)
def test_margins_to_200(formula, C):
    """Against probabilities in double: rows that float cannot add up relative to a label's logit are among them."""
    z, a, b = problem(C, 24)
    rows = torch.arange(24)
    z[rows, torch.where(rows % 3 == 0, b, a)] += torch.linspace(-200, 200, 24).double()
    lam = torch.linspace(-0.5, 1.5, 24).double()
    exact = gradient(
        imae_ext.robust_loss, z.float().double(), soft(C, (a, lam), (b, 1 - lam)), formula, reduction="none"
    )
    for dtype, near in ((torch.float64, 1e-11), (torch.float32, 6e-6)):
        got = gradient(lambda z, a, f: mixed_loss(z, a, b, lam, f, reduction="none"), z.float().to(dtype), a, formula)
        torch.testing.assert_close(got[0].double(), exact[0], rtol=near, atol=near)
        torch.testing.assert_close(got[1].double(), exact[1], rtol=near, atol=near)


@pytest.mark.parametrize("C", (3, 40, 1100, 20_000))
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("formula", (CCE(), NCE() + 0.5 * CCE()), ids=repr)
def test_an_other_label_that_is_sure(formula, dtype, C):
    """Relative to what pulls at it, which is next to nothing: the sum without it must not be a difference."""
    z, a, b = problem(C, 24)
    a = torch.where(a == b, (b + 1) % C, a)
    rows = torch.arange(24)
    z[rows, b] = z.logsumexp(1) + torch.linspace(-1, 14, 24).double()
    z, one = z.to(dtype), torch.ones(24, dtype=torch.float64)
    amounts = soft(C, (a, 1e-6 * one), (b, one))
    _, wanted = gradient(imae_ext.robust_loss, z.double(), amounts, formula, reduction="none")
    _, got = gradient(lambda z, a, f: mixed_loss(z, a, b, 1e-6, f, other_lam=1, reduction="none"), z, a, formula)
    near = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 5e-3}[dtype]
    assert (abs(got.double() - wanted) <= near * abs(wanted).amax(1, keepdim=True)).all()


@by_reduction
def test_with_and_without_a_kernel(reduction):
    """The same in two sweeps, as where there is no kernel."""
    z, a, b = problem()
    a[3], b[7] = -100, -100
    lam, samples = torch.rand(20).double(), torch.rand(20).double()
    options = (FORMULA, None, samples, -100, reduction)
    wanted = gradient(
        lambda z, a, f: two_sweeps.in_two_sweeps(z, two_sweeps.TwoLabels(a, b, lam, None), options), z, a, FORMULA
    )
    kept = {"sample_weight": samples, "reduction": reduction}
    got = gradient(lambda z, a, f: mixed_loss(z, a, b, lam, f, **kept), z, a, FORMULA)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16, torch.float16), ids=str)
def test_the_operators_keep_torch_s_contract(dtype):
    z, a, b = torch.randn(6, 5).to(dtype), torch.randint(5, (6,)), torch.randint(5, (6,))
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    arguments = (a, b, torch.rand(6), None, FORMULA.packed, torch.rand(5), torch.rand(6), -100)
    for name, code in (("mixed_forward", 0), ("mixed_forward", 3), ("mixed_forward_backward", 1)):
        leaf = z.clone().requires_grad_(name == "mixed_forward")
        torch.library.opcheck(getattr(torch.ops.imae_ext, name), (leaf, *arguments, code))
    ones = torch.ones((), dtype=wide), torch.ones(6, dtype=wide)
    torch.library.opcheck(torch.ops.imae_ext.mixed_backward, (z, *arguments, *ones))


@by_reduction
def test_ignored_labels(reduction):
    """The first: the row does not count. The other: its part is 0, and the row counts."""
    z, a, b = problem()
    a[3], b[7], a[9], b[9] = -100, -100, -100, -100
    kept_first, kept_other = (a != -100).double(), ((a != -100) & (b != -100)).double()
    t = soft(6, (a.clamp(min=0), 0.3 * kept_first), (b.clamp(min=0), 0.7 * kept_other))
    wanted = gradient(imae_ext.robust_loss, z, t, FORMULA, sample_weight=kept_first, reduction=reduction)
    poisoned = z.clone()
    poisoned[3] = math.nan
    got = gradient(lambda z, a, f: mixed_loss(z, a, b, 0.3, f, reduction=reduction), poisoned, a, FORMULA)
    torch.testing.assert_close(got, wanted)
    assert (got[1][[3, 9]] == 0).all()
    if reduction in ("sum", "mean"):  # whatever comes from above, in one pass or not
        leaf = poisoned.clone().requires_grad_()
        (mixed_loss(leaf, a, b, 0.3, FORMULA, reduction=reduction) / 0).backward()
        assert (leaf.grad[[3, 9]] == 0).all() and not leaf.grad[0].isfinite().any()


def test_transforms_and_shapes():
    z, a, b = torch.randn(2, 5, 3, dtype=torch.float64), torch.randint(5, (2, 3)), torch.randint(5, (2, 3))
    lam = torch.rand(2, 3, dtype=torch.float64)

    def value(z, lam=lam):
        return mixed_loss(z, a, b, lam, FORMULA)

    wanted = gradient(lambda z, a, f: value(z), z, a, FORMULA)
    assert torch.allclose(torch.func.grad(value)(z), wanted[1], rtol=1e-10, atol=1e-14)
    assert torch.autograd.gradcheck(value, (z.clone().requires_grad_(), lam.clone().requires_grad_()))
    assert torch.autograd.gradgradcheck(value, z.clone().requires_grad_())
    compiled = torch.compile(value, backend="aot_eager", fullgraph=True)
    leaf = z.clone().requires_grad_()
    loss = compiled(leaf)
    loss.backward()
    torch.testing.assert_close((loss.detach(), leaf.grad), wanted)
    torch._dynamo.reset()


def test_bad_arguments_are_refused():
    z, a, b = problem()
    for arguments, error, says in (
        ((a, b.double(), 0.3), TypeError, "other to be class labels"),
        ((a, b[:4], 0.3), ValueError, "other of shape"),
        ((a, b, "0.3"), TypeError, "lam to be a number"),
        ((a, b, torch.ones(4)), ValueError, "lam of shape"),
        ((F.one_hot(a, 6).double(), b, 0.3), TypeError, "target of dtype"),
    ):
        with pytest.raises(error, match=f"imae_ext: expected {says}"):
            mixed_loss(z, *arguments, CCE())
    a[0], b[0], b[1] = -100, 8, 9  # of a row that does not count, and of one that does
    with pytest.raises(IndexError, match=r"expected labels in .* got 9 at row 1 of other"):
        mixed_loss(z, a, b, 0.3, CCE())


def test_a_gradient_that_goes_past_the_caches():
    """Of 17 MB, bit for bit what its rows have in parts, which are too small for that."""
    generator = torch.Generator().manual_seed(0)
    logits, lam = torch.randn(8300, 530, generator=generator), torch.rand(8300, generator=generator)
    target, other = torch.randint(530, (2, 8300), generator=generator)
    target[::7] = -100
    grads = []
    for rows in (8300, 1000):
        leaf = logits.clone().requires_grad_()
        for z, *labels, share in zip(*(x.split(rows) for x in (leaf, target, other, lam)), strict=True):
            imae_ext.mixed_loss(z, *labels, share, imae_ext.IMAE(), reduction="sum").backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)
