"""What the tests of the methods share: eight labels, a batch of three, and small networks."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.noisy_labels.methods import Batch, Epoch, Setting
from benchmarks.noisy_labels.task import Task
from benchmarks.noisy_labels.training import Prepared

Array = npt.NDArray[np.float64]
LABELS = torch.tensor([2, 0, 1, 1, 2, 0, 1, 2])  # of eight examples
ROWS = torch.tensor([3, 0, 6])  # of a batch of three
CLASSES, FEATURES = 3, 5
TASK = Task(limit=200)
DIGITS = TASK.dataset()


def setting(**changes: Any) -> Setting:
    base = Setting(CLASSES, LABELS, epochs=20, seed=0, build=network)
    return dataclasses.replace(base, **changes)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(FEATURES, CLASSES))


class Bare(Prepared):
    """A network that takes its inputs as they are."""

    def __init__(self, network: nn.Module) -> None:
        nn.Module.__init__(self)
        self.network, self.amp = network, False

    def prepare(self, batch: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return batch


def epoch(number: int, network: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Epoch:
    return Epoch(number, Bare(network), DIGITS, optimizer or torch.optim.SGD(network.parameters()))


def batch(inputs: Tensor, rows: Tensor = ROWS) -> Batch:
    return Batch(rows, inputs, LABELS[rows], Bare(nn.Identity()))


def softmax(logits: Tensor) -> Array:
    z = logits.detach().double().numpy()
    e: Array = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def logits(seed: int = 0, count: int = 3) -> Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randn(count, CLASSES, generator=drawn).requires_grad_()
