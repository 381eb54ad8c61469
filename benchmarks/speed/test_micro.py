"""What a call costs on small logits: ``pytest benchmarks/speed/test_micro.py`` (not part of the tests).

Forward alone, forward and backward, and value_and_grad followed by ``logits.backward(grad)``, the shortest way through
a training step; on one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.nn.functional import cross_entropy

import imae_ext

from .cases import Case
from .contenders import CCE, IMAE, through_autograd

CASES = [Case((8, 10)), Case((128, 10))]
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "cce_loss": imae_ext.cce_loss,
    "imae_loss": imae_ext.imae_loss,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("name", LOSSES)
def test_forward(benchmark: BenchmarkFixture, name: str, case: Case) -> None:
    benchmark.group = f"forward, {case.name}"
    logits, target = case.inputs()
    logits.requires_grad_()  # the forward pass of training
    benchmark(LOSSES[name], logits, target)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("name", LOSSES)
def test_forward_backward(benchmark: BenchmarkFixture, name: str, case: Case) -> None:
    benchmark.group = f"forward and backward, {case.name}"
    benchmark(through_autograd(LOSSES[name])(case, *case.inputs()).run)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("formula", [CCE, IMAE], ids=["CCE", "IMAE"])
def test_value_and_grad(benchmark: BenchmarkFixture, formula: imae_ext.Formula, case: Case) -> None:
    benchmark.group = f"forward and backward, {case.name}"
    values, target = case.inputs()
    leaf = values.requires_grad_()

    def step() -> None:
        _, grad = imae_ext.value_and_grad(leaf, target, formula)
        leaf.backward(grad)
        leaf.grad = None

    benchmark(step)
