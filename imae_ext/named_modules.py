"""A module for each formula: its parameters are attributes that may be set, as in ``criterion.T = 4.0``."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from ._signature import ModuleOptions, with_options_of
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
    LabelSmoothing,
    TaylorCE,
)
from .modules import RobustLoss

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _parameter(name: str) -> property:
    """A formula's parameter: to set it replaces the formula, so that a schedule may."""

    def get(module: RobustLoss) -> float:
        return getattr(module.formula, name)  # type: ignore[no-any-return]

    def set(module: RobustLoss, value: float) -> None:
        module.formula = replace(module.formula, **{name: value})  # type: ignore[type-var]

    return property(get, set)


def _coefficient(index: int) -> property:
    """One of SCE's two, likewise."""

    def get(module: RobustLoss) -> float:
        return module.formula.terms[index][0]

    def set(module: RobustLoss, value: float) -> None:
        coefficients = [c for c, _ in module.formula.terms]
        coefficients[index] = value
        module.formula = SCE(*coefficients)

    return property(get, set)


_named = with_options_of(RobustLoss)


class IMAELoss(RobustLoss):
    """:func:`imae_ext.imae_loss` as a module; options of :class:`RobustLoss`."""

    T, eps = _parameter("T"), _parameter("eps")

    @_named
    def __init__(self, T: float = 8.0, eps: float = 1e-8, **options: Unpack[ModuleOptions]) -> None:
        super().__init__(IMAE(T, eps), **options)


class CCELoss(RobustLoss):
    """:func:`imae_ext.cce_loss` as a module; options of :class:`RobustLoss`."""

    @_named
    def __init__(self, **options: Unpack[ModuleOptions]) -> None:
        super().__init__(CCE(), **options)


class MAELoss(RobustLoss):
    """:func:`imae_ext.mae_loss` as a module; options of :class:`RobustLoss`."""

    @_named
    def __init__(self, **options: Unpack[ModuleOptions]) -> None:
        super().__init__(MAE(), **options)


class MSELoss(RobustLoss):
    """:func:`imae_ext.mse_loss` as a module; options of :class:`RobustLoss`."""

    @_named
    def __init__(self, **options: Unpack[ModuleOptions]) -> None:
        super().__init__(MSE(), **options)


class GCELoss(RobustLoss):
    """:func:`imae_ext.gce_loss` as a module; options of :class:`RobustLoss`."""

    q = _parameter("q")

    @_named
    def __init__(self, q: float = 0.7, **options: Unpack[ModuleOptions]) -> None:
        super().__init__(GCE(q), **options)


class DMLoss(RobustLoss):
    """:func:`imae_ext.dm_loss` as a module; options of :class:`RobustLoss`."""

    beta, lambd, eps = _parameter("beta"), _parameter("lambd"), _parameter("eps")

    @_named
    def __init__(
        self, beta: float = 8.0, lambd: float = 0.5, eps: float = 1e-8, **options: Unpack[ModuleOptions]
    ) -> None:
        super().__init__(DM(beta, lambd, eps), **options)


class RCELoss(RobustLoss):
    """:func:`imae_ext.rce_loss` as a module; options of :class:`RobustLoss`."""

    A = _parameter("A")

    @_named
    def __init__(self, A: float = -math.log(1e-4), **options: Unpack[ModuleOptions]) -> None:
        super().__init__(RCE(A), **options)


class SCELoss(RobustLoss):
    """:func:`imae_ext.sce_loss` as a module; options of :class:`RobustLoss`."""

    alpha, beta = _coefficient(0), _coefficient(1)

    @_named
    def __init__(self, alpha: float = 0.1, beta: float = 1.0, **options: Unpack[ModuleOptions]) -> None:
        super().__init__(SCE(alpha, beta), **options)


class NCELoss(RobustLoss):
    """:func:`imae_ext.nce_loss` as a module; options of :class:`RobustLoss`."""

    @_named
    def __init__(self, **options: Unpack[ModuleOptions]) -> None:
        super().__init__(NCE(), **options)


class FocalLoss(RobustLoss):
    """:func:`imae_ext.focal_loss` as a module; options of :class:`RobustLoss`."""

    gamma = _parameter("gamma")

    @_named
    def __init__(self, gamma: float = 2.0, **options: Unpack[ModuleOptions]) -> None:
        super().__init__(Focal(gamma), **options)


class TaylorCELoss(RobustLoss):
    """:func:`imae_ext.taylor_ce_loss` as a module; options of :class:`RobustLoss`."""

    t = _parameter("t")

    @_named
    def __init__(self, t: int = 2, **options: Unpack[ModuleOptions]) -> None:
        super().__init__(TaylorCE(t), **options)


class AGCELoss(RobustLoss):
    """:func:`imae_ext.agce_loss` as a module; options of :class:`RobustLoss`."""

    a, q = _parameter("a"), _parameter("q")

    @_named
    def __init__(self, a: float = 1.0, q: float = 2.0, **options: Unpack[ModuleOptions]) -> None:
        super().__init__(AGCE(a, q), **options)


class AULLoss(RobustLoss):
    """:func:`imae_ext.aul_loss` as a module; options of :class:`RobustLoss`."""

    a, q = _parameter("a"), _parameter("q")

    @_named
    def __init__(self, a: float = 1.5, q: float = 0.9, **options: Unpack[ModuleOptions]) -> None:
        super().__init__(AUL(a, q), **options)


class AELLoss(RobustLoss):
    """:func:`imae_ext.ael_loss` as a module; options of :class:`RobustLoss`."""

    a = _parameter("a")

    @_named
    def __init__(self, a: float = 2.5, **options: Unpack[ModuleOptions]) -> None:
        super().__init__(AEL(a), **options)


class LabelSmoothingLoss(RobustLoss):
    """:func:`imae_ext.label_smoothing_loss` as a module; options of :class:`RobustLoss`."""

    eps = _parameter("eps")

    @_named
    def __init__(self, eps: float = 0.1, **options: Unpack[ModuleOptions]) -> None:
        super().__init__(LabelSmoothing(eps), **options)
