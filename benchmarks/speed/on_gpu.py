"""Contenders for a GPU alone: replayed CUDA graphs, a loss for each row, and one step of training a small network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import imae_ext

from .cases import Case
from .contenders import IMAE, Contender, LossOf, Prepare, Step, Unavailable, through_autograd

SMALL = 16 * 2**20  # bytes of a pass; beyond, a launch costs little beside the kernels
STEP_SHAPE = (128, 10)
FEATURES, HIDDEN = 64, 128  # of the network


def needs_gpu(prepare: Prepare, small: bool = False) -> Prepare:
    """Keep a contender to CUDA devices and, with ``small``, to the cases in which launches count."""

    def checked(case: Case, logits: Tensor, target: Tensor) -> Step:
        if case.device != "cuda":
            raise Unavailable("it needs a CUDA device")
        if small and case.bytes > SMALL:
            raise Unavailable("launches count for little at this size")
        return prepare(case, logits, target)

    return checked


def replayed(prepare: Prepare) -> Prepare:
    """Return a contender's prepare with its pass captured once; what is timed is the replay of the graph."""

    def captured(case: Case, logits: Tensor, target: Tensor) -> Step:
        step = prepare(case, logits, target)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # as capturing wants it: lazy initialisation is over, and not on this stream
            for _ in range(3):
                step.gradient()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = step.gradient()

        def gradient() -> Tensor | None:
            graph.replay()
            return found

        return Step(graph.replay, gradient)

    return captured


def each_row(loss_of: LossOf) -> Prepare:
    """Return a prepare for a loss of every row, with the gradient of their mean, so that it compares."""

    def prepare(case: Case, logits: Tensor, target: Tensor) -> Step:
        losses = loss_of(logits, target)
        share = torch.full_like(losses, case.grad_output / case.rows)
        leaf = logits.detach().requires_grad_()

        def backward() -> Tensor | None:
            loss_of(leaf if case.leaf else leaf.view_as(leaf), target).backward(share)
            found, leaf.grad = leaf.grad, None
            return found

        return Step(backward, backward)

    return prepare


def training_step(loss_of: LossOf) -> Prepare:
    """Return a prepare for forward, loss, backward and SGD of a network with one hidden layer, from features to loss.

    It has no gradient to compare: the logits are the network's own.
    """

    def prepare(case: Case, logits: Tensor, target: Tensor) -> Step:
        if case.shape != STEP_SHAPE or case.grad_output != 1 or not case.leaf or case.dtype != "float32":
            raise Unavailable("the network is trained at 128x10, float32, only")
        torch.manual_seed(0)
        layers = nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, case.classes)
        network = nn.Sequential(*layers).to(logits.device)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
        features = torch.randn(case.rows, FEATURES, device=logits.device)

        def run() -> None:
            loss_of(network(features), target).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

        return Step(run, run)

    return prepare


_imae: Callable[..., Tensor] = partial(imae_ext.robust_loss, formula=IMAE)
_OURS_AND_TORCHS = (("imae", "IMAE", _imae), ("cross_entropy", "F.cross_entropy", cross_entropy))


def _contenders(name: str, label: str, loss_of: Callable[..., Tensor]) -> tuple[Contender, ...]:
    computes = "imae" if name == "imae" else "cce"
    whole, rows = through_autograd(loss_of), each_row(partial(loss_of, reduction="none"))
    step = training_step(loss_of)
    return (
        Contender(f"{name}_graph", f"{label}, CUDA graph", computes, needs_gpu(replayed(whole), small=True)),
        Contender(f"{name}_none", f"{label}, each row", computes, needs_gpu(rows)),
        Contender(f"step_{name}", f"training step, {label}", computes, needs_gpu(step)),
        Contender(f"step_{name}_graph", f"training step, {label}, CUDA graph", computes, needs_gpu(replayed(step))),
    )


ON_GPU: tuple[Contender, ...] = tuple(c for each in _OURS_AND_TORCHS for c in _contenders(*each))
