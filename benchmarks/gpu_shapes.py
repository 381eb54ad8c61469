"""Small calls of every kernel: what compute-sanitizer watches, and a first look on a card.

python -m benchmarks.gpu_shapes [TIER ...]          runs those of some tiers, or of all
python -m benchmarks.gpu_shapes --check [TIER ...]  holds them against the reference, each tier in a process of its own
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

import imae_ext
from imae_ext import distribution, reference

from .speed.queued import queued

TIERS = ("tile", "row2", "row8", "row32", "row128", "row256", "strided", "cluster")
PATIENCE = 40  # seconds for a tier's process
LOSSES = {
    "mean": imae_ext.IMAE(),
    "sum": imae_ext.LabelSmoothing(0.1),
    "none": 2.0 * imae_ext.NCE() + imae_ext.MAE(),
    "normalized": imae_ext.IMAE(),
}
STATISTICS = distribution.Asked._fields
# of an entry, and of the median one, in which differences cancel; half precision rounds twice
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 2e-3}


@dataclass(frozen=True)
class Call:
    """One call's inputs, made on the CPU: a checker would watch the kernels that make them, too."""

    tier: str
    shape: tuple[int, ...]  # (N, C) or (N, C, d1, d2)
    dtype: torch.dtype = torch.float32
    offset: int = 0  # elements before the logits in their storage
    weighted: bool = False  # with class weights, and int32 labels

    def inputs(self, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor | None]:
        """Return logits, target with an ignored row, and class weights."""
        generator = torch.Generator().manual_seed(0)
        store = torch.randn(self.offset + torch.Size(self.shape).numel(), generator=generator).to(self.dtype)
        z = store.to(device)[self.offset :].view(self.shape)  # a copy of a part would begin at its storage's beginning
        y = torch.randint(self.shape[1], (self.shape[0], *self.shape[2:]), generator=generator)
        y.view(-1)[3] = -100
        if not self.weighted:
            return z, y.to(device), None
        w = torch.rand(self.shape[1], generator=generator) + 0.5
        return z, y.int().to(device), (w.double() if self.dtype == torch.float64 else w).to(device)

    def amounts(self) -> Tensor | None:
        """Return probabilities as target, for rows that a warp takes and such as a block takes; most of them 0."""
        if self.tier not in ("row8", "row128"):
            return None
        t = torch.rand(self.shape, generator=torch.Generator().manual_seed(1)).double() ** 4
        t[t < 0.5] = 0
        return t / t.sum(1, keepdim=True)


CALLS = (
    Call("tile", (5000, 3)),  # many blocks of 128 rows, the last one not full
    Call("tile", (300, 10), torch.float16, offset=1, weighted=True),
    Call("tile", (300, 33), torch.bfloat16),
    Call("tile", (40, 10), torch.float64, offset=1),
    Call("row2", (1000, 8), torch.bfloat16),
    Call("row2", (300, 37), offset=3, weighted=True),
    Call("row8", (300, 100)),
    Call("row8", (40, 101), torch.bfloat16, offset=1, weighted=True),
    Call("row32", (60, 1000)),
    Call("row32", (40, 1001), torch.float16, weighted=True),
    Call("row128", (20, 4096), torch.bfloat16),
    Call("row128", (20, 2001), torch.float64, offset=1, weighted=True),
    Call("row256", (20, 9001), torch.float16, weighted=True),
    Call("row256", (5, 60001)),  # longer than a block's shared memory: in chunks
    Call("strided", (2, 19, 16, 17), weighted=True),
    Call("strided", (3, 5, 8, 9), torch.bfloat16, offset=1),
    Call("cluster", (5, 60001)),
    Call("cluster", (5, 150001), torch.bfloat16, offset=3, weighted=True),
)


def kernel_of(tier: str) -> re.Pattern[str]:
    """Return what the name of a tier's kernel has in it, as a profiler writes it."""
    lanes = tier.removeprefix("row")
    return re.compile(rf"\brow_kernel<.*[ )]{lanes}>\(" if lanes != tier else rf"\b{tier}_kernel<")


def wants_cluster(row_bytes: int, shared_per_block: int) -> bool:
    """Whether two blocks of a multiprocessor cannot hold a row each: 256 threads, 16 bytes in each slot of one."""
    slots = (shared_per_block - 4096) // (16 * 256) // 2
    return row_bytes > 16 * 256 * slots


def has_clusters() -> bool:
    return torch.cuda.get_device_capability() >= (9, 0)


