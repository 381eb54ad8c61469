"""Hints for tensors: logits, weights, buffers and devices; and for losses that begin from other tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hint_calls import (
    CausalLMOutput,
    Hint,
    ce,
    logits,
    nothing,
    one_hot,
    row_weight,
    target,
    tokens,
    weight,
    weighted_mean,
    words,
)

import imae_ext
from imae_ext import (
    CCE,
    IMAE,
    NCE,
    CCELoss,
    cce_loss,
    linear_robust_loss,
    robust_loss,
    robust_loss_from_nll,
    trainers,
    value_and_grad,
)


def in_inference() -> torch.Tensor:
    """Make a target that autograd may not keep."""
    with torch.inference_mode():
        return target.clone()


OF_TENSORS = {
    # other tensors
    "made_in_inference": Hint(
        lambda: cce_loss(logits.clone().requires_grad_(), in_inference()),
        "pass target.clone()",
        lambda: cce_loss(logits.clone().requires_grad_(), in_inference().clone()).detach(),
        ce,
        RuntimeError,
    ),
    "swapped": Hint(
        lambda: cce_loss(target, logits),
        "the logits come first, then the target",
        lambda: cce_loss(logits, target),
        ce,
        TypeError,
    ),
    "integer_logits": Hint(
        lambda: cce_loss(one_hot, target),
        "pass logits.float()",
        lambda: cce_loss(one_hot.float(), target),
        lambda: ce(one_hot.float()),
        TypeError,
    ),
    "numpy": Hint(
        lambda: cce_loss(logits.numpy(), target),
        "pass torch.as_tensor(logits)",
        lambda: cce_loss(torch.as_tensor(logits.numpy()), target),
        ce,
        TypeError,
    ),
    "list": Hint(
        lambda: cce_loss(logits, target.tolist()),
        "pass torch.as_tensor(target)",
        lambda: cce_loss(logits, torch.as_tensor(target.tolist())),
        ce,
        TypeError,
    ),
    "weight_list": Hint(
        lambda: cce_loss(logits, target, weight=weight.tolist()),
        "pass torch.as_tensor(weight)",
        lambda: cce_loss(logits, target, weight=torch.as_tensor(weight.tolist())),
        lambda: ce(weight=weight),
        TypeError,
    ),
    "weight_column": Hint(
        lambda: cce_loss(logits, target, weight=weight[:, None]),
        "pass weight.flatten()",
        lambda: cce_loss(logits, target, weight=weight[:, None].flatten()),
        lambda: ce(weight=weight),
    ),
    "weight_integer": Hint(
        lambda: cce_loss(logits, target, weight=torch.arange(1, 5)),
        "pass weight.float()",
        lambda: cce_loss(logits, target, weight=torch.arange(1, 5).float()),
        lambda: ce(weight=torch.arange(1.0, 5.0)),
        TypeError,
    ),
    "weights_of_rows": Hint(
        lambda: cce_loss(logits, target, weight=row_weight),
        "weights of the rows go to sample_weight=",
        lambda: cce_loss(logits, target, sample_weight=row_weight),
        weighted_mean,
    ),
    "weights": Hint(
        lambda: cce_loss(logits, target, weights=row_weight),
        "class weights go to weight=, weights of the rows to sample_weight=",
        lambda: cce_loss(logits, target, sample_weight=row_weight),
        weighted_mean,
        TypeError,
    ),
    "sample_weight_list": Hint(
        lambda: cce_loss(logits, target, sample_weight=row_weight.tolist()),
        "pass torch.as_tensor(sample_weight)",
        lambda: cce_loss(logits, target, sample_weight=torch.as_tensor(row_weight.tolist())),
        weighted_mean,
        TypeError,
    ),
    "sample_weight_integer": Hint(
        lambda: CCELoss()(logits, target, sample_weight=torch.arange(6)),
        "pass sample_weight.float()",
        lambda: CCELoss()(logits, target, sample_weight=torch.arange(6).float()),
        lambda: weighted_mean(torch.arange(6)),
        TypeError,
    ),
    "sample_weight_elsewhere": Hint(
        lambda: cce_loss(*nothing, sample_weight=row_weight),
        "pass sample_weight.to(logits.device)",
        lambda: cce_loss(*nothing, sample_weight=row_weight.to(nothing[0].device)),
        lambda: torch.empty((), device="meta"),
    ),
    "target_elsewhere": Hint(
        lambda: cce_loss(nothing[0], target),
        "pass target.to(logits.device)",
        lambda: cce_loss(nothing[0], target.to(nothing[0].device)),
        lambda: torch.empty((), device="meta"),
    ),
    "weight_elsewhere": Hint(
        lambda: cce_loss(*nothing, weight=weight),
        "pass weight.to(logits.device)",
        lambda: cce_loss(*nothing, weight=weight.to(nothing[0].device)),
        lambda: torch.empty((), device="meta"),
    ),
    # the gradient's buffer
    "trained_out": Hint(
        lambda: imae_ext.value_and_grad(logits, target, CCE(), out=torch.empty(6, 4, requires_grad=True)),
        "detach() it",
        lambda: imae_ext.value_and_grad(logits, target, CCE(), out=torch.empty(6, 4, requires_grad=True).detach())[0],
        ce,
    ),
    # tensors that are not laid out as the kernels read them
    "sparse_logits": Hint(
        lambda: cce_loss(logits.to_sparse(), target), "pass logits.to_dense()", lambda: ce(logits), ce, TypeError
    ),
    "sparse_weight": Hint(
        lambda: cce_loss(logits, target, weight=weight.to_sparse()),
        "pass weight.to_dense()",
        lambda: ce(weight=weight.to_sparse().to_dense()),
        lambda: ce(weight=weight),
        TypeError,
    ),
    "negated_out": Hint(
        lambda: value_and_grad(logits, target, CCE(), out=torch._neg_view(torch.zeros(6, 4))),
        "pass out.resolve_neg()",
        lambda: value_and_grad(logits, target, CCE(), out=torch._neg_view(torch.zeros(6, 4)).resolve_neg())[0],
        ce,
    ),
    # losses from log-probabilities, and the head
    "all_logits_from_nll": Hint(
        lambda: robust_loss_from_nll(ce(reduction="none"), NCE()),
        "pass the hidden states and the head's weight to linear_robust_loss, or the logits to robust_loss",
        lambda: linear_robust_loss(logits, torch.eye(4), target, NCE()),
        lambda: robust_loss(logits, target, NCE()),
    ),
    "small_eps_from_nll": Hint(
        lambda: robust_loss_from_nll(ce(reduction="none"), IMAE(8.0)),
        "pass eps=1e-3, or a nll of float64, or the hidden states and the head's weight to linear_robust_loss, which "
        "needs neither",
        lambda: robust_loss_from_nll(ce(reduction="none"), IMAE(8.0, eps=1e-3)),
        lambda: robust_loss(logits, target, IMAE(8.0, eps=1e-3)),
    ),
    "negative_nll": Hint(
        lambda: robust_loss_from_nll(-ce(reduction="none"), CCE()),
        "pass -log_probs",
        lambda: robust_loss_from_nll(ce(reduction="none"), CCE()),
        ce,
    ),
    "weight_without_target": Hint(
        lambda: robust_loss_from_nll(ce(reduction="none"), CCE(), weight=weight),
        "pass target=",
        lambda: robust_loss_from_nll(ce(reduction="none"), CCE(), weight=weight, target=target),
        lambda: ce(weight=weight),
    ),
    "head_of_another_dtype": Hint(
        lambda: linear_robust_loss(logits, torch.eye(4).double(), target, CCE()),
        "pass input.to(linear_weight.dtype)",
        lambda: linear_robust_loss(logits.to(torch.float64), torch.eye(4).double(), target, CCE()).float(),
        ce,
        TypeError,
    ),
    # a trainer's outputs, labels and counts
    "causal_outputs": Hint(
        lambda: trainers.classification_loss(CCE())(CausalLMOutput(logits=tokens), words),
        "take imae_ext.trainers.causal_lm_loss",
        lambda: trainers.causal_lm_loss(CCE())(CausalLMOutput(logits=tokens), words),
        lambda: F.cross_entropy(tokens[:, :-1].flatten(0, 1), words[:, 1:].flatten()),
    ),
    "labels_of_a_trainer": Hint(
        lambda: trainers.classification_loss(CCE())({"logits": logits}, None),
        "does the data set have a column that the trainer takes for labels (its label_names)?",
        lambda: trainers.classification_loss(CCE())({"logits": logits}, target),
        ce,
        TypeError,
    ),
    "counts_of_several_devices": Hint(
        lambda: trainers.classification_loss(CCE())({"logits": logits}, target, torch.tensor([3, 3])),
        "start it by torchrun, a process for each GPU",
        lambda: trainers.classification_loss(CCE())({"logits": logits}, target, torch.tensor(6)),
        ce,
    ),
}
