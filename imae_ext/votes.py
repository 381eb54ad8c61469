"""Several annotators' labels as one target."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

from ._signature import explained
from .checks import expect_dense, not_ignored


@explained
def vote_shares(votes: Tensor, num_classes: int, *, missing: int = -1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the share of each class among the labels that several annotators gave an example.

    The result is a target for every loss. A row without a vote is all zeros: as a target it has value 0 and gradient
    0. ``shares.argmax(1)`` is the majority's label, the lowest one of a tie.

    Args:
      votes: ``(N, A)``, int64 or int32: a label in ``[0, num_classes)`` from each of ``A`` annotators, or ``missing``.
      num_classes: ``C``.
      missing: what stands where an annotator gave no label.
      dtype: of the result.

    Returns:
      ``(N, C)``; each row with a vote sums to 1.

    Raises:
      TypeError: votes of another type or dtype; a dtype that is not floating.
      ValueError: votes of another shape, or no class.
      IndexError: on a CPU, a label that is neither a class nor ``missing``. (On a GPU its row is NaN.)

    Example:
      >>> vote_shares(torch.tensor([[2, 2, 0], [1, -1, -1], [-1, -1, -1]]), 3)
      tensor([[0.3333, 0.0000, 0.6667],
              [0.0000, 1.0000, 0.0000],
              [0.0000, 0.0000, 0.0000]])
    """
    if not isinstance(votes, Tensor) or votes.dtype not in (torch.int64, torch.int32):
        got = votes.dtype if isinstance(votes, Tensor) else type(votes).__name__
        raise TypeError(f"imae_ext: expected votes of dtype int64 or int32, got {got}")
    expect_dense("votes", votes)
    if votes.dim() != 2:
        raise ValueError(f"imae_ext: expected votes of shape (N, A), got {tuple(votes.shape)}")
    if not isinstance(num_classes, Integral) or num_classes < 1:
        raise ValueError(f"imae_ext: expected num_classes to be a number of classes, got {num_classes!r}")
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"imae_ext: expected dtype to be a floating one, got {dtype!r}")
    given = not_ignored(votes, missing)
    wrong = given & ((votes < 0) | (votes >= num_classes))
    if votes.device.type == "cpu" and bool(wrong.any()):
        row, annotator = wrong.nonzero()[0].tolist()
        raise IndexError(
            f"imae_ext: expected votes in [0, {num_classes}) or missing={missing}, "
            f"got {int(votes[row, annotator])} at row {row}, annotator {annotator}"
        )
    label = torch.where(given & ~wrong, votes, 0).long()
    one = torch.where(wrong, torch.nan, given.to(dtype))
    counts = torch.zeros(votes.shape[0], num_classes, dtype=dtype, device=votes.device).scatter_add(1, label, one)
    return counts / counts.sum(1, keepdim=True).clamp(min=1)
