"""Wrong labels, made reproducibly: symmetric, asymmetric by a class map, or read from a label file.

Rates are exact, not expected: the number of changed labels is `round(rate * n)`, whatever the seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .annotators import NO_LABEL
from .data import Dataset
from .file_noise import check_order, given_for
from .label_files import read_labels
from .label_rows import Examples
from .names import MADE as MADE
from .names import NOISES as KINDS

IntArray = npt.NDArray[np.int64]

# CIFAR-10's usual confusions: truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog.
CIFAR10_CLASS_MAP: dict[int, int] = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}

# CIFAR-100: the superclass (0 to 19) of each of the 100 fine classes, in their alphabetical order.
CIFAR100_SUPERCLASS: tuple[int, ...] = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11),
    *(6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5),
    *(5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17),
    *(10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13),
    *(16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
)


@dataclass(frozen=True, eq=False)
class NoisyLabels:
    """Labels to train on, beside the true ones.

    Attributes:
        labels: (n,) int64, the labels given to training.
        clean: (n,) int64, the true labels.
        source: what is to be said of the file that they are from; empty if they are from none.
        shares: (n, C), of the annotators who gave each class, where these are trained on instead of the labels.

    """

    labels: IntArray
    clean: IntArray
    source: Mapping[str, Any] = field(default_factory=dict)
    shares: npt.NDArray[np.float32] | None = None

    @property
    def noisy(self) -> npt.NDArray[np.bool_]:
        """(n,) bool: True where the label given to training is wrong."""
        return np.not_equal(self.labels, self.clean)

    @property
    def rate(self) -> float:
        """Share of wrong labels, in [0, 1]."""
        return float(self.noisy.mean()) if self.labels.size else 0.0


def make(
    kind: str,
    dataset: Dataset,
    rate: float = 0.0,
    seed: int = 0,
    path: str | Path | None = None,
    key: str | None = None,
    *,
    order: str | Path | None = None,
    meant: bool = False,
    by_share: bool = False,
) -> NoisyLabels:
    """Make the labels to train on, for dataset.train.

    Args:
        kind: one of KINDS.
        dataset: its training labels are taken as true; symmetric and asymmetric noise demand that they are.
        rate: of symmetric and asymmetric noise.
        seed: of symmetric and asymmetric noise.
        path: of a file of labels for the whole training set as published, in its order.
        key: of the labels in that file, if it holds several.
        order: of a file with the order of the label file's rows, if that is another.
        meant: take noise that leaves nothing to learn, and files that change as many labels as chance would.
        by_share: train on the share of the file's annotators who gave each class.

    Raises:
        ValueError: an unknown kind, noise on top of labels that may be wrong, no path, a rate out of range, or a
            file that does not fit the data set, or has no label for some of its examples.

    """
    if kind in MADE and not dataset.truth_known:
        raise ValueError(
            f"nobody vouches for the labels of {dataset.name}: expected noise none or file, got {kind}; --trusted says "
            "that the labels are right, and lets some of them be made wrong"
        )
    labels = dataset.train.labels.cpu().numpy()
    if kind in MADE and not meant:
        _check_learnable(kind, rate, dataset.num_classes)
    if kind == "none":
        return NoisyLabels(labels, labels)
    if kind == "symmetric":
        return symmetric(labels, rate, dataset.num_classes, seed)
    if kind == "asymmetric":
        return asymmetric(labels, rate, class_map_of(dataset), seed)
    if kind != "file":
        raise ValueError(f"expected noise out of {', '.join(KINDS)}, got {kind}")
    given, source = given_for(dataset, path, key, order=order, meant=meant)
    rows = dataset.train_rows.cpu().numpy()
    missing = int((given.labels[rows] == NO_LABEL).sum())
    if missing:
        raise ValueError(f"{path}: {missing} of {len(rows)} training examples have no label: leave them out first")
    if not by_share:
        return NoisyLabels(given.labels[rows], labels, source)
    if given.votes is None and given.counts is None:
        raise ValueError(f"{path}: expected the labels of several annotators for --targets share, got one for each")
    return NoisyLabels(
        given.labels[rows], labels, source | {"targets": "share"}, given.shares(dataset.num_classes)[rows]
    )


def _check_learnable(kind: str, rate: float, num_classes: int) -> None:
    """Refuse noise after which the given label says less of the true class than another one, or nothing."""
    limit = 1 - 1 / num_classes if kind == "symmetric" else 0.5
    if rate >= limit:
        raise ValueError(
            f"expected a rate of {kind} noise below {limit:g} with {num_classes} classes, got {rate:g}: the true class "
            "would no longer be the most frequent among the labels; --meant takes it as it is"
        )


def class_map_of(dataset: Dataset) -> dict[int, int]:
    """Return the mistakes of asymmetric noise: CIFAR's usual ones, else each class for the next one round."""
    if dataset.name == "cifar10":
        return CIFAR10_CLASS_MAP
    if dataset.name == "cifar100":
        return next_in_superclass()
    return {label: (label + 1) % dataset.num_classes for label in range(dataset.num_classes)}


