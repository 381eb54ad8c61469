"""Tiny ImageNet: 200 classes of 500 images, 64 x 64 pixels; its validation part has labels, its test part has none."""

from __future__ import annotations

from pathlib import Path

from .dataset import Dataset
from .images import image_names, other_files, subfolders
from .lists import Named, examples, needed, of_lists, read_names
from .options import Options

PAGE = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
SIDE = 64  # as published


def tiny_imagenet(options: Options) -> Dataset:
    """Read train/<wnid>/images/; the classes are in the order of their wnids, the test is on val/."""
    advice = f"download and unpack {PAGE}"
    words_of = needed(options.directory, ["wnids.txt"], (".", "tiny-imagenet-200"), advice)
    root = words_of.parent
    wnids = sorted(read_names(words_of))
    number = {wnid: label for label, wnid in enumerate(wnids)}
    folders = [_images(root / "train" / wnid) for wnid in wnids]
    train: Named = [(name, label) for label, folder in enumerate(folders) for name in image_names(root, folder)]
    side = SIDE if options.size is None else options.size
    return of_lists(
        "tiny-imagenet",
        _names(root, wnids),
        examples(root, train, side),
        examples(root, _validation(root, number), side),
        options,
        truth_known=True,
        augmentation="pad-crop-flip",
        passed=[*other_files(folders), "test/, which has no labels: the test is on val/"],
    )


def _images(folder: Path) -> Path:
    """Find the images of a class: below images/, as published, or in the folder itself."""
    if not folder.is_dir():
        raise FileNotFoundError(f"expected {folder}, a folder for each line of wnids.txt: unpack {PAGE} anew")
    return folder / "images" if (folder / "images").is_dir() else folder


def _validation(root: Path, number: dict[str, int]) -> Named:
    """Read val/val_annotations.txt, or val/<wnid>/ where someone has sorted the images into folders."""
    listing = root / "val" / "val_annotations.txt"
    if not listing.is_file():
        sorted_into = [folder for folder in subfolders(root / "val") if folder.name in number]
        if not sorted_into:
            raise FileNotFoundError(f"expected val/val_annotations.txt in {root}: unpack {PAGE} anew")
        return [(name, number[one.name]) for one in sorted_into for name in image_names(root, _images(one))]
    found: Named = []
    for line in read_names(listing):
        name, wnid = [*line.split("\t"), ""][:2]
        if wnid not in number:
            raise ValueError(f"{listing}: expected a file name and a wnid of wnids.txt, got {line!r}")
        below = f"val/images/{name}"
        # Some sort the images into folders and leave the list where it was.
        found.append((below if (root / "val" / "images").is_dir() else f"val/{wnid}/{name}", number[wnid]))
    return found


def _names(root: Path, wnids: list[str]) -> list[str]:
    """Name classes by the first of their words, and by the wnid where two would have the same name."""
    if not (root / "words.txt").is_file():
        return wnids
    words = dict(line.split("\t", 1) for line in read_names(root / "words.txt") if "\t" in line)
    names = [words.get(wnid, wnid).split(",")[0] for wnid in wnids]
    return [name if names.count(name) == 1 else f"{name} {wnid}" for name, wnid in zip(names, wnids, strict=True)]
