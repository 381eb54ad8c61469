"""The scale of each formula against its paper or its authors' code, as the docstrings have it.

Each definition below is written from the softmax of all classes and the one-hot label, as such code is.
"""

from __future__ import annotations

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from calls import batch

import imae_ext
from imae_ext import AEL, AGCE, AUL, CCE, GCE, MAE, MSE, NCE, RCE, SCE, Focal, LabelSmoothing, TaylorCE

C = 5


def softmax(z, y):
    """Probabilities of all classes, their logarithms, the one-hot label, and the label's probability."""
    p, hot = z.softmax(1), F.one_hot(y, C).to(z.dtype)
    return p, z.log_softmax(1), hot, (p * hot).sum(1)


def nce(z, y):  # Ma et al. 2020, and the authors' code
    _, logs, hot, _ = softmax(z, y)
    return -(hot * logs).sum(1) / -logs.sum(1)


def their_mae(z, y):  # the authors of NCE+MAE: one minus the label's probability
    return 1 - softmax(z, y)[3]


def rce(z, y):  # the authors of SCE and of NCE+RCE: the label clipped at 1e-4 (and p at 1e-7)
    p, _, hot, _ = softmax(z, y)
    return -(p.clamp(1e-7, 1) * hot.clamp(1e-4, 1).log()).sum(1)


def ghosh_mae(z, y):  # Ghosh et al. 2017: the L1 distance to the one-hot label
    p, _, hot, _ = softmax(z, y)
    return (hot - p).abs().sum(1)


def ce(z, y):
    return F.cross_entropy(z, y, reduction="none")


def smoothed(z, y):
    return F.cross_entropy(z, y, reduction="none", label_smoothing=0.1)


def of_p(function):
    return lambda z, y: function(softmax(z, y)[3])


def family(q):  # (1 - p^q) / q
    return of_p(lambda p: (1 - p**q) / q)


PUBLISHED = {
    "MAE": (MAE(), ghosh_mae),
    "MAE of others": (0.5 * MAE(), their_mae),
    "NCE": (NCE(), nce),
    "NCE+MAE": (NCE() + 0.5 * MAE(), lambda z, y: nce(z, y) + their_mae(z, y)),
    "NCE+MAE, CIFAR-100": (10 * NCE() + 0.5 * MAE(), lambda z, y: 10 * nce(z, y) + their_mae(z, y)),
    "NCE+RCE": (NCE() + RCE(), lambda z, y: nce(z, y) + rce(z, y)),
    "RCE": (RCE(), rce),
    "RCE as MAE": (RCE(), lambda z, y: -math.log(1e-4) / 2 * ghosh_mae(z, y)),
    "SCE": (SCE(0.1, 1.0), lambda z, y: 0.1 * ce(z, y) + rce(z, y)),
    "GCE": (GCE(0.7), family(0.7)),
    "GCE at 1": (GCE(1.0), their_mae),
    "softmax focal loss": (Focal(2.0), of_p(lambda p: -((1 - p) ** 2) * p.log())),
    "Poly-1": (CCE() + (1.5 / 2) * MAE(), lambda z, y: ce(z, y) + 1.5 * their_mae(z, y)),
    "TaylorCE": (TaylorCE(3), of_p(lambda p: (1 - p) + (1 - p) ** 2 / 2 + (1 - p) ** 3 / 3)),
    "TaylorCE of one term": (TaylorCE(1), their_mae),
    "MSE": (MSE(), of_p(lambda p: (1 - p) ** 2)),
    "AGCE": (AGCE(1.0, 2.0), of_p(lambda p: (2.0**2.0 - (1.0 + p) ** 2.0) / 2.0)),
    "AUL": (AUL(1.5, 0.9), of_p(lambda p: ((1.5 - p) ** 0.9 - 0.5**0.9) / 0.9)),
    "AEL": (AEL(2.5), of_p(lambda p: torch.exp(-p / 2.5))),
    "label smoothing": (LabelSmoothing(0.1), smoothed),
}


def values_and_gradients(function, formula):
    """Per row, of the published definition and of ours."""
    z, y = batch(N=40, C=C, dtype=torch.float64)
    theirs, ours = z.clone().requires_grad_(), z.clone().requires_grad_()
    a, b = function(theirs, y), imae_ext.robust_loss(ours, y, formula, reduction="none")
    a.sum().backward()
    b.sum().backward()
    return a.detach(), theirs.grad, b.detach(), ours.grad


@pytest.mark.parametrize("name", PUBLISHED)
def test_value_and_gradient_of_the_publication(name):
    formula, function = PUBLISHED[name]
    value, gradient, ours, our_gradient = values_and_gradients(function, formula)
    torch.testing.assert_close(ours, value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(our_gradient, gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("formula", (GCE(1.0), 0.5 * MAE()), ids=repr)
def test_dft_has_the_gradient_and_another_value(formula):
    """Dynamic fine-tuning: -log p times a p that is held constant."""
    value, gradient, ours, our_gradient = values_and_gradients(of_p(lambda p: -p.detach() * p.log()), formula)
    torch.testing.assert_close(our_gradient, gradient, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(ours, value, rtol=0.1)


def test_gce_beyond_one_is_nearly_agce():
    value, gradient, ours, our_gradient = values_and_gradients(family(4.0), AGCE(1e-6, 4.0))
    torch.testing.assert_close(ours, value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(our_gradient, gradient, rtol=1e-4, atol=1e-5)


def test_imae_is_the_weight_of_the_paper():
    """The L1 norm of a row's gradient is exp(T p (1 - p)), whatever the class count."""
    weight = of_p(lambda p: torch.exp(8.0 * p * (1 - p)))
    z, y = batch(N=40, C=C, dtype=torch.float64)
    *_, gradient = values_and_gradients(weight, imae_ext.IMAE(8.0, eps=0))
    torch.testing.assert_close(gradient.abs().sum(1), weight(z, y), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("of", "said"),
    (
        (MAE, ("0.5 * MAE()", "DFT", "2508.05629", "1 - p")),
        (NCE, ("NCE+MAE is ``NCE() + 0.5 * MAE()``", "10 * NCE() + 0.5 *", "NCE() + RCE()")),
        (CCE, ("Poly-1", "CCE() + (eps / 2) * MAE()")),
        (GCE, ("DFT", "AGCE(1e-6, q)", "half of MAE")),
        (Focal, ("softmax", "multi-class", "sigmoid")),
        (RCE, ("1e-4", "A / 2")),
        (TaylorCE, ("half of MAE",)),
        (MSE, ("Brier",)),
        (imae_ext.formulas, ("DFT", "Poly-1", "focal", "NCE+MAE")),
    ),
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_docstrings_have_the_factors_and_names(of, said):
    text = " ".join(inspect.getdoc(of).split())
    assert [each for each in said if each not in text] == []
