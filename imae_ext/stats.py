"""What row_stats returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class RowStats(NamedTuple):
    """Statistics of each example, of the target's shape; 0 for ignored rows; None where not asked for."""

    p: Tensor
    """The softmax probability of the label."""
    example_weight: Tensor | None
    """How hard the example pulls, as :func:`imae_ext.row_stats` says; None without a formula."""
    log_p: Tensor | None = None
    """The logarithm of ``p``."""
    entropy: Tensor | None = None
    """That of the softmax, in nats."""
    sum_p2: Tensor | None = None
    """The sum of the squares of all probabilities: 1 for a sure network, 1/C for one that knows nothing."""
    is_top: Tensor | None = None
    """Whether no other class has a larger logit (bool)."""
