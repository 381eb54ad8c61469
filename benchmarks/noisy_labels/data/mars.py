"""MARS: pedestrians cut out of videos, sequences (tracklets) of each from several cameras; the classes are the persons.

MARS's own test is retrieval: it asks which sequences of bbox_test show the same person, and none of those
persons occurs in training. Classification needs known persons, so that validation and test here are held-out
tracklets of the training persons, and the accuracies are not the mAP and CMC of papers. bbox_test is not read.
"""

from __future__ import annotations

import re

import numpy as np
import torch

from .dataset import Dataset, Examples, Held, Published, held_out
from .images import ImageFiles, image_names, pick, subfolders
from .options import Options, as_labels, tenth

PAGE = "https://zheng-lab.cecs.anu.edu.au/Project/project_mars.html"
WIDTH = 128  # as published; images are twice as high
NAME = re.compile(r"(?P<tracklet>(?P<person>\d{4})C\dT\d{4})F\d{3,}\.jpg")


def mars(options: Options) -> Dataset:
    """Read bbox_train/<person>/<person>C<camera>T<tracklet>F<frame>.jpg.

    A tenth of the tracklets are for testing and another for validation, by person; options.validation counts
    tracklets. The frames of a tracklet look alike: they are all in the same part.
    """
    root, train_root = options.directory, options.directory / "bbox_train"
    if not train_root.is_dir():
        raise FileNotFoundError(f"expected bbox_train/ in {root}: download bbox_train.zip from {PAGE}")
    names = [name for person in subfolders(train_root) for name in image_names(root, person)]
    found = []
    for name in names:
        folder, file = name.split("/")[1:]
        match = NAME.fullmatch(file)
        if match is None or match["person"] != folder:
            raise ValueError(f"{root / name}: expected a name as {folder}C1T0001F001.jpg in this folder")
        found.append((match["person"], match["tracklet"]))
    if not found:
        raise ValueError(f"{train_root}: expected <person>/<images>, found no images")
    persons, labels = np.unique([person for person, _ in found], return_inverse=True)
    _, first, tracklet = np.unique([name for _, name in found], return_index=True, return_inverse=True)

    person_of = torch.from_numpy(labels[first])  # of each tracklet
    count = tenth(len(first)) if options.validation is None else options.validation
    rest, test = held_out(person_of, tenth(len(first)), options.seed)
    train, validation = held_out(person_of[rest], count, options.seed)
    train_rows, validation_rows, test_rows = (
        torch.from_numpy(np.flatnonzero(np.isin(tracklet, kept.numpy())))
        for kept in (rest[train], rest[validation], test)
    )
    width = WIDTH if options.size is None else options.size
    whole = Examples(ImageFiles(root, tuple(names), (2 * width, width)), as_labels(labels.tolist()))
    return Dataset(
        "mars",
        len(persons),
        whole.subset(train_rows),
        whole.subset(validation_rows),
        whole.subset(test_rows),
        class_names=tuple(persons.tolist()),
        truth_known=False,
        files=pick(names, train_rows),
        augmentation="crop-flip",
        published=Published(whole.labels, train_rows, tuple(names)),
        held={
            "validation": Held(pick(names, validation_rows), validation_rows),
            "test": Held(pick(names, test_rows), test_rows),
        },
    )
