"""Targets that are amounts of every class, probabilities or smoothed labels, in plain PyTorch: as csrc/dense.h.

A row's loss is ``sum_k t_k L_k``, L_k the formula for label k. Everything is taken relative to the others of the row's
top class m, not of a label: ``u_m = z_m - lse_o`` with ``lse_o`` the logsumexp of the others, and for every other class
``p_k = q_k r_m <= 1/2``, so that neither its ``1 - p_k`` nor the derivative of ``log1p(-p_k)`` cancels. Formulas are
evaluated only where the amount is not 0: a class without any does not matter, whatever its logit is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from . import _torch, reference
from . import formulas as f
from .checks import check, check_smoothing, check_soft, not_ignored
from .reference import Row


def is_meant(logits: Tensor, target: Tensor) -> bool:
    """Whether the target is of amounts: of a floating dtype and of the logits' shape."""
    return isinstance(target, Tensor) and target.is_floating_point() and target.shape == logits.shape


class Amounts(NamedTuple):
    """What each row has of each class, and what the rows count for."""

    of_class: Tensor  # (N, C), times the class weights
    sample_weight: Tensor  # (N,); 0 where the row is ignored
    divisor: Tensor  # (N,); what a row adds to the divisor of a mean


def amounts(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    label_smoothing: float,
    ignore_index: int,
) -> Amounts:
    """Return the amounts for probabilities or for class labels, smoothed as F.cross_entropy does it."""
    dtype = torch.float64 if logits.dtype is torch.float64 else torch.float32
    classes = min(1, logits.dim() - 1)
    C = logits.shape[classes]
    if target.is_floating_point():
        t = target.movedim(classes, -1).reshape(-1, C).to(dtype)
        samples = t.new_ones(t.shape[0]) if sample_weight is None else sample_weight.reshape(-1).to(dtype)
        divisor = samples
    else:
        y = target.reshape(-1)
        of_rows = None if sample_weight is None else sample_weight.reshape(-1)
        samples = reference.row_weights(y, None, of_rows, ignore_index, dtype)
        divisor = reference.row_weights(y, weight, of_rows, ignore_index, dtype)
        label = torch.where(not_ignored(y, ignore_index), y, 0).unsqueeze(-1)  # those ignored weigh nothing
        t = (label == torch.arange(C, device=y.device)).to(dtype)
        t = torch.where((label >= 0) & (label < C), t, torch.nan)  # a label out of range, where nothing refuses it
    if label_smoothing > 0:
        t = (1 - label_smoothing) * t + label_smoothing / C
    if weight is not None:
        t = t * weight.to(dtype)
    return Amounts(t, samples, divisor)


def margins(z: Tensor, needs_all_logits: bool) -> tuple[Tensor, Tensor]:
    """Return each class's margin, (N, C), and the sum over the others of -log p_j, where a formula needs it."""
    C = z.shape[-1]
    index = torch.arange(C, device=z.device)
    top = z.detach().nan_to_num(nan=torch.inf).argmax(-1, keepdim=True) == index
    shift = torch.where(top, -torch.inf, z.detach()).amax(-1, keepdim=True)
    z = z - torch.where(torch.isfinite(shift), shift, 0.0)
    z_m = torch.where(top, z, 0.0).sum(-1, keepdim=True)
    alone = ((z == -torch.inf) | top).all(-1, keepdim=True) & torch.isfinite(z_m)  # no other class has any mass
    others = torch.where(top, -torch.inf, z)
    lse = torch.where(alone, 0.0, others).logsumexp(-1, keepdim=True)
    u_m = torch.where(alone, z_m - z_m + torch.inf, z_m - lse)
    u_m = u_m * torch.where(z_m != torch.inf, 1.0, torch.nan).to(z.dtype)
    # log p_k of the others: infinite logits keep what can be differentiated out of it
    all_of_them = torch.where(alone, z_m, lse - logsigmoid(-torch.where(alone, 0.0, u_m)))
    log_p = torch.where(top, torch.minimum(all_of_them.detach() - 1, all_of_them.detach()), z) - all_of_them
    u = torch.where(top, u_m, log_p - torch.log1p(-torch.exp(log_p)))
    if not needs_all_logits:
        return u, torch.zeros_like(u)
    if C == 2:
        return u, -logsigmoid(-u)
    nlp = torch.where(top, -logsigmoid(u_m), -log_p)
    of_others = torch.where(top, 0.0, nlp).sum(-1, keepdim=True)  # of the top class's
    # of a class without any probability: the others' finite terms, and infinity if another has none either
    infinite = torch.isinf(nlp)
    finite = torch.where(infinite, 0.0, nlp).sum(-1, keepdim=True)
    finite = finite + torch.where(infinite.sum(-1, keepdim=True) > 1, torch.inf, 0.0)
    rest = torch.where(infinite, finite, nlp.sum(-1, keepdim=True) - torch.where(infinite, 0.0, nlp))
    return u, torch.where(top, of_others, rest)


