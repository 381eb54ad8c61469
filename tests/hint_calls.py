"""What the tables of hints are made of: a call that is wrong, what its message says, and the call that it leads to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

torch.manual_seed(0)
logits, target = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
one_hot = F.one_hot(target, 4)
x, yes = torch.randn(6), torch.tensor([0, 1, 1, 0, 1, 0])  # one logit and two classes
image, mask = torch.randn(2, 1, 3, 3), torch.randint(2, (2, 1, 3, 3))
tokens, words = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
spatial, labels = torch.randn(2, 5, 3), torch.randint(5, (2, 3))
several = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0]])
weight, row_weight = torch.linspace(0.5, 2, 4), torch.linspace(-0.5, 3, 6)
nothing = torch.empty(6, 4, device="meta"), torch.empty(6, dtype=torch.long, device="meta")


@dataclass
class CausalLMOutput:
    """Named as a causal language model's outputs are."""

    logits: torch.Tensor


@dataclass(frozen=True)
class Hint:
    wrong: Callable[[], object]
    says: str  # the hint, to its end
    followed: Callable[[], object]
    wanted: Callable[[], object]
    error: type[Exception] = ValueError


def ce(logits=logits, target=target, **options):
    return F.cross_entropy(logits, target, **options)


def weighted_mean(by=row_weight):
    return (ce(reduction="none") * by).sum() / by.sum()


def bce(x=x, yes=yes):
    return F.binary_cross_entropy_with_logits(x, yes.to(x.dtype))


def two(x=x):
    return torch.stack([torch.zeros_like(x), x], dim=-1)


def setting(module, name, value):
    def act():
        setattr(module, name, value)

    return act
