"""The reliability contract: what is refused, with which error, saying what."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from calls import FORMULA, batch
from torch import Tensor

import imae_ext
from imae_ext import checks, reference

ENTRIES = {
    "kernel": lambda *a, **k: imae_ext.robust_loss(*a, **k),
    "kernel_autograd": lambda x, *a, **k: imae_ext.robust_loss(
        x.detach().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x, *a, **k
    ),
    "value_and_grad": lambda *a, **k: imae_ext.value_and_grad(*a, **k),
    "reference": lambda *a, **k: reference.robust_loss(*a, **k),
}
by_entry = pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)


@by_entry
@pytest.mark.parametrize("index_dtype", (torch.int64, torch.int32), ids=("int64", "int32"))
@pytest.mark.parametrize(
    ("bad", "shown"), ((-1, "-1"), (5, "5"), (2**31 - 1, "2147483647"), (-(2**31), "-2147483648")), ids=str
)
def test_target_out_of_range(bad, shown, index_dtype, entry):
    """IndexError naming the first such row and its value."""
    logits, target = batch()
    target = target.to(index_dtype)
    target[3], target[6] = bad, 99
    with pytest.raises(IndexError, match=rf"^imae_ext: expected .*\[0, 5\).* got {shown} .*\b3\b"):
        entry(logits, target, FORMULA)


@by_entry
def test_target_out_of_range_among_several_positions(entry):
    """Rows are counted in the target's order."""
    target = torch.zeros(2, 3, 2).long()
    target[1, 0, 1] = 7
    with pytest.raises(IndexError, match=r"^imae_ext: .* got 7 .*\b7\b"):
        entry(torch.zeros(2, 4, 3, 2), target, FORMULA)


def test_labels_on_a_gpu_are_looked_at_only_when_debugging(monkeypatch):
    """On a device without values, where a look at them is an error of its own."""
    arguments = (
        torch.empty(4, 3, device="meta"),
        torch.zeros(4, device="meta").long(),
        FORMULA,
        None,
        None,
        -100,
        "mean",
    )
    checks.check(*arguments)
    monkeypatch.setenv("IMAE_EXT_DEBUG", "1")
    with pytest.raises(RuntimeError, match="meta"):
        checks.check(*arguments)


@by_entry
def test_more_classes_than_32_bits_count(entry):
    """Of one logit's memory; the labels of a row's lanes have 32 bits, and would wrap around."""
    logits, target = torch.zeros(1, 1).expand(1, 2**31 + 64), torch.tensor([2**31 + 5])
    with pytest.raises(ValueError, match=r"^imae_ext: expected 1 to 2\*\*30 - 1 classes, got .*2147483712"):
        entry(logits, target, FORMULA)


@pytest.mark.parametrize(
    ("of", "by"),
    (
        (lambda grad: grad, torch.tensor(3)),
        (lambda grad: grad, torch.tensor(3.0, dtype=torch.bfloat16)),
        (lambda grad: grad, torch.ones(2)),
        (lambda grad: grad[:, ::2], torch.tensor(3.0)),
        (lambda grad: grad[:1].expand(4, 8), torch.tensor(3.0)),
    ),
    ids=("int64", "bfloat16", "several", "gaps", "overlapping"),
)
def test_scaling_what_is_no_gradient(of, by):
    grad = torch.ones(4, 8)
    with pytest.raises(RuntimeError, match="imae_ext: refused"):
        torch.ops.imae_ext.scale_(of(grad), by, torch.zeros(4, dtype=torch.long), None, None, -100)
    assert (grad == 1).all()


def test_minus_hundred_is_out_of_range_when_it_is_not_ignored():
    logits, target = batch()
    target[1] = -100
    with pytest.raises(IndexError, match=r"^imae_ext: .* got -100 .*\b1\b"):
        imae_ext.robust_loss(logits, target, FORMULA, ignore_index=-1)


