"""Imports imae_ext while torch lacks a private name, as after an update: IMAE_WITHOUT=NAME pytest -p without_name."""

from __future__ import annotations

import os
import warnings
from functools import reduce

import torch


def without(name: str) -> list[str]:
    """Import imae_ext without a name of torch, and return the warnings.

    What torch itself does without it is its own affair: it is put back once the package has looked.
    """
    *path, last = name.split(".")
    owner = reduce(getattr, path, torch)
    kept = getattr(owner, last)
    delattr(owner, last)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import imae_ext
    setattr(owner, last, kept)
    assert imae_ext._torch.missing == [f"torch.{name}"]
    return [str(each.message) for each in caught if each.category is RuntimeWarning]


if os.environ.get("IMAE_WITHOUT"):
    without(os.environ["IMAE_WITHOUT"])
