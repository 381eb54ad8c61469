"""The losses as functions, with the call shape of torch.nn.functional.cross_entropy."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from . import checks, reference
from .formulas import CCE, DM, GCE, IMAE, MAE, NCE, SCE, Focal, Loss
from ._extension import compiled

if compiled:
    from . import ops

# a formula is immutable: the functions that take its parameters make each only once
_cce, _mae, _nce = CCE(), MAE(), NCE()
_imae, _gce, _dm, _sce, _focal = (functools.lru_cache(make) for make in (IMAE, GCE, DM, SCE, Focal))


def robust_loss(
    logits: Tensor,
    target: Tensor,
    formula: Loss,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Compute any loss of the family, and its gradient, in one pass over the logits.

    Args:
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, float64, float32, float16 or bfloat16, any strides. Half
        precision is read as it is and computed in float32.
      target: class indices of the logits' shape without ``C``, int64 or int32, in ``[0, C)`` or ``ignore_index``.
      formula: what to compute: ``IMAE(8.0)``, ``2.0 * NCE() + MAE()``, ...
      weight: ``(C,)``; each row's loss and gradient are multiplied by the weight of its label.
      ignore_index: rows with this label have value 0 and gradient 0, whatever their logits hold.
      reduction: ``"none"``; ``"sum"``; ``"mean"``, over the rows that are not ignored, or over their class weights;
        ``"normalized"``, the sum divided by the sum of the example weights (times the class weights), the divisor
        held constant: the derivative normalisation of the IMAE authors. Formulas of p_y alone only.

    Returns:
      The loss: a scalar, or for ``"none"`` of the target's shape. float64 for float64 logits, else float32.

    Raises:
      TypeError: an argument of another type or dtype; class probabilities as target.
      ValueError: shapes or devices that do not fit; an unknown reduction; ``"normalized"`` for LabelSmoothing or NCE.
      IndexError: a label out of range. (On a GPU its loss and gradient are NaN instead: nothing waits for the device.)

    Example:
      >>> logits = torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0]], requires_grad=True)
      >>> loss = robust_loss(logits, torch.tensor([0, 0]), 2.0 * NCE() + MAE())
      >>> loss.backward()
      >>> logits.grad.sum(dim=1).abs() < 1e-6
      tensor([True, True])

    Differs from F.cross_entropy: NaN in an ignored row stays out of the gradient, and half-precision logits give a
    float32 loss.
    """
    if not compiled:
        return reference.robust_loss(
            logits, target, formula, weight=weight, ignore_index=ignore_index, reduction=reduction
        )
    return ops.loss(logits, target, (formula, weight, ignore_index, reduction))


