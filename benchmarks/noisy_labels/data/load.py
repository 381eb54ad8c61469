"""A data set by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .cifar import cifar10, cifar100
from .clothing1m import clothing1m
from .dataset import Dataset, Examples
from .fashion import fashion_mnist
from .folders import folder
from .images import ImageFiles
from .mars import mars
from .options import Options, refuse_size, refuse_validation
from .pairs import digit_pairs
from .scikit import digits

CLEAN = (
    "digits",
    "digit-pairs",
    "fashion-mnist",
    "cifar10",
    "cifar100",
)  # their published labels are taken for the truth
BUNDLED = ("digits", "digit-pairs")  # they come with scikit-learn
MOST_IN_MEMORY = 2 * 1024**3  # bytes of decoded images in each part; larger parts are decoded batch by batch


def load(
    name: str,
    directory: Path | None = None,
    *,
    validation: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    size: int | None = None,
) -> Dataset:
    """Load a data set.

    Args:
        name: one of DATASETS.
        directory: of its files; all but digits and their pairs need one, and these take none.
        validation: size of the part held out from the training set, by class; by default the data set's own.
        seed: of the split, and of the choice that limit makes.
        limit: how many training examples to keep, chosen by class, for small trials.
        size: side of images that are scaled when they are read.

    Raises:
        FileNotFoundError: files are missing; the message says what to download and where to put it.
        ValueError: an argument does not suit the data set, or a file is damaged or not what it should be.

    """
    if name not in DATASETS:
        raise ValueError(f"expected a data set out of {', '.join(DATASETS)}, got {name}")
    if directory is None and name not in BUNDLED:
        raise ValueError(f"{name} is read from files: expected their directory, got none")
    if directory is not None and name in BUNDLED:
        raise ValueError(f"{name} come with scikit-learn: expected no directory, got {directory}")
    if size is not None and size < 1:
        raise ValueError(f"expected a size of at least 1 pixel, got {size}")
    dataset = DATASETS[name](Options(Path(directory or "."), validation, seed, size))
    if limit is not None:
        dataset = dataset.limited(limit, seed)
    return replace(
        dataset,
        train=_in_memory(dataset.train),
        validation=_in_memory(dataset.validation),
        test=_in_memory(dataset.test),
    )


def _in_memory(examples: Examples) -> Examples:
    images = examples.inputs
    if isinstance(images, ImageFiles) and images.nbytes <= MOST_IN_MEMORY:
        return Examples(images.read(), examples.labels)
    return examples


def _digits(options: Options) -> Dataset:
    refuse_size("digits", options)
    refuse_validation("digits", options)
    return digits(options.seed)


DATASETS: dict[str, Callable[[Options], Dataset]] = {
    "digits": _digits,
    "digit-pairs": digit_pairs,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "clothing1m": clothing1m,
    "mars": mars,
    "folder": folder,
}
