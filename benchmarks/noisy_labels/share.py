"""What the loss costs in a training step: forward, loss with its gradient, backward and optimizer, each timed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

import imae_ext
from imae_ext import reference
from imae_ext.formulas import Formula

from .runs import one_thread
from .table import text_table
from .task import Task
from .training import Prepared, Recipe

PARTS = ("forward", "loss + gradient", "backward", "optimizer")
LossAndGradient = Callable[[Tensor, Tensor], Tensor]  # logits (N, C), target (N,) -> gradient (N, C)


@dataclass(frozen=True)
class Share:
    """Median times of the parts of a step, in microseconds, in the order of PARTS."""

    name: str
    parts: tuple[float, ...]

    @property
    def of_step(self) -> float:
        """The loss's share of the step, in percent."""
        return 100 * self.parts[1] / sum(self.parts)


def time_step(task: Task, recipe: Recipe, seconds: float) -> list[Share]:
    """Time training steps on the task's first batch: fused, reference and F.cross_entropy, in turns, on one thread.

    Args:
        task: the data and the network.
        recipe: the loss, which has to be a fused one, its reduction, the batch size and the device.
        seconds: about how long to repeat; at least 5 turns are taken after one that is not counted.

    """
    formula = recipe.formula
    if not isinstance(formula, Formula):
        raise ValueError(f"{recipe.name} is plain PyTorch: expected a fused loss to time against its reference")
    device = torch.device(recipe.device)
    dataset = task.dataset().to(device)
    rows = torch.arange(min(recipe.batch_size, len(dataset.train)), device=device)
    target = torch.from_numpy(task.noisy_labels(recipe.seed).labels).to(device)[rows]
    batch = dataset.train.inputs[rows]
    model = Prepared(task.build(recipe.seed), dataset, recipe.amp).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=recipe.momentum)
    augmenting = torch.Generator(device).manual_seed(recipe.seed)

    def step(gradient_of: LossAndGradient) -> list[float]:
        times = [_now(device)]
        logits = model(batch, augmenting)
        times.append(_now(device))
        gradient = gradient_of(logits.detach(), target)
        times.append(_now(device))
        optimizer.zero_grad()
        logits.backward(gradient)
        times.append(_now(device))
        optimizer.step()
        times.append(_now(device))
        return [1e6 * (end - start) for start, end in itertools.pairwise(times)]

    contenders = _contenders(formula, recipe.reduction)
    taken: dict[str, list[list[float]]] = {name: [] for name in contenders}
    with one_thread():
        for gradient_of in contenders.values():
            step(gradient_of)
        start = time.perf_counter()
        while len(taken["fused"]) < 5 or time.perf_counter() - start < seconds:
            for name, gradient_of in contenders.items():
                taken[name].append(step(gradient_of))
    return [Share(name, tuple(median(part) for part in zip(*steps, strict=True))) for name, steps in taken.items()]


def share_table(shares: Sequence[Share]) -> str:
    """Show the times and the loss's share, a row for each way to compute it."""
    rows = [[share.name, *(f"{part:,.0f} us" for part in share.parts), f"{share.of_step:.1f}%"] for share in shares]
    return text_table(["loss", *PARTS, "loss of step"], rows)


def _contenders(formula: Formula, reduction: str) -> dict[str, LossAndGradient]:
    def by_autograd(loss_of: Callable[[Tensor, Tensor], Tensor]) -> LossAndGradient:
        def gradient_of(logits: Tensor, target: Tensor) -> Tensor:
            logits = logits.requires_grad_()
            return torch.autograd.grad(loss_of(logits, target), logits)[0]

        return gradient_of

    return {
        "fused": lambda z, y: imae_ext.value_and_grad(z, y, formula, reduction=reduction)[1],
        "reference": by_autograd(lambda z, y: reference.robust_loss(z, y, formula, reduction=reduction)),
        "F.cross_entropy": by_autograd(torch.nn.functional.cross_entropy),
    }


def _now(device: torch.device) -> float:
    """Read the clock once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
