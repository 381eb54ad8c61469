"""Loads the compiled module, says once that it is missing, and refuses one that was built from other sources."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType

# What the Python files expect of the compiled module: raised with every change of its operators, their arguments or
# what they mean, as tests/test_interface.py demands. setup.py compiles it into the module.
INTERFACE = 3

BUILD = "pip install --no-build-isolation -e ."


def stale(what: str) -> ImportError:
    """Make the error for a compiled module that does not belong to these Python files."""
    return ImportError(
        f"imae_ext: the compiled module in {Path(__file__).parent} was built from other sources (it {what}); build "
        f"again, in the folder of the clone: {BUILD}"
    )


def _level_of_the_import() -> int:
    """Count the frames up to the file that imports the package: warnings counts those of importlib out, too."""
    level, frame = 1, sys._getframe(1)
    inside = (str(Path(__file__).parent) + os.sep, "<frozen importlib")
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        level += not frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back
    return level


compiled: ModuleType | None = None
missing_because = ""
try:
    import torch  # noqa: F401  its libraries must be loaded before ours

    compiled = importlib.import_module("imae_ext._C")
except ImportError as error:
    if os.environ.get("IMAE_EXT_REQUIRE") == "1":
        raise
    missing_because = str(error)
    warnings.warn(
        f"imae_ext: the compiled extension could not be loaded from {Path(__file__).parent} ({error}); the losses run "
        f"in plain torch, slower. Install a wheel, or build it with: {BUILD}",
        RuntimeWarning,
        stacklevel=_level_of_the_import(),
    )
if compiled and getattr(compiled, "interface", None) != INTERFACE:
    raise stale(f"has interface {getattr(compiled, 'interface', 'none')}, not {INTERFACE}")
