"""One training run: a recipe, a network, a data set and its noisy labels give a history of measures.

SGD with momentum, or AdamW, at a constant rate unless the recipe says otherwise, so that nothing but the loss tells
runs apart.
The order of an epoch and its augmentation are functions of (seed, epoch): a run that stops goes on from its last
state as if it had not, on a CPU to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import imae_ext
from imae_ext import reference
from imae_ext.formulas import Formula

from . import augment
from .data import Dataset
from .losses import Objective
from .measures import Measures, measure
from .methods.method import Batch, Epoch, Mix, Procedure
from .noise import NoisyLabels

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "step": lambda done: 0.1 ** ((done >= 0.5) + (done >= 0.75)),
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
}

OPTIMIZERS = ("sgd", "adamw")

AUGMENTATION = 1 << 20  # added to the seed, so that augmentation is not drawn from the numbers of the order
MIXUP = 1 << 21  # nor mixup


@dataclass(frozen=True)
class Recipe:
    """All that decides a run, besides its data and its network.

    Attributes:
        name: what tables and pictures call the loss.
        formula: any formula of imae_ext, or a combination, or a baseline or method in plain PyTorch.
        learning_rate: of the optimizer, per step; where the schedule begins.
        reduction: "mean", "sum" or "normalized".
        epochs: passes over the training set.
        batch_size: examples a step.
        momentum: of SGD; AdamW's beta1, which is the same thing there.
        seed: of the noise, the initial weights, the order of the examples and their augmentation.
        measure_every: epochs between two measurements; the last epoch is always measured.
        use_reference: compute the loss by imae_ext.reference instead of the fused kernels.
        weight_decay: of the optimizer, for the network's parameters.
        schedule: "constant"; "step", a tenth after half of the epochs and again after three quarters; "cosine".
        device: "cpu", "cuda", ...
        amp: run the network in bfloat16 autocast.
        optimizer: "sgd" or "adamw".
        mixup: the alpha of its Beta distribution; 0 for none.

    """

    name: str
    formula: Objective
    learning_rate: float
    reduction: str = "mean"
    epochs: int = 100
    batch_size: int = 128
    momentum: float = 0.9
    seed: int = 0
    measure_every: int = 2
    use_reference: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"
    device: str = "cpu"
    amp: bool = False
    optimizer: str = "sgd"
    mixup: float = 0.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "measure_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"expected a learning rate above 0, got {self.learning_rate}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"expected a schedule of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"expected an optimizer of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        if not isinstance(self.formula, Formula) and (self.use_reference or self.reduction != "mean"):
            raise ValueError(f"{self.name} is plain PyTorch: it has no reference, and no reduction but mean")
        if not self.mixup >= 0:
            raise ValueError(f"expected mixup of 0 or more, got {self.mixup}")
        if self.mixup and (not isinstance(self.formula, Formula) or self.use_reference):
            raise ValueError(f"{self.name}: mixup takes two labels an example, which only the fused losses do")


@dataclass(frozen=True)
class Result:
    """A finished run: its recipe and its measures, in the order of the epochs.

    Attributes:
        recipe: what was run.
        history: what was measured.
        auc: of finding the wrong training labels by a low p_y at the end, in percent; None where there are none.

    """

    recipe: Recipe
    history: tuple[Measures, ...]
    auc: float | None = None

    @property
    def final(self) -> Measures:
        return self.history[-1]

    @property
    def best_test(self) -> float:
        """The highest test accuracy of any measured epoch, in percent."""
        return max(measures.test for measures in self.history)


@dataclass(frozen=True)
class State:
    """A run after its last measured epoch: the history so far and the state of network, loss and optimizer."""

    history: tuple[Measures, ...]
    parts: dict[str, Any]


class Prepared(nn.Module):
    """A network and what a batch goes through before it: augmentation in training, normalisation, autocast."""

    def __init__(self, network: nn.Module, dataset: Dataset, amp: bool = False) -> None:
        super().__init__()
        # Convolutions on a CPU, and in half precision on a GPU, are faster with an image's channels side by side.
        self.network = network.to(memory_format=torch.channels_last)
        self.kind = dataset.augmentation
        self.statistics = augment.statistics(dataset)
        self.amp = amp

    def forward(self, batch: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.classify(self.network, self.prepare(batch, generator))

    def prepare(self, batch: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Make of a batch of the data set's inputs what networks take."""
        inputs = augment.prepare(batch, self.statistics, generator, self.kind)
        return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs

    def classify(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Run a network, this one or another of its kind, on prepared inputs: logits (b, C)."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.amp):
            logits: Tensor = network(inputs)
        return logits


class FusedLoss(Procedure):
    """The recipe's loss by the fused kernels, or by the reference; (logits (N, C), target (N,)) -> scalar.

    With shares, (n, C), these of a batch's examples are its target instead of its labels.
    """

    def __init__(self, recipe: Recipe, shares: Tensor | None = None) -> None:
        super().__init__()
        if not isinstance(recipe.formula, Formula):
            raise ValueError(f"{recipe.name} is plain PyTorch: expected its own criterion, got none")
        self.loss_of = reference.robust_loss if recipe.use_reference else imae_ext.robust_loss
        self.formula, self.reduction = recipe.formula, recipe.reduction
        self.register_buffer("shares", shares, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.loss_of(logits, target, self.formula, reduction=self.reduction)

    def on_batch(self, logits: Tensor, batch: Batch) -> Tensor:
        target, mix = batch.labels if self.shares is None else self.shares[batch.rows], batch.mix
        if mix is None:
            loss: Tensor = self(logits, target)
        elif self.shares is None:
            loss = imae_ext.mixed_loss(
                logits, target, target[mix.other], mix.lam, self.formula, reduction=self.reduction
            )
        else:
            loss = self(logits, mix.lam * target + (1 - mix.lam) * target[mix.other])
        return loss


def train(
    recipe: Recipe,
    network: nn.Module,
    dataset: Dataset,
    noise: NoisyLabels,
    report: Callable[[Measures], None] = lambda measures: None,
    *,
    criterion: Procedure | None = None,
    state: State | None = None,
    save: Callable[[State], None] = lambda state: None,
) -> Result:
    """Train the network in place and measure it as it goes.

    Args:
        recipe: loss, rate, length and seed.
        network: inputs (N, ...) -> logits (N, C).
        dataset: with the true labels.
        noise: the labels to train on, for dataset.train.
        report: called with every measurement.
        criterion: for a loss that is not a formula of imae_ext, or a method; its parameters are trained along.
        state: of the same run, to go on from.
        save: called with the state after every measurement; it must copy what it keeps.

    """
    device = torch.device(recipe.device)
    dataset = dataset.to(device)
    labels = torch.from_numpy(noise.labels).to(device)
    model = Prepared(network, dataset, recipe.amp).to(device)
    shares = None if noise.shares is None else torch.from_numpy(noise.shares)
    criterion = (criterion or FusedLoss(recipe, shares)).to(device)
    optimizer = _optimizer(recipe, network, criterion)
    parts: dict[str, Any] = {"network": network, "criterion": criterion, "optimizer": optimizer}
    history: list[Measures] = []
    if state is not None:
        history = list(state.history)
        for name, part in parts.items():
            part.load_state_dict(state.parts[name])
        report(history[-1])
    for epoch in range(history[-1].epoch + 1 if history else 1, recipe.epochs + 1):
        loss = _epoch(recipe, epoch, model, criterion, optimizer, dataset, labels)
        if epoch % recipe.measure_every == 0 or epoch == recipe.epochs:
            history.append(measure(model, dataset, labels, epoch=epoch, loss=loss))
            save(State(tuple(history), {name: part.state_dict() for name, part in parts.items()}))
            report(history[-1])
    return Result(recipe, tuple(history))


def _optimizer(recipe: Recipe, network: nn.Module, criterion: Procedure) -> torch.optim.Optimizer:
    """Make the optimizer of the network's and the loss's parameters; only those of networks decay."""
    groups: list[dict[str, Any]] = [{"params": network.parameters()}, *criterion.groups()]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(recipe.momentum, 0.999), weight_decay=decay)
    return torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, weight_decay=decay)


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """Draw the order of the examples in an epoch, (n,) int64: a function of seed and epoch alone."""
    return torch.randperm(n, generator=_generator(seed, epoch, torch.device("cpu")))


