"""Food-101N: 310,000 photographs from the web in the 101 classes of Food-101, some labels verified by people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from .dataset import Dataset, Examples, held_out
from .images import counted
from .lists import Named, examples, find, needed, of_lists, read_list, read_names
from .options import Options, refuse_validation

PAGE = "https://kuanghuei.github.io/Food-101N/"
SIDE = 256  # of which training sees crops of 224
HEADER = "class_name/key"
FOOD_101 = ("food-101", "Food-101", "food101")  # where its test part is looked for: in the directory, and beside it


def food101n(options: Options) -> Dataset:
    """Read the images of meta/imagelist.tsv, without those of verified_val.tsv, and what people verified of them.

    Validation is on the images of verified_val.tsv that people found right, the test is Food-101's. Without Food-101
    half of these images stand in for it.
    """
    refuse_validation("food101n", options)
    advice = f"download Food-101N_release.zip from {PAGE} and unpack it"
    listing = needed(options.directory, ["meta/imagelist.tsv"], (".", "Food-101N_release"), advice)
    root = listing.parent.parent
    classes = read_names(needed(root, ["meta/classes.txt"], (".",), advice))
    names = read_names(listing, HEADER)
    classes = classes if _class_of(names[0]) == classes[0] or classes[0] in map(_class_of, names) else classes[1:]
    number = {name: label for label, name in enumerate(classes)}
    verified, held = (_verified(root / "meta" / name) for name in ("verified_train.tsv", "verified_val.tsv"))
    kept = [name for name in names if name not in held]
    train = [(f"images/{name}", _label(listing, name, number)) for name in kept]
    right = [(f"images/{name}", _label(listing, name, number)) for name, fine in held.items() if fine]
    side = SIDE if options.size is None else options.size
    validation = examples(root, right, side)
    passed = [f"{counted(len(held), 'image')} of verified_val.tsv, kept out of training"]
    missing = len(verified.keys() - set(kept))
    if missing:
        passed.append(f"{counted(missing, 'line')} of verified_train.tsv about images that are not trained on")
    test = _food_101_test(options.directory, number, side)
    if test is None:
        rest, half = held_out(validation.labels, len(right) // 2, options.seed)
        validation, test = validation.subset(rest), validation.subset(half)
        passed.append(
            f"the test part of Food-101, of which there is no {FOOD_101[0]}/: half of verified_val is instead"
        )
    dataset = of_lists("food101n", classes, examples(root, train, side), test, options, validation, passed=passed)
    return replace(dataset, verified=torch.tensor([verified.get(name, -1) for name in kept]))


def _verified(path: Path) -> dict[str, int]:
    """Read which labels people found right, 1, or wrong, 0."""
    if not path.is_file():
        raise FileNotFoundError(f"expected {path.name} in {path.parent}: it comes with Food-101N, from {PAGE}")
    return dict(read_list(path, 2, "\t", HEADER))


def _food_101_test(directory: Path, number: dict[str, int], side: int) -> Examples | None:
    listing = find(directory, [f"{name}/meta/test.txt" for name in FOOD_101], (".", ".."))
    if listing is None:
        return None
    root = listing.parent.parent
    named: Named = [(f"images/{name}.jpg", _label(listing, name, number)) for name in read_names(listing)]
    return examples(root, named, side)


def _class_of(name: str) -> str:
    return name.partition("/")[0]


def _label(path: Path, name: str, number: dict[str, int]) -> int:
    label = number.get(_class_of(name))
    if label is None:
        raise ValueError(f"{path}: expected <class>/<file> with a class out of meta/classes.txt, got {name!r}")
    return label
