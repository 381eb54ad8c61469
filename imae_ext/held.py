"""What another backward needs of forward's arguments, without saved tensors: these cost a twentieth of a small step."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .by_reference import Options


def changes(*tensors: Tensor | None) -> int:
    """Count how often they were written to."""
    return sum(x._version for x in tensors if x is not None)


def check_counted(*tensors: Tensor | None) -> None:
    """Refuse tensors of which nothing counts what is written to them."""
    if any(x is not None and x.is_inference() for x in tensors):
        raise RuntimeError(
            "imae_ext: expected target and weights that were not made in inference mode, where a gradient is asked "
            "for; pass target.clone()"
        )


def given(ctx: Any, options: Options, kept: tuple[Tensor, Tensor, int] | None) -> tuple[Tensor, Tensor]:
    """Return forward's logits and target; refuse, as torch does, where they are gone or were written to."""
    if kept is None:
        logits, target, *_ = ctx.saved_tensors
        return logits, target
    logits, target, then = kept
    _, weight, sample_weight, _, _ = options
    if changes(logits, target, weight, sample_weight) != then:
        raise RuntimeError(
            "imae_ext: expected logits, target and weights as they were in forward for another backward, but one of "
            "them has been modified by an inplace operation"
        )
    return logits, target
