"""docs/language_models.md: its examples run, and each line of its table is the published definition."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from test_ecosystem import run
from torch import Tensor

from imae_ext import CCE, GCE, MAE, linear_robust_loss, robust_loss, row_stats

DOCUMENT = Path(__file__).parents[1] / "docs" / "language_models.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
OBJECTIVES = next(block for block in BLOCKS if "def deft" in block)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_examples_run(code):
    namespace = run(code)
    if "loss" in namespace:
        assert namespace["loss"].isfinite()


def p_of(z: Tensor, y: Tensor) -> Tensor:
    return z.softmax(-1).gather(-1, y.unsqueeze(-1)).squeeze(-1)


def published_gem(z: Tensor, y: Tensor, beta: float = 0.7) -> Tensor:
    q = (z / beta).softmax(-1).detach()
    return (q * (z - z.gather(-1, y.unsqueeze(-1)))).sum(-1)


def published_eaft(z: Tensor, y: Tensor, alpha: float = 1.5) -> Tensor:
    top = torch.topk(z.detach(), 20).values
    p = torch.exp(top - top.logsumexp(-1, keepdim=True))
    return (-(p * p.log()).sum(-1) / 3) ** alpha * -p_of(z, y).log()


def published_deft(z: Tensor, y: Tensor) -> Tensor:
    alpha = (z.softmax(-1) ** 2).sum(-1).detach()
    return -(p_of(z, y) ** alpha - 1) / (alpha + 1e-6)


def by_logits(formula):
    return lambda z, y, nll: robust_loss(z, y, formula, reduction="none")


def recipe(name: str):
    return run(OBJECTIVES)[name]


# published, ours, and what ours is more by: a number, or None where the values differ otherwise
TABLE = {
    "cross entropy": (lambda z, y: -p_of(z, y).log(), by_logits(CCE()), 0.0),
    "DFT": (lambda z, y: -p_of(z, y).detach() * p_of(z, y).log(), by_logits(GCE(1.0)), None),
    "-p^a": (lambda z, y: -(p_of(z, y) ** 10), by_logits(10 * GCE(10.0)), 1.0),
    "-p^16": (lambda z, y: -(p_of(z, y) ** 16), by_logits(16 * GCE(16.0)), 1.0),
    "Poly-1": (lambda z, y: -p_of(z, y).log() + 1.5 * (1 - p_of(z, y)), by_logits(CCE() + (1.5 / 2) * MAE()), 0.0),
    "GEM": (published_gem, lambda z, y, nll: recipe("gem")(z, y, 0.7), None),
    "ProFit": (
        lambda z, y: torch.where(p_of(z, y) >= 0.1, -p_of(z, y).log(), 0.0),
        lambda z, y, nll: recipe("profit")(nll, y, 0.1),
        0.0,
    ),
    "DEFT": (published_deft, lambda z, y, nll: recipe("deft")(nll, row_stats(z, y, sum_p2=True).sum_p2), 0.0),
    "EAFT": (
        published_eaft,
        lambda z, y, nll: recipe("eaft")(nll, y, recipe("entropy_of_top")(z), 1.5),
        0.0,
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_published_definition(name):
    published, ours, more = TABLE[name]
    generator = torch.Generator().manual_seed(0)
    z = 2 * torch.randn(60, 30, generator=generator, dtype=torch.float64)
    y = torch.where(torch.arange(60) % 2 == 0, z.argmax(-1), torch.randint(30, (60,), generator=generator))
    leaves = [z.clone().requires_grad_() for _ in range(2)]
    wanted, value = published(leaves[0], y), ours(leaves[1], y, robust_loss(leaves[1], y, CCE(), reduction="none"))
    wanted.sum().backward()
    value.sum().backward()
    tolerance = 1e-4 if name == "DEFT" else 1e-9
    assert torch.allclose(leaves[1].grad, leaves[0].grad, rtol=tolerance, atol=tolerance / 100)
    if more is None:
        assert not torch.allclose(value, wanted, rtol=0.01)
    else:
        assert torch.allclose(value, wanted + more, rtol=tolerance, atol=tolerance / 100)


def test_every_line_of_the_table_is_checked():
    (table,) = re.findall(r"^\| objective .*\n\|[-|]+\|\n((?:\|.*\n)+)", DOCUMENT.read_text(), re.MULTILINE)
    lines = re.findall(r"^\| (.+?) \|", table, re.MULTILINE)
    assert len(lines) == 8
    assert all(any(name in line.replace("`", "") for name in TABLE) for line in lines)


def test_the_entropy_of_all_tokens_is_another_weight():
    z = torch.randn(10, 400, dtype=torch.float64)
    y = torch.randint(400, (10,))
    assert not torch.allclose(row_stats(z, y, entropy=True).entropy, recipe("entropy_of_top")(z), rtol=0.1)


def test_gem_in_a_fused_head():
    x, w = torch.randn(9, 6).double().requires_grad_(), torch.randn(30, 6).double().requires_grad_()
    y = torch.randint(30, (9,))
    fused = linear_robust_loss(x, w, y, 0.7 * CCE(), logit_scale=1 / 0.7, reduction="sum")
    ours = torch.autograd.grad(fused, (x, w))
    wanted = torch.autograd.grad(published_gem(x @ w.T, y).sum(), (x, w))
    assert all(map(torch.allclose, ours, wanted))