def value_and_grad(
    logits: Tensor,
    target: Tensor,
    formula: Loss,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the loss and its gradient at once, outside autograd: go on with ``logits.backward(grad)``.

    Args:
      logits: as in :func:`robust_loss`.
      target: as in :func:`robust_loss`.
      formula: as in :func:`robust_loss`.
      weight: as in :func:`robust_loss`.
      ignore_index: as in :func:`robust_loss`.
      reduction: as in :func:`robust_loss`; for ``"none"``, each row's own gradient.
      out: like the logits; where to write the gradient. Reusing one saves a large allocation in every step.

    Returns:
      The loss, as :func:`robust_loss` gives it, and the gradient, of the logits' shape and dtype (``out`` if given).

    Raises:
      TypeError: as in :func:`robust_loss`.
      ValueError: as in :func:`robust_loss`, or an ``out`` that is not like the logits.
      IndexError: as in :func:`robust_loss`.

    Example:
      >>> logits = torch.tensor([[2.0, 0.0]])
      >>> loss, grad = value_and_grad(logits, torch.tensor([0]), CCE())
      >>> grad
      tensor([[-0.1192,  0.1192]])
    """
    options = (formula, weight, ignore_index, reduction)
    if compiled:
        return ops.value_and_grad(logits.detach(), target, options, out)
    z = logits.detach().requires_grad_()
    with torch.enable_grad():
        loss = reference.robust_loss(z, target, formula, weight=weight, ignore_index=ignore_index, reduction=reduction)
        (grad,) = torch.autograd.grad(loss.sum(), z)
    if out is None:
        return loss.detach(), grad
    checks.check_out(logits, out)
    return loss.detach(), out.copy_(grad)


def row_stats(
    logits: Tensor, target: Tensor, formula: Loss, *, ignore_index: int = -100
) -> tuple[Tensor, Tensor]:
    """Compute each example's ``p_y`` and weight: a low ``p_y`` late in training marks a suspect label.

    Args:
      logits: as in :func:`robust_loss`.
      target: as in :func:`robust_loss`.
      formula: of p_y alone: not LabelSmoothing or NCE.
      ignore_index: as in :func:`robust_loss`.

    Returns:
      ``p_y`` and the example weight, of the target's shape; 0 for ignored rows. The weight is ``exp(T p r)`` for IMAE,
      ``exp(beta p**lambd r)`` for DM, and the L1 norm of the logit gradient for the others.

    Raises:
      TypeError: as in :func:`robust_loss`.
      ValueError: as in :func:`robust_loss`, or a formula without example weights.
      IndexError: as in :func:`robust_loss`.

    Example:
      >>> p, w = row_stats(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 0]), IMAE(T=8.0))
      >>> w
      tensor([7.3891, 1.0010])
    """
    if not compiled:
        return reference.row_stats(logits, target, formula, ignore_index=ignore_index)
    return ops.row_stats(logits.detach(), target, formula, ignore_index)


def imae_loss(
    logits: Tensor,
    target: Tensor,
    *,
    T: float = 8.0,
    eps: float = 1e-8,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Compute the IMAE loss (arXiv 1903.12141): example weight ``exp(T p (1 - p))``.

    Args:
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, as in :func:`robust_loss`.
      target: class indices, of the logits' shape without ``C``.
      T: in [0, 64]; 0 weighs all examples alike, 8 is the paper's choice.
      eps: in [0, 1]; lets the pull of fitted examples fade, see :class:`imae_ext.IMAE`. Leave it as it is.
      weight: ``(C,)``, of the classes.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``.

    Returns:
      The loss, float32 (float64 for float64 logits): a scalar, or for ``"none"`` of the target's shape.

    Raises:
      TypeError: as in :func:`robust_loss`.
      ValueError: as in :func:`robust_loss`, or a parameter out of its range.
      IndexError: as in :func:`robust_loss`.

    Example:
      >>> imae_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      EXPECT_imae
    """
    return robust_loss(logits, target, _imae(T, eps), weight=weight, ignore_index=ignore_index, reduction=reduction)


def cce_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Compute the categorical cross entropy, as F.cross_entropy: ``-log p``.

    Args:
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, as in :func:`robust_loss`.
      target: class indices, of the logits' shape without ``C``.
      weight: ``(C,)``, of the classes.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``.

    Returns:
      The loss, float32 (float64 for float64 logits): a scalar, or for ``"none"`` of the target's shape.

    Raises:
      TypeError: as in :func:`robust_loss`.
      ValueError: as in :func:`robust_loss`.
      IndexError: as in :func:`robust_loss`.

    Example:
      >>> cce_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      EXPECT_cce
    """
    return robust_loss(logits, target, _cce, weight=weight, ignore_index=ignore_index, reduction=reduction)


def mae_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Compute the mean absolute error against the one-hot label: ``2 (1 - p)``.

    Args:
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, as in :func:`robust_loss`.
      target: class indices, of the logits' shape without ``C``.
      weight: ``(C,)``, of the classes.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``.

    Returns:
      The loss, float32 (float64 for float64 logits): a scalar, or for ``"none"`` of the target's shape.

    Raises:
      TypeError: as in :func:`robust_loss`.
      ValueError: as in :func:`robust_loss`.
      IndexError: as in :func:`robust_loss`.

    Example:
      >>> mae_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      EXPECT_mae
    """
    return robust_loss(logits, target, _mae, weight=weight, ignore_index=ignore_index, reduction=reduction)


