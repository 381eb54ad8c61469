"""The losses as modules, drop-in for torch.nn.CrossEntropyLoss: one for each formula.

A checkpoint that holds one whole, not only its state_dict, is loaded by torch's safe reader once it is told of the
module's class and of those of its formulas:

>>> import io, torch
>>> from imae_ext import Combination
>>> file = io.BytesIO()
>>> torch.save(RobustLoss(2.0 * NCE() + MAE()), file)
>>> _ = file.seek(0)
>>> with torch.serialization.safe_globals([RobustLoss, Combination, NCE, MAE]):
...     torch.load(file, weights_only=True).formula
2.0 * NCE() + MAE()
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ._signature import ModuleOptions, explained, with_options_of
from .checks import check_options, check_smoothing, check_weight
from .formulas import (
    AEL,
    AGCE,
    AUL,
    CCE,
    DM,
    FORMULAS,
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

    from .distributed.groups import Group

# What a module may be told in vain: the parameters of all formulas, SCE's among them.
_PARAMETERS = {"alpha", "beta"} | {each.name for kind in FORMULAS.values() for each in fields(kind)}  # type: ignore[arg-type]


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
      label_smoothing: ``e`` in ``[0, 1]``, as :func:`imae_ext.robust_loss` has it.
      ignore_index: the label of rows that do not count.
      reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"normalized"``.
      group: of processes, as :func:`imae_ext.robust_loss` has it; a ProcessGroup cannot be pickled, ``"world"`` can.

    Example:
      >>> import torch
      >>> RobustLoss(2.0 * NCE() + MAE())(torch.zeros(1, 4), torch.tensor([0]))
      tensor(2.)

    ``formula``, ``weight``, ``label_smoothing``, ``ignore_index``, ``reduction`` and ``group`` are attributes that may
    be set: ``criterion.formula = IMAE(4.0)``. The modules below have the parameters of their formulas as well.
    """

    weight: Tensor | None

    @explained
    def __init__(
        self,
        formula: Formula,
        *,
        weight: Tensor | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
        reduction: str = "mean",
        group: Group = None,
    ) -> None:
        super().__init__()
        check_options(formula, reduction, ignore_index)
        check_weight(weight)
        check_smoothing(label_smoothing)
        self.formula = formula
        self.register_buffer("weight", weight)
        self.label_smoothing = label_smoothing
        self.ignore_index = int(ignore_index)
        self.reduction = reduction
        self.group = group

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse what would look like an option or a parameter of the formula, but change nothing.

        A subclass that has another use for such a name declares it in its class.
        """
        if "formula" in self.__dict__ and not hasattr(self, name):
            alike = [each for each in dir(self) if each.lower() == name.lower() and not each.startswith("_")]
            if alike:
                raise AttributeError(f"imae_ext: {type(self).__name__} has no attribute {name}; there is {alike[0]}")
            if name in _PARAMETERS:
                raise AttributeError(
                    f"imae_ext: {type(self).__name__} has no parameter {name}; set formula, which is {self.formula!r}"
                )
        super().__setattr__(name, value)

    @explained
    def forward(self, logits: Tensor, target: Tensor, *, sample_weight: Tensor | None = None) -> Tensor:
        """Compute the loss; ``sample_weight`` is :func:`imae_ext.robust_loss`'s, of this call's rows."""
        return robust_loss(
            logits,
            target,
            self.formula,
            weight=self.weight,
            sample_weight=sample_weight,
            label_smoothing=self.label_smoothing,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            group=self.group,
        )

    def extra_repr(self) -> str:
        """Show the formula and the reduction."""
        weight = "" if self.weight is None else f"weight of {len(self.weight)} classes, "
        smoothing = f"label_smoothing={self.label_smoothing}, " if self.label_smoothing else ""
        return f"{self.formula!r}, {weight}{smoothing}ignore_index={self.ignore_index}, reduction={self.reduction!r}"


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
