"""The CUDA operators on a GPU: the case table, and what only a real device shows. Collected only where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
import torch
from cases import APL, FORMULAS, Case, Spec, table_params
from expected import assert_within, expected, rows

import imae_ext
from benchmarks.gpu_shapes import TIERS, has_clusters, kernel_of, wants_cluster
from benchmarks.speed.queued import queued

pytestmark = pytest.mark.cuda

if not torch.cuda.is_available():
    pytest.skip("no GPU", allow_module_level=True)

TABLE = table_params()


@pytest.fixture(autouse=True)
def nothing_left_broken(request):
    """An error of the device fails all that the process does from then on: say whose it is, and end the process.

    pytest-xdist goes on with the other tests in a new one.
    """
    yield
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        message = f"the device broke in {request.node.nodeid}: {error}"
        if "PYTEST_XDIST_WORKER" not in os.environ:
            pytest.exit(message, returncode=1)
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(message, file=sys.stderr, flush=True)
        os._exit(1)


def assert_ran(tier, call):
    """Where a tier cannot run, another takes its place, and gives the same."""
    names = queued(call).kernels
    own = kernel_of("row256" if tier == "cluster" and not has_clusters() else tier)
    assert any(own.search(name) for name in names), (tier, names)


def on_gpu(case: Case):
    """The case's inputs in the same layout, storage offset included, on the GPU."""
    logits, target, weight = case.inputs()
    base = logits.new_empty(0).set_(logits.untyped_storage()).cuda()
    moved = base.as_strided(logits.shape, logits.stride(), logits.storage_offset())
    return logits, moved, target, target.cuda(), weight, None if weight is None else weight.cuda()


def hold(case):
    """Loss and gradient through autograd against the oracle. Return a call of the same."""
    logits, z, target, y, weight, w = on_gpu(case)
    before = z.clone()
    leaf = z.detach().requires_grad_()
    loss = imae_ext.robust_loss(leaf, y, case.formula.build(), weight=w, reduction=case.reduction)
    upstream = torch.linspace(-1.5, 2.5, loss.numel(), dtype=loss.dtype, device="cuda").view_as(loss)
    (grad,) = torch.autograd.grad(loss, leaf, upstream)
    scale = upstream.cpu().double().numpy().reshape(-1) if loss.ndim else upstream.item()
    wanted = expected(case.formula, logits, target, weight=weight, reduction=case.reduction, grad_output=scale)
    assert_within(loss.detach().cpu().reshape(wanted.loss.shape), wanted.loss, wanted.loss_allowed, "loss")
    assert_within(rows(grad.cpu()), wanted.grad, wanted.grad_allowed, "gradient")
    assert torch.equal(before.nan_to_num(nan=7.0), z.nan_to_num(nan=7.0))
    return lambda: imae_ext.robust_loss(leaf, y, case.formula.build(), weight=w, reduction=case.reduction)


@pytest.mark.parametrize("case", TABLE)
def test_autograd(case):
    hold(case)


def several_blocks():
    """Rows for 40 blocks of the tiers of few classes, with every reduction, and what the table has at a dozen rows."""
    kinds = (
        (Spec.of("IMAE", T=8.0, eps=1e-8), "mean"),
        (Spec.of("LabelSmoothing", eps=0.1), "none"),
        (Spec.of("GCE", q=0.7), "normalized"),
        (APL, "sum"),
    )
    dtypes = torch.float32, torch.bfloat16, torch.float16
    layouts = ("tile", 3), ("tile", 10), ("tile", 33), ("row2", 16), ("row2", 32)  # int32 labels where C is odd
    for k, (dtype, (tier, C), offset, (formula, reduction)) in enumerate(product(dtypes, layouts, (0, 1), kinds)):
        if offset and tier == "row2":
            continue  # such rows go to the tile
        options = {"reduction": reduction, "ignored": k % 3 > 0, "weighted": k % 5 > 2}
        case = Case(formula, C, dtype, "offset1" if offset else "contiguous", rows=5000, **options)
        yield pytest.param(tier, case, id=f"{tier}-{case}")


@pytest.mark.parametrize(("tier", "case"), list(several_blocks()))
def test_short_rows_in_several_blocks(tier, case):
    assert_ran(tier, hold(case))


