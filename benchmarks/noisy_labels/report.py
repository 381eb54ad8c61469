"""Finished runs as tables, pictures and a section of a README: what `report` writes."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import imae_ext
from imae_ext.formulas import Loss

from . import archive
from .archive import StoredRun
from .figures import training_curves, weight_curves
from .losses import label
from .search import search_table
from .table import WITH_AUC, by_loss, markdown_table, paper_rows, text_table
from .task import Task
from .training import Recipe, Result

HEADER = ["loss", "rate", *WITH_AUC]
PLAIN_NOTE = "* plain PyTorch; all other losses are imae_ext's fused kernels"
NOTES = (
    "mean ± standard deviation over the seeds, in percent, at the last epoch but for test best",
    "noisy fit: wrong training labels memorised; clean fit: right ones learned; hybrid: accuracy against the truth on"
    " training and test examples together",
    "AUC: how well a low probability of its label finds the wrong training labels; 50 is chance",
)
BEGIN, END = "<!-- noisy-labels:begin -->", "<!-- noisy-labels:end -->"


class Section:
    """The runs of one task that were trained alike: a table and a picture.

    Attributes:
        title: of both.
        name: of the picture's file.
        results: in the order of the losses, then of the seeds.

    """

    def __init__(self, task: Task, results: Sequence[Result]) -> None:
        recipe = results[0].recipe
        seeds = len({result.recipe.seed for result in results})
        self.title = f"{task.title}, {recipe.epochs} epochs, {seeds} seed{'s' if seeds > 1 else ''}"
        self.name = task.name
        self.results = list(results)

    @property
    def notes(self) -> list[str]:
        plain = any(not isinstance(result.recipe.formula, Loss) for result in self.results)
        return [PLAIN_NOTE] if plain else []


def sections(runs: Iterable[StoredRun]) -> list[Section]:
    """Put the runs together that differ in loss, rate and seed alone."""
    found: dict[tuple[Task, Recipe], list[Result]] = {}
    for run in runs:
        found.setdefault((run.task, _setting(run.result.recipe)), []).append(run.result)
    return [Section(task, results) for (task, _), results in found.items()]


def write(paths: Sequence[Path], to: Path, pictures: Path, readme: Path | None) -> str:
    """Write table.txt, .md, .csv, runs.csv and the pictures; return the table as text.

    Args:
        paths: folders of runs, or files that `archive` wrote.
        to: folder of the tables.
        pictures: folder of the pictures.
        readme: a file whose part between the markers is replaced.

    """
    archives = [archive.load(path) for path in paths]
    runs = [run for one in archives for run in one.runs]
    if not runs:
        raise FileNotFoundError(f"expected finished runs in {', '.join(map(str, paths))}, got none")
    final = sections(run for run in runs if not run.searching)
    to.mkdir(parents=True, exist_ok=True)
    pictures.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join(_text(section) for section in final)
    (to / "table.txt").write_text("\n".join([text, "", *NOTES, ""]))
    (to / "table.md").write_text("\n\n".join([*map(_markdown, final), _notes()]) + "\n")
    _write_csv(to / "table.csv", _table_lines(final))
    _write_csv(to / "runs.csv", _run_lines(runs))
    searched = sections(run for run in runs if run.searching)
    if searched:
        tables = (f"{section.title}\n\n{search_table(section.results)}\n" for section in searched)
        (to / "search.txt").write_text("\n".join(tables))
    drawn = _draw(final, pictures)
    if readme:
        commands = dict.fromkeys(command for one in archives for command in one.commands)
        _fill(readme, _section_of_readme(final, list(commands), drawn, readme.parent))
    return text


def _setting(recipe: Recipe) -> Recipe:
    """Return the recipe without what may differ within a table."""
    return replace(
        recipe, name="", formula=imae_ext.CCE(), learning_rate=1.0, seed=0, reduction="mean", use_reference=False
    )


def _text(section: Section) -> str:
    table = text_table(HEADER, paper_rows(section.results, WITH_AUC))
    return "\n".join([section.title, "", table, *section.notes])


def _markdown(section: Section) -> str:
    table = markdown_table(HEADER, paper_rows(section.results, WITH_AUC))
    notes = [note.replace("*", "\\*", 1) for note in section.notes]
    return "\n\n".join([f"**{section.title}**", table, *notes])


def _notes() -> str:
    return "\n".join(f"- {note}" for note in NOTES)


def _table_lines(found: Sequence[Section]) -> Iterator[dict[str, object]]:
    """Write the tables' numbers, mean and spread in columns of their own; nothing where nothing was measured."""
    for section in found:
        for group in by_loss(section.results):
            line: dict[str, object] = {"setting": section.title, **_about(group[0].recipe), "seeds": len(group)}
            for name, value in WITH_AUC.items():
                values = [value(result) for result in group]
                missing = any(math.isnan(one) for one in values)
                line[name] = "" if missing else f"{fmean(values):.2f}"
                line[f"{name} spread"] = "" if missing or len(values) < 2 else f"{stdev(values):.2f}"
            yield line


def _run_lines(runs: Sequence[StoredRun]) -> Iterator[dict[str, object]]:
    """Write the numbers of every run, those that searched for a rate included."""
    for run in runs:
        line: dict[str, object] = {"task": run.task.title, "for": "search" if run.searching else "table"}
        line |= _about(run.result.recipe) | {"seed": run.result.recipe.seed, "epochs": run.result.recipe.epochs}
        values = {"validation": run.result.final.validation}
        values |= {name: value(run.result) for name, value in WITH_AUC.items()}
        yield line | {name: "" if math.isnan(value) else f"{value:.2f}" for name, value in values.items()}


def _about(recipe: Recipe) -> dict[str, object]:
    made = "fused" if isinstance(recipe.formula, Loss) else "plain PyTorch"
    return {"loss": recipe.name.rstrip("*"), "made": made, "rate": f"{recipe.learning_rate:g}"}


def _write_csv(path: Path, lines: Iterable[dict[str, object]]) -> None:
    rows = list(lines)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _draw(found: Sequence[Section], folder: Path) -> list[Path]:
    """Draw the curves of each section, and the weights of all losses that weigh examples."""
    drawn = []
    formulas = {}
    for section in found:
        path = folder / f"{section.name}.png"
        drawn.append(path.with_stem(f"{path.stem}-{len(drawn)}") if path in drawn else path)
        training_curves(section.results, drawn[-1], section.title)
        for recipe in (result.recipe for result in section.results):
            if isinstance(recipe.formula, Loss) and recipe.formula.margin:
                formulas[label(recipe.formula)] = recipe.formula
    if formulas:
        drawn.append(folder / "weights.png")
        weight_curves(formulas, drawn[-1])
    return drawn


def _section_of_readme(found: Sequence[Section], commands: Sequence[str], drawn: Sequence[Path], base: Path) -> str:
    parts = ["\n".join(["```", *commands, "```"]), *map(_markdown, found), _notes()]
    links = (Path(os.path.relpath(path, base)).as_posix() for path in drawn)
    return "\n\n".join([*parts, *(f"![{Path(link).stem}]({link})" for link in links)])


def _fill(readme: Path, section: str) -> None:
    """Put the section between the markers of a file that has both."""
    text = readme.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{readme}: expected one {BEGIN} and, after it, one {END}")
    head, rest = text.split(BEGIN)
    readme.write_text(f"{head}{BEGIN}\n{section}\n{END}{rest.split(END)[1]}")
