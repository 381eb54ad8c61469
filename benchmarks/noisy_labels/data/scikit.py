"""scikit-learn's handwritten digits: no files, and small enough to train on in seconds."""

from __future__ import annotations

import numpy as np
import torch

from .dataset import Dataset, Examples, Published

DIGITS_TEST = 360
DIGITS_VALIDATION = 237  # leaves 1,200 of the 1,797 images for training


def digits(seed: int = 0) -> Dataset:
    """Load the 1,797 handwritten digits of scikit-learn, 8 x 8 pixels scaled to [0, 1].

    Split by class into 1,200 training, 237 validation and 360 test images.

    Args:
        seed: of the split; the experiments all use the same one.

    """
    from sklearn.datasets import load_digits  # a second and a half, for those who need it
    from sklearn.model_selection import train_test_split

    inputs, classes = load_digits(return_X_y=True)
    rest, test = train_test_split(np.arange(len(classes)), test_size=DIGITS_TEST, stratify=classes, random_state=seed)
    train, validation = train_test_split(rest, test_size=DIGITS_VALIDATION, stratify=classes[rest], random_state=seed)
    labels = torch.from_numpy(classes.astype(np.int64))
    whole = Examples(torch.from_numpy((inputs / 16.0).astype(np.float32)), labels)
    train_part, validation_part, test_part = (
        whole.subset(torch.from_numpy(rows)) for rows in (train, validation, test)
    )
    published = Published(labels, torch.from_numpy(train))
    return Dataset("digits", 10, train_part, validation_part, test_part, published=published)
