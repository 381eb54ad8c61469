"""What a method is: training that is more than a loss on the logits of a batch.

A `Method` is a value, as the formulas of imae_ext are: its name and options decide a run. `start` makes its
`Procedure`, which training calls at three places:

    before_epoch     to relabel, to look at the network, to go back to an earlier one
    on_batch         the loss of a batch, knowing which examples are in it
    on_gradient      the gradient of that loss; by default `loss.backward()`

What a procedure remembers from batch to batch is in its buffers, parameters and extra state, so that a run goes on
from a checkpoint; what it draws at random is a function of (seed, epoch).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..data import Dataset

if TYPE_CHECKING:
    from ..training import Prepared


@dataclass(frozen=True, eq=False)
class Setting:
    """What a method is told before training begins.

    Attributes:
        num_classes: C.
        labels: (n,) int64, the given labels, on the CPU.
        epochs: of the whole run.
        seed: of the run.
        build: makes another network of the run's kind from a seed.
        transition: (C, C), the true transition matrix, where the truth is known; else None.
        noise_rate: the true share of wrong labels, where it is known; else None.
        estimate: trains a first network by cross entropy, and estimates the transition matrix (C, C) from it.

    """

    num_classes: int
    labels: Tensor
    epochs: int
    seed: int
    build: Callable[[int], nn.Module]
    transition: Tensor | None = None
    noise_rate: float | None = None
    estimate: Callable[[], Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Mix:
    """What mixup did to a batch: each input is ``lam`` of itself and ``1 - lam`` of another.

    Attributes:
        other: (b,) int64, which one of the batch.
        lam: share of the example itself.

    """

    other: Tensor
    lam: float


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch in training.

    Attributes:
        rows: (b,) int64, the places of its examples in the training set.
        inputs: of the network, (b, ...) float32, augmented and normalised.
        labels: (b,) int64, as given.
        model: runs networks on inputs, as the run's own is run.
        mix: of the inputs, if they are mixed.

    """

    rows: Tensor
    inputs: Tensor
    labels: Tensor
    model: Prepared
    mix: Mix | None = None


@dataclass(frozen=True, eq=False)
class Epoch:
    """An epoch that is about to begin.

    Attributes:
        number: from 1.
        model: the network, and what goes before it.
        dataset: whose training part is trained on; its labels are the truth, which no method may look at.
        optimizer: of the run.

    """

    number: int
    model: Prepared
    dataset: Dataset
    optimizer: torch.optim.Optimizer


class Procedure(nn.Module):
    """The state of a method during a run. By itself: a module (logits (b, C), labels (b,)) -> loss, called as it is."""

    def groups(self) -> list[dict[str, Any]]:
        """List the parameters that the run's optimizer trains along with the network's; they do not decay."""
        return [{"params": list(self.parameters()), "weight_decay": 0.0}]

    def before_epoch(self, epoch: Epoch) -> None:
        """Do what is done between two epochs."""

    def on_batch(self, logits: Tensor, batch: Batch) -> Tensor:
        """Compute the loss, (), of the network's logits (b, C) for a batch."""
        loss: Tensor = self(logits, batch.labels)
        return loss

    def on_gradient(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Leave the gradient of `on_batch`'s loss in the network's parameters."""
        loss.backward()


@dataclass(frozen=True)
class Method(ABC):
    """The base of all methods: options are numbers, each within the range that its field gives."""

    def __post_init__(self) -> None:
        for option in fields(self):
            value, (low, high, whole) = getattr(self, option.name), option.metadata["range"]
            ok = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
            if not ok or (whole and value != int(value)):
                kind = "a whole number" if whole else "a number"
                raise ValueError(
                    f"{type(self).__name__}: expected {option.name} to be {kind} in [{low:g}, {high:g}], got {value!r}"
                )

    @abstractmethod
    def start(self, setting: Setting) -> Procedure:
        """Make what a run by this method is trained with."""


def number(default: float, low: float, high: float) -> Any:
    """Make a method's option: a number in [low, high]."""
    return field(default=default, metadata={"range": (low, high, False)})


def whole(default: int, low: int, high: int) -> Any:
    """Make a method's option: a whole number in [low, high]."""
    return field(default=default, metadata={"range": (low, high, True)})


def draws(seed: int, epoch: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Make the generator of what a method draws in an epoch, apart from those of order and augmentation."""
    return torch.Generator(device).manual_seed((seed + (1 << 21)) * 1_000_003 + epoch)
