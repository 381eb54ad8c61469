"""Label files for a data set: which of a file's arrays are the labels, and what they say of each example."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .annotators import NO_LABEL, IntArray, majority, shares, shares_of_counts
from .data.tables import Array, Table, read_table, whole_numbers
from .label_rows import Examples, read_order, rows_of

# What published files call the true labels beside the wrong ones.
CLEAN_KEYS = (
    *("clean_label", "clean_labels", "clean_label_train", "label_clean", "true_label", "true_labels", "label_orig"),
    *("clean", "clean100", "clean_targets", "gt", "gt_label", "ground_truth", "y_true", "y_clean", "original_label"),
)
# Names that are the true labels if another column is called after noise: `label,label_noisy`, `label,given_label`.
CLEAN_BESIDE_NOISY = ("label", "labels", "target", "targets", "y", "class", "true", "original")
NOISY = re.compile(r"nois|worse|worst|aggre|random_label|given|corrupt|crowd|human", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Given:
    """Labels from a file.

    Attributes:
        labels: (N,) int64, -1 where an example has none.
        votes: (N, A) int64, where the file has several annotators.
        counts: (N, C), where it has a number for each class.
        true: (N,) int64, the true labels that the file has, if it has them.
        key: of the labels in the file; "" if they have no name there.
        true_key: of the true labels.
        ties: examples for which two classes had as many votes.

    """

    labels: IntArray
    votes: IntArray | None
    counts: npt.NDArray[np.float64] | None
    true: IntArray | None
    key: str
    true_key: str
    ties: int

    def shares(self, num_classes: int) -> npt.NDArray[np.float32]:
        """Compute for each example the share of each class, (N, C); zeros where it has no label."""
        if self.counts is not None:
            return shares_of_counts(self.counts)
        votes = self.labels[:, None] if self.votes is None else self.votes
        return shares(votes, num_classes)


def read_labels(path: Path, key: str | None, examples: Examples, order: Path | None = None) -> Given:
    """Read the labels of a data set from a file.

    Args:
        path: of the file, of any format of data.tables.
        key: of the labels in it, or of several annotators' with commas between; None if only one array can be meant.
        examples: that the labels are for.
        order: of a file that says of each of its rows which example it is, such as CIFAR-N's image_order_c10.npy.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, has no such key, or does not fit the data set; the message names file and keys.

    """
    table = read_table(path)
    rows = rows_of(table, examples)
    if order is not None:
        if table.files:
            raise ValueError(f"{path} names its files: expected no --order, got {order}")
        rows = read_order(order, len(examples.labels))
    names = {name.strip().lower(): label for label, name in enumerate(map(str, examples.names))}
    keys = _keys(table, key, len(rows), examples)
    columns = [_fitting(table, one, rows, examples) for one in keys]
    true_key = _true_key(table, keys)
    true = None
    if true_key is not None:
        clean = _fitting(table, true_key, rows, examples)
        true = _placed(_classes(table, true_key, clean, names), rows, len(examples.labels))
    counts = _counts(table, keys, columns, examples)
    votes = None
    if counts is not None:
        counts = _placed(counts, rows, len(examples.labels), 0.0)
        best = counts.argmax(axis=1)
        labels = np.where(counts.max(axis=1) > 0, best, NO_LABEL)
        ties = int(((counts == counts.max(axis=1, keepdims=True)).sum(axis=1) > 1)[labels != NO_LABEL].sum())
    else:
        given = np.concatenate(
            [
                _classes(table, one, values, names).reshape(len(rows), -1)
                for one, values in zip(keys, columns, strict=True)
            ],
            axis=1,
        )
        given = _placed(given, rows, len(examples.labels))
        _check_range(table, given, examples.num_classes)
        labels, ties = majority(given)
        votes = given if given.shape[1] > 1 else None
    return Given(labels, votes, counts, true, ",".join(keys), true_key or "", ties)


def _keys(table: Table, key: str | None, count: int, examples: Examples) -> list[str]:
    """Choose the arrays that are the labels."""
    if key is not None:
        keys = [key] if key in table.columns else [one.strip() for one in key.split(",")]
        missing = [one for one in keys if one not in table.columns]
        if missing:
            raise ValueError(f"{table.path} has no {', '.join(missing)}: expected a key out of {table.says()}")
        return keys
    possible = [
        name
        for name, values in table.columns.items()
        if name not in CLEAN_KEYS and "coarse" not in name and _fits(values, count, examples)
    ]
    noisy = [name for name in possible if NOISY.search(name)]
    if len(noisy) == 1 and all(name in noisy or name in CLEAN_BESIDE_NOISY for name in possible):
        return noisy
    if len(possible) == 1:
        return possible
    if len(table.columns) == 1:
        return list(table.columns)  # and say then what does not fit
    raise ValueError(f"{table.path} holds {table.says()}: give one of them as key, got none")


def _fits(values: Array, count: int, examples: Examples) -> bool:
    return count in values.shape and (
        values.dtype.kind == "U" or whole_numbers(values) is not None or _is_soft(values, examples)
    )


def _fitting(table: Table, key: str, rows: IntArray, examples: Examples) -> Array:
    """Return an array with a row for each example."""
    values = table.columns[key]
    if values.ndim == 2 and values.shape[0] != len(rows) and values.shape[1] == len(rows):
        values = values.T
    if values.shape[0] != len(rows):
        hint = ""
        if examples.num_classes == 10 and values.shape[0] == 10_000 and len(examples.labels) == 50_000:
            hint = "; CIFAR-10H labels the test images, on which nothing is trained here"
        raise ValueError(
            f"{table.path}: expected {len(rows)} labels, got an array of shape {table.columns[key].shape}{hint}"
        )
    return values


def _counts(
    table: Table, keys: Sequence[str], columns: Sequence[Array], examples: Examples
) -> npt.NDArray[np.float64] | None:
    """Return (N, C) numbers for each class, where a file has these and not annotators; one array may have either."""
    values = columns[0]
    if len(keys) != 1 or values.ndim != 2 or values.shape[1] != examples.num_classes or values.dtype.kind == "U":
        return None
    if _is_soft(values, examples):
        return np.nan_to_num(values.astype(np.float64))
    if values.min() < 0:
        return None
    if values.max() >= examples.num_classes:  # no label is so large: they count votes, as CIFAR-10H's
        return values.astype(np.float64)
    raise ValueError(
        f"{table.path}: {table.says()}: as many columns as classes may be {values.shape[1]} annotators or votes for "
        "each class: divide votes by their sums, or give each annotator an array of their own"
    )


def _is_soft(values: Array, examples: Examples) -> bool:
    """Tell probabilities, and one-hot labels."""
    if values.ndim != 2 or values.shape[1] != examples.num_classes or values.dtype.kind == "U":
        return False
    given = values.astype(np.float64)
    return bool((given >= 0).all() and np.allclose(given.sum(axis=1), 1, atol=1e-3))


def _classes(table: Table, key: str, values: Array, names: dict[str, int]) -> IntArray:
    """Read labels as class indices: numbers, or names of classes; -1 where there is none."""
    if values.dtype.kind == "U":
        texts = [str(text).strip().lower() for text in values.ravel().tolist()]
        unknown = sorted({text for text in texts if text and text not in names})
        if unknown:
            expected = ", ".join(list(names)[:10]) or "numbers: its classes have no names"
            raise ValueError(f"{table.path}: {key}: expected the data set's classes, {expected}; got {unknown[0]!r}")
        return np.array([names.get(text, NO_LABEL) for text in texts]).reshape(values.shape)
    whole = whole_numbers(values)
    if whole is None:
        raise ValueError(f"{table.path}: expected one integer label an example, got {table.says()}")
    return whole


def _true_key(table: Table, keys: Sequence[str]) -> str | None:
    """Find the true labels among the arrays that are not the labels."""
    others = [name for name in table.columns if name not in keys]
    found = [name for name in CLEAN_KEYS if name in others]
    if not found and all(NOISY.search(key) for key in keys):
        found = [name for name in CLEAN_BESIDE_NOISY if name in others]
    return found[0] if found else None


def _placed(values: Array, rows: IntArray, count: int, nothing: float = NO_LABEL) -> Array:
    """Put the file's rows where their examples stand; examples that it does not name have no label."""
    placed = np.full((count, *values.shape[1:]), nothing, dtype=values.dtype)
    placed[rows] = values
    return placed


def _check_range(table: Table, labels: IntArray, num_classes: int) -> None:
    if labels.size and labels.min() < NO_LABEL:
        raise ValueError(f"{table.path}: expected labels of 0 or more, or -1 for none, got {labels.min()}")
    if labels.size and labels.max() >= num_classes:
        raise ValueError(f"{table.path}: expected labels below {num_classes}, got {labels.max()}")
    if labels.size and labels.max() == NO_LABEL:
        raise ValueError(f"{table.path}: expected labels, every one of them is -1, which means none")
