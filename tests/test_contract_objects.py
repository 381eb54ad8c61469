"""The reliability contract: pickling, copying, threads, forks, subclasses."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import threading

import numpy as np
import pytest
import torch
from calls import FORMULA, batch, by_formula, gradient
from torch import Tensor

import imae_ext

MODULES = {
    "IMAELoss": lambda: imae_ext.IMAELoss(T=4.0, eps=1e-6, reduction="sum"),
    "CCELoss": lambda: imae_ext.CCELoss(weight=torch.linspace(0.5, 1.5, 5), ignore_index=3),
    "MAELoss": lambda: imae_ext.MAELoss(),
    "GCELoss": lambda: imae_ext.GCELoss(q=0.4),
    "DMLoss": lambda: imae_ext.DMLoss(beta=2.0, lambd=0.25, reduction="normalized"),
    "SCELoss": lambda: imae_ext.SCELoss(alpha=0.5, beta=2.0),
    "NCELoss": lambda: imae_ext.NCELoss(reduction="none"),
    "FocalLoss": lambda: imae_ext.FocalLoss(gamma=1.0, weight=torch.ones(5)),
    "RobustLoss": lambda: imae_ext.RobustLoss(2.0 * imae_ext.NCE() + imae_ext.MAE(), ignore_index=1),
}


@pytest.mark.parametrize("name", MODULES)
def test_pickle_deepcopy_and_state_dict(name):
    logits, target = batch()
    module = MODULES[name]()
    wanted = module(logits, target)
    for copied in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert torch.equal(copied(logits, target), wanted)
    fresh = MODULES[name]()
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh(logits, target), wanted)
    assert torch.equal(module.double()(logits.double(), target), fresh.double()(logits.double(), target))


@by_formula
def test_formulas_are_values(spec):
    """Equal, hashable and picklable, so that they can be configuration and keys."""
    formula = spec.build()
    assert formula == spec.build() and hash(formula) == hash(spec.build()) and formula != imae_ext.IMAE(T=29.0)
    for copied in (pickle.loads(pickle.dumps(formula)), copy.deepcopy(formula)):
        assert copied == formula and copied.packed == formula.packed
    assert b"packed" not in pickle.dumps(formula)  # numbers of one build of the extension


@pytest.mark.parametrize("kind", (int, np.int64), ids=lambda kind: kind.__name__)
def test_ignore_index_of_any_integer_type(kind):
    logits, target = batch()
    ignored = int(target[0])
    wanted = imae_ext.imae_loss(logits, target, ignore_index=ignored)
    module = imae_ext.IMAELoss(ignore_index=kind(ignored))
    assert torch.equal(module(logits, target), wanted) and f"ignore_index={ignored}," in repr(module)
    assert torch.equal(imae_ext.imae_loss(logits, target, ignore_index=kind(ignored)), wanted)


def test_threads():
    """Calls from several threads at once, each with its own graph."""
    results: dict[int, tuple[Tensor, Tensor]] = {}

    def work(k: int) -> None:
        for _ in range(20):
            results[k] = gradient(imae_ext.robust_loss, *batch(N=64, C=20, seed=k), FORMULA)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(6):
        loss, grad = gradient(imae_ext.robust_loss, *batch(N=64, C=20, seed=k), FORMULA)
        assert torch.equal(results[k][0], loss) and torch.equal(results[k][1], grad)


def _in_child(queue) -> None:
    torch.set_num_threads(1)
    loss, grad = gradient(imae_ext.robust_loss, *batch(), FORMULA)
    queue.put((loss.item(), grad.tolist()))


def test_fork():
    """A child of a process that has already used the losses computes the same."""
    loss, grad = gradient(imae_ext.robust_loss, *batch(), FORMULA)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert queue.get() == (loss.item(), grad.tolist())


class Subclass(Tensor):
    """A tensor subclass that does nothing of its own."""


def test_tensor_subclass():
    """Computed right, with the gradient on the subclass, or refused."""
    logits, target = batch()
    wanted = gradient(imae_ext.robust_loss, logits, target, FORMULA)
    leaf = logits.clone().as_subclass(Subclass).requires_grad_()
    try:
        loss = imae_ext.robust_loss(leaf, target, FORMULA)
    except (TypeError, ValueError) as error:
        assert str(error).startswith("imae_ext: ")
        return
    loss.backward()
    assert loss.item() == wanted[0].item()
    assert torch.equal(leaf.grad.as_subclass(Tensor), wanted[1])


def test_parameter_as_logits():
    logits, target = batch()
    parameter = torch.nn.Parameter(logits.clone())
    imae_ext.imae_loss(parameter, target).backward()
    assert torch.equal(parameter.grad, gradient(imae_ext.robust_loss, logits, target, FORMULA)[1])
