"""The reliability contract: what formulas may be made of, and what is said of the rest."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

import imae_ext

PARAMETERS = {
    "GCE": (imae_ext.GCE, "q", (0.0, -0.1, 16.1)),
    "IMAE_T": (imae_ext.IMAE, "T", (-1e-9, 30.1)),
    "IMAE_eps": (imae_ext.IMAE, "eps", (-1e-12, 1e-31, 1.1)),
    "DM_beta": (imae_ext.DM, "beta", (-0.1, 16.1)),
    "DM_lambd": (imae_ext.DM, "lambd", (-0.1, 1e-3, 16.1)),
    "DM_eps": (imae_ext.DM, "eps", (-1e-12, 1e-31, 1.1)),
    "RCE": (imae_ext.RCE, "A", (0.0, -1.0)),
    "Focal": (imae_ext.Focal, "gamma", (-0.1, 64.1)),
    "TaylorCE": (imae_ext.TaylorCE, "t", (0, 65, 2.5)),
    "AGCE_a": (imae_ext.AGCE, "a", (0.0, -1.0, 1e-7, 1.1e4)),
    "AGCE_q": (imae_ext.AGCE, "q", (0.0, -1.0, 4.1)),
    "AUL_a": (imae_ext.AUL, "a", (1.0, 0.5, 1.1e4)),
    "AUL_q": (imae_ext.AUL, "q", (0.0, -1.0, 4.1)),
    "AEL": (imae_ext.AEL, "a", (0.0, -1.0, 0.04, 1.1e4)),
    "LabelSmoothing": (imae_ext.LabelSmoothing, "eps", (-0.1, 1.1)),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    """ValueError at construction, naming the parameter and its value."""
    formula, parameter, refused = PARAMETERS[name]
    for value in (*refused, math.nan, math.inf, -math.inf):
        message = rf"^imae_ext: {formula.__name__}: expected .*\b{parameter}\b.* got {re.escape(str(value))}$"
        with pytest.raises(ValueError, match=message):
            formula(**{parameter: value})


def test_more_terms_than_one_pass_takes():
    four = imae_ext.CCE() + imae_ext.MAE() + imae_ext.MSE() + imae_ext.NCE()
    with pytest.raises(ValueError, match=r"^imae_ext: .*4.*"):
        four + imae_ext.RCE()


@pytest.mark.parametrize("factor", (math.nan, math.inf))
def test_factor_that_is_not_finite(factor):
    for use in (lambda: factor * imae_ext.CCE(), lambda: imae_ext.CCE() / factor):  # 1 / inf would be a loss of 0
        with pytest.raises(ValueError, match=r"^imae_ext: .* a finite number for a coefficient"):
            use()


def test_parameter_that_only_equals_one_seen_before():
    """The named losses keep their formulas; True equals 1.0 and has its hash."""
    logits, target = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    imae_ext.imae_loss(logits, target, T=1.0)
    for T in (True, [8.0], torch.tensor(8.0)):
        with pytest.raises(ValueError, match="imae_ext: IMAE: expected a finite number for T"):
            imae_ext.imae_loss(logits, target, T=T)


class MyFormula(imae_ext.IMAE):
    """A formula of one's own, which the kernels cannot know."""


NO_FORMULAS = {
    "subclass": (lambda: MyFormula(8.0), TypeError, "no formula MyFormula"),
    "base": (imae_ext.Formula, TypeError, "take one, such as"),
    "names": (lambda: imae_ext.Combination(((1.0, "CCE"),)), TypeError, "pairs of a coefficient and a formula"),
    "no_pairs": (lambda: imae_ext.Combination((imae_ext.CCE(),)), TypeError, r"formula, got CCE\(\)"),
    "beyond_floats": (lambda: imae_ext.IMAE(10**400), ValueError, "expected a finite number for T"),
}


@pytest.mark.parametrize("name", NO_FORMULAS)
def test_what_is_no_formula(name):
    make, error, message = NO_FORMULAS[name]
    with pytest.raises(error, match=f"^imae_ext: .*{message}"):
        make()


@pytest.mark.parametrize("T", (8, np.float32(8), np.float64(8), np.int64(8)), ids=lambda T: type(T).__name__)
def test_parameters_of_any_numeric_type(T):
    assert imae_ext.IMAE(T) == imae_ext.IMAE(8.0) and imae_ext.IMAE(T).packed == imae_ext.IMAE(8.0).packed
