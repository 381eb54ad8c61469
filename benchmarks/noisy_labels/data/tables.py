"""Files of labels as named columns: numpy's and torch's arrays, JSON, CSV and text; none of them can run code."""

from __future__ import annotations

import csv
import io
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .images import SUFFIXES
from .pickles import read_pickle

Array = npt.NDArray[Any]

FORMATS = (
    ".npy, .npz, .pt or .pickle with arrays or lists of numbers, by name or alone; .json with a list of numbers, lists "
    "by name, or a label for each file name; .csv or .tsv with a header or without; text with a label, or a file name "
    "and a label, a line"
)
WHOLE = ""  # the name of the only array of a file that gives it none
FILES = ("file", "filename", "filepath", "path", "image", "imagename", "imagepath", "imageid", "img", "imgpath", "key")
INDEX = ("", "index", "idx", "id", "unnamed:0", "imageindex")

_RECONSTRUCT = np.empty(0).__reduce__()[0]
_SCALAR = np.int64(0).__reduce__()[0]
# What an array of numbers is made of in a .pt file, under numpy's old name of its module and the new one.
_SAFE: list[Any] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"),
    *((_RECONSTRUCT, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


@dataclass(frozen=True, eq=False)
class Table:
    """A file of labels.

    Attributes:
        path: of the file.
        columns: its arrays by name, of numbers or of strings, of one or two dimensions.
        files: for each row the name of the file that it is about; or none.

    """

    path: Path
    columns: Mapping[str, Array]
    files: tuple[str, ...] = ()

    def says(self) -> str:
        """Write down what each column is."""
        return "; ".join(f"{name or 'one array'}: {_about(values)}" for name, values in self.columns.items())


def read_table(path: Path) -> Table:
    """Read a file of labels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds something else; the message names the formats.

    """
    if not path.is_file():
        raise FileNotFoundError(f"expected a label file, got {path}, which is not there")
    read = READERS.get(path.suffix.lower(), _read_text)
    try:
        return read(path)
    except Exception as error:  # by a damaged file: almost any error
        raise ValueError(f"{path}: not a readable label file: {error}. Expected {FORMATS}") from error


def whole_numbers(values: Array) -> npt.NDArray[np.int64] | None:
    """Read whole numbers of any type; -1 where there is nan; None if one is no whole number."""
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    if values.dtype.kind != "f":
        return None
    filled = np.where(np.isnan(values), -1, values)
    if not (np.isfinite(filled).all() and (filled == np.round(filled)).all()):
        return None
    return filled.astype(np.int64)


def _read_npy(path: Path) -> Table:
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        pickled = header(file)[2].hasobject
        if pickled:  # such as CIFAR-N's ordered labels, a dict
            return _named(path, _unpacked(read_pickle(file.read())))
    loaded = np.load(path, allow_pickle=False)
    if loaded.dtype.names:
        return _named(path, {name: loaded[name] for name in loaded.dtype.names})
    return _named(path, loaded)


def _read_npz(path: Path) -> Table:
    with np.load(path, allow_pickle=False) as archive:
        return _named(path, dict(archive))


def _read_pt(path: Path) -> Table:
    try:
        with torch.serialization.safe_globals(_SAFE):
            return _named(path, torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:  # whose message recommends to read the file in an unsafe way
        raise ValueError("it is damaged, or holds more than numbers") from error


def _read_pickle(path: Path) -> Table:
    return _named(path, _unpacked(read_pickle(path.read_bytes())))


def _read_json(path: Path) -> Table:
    return _named(path, json.loads(path.read_text(encoding="utf-8-sig")))


def _unpacked(loaded: Any) -> Any:
    """Take a dict or list out of the array without dimensions in which numpy saves it."""
    return loaded.item() if isinstance(loaded, np.ndarray) and loaded.shape == () else loaded


def _named(path: Path, loaded: Any) -> Table:
    """Make columns of what a file holds: one array, arrays by name, or a label for each file name."""
    if not isinstance(loaded, Mapping):
        column = _column(loaded)
        if column is None:
            raise ValueError(f"expected numbers, got {type(loaded).__name__}")
        return Table(path, {WHOLE: column})
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in loaded]
    values = list(loaded.values())
    if values and all(isinstance(value, (int, float, str)) for value in values):
        return Table(path, {WHOLE: np.array(values)}, tuple(names))
    columns = {name: _column(value) for name, value in zip(names, values, strict=True)}
    kept = {name: column for name, column in columns.items() if column is not None}
    if not kept:
        raise ValueError(f"expected arrays or lists of numbers, got {', '.join(names) or 'nothing'}")
    return Table(path, kept)


def _column(value: Any) -> Array | None:
    """Turn a tensor, an array or a list into an array of numbers or strings; None if it is something else."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        value = value.numpy() if value.dtype != torch.bfloat16 else value.float().numpy()
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        return None
    if array.dtype == object and array.ndim == 1 and array.size:
        array = np.array(array.tolist())  # an array that pandas or pickle made of objects
    return array if array.dtype.kind in "iufbU" and array.ndim in (1, 2) else None


def _read_csv(path: Path) -> Table:
    text = path.read_text(encoding="utf-8-sig")
    first = text.split("\n", 1)[0]
    separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=separator) if row]  # [""] is a cell without a label
    return _rows(path, [[cell.strip() for cell in row] for row in rows])


def _read_text(path: Path) -> Table:
    """Read lines as numpy writes them, or of a file name and a label."""
    text = path.read_text(encoding="utf-8-sig")
    if "..." in text and "[" in text:
        raise ValueError("numpy left out its middle: write it by np.savetxt")
    lines = [line.split("#")[0].replace("[", " ").replace("]", " ").strip() for line in text.splitlines()]
    separator = "," if any("," in line for line in lines) else None
    rows = [[cell.strip() for cell in line.rstrip(",").split(separator)] for line in lines if line]
    if "[" in text and len({len(row) for row in rows}) > 1:  # an array that numpy printed over several lines
        rows = [[cell] for row in rows for cell in row]
    elif separator is None and rows and any(len(row) != len(rows[0]) for row in rows):
        rows = [[" ".join(row[:-1]), row[-1]] for row in rows]  # spaces in the names
    return _rows(path, rows)


def _rows(path: Path, rows: Sequence[Sequence[str]]) -> Table:
    """Make columns of rows of cells, the first of which may be a header."""
    if not rows:
        raise ValueError("it is empty")
    header = _is_header(rows[0])
    names = list(rows[0]) if header else [f"column {i}" for i in range(1, len(rows[0]) + 1)]
    body = rows[1:] if header else rows
    for number, row in enumerate(body, start=1 + header):
        if len(row) != len(names):
            raise ValueError(f"line {number}: expected {len(names)} columns, got {len(row)}")
    if len(set(names)) != len(names):
        raise ValueError(f"expected columns of different names, got {', '.join(names)}")
    columns = {name: _cells([row[i] for row in body]) for i, name in enumerate(names)}
    if not header and len(columns) > 1 and all(cells.dtype.kind == "f" for cells in columns.values()):
        return Table(path, {WHOLE: np.stack(list(columns.values()), axis=1)})  # an array of two dimensions
    files = next((name for name, cells in columns.items() if _names_files(name, cells, header)), None)
    named = tuple(columns.pop(files).tolist()) if files is not None else ()
    return Table(path, columns if files is not None or not header else _in_order(columns), named)


def _is_header(row: Sequence[str]) -> bool:
    """Tell a header from labels: no number and no image's name in it."""
    return not any(_number(cell) is not None or cell.lower().endswith(SUFFIXES) for cell in row if cell)


def _names_files(name: str, cells: Array, header: bool) -> bool:
    if cells.dtype.kind != "U":
        return False
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    return (header and plain in FILES) or all(cell.lower().endswith(SUFFIXES) for cell in cells.tolist())


def _in_order(columns: Mapping[str, Array]) -> dict[str, Array]:
    """Leave out a column that counts the rows, as pandas writes one, after putting the rows in its order."""
    index = next(iter(columns))
    values = columns[index]
    plain = index.lower().replace(" ", "").replace("_", "")
    if len(columns) == 1 or plain not in INDEX or values.dtype.kind != "f":
        return dict(columns)
    order = np.argsort(values, kind="stable")
    if not np.array_equal(values[order], np.arange(len(values))):
        return dict(columns)
    return {name: cells[order] for name, cells in columns.items() if name != index}


def _cells(cells: Sequence[str]) -> Array:
    """Read cells as numbers, nan where one is empty; as strings if one is no number."""
    numbers = [_number(cell) if cell else np.nan for cell in cells]
    return np.array(cells) if any(number is None for number in numbers) else np.array(numbers, dtype=np.float64)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _about(values: Array) -> str:
    shape = " x ".join(f"{size:,}" for size in values.shape)
    kind = {"U": "names", "f": "numbers", "b": "True or False"}.get(values.dtype.kind, "whole numbers")
    if values.dtype.kind == "f" and np.equal(np.mod(values[np.isfinite(values)], 1), 0).all():
        kind = "whole numbers"
    if not values.size or values.dtype.kind in "Ub":
        return f"{shape} {kind}"
    return f"{shape} {kind} from {np.nanmin(values):g} to {np.nanmax(values):g}"


READERS: dict[str, Callable[[Path], Table]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".pt": _read_pt,
    ".pth": _read_pt,
    ".pkl": _read_pickle,
    ".pickle": _read_pickle,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
}
