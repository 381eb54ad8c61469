"""Many runs side by side: one process a core, each with one thread, under a single progress bar on a terminal.

One thread a run: its result is then the same on any number of cores, and a small network gains little from
more.
"""

from __future__ import annotations

import contextlib
import functools
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from tqdm import tqdm

from .measures import Measures
from .training import Recipe, Result

Job = Callable[[Recipe, Callable[[Measures], None]], Result]
Show = Callable[[Recipe, Measures], None]
MOST_PROCESSES = 8  # each holds its own copy of torch

_reports: Any = None  # in a worker: the queue of (recipe, measures) that the parent shows


def run_all(job: Job, recipes: Sequence[Recipe], processes: int | None = None) -> list[Result]:
    """Run the job on every recipe and return the results in the order of the recipes.

    Args:
        job: a module's function (it travels to other processes), given a recipe and a function to report to.
        recipes: what to run.
        processes: how many at a time; by default one for each core that this process may use. One runs here.

    """
    processes = min(processes or usable_cores(), MOST_PROCESSES, len(recipes))
    epochs = sum(recipe.epochs for recipe in recipes)
    with tqdm(total=epochs, unit="epoch", smoothing=0.1, disable=None) as bar:  # None: drawn on a terminal only
        done: dict[Recipe, int] = {}

        def show(recipe: Recipe, measures: Measures) -> None:
            bar.update(measures.epoch - done.get(recipe, 0))
            done[recipe] = measures.epoch
            bar.set_postfix_str(describe(recipe, measures))

        if processes > 1:
            return _side_by_side(job, recipes, processes, show)
        with one_thread():
            return [job(recipe, functools.partial(show, recipe)) for recipe in recipes]


def _side_by_side(job: Job, recipes: Sequence[Recipe], processes: int, show: Show) -> list[Result]:
    # spawn, not fork: a forked child inherits the state of thread pools that it does not have.
    context = multiprocessing.get_context("spawn")
    reports = context.SimpleQueue()  # it writes at once, so a run's reports arrive before its result
    with ProcessPoolExecutor(processes, context, initializer=_start, initargs=(reports,)) as pool:
        futures = [pool.submit(_run, job, recipe) for recipe in recipes]
        while not all(future.done() for future in futures) or not reports.empty():
            if reports.empty():
                time.sleep(0.05)
            else:
                show(*reports.get())
        return [future.result() for future in futures]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, then as many as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def describe(recipe: Recipe, measures: Measures) -> str:
    """Write a line for the progress bar."""
    known = not math.isnan(measures.noisy_fit)
    fit = f"wrong labels fitted {measures.noisy_fit:.1f}%" if known else f"labels fitted {measures.fit:.1f}%"
    test = "" if math.isnan(measures.test) else f"test {measures.test:.1f}%, "  # where nothing is held out
    return f"{recipe.name} seed {recipe.seed}: loss {measures.loss:.3f}, {test}{fit}"


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start(reports: Any) -> None:
    global _reports
    _reports = reports
    torch.set_num_threads(1)


def _run(job: Job, recipe: Recipe) -> Result:
    return job(recipe, lambda measures: _reports.put((recipe, measures)))