def results(call: Call, device: str) -> dict[str, Tensor]:
    """Run every operator on the call's inputs."""
    z, y, w = call.inputs(device)
    found = {}
    for reduction, formula in LOSSES.items():
        leaf = z.detach().requires_grad_()
        loss = imae_ext.robust_loss(leaf, y, formula, weight=w, reduction=reduction)
        upstream = torch.full(loss.shape, 0.5, dtype=loss.dtype).to(device)
        (found[f"gradient of {reduction}"],) = torch.autograd.grad(loss, leaf, upstream)
        found[reduction] = loss.detach()
    if (t := call.amounts()) is not None:
        leaf = z.detach().requires_grad_()
        loss = imae_ext.robust_loss(leaf, t.to(device), imae_ext.IMAE(), weight=w)
        (found["gradient of amounts"],) = torch.autograd.grad(loss, leaf)
        found["amounts"] = loss.detach()
        loss = imae_ext.mixed_loss(leaf, y, _other(y, z.shape[1]), 0.75, imae_ext.IMAE(), weight=w, reduction="sum")
        (found["gradient of two labels"],) = torch.autograd.grad(loss, leaf)
        found["two labels"] = loss.detach()
    found["p"], found["weight"], *_ = imae_ext.row_stats(z, y, imae_ext.IMAE())
    described = imae_ext.row_stats(z, y, imae_ext.IMAE(), **dict.fromkeys(STATISTICS, True))
    return found | {name: getattr(described, name).to(described.p.dtype) for name in STATISTICS}


def _other(y: Tensor, C: int) -> Tensor:
    """Return a second label for each row; those ignored stay so."""
    return torch.where(y < 0, y, (y + 1) % C)


def expected(call: Call) -> dict[str, Tensor]:
    """Return the same by the reference, in float64."""
    z, y, w = call.inputs()
    found = {}
    for reduction, formula in LOSSES.items():
        leaf = z.double().requires_grad_()
        weight = None if w is None else w.double()
        loss = reference.robust_loss(leaf, y.long(), formula, weight=weight, reduction=reduction)
        (found[f"gradient of {reduction}"],) = torch.autograd.grad(loss, leaf, torch.full_like(loss, 0.5))
        found[reduction] = loss.detach()
    if (t := call.amounts()) is not None:
        leaf = z.double().requires_grad_()
        loss = reference.robust_loss(leaf, t, imae_ext.IMAE(), weight=None if w is None else w.double())
        (found["gradient of amounts"],) = torch.autograd.grad(loss, leaf)
        found["amounts"] = loss.detach()
        loss = torch.zeros((), dtype=torch.float64)
        for label, lam in ((y, 0.75), (_other(y, z.shape[1]), 0.25)):
            options = {"weight": None if w is None else w.double(), "reduction": "sum"}
            loss = loss + lam * reference.robust_loss(leaf, label.long(), imae_ext.IMAE(), **options)
        (found["gradient of two labels"],) = torch.autograd.grad(loss, leaf)
        found["two labels"] = loss.detach()
    found["p"], found["weight"], *_ = reference.row_stats(z.double(), y.long(), imae_ext.IMAE())
    described = distribution.statistics(z.double(), y.long(), -100, distribution.Asked(*[True] * len(STATISTICS)))
    return found | {name: x.double() for name, x in zip(STATISTICS, described, strict=True) if x is not None}


def check(call: Call, device: str) -> None:
    """Hold every result against the reference."""
    wanted = expected(call)
    for name, got in results(call, device).items():
        exact, kind = wanted[name].view(got.shape), torch.finfo(got.dtype)
        allowed = TOLERANCE[got.dtype] * (exact.abs() + exact.abs().median()) + kind.smallest_normal * kind.eps
        error = float(((got.cpu().double() - exact).abs() / allowed).max())
        if not error <= 1:
            raise AssertionError(f"{call}: {name} is off by {error:.2g} times what is allowed")


def check_kernel(call: Call) -> None:
    """Demand that the tier's own kernel runs: where it cannot, another one takes its place, and is right, too."""
    z, y, _ = call.inputs()
    leaf, y = z.cuda().requires_grad_(), y.cuda()
    names = queued(lambda: imae_ext.imae_loss(leaf, y)).kernels
    own = kernel_of("row256" if call.tier == "cluster" and not has_clusters() else call.tier)
    if not any(own.search(name) for name in names):
        raise AssertionError(f"{call}: expected a kernel like {own.pattern}, got {names}")


def in_processes(tiers: Sequence[str]) -> bool:
    """Check each tier in a process of its own, so that one that fails or hangs tells nothing of the others."""

    def said(tier: str) -> str:
        command = [sys.executable, "-m", "benchmarks.gpu_shapes", "--check", tier]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return f"did not end in {PATIENCE} s"
        return "ok" if done.returncode == 0 else f"FAILED ({done.returncode})\n{done.stderr}"

    fine = True
    with ThreadPoolExecutor(len(tiers)) as pool:
        for tier, text in zip(tiers, pool.map(said, tiers), strict=True):
            print(f"{tier}: {text}", flush=True)
            fine &= text == "ok"
    return fine


def main(arguments: Sequence[str]) -> None:
    checking = "--check" in arguments
    tiers = [word for word in arguments if word != "--check"] or TIERS
    if unknown := set(tiers) - set(TIERS):
        raise SystemExit(f"no such tier: {', '.join(unknown)}")
    if checking and len(tiers) > 1:
        raise SystemExit(not in_processes(tiers))
    for call in CALLS:
        if call.tier in tiers:
            os.environ["IMAE_EXT_TIER"] = call.tier
            (check if checking else results)(call, "cuda")
            if checking:
                check_kernel(call)
    torch.cuda.synchronize()


if __name__ == "__main__":
    main(sys.argv[1:])
