"""Lists of images and labels, one a line, as data sets publish them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from .dataset import Dataset, Examples, Held, Published, held_out
from .images import ImageFiles, pick
from .options import Options, as_labels, check_labels, tenth

Named = list[tuple[str, int]]  # files and their labels


def read_list(path: Path, num_classes: int, separator: str | None = None, header: str = "") -> Named:
    """Read lines of a file name and a label; blank lines are passed over.

    Args:
        path: of the list.
        num_classes: labels are below it.
        separator: between name and label; by default the last white space of the line.
        header: what the first line begins with if it is none of them.

    """
    found: Named = []
    for number, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        line = text.strip()
        if not line or (number == 1 and header and line.startswith(header)):
            continue
        name, label = line.rsplit(separator, 1) if len(line.rsplit(separator, 1)) == 2 else (line, "")
        value = _whole(label)
        if value is None:
            raise ValueError(f"{path}, line {number}: expected a file name and a label, got {text!r}")
        found.append((name.strip(), value))
    if not found:
        raise ValueError(f"{path}: expected images and their labels, a line for each, got none")
    check_labels(as_labels([label for _, label in found]), num_classes, path)
    return found


def read_names(path: Path, header: str = "") -> list[str]:
    """Read a list of names, one a line; blank lines, and a first line that begins as header, are passed over."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    if lines and header and lines[0].startswith(header):
        lines = lines[1:]
    return [line for line in lines if line]


def find(root: Path, names: Sequence[str], below: Iterable[str] = (".",)) -> Path | None:
    """Find the first of several names of a file or folder, in the directory or below it."""
    places = (root / folder / name for folder in below for name in names)
    return next((path for path in places if path.exists()), None)


def needed(root: Path, names: Sequence[str], below: Iterable[str], advice: str) -> Path:
    """Do what `find` does; say what was expected if there is nothing."""
    found = find(root, names, below)
    if found is None:
        raise FileNotFoundError(f"expected {' or '.join(names)} in {root}: {advice}")
    return found


def examples(root: Path, named: Sequence[tuple[str, int]], side: int) -> Examples:
    """Make examples of images in files and their labels."""
    images = ImageFiles(root, tuple(name for name, _ in named), (side, side))
    return Examples(images, as_labels([label for _, label in named]))


def of_lists(
    name: str,
    class_names: Sequence[str],
    train: Examples,
    test: Examples,
    options: Options,
    validation: Examples | None = None,
    *,
    truth_known: bool = False,
    augmentation: str = "crop-flip",
    passed: Sequence[str] = (),
) -> Dataset:
    """Make a data set of a training list and a test list; without a validation list a part of training is held out.

    Args:
        name: as in DATASETS.
        class_names: one for each class.
        train: from image files, in the published order.
        test: with labels to measure by.
        options: validation says how many to hold out, by default a tenth, at most 5,000.
        validation: a part of its own.
        truth_known: whether the training labels are taken for the truth.
        augmentation: one of augment.KINDS.
        passed: what was passed over, and why.

    """
    assert isinstance(train.inputs, ImageFiles)
    rows, held = torch.arange(len(train)), {}
    whole = train
    if validation is None:
        count = min(tenth(len(train)), 5_000) if options.validation is None else options.validation
        rows, chosen = held_out(train.labels, count, options.seed)
        validation = whole.subset(chosen)
        held = {} if truth_known else {"validation": Held(pick(train.inputs.names, chosen), chosen)}
    return Dataset(
        name,
        len(class_names),
        whole.subset(rows),
        validation,
        test,
        class_names=tuple(class_names),
        truth_known=truth_known,
        files=pick(train.inputs.names, rows),
        augmentation=augmentation,
        published=Published(whole.labels, rows, train.inputs.names),
        held=held,
        passed=tuple(passed),
    )


def _whole(text: str) -> int | None:
    """Read a whole number, also one written as 3.0; None if it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None
