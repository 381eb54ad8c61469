"""The losses as a module, drop-in for torch.nn.CrossEntropyLoss; named_modules.py has one for each formula.

A checkpoint that holds one whole, not only its state_dict, is loaded by torch's safe reader once it is told of the
module's class and of those of its formulas:

>>> import io, torch
>>> from imae_ext import MAE, NCE, Combination
>>> file = io.BytesIO()
>>> torch.save(RobustLoss(2.0 * NCE() + MAE()), file)
>>> _ = file.seek(0)
>>> with torch.serialization.safe_globals([RobustLoss, Combination, NCE, MAE]):
...     torch.load(file, weights_only=True).formula
2.0 * NCE() + MAE()
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ._signature import explained
from .checks import check_options, check_smoothing, check_weight
from .formulas import FORMULAS, Formula
from .functional import robust_loss

if TYPE_CHECKING:
    from .distributed.groups import Group

# What a module may be told in vain: the parameters of all formulas, SCE's among them.
_PARAMETERS = {"alpha", "beta"} | {each.name for kind in FORMULAS.values() for each in fields(kind)}  # type: ignore[arg-type]


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
      >>> from imae_ext import MAE, NCE
      >>> RobustLoss(2.0 * NCE() + MAE())(torch.zeros(1, 4), torch.tensor([0]))
      tensor(2.)

    ``formula``, ``weight``, ``label_smoothing``, ``ignore_index``, ``reduction`` and ``group`` are attributes that may
    be set: ``criterion.formula = IMAE(4.0)``. A module with a formula's name, such as :class:`imae_ext.IMAELoss`, has
    the parameters of its formula as attributes, too.
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
