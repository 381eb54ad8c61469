"""What the operators return, without computing it: shapes and dtypes for torch.compile, export and meta tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import register_fake

from .checks import check_tensors
from .out_checks import check_like


def _of_loss(logits: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """Return a tensor of the loss's dtype."""
    return logits.new_empty(shape, dtype=torch.float64 if logits.dtype is torch.float64 else torch.float32)


def _loss(
    logits: Tensor,
    target: Tensor,
    formula: list[float],
    weight: Tensor | None,
    sample_weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    *_: Any,
) -> Tensor:
    check_tensors(logits, target, weight, sample_weight)
    return _of_loss(logits, target.shape if reduction == 0 else ())


def _loss_and_out(logits: Tensor, target: Tensor, *rest: Any) -> Tensor:
    check_like(logits, rest[-1])
    return _loss(logits, target, *rest)


def _row_stats(logits: Tensor, target: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    check_tensors(logits, target, None)
    return _of_loss(logits, target.shape), _of_loss(logits, target.shape)


register_fake("imae_ext::forward", _loss)
for _name in ("forward_backward", "traced_forward_backward"):
    register_fake(f"imae_ext::{_name}", lambda logits, *rest: (_loss(logits, *rest), torch.empty_like(logits)))
register_fake("imae_ext::forward_backward_out", _loss_and_out)
register_fake("imae_ext::forward_backward_", _row_stats)
for _name in ("forward_save", "traced_forward_save"):
    register_fake(
        f"imae_ext::{_name}",
        lambda logits, target, *rest: (
            _loss(logits, target, *rest),
            _of_loss(logits, (target.numel(), 4)),
            _of_loss(logits, ()),
        ),
    )
register_fake(
    "imae_ext::binary_forward",
    lambda logits, *rest: (_of_loss(logits, logits.shape if rest[-1] == 0 else ()), _of_loss(logits, ())),
)
register_fake(
    "imae_ext::binary_backward",
    lambda logits, *_: logits.new_empty(logits.shape) if not logits.is_contiguous() else torch.empty_like(logits),
)
register_fake(
    "imae_ext::dense_forward",
    lambda logits, *rest: (_of_loss(logits, logits.shape[:1] if rest[-1] == 0 else ()), _of_loss(logits, ())),
)
register_fake("imae_ext::dense_backward", lambda logits, *_: logits.new_empty(logits.shape))
register_fake("imae_ext::backward", lambda logits, *_: torch.empty_like(logits))
register_fake("imae_ext::scale_", lambda grad, *_: None)
register_fake("imae_ext::row_stats", _row_stats)
