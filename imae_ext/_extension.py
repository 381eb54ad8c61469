"""Loads the compiled module, or says once that it is missing."""

from __future__ import annotations

import importlib
import os
import warnings
from pathlib import Path
from types import ModuleType

compiled: ModuleType | None = None
try:
    import torch  # noqa: F401  its libraries must be loaded before ours

    compiled = importlib.import_module("imae_ext._C")
except ImportError as error:
    if os.environ.get("IMAE_EXT_REQUIRE") == "1":
        raise
    warnings.warn(
        f"imae_ext: the compiled extension could not be loaded from {Path(__file__).parent} ({error}); the losses run "
        "in plain torch, slower. Install a wheel, or build it with: pip install --no-build-isolation -e .",
        RuntimeWarning,
        stacklevel=2,
    )
