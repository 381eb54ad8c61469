"""What is measured of a network while it trains: the columns of the paper's table, in percent."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .data import Dataset, Examples, Inputs


@dataclass(frozen=True)
class Measures:
    """The state of a run after an epoch; all accuracies and fits in percent, nan where nothing is there to measure.

    Attributes:
        epoch: number of epochs done.
        loss: mean training loss over the epoch.
        test: accuracy on the test set.
        validation: accuracy on the (clean) validation set.
        noisy_fit: share of the wrongly labelled training examples whose WRONG label is predicted.
        clean_fit: share of the rightly labelled training examples whose label is predicted.
        hybrid: accuracy against the true labels over training and test examples together.
        max_logit: largest |logit| on the training set.
        fit: share of all training examples whose label, right or wrong, is predicted.

    """

    epoch: int
    loss: float
    test: float
    validation: float
    noisy_fit: float
    clean_fit: float
    hybrid: float
    max_logit: float
    fit: float = math.nan


def measure(network: nn.Module, dataset: Dataset, labels: Tensor, *, epoch: int, loss: float) -> Measures:
    """Measure the network on every part of the data set.

    Args:
        network: a batch of inputs (N, ...) -> logits (N, C).
        dataset: with the true labels; if it does not have them, what compares with the truth is nan.
        labels: (n,) int64, the labels that training sees.
        epoch: recorded as it is.
        loss: recorded as it is.

    """
    logits = logits_of(network, dataset.train.inputs)
    predicted = logits.argmax(dim=1)
    fitted = predicted == labels
    right_test = _right(network, dataset.test)
    noisy_fit = clean_fit = hybrid = math.nan
    if dataset.truth_known:
        wrong = labels != dataset.train.labels
        noisy_fit, clean_fit = _percent(fitted[wrong]), _percent(fitted[~wrong])
        hybrid = _percent(torch.cat([predicted == dataset.train.labels, right_test]))
    return Measures(
        epoch=epoch,
        loss=loss,
        test=_percent(right_test),
        validation=_percent(_right(network, dataset.validation)),
        noisy_fit=noisy_fit,
        clean_fit=clean_fit,
        hybrid=hybrid,
        max_logit=float(logits.abs().max()),
        fit=_percent(fitted),
    )


def logits_of(network: nn.Module, inputs: Inputs, batch_size: int = 2048) -> Tensor:
    """Compute the logits (N, C) of inputs (N, ...), without gradients, a batch at a time."""
    training = network.training
    network.eval()
    with torch.no_grad():
        batches = torch.arange(len(inputs)).split(batch_size)
        logits = torch.cat([network(inputs[rows]) for rows in batches])
    network.train(training)
    return logits


def _right(network: nn.Module, examples: Examples) -> Tensor:
    return logits_of(network, examples.inputs).argmax(dim=1) == examples.labels


def _percent(right: Tensor) -> float:
    """Return the share of True, in percent; nan for an empty part (no noise: nothing wrong to fit)."""
    return 100.0 * float(right.double().mean())
