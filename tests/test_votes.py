"""Annotators' labels as targets."""

from __future__ import annotations

import pytest
import torch

import imae_ext
from imae_ext import IMAE, vote_shares


@pytest.mark.parametrize("kind", (torch.int64, torch.int32), ids=str)
@pytest.mark.parametrize("missing", (-1, 99))
def test_shares_are_counted(kind, missing):
    votes = torch.randint(4, (50, 5))
    votes[torch.rand(50, 5) < 0.4] = missing
    votes[7] = missing
    got = vote_shares(votes.to(kind), 4, missing=missing, dtype=torch.float64)
    for row, share in zip(votes.tolist(), got.tolist(), strict=True):
        labels = [label for label in row if label != missing]
        assert share == pytest.approx([labels.count(k) / max(1, len(labels)) for k in range(4)])
    assert (got[7] == 0).all()
    labels = torch.zeros(2, 3, dtype=torch.int32)
    assert (vote_shares(labels, 4, missing=2**32)[:, 0] == 1).all()  # which labels of 32 bits cannot hold


def test_a_loss_of_shares_is_the_mean_of_the_annotators_losses():
    votes = torch.randint(4, (30, 3))
    votes[::4, 1] = -1
    votes[5] = -1
    logits = torch.randn(30, 4, dtype=torch.float64)
    got = imae_ext.robust_loss(logits, vote_shares(votes, 4, dtype=torch.float64), IMAE(), reduction="none")
    each = [imae_ext.robust_loss(logits, votes[:, k], IMAE(), reduction="none", ignore_index=-1) for k in range(3)]
    wanted = sum(each) / (votes != -1).sum(1).clamp(min=1)
    torch.testing.assert_close(got, wanted)


def test_bad_votes_are_refused():
    votes = torch.zeros(4, 3).long()
    for wrong, error, says in (
        (votes.double(), TypeError, "votes of dtype"),
        (votes.tolist(), TypeError, "votes of dtype"),
        (votes[0], ValueError, r"votes of shape \(N, A\)"),
        (votes.to_sparse(), TypeError, "votes to be dense"),
    ):
        with pytest.raises(error, match=f"imae_ext: expected {says}"):
            vote_shares(wrong, 4)
    for classes in (0, 2.5):
        with pytest.raises(ValueError, match="expected num_classes to be a number of classes"):
            vote_shares(votes, classes)
    with pytest.raises(TypeError, match=r"expected dtype to be a floating one, got torch.int64"):
        vote_shares(votes, 4, dtype=torch.int64)
    votes[2, 1] = 4
    with pytest.raises(IndexError, match=r"got 4 at row 2, annotator 1"):
        vote_shares(votes, 4)
