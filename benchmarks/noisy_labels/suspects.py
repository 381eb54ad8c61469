"""Suspect labels: training examples ranked by the probability that a trained network gives their label.

A network whose loss keeps it from memorising gives a wrong label a low probability: the top of the ranking is
what to look at first.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

import imae_ext
from imae_ext.formulas import Formula

from .data import Dataset
from .measures import logits_of
from .noise import NoisyLabels


def per_example(
    network: nn.Module, dataset: Dataset, labels: Tensor, formula: Formula
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the network over the training examples, a batch at a time and without augmentation.

    Args:
        network: a batch of the data set's inputs (N, ...), not prepared -> logits (N, C).
        dataset: whose training examples to judge.
        labels: (n,) int64, their given labels, on the network's device.
        formula: of the weights; of p alone, not LabelSmoothing or NCE.

    Returns:
        Of each example the probability of its given label, its weight and the most probable class, (n,) each.

    """
    logits = logits_of(network, dataset.train.inputs)
    p, weight, *_ = imae_ext.row_stats(logits, labels, formula)
    return p, weight, logits.argmax(dim=1)


def auc(p: npt.ArrayLike, wrong: npt.ArrayLike) -> float:
    """Compute how well p tells wrong labels from right ones.

    Args:
        p: (n,) probabilities of the given labels.
        wrong: (n,) bool, True where the given label is wrong.

    Returns:
        The area under the ROC curve: the probability that a wrong label has a lower p than a right one, a tie
        counting half. 1 is a perfect ranking, 0.5 none; nan if all labels are right, all wrong, or a p is nan.

    """
    probabilities, marks = np.asarray(p), np.asarray(wrong, dtype=bool)
    if probabilities.shape != marks.shape or marks.ndim != 1:
        raise ValueError(f"expected p and wrong of one shape (n,), got {probabilities.shape} and {marks.shape}")
    right, suspect = np.sort(probabilities[~marks]), probabilities[marks]
    if not right.size or not suspect.size or np.isnan(probabilities).any():
        return float("nan")
    above = right.size - np.searchsorted(right, suspect, side="right")
    not_below = right.size - np.searchsorted(right, suspect, side="left")
    return float((above + not_below).mean() / (2 * right.size))


def write_csv(path: Path, dataset: Dataset, noise: NoisyLabels, p: Tensor, weight: Tensor, predicted: Tensor) -> None:
    """Write all training examples, the most suspect first.

    Columns: rank, from 1; index, the example's place in the whole training set as published; its file, where
    examples are files; the given and the predicted label, by name where classes have names; p of the given
    label; weight; the true label, where it is known.

    Args:
        path: of the file to write.
        dataset: whose training examples were judged.
        noise: their given and true labels.
        p: from per_example, as the next two.
        weight: of each example.
        predicted: class of each example.

    """
    names = np.array(dataset.class_names or range(dataset.num_classes))
    probabilities = p.cpu().numpy()
    order = np.argsort(probabilities, kind="stable")
    places = order if dataset.published is None else dataset.published.rows.cpu().numpy()[order]
    columns: dict[str, list[object]] = {
        "rank": list(range(1, len(order) + 1)),
        "index": places.tolist(),
        "file": [dataset.files[i] for i in order] if dataset.files else [],
        "given_label": names[noise.labels[order]].tolist(),
        "predicted_label": names[predicted.cpu().numpy()[order]].tolist(),
        "p_given": [f"{value:.6g}" for value in probabilities[order]],
        "weight": [f"{value:.6g}" for value in weight.cpu().numpy()[order]],
        "true_label": names[noise.clean[order]].tolist() if dataset.truth_known else [],
    }
    known = {name: values for name, values in columns.items() if values}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(known)
        writer.writerows(zip(*known.values(), strict=True))
