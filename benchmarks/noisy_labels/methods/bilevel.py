"""Deep bilevel learning (Jenni & Favaro, ECCV 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .method import Batch, Method, Procedure, Setting, number, whole


@dataclass(frozen=True)
class Bilevel(Method):
    """A batch in parts: the first one is for validation, and tells how far to follow the gradient of each other one.

    With g_0 the cross entropy's gradient for the first part and g_i for another, the step is along

        sum_i w_i g_i / sum_i |w_i|,    w_i = <g_0, g_i> / (|g_i|^2 + mu)

    A part that would make the first one's loss worse is followed backwards. Wrong labels agree in nothing, so that
    what only serves to memorise them is followed less. The parts hold each label in like number, as in the paper.
    The network sees the whole batch at once: statistics of batch normalisation are the batch's, not a part's.

    Claim, to be seen on the digits with 40% symmetric noise: fewer wrong labels memorised, and a higher test accuracy
    in the end, than by cross entropy at its rate.

    Args:
        parts: of a batch, the one for validation among them.
        mu: keeps the weight of a small gradient finite; 0.01 in the authors' code.

    """

    parts: int = whole(8, 2, 1024)
    mu: float = number(0.01, 0.0, 1e6)

    def start(self, setting: Setting) -> Procedure:
        return _Bilevel(int(self.parts), self.mu)


class _Bilevel(Procedure):
    def __init__(self, parts: int, mu: float) -> None:
        super().__init__()
        self.count, self.mu = parts, mu
        self.losses: list[Tensor] = []

    def on_batch(self, logits: Tensor, batch: Batch) -> Tensor:
        order = batch.labels.argsort(stable=True)  # dealt round, each part has its share of each label
        count = min(self.count, len(order))
        self.losses = [
            cross_entropy(logits[order[i::count]].float(), batch.labels[order[i::count]]) for i in range(count)
        ]
        return torch.stack(self.losses).mean()

    def on_gradient(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        if len(self.losses) < 2:  # a last batch of one example
            loss.backward()
            return
        gradients = [torch.autograd.grad(part, parameters, retain_graph=True) for part in self.losses]
        self.losses = []
        first, *others = ([flat.flatten() for flat in gradient] for gradient in gradients)
        weights = torch.stack(
            [
                sum((a @ b for a, b in zip(first, other, strict=True)), torch.zeros((), device=loss.device))
                / (sum((b @ b for b in other), torch.zeros((), device=loss.device)) + self.mu)
                for other in others
            ]
        )
        weights = weights / weights.abs().sum().clamp(min=torch.finfo(weights.dtype).tiny)
        for place, parameter in enumerate(parameters):
            parameter.grad = sum(
                (weight * gradient[place] for weight, gradient in zip(weights, gradients[1:], strict=True)),
                torch.zeros_like(parameter),
            )
