"""Your own images by a list: a file of names and labels, and the folder that the names start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .dataset import Dataset, Examples, Held, Published
from .images import ImageFiles, counted, is_image, pick
from .options import Options, as_labels, split_off
from .tables import Table, read_table

SIDE = 64
LABELS = ("label", "labels", "class", "classname", "class_name", "category", "target", "given_label", "y")
PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
PART_COLUMNS = ("split", "part", "set", "subset", "partition")
EXPECTED = "a column of file names, one of labels (called label, or the only other one), and perhaps split"


def listed(options: Options) -> Dataset:
    """Read the images that a table names; a part that it does not have is a tenth of the others, by class.

    The classes are the labels that occur, in alphabetical order, or as numbers. Nobody vouches for any of them.
    """
    if options.labels is None:
        raise ValueError("a list of images is read from a file: expected --labels FILE, got none")
    root, table = options.directory, read_table(options.labels)
    if not table.files:
        raise ValueError(f"{table.path}: expected {EXPECTED}; it has {table.says()}")
    texts = _texts(table)
    known = np.array([text != "" for text in texts])
    classes = _classes(sorted({text for text in texts if text}))
    if len(classes) < 2:
        raise ValueError(f"{table.path}: expected labels of 2 or more classes, got {', '.join(classes) or 'none'}")
    number = {name: label for label, name in enumerate(classes)}
    place = _places(root, table)
    names = [place[name] for name, fine in zip(table.files, known, strict=True) if fine]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{table.path}: expected each image once, got {twice} more than once")
    labels = as_labels([number[text] for text in texts if text])
    parts = _parts(table)[known]
    side = SIDE if options.size is None else options.size
    whole = Examples(ImageFiles(root, tuple(names), (side, side)), labels)
    own = {part: torch.from_numpy(np.flatnonzero(parts == part)) for part in ("train", "val", "test")}
    missing = [part for part in ("val", "test") if not len(own[part])]
    kept, chosen = split_off(labels[own["train"]], missing, options)
    rows = {part: own["train"][chosen[part]] if part in missing else own[part] for part in ("val", "test")}
    train = own["train"][kept]
    unlisted = sum(is_image(path) for path in root.rglob("*")) - len(set(place.values()))
    passed = [f"{counted(unlisted, 'image')} that the list does not name"] * (unlisted > 0)
    if not known.all():
        passed.append(f"{counted(int((~known).sum()), 'image')} without a label in the list")
    return Dataset(
        "list",
        len(classes),
        whole.subset(train),
        whole.subset(rows["val"]),
        whole.subset(rows["test"]),
        class_names=classes,
        truth_known=False,
        files=pick(names, train),
        augmentation="pad-crop",
        published=Published(labels, train, tuple(names)),
        held={
            "validation": Held(pick(names, rows["val"]), rows["val"]),
            "test": Held(pick(names, rows["test"]), rows["test"]),
        },
        passed=tuple(passed),
    )


def _texts(table: Table) -> list[str]:
    """Read the labels as text, empty where there is none."""
    others = [name for name in table.columns if name.lower() not in PART_COLUMNS]
    named = [name for name in others if name.lower().replace(" ", "_") in LABELS]
    found = named if len(named) == 1 else others
    if len(found) != 1 or table.columns[found[0]].ndim != 1:
        raise ValueError(f"{table.path}: expected {EXPECTED}; beside the file names it has {table.says() or 'nothing'}")
    values = table.columns[found[0]]
    if values.dtype.kind == "U":
        return [text.strip() for text in values.tolist()]
    return ["" if value != value or value == -1 else f"{value:g}" for value in values.tolist()]


def _classes(texts: list[str]) -> tuple[str, ...]:
    """Order numbers by their size, names by the alphabet."""
    return tuple(sorted(texts, key=float) if all(text.isdecimal() for text in texts) else texts)


def _parts(table: Table) -> np.ndarray:
    column = next((name for name in table.columns if name.lower() in PART_COLUMNS), None)
    if column is None:
        return np.full(len(table.files), "train")
    found = [str(text).lower() for text in table.columns[column].tolist()]
    wrong = next((text for text in found if text not in PARTS), None)
    if wrong is not None:
        raise ValueError(f"{table.path}: expected {column} out of {', '.join(PARTS)}, got {wrong!r}")
    return np.array([PARTS[text] for text in found])


def _places(root: Path, table: Table) -> dict[str, str]:
    """Find each name of the list in the folder: as it is, or by the end of its path if only one file has that."""
    if not root.is_dir():
        raise FileNotFoundError(f"expected a folder of images for the names in {table.path}: there is no {root}")
    ends: dict[str, list[str]] = {}
    found: dict[str, str] = {}
    for name in table.files:
        if not Path(name).is_absolute() and (root / name).is_file():
            found[name] = Path(name).as_posix()
            continue
        if not ends:
            for path in root.rglob("*"):
                if path.is_file():
                    ends.setdefault(path.name, []).append(path.relative_to(root).as_posix())
                    ends.setdefault(path.stem, []).append(path.relative_to(root).as_posix())
        alike = ends.get(Path(name.replace("\\", "/")).name, [])
        # A name that is nowhere, or in several places, stays as it is: it will be listed as an image that is not there.
        found[name] = alike[0] if len(alike) == 1 else name
    return found
