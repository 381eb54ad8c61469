"""The experiment on scikit-learn's digits: a small network that can memorise, 40% symmetric noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import imae_ext
from imae_ext.formulas import Formula

from .data import digits
from .measures import Measures
from .networks import mlp
from .noise import symmetric
from .training import Recipe, Result, train

NOISE_RATE = 0.4

LOSSES: dict[str, Formula] = {
    "CCE": imae_ext.CCE(),
    "MAE": imae_ext.MAE(),
    "GCE": imae_ext.GCE(),
    "IMAE": imae_ext.IMAE(),
}

# By the rule in search.py, from the grid that `python -m benchmarks.noisy_labels.demo --search` prints.
LEARNING_RATES: dict[str, float] = {"CCE": 0.05, "MAE": 0.02, "GCE": 0.02, "IMAE": 0.005}


def recipes(rates: Mapping[str, Iterable[float]], seeds: Iterable[int], epochs: int) -> list[Recipe]:
    """Make one recipe for each loss, each of its learning rates, and each seed."""
    seeds = list(seeds)
    return [
        Recipe(name, LOSSES[name], rate, epochs=epochs, seed=seed)
        for name, choices in rates.items()
        for rate in choices
        for seed in seeds
    ]


def run(recipe: Recipe, report: Callable[[Measures], None] = lambda measures: None) -> Result:
    """Train one recipe on the digits. The recipe's seed draws the noise and the initial weights."""
    dataset = digits()
    noise = symmetric(dataset.train.labels.numpy(), NOISE_RATE, dataset.num_classes, recipe.seed)
    network = mlp(dataset.train.inputs.shape[1], dataset.num_classes, seed=recipe.seed)
    return train(recipe, network, dataset, noise, report)
