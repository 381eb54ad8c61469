"""Hints for the hidden states, weight and bias of a fused head."""

from __future__ import annotations

import torch
from hint_calls import Hint, ce, logits, one_hot, target

from imae_ext import CCE, linear_robust_loss


class DTensor(torch.Tensor):
    """Named as torch's, which needs a group of processes."""

    def full_tensor(self):
        return self.as_subclass(torch.Tensor)


D, C = 4, 3
head, bias, labels = torch.randn(C, D), torch.randn(C), target % C
spread = logits.as_subclass(DTensor)


def loss(hidden=logits, weight=head, y=labels, linear_bias=None, **options):
    return linear_robust_loss(hidden, weight, y, CCE(), linear_bias=linear_bias, **options)


def of_head(linear_bias=None, y=labels, **options):
    return ce(torch.nn.functional.linear(logits, head, linear_bias), y, **options)


OF_HEADS = {
    "head_list": Hint(
        lambda: loss(weight=head.tolist()),
        "pass torch.as_tensor(linear_weight)",
        lambda: loss(weight=torch.as_tensor(head.tolist())),
        of_head,
        TypeError,
    ),
    "head_sparse": Hint(
        lambda: loss(logits.to_sparse()),
        "pass input.to_dense()",
        lambda: loss(logits.to_sparse().to_dense()),
        of_head,
        TypeError,
    ),
    "head_of_processes": Hint(
        lambda: loss(spread), "pass input.full_tensor()", lambda: loss(spread.full_tensor()), of_head, TypeError
    ),
    "head_swapped": Hint(
        lambda: loss(labels, head, logits), "the hidden states come first", lambda: loss(logits), of_head, TypeError
    ),
    "head_turned": Hint(
        lambda: loss(weight=head.t()), "pass linear_weight.t()", lambda: loss(weight=head.t().t()), of_head
    ),
    "head_bias_column": Hint(
        lambda: loss(linear_bias=bias[:, None]),
        "pass linear_bias.flatten()",
        lambda: loss(linear_bias=bias[:, None].flatten()),
        lambda: of_head(bias),
    ),
    "head_probabilities_to_ignore": Hint(
        lambda: loss(y=one_hot[:, :C].float(), ignore_index=0),
        "leave rows out by sample_weight=",
        lambda: loss(y=torch.eye(C)[labels], sample_weight=(labels != 0).float()),
        lambda: of_head(ignore_index=0),
    ),
    "head_elsewhere": Hint(
        lambda: loss(weight=head.to("meta")),
        "pass linear_weight.to(input.device)",
        lambda: loss(weight=head.to(logits.device)),
        of_head,
    ),
}
