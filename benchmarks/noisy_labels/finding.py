"""What `suspects` does: judge labels by finished runs, or train on a folder of images first and then judge."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from . import archive, job, judging, options, rules, suspects
from .data.folders import class_folders
from .data.images import counted, is_image
from .measures import Measures
from .names import FOLDS
from .runs import run_all
from .store import folder_of
from .task import Task
from .training import Recipe, Result

OF_FINISHED = ("paths", "to", "cutoff", "directory", "labels", "order", "meant", "skip_broken")


def find(given: argparse.Namespace, words: Sequence[str]) -> str:
    """Write the list of suspects; return what is to be said about it."""
    if not 0 < given.cutoff <= 1:
        raise ValueError(f"--cutoff: expected a probability above 0 and up to 1, got {given.cutoff:g}")
    folders = [folder for path in given.paths for folder in _finished(path)]
    lines = []
    if not folders:
        folders, places, said = _trained(given, words)
        lines += [said, ""]
    else:
        _refuse(given)
        places = Task(
            directory=given.directory,
            labels=given.labels,
            order=given.order,
            meant=given.meant,
            skip_broken=given.skip_broken,
        )
    ranking, runs = judging.rank(folders, places)
    given.to.parent.mkdir(parents=True, exist_ok=True)
    suspects.write_csv(given.to, ranking, given.cutoff)
    count = ranking.below(given.cutoff)
    about = f"have a label with a probability below {given.cutoff:g}: look at these"
    lines.append(f"{counted(len(ranking.p), 'image')}, the most suspect first, in {given.to}; {count:,} {about}")
    lines.append(judging.fit_line([run.result for run in runs]))
    auc = ranking.auc()
    if not math.isnan(auc):
        lines.append(f"AUC of finding the wrong ones: {100 * auc:.1f}%, chance being 50%")
    return "\n".join(lines)


def _finished(path: Path) -> list[Path]:
    """Find the finished runs at a path or below; none for a folder of images."""
    if (path / "result.json").exists():
        return [path]
    if (path / "config.json").exists():
        archive.read(path)  # says that it has not come to its end
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: expected a folder of images or of finished runs, there is no such folder")
    found = sorted(result.parent for result in path.glob("**/seed*/result.json"))
    if not found and not any(is_image(file) for file in path.rglob("*")):
        raise FileNotFoundError(
            f"{path}: expected a folder of images or of finished runs, found neither there nor below"
        )
    return [folder for folder in found if "estimate" not in folder.parts]


def _refuse(given: argparse.Namespace) -> None:
    """Refuse options of training for runs that are finished."""
    other = sorted(given.explicit - set(OF_FINISHED))
    if other:
        option = other[0].replace("loss_", "").replace("_", "-")
        raise ValueError(
            f"--{option}: it has no effect here, the runs are finished: expected a folder of images with it"
        )


def run_fold(task: Task, out: Path, recipe: Recipe, report: Callable[[Measures], None]) -> Result:
    """Train without the part that the seed names in turn."""
    return job.run(_held_out(task, recipe.seed), out, recipe, report)


def _held_out(task: Task, seed: int) -> Task:
    return replace(task, fold=f"{seed % FOLDS + 1}/{FOLDS}") if task.fold == f"each/{FOLDS}" else task


def _trained(given: argparse.Namespace, words: Sequence[str]) -> tuple[list[Path], Task, str]:
    """Train on a folder of images; return the folders of the runs, the task and what was read."""
    if len(given.paths) != 1:
        raise ValueError(f"expected one folder of images, or finished runs, got {', '.join(map(str, given.paths))}")
    path = given.paths[0]
    if given.directory is not None:
        raise ValueError(f"--directory {given.directory}: it has no effect here, the images are in {path}")
    given.directory = path
    if "data" not in given.explicit and given.labels is not None and len(class_folders(path)) < 2:
        given.data = "list"
    own_test = given.data == "folder" and (path / "test").is_dir()
    if given.all and given.fold:
        raise ValueError("expected --all or --fold, got both")
    each = not given.all and given.fold is None and not own_test
    given.fold = "none" if given.all or each else given.fold
    rules.check(given)
    task = options.task_of(given)
    task = (replace(task, fold=f"1/{FOLDS}") if each else task).checked()
    said = task.says()
    task = replace(task, fold=f"each/{FOLDS}") if each else task
    seeds = range(given.seeds * (FOLDS if each else 1))
    recipes = [options.recipe_of(given, options.loss_of(given), given.lr, seed) for seed in seeds]
    out = given.out or given.to.with_name(f"{given.to.stem}-runs")
    print(said, flush=True)
    run_all(partial(run_fold, task, out), recipes, options.processes_of(given))
    archive.record(out, options.command_of(words))
    folders = [folder_of(out, _held_out(task, recipe.seed), recipe) for recipe in recipes]
    return folders, task, f"Runs: {out}"
