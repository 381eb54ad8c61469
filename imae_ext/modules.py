"""The losses as modules, drop-in for torch.nn.CrossEntropyLoss."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from torch import Tensor, nn

from .checks import check_options, check_weight
from .formulas import CCE, DM, GCE, IMAE, MAE, NCE, SCE, Focal, Loss
from .functional import robust_loss


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


class RobustLoss(nn.Module):
    """:func:`imae_ext.robust_loss` as a module.

    Args:
      formula: what to compute, such as ``2.0 * NCE() + MAE()``.
      weight: ``(C,)``, of the classes; a buffer, so that it moves with the module.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``.

    Example:
      >>> import torch
      >>> RobustLoss(2.0 * NCE() + MAE())(torch.zeros(1, 4), torch.tensor([0]))
      tensor(2.)

    ``formula``, ``weight``, ``ignore_index`` and ``reduction`` are attributes that may be set: ``criterion.formula =
    IMAE(4.0)``. The modules below have the parameters of their formulas as attributes, too.
    """

    weight: Tensor | None

    def __init__(
        self,
        formula: Loss,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_options(formula, reduction, ignore_index)
        check_weight(weight)
        self.formula = formula
        self.register_buffer("weight", weight)
        self.ignore_index = int(ignore_index)
        self.reduction = reduction

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse what would look like a parameter of the formula, but change nothing."""
        terms = self.formula.terms if "formula" in self.__dict__ else ()
        if not hasattr(type(self), name) and name in {each.name for _, formula in terms for each in fields(formula)}:  # type: ignore[arg-type]
            raise AttributeError(
                f"imae_ext: {type(self).__name__} has no parameter {name}; set formula, which is {self.formula!r}"
            )
        super().__setattr__(name, value)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss."""
        return robust_loss(
            logits,
            target,
            self.formula,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Show the formula and the reduction."""
        weight = "" if self.weight is None else f"weight of {len(self.weight)} classes, "
        return f"{self.formula!r}, {weight}ignore_index={self.ignore_index}, reduction={self.reduction!r}"


class IMAELoss(RobustLoss):
    """:func:`imae_ext.imae_loss` as a module; options of :class:`RobustLoss`.

    ``T`` in [0, 30], ``eps`` 0 or in [1e-30, 1].
    """

    T, eps = _parameter("T"), _parameter("eps")

    def __init__(
        self,
        T: float = 8.0,
        eps: float = 1e-8,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(IMAE(T, eps), weight=weight, ignore_index=ignore_index, reduction=reduction)


class CCELoss(RobustLoss):
    """:func:`imae_ext.cce_loss` as a module; options of :class:`RobustLoss`."""

    def __init__(
        self,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(CCE(), weight=weight, ignore_index=ignore_index, reduction=reduction)


class MAELoss(RobustLoss):
    """:func:`imae_ext.mae_loss` as a module; options of :class:`RobustLoss`."""

    def __init__(
        self,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(MAE(), weight=weight, ignore_index=ignore_index, reduction=reduction)


class GCELoss(RobustLoss):
    """:func:`imae_ext.gce_loss` as a module: ``q`` in (0, 1]; options of :class:`RobustLoss`."""

    q = _parameter("q")

    def __init__(
        self,
        q: float = 0.7,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(GCE(q), weight=weight, ignore_index=ignore_index, reduction=reduction)


class DMLoss(RobustLoss):
    """:func:`imae_ext.dm_loss` as a module; options of :class:`RobustLoss`.

    ``beta`` in [0, 16], ``lambd`` 0 or in [0.01, 16], ``eps`` 0 or in [1e-30, 1].
    """

    beta, lambd, eps = _parameter("beta"), _parameter("lambd"), _parameter("eps")

    def __init__(
        self,
        beta: float = 8.0,
        lambd: float = 0.5,
        eps: float = 1e-8,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(DM(beta, lambd, eps), weight=weight, ignore_index=ignore_index, reduction=reduction)


class SCELoss(RobustLoss):
    """:func:`imae_ext.sce_loss` as a module: ``alpha`` CCE and ``beta`` RCE; options of :class:`RobustLoss`."""

    alpha, beta = _coefficient(0), _coefficient(1)

    def __init__(
        self,
        alpha: float = 0.1,
        beta: float = 1.0,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(SCE(alpha, beta), weight=weight, ignore_index=ignore_index, reduction=reduction)


class NCELoss(RobustLoss):
    """:func:`imae_ext.nce_loss` as a module; options of :class:`RobustLoss`."""

    def __init__(
        self,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(NCE(), weight=weight, ignore_index=ignore_index, reduction=reduction)


class FocalLoss(RobustLoss):
    """:func:`imae_ext.focal_loss` as a module: ``gamma`` in [0, 64]; options of :class:`RobustLoss`."""

    gamma = _parameter("gamma")

    def __init__(
        self,
        gamma: float = 2.0,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(Focal(gamma), weight=weight, ignore_index=ignore_index, reduction=reduction)
