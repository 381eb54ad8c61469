"""What is measured of a network while it trains: the columns of the paper's table, in percent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .data import Dataset, Examples


@dataclass(frozen=True)
class Measures:
    """The state of a run after an epoch; all accuracies and fits in percent.

    Attributes:
        epoch: number of epochs done.
        loss: mean training loss over the epoch.
        test: accuracy on the test set.
        validation: accuracy on the (clean) validation set.
        noisy_fit: share of the wrongly labelled training examples whose WRONG label is predicted.
        clean_fit: share of the rightly labelled training examples whose label is predicted.
        hybrid: accuracy against the true labels over training and test examples together.
        max_logit: largest |logit| on the training set.

    """

    epoch: int
    loss: float
    test: float
    validation: float
    noisy_fit: float
    clean_fit: float
    hybrid: float
    max_logit: float


def measure(network: nn.Module, dataset: Dataset, labels: Tensor, *, epoch: int, loss: float) -> Measures:
    """Measure the network on every part of the data set.

    Args:
        network: inputs (N, ...) -> logits (N, C).
        dataset: with the true labels.
        labels: (n,) int64, the labels that training sees.
        epoch: recorded as it is.
        loss: recorded as it is.

    """
    logits = logits_of(network, dataset.train.inputs)
    predicted = logits.argmax(dim=1)
    wrong = labels != dataset.train.labels
    fitted = predicted == labels
    right_train = predicted == dataset.train.labels
    right_test = _right(network, dataset.test)
    return Measures(
        epoch=epoch,
        loss=loss,
        test=_percent(right_test),
        validation=_percent(_right(network, dataset.validation)),
        noisy_fit=_percent(fitted[wrong]),
        clean_fit=_percent(fitted[~wrong]),
        hybrid=_percent(torch.cat([right_train, right_test])),
        max_logit=float(logits.abs().max()),
    )


def logits_of(network: nn.Module, inputs: Tensor, batch_size: int = 2048) -> Tensor:
    """Compute the logits (N, C) of inputs (N, ...), without gradients, a batch at a time."""
    training = network.training
    network.eval()
    with torch.no_grad():
        logits = torch.cat([network(batch) for batch in inputs.split(batch_size)])
    network.train(training)
    return logits


def _right(network: nn.Module, examples: Examples) -> Tensor:
    return logits_of(network, examples.inputs).argmax(dim=1) == examples.labels


def _percent(right: Tensor) -> float:
    """Return the share of True, in percent; nan for an empty part (no noise: nothing wrong to fit)."""
    return 100.0 * float(right.double().mean())
