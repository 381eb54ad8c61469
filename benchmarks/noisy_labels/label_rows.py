"""Which example each row of a label file is about: by the names of files in it, or by the order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .annotators import IntArray
from .data.tables import Table, read_table, whole_numbers


@dataclass(frozen=True, eq=False)
class Examples:
    """What labels are given to: the whole training set, as published.

    Attributes:
        labels: (N,) int64, of the data set.
        num_classes: C.
        names: of the classes, or none.
        files: of the examples, or none.

    """

    labels: IntArray
    num_classes: int
    names: Sequence[str] = ()
    files: Sequence[str] = ()


def rows_of(table: Table, examples: Examples) -> IntArray:
    """Return which example each row of the file is about: by its names of files, else by the order."""
    if not table.files:
        return np.arange(len(examples.labels))
    if examples.files:
        return _by_name(table, examples.files)
    return _by_number(table, examples)


def _by_name(table: Table, files: Sequence[str]) -> IntArray:
    """Match the file's names with the data set's, by as much of their ends as tells them apart."""
    places = {name: row for row, name in enumerate(files)}
    ends: dict[str, int] = {}
    for row, name in enumerate(files):
        parts = name.split("/")
        for i in range(len(parts)):
            end = "/".join(parts[i:])
            ends[end] = -1 if end in ends else row
    found = []
    for name in table.files:
        parts = name.replace("\\", "/").split("/")
        tried = ["/".join(parts[i:]) for i in range(len(parts))]
        found.append(next((row for end in tried if (row := places.get(end, ends.get(end, -1))) >= 0), -1))
    unknown = [name for name, row in zip(table.files, found, strict=True) if row < 0]
    if unknown:
        raise ValueError(
            f"{table.path}: expected names of the data set's training images, such as {files[0]}; {len(unknown):,} of "
            f"{len(table.files):,} are none, or could be several, such as {unknown[0]}"
        )
    return _once(table, np.array(found))


def _by_number(table: Table, examples: Examples) -> IntArray:
    """Read names as confident learning's files have them for CIFAR: .../airplane/10008_airplane.png."""
    matches = [
        re.fullmatch(r"(\d+)(?:_(.+))?\.\w+", name.replace("\\", "/").rsplit("/", 1)[-1]) for name in table.files
    ]
    if not all(matches):
        wrong = next(name for name, match in zip(table.files, matches, strict=True) if not match)
        raise ValueError(f"{table.path}: expected names as 10008_airplane.png, the data set has no files; got {wrong}")
    rows = np.array([int(match[1]) for match in matches if match])
    if rows.max(initial=-1) >= len(examples.labels):
        raise ValueError(f"{table.path}: expected numbers below {len(examples.labels)}, got {rows.max()}")
    names = [str(name) for name in examples.names]
    differing = sum(
        match[2] is not None and match[2] in names and names.index(match[2]) != label
        for match, label in zip(matches, examples.labels[rows].tolist(), strict=True)
        if match
    )
    if differing:
        raise ValueError(f"{table.path}: {differing:,} names have another class than the image of their number")
    return _once(table, rows)


def _once(table: Table, rows: IntArray) -> IntArray:
    if len(np.unique(rows)) != len(rows):
        raise ValueError(f"{table.path}: expected each image once, got {len(rows) - len(np.unique(rows)):,} again")
    return rows


def read_order(path: Path, count: int) -> IntArray:
    """Read the order of a label file's rows: the number of the example of each, (count,) int64."""
    table = read_table(path)
    columns = list(table.columns.values())
    order = whole_numbers(columns[0]) if len(columns) == 1 else None
    if order is None or order.shape != (count,) or not np.array_equal(np.sort(order), np.arange(count)):
        raise ValueError(f"{path}: expected an order, each number from 0 to {count - 1} once; it has {table.says()}")
    return order
