"""Masking, a method that plays a game: its matrices, and what generator and discriminator learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from method_calls import LABELS, ROWS, logits, setting, softmax
from torch import Tensor

from benchmarks.noisy_labels.methods import Masking

pytestmark = pytest.mark.usefixtures("one_thread")

TRANSITION = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.7, 0.3], [0.2, 0.0, 0.8]])


def masking(pretrain: int, estimate: Tensor = TRANSITION) -> Any:
    return Masking(pretrain=pretrain).start(setting(transition=TRANSITION, estimate=lambda: estimate))


def test_masking_begins_with_the_estimate_and_knows_the_structure() -> None:
    procedure = masking(900)
    assert procedure.structure.tolist() == [[1, 1, 0], [0, 1, 1], [1, 0, 1]]
    with torch.no_grad():
        drawn = procedure.matrices(64)
    torch.testing.assert_close(drawn.sum(dim=2), torch.ones(64, 3))
    torch.testing.assert_close(drawn.mean(dim=0), TRANSITION, atol=0.06, rtol=0.0)


def test_masking_corrects_each_example_by_a_matrix_of_its_own() -> None:
    procedure = masking(0)
    with torch.no_grad():
        matrices = procedure.matrices(3)
    z = logits()
    p = softmax(z)
    each = [-np.log(p[i] @ matrices[i].double().numpy()[:, int(LABELS[ROWS][i])]) for i in range(3)]
    loss = procedure._correct(z.softmax(dim=1), matrices, LABELS[ROWS])
    assert float(loss.detach()) == pytest.approx(np.mean(each), rel=1e-5)


def test_masking_takes_mistakes_away_that_the_structure_rules_out() -> None:
    """The generator begins with 0.1 where no mistake is possible; the labels, and the game, take it away."""
    spread = torch.tensor([[0.55, 0.35, 0.1], [0.1, 0.6, 0.3], [0.2, 0.1, 0.7]])
    procedure = masking(500, spread)
    generator = torch.Generator().manual_seed(0)
    ruled_out = TRANSITION == 0
    before = float(procedure.matrices(64).detach()[:, ruled_out].mean())
    for _ in range(60):
        truth = torch.randint(3, (64,), generator=generator)
        labels = torch.multinomial(TRANSITION[truth], 1, generator=generator).squeeze(1)
        procedure._play(torch.nn.functional.one_hot(truth, 3).float(), labels)
    after = float(procedure.matrices(64).detach()[:, ruled_out].mean())
    assert before > 0.07 and after < before / 2
    assert all(((w >= -0.01) & (w <= 0.005)).all() for w in procedure.discriminator.parameters())


def test_masking_generates_what_the_discriminator_takes_for_the_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    procedure = masking(100)
    monkeypatch.setattr("benchmarks.noisy_labels.methods.masking.JUDGED", 0)
    monkeypatch.setattr(procedure, "_correct", lambda p, matrices, labels: 0 * matrices.sum())
    judged = []
    for _ in range(40):
        judged.append(float(procedure._judge(procedure.matrices(256)).detach().mean()))
        procedure._play(torch.full((64, 3), 1 / 3), torch.zeros(64, dtype=torch.int64))
    assert judged[-1] > judged[0] + 0.005
