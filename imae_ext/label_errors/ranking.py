"""Labels ranked by the probability that a model gives them, from the outputs of any model."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .. import checks
from ..formulas import CCE
from ..functional import row_stats
from .inputs import Array, as_classes, as_outputs, check_cutoff

CONFIDENT = "confident"
SURE = 0.8  # a probability that counts, however sure the model usually is; it makes 0 to 0.5% more false alarms
ROUNDING = 1e-6  # so that a class whose probabilities are all alike reaches their mean
CHUNK = 1 << 22  # numbers of logits at a time in float64: 32 MiB


class Choice(NamedTuple):
    """How find_label_errors trained, and what decided it.

    Attributes:
      rate: the learning rate of AdamW.
      epochs: passes over the examples of a fold's network.
      agreement: share of the given labels that networks which had not seen them predict.
      tried: of each (rate, epochs) the mean of agreement and of the probability of unseen labels; the highest is taken.

    """

    rate: float
    epochs: int
    agreement: float
    tried: dict[tuple[float, int], float]


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """Labels and how far a model believes them. All arrays have shape (N,) and the order of the examples.

    Attributes:
      p: float64, the probability that the model gives the given label; NaN for ignored examples.
      rank: int64, 1 for the least believed label, and so on; 0 for ignored examples.
      suspected: bool, whether the label is probably wrong, by the cut-off.
      given: the labels as they were given.
      predicted: the most probable labels, in the same form.
      cutoff: below which p a label is suspected, or "confident"; see label_errors.
      how: a sentence that explains the suspicion, to print.
      choice: how the networks were trained, from find_label_errors; else None, as the next two.
      probabilities: (N, C) float32, of the networks that have not seen the example: cleanlab's ``pred_probs``.
      classes: (C,) the labels in the order of their columns.

    """

    p: npt.NDArray[np.float64]
    rank: npt.NDArray[np.int64]
    suspected: npt.NDArray[np.bool_]
    given: Array
    predicted: Array
    cutoff: float | str
    how: str
    choice: Choice | None = None
    probabilities: npt.NDArray[np.float32] | None = None
    classes: Array | None = None

    @property
    def order(self) -> npt.NDArray[np.int64]:
        """Places of all examples that are not ignored, the least believed label first."""
        return np.argsort(self.p, kind="stable")[: int((self.rank > 0).sum())]  # NaN comes last

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """Places of the suspected examples, the least believed label first."""
        return self.order[self.suspected[self.order]]

    def as_cleanlab(self) -> dict[str, Array]:
        """Return the columns of cleanlab's DataFrame of label issues: ``pandas.DataFrame(found.as_cleanlab())``.

        ``suspected`` is cleanlab's boolean mask, and ``indices`` what its ``return_indices_ranked_by`` gives.
        """
        return {
            "is_label_issue": self.suspected,
            "label_quality": self.p,
            "given_label": self.given,
            "predicted_label": self.predicted,
        }

    def write_csv(self, path: str | PathLike[str]) -> None:
        """Write all examples that are not ignored, the least believed label first.

        Columns: rank, from 1; index, the example's place, from 0; given_label; predicted_label; p_given; suspected.
        """
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["rank", "index", "given_label", "predicted_label", "p_given", "suspected"])
            for i in self.order:
                p, suspected = f"{self.p[i]:.6g}", str(bool(self.suspected[i])).lower()
                writer.writerow([self.rank[i], i, self.given[i], self.predicted[i], p, suspected])


def label_errors(
    logits: Tensor | npt.ArrayLike,
    target: Tensor | npt.ArrayLike,
    *,
    probabilities: bool | None = None,
    cutoff: float | str = CONFIDENT,
    ignore_index: int = -100,
) -> LabelErrors:
    """Rank labels by the probability ``p`` that a model gives them, the least believed first.

    The model may have been trained on the same labels, if its loss kept it from memorising the wrong ones (IMAE, GCE,
    not cross entropy to the end), or on others, as in cross-validation. ``p`` is ``softmax(logits)[target]``, computed
    in float64, so that certain mistakes keep their order.

    Args:
      logits: ``(N, C)``, a floating tensor or array, any model's outputs; or probabilities.
      target: ``(N,)`` integer classes in ``[0, C)`` or ``ignore_index``, the labels in question.
      probabilities: whether the first argument holds probabilities, the rows of which sum to 1. ``None``: it holds
        logits, and is refused if it looks like probabilities; ``False``: logits, whatever they look like.
      cutoff: a number: labels with ``p < cutoff`` are suspected. 0.5 suits a network that a robust loss has trained,
        and that is sure of most labels. ``"confident"`` suits any model, also one that is sure of nothing, as a forest:
        a class counts where its probability is at least the mean that it has where it is the given label, or 0.8.
        The most probable of the classes that count is taken for the true one, and so it is counted how large a share
        of the labels ``i`` should be ``j``. As large a share of all labels ``i`` is suspected, those with the largest
        ``p_j - p_i``, if ``p_j`` is larger. ``p`` ranks all labels: take the first of them instead, if you have time
        to look at so many.
      ignore_index: examples with this label are left out.

    Returns:
      A :class:`LabelErrors`, of numpy arrays.

    Raises:
      TypeError: an argument of another type or dtype.
      ValueError: shapes that do not fit; fewer than two classes; NaN or infinity that leaves ``p`` undefined; rows that
        are no probabilities, or look like them unannounced; a cut-off outside [0, 1].
      IndexError: a label out of range.

    Example:
      >>> import torch
      >>> logits = torch.tensor([[4.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 6.0, 0.0]])
      >>> found = label_errors(logits, torch.tensor([0, 0, 1]))
      >>> found.p.round(3)
      array([0.965, 0.007, 0.995])
      >>> found.rank, found.suspected, found.predicted
      (array([2, 1, 3]), array([False,  True, False]), array([0, 1, 1]))

    References:
      Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", arXiv 1911.00068:
      ``p`` is its self-confidence, ``"confident"`` prunes by the noise rates of its confident joint (sections 3.1 and
      3.2), but for the 0.8.
    """
    check_cutoff(cutoff, (CONFIDENT,))
    checks.check_options(CCE(), "none", ignore_index)
    outputs, classes = as_outputs(logits, probabilities), as_classes(target)
    if classes.shape != outputs.shape[:1]:
        raise ValueError(
            f"imae_ext: expected target of shape ({len(outputs)},), a class for each row of logits, "
            f"got {tuple(classes.shape)}"
        )
    checks.check_labels(outputs, classes, ignore_index)
    live = (classes != ignore_index).numpy()
    p, predicted = _believed(outputs, classes, bool(probabilities), ignore_index)
    bad = live & np.isnan(p)
    if bad.any():
        i = int(bad.argmax())
        raise ValueError(
            f"imae_ext: expected outputs that give each label a probability, got {outputs[i].tolist()[:8]} at row {i} "
            f"({int(bad.sum())} such rows); a label of ignore_index={ignore_index} leaves a row out"
        )
    found = judge(p, live, classes.numpy(), predicted, 0.5 if isinstance(cutoff, str) else cutoff, "the model gives")
    if not isinstance(cutoff, str):
        return found
    suspected = _counted(outputs, classes.numpy(), p, live, bool(probabilities))
    how = (
        f"suspected: {int(suspected.sum())} of {int(live.sum())} labels, counted where another class is as probable as "
        "for its own labels, or surer than 0.8"
    )
    return replace(found, suspected=suspected, cutoff=cutoff, how=how)


def judge(
    p: npt.NDArray[np.float64],
    live: npt.NDArray[np.bool_],
    given: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    cutoff: float,
    judges: str,
) -> LabelErrors:
    """Rank and suspect labels whose p is known; judges is who gives it, with its verb."""
    p = np.where(live, p, np.nan)
    rank = np.zeros(len(p), dtype=np.int64)
    rank[np.argsort(p, kind="stable")[: int(live.sum())]] = np.arange(1, int(live.sum()) + 1)
    suspected = p < cutoff
    why = f"to which {judges} less probability than to all others together"
    if cutoff != 0.5:
        why = f"to which {judges} less than that probability"
    how = f"suspected: {int(suspected.sum())} of {int(live.sum())} labels, those with p < {cutoff:g}, {why}"
    return LabelErrors(p, rank, suspected, given, predicted, cutoff, how)


def _believed(
    outputs: Tensor, classes: Tensor, probabilities: bool, ignore_index: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return the probability of each label, and the most probable class, (N,) each."""
    p, predicted = np.empty(len(classes)), np.empty(len(classes), dtype=np.int64)
    for part in _parts(outputs):
        z = outputs[part].double()
        y = classes[part].to(z.device)
        if probabilities:
            own = z.gather(1, y.where(y != ignore_index, 0).unsqueeze(1)).squeeze(1)
        else:
            own = row_stats(z, y, ignore_index=ignore_index).p
        p[part], predicted[part] = own.cpu().numpy(), z.argmax(1).cpu().numpy()
    return p, predicted


