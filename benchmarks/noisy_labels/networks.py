"""Networks large enough to memorise wrong labels."""

from __future__ import annotations

import torch
from torch import nn


def mlp(features: int, num_classes: int, *, seed: int, hidden: int = 512) -> nn.Sequential:
    """Make two hidden layers of rectified units, (N, features) -> logits (N, num_classes).

    Args:
        features: size of an input.
        num_classes: number of logits.
        seed: of the initial weights; torch's global generator is left as it was.
        hidden: units in each hidden layer.

    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(features, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, num_classes),
        )
