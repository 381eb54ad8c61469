"""Finished runs as judges of labels: what their networks say of every image, those held out of training included.

An image that a network was trained on has a low probability if the network would not learn its label; one that was
held out, if the network expects another. Of several runs, seeds or folds, the mean counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from . import archive, file_noise, job, noise
from .archive import StoredRun
from .data import Dataset, ImageFiles, Inputs
from .noise import NoisyLabels
from .suspects import IntArray, Ranking
from .task import Task
from .training import Result

SETTLED = 2.0  # percent of the labels: a fit that grows by less over the last quarter of the epochs has come to its end
MEMORISED = 99.5  # percent of the labels fitted, from which on wrong ones have been, too
UNLEARNED = 50.0  # percent of the labels fitted, below which the network tells little apart


class Judges:
    """Collects what networks say of the examples of one data set, whose parts may differ from run to run."""

    def __init__(self, dataset: Dataset, given: IntArray) -> None:
        own = {name: held for name, held in dataset.held.items() if held.rows is None and not dataset.truth_known}
        files = dataset.files if dataset.published is None else dataset.published.files
        self.count = len(given)
        self.files = [*files, *(name for held in own.values() for name in held.files)]
        labels = [given, *(getattr(dataset, part).labels.cpu().numpy() for part in own)]
        self.given = np.concatenate(labels)
        self.start: dict[str, int] = {}  # where the examples of a part begin that are from elsewhere
        place = self.count
        for part in own:
            self.start[part] = place
            place += len(getattr(dataset, part))
        size = len(self.given)
        self.p = np.zeros((size, dataset.num_classes))
        self.weight = np.zeros(size)
        self.seen, self.trained = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self.true, self.verified = np.full(size, -1), np.full(size, -1)

    def hear(self, run: StoredRun, folder: Path, task: Task, dataset: Dataset, labels: NoisyLabels) -> None:
        """Add what one run's network says."""
        network = job.load_network(folder, task, run.result.recipe)
        rows = dataset.train_rows.cpu().numpy()
        self.given[rows] = labels.labels
        if dataset.truth_known:
            self.true[rows] = labels.clean
        if dataset.verified is not None:
            self.verified[rows] = dataset.verified.cpu().numpy()
        self.trained[rows] += 1
        places = {"train": rows}
        for part, held in ({} if dataset.truth_known else dataset.held).items():
            places[part] = self.start[part] + np.arange(len(held.files)) if held.rows is None else held.rows.numpy()
        for part, place in places.items():
            place = place[self.given[place] >= 0] if part != "train" else place
            if not len(place):
                continue
            inputs = _chosen(getattr(dataset, part).inputs, places[part], place)
            given = torch.from_numpy(self.given[place])
            p, weight = job.opinions(run.result.recipe, network, dataset, inputs, given)
            self.p[place] += p.double().cpu().numpy()
            self.weight[place] += weight.double().cpu().numpy()
            self.seen[place] += 1

    def ranking(self, class_names: tuple[str, ...]) -> Ranking:
        """Return the means over the runs."""
        rows = np.flatnonzero(self.seen)
        p = self.p[rows] / self.seen[rows, None]
        given = self.given[rows]
        known = (self.true[rows] >= 0).all()
        return Ranking(
            index=np.where(rows < self.count, rows, -1),
            files=tuple(self.files[row] for row in rows) if self.files else (),
            class_names=class_names,
            given=given,
            p=p[np.arange(len(rows)), given],
            weight=self.weight[rows] / self.seen[rows],
            predicted=p.argmax(axis=1),
            trained=self.trained[rows],
            true=self.true[rows] if known else None,
            verified=self.verified[rows] if (self.verified >= 0).any() else None,
        )


