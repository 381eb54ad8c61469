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
from torch import Tensor, nn

import imae_ext
from imae_ext.formulas import Formula

from .data import Dataset
from .measures import logits_of
from .names import CUTOFF

IntArray = npt.NDArray[np.int64]


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


@dataclass(frozen=True, eq=False)
class Ranking:
    """What networks make of examples whose labels may be wrong; n of them, in any order.

    Attributes:
        index: (n,) int64, places in the whole training set as published; -1 for examples from elsewhere.
        files: of the examples, or none.
        class_names: one for each class.
        given: (n,) int64, their labels.
        p: (n,) probabilities of these, the mean of the networks.
        weight: (n,) weights by the loss, the mean of the networks.
        predicted: (n,) int64, the classes that the networks find most probable together.
        trained: (n,) int64, how many of the networks were trained on the example.
        true: (n,) int64, the true labels; or None where they are not known.
        verified: (n,) int64, 1 where people found the label right, 0 where wrong, -1 where not known; or None.

    """

    index: IntArray
    files: tuple[str, ...]
    class_names: tuple[str, ...]
    given: IntArray
    p: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float64]
    predicted: IntArray
    trained: IntArray
    true: IntArray | None = None
    verified: IntArray | None = None

    def below(self, cutoff: float) -> int:
        """Count the examples whose label has a probability below the cut-off."""
        return int((self.p < cutoff).sum())

    def auc(self) -> float:
        """Compute how well a low p finds the labels known as wrong among those of which it is known; nan if unknown."""
        if self.true is not None:
            return auc(self.p, self.given != self.true)
        if self.verified is not None:
            known = self.verified >= 0
            return auc(self.p[known], self.verified[known] == 0)
        return float("nan")


def write_csv(path: Path, ranking: Ranking, cutoff: float = CUTOFF) -> None:
    """Write all examples, the most suspect first.

    Columns: rank, from 1; index, the example's place in the whole training set as published; its file, where
    examples are files; the given and the predicted label, by name where classes have names; p of the given
    label; suspect, yes where p is below the cut-off; weight; trained_by, how many networks were trained on it; what
    people found of the label, and the true label, where these are known.

    Args:
        path: of the file to write.
        ranking: of the examples.
        cutoff: a probability.

    """
    names = np.array(ranking.class_names)
    order = np.argsort(ranking.p, kind="stable")
    verified = {-1: "", 0: "wrong", 1: "right"}
    columns: dict[str, list[object]] = {
        "rank": list(range(1, len(order) + 1)),
        "index": ["" if place < 0 else place for place in ranking.index[order].tolist()],
        "file": [ranking.files[i] for i in order] if ranking.files else [],
        "given_label": names[ranking.given[order]].tolist(),
        "predicted_label": names[ranking.predicted[order]].tolist(),
        "p_given": [f"{value:.6g}" for value in ranking.p[order]],
        "suspect": ["yes" if value < cutoff else "no" for value in ranking.p[order]],
        "weight": [f"{value:.6g}" for value in ranking.weight[order]],
        "trained_by": ranking.trained[order].tolist(),
        "verified": [] if ranking.verified is None else [verified[one] for one in ranking.verified[order].tolist()],
        "true_label": [] if ranking.true is None else names[ranking.true[order]].tolist(),
    }
    known = {name: values for name, values in columns.items() if values}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(known)
        writer.writerows(zip(*known.values(), strict=True))
