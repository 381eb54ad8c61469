"""Hints for a target of another kind: binary losses, indices of classes, probabilities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hint_calls import (
    Hint,
    bce,
    ce,
    image,
    labels,
    logits,
    mask,
    nothing,
    one_hot,
    several,
    spatial,
    target,
    two,
    x,
    yes,
)

from imae_ext import CCE, BinaryRobustLoss, binary_robust_loss, cce_loss, robust_loss

BINARY = "use imae_ext.binary_robust_loss(logits, target, formula)"
COLUMN = "use imae_ext.binary_robust_loss(logits, target.unsqueeze(1), formula)"
ROWS = f"logits of shape (6,) are one row of 6 classes: if they are 6 rows of one logit for two classes, {BINARY}"
OF_TARGETS = {
    # one logit for two classes
    "vector": Hint(lambda: cce_loss(x, yes), ROWS, lambda: binary_robust_loss(x, yes, CCE()), bce),
    "column_and_column": Hint(
        lambda: cce_loss(x[:, None], yes[:, None]),
        BINARY,
        lambda: binary_robust_loss(x[:, None], yes[:, None], CCE()),
        bce,
    ),
    "column_and_soft_column": Hint(
        lambda: cce_loss(x[:, None], yes[:, None] * 0.5),
        BINARY,
        lambda: binary_robust_loss(x[:, None], yes[:, None] * 0.5, CCE()),
        lambda: bce(yes=yes * 0.5),
    ),
    "column_and_float_vector": Hint(
        lambda: cce_loss(x[:, None], yes.float()),
        COLUMN,
        lambda: binary_robust_loss(x[:, None], yes.float().unsqueeze(1), CCE()),
        bce,
        TypeError,
    ),
    "column_and_vector": Hint(
        lambda: cce_loss(x[:, None], yes),
        COLUMN,
        lambda: binary_robust_loss(x[:, None], yes.unsqueeze(1), CCE()),
        bce,
        IndexError,
    ),
    "masks": Hint(
        lambda: cce_loss(image, mask),
        BINARY,
        lambda: binary_robust_loss(image, mask, CCE()),
        lambda: bce(image, mask),
    ),
    # binary losses
    "binary_unsqueeze": Hint(
        lambda: binary_robust_loss(x[:, None], yes, CCE()),
        "pass target.unsqueeze(1)",
        lambda: binary_robust_loss(x[:, None], yes.unsqueeze(1), CCE()),
        bce,
    ),
    "binary_squeeze": Hint(
        lambda: binary_robust_loss(x, yes[:, None], CCE()),
        "pass target.squeeze(1)",
        lambda: binary_robust_loss(x, yes[:, None].squeeze(1), CCE()),
        bce,
    ),
    "binary_with_classes": Hint(
        lambda: binary_robust_loss(logits, target, CCE()),
        "for one class a row use imae_ext.robust_loss",
        lambda: robust_loss(logits, target, CCE()),
        ce,
    ),
    "binary_list": Hint(
        lambda: binary_robust_loss(x, yes.tolist(), CCE()),
        "pass torch.as_tensor(target)",
        lambda: binary_robust_loss(x, torch.as_tensor(yes.tolist()), CCE()),
        bce,
        TypeError,
    ),
    "binary_swapped": Hint(
        lambda: binary_robust_loss(yes, x, CCE()),
        "the logits come first, then the target",
        lambda: binary_robust_loss(x, yes, CCE()),
        bce,
        TypeError,
    ),
    "pos_weight_number": Hint(
        lambda: binary_robust_loss(x, yes, CCE(), pos_weight=[2.0]),
        "pass torch.as_tensor(pos_weight)",
        lambda: binary_robust_loss(x, yes, CCE(), pos_weight=torch.as_tensor([2.0])),
        lambda: F.binary_cross_entropy_with_logits(x, yes.float(), pos_weight=torch.tensor(2.0)),
        TypeError,
    ),
    "pos_weight_integer": Hint(
        lambda: BinaryRobustLoss(CCE(), pos_weight=torch.tensor(2)),
        "pass pos_weight.float()",
        lambda: BinaryRobustLoss(CCE(), pos_weight=torch.tensor(2).float())(x, yes),
        lambda: F.binary_cross_entropy_with_logits(x, yes.float(), pos_weight=torch.tensor(2.0)),
        TypeError,
    ),
    "binary_target_elsewhere": Hint(
        lambda: binary_robust_loss(nothing[0], several, CCE()),
        "pass target.to(logits.device)",
        lambda: binary_robust_loss(nothing[0], several.to(nothing[0].device), CCE()),
        lambda: torch.empty((), device="meta"),
    ),
    # targets that are no class indices of the right shape
    "bool": Hint(
        lambda: cce_loss(two(), yes.bool()),
        "if it holds classes, pass target.long()",
        lambda: cce_loss(two(), yes.bool().long()),
        bce,
        TypeError,
    ),
    "float": Hint(
        lambda: cce_loss(logits, target.float()),
        "if it holds classes, pass target.long()",
        lambda: cce_loss(logits, target.float().long()),
        ce,
        TypeError,
    ),
    "column": Hint(
        lambda: cce_loss(logits, target[:, None]),
        "pass target.squeeze(1)",
        lambda: cce_loss(logits, target[:, None].squeeze(1)),
        ce,
    ),
    "one_hot": Hint(
        lambda: cce_loss(logits, one_hot),
        "it looks one-hot: pass target.argmax(1)",
        lambda: cce_loss(logits, one_hot.argmax(1)),
        ce,
    ),
    "one_hot_last": Hint(
        lambda: cce_loss(spatial, F.one_hot(labels, 5)),
        "it looks one-hot: pass target.argmax(-1)",
        lambda: cce_loss(spatial, F.one_hot(labels, 5).argmax(-1)),
        lambda: ce(spatial, labels),
    ),
    "one_hot_unseen": Hint(
        lambda: cce_loss(nothing[0], torch.empty(6, 4, dtype=torch.long, device="meta")),
        "if it is one-hot, every row with a single 1, pass target.argmax(1)",
        lambda: cce_loss(nothing[0], torch.empty(6, 4, dtype=torch.long, device="meta").argmax(1)),
        lambda: torch.empty((), device="meta"),
    ),
    "several_labels": Hint(
        lambda: cce_loss(logits, several),
        f"for a yes or no to each class {BINARY}",
        lambda: binary_robust_loss(logits, several.float(), CCE()),
        lambda: bce(logits, several),
    ),
    "probabilities_last": Hint(
        lambda: cce_loss(spatial, F.one_hot(labels, 5) * 0.9 + 0.02),
        "if the classes are last in it, pass target.movedim(-1, 1)",
        lambda: cce_loss(spatial, (F.one_hot(labels, 5) * 0.9 + 0.02).movedim(-1, 1)),
        lambda: ce(spatial, labels, label_smoothing=0.1),
        TypeError,
    ),
    "probabilities_of_one_class": Hint(
        lambda: cce_loss(logits, 0.5 * one_hot[:, 0]),
        "probabilities have the logits' shape, (6, 4)",
        lambda: cce_loss(logits, 0.5 * one_hot),
        lambda: ce(target=0.5 * one_hot),
        TypeError,
    ),
    "probabilities_to_ignore": Hint(
        lambda: cce_loss(logits, one_hot.float(), ignore_index=0),
        "leave rows out by sample_weight=",
        lambda: cce_loss(logits, one_hot.float(), sample_weight=(target != 0).float()),
        lambda: ce(ignore_index=0),
    ),
    "floats_unseen": Hint(
        lambda: cce_loss(nothing[0], nothing[1].float()[:, None]),
        "pass target.squeeze(1).long(), if the target holds whole numbers",
        lambda: cce_loss(nothing[0], nothing[1].float()[:, None].squeeze(1).long()),
        lambda: torch.empty((), device="meta"),
        TypeError,
    ),
    "classes_last": Hint(
        lambda: cce_loss(spatial.movedim(1, -1), labels),
        "if the classes are last, pass logits.movedim(-1, 1)",
        lambda: cce_loss(spatial.movedim(1, -1).movedim(-1, 1), labels),
        lambda: ce(spatial, labels),
    ),
}
