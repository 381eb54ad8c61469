"""One training run: a recipe, a network, a data set and its noisy labels give a history of measures.

Plain SGD with momentum at a constant rate, so that nothing but the loss tells the runs apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

import imae_ext
from imae_ext import reference
from imae_ext.formulas import Loss

from .data import Dataset
from .measures import Measures, measure
from .noise import NoisyLabels


@dataclass(frozen=True)
class Recipe:
    """All that decides a run, besides its data.

    Attributes:
        name: what tables and pictures call the loss.
        formula: any formula of imae_ext, or a combination.
        learning_rate: of SGD, per step.
        reduction: "mean", "sum" or "normalized".
        epochs: passes over the training set.
        batch_size: examples a step.
        momentum: of SGD.
        seed: of the noise, the initial weights and the order of the examples.
        measure_every: epochs between two measurements; the last epoch is always measured.
        use_reference: compute the loss by imae_ext.reference instead of the fused kernels.

    """

    name: str
    formula: Loss
    learning_rate: float
    reduction: str = "mean"
    epochs: int = 100
    batch_size: int = 128
    momentum: float = 0.9
    seed: int = 0
    measure_every: int = 2
    use_reference: bool = False


@dataclass(frozen=True)
class Result:
    """A finished run: its recipe and its measures, in the order of the epochs."""

    recipe: Recipe
    history: tuple[Measures, ...]

    @property
    def final(self) -> Measures:
        return self.history[-1]

    @property
    def best_test(self) -> float:
        """The highest test accuracy of any measured epoch, in percent."""
        return max(measures.test for measures in self.history)


def train(
    recipe: Recipe,
    network: nn.Module,
    dataset: Dataset,
    noise: NoisyLabels,
    report: Callable[[Measures], None] = lambda measures: None,
) -> Result:
    """Train the network in place and measures it as it goes.

    Args:
        recipe: loss, rate, length and seed.
        network: inputs (N, ...) -> logits (N, C).
        dataset: with the true labels.
        noise: the labels to train on, for dataset.train.
        report: called with every measurement.

    """
    loss_of = reference.robust_loss if recipe.use_reference else imae_ext.robust_loss
    labels = torch.from_numpy(noise.labels)
    optimizer = torch.optim.SGD(network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum)
    history: list[Measures] = []
    for epoch in range(1, recipe.epochs + 1):
        total = torch.zeros(())
        for rows in epoch_order(len(labels), recipe.seed, epoch).split(recipe.batch_size):
            logits = network(dataset.train.inputs[rows])
            loss = loss_of(logits, labels[rows], recipe.formula, reduction=recipe.reduction)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        if epoch % recipe.measure_every == 0 or epoch == recipe.epochs:
            loss_mean = float(total) / len(labels)
            history.append(measure(network, dataset, labels, epoch=epoch, loss=loss_mean))
            report(history[-1])
    return Result(recipe, tuple(history))


def epoch_order(n: int, seed: int, epoch: int) -> torch.Tensor:
    """Draw the order of the examples in an epoch, (n,) int64: a function of seed and epoch alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(n, generator=generator)
