"""linear_robust_loss of rows that lie on several processes.

A mean's divisor comes from the targets alone, and the sum's gradients are multiplied once in backward anyway. The
divisor of `normalized` needs the logits, which never exist all at once: a first pass over the chunks finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import devices
from ..formulas import unpack
from ..head import Call, Head
from ..head_targets import Inputs, rows_of
from . import groups
from .signature import Said


def loss(of_inputs: Callable[[Inputs, Head], Tensor], inputs: Inputs, options: Head, group: Any) -> Tensor:
    """Compute the loss, by the function that computes it for this process alone."""
    weights = inputs.weight is not None, inputs.sample_weight is not None
    formula, C = unpack(options.formula), len(inputs.head)
    said = Said(
        "linear_robust_loss", formula, inputs.x.dtype, options.reduction, options.ignore_index, -1, C, 0.0, *weights
    )

    def call(weight: Tensor | None, reduction: str) -> Tensor:
        return of_inputs(inputs._replace(weight=weight), options._replace(reduction=reduction))

    return groups.loss(group, options.reduction, said, lambda: _divisor(inputs, options), inputs.weight, (C,), call)


def _divisor(inputs: Inputs, options: Head) -> Tensor:
    if options.reduction == "mean":
        return rows_of(inputs, options.formula, options.ignore_index).of_mean.sum()
    weights = (inputs.target, inputs.lam, inputs.other_lam, inputs.weight, inputs.sample_weight)
    trained = any(t is not None and t.requires_grad for t in weights)
    amounts_elsewhere = inputs.x.device.type != "cpu" and inputs.target.is_floating_point()
    if torch.compiler.is_compiling() or trained or amounts_elsewhere or not devices.has_kernels(inputs.x):
        raise ValueError(
            "imae_ext: expected reduction 'mean', 'sum' or 'none' with group= where the fused head's kernels do not "
            "serve (torch.compile, weights that require a gradient, probabilities on a GPU), got 'normalized'; take "
            "robust_loss of the logits"
        )
    with torch.no_grad():
        detached = Inputs(*(None if t is None else t.detach() for t in inputs))  # type: ignore[arg-type]
        _, divisor, _ = Call(detached, options).run((False,) * 3)
    assert divisor is not None  # the reduction is normalized
    return divisor.to(inputs.compute)
