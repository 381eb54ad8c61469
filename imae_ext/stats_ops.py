"""All statistics of a row in one sweep: the operator, and the derivative of log p and the entropy.

p, the example weight, the sum of squares and whether the label is on top are outside autograd.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import checks, ops
from .distribution import Asked, statistics
from .formulas import Formula
from .stats import RowStats

_describe_rows = torch.ops.imae_ext.describe_rows.default


def row_stats(logits: Tensor, target: Tensor, formula: Formula, ignore_index: int, asked: Asked) -> RowStats:
    """Compute p_y, the example weight, and what is asked for."""
    if not any(asked) or ops.needs_reference():
        known = ops.row_stats(logits, target, formula, ignore_index)
        return RowStats(*known, *statistics(logits, target, ignore_index, asked))
    if torch.compiler.is_compiling():
        checks.check(logits, target, formula, None, None, ignore_index, "normalized")
    differentiable = asked.log_p or asked.entropy
    try:
        found = _describe_rows(
            logits if differentiable else logits.detach(), target, formula.packed, ignore_index, *asked
        )
    except ops.REFUSALS:
        checks.check(logits, target, formula, None, None, ignore_index, "normalized")
        raise
    p, weight, log_p, entropy, sum_p2, is_top = found
    more = (x if wish else None for x, wish in zip((log_p, entropy, sum_p2.detach(), is_top), asked, strict=True))
    return RowStats(p.detach(), weight.detach(), *more)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    logits, target, _, ctx.ignored, *_ = inputs
    ctx.save_for_backward(logits, target)
    ctx.set_materialize_grads(False)


def _derivative(ctx: Any, *above: Tensor | None) -> tuple[Tensor | None, ...]:
    """Differentiate log p and the entropy in plain PyTorch, right to any order."""
    logits, target = ctx.saved_tensors
    _, _, by_log_p, by_entropy, *_ = above
    asked = Asked(log_p=by_log_p is not None, entropy=by_entropy is not None)
    grad = None
    if any(asked):
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            z = logits if again else logits.detach().requires_grad_()
            found = [x for x in statistics(z, target, ctx.ignored, asked) if x is not None]
            upstream = [x for x in (by_log_p, by_entropy) if x is not None]
            (grad,) = torch.autograd.grad(found, z, upstream, create_graph=again)
    return grad, *(None,) * 7


torch.library.register_autograd("imae_ext::describe_rows", _derivative, setup_context=_save)
