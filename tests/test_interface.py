"""What stays from one version to the next: the numbers of formulas, and what Python expects of the kernels."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import fields

import pytest
import torch
from calls import batch

import imae_ext
from imae_ext import formulas, losses
from imae_ext._extension import INTERFACE, compiled
from imae_ext.formulas import FORMULAS

# The numbers and parameters that exported models hold. Add lines, and change none: an old model would silently compute
# another loss. A formula that needs another parameter, or another order, gets another number.
FROZEN = {
    0: ("CCE", ()),
    1: ("MAE", ()),
    2: ("MSE", ()),
    3: ("GCE", ("q",)),
    4: ("IMAE", ("T", "eps")),
    5: ("DM", ("beta", "lambd", "eps")),
    6: ("RCE", ("A",)),
    7: ("Focal", ("gamma",)),
    8: ("TaylorCE", ("t",)),
    9: ("AGCE", ("a", "q")),
    10: ("AUL", ("a", "q")),
    11: ("AEL", ("a",)),
    12: ("LabelSmoothing", ("eps",)),
    13: ("NCE", ()),
}
# What each number of imae_ext/_extension.py stands for: operators, their arguments, and the formulas. If the last one
# differs, raise INTERFACE there and add a line here: a module that was built before is then refused.
INTERFACES = {1: "418039c9618e5044", 2: "d8b531e612106498", 3: "5e98e9175f858744"}


def table(rows) -> dict[int, tuple[str, tuple[str, ...]]]:
    return {number: (name, tuple(p["name"] for p in parameters)) for name, number, parameters in rows}


def test_numbers_of_formulas_keep_their_meaning():
    assert table(formulas.signatures()) == FROZEN
    assert table((name, number, parameters) for name, number, _, parameters in compiled.formulas()) == FROZEN


@pytest.mark.parametrize("number", FROZEN)
def test_a_number_computes_its_formula(number):
    """In what an operator is given, so in an exported model."""
    name, parameters = FROZEN[number]
    formula = getattr(imae_ext, name)()
    packed = [float(number), 1.0, *(float(getattr(formula, each)) for each in parameters)]
    assert formula.packed == packed and formulas.unpack(packed) == formula
    loss = torch.ops.imae_ext.forward(*batch(), packed, None, None, -100, 1)
    assert torch.equal(loss, imae_ext.reference.robust_loss(*batch(), formula)) or torch.allclose(
        loss, imae_ext.reference.robust_loss(*batch(), formula), rtol=1e-5
    )


def test_a_change_of_the_operators_is_a_new_interface():
    schemas = sorted(str(s) for s in torch._C._jit_get_all_schemas() if s.name.startswith("imae_ext::"))
    assert len(schemas) > 3
    found = hashlib.sha256(json.dumps([schemas, sorted(formulas.signatures())]).encode()).hexdigest()[:16]
    assert INTERFACES[max(INTERFACES)] == found and max(INTERFACES) == INTERFACE == compiled.interface


@pytest.mark.parametrize("name", [*(name for name, _ in FROZEN.values()), "SCE"])
def test_every_formula_has_a_function_and_a_module(name):
    """With its parameters, their defaults and the options of robust_loss, as signature and help say."""
    make = getattr(imae_ext, name)
    module = getattr(imae_ext, f"{name}Loss")
    (function,) = [each for each in vars(losses).values() if getattr(each, "__name__", "") == f"{words(name)}_loss"]
    assert getattr(imae_ext, function.__name__) is function
    own = {each.name: each.default for each in inspect.signature(make).parameters.values()}
    common = inspect.signature(imae_ext.robust_loss).parameters
    options = {each.name: each.default for each in common.values() if each.kind is each.KEYWORD_ONLY}
    for made, own_place in ((function, {"logits", "target"}), (module, {"sample_weight"})):
        shown = {each.name: each.default for each in inspect.signature(made).parameters.values()}
        wanted = {key: value for key, value in (own | options).items() if key not in own_place}
        assert {key: value for key, value in shown.items() if key not in own_place} == wanted
    assert {"sample_weight"} == set(inspect.signature(module.forward).parameters) - {"self", "logits", "target"}
    for argument in ("logits", "target", *own, *options):
        assert f"\n  {argument}: " in inspect.getdoc(function)
    for parameter in own:  # and each is the formula's: another value changes the formula, in module and attribute
        changed = module(**{parameter: 3 if parameter == "t" else 1.1 * own[parameter]})
        assert getattr(changed, parameter) != own[parameter] and changed.formula != module().formula
        assert torch.equal(function(*batch(), **{parameter: getattr(changed, parameter)}), changed(*batch()))


def words(name: str) -> str:
    return {"TaylorCE": "taylor_ce", "LabelSmoothing": "label_smoothing"}.get(name, name.lower())


@pytest.mark.parametrize("kind", FORMULAS.values(), ids=lambda kind: kind.__name__)
def test_help_of_a_formula_is_about_what_one_can_call(kind):
    text = inspect.getdoc(kind)
    assert "Refuse" not in (inspect.getdoc(kind.__init__) or "")
    for each in fields(kind):
        assert f"\n  {each.name}: " in text
