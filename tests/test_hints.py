"""Every hint of every message, followed: what it says to pass works, and computes what was meant."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import imae_ext
from imae_ext import (
    AGCE,
    CCE,
    IMAE,
    MAE,
    NCE,
    BinaryRobustLoss,
    CCELoss,
    GCELoss,
    IMAELoss,
    RobustLoss,
    binary_robust_loss,
    cce_loss,
    hints,
    linear_robust_loss,
    robust_loss,
    robust_loss_from_nll,
    trainers,
    value_and_grad,
)

PACKAGE = Path(imae_ext.__file__).parent
torch.manual_seed(0)
logits, target = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
one_hot = F.one_hot(target, 4)
x, yes = torch.randn(6), torch.tensor([0, 1, 1, 0, 1, 0])  # one logit and two classes
image, mask = torch.randn(2, 1, 3, 3), torch.randint(2, (2, 1, 3, 3))
tokens, words = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
spatial, labels = torch.randn(2, 5, 3), torch.randint(5, (2, 3))
several = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0]])
weight, row_weight = torch.linspace(0.5, 2, 4), torch.linspace(-0.5, 3, 6)
nothing = torch.empty(6, 4, device="meta"), torch.empty(6, dtype=torch.long, device="meta")


@dataclass
class CausalLMOutput:
    """Named as a causal language model's outputs are."""

    logits: torch.Tensor


@dataclass(frozen=True)
class Hint:
    wrong: Callable[[], object]
    says: str  # the hint, to its end
    followed: Callable[[], object]
    wanted: Callable[[], object]
    error: type[Exception] = ValueError


def ce(logits=logits, target=target, **options):
    return F.cross_entropy(logits, target, **options)


def weighted_mean(by=row_weight):
    return (ce(reduction="none") * by).sum() / by.sum()


def bce(x=x, yes=yes):
    return F.binary_cross_entropy_with_logits(x, yes.to(x.dtype))


def two(x=x):
    return torch.stack([torch.zeros_like(x), x], dim=-1)


def setting(module, name, value):
    def act():
        setattr(module, name, value)

    return act


BINARY = "use imae_ext.binary_robust_loss(logits, target, formula)"
COLUMN = "use imae_ext.binary_robust_loss(logits, target.unsqueeze(1), formula)"
ROWS = f"logits of shape (6,) are one row of 6 classes: if they are 6 rows of one logit for two classes, {BINARY}"
TABLE = {
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
    # other tensors
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
        "write the others with their names: weight=, sample_weight=, label_smoothing=, ignore_index=, reduction=",
        lambda: cce_loss(logits, target, weight=weight),
        lambda: ce(weight=weight),
        TypeError,
    ),
    "positional_weight_of_module": Hint(
        lambda: CCELoss(weight),
        "write the others with their names: weight=, label_smoothing=, ignore_index=, reduction=",
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


@pytest.mark.parametrize("name", TABLE)
def test_a_hint_leads_to_what_was_meant(name):
    hint = TABLE[name]
    with pytest.raises(hint.error) as caught:
        hint.wrong()
    message = str(caught.value)
    assert message.startswith("imae_ext: ") and message.endswith(hint.says), message
    followed, wanted = hint.followed(), hint.wanted()
    if isinstance(wanted, torch.Tensor) and wanted.device.type == "meta":
        assert followed.shape == wanted.shape
    else:
        torch.testing.assert_close(followed, wanted)


def executed() -> tuple[set[int], set[tuple[str, int]]]:
    """Run the wrong calls: return the lines of hints.py that ran, and where in the package errors were raised."""
    lines: set[int] = set()
    raised: set[tuple[str, int]] = set()

    def trace(frame, event, argument):
        if frame.f_code.co_filename == hints.__file__ and event == "line":
            lines.add(frame.f_lineno)
        return trace

    for hint in TABLE.values():
        sys.settrace(trace)
        try:
            hint.wrong()
        except Exception as error:
            at = error.__traceback__
        finally:
            sys.settrace(None)
        while at:
            raised.add((Path(at.tb_frame.f_code.co_filename).name, at.tb_lineno))
            at = at.tb_next
    return lines, raised


def test_every_hint_is_in_the_table():
    """A branch of hints.py, or a raise with a hint of its own, that the table does not reach."""
    lines, raised = executed()
    missing = []
    for node in ast.walk(ast.parse(Path(hints.__file__).read_text())):
        says = any(isinstance(each, ast.Constant) and "; " in str(each.value) for each in ast.walk(node))
        if isinstance(node, ast.Return) and says and not lines & set(range(node.lineno, node.end_lineno + 1)):
            missing.append(f"hints.py:{node.lineno}")
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Raise):
                continue
            text = ast.unparse(node)
            if ("; " in text or "hint" in text) and not any(
                (path.name, line) in raised for line in range(node.lineno, node.end_lineno + 1)
            ):
                missing.append(f"{path.name}:{node.lineno}: {text[:90]}")
    assert not missing, "\n".join(missing)


def test_one_hot_is_only_what_has_one_label_a_row():
    """Two labels or none in a row: argmax would take one of them in silence."""
    for wrong in (several, one_hot * 2, one_hot - 1):
        with pytest.raises((TypeError, ValueError)) as caught:
            cce_loss(logits, wrong)
        assert "argmax" not in str(caught.value)


def test_soft_labels_of_one_logit_are_not_cut_to_integers():
    with pytest.raises(ValueError, match="imae_ext: expected probabilities of 2 classes or more") as caught:
        cce_loss(x[:, None], torch.full((6, 1), 0.3))
    assert "long()" not in str(caught.value) and "argmax" not in str(caught.value)


def test_messages_without_values_to_look_at_do_not_look():
    """Under torch.func and on fake tensors a look would be an error of its own."""
    for wrong in (one_hot, target.float()):
        with pytest.raises((TypeError, ValueError), match="imae_ext: expected target"):
            torch.func.vmap(cce_loss)(logits[None], wrong[None])


def test_numpy_numbers_are_coefficients():
    assert np.float64(2) * MAE() == 2 * MAE() == MAE() * np.float32(2) and repr(np.float64(2) * MAE()) == "2.0 * MAE()"
    assert NCE() + AGCE() == sum([NCE(), AGCE()])
