"""What a run is about, apart from how it is trained: the data set, its wrong labels and the network."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from . import networks, noise
from .data import Dataset, load
from .noise import NoisyLabels


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
        directory: where the data set is.
        labels: the file of labels.

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
    directory: Path | None = field(default=None, compare=False)
    labels: Path | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """For folders."""
        return f"{self.data}-{self.network}-{self._noise}"

    @property
    def title(self) -> str:
        """For tables and pictures."""
        made = f"{100 * self.rate:g}% {self.noise} noise"
        noise = {"none": "labels as they are", "file": f"labels {self.key or 'from a file'}"}.get(self.noise, made)
        return ", ".join([self.data, noise, self.network, *([f"{self.limit:,} examples"] if self.limit else [])])

    @property
    def _noise(self) -> str:
        if self.noise in ("symmetric", "asymmetric"):
            return f"{self.noise}{100 * self.rate:g}"
        return self.key or self.noise

    def dataset(self) -> Dataset:
        """Load the data set; the latest one stays loaded."""
        dataset = _load(self.data, self.directory, self.validation, self.limit, self.size)
        return replace(dataset, truth_known=True) if self.trusted else dataset

    def noisy_labels(self, seed: int) -> NoisyLabels:
        """Make, or read, the labels to train on."""
        return noise.make(self.noise, self.dataset(), self.rate, seed, self.labels, self.key)

    def build(self, seed: int) -> nn.Module:
        """Make the network with its initial weights."""
        dataset = self.dataset()
        return networks.build(self.network, dataset, dataset.num_classes, seed)

    def check(self) -> None:
        """Make everything once: what is wrong with it shows before anything is run or written."""
        self.noisy_labels(seed=0)
        self.build(seed=0)


@functools.lru_cache(maxsize=1)
def _load(name: str, directory: Path | None, validation: int | None, limit: int | None, size: int | None) -> Dataset:
    return load(name, directory, validation=validation, limit=limit, size=size)
