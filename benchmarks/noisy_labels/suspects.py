"""Suspect labels: training examples ranked by the probability that a trained network gives their label.

A network whose loss keeps it from memorising gives a wrong label a low probability: the top of the ranking is
what to look at first.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import imae_ext
from imae_ext.formulas import Loss

from . import augment
from .data import Dataset


@dataclass(frozen=True, eq=False)
class PerExample:
    """What a network makes of each training example and its given label; all on the CPU.

    Attributes:
        p: (n,) float32, the probability of the given label.
        weight: (n,) float32, the example's weight in training.
        predicted: (n,) int64, the most probable class.

    """

    p: Tensor
    weight: Tensor
    predicted: Tensor


def per_example(
    network: nn.Module, dataset: Dataset, labels: Tensor, formula: Loss, batch_size: int = 1024
) -> PerExample:
    """Run the network over the training examples, without augmentation.

    Args:
        network: inputs (N, ...) -> logits (N, C), on the data set's device; its mode is left as it was.
        dataset: whose training examples to judge.
        labels: (n,) int64, their given labels.
        formula: of the weights; of p alone, not LabelSmoothing or NCE.
        batch_size: examples at a time.

    """
    if labels.shape != dataset.train.labels.shape:
        raise ValueError(f"expected a label for each of {len(dataset.train)} examples, got {tuple(labels.shape)}")
    pixels = augment.statistics(dataset)
    training = network.training
    network.eval()
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    with torch.no_grad():
        for rows in torch.split(torch.arange(len(labels)), batch_size):
            logits = network(augment.prepare(dataset.train.inputs[rows], pixels, None, dataset.augmentation)).float()
            p, weight = imae_ext.row_stats(logits, labels[rows].to(logits.device), formula)
            found.append((p.cpu(), weight.cpu(), logits.argmax(dim=1).cpu()))
    network.train(training)
    return PerExample(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def auc(p: npt.ArrayLike, wrong: npt.ArrayLike) -> float:
    """Compute how well p tells wrong labels from right ones.

    Args:
        p: (n,) probabilities of the given labels.
        wrong: (n,) bool, True where the given label is wrong.

    Returns:
        The area under the ROC curve: the probability that a wrong label has a lower p than a right one, a tie
        counting half. 1 is a perfect ranking, 0.5 none; nan if all labels are right, or all wrong.

    """
    probabilities, marks = np.asarray(p), np.asarray(wrong, dtype=bool)
    if probabilities.shape != marks.shape or marks.ndim != 1:
        raise ValueError(f"expected p and wrong of shape (n,), got {probabilities.shape} and {marks.shape}")
    pairs = int(marks.sum()) * int((~marks).sum())
    if not pairs:
        return float("nan")
    right = np.sort(probabilities[~marks])
    above = right.size - np.searchsorted(right, probabilities[marks], side="right")
    tied = right.size - np.searchsorted(right, probabilities[marks], side="left") - above
    return float((above + tied / 2).sum() / pairs)


def write_csv(path: Path, dataset: Dataset, labels: Tensor, found: PerExample) -> None:
    """Write all training examples, the most suspect first.

    Columns: rank from 1; index, the example's place in the whole training set as published; its file, where
    examples are files; the given and the predicted label, by name where classes have names; p of the given
    label; weight; the true label, where it is known.

    Args:
        path: of the file to write.
        dataset: whose training examples were judged.
        labels: (n,) int64, their given labels.
        found: from per_example.

    """
    names = dataset.class_names or tuple(str(label) for label in range(dataset.num_classes))
    order = torch.argsort(found.p, stable=True)
    places = order if dataset.published is None else dataset.published.rows.cpu()[order]
    columns: dict[str, list[str]] = {
        "rank": [str(rank) for rank in range(1, len(order) + 1)],
        "index": [str(place) for place in places.tolist()],
        "file": [dataset.files[i] for i in order.tolist()] if dataset.files else [],
        "given_label": [names[label] for label in labels.cpu()[order].tolist()],
        "predicted_label": [names[label] for label in found.predicted[order].tolist()],
        "p_given": [f"{p:.6g}" for p in found.p[order].tolist()],
        "weight": [f"{weight:.6g}" for weight in found.weight[order].tolist()],
        "true_label": [names[i] for i in dataset.train.labels.cpu()[order].tolist()] if dataset.truth_known else [],
    }
    kept = {name: values for name, values in columns.items() if values}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(kept)
        writer.writerows(zip(*kept.values(), strict=True))
