"""The named losses as functions, with the call shape of torch.nn.functional.cross_entropy: one for each formula."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from ._signature import Options, documented_by, with_options_of
from .formulas import (
    AEL,
    AGCE,
    AUL,
    CCE,
    DM,
    GCE,
    IMAE,
    MAE,
    MSE,
    NCE,
    RCE,
    SCE,
    Focal,
    Formula,
    LabelSmoothing,
    TaylorCE,
)
from .functional import robust_loss

if TYPE_CHECKING:
    from typing_extensions import Unpack

F = TypeVar("F", bound=Callable[..., Tensor])

_call: Callable[..., Tensor] = inspect.unwrap(
    robust_loss
)  # the losses below have looked at their arguments' names themselves
_cce, _mae, _mse, _nce = CCE(), MAE(), MSE(), NCE()


@functools.lru_cache(maxsize=64, typed=True)  # typed: True is not 1.0
def _made(make: Callable[..., Formula], *parameters: float) -> Formula:
    return make(*parameters)


def _formula(make: Callable[..., Formula], *parameters: float) -> Formula:
    """Make a formula, or return the one that was made before: it is immutable, and making it takes a while."""
    if torch.compiler.is_compiling():
        return make(*parameters)
    try:
        return _made(make, *parameters)
    except TypeError:  # unhashable, so not a number: make() says so
        return make(*parameters)


def _loss(make: Callable[..., Formula]) -> Callable[[F], F]:
    """Complete signature and docstring: the formula explains its parameters, robust_loss the options."""

    def change(function: F) -> F:
        return with_options_of(robust_loss)(documented_by(make, robust_loss)(function))

    return change


@_loss(IMAE)
def imae_loss(
    logits: Tensor,
    target: Tensor,
    *,
    T: float = 8.0,
    eps: float = 1e-8,
    **options: Unpack[Options],
) -> Tensor:
    """Compute the IMAE loss (arXiv 1903.12141): example weight ``exp(T p (1 - p))``.

    ``p`` is the softmax probability of the label. Weights go up to ``exp(T/4)``: begin with a tenth of cross
    entropy's learning rate. The value, the integral of the gradient that the weights make, is well above cross
    entropy's even for good fits: watch accuracy. Leave ``eps`` as it is; :class:`imae_ext.IMAE` says why.

    Example:
      >>> import torch
      >>> imae_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(10.1963)
    """
    return _call(logits, target, _formula(IMAE, T, eps), **options)


@_loss(CCE)
def cce_loss(logits: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
    """Compute the categorical cross entropy, as F.cross_entropy: ``-log p``.

    Example:
      >>> import torch
      >>> cce_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(0.2395)
    """
    return _call(logits, target, _cce, **options)


@_loss(MAE)
def mae_loss(logits: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
    """Compute the mean absolute error against the one-hot label: ``2 (1 - p)``.

    Others call ``1 - p`` by this name; the gradient of half this loss is that of DFT: see :class:`imae_ext.MAE`.

    Example:
      >>> import torch
      >>> mae_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(0.4260)
    """
    return _call(logits, target, _mae, **options)


@_loss(MSE)
def mse_loss(logits: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
    """Compute the squared error of the labelled class, ``(1 - p)**2`` (arXiv 1905.11233).

    Example:
      >>> import torch
      >>> mse_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(0.0454)
    """
    return _call(logits, target, _mse, **options)


@_loss(GCE)
def gce_loss(logits: Tensor, target: Tensor, *, q: float = 0.7, **options: Unpack[Options]) -> Tensor:
    """Compute the generalised cross entropy ``(1 - p**q) / q`` (Zhang & Sabuncu, NeurIPS 2018).

    Example:
      >>> import torch
      >>> gce_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(0.2205)
    """
    return _call(logits, target, _formula(GCE, q), **options)


@_loss(DM)
def dm_loss(
    logits: Tensor,
    target: Tensor,
    *,
    beta: float = 8.0,
    lambd: float = 0.5,
    eps: float = 1e-8,
    **options: Unpack[Options],
) -> Tensor:
    """Compute the DM loss (arXiv 1905.11233), example weight ``exp(beta p**lambd (1 - p))``.

    ``lambd = 1`` is :func:`imae_loss`.

    Example:
      >>> import torch
      >>> dm_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(10.3432)
    """
    return _call(logits, target, _formula(DM, beta, lambd, eps), **options)


@_loss(RCE)
def rce_loss(logits: Tensor, target: Tensor, *, A: float = -math.log(1e-4), **options: Unpack[Options]) -> Tensor:
    """Compute the reverse cross entropy ``A (1 - p)`` (Wang et al., ICCV 2019).

    Example:
      >>> import torch
      >>> rce_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(1.9619)
    """
    return _call(logits, target, _formula(RCE, A), **options)


@_loss(SCE)
def sce_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.1,
    beta: float = 1.0,
    **options: Unpack[Options],
) -> Tensor:
    """Compute the symmetric cross entropy ``alpha CCE + beta RCE`` (Wang et al., ICCV 2019).

    Example:
      >>> import torch
      >>> sce_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(1.9859)
    """
    return _call(logits, target, _formula(SCE, alpha, beta), **options)


@_loss(NCE)
def nce_loss(logits: Tensor, target: Tensor, **options: Unpack[Options]) -> Tensor:
    """Compute the normalised cross entropy ``log p_y / sum_j log p_j`` (Ma et al., ICML 2020).

    Example:
      >>> import torch
      >>> nce_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(0.0508)
    """
    return _call(logits, target, _nce, **options)


@_loss(Focal)
def focal_loss(logits: Tensor, target: Tensor, *, gamma: float = 2.0, **options: Unpack[Options]) -> Tensor:
    """Compute the softmax focal loss ``-(1 - p)**gamma log p`` (Lin et al., ICCV 2017).

    Example:
      >>> import torch
      >>> focal_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(0.0109)
    """
    return _call(logits, target, _formula(Focal, gamma), **options)


@_loss(TaylorCE)
def taylor_ce_loss(logits: Tensor, target: Tensor, *, t: int = 2, **options: Unpack[Options]) -> Tensor:
    """Compute the first ``t`` terms of cross entropy's series, ``sum_k (1 - p)**k / k`` (Feng et al., IJCAI 2020).

    Example:
      >>> import torch
      >>> taylor_ce_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(0.2357)
    """
    return _call(logits, target, _formula(TaylorCE, t), **options)


@_loss(AGCE)
def agce_loss(logits: Tensor, target: Tensor, *, a: float = 1.0, q: float = 2.0, **options: Unpack[Options]) -> Tensor:
    """Compute the asymmetric GCE ``((a+1)**q - (a+p)**q) / q`` (Zhou et al., ICML 2021).

    Example:
      >>> import torch
      >>> agce_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(0.4033)
    """
    return _call(logits, target, _formula(AGCE, a, q), **options)


@_loss(AUL)
def aul_loss(logits: Tensor, target: Tensor, *, a: float = 1.5, q: float = 0.9, **options: Unpack[Options]) -> Tensor:
    """Compute the asymmetric unhinged loss ``((a-p)**q - (a-1)**q) / q`` (Zhou et al., ICML 2021).

    Example:
      >>> import torch
      >>> aul_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(0.2241)
    """
    return _call(logits, target, _formula(AUL, a, q), **options)


@_loss(AEL)
def ael_loss(logits: Tensor, target: Tensor, *, a: float = 2.5, **options: Unpack[Options]) -> Tensor:
    """Compute the asymmetric exponential loss ``exp(-p / a)`` (Zhou et al., ICML 2021).

    Example:
      >>> import torch
      >>> ael_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(0.7299)
    """
    return _call(logits, target, _formula(AEL, a), **options)


@_loss(LabelSmoothing)
def label_smoothing_loss(logits: Tensor, target: Tensor, *, eps: float = 0.1, **options: Unpack[Options]) -> Tensor:
    """Compute cross entropy against the label smoothed by ``eps`` (Szegedy et al., CVPR 2016).

    As ``F.cross_entropy(label_smoothing=eps)``, but for class weights: see :class:`imae_ext.LabelSmoothing`.

    Example:
      >>> import torch
      >>> label_smoothing_loss(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
      tensor(0.3729)
    """
    return _call(logits, target, _formula(LabelSmoothing, eps), **options)
