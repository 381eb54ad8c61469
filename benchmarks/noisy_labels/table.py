"""Results as text: the paper's table, with mean and spread over the seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, stdev

from .training import Recipe, Result

Columns = dict[str, Callable[[Result], float]]

# The columns of the paper's Table 6, in percent.
PAPER: Columns = {
    "test best": lambda result: result.best_test,
    "test final": lambda result: result.final.test,
    "noisy fit": lambda result: result.final.noisy_fit,
    "clean fit": lambda result: result.final.clean_fit,
    "hybrid": lambda result: result.final.hybrid,
}
WITH_AUC: Columns = {**PAPER, "AUC": lambda result: math.nan if result.auc is None else result.auc}


def paper_table(results: Sequence[Result], columns: Columns = PAPER) -> str:
    """Write the columns of the paper's Table 6, in percent, one row for each loss and rate.

    The spread is the standard deviation over the seeds; with one seed there is none.
    """
    return text_table(["loss", "rate", *columns], paper_rows(results, columns))


def paper_rows(results: Sequence[Result], columns: Columns) -> list[list[str]]:
    """Write the cells of `paper_table`."""
    return [
        [
            group[0].recipe.name,
            f"{group[0].recipe.learning_rate:g}",
            *(mean_and_spread(value(result) for result in group) for value in columns.values()),
        ]
        for group in by_loss(results)
    ]


def by_loss(results: Iterable[Result]) -> list[list[Result]]:
    """Put the results that differ in nothing but the seed together, in order of first appearance."""
    groups: dict[tuple[str, float], list[Result]] = {}
    for result in results:
        groups.setdefault(_loss_and_rate(result.recipe), []).append(result)
    return list(groups.values())


def mean_and_spread(values: Iterable[float]) -> str:
    """Write mean ± standard deviation with one decimal; the mean alone for a single value, "-" if one is missing."""
    values = list(values)
    if any(math.isnan(value) for value in values):
        return "-"
    spread = f" ± {stdev(values):4.1f}" if len(values) > 1 else ""
    return f"{fmean(values):.1f}{spread}"


def seeds_text(number: int) -> str:
    """Write "1 seed", "2 seeds"."""
    return f"{number} seed{'s' if number != 1 else ''}"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align cells in columns under a header: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [_line(header, widths), "  ".join("-" * width for width in widths)]
    return "\n".join(lines + [_line(row, widths) for row in rows])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown, numbers to the right."""
    rule = ["---", *("---:" for _ in header[1:])]
    escaped = [[cell.replace("*", "\\*") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *escaped])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = [
        cell.ljust(width) if i == 0 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join([first, *rest]).rstrip()


def _loss_and_rate(recipe: Recipe) -> tuple[str, float]:
    return recipe.name, recipe.learning_rate