def gce_loss(
    logits: Tensor,
    target: Tensor,
    *,
    q: float = 0.7,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Compute the generalised cross entropy ``(1 - p**q) / q`` (Zhang & Sabuncu, NeurIPS 2018).

    Args:
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, as in :func:`robust_loss`.
      target: class indices, of the logits' shape without ``C``.
      q: in (0, 1].
      weight: ``(C,)``, of the classes.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``.

    Returns:
      The loss, float32 (float64 for float64 logits): a scalar, or for ``"none"`` of the target's shape.

    Raises:
      TypeError: as in :func:`robust_loss`.
      ValueError: as in :func:`robust_loss`, or a parameter out of its range.
      IndexError: as in :func:`robust_loss`.

    Example:
      >>> gce_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      EXPECT_gce
    """
    return robust_loss(logits, target, _gce(q), weight=weight, ignore_index=ignore_index, reduction=reduction)


def dm_loss(
    logits: Tensor,
    target: Tensor,
    *,
    beta: float = 8.0,
    lambd: float = 0.5,
    eps: float = 1e-8,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Compute the loss of derivative manipulation (arXiv 1905.11233): weight ``exp(beta p**lambd (1 - p))``.

    Args:
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, as in :func:`robust_loss`.
      target: class indices, of the logits' shape without ``C``.
      beta: in [0, 32].
      lambd: in [0, 16]; 1 is IMAE.
      eps: in [0, 1], as in :func:`imae_loss`.
      weight: ``(C,)``, of the classes.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``.

    Returns:
      The loss, float32 (float64 for float64 logits): a scalar, or for ``"none"`` of the target's shape.

    Raises:
      TypeError: as in :func:`robust_loss`.
      ValueError: as in :func:`robust_loss`, or a parameter out of its range.
      IndexError: as in :func:`robust_loss`.

    Example:
      >>> dm_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      EXPECT_dm
    """
    return robust_loss(logits, target, _dm(beta, lambd, eps), weight=weight, ignore_index=ignore_index, reduction=reduction)


def sce_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.1,
    beta: float = 1.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Compute the symmetric cross entropy ``alpha CCE + beta RCE`` (Wang et al., ICCV 2019).

    Args:
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, as in :func:`robust_loss`.
      target: class indices, of the logits' shape without ``C``.
      alpha: coefficient of the cross entropy.
      beta: coefficient of the reverse cross entropy.
      weight: ``(C,)``, of the classes.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``.

    Returns:
      The loss, float32 (float64 for float64 logits): a scalar, or for ``"none"`` of the target's shape.

    Raises:
      TypeError: as in :func:`robust_loss`.
      ValueError: as in :func:`robust_loss`, or a parameter out of its range.
      IndexError: as in :func:`robust_loss`.

    Example:
      >>> sce_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      EXPECT_sce
    """
    return robust_loss(logits, target, _sce(alpha, beta), weight=weight, ignore_index=ignore_index, reduction=reduction)


def nce_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Compute the normalised cross entropy ``log p_y / sum_j log p_j`` (Ma et al., ICML 2020).

    Args:
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, as in :func:`robust_loss`.
      target: class indices, of the logits' shape without ``C``.
      weight: ``(C,)``, of the classes.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``.

    Returns:
      The loss, float32 (float64 for float64 logits): a scalar, or for ``"none"`` of the target's shape.

    Raises:
      TypeError: as in :func:`robust_loss`.
      ValueError: as in :func:`robust_loss`.
      IndexError: as in :func:`robust_loss`.

    Example:
      >>> nce_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      EXPECT_nce
    """
    return robust_loss(logits, target, _nce, weight=weight, ignore_index=ignore_index, reduction=reduction)


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Compute the focal loss ``-(1 - p)**gamma log p`` (Lin et al., ICCV 2017).

    Args:
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, as in :func:`robust_loss`.
      target: class indices, of the logits' shape without ``C``.
      gamma: in [0, 64]; 0 is the cross entropy.
      weight: ``(C,)``, of the classes.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``.

    Returns:
      The loss, float32 (float64 for float64 logits): a scalar, or for ``"none"`` of the target's shape.

    Raises:
      TypeError: as in :func:`robust_loss`.
      ValueError: as in :func:`robust_loss`, or a parameter out of its range.
      IndexError: as in :func:`robust_loss`.

    Example:
      >>> focal_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      EXPECT_focal
    """
    return robust_loss(logits, target, _focal(gamma), weight=weight, ignore_index=ignore_index, reduction=reduction)
