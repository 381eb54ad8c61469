"""Your own images: a folder for each class, ROOT/<class>/<image files>, or the same below ROOT/train, val and test."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .dataset import Dataset, Examples, Held, Published
from .images import ImageFiles, counted, is_image, other_files, pick, relative, subfolders
from .options import Options, as_labels, refuse_validation, split_off

SIDE = 64
PARTS = ("train", "val", "test")
# What a folder is called that holds a part of a data set: train, Training, train_images, test-set, images_val, ...
PART_NAME = re.compile(
    r"(?:images?|imgs?|data|photos)?[-_. ]*(train|test|val|dev|eval)(?:ing|id|idation|uation)?"
    r"(?:[-_. ]*(?:images?|imgs?|set|data|photos|split|\d+))*",
    re.IGNORECASE,
)
# Files by which published data sets are known, which have readers of their own.
PUBLISHED = {
    "wnids.txt": "tiny-imagenet",
    "info/train_filelist_google.txt": "webvision",
    "meta/imagelist.tsv": "food101n",
    "split/clean_validation": "mini-imagenet",
    "noisy_label_kv.txt": "clothing1m",
    "noisy_train.txt": "clothing1m",
    "bbox_train": "mars",
}
EXPECTED = "ROOT/<class>/<image files>, or ROOT/train/<class>/... with val/ and test/ beside train/"


@dataclass(frozen=True)
class Found:
    """The images below a folder of one part, each in a folder for its class, and what was passed over there."""

    images: ImageFiles
    labels: Tensor
    passed: tuple[str, ...]


def folder(options: Options) -> Dataset:
    """Read a folder of images; a part without a folder of its own is a tenth of the training images, by class.

    The labels of all parts are taken as they are: nobody vouches for them.
    """
    root = options.directory
    if not root.is_dir():
        raise FileNotFoundError(f"expected a folder of images, ROOT/<class>/<image files>: there is no {root}")
    known = next((name for file, name in PUBLISHED.items() if (root / file).exists()), None)
    if known is not None:
        raise ValueError(f"{root} is laid out as its makers publish {known}: take --data {known}")
    # A folder named train that has no folders in it is a class of trains.
    layered = (root / "train").is_dir() and bool(subfolders(root / "train"))
    strange = [path.name for path in subfolders(root) if path.name not in PARTS] if layered else []
    if strange:
        raise ValueError(f"{root}: expected no folders beside {', '.join(PARTS)}, got {', '.join(strange)}")
    if layered and (root / "val").is_dir():
        refuse_validation(str(root), options)
    train_root = root / "train" if layered else root
    classes, empty = _classes(train_root)
    side = SIDE if options.size is None else options.size

    train = _part(root, train_root, classes, side)
    own = {name: _part(root, root / name, classes, side) for name in PARTS[1:] if layered and (root / name).is_dir()}
    whole = Examples(train.images, train.labels)
    rows, chosen = split_off(train.labels, [name for name in PARTS[1:] if name not in own], options)
    parts = {name: whole.subset(chosen[name]) for name in chosen}
    parts |= {name: Examples(found.images, found.labels) for name, found in own.items()}
    held = {name: Held(pick(train.images.names, rows_of), rows_of) for name, rows_of in chosen.items()}
    held |= {name: Held(found.images.names) for name, found in own.items()}
    passed = [f"{folder}: no images" for folder in empty] + [
        line for one in (train, *own.values()) for line in one.passed
    ]
    return Dataset(
        "folder",
        len(classes),
        whole.subset(rows),
        parts["val"],
        parts["test"],
        class_names=classes,
        truth_known=False,
        files=pick(train.images.names, rows),
        augmentation="pad-crop",
        published=Published(train.labels, rows, train.images.names),
        held={"validation": held["val"], "test": held["test"]},
        passed=tuple(passed),
    )


def class_folders(root: Path) -> list[Path]:
    """List the folders with images in them, at any depth."""
    return [path for path in subfolders(root) if _images(path)]


def _classes(root: Path) -> tuple[tuple[str, ...], list[str]]:
    """Find the folders that are classes, and those without images, which are none."""
    folders = subfolders(root)
    _refuse_parts(root, folders)
    full = class_folders(root)
    empty = [f"{path.name}/" for path in folders if path not in full]
    if len(full) >= 2:
        return tuple(path.name for path in full), empty
    got = f"got {len(full)}" + "".join(f" ({path.name}/)" for path in full)
    if empty:
        got += f", and without images {', '.join(empty)}"
    loose = sum(is_image(path) for path in root.iterdir())
    if loose:
        got += (
            f"; {counted(loose, 'image')} right in {root}: with a file of their labels, take --data list --labels FILE"
        )
    raise ValueError(f"{root}: expected a folder for each of 2 or more classes, {got}")


def _refuse_parts(root: Path, folders: Sequence[Path]) -> None:
    """Refuse folders that are no classes: parts of a data set, a search engine's queries, or what has classes below."""
    found = {path.name: match[1].lower() for path in folders if (match := PART_NAME.fullmatch(path.name))}
    if len(set(found.values())) >= 2:
        published = ""
        if {"training", "testing"} <= found.keys():
            published = "; ANIMAL-10N, which is published so, is read by --data animal10n"
        raise ValueError(
            f"{root}: {', '.join(found)} look like parts of a set, not like classes: expected {EXPECTED}{published}"
        )
    if folders and all(re.fullmatch(r"q\d{4}", path.name) for path in folders):
        raise ValueError(
            f"{root}: {folders[0].name}, ... are WebVision's queries, not its classes: take --data webvision or "
            "mini-webvision, with the folder that has info/"
        )
    below = [{path.name for path in subfolders(folder)} for folder in folders]
    shared = set.intersection(*below) if len(below) >= 2 else set()
    if len(shared) >= 2 and not any(is_image(path) for folder in folders for path in folder.iterdir()):
        names = ", ".join(path.name for path in folders[:5])
        raise ValueError(
            f"{root}: {names} all have the folders {', '.join(sorted(shared)[:5])} in them: which are the classes? "
            f"Expected {EXPECTED}"
        )


def _images(folder: Path) -> list[Path]:
    """List the image files in a folder and below it, but for what begins with a dot."""
    return [
        path
        for path in folder.rglob("*")
        if is_image(path) and not any(name.startswith(".") for name in path.relative_to(folder).parts)
    ]


def _part(root: Path, folder: Path, classes: tuple[str, ...], side: int) -> Found:
    """List the images of one part and their classes."""
    unknown = sorted({path.name for path in subfolders(folder) if _images(path)} - set(classes))
    if unknown:
        raise ValueError(f"{folder}: expected classes that are in train, got {', '.join(unknown)}")
    names: list[str] = []
    labels: list[int] = []
    folders = [folder]
    deeper = 0
    for label, name in enumerate(classes):
        place = folder / name
        found = _images(place) if place.is_dir() else []
        deeper += sum(path.parent != place for path in found)
        folders += dict.fromkeys([place] * place.is_dir() + [path.parent for path in found])
        names += relative(root, found)
        labels += [label] * len(found)
    if not names:
        raise ValueError(f"{folder}: expected <class>/<image files>, found no images")
    passed = other_files(dict.fromkeys(folders))
    loose = sum(is_image(path) for path in folder.iterdir())
    if loose:
        passed.append(f"{counted(loose, 'image')} right in {folder.name}/, in no folder of a class")
    if deeper:
        passed.append(
            f"no folder below a class: {counted(deeper, 'image')} in such folders are read as of the class above"
        )
    return Found(ImageFiles(root, tuple(names), (side, side)), as_labels(labels), tuple(passed))
