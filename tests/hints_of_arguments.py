"""Hints for arguments by other names, in other places or of another kind, and for formulas and modules."""

from __future__ import annotations

import torch
from hint_calls import Hint, ce, logits, setting, target, weight

import imae_ext
from imae_ext import CCE, IMAE, MAE, CCELoss, GCELoss, IMAELoss, RobustLoss, cce_loss, robust_loss

OF_ARGUMENTS = {
    # arguments
    "input": Hint(
        lambda: cce_loss(input=logits, target=target),
        "the first argument is called logits",
        lambda: cce_loss(logits=logits, target=target),
        ce,
        TypeError,
    ),
    "input_of_module": Hint(
        lambda: CCELoss()(input=logits, target=target),
        "the first argument is called logits",
        lambda: CCELoss()(logits=logits, target=target),
        ce,
        TypeError,
    ),
    "labels": Hint(
        lambda: cce_loss(logits, labels=target),
        "the second argument is called target",
        lambda: cce_loss(logits, target=target),
        ce,
        TypeError,
    ),
    "positional_weight": Hint(
        lambda: cce_loss(logits, target, weight),
        "write the others with their names: weight=, sample_weight=, label_smoothing=, ignore_index=, reduction=, "
        "group=",
        lambda: cce_loss(logits, target, weight=weight),
        lambda: ce(weight=weight),
        TypeError,
    ),
    "positional_weight_of_module": Hint(
        lambda: CCELoss(weight),
        "write the others with their names: weight=, label_smoothing=, ignore_index=, reduction=, group=",
        lambda: CCELoss(weight=weight)(logits, target),
        lambda: ce(weight=weight),
        TypeError,
    ),
    "weight_as_parameter": Hint(
        lambda: GCELoss(weight),
        "class weights go to weight=",
        lambda: GCELoss(weight=weight)(logits, target),
        lambda: imae_ext.gce_loss(logits, target, weight=weight),
    ),
    "weight_as_formula": Hint(
        lambda: RobustLoss(weight),
        "class weights go to weight=",
        lambda: RobustLoss(CCE(), weight=weight)(logits, target),
        lambda: ce(weight=weight),
        TypeError,
    ),
    "reduce": Hint(
        lambda: CCELoss(reduce=False),
        'pass reduction="none"',
        lambda: CCELoss(reduction="none")(logits, target),
        lambda: ce(reduction="none"),
        TypeError,
    ),
    "size_average": Hint(
        lambda: robust_loss(logits, target, CCE(), size_average=False),
        'pass reduction="mean" or "sum"',
        lambda: robust_loss(logits, target, CCE(), reduction="sum"),
        lambda: ce(reduction="sum"),
        TypeError,
    ),
    "case_of_a_keyword": Hint(
        lambda: imae_ext.imae_loss(logits, target, t=4.0),
        "there is T",
        lambda: imae_ext.imae_loss(logits, target, T=4.0),
        lambda: robust_loss(logits, target, IMAE(4.0)),
        TypeError,
    ),
    # formulas
    "formula_class": Hint(
        lambda: robust_loss(logits, target, CCE),
        "write CCE()",
        lambda: robust_loss(logits, target, CCE()),
        ce,
        TypeError,
    ),
    "formula_of_module": Hint(
        lambda: MAE() + CCELoss(),
        "write its formula, CCE()",
        lambda: robust_loss(logits, target, MAE() + CCE()),
        lambda: imae_ext.mae_loss(logits, target) + ce(),
        TypeError,
    ),
    "constant": Hint(
        lambda: MAE() - 1,
        "a constant has no gradient: add it to the loss",
        lambda: robust_loss(logits, target, MAE()) - 1,
        lambda: imae_ext.mae_loss(logits, target) - 1,
        TypeError,
    ),
    "constant_first": Hint(
        lambda: 1 + MAE(),
        "a constant has no gradient: add it to the loss",
        lambda: 1 + robust_loss(logits, target, MAE()),
        lambda: 1 + imae_ext.mae_loss(logits, target),
        TypeError,
    ),
    "tensor_coefficient": Hint(
        lambda: MAE() * torch.tensor(0.5),
        "write .item(), or multiply the loss",
        lambda: robust_loss(logits, target, MAE() * torch.tensor(0.5).item()),
        lambda: torch.tensor(0.5) * imae_ext.mae_loss(logits, target),
        TypeError,
    ),
    "weights_as_coefficients": Hint(
        lambda: weight * CCE(),
        "class weights go to weight=",
        lambda: robust_loss(logits, target, CCE(), weight=weight),
        lambda: ce(weight=weight),
        TypeError,
    ),
    "tensor_parameter": Hint(
        lambda: IMAE(torch.tensor(4.0)),
        "write .item()",
        lambda: robust_loss(logits, target, IMAE(torch.tensor(4.0).item())),
        lambda: imae_ext.imae_loss(logits, target, T=4.0),
    ),
    "base_class": Hint(
        lambda: imae_ext.Formula(),
        "take one, such as imae_ext.IMAE(8.0)",
        lambda: robust_loss(logits, target, imae_ext.IMAE(8.0)),
        lambda: imae_ext.imae_loss(logits, target),
        TypeError,
    ),
    "subclass": Hint(
        lambda: type("Mine", (MAE,), {})(),
        "combine those they know by + and *",
        lambda: robust_loss(logits, target, 0.5 * MAE() + CCE()),
        lambda: 0.5 * imae_ext.mae_loss(logits, target) + ce(),
        TypeError,
    ),
    # attributes of modules
    "case_of_a_parameter": Hint(
        setting(IMAELoss(), "t", 4.0), "there is T", lambda: IMAELoss(T=4.0).T, lambda: 4.0, AttributeError
    ),
    "parameter_of_another": Hint(
        setting(IMAELoss(), "q", 0.5),
        "set formula, which is IMAE(T=8.0, eps=1e-08)",
        lambda: setting(module := IMAELoss(), "formula", imae_ext.GCE(0.5))() or module(logits, target),
        lambda: imae_ext.gce_loss(logits, target, q=0.5),
        AttributeError,
    ),
}
