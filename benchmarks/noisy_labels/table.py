"""Results as text: the paper's table, with mean and spread over the seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from .training import Recipe, Result


def paper_table(results: Sequence[Result]) -> str:
    """Write the columns of the paper's Table 6, in percent, one row for each loss and rate.

    The spread is the standard deviation over the seeds; with one seed there is none.
    """
    rows = []
    for group in by_loss(results):
        finals = [result.final for result in group]
        rows.append(
            [
                group[0].recipe.name,
                f"{group[0].recipe.learning_rate:g}",
                mean_and_spread(result.best_test for result in group),
                mean_and_spread(final.test for final in finals),
                mean_and_spread(final.noisy_fit for final in finals),
                mean_and_spread(final.clean_fit for final in finals),
                mean_and_spread(final.hybrid for final in finals),
            ]
        )
    return text_table(["loss", "rate", "test best", "test final", "noisy fit", "clean fit", "hybrid"], rows)


def by_loss(results: Iterable[Result]) -> list[list[Result]]:
    """Put the results that differ in nothing but the seed together, in order of first appearance."""
    groups: dict[tuple[str, float], list[Result]] = {}
    for result in results:
        groups.setdefault(_loss_and_rate(result.recipe), []).append(result)
    return list(groups.values())


def mean_and_spread(values: Iterable[float]) -> str:
    """Write mean ± standard deviation with one decimal; the mean alone for a single value."""
    values = list(values)
    spread = f" ± {stdev(values):4.1f}" if len(values) > 1 else ""
    return f"{fmean(values):.1f}{spread}"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align cells in columns under a header: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [_line(header, widths), "  ".join("-" * width for width in widths)]
    return "\n".join(lines + [_line(row, widths) for row in rows])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = [
        cell.ljust(width) if i == 0 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join([first, *rest]).rstrip()


def _loss_and_rate(recipe: Recipe) -> tuple[str, float]:
    return recipe.name, recipe.learning_rate
