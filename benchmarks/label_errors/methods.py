"""Who finds wrong labels: imae_ext and cleanlab, each by its own pipeline, and both on the other's probabilities.

cleanlab wants probabilities from cross-validation. It is given those of two classifiers of scikit-learn on standardised
features, 5 folds: logistic regression, its own default, and a network as wide as imae_ext's that stops early, the best
of the four that were tried for it on the digits.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from cleanlab.filter import find_label_issues
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import imae_ext
from imae_ext.label_errors import finding, folds

from .tasks import Task

FOLDS = 5
HIDDEN = (256, 256)
CLASSIFIERS = {
    "logistic regression": lambda: LogisticRegression(max_iter=1000),
    "MLP": lambda: MLPClassifier(HIDDEN, early_stopping=True, random_state=0),
}


class Found(NamedTuple):
    """What a method found in a task.

    Attributes:
        method: its name.
        p: (N,) probability of the given label.
        suspected: (N,) bool.
        seconds: of the CPU, with one thread; nan where most of the work was another row's.

    """

    method: str
    p: npt.NDArray[np.float64]
    suspected: npt.NDArray[np.bool_]
    seconds: float


def find_all(task: Task) -> Iterator[Found]:
    """Find the wrong labels of a task by every method."""
    seen = Candidates()
    start = time.process_time()
    with patch.object(finding, "cross_fit", seen.listen):
        found = imae_ext.find_label_errors(task.features, task.given, progress=False)
    yield Found("imae_ext", found.p, found.suspected, time.process_time() - start)
    assert found.probabilities is not None
    mask = find_label_issues(task.given, found.probabilities, n_jobs=1)
    own = found.probabilities[np.arange(len(task.given)), task.given].astype(np.float64)
    yield Found("cleanlab on imae_ext's networks", own, mask, np.nan)
    if task.wrong.any():
        p = seen.best(task.wrong)
        yield Found("imae_ext, chosen with the truth", p, p < 0.5, np.nan)
    for name, make in CLASSIFIERS.items():
        start = time.process_time()
        probabilities = _cross_validated(make_pipeline(StandardScaler(), make()), task)
        mask = find_label_issues(task.given, probabilities, n_jobs=1)
        seconds = time.process_time() - start
        own = probabilities[np.arange(len(task.given)), task.given]
        yield Found(f"cleanlab, {name}", own, mask, seconds)
        ranked = imae_ext.label_errors(probabilities, task.given, probabilities=True)
        yield Found(f"label_errors, {name}", ranked.p, ranked.suspected, np.nan)


def scores(task: Task, found: Found) -> dict[str, float]:
    """Measure what was found: the area under the ROC curve of p, suspects, and how many of them are wrong."""
    auc = roc_auc_score(task.wrong, -found.p) if task.wrong.any() else np.nan
    return {
        "wrong": int(task.wrong.sum()),
        "suspected": int(found.suspected.sum()),
        "hits": int((found.suspected & task.wrong).sum()),
        "auc": float(auc),
    }


def f1(suspected: npt.NDArray[np.bool_], wrong: npt.NDArray[np.bool_]) -> float:
    """Return the harmonic mean of precision and recall."""
    return 2 * float((suspected & wrong).sum()) / max(1, int(suspected.sum() + wrong.sum()))


class Candidates:
    """The p of every rate and length that imae_ext tried, to choose from with the truth, which nobody has."""

    def __init__(self) -> None:
        self.tried: list[npt.NDArray[np.float64]] = []

    def listen(self, *arguments: Any, **options: Any) -> Iterator[folds.Candidate]:
        """Pass on what cross_fit yields, and keep its p."""
        for candidate in folds.cross_fit(*arguments, **options):
            self.tried.append(candidate.p("all"))
            yield candidate

    def best(self, wrong: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Return the p with the highest F1: the most that any choice of rate and length could have had."""
        return max(self.tried, key=lambda p: f1(p < 0.5, wrong))


def _cross_validated(classifier: Any, task: Task) -> npt.NDArray[np.float64]:
    parts = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a classifier that has not converged
        found: npt.NDArray[np.float64] = cross_val_predict(
            classifier, task.features, task.given, cv=parts, method="predict_proba"
        )
    return found
