"""Your own images: a folder for each class, ROOT/<class>/<image files>, or the same below ROOT/train, val and test."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from .dataset import Dataset, Examples, Published, held_out
from .images import ImageFiles, image_names, pick, subfolders
from .options import Options, as_labels, refuse_validation, tenth

SIDE = 64
PARTS = ("train", "val", "test")


def folder(options: Options) -> Dataset:
    """Read a folder of images; a part without a folder of its own is a tenth of the training images, by class.

    The labels of all parts are taken as they are: nobody vouches for them.
    """
    root = options.directory
    if not root.is_dir():
        raise FileNotFoundError(f"expected a folder of images, ROOT/<class>/<image files>: there is no {root}")
    # A folder named train that has no folders in it is a class of trains.
    layered = (root / "train").is_dir() and bool(subfolders(root / "train"))
    strange = [path.name for path in subfolders(root) if path.name not in PARTS] if layered else []
    if strange:
        raise ValueError(f"{root}: expected no folders beside {', '.join(PARTS)}, got {', '.join(strange)}")
    if layered and (root / "val").is_dir():
        refuse_validation(str(root), options)
    train_root = root / "train" if layered else root
    classes = tuple(path.name for path in subfolders(train_root))
    if len(classes) < 2:
        raise ValueError(f"{train_root}: expected a folder for each of 2 or more classes, got {len(classes)}")
    side = SIDE if options.size is None else options.size

    images, labels = _part(root, train_root, classes, side)
    whole, rows = Examples(images, labels), torch.arange(len(labels))
    parts: dict[str, Examples] = {}
    for name, asked in (("test", None), ("val", options.validation)):
        if layered and (root / name).is_dir():
            parts[name] = Examples(*_part(root, root / name, classes, side))
        else:
            size = tenth(len(labels)) if asked is None else asked
            kept, chosen = held_out(labels[rows], size, options.seed)
            parts[name], rows = whole.subset(rows[chosen]), rows[kept]
    return Dataset(
        "folder",
        len(classes),
        whole.subset(rows),
        parts["val"],
        parts["test"],
        class_names=classes,
        truth_known=False,
        files=pick(images.names, rows),
        augmentation="pad-crop",
        published=Published(labels, rows),
    )


def _part(root: Path, folder: Path, classes: tuple[str, ...], side: int) -> tuple[ImageFiles, Tensor]:
    """List the images of one part and their classes; every class of training must have some."""
    unknown = sorted({path.name for path in subfolders(folder)} - set(classes))
    if unknown:
        raise ValueError(f"{folder}: expected classes that are in train, got {', '.join(unknown)}")
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = image_names(root, folder / name) if (folder / name).is_dir() else []
        if not found:
            raise ValueError(f"{folder / name}: expected image files, found none")
        names += found
        labels += [label] * len(found)
    return ImageFiles(root, tuple(names), (side, side)), as_labels(labels)
