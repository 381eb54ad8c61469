"""Sparse over-parameterization (Liu, Zhu, Qu & You, ICML 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from .method import Batch, Method, Procedure, Setting, draws, number

SPREAD = 1e-8  # of the initial u and v
LEAST = 1e-4  # of a predicted probability, and what u^2 and v^2 stay below 1 by


@dataclass(frozen=True)
class SOP(Method):
    """A sparse term for each example, u^2 on its label and -v^2 beside it, that explains a wrong label away.

    Of an example with the one-hot label y, network probabilities p, u () and v (C,):

        q = p + u^2 y - v^2 (1 - y), kept at 1e-4 or more and divided by its sum
        loss = mean of -log q_y  +  mean of |onehot(argmax p) + u^2 y - v^2 (1 - y) - y|^2

    The first term trains the network and u, the second v. u and v begin near 0 and grow by their
    own gradient: those of wrong labels first, for there the gradient is large and of one sign. They have plain
    gradient descent of their own, without momentum or decay.

    Claim, to be seen on the digits with 40% symmetric noise: it ends with few wrong labels memorised and at its
    best test accuracy, far above cross entropy's final one; u^2 ends near 1 for wrong labels, near 0 for right ones.

    Args:
        rate_u: the rate of u, that of the loss as written; 10 in the paper for CIFAR-10.
        rate_v: the rate of v; 10 in the paper for symmetric noise.

    """

    rate_u: float = number(10.0, 0.0, 1e6)
    rate_v: float = number(10.0, 0.0, 1e6)

    def start(self, setting: Setting) -> Procedure:
        return _SOP(self, setting)


class _SOP(Procedure):
    def __init__(self, method: SOP, setting: Setting) -> None:
        super().__init__()
        self.method, self.num_classes = method, setting.num_classes
        start = draws(setting.seed, 0)
        count = len(setting.labels)
        self.u = nn.Parameter(SPREAD * torch.randn(count, 1, generator=start))
        self.v = nn.Parameter(SPREAD * torch.randn(count, setting.num_classes, generator=start))
        self.rows = setting.labels[:0]

    def groups(self) -> list[dict[str, Any]]:
        return []

    def on_batch(self, logits: Tensor, batch: Batch) -> Tensor:
        self.rows = batch.rows
        y = one_hot(batch.labels, self.num_classes).float()
        added = (self.u[batch.rows].square() * y).clamp(max=1 - LEAST)
        taken = (self.v[batch.rows].square() * (1 - y)).clamp(max=1 - LEAST)
        p = logits.float().softmax(dim=1)
        q = (p + added - taken.detach()).clamp(min=LEAST)
        q = q / q.sum(dim=1, keepdim=True)
        decided = one_hot(logits.argmax(dim=1), self.num_classes).float()
        distance = (decided + added.detach() - taken - y).square().sum(dim=1)
        return -(q * y).sum(dim=1).log().mean() + distance.mean()

    def on_gradient(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        loss.backward()
        with torch.no_grad():
            for own, rate in ((self.u, self.method.rate_u), (self.v, self.method.rate_v)):
                assert own.grad is not None
                own[self.rows] -= rate * own.grad[self.rows]
                own.grad = None
