"""Pairs of handwritten digits side by side: a hundred classes made of scikit-learn's ten, without any files.

The class of a pair is the number that it shows, 00 to 99. It is a task with many classes that a small network learns in
minutes, and nothing more: as images, its classes have far more in common than a hundred kinds of things have.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .dataset import Dataset, Examples
from .options import Options, refuse_size, refuse_validation
from .scikit import digits

TRAIN, VALIDATION, TEST = 60, 10, 20  # pairs of each class


def digit_pairs(options: Options) -> Dataset:
    """Make 6,000 training, 1,000 validation and 2,000 test pairs, each class in like number.

    The digits of a part are those of the digits' own part: no image is in two parts. Within a part an image is in
    several pairs, and no pair is there twice.
    """
    refuse_size("digit-pairs", options)
    refuse_validation("digit-pairs", options)
    singles = digits(options.seed)
    parts = zip((singles.train, singles.validation, singles.test), (TRAIN, VALIDATION, TEST), strict=True)
    train, validation, test = (_pairs(part, count, options.seed) for part, count in parts)
    return Dataset("digit-pairs", 100, train, validation, test, tuple(f"{number:02}" for number in range(100)))


def _pairs(singles: Examples, each: int, seed: int) -> Examples:
    """Put images (n, 64) side by side: 100 * each of (128,), the classes in order."""
    generator = np.random.default_rng(seed)
    images = singles.inputs[torch.arange(len(singles))].reshape(-1, 8, 8)
    of_class = [np.flatnonzero(singles.labels.numpy() == label) for label in range(10)]
    found: list[Tensor] = []
    for number in range(100):
        left, right = of_class[number // 10], of_class[number % 10]
        chosen = generator.choice(len(left) * len(right), each, replace=False)
        pair = images[left[chosen // len(right)]], images[right[chosen % len(right)]]
        found.append(torch.cat(pair, dim=2).flatten(1))
    return Examples(torch.cat(found), torch.arange(100).repeat_interleave(each))
