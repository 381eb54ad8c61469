"""Forward and backward of a loss on this machine: the fused kernels against plain PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

import imae_ext
from imae_ext import reference
from imae_ext.formulas import Formula

from .runs import one_thread
from .table import text_table

# A small batch, where a call's cost counts; many rows; the classes of CIFAR-100, ImageNet; a vocabulary.
SHAPES: tuple[tuple[int, int], ...] = ((128, 10), (8192, 10), (2048, 100), (1024, 1000), (64, 32000))

# GCE is the fair comparison: a few operations on the softmax. IMAE's reference computes an integral as well.
TIMED: dict[str, Formula] = {"GCE": imae_ext.GCE(), "IMAE": imae_ext.IMAE()}


@dataclass(frozen=True)
class Timing:
    """Median times of a forward and backward pass, in microseconds, for logits of shape (N, C)."""

    name: str
    shape: tuple[int, int]
    fused: float
    reference: float
    cross_entropy: float


def time_losses(losses: Mapping[str, Formula], shapes: Iterable[tuple[int, int]], seconds: float) -> list[Timing]:
    """Time each loss for each shape (N, C), on one thread: a busy machine then matters least.

    Args:
        losses: by name.
        shapes: of the logits.
        seconds: about how long to repeat each loss and shape; at least 5 turns are taken.

    """
    with one_thread():
        return [time_loss(name, losses[name], shape, seconds) for shape in shapes for name in losses]


def time_loss(name: str, formula: Formula, shape: tuple[int, int], seconds: float) -> Timing:
    """Time a loss fused, by the reference, and F.cross_entropy, in turns, on float32 logits."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator).requires_grad_()
    target = torch.randint(shape[1], (shape[0],), generator=generator)
    contenders: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
        lambda z, y: imae_ext.robust_loss(z, y, formula),
        lambda z, y: reference.robust_loss(z, y, formula),
        torch.nn.functional.cross_entropy,
    )
    times: list[list[float]] = [[] for _ in contenders]
    for loss_of in contenders:
        _forward_backward(loss_of, logits, target)  # the first call sets things up
    start = time.perf_counter()
    while len(times[0]) < 5 or time.perf_counter() - start < seconds:
        for taken, loss_of in zip(times, contenders, strict=True):
            taken.append(_forward_backward(loss_of, logits, target))
    return Timing(name, shape, *(1e6 * median(taken) for taken in times))


def timing_table(timings: Sequence[Timing]) -> str:
    """Show times and ratios, one row for each loss and shape."""
    header = ["loss", "logits", "fused", "reference", "cross_entropy", "reference/fused", "cross_entropy/fused"]
    rows = [
        [
            timing.name,
            f"{timing.shape[0]} x {timing.shape[1]}",
            f"{timing.fused:,.0f} us",
            f"{timing.reference:,.0f} us",
            f"{timing.cross_entropy:,.0f} us",
            f"{timing.reference / timing.fused:.1f}",
            f"{timing.cross_entropy / timing.fused:.1f}",
        ]
        for timing in timings
    ]
    return text_table(header, rows)


def _forward_backward(loss_of: Callable[[Tensor, Tensor], Tensor], logits: Tensor, target: Tensor) -> float:
    """Run once; seconds."""
    logits.grad = None
    start = time.perf_counter()
    loss_of(logits, target).backward()
    return time.perf_counter() - start
