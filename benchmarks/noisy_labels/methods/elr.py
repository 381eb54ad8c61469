"""Early-learning regularization (Liu, Niles-Weed, Razavian & Fernandez-Granda, NeurIPS 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .method import Batch, Method, Procedure, Setting, number

LEAST = 1e-4  # probabilities are kept from 0 and 1 by this, so that no logarithm below is infinite


@dataclass(frozen=True)
class ELR(Method):
    """Cross entropy, and a pull towards what the network predicted for an example in earlier epochs.

        mean of  -log p_y + lambd log(1 - <p, t>)

    t (C,), one for each example, is the running average of its predictions: `t <- beta t + (1 - beta) p`.
    Once t says another class than a wrong label does, the second term's gradient outweighs cross entropy's.

    Claim, to be seen on the digits with 40% symmetric noise: where cross entropy ends with most of the wrong
    labels memorised and a falling test accuracy, ELR ends with few of them and at its best test accuracy.

    Args:
        lambd: of the second term; the paper has 3 for CIFAR-10, 7 for CIFAR-100.
        beta: of the running average; 0.7 for CIFAR-10, 0.9 for CIFAR-100.

    """

    lambd: float = number(3.0, 0.0, 100.0)
    beta: float = number(0.7, 0.0, 1.0)

    def start(self, setting: Setting) -> Procedure:
        return _ELR(self, len(setting.labels), setting.num_classes)


class _ELR(Procedure):
    targets: Tensor  # (n, C)

    def __init__(self, method: ELR, count: int, num_classes: int) -> None:
        super().__init__()
        self.method = method
        self.register_buffer("targets", torch.zeros(count, num_classes))

    def on_batch(self, logits: Tensor, batch: Batch) -> Tensor:
        p = logits.float().softmax(dim=1).clamp(LEAST, 1 - LEAST)
        seen = p.detach() / p.detach().sum(dim=1, keepdim=True)
        beta = self.method.beta
        self.targets[batch.rows] = targets = beta * self.targets[batch.rows] + (1 - beta) * seen
        pull = (1 - (p * targets).sum(dim=1)).log().mean()
        return cross_entropy(logits.float(), batch.labels) + self.method.lambd * pull
