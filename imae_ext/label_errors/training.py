"""The small network: rectified layers, AdamW at a constant rate, a loss of the package; seeded by itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear, relu

from ..formulas import Formula
from ..functional import robust_loss

ROWS = 8192  # judged at a time

Network = Callable[[Tensor], Tensor]


def fit(
    x: Tensor,
    y: Tensor,
    C: int,
    formula: Formula,
    *,
    rate: float,
    lengths: Sequence[int],
    hidden: Sequence[int],
    seed: int,
    advance: Callable[[], object],
) -> Iterator[Network]:
    """Train a network and yield it, as it stands, after each of so many epochs.

    All random numbers come from a generator of its own, on the CPU: the same on any device, and torch's own state stays
    as it was. A batch is a twentieth of the examples, 8 to 128 of them, so that small data take enough steps, too.

    Args:
      x: ``(N, d)`` float32, standardised.
      y: ``(N,)`` int64 labels, where x is.
      C: number of classes.
      formula: the loss.
      rate: the learning rate.
      lengths: epochs after which to yield, ascending.
      hidden: sizes of the hidden layers.
      seed: of the initial weights and of the order of the examples.
      advance: called after every epoch.

    """
    generator = torch.Generator("cpu").manual_seed(seed)
    sizes = (x.shape[1], *hidden, C)
    layers = [_layer(a, b, generator, x.device) for a, b in itertools.pairwise(sizes)]
    optimizer = torch.optim.AdamW([parameter for layer in layers for parameter in layer], lr=rate)

    def network(inputs: Tensor) -> Tensor:
        for layer in layers[:-1]:
            inputs = relu(linear(inputs, *layer))
        return linear(inputs, *layers[-1])

    batch = min(128, max(8, len(x) // 20))
    for epoch in range(1, lengths[-1] + 1):
        order = torch.randperm(len(x), generator=generator, device="cpu").to(x.device)
        for start in range(0, len(x), batch):
            rows = order[start : start + batch]
            loss = robust_loss(network(x[rows]), y[rows], formula)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        advance()
        if epoch in lengths:
            yield network


def probabilities(network: Network, x: Tensor) -> Tensor:
    """Return the network's probabilities ``(N, C)`` float64, on the CPU."""
    with torch.no_grad():
        parts = [network(x[start : start + ROWS]).softmax(1) for start in range(0, len(x), ROWS)]
        return torch.cat(parts).double().cpu()


def _layer(inputs: int, outputs: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """Draw weight and bias as nn.Linear does: evenly up to 1 / sqrt(inputs)."""
    bound = inputs**-0.5

    def draw(*shape: int) -> Tensor:
        even = torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu")
        values: Tensor = ((2 * even - 1) * bound).to(device)
        return values.requires_grad_()

    return draw(outputs, inputs), draw(outputs)
