"""Runs on disk: each has a folder of its own, from which it goes on when it was stopped.

    config.json      all that decides the run, and the versions it was run with; no paths
    checkpoint.pt    network, loss and optimizer after a measured epoch, the last one in the end
    history.csv      a line for each measured epoch up to there
    result.json      at the end: the columns of the paper's table

Every file is written beside its place and then moved there, so that none is ever half-written.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pickle
import re
import zipfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from .measures import Measures
from .task import Task
from .training import Recipe, Result, State


def folder_of(out: Path, task: Task, recipe: Recipe) -> Path:
    """Name the folder of a run."""
    loss = re.sub(r"[^a-z0-9.]+", "-", recipe.name.lower()).strip("-")
    return out / f"{task.name}-{loss}-lr{recipe.learning_rate:g}" / f"seed{recipe.seed}"


def summary(result: Result) -> dict[str, float | None]:
    """Return the columns of the paper's table, None for what could not be measured."""
    final = result.final
    columns = {"test_best": result.best_test, "test_final": final.test, "validation": final.validation}
    columns |= {name: getattr(final, name) for name in ("noisy_fit", "clean_fit", "hybrid", "fit")}
    return {name: None if math.isnan(value) else value for name, value in columns.items()} | {"auc": result.auc}


def finish(folder: Path, result: Result) -> None:
    """Mark a run as finished."""
    _write_json(folder / "result.json", summary(result))


def read(folder: Path) -> tuple[dict[str, Any], tuple[Measures, ...], float | None]:
    """Read the configuration, the history and the AUC of a finished run."""
    config = json.loads((folder / "config.json").read_text())
    auc = json.loads((folder / "result.json").read_text())["auc"]
    return config, read_history((folder / "history.csv").read_text()), auc


def write_history(history: Sequence[Measures]) -> str:
    """Write CSV, empty where nothing could be measured; the numbers can be read back exactly."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Measures)])
    for measures in history:
        writer.writerow(["" if math.isnan(value) else repr(value) for value in vars(measures).values()])
    return text.getvalue()


def read_history(text: str) -> tuple[Measures, ...]:
    """Read what `write_history` wrote."""
    rows = csv.DictReader(io.StringIO(text))
    return tuple(
        Measures(
            **{name: int(value) if name == "epoch" else float(value or "nan") for name, value in row.items()}  # type: ignore[arg-type]
        )
        for row in rows
    )


def claim(folder: Path, config: dict[str, Any]) -> None:
    """Write the configuration into a new folder; refuse a folder that has another."""
    path = folder / "config.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(path, config)
        return
    stored = json.loads(path.read_text())
    stored["recipe"] = {"optimizer": "sgd", "mixup": 0.0} | stored["recipe"]  # runs of before there was a choice
    found = [line for part in ("task", "recipe") for line in _differences(stored[part], config[part])]
    if not found and stored["labels_sha256"] != config["labels_sha256"]:
        found = ["the labels: there are others in the data or in the label file"]
    if not (folder / "result.json").exists():  # a finished run stands, whatever ran it
        found += _differences(stored["versions"], config["versions"])
    if found:
        raise ValueError(
            f"{folder} holds a run with other settings: {'; '.join(found)}. Choose another --out, or delete that folder"
        )


def _differences(stored: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    names = dict.fromkeys([*stored, *asked])
    return [
        f"{name} is {stored.get(name)} there, got {asked.get(name)}"
        for name in names
        if stored.get(name) != asked.get(name)
    ]


def save_state(folder: Path, state: State) -> None:
    """Write what a run goes on from."""
    _write(folder / "history.csv", write_history(state.history).encode())
    content = io.BytesIO()
    torch.save({"history": write_history(state.history), "parts": state.parts}, content)
    _write(folder / "checkpoint.pt", content.getvalue())


def load_state(folder: Path) -> State | None:
    """Read what a run goes on from; None if it has not come that far."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return State(read_history(content["history"]), content["parts"])
    except (RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = str(error).partition(". ")[0] or type(error).__name__  # torch goes on to advise unsafe loading
        raise ValueError(f"{path} is damaged ({reason}): delete it, and the run starts anew") from error


def _write_json(path: Path, content: object) -> None:
    _write(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
