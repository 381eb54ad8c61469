"""The reliability contract: half precision, loss scales, thread counts."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from calls import FORMULA, batch, by_formula, gradient, same_by_threads
from cases import APL, FORMULAS, Spec
from expected import assert_within, expected

import imae_ext


def test_float16_mean_gradient_is_not_underflowed():
    """p/N alone is below float16's smallest number; with the loss scale applied before rounding it is exact."""
    N, scale = 2**14, 2.0**16
    logits, target = batch(N=N, C=10, dtype=torch.float16)
    spec = Spec.of("CCE")
    leaf = logits.clone().requires_grad_()
    (imae_ext.robust_loss(leaf, target, spec.build()) * scale).backward()
    wanted = expected(spec, logits, target, grad_output=scale)
    assert (np.abs(wanted.grad) / scale < 2.0**-24).mean() > 0.2, "the case would not underflow"
    assert_within(leaf.grad, wanted.grad, wanted.grad_allowed, "gradient")


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=("bfloat16", "float16"))
@by_formula
def test_half_precision_gives_a_float32_loss(spec, dtype):
    """Computed in float32 from the logits as they are: the same as from the same numbers in float32."""
    logits, target = batch(N=40, dtype=dtype)
    loss, grad = gradient(imae_ext.robust_loss, logits, target, spec.build())
    wide, wide_grad = gradient(imae_ext.robust_loss, logits.float(), target, spec.build())
    assert loss.dtype == torch.float32 and torch.allclose(loss, wide, rtol=1e-6, atol=0)
    assert grad.dtype == dtype
    assert torch.allclose(grad.float(), wide_grad, rtol=torch.finfo(dtype).eps, atol=6e-8)


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=("bfloat16", "float16"))
def test_autocast(dtype):
    """Logits come out of the linear layer in half precision, the loss is float32, parameters' gradients float32."""
    features, target = batch(N=16, C=6)
    layer = torch.nn.Linear(6, 6)
    with torch.autocast("cpu", dtype=dtype):
        logits = layer(features)
        loss = imae_ext.robust_loss(logits, target, FORMULA)
    assert logits.dtype == dtype and loss.dtype == torch.float32
    loss.backward()
    wanted = gradient(imae_ext.robust_loss, logits.float(), target, FORMULA)[1].sum(0)
    assert layer.bias.grad.dtype == torch.float32
    assert torch.allclose(layer.bias.grad, wanted, rtol=2e-2, atol=1e-3)


FAR = tuple(sign * x for x in (0, 15.9, 16.1, 25, 28, 40, 43, 65, 87, 90, 130, 1000) for sign in (-1, 1))


@pytest.mark.parametrize(
    ("spec", "C", "dtype"),
    (
        *((spec, 40, torch.float32) for spec in FORMULAS),
        # ways to read a row, some of which only formulas of all logits take
        *product((Spec.of("CCE"), Spec.of("NCE")), (40, 2000, 5000), (torch.float32, torch.bfloat16)),
    ),
    ids=str,
)
def test_exponentials_near_the_ends_of_the_range(spec, dtype, C):
    """All logits, the label's or the others' moved up and down: a row may be read another way, never wrongly."""
    logits, target = batch(N=3 * len(FAR), C=C)
    own = torch.arange(C) == target[:, None]
    kind = torch.arange(len(own))[:, None] % 3
    part = (kind == 0) | (own == (kind == 1))
    logits = (logits / 3 + part * torch.tensor(FAR).repeat_interleave(3)[:, None]).to(dtype)
    wanted = expected(spec, logits, target, reduction="none")
    loss, grad = gradient(imae_ext.robust_loss, logits, target, spec.build(), reduction="none")
    assert_within(loss, wanted.loss, wanted.loss_allowed, "loss")
    assert_within(grad, wanted.grad, wanted.grad_allowed, "gradient")
    summed = expected(spec, logits, target, reduction="sum")
    grad = gradient(imae_ext.robust_loss, logits, target, spec.build(), reduction="sum")[1]
    assert_within(grad, summed.grad, summed.grad_allowed, "gradient of the sum")


@pytest.mark.parametrize("spec", (Spec.of("CCE"), Spec.of("DM", beta=8.0, lambd=0.5, eps=1e-8), APL), ids=str)
def test_hundred_runs_with_any_number_of_threads_give_the_same_bits(spec):
    logits, target = batch(N=1500, C=130)

    def computed():
        values, _ = gradient(imae_ext.robust_loss, logits, target, spec.build(), reduction="sum")
        return *imae_ext.value_and_grad(logits, target, spec.build()), values

    assert same_by_threads(computed, 25 * (1, 2, 3, 7))


@pytest.mark.parametrize("C", [1, 2, 3, 5, 10, 16, 17])
def test_rows_shorter_than_a_vector_leave_those_of_another_thread_alone(C):
    logits, target = batch(N=40009, C=C)
    assert same_by_threads(lambda: imae_ext.value_and_grad(logits, target, FORMULA), (1, 2, 2, 2))
