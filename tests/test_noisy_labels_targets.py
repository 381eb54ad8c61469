"""What the tool trains on instead of one label: the shares of several annotators, and mixup's two labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import imae_ext
from benchmarks.noisy_labels import archive, table
from benchmarks.noisy_labels.__main__ import main
from benchmarks.noisy_labels.data import digits
from benchmarks.noisy_labels.job import digest
from benchmarks.noisy_labels.losses import parse
from benchmarks.noisy_labels.methods.method import Batch, Mix
from benchmarks.noisy_labels.networks import mlp
from benchmarks.noisy_labels.noise import NoisyLabels, symmetric
from benchmarks.noisy_labels.training import FusedLoss, Prepared, Recipe, train

ROOT = Path(__file__).resolve().parent.parent
RECIPE = Recipe("IMAE", imae_ext.IMAE(), 0.005, epochs=2, measure_every=1)


def votes_of(path: Path) -> np.ndarray:
    """Write three annotators' labels of the digits: right, right, and the next class for every second example."""
    clean = digits().published.labels.numpy() if digits().published else digits().train.labels.numpy()
    votes = np.stack([clean, clean, (clean + np.arange(len(clean)) % 2) % 10], axis=1)
    np.save(path, votes)
    return votes


@pytest.mark.parametrize("targets", ("majority", "share"))
def test_annotators_of_a_file(tmp_path: Path, targets: str, capsys: pytest.CaptureFixture[str]) -> None:
    votes_of(tmp_path / "votes.npy")
    words = ["train", "--labels", str(tmp_path / "votes.npy"), "--targets", targets, "--epochs", "1", "--seeds", "1"]
    main([*words, "--processes", "1", "--loss", "imae", "--lr", "0.005", "--out", str(tmp_path / "out")])
    (path,) = (tmp_path / "out").glob("**/config.json")
    config = json.loads(path.read_text())
    assert config["task"].get("targets", "majority") == targets
    said = capsys.readouterr().out
    assert f"the {'shares' if targets == 'share' else 'majority'} of 3 annotators" in said


def test_shares_are_what_is_trained_on() -> None:
    """And another target than the majority's labels: another record, another network."""
    dataset = digits()
    clean = dataset.train.labels.numpy()
    shares = 0.75 * np.eye(10, dtype=np.float32)[clean] + 0.25 * np.eye(10, dtype=np.float32)[(clean + 1) % 10]
    noise = NoisyLabels(clean, clean)
    both = replace(noise, shares=shares)
    assert digest(noise) != digest(both)
    criterion = FusedLoss(RECIPE, torch.from_numpy(shares))
    rows = torch.tensor([5, 1, 9])
    logits = torch.randn(3, 10)
    batch = Batch(rows, torch.zeros(3, 1), torch.from_numpy(clean)[rows], Prepared(torch.nn.Identity(), dataset))
    wanted = imae_ext.robust_loss(logits, torch.from_numpy(shares[rows.numpy()]), RECIPE.formula)
    assert torch.equal(criterion.on_batch(logits, batch), wanted)
    width = dataset.train.inputs.shape[1]
    runs = [train(RECIPE, mlp(width, 10, seed=0), dataset, each) for each in (noise, both)]
    assert runs[0].history != runs[1].history


def test_mixup_gives_both_labels_their_amounts() -> None:
    dataset = digits()
    noise = symmetric(dataset.train.labels.numpy(), 0.4, 10, seed=0)
    labels, logits = torch.from_numpy(noise.labels), torch.randn(4, 10)
    rows, mix = torch.tensor([3, 8, 2, 7]), Mix(torch.tensor([1, 0, 3, 2]), 0.3)
    batch = Batch(rows, torch.zeros(4, 1), labels[rows], Prepared(torch.nn.Identity(), dataset), mix)
    wanted = imae_ext.mixed_loss(logits, labels[rows], labels[rows][mix.other], 0.3, RECIPE.formula)
    assert torch.equal(FusedLoss(RECIPE).on_batch(logits, batch), wanted)
    shares = torch.nn.functional.one_hot(labels, 10).float()
    torch.testing.assert_close(FusedLoss(RECIPE, shares).on_batch(logits, batch), wanted)
    width = dataset.train.inputs.shape[1]
    mixed = replace(RECIPE, mixup=1.0)
    runs = [train(recipe, mlp(width, 10, seed=0), dataset, noise) for recipe in (RECIPE, mixed, mixed)]
    assert runs[0].history != runs[1].history == runs[2].history
    assert abs(runs[1].history[-1].test - runs[0].history[-1].test) < 60  # it learns


def test_what_takes_one_label_is_refused() -> None:
    with pytest.raises(ValueError, match="mixup takes two labels"):
        Recipe("Forward*", parse("forward"), 0.1, mixup=1.0)
    with pytest.raises(ValueError, match="expected mixup of 0 or more"):
        Recipe("CCE", imae_ext.CCE(), 0.1, mixup=-1.0)


def test_the_page_of_mixup_shows_the_stored_runs() -> None:
    runs = archive.load(ROOT / "benchmarks" / "noisy_labels" / "results" / "digits-mixup.json").runs
    page = (ROOT / "docs" / "ecosystem.md").read_text()
    columns = {name: table.PAPER[name] for name in ("test final", "noisy fit")}
    rows = table.paper_rows([run.result for run in runs], columns)
    assert len(runs) == 20 and len(rows) == 4
    for name, _, *numbers in rows:
        assert f"| {name} | {' | '.join(' '.join(number.split()) for number in numbers)} |" in page
