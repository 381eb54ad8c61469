"""The data: tables from scikit-learn, CIFAR-10N with its human mistakes, and the 20 newsgroups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import datasets

from benchmarks.noisy_labels import noise
from benchmarks.noisy_labels.data.cifar import cifar10
from benchmarks.noisy_labels.data.options import Options

from .embeddings import patch_features, text_features

RATES = (0.05, 0.2, 0.4)
HUMAN = {"aggregate": "aggre_label", "worst": "worse_label"}  # CIFAR-10N's: of three people, and of the worst of them
IMAGES = 5_000
TWO_CLASSES = 0.3  # of asymmetric noise there, in place of 0.4, at which hardly anything tells right from wrong


@dataclass(frozen=True, eq=False)
class Task:
    """Examples whose labels are in question.

    Attributes:
        data: name of the data.
        noise: "none", "symmetric", "asymmetric", or the people who made the mistakes.
        rate: share of wrong labels asked for; 0 where people made them.
        seed: of the noise.
        features: (N, d).
        given: (N,) int64 labels, some of them wrong.
        clean: (N,) int64 true labels.

    """

    data: str
    noise: str
    rate: float
    seed: int
    features: npt.NDArray[Any]
    given: npt.NDArray[np.int64]
    clean: npt.NDArray[np.int64]

    @property
    def wrong(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: True where the given label is not the true one."""
        return np.not_equal(self.given, self.clean)


def tasks(data: str, seeds: int, directory: Path | None, cache: Path) -> Iterator[Task]:
    """Make the tasks of one data set: no noise, then all noises at all rates, for each seed.

    Asymmetric noise takes each class for the next one.

    Args:
        data: one of DATA.
        seeds: how many to draw noise with; people's mistakes there are once.
        directory: of CIFAR-10 and CIFAR-10N.
        cache: folder where features of images and texts are kept.

    """
    if data == "cifar10n":
        yield from _people(directory, cache)
        return
    features, clean = TABLES[data](cache)
    C = int(clean.max()) + 1
    next_class = {c: (c + 1) % C for c in range(C)}
    yield Task(data, "none", 0.0, 0, features, clean, clean)
    for seed in range(seeds):
        for rate in RATES:
            made = noise.symmetric(clean, rate, C, 1000 + seed)
            yield Task(data, "symmetric", rate, seed, features, made.labels, clean)
        for rate in RATES:
            rate = min(rate, TWO_CLASSES) if C == 2 else rate
            made = noise.asymmetric(clean, rate, next_class, 1000 + seed)
            yield Task(data, "asymmetric", rate, seed, features, made.labels, clean)


def _people(directory: Path | None, cache: Path) -> Iterator[Task]:
    """Make the tasks of CIFAR-10N: the first IMAGES of the training part, judged right and as people judged them."""
    if directory is None:
        raise ValueError("cifar10n: expected --directory with cifar-10-batches-py and CIFAR-10_human.pt, got none")
    dataset = cifar10(Options(directory))
    assert dataset.published is not None
    first = np.argsort(dataset.published.rows.numpy())[:IMAGES]
    rows = dataset.published.rows.numpy()[first]  # as published, which CIFAR-10N goes by
    published = dataset.published.labels.numpy()
    features = patch_features(dataset.train.inputs.numpy()[first], cache / "cifar10.npy")
    yield Task("cifar10n", "none", 0.0, 0, features, published[rows], published[rows])
    for name, key in HUMAN.items():
        labels = noise.from_file(directory / "CIFAR-10_human.pt", published, key=key).labels
        yield Task("cifar10n", name, 0.0, 0, features, labels[rows], published[rows])


def _table(load: Callable[..., Any]) -> Callable[[Path], tuple[npt.NDArray[Any], npt.NDArray[np.int64]]]:
    def read(cache: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        features, labels = load(return_X_y=True)
        return features, labels.astype(np.int64)

    return read


TABLES: dict[str, Callable[[Path], tuple[npt.NDArray[Any], npt.NDArray[np.int64]]]] = {
    "digits": _table(datasets.load_digits),
    "wine": _table(datasets.load_wine),
    "breast-cancer": _table(datasets.load_breast_cancer),
    "newsgroups": text_features,
}
DATA = (*TABLES, "cifar10n")
