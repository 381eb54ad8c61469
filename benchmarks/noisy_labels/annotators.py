"""Several labels for an example: the class that most annotators gave, and the share of each class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
NO_LABEL = -1  # of an annotator who did not see the example


def majority(votes: npt.ArrayLike) -> tuple[IntArray, int]:
    """Choose the class that most annotators gave; of classes with as many, the one that the first of them gave.

    Args:
        votes: (N, A) class indices, -1 where an annotator gave none.

    Returns:
        (N,) int64, -1 where nobody gave a label; and how many examples had a tie.

    """
    given = np.asarray(votes, dtype=np.int64)
    if given.ndim != 2 or (given.size and given.min() < NO_LABEL):
        raise ValueError(f"expected votes of shape (N, A) of -1 or more, got shape {given.shape}")
    rows = np.arange(len(given))
    # How many annotators agree with each vote: by pairs of annotators, of which there are few.
    agreeing = np.stack([(given == given[:, [a]]).sum(axis=1) for a in range(given.shape[1])], axis=1)
    agreeing = np.where(given == NO_LABEL, 0, agreeing)
    best = agreeing.argmax(axis=1)
    chosen = np.where(agreeing[rows, best] > 0, given[rows, best], NO_LABEL)
    most = agreeing.max(axis=1, keepdims=True)
    tied = ((agreeing == most) & (most > 0) & (given != chosen[:, None])).any(axis=1)
    return chosen, int(tied.sum())


def shares(votes: npt.ArrayLike, num_classes: int) -> npt.NDArray[np.float32]:
    """Compute the share of the annotators who gave each class.

    Args:
        votes: (N, A) class indices below num_classes, -1 where an annotator gave none.
        num_classes: C.

    Returns:
        (N, C), the rows summing to 1, or to 0 where nobody gave a label.

    """
    given = np.asarray(votes, dtype=np.int64)
    if given.ndim != 2 or (given.size and not NO_LABEL <= given.min() <= given.max() < num_classes):
        raise ValueError(f"expected votes of shape (N, A) from -1 to {num_classes - 1}, got shape {given.shape}")
    counts = np.stack([(given == label).sum(axis=1) for label in range(num_classes)], axis=1)
    return shares_of_counts(counts)


def shares_of_counts(counts: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Divide each row of (N, C) counts or probabilities by its sum; a row of zeros stays."""
    given = np.asarray(counts, dtype=np.float64)
    return (given / np.maximum(given.sum(axis=1, keepdims=True), 1e-300)).astype(np.float32)
