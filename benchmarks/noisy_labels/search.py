"""How each loss's learning rate is chosen: on the clean validation images, with seeds that no table reports.

The rule: among the rates with which the loss comes to fit the rightly labelled training examples, the one
with the highest final validation accuracy. Without the first half the smallest rates win: a run that ends
before it has fitted its data has not memorised wrong labels either, whatever its loss; the table prints all
rates, so that this can be seen. A loss that fits with no rate, as MAE, takes the highest accuracy of all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from .names import RATES as RATES
from .names import SEARCH_SEEDS
from .table import by_loss, mean_and_spread, text_table
from .training import Result

SEEDS = SEARCH_SEEDS
FITTED = 98.0  # percent of the rightly labelled training examples, mean over the seeds


def choose(results: Sequence[Result]) -> dict[str, float]:
    """Choose the rate of each loss by the rule above."""
    if any(math.isnan(result.final.validation) for result in results):
        raise ValueError(
            "a rate is chosen by accuracy on the validation part: expected one, got --validation 0 or --fold"
        )
    best: dict[str, tuple[bool, float, float]] = {}
    for group in by_loss(results):
        recipe = group[0].recipe
        fits = fmean(result.final.clean_fit for result in group) >= FITTED
        candidate = (fits, fmean(result.final.validation for result in group), recipe.learning_rate)
        best[recipe.name] = max(best.get(recipe.name, candidate), candidate)
    return {name: rate for name, (_, _, rate) in best.items()}


def search_table(results: Sequence[Result]) -> str:
    """Show every loss and rate, the chosen ones marked; percent, mean ± standard deviation."""
    chosen = choose(results)
    rows = []
    for group in by_loss(results):
        recipe = group[0].recipe
        rows.append(
            [
                recipe.name,
                f"{recipe.learning_rate:g}",
                mean_and_spread(result.final.validation for result in group),
                mean_and_spread(result.final.clean_fit for result in group),
                mean_and_spread(result.final.noisy_fit for result in group),
                "chosen" if chosen[recipe.name] == recipe.learning_rate else "",
            ]
        )
    return text_table(["loss", "rate", "validation", "clean fit", "noisy fit", ""], rows)
