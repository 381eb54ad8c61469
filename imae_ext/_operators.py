"""The modules that call the compiled operators, or an error that the build is of other sources than these."""

from __future__ import annotations

from ._extension import stale

try:
    from . import binary_ops, fake, ops, soft_ops, stats_ops
except (AttributeError, RuntimeError) as error:
    if "imae_ext" not in str(error):
        raise
    raise stale("has other operators") from error

__all__ = ["binary_ops", "fake", "ops", "soft_ops", "stats_ops"]
