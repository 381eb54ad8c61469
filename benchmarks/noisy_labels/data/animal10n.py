"""ANIMAL-10N: 50,000 photographs in five pairs of animals that people mix up; the label is in the file's name."""

from __future__ import annotations

import re
from pathlib import Path

from .dataset import Dataset
from .images import image_names, other_files
from .lists import Named, examples, needed, of_lists
from .options import Options

PAGE = "https://dm.kaist.ac.kr/datasets/animal-10n/"
SIDE = 64  # as published
CLASS_NAMES = (
    *("cat", "lynx", "wolf", "coyote", "cheetah"),
    *("jaguar", "chimpanzee", "orangutan", "hamster", "guinea pig"),
)
NAME = re.compile(r"(?P<label>\d)_.*")


def animal10n(options: Options) -> Dataset:
    """Read training/<label>_<number>.jpg and testing/ alike; the order is that of the names."""
    below, advice = (".", "raw_image"), f"download and unpack raw_image from {PAGE}"
    folders = [needed(options.directory, [name], below, advice) for name in ("training", "testing")]
    train, test = (_named(options.directory, folder) for folder in folders)
    side = SIDE if options.size is None else options.size
    return of_lists(
        "animal10n",
        CLASS_NAMES,
        examples(options.directory, train, side),
        examples(options.directory, test, side),
        options,
        augmentation="pad-crop-flip",
        passed=other_files(folders),
    )


def _named(root: Path, folder: Path) -> Named:
    found: Named = []
    for name in image_names(root, folder):
        match = NAME.fullmatch(Path(name).name)
        if match is None:
            raise ValueError(f"{root / name}: expected a name as 0_17.jpg, which begins with the label, from 0 to 9")
        found.append((name, int(match["label"])))
    if not found:
        raise ValueError(f"{folder}: expected <label>_<number>.jpg, found no images")
    return found
