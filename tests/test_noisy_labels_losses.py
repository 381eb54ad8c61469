"""Losses by name, and the baselines in plain PyTorch against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import imae_ext
from benchmarks.noisy_labels.baselines import (
    Backward,
    Baseline,
    BootstrapHard,
    BootstrapSoft,
    Forward,
    NoiseAdaptation,
    PlainLoss,
    anchor_transition,
    known_transition,
)
from benchmarks.noisy_labels.losses import (
    MAKERS,
    Objective,
    catalogue,
    label,
    parameter_names,
    parse,
    rank,
    with_parameters,
)
from benchmarks.noisy_labels.noise import NoisyLabels

P = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], dtype=torch.float64)
TARGET = torch.tensor([1, 2])
T = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.0, 0.5, 0.5]])


# Names


@pytest.mark.parametrize(
    ("text", "expected", "shown"),
    [
        ("imae", imae_ext.IMAE(), "IMAE"),
        ("IMAE(T=16)", imae_ext.IMAE(T=16.0), "IMAE(T=16)"),
        ("imae(eps=0, T=2)", imae_ext.IMAE(T=2.0, eps=0.0), "IMAE(T=2, eps=0)"),
        ("2.0*nce+mae", 2.0 * imae_ext.NCE() + imae_ext.MAE(), "2 NCE + MAE"),
        ("nce*2 + 0.5*agce(a=2)", 2.0 * imae_ext.NCE() + 0.5 * imae_ext.AGCE(a=2.0), "2 NCE + 0.5 AGCE(a=2)"),
        ("sce(alpha=0.1,beta=1)", imae_ext.SCE(), "SCE"),
        ("taylor_ce(t=3)", imae_ext.TaylorCE(t=3), "TaylorCE(t=3)"),
        ("label_smoothing(eps=0.2)", imae_ext.LabelSmoothing(0.2), "LabelSmoothing(eps=0.2)"),
        ("forward(estimated=True)", Forward(estimated=True), "Forward(estimated=True)*"),
        ("bootstrap_hard", BootstrapHard(), "BootstrapHard*"),
    ],
)
def test_losses_are_read_and_shown(text: str, expected: Objective, shown: str) -> None:
    assert parse(text) == expected
    assert label(expected) == shown


@pytest.mark.parametrize("name", MAKERS)
def test_every_loss_is_read_back_from_what_is_stored_of_it(name: str) -> None:
    assert parse(repr(parse(name))) == parse(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "imea",
            r"no loss is called 'imea'; there are CCE\(\), .*IMAE\(T=8, eps=1e-08\), .*NoiseAdaptation\(eps=0.1\)",
        ),
        ("imae(q=1)", r"IMAE has no parameter 'q'; its form is IMAE\(T=8, eps=1e-08\)"),
        ("imae(T='8')", "expected a number, got"),
        ("imae(T=99)", r"expected T to be a number in \[0, 30\], got 99"),
        ("imae(8)", "expected names"),
        ("imae(**x)", "expected names"),
        ("__import__('os')", "expected names"),
        ("imae.T", "expected names"),
        ("cce - mae", "expected names"),
        ("1 + cce", "expected names"),
        ("2*forward", "expected fused losses in a sum, got Forward"),
        ("cce+mae+nce+gce+rce", "expected 1 to 4 formulas"),
        ("imae(", "expected a form such as"),
        ("", "expected a form such as"),
        ("bootstraphard(beta=2)", r"expected a number in \[0, 1\] for beta, got 2"),
        ("forward(estimated=3)", "expected True or False for estimated, got 3"),
    ],
)
def test_what_is_no_loss_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_parameters_go_with_a_bare_name() -> None:
    assert with_parameters("imae", {"T": 16.0}) == imae_ext.IMAE(T=16.0)
    assert with_parameters("2*nce+mae", {}) == parse("2*nce+mae")
    with pytest.raises(ValueError, match="expected a name alone beside --T"):
        with_parameters("imae(T=2)", {"T": 16.0})
    with pytest.raises(ValueError, match="GCE has no parameter 'T'"):
        with_parameters("gce", {"T": 16.0})
    assert {"T", "t", "q", "beta", "alpha"} <= set(parameter_names())
    assert "estimated" not in parameter_names()  # no number
    assert "SCE(alpha=0.1, beta=1)" in catalogue()


def test_losses_are_ranked_fused_first_then_by_parameter() -> None:
    order = ["cce", "imae(T=2)", "imae", "imae(T=16)", "sce", "nce+mae", "bootstrap_hard", "forward"]
    ranked = sorted(reversed(order), key=lambda text: rank(parse(text)))
    assert ranked[:4] == order[:4] and ranked[-2:] == order[-2:]


# Baselines


def values(baseline: Baseline, matrix: Tensor | None = None) -> list[float]:
    return baseline.values(P.log(), TARGET, matrix).tolist()


def test_bootstrapping_by_hand() -> None:
    log = math.log
    assert values(BootstrapHard(beta=0.8)) == pytest.approx([-0.8 * log(0.2) - 0.2 * log(0.7), -log(0.6)])
    entropies = [
        -(0.7 * log(0.7) + 0.2 * log(0.2) + 0.1 * log(0.1)),
        -(0.1 * log(0.1) + 0.3 * log(0.3) + 0.6 * log(0.6)),
    ]
    soft = [-0.95 * log(0.2) + 0.05 * entropies[0], -0.95 * log(0.6) + 0.05 * entropies[1]]
    assert values(BootstrapSoft(beta=0.95)) == pytest.approx(soft)


def test_soft_bootstrapping_makes_the_entropy_small() -> None:
    logits = P.log().requires_grad_()
    BootstrapSoft(beta=0.0).values(logits.log_softmax(1), TARGET, None).sum().backward()
    entropy = -(P * P.log()).sum(1, keepdim=True)
    torch.testing.assert_close(logits.grad, -P * (P.log() + entropy))  # of -sum p log p


def test_forward_correction_by_hand() -> None:
    # Of the first row: T[0, 1] 0.7 + T[1, 1] 0.2 + T[2, 1] 0.1; of the second: column 2.
    expected = [-math.log(0.2 * 0.7 + 0.6 * 0.2 + 0.5 * 0.1), -math.log(0.3 * 0.3 + 0.5 * 0.6)]
    assert values(Forward(), T.double()) == pytest.approx(expected)


def test_backward_correction_by_hand() -> None:
    two = torch.tensor([[0.8, 0.2], [0.4, 0.6]])  # its inverse is [[1.5, -0.5], [-1, 2]]
    loss = PlainLoss(Backward(), 2, two)
    p = torch.tensor([[0.7, 0.3]])
    assert float(loss(p.log(), torch.tensor([1]))) == pytest.approx(math.log(0.7) - 2 * math.log(0.3))
    assert float(loss(p.log(), torch.tensor([0]))) == pytest.approx(-1.5 * math.log(0.7) + 0.5 * math.log(0.3))


def test_backward_correction_is_cross_entropy_on_average_over_the_noise() -> None:
    every = torch.arange(3)
    log_p = P[:1].log().expand(3, 3)
    corrected = Backward().values(log_p, every, Backward().matrix(3, T.double()))
    torch.testing.assert_close(T.double() @ corrected, -P[0].log())


@pytest.mark.parametrize("baseline", [Forward(), Backward()])
def test_corrections_without_noise_are_cross_entropy(baseline: Baseline) -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 1, 2, 1, 0])
    ours = PlainLoss(baseline, 3, torch.eye(3))(logits, target)
    torch.testing.assert_close(ours, nn.functional.cross_entropy(logits, target))


def test_corrections_refuse_a_matrix_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"Forward: expected a \(4, 4\) matrix, got \(3, 3\)"):
        PlainLoss(Forward(), 4, T)
    with pytest.raises(ValueError, match="got None"):
        PlainLoss(Backward(), 4)


def test_adaptation_layer_starts_near_the_identity_and_learns() -> None:
    loss = PlainLoss(NoiseAdaptation(eps=0.1), 3)
    start = torch.tensor([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])
    (matrix,) = loss.parameters()
    torch.testing.assert_close(matrix.softmax(1), start)
    value = loss(P.log().float(), TARGET)
    torch.testing.assert_close(value, PlainLoss(Forward(), 3, start)(P.log().float(), TARGET))
    value.backward()
    assert matrix.grad is not None and matrix.grad.abs().min() > 0
    assert set(loss.state_dict()) == {"matrix"}


def test_known_transition_counts_the_labels() -> None:
    noise = NoisyLabels(np.array([0, 1, 1, 1, 0]), np.array([0, 0, 1, 1, 1]))
    expected = torch.tensor([[1 / 2, 1 / 2, 0], [1 / 3, 2 / 3, 0], [0, 0, 1]])  # no example of the last class
    torch.testing.assert_close(known_transition(noise, 3), expected)


def test_transition_is_estimated_from_the_anchors_below_the_outliers() -> None:
    # p_0 of the 200 examples is 0, 1/199, ... 1; the 97th percentile, rounded up, is 194/199, and 193/199 is below it.
    p_0 = torch.linspace(0, 1, 200, dtype=torch.float64)
    p = torch.stack([p_0, 1 - p_0], dim=1)
    found = anchor_transition(p[torch.randperm(200, generator=torch.Generator().manual_seed(0))])
    torch.testing.assert_close(found, torch.tensor([[193 / 199, 6 / 199], [6 / 199, 193 / 199]]))
