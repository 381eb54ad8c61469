"""The named losses as functions, with the call shape of torch.nn.functional.cross_entropy."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from .formulas import CCE, DM, GCE, IMAE, MAE, NCE, SCE, Focal, Loss
from .functional import robust_loss

_cce, _mae, _nce = CCE(), MAE(), NCE()


@functools.lru_cache(maxsize=64, typed=True)  # typed: True is not 1.0
def _made(make: Callable[..., Loss], *parameters: float) -> Loss:
    return make(*parameters)


def _formula(make: Callable[..., Loss], *parameters: float) -> Loss:
    """Make a formula, or return the one that was made before: it is immutable, and making it takes a while."""
    if torch.compiler.is_compiling():
        return make(*parameters)
    try:
        return _made(make, *parameters)
    except TypeError:  # unhashable, so not a number: make() says so
        return make(*parameters)


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

    ``p`` is the softmax probability of the label. Weights go up to ``exp(T/4)``: begin with a tenth of cross
    entropy's learning rate. The value, the integral of the gradient that the weights make, is well above cross
    entropy's even for good fits: watch accuracy.

    Args:
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, as in :func:`imae_ext.robust_loss`.
      target: class indices, of the logits' shape without ``C``.
      T: in [0, 30]; 0 weighs all examples alike, 8 is the paper's choice.
      eps: 0 or in [1e-30, 1]; lets the pull of fitted examples fade, see :class:`imae_ext.IMAE`. Leave it as it is.
      weight: ``(C,)``, of the classes.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``, the sum over the sum of the example weights.

    Returns:
      The loss, float32 (float64 for float64 logits): a scalar, or for ``"none"`` of the target's shape.

    Raises:
      TypeError: as in :func:`imae_ext.robust_loss`.
      ValueError: as in :func:`imae_ext.robust_loss`, or a parameter out of its range.
      IndexError: as in :func:`imae_ext.robust_loss`.

    Example:
      >>> import torch
      >>> imae_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(10.1963)
    """
    formula = _formula(IMAE, T, eps)
    return robust_loss(logits, target, formula, weight=weight, ignore_index=ignore_index, reduction=reduction)


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
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, as in :func:`imae_ext.robust_loss`.
      target: class indices, of the logits' shape without ``C``.
      weight: ``(C,)``, of the classes.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``, the sum over the sum of the example weights.

    Returns:
      The loss, float32 (float64 for float64 logits): a scalar, or for ``"none"`` of the target's shape.

    Raises:
      TypeError: as in :func:`imae_ext.robust_loss`.
      ValueError: as in :func:`imae_ext.robust_loss`.
      IndexError: as in :func:`imae_ext.robust_loss`.

    Example:
      >>> import torch
      >>> cce_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(0.2395)
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
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, as in :func:`imae_ext.robust_loss`.
      target: class indices, of the logits' shape without ``C``.
      weight: ``(C,)``, of the classes.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``, the sum over the sum of the example weights.

    Returns:
      The loss, float32 (float64 for float64 logits): a scalar, or for ``"none"`` of the target's shape.

    Raises:
      TypeError: as in :func:`imae_ext.robust_loss`.
      ValueError: as in :func:`imae_ext.robust_loss`.
      IndexError: as in :func:`imae_ext.robust_loss`.

    Example:
      >>> import torch
      >>> mae_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(0.4260)
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
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, as in :func:`imae_ext.robust_loss`.
      target: class indices, of the logits' shape without ``C``.
      q: in (0, 1].
      weight: ``(C,)``, of the classes.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``, the sum over the sum of the example weights.

    Returns:
      The loss, float32 (float64 for float64 logits): a scalar, or for ``"none"`` of the target's shape.

    Raises:
      TypeError: as in :func:`imae_ext.robust_loss`.
      ValueError: as in :func:`imae_ext.robust_loss`, or a parameter out of its range.
      IndexError: as in :func:`imae_ext.robust_loss`.

    Example:
      >>> import torch
      >>> gce_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(0.2205)
    """
    formula = _formula(GCE, q)
    return robust_loss(logits, target, formula, weight=weight, ignore_index=ignore_index, reduction=reduction)


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
    """Compute the DM loss (arXiv 1905.11233), example weight ``exp(beta p**lambd (1 - p))``.

    Args:
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, as in :func:`imae_ext.robust_loss`.
      target: class indices, of the logits' shape without ``C``.
      beta: in [0, 16].
      lambd: 0 or in [0.01, 16]; 1 is IMAE.
      eps: 0 or in [1e-30, 1], as in :func:`imae_loss`.
      weight: ``(C,)``, of the classes.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``, the sum over the sum of the example weights.

    Returns:
      The loss, float32 (float64 for float64 logits): a scalar, or for ``"none"`` of the target's shape.

    Raises:
      TypeError: as in :func:`imae_ext.robust_loss`.
      ValueError: as in :func:`imae_ext.robust_loss`, or a parameter out of its range.
      IndexError: as in :func:`imae_ext.robust_loss`.

    Example:
      >>> import torch
      >>> dm_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(10.3432)
    """
    return robust_loss(
        logits, target, _formula(DM, beta, lambd, eps), weight=weight, ignore_index=ignore_index, reduction=reduction
    )


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
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, as in :func:`imae_ext.robust_loss`.
      target: class indices, of the logits' shape without ``C``.
      alpha: coefficient of the cross entropy.
      beta: coefficient of the reverse cross entropy.
      weight: ``(C,)``, of the classes.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``, the sum over the sum of the example weights.

    Returns:
      The loss, float32 (float64 for float64 logits): a scalar, or for ``"none"`` of the target's shape.

    Raises:
      TypeError: as in :func:`imae_ext.robust_loss`.
      ValueError: as in :func:`imae_ext.robust_loss`, or a parameter out of its range.
      IndexError: as in :func:`imae_ext.robust_loss`.

    Example:
      >>> import torch
      >>> sce_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(1.9859)
    """
    formula = _formula(SCE, alpha, beta)
    return robust_loss(logits, target, formula, weight=weight, ignore_index=ignore_index, reduction=reduction)


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
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, as in :func:`imae_ext.robust_loss`.
      target: class indices, of the logits' shape without ``C``.
      weight: ``(C,)``, of the classes.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``, the sum over the sum of the example weights.

    Returns:
      The loss, float32 (float64 for float64 logits): a scalar, or for ``"none"`` of the target's shape.

    Raises:
      TypeError: as in :func:`imae_ext.robust_loss`.
      ValueError: as in :func:`imae_ext.robust_loss`.
      IndexError: as in :func:`imae_ext.robust_loss`.

    Example:
      >>> import torch
      >>> nce_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(0.0508)
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
      logits: ``(N, C)``, ``(C,)`` or ``(N, C, d1, ...)``, as in :func:`imae_ext.robust_loss`.
      target: class indices, of the logits' shape without ``C``.
      gamma: in [0, 64]; 0 is the cross entropy.
      weight: ``(C,)``, of the classes.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``, the sum over the sum of the example weights.

    Returns:
      The loss, float32 (float64 for float64 logits): a scalar, or for ``"none"`` of the target's shape.

    Raises:
      TypeError: as in :func:`imae_ext.robust_loss`.
      ValueError: as in :func:`imae_ext.robust_loss`, or a parameter out of its range.
      IndexError: as in :func:`imae_ext.robust_loss`.

    Example:
      >>> import torch
      >>> focal_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(0.0109)
    """
    formula = _formula(Focal, gamma)
    return robust_loss(logits, target, formula, weight=weight, ignore_index=ignore_index, reduction=reduction)
