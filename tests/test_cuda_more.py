"""The CUDA operators on a GPU, further: other targets than class labels, and tensors that 32 bits cannot count."""

from __future__ import annotations

import math

import pytest
import statistics_cases
import torch
from cases import FORMULAS
from expected import assert_within, expected
from test_linear import plain, results, tensors
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


@pytest.mark.short
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_statistics(dtype):
    """By their own kernel, with derivatives; as test_row_statistics holds the CPU's."""

    def on_gpu(logits, target, *formula, **asked):
        stats = imae_ext.row_stats(logits.cuda(), target.cuda(), *formula, **asked)
        return imae_ext.RowStats(*(None if x is None else x.cpu() for x in stats))

    for shape in statistics_cases.WALKS:
        statistics_cases.walk(on_gpu, shape, dtype)
    if dtype is not torch.float16:
        statistics_cases.against_60_digits(on_gpu, 100, dtype)
    if dtype is torch.float32:
        statistics_cases.large_logits(on_gpu)
        statistics_cases.limits(on_gpu)
        statistics_cases.ignored_rows_and_shapes(on_gpu, torch.allclose)
        statistics_cases.labels_out_of_range(on_gpu)
    z, y = torch.randn(40, 300).to(dtype), torch.randint(300, (40,))
    grads = []
    for leaf in (z.clone().requires_grad_(), z.cuda().requires_grad_()):
        stats = imae_ext.row_stats(leaf, y.to(leaf.device), entropy=True, log_p=True)
        grads += [g.cpu() for g in torch.autograd.grad((stats.entropy * stats.log_p).sum(), leaf)]
    torch.testing.assert_close(*grads)
    seen = queued(lambda: imae_ext.row_stats(leaf.detach(), y.cuda(), entropy=True))
    assert any("DescribeJob" in name for name in seen.kernels), seen


@pytest.mark.short
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_linear_head(dtype):
    """As right as the reference behind F.linear of the same dtype, in chunks; and float32 as right as float32 is."""
    inputs, target = tensors(dtype=dtype)
    for reduction in ("mean", "none", "normalized"):
        options = {"reduction": reduction}
        exact = results(plain, [t.double() for t in inputs], target, imae_ext.GCE(0.7), **options)
        there = [t.cuda() for t in inputs], target.cuda(), imae_ext.GCE(0.7)
        unfused = results(plain, *there, **options)
        ours = results(imae_ext.linear_robust_loss, *there, chunk=8, **options)
        rounding = {torch.float64: 1e-12, torch.float32: 2e-6}.get(dtype, 2**-8)
        for a, b, c in zip(ours, unfused, exact, strict=True):
            allowed = 1.5 * (b.cpu() - c).abs().max() + rounding * c.abs().max()
            assert (a.cpu() - c).abs().max() <= allowed, reduction
        assert (ours[1][target == -100] == 0).all()


@pytest.mark.short
def test_from_log_probabilities():
    """As on a CPU, and without waiting: labels out of range are not looked at."""
    nll, target = torch.rand(300).double() * 20, torch.randint(9, (300,))
    target[::7] = -100
    found = []
    for device in ("cpu", "cuda"):
        leaf = nll.to(device).requires_grad_()
        loss = imae_ext.robust_loss_from_nll(leaf, imae_ext.IMAE(8.0), target=target.to(device))
        found.append([loss.detach().cpu(), torch.autograd.grad(loss, leaf)[0].cpu()])
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-14)
    labels = target.cuda()
    assert not queued(lambda: imae_ext.robust_loss_from_nll(leaf, imae_ext.GCE(0.7), target=labels)).waits


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