@pytest.mark.short
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_tier(monkeypatch, tier, dtype):
    monkeypatch.setenv("IMAE_EXT_TIER", tier)
    for C in (3, 100, 1001, 12288, 33000, 150001):  # 12288 floats are the 48 KB that a block gets without asking
        if tier == "tile" and C * dtype.itemsize > 256:
            continue
        z = torch.randn(64, C, device="cuda").to(dtype)
        y = torch.randint(C, (64,), device="cuda")
        assert_ran(tier, lambda z=z, y=y: imae_ext.value_and_grad(z, y, FORMULAS[4].build()))
        loss, grad = imae_ext.value_and_grad(z, y, FORMULAS[4].build())
        leaf = z.double().requires_grad_()
        exact = imae_ext.reference.robust_loss(leaf, y, FORMULAS[4].build())
        exact.backward()
        torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=0)
        torch.testing.assert_close(grad.double(), leaf.grad, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("C", [65537, 151936, 256000, 500000])
def test_rows_longer_than_a_blocks_shared_memory(monkeypatch, C, dtype):
    """In clusters where the card has them; the portable way, forced, gives the same up to rounding."""
    z = torch.randn(301, C, device="cuda").to(dtype)
    y = torch.randint(C, (301,), device="cuda")
    y[::7] = -100
    z[::7] = float("nan")  # ignored rows are not looked at
    shared = torch.cuda.get_device_properties(0).shared_memory_per_block_optin
    clusters = has_clusters() and wants_cluster(C * dtype.itemsize, shared)
    rtol = 1e-2 if dtype == torch.bfloat16 else 1e-4
    for formula, reduction in ((imae_ext.IMAE(), "mean"), (imae_ext.LabelSmoothing(0.1), "sum")):

        def call(formula=formula, reduction=reduction):
            return imae_ext.value_and_grad(z, y, formula, reduction=reduction)

        assert_ran("cluster" if clusters else "row256", call)
        loss, grad = call()
        with torch.no_grad():
            exact = imae_ext.reference.robust_loss(z.double(), y, formula, reduction=reduction)
        torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=0)
        leaf = z[:12].double().requires_grad_()
        imae_ext.reference.robust_loss(leaf, y[:12], formula, reduction="sum").backward()
        wanted = leaf.grad / (int((y != -100).sum()) if reduction == "mean" else 1)
        # off the label an entry is about 1/C or less, so an absolute tolerance has to be far below that
        torch.testing.assert_close(grad[:12].double(), wanted, rtol=rtol, atol=1e-5 * float(wanted.abs().median()))
        monkeypatch.setenv("IMAE_EXT_TIER", "row256")
        assert_ran("row256", call)
        loss_of_blocks, grad_of_blocks = call()
        monkeypatch.delenv("IMAE_EXT_TIER")
        torch.testing.assert_close(loss, loss_of_blocks, rtol=1e-5, atol=0)
        torch.testing.assert_close(grad, grad_of_blocks, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("C", [10, 100, 1000, 40000, 151936])
def test_the_same_bits_every_time(C):
    z, y = torch.randn(999, C, device="cuda"), torch.randint(C, (999,), device="cuda")
    first, grad = imae_ext.value_and_grad(z, y, imae_ext.IMAE())
    for _ in range(100):
        again, other = imae_ext.value_and_grad(z, y, imae_ext.IMAE())
        assert torch.equal(first, again) and torch.equal(grad, other)


@pytest.mark.short
def test_labels_out_of_range_stay_in_their_rows():
    z, y = torch.randn(300, 17, device="cuda"), torch.randint(17, (300,), device="cuda")
    y[5], y[6] = 17, 2**40
    loss, grad = imae_ext.value_and_grad(z, y, imae_ext.IMAE())
    assert loss.isnan() and grad.isnan().any(dim=1).nonzero().flatten().tolist() == [5, 6]
    program = (
        "import torch, imae_ext\n"
        "imae_ext.imae_loss(torch.zeros(4, 3, device='cuda'), torch.tensor([0, 1, 3, 2], device='cuda'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "IMAE_EXT_DEBUG": "1"}, capture_output=True, text=True
    )
    assert done.returncode != 0 and "IndexError: imae_ext" in done.stderr and "got 3 at row 2" in done.stderr


@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "normalized"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_graph_capture(reduction, dtype):
    z = torch.randn(700, 33, device="cuda", dtype=dtype, requires_grad=True)
    y = torch.randint(33, (700,), device="cuda")

    def step():
        loss = imae_ext.robust_loss(z, y, imae_ext.IMAE(), reduction=reduction)
        return loss, *torch.autograd.grad(loss.sum(), z)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        z.copy_(torch.randn_like(z))
    for _ in range(3):
        graph.replay()
    for got, wanted in zip(captured, step(), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.short
def test_streams_do_not_share_a_workspace():
    z, y = torch.randn(20000, 100, device="cuda"), torch.randint(100, (20000,), device="cuda")
    wanted = imae_ext.imae_loss(z, y)
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(4)]
    losses = []
    for _ in range(50):
        for stream in streams:
            with torch.cuda.stream(stream):
                losses.append(imae_ext.imae_loss(z, y))
    torch.cuda.synchronize()
    assert all(torch.equal(loss, wanted) for loss in losses)


def test_threads_do_not_take_each_others_shared_memory():
    """How much a kernel may have is one number for the process, and must not fall when shorter rows come."""

    def work(C: int) -> None:
        z, y = torch.randn(16, C, device="cuda"), torch.randint(C, (16,), device="cuda")
        for _ in range(300):
            imae_ext.value_and_grad(z, y, imae_ext.IMAE())

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (13000, 50000)))
    torch.cuda.synchronize()