def _epoch(
    recipe: Recipe,
    epoch: int,
    model: Prepared,
    criterion: Procedure,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset,
    labels: Tensor,
) -> float:
    """Train for one epoch; return the mean loss of an example."""
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * SCHEDULES[recipe.schedule]((epoch - 1) / recipe.epochs)
    criterion.before_epoch(Epoch(epoch, model, dataset, optimizer))
    parameters = list(model.network.parameters())
    total = torch.zeros((), device=labels.device)
    augmenting = _generator(recipe.seed + AUGMENTATION, epoch, labels.device)
    mixing = np.random.default_rng([recipe.seed + MIXUP, epoch])
    for rows in epoch_order(len(labels), recipe.seed, epoch).to(labels.device).split(recipe.batch_size):
        inputs, mix = model.prepare(dataset.train.inputs[rows], augmenting), None
        if recipe.mixup:
            inputs, mix = _mixed(inputs, recipe.mixup, mixing)
        batch = Batch(rows, inputs, labels[rows], model, mix)
        loss = criterion.on_batch(model.classify(model.network, inputs), batch)
        optimizer.zero_grad()
        criterion.on_gradient(loss, parameters)
        optimizer.step()
        total += loss.detach() * len(rows)
    return float(total) / len(labels)


def _mixed(inputs: Tensor, alpha: float, generator: np.random.Generator) -> tuple[Tensor, Mix]:
    """Mix each input with another one of the batch (Zhang et al. 2018)."""
    lam = float(generator.beta(alpha, alpha))
    other = torch.from_numpy(generator.permutation(len(inputs))).to(inputs.device)
    return lam * inputs + (1 - lam) * inputs[other], Mix(other, lam)


def _generator(seed: int, epoch: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed * 1_000_003 + epoch)
