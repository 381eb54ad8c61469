"""log p, entropy, sum of squares and whether the label is on top: a CPU's kernels, and what the call does."""

from __future__ import annotations

import math

import pytest
import statistics_cases
import torch
from calls import FORMULA, varied_rows
from statistics_cases import ALL
from torch import Tensor

import imae_ext
from imae_ext import row_stats


@pytest.mark.parametrize("C", (2, 3, 7, 100))
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16), ids=str)
def test_against_60_digits(C, dtype):
    statistics_cases.against_60_digits(row_stats, C, dtype)


@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize("shape", statistics_cases.WALKS, ids=str)
def test_every_walk_of_the_kernels(shape, dtype):
    """Vectors along the classes, in parts, and across rows."""
    statistics_cases.walk(row_stats, shape, dtype)


@pytest.mark.parametrize("check", ("large_logits", "limits", "ignored_rows_and_shapes"))
def test_edges(check):
    getattr(statistics_cases, check)(row_stats)


def test_only_what_is_asked_for():
    logits, target = varied_rows(5)
    assert row_stats(logits, target)[1:] == (None,) * 5
    for name in ALL:
        stats = row_stats(logits, target, FORMULA, **{name: True})
        assert {each for each in stats._fields if getattr(stats, each) is not None} == {"p", "example_weight", name}
    plain = row_stats(logits, target, FORMULA)
    assert torch.equal(row_stats(logits, target).p, plain.p)
    weights = row_stats(logits, target, FORMULA, **ALL).example_weight
    torch.testing.assert_close(weights, plain.example_weight, rtol=1e-13, atol=0)  # relative to another logit


def test_log_p_and_entropy_are_differentiable():
    logits, target = varied_rows(5)
    logits, target = logits[5:-5].requires_grad_(), target[5:-5]
    target[3] = -100
    kinds = {"log_p": True, "entropy": True}
    assert torch.autograd.gradcheck(lambda z: row_stats(z, target, **kinds)[2:4], logits)
    (grad,) = torch.autograd.grad(row_stats(logits, target, entropy=True).entropy.sum(), logits)
    p = logits.softmax(1)
    by_hand = -p * (p.log() + torch.special.entr(p).sum(1, keepdim=True))
    assert torch.allclose(grad, by_hand * (target != -100).unsqueeze(1), atol=1e-10)
    masked = torch.tensor([[0.0, 1.0, -math.inf], [0.0, -math.inf, -math.inf]], requires_grad=True)
    stats = row_stats(masked, torch.tensor([0, 0]), **kinds)
    (grad,) = torch.autograd.grad((stats.entropy + stats.log_p).sum(), masked)
    assert grad.isfinite().all() and grad[0, 0] != 0


def test_derivatives_in_graphs_and_of_second_order():
    """In torch.compile, in a program that was traced when nobody wanted a derivative, and of a derivative."""
    logits, target = varied_rows(5)
    logits, target = logits[8:-8], target[8:-8]

    class Both(torch.nn.Module):
        def forward(self, z: Tensor, y: Tensor) -> Tensor:
            stats = row_stats(z, y, log_p=True, entropy=True, is_top=True)
            return stats.entropy * stats.p - 0.5 * stats.log_p

    def derivatives(function) -> list[Tensor]:
        z = logits.clone().requires_grad_()
        value = function(z, target)
        (grad,) = torch.autograd.grad(value.sum(), z)
        return [value.detach(), grad]

    eager = derivatives(Both())
    with torch.no_grad():
        program = torch.export.export(Both(), (logits, target)).module()
    assert any("describe_rows" in str(node.target) for node in program.graph.nodes)
    for function in (program, torch.compile(Both(), backend="aot_eager", fullgraph=True)):
        for got, wanted in zip(derivatives(function), eager, strict=True):
            assert torch.allclose(got, wanted, rtol=1e-12, atol=1e-14)
    few = logits[20:23].clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda z: row_stats(z, target[20:23], entropy=True).entropy, few)


def test_what_is_refused():
    logits, target = varied_rows(5)
    target[2] = 5
    with pytest.raises(IndexError, match=r"imae_ext: .*got 5"):
        row_stats(logits, target, **ALL)
    with pytest.raises(ValueError, match=r"imae_ext: .* got NCE"):
        row_stats(logits, target.clamp(max=4), imae_ext.NCE(), entropy=True)


def test_without_the_extension(monkeypatch):
    logits, target = varied_rows(5)
    wanted = row_stats(logits, target, FORMULA, **ALL)
    monkeypatch.setattr("imae_ext.devices.has_kernels", lambda _: False)
    for a, b in zip(row_stats(logits, target, FORMULA, **ALL), wanted, strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=1e-9)
    assert imae_ext.RowStats(*wanted) == wanted
