"""Files of labels: arrays of numpy's, text, and CIFAR-N's dictionaries, none of which can run code when read."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

CLEAN_KEY = "clean_label"  # CIFAR-N's name of the true labels beside the wrong ones

_RECONSTRUCT = np.empty(0).__reduce__()[0]
# What an array of integers is made of in a .pt file, under numpy's old name of its module and the new one.
_SAFE: list[Any] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in np.typecodes["AllInteger"]),
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),
    (_RECONSTRUCT, "numpy._core.multiarray._reconstruct"),
]


def read_labels(path: Path, key: str | None) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Read a label file: .npy, .npz, CIFAR-N's .pt, or text with one integer a line.

    Args:
        path: the file.
        key: of the array in an .npz or .pt file; may be None if there is but one besides the true labels.

    Returns:
        The labels, and the true labels if the file has them under "clean_label"; as they are, unchecked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, has no array `key`, or more than labels.

    """
    if not path.is_file():
        raise FileNotFoundError(f"expected a label file, got {path}, which is not there")
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False), None
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                arrays = dict(archive)
        elif path.suffix == ".pt":
            arrays = _read_pt(path)
        else:
            return np.loadtxt(path, dtype=np.int64, ndmin=1), None
    except Exception as error:  # by a damaged file: almost any error
        raise ValueError(f"{path}: not a readable label file: {error}") from error
    wrong = [name for name in arrays if name != CLEAN_KEY]
    if key is None and len(wrong) == 1:
        key = wrong[0]
    if key is None or key not in arrays:
        raise ValueError(f"{path} holds {', '.join(arrays)}: give one of them as key, got {key}")
    return arrays[key], arrays.get(CLEAN_KEY)


def _read_pt(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read a dict of arrays that torch.save wrote; CIFAR-100N's lists of coarse labels are left out."""
    try:
        with torch.serialization.safe_globals(_SAFE):
            loaded = torch.load(path, weights_only=True)
    except pickle.UnpicklingError as error:  # whose message recommends to read the file in an unsafe way
        raise ValueError("it is damaged, or holds more than numbers") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"expected a dict of arrays, got {type(loaded).__name__}")
    arrays = {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in loaded.items()}
    return {name: value for name, value in arrays.items() if isinstance(value, np.ndarray)}
