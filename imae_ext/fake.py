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
    weight: Tensor | None = None,  # as in the schema of forward_backward: torch leaves out what is equal to it
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: int = 1,
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
for _name in ("forward_backward", "forward_backward_mean", "traced_forward_backward"):
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


def _gradient(logits: Tensor, *_: Any) -> Tensor:
    return logits.new_empty(logits.shape)


for _name, _dims in (("binary", None), ("dense", 1), ("mixed", 1)):  # of a loss without reduction

    def _of_rows(logits: Tensor, *rest: Any, _dims: int | None = _dims) -> Tensor:
        return _of_loss(logits, logits.shape[:_dims] if rest[-1] == 0 else ())

    register_fake(f"imae_ext::{_name}_forward", lambda *args, _of=_of_rows: (_of(*args), _of_loss(args[0], ())))
    register_fake(f"imae_ext::{_name}_forward_backward", lambda *args, _of=_of_rows: (_of(*args), _gradient(*args)))
    register_fake(f"imae_ext::{_name}_backward", _gradient)
register_fake("imae_ext::backward", lambda logits, *_: torch.empty_like(logits))
register_fake("imae_ext::scale_", lambda grad, *_: None)
register_fake("imae_ext::row_stats", _row_stats)


def _described(
    logits: Tensor, target: Tensor, formula: list[float], ignore_index: int, *asked: bool
) -> tuple[Tensor, ...]:
    check_tensors(logits, target, None)
    *numbers, is_top = (_of_loss(logits, target.shape if wish else (0,)) for wish in (True, True, *asked))
    return *numbers, is_top.bool()


register_fake("imae_ext::describe_rows", _described)
