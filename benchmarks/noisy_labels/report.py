"""Finished runs as tables, pictures and a section of a README: what `report` writes."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

import imae_ext
from imae_ext.formulas import Formula

from . import archive
from .archive import Archive, StoredRun
from .figures import training_curves, weight_curves
from .losses import label
from .search import search_table
from .table import WITH_AUC, by_loss, markdown_table, paper_rows, seeds_text, text_table
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


@dataclass(frozen=True)
class Section:
    """Runs of one task that were trained alike: a table and a picture.

    Attributes:
        title: of both.
        name: of the picture's file.
        results: in the order of the losses, then of the seeds.

    """

    title: str
    name: str
    results: tuple[Result, ...]


def sections(found: Archive, *, searching: bool = False) -> list[Section]:
    """Put the runs together that differ in loss, rate and seed alone."""
    alike: dict[tuple[Task, Recipe], list[Result]] = {}
    for run in found.runs:
        if run.searching == searching:
            alike.setdefault((run.task, _setting(run.result.recipe)), []).append(run.result)
    made: list[Section] = []
    for number, ((task, recipe), results) in enumerate(alike.items()):
        seeds = len({result.recipe.seed for result in results})
        title = f"{task.title}, {recipe.epochs} epochs, {seeds_text(seeds)}"
        name = f"{found.name}-{task.name}"
        again = any(section.name == name for section in made)
        made.append(Section(title, f"{name}-{number}" if again else name, tuple(results)))
    return made


def write(paths: Sequence[Path], to: Path, pictures: Path, readme: Path | None) -> str:
    """Write table.txt, .md, .csv, runs.csv and the pictures; return the table as text.

    Args:
        paths: folders of runs, or files that `archive` wrote; each has tables of its own.
        to: folder of the tables.
        pictures: folder of the pictures.
        readme: a file whose part between the markers is replaced.

    """
    archives = [archive.load(path) for path in paths]
    runs = [run for one in archives for run in one.runs]
    if not runs:
        raise FileNotFoundError(f"expected finished runs in {', '.join(map(str, paths))}, got none")
    final = [section for one in archives for section in sections(one)]
    searched = [section for one in archives for section in sections(one, searching=True)]
    to.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join(_text(section) for section in final)
    (to / "table.txt").write_text("\n".join([text, "", *NOTES, ""]))
    (to / "table.md").write_text("\n\n".join([*map(markdown, final), _notes()]) + "\n")
    _write_csv(to / "table.csv", _table_lines(final))
    _write_csv(to / "runs.csv", _run_lines(runs))
    if searched:
        tables = (f"{section.title}\n\n{search_table(section.results)}\n" for section in searched)
        (to / "search.txt").write_text("\n".join(tables))
    pictures.mkdir(parents=True, exist_ok=True)
    for section in final:
        training_curves(section.results, pictures / f"{section.name}.png", section.title)
    weighed = _draw_weights(archives, pictures)
    if readme:
        commands = dict.fromkeys(command for one in archives for command in one.commands)
        _fill(readme, _section_of_readme(final, list(commands), pictures, weighed, readme.parent))
    return text


def _setting(recipe: Recipe) -> Recipe:
    """Return the recipe without what may differ within a table."""
    return replace(
        recipe, name="", formula=imae_ext.CCE(), learning_rate=1.0, seed=0, reduction="mean", use_reference=False
    )


def _text(section: Section) -> str:
    table = text_table(HEADER, paper_rows(section.results, WITH_AUC))
    return "\n".join([section.title, "", table, *([PLAIN_NOTE] if _has_plain(section) else [])])


def markdown(section: Section) -> str:
    """Write a section's table in Markdown, under its title."""
    table = markdown_table(HEADER, paper_rows(section.results, WITH_AUC))
    notes = [PLAIN_NOTE.replace("*", "\\*", 1)] if _has_plain(section) else []
    return "\n\n".join([f"**{section.title}**", table, *notes])


def _has_plain(section: Section) -> bool:
    return any(not isinstance(result.recipe.formula, Formula) for result in section.results)


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
    made = "fused" if isinstance(recipe.formula, Formula) else "plain PyTorch"
    return {"loss": recipe.name.rstrip("*"), "made": made, "rate": f"{recipe.learning_rate:g}"}


def _write_csv(path: Path, lines: Iterable[dict[str, object]]) -> None:
    rows = list(lines)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _draw_weights(archives: Sequence[Archive], folder: Path) -> list[Path]:
    """Draw the weights of losses that weigh examples, two or more, once for archives that have the same ones."""
    drawn: dict[frozenset[str], Path] = {}
    for one in archives:
        recipes = [run.result.recipe for run in one.runs]
        formulas = {label(recipe.formula): recipe.formula for recipe in recipes if isinstance(recipe.formula, Formula)}
        weighing = {name: formula for name, formula in formulas.items() if not formula.needs_all_logits}
        if len(weighing) > 1 and frozenset(weighing) not in drawn:
            drawn[frozenset(weighing)] = path = folder / f"{one.name}-weights.png"
            weight_curves(weighing, path)
    return list(drawn.values())


def _section_of_readme(
    found: Sequence[Section], commands: Sequence[str], pictures: Path, weighed: Sequence[Path], base: Path
) -> str:
    def picture(path: Path, about: str) -> str:
        return f"![{about}]({Path(os.path.relpath(path, base)).as_posix()})"

    parts = ["\n".join(["```", *commands, "```"])]
    for section in found:
        parts += [markdown(section), picture(pictures / f"{section.name}.png", section.title)]
    return "\n\n".join([*parts, _notes(), *(picture(path, "Weights of the losses") for path in weighed)])


def _fill(readme: Path, section: str) -> None:
    """Put the section between the markers of a file that has both."""
    text = readme.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{readme}: expected one {BEGIN} and, after it, one {END}")
    head, rest = text.split(BEGIN)
    readme.write_text(f"{head}{BEGIN}\n{section}\n{END}{rest.split(END)[1]}")
