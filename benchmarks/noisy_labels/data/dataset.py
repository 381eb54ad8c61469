"""What a data set is: examples in three parts, held as tensors or read from image files batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .images import ImageFiles, pick


class Inputs(Protocol):
    """What networks are shown; a tensor is one, and so is ImageFiles."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """Return rows (b,) int64 as float32 features (b, f) or as uint8 images (b, channels, H, W)."""
        ...

    def to(self, device: torch.device | str, /) -> Inputs: ...


@dataclass(frozen=True, eq=False)
class Examples:
    """inputs: n of them; labels: (n,) int64, the true classes as far as they are known."""

    inputs: Inputs
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Examples:
        """Move tensors to a device; image files are then decoded to it."""
        return Examples(self.inputs.to(device), self.labels.to(device))

    def subset(self, rows: Tensor) -> Examples:
        """Keep the examples at rows (m,) int64, in that order."""
        inputs = self.inputs.subset(rows) if isinstance(self.inputs, ImageFiles) else self.inputs[rows]
        return Examples(inputs, self.labels[rows])


@dataclass(frozen=True, eq=False)
class Published:
    """The training set as its makers ordered it, which is the order of a file of other labels for it.

    Attributes:
        labels: (N,) int64, of all its examples.
        rows: (n,) int64, where among them each example of Dataset.train stands.
        files: of all its examples, by which a label file may name them; or none.

    """

    labels: Tensor
    rows: Tensor
    files: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Held:
    """Examples of a part held out from training whose labels are as doubtful as those of training.

    Attributes:
        files: of the part's examples.
        rows: (m,) int64, where each stands in the whole training set; None if it is from another place.

    """

    files: tuple[str, ...]
    rows: Tensor | None = None

    def subset(self, rows: Tensor) -> Held:
        """Keep the examples at rows (k,) int64."""
        return Held(pick(self.files, rows), None if self.rows is None else self.rows[rows])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with a fixed split.

    Attributes:
        name: as in DATASETS.
        num_classes: of the labels 0 to num_classes - 1.
        train: to train on, once noise.make has made wrong labels of its labels.
        validation: for choosing learning rates.
        test: for measuring.
        class_names: one for each class, or none.
        truth_known: False where the training labels are as given, possibly wrong.
        files: of the training examples, where each is a file; relative to the data set's directory.
        augmentation: the kind that suits it, one of augment.KINDS.
        published: the order of the whole training set; without it, train itself is the whole.
        held: of the parts "validation" and "test", those whose labels nobody vouches for.
        verified: (n,) int64, 1 where people found a training label right, 0 where wrong, -1 where not known; or None.
        passed: what the reader passed over, and why, in words.
        broken: the names of the images among it that cannot be read.

    """

    name: str
    num_classes: int
    train: Examples
    validation: Examples
    test: Examples
    class_names: tuple[str, ...] = ()
    truth_known: bool = True
    files: tuple[str, ...] = ()
    augmentation: str = "none"
    published: Published | None = None
    held: Mapping[str, Held] = field(default_factory=dict)
    verified: Tensor | None = None
    passed: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()

    @property
    def train_rows(self) -> Tensor:
        """(n,) int64, where each training example stands in the whole training set as published."""
        return torch.arange(len(self.train)) if self.published is None else self.published.rows

    def to(self, device: torch.device | str) -> Dataset:
        """Move all examples to a device."""
        return replace(
            self, train=self.train.to(device), validation=self.validation.to(device), test=self.test.to(device)
        )

    def limited(self, size: int, seed: int) -> Dataset:
        """Keep `size` training examples, chosen by class; a smaller choice is part of a larger one."""
        if not 1 <= size <= len(self.train):
            raise ValueError(f"expected a limit from 1 to {len(self.train)} training examples, got {size}")
        return self.only(order_by_class(self.train.labels, seed)[:size].sort().values)

    def only(self, rows: Tensor, part: str = "train") -> Dataset:
        """Keep the examples of a part at rows (m,) int64, in that order."""
        kept = getattr(self, part).subset(rows)
        if part != "train":
            held = {name: one.subset(rows) if name == part else one for name, one in self.held.items()}
            return replace(self, held=held, **{part: kept})
        whole = self.published or Published(self.train.labels, torch.arange(len(self.train)))
        return replace(
            self,
            train=kept,
            files=pick(self.files, rows) if self.files else (),
            published=replace(whole, rows=whole.rows[rows]),
            verified=None if self.verified is None else self.verified[rows],
        )

    def passing(self, *reasons: str) -> Dataset:
        """Add to what was passed over."""
        return replace(self, passed=(*self.passed, *reasons))


def order_by_class(labels: Tensor, seed: int) -> Tensor:
    """Order all examples at random so that the first m, for any m, hold each class in its proportion.

    Args:
        labels: (n,) int64.
        seed: the same seed gives the same order.

    Returns:
        (n,) int64, a permutation of the rows.

    """
    generator = np.random.default_rng(seed)
    classes = labels.cpu().numpy()
    place = np.empty(len(classes))
    for label in np.unique(classes):
        rows = generator.permutation(np.flatnonzero(classes == label))
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return torch.from_numpy(np.argsort(place, kind="stable"))


def held_out(labels: Tensor, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Choose `size` examples by class; return the rows of the others and of the chosen, each in order."""
    if not 0 <= size < len(labels):
        raise ValueError(f"expected to hold out from 0 to {len(labels) - 1} of {len(labels)} examples, got {size}")
    order = order_by_class(labels, seed)
    return order[size:].sort().values, order[:size].sort().values
