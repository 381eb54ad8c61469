"""Losses on log-probabilities that somebody else computed: the formula step alone, in plain PyTorch.

A head that never holds all logits (``F.linear_cross_entropy`` with ``reduction="none"``, TRL's and Liger's chunked
heads, a cross entropy whose classes are spread over processes) still gives ``-log p_y`` of each row. That is all that
a formula of ``p_y`` needs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import _torch
from ._signature import explained
from .checks import (
    FLOATS,
    check_options,
    check_sample_weight,
    check_weight,
    expect_dense,
    expect_tensor,
    not_ignored,
)
from .distributed import groups
from .distributed.signature import Said
from .formulas import DM, IMAE, Focal, Formula, SingleFormula
from .reference import VALUE, Row, _example_weight, _weighted, row_weights

if TYPE_CHECKING:
    from .distributed.groups import Group

LEAST_EPS = 1e-3  # of IMAE and DM, for a nll that is not float64
ROUNDING = -1e-3  # a nll from here to 0 is one of 0, rounded
NEXT = 1e-30  # to 0: where the derivatives of all formulas have reached their limit


class RowsOfNll:
    """What ``VALUE`` sees of rows that are known by ``-log p``; the same attributes as :class:`reference.Row`.

    Each is written so that its derivative loses nothing: ``1 - exp(-nll)`` has that of ``exp``, which ``expm1`` would
    take from ``r``.
    """

    def __init__(self, nll: Tensor) -> None:
        near = nll < 0.5
        self.nlp = nll
        self.p = torch.exp(-nll)
        self.r = torch.where(near, -torch.expm1(-torch.where(near, nll, 0.0)), 1 - self.p)

    @property
    def u(self) -> Tensor:
        """The margin, which loses nothing only here: -nll - log r."""
        return -self.nlp - torch.log(self.r)


def _refused(formula: Formula, dtype: torch.dtype) -> SingleFormula | None:
    """Return a term whose derivative by nll reaches 1 / eps, and so multiplies the rounding of nll."""
    if dtype is torch.float64:
        return None
    return next((g for _, g in formula.terms if isinstance(g, (IMAE, DM)) and g.eps < LEAST_EPS), None)


def _check(
    nll: Tensor,
    formula: Formula,
    target: Tensor | None,
    weight: Tensor | None,
    sample_weight: Tensor | None,
    ignore_index: int,
    reduction: str,
) -> None:
    check_options(formula, reduction, ignore_index)
    if not isinstance(nll, Tensor) or nll.dtype not in FLOATS:
        got = nll.dtype if isinstance(nll, Tensor) else type(nll).__name__
        raise TypeError(f"imae_ext: expected nll to be a Tensor of a floating dtype, got {got}")
    expect_tensor("nll", nll)  # no DTensor
    expect_dense("nll", nll)
    if formula.needs_all_logits:
        raise ValueError(
            f"imae_ext: expected a formula of p_y alone, got {formula!r}, which needs all logits; pass the hidden "
            f"states and the head's weight to linear_robust_loss, or the logits to robust_loss"
        )
    if (term := _refused(formula, nll.dtype)) is not None:
        raise ValueError(
            f"imae_ext: expected eps >= {LEAST_EPS:g} for a nll of {nll.dtype}, got {term!r}, whose derivative by nll "
            f"reaches 1/eps and multiplies the rounding of nll; pass eps=1e-3, or a nll of float64, or the hidden "
            f"states and the head's weight to linear_robust_loss, which needs neither"
        )
    if target is None:
        if weight is not None:
            raise ValueError("imae_ext: expected a target with weight, which is that of each label; pass target=")
    elif not isinstance(target, Tensor) or target.dtype not in (torch.int64, torch.int32):
        got = target.dtype if isinstance(target, Tensor) else type(target).__name__
        raise TypeError(f"imae_ext: expected target to be a Tensor of dtype int64 or int32, got {got}")
    elif target.shape != nll.shape or target.device != nll.device:
        raise ValueError(
            f"imae_ext: expected target of shape {tuple(nll.shape)} on {nll.device}, as nll, "
            f"got {tuple(target.shape)} on {target.device}"
        )
    else:
        expect_dense("target", target)
    check_weight(weight)
    check_sample_weight(sample_weight, nll)
    if weight is not None and weight.device != nll.device:
        raise ValueError(f"imae_ext: expected weight on {nll.device}, where nll is, got {weight.device}")


def _are_classes(labels: Tensor, weight: Tensor | None) -> Tensor:
    """Whether each label is a class, as far as anybody knows how many there are."""
    return labels >= 0 if weight is None else (labels >= 0) & (labels < len(weight))


def _check_numbers(nll: Tensor, target: Tensor | None, weight: Tensor | None, live: Tensor, ignore_index: int) -> None:
    """Check what takes a look at the numbers."""
    if bool(((nll < ROUNDING) & live).any()):
        raise ValueError(
            f"imae_ext: expected nll >= 0, which is -log p, got {nll[live].min().item():g}; pass -log_probs"
        )
    if target is None:
        return
    wrong = ~_are_classes(target, weight) & live
    if bool(wrong.any()):
        classes = "0 or more" if weight is None else f"in [0, {len(weight)})"
        raise IndexError(
            f"imae_ext: expected labels {classes} or ignore_index={ignore_index}, got {int(target[wrong].min())}"
        )


def _pulls_at_perfect_fit(g: SingleFormula) -> bool:
    """Whether dL/dnll at nll = 0 is the limit: for Focal it is 0, and with eps = 0 the kernels take 0."""
    if isinstance(g, Focal):
        return g.gamma == 0
    return not (isinstance(g, (IMAE, DM)) and g.eps == 0)


def _value(formula: Formula, x: Tensor) -> Tensor:
    """Return the values at a nll that is not negative. At 0, derivatives are those of a number next to it."""
    perfect = x == 0
    near = torch.where(perfect, x + NEXT, x)
    rows, flat = RowsOfNll(near), RowsOfNll(torch.where(perfect, near.detach(), near))
    at_0 = Row(torch.full_like(x[..., :1] if x.dim() else x, torch.inf).detach(), torch.zeros(()), 2)
    total = torch.zeros_like(x)
    for c, g in formula.terms:
        value = VALUE[type(g)](rows if _pulls_at_perfect_fit(g) else flat, *g.packed[2:])
        limit = VALUE[type(g)](at_0, *g.packed[2:])
        total = total + c * torch.where(perfect, limit + (value - value.detach()), value)
    return total


@explained
def robust_loss_from_nll(
    nll: Tensor,
    formula: Formula,
    *,
    target: Tensor | None = None,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    group: Group = None,
) -> Tensor:
    """Compute a loss from each row's ``-log p_y``, as a head that never holds all logits returns it.

    With ``p = exp(-nll)`` and ``r = -expm1(-nll)`` the derivative is that of :func:`robust_loss` in the margin,
    divided by ``r``. Plain PyTorch: any device, differentiable to any order, and compiled like any other code.

    Args:
      nll: ``-log p_y`` of each row, any shape, float64, float32, float16 or bfloat16 (half precision is computed in
        float32). Numbers in [-1e-3, 0) are taken for 0, as a rounded logsumexp leaves them; below that the row is NaN,
        and on a CPU refused.
      formula: of ``p_y`` alone: not LabelSmoothing or NCE. IMAE and DM need ``eps >= 1e-3`` unless nll is float64.
        Their derivative reaches ``1 / eps`` and multiplies the rounding of nll: with ``eps = 1e-3`` the L1 norm of a
        row's gradient is off by at most 3.3e-3, with 1e-8 it would be wrong by a factor of 12.
      target: of nll's shape, int64 or int32; needed for ``weight``, and to tell which rows are ignored. Heads return 0
        at those, which a mean must not count.
      weight: ``(C,)``; each row is multiplied by the weight of its label. A row of weight 0 is treated as ignored.
      sample_weight: of nll's shape; each row is multiplied by it.
      ignore_index: rows with this label have value 0 and gradient 0. Without a target all rows count.
      reduction: as in :func:`robust_loss`.
      group: as in :func:`robust_loss`.

    Returns:
      The loss: a scalar, or for ``"none"`` of nll's shape. float64 for a float64 nll, else float32.

    Raises:
      TypeError: an argument of another type or dtype.
      ValueError: shapes or devices that do not fit; a formula that needs all logits; IMAE or DM with a small eps for a
        nll that is not float64; on a CPU, a nll below -1e-3.
      IndexError: on a CPU, a label that is negative or not in ``[0, C)`` where ``weight`` tells ``C``. (On a GPU its
        loss and gradient are NaN instead.)

    Example:
      >>> import torch.nn.functional as F
      >>> from imae_ext import GCE
      >>> hidden, head = torch.randn(4, 8), torch.randn(100, 8, requires_grad=True)
      >>> target = torch.tensor([3, 1, 4, -100])
      >>> nll = F.cross_entropy(hidden @ head.T, target, reduction="none")
      >>> robust_loss_from_nll(nll, GCE(0.7), target=target).backward()
    """
    _check(nll, formula, target, weight, sample_weight, ignore_index, reduction)
    ignore_index = int(ignore_index)
    dtype = torch.float64 if nll.dtype is torch.float64 else torch.float32
    labels = torch.zeros(nll.shape, dtype=torch.int64, device=nll.device) if target is None else target
    live = torch.ones_like(labels, dtype=torch.bool) if target is None else not_ignored(labels, ignore_index)
    at_hand = nll.device.type == "cpu" or os.environ.get("IMAE_EXT_DEBUG") == "1"
    if at_hand and _torch.has_values(nll):
        _check_numbers(nll.detach(), target, weight, live, ignore_index)
    flat = labels.reshape(-1)
    w = row_weights(flat, weight, None if sample_weight is None else sample_weight.reshape(-1), ignore_index, dtype)
    live = live.reshape(-1)
    x = torch.where(live, nll.reshape(-1).to(dtype), 1.0)
    if weight is not None or sample_weight is not None:  # a derivative by a weight of 0 still sees the row
        x = torch.where(w != 0, x, x.detach())
    known = (x >= ROUNDING) & (_are_classes(flat, weight) | ~live)
    x = (x - torch.where(x < 0, x, 0.0).detach()) * torch.where(known, 1.0, torch.nan).to(dtype)
    values = torch.where(live, _weighted(_value(formula, x), w), 0.0)

    def divisor() -> Tensor:
        if reduction == "mean":
            return w.sum()
        rows = RowsOfNll(x.detach())
        example = _example_weight(formula, Row(rows.u, torch.zeros_like(x), 2))
        return torch.where(live, _weighted(example, w), 0.0).sum()

    if group is not None:
        weights = weight is not None, sample_weight is not None
        said = Said("robust_loss_from_nll", formula, nll.dtype, reduction, ignore_index, -1, -1, 0.0, *weights)

        def of_rows(weight: Tensor | None, reduction: str) -> Tensor:
            weighed = values if weight is None else torch.where(live & (w != 0), values * weight, 0.0)
            return weighed.reshape(nll.shape) if reduction == "none" else weighed.sum()

        return groups.loss(group, reduction, said, divisor, None, (), of_rows)
    if reduction == "none":
        return values.reshape(nll.shape)
    return values.sum() if reduction == "sum" else values.sum() / divisor()
