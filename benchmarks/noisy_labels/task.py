"""What a run is about, apart from how it is trained: the data set, its wrong labels and the network."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from . import file_noise, networks, noise
from .data import Dataset, load, said
from .noise import NoisyLabels

LATER = ("split", "fold", "targets", "augmentation")  # settings that older records do not have


@dataclass(frozen=True)
class Task:
    """A data set, its wrong labels and a network, all by name. Where files lie is no part of what a task is.

    Attributes:
        data: one of data.DATASETS.
        network: one of networks.NETWORKS.
        noise: "none", "symmetric", "asymmetric" or "file".
        rate: of symmetric and asymmetric noise.
        key: of the array in a file of labels that has several.
        validation: size of the validation part, or None for the data set's own.
        limit: number of training examples, or None for all.
        size: side of the images, or None for the data set's own.
        trusted: take the training labels for the truth, though they may be wrong: to add noise to a folder's, say.
        split: of a data set that is published with several lists to train on.
        fold: "none" to train on all of a folder or list, or "2/5" to hold the second fifth out as the test part.
        targets: what several annotators' labels become: "majority", or "share", of each class.
        augmentation: one of augment.KINDS, or None for the data set's own.
        directory: where the data set is.
        labels: the file of labels.
        order: a file with the order of the label file's rows.
        meant: take noise and label files that leave nothing to learn.
        skip_broken: go on without images that cannot be read.
        broken: the names of these, where they are known already.

    """

    data: str = "digits"
    network: str = "mlp"
    noise: str = "symmetric"
    rate: float = 0.4
    key: str | None = None
    validation: int | None = None
    limit: int | None = None
    size: int | None = None
    trusted: bool = False
    split: str | None = None
    fold: str | None = None
    targets: str = "majority"
    augmentation: str | None = None
    directory: Path | None = field(default=None, compare=False)
    labels: Path | None = field(default=None, compare=False)
    order: Path | None = field(default=None, compare=False)
    meant: bool = field(default=False, compare=False)
    skip_broken: bool = field(default=False, compare=False)
    broken: tuple[str, ...] | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """For folders."""
        fold = "" if self.fold is None else f"-fold{self.fold.replace('/', 'of')}"
        varied = "" if self.augmentation is None else f"-augmentation-{self.augmentation}"
        return "-".join([self.data, *([self.split] if self.split else []), self.network, self._noise]) + fold + varied

    @property
    def title(self) -> str:
        """For tables and pictures."""
        made = f"{100 * self.rate:g}% {self.noise} noise"
        noise = {"none": "labels as they are", "file": f"labels {self.key or 'from a file'}"}.get(self.noise, made)
        data = f"{self.data} {self.split}" if self.split else self.data
        fold = (
            [] if self.fold is None else ["nothing held out" if self.fold == "none" else f"fold {self.fold} held out"]
        )
        limit = [f"{self.limit:,} examples"] if self.limit else []
        varied = [] if self.augmentation is None else [f"augmentation: {self.augmentation}"]
        return ", ".join([data, noise, self.network, *limit, *fold, *varied])

    @property
    def _noise(self) -> str:
        if self.noise in ("symmetric", "asymmetric"):
            return f"{self.noise}{100 * self.rate:g}"
        return self.key or self.noise

    @property
    def settings(self) -> dict[str, Any]:
        """What decides a run, for its record; what came later is written only where it is not the default."""
        compared = {one.name: (getattr(self, one.name), one.default) for one in fields(self) if one.compare}
        return {name: value for name, (value, default) in compared.items() if name not in LATER or value != default}

    def dataset(self) -> Dataset:
        """Load the data set, without examples that have no label; the latest one stays loaded."""
        labels = self.labels if self.noise == "file" or self.data == "list" else None
        file = (self.noise == "file", labels, self.key, self.order, self.meant)
        options = (self.validation, self.limit, self.size, self.split, self.fold)
        dataset = _load(self.data, self.directory, options, file, self.skip_broken, self.broken)
        if self.augmentation is not None:
            dataset = replace(dataset, augmentation=self.augmentation)
        return replace(dataset, truth_known=True) if self.trusted else dataset

    def noisy_labels(self, seed: int) -> NoisyLabels:
        """Make, or read, the labels to train on."""
        return noise.make(
            self.noise,
            self.dataset(),
            self.rate,
            seed,
            self.labels,
            self.key,
            order=self.order,
            meant=self.meant,
            by_share=self.targets == "share",
        )

    def build(self, seed: int) -> nn.Module:
        """Make the network with its initial weights."""
        dataset = self.dataset()
        return networks.build(self.network, dataset, dataset.num_classes, seed)

    def checked(self) -> Task:
        """Make everything once: what is wrong with it shows before anything is run or written.

        Returns:
            The task, knowing which images are broken: it need not decode all of them again to find out.

        """
        found = replace(self, broken=self.dataset().broken)
        found.noisy_labels(seed=0)
        found.build(seed=0)
        return found

    def says(self) -> str:
        """Say what was read: images, classes, what was passed over, and what a label file changes."""
        source = self.noisy_labels(seed=0).source
        return "\n".join([said(self.dataset()), *([file_noise.said(source)] if source else [])])


@functools.lru_cache(maxsize=1)
def _load(
    name: str,
    directory: Path | None,
    options: tuple[int | None, int | None, int | None, str | None, str | None],
    file: tuple[bool, Path | None, str | None, Path | None, bool],
    skip_broken: bool,
    broken: tuple[str, ...] | None,
) -> Dataset:
    validation, limit, size, split, fold = options
    noisy, labels, key, order, meant = file
    others: dict[str, Any] = {}
    if noisy:
        others["keep"] = functools.partial(file_noise.labelled, path=labels, key=key, order=order, meant=meant)
    else:
        others["labels"] = labels
    return load(
        name,
        directory,
        validation=validation,
        limit=limit,
        size=size,
        split=split,
        fold=fold,
        skip_broken=skip_broken,
        broken=broken,
        **others,
    )