def symmetric(labels: npt.ArrayLike, rate: float, num_classes: int, seed: int) -> NoisyLabels:
    """Relabel `round(rate * n)` randomly chosen examples, evenly over the other classes.

    Within each true class the numbers sent to the other classes differ by at most one.

    Args:
        labels: (n,) true class indices in [0, num_classes).
        rate: share of labels to change, in [0, 1].
        num_classes: number of classes C >= 2.
        seed: the same seed gives the same noise.

    """
    clean = _as_labels(labels)
    _check_rate(rate)
    if num_classes < 2:
        raise ValueError(f"symmetric noise needs at least 2 classes, got {num_classes}")
    if clean.size and clean.max() >= num_classes:
        raise ValueError(f"expected labels below {num_classes}, got {clean.max()}")
    generator = np.random.default_rng(seed)
    changed = generator.permutation(clean.size)[: round(rate * clean.size)]
    noisy = clean.copy()
    for label in range(num_classes):
        rows = changed[clean[changed] == label]
        # Dealing the other classes round, in a random order, keeps their counts within one of each other.
        others = generator.permutation(np.delete(np.arange(num_classes), label))
        noisy[rows] = np.resize(others, rows.size)
    return NoisyLabels(noisy, clean)


def asymmetric(labels: npt.ArrayLike, rate: float, class_map: Mapping[int, int], seed: int) -> NoisyLabels:
    """Relabel `round(rate * n_c)` examples of each class c in the map to `class_map[c]`.

    Args:
        labels: (n,) true class indices.
        rate: share of each mapped class to change, in [0, 1]; classes outside the map stay as they are.
        class_map: true class -> the class it is mistaken for.
        seed: the same seed gives the same noise.

    """
    clean = _as_labels(labels)
    _check_rate(rate)
    generator = np.random.default_rng(seed)
    noisy = clean.copy()
    for label, mistaken in sorted(class_map.items()):
        rows = generator.permutation(np.flatnonzero(clean == label))
        noisy[rows[: round(rate * rows.size)]] = mistaken
    return NoisyLabels(noisy, clean)


def next_in_superclass(superclass: npt.ArrayLike = CIFAR100_SUPERCLASS) -> dict[int, int]:
    """Map each class to the next one of its superclass, the last to the first.

    Args:
        superclass: (C,) superclass of each class; CIFAR-100's unless given.

    """
    groups = np.asarray(superclass)
    class_map: dict[int, int] = {}
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group).tolist()
        class_map |= dict(zip(members, members[1:] + members[:1], strict=True))
    return class_map


def from_file(
    path: str | Path, labels: npt.ArrayLike, *, key: str | None = None, num_classes: int | None = None
) -> NoisyLabels:
    """Read noisy labels from a file, of any format of data.tables, for examples in the file's order.

    Args:
        path: the label file; its true labels, if it has some, must equal labels.
        labels: (n,) true class indices; the file must hold as many.
        key: name of the array inside a file that holds more than one besides the true labels.
        num_classes: if given, labels of the file must be below it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file does not hold n non-negative integers, has no array `key`, or is for other examples.

    """
    clean = _as_labels(labels)
    examples = Examples(clean, np.iinfo(np.int64).max if num_classes is None else num_classes)
    given = read_labels(Path(path), key, examples)
    if given.true is not None:
        check_order(Path(path), given, examples, truth_known=True)
    return NoisyLabels(_as_labels(given.labels), clean)


def _as_labels(labels: npt.ArrayLike) -> IntArray:
    array = np.asarray(labels)
    if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
        raise ValueError(f"expected one integer label an example, got {array.dtype} of shape {array.shape}")
    if array.size and array.min() < 0:
        raise ValueError(f"expected labels of 0 or more, got {array.min()}")
    return array.astype(np.int64)


def _check_rate(rate: float) -> None:
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"expected a noise rate in [0, 1], got {rate}")
