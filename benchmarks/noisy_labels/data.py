"""Data sets as tensors, in three parts: training, validation (clean, for choosing rates) and test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

DIGITS_TEST = 360
DIGITS_VALIDATION = 237  # leaves 1,200 of the 1,797 images for training


@dataclass(frozen=True, eq=False)
class Examples:
    """inputs: (n, features) float32; labels: (n,) int64, the true classes."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with a fixed split; every label in it is the true one."""

    name: str
    num_classes: int
    train: Examples
    validation: Examples
    test: Examples


def digits(seed: int = 0) -> Dataset:
    """Load the 1,797 handwritten digits of scikit-learn, 8 x 8 pixels scaled to [0, 1].

    Split by class into 1,200 training, 237 validation and 360 test images.

    Args:
        seed: of the split; the experiments all use the same one.

    """
    inputs, labels = load_digits(return_X_y=True)
    inputs = (inputs / 16.0).astype(np.float32)
    rest_x, test_x, rest_y, test_y = train_test_split(
        inputs, labels, test_size=DIGITS_TEST, stratify=labels, random_state=seed
    )
    train_x, validation_x, train_y, validation_y = train_test_split(
        rest_x, rest_y, test_size=DIGITS_VALIDATION, stratify=rest_y, random_state=seed
    )
    return Dataset(
        "digits",
        10,
        _examples(train_x, train_y),
        _examples(validation_x, validation_y),
        _examples(test_x, test_y),
    )


def _examples(inputs: np.ndarray, labels: np.ndarray) -> Examples:
    return Examples(torch.from_numpy(inputs), torch.from_numpy(labels.astype(np.int64)))
