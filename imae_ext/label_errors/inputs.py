"""What the search for wrong labels accepts, and what it says of what it does not accept."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]
TOLERANCE = 1e-3  # of the sum of a row of probabilities, which float16 rounds


def check_cutoff(cutoff: object, names: tuple[str, ...] = ()) -> None:
    """Check that the cut-off is a probability, or one of the names."""
    if isinstance(cutoff, str) and cutoff in names:
        return
    if not isinstance(cutoff, Real) or isinstance(cutoff, bool):
        kinds = " or ".join(["a number in [0, 1]", *map(repr, names)])
        raise TypeError(f"imae_ext: expected cutoff to be {kinds}, got {cutoff!r}")
    if not 0 <= float(cutoff) <= 1:
        raise ValueError(f"imae_ext: expected cutoff in [0, 1], got {cutoff}; p is a probability")


def as_outputs(outputs: Tensor | npt.ArrayLike, probabilities: bool | None) -> Tensor:
    """Return a model's outputs (N, C) as a floating tensor where they are, or on the CPU if float64 is not there."""
    z = outputs.detach() if isinstance(outputs, Tensor) else _tensor("logits", outputs)
    if not z.is_floating_point():
        hint = "; the outputs come first, then the labels" if z.dim() == 1 else ""
        raise TypeError(f"imae_ext: expected logits of a floating dtype, got {z.dtype}{hint}")
    if z.dim() != 2:
        hint = ""
        if z.dim() == 1:
            hint = "; of one logit x for each example of two classes make two: torch.stack([0 * x, x], 1)"
        elif z.dim() > 2:
            hint = "; if the classes are second, pass logits.movedim(1, -1).flatten(0, -2) and target.flatten()"
        raise ValueError(f"imae_ext: expected logits of shape (N, C), got {tuple(z.shape)}{hint}")
    if z.shape[1] < 2:
        raise ValueError(f"imae_ext: expected at least 2 classes, got logits of shape {tuple(z.shape)}")
    z = z if z.device.type in ("cpu", "cuda") else z.cpu()
    if probabilities is not False and len(z):
        _check_probabilities(z, probabilities)
    return z


def _check_probabilities(z: Tensor, announced: bool | None) -> None:
    """Check that rows are probabilities if they are said to be, and are none if nothing is said."""
    sums = z.double().sum(1)
    fits = (z >= 0).all(1) & (z <= 1 + TOLERANCE).all(1) & ((sums - 1).abs() <= TOLERANCE * max(1, z.shape[1] // 100))
    if announced and not fits.all():
        i = int((~fits).int().argmax())
        raise ValueError(
            "imae_ext: expected probabilities in [0, 1], the rows of which sum to 1, got "
            f"{z[i].tolist()[:8]} at row {i}; logits and log-probabilities want probabilities=False"
        )
    if announced is None and fits.all():
        raise ValueError(
            "imae_ext: expected logits, got rows of numbers in [0, 1] that sum to 1: pass probabilities=True if they "
            "are probabilities, False if they are logits nevertheless"
        )


def as_classes(target: Tensor | npt.ArrayLike) -> Tensor:
    """Return integer labels as an int64 tensor on the CPU."""
    y = target.detach().cpu() if isinstance(target, Tensor) else _tensor("target", target)
    if y.numel() == 0 and not isinstance(target, Tensor):
        y = y.long()  # an empty list is of floats
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        hint = "pass target.argmax(1)" if y.dim() == 2 else "if it holds classes, convert it to int64"
        raise TypeError(f"imae_ext: expected target of integers, got {y.dtype}; {hint}")
    return y.long()


def as_features(features: Tensor | npt.ArrayLike) -> Array:
    """Return features as a floating array (N, d) without NaN or infinity; not a copy if that can be."""
    if isinstance(features, Tensor):
        t = features.detach().cpu()
        x: Array = (t.float() if t.dtype == torch.bfloat16 else t).numpy()
    else:
        x = np.asarray(features)
    if x.dtype.kind not in "fiub":
        raise TypeError(
            f"imae_ext: expected features to be numbers, got dtype {x.dtype}; make columns of text or categories "
            "numbers first, as one-hot columns"
        )
    if x.ndim != 2 or not x.size:
        hint = "; pass features.reshape(len(features), -1)" if x.ndim > 2 else ""
        hint = "; for a single column pass features[:, None]" if x.ndim == 1 and x.size else hint
        raise ValueError(f"imae_ext: expected features of shape (N, d), got {x.shape}{hint}")
    finite = np.isfinite(x)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(
            f"imae_ext: expected finite features, got {x[row, column]} at row {row}, column {column} "
            f"({int((~finite).sum())} such numbers in {int((~finite).any(axis=1).sum())} rows); fill them in or leave "
            "those rows out"
        )
    return x if x.dtype.kind == "f" else x.astype(np.float32)


def as_labels(labels: Tensor | npt.ArrayLike, N: int) -> tuple[Array, npt.NDArray[np.int64], Array]:
    """Return the labels as given (N,), their classes (N,) int64 in [0, C), and the C names of these in order."""
    given: Array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if given.shape != (N,):
        hint = "; pass labels.argmax(1)" if given.ndim == 2 and given.shape[:1] == (N,) and given.shape[1] > 1 else ""
        hint = "; pass labels[:, 0]" if given.shape == (N, 1) else hint
        raise ValueError(
            f"imae_ext: expected labels of shape ({N},), one for each row of features, got {given.shape}{hint}"
        )
    if given.dtype.kind == "O":
        missing = [i for i, label in enumerate(given) if label is None or label != label]
        if missing:
            raise ValueError(f"imae_ext: expected a label in each row, got {given[missing[0]]} at row {missing[0]}")
        kinds = sorted({type(label).__name__ for label in given})
        if len(kinds) > 1:
            raise TypeError(f"imae_ext: expected labels of one type, got {', '.join(kinds)}")
    elif given.dtype.kind == "f" and not (np.isfinite(given) & (given == np.round(given))).all():
        i = int((~np.isfinite(given) | (given != np.round(given))).argmax())
        raise ValueError(
            f"imae_ext: expected labels to be classes, got {given[i]} at row {i}; leave rows without a label out"
        )
    names, classes, counts = np.unique(given, return_inverse=True, return_counts=True)
    if (counts > 1).sum() < 2:
        found = f"only {names[0]!r}" if len(names) == 1 else f"{len(names)} labels, at most one of them twice"
        raise ValueError(f"imae_ext: expected at least two classes with two examples each, got {found}")
    return given, classes.astype(np.int64), names


def _tensor(name: str, values: npt.ArrayLike) -> Tensor:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"imae_ext: expected {name} to be a tensor or an array of numbers, got dtype {array.dtype}")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if not array.dtype.isnative or array.dtype in (np.uint16, np.uint32, np.uint64):
        array = array.astype(array.dtype.newbyteorder("=") if array.dtype.kind == "f" else np.int64)
    return torch.tensor(np.ascontiguousarray(array), device="cpu")  # torch takes no negative strides
