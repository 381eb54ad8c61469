"""The fused linear head with two labels a row and with probabilities, and what its refusals lead to."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F
from test_linear import FORMULA, W, X, Y, assert_alike, by_reduction, results, tensors
from torch import Tensor
from torch.autograd import gradcheck

from imae_ext import CCE, GCE, IMAE, NCE, LinearRobustLoss, linear_robust_loss, mixed_loss, robust_loss

ALL = ("none", "mean", "sum", "normalized")


def whole(x: Tensor, head: Tensor, target: Tensor, formula, *, linear_bias=None, logit_scale=1.0, softcap=None, **more):
    """All logits at once, by the losses of logits."""
    more.pop("chunk", None)
    logits = logit_scale * F.linear(x, head, linear_bias)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    other, lam, other_lam = (more.pop(name, None) for name in ("other", "lam", "other_lam"))
    if other is None:
        return robust_loss(logits, target, formula, **more)
    return mixed_loss(logits, target, other, lam, formula, other_lam=other_lam, **more)


def two(target: Tensor) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    other = torch.randint(50, target.shape, generator=generator)
    other[3], other[5] = -100, target[5]  # one label alone, the same twice
    lam = torch.rand(target.shape, generator=generator).double()
    lam[9] = 0  # the second label alone
    return {"other": other, "lam": lam}


def shares(N: int = 37, C: int = 50) -> Tensor:
    t = torch.rand(N, C, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    t[t < 0.6] = 0
    t[4] = 0  # a row that does not count
    return t / t.sum(1, keepdim=True).clamp(min=1)


def weights() -> dict[str, Tensor]:
    given = {"weight": torch.rand(50).double(), "sample_weight": torch.rand(37).double()}
    given["sample_weight"][7] = 0
    return given


@pytest.mark.parametrize("formula", (CCE(), GCE(0.7), FORMULA), ids=repr)
@pytest.mark.parametrize("reduction", ALL)
@pytest.mark.parametrize("kind", ("two", "amounts"))
def test_value_and_gradients(kind, reduction, formula):
    if reduction == "normalized" and formula is FORMULA:
        formula = IMAE(8.0)
    inputs, target = tensors()
    more = {"reduction": reduction}
    if kind == "two":
        more |= two(target)
    else:
        target = shares()
    above = torch.linspace(-1, 2, 37).double() if reduction == "none" else torch.tensor(0.3).double()
    for given in ({}, weights() | {"logit_scale": 0.7, "softcap": 2.0}):
        options = more | given | {"upstream": above}
        wanted = results(whole, inputs, target, formula, **options)
        for chunk in (None, 8):
            assert_alike(results(linear_robust_loss, inputs, target, formula, chunk=chunk, **options), wanted, 1e-9)


def test_amounts_of_both_labels():
    """Peer loss: one label less the other of another row; numbers in the place of tensors; the module."""
    inputs, target = tensors(dtype=torch.float32)
    other = target.roll(1)
    options = {"other": other, "lam": 1, "other_lam": -0.5, "chunk": 8}
    wanted = results(whole, inputs, target, GCE(0.7), **options)
    assert_alike(results(linear_robust_loss, inputs, target, GCE(0.7), **options), wanted, 2e-6)
    criterion = LinearRobustLoss(16, 50, GCE(0.7))
    loss = criterion(inputs[0], target, other=other, lam=0.25)
    assert torch.allclose(loss, whole(inputs[0], criterion.linear.weight, target, GCE(0.7), other=other, lam=0.25))


@by_reduction
@pytest.mark.parametrize("kind", ("two", "amounts"))
def test_rows_that_do_not_count(kind, reduction):
    """What they hold and what comes from above stays out, whether they are left out or cannot be."""
    inputs, target = tensors()
    more = {"reduction": reduction, "chunk": 7, "sample_weight": weights()["sample_weight"]}
    if kind == "two":
        more |= two(target)
        dead = (target == -100) | (torch.arange(37) == 7)
    else:
        target, dead = shares(), (torch.arange(37) == 4) | (torch.arange(37) == 7)
    inputs[0][dead] = math.nan
    loss, *grads = results(linear_robust_loss, inputs, target, GCE(0.7), **more)
    assert loss.isfinite().all() and all(g.isfinite().all() for g in grads)
    above = torch.full((37,) if reduction == "none" else (), math.inf).double()
    _, dx, *_ = results(linear_robust_loss, inputs, target, GCE(0.7), upstream=above, **more)
    assert (dx[dead] == 0).all() and not dx[~dead].isfinite().any()


@pytest.mark.parametrize("reduction", ALL)
@pytest.mark.parametrize("kind", ("labels", "two", "amounts"))
def test_where_no_one_may_wait_the_rows_stay(monkeypatch, kind, reduction):
    """While a CUDA graph is recorded."""
    inputs, target = tensors()
    more = {"reduction": reduction, "chunk": 8} | (two(target) if kind == "two" else {})
    target = shares() if kind == "amounts" else target
    inputs[0][4 if kind == "amounts" else 12] = math.nan
    wanted = results(linear_robust_loss, inputs, target, GCE(0.7), **more)
    monkeypatch.setattr("imae_ext.head.may_wait", lambda device: False)
    assert_alike(results(linear_robust_loss, inputs, target, GCE(0.7), **more), wanted, 1e-12)


@by_reduction
def test_gradcheck_and_second_derivatives(reduction):
    (x, head, bias), target = tensors(9, 3, 5)
    leaves = [t.requires_grad_() for t in (x, head, bias)]
    kinds = ({"target": target, "other": target.roll(1).clamp(min=0), "lam": 0.3}, {"target": shares(9, 5)})
    for given in kinds:

        def loss(x: Tensor, head: Tensor, bias: Tensor, given: dict = given) -> Tensor:
            more = {"reduction": reduction, "chunk": 4, "linear_bias": bias} | given
            return linear_robust_loss(x, head, more.pop("target"), 0.5 * GCE(0.7) + NCE(), **more)

        assert gradcheck(loss, leaves)
        first = torch.autograd.grad(loss(*leaves).sum(), leaves, create_graph=True)
        assert all(g.isfinite().all() for g in torch.autograd.grad(sum((g**2).sum() for g in first), leaves))


def test_amounts_and_targets_that_want_a_gradient():
    (x, head, _), target = tensors()
    lam, t = torch.rand(37).double().requires_grad_(), shares().requires_grad_()
    other = target.roll(1)
    (by,) = torch.autograd.grad(linear_robust_loss(x, head, target, CCE(), other=other, lam=lam), lam)
    assert torch.allclose(by, torch.autograd.grad(whole(x, head, target, CCE(), other=other, lam=lam), lam)[0])
    (by,) = torch.autograd.grad(linear_robust_loss(x, head, t, CCE()), t)
    assert torch.allclose(by, torch.autograd.grad(robust_loss(x @ head.T, t, CCE()), t)[0])


@pytest.mark.parametrize("reduction", ("none", "mean"))
@pytest.mark.parametrize("kind", ("two", "amounts"))
def test_compiled(kind, reduction):
    inputs, target = tensors()
    more = {"reduction": reduction, "chunk": 8} | (two(target) if kind == "two" else {})
    target = shares() if kind == "amounts" else target
    torch._dynamo.reset()
    ours = results(
        torch.compile(linear_robust_loss, fullgraph=True, backend="aot_eager"), inputs, target, CCE(), **more
    )
    assert_alike(ours, results(linear_robust_loss, inputs, target, CCE(), **more), 1e-12)


def batch(more: dict) -> dict:
    """A call that is right, changed."""
    return {
        "input": X.view(2, 2, 3) + 1,
        "linear_weight": W + torch.arange(5.0)[:, None],
        "target": Y.view(2, 2),
    } | more


LABELS, COUNTS = Y.clamp(min=0).view(2, 2), (torch.arange(20) % 7).view(2, 2, 5)
BYTES = LABELS.to(torch.uint8)

# what is wrong, what the message advises, and the call that it stands for
HINTS = (
    ({"target": Y}, "pass target.reshape(2, 2)", {}),
    ({"target": Y.view(2, 2, 1)}, "pass target.squeeze(-1)", {}),
    ({"target": Y.view(2, 2).float()}, "if it holds classes, pass target.long()", {}),
    ({"target": BYTES}, "if it holds classes, pass target.long()", {"target": LABELS}),
    ({"target": F.one_hot(LABELS, 5)}, "it looks one-hot: pass target.argmax(-1)", {"target": LABELS}),
    ({"target": COUNTS}, "it has to hold floats: target.float()", {"target": COUNTS.float()}),
    ({"linear_weight": batch({})["linear_weight"].t()}, "pass linear_weight.t()", {}),
    ({"linear_bias": torch.arange(5.0).view(5, 1)}, "pass linear_bias.flatten()", {"linear_bias": torch.arange(5.0)}),
    ({"weight": torch.ones(5, 1)}, "pass weight.flatten()", {}),
    ({"weight": torch.ones(5).long()}, "pass weight.float()", {}),
    ({"weight": torch.ones(2, 2)}, "weights of the rows go to sample_weight=", {}),
    ({"input": (X.view(2, 2, 3) + 1).double()}, "pass input.to(linear_weight.dtype)", {}),
    ({"input": batch({})["linear_weight"].long()}, "the hidden states come first", {}),
)


@pytest.mark.parametrize(("wrong", "advice", "meant"), HINTS, ids=[advice for _, advice, _ in HINTS])
def test_every_hint_leads_to_what_is_meant(wrong, advice, meant):
    given = batch(wrong)
    with pytest.raises((TypeError, ValueError), match=f"imae_ext: expected .*{re.escape(advice)}$"):
        linear_robust_loss(**given, formula=CCE())
    found = re.search(r"(\w+)\.\w+\(.*\)$", advice)
    if found:
        (name,) = wrong
        given[name] = eval(found[0], {}, dict(given))
        right = batch(meant)
        assert torch.equal(linear_robust_loss(**given, formula=CCE()), linear_robust_loss(**right, formula=CCE()))


@pytest.mark.parametrize(
    ("error", "match", "more"),
    (
        (ValueError, "other.*and lam.*together", {"other": Y}),
        (ValueError, "other.*and lam.*together", {"lam": 0.5}),
        (TypeError, "other to be class labels", {"other": Y.float(), "lam": 0.5}),
        (ValueError, r"other of shape \(4,\)", {"other": Y[:2], "lam": 0.5}),
        (TypeError, "lam to be a number", {"other": Y, "lam": True}),
        (ValueError, r"lam of shape \(4,\)", {"other": Y, "lam": torch.ones(3)}),
        (IndexError, "got 9 at row 1", {"other": torch.tensor([0, 9, 0, 9]), "lam": 0.5}),
        (ValueError, "got probabilities", {"target": torch.rand(4, 5), "other": Y, "lam": 0.5}),
        (ValueError, "no ignore_index with probabilities", {"target": torch.rand(4, 5), "ignore_index": 1}),
        (ValueError, "probabilities of 2 classes", {"target": torch.rand(4, 1), "linear_weight": W[:1]}),
        (TypeError, r"probabilities of shape \(4, 5\)", {"target": torch.rand(4, 6)}),
        (ValueError, "linear_bias on cpu.*linear_bias.to", {"linear_bias": torch.zeros(5, device="meta")}),
        (TypeError, "pass torch.as_tensor\\(target\\)", {"target": [0, 1, 2, 3]}),
        (TypeError, "pass input.to_dense", {"input": X.to_sparse()}),
        (ValueError, "1 or more features", {"input": X[:, :0], "linear_weight": W[:, :0]}),
        (TypeError, "ignore_index to be an int", {"ignore_index": 1.5}),
        (ValueError, "logit_scale to be a finite number", {"logit_scale": "1"}),
    ),
)
def test_refusals(error, match, more):
    given = {"input": X, "linear_weight": W, "target": Y} | more
    with pytest.raises(error, match=match):
        linear_robust_loss(**given, formula=GCE())