def _counted(
    outputs: Tensor,
    classes: npt.NDArray[np.int64],
    p: npt.NDArray[np.float64],
    live: npt.NDArray[np.bool_],
    probabilities: bool,
) -> npt.NDArray[np.bool_]:
    """Return which labels are suspected by the confident joint and its noise rates, (N,)."""
    true, log_sum = _confident(outputs, classes, p, live, probabilities)
    suspected = np.zeros(len(classes), dtype=bool)
    for given in np.unique(classes[live]):
        rows = np.flatnonzero(live & (classes == given))
        seen, counts = np.unique(true[rows][true[rows] >= 0], return_counts=True)
        for other, count in zip(seen, counts, strict=True):
            if other == given:
                continue
            z = outputs[torch.from_numpy(rows).to(outputs.device), int(other)].double().cpu().numpy()
            more = (z if probabilities else np.exp(z - log_sum[rows])) - p[rows]
            first = np.argsort(-more, kind="stable")[: round(count / counts.sum() * len(rows))]
            suspected[rows[first[more[first] > 0]]] = True
    return suspected


def _confident(
    outputs: Tensor,
    classes: npt.NDArray[np.int64],
    p: npt.NDArray[np.float64],
    live: npt.NDArray[np.bool_],
    probabilities: bool,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return (N,) the most probable of the classes that count, -1 if none does, and the logarithm of softmax's sum."""
    usual = np.full(outputs.shape[1], np.inf)  # a class that is never given is never as probable
    for k in np.unique(classes[live]):
        usual[k] = min(SURE, p[live & (classes == k)].mean()) - ROUNDING
    true, log_sum = np.empty(len(classes), dtype=np.int64), np.zeros(len(classes))
    for part in _parts(outputs):
        z = outputs[part].double()
        if not probabilities:
            whole = z.logsumexp(1, keepdim=True)
            z, log_sum[part] = (z - whole).exp(), whole.squeeze(1).cpu().numpy()
        believed = z.cpu().numpy()
        believed = np.where(believed >= usual, believed, -1.0)
        true[part] = np.where(believed.max(axis=1) >= 0, believed.argmax(axis=1), -1)
    return true, log_sum


def _parts(outputs: Tensor) -> list[slice]:
    """Return ranges of rows, of CHUNK numbers or a little less."""
    rows = max(1, CHUNK // outputs.shape[1])
    return [slice(start, start + rows) for start in range(0, len(outputs), rows)]
