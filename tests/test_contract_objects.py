"""The reliability contract: pickling, copying, attributes, subclasses."""

from __future__ import annotations

import copy
import io
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


@pytest.mark.parametrize("module", (imae_ext.IMAELoss, imae_ext.SCELoss, imae_ext.CCELoss), ids=lambda m: m.__name__)
def test_names_that_would_change_nothing_are_refused_and_others_pass(module):
    criterion = module()
    parameters = {"T", "eps", "q", "beta", "lambd", "A", "gamma", "t", "a", "alpha"}
    for name in parameters - set(dir(criterion)) | {"Weight", "REDUCTION", "Formula"}:
        with pytest.raises(AttributeError, match=f"^imae_ext: {module.__name__} has no (parameter|attribute) {name}; "):
            setattr(criterion, name, 4.0)
        assert not hasattr(criterion, name)
    criterion.temperature, criterion._trainer, criterion.name = 2.0, object(), "noisy"
    criterion.head = torch.nn.Linear(2, 2)
    criterion.eval().register_buffer("seen", torch.zeros(1))


class Scheduled(imae_ext.IMAELoss):
    """A subclass that has a use of its own for another formula's name."""

    q: float | None = None

    def __init__(self) -> None:
        self.before = 1
        super().__init__(T=4.0, reduction="sum")
        self.q, self.steps = 0.5, 0


def test_a_subclass_has_its_own_names():
    criterion = pickle.loads(pickle.dumps(Scheduled()))
    assert criterion.q == 0.5 and criterion.steps == 0
    assert torch.equal(criterion(*batch()), imae_ext.imae_loss(*batch(), T=4.0, reduction="sum"))


@by_formula
def test_formulas_are_values(spec):
    """Equal, hashable, picklable, and what their repr says, so that they can be configuration and keys."""
    formula = spec.build()
    assert formula == spec.build() and hash(formula) == hash(spec.build()) and formula != imae_ext.IMAE(T=29.0)
    for copied in (
        pickle.loads(pickle.dumps(formula)),
        copy.deepcopy(formula),
        eval(repr(formula), vars(imae_ext)),
        eval(repr(-0.5 * formula), vars(imae_ext)) * -2,
    ):
        assert copied == formula and copied.packed == formula.packed and hash(copied) == hash(formula)
    assert b"packed" not in pickle.dumps(formula)  # numbers of one build of the extension


def test_arithmetic_of_formulas():
    cce, mae, nce = imae_ext.CCE(), imae_ext.MAE(), imae_ext.NCE()
    assert mae / 2 == 0.5 * mae == mae * 0.5 != mae and mae == 1.0 * mae and hash(mae) == hash(1.0 * mae)
    assert cce - mae == cce + -mae and (-cce) * -1 == cce and (cce - mae) / 2 == 0.5 * cce - 0.5 * mae
    assert sum([cce, mae, nce]) == cce + mae + nce and sum([cce]) is cce
    assert repr(-cce + mae - 2 * nce) == "-1.0 * CCE() + MAE() - 2.0 * NCE()"
    assert repr(imae_ext.IMAE(np.float32(4))) == "IMAE(T=4.0, eps=1e-08)"
    assert repr(imae_ext.TaylorCE(3.0)) == "TaylorCE(t=3)"
    logits, target = batch(dtype=torch.float64)
    parts = [imae_ext.robust_loss(logits, target, each) for each in (cce, mae, nce)]
    for formula, wanted in (
        (cce - mae / 4, parts[0] - parts[1] / 4),
        (sum([cce, -mae, nce]), parts[0] - parts[1] + parts[2]),
    ):
        assert torch.allclose(imae_ext.robust_loss(logits, target, formula), wanted, rtol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    (
        (lambda f: f / 0, ZeroDivisionError, "was divided by 0"),
        (lambda f: f / float("nan"), ValueError, "a coefficient"),
        (lambda f: f * 10**400, ValueError, "beyond 1e308"),
        (lambda f: f * True, TypeError, "expected a number"),
        (lambda f: f * f, TypeError, r"got MAE\(\)"),
        (lambda f: "2" * f, TypeError, "got '2'"),
        (lambda f: f + 0, TypeError, "expected a formula"),
        (lambda f: 1 - f, TypeError, "unsupported operand"),
        (lambda f: 1 / f, TypeError, "unsupported operand"),
        (lambda f: 1e300 * f, ValueError, "number in"),
    ),
)
def test_arithmetic_that_makes_no_sense(wrong, error, says):
    with pytest.raises(error, match=says):
        wrong(imae_ext.MAE())


@pytest.mark.parametrize("name", MODULES)
def test_whole_modules_through_the_safe_reader(name):
    """torch.load(weights_only=True) with the classes named, as the docstring of imae_ext.modules says; not without."""
    module, file = MODULES[name](), io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError, match=rf"imae_ext\.(named_)?modules\.{name}"):
        torch.load(file, weights_only=True)
    file.seek(0)
    classes = {type(module), type(module.formula), *(type(formula) for _, formula in module.formula.terms)}
    with torch.serialization.safe_globals(list(classes)):
        loaded = torch.load(file, weights_only=True)
    assert loaded.formula == module.formula and torch.equal(loaded(*batch()), module(*batch()))


class Subclass(Tensor):
    """A tensor subclass that does nothing of its own."""


def test_tensor_subclass():
    """The loss is of the subclass, as torch's own would be."""
    logits, target = batch()
    wanted = gradient(imae_ext.robust_loss, logits, target, FORMULA)
    leaf = logits.clone().as_subclass(Subclass).requires_grad_()
    loss = imae_ext.robust_loss(leaf, target, FORMULA)
    loss.backward()
    assert type(loss) is Subclass and loss.item() == wanted[0].item()
    assert torch.equal(leaf.grad.as_subclass(Tensor), wanted[1])


def test_parameter_as_logits():
    logits, target = batch()
    parameter = torch.nn.Parameter(logits.clone())
    imae_ext.imae_loss(parameter, target).backward()
    assert torch.equal(parameter.grad, gradient(imae_ext.robust_loss, logits, target, FORMULA)[1])
