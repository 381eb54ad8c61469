"""Arrays and labels from npy, npz and csv files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .inputs import Array

SUFFIXES = (".npy", ".npz", ".csv")


def read_numbers(path: Path, key: str | None = None, leave_out: str | None = None) -> Array:
    """Read a table of numbers (N, d); of a csv file all columns but leave_out."""
    if path.suffix.lower() != ".csv":
        return _read_numpy(path, key)
    header, rows = _read_csv(path)
    columns = [name for name in header if name != leave_out]
    table = np.empty((len(rows), len(columns)))
    for j, name in enumerate(columns):
        at = header.index(name)
        for i, row in enumerate(rows):
            try:
                table[i, j] = float(row[at])
            except ValueError:
                raise ValueError(
                    f"{path}: expected numbers, got {row[at]!r} in column {name!r}, line {i + 2}; leave the column out "
                    "or name it as the labels"
                ) from None
    return table


def read_labels(labels: str, features: Path, key: str | None = None) -> Array:
    """Read the labels (N,): from a file, or from the column of that name of the features' csv file."""
    path = Path(labels)
    if not path.exists() and features.suffix.lower() == ".csv" and path.suffix.lower() not in SUFFIXES:
        return _column(features, labels)
    if path.suffix.lower() != ".csv":
        return _read_numpy(path, key)
    header, _ = _read_csv(path)
    if key is None and len(header) > 1:
        raise ValueError(f"{path}: expected one column, got {', '.join(header)}: name one by --labels-key")
    return _column(path, key or header[0])


def _column(path: Path, name: str) -> Array:
    header, rows = _read_csv(path)
    if name not in header:
        raise ValueError(f"{path}: expected a column or a file {name!r}, got the columns {', '.join(header)}")
    cells = [row[header.index(name)].strip() for row in rows]
    empty = [i for i, cell in enumerate(cells) if not cell]
    if empty:
        raise ValueError(f"{path}: expected a label in each line, got none in line {empty[0] + 2}")
    try:
        return np.array([int(cell) for cell in cells])
    except ValueError:
        return np.array(cells)


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns, from the first line, and the cells of the others."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [line for line in csv.reader(file) if line]
    if len(lines) < 2:
        raise ValueError(f"{path}: expected a line of column names and a line for each example, got {len(lines)} lines")
    header, rows = [name.strip() for name in lines[0]], lines[1:]
    if all(_is_number(name) for name in header):
        raise ValueError(f"{path}: expected the names of the columns in the first line, got numbers: {lines[0][:5]}")
    if len(set(header)) < len(header):
        raise ValueError(f"{path}: expected columns of different names, got {', '.join(header)}")
    for i, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"{path}: expected {len(header)} cells, got {len(row)} in line {i + 2}")
    return header, rows


def _read_numpy(path: Path, key: str | None) -> Array:
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            names = list(found)
            if key is None and len(names) != 1:
                raise ValueError(f"expected one array, got {', '.join(names) or 'none'}: name one")
            if key is not None and key not in names:
                raise ValueError(f"expected an array {key!r}, got {', '.join(names) or 'none'}")
            array: npt.NDArray[np.generic] = found[names[0] if key is None else key]
            return array
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
