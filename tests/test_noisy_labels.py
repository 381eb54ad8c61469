"""The noisy-label experiments: data, measures, the training loop, tables and pictures."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

import imae_ext
from benchmarks.noisy_labels.data import Dataset, Examples, digits
from benchmarks.noisy_labels.experiment import LEARNING_RATES, LOSSES, recipes, run
from benchmarks.noisy_labels.figures import COLOURS, training_curves, weight_curve, weight_curves
from benchmarks.noisy_labels.measures import Measures, measure
from benchmarks.noisy_labels.networks import mlp
from benchmarks.noisy_labels.runs import run_all
from benchmarks.noisy_labels.search import choose, search_table
from benchmarks.noisy_labels.table import paper_table
from benchmarks.noisy_labels.timing import time_losses, timing_table
from benchmarks.noisy_labels.training import Recipe, Result, epoch_order

pytestmark = pytest.mark.usefixtures("one_thread")


# Data and measures


def test_digits_are_split_by_class_without_overlap() -> None:
    first, again = digits(), digits()
    parts = [first.train, first.validation, first.test]
    assert [len(part) for part in parts] == [1200, 237, 360]
    together = torch.cat([part.inputs for part in parts])
    assert len(torch.unique(together, dim=0)) == 1797
    assert together.min() == 0 and together.max() == 1
    for part in parts:
        shares = torch.bincount(part.labels, minlength=10) / len(part)
        assert (shares - 0.1).abs().max() < 0.01
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert torch.equal(first.test.labels, again.test.labels)


def test_measures_by_hand() -> None:
    # The network's logits are its inputs: it predicts class 0, 1, 1, 0 in training and 1, 1 in the test.
    def examples(rows: list[list[float]], labels: list[int]) -> Examples:
        return Examples(torch.tensor(rows), torch.tensor(labels))

    a, b = [2.0, 1.0], [-5.0, 1.0]
    train, validation, test = examples([a, b, b, a], [0, 0, 0, 1]), examples([a], [0]), examples([b, b], [0, 1])
    dataset = Dataset("by hand", 2, train, validation, test)
    labels = torch.tensor([0, 1, 0, 0])  # the second and the fourth are wrong
    found = measure(torch.nn.Identity(), dataset, labels, epoch=3, loss=0.5)
    assert (found.epoch, found.loss, found.max_logit) == (3, 0.5, 5.0)
    assert (found.test, found.validation) == (50.0, 100.0)
    assert (found.noisy_fit, found.clean_fit) == (100.0, 50.0)
    # Of all six, only the first training and the second test example have their true class predicted.
    assert found.hybrid == pytest.approx(100 * 2 / 6)


# Training


def recipe(**changes: object) -> Recipe:
    base = Recipe("IMAE", imae_ext.IMAE(), 0.01, epochs=3, measure_every=1)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_training_is_decided_by_the_recipe() -> None:
    assert run(recipe()) == run(recipe())
    assert run(recipe()).history != run(recipe(seed=1)).history


def test_measuring_less_often_changes_nothing_else() -> None:
    every, some = run(recipe()), run(recipe(measure_every=2))
    assert [measures.epoch for measures in some.history] == [2, 3]
    assert some.history == every.history[1:]


def test_order_of_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    torch.manual_seed(0)
    order = epoch_order(1000, seed=2, epoch=5)
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert torch.equal(order, epoch_order(1000, seed=2, epoch=5))
    assert not torch.equal(order, epoch_order(1000, seed=2, epoch=6))
    assert not torch.equal(order, epoch_order(1000, seed=3, epoch=5))


def test_network_weights_are_seeded_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = mlp(64, 10, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first[0].weight, mlp(64, 10, seed=1)[0].weight)
    assert not torch.equal(first[0].weight, mlp(64, 10, seed=2)[0].weight)


@pytest.mark.parametrize("reduction", ["mean", "normalized"])
@pytest.mark.parametrize("name", LOSSES)
def test_fused_and_reference_give_the_same_curve(name: str, reduction: str) -> None:
    changes = {"formula": LOSSES[name], "learning_rate": LEARNING_RATES[name], "reduction": reduction}
    fused = run(recipe(**changes))
    plain = run(recipe(**changes, use_reference=True))
    for ours, theirs in zip(fused.history, plain.history, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
        assert ours.max_logit == pytest.approx(theirs.max_logit, rel=1e-3)
        assert ours.test == pytest.approx(theirs.test, abs=0.6)  # two of the 360 test images


# Running many, and showing them


def test_runs_side_by_side_equal_a_run_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    several = [recipe(epochs=2, seed=seed) for seed in (0, 1, 2)]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run_all(run, several, processes=2) == [run(one) for one in several]
    assert "6/6" in capsys.readouterr().err  # the progress bar has counted every epoch


def test_no_progress_is_drawn_into_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    run_all(run, [recipe(epochs=2)], processes=1)
    assert capsys.readouterr().err == ""


def history(test: list[float], clean_fit: float = 99.0, validation: float = 90.0) -> tuple[Measures, ...]:
    return tuple(Measures(i + 1, 1.0, x, validation, 5.0, clean_fit, 80.0, 3.0) for i, x in enumerate(test))


def test_table_shows_best_and_final_mean_and_spread() -> None:
    results = [
        Result(recipe(seed=0), history([90.0, 95.0, 80.0])),
        Result(recipe(seed=1), history([90.0, 93.0, 84.0])),
        Result(recipe(name="CCE", formula=imae_ext.CCE()), history([50.0, 40.0])),
    ]
    header, rule, imae, cce = paper_table(results).splitlines()
    assert header.split("  ")[0] == "loss" and set(rule) == {"-", " "}
    assert len({len(line) for line in (header, rule, imae, cce)}) == 1  # aligned
    assert " ".join(imae.split()) == "IMAE 0.01 94.0 ± 1.4 82.0 ± 2.8 5.0 ± 0.0 99.0 ± 0.0 80.0 ± 0.0"
    assert " ".join(cce.split()) == "CCE 0.01 50.0 40.0 5.0 99.0 80.0"


def test_rates_are_chosen_among_those_that_fit() -> None:
    def result(name: str, rate: float, clean_fit: float, validation: float) -> Result:
        return Result(recipe(name=name, learning_rate=rate), history([50.0], clean_fit, validation))

    results = [
        result("A", 0.01, 90.0, 95.0),  # the best validation accuracy, but it has not fitted its data
        result("A", 0.02, 99.0, 85.0),
        result("A", 0.05, 99.5, 70.0),
        result("B", 0.01, 50.0, 45.0),
        result("B", 0.02, 80.0, 75.0),  # fits with no rate: the best validation accuracy
        result("B", 0.05, 85.0, 70.0),
    ]
    assert choose(results) == {"A": 0.02, "B": 0.02}
    assert [line.split()[:2] for line in search_table(results).splitlines() if "chosen" in line] == [
        ["A", "0.02"],
        ["B", "0.02"],
    ]


def test_weight_curves_have_the_papers_variances() -> None:
    variances = {name: weight_curve(LOSSES[name])[1].var() for name in ("CCE", "MAE", "IMAE")}
    assert {name: round(float(variance), 2) for name, variance in variances.items()} == {
        "CCE": 0.33,
        "MAE": 0.09,
        "IMAE": 4.55,
    }


def test_pictures_are_written_where_they_show_something_else(tmp_path: Path) -> None:
    results = [
        Result(recipe(name=name, seed=seed), history([50.0 + seed, 60.0]))
        for name in (*COLOURS, "new")
        for seed in (0, 1)
    ]
    curves, weights = tmp_path / "curves.png", tmp_path / "weights.png"
    ways = {
        curves: lambda more: training_curves(results[: len(results) - more], curves, "title"),
        weights: lambda more: weight_curves({**LOSSES, "new": imae_ext.Focal(2.0 + more)}, weights),
    }
    for path, draw in ways.items():
        path.write_bytes(b"no picture")
        contents = []
        for more in (0, 0, 1):
            draw(more)
            contents.append((path.read_bytes(), path.stat().st_mtime_ns))
        assert contents[0][0].startswith(b"\x89PNG") and contents[0] == contents[1] != contents[2]


def test_timing_gives_positive_times() -> None:
    timings = time_losses({"GCE": imae_ext.GCE()}, [(16, 10)], seconds=0.01)
    assert all(value > 0 for value in dataclasses.astuple(timings[0])[2:])
    assert "16 x 10" in timing_table(timings)


def test_recipes_cover_losses_rates_and_seeds() -> None:
    made = recipes({"CCE": [0.1, 0.2], "IMAE": [0.01]}, range(2), epochs=5)
    assert [(one.name, one.learning_rate, one.seed) for one in made] == [
        *(("CCE", 0.1, seed) for seed in (0, 1)),
        *(("CCE", 0.2, seed) for seed in (0, 1)),
        *(("IMAE", 0.01, seed) for seed in (0, 1)),
    ]
    assert len(set(made)) == len(made)
