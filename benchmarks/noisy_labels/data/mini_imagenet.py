"""Red and Blue Mini-ImageNet: controlled noisy labels from the web (red) and made (blue), by lists for each rate."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import torch

from .dataset import Dataset
from .lists import Named, examples, needed, of_lists, read_list, read_names
from .options import Options

PAGE = "https://google.github.io/controlled-noisy-web-labels/"
SIDE = 32  # as in most papers; the images are larger
CLASSES = 100
ANNOTATIONS = "mini-imagenet-annotations.json"
TEST = "clean_validation"
TRAIN_FOLDERS = ("all_images", "noisy_images", "training")
TEST_FOLDERS = ("validation", "validation_all", "all_images")


def mini_imagenet(options: Options) -> Dataset:
    """Read the list split/<name> that --split names, such as red_noise_nl_0.4; the test is on clean_validation.

    Whether a label is right is known of images from ImageNet, by the list without noise, and of those from the web,
    by mini-imagenet-annotations.json, where these files are there.
    """
    advice = f"download dataset_no_images.zip from {PAGE} and unpack it"
    lists = needed(options.directory, ["split"], (".", "mini-imagenet", "dataset_no_images/mini-imagenet"), advice)
    root = lists.parent
    there = sorted(path.name for path in lists.iterdir() if path.name != TEST and "noise_nl" in path.name)
    if options.split not in there:
        got = "none" if options.split is None else options.split
        raise ValueError(f"{lists}: expected --split out of {', '.join(there) or '(there is no list)'}, got {got}")
    train = read_list(lists / options.split, CLASSES)
    test = read_list(needed(lists, [TEST], (".",), advice), CLASSES)
    side = SIDE if options.size is None else options.size
    names = root / "class_name.txt"
    classes = read_names(names) if names.is_file() else [str(label) for label in range(CLASSES)]
    if len(classes) != CLASSES:
        raise ValueError(f"{names}: expected {CLASSES} names, a line for each, got {len(classes)}")
    dataset = of_lists(
        "mini-imagenet",
        classes,
        examples(root, _placed(root, train, TRAIN_FOLDERS), side),
        examples(root, _placed(root, test, TEST_FOLDERS), side),
        options,
        augmentation="pad-crop-flip",
    )
    assert dataset.published is not None
    known = _verified(lists, root, train)
    return replace(dataset, verified=known[dataset.published.rows])


def _placed(root: Path, named: Named, folders: tuple[str, ...]) -> Named:
    """Find each image in one of the folders, or in one for its class below; what is nowhere will be named as broken."""
    there = [place / folder for place in (root, root.parent) for folder in folders if (place / folder).is_dir()]
    if not there:
        raise FileNotFoundError(f"expected {' or '.join(folders)} with the images in {root}: get them from {PAGE}")

    def place(name: str, label: int) -> str:
        tried = [path for folder in there for path in (folder / name, folder / str(label) / name)]
        found = next((path for path in tried if path.is_file()), tried[0])
        return Path(os.path.relpath(found, root)).as_posix()

    return [(place(name, label), label) for name, label in named]


def _verified(lists: Path, root: Path, train: Named) -> torch.Tensor:
    """Tell which labels are right, 1, or wrong, 0, where it is known, else -1."""
    clean = next(iter(sorted(lists.glob("*_noise_nl_0.0"))), None)
    true = dict(read_list(clean, CLASSES)) if clean else {}
    annotations = next((path for path in (root / ANNOTATIONS, root.parent / ANNOTATIONS) if path.is_file()), None)
    web = _annotated(annotations) if annotations else {}
    known = []
    for name, label in train:
        if name in true and _from_imagenet(name):
            known.append(int(true[name] == label))
        else:
            known.append(web.get((Path(name).stem, label), -1))
    return torch.tensor(known)


def _annotated(path: Path) -> dict[tuple[str, int], int]:
    """Read by image and label whether people found the label right."""
    try:
        data = json.loads(path.read_text())["data"]
        return {
            (str(one["image/id"]), int(one["image/class/label"])): int(one["image/class/label/is_clean"])
            for entry in data
            for one in (entry if isinstance(entry, list) else [entry])
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected the annotations of Mini-ImageNet, from {PAGE}: {error!r}") from error


def _from_imagenet(name: str) -> bool:
    """Tell images of ImageNet, whose names begin with a wnid, from those of the web."""
    stem = Path(name).stem
    return stem[:1] == "n" and stem[1:9].isdecimal()
