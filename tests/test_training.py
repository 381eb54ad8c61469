"""Training on wrong labels: IMAE with its default eps stays bounded, and generalises where CCE memorises."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.noisy_labels import demo
from benchmarks.noisy_labels.experiment import LEARNING_RATES, recipes, run
from benchmarks.noisy_labels.runs import run_all
from benchmarks.noisy_labels.training import Result


@pytest.fixture(scope="module")
def trained() -> dict[str, Result]:
    """CCE and IMAE on the digits with 40% wrong labels, as the demo trains them, one seed."""
    rates = {name: [LEARNING_RATES[name]] for name in ("CCE", "IMAE")}
    results = run_all(run, recipes(rates, [0], epochs=100))
    return {result.recipe.name: result for result in results}


def test_imae_stays_bounded(trained: dict[str, Result]) -> None:
    # With eps = 0 the logits run away, to 1e5 and beyond.
    assert max(measures.max_logit for measures in trained["IMAE"].history) < 1e4


def test_imae_ends_above_cce(trained: dict[str, Result]) -> None:
    assert trained["IMAE"].final.test > trained["CCE"].final.test + 10
    assert trained["IMAE"].final.test > trained["IMAE"].best_test - 5  # it does not decay


def test_cce_memorises_the_wrong_labels_and_imae_does_not(trained: dict[str, Result]) -> None:
    assert trained["CCE"].final.noisy_fit > 70
    assert trained["IMAE"].final.noisy_fit < 10
    assert trained["IMAE"].final.clean_fit > 95


def test_demo_prints_the_table_and_saves_the_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "TIMING_SECONDS", 0.01)
    demo.main(["--seeds", "1", "--epochs", "2", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    for heading in ("test best", "test final", "noisy fit", "clean fit", "hybrid", "reference/fused"):
        assert heading in printed
    for name in LEARNING_RATES:
        assert f"\n{name} " in printed
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "weights.png"}
