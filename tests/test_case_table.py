"""The common case table through the CPU operator, plain torch and the reference, held to the same accuracy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from calls import plain_loss
from cases import Case, table, table_params
from expected import Expected, assert_within, expected, rows, stats_allowances
from torch import Tensor

import imae_ext
from imae_ext import plain, reference

TABLE = table_params()
# value_and_grad writes the gradient in the forward pass, but for normalized. Autograd does so for fewer, and scales it:
# each kernel meets every case that it is made for once.
ONE_PASS = [p for p in TABLE if p.values[0].reduction != "normalized"]
SCALED = [p for p in TABLE if p.values[0].reduction in ("mean", "sum") and p.values[0].dtype != torch.float16]
TWO_PASSES = [p for p in TABLE if p.values[0].reduction in ("none", "normalized") or p.values[0].dtype == torch.float16]


def upstream_of(case: Case, loss: Tensor) -> Tensor:
    """A grad_output that is neither one nor even: of the loss's shape and dtype."""
    if loss.ndim == 0:
        return loss.new_tensor(0.75)
    return torch.linspace(-1.5, 2.5, loss.numel(), dtype=loss.dtype).view_as(loss)


def compare(case: Case, logits: Tensor, loss: Tensor, grad: Tensor, wanted: Expected) -> None:
    assert not np.isnan(wanted.loss).any() and not np.isnan(wanted.grad).any(), "the case asks for nothing"
    assert loss.dtype == (torch.float64 if logits.dtype == torch.float64 else torch.float32)
    assert grad.dtype == logits.dtype and grad.shape == logits.shape
    assert_within(loss.reshape(-1) if case.reduction == "none" else loss, wanted.loss, wanted.loss_allowed, "loss")
    assert_within(rows(grad), wanted.grad, wanted.grad_allowed, "gradient")


@pytest.mark.parametrize("case", ONE_PASS)
def test_value_and_grad(case):
    logits, target, weight = case.inputs()
    loss, grad = imae_ext.value_and_grad(logits, target, case.formula.build(), weight=weight, reduction=case.reduction)
    wanted = expected(case.formula, logits, target, weight=weight, reduction=case.reduction)
    compare(case, logits, loss, grad, wanted)


def check_autograd(case: Case, loss_function) -> None:
    logits, target, weight = case.inputs()
    leaf = logits.detach().requires_grad_()
    loss = loss_function(leaf, target, case.formula.build(), weight=weight, reduction=case.reduction)
    upstream = upstream_of(case, loss)
    (grad,) = torch.autograd.grad(loss, leaf, upstream)
    wanted = expected(
        case.formula,
        logits,
        target,
        weight=weight,
        reduction=case.reduction,
        grad_output=upstream.double().numpy().reshape(-1) if loss.ndim else upstream.item(),
    )
    compare(case, logits, loss.detach(), grad, wanted)


@pytest.mark.parametrize("case", TWO_PASSES + SCALED[::4])
def test_autograd(case):
    check_autograd(case, imae_ext.robust_loss)


def a_quarter_and_slowly_the_rest() -> list:
    return [p if i % 4 == 0 else pytest.param(*p.values, id=p.id, marks=pytest.mark.slow) for i, p in enumerate(TABLE)]


@pytest.mark.parametrize("case", a_quarter_and_slowly_the_rest())
def test_plain(case):
    check_autograd(case, plain_loss)


@pytest.mark.parametrize("case", TABLE[1::8])
def test_plain_value_and_grad(case):
    logits, target, weight = case.inputs()
    options = (case.formula.build(), weight, None, -100, case.reduction)
    loss, grad = plain.value_and_grad(logits, target, options, None)
    wanted = expected(case.formula, logits, target, weight=weight, reduction=case.reduction)
    compare(case, logits, loss, grad, wanted)
    values_only = plain.loss(logits, target, options)
    compare(case, logits, values_only, grad, wanted)


@pytest.mark.parametrize("case", TABLE[2::4])
def test_reference(case):
    check_autograd(case, reference.robust_loss)


def kernel_stats(logits: Tensor, target: Tensor, formula) -> tuple[Tensor, Tensor]:
    return imae_ext.row_stats(logits, target, formula)[:2]


def plain_stats(logits: Tensor, target: Tensor, formula) -> tuple[Tensor, Tensor]:
    return plain.row_stats(logits, target, formula, -100)


@pytest.mark.parametrize("row_stats", (kernel_stats, plain_stats), ids=("kernel", "plain"))
@pytest.mark.parametrize("case", [p for p in TABLE[::5] if p.values[0].formula.margin])
def test_row_stats(case, row_stats):
    logits, target, _ = case.inputs()
    p, w, *_ = row_stats(logits, target, case.formula.build())
    assert p.shape == w.shape == target.shape
    stats = np.stack([p.double().numpy().reshape(-1), w.double().numpy().reshape(-1)])
    ignored = target.reshape(-1).numpy() == -100
    assert (stats[:, ignored] == 0).all()
    kept = torch.from_numpy(~ignored)
    table_of = expected(case.formula, logits, target, reduction="none").table
    p_allowed, w_allowed = stats_allowances(case.formula, table_of, logits.dtype)
    assert_within(p.reshape(-1)[kept], table_of.p_y, p_allowed, "p_y")
    assert_within(w.reshape(-1)[kept], table_of.weight, w_allowed, "weight")


def test_the_table_covers_what_it_claims():
    cases = table()
    assert len({str(case) for case in cases}) == len(cases)
    for field, least in (("C", 80), ("dtype", 400), ("layout", 60), ("values", 60), ("reduction", 300)):
        counts = {value: sum(getattr(c, field) == value for c in cases) for value in {getattr(c, field) for c in cases}}
        assert min(n for value, n in counts.items() if value not in (1, 4097, 32000)) >= least, (field, counts)