def rank(folders: Sequence[Path], places: Task) -> tuple[Ranking, list[StoredRun]]:
    """Let the networks of finished runs judge the labels of the data set that they were trained on.

    Args:
        folders: of one run each, of one loss and task but for seeds and folds.
        places: a task of which only the places of files count, and what is to be done about broken ones.

    """
    runs = [archive.read(folder) for folder in folders]
    _check_alike(runs, folders)
    judges: Judges | None = None
    names: tuple[str, ...] = ()
    for run, folder in zip(runs, folders, strict=True):
        task = _placed(run.task, places)
        dataset, labels = task.dataset(), task.noisy_labels(run.result.recipe.seed)
        if job.digest(labels) != run.config["labels_sha256"]:
            raise ValueError(f"{folder} was trained on other labels than the data, or the label file, have")
        if judges is None:
            judges = Judges(dataset, _whole(task, dataset, labels))
            names = dataset.class_names or tuple(map(str, range(dataset.num_classes)))
        judges.hear(run, folder, task, dataset, labels)
    assert judges is not None
    return judges.ranking(names), runs


def fit_line(results: Sequence[Result]) -> str:
    """Say how much of the training labels the networks had fitted, and whether that was enough to tell them apart."""
    fit = fmean(result.final.fit for result in results)
    rise = fmean(_rise(result) for result in results)
    many = f" (mean of {len(results)} networks)" if len(results) > 1 else ""
    start = f"The network came to predict {fit:.1f}% of the training labels{many}"
    if fit >= MEMORISED:
        return f"{start}: unless all are right it has memorised wrong ones. Train with fewer epochs or a lower --lr"
    if rise > SETTLED:
        return f"{start}, {rise:.1f} points more than before the last quarter: too little. Train with more --epochs"
    if fit < UNLEARNED:
        return f"{start}: too little to tell right from wrong. Train with a higher --lr, or another --network"
    return f"{start}, and that had settled: enough"


def _rise(result: Result) -> float:
    """Return by how much the fit grew over the last quarter of the epochs, in percent of the labels."""
    before = [one for one in result.history if one.epoch <= 0.75 * result.recipe.epochs]
    return result.final.fit - (before[-1].fit if before else 0.0)


def _whole(task: Task, dataset: Dataset, labels: NoisyLabels) -> IntArray:
    """Return the given labels of the whole training set, -1 where an example has none."""
    if task.noise == "file":
        found = file_noise.given_for(dataset, task.labels, task.key, order=task.order, meant=task.meant)[0].labels
        return found.copy()
    whole = dataset.train.labels if dataset.published is None else dataset.published.labels
    return whole.cpu().numpy().copy()


def _placed(task: Task, places: Task) -> Task:
    """Say where a run's files are, refusing what it has none of."""
    if task.noise != "file":
        for option in ("order", "meant"):
            if getattr(places, option):
                raise ValueError(f"--{option} has no effect here: the run's labels are from no file")
        if places.labels and task.data != "list":
            raise ValueError(f"--labels {places.labels} has no effect here: the run's labels are from no file")
    elif places.labels is None:
        raise ValueError("the run's labels are from a file: expected --labels FILE, got none")
    return replace(
        task,
        directory=places.directory,
        labels=places.labels,
        order=places.order,
        meant=places.meant,
        skip_broken=places.skip_broken,
    )


def _check_alike(runs: Sequence[StoredRun], folders: Sequence[Path]) -> None:
    """Refuse runs that are not of one kind."""
    first = runs[0]
    for run, folder in zip(runs, folders, strict=True):
        recipes = [replace(one.result.recipe, seed=0) for one in (first, run)]
        if replace(first.task, fold=None) != replace(run.task, fold=None) or recipes[0] != recipes[1]:
            raise ValueError(f"expected runs that differ in seed or fold alone, got {folders[0]} and {folder}")
    if len(runs) > 1 and first.task.noise in noise.MADE:
        raise ValueError("expected one run: with made noise every seed has other wrong labels")


def _chosen(inputs: Inputs, places: IntArray, kept: IntArray) -> Inputs:
    """Keep the inputs whose places are among those kept."""
    if len(places) == len(kept):
        return inputs
    rows = torch.from_numpy(np.flatnonzero(np.isin(places, kept)))
    return inputs.subset(rows) if isinstance(inputs, ImageFiles) else _rows(inputs, rows)


def _rows(inputs: Inputs, rows: Tensor) -> Inputs:
    return inputs[rows]
