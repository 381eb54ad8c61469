"""imae_ext.trainers: what it divides by, how it moves labels, what it finds logits in, and what it refuses."""

from __future__ import annotations

import pickle
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from calls import FORMULA, batch, gradient
from torch import Tensor

import imae_ext
from imae_ext.trainers import causal_lm_loss, classification_loss


def causal_batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(11, (3, 7), generator=generator)
    labels[0, 4:] = -100
    labels[1, 0] = -100
    return torch.randn(3, 7, 11, generator=generator).to(dtype), labels


def cut(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What the labels belong to, by copying."""
    return logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1)


def of(compute, number):
    """As gradient() calls a loss."""
    return lambda x, y, _: compute({"logits": x}, y, number)


@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16, torch.float16), ids=str)
def test_causal_loss_and_gradient(dtype):
    logits, labels = causal_batch(dtype)
    rows, shifted = cut(logits.double(), labels)
    wanted, wanted_grad = gradient(imae_ext.robust_loss, rows, shifted, FORMULA)
    tolerance = {"rtol": 10 * torch.finfo(dtype).eps, "atol": torch.finfo(dtype).eps}
    for number in (None, int((shifted != -100).sum()), (shifted != -100).sum().float()):
        loss, grad = gradient(of(causal_lm_loss(FORMULA), number), logits, labels, None)
        assert loss.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
        assert torch.allclose(loss.double(), wanted, rtol=1e-6)
        assert torch.allclose(grad[:, :-1].reshape(-1, 11).double(), wanted_grad, **tolerance)
        assert (grad[:, -1] == 0).all() and grad.dtype == dtype


def test_labels_that_were_moved_already():
    logits, labels = causal_batch()
    moved = torch.nn.functional.pad(labels, (0, 1), value=-100)[:, 1:]
    wanted = causal_lm_loss(FORMULA)({"logits": logits}, labels)
    assert torch.equal(causal_lm_loss(FORMULA, shift=False)({"logits": logits}, moved), wanted)


def test_micro_batches_add_up_to_the_whole():
    """A float32 number of labels, as the trainer has it."""
    logits, target = batch(N=12)
    target[3] = -100
    whole = gradient(imae_ext.robust_loss, logits, target, FORMULA)
    compute, number = classification_loss(FORMULA), (target != -100).sum() / 1
    parts = [gradient(of(compute, number), logits[part], target[part], None) for part in (slice(5), slice(5, None))]
    assert torch.allclose(sum(loss for loss, _ in parts), whole[0], rtol=1e-6)
    assert torch.allclose(torch.cat([grad for _, grad in parts]), whole[1], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("number", (None, 0, 0.0, torch.tensor(0), torch.tensor(0.0), 7, torch.tensor([7.0])), ids=repr)
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16, torch.float16), ids=str)
def test_a_batch_without_labels_is_nothing(number, dtype):
    """Whatever the trainer counts, and even where the logits are NaN."""
    logits, labels = causal_batch(dtype)
    logits[0, 0, 0], labels[:] = torch.nan, -100
    for compute in (causal_lm_loss(FORMULA), classification_loss(FORMULA, weight=torch.ones(11))):
        leaf = logits.clone().requires_grad_()
        loss = compute({"logits": leaf}, labels, number)
        assert loss == 0 and loss.requires_grad
        loss.backward()
        assert (leaf.grad == 0).all()


def test_class_weights_multiply_rows():
    logits, target = batch(dtype=torch.float64)
    weight = torch.linspace(0.5, 2, 5)
    rows = imae_ext.robust_loss(logits, target, FORMULA, reduction="none") * weight.double()[target]
    for number in (None, 20):
        loss = classification_loss(FORMULA, weight=weight)({"logits": logits}, target, number)
        assert torch.allclose(loss, rows.sum() / (number or len(target)), rtol=1e-7)


def test_where_logits_are_found():
    logits, target = batch()
    compute, wanted = classification_loss(FORMULA), imae_ext.robust_loss(logits, target, FORMULA)
    named = namedtuple("Outputs", "loss logits")
    for outputs in (
        logits,
        {"loss": torch.tensor(1.0), "logits": logits, "hidden_states": torch.zeros(2, 2)},
        SimpleNamespace(logits=logits),
        (logits,),
        (torch.tensor(1.0), logits, torch.zeros(2, 2)),
        named(torch.zeros(3, 3), logits),
    ):
        assert torch.allclose(compute(outputs, target), wanted, rtol=1e-6)


def test_another_ignore_index():
    logits, labels = causal_batch()
    wanted = causal_lm_loss(FORMULA)({"logits": logits}, labels)
    labels[labels == -100] = -1
    assert torch.equal(causal_lm_loss(FORMULA, ignore_index=-1)({"logits": logits}, labels), wanted)
    every = labels.clamp(min=0)
    for compute in (causal_lm_loss, classification_loss):  # one that labels of 32 bits cannot hold: cut, it would be 0
        found = [compute(FORMULA, ignore_index=2**32)(logits, kind) for kind in (every, every.int())]
        assert torch.equal(*found)


def test_pickled():
    logits, target = batch()
    for compute in (causal_lm_loss(FORMULA, ignore_index=2), classification_loss(FORMULA, weight=torch.ones(5))):
        twin = pickle.loads(pickle.dumps(compute))
        if not compute.causal:
            assert torch.equal(twin(logits, target), compute(logits, target))
        assert (twin.formula, twin.ignore_index, twin.shift) == (compute.formula, compute.ignore_index, compute.shift)


class ACausalLMOutput(dict):
    """Named as transformers' are."""


def test_refusals():
    logits, target = batch()
    compute = classification_loss(FORMULA)
    for error, words, outputs, labels, number in (
        (ValueError, "causal_lm_loss", ACausalLMOutput(logits=logits), target, None),
        (TypeError, "expected labels to be a Tensor, got NoneType", logits, None, None),
        (TypeError, "outputs with logits, got dict with log_probs", {"log_probs": logits}, target, None),
        (TypeError, "outputs with logits, got tuple", (torch.tensor(1.0),), target, None),
        (ValueError, "0 or more, got -1", logits, target, -1),
        (ValueError, "0 or more, got nan", logits, target, float("nan")),
        (ValueError, "torchrun", logits, target, torch.ones(2, 1)),
    ):
        with pytest.raises(error, match=words):
            compute(outputs, labels, number)
    for made in (causal_lm_loss, classification_loss):
        with pytest.raises(TypeError, match="expected a formula"):
            made("imae")
        with pytest.raises(TypeError, match="expected weight to be a Tensor"):
            made(FORMULA, weight=[1.0, 2.0])
