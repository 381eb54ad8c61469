"""A small batch costs no more than a loose multiple of F.cross_entropy: a bound against accidents, not a benchmark."""

from __future__ import annotations

import statistics
import time

import pytest
import torch
import torch.nn.functional as F

import imae_ext

CCE = imae_ext.CCE()


def seconds(step, calls: int = 20) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        step()
    return time.perf_counter() - begin


def ratio_of_medians(ours, theirs, rounds: int = 41) -> float:
    """Both in turn, so that whatever else the machine does slows both."""
    for step in (ours, theirs):
        seconds(step)
    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    return statistics.median(a for a, _ in times) / statistics.median(b for _, b in times)


@pytest.mark.parametrize("N", (8, 128), ids=("8x10", "128x10"))
def test_forward_and_backward(N):
    logits, target = torch.randn(N, 10, requires_grad=True), torch.randint(10, (N,))

    def step(loss_function) -> None:
        logits.grad = None
        loss_function().backward()

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ratio = ratio_of_medians(
            lambda: step(lambda: imae_ext.robust_loss(logits, target, CCE)),
            lambda: step(lambda: F.cross_entropy(logits, target)),
        )
    finally:
        torch.set_num_threads(before)
    assert ratio < 3, f"{ratio:.2f} times F.cross_entropy"
