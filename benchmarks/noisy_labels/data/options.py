"""What the readers of data sets are asked for, and what all of them check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .dataset import held_out, order_by_class


@dataclass(frozen=True)
class Options:
    """What the caller of load asked for.

    Attributes:
        directory: of the files.
        validation: size of the part held out from training, or None for the data set's default.
        seed: of every split.
        size: side of the images, where they are scaled when read, or None for the default.
        split: the published list to train on, where there are several.
        fold: "none" to hold nothing out, "2/5" to hold the second fifth out as the test part, or None for the default.
        labels: the file that a list of images is.

    """

    directory: Path
    validation: int | None = None
    seed: int = 0
    size: int | None = None
    split: str | None = None
    fold: str | None = None
    labels: Path | None = None


def refuse_size(name: str, options: Options) -> None:
    """Refuse a size for images that are all of one size as published."""
    if options.size is not None:
        raise ValueError(f"{name} has images of one size, expected no size, got {options.size}")


def refuse_validation(name: str, options: Options) -> None:
    """Refuse to make a validation part where the data set has one."""
    if options.validation is not None:
        raise ValueError(f"{name} has a validation part of its own, expected no size of it, got {options.validation}")


def check_labels(labels: Tensor, num_classes: int, path: Path | str) -> None:
    """Refuse labels (n,) int64 outside [0, num_classes)."""
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise ValueError(f"{path}: expected labels from 0 to {num_classes - 1}, got {int(wrong[0])}")


def as_labels(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def split_off(labels: Tensor, parts: Sequence[str], options: Options) -> tuple[Tensor, dict[str, Tensor]]:
    """Choose, by class, the rows of the parts that have no files of their own.

    Args:
        labels: (n,) int64, of the whole training set.
        parts: out of "val" and "test".
        options: fold and validation say how much is held out; by default a tenth for each part.

    Returns:
        The rows that training keeps, and those of each part.

    """
    rows, chosen = torch.arange(len(labels)), {part: torch.arange(0) for part in parts}
    if options.fold == "none":
        return rows, chosen
    if options.fold is not None:
        number, folds = _fold(options.fold)
        if "test" not in parts:
            raise ValueError(f"expected a folder without test/ to hold fold {options.fold} out of")
        order = order_by_class(labels, options.seed)
        test = torch.tensor_split(order, folds)[number - 1].sort().values
        kept = torch.ones(len(labels), dtype=torch.bool)
        kept[test] = False
        return rows[kept], chosen | {"test": test}
    for part in ("test", "val"):
        if part in parts:
            asked = options.validation if part == "val" else None
            kept, out = held_out(labels[rows], tenth(len(labels)) if asked is None else asked, options.seed)
            chosen[part], rows = rows[out], rows[kept]
    return rows, chosen


def _fold(text: str) -> tuple[int, int]:
    """Read "2/5" as the second of five."""
    number, _, folds = text.partition("/")
    if not (number.isdecimal() and folds.isdecimal() and 1 <= int(number) <= int(folds) and int(folds) >= 2):
        raise ValueError(f"expected a fold as 2/5, the second of five, or none, got {text!r}")
    return int(number), int(folds)


def tenth(count: int) -> int:
    """Return the size of a part held out where nothing else is asked for."""
    return max(1, round(count / 10))
