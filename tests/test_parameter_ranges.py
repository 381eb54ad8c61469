"""Both ends of every parameter's range, and what lies between, over a dense grid of margins, against the oracle.

The ranges are read from the extension's own table, so that a new formula is tested as it is added. Only formulas of
p_y alone: a grid of margins says all about them. The reference may be 16 times as far off in float32, and besides by
what is lost in differentiating DM's quadrature: terms as large as its integrand cancel.
"""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from cases import Spec
from expected import assert_within, expected
from torch import Tensor

import imae_ext
from imae_ext import _extension, reference

MARGINS = torch.cat([torch.linspace(-110, 110, 881), torch.linspace(-1e-3, 1e-3, 9)])


def values(name: str, low: float, high: float, low_is_open: bool, zero_too: bool, integer: bool) -> list[float]:
    if integer:
        return [low, high]
    least = low if not low_is_open else 1e-300 if low == 0 else math.nextafter(low, high)
    middle = math.sqrt(max(least, 1e-3) * high)
    return [*([0.0] if zero_too else []), least, *([low + 1e-4] if low_is_open else []), middle, high]


def corners() -> list[Spec]:
    return [
        Spec.of(name, **dict(zip((p["name"] for p in parameters), corner, strict=True)))
        for name, _, needs_all_logits, parameters in (_extension.compiled.formulas() if _extension.compiled else [])
        for corner in product(*(values(**p) for p in parameters))
        if not needs_all_logits
    ]


def largest_weight(name: str, beta: float = 0, lambd: float = 0, **_: float) -> float:
    p = lambd / (1 + lambd)
    return math.exp(beta * p**lambd * (1 - p)) if name == "DM" else 0


@pytest.mark.parametrize("dtype", (torch.float64, torch.float32), ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("spec", corners(), ids=str)
def test_ends_of_the_ranges(spec, dtype):
    logits = torch.stack([MARGINS, torch.zeros_like(MARGINS)], 1).to(dtype)
    target = torch.zeros(len(MARGINS), dtype=torch.long)
    wanted = expected(spec, logits, target, reduction="none")

    def check(what: str, value: Tensor, grad: Tensor, times: float = 1, more: float = 0) -> None:
        assert_within(value, wanted.loss, times * wanted.loss_allowed + more, f"{what}: value")
        assert_within(grad, wanted.grad, times * wanted.grad_allowed + more, f"{what}: gradient")

    check("kernel", *imae_ext.value_and_grad(logits, target, spec.build(), reduction="none"))
    leaf = logits.requires_grad_()
    loss = reference.robust_loss(leaf, target, spec.build(), reduction="none")
    (grad,) = torch.autograd.grad(loss.sum(), leaf)
    _, name, parameters = spec.terms[0]
    lost = torch.finfo(dtype).eps * largest_weight(name, **dict(parameters))
    check("reference", loss.detach(), grad, 16 if dtype == torch.float32 else 1, lost)
