"""What the readers of data sets are asked for, and what all of them check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class Options:
    """What the caller of load asked for.

    Attributes:
        directory: of the files.
        validation: size of the part held out from training, or None for the data set's default.
        seed: of every split.
        size: side of the images, where they are scaled when read, or None for the default.

    """

    directory: Path
    validation: int | None = None
    seed: int = 0
    size: int | None = None


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


def tenth(count: int) -> int:
    """Return the size of a part held out where nothing else is asked for."""
    return max(1, round(count / 10))
