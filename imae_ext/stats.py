"""What row_stats returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class RowStats(NamedTuple):
    """Statistics of each example, of the target's shape; 0 for ignored rows."""

    p: Tensor
    """The softmax probability of the label."""
    example_weight: Tensor
    """How hard the example pulls, as :func:`imae_ext.row_stats` says."""