TYPE_ERRORS = {
    "integer_logits": (
        {"logits": torch.zeros(8, 5).long()},
        r"logits .*dtype .*float32.* got torch\.int64; pass logits\.float\(\)$",
    ),
    "swapped": (
        {"logits": torch.zeros(8).long(), "target": torch.zeros(8, 5)},
        r"logits .*dtype .* got torch\.int64; the logits come first",
    ),
    "boolean_logits": ({"logits": torch.zeros(8, 5).bool()}, r"logits .*dtype .*float32.* got torch\.bool"),
    "complex_logits": ({"logits": torch.zeros(8, 5).cfloat()}, r"logits .*dtype .*float32.* got torch\.complex64"),
    "numpy_logits": ({"logits": np.zeros((8, 5))}, r"logits .*Tensor.* got ndarray"),
    "list_target": ({"target": [0] * 8}, r"target .*Tensor.* got list"),
    "float_target": ({"target": torch.zeros(8)}, r"target .*int64.*int32.* got torch\.float32; .*target\.long\(\)"),
    "short_target": ({"target": torch.zeros(8).short()}, r"target .*int64.*int32.* got torch\.int16; .*\.long\(\)"),
    "integer_weight": ({"weight": torch.ones(5).long()}, r"weight .*got torch\.int64"),
    "list_weight": ({"weight": [1.0] * 5}, r"weight .*Tensor.* got list"),
    "formula_by_name": ({"formula": "IMAE"}, r"formula.* got 'IMAE'"),
    "formula_class": ({"formula": imae_ext.IMAE}, r"formula.* got <class.*; write IMAE\(\)"),
}
VALUE_ERRORS = {
    "short_target": ({"target": torch.zeros(7).long()}, r"target of shape \(8,\), got \(7,\) .*dimension 1\)$"),
    "column_target": ({"target": torch.zeros(8, 1).long()}, r"target of shape \(8,\), got \(8, 1\).*squeeze\(1\)"),
    "one_hot": ({"target": torch.eye(5).repeat(2, 1)[:8].long()}, r"target of shape \(8,\), got \(8, 5\).*argmax\(1\)"),
    "scalar_target": ({"target": torch.tensor(0)}, r"target of shape \(8,\), got \(\)"),
    "vector_needs_scalar": (
        {"logits": torch.zeros(5), "target": torch.zeros(1).long()},
        r"target of shape \(\), got \(1,\).*target\.squeeze\(0\)",
    ),
    "classes_last": (
        {"logits": torch.zeros(8, 3, 4), "target": torch.zeros(8, 3).long()},
        r"target of shape \(8, 4\), got \(8, 3\).*logits\.movedim\(-1, 1\)",
    ),
    "scalar_logits": ({"logits": torch.tensor(0.0)}, r"logits of shape .*got"),
    "long_weight": ({"weight": torch.ones(6)}, r"weight of shape \(5,\), got \(6,\)"),
    "matrix_weight": ({"weight": torch.ones(1, 5)}, r"weight of shape \(5,\), got \(1, 5\)"),
    "target_elsewhere": ({"target": torch.zeros(8, device="meta").long()}, r"target on cpu.* got meta"),
    "weight_elsewhere": ({"weight": torch.ones(5, device="meta")}, r"weight on cpu.* got meta"),
    "reduction": ({"reduction": "average"}, r"reduction .*mean.*normalized.* got 'average'"),
    "no_reduction": ({"reduction": None}, r"reduction .* got None"),
    "normalized_nce": ({"formula": imae_ext.NCE(), "reduction": "normalized"}, r"normalized.* got NCE"),
    "normalized_smoothing": (
        {"formula": imae_ext.LabelSmoothing(0.1), "reduction": "normalized"},
        r"normalized.* got LabelSmoothing",
    ),
    "normalized_combination": (
        {"formula": 2.0 * imae_ext.NCE() + imae_ext.MAE(), "reduction": "normalized"},
        r"normalized.* got .*NCE",
    ),
}


def call(entry, **changed):
    logits, target = batch()
    arguments = {"logits": logits, "target": target, "formula": FORMULA, **changed}
    return entry(arguments.pop("logits"), arguments.pop("target"), arguments.pop("formula"), **arguments)


@by_entry
@pytest.mark.parametrize("name", TYPE_ERRORS)
def test_other_dtypes(name, entry):
    changed, message = TYPE_ERRORS[name]
    with pytest.raises(TypeError, match=rf"^imae_ext: expected .*{message}"):
        call(entry, **changed)


@by_entry
@pytest.mark.parametrize("name", VALUE_ERRORS)
def test_wrong_shapes_devices_and_reductions(name, entry):
    changed, message = VALUE_ERRORS[name]
    with pytest.raises(ValueError, match=rf"^imae_ext: .*{message}"):
        call(entry, **changed)


def test_row_stats_of_a_loss_that_sees_the_whole_row():
    logits, target = batch()
    for formula in (imae_ext.NCE(), imae_ext.LabelSmoothing(), imae_ext.NCE() + imae_ext.MAE()):
        with pytest.raises(ValueError, match=r"^imae_ext: .*row_stats.* got .*(NCE|LabelSmoothing)"):
            imae_ext.row_stats(logits, target, formula)


def test_options_that_are_not_what_they_should_be():
    with pytest.raises(ValueError, match="expected reduction to be one of"):
        imae_ext.imae_loss(*batch(), reduction=["mean"])
    with pytest.raises(TypeError, match="expected weight to be a Tensor, got list"):
        imae_ext.CCELoss(weight=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"expected weight of shape \(C,\), got \(3, 1\)"):
        imae_ext.CCELoss(weight=torch.ones(3, 1))
    with pytest.raises(TypeError, match="expected weight of a floating dtype"):
        imae_ext.CCELoss(weight=torch.ones(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="class weights go to weight="):
        imae_ext.IMAELoss(torch.ones(3))
    with pytest.raises(ValueError, match="SCE: expected a finite number for alpha"):
        imae_ext.SCE(alpha="x")


@by_entry
def test_ignore_index_beyond_64_bits(entry):
    with pytest.raises(ValueError, match=r"^imae_ext: expected ignore_index to be an int of 64 bits"):
        call(entry, ignore_index=2**70)


def test_row_stats_of_labels_elsewhere():
    with pytest.raises(ValueError, match=r"^imae_ext: expected target on cpu"):
        imae_ext.row_stats(torch.zeros(8, 5), torch.zeros(8, device="meta").long(), FORMULA)
