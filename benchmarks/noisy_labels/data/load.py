"""A data set by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..names import CLEAN as CLEAN
from .animal10n import animal10n
from .broken import readable
from .cifar import cifar10, cifar100
from .clothing1m import clothing1m
from .dataset import Dataset
from .fashion import fashion_mnist
from .folders import folder
from .food101n import food101n
from .listed import listed
from .mars import mars
from .mini_imagenet import mini_imagenet
from .options import Options, refuse_size, refuse_validation
from .scikit import digits
from .tiny_imagenet import tiny_imagenet
from .webvision import mini_webvision, webvision

MOST_IN_MEMORY = 2 * 1024**3  # bytes of decoded images in each part; larger parts are decoded batch by batch


def load(
    name: str,
    directory: Path | None = None,
    *,
    validation: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    size: int | None = None,
    split: str | None = None,
    fold: str | None = None,
    labels: Path | None = None,
    keep: Callable[[Dataset], Dataset] = lambda dataset: dataset,
    skip_broken: bool = False,
    broken: Sequence[str] | None = None,
) -> Dataset:
    """Load a data set.

    Args:
        name: one of DATASETS.
        directory: of its files; all but digits need one, and digits take none.
        validation: size of the part held out from the training set, by class; by default the data set's own.
        seed: of the split, and of the choice that limit makes.
        limit: how many training examples to keep, chosen by class, for small trials.
        size: side of images that are scaled when they are read.
        split: of the published lists, the one to train on, where there are several.
        fold: "none" to train on all of a folder or list, or "2/5" to hold the second fifth of it out as the test part.
        labels: the file that a list of images is.
        keep: applied to the data set as published, before the limit: to leave examples out.
        skip_broken: go on without the images that cannot be read.
        broken: these images, if they are known from an earlier call; else all images are decoded to find them.

    Raises:
        FileNotFoundError: files are missing; the message says what to download and where to put it.
        ValueError: an argument does not suit the data set, or a file is damaged or not what it should be.

    """
    if name not in DATASETS:
        raise ValueError(f"expected a data set out of {', '.join(DATASETS)}, got {name}")
    if directory is None and name != "digits":
        raise ValueError(f"{name} is read from files: expected --directory DIR, the folder that they are in, got none")
    if directory is not None and name == "digits":
        raise ValueError(f"digits come with scikit-learn: expected no directory, got {directory}")
    if size is not None and size < 1:
        raise ValueError(f"expected a size of at least 1 pixel, got {size}")
    place = Path(directory or ".")
    dataset = keep(DATASETS[name](Options(place, validation, seed, size, split, fold, labels)))
    if limit is not None:
        dataset = dataset.limited(limit, seed)
    return readable(dataset, MOST_IN_MEMORY, skip_broken, broken)


def _digits(options: Options) -> Dataset:
    refuse_size("digits", options)
    refuse_validation("digits", options)
    return digits(options.seed)


DATASETS: dict[str, Callable[[Options], Dataset]] = {
    "digits": _digits,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "clothing1m": clothing1m,
    "animal10n": animal10n,
    "food101n": food101n,
    "webvision": webvision,
    "mini-webvision": mini_webvision,
    "mini-imagenet": mini_imagenet,
    "tiny-imagenet": tiny_imagenet,
    "mars": mars,
    "folder": folder,
    "list": listed,
}
