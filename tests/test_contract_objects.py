"""The reliability contract: pickling, copying, attributes, subclasses."""

from __future__ import annotations

import copy
import pickle

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


@pytest.mark.parametrize(
    ("module", "name", "value"),
    (
        (imae_ext.IMAELoss, "T", 4.0),
        (imae_ext.IMAELoss, "eps", 1e-6),
        (imae_ext.GCELoss, "q", 0.4),
        (imae_ext.DMLoss, "beta", 2.0),
        (imae_ext.DMLoss, "lambd", 0.25),
        (imae_ext.DMLoss, "eps", 1e-6),
        (imae_ext.SCELoss, "alpha", 0.5),
        (imae_ext.SCELoss, "beta", 2.0),
        (imae_ext.FocalLoss, "gamma", 1.0),
    ),
)
def test_a_parameter_that_is_set_counts(module, name, value):
    """As for a schedule; one out of range is refused, and the old one stays."""
    set_later, set_at_once = module(), module(**{name: value})
    setattr(set_later, name, value)
    assert getattr(set_later, name) == value and set_later.formula == set_at_once.formula
    with pytest.raises(ValueError, match=name):
        setattr(set_later, name, float("nan"))
    assert torch.equal(set_later(*batch()), set_at_once(*batch()))


@pytest.mark.parametrize("formula", (imae_ext.IMAE(), 2.0 * imae_ext.NCE() + imae_ext.IMAE()), ids=repr)
def test_a_parameter_that_would_change_nothing_is_refused(formula):
    module = imae_ext.RobustLoss(formula)
    with pytest.raises(AttributeError, match=r"imae_ext: RobustLoss has no parameter T; set formula, .*IMAE\(T=8"):
        module.T = 4.0
    module.formula, module.note = imae_ext.IMAE(4.0), "anything else"
    assert torch.equal(module(*batch()), imae_ext.imae_loss(*batch(), T=4.0))


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