def _weighed(values: Tensor, t: Tensor) -> Tensor:
    """(N,): the values, weighed by the amounts; an amount of 0 is 0 whatever the value is."""
    return reference._weighted(values, t).sum(-1)


def _evaluated(formula: f.Formula, logits: Tensor, t: Tensor, wants_weight: bool) -> tuple[Tensor, Tensor | None]:
    """Values and example weights, (N, C), where there is any amount; 0 elsewhere."""
    u, rest = margins(logits, formula.needs_all_logits)
    wanted = t != 0
    row = Row(torch.where(wanted, u, 0.0), torch.where(wanted, rest, 0.0), logits.shape[-1])
    if not _torch.has_values(t) or logits.is_meta:  # no shape may depend on the amounts
        example = reference._example_weight(formula, row._replace(u=row.u.detach())) if wants_weight else None
        return torch.where(wanted, reference._value(formula, row), 0.0), example
    chosen = Row(row.u[wanted], row.rest[wanted], row.C)
    values = torch.zeros_like(u).masked_scatter(wanted, reference._value(formula, chosen))
    if not wants_weight:
        return values, None
    example = reference._example_weight(formula, chosen._replace(u=chosen.u.detach()))
    return values, torch.zeros_like(u).masked_scatter(wanted, example)


def check_call(logits: Tensor, target: Tensor, options: tuple[Any, ...]) -> None:
    """Check the arguments, for whichever kind of target it is."""
    formula, weight, sample_weight, label_smoothing, ignore_index, reduction = options
    check_smoothing(label_smoothing)
    checked = check_soft if is_meant(logits, target) else check
    checked(logits, target, formula, weight, sample_weight, ignore_index, reduction)


def _counted(logits: Tensor, target: Tensor, *options: Any) -> tuple[Amounts, Tensor, Tensor]:
    """Return the amounts, those of the rows that count, and the logits, 0 in rows that do not."""
    given = amounts(logits, target, *options)
    classes = min(1, logits.dim() - 1)
    z = logits.movedim(classes, -1).reshape(-1, logits.shape[classes])
    z = z.to(given.of_class.dtype)
    # a row of weight 0, or without any amount, does not count: what it holds must not reach the gradient
    of_class = torch.where((given.sample_weight != 0).unsqueeze(-1), given.of_class, 0.0)
    return given, of_class, torch.where((of_class != 0).any(-1, keepdim=True), z, 0.0)


def divisor(logits: Tensor, target: Tensor, options: tuple[Any, ...]) -> Tensor:
    """Return what `normalized` divides by; differentiable by the weights."""
    given, of_class, z = _counted(logits.detach(), target, *options[1:5])
    _, example = _evaluated(options[0], z, of_class, True)
    assert example is not None
    return reference._weighted(_weighed(example, of_class), given.sample_weight).sum()


def robust_loss(
    logits: Tensor,
    target: Tensor,
    formula: f.Formula,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    label_smoothing: float,
    ignore_index: int,
    reduction: str,
) -> Tensor:
    """Compute :func:`imae_ext.robust_loss` of probabilities, or of smoothed class labels."""
    check_call(logits, target, (formula, weight, sample_weight, label_smoothing, ignore_index, reduction))
    given, of_class, z = _counted(logits, target, weight, sample_weight, label_smoothing, ignore_index)
    classes = min(1, logits.dim() - 1)
    values, example = _evaluated(formula, z, of_class, reduction == "normalized")
    per_row = reference._weighted(_weighed(values, of_class), given.sample_weight)
    if reduction == "none":
        return per_row.reshape(logits.shape[:classes] + logits.shape[classes + 1 :])
    if reduction == "sum":
        return per_row.sum()
    if reduction == "mean":
        return per_row.sum() / given.divisor.sum()
    assert example is not None
    return per_row.sum() / reference._weighted(_weighed(example, of_class), given.sample_weight).sum()
