"""Clothing1M: a million photographs from shops, labelled by the words around them; validation and test by people."""

from __future__ import annotations

from pathlib import Path

import torch

from .dataset import Dataset, Examples, Published
from .images import ImageFiles
from .options import Options, as_labels, check_labels, refuse_validation

PAGE = "https://github.com/Cysu/noisy_label (its authors send the link)"
SIDE = 256  # of which training sees crops of 224
CLASS_NAMES = (
    *("T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker"),
    *("Jacket", "Down Coat", "Suit", "Shawl", "Dress", "Vest", "Underwear"),
)


def clothing1m(options: Options) -> Dataset:
    """Read Clothing1M: training on noisy_train with its noisy labels; clean_val and clean_test beside it.

    clean_train, images with labels by people, is left out, as in the paper's experiments.
    """
    refuse_validation("clothing1m", options)
    root = options.directory
    if not (root / "images").is_dir():
        raise FileNotFoundError(f"expected images/ in {root}: get Clothing1M from {PAGE} and unpack its archives there")
    noisy, clean = _labels(_find(root, "noisy_label_kv.txt")), _labels(_find(root, "clean_label_kv.txt"))
    side = SIDE if options.size is None else options.size

    def examples(names: tuple[str, ...], labels: dict[str, int]) -> Examples:
        return Examples(ImageFiles(root, names, (side, side)), as_labels([labels[name] for name in names]))

    files = _names(_find(root, "noisy_train_key_list.txt"), noisy)
    train = examples(files, noisy)
    return Dataset(
        "clothing1m",
        len(CLASS_NAMES),
        train,
        examples(_names(_find(root, "clean_val_key_list.txt"), clean), clean),
        examples(_names(_find(root, "clean_test_key_list.txt"), clean), clean),
        class_names=CLASS_NAMES,
        truth_known=False,
        files=files,
        augmentation="crop-flip",
        published=Published(train.labels, torch.arange(len(train))),
    )


def _find(root: Path, name: str) -> Path:
    """Find a list in the directory, or below in annotations/, where some keep it."""
    for path in (root / name, root / "annotations" / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"expected {name} in {root}: it comes with Clothing1M, from {PAGE}")


def _labels(path: Path) -> dict[str, int]:
    """Read lines of `images/<...>.jpg <label>`."""
    labels: dict[str, int] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdecimal():
            raise ValueError(f"{path}, line {number}: expected a file name and a label, got {line!r}")
        labels[name] = int(label)
    check_labels(as_labels(list(labels.values())), len(CLASS_NAMES), path)
    return labels


def _names(path: Path, labels: dict[str, int]) -> tuple[str, ...]:
    """Read a list of images, one a line."""
    names = tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
    unlabelled = next((name for name in names if name not in labels), None)
    if not names or unlabelled is not None:
        raise ValueError(f"{path}: expected images that have a label, got {unlabelled or 'no images'}")
    return names
