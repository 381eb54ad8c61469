"""Many finished runs together: read from their folders, or from one small file that can be kept with the sources."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from . import store
from .losses import parse, rank
from .measures import Measures
from .task import Task
from .training import Recipe, Result

SEARCH = "search"  # the folder of the runs by which rates are chosen, apart from those that are reported
COMMANDS = "commands.txt"
SHOWN = 10  # runs named where one of them was expected
DIGITS = 7  # of a number in an archive


@dataclass(frozen=True)
class StoredRun:
    """A finished run.

    Attributes:
        task: what it was about.
        result: its recipe and what was measured.
        searching: whether it served to choose a rate.
        config: its config.json.

    """

    task: Task
    result: Result
    searching: bool
    config: dict[str, Any]


@dataclass(frozen=True)
class Archive:
    """Finished runs, the commands that made them, and what their folder or file is called."""

    name: str
    commands: tuple[str, ...]
    runs: tuple[StoredRun, ...]


def load(path: Path) -> Archive:
    """Read the finished runs of a folder, at any depth, or of a file that `save` wrote."""
    if path.is_dir():
        commands = (path / COMMANDS).read_text().splitlines() if (path / COMMANDS).exists() else []
        folders = [found.parent for found in path.glob("**/seed*/result.json")]
        runs = [read(folder, SEARCH in folder.relative_to(path.parent).parts) for folder in folders]
        return Archive(path.name, tuple(commands), tuple(sorted(runs, key=_place)))
    if not path.exists():
        raise FileNotFoundError(f"expected a folder of runs or a file of them, found no {path}")
    content = json.loads(path.read_text())
    return Archive(path.stem, tuple(content["commands"]), tuple(_unpack(**run) for run in content["runs"]))


def save(folder: Path, archive: Archive) -> Path:
    """Write runs into one file named after their folder, a line for each, numbers to DIGITS digits; return it."""
    lines = [json.dumps(_pack(run), separators=(",", ":")) for run in archive.runs]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{archive.name}.json"
    body = ",\n".join(lines)
    path.write_text(f'{{"commands": {json.dumps(archive.commands, indent=1)},\n"runs": [\n{body}\n]}}\n')
    return path


def record(out: Path, command: str) -> None:
    """Note a command that makes runs in a folder, once."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / COMMANDS
    known = path.read_text().splitlines() if path.exists() else []
    if command not in known:
        path.write_text("\n".join([*known, command, ""]))


def read(folder: Path, searching: bool = False) -> StoredRun:
    """Read one finished run, in the folder of its seed."""
    if not (folder / "result.json").exists():
        raise FileNotFoundError(f"{folder}: expected the folder of one finished run, {_instead(folder)}")
    config, history, auc = store.read(folder)
    return _stored(config, history, auc, searching)


def _instead(folder: Path) -> str:
    """Say what a folder is that holds no result of a run."""
    if not folder.is_dir():
        return "there is no such folder"
    if (folder / "config.json").exists():
        return "got one that has not come to its end"
    found = sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob("**/seed*/result.json"))
    if not found:
        return "found none there, nor below"
    more = f", ... ({len(found)} in all)" if len(found) > SHOWN else ""
    return f"got one above; below it there are {', '.join(found[:SHOWN])}{more}"


def _pack(run: StoredRun) -> dict[str, Any]:
    history = {
        field.name: [_brief(getattr(measures, field.name)) for measures in run.result.history]
        for field in fields(Measures)
    }
    auc = None if run.result.auc is None else _brief(run.result.auc)
    return {"config": run.config, "history": history, "auc": auc, "searching": run.searching}


def _unpack(config: dict[str, Any], history: dict[str, list[Any]], auc: float | None, searching: bool) -> StoredRun:
    columns = ([math.nan if value is None else value for value in column] for column in history.values())
    measures = tuple(Measures(**dict(zip(history, row, strict=True))) for row in zip(*columns, strict=True))
    return _stored(config, measures, auc, searching)


def _stored(config: dict[str, Any], history: tuple[Measures, ...], auc: float | None, searching: bool) -> StoredRun:
    recipe = Recipe(**config["recipe"] | {"formula": parse(config["recipe"]["formula"])})
    return StoredRun(Task(**config["task"]), Result(recipe, history, auc), searching, config)


def _place(run: StoredRun) -> tuple[object, ...]:
    recipe = run.result.recipe
    return run.task.name, rank(recipe.formula), recipe.name, recipe.learning_rate, recipe.seed


def _brief(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