def test_the_same_bits_every_time_on_a_side_stream():
    """With other work on the default stream, and at sizes of one block, of several, and of clusters."""
    noise = torch.randn(1 << 24, device="cuda")
    side = torch.cuda.Stream()
    for N, C in ((128, 10), (5000, 100), (300, 40000), (100, 151936)):
        z, y = torch.randn(N, C, device="cuda"), torch.randint(C, (N,), device="cuda")
        wanted = imae_ext.value_and_grad(z, y, imae_ext.IMAE())
        side.wait_stream(torch.cuda.current_stream())
        for _ in range(100):
            noise.mul_(1.0001)
            with torch.cuda.stream(side):
                again = imae_ext.value_and_grad(z, y, imae_ext.IMAE())
                assert all(torch.equal(a, b) for a, b in zip(again, wanted, strict=True))


@pytest.mark.short
@pytest.mark.parametrize(("N", "C"), [(128, 10), (1000, 1000), (4096, 100), (300, 70000)])
def test_few_launches_and_no_wait(N, C):
    """Of one block, a kernel. Of several, also one that counts mean's targets, or a ticket zeroed for the others."""
    z, y = torch.randn(N, C, device="cuda"), torch.randint(C, (N,), device="cuda")
    leaf = z.clone().requires_grad_()
    several = (N, C) != (128, 10)
    for reduction, kernels, fills in (("none", 1, 0), ("sum", 1, several), ("mean", 1 + several, 0)):
        seen = queued(lambda reduction=reduction: imae_ext.imae_loss(leaf, y, reduction=reduction))
        assert (len(seen.kernels), len(seen.memory), seen.waits) == (kernels, fills, ()), (reduction, seen)
        losses = [imae_ext.imae_loss(leaf, y, reduction=reduction) for _ in range(2)]
        upstream = torch.ones_like(losses[0])
        seen = queued(lambda losses=losses, upstream=upstream: torch.autograd.grad(losses.pop(), leaf, upstream))
        assert (len(seen.kernels), seen.memory, seen.waits) == (1, (), ()), (reduction, seen)
    for asked in ({}, {"entropy": True, "is_top": True}):
        seen = queued(lambda asked=asked: imae_ext.row_stats(z, y, imae_ext.IMAE(), **asked))
        assert (len(seen.kernels), seen.memory, seen.waits) == (1, (), ()), (asked, seen)


@pytest.mark.short
def test_no_host_synchronisation():
    z = torch.randn(4096, 100, device="cuda", requires_grad=True)
    y = torch.randint(100, (4096,), device="cuda")
    imae_ext.imae_loss(z, y).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for reduction in ("mean", "sum", "normalized"):
            imae_ext.imae_loss(z, y, reduction=reduction).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_second_device():
    z, y = torch.randn(50, 10), torch.randint(10, (50,))
    there = imae_ext.imae_loss(z.to("cuda:1"), y.to("cuda:1"))
    torch.testing.assert_close(there.cpu(), imae_ext.imae_loss(z, y))
