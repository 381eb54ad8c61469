"""The CUDA operators on a GPU, further: other targets than class labels, and tensors that 32 bits cannot count."""

from __future__ import annotations

import math

import pytest
import torch
from cases import FORMULAS
from expected import assert_within, expected
from test_soft import problem, wanted_of

import imae_ext
from benchmarks.gpu_shapes import has_clusters, kernel_of
from benchmarks.speed.queued import queued

pytestmark = pytest.mark.cuda

if not torch.cuda.is_available():
    pytest.skip("no GPU", allow_module_level=True)


@pytest.mark.short
@pytest.mark.parametrize("C", [2, 10, 1100])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_probabilities(dtype, C):
    """By their own kernel, and as test_soft holds the CPU's."""
    z, t = problem(C, dtype, N=14)
    eps, near = 2**-8 if dtype == torch.bfloat16 else 0, 1e-12 if dtype is torch.float64 else 4e-6
    for spec in (FORMULAS[0], FORMULAS[4], FORMULAS[14]):
        value, grad, _, value_off, grad_off = wanted_of(spec, z, t)
        leaf, amounts = z.cuda().requires_grad_(), t.cuda()
        loss = imae_ext.robust_loss(leaf, amounts, spec.build(), reduction="none")
        (found,) = torch.autograd.grad(loss.sum(), leaf)
        assert_within(loss.detach().cpu(), value, value_off + near * abs(value), "loss")
        assert_within(found.cpu(), grad, grad_off[:, None] + 1.01 * eps * abs(grad), "gradient")
    seen = queued(lambda: imae_ext.robust_loss(leaf, amounts, spec.build()))
    assert any("DenseJob" in name for name in seen.kernels) and not seen.waits, seen


@pytest.mark.short
@pytest.mark.parametrize("C", [2, 10, 1100])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_two_labels(dtype, C):
    """By their own kernel, against the oracle of each label's loss."""
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    z, a, b, lam = 3 * torch.randn(14, C), torch.randint(C, (14,)), torch.randint(C, (14,)), torch.rand(14).to(wide)
    z = z.to(dtype)
    for spec in (FORMULAS[0], FORMULAS[4], FORMULAS[14]):
        parts = [expected(spec, z, y, sample_weight=t, reduction="none") for y, t in ((a, lam), (b, 1 - lam))]
        leaf, labels, amounts = z.cuda().requires_grad_(), (a.cuda(), b.cuda()), lam.cuda()
        loss = imae_ext.mixed_loss(leaf, *labels, amounts, spec.build(), reduction="none")
        (found,) = torch.autograd.grad(loss.sum(), leaf)
        assert_within(loss.detach().cpu(), sum(p.loss for p in parts), sum(p.loss_allowed for p in parts), "loss")
        assert_within(found.cpu(), sum(p.grad for p in parts), sum(p.grad_allowed for p in parts), "gradient")
    seen = queued(lambda: imae_ext.mixed_loss(leaf, *labels, amounts, spec.build()))
    assert any("MixedJob" in name for name in seen.kernels) and not seen.waits, seen


@pytest.mark.parametrize(
    ("tier", "shape"),
    [
        ("cluster", (2**31 // 128256 + 300, 128256)),
        ("tile", (2**31 // 10 + 300, 10)),
        ("strided", (2, 128, 2**31 // 256 + 300)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_more_than_2_to_the_31_elements(tier, shape):
    """The first rows and the last are what they are on their own, to the bit."""
    elements = math.prod(shape)
    assert elements > 2**31
    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info()[0] < 3 * 2 * elements:
        pytest.skip("too little memory")

    def ends(x):
        """Four rows of the beginning and of the end."""
        return (x[:1, ..., :4], x[-1:, ..., -4:]) if len(shape) == 3 else (x[:4], x[-4:])

    z = torch.empty(shape, device="cuda", dtype=torch.bfloat16).fill_(0.5)
    for part in ends(z):
        part.normal_()
    y = torch.randint(shape[1], (shape[0], *shape[2:]), device="cuda")
    _, grad = imae_ext.value_and_grad(z, y, imae_ext.CCE(), reduction="sum")
    for rows_of_z, rows_of_y, rows_of_grad in zip(ends(z), ends(y), ends(grad), strict=True):
        _, small = imae_ext.value_and_grad(
            rows_of_z.contiguous(), rows_of_y.contiguous(), imae_ext.CCE(), reduction="sum"
        )
        assert torch.equal(rows_of_grad, small)
    names = queued(lambda: imae_ext.value_and_grad(z, y, imae_ext.CCE(), reduction="sum", out=grad)).kernels
    own = kernel_of("row256" if tier == "cluster" and not has_clusters() else tier)
    assert any(own.search(name) for name in names), (tier, names)
