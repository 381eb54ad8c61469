"""Several losses on one task: the rate of each is given, or chosen by the rule in search.py; then every seed is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from . import job
from .archive import SEARCH
from .runs import run_all
from .search import choose, search_table
from .table import WITH_AUC, paper_table, seeds_text
from .task import Task
from .training import Recipe


@dataclass(frozen=True)
class Search:
    """The runs by which a rate is chosen.

    Attributes:
        seeds: others than those of the runs that are reported.
        epochs: of each run; fewer than the reported runs have make a cheaper, coarser choice.

    """

    seeds: Sequence[int]
    epochs: int


def sweep(
    task: Task,
    losses: Sequence[Recipe],
    rates: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    search: Search,
    out: Path,
    processes: int,
) -> None:
    """Run every loss on a task and print the paper's table; what is finished under `out` is not run again.

    Args:
        task: the data, the wrong labels and the network.
        losses: a recipe for each loss, of any rate and seed.
        rates: for each recipe's name its rate, or several to choose from.
        seeds: of the runs that are reported.
        search: the runs by which a rate is chosen.
        out: folder of the runs.
        processes: runs at a time.

    """
    chosen = {name: choices[0] for name, choices in rates.items()}
    trials = [
        replace(loss, learning_rate=rate, seed=seed, epochs=search.epochs, measure_every=search.epochs)
        for loss in losses
        if len(rates[loss.name]) > 1
        for rate in rates[loss.name]
        for seed in search.seeds
    ]
    if trials:
        tried = run_all(partial(job.run, task, out / SEARCH), trials, processes)
        chosen |= choose(tried)
        how = f"{search.epochs} epochs, {seeds_text(len(search.seeds))}, in percent"
        print(f"\n{task.title}: {how}\n\n{search_table(tried)}\n", flush=True)
    # All losses with the first seed, then with the second: stopped early, there is something of each.
    final = [replace(loss, learning_rate=chosen[loss.name], seed=seed) for seed in seeds for loss in losses]
    results = run_all(partial(job.run, task, out), final, processes)
    print(f"\n{task.title}: {seeds_text(len(seeds))}, in percent\n\n{paper_table(results, WITH_AUC)}\n", flush=True)
